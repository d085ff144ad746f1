"""Grey images as PNG: the fewest steps to a file that every reader takes."""

from __future__ import annotations

import struct
import zlib

import numpy as np
from numpy.typing import NDArray

__all__ = ["PNG_END", "png_bytes"]

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
# Each row as its difference from the one above: almost as small as the best choice by row, at a fraction of its time.
_UP = 2
_LEVEL = 1


def png_bytes(pixels: NDArray[np.uint8]) -> bytes:
    """Return an image as an 8-bit grey PNG file; equal images are equal bytes.

    Args:
        pixels: ``(height, width)`` uint8.

    Raises:
        ValueError: It is of another type or has other dimensions.

    Example:
        >>> import io
        >>> from PIL import Image
        >>> data = png_bytes(np.array([[0, 51], [102, 255]], np.uint8))
        >>> np.asarray(Image.open(io.BytesIO(data))).tolist()
        [[0, 51], [102, 255]]
    """
    if pixels.dtype != np.uint8 or pixels.ndim != 2:
        raise ValueError(f"pixels are {pixels.dtype} {pixels.shape}, not uint8 (height, width)")
    height, width = pixels.shape
    rows = np.empty((height, width + 1), np.uint8)
    rows[:, 0] = _UP
    rows[:1, 1:] = pixels[:1]
    rows[1:, 1:] = pixels[1:] - pixels[:-1]
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"".join(
        (_SIGNATURE, _chunk(b"IHDR", header), _chunk(b"IDAT", zlib.compress(rows.tobytes(), _LEVEL)), PNG_END)
    )


def _chunk(kind: bytes, data: bytes) -> bytes:
    return b"".join((struct.pack(">I", len(data)), kind, data, struct.pack(">I", zlib.crc32(kind + data))))


PNG_END = _chunk(b"IEND", b"")
"""The last bytes of every whole PNG file."""
