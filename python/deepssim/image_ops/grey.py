"""Grey values of any scanner brought to [0, 1]."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["unit_grey"]


def unit_grey(pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    """Bring the grey values of an image to [0, 1].

    Whole numbers from 0 to 255 are divided by 255. Others are taken less their .05 percentile, over the distance from
    there to the 99.95 percentile, and cut to [0, 1].

    Args:
        pixels: ``(rows, columns)``, float32, finite.

    Returns:
        A new array of the same shape; zeros where those percentiles are equal.

    Example:
        >>> unit_grey(np.array([[0, 51, 255]], np.float32))
        array([[0. , 0.2, 1. ]], dtype=float32)
    """
    low, high = 0.0, 255.0
    if pixels.min() < low or pixels.max() > high or (pixels != np.rint(pixels)).any():
        low, high = np.percentile(pixels.astype(np.float64), (0.05, 99.95)).tolist()
    if not high > low:
        return np.zeros_like(pixels)
    return np.clip((pixels.astype(np.float64) - low) / (high - low), 0, 1).astype(np.float32)
