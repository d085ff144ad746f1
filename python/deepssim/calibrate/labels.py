"""Thresholds by grid search on labelled pairs, and how well they do on people who did not choose them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from deepssim.calibrate.conformal import sensitivity
from deepssim.calibration import Calibration, Threshold
from deepssim.errors import UsageError
from deepssim.evaluate import (
    EXACT,
    NEAR,
    UNRELATED,
    best_cuts,
    best_registered_cuts,
    class_report,
    interval_by_person,
)
from deepssim.labelled import LabelledPairs
from deepssim.labelled.scores import PairScores

__all__ = ["LabelledCalibration", "calibrate_labels"]

N_FOLDS = 5

Labels = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class LabelledCalibration:
    """Thresholds and how they do.

    Attributes:
        calibration: The thresholds.
        n_pairs: Pairs that chose them.
        n_people: Their people.
        n_folds: Parts that the people were divided into.
        fitted_f1: Macro F1 on the pairs that chose the thresholds: optimistic.
        left_out_f1: Macro F1 where the thresholds of each part of the people were chosen on the others.
        left_out_interval: Its 95 % interval, resampling people.
    """

    calibration: Calibration
    n_pairs: int
    n_people: int
    n_folds: int
    fitted_f1: float
    left_out_f1: float
    left_out_interval: tuple[float, float]


def calibrate_labels(
    pairs: LabelledPairs, scores: PairScores, *, n_folds: int = N_FOLDS, domain: str = "", seed: int = 0
) -> LabelledCalibration:
    """Choose the two thresholds with the highest macro F1 (of registered pairs, the highest F1 of each).

    Args:
        pairs: With their true classes and their people.
        scores: Of the pairs; with S1 and S2 the near threshold is of S1 and the exact one of S2.
        n_folds: Parts that the people are divided into, to see how thresholds do on others; fewer where there are not
            so many people.
        domain: The kind of images, in words.
        seed: Of the division and of resampling.

    Raises:
        UsageError: A class has no pair, or there are fewer than two people.

    Example:
        >>> from pathlib import Path
        >>> labels = np.array([0, 2, 1] * 4)
        >>> names = tuple("abcdefghijkl")
        >>> people = np.array([f"p{i // 3}" for i in range(12)])
        >>> pairs = LabelledPairs(Path("pairs.csv"), names, names, labels, people, "column group")
        >>> found = calibrate_labels(pairs, PairScores("m", np.array([0.2, 0.6, 0.9] * 4), None))
        >>> found.calibration.near.value, found.calibration.exact.value, found.left_out_f1
        (0.4, 0.75, 1.0)
    """
    absent = [name for name, kind in (("different", UNRELATED), ("duplicate", EXACT), ("similar", NEAR))
              if not (pairs.labels == kind).any()]  # fmt: skip
    if absent:
        raise UsageError(
            f"{pairs.path} has no pair that is {' and none that is '.join(absent)}: two thresholds need all"
        )
    parts = _divide(pairs.people, n_folds, seed)
    cuts = _fit(scores, pairs.labels, np.arange(len(pairs)))
    predicted = np.empty(len(pairs), np.int64)
    for out in parts:
        chosen = _fit(scores, pairs.labels, np.flatnonzero(~out))
        predicted[out] = _label(scores, *chosen)[out]

    def left_out(at: NDArray[np.int64]) -> float:
        return class_report(pairs.labels[at], predicted[at]).macro_f1

    everything = np.arange(len(pairs))
    fitted, others = class_report(pairs.labels, _label(scores, *cuts)).macro_f1, left_out(everything)
    low, high = interval_by_person(left_out, pairs.people, seed=seed)
    near, exact = _shortest(scores, *cuts)
    n_people, is_verified = len(np.unique(pairs.people)), scores.detail is not None
    how = (
        f"highest F1 on {len(pairs):,} labelled pairs of {n_people:,} people: macro F1 {100 * fitted:.1f} % on these; "
        f"on people left out of the choice, a {_part(len(parts))} at a time, {100 * others:.1f} % (95 % interval "
        f"{100 * low:.1f} to {100 * high:.1f}, by person)"
    )
    calibration = Calibration(
        metric="verified" if is_verified else scores.metric,
        near=Threshold(near),
        exact=Threshold(exact),
        source="deepssim calibrate labels",
        stage="verified" if is_verified else "embedding",
        domain=domain,
        how=how,
        # Labelled pairs are compared as they lie; a search in many views scores higher.
        views=None if is_verified else "none",
        curve=sensitivity(scores.scores[pairs.labels == UNRELATED], scores.scores[pairs.labels != UNRELATED]),
    )
    return LabelledCalibration(calibration, len(pairs), n_people, len(parts), fitted, others, (low, high))


def _fit(scores: PairScores, truth: Labels, at: NDArray[np.int64]) -> tuple[float, float]:
    if scores.detail is None:
        return best_cuts(scores.scores[at], truth[at])
    return best_registered_cuts(scores.scores[at], scores.detail[at], truth[at])


def _label(scores: PairScores, near: float, exact: float) -> Labels:
    made = Calibration(
        scores.metric, Threshold(near), Threshold(exact), "", "embedding" if scores.detail is None else "verified"
    )
    return replace(scores, calibration=made).labels()


def _shortest(scores: PairScores, near: float, exact: float) -> tuple[float, float]:
    """Return the cuts with as few decimals as label every pair the same."""
    wanted = _label(scores, near, exact)
    for decimals in range(2, 17):
        short = round(near, decimals), round(exact, decimals)
        if scores.detail is None and short[0] > short[1]:
            continue
        if (_label(scores, *short) == wanted).all():
            return short
    return near, exact


def _divide(people: NDArray[np.str_], n_folds: int, seed: int) -> list[NDArray[np.bool_]]:
    """Divide people into parts of nearly the same number."""
    everybody = np.unique(people)
    if len(everybody) < 2:
        raise UsageError("the pairs are of one person: thresholds can only be tried on people who did not choose them")
    n_folds = min(max(2, n_folds), len(everybody))
    drawn = np.random.default_rng(seed).permutation(everybody)
    return [np.isin(people, drawn[part::n_folds]) for part in range(n_folds)]


def _part(n: int) -> str:
    return {2: "half", 3: "third", 4: "quarter", 5: "fifth", 10: "tenth"}.get(n, f"{n}th")
