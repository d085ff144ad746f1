"""How well labels and scores agree with a known truth.

Classes are integers: 0 unrelated, 1 exact, 2 near, as in the labelled pairs of the reference implementation
(``label`` 0 different, 1 duplicate, 2 similar).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deepssim.errors import UsageError
from deepssim.statistics import LEVEL

__all__ = [
    "EXACT",
    "NEAR",
    "UNRELATED",
    "ClassReport",
    "best_cuts",
    "class_report",
    "interval_by_person",
    "labels_of",
    "rate_at_false_positives",
]

UNRELATED, EXACT, NEAR = 0, 1, 2
N_CLASSES = 3
RESAMPLES = 1000

Labels = NDArray[np.int64]
Scores = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class ClassReport:
    """Agreement of predicted with true classes.

    Attributes:
        confusion: ``(3, 3)`` counts: true class by row, predicted class by column.
    """

    confusion: NDArray[np.int64]

    @property
    def support(self) -> NDArray[np.int64]:
        """Images of each true class, ``(3,)``."""
        return np.asarray(self.confusion.sum(axis=1))

    @property
    def precision(self) -> Scores:
        """Right among those predicted, ``(3,)``; 0 where none was predicted."""
        return _ratio(np.diagonal(self.confusion), self.confusion.sum(axis=0))

    @property
    def recall(self) -> Scores:
        """Found among the true ones, ``(3,)``; 0 where there is none."""
        return _ratio(np.diagonal(self.confusion), self.support)

    @property
    def f1(self) -> Scores:
        """Harmonic mean of precision and recall, ``(3,)``; 0 where both are."""
        return _ratio(2 * np.diagonal(self.confusion), self.confusion.sum(axis=0) + self.support)

    @property
    def macro_f1(self) -> float:
        """Mean of `f1` over the classes that are true or predicted anywhere."""
        is_there = (self.confusion.sum(axis=0) + self.support) > 0
        return float(self.f1[is_there].mean()) if is_there.any() else 0.0

    @property
    def weighted_f1(self) -> float:
        """Mean of `f1` weighted by `support`."""
        total = int(self.support.sum())
        return float((self.f1 * self.support).sum() / total) if total else 0.0


def _ratio(a: NDArray[np.int64], b: NDArray[np.int64]) -> Scores:
    return np.divide(a, b, out=np.zeros(len(a)), where=b > 0, casting="unsafe")


def class_report(truth: Labels, predicted: Labels) -> ClassReport:
    """Count how predicted classes meet the true ones.

    Args:
        truth: ``(n,)`` classes, `UNRELATED`, `EXACT` or `NEAR`.
        predicted: ``(n,)`` likewise.

    Raises:
        UsageError: The lengths differ or a class is unknown.

    Example:
        >>> class_report(np.array([0, 1, 2, 2]), np.array([0, 1, 2, 1])).recall.tolist()
        [1.0, 1.0, 0.5]
    """
    truth, predicted = np.asarray(truth, np.int64), np.asarray(predicted, np.int64)
    if truth.shape != predicted.shape or truth.ndim != 1:
        raise UsageError(f"{truth.shape} true and {predicted.shape} predicted classes do not fit")
    both = np.concatenate([truth, predicted])
    if both.size and not (both.min() >= 0 and both.max() < N_CLASSES):
        raise UsageError(f"classes are 0 (unrelated), 1 (exact) and 2 (near), not {both.min()} to {both.max()}")
    counts = np.bincount(truth * N_CLASSES + predicted, minlength=N_CLASSES**2)
    return ClassReport(counts.reshape(N_CLASSES, N_CLASSES))


def labels_of(scores: Scores, near_cut: float, exact_cut: float) -> Labels:
    """Label scores by two cuts: from `near_cut` on near, from `exact_cut` on exact.

    Example:
        >>> labels_of(np.array([0.1, 0.5, 0.9]), 0.5, 0.9).tolist()
        [0, 2, 1]
    """
    return np.where(scores >= exact_cut, EXACT, np.where(scores >= near_cut, NEAR, UNRELATED)).astype(np.int64)


def best_cuts(scores: Scores, truth: Labels, *, n_grid: int = 400) -> tuple[float, float]:
    """Return the two cuts of one score that give the highest macro F1.

    Cuts lie halfway between neighbouring scores, at most `n_grid` of them at even ranks; of several best pairs
    the one in the middle of the first run is taken, so that the margin is shared.

    Args:
        scores: ``(n,)`` higher is closer.
        truth: ``(n,)`` classes.
        n_grid: Cuts that are tried for each of the two.

    Returns:
        The near and the exact cut, for `labels_of`.

    Raises:
        UsageError: There are no scores.
    """
    if len(scores) == 0:
        raise UsageError("there are no scores to choose cuts from")
    order = np.argsort(scores, kind="stable")
    ordered = np.asarray(scores, np.float64)[order]
    # Places where a cut can be: before the first, after the last, and between scores that differ.
    places = np.concatenate([[0], np.flatnonzero(np.diff(ordered)) + 1, [len(ordered)]])
    places = places[np.unique(np.linspace(0, len(places) - 1, n_grid + 1).astype(int))]
    counts = np.concatenate([np.zeros((1, N_CLASSES)), np.cumsum(np.eye(N_CLASSES)[truth[order]], axis=0)])
    below, total = counts[places], counts[-1]
    # (near cut, exact cut, class): what is labelled unrelated, exact and near, in the order of the classes.
    labelled = np.stack(
        np.broadcast_arrays(below[:, None], (total - below)[None], below[None] - below[:, None]), axis=2
    )
    hits = labelled[:, :, range(N_CLASSES), range(N_CLASSES)]
    sizes = labelled.sum(axis=3) + total
    value = np.divide(2 * hits, sizes, out=np.zeros_like(hits), where=sizes > 0).mean(axis=2)
    value[np.tril_indices(len(places), -1)] = -1.0  # the near cut is the lower one
    best = np.argwhere(value >= value.max() - 1e-12)
    i, j = best[len(best) // 2]
    return _cut_at(ordered, int(places[i])), _cut_at(ordered, int(places[j]))


def _cut_at(ordered: Scores, place: int) -> float:
    """Return a cut under which `place` of the scores lie, halfway to the next."""
    if place == 0:
        return float(np.nextafter(ordered[0], -np.inf))
    if place == len(ordered):
        return float(np.nextafter(ordered[-1], np.inf))
    middle = ordered[place - 1] + (ordered[place] - ordered[place - 1]) / 2
    return float(middle if middle > ordered[place - 1] else ordered[place])


def rate_at_false_positives(positives: Scores, negatives: Scores, share: float) -> tuple[float, float]:
    """Return the share of positives over the lowest cut that at most a share of negatives reaches, and the cut.

    Args:
        positives: Scores of copies.
        negatives: Scores of unrelated images, each its highest over the base.
        share: Of negatives that may reach the cut, 0 to 1.

    Raises:
        UsageError: One side is empty.

    Example:
        >>> rate_at_false_positives(np.array([0.8, 0.9]), np.array([0.1, 0.85]), 0.0)[0]
        0.5
    """
    if len(positives) == 0 or len(negatives) == 0:
        raise UsageError("both copies and unrelated images are needed")
    allowed = int(np.floor(share * len(negatives) + 1e-9))
    descending = np.sort(np.asarray(negatives, np.float64))[::-1]
    cut = -np.inf if allowed >= len(descending) else float(np.nextafter(descending[allowed], np.inf))
    return float((positives >= cut).mean()), cut


def interval_by_person(
    statistic: Callable[[NDArray[np.int64]], float], people: NDArray[np.generic], *, seed: int = 0
) -> tuple[float, float]:
    """Return the percentile interval of a statistic when people, not images, are drawn with replacement.

    Args:
        statistic: Takes indices of images (a person drawn twice gives its images twice) and returns a number.
        people: ``(n,)`` the person of each image.
        seed: Of the resampling.

    Raises:
        UsageError: There are no people.
    """
    names, owner = np.unique(people, return_inverse=True)
    if len(names) == 0:
        raise UsageError("there are no people to resample")
    images = [np.flatnonzero(owner == person) for person in range(len(names))]
    rng = np.random.default_rng(seed)
    found = [
        statistic(np.concatenate([images[i] for i in rng.integers(0, len(names), len(names))]))
        for _ in range(RESAMPLES)
    ]
    low, high = np.quantile(found, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)
