"""How well labels agree with a known truth.

Classes are integers: 0 unrelated, 1 exact, 2 near, as in the labelled pairs of the reference implementation
(``label`` 0 different, 1 duplicate, 2 similar).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deepssim.errors import UsageError

__all__ = ["CLASS_NAMES", "EXACT", "NEAR", "N_CLASSES", "UNRELATED", "ClassReport", "class_report", "labels_of"]

UNRELATED, EXACT, NEAR = 0, 1, 2
N_CLASSES = 3
CLASS_NAMES = ("unrelated", "exact", "near")

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
