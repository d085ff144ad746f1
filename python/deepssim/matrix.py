"""Matrices of image similarity: every real image against every synthetic one, in bounded memory and resumable.

Work under way lies in a folder beside the result whose name carries the fingerprint of everything that the numbers
depend on. The result gets its name when it is whole.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from deepssim.disk import FILE_MODE, check_writable, work_folder, write_json
from deepssim.errors import MemoryLimitError, UsageError
from deepssim.image_ops import similarity_matrix
from deepssim.image_ops.similarity import Window
from deepssim.images import ImageOptions, Listing, list_images, listing_signature
from deepssim.pixel_set import PixelRules, PixelSet, Size, read_pixel_set
from deepssim.progress import Progress, Silent
from deepssim.reference.files import MATRIX_SUFFIXES, read_index, write_index, write_matrix
from deepssim.reference.layout import list_keys, split_layout
from deepssim.reference.names import identifiers
from deepssim.tables import write_csv

__all__ = ["MatrixKind", "MatrixOptions", "MatrixResult", "compute_matrix"]

MatrixKind = Literal["ssim", "fsim", "ncc"]

# Images on each side of a tile: what is done again after a kill, and what a tile's terms are computed for.
_TILE_SIDE = 1024
_LEAST_SIDE = {"fsim": 2, "ncc": 1}
_LEAST_WINDOW = {"uniform": 7, "gaussian": 11}


@dataclass(frozen=True, slots=True)
class MatrixOptions:
    """What is computed, and how.

    Args:
        kind: "ssim", "fsim" or "ncc", as `deepssim.image_ops` defines them.
        window: Of SSIM.
        data_range: Of SSIM: the range of grey values; None: largest less smallest of each pair's real image.
        with_z_score: Of SSIM: whether images are compared less their mean over their standard deviation.
        size: Rows and columns that all images are resized to by area averaging; None: they must have one size.
        images: How both sets are read.
        memory_limit: Bytes for the images held at a time; 0: no limit. Terms of the comparison take 64 MiB more.
        threads: 0: all processors that this process may use.
        max_skipped: Share of a set that may be left out before the result counts as incomplete.
        float16: Whether an ``.npz`` holds float16, as the reference implementation writes it: steps of .0005 below 1.
    """

    kind: MatrixKind = "ssim"
    window: Window = "uniform"
    data_range: float | None = None
    with_z_score: bool = True
    size: Size | None = None
    images: ImageOptions = field(default_factory=ImageOptions)
    memory_limit: int = 2 * 2**30
    threads: int = 0
    max_skipped: float = 0.01
    float16: bool = False

    def rules(self) -> PixelRules:
        """Return what happens to every image."""
        least = _LEAST_WINDOW[self.window] if self.kind == "ssim" else _LEAST_SIDE[self.kind]
        return PixelRules(self.size, self.kind == "fsim", least)

    def tile_side(self, size: Size) -> int:
        """Return how many images of a size each side of a tile has.

        Raises:
            MemoryLimitError: The limit does not hold one image a side.
        """
        if self.memory_limit == 0:
            return _TILE_SIDE
        # Tiles of results are small beside images, but not beside tiny ones.
        image_bytes = size[0] * size[1] * 4
        side = min(_TILE_SIDE, self.memory_limit // (2 * image_bytes + 4 * _TILE_SIDE))
        if side < 1:
            least = 2 * image_bytes + 4 * _TILE_SIDE
            raise MemoryLimitError(f"a memory limit of {self.memory_limit:,} bytes holds no two images of "
                                   f"{size[0]} x {size[1]} pixels: give at least {least:,}", least)  # fmt: skip
        return side


@dataclass(frozen=True, slots=True)
class MatrixResult:
    """What was written.

    Attributes:
        out: The matrix, ``(n_real, n_synthetic)``.
        real_index: Which image each row is.
        synthetic_index: Which image each column is.
        skipped: What was left out, and why.
        n_real: Rows.
        n_synthetic: Columns.
        size: Rows and columns of the images in pixels.
        n_real_skipped: Real inputs that should have been images and are none.
        n_synthetic_skipped: Synthetic ones.
        n_resized: Images of both sets that had another size.
        n_scaled: Images of both sets whose grey values were scaled to 0 to 255 (FSIM alone).
        too_many_skipped: Whether more of a set was left out than allowed.
        seconds: Of comparing, in this run.
    """

    out: Path
    real_index: Path
    synthetic_index: Path
    skipped: Path
    n_real: int
    n_synthetic: int
    size: Size
    n_real_skipped: int
    n_synthetic_skipped: int
    n_resized: int
    n_scaled: int
    too_many_skipped: bool
    seconds: float

    def as_dict(self) -> dict[str, Any]:
        """Return it for JSON."""
        return {key: str(value) if isinstance(value, Path) else value for key, value in asdict(self).items()}


class _Grid:
    """A float32 ``.npy`` that is filled tile by tile, and how many tiles are in it."""

    def __init__(self, folder: Path, n_rows: int, n_columns: int, side: int) -> None:
        self.path, self.shape, self.side = folder / "matrix.npy", (n_rows, n_columns), side
        self._done = folder / "tiles.json"
        self.tiles = [(row, column) for row in range(0, n_rows, side) for column in range(0, n_columns, side)]
        self._header = self._write_header()
        self.n_done = self._read_done()

    def _write_header(self) -> int:
        """Make the file where it is missing; return where its numbers start."""
        header = {"descr": "<f4", "fortran_order": False, "shape": self.shape}
        if not self.path.exists():
            self._done.unlink(missing_ok=True)  # before there is a file that it would be taken for
        with os.fdopen(os.open(self.path, os.O_RDWR | os.O_CREAT, FILE_MODE), "r+b") as file:
            np.lib.format.write_array_header_1_0(file, header)
            length = file.tell()
            file.truncate(length + 4 * self.shape[0] * self.shape[1])
        return length

    def _read_done(self) -> int:
        try:
            return int(json.loads(self._done.read_text(encoding="utf-8"))["tiles"])
        except FileNotFoundError:
            return 0

    def extent(self, tile: tuple[int, int]) -> tuple[slice, slice]:
        """Return the rows and columns of a tile."""
        stops = [min(start + self.side, n) for start, n in zip(tile, self.shape, strict=True)]
        return slice(tile[0], stops[0]), slice(tile[1], stops[1])

    def write(self, tile: tuple[int, int], values: NDArray[np.float32]) -> None:
        """Write a tile; it counts from the moment its number is on the disk."""
        rows, columns = self.extent(tile)
        # Not through a map: where the disk is full, that would kill the process.
        with self.path.open("r+b", buffering=0) as file:
            for row, line in zip(range(rows.start, rows.stop), values, strict=True):
                data = memoryview(line.astype("<f4", copy=False).tobytes())
                place = self._header + 4 * (row * self.shape[1] + columns.start)
                while data:
                    n_written = os.pwrite(file.fileno(), data, place)
                    data, place = data[n_written:], place + n_written
            os.fsync(file.fileno())
        self.n_done += 1
        write_json(self._done, {"tiles": self.n_done})

    def rows(self) -> Iterator[NDArray[np.float32]]:
        """Yield the finished matrix, some rows at a time."""
        values = np.load(self.path, mmap_mode="r")
        step = max(1, 2**22 // max(1, self.shape[1]))
        for first in range(0, self.shape[0], step):
            yield np.array(values[first : first + step])


def compute_matrix(
    real: str | Path,
    synthetic: str | Path | None,
    out: Path,
    options: MatrixOptions | None = None,
    *,
    real_keys: Path | None = None,
    synthetic_keys: Path | None = None,
    real_index: Path | None = None,
    synthetic_index: Path | None = None,
    progress: Progress | None = None,
) -> MatrixResult:
    """Compare every real image with every synthetic one, and write the matrix.

    Killed and started again with the same images and options it goes on at the last whole tile (1,024 x 1,024 pairs
    at most). Images are decoded once, into a work folder beside `out` that is removed at the end.

    Args:
        real: Folder, file or manifest, as `list_images` takes them.
        synthetic: The same. None: `real` is one folder for both; images called ``training`` are the real ones, if keys
            do not say which are which.
        out: ``.npy``: dense float32 ``(n_real, n_synthetic)``, with the indices as CSV (row or column, id, path).
            ``.npz``: what the reference implementation of DeepSSIM reads: key ``data``, with the indices as ``.npz``,
            key ``data``, strings ``<folder>___<stem>``.
        options: What is computed.
        real_keys: An index (`deepssim.reference.read_index`) of the real images to compare, in the order of the rows;
            None: all. An image among them that cannot be used is a row of NaN.
        synthetic_keys: The same of the synthetic images and the columns.
        real_index: Where to write what the rows are; None: beside `out`, as ``NAME.real.csv`` or ``NAME.real.npz``.
        synthetic_index: What the columns are; None: ``NAME.synthetic.csv`` or ``NAME.synthetic.npz``.
        progress: Told of what is done.

    Returns:
        What was written. ``NAME.skipped.csv`` lists what was left out.

    Raises:
        UsageError: Images differ in size, are too small, or none of a set can be used; keys name no image (all are
            named); `out` has another suffix or lies among the images.
        MemoryLimitError: The memory limit is too small.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     stack = np.random.default_rng(0).integers(0, 256, (3, 16, 16), dtype=np.uint8)
        ...     np.save(Path(folder, "stack.npy"), stack)
        ...     done = compute_matrix(Path(folder, "stack.npy"), Path(folder, "stack.npy"), Path(folder, "m.npy"))
        ...     np.load(done.out).diagonal()
        array([1., 1., 1.], dtype=float32)
    """
    options = options or MatrixOptions()
    progress = progress or Silent()
    out = out.absolute()
    targets = _Targets.of(out, real_index, synthetic_index)
    for source in (real, synthetic if synthetic is not None else real):
        if Path(source).is_dir() and out.resolve().is_relative_to(Path(source).resolve()):
            raise UsageError(f"{out} lies inside the images ({source}): name a file outside for the matrix")
    keys = [None if path is None else read_index(path) for path in (real_keys, synthetic_keys)]
    listings = _listings(real, synthetic, keys, options)
    make_parent(out)
    with work_folder(out, _fingerprint(listings, options)) as work:
        sets = _read_sets(listings, work, options, progress)
        sides = tuple(_Side(*parts) for parts in zip(sets, listings, keys, strict=True))
        names = [side.names() for side in sides] if targets.is_reference else []
        grid = _Grid(work, len(sets[0]), len(sets[1]), options.tile_side(sets[0].size))
        started = time.monotonic()
        _fill(grid, sets, options, progress)
        seconds = time.monotonic() - started
        targets.write_indices(sets, names)
        targets.write_matrix(grid, sides, float16=options.float16)
    n_left_out = [one.n_skipped for one in sets]
    return MatrixResult(
        targets.out, targets.real, targets.synthetic, targets.skipped, len(sides[0]), len(sides[1]), sets[0].size,
        n_left_out[0], n_left_out[1], sum(one.n_resized for one in sets), sum(one.n_scaled for one in sets),
        any(n > options.max_skipped * (n + len(one)) for n, one in zip(n_left_out, sets, strict=True)),
        round(seconds, 3),
    )  # fmt: skip


def make_parent(path: Path) -> None:
    """Make the folder that a file goes to.

    Raises:
        UsageError: It cannot be made or written to, or the file is a folder.
    """
    if path.is_dir():
        raise UsageError(f"{path} is a folder: name a file")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"cannot make the folder {path.parent}: {error.strerror}") from error
    check_writable(path.parent)


# Options that the numbers do not depend on.
_NOT_IN_TILES = ("threads", "max_skipped", "float16")


def _listings(
    real: str | Path, synthetic: str | Path | None, keys: Sequence[Sequence[str] | None], options: MatrixOptions
) -> tuple[Listing, Listing]:
    if synthetic is None and keys[0] is None and keys[1] is None:
        return split_layout(list_images(real, options.images))
    if synthetic is None and None in keys:
        raise UsageError(f"of one folder, {real}, either both sets are named by keys or none: give two folders, or the "
                         "keys of both")  # fmt: skip
    first, second = (
        list_images(source, options.images) if one is None else list_keys(source, one, options.images)
        for source, one in zip((real, real if synthetic is None else synthetic), keys, strict=True)
    )
    return first, second


@dataclass(frozen=True, slots=True)
class _Side:
    """The rows or the columns of the matrix that is written.

    Attributes:
        images: Those that could be used.
        listing: Of all.
        keys: What was asked for; None: all images that can be used.
    """

    images: PixelSet
    listing: Listing
    keys: Sequence[str] | None

    def __len__(self) -> int:
        return len(self.images) if self.keys is None else len(self.keys)

    def places(self) -> NDArray[np.intp]:
        """Return where each usable image lies, ascending."""
        if self.keys is None:
            return np.arange(len(self.images))
        number = {file.path: k for k, file in enumerate(self.listing.files)}
        return np.array([number[path] for path in self.images.paths], np.intp)

    def names(self) -> list[str]:
        """Return how the reference implementation calls them.

        Raises:
            UsageError: Two images would have one name.
        """
        if self.keys is not None:
            return list(self.keys)
        return identifiers(self.images.ids, self.images.paths, self.listing.root.name)


def _fingerprint(listings: Sequence[Listing], options: MatrixOptions) -> str:
    facts = {
        "images": [(str(listing.root), listing.source, listing_signature(listing)) for listing in listings],
        "options": {key: value for key, value in asdict(options).items() if key not in _NOT_IN_TILES},
    }
    text = json.dumps(facts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:16]


def _read_sets(
    listings: tuple[Listing, Listing], work: Path, options: MatrixOptions, progress: Progress
) -> tuple[PixelSet, PixelSet]:
    found: list[PixelSet] = []
    for name, listing in zip(("real", "synthetic"), listings, strict=True):
        with progress.track(f"{name} images", listing.n_expected) as advance:
            like = found[0] if found else None
            found.append(
                read_pixel_set(
                    listing, work / f"{name}.bin", options.rules(), like=like, threads=options.threads or None,
                    progress=advance,
                )
            )  # fmt: skip
    return found[0], found[1]


def _fill(grid: _Grid, sets: tuple[PixelSet, PixelSet], options: MatrixOptions, progress: Progress) -> None:
    if grid.n_done:
        progress.status(f"continuing after {grid.n_done:,} of {len(grid.tiles):,} tiles")
    is_ssim = options.kind == "ssim"
    with progress.track("pairs", grid.shape[0] * grid.shape[1]) as advance:
        advance(sum(_count(grid.extent(tile)) for tile in grid.tiles[: grid.n_done]))
        held_rows = None
        real = np.empty((0, 0, 0), np.float32)
        for tile in grid.tiles[grid.n_done :]:
            rows, columns = grid.extent(tile)
            if held_rows != rows:
                real = real[:0]  # before the next are read: the bound on memory
                real = sets[0].read(rows.start, rows.stop)
                held_rows = rows
            synthetic = sets[1].read(columns.start, columns.stop)
            try:
                values = similarity_matrix(
                    options.kind,
                    real,
                    synthetic,
                    data_range=options.data_range if is_ssim else None,
                    window=options.window,
                    with_z_score=options.with_z_score and is_ssim,
                    threads=options.threads,
                )
            except ValueError as error:
                raise UsageError(f"real images {rows.start} to {rows.stop - 1} with synthetic images "
                                 f"{columns.start} to {columns.stop - 1}: {error}") from error  # fmt: skip
            grid.write(tile, values.astype(np.float32, copy=False))
            advance(_count((rows, columns)))


def _count(extent: tuple[slice, slice]) -> int:
    rows, columns = (len(range(one.start, one.stop)) for one in extent)
    return rows * columns


@dataclass(frozen=True, slots=True)
class _Targets:
    """The files of a result."""

    out: Path
    real: Path
    synthetic: Path
    skipped: Path
    is_reference: bool

    @classmethod
    def of(cls, out: Path, real: Path | None, synthetic: Path | None) -> _Targets:
        if out.suffix not in MATRIX_SUFFIXES:
            raise UsageError(f"{out.name} must end in .npy or .npz (the reference's file)")
        suffix = ".npz" if out.suffix == ".npz" else ".csv"
        targets = cls(
            out,
            (real or out.with_suffix(f".real{suffix}")).absolute(),
            (synthetic or out.with_suffix(f".synthetic{suffix}")).absolute(),
            out.with_suffix(".skipped.csv"),
            out.suffix == ".npz",
        )
        if len({targets.out, targets.real, targets.synthetic, targets.skipped}) < 4:
            raise UsageError("the matrix and its two indices need three different names")
        for index in (targets.real, targets.synthetic):
            if index.suffix != suffix:
                raise UsageError(f"{index.name} must end in {suffix}, since {out.name} ends in {out.suffix}")
        return targets

    def write_indices(self, sets: Sequence[PixelSet], names: Sequence[list[str]]) -> None:
        """Write what rows and columns are, and what was left out."""
        for k, (path, place) in enumerate(((self.real, "row"), (self.synthetic, "column"))):
            make_parent(path)
            if self.is_reference:
                write_index(path, names[k])
            else:
                rows = enumerate(zip(sets[k].ids, sets[k].paths, strict=True))
                write_csv(path, (place, "id", "path"), ((n, *texts) for n, texts in rows))
        write_skipped(self.skipped, dict(zip(("real", "synthetic"), sets, strict=True)))

    def write_matrix(self, grid: _Grid, sides: Sequence[_Side], *, float16: bool) -> None:
        """Give the matrix its name, or make a file of another kind of it."""
        rows, columns = sides
        if not self.is_reference and grid.shape == (len(rows), len(columns)):
            grid.path.replace(self.out)
            return
        places = rows.places(), columns.places()
        bands = _in_place(grid.rows(), places[0], places[1], (len(rows), len(columns)))
        write_matrix(self.out, (len(rows), len(columns)), bands, float16=float16 and self.is_reference)


def _in_place(
    bands: Iterator[NDArray[np.float32]], rows: NDArray[np.intp], columns: NDArray[np.intp], shape: tuple[int, int]
) -> Iterator[NDArray[np.float32]]:
    """Put the numbers of usable images in their places among all, where the others have NaN."""
    done = n_read = 0
    for band in bands:
        own = rows[n_read : n_read + len(band)]
        n_read += len(band)
        wide = np.full((int(own[-1]) + 1 - done, shape[1]), np.nan, np.float32)
        wide[np.ix_(own - done, columns)] = band
        done += len(wide)
        yield wide
    yield np.full((shape[0] - done, shape[1]), np.nan, np.float32)


def write_skipped(path: Path, sets: Mapping[str, PixelSet]) -> None:
    """Write what was left out of sets, by the name of each set, as CSV."""
    left_out = ((name, i.id, i.path, i.code, i.reason) for name, one in sets.items() for i in one.skipped)
    write_csv(path, ("set", "id", "path", "code", "reason"), left_out)
