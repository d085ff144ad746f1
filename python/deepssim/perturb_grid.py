"""What perturbing an image does to its grid: filter, resample, average.

The images are small, so the time goes into fresh memory and into calls rather than into arithmetic: everything is done
in place and on whole arrays where it can be.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["block_mean", "convolve", "sample"]

Image = NDArray[np.float32]


def convolve(image: Image, taps: Image, axis: int) -> Image:
    """Convolve along one axis with a symmetric kernel given from its centre outwards."""
    radius, length = len(taps) - 1, image.shape[axis]
    padded = _reflected(image.T if axis == 1 else image, radius)

    def window(start: int) -> Image:
        return padded[start : start + length]

    out: Image = taps[0] * window(radius)
    pair = np.empty_like(out)
    for k in range(1, radius + 1):
        np.add(window(radius - k), window(radius + k), out=pair)
        pair *= taps[k]
        out += pair
    return out.T if axis == 1 else out


def _reflected(image: Image, radius: int) -> Image:
    """Add rows above and below, reflected with the edge repeated."""
    length = len(image)
    if not 0 < radius <= length:
        return np.pad(image, [(radius, radius), (0, 0)], mode="symmetric")
    padded = np.empty_like(image, shape=(length + 2 * radius, image.shape[1]))
    padded[:radius] = image[:radius][::-1]
    padded[radius:-radius] = image
    padded[-radius:] = image[length - radius :][::-1]
    return padded


def sample(image: Image, rows: NDArray[np.float64], columns: NDArray[np.float64]) -> Image:
    """Interpolate linearly at positions in pixels; zeros outside, with a ramp of one pixel at the border."""
    height, width = image.shape
    padded = np.zeros((height + 3, width + 3), dtype=np.float32)
    padded[1 : height + 1, 1 : width + 1] = image
    flat = padded.ravel()
    first, fr = _split(rows, height)
    c0, fc = _split(columns, width)
    first *= width + 3
    first += c0
    gc = 1 - fc
    top = _between(flat, first, gc, fc)
    first += width + 2
    bottom = _between(flat, first, gc, fc)
    top *= 1 - fr
    bottom *= fr
    top += bottom
    return top


def _split(positions: NDArray[np.float64], length: int) -> tuple[NDArray[np.intp], Image]:
    """Split positions in pixels, moved by the margin and kept on it, into whole part and fraction."""
    moved = positions + 1.0
    np.clip(moved, 0.0, length + 1.0, out=moved)
    whole = moved.astype(np.intp)
    moved -= whole
    return whole, moved.astype(np.float32)


def _between(flat: Image, first: NDArray[np.intp], weight: Image, weight_next: Image) -> Image:
    """Weigh each value with the next one; `first` goes on by one."""
    # No index is out of range: "clip" only spares the buffer that "raise" needs.
    here: Image = flat.take(first, mode="clip")
    here *= weight
    first += 1
    after = flat.take(first, mode="clip")
    after *= weight_next
    here += after
    return here


def block_mean(image: Image, block: int) -> Image:
    """Average blocks of so many rows and columns; what does not fill a block is left out."""
    height, width = (n // block * block for n in image.shape)
    if block >= 8 or min(height, width) < 2 * block or not image.flags.c_contiguous:
        cells = image[:height, :width].reshape(height // block, block, width // block, block)
        return np.asarray(cells.mean(axis=(1, 3)), dtype=np.float32)
    # NumPy sums each such cell from left to right, row by row. So does this, all at once: draws depend on the bits.
    total = np.zeros((height // block, width // block), dtype=np.float32)
    for row in range(block):
        line = image[row:height:block, :width:block].copy()
        for column in range(1, block):
            line += image[row:height:block, column:width:block]
        total += line
    total /= np.float32(block * block)
    return total
