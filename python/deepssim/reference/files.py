"""Matrices, indices and embeddings in the ``.npz`` files of the reference implementation.

A matrix is the member ``data`` (rows real, columns synthetic), an index the member ``data`` of strings, an embedding
the member ``arr_0``. Files come from anywhere, so nothing in them is executed: pickles are refused, and members, types
and sizes are checked before anything is read. Parts of a matrix that is stored without compression, as ``numpy.savez``
writes it, are read where they lie.
"""

from __future__ import annotations

import csv
import io
import math
import os
import stat
import struct
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from deepssim.disk import FILE_MODE, replacing
from deepssim.errors import UsageError
from deepssim.images.text import one_line, some

__all__ = [
    "MATRIX_SUFFIXES",
    "MatrixFile",
    "read_embedding",
    "read_index",
    "read_matrix",
    "write_embedding",
    "write_index",
    "write_matrix",
]

MATRIX_SUFFIXES = (".npz", ".npy")
DATA, EMBEDDING = "data", "arr_0"
_MOST_MEMBERS = 2**16
_MOST_HEADER_BYTES = 2**16
_MOST_INDEX_BYTES = 2**31
_MOST_ELEMENTS = 65536  # of an embedding
_MOST_MATRIX_BYTES = 2**34  # of one that is read as a whole
_BAND_BYTES = 2**25
_ENCRYPTED = 0x1
_LOCAL_HEADER = struct.Struct("<4s22xHH")
_MAGIC_NPY, _MAGIC_ZIP = b"\x93NUMPY", b"PK"

Floats = NDArray[np.float32]


def write_matrix(path: Path, shape: tuple[int, int], bands: Iterable[Floats], *, float16: bool = False) -> None:
    """Write a matrix band by band, atomically.

    Args:
        path: ``.npz`` (key ``data``) or ``.npy``.
        shape: ``(n_real, n_synthetic)``.
        bands: Its rows in order, ``(n, n_synthetic)`` each.
        float16: Whether numbers are rounded to float16, which has steps of .0005 below 1.

    Raises:
        UsageError: The path has another suffix.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_matrix(Path(folder, "m.npz"), (1, 2), [np.array([[0.25, 1]], np.float32)])
        ...     np.load(Path(folder, "m.npz"))["data"]
        array([[0.25, 1.  ]], dtype=float32)
    """
    if path.suffix not in MATRIX_SUFFIXES:
        raise UsageError(f"{path.name} must end in {' or '.join(MATRIX_SUFFIXES)}")
    kind = "<f2" if float16 else "<f4"
    header = {"descr": kind, "fortran_order": False, "shape": shape}
    with replacing(path) as temporary, _member_to_write(temporary, path.suffix == ".npz") as member:
        np.lib.format.write_array_header_1_0(member, header)
        n_written = 0
        for band in bands:
            member.write(band.astype(kind).tobytes())
            n_written += len(band)
        if n_written != shape[0]:
            raise ValueError(f"{n_written} rows of {shape[0]} were given")


@contextmanager
def _member_to_write(path: Path, is_archive: bool) -> Iterator[IO[bytes]]:
    if not is_archive:
        with path.open("wb") as file:
            yield file
        return
    with zipfile.ZipFile(path, "w") as archive, archive.open(f"{DATA}.npy", "w", force_zip64=True) as member:
        yield member


def write_index(path: Path, names: Sequence[str]) -> None:
    """Write the names of rows or columns, atomically: ``.npz``, key ``data``.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_index(Path(folder, "real.npz"), ["p1___training"])
        ...     read_index(Path(folder, "real.npz"))
        ('p1___training',)
    """
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez(file, data=np.array(names, np.str_))


def write_embedding(path: Path, embedding: Floats) -> None:
    """Write the embedding of one image, ``(dim,)``, to a new file: ``.npz``, key ``arr_0``.

    Not synchronised with the disk: there is one for each image, and the folder that holds them gets its name at the
    end.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_embedding(Path(folder, "p1___training.npz"), np.ones(2, np.float32))
        ...     read_embedding(Path(folder, "p1___training.npz"))
        array([1., 1.], dtype=float32)
    """
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, FILE_MODE), "wb") as file:
        np.savez(file, np.ascontiguousarray(embedding, "<f4"))


