"""Matrices, indices and embeddings in the ``.npz`` files of the reference implementation.

A matrix is the member ``data`` (rows real, columns synthetic), an index the member ``data`` of strings, an embedding
the member ``arr_0``. How hostile files are read is told in `deepssim.reference.arrays`.
"""

from __future__ import annotations

import csv
import math
import os
import sys
import zipfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from deepssim.disk import FILE_MODE, replacing
from deepssim.errors import UsageError
from deepssim.images.text import some
from deepssim.reference.arrays import StoredArray, reason

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
_MOST_INDEX_BYTES = 2**31
_MOST_ELEMENTS = 65536  # of an embedding
_WRITE_BYTES = 2**22
_MOST_MATRIX_BYTES = 2**34  # of one that is read as a whole

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
        step = max(1, _WRITE_BYTES // max(1, 4 * shape[1]))
        for band in bands:
            for start in range(0, len(band), step):
                member.write(band[start : start + step].astype(kind, copy=False).tobytes())
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
        found = StoredArray.find(path, DATA)
        if found.dtype.kind not in "US" or len(found.shape) != 1:
            raise UsageError(f"{path} holds {found}, not a list of strings: it is no index of a matrix")
        if found.n_bytes > _MOST_INDEX_BYTES:
            raise UsageError(f"{path} holds {found.n_bytes:,} bytes of names, the limit is {_MOST_INDEX_BYTES:,}")
        names = _texts(path, found)
    if not names:
        raise UsageError(f"{path} names no image")
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise UsageError(f"{path} names {len(twice):,} images more than once: {some(twice)}")
    return tuple(names)


def _texts(path: Path, found: StoredArray) -> list[str]:
    try:
        values = found.read(0, found.shape[0])
        # NumPy makes strings of any numbers, and the interpreter ends where one is no character.
        if found.dtype.kind == "U" and values.view(values.dtype.byteorder + "u4").max(initial=0) > sys.maxunicode:
            raise ValueError("no character")
        return [value if isinstance(value, str) else value.decode("utf-8") for value in values.tolist()]
    except (UnicodeDecodeError, ValueError) as error:
        raise UsageError(f"{path} holds names that are no text") from error


def _read_csv_index(path: Path) -> list[str]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.DictReader(file, strict=True)
            if "id" not in (rows.fieldnames or ()):
                raise UsageError(f"{path} has no column id: it is no index of a matrix")
            return [row["id"] or "" for row in rows]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"{path} cannot be read as CSV in UTF-8: {reason(error)}") from error


def read_embedding(path: str | Path) -> Floats:
    """Read the embedding of one image, ``(dim,)`` float32, as it is: of any length.

    Raises:
        UsageError: It cannot be read, is no list of numbers, or holds NaN or infinity.
    """
    path = Path(path)
    found = StoredArray.find(path, EMBEDDING)
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
    _array: StoredArray

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
        found = StoredArray.find(path, DATA)
        if found.dtype.kind != "f" or found.dtype.itemsize > 8 or len(found.shape) != 2:
            raise UsageError(f"{path} holds {found}, not a matrix of float16, float32 or float64")
        n_real, n_synthetic = found.shape[::-1] if found.is_fortran else found.shape
        return cls(path, (n_real, n_synthetic), found.dtype.newbyteorder("="), found)

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
