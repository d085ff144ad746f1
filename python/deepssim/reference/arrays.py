"""Arrays in ``.npy`` and ``.npz`` files that come from anywhere.

Nothing in a file is executed: pickles are refused, and members, types and sizes are checked before anything is read.
Parts of an array that is stored without compression, as ``numpy.savez`` writes it, are read where they lie.
"""

from __future__ import annotations

import io
import math
import os
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from deepssim.errors import UsageError
from deepssim.images.text import one_line, some

__all__ = ["StoredArray", "reason"]

_MOST_MEMBERS = 2**16
_MOST_HEADER_BYTES = 2**16
_BAND_BYTES = 2**25
_ENCRYPTED = 0x1
_LOCAL_HEADER = struct.Struct("<4s22xHH")
_MAGIC_NPY, _MAGIC_ZIP = b"\x93NUMPY", b"PK"


@dataclass(frozen=True, slots=True)
class StoredArray:
    """An array in a file, and where its numbers are.

    Attributes:
        path: The file.
        dtype: As stored.
        shape: As said by the header; with `is_fortran` reversed, so that the first axis is always the slowest.
        is_fortran: Whether it was.
        offset: Of the first value: in the file, or in the member where that is compressed.
        member: Name of the compressed member, None where values lie in the file as they are.
    """

    path: Path
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    is_fortran: bool
    offset: int
    member: str | None

    def __str__(self) -> str:
        shape = self.shape[::-1] if self.is_fortran else self.shape
        return f"an array of {one_line(str(self.dtype), 40)} of shape {one_line(str(shape), 60)}"

    @property
    def n_bytes(self) -> int:
        """Bytes of all values."""
        return math.prod(self.shape) * self.dtype.itemsize

    @property
    def _step_bytes(self) -> int:
        """Bytes of one step along the first axis."""
        return math.prod(self.shape[1:]) * self.dtype.itemsize

    @classmethod
    def find(cls, path: Path, key: str) -> StoredArray:
        """Find an array, by its key where the file is an archive.

        Raises:
            UsageError: It cannot be read, or is not there.
        """
        with _opened(path) as file:
            magic = file.read(len(_MAGIC_NPY))
            file.seek(0)
            if magic == _MAGIC_NPY:
                return cls._of(path, file, 0, os.fstat(file.fileno()).st_size, None)
            if magic[:2] != _MAGIC_ZIP:
                raise UsageError(f"{path} is neither an .npz nor an .npy file{'' if magic else ': it is empty'}")
            with _archive(path, file) as archive:
                info = _member(path, archive, key)
                with _damage(path), archive.open(info) as stream:
                    is_stored = info.compress_type == zipfile.ZIP_STORED
                    start = _start_of(path, file, info) if is_stored else 0
                    return cls._of(path, stream, start, info.file_size, None if is_stored else info.filename)

    @classmethod
    def _of(cls, path: Path, stream: IO[bytes], start: int, size: int, member: str | None) -> StoredArray:
        """Read the header at the beginning of a stream of `size` bytes, which lies at `start` of the file."""
        head = io.BytesIO(stream.read(_MOST_HEADER_BYTES))
        readers: dict[tuple[int, int], Callable[..., Any]] = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }
        try:
            version = np.lib.format.read_magic(head)
            if version not in readers:
                raise UsageError(f"{path} has version {version} of the .npy format: save a plain array")
            shape, is_fortran, dtype = readers[version](head, max_header_size=_MOST_HEADER_BYTES)
        except UsageError:
            raise
        except Exception as error:  # the header is a literal of the language, which can fail in many ways
            raise UsageError(f"{path} has a damaged header of its array") from error
        if dtype.hasobject:
            raise UsageError(
                f"{path} holds pickled Python objects, which could run any program when read; save it anew: "
                "numpy.savez(path, data=numpy.array(list_of_names, dtype=str)), numbers as float32"
            )
        if any(length < 0 for length in shape):
            raise UsageError(f"{path} has a damaged header of its array")
        is_fortran = bool(is_fortran) and len(shape) > 1
        shape = tuple(int(length) for length in (shape[::-1] if is_fortran else shape))
        found = cls(path, dtype, shape, is_fortran, start + head.tell(), member)
        if head.tell() + found.n_bytes != size:
            raise UsageError(f"{path} is cut or damaged: {found} needs {found.n_bytes:,} bytes, there are "
                             f"{size - head.tell():,}")  # fmt: skip
        return found

    def read(self, start: int, stop: int) -> NDArray[Any]:
        """Return a part along the first axis, a new array."""
        parts = list(self._parts(iter([(start, stop)])))
        return parts[0][1]

    def bands(self, wanted: NDArray[np.int64]) -> Iterator[tuple[int, NDArray[Any]]]:
        """Yield (first, part) in order, such that the parts hold all that is wanted (ascending)."""
        most = max(1, _BAND_BYTES // max(1, self._step_bytes))

        def spans() -> Iterator[tuple[int, int]]:
            chosen = np.unique(wanted)
            # Neighbours are read at once.
            starts = np.flatnonzero(np.diff(chosen, prepend=-2) != 1)
            for place, end in zip(starts.tolist(), np.append(starts[1:], len(chosen)).tolist(), strict=False):
                first, last = int(chosen[place]), int(chosen[end - 1]) + 1
                for start in range(first, last, most):
                    yield start, min(start + most, last)

        yield from self._parts(spans())

    def _parts(self, spans: Iterator[tuple[int, int]]) -> Iterator[tuple[int, NDArray[Any]]]:
        step = self._step_bytes
        with self._stream() as (stream, origin):
            for start, stop in spans:
                with _damage(self.path):
                    stream.seek(origin + start * step)
                    data = _read_all(stream, (stop - start) * step)
                yield start, np.frombuffer(data, self.dtype).reshape(stop - start, *self.shape[1:])

    @contextmanager
    def _stream(self) -> Iterator[tuple[IO[bytes], int]]:
        with _opened(self.path) as file:
            if self.member is None:
                yield file, self.offset
                return
            with _archive(self.path, file) as archive:
                with _damage(self.path):
                    stream = archive.open(self.member)
                with stream:
                    yield stream, self.offset


@contextmanager
def _damage(path: Path) -> Iterator[None]:
    """Turn what damaged archives raise into an error that names the file."""
    try:
        yield
    except (OSError, EOFError, KeyError, NotImplementedError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        raise UsageError(f"{path} is cut or damaged: {reason(error)}") from error


def _read_all(stream: IO[bytes], n_bytes: int) -> bytearray:
    data = bytearray(n_bytes)
    view = memoryview(data)
    done = 0
    while done < n_bytes:
        n_read = stream.readinto(view[done : done + _BAND_BYTES])  # type: ignore[attr-defined]
        if not n_read:
            raise EOFError("it ends early")
        done += n_read
    return data


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    try:
        # Opening a pipe without a writer would wait for ever.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} cannot be read: {reason(error)}") from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise UsageError(f"{path} is no regular file")
    with os.fdopen(descriptor, "rb") as file:
        yield file


def _archive(path: Path, file: IO[bytes]) -> zipfile.ZipFile:
    try:
        archive = zipfile.ZipFile(file)
    except (zipfile.BadZipFile, ValueError, OSError, NotImplementedError) as error:
        raise UsageError(f"{path} is no whole .npz file: it is cut or damaged") from error
    if len(archive.infolist()) > _MOST_MEMBERS:
        raise UsageError(f"{path} has {len(archive.infolist()):,} members, the limit is {_MOST_MEMBERS:,}")
    return archive


def _member(path: Path, archive: zipfile.ZipFile, key: str) -> zipfile.ZipInfo:
    infos = archive.infolist()
    found = [info for info in infos if info.filename == f"{key}.npy"]
    if len(found) != 1:
        names = some([info.filename.removesuffix(".npy") for info in infos]) if infos else "none"
        raise UsageError(f"{path} has {len(found) or 'no'} array{'s' * bool(found)} called '{key}'; it has {names}")
    if found[0].flag_bits & _ENCRYPTED:
        raise UsageError(f"{path} is encrypted: save it without a password")
    if found[0].compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise UsageError(f"{path} is neither stored nor deflated: save it with numpy.savez")
    return found[0]


def _start_of(path: Path, file: IO[bytes], info: zipfile.ZipInfo) -> int:
    """Return where the bytes of a stored member begin."""
    head = os.pread(file.fileno(), _LOCAL_HEADER.size, info.header_offset)
    if len(head) == _LOCAL_HEADER.size:
        mark, n_name, n_extra = _LOCAL_HEADER.unpack(head)
        start = int(info.header_offset + _LOCAL_HEADER.size + n_name + n_extra)
        if (
            mark == b"PK\x03\x04"
            and info.compress_size == info.file_size
            and start + info.file_size <= os.fstat(file.fileno()).st_size
        ):
            return start
    raise UsageError(f"{path} is no whole .npz file: it is cut or damaged")


def reason(error: BaseException) -> str:
    """Return what an error says, in a line without the path."""
    return one_line(getattr(error, "strerror", None) or str(error) or type(error).__name__)
