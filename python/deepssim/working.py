"""Working images: what registration and evidence look at.

8-bit grey, at most 256 pixels on the shorter side. A store keeps them beside its embeddings, so that a pair can be
verified without decoding its files again; a shard's images lie one after the other in one ``.npy`` file.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from deepssim.disk import replacing
from deepssim.errors import StoreError
from deepssim.image_ops import resize_area, unit_grey

WORKING_SIDE = 256
WORKING_LONG_SIDE = 1024
# Part of what a store is made from: changes with everything that changes a pixel here.
WORKING_RULE = f"unit grey, area averaged to {WORKING_SIDE}, 8 bits, 1"

Working = NDArray[np.uint8]


def working_size(height: int, width: int) -> tuple[int, int]:
    """Return rows and columns of the working image of an image of this size; nothing is enlarged.

    Example:
        >>> working_size(136, 112), working_size(1024, 512)
        ((136, 112), (512, 256))
    """
    factor = min(1.0, WORKING_SIDE / min(height, width), WORKING_LONG_SIDE / max(height, width))
    return max(1, round(height * factor)), max(1, round(width * factor))


def working_image(pixels: NDArray[np.float32]) -> Working:
    """Return the working image of an image ``(height, width)``: `unit_grey`, area averaging, 8 bits.

    Example:
        >>> working_image(np.array([[0, 51], [102, 255]], np.float32)).tolist()
        [[0, 51], [102, 255]]
    """
    grey = unit_grey(pixels)
    size = working_size(*grey.shape)
    if size != grey.shape:
        grey = resize_area(grey, *size)
    return np.asarray(np.rint(grey * np.float32(255)), np.uint8)


def write_working(path: Path, images: Iterable[Working]) -> None:
    """Write working images into one file, atomically; their sizes are not in it."""
    flat = [image.reshape(-1) for image in images]
    with replacing(path) as temporary, temporary.open("wb") as file:
        joined: NDArray[Any] = np.concatenate(flat) if flat else np.zeros(0, np.uint8)
        npy.write_array(file, joined, version=(1, 0), allow_pickle=False)


class WorkingFile:
    """A file of working images, read one by one.

    Args:
        path: What `write_working` wrote.
        heights: Rows of the full images, in the file's order.
        widths: Their columns.

    Raises:
        StoreError: The file is missing, or is not as long as the sizes say.
    """

    def __init__(self, path: Path, heights: Iterable[int], widths: Iterable[int]) -> None:
        self.path = path
        self._sizes = [working_size(h, w) for h, w in zip(heights, widths, strict=True)]
        self._starts = np.concatenate([[0], np.cumsum([h * w for h, w in self._sizes], dtype=np.int64)])
        try:
            with path.open("rb") as file:
                npy.read_magic(file)
                shape, _, dtype = npy.read_array_header_1_0(file)
                self._offset = file.tell()
                size = os.fstat(file.fileno()).st_size
        except (OSError, ValueError) as error:
            raise StoreError(f"{path} is missing or damaged: {error}; embed the images again") from error
        n_bytes = int(self._starts[-1])
        if shape != (n_bytes,) or dtype != np.dtype("u1") or size != self._offset + n_bytes:
            raise StoreError(f"{path} is not what the manifest says; embed the images again")

    def read(self, index: int) -> Working:
        """Read one image, a new array.

        Raises:
            StoreError: The file ended early or cannot be read.
        """
        start, end = int(self._starts[index]), int(self._starts[index + 1])
        try:
            descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                data = os.pread(descriptor, end - start, self._offset + start)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise StoreError(f"{self.path} cannot be read: {error.strerror}") from error
        if len(data) != end - start:
            raise StoreError(f"{self.path} ended early; embed the images again")
        return np.frombuffer(data, np.uint8).reshape(self._sizes[index])
