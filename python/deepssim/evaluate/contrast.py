"""What is measured on scores without thresholds, for many weightings of the pairs at once.

Weights are ``(n_draws, n)`` whole numbers: how often a draw holds each pair. A weighting gives what the same pairs give
when each is written down as often as its weight says; where a draw lacks what is needed, the value is NaN.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from deepssim.evaluate.classes import N_CLASSES

__all__ = ["Contrast", "Silhouette"]

Scores = NDArray[np.float64]
Weights = NDArray[np.float64]
Mask = NDArray[np.bool_]


class Contrast:
    """Positives against negatives, by a score that is higher for positives.

    Args:
        scores: ``(n,)`` of all pairs.
        is_positive: ``(n,)``.
        is_negative: ``(n,)``; pairs that are neither have no part.

    Example:
        >>> contrast = Contrast(np.array([0.9, 0.5, 0.5, 0.1]), np.array([1, 1, 0, 0]) > 0, np.array([0, 0, 1, 1]) > 0)
        >>> whole = np.ones((1, 4))
        >>> contrast.area(whole).tolist(), contrast.rate_at(whole, 0.0).tolist(), contrast.rate_at(whole, 0.5).tolist()
        ([0.875], [0.5], [1.0])
    """

    def __init__(self, scores: Scores, is_positive: Mask, is_negative: Mask) -> None:
        members = np.flatnonzero(is_positive | is_negative)
        self._order = members[np.argsort(-scores[members], kind="stable")]
        self._values = scores[self._order]
        self._is_positive = is_positive[self._order].astype(np.float64)
        # Pairs with one score pass a threshold together.
        self._starts = np.flatnonzero(np.diff(self._values, prepend=np.nan) != 0)
        self.n_positive, self.n_negative = int(is_positive.sum()), int(is_negative.sum())

    def _counts(self, weights: Weights) -> tuple[Weights, Weights]:
        """Return weight of positives and of negatives at each score, highest first, ``(n_draws, n_scores)``."""
        if not len(self._order):
            nothing = np.zeros((len(weights), 1))
            return nothing, nothing
        ordered = weights[:, self._order]
        positive = ordered * self._is_positive
        ordered -= positive
        if len(self._starts) == len(self._order):
            return positive, ordered
        return np.add.reduceat(positive, self._starts, axis=1), np.add.reduceat(ordered, self._starts, axis=1)

    def area(self, weights: Weights) -> Scores:
        """Return the area under the ROC curve: the chance that a positive is over a negative, ties counting half."""
        return self.measure(weights, ())[:, 0]

    def rate_at(self, weights: Weights, share: float) -> Scores:
        """Return the true-positive rate at a false-positive rate; see `measure`."""
        return self.measure(weights, (share,))[:, 1]

    def measure(self, weights: Weights, shares: tuple[float, ...]) -> Scores:
        """Return the area under the ROC curve, and the true-positive rate at false-positive rates.

        The rate is the share of positives at or over the lowest score that at most `share` of the negatives reach;
        nothing is interpolated, and pairs of one score pass together or not at all.

        Args:
            weights: ``(n_draws, n)``.
            shares: False-positive rates, 0 to 1.

        Returns:
            ``(n_draws, 1 + len(shares))``; NaN where a draw has no positive or no negative.
        """
        positive, negative = self._counts(weights)
        passed, alarms = np.cumsum(positive, axis=1), np.cumsum(negative, axis=1)
        n_positive, n_negative = passed[:, -1], alarms[:, -1]
        out = np.empty((len(weights), 1 + len(shares)))
        # Under each score of a positive lie the negatives that have not passed.
        out[:, 0] = (positive * (n_negative[:, np.newaxis] - alarms + negative / 2)).sum(axis=1)
        with np.errstate(invalid="ignore", divide="ignore"):
            out[:, 0] /= n_positive * n_negative
            for k, share in enumerate(shares, 1):
                allowed = np.floor(share * n_negative + 1e-9)
                out[:, k] = np.where(alarms <= allowed[:, np.newaxis], passed, 0).max(axis=1) / n_positive
        out[(n_positive == 0) | (n_negative == 0)] = np.nan
        return out

    def cut_at(self, share: float) -> float | None:
        """Return the lowest score that at most a share of the negatives reach, None where no positive does."""
        positive, negative = self._counts(np.ones((1, 1 + int(self._order.max(initial=-1)))))
        allowed = np.floor(share * self.n_negative + 1e-9)
        passing = np.flatnonzero((np.cumsum(negative[0]) <= allowed) & (np.cumsum(positive[0]) > 0))
        return float(self._values[self._starts[passing[-1]]]) if len(passing) else None


class Silhouette:
    """The silhouette of scores by their true classes: how far each lies from its own class, and from the nearest other.

    Rousseeuw, "Silhouettes: a graphical aid to the interpretation and validation of cluster analysis", Journal of
    Computational and Applied Mathematics 20, 1987, with distance = difference of scores. In one dimension sums of
    distances follow from running sums of the sorted scores, so n pairs take n log n steps instead of n squared. A pair
    that is alone in its class counts 0, as in scikit-learn.

    Args:
        scores: ``(n,)``.
        truth: ``(n,)`` classes.

    Example:
        >>> silhouette = Silhouette(np.array([0.0, 0.1, 0.9, 1.0]), np.array([0, 0, 1, 1]))
        >>> round(float(silhouette.mean(np.ones((1, 4)))[0]), 3)
        0.889
    """

    def __init__(self, scores: Scores, truth: NDArray[np.int64]) -> None:
        self._order = np.argsort(scores, kind="stable")
        # Sums round less about the middle.
        self._values = scores[self._order] - scores.mean()
        self._truth = truth[self._order]

    def mean(self, weights: Weights) -> Scores:
        """Return the mean over the pairs of each draw, ``(n_draws,)``; NaN where a draw has one class alone."""
        ordered = weights[:, self._order]
        values = self._values
        own = np.zeros_like(ordered)
        nearest = np.full_like(ordered, np.inf)
        is_alone = np.zeros(ordered.shape, np.bool_)
        n_classes = np.zeros(len(weights), np.int64)
        for label in range(N_CLASSES):
            is_own = self._truth == label
            if not is_own.any():
                continue
            held = ordered * is_own
            below, sum_below = np.cumsum(held, axis=1), np.cumsum(held * values, axis=1)
            total, sum_total = below[:, -1:].copy(), sum_below[:, -1:].copy()
            n_classes += total[:, 0] > 0
            # The sum of distances to this class, of every pair.
            far = values * (2 * below - total) + (sum_total - 2 * sum_below)
            np.maximum(far, 0, out=far)
            with np.errstate(invalid="ignore", divide="ignore"):
                other = np.where(total > 0, far / total, np.inf)
                mine = far[:, is_own] / (total - 1)
            is_alone[:, is_own] = total <= 1
            own[:, is_own] = mine
            nearest[:, ~is_own] = np.minimum(nearest[:, ~is_own], other[:, ~is_own])
        with np.errstate(invalid="ignore", divide="ignore"):
            each = (nearest - own) / np.maximum(nearest, own)
        each[is_alone | ~np.isfinite(each)] = 0
        with np.errstate(invalid="ignore", divide="ignore"):
            mean = (each * ordered).sum(axis=1) / ordered.sum(axis=1)
        mean[n_classes < 2] = np.nan
        return np.asarray(mean)
