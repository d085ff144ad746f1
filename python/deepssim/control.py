"""The control: what likeness looks like when copying is impossible."""

from __future__ import annotations

import numpy as np

from deepssim.matching import Control, Reference
from deepssim.parts import Ints


def draw_by_group(codes: Ints, n: int, seed: int) -> Ints:
    """Draw `n` positions by whole groups: persons in random order, the last one cut to fit.

    Images without a group count as a person each.

    Returns:
        ``(min(n, len(codes)),)`` ascending positions.
    """
    if n >= len(codes):
        return np.arange(len(codes), dtype=np.int64)
    persons = codes.copy()
    alone = persons < 0
    persons[alone] = persons.max(initial=-1) + 1 + np.arange(alone.sum())
    order = np.random.default_rng(seed).permutation(int(persons.max()) + 1)
    by_person = np.argsort(order[persons], kind="stable")
    return np.sort(by_person[:n]).astype(np.int64)


def draw_control(real: Reference, holdout: Reference, seed: int) -> Control:
    """Draw as many images of one set as the other has, and say what makes the holdout no control."""
    n = min(len(real), len(holdout))
    same = set(real.names) & set(holdout.names)
    hashes = set(real.table["pixel_hash"].to_pylist()) - {""}
    n_identical = sum(h in hashes for h in holdout.table["pixel_hash"].to_pylist())
    warnings = []
    if n_identical:
        warnings.append(
            f"{n_identical:,} holdout images are identical to real ones in every pixel: the holdout is no control "
            "until they are taken out."
        )
    if same:
        warnings.append(
            f"{len(same):,} groups have the same name in the real set and the holdout (such as {min(same)}): if they "
            "are the same persons, the holdout is no control."
        )
    if not (real.has_groups and holdout.has_groups):
        warnings.append("Without the patient of every image, sets of equal size are drawn by image.")
    drawn_real = real if n == len(real) else real.subset(draw_by_group(real.codes, n, seed))
    drawn_holdout = holdout if n == len(holdout) else holdout.subset(draw_by_group(holdout.codes, n, seed))
    return Control(drawn_real, drawn_holdout, seed, tuple(warnings))
