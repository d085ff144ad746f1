"""How thresholds are placed between scores whose truth is known."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from deepssim.evaluate import rate_at_false_positives

FALSE_POSITIVE_SHARE = 0.01

Scores = NDArray[np.float64]


def near_cut(unrelated: Scores, copies: Scores, *, share: float = FALSE_POSITIVE_SHARE) -> float:
    """Return the score from which on an image counts as a copy.

    The lowest cut that at most `share` of unrelated images reach; where the lowest `share` of the copies lie above
    it, the middle between the two, so that both sides have the same margin.

    Args:
        unrelated: Of each unrelated image the highest score over the base.
        copies: Of each copy the score with its source.
        share: 0 to 1.

    Raises:
        UsageError: One side is empty.
    """
    return shared_near_cut([(unrelated, copies)], share=share)


def shared_near_cut(kinds: Sequence[tuple[Scores, Scores]], *, share: float = FALSE_POSITIVE_SHARE) -> float:
    """Return the cut of `near_cut` for several kinds of images at once: in none do more than `share` pass.

    Args:
        kinds: (unrelated, copies) of each kind, as `near_cut` takes them.
        share: 0 to 1.

    Raises:
        UsageError: One side is empty.
    """
    least = max(rate_at_false_positives(copies, unrelated, share)[1] for unrelated, copies in kinds)
    lowest = min(float(np.quantile(copies, share)) for _, copies in kinds)
    return max(least, (least + lowest) / 2)


def exact_cut(exact: Scores, near: Scores) -> float:
    """Return the cut with the best balanced accuracy, exact copies at or over it; of equal ones the middle one.

    Args:
        exact: Scores of exact copies.
        near: Scores of near copies.

    Raises:
        ValueError: One side is empty.
    """
    if len(exact) == 0 or len(near) == 0:
        raise ValueError("both exact and near copies are needed")
    cuts, accuracy = balanced_accuracies(exact, near)
    best = cuts[accuracy >= accuracy.max() - 1e-12]
    return float(best[len(best) // 2])


def balanced_accuracies(exact: Scores, near: Scores) -> tuple[Scores, Scores]:
    """Return all cuts that differ in what they tell apart, ascending, and the balanced accuracy of each."""
    values = np.unique(np.concatenate([exact, near]))
    cuts = np.concatenate([values[:1], values[:-1] + np.diff(values) / 2, values[-1:] + 1e-6])
    return cuts, accuracy_at(exact, near, cuts)


def accuracy_at(exact: Scores, near: Scores, cuts: Scores) -> Scores:
    """Return the balanced accuracy of cuts: the mean share of exact copies at or over and of near ones under them."""
    over = 1 - np.searchsorted(np.sort(exact), cuts, side="left") / len(exact)
    under = np.searchsorted(np.sort(near), cuts, side="left") / len(near)
    return np.asarray((over + under) / 2)


def area_under_curve(high: Scores, low: Scores) -> float:
    """Return the chance that a score of the first kind is above one of the second, ties counting half."""
    ordered = np.sort(low)
    below = np.searchsorted(ordered, high, side="left") + np.searchsorted(ordered, high, side="right")
    return float(below.mean() / (2 * len(low)))
