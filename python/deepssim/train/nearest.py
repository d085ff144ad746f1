"""The threshold of the metric ``dar``, from images that nobody copied."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from deepssim.calibration import Threshold
from deepssim.search import Searcher

__all__ = ["nearest_threshold"]

_QUANTILE = 0.95


def nearest_threshold(
    training: NDArray[np.float32], validation: NDArray[np.float32]
) -> tuple[NDArray[np.float64], Threshold]:
    """Return the published threshold: the 95th percentile of how alike the nearest of other people are.

    For each training image its nearest validation image is taken; a synthetic image is a copy where its correlation
    with a training image is above that of 95 % of them (Dar et al., arXiv 2402.01054, and the README of its code).

    Args:
        training: ``(n, dim)`` embeddings whose inner product is the score.
        validation: ``(m, dim)`` likewise, of people who are not trained on.

    Returns:
        ``(n,)`` the score of each training image with its nearest, and the threshold.

    Example:
        >>> rows, others = np.array([[1, 0], [0, 1]], np.float32), np.array([[0.6, 0.8]], np.float32)
        >>> nearest, threshold = nearest_threshold(rows, others)
        >>> nearest.round(2).tolist(), round(threshold.value, 2)
        ([0.6, 0.8], 0.79)
    """
    nearest = np.asarray(Searcher.of(validation).search(training, 1).scores[:, 0], np.float64)
    return nearest, Threshold(float(np.quantile(nearest, _QUANTILE)), ">")
