"""Curves over all cuts of a score: what is found and what is flagged."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deepssim.errors import UsageError
from deepssim.evaluate import EXACT, UNRELATED

__all__ = ["Roc", "Sensitivity", "roc", "sensitivity"]

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Roc:
    """A receiver operating characteristic, exact: a point for each score that occurs.

    Attributes:
        false: ``(p,)`` share of negatives at or over each cut, from 0 to 1.
        true: ``(p,)`` share of positives likewise.
        cuts: ``(p,)`` falling; the first is infinite.
        n_positive: Positives.
        n_negative: Negatives.
    """

    false: Floats
    true: Floats
    cuts: Floats
    n_positive: int
    n_negative: int

    @property
    def area(self) -> float:
        """Area under the curve: how often a positive scores higher than a negative, ties counted half."""
        return float(np.sum(np.diff(self.false) * (self.true[1:] + self.true[:-1]) / 2))

    def found_at(self, share: float) -> float:
        """Return the largest share of positives found where at most `share` of the negatives are flagged."""
        return float(self.true[self.false <= share + 1e-12].max())


def roc(scores: Floats, is_positive: Flags) -> Roc:
    """Return the ROC of a score.

    Args:
        scores: ``(n,)`` higher is closer.
        is_positive: ``(n,)``.

    Raises:
        UsageError: There are no positives or no negatives.

    Example:
        >>> roc(np.array([0.1, 0.4, 0.35, 0.8]), np.array([False, False, True, True])).area
        0.75
    """
    n_positive = int(is_positive.sum())
    n_negative = len(scores) - n_positive
    if n_positive == 0 or n_negative == 0:
        raise UsageError("a ROC needs pairs on both sides")
    order = np.argsort(-scores, kind="stable")
    ordered = scores[order]
    last = np.append(np.flatnonzero(np.diff(ordered)), len(ordered) - 1)  # of each run of equal scores
    true = np.cumsum(is_positive[order])[last] / n_positive
    false = np.cumsum(~is_positive[order])[last] / n_negative
    return Roc(np.append(0.0, false), np.append(0.0, true), np.append(np.inf, ordered[last]), n_positive, n_negative)


@dataclass(frozen=True, slots=True)
class Sensitivity:
    """What each near threshold would do.

    Attributes:
        cuts: ``(c,)`` rising.
        found: ``(c,)`` share of copies at or over each; None: there are none.
        flagged: ``(c,)`` share of unrelated pairs; None: there are none.
        precision: ``(c,)`` share of copies among the pairs at or over each, 1 where there are no such pairs; None: a
            side is missing.
        f1: ``(c,)`` harmonic mean of `found` and `precision`; None likewise.
    """

    cuts: Floats
    found: Floats | None
    flagged: Floats | None
    precision: Floats | None = None
    f1: Floats | None = None


def sensitivity(scores: Floats, is_copy: Flags, *, n_cuts: int = 2000) -> Sensitivity:
    """Return what each cut of a score would do.

    Args:
        scores: ``(n,)`` higher is closer.
        is_copy: ``(n,)``.
        n_cuts: At most so many of the scores are cuts, at even ranks, the lowest and the highest with them.

    Example:
        >>> curve = sensitivity(np.array([0.1, 0.4, 0.35, 0.8]), np.array([False, False, True, True]))
        >>> curve.cuts.tolist(), curve.found.tolist(), curve.flagged.tolist()
        ([0.1, 0.35, 0.4, 0.8], [1.0, 1.0, 0.5, 0.5], [1.0, 0.5, 0.5, 0.0])
    """
    cuts = np.unique(scores)
    if len(cuts) > n_cuts:
        cuts = cuts[np.unique(np.linspace(0, len(cuts) - 1, n_cuts).round().astype(int))]
    counts = []
    for values in (scores[is_copy], scores[~is_copy]):
        counts.append(len(values) - np.searchsorted(np.sort(values), cuts, side="left"))
    hits, alarms = counts
    n_copies = int(is_copy.sum())
    n_others = len(scores) - n_copies
    found = hits / n_copies if n_copies else None
    flagged = alarms / n_others if n_others else None
    if found is None or flagged is None:
        return Sensitivity(cuts, found, flagged)
    over = hits + alarms
    precision = np.divide(hits, over, out=np.ones(len(cuts)), where=over > 0)
    return Sensitivity(cuts, found, flagged, precision, 2 * hits / (over + n_copies))


def macro_f1_by_cut(scores: Floats, labels: NDArray[np.int64], near_cuts: Floats, exact_cuts: Floats) -> Floats:
    """Return the macro F1 of three classes for pairs of cuts, as `deepssim.evaluate.ClassReport.macro_f1` defines it.

    Args:
        scores: ``(n,)`` higher is closer.
        labels: ``(n,)`` classes.
        near_cuts: ``(c,)``; from here on a pair is near.
        exact_cuts: ``(c,)``; from here on it is exact, whatever the near cut says.

    Returns:
        ``(c,)``.

    Example:
        >>> scores, labels = np.array([0.1, 0.5, 0.9]), np.array([0, 2, 1])
        >>> macro_f1_by_cut(scores, labels, np.array([0.3, 0.7]), np.array([0.8, 0.8])).round(3).tolist()
        [1.0, 0.556]
    """
    near_cuts = np.minimum(near_cuts, exact_cuts)
    over = []
    for label in range(3):
        values = np.sort(scores[labels == label])
        over.append([len(values) - np.searchsorted(values, cuts, side="left") for cuts in (near_cuts, exact_cuts)])
    counts = np.array(over)  # (class, near or exact, cut)
    sizes = np.bincount(labels, minlength=3)
    is_exact, is_near = counts[:, 1], counts[:, 0] - counts[:, 1]
    predicted = {EXACT: is_exact, UNRELATED: sizes[:, None] - counts[:, 0]}
    f1, there = [], []
    for label in range(3):
        called = predicted.get(label, is_near)
        total = called.sum(axis=0) + sizes[label]
        f1.append(np.divide(2 * called[label], total, out=np.zeros(len(total)), where=total > 0))
        there.append(total > 0)
    return np.asarray(np.sum(f1, axis=0) / np.maximum(np.sum(there, axis=0), 1))
