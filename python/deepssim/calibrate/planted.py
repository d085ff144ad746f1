"""Thresholds from planted copies: the highest that still find as many as wanted."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepssim.calibrate.conformal import cut_for_recall, sensitivity
from deepssim.calibration import Calibration, Curve, Threshold
from deepssim.errors import UsageError
from deepssim.evaluate import EXACT, UNRELATED, best_cuts
from deepssim.planted.recall import Found, PlantedFindings
from deepssim.statistics import image_rate

__all__ = ["PlantedCalibration", "calibrate_planted"]

_DECIMALS = 4
_SCALE = 10**_DECIMALS

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class PlantedCalibration:
    """Thresholds and what they would have done to the copies that chose them.

    Attributes:
        calibration: The thresholds.
        near_recall: Share of planted near copies over the near threshold.
        exact_recall: Share of planted exact copies over it; None: there were none.
        told_apart: Share of copies over it, exact and near, that the exact threshold labels right; None likewise.
        warnings: What makes them doubtful.
    """

    calibration: Calibration
    near_recall: float
    exact_recall: float | None
    told_apart: float | None
    warnings: tuple[str, ...]


def calibrate_planted(findings: PlantedFindings, recall: float, *, domain: str = "") -> PlantedCalibration:
    """Choose the highest near threshold that a new near copy reaches with a probability of at least `recall`.

    The exact threshold is the one that tells planted exact copies from near ones best (highest mean F1 of the two).
    Where the audit had a holdout, the near threshold is rounded down to a step of its histogram, so that the share of
    images over it against the holdout, the false-positive rate, is known.

    Args:
        findings: From `deepssim.planted.recall.find_planted`.
        recall: Between 0 and 1.
        domain: The kind of images, in words.

    Raises:
        UsageError: There are too few near copies for the recall; says how many are needed.
    """
    summary, by_s1 = findings.summary, findings.is_verified
    near, exact = (
        [one for one in findings.found if one.planted.label == label and not math.isnan(one.value)]
        for label in ("near", "exact")
    )
    unusable = sum(math.isnan(one.value) for one in findings.found)
    values, exact_values = (np.array([one.value for one in some], np.float64) for some in (near, exact))
    wanted = cut_for_recall(values, recall)
    control = summary.get("control")
    edges = summary["histogram"]["edges"]
    cut = _step_below(wanted, edges) if control else math.floor(wanted * _SCALE) / _SCALE
    rate, interval = _false_positives(summary, cut) if control else (None, None)
    from_exact, exact_from, right = _tell_apart([one for one in (*near, *exact) if one.value >= cut], summary)
    if not by_s1 and from_exact.cut() < Threshold(cut).cut():
        from_exact, exact_from = Threshold(cut), "raised to the near one"
    warnings = _warnings(findings, unusable, control is not None, exact)
    near_recall = float((values >= cut).mean())
    how = (
        f"near: a new near copy reaches it with a probability of at least {recall:g} ({near_recall:.3f} of "
        f"{len(values):,} planted ones do), as its best pair; exact: {exact_from}"
    )
    if control:
        n_audited = int(summary["counts"]["synthetic"]["images"])
        how += (
            f"; false positives: of all {n_audited:,} audited images against the holdout, {len(findings.found):,} "
            "planted ones among them"
        )
    calibration = Calibration(
        metric="verified" if by_s1 else str(summary["metric"]["name"]),
        near=Threshold(cut),
        exact=from_exact,
        source=f"deepssim calibrate planted, at a recall of {recall:g} of near copies",
        stage="verified" if by_s1 else "embedding",
        domain=domain,
        base_size=int(summary["counts"]["real"]["images"]) if control is None else int(control["n_images"]),
        false_positive_rate=rate,
        how=how,
        views=None if by_s1 else str(summary["metric"]["views"]),
        false_positive_interval=interval,
        curve=_curve(summary, values, exact_values) if control else sensitivity(None, np.append(values, exact_values)),
    )
    return PlantedCalibration(
        calibration, near_recall, float((exact_values >= cut).mean()) if exact else None, right, warnings
    )


def _tell_apart(copies: list[Found], summary: dict[str, Any]) -> tuple[Threshold, str, float | None]:
    """Return the exact threshold, where it comes from, and what share of copies it labels right."""
    truth = np.array([EXACT if one.planted.label == "exact" else UNRELATED for one in copies], np.int64)
    details = np.array([one.detail for one in copies], np.float64)
    if not ((truth == EXACT).any() and (truth != EXACT).any()):
        return Threshold(**summary["thresholds"]["exact"]), "as it was", None
    cut = round(best_cuts(details, truth)[1], _DECIMALS)
    right = float(((details >= cut) == (truth == EXACT)).mean())
    return Threshold(cut), "tells planted exact copies from near ones best", right


def _step_below(value: float, edges: list[float]) -> float:
    below = [edge for edge in edges if edge <= value]
    if not below:
        raise UsageError(f"the lowest score wanted, {value:g}, lies under the histogram of the audit")
    return below[-1]


def _false_positives(summary: dict[str, Any], cut: float) -> tuple[float, tuple[float, float]]:
    """Return the share of images whose nearest holdout score reaches a step of the histogram, and its interval."""
    histogram = summary["histogram"]
    place = histogram["edges"].index(cut)
    counts = histogram["holdout"]
    rate = image_rate(sum(counts[place:]), sum(counts))
    return rate.rate, (rate.low, rate.high)


def _curve(summary: dict[str, Any], near: Floats, exact: Floats) -> Curve:
    """Return the curve at the steps of the histogram that hold anything."""
    edges, counts = summary["histogram"]["edges"], np.array(summary["histogram"]["holdout"], np.float64)
    copies = np.sort(np.append(near, exact))
    reached = 1.0 - np.searchsorted(copies, edges[:-1], side="left") / len(copies)
    unrelated = counts[::-1].cumsum()[::-1] / counts.sum()
    shown = np.flatnonzero((unrelated < 1.0) | (reached < 1.0))
    first, last = (shown[0], shown[-1] + 1) if len(shown) else (0, len(counts))
    return Curve(tuple(edges[first:last]), tuple(unrelated[first:last].round(6)), tuple(reached[first:last].round(6)))


def _warnings(findings: PlantedFindings, unusable: int, has_control: bool, exact: list[Any]) -> tuple[str, ...]:
    warnings = []
    if not has_control:
        warnings.append(
            "The audit had no holdout, so how many unrelated images pass these thresholds is not known: audit again "
            "with --holdout."
        )
    if not exact:
        warnings.append("No exact copy was planted: the exact threshold stays what it was.")
    if unusable:
        warnings.append(f"{unusable:,} planted copies were left out by the audit and are not counted here.")
    n_people = len({one.planted.person for one in findings.found})
    if n_people < len(findings.found) / 4:
        warnings.append(
            f"The copies are of {n_people:,} people: for other people the recall is less sure than it sounds."
        )
    return tuple(warnings)
