"""What matching found: parts of a run, and what they add up to by real image.

A pair has a *screening score*, the similarity of two embeddings. Its *value* is what decides: the screening score, or
S1 (`deepssim.image_ops.Evidence`) where pairs were verified in image space. Its *level* is 0 unrelated, 1 near, 2
exact.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepssim.disk import replacing
from deepssim.errors import StoreError
from deepssim.image_ops import Evidence, Transform

Ints = NDArray[np.int64]
Floats = NDArray[np.float32]
Levels = NDArray[np.int8]

EVIDENCE_FIELDS = (*(f.name for f in fields(Evidence)), "ssim", "fsim", *(f.name for f in fields(Transform)))
"""What `Part.evidence` says of a pair, by its last axis; the transform moves the real image."""
S1, S2 = EVIDENCE_FIELDS.index("s1"), EVIDENCE_FIELDS.index("s2")


def evidence_of(row: Floats) -> tuple[Evidence, Transform]:
    """Read the last axis of `Part.evidence`."""
    named = dict(zip(EVIDENCE_FIELDS, row.tolist(), strict=True))
    transform = Transform(
        **{f.name: named[f.name] for f in fields(Transform)} | {"is_mirrored": named["is_mirrored"] > 0}
    )
    return Evidence(**{f.name: named[f.name] for f in fields(Evidence)}), transform


@dataclass(slots=True)
class Part:
    """The answer for a run of synthetic rows.

    Pairs of a synthetic row come best first: by value, then by lower real position.

    Attributes:
        first_row: Number of the first synthetic row.
        scores: ``(n, k)`` screening scores of the nearest pairs, -inf where there is none.
        rows: ``(n, k)`` their positions in the real set, -1 where there is none.
        levels: ``(n, k)`` their levels.
        screening_ranks: ``(n, k)`` their places by screening score, from 1.
        evidence: ``(n, k, n_fields)`` by `EVIDENCE_FIELDS`, NaN where there is no pair; ``(n, k, 0)`` if pairs were not
            verified.
        listed_queries: ``(m,)`` index within the part of each pair that is near or exact.
        listed_rows: ``(m,)`` its real position.
        listed_scores: ``(m,)`` its screening score.
        listed_levels: ``(m,)`` its level.
        listed_evidence: ``(m, n_fields)``, ``(m, 0)`` if pairs were not verified.
        tally_rows: ``(t,)`` real positions of near or exact pairs.
        tally_counts: ``(t, 2)`` how often: pairs that are at least near, and exact ones.
        tally_values: ``(t,)`` best value of each.
        tally_queries: ``(t,)`` number of the synthetic row that has it.
        control_values: ``(n, 2)`` best value in the size-matched real set and in the holdout; ``(0, 2)`` without a
            holdout.
        control_levels: The same shape: levels.
        control_rows: The same shape: positions in the two sets.
    """

    first_row: int
    scores: Floats
    rows: Ints
    levels: Levels
    screening_ranks: Ints
    evidence: Floats
    listed_queries: Ints
    listed_rows: Ints
    listed_scores: Floats
    listed_levels: Levels
    listed_evidence: Floats
    tally_rows: Ints
    tally_counts: Ints
    tally_values: Floats
    tally_queries: Ints
    control_values: Floats
    control_levels: Levels
    control_rows: Ints

    def __len__(self) -> int:
        return len(self.scores)

    @property
    def is_verified(self) -> bool:
        """Whether values are S1 and levels come from the images."""
        return bool(self.evidence.shape[2] > 0)

    @property
    def values(self) -> Floats:
        """What decides, ``(n, k)``; -inf where there is no pair."""
        if not self.is_verified:
            return self.scores
        return np.where(self.rows >= 0, self.evidence[:, :, S1], np.float32(-np.inf))

    def write(self, path: Path) -> None:
        """Write as ``.npz``, atomically."""
        with replacing(path) as temporary, temporary.open("wb") as file:
            arrays: dict[str, Any] = {f.name: np.asarray(getattr(self, f.name)) for f in fields(self)}
            np.savez(file, **arrays)

    @classmethod
    def read(cls, path: Path) -> Part:
        """Read what `write` wrote."""
        try:
            with np.load(path, allow_pickle=False) as data:
                values: dict[str, Any] = {f.name: data[f.name] for f in fields(cls)}
        except (OSError, ValueError, KeyError) as error:
            raise StoreError(f"{path} is damaged: {error}; delete it and start again") from error
        values["first_row"] = int(values["first_row"])
        return cls(**values)

    @classmethod
    def empty(cls, first_row: int, k: int, *, is_verified: bool) -> Part:
        """Return the answer for no rows."""
        n_fields = len(EVIDENCE_FIELDS) if is_verified else 0

        def floats(*shape: int) -> Floats:
            return np.zeros(shape, np.float32)

        def ints(*shape: int) -> Ints:
            return np.zeros(shape, np.int64)

        def levels(*shape: int) -> Levels:
            return np.zeros(shape, np.int8)

        return cls(
            first_row, floats(0, k), ints(0, k), levels(0, k), ints(0, k), floats(0, k, n_fields),
            ints(0), ints(0), floats(0), levels(0), floats(0, n_fields),
            ints(0), ints(0, 2), floats(0), ints(0),
            floats(0, 2), levels(0, 2), ints(0, 2),
        )  # fmt: skip

    @classmethod
    def join(cls, pieces: list[Part]) -> Part:
        """Return consecutive pieces as one part."""
        joined: dict[str, Any] = {"first_row": pieces[0].first_row}
        for f in fields(cls):
            if f.name == "first_row":
                continue
            arrays = [getattr(piece, f.name) for piece in pieces]
            if f.name == "listed_queries":
                arrays = [a + piece.first_row - pieces[0].first_row for a, piece in zip(arrays, pieces, strict=True)]
            joined[f.name] = np.concatenate(arrays)
        return cls(**joined)


def levels_by_score(scores: Floats, cuts: tuple[float, float]) -> Levels:
    """Return the level of each screening score.

    Args:
        scores: Of any shape.
        cuts: Scores from which on a pair is near and exact.
    """
    return (scores >= np.float32(cuts[0])).astype(np.int8) + (scores >= np.float32(cuts[1])).astype(np.int8)


@dataclass(slots=True)
class RealTally:
    """What happened to each real image, over all parts.

    Attributes:
        counts: ``(n_real, 2)`` pairs that are at least near, and exact ones.
        best_values: ``(n_real,)`` -inf where there is no such pair.
        best_queries: ``(n_real,)`` number of the synthetic row, -1 where there is none.
    """

    counts: Ints
    best_values: Floats
    best_queries: Ints

    @classmethod
    def empty(cls, n_real: int) -> RealTally:
        """Return a tally of nothing."""
        return cls(
            np.zeros((n_real, 2), np.int64),
            np.full(n_real, -np.inf, np.float32),
            np.full(n_real, -1, np.int64),
        )

    def add(self, part: Part) -> None:
        """Add a part; the order of parts does not matter. A part may name a real image more than once."""
        np.add.at(self.counts, part.tally_rows, part.tally_counts)
        # Best first, so that the first entry of each row is the one to compare: higher value, lower query.
        order = np.lexsort((part.tally_queries, -part.tally_values, part.tally_rows))
        rows, firsts = np.unique(part.tally_rows[order], return_index=True)
        chosen = order[firsts]
        values, queries = part.tally_values[chosen], part.tally_queries[chosen]
        known = self.best_queries[rows] >= 0
        better = (values > self.best_values[rows]) | (
            (values == self.best_values[rows]) & (queries < self.best_queries[rows])
        )
        take = ~known | better
        self.best_values[rows[take]] = values[take]
        self.best_queries[rows[take]] = queries[take]
