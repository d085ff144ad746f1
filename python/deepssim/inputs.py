"""What the sets of a run have to be, and what is said about those that make figures doubtful."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from deepssim.calibration import Calibration
from deepssim.embed import Encoder
from deepssim.errors import StoreError, UsageError
from deepssim.evidence import LEAST_SIDE
from deepssim.images import ImageOptions
from deepssim.matching import Reference
from deepssim.metric import Metric
from deepssim.reference.names import REAL_NAME
from deepssim.results import Outcome
from deepssim.sources import Synthetic, SyntheticImages, SyntheticStore
from deepssim.store import Store


def check_distinct(paths: dict[str, str | Path | None]) -> None:
    """Refuse two inputs, or an input and the output, that are the same or lie one in the other.

    Raises:
        UsageError: With both names.
    """
    known = [(name, Path(path)) for name, path in paths.items() if path is not None]
    for name, path in known:
        if name != "output" and not path.exists():
            raise UsageError(f"the {name} input {path} does not exist")
    for i, (name, path) in enumerate(known):
        for other_name, other in known[:i]:
            a, b = path.resolve(), other.resolve()
            if a == b:
                raise UsageError(f"{other_name} and {name} are the same: {path}; give two different ones")
            if a.is_relative_to(b) or b.is_relative_to(a):
                raise UsageError(f"{name} ({path}) and {other_name} ({other}) lie one in the other: separate them")


def common_metric(real: Store, side: Synthetic, holdout: Store | None, encoder: Encoder | None) -> dict[str, Any]:
    """Return the metric that all sets were embedded with; StoreError if there are two."""
    wanted = real.metric
    for store in _stores(real, side, holdout):
        if (store.metric["name"], store.metric["hash"], store.dim) != (wanted["name"], wanted["hash"], real.dim):
            raise StoreError(
                f"{store.path} holds embeddings of the metric {store.metric['name']}, {real.path} of "
                f"{wanted['name']} (or of another version): embed both with one metric"
            )
    if encoder is not None and encoder.metric.hash != wanted["hash"]:
        raise StoreError(
            f"{real.path} holds embeddings of the metric {wanted['name']}, not of this {encoder.metric.name}: "
            "choose it with --metric, or give the images"
        )
    return dict(wanted)


def same_reading(store: Store, options: ImageOptions) -> Store:
    """Refuse options that would have to change a store that is there already."""
    made = store.made_from
    known = {**(made.get("options") or {}), "group_by": made.get("group_by")}
    default = ImageOptions()
    for name in ("group_by", "slices", "axis"):
        wanted, there = getattr(options, name), known.get(name)
        if wanted not in (getattr(default, name), there):
            option = "--" + name.replace("_", "-")
            raise UsageError(
                f"{store.path} was embedded with {option} {there}, not {wanted}: embed the images again with "
                f"{option} {wanted}, or leave the option out"
            )
    return store


def base_warnings(real: Reference, calibration: Calibration) -> list[str]:
    """Say what thresholds of another metric, the size of the real set and missing patients do to the figures."""
    warnings = []
    name = str(real.store.metric["name"])
    if calibration.stage == "embedding" and calibration.metric != name:
        warnings.append(
            f"The thresholds were chosen for scores of the metric {calibration.metric}, and these are of {name}: the "
            "same number may mean another likeness."
        )
    if calibration.base_size is not None and len(real) > 2 * calibration.base_size:
        warnings.append(
            f"The thresholds were chosen against {calibration.base_size:,} real images, here are {len(real):,}: the "
            "nearest of more images scores higher, so more unrelated images may pass."
        )
    if not real.has_groups:
        n_without = int(np.count_nonzero(real.codes < 0))
        warnings.append(
            f"{n_without:,} of {len(real):,} real images have no known patient, so no figure by patient is given; say "
            "who is who with a manifest (column group), --group-by parent or --group-by regex:PATTERN."
        )
    return warnings


def reading_warnings(real: Store, side: Synthetic, holdout: Store | None) -> list[str]:
    """Compare how the sets were read: other slices or another axis make likeness meaningless."""
    known = {"real": real.made_from.get("options"), "synthetic": side.options()}
    if holdout is not None:
        known["holdout"] = holdout.made_from.get("options")
    given = {name: value for name, value in known.items() if value is not None}
    if len({str(sorted(value.items())) for value in given.values()}) <= 1:
        return []
    said = "; ".join(f"{name}: {', '.join(f'{k} {v}' for k, v in value.items())}" for name, value in given.items())
    return [f"The sets were read differently ({said}): scores between them may mean nothing."]


def naming_warnings(side: Synthetic) -> list[str]:
    """Say that real images of the reference implementation's layout lie among the synthetic ones."""
    if not isinstance(side, SyntheticImages):
        return []
    n = sum(PurePosixPath(entry.path).stem == REAL_NAME for entry in side.listing.files)
    if not n:
        return []
    return [
        f"{n:,} of the synthetic images are named {REAL_NAME}, as the reference implementation names the real images "
        "in its folders of generated ones: they were counted as synthetic. If they are real, leave them out."
    ]


