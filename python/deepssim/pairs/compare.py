"""Similarity of many pairs, as they lie and once registered, a block at a time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from deepssim.disk import replacing
from deepssim.errors import MemoryLimitError, UsageError
from deepssim.image_ops import map_on_threads, register, registered_similarity, similarity_matrix
from deepssim.pairs.draw import ONE, Indices, Micros, to_micros
from deepssim.pixel_set import PixelSet

__all__ = ["N_NUMBERS", "Checkpoint", "Held", "Images", "Stored", "compare_blocks", "register_pairs"]

Bytes = NDArray[np.uint8]

_TILE_SIDE = 1024
_BLOCK_PAIRS = 2**22
_REGISTER_PAIRS = 1024
_SECONDS = 20.0
# 8-bit pixels of both sides, and float32 ones while a block is read.
_BYTES_A_PIXEL = 6
# What register_pairs gives of a pair: its SSIM, then the transform.
N_NUMBERS = 6


class Images(Protocol):
    """Images of one size, read by their places."""

    def read(self, places: Indices) -> Bytes:
        """Return some, a new array ``(len(places), rows, columns)``."""


@dataclass(frozen=True, slots=True)
class Stored:
    """Images of a set whose pixels are whole numbers from 0 to 255."""

    pixels: PixelSet

    def read(self, places: Indices) -> Bytes:
        """Return some, a new array ``(len(places), rows, columns)``."""
        return self.pixels.read_some(places).astype(np.uint8)


@dataclass(frozen=True, slots=True, eq=False)
class Held:
    """Images in memory, ``(n, rows, columns)``."""

    images: Bytes

    def read(self, places: Indices) -> Bytes:
        """Return some, a new array ``(len(places), rows, columns)``."""
        return self.images[places]


class Checkpoint:
    """Arrays that a run leaves behind now and then, so that it can go on after a kill.

    Args:
        path: Their file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._last = time.monotonic()

    def load(self) -> dict[str, NDArray[np.generic]] | None:
        """Return what a run before this one left, None where that is nothing."""
        try:
            with np.load(self.path, allow_pickle=False) as archive:
                return {name: archive[name] for name in archive.files}
        except FileNotFoundError:
            return None

    def offer(self, arrays: Callable[[], Mapping[str, NDArray[np.generic]]], *, is_last: bool = False) -> None:
        """Save, if the last time was long enough ago or this is the last."""
        if not is_last and time.monotonic() - self._last < _SECONDS:
            return
        with replacing(self.path) as temporary, temporary.open("wb") as file:
            np.savez(file, **arrays())  # type: ignore[arg-type]  # numpy's stubs take no mapping of generic arrays
        self._last = time.monotonic()


def compare_blocks(
    rows: Images,
    row_places: Indices,
    columns: Images,
    column_places: Indices,
    *,
    size: tuple[int, int],
    first_column: int = 0,
    memory_limit: int = 0,
    threads: int = 0,
) -> Iterator[tuple[slice, Micros]]:
    """Compare all rows with all columns by SSIM as they lie, some columns at a time.

    SSIM is that of the published recipes: z-scored images, windows of 7 x 7 pixels, the range of the first image.

    Args:
        rows: The first images.
        row_places: Which of them.
        columns: The second images.
        column_places: Which of them.
        size: Rows and columns of every image, in pixels.
        first_column: Where to begin in `column_places`.
        memory_limit: Bytes for images held at a time; 0: no limit.
        threads: 0: all processors that this process may use.

    Yields:
        Which of `column_places`, and their similarity with all rows in millionths, ``(len(row_places), n)``.

    Raises:
        MemoryLimitError: The limit does not hold one image a side.
    """
    pair_bytes = _BYTES_A_PIXEL * size[0] * size[1]
    side = min(_TILE_SIDE, memory_limit // pair_bytes) if memory_limit else _TILE_SIDE
    if side < 1:
        raise MemoryLimitError(
            f"a memory limit of {memory_limit:,} bytes holds no two images of {size[0]} x {size[1]} pixels: give at "
            f"least {pair_bytes:,}",
            pair_bytes,
        )
    step = max(1, min(side, _BLOCK_PAIRS // max(1, len(row_places))))
    for start in range(first_column, len(column_places), step):
        chosen = column_places[start : start + step]
        second = columns.read(chosen)
        micros = np.empty((len(row_places), len(chosen)), np.int32)
        for row in range(0, len(row_places), side):
            first = rows.read(row_places[row : row + side])
            found = similarity_matrix("ssim", first, second, data_range=None, with_z_score=True, threads=threads)
            micros[row : row + side] = to_micros(found)
        yield slice(start, start + len(chosen)), micros


def register_pairs(
    real: Images,
    first: Indices,
    synthetic: Images,
    second: Indices,
    *,
    threads: int,
    checkpoint: Checkpoint,
    progress: Callable[[int], None],
) -> NDArray[np.float64]:
    """Lay the second image of each pair onto its first, and compare them there.

    Args:
        real: The first images.
        first: ``(n,)`` which of them.
        synthetic: The second images.
        second: ``(n,)`` which of them.
        threads: 0: all processors that this process may use.
        checkpoint: What was done is taken from there, and left there.
        progress: Called with the number of pairs done since the last call.

    Returns:
        ``(n, N_NUMBERS)``: SSIM over what both show, of z-scored images and with the range of the first, rounded to
        millionths (-1: too little overlaps); whether the second image is mirrored, its angle in degrees, shifts down
        and to the right in pixels, scale.
    """
    found = checkpoint.load()
    done = np.zeros((0, N_NUMBERS)) if found is None else found["done"].astype(np.float64)
    if len(done) > len(first):
        raise UsageError(f"{checkpoint.path} is of other pairs: remove it and start again")
    progress(len(done))
    parts = [done]
    # Pairs of one real image together: each image of a chunk is read once.
    order = np.lexsort((second, first))
    for start in range(len(done), len(first), _REGISTER_PAIRS):
        chosen = order[start : start + _REGISTER_PAIRS]
        a, a_places = np.unique(first[chosen], return_inverse=True)
        b, b_places = np.unique(second[chosen], return_inverse=True)
        left, right = real.read(a), synthetic.read(b)
        pairs = [(left[i], right[j]) for i, j in zip(a_places.tolist(), b_places.tolist(), strict=True)]
        parts.append(np.array(map_on_threads(_register, pairs, threads)))
        progress(len(chosen))
        checkpoint.offer(lambda: {"done": np.concatenate(parts)}, is_last=start + _REGISTER_PAIRS >= len(first))
    out = np.empty((len(first), N_NUMBERS))
    out[order] = np.concatenate(parts)
    return out


def _register(pair: tuple[Bytes, Bytes]) -> tuple[float, ...]:
    transform = register(*pair).transform
    similarity = registered_similarity(*pair, transform).ssim
    return (round(similarity * ONE) / ONE, *map(float, astuple(transform)))