def read_index(path: str | Path) -> tuple[str, ...]:
    """Read what the rows or columns of a matrix are.

    Args:
        path: ``.npz`` with the member ``data``, an array of strings; or ``.csv`` with a column ``id``, as ``deepssim
            matrix`` writes it beside an ``.npy``.

    Raises:
        UsageError: It cannot be read, holds pickled objects or no strings, or names an image twice.
    """
    path = Path(path)
    if path.suffix.lower() == ".csv":
        names = _read_csv_index(path)
    else:
        found = _Array.find(path, DATA)
        if found.dtype.kind not in "US" or len(found.shape) != 1:
            raise UsageError(f"{path} holds {found}, not a list of strings: it is no index of a matrix")
        if found.n_bytes > _MOST_INDEX_BYTES:
            raise UsageError(f"{path} holds {found.n_bytes:,} bytes of names, the limit is {_MOST_INDEX_BYTES:,}")
        try:
            values = found.read(0, found.shape[0]).tolist()
            names = [value if isinstance(value, str) else value.decode("utf-8") for value in values]
        except (UnicodeDecodeError, ValueError) as error:
            raise UsageError(f"{path} holds names that are no text") from error
    if not names:
        raise UsageError(f"{path} names no image")
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise UsageError(f"{path} names {len(twice):,} images more than once: {some(twice)}")
    return tuple(names)


def _read_csv_index(path: Path) -> list[str]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.DictReader(file, strict=True)
            if "id" not in (rows.fieldnames or ()):
                raise UsageError(f"{path} has no column id: it is no index of a matrix")
            return [row["id"] or "" for row in rows]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"{path} cannot be read as CSV in UTF-8: {_reason(error)}") from error


def read_embedding(path: str | Path) -> Floats:
    """Read the embedding of one image, ``(dim,)`` float32, as it is: of any length.

    Raises:
        UsageError: It cannot be read, is no list of numbers, or holds NaN or infinity.
    """
    path = Path(path)
    found = _Array.find(path, EMBEDDING)
    if found.dtype.kind != "f" or len(found.shape) != 1 or not 0 < found.shape[0] <= _MOST_ELEMENTS:
        raise UsageError(f"{path} holds {found}, not an embedding of up to {_MOST_ELEMENTS:,} numbers")
    embedding = found.read(0, found.shape[0]).astype(np.float32)
    if not np.isfinite(embedding).all():
        raise UsageError(f"{path} holds NaN or infinity")
    return embedding


def read_matrix(path: str | Path) -> NDArray[np.floating[Any]]:
    """Read a whole matrix ``(n_real, n_synthetic)``, in the type that it is stored in.

    Raises:
        UsageError: As of `MatrixFile.open`, or it takes more than 16 GiB: use that.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     np.savez(Path(folder, "m.npz"), data=np.array([[0.5, 1]], np.float16))
        ...     read_matrix(Path(folder, "m.npz"))
        array([[0.5, 1. ]], dtype=float16)
    """
    matrix = MatrixFile.open(path)
    n_bytes = math.prod(matrix.shape) * matrix.dtype.itemsize
    if n_bytes > _MOST_MATRIX_BYTES:
        raise UsageError(f"{path} holds {n_bytes:,} bytes of scores: too many to be read as a whole")
    return matrix.rows(0, matrix.shape[0])


