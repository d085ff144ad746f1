"""Images as one stream of bytes: a tar archive of PNG files, or one .npy stack."""

from __future__ import annotations

import io
import os
import tarfile
from typing import Any, BinaryIO, Protocol

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from deepssim.generative.sampling.plan import Plan, file_name
from deepssim.generative.sampling.png import PNG_END, png_bytes
from deepssim.generative.sampling.sampler import Request

__all__ = ["NpyStream", "Stream", "TarStream"]

_BLOCK = tarfile.BLOCKSIZE
_FILE_MODE = 0o644
# Where a member's header says how long it is (POSIX.1-1988, ustar).
_SIZE_FIELD = slice(124, 136)


class Stream(Protocol):
    """How images become bytes, and what of the bytes is whole.

    Attributes:
        dtype: Of the pixels that it takes: uint8, or float32 from 0 to 1.
    """

    dtype: np.dtype[Any]

    def head(self, plan: Plan) -> bytes:
        """Return what comes before the first image."""

    def entry(self, request: Request, pixels: NDArray[Any]) -> bytes:
        """Return the bytes of an image."""

    def tail(self) -> bytes:
        """Return what comes after the last image."""

    def whole(self, file: BinaryIO, plan: Plan) -> tuple[int, int]:
        """Return how many images of the plan a file begins with, and where the last of them ends, in bytes."""


class TarStream:
    """A tar archive of PNG files, named as in a folder; the same images are the same bytes.

    Attributes:
        dtype: uint8.

    Example:
        >>> from deepssim.generative.sampling.plan import plan_records
        >>> stream, plan = TarStream(), plan_records(["p07"], 1)
        >>> data = stream.entry(plan.request(0), np.zeros((2, 2), np.uint8)) + stream.tail()
        >>> tarfile.open(fileobj=io.BytesIO(data)).getnames(), stream.whole(io.BytesIO(data[:900]), plan)
        (['p07/gen-0.png'], (0, 0))
    """

    def __init__(self) -> None:
        self.dtype: np.dtype[Any] = np.dtype(np.uint8)

    def head(self, plan: Plan) -> bytes:
        """Return nothing."""
        return b""

    def entry(self, request: Request, pixels: NDArray[Any]) -> bytes:
        """Return a member: header, PNG, zeros up to a whole block."""
        data = png_bytes(np.asarray(pixels, np.uint8))
        return b"".join((_header(request, len(data)), data, bytes(-len(data) % _BLOCK)))

    def tail(self) -> bytes:
        """Return the two empty blocks that end an archive."""
        return bytes(2 * _BLOCK)

    def whole(self, file: BinaryIO, plan: Plan) -> tuple[int, int]:
        """Follow the members as long as they are those of the plan."""
        n_bytes = file.seek(0, os.SEEK_END)
        end = 0
        for n_whole, place in enumerate(plan.wanted()):
            request = plan.request(place)
            file.seek(end)
            header = file.read(len(_header(request, 0)))
            try:
                size = int(header[-_BLOCK:][_SIZE_FIELD].rstrip(b"\0 ") or b"0", 8)
            except ValueError:
                return n_whole, end
            data_end = end + len(header) + size
            following = data_end + -size % _BLOCK
            if header != _header(request, size) or following > n_bytes or not _ends_whole(file, data_end):
                return n_whole, end
            end = following
        return len(plan), end


class NpyStream:
    """One ``.npy`` file ``(n, height, width)``.

    Args:
        size: Rows and columns of the images.
        dtype: uint8, or float32 for pixels from 0 to 1.

    Attributes:
        dtype: As given.

    Example:
        >>> from deepssim.generative.sampling.plan import plan_records
        >>> stream, plan = NpyStream((2, 2)), plan_records(["p07"], 1)
        >>> data = stream.head(plan) + stream.entry(plan.request(0), np.zeros((2, 2), np.uint8))
        >>> np.load(io.BytesIO(data)).shape
        (1, 2, 2)
    """

    def __init__(self, size: tuple[int, int], dtype: str = "uint8") -> None:
        self.size = size
        self.dtype: np.dtype[Any] = np.dtype(dtype).newbyteorder("<")

    def head(self, plan: Plan) -> bytes:
        """Return the header of the format."""
        header = io.BytesIO()
        described = {"descr": npy.dtype_to_descr(self.dtype), "fortran_order": False, "shape": (len(plan), *self.size)}
        npy.write_array_header_1_0(header, described)
        return header.getvalue()

    def entry(self, request: Request, pixels: NDArray[Any]) -> bytes:
        """Return the pixels."""
        if pixels.shape != self.size:
            raise ValueError(f"an image of {pixels.shape} in a stack of {self.size}")
        return np.ascontiguousarray(pixels, self.dtype).tobytes()

    def tail(self) -> bytes:
        """Return nothing."""
        return b""

    def whole(self, file: BinaryIO, plan: Plan) -> tuple[int, int]:
        """Count by length, where the header is the plan's."""
        n_bytes = file.seek(0, os.SEEK_END)
        head = self.head(plan)
        file.seek(0)
        if file.read(len(head)) != head:
            return 0, 0
        each = self.size[0] * self.size[1] * self.dtype.itemsize
        n_whole = min((n_bytes - len(head)) // each, len(plan))
        return n_whole, len(head) + n_whole * each


def _header(request: Request, size: int) -> bytes:
    member = tarfile.TarInfo(file_name(request.uid, request.number))
    member.size = size
    member.mode = _FILE_MODE
    return member.tobuf(tarfile.PAX_FORMAT)


def _ends_whole(file: BinaryIO, end: int) -> bool:
    file.seek(max(end - len(PNG_END), 0))
    return file.read(len(PNG_END)) == PNG_END
