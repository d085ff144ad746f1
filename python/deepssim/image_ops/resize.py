"""Resampling of images."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from deepssim import _core

__all__ = ["resize_area"]


def resize_area(image: NDArray[np.float32], height: int, width: int) -> NDArray[np.float32]:
    """Resample a grey image by area averaging.

    Each output pixel is the mean of the input over the rectangle that it covers, fractions of pixels
    included. Sums are taken in float64 in a fixed order: the same image gives the same bits everywhere.

    Args:
        image: ``(rows, columns)``, float32, rows contiguous.
        height: Rows of the result, in pixels.
        width: Columns of the result, in pixels.

    Returns:
        A new array ``(height, width)``, float32.

    Raises:
        TypeError: `image` is not float32.
        ValueError: It is empty, not two-dimensional, or the size is not positive.

    Example:
        >>> resize_area(np.array([[0, 2], [4, 6]], np.float32), 1, 1)
        array([[3.]], dtype=float32)
    """
    return _core.resize_area(image, height, width)