def metric_warnings(
    metric: Metric | None, real: Store, side: Synthetic, holdout: Store | None, *, is_verified: bool
) -> list[str]:
    """Say what it means that a metric is not at hand, or that images were embedded in other views than it wants.

    Args:
        metric: That of the stores; None: it is not at hand.
        real: The real set.
        side: The synthetic one.
        holdout: The holdout.
        is_verified: Whether pairs are judged in image space, so that screening is tried.
    """
    if metric is None and is_verified:
        return [
            f"Screening was not tried, since the metric {real.metric['name']} of these stores is not at hand: how many "
            "copies have their source among the candidates is not known. Give its .onnx file with --metric."
        ]
    if metric is None or metric.gallery is None:
        return []
    views = metric.gallery.as_metadata()
    warnings = [
        f"{store.path} was embedded in other views than the metric {metric.name} has for real images, so more copies "
        "may be missed: embed the images again with deepssim embed --gallery."
        for store in (real, *([holdout] if holdout else []))
        if store.made_from.get("gallery") != views
    ]
    if isinstance(side, SyntheticStore) and "gallery" in side.store.made_from:
        warnings.append(
            f"{side.store.path} holds synthetic images that were embedded as real ones are, so more copies may be "
            "missed: embed them again without --gallery."
        )
    return warnings


def unverifiable(real: Store, side: Synthetic, holdout: Store | None, verify: bool | None) -> str:
    """Return why pairs are not verified; nothing if they are.

    Args:
        real: The real set.
        side: The synthetic one.
        holdout: The holdout.
        verify: Whether they are to be; None: where all sets have images.

    Raises:
        UsageError: They are to be, and cannot.
    """
    if verify is False:
        return "Pairs were not verified in image space, as was asked for: labels come from the metric's scores alone."
    lacking = [store.path for store in _stores(real, side, holdout) if not store.has_working]
    if not lacking:
        return ""
    if verify:
        raise UsageError(f"{lacking[0]} holds no images to verify pairs with: embed them again, or give --no-verify")
    return (
        f"Pairs were not verified in image space, since {lacking[0]} holds no images: labels come from the "
        "metric's scores alone."
    )


def size_warnings(outcome: Outcome) -> list[str]:
    """Say how many images were too small to be verified, or of another shape than the real ones."""
    warnings = []
    if outcome.n_other_shape:
        warnings.append(
            f"{outcome.n_other_shape:,} synthetic images have another ratio of height to width than every real image, "
            "turned by 90 degrees or not, and are compared after stretching: copies among them may be missed. Crop "
            "them to the shape of the real images first."
        )
    if not outcome.n_too_small:
        return warnings
    return [
        *warnings,
        f"{outcome.n_too_small:,} synthetic images could not be verified, since they or their candidates have "
        f"fewer than {LEAST_SIDE} rows or columns: they count as unrelated unless identical.",
    ]


def _stores(real: Store, side: Synthetic, holdout: Store | None) -> list[Store]:
    return [real, *([holdout] if holdout else []), *([side.store] if isinstance(side, SyntheticStore) else [])]
