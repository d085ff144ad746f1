"""Grey values of any unit brought into the range that registration works in."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["byte_grey", "float_grey", "is_byte_image", "unit_grey"]

_MOST_BYTE = 255
# Part of the pixels, in percent, that may lie outside the window at each end: a burnt-in marker or a dead detector
# element must not decide how dark the rest becomes.
_PERCENT_OUTSIDE = 0.05


def is_byte_image(pixels: NDArray[Any]) -> bool:
    """Say whether all values are whole numbers from 0 to 255, whatever their dtype.

    Example:
        >>> is_byte_image(np.array([[0.0, 255.0]])), is_byte_image(np.array([[0.0, 256.0]]))
        (True, False)
    """
    return bool(((pixels >= 0) & (pixels <= _MOST_BYTE) & (pixels == np.rint(pixels))).all())


def float_grey(image: NDArray[Any]) -> NDArray[Any]:
    """Return an image as the core takes it: uint8 divided by 255 as float32, anything else as it is.

    Example:
        >>> float_grey(np.array([[0, 255]], np.uint8))
        array([[0., 1.]], dtype=float32)
    """
    array = np.asarray(image)
    return array.astype(np.float32) / np.float32(_MOST_BYTE) if array.dtype == np.uint8 else array


def byte_grey(pixels: NDArray[Any]) -> NDArray[np.float32]:
    """Bring grey values to the range from 0 to 255 that FSIM is defined on.

    Args:
        pixels: As `unit_grey` takes them.

    Returns:
        A new float32 array: the values of an 8-bit image, and 255 times `unit_grey` of any other.

    Raises:
        TypeError: As `unit_grey`.
        ValueError: As `unit_grey`.

    Example:
        >>> byte_grey(np.array([[0, 7]], np.uint8)), byte_grey(np.array([[0, 4095]]))
        (array([[0., 7.]], dtype=float32), array([[  0., 255.]], dtype=float32))
    """
    unit = unit_grey(pixels)
    return np.asarray(pixels).astype(np.float32) if is_byte_image(pixels) else unit * np.float32(_MOST_BYTE)


def unit_grey(pixels: NDArray[Any]) -> NDArray[np.float32]:
    """Scale grey values to [0, 1], as `register` and `evidence` take them.

    An image whose values are all whole numbers from 0 to 255 counts as an 8-bit image, whatever its dtype, and is
    divided by 255: two 8-bit images keep their brightness relative to each other. Any other image (16 bits, CT
    numbers, floating point) is shifted and scaled so that its .05th percentile becomes 0 and its 99.95th becomes 1,
    and clipped; where the two percentiles are equal, its smallest and largest values take their place.

    Args:
        pixels: ``(rows, columns)``, integers or floating point, in any unit.

    Returns:
        A new array of the same shape, float32, from 0 to 1. An image that is constant and no 8-bit image becomes 0.

    Raises:
        TypeError: `pixels` holds neither integers nor real floating-point numbers.
        ValueError: It is not two-dimensional, is empty, or holds NaN or infinity.

    Example:
        >>> unit_grey(np.array([[0, 51], [102, 255]], np.uint8))
        array([[0. , 0.2],
               [0.4, 1. ]], dtype=float32)
        >>> unit_grey(np.linspace(-1000, 3000, 5).reshape(1, 5)).round(2)
        array([[0.  , 0.25, 0.5 , 0.75, 1.  ]], dtype=float32)
    """
    image = np.asarray(pixels)
    if image.dtype.kind not in "biuf":
        raise TypeError(f"grey values must be integers or real numbers, not {image.dtype}")
    if image.ndim != 2:
        raise ValueError(f"a grey image must have two dimensions (rows, columns), not {image.ndim}")
    if image.size == 0:
        raise ValueError("the image is empty; give one with pixels")
    grey: NDArray[np.float64] = image.astype(np.float64)
    least, most = float(grey.min()), float(grey.max())
    if not (np.isfinite(least) and np.isfinite(most)):
        raise ValueError("the image holds NaN or infinity; replace such pixels first")
    if is_byte_image(grey):
        return (grey / _MOST_BYTE).astype(np.float32)
    # Percentiles in units of the range: between neighbours of +-1e308 the interpolation would overflow.
    span = most / 2 - least / 2
    if span == 0:
        return np.zeros(image.shape, np.float32)
    grey = np.clip((grey / 2 - least / 2) / span, 0, 1)
    low, high = np.percentile(grey, [_PERCENT_OUTSIDE, 100 - _PERCENT_OUTSIDE])
    if low == high:
        low, high = 0.0, 1.0
    scaled: NDArray[np.float64] = np.clip((grey - low) / (high - low), 0, 1)
    return scaled.astype(np.float32)
