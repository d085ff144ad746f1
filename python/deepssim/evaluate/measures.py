"""All figures of one metric, for many weightings of the pairs at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from deepssim.evaluate.classes import CLASS_NAMES, EXACT, N_CLASSES, UNRELATED
from deepssim.evaluate.contrast import Contrast, Silhouette

if TYPE_CHECKING:
    from deepssim.labelled.scores import PairScores

__all__ = ["CONTRASTS", "FALSE_POSITIVE_SHARES", "Measures", "rate_name"]

FALSE_POSITIVE_SHARES = (0.05, 0.01, 0.001)
CONTRASTS = ("exact", "copies")
LABEL_FIGURES = (
    "macro_f1", "weighted_f1", *(f"{kind}_{name}" for name in CLASS_NAMES for kind in ("precision", "recall", "f1")),
)  # fmt: skip

Scores = NDArray[np.float64]
Draws = NDArray[np.float64]
Labels = NDArray[np.int64]


class Measures:
    """All figures of one metric, for many weightings of the pairs at once.

    Args:
        scores: Of all pairs.
        truth: ``(n,)`` their classes.

    Attributes:
        names: Of the figures, in order.
        labels: ``(n,)`` class that the thresholds give each pair; None without thresholds.
        contrasts: "exact" (exact copies against all others) and "copies" (copies against unrelated pairs).
    """

    def __init__(self, scores: PairScores, truth: Labels) -> None:
        self.truth = truth
        self.labels = None if scores.calibration is None else scores.labels()
        is_exact, is_unrelated = truth == EXACT, truth == UNRELATED
        self.contrasts = {
            "exact": Contrast(_score_of_exact(scores, self.labels), is_exact, ~is_exact),
            "copies": Contrast(scores.scores, ~is_unrelated, is_unrelated),
        }
        self._silhouette = Silhouette(scores.scores, truth)
        self._cells = None
        if self.labels is not None:
            self._cells = np.eye(N_CLASSES**2)[truth * N_CLASSES + self.labels]
        of_contrasts = [
            name
            for contrast in CONTRASTS
            for name in (f"auc_{contrast}", *(rate_name(share, contrast) for share in FALSE_POSITIVE_SHARES))
        ]
        self.names = [*(LABEL_FIGURES if self.labels is not None else ()), "silhouette", *of_contrasts]

    def of(self, weights: NDArray[np.float64]) -> Draws:
        """Return every figure of every draw, ``(n_draws, n_figures)``."""
        parts = []
        if self._cells is not None:
            parts.append(_label_figures((weights @ self._cells).reshape(-1, N_CLASSES, N_CLASSES)))
        parts.append(self._silhouette.mean(weights)[:, np.newaxis])
        parts += [self.contrasts[name].measure(weights, FALSE_POSITIVE_SHARES) for name in CONTRASTS]
        return np.concatenate(parts, axis=1)


def rate_name(share: float, contrast: str) -> str:
    """Return the name of a true-positive rate.

    Example:
        >>> rate_name(0.05, "exact"), rate_name(0.001, "copies")
        ('tpr_5_exact', 'tpr_0.1_copies')
    """
    return f"tpr_{100 * share:g}_{contrast}"


def _score_of_exact(scores: PairScores, labels: Labels | None) -> Scores:
    """Return what tells exact copies from all others.

    Of registered pairs that is S2, of those whose S1 makes them copies; the others come after all of these, by S1.
    """
    if scores.detail is None:
        return scores.scores
    if labels is None:
        return scores.detail
    lowest = min(float(scores.detail.min()), 0.0)
    return np.where(labels != UNRELATED, scores.detail, scores.scores - float(scores.scores.max()) + lowest - 1)


def _label_figures(confusion: NDArray[np.float64]) -> Draws:
    """Return `LABEL_FIGURES` of confusion matrices ``(n_draws, 3, 3)``, by the rules of `ClassReport`."""
    hits = np.diagonal(confusion, axis1=1, axis2=2)
    support, predicted = confusion.sum(axis=2), confusion.sum(axis=1)

    def ratio(a: Draws, b: Draws) -> Draws:
        return np.divide(a, b, out=np.zeros_like(b), where=b > 0)

    precision, recall, f1 = ratio(hits, predicted), ratio(hits, support), ratio(2 * hits, support + predicted)
    is_there = support + predicted > 0
    macro = (f1 * is_there).sum(axis=1) / np.maximum(is_there.sum(axis=1), 1)
    weighted = (f1 * support).sum(axis=1) / np.maximum(support.sum(axis=1), 1)
    of_classes = [part[:, k] for k in range(N_CLASSES) for part in (precision, recall, f1)]
    out = np.stack([macro, weighted, *of_classes], axis=1)
    out[support.sum(axis=1) == 0] = np.nan
    return np.asarray(out)