@dataclass(frozen=True, slots=True)
class MatrixFile:
    """A matrix of scores on disk, read in parts.

    Attributes:
        path: The file.
        shape: ``(n_real, n_synthetic)``.
        dtype: What it is stored in: float16, float32 or float64.
    """

    path: Path
    shape: tuple[int, int]
    dtype: np.dtype[Any]
    _array: _Array

    @classmethod
    def open(cls, path: str | Path) -> MatrixFile:
        """Look at a matrix without reading it.

        Args:
            path: ``.npz`` with the member ``data``, or ``.npy``.

        Raises:
            UsageError: It cannot be read, holds pickled objects or is no matrix of float16, float32 or float64.

        Example:
            >>> import tempfile
            >>> with tempfile.TemporaryDirectory() as folder:
            ...     np.savez(Path(folder, "m.npz"), data=np.array([[0.5, 1], [0, 2]], np.float16))
            ...     MatrixFile.open(Path(folder, "m.npz")).pick([1, 0], [1, 0])
            array([2. , 0.5])
        """
        path = Path(path)
        found = _Array.find(path, DATA)
        if found.dtype.kind != "f" or found.dtype.itemsize > 8 or len(found.shape) != 2:
            raise UsageError(f"{path} holds {found}, not a matrix of float16, float32 or float64")
        return cls(path, (found.shape[0], found.shape[1]), found.dtype.newbyteorder("="), found)

    def check(self, n_real: int, n_synthetic: int) -> None:
        """Refuse a matrix that is not of so many real and synthetic images.

        Raises:
            UsageError: Its shape is another.
        """
        if self.shape == (n_real, n_synthetic):
            return
        hint = "; rows are real images: are the two indices swapped?" if self.shape == (n_synthetic, n_real) else ""
        raise UsageError(
            f"{self.path} has {self.shape[0]:,} x {self.shape[1]:,} scores, but its indices name {n_real:,} real and "
            f"{n_synthetic:,} synthetic images{hint}"
        )

    def rows(self, start: int, stop: int) -> NDArray[np.floating[Any]]:
        """Return rows `start` to `stop` (exclusive), a new array ``(stop - start, n_synthetic)``."""
        if self._array.is_fortran:
            return np.ascontiguousarray(self._array.read(0, self.shape[1]).T[start:stop], self.dtype)
        return self._array.read(start, stop).astype(self.dtype, copy=False)

    def pick(self, rows: Sequence[int] | NDArray[np.int64], columns: Sequence[int] | NDArray[np.int64]) -> Any:
        """Return the scores at places, ``(n,)`` float64, in the order of the places.

        Args:
            rows: ``(n,)`` rows, from 0.
            columns: ``(n,)`` columns.

        Raises:
            UsageError: A place lies outside, or the file is damaged.
        """
        places = [np.asarray(part, np.int64) for part in (rows, columns)]
        for part, length in zip(places, self.shape, strict=True):
            if len(part) and (part.min() < 0 or part.max() >= length):
                raise UsageError(f"{self.path} has {self.shape[0]:,} x {self.shape[1]:,} scores: a place lies outside")
        first, second = places[::-1] if self._array.is_fortran else places
        values = np.empty(len(first), np.float64)
        order = np.argsort(first, kind="stable")
        for start, band in self._array.bands(first[order]):
            inside = order[np.searchsorted(first[order], start) : np.searchsorted(first[order], start + len(band))]
            values[inside] = band[first[inside] - start, second[inside]]
        return values


@dataclass(frozen=True, slots=True)
class _Array:
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
    def find(cls, path: Path, key: str) -> _Array:
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
                with archive.open(info) as stream:
                    is_stored = info.compress_type == zipfile.ZIP_STORED
                    start = _start_of(path, file, info) if is_stored else 0
                    return cls._of(path, stream, start, info.file_size, None if is_stored else info.filename)

    @classmethod
    def _of(cls, path: Path, stream: IO[bytes], start: int, size: int, member: str | None) -> _Array:
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
            for place, end in zip(starts.tolist(), [*starts[1:].tolist(), len(chosen)], strict=True):
                first, last = int(chosen[place]), int(chosen[end - 1]) + 1
                for start in range(first, last, most):
                    yield start, min(start + most, last)

        yield from self._parts(spans())

    def _parts(self, spans: Iterator[tuple[int, int]]) -> Iterator[tuple[int, NDArray[Any]]]:
        step = self._step_bytes
        with self._stream() as (stream, origin):
            for start, stop in spans:
                stream.seek(origin + start * step)
                try:
                    data = _read_all(stream, (stop - start) * step)
                except (OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
                    raise UsageError(f"{self.path} is cut or damaged: {_reason(error)}") from error
                yield start, np.frombuffer(data, self.dtype).reshape(stop - start, *self.shape[1:])

    @contextmanager
    def _stream(self) -> Iterator[tuple[IO[bytes], int]]:
        with _opened(self.path) as file:
            if self.member is None:
                yield file, self.offset
                return
            with _archive(self.path, file) as archive, archive.open(self.member) as stream:
                yield stream, self.offset


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
        raise UsageError(f"{path} cannot be read: {_reason(error)}") from error
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise UsageError(f"{path} is no regular file")
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


def _reason(error: BaseException) -> str:
    return one_line(getattr(error, "strerror", None) or str(error) or type(error).__name__)
