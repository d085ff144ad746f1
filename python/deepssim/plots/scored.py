"""Labelled pairs with their scores, as figures of them take them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deepssim.calibration import Threshold
from deepssim.errors import UsageError
from deepssim.evaluate import EXACT, NEAR, UNRELATED

__all__ = ["ScoredPairs", "Stage", "lowest_passing"]

CLASSES = (UNRELATED, EXACT, NEAR)
Floats = NDArray[np.float64]
Labels = NDArray[np.int64]


def lowest_passing(threshold: Threshold) -> float:
    """Return the lowest float64 score that passes: labelled scores are compared as they are.

    Example:
        >>> lowest_passing(Threshold(0.6, ">")) > 0.6
        True
    """
    return threshold.value if threshold.comparison == ">=" else float(np.nextafter(threshold.value, np.inf))


@dataclass(frozen=True, slots=True)
class Stage:
    """What one axis of a figure shows: a score, the pairs that have it, and the thresholds on it.

    Attributes:
        name: Above or below the axis.
        values: ``(m,)`` as shown: scores, or distances.
        labels: ``(m,)`` classes.
        marks: (word, threshold as shown, comparison) in the order of the classes, such as ("near", 0.6, ">").
        axis: What the values are.
    """

    name: str
    values: Floats
    labels: Labels
    marks: tuple[tuple[str, float, str], ...]
    axis: str = "score"

    @staticmethod
    def share(values: Floats, mark: float, comparison: str) -> float:
        """Return the share of values that pass a mark."""
        passes = {
            ">": values > mark, ">=": values >= mark, "<": values < mark, "<=": values <= mark
        }[comparison]  # fmt: skip
        return float(passes.mean())


@dataclass(frozen=True, slots=True)
class ScoredPairs:
    """Labelled pairs under one metric.

    Attributes:
        name: Of the metric.
        scores: ``(n,)`` higher is closer.
        labels: ``(n,)`` classes: 0 unrelated, 1 exact, 2 near.
        near: Threshold of near copies, or None.
        exact: Threshold of exact copies, or None; of `detail` where that is there.
        detail: ``(n,)`` the score that tells exact from near copies among those over `near`, or None: `scores` do.
        is_distance: Whether ``sqrt(2 - 2 score)`` is shown, so that lower is closer.

    Raises:
        UsageError: There are no pairs, the lengths differ, a class is unknown or a score is no number.

    Example:
        >>> pairs = ScoredPairs("ssim", np.array([0.2, 0.9]), np.array([0, 1]), Threshold(0.6))
        >>> pairs.stages()[0].marks
        (('near', 0.6, '>='),)
    """

    name: str
    scores: Floats
    labels: Labels
    near: Threshold | None = None
    exact: Threshold | None = None
    detail: Floats | None = None
    is_distance: bool = False

    def __post_init__(self) -> None:
        if self.scores.ndim != 1 or self.labels.shape != self.scores.shape:
            raise UsageError(f"{self.name}: {self.scores.shape} scores and {self.labels.shape} labels do not fit")
        if len(self.scores) == 0:
            raise UsageError(f"{self.name}: there are no pairs to draw")
        unknown = sorted(set(np.unique(self.labels).tolist()) - set(CLASSES))
        if unknown:
            raise UsageError(
                f"{self.name}: labels are 0 (unrelated), 1 (exact) and 2 (near), not {', '.join(map(str, unknown))}"
            )
        for values in (self.scores, *(() if self.detail is None else (self.detail,))):
            if values.shape != self.scores.shape:
                raise UsageError(f"{self.name}: {self.scores.shape} and {values.shape} scores do not fit")
            bad = np.flatnonzero(~np.isfinite(values))
            if len(bad):
                raise UsageError(
                    f"{self.name}: {len(bad):,} of {len(values):,} scores are no finite number, the first of pair "
                    f"{bad[0] + 1}: leave those pairs out or score them again"
                )

    def stages(self) -> list[Stage]:
        """Return what is shown, an axis each: one, or two where `detail` decides who is exact."""
        axis = "distance" if self.is_distance else "score"
        if self.detail is None:
            is_one = self.near is not None and self.near == self.exact  # of a metric that knows no near copies
            marks = self._marks((("near", None if is_one else self.near), ("exact", self.exact)))
            return [Stage(self.name, self.shown(self.scores), self.labels, marks, axis)]
        first = Stage(f"{self.name}: S1", self.scores, self.labels, self._marks((("near", self.near),)), "S1")
        is_near = self.is_near()
        marks = self._marks((("exact", self.exact),))
        second = Stage(f"{self.name}: S2 of pairs near by S1", self.detail[is_near], self.labels[is_near], marks, "S2")
        return [first, second] if is_near.any() else [first]

    def is_near(self) -> NDArray[np.bool_]:
        """Return who passes the near threshold, ``(n,)``; all where there is none."""
        if self.near is None:
            return np.ones(len(self.scores), bool)
        return self.scores >= lowest_passing(self.near)

    def _marks(self, thresholds: Sequence[tuple[str, Threshold | None]]) -> tuple[tuple[str, float, str], ...]:
        return tuple(
            (word, self.shown_cut(one.value), self.shown_comparison(one.comparison))
            for word, one in thresholds
            if one is not None
        )

    def shown(self, scores: Floats) -> Floats:
        """Return scores as they are shown."""
        if not self.is_distance:
            return scores
        return np.asarray(np.sqrt(np.maximum(2 - 2 * scores, 0)), np.float64)

    def shown_cut(self, value: float) -> float:
        """Return a threshold of the score as it is shown."""
        return float(self.shown(np.array([value]))[0])

    def shown_comparison(self, comparison: str) -> str:
        """Return a comparison as it is shown: of a distance, the other way round."""
        return comparison.replace(">", "<") if self.is_distance else comparison

    def exactness(self) -> Floats:
        """Return a score whose order is that of exact copies against all others.

        Where `detail` decides, pairs over `near` come first, by `detail`; the others follow, by their scores.
        """
        if self.detail is None:
            return self.scores
        is_near = self.is_near()
        top = float(self.scores[~is_near].max()) if (~is_near).any() else 0.0
        base = float(self.detail[is_near].min()) if is_near.any() else 0.0
        return np.where(is_near, top + 1.0 + (self.detail - base), self.scores)
