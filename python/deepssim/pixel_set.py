"""The images of a source, decoded once into one file of float32 pixels of one size, and read from there in blocks.

Sets that memory does not hold are read many times by whoever compares all with all; decoding them once is cheaper.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Self

import numpy as np
from numpy.typing import NDArray

from deepssim.disk import replacing, write_json
from deepssim.errors import UsageError
from deepssim.image_ops import byte_grey, is_byte_image, resize_area
from deepssim.images import COUNTED_CODES, Image, Listing, Skipped, read_tasks

__all__ = ["PixelRules", "PixelSet", "Size"]

Size = tuple[int, int]


@dataclass(frozen=True, slots=True)
class PixelRules:
    """What happens to every image on its way into a set.

    Args:
        size: Rows and columns in pixels that every image is brought to by area averaging; None: all must have one
            size.
        with_byte_range: Whether grey values must lie between 0 and 255: an image that is no 8-bit image is then
            scaled to them by `byte_grey`.
        least_side: Fewest rows and columns of an image, in pixels.
        with_rounding: Whether grey values are rounded to whole numbers once the image has its size.
    """

    size: Size | None = None
    with_byte_range: bool = False
    least_side: int = 1
    with_rounding: bool = False


@dataclass(frozen=True, slots=True)
class PixelSet:
    """Images that lie in a file, and what is known of them.

    Attributes:
        path: The file: ``(n, rows, columns)``, float32 without a header.
        size: Rows and columns of every image, in pixels.
        ids: Of the images, in order.
        paths: Of their files.
        groups: Their patients; None where one is not known.
        skipped: What was left out.
        n_resized: Images that had another size.
        n_scaled: Images whose grey values were scaled.
    """

    path: Path
    size: Size
    ids: list[str]
    paths: list[str]
    groups: list[str | None]
    skipped: list[Skipped]
    n_resized: int
    n_scaled: int

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def n_skipped(self) -> int:
        """Left-out inputs that should have been images."""
        return sum(item.code in COUNTED_CODES for item in self.skipped)

    def read(self, first: int, stop: int) -> NDArray[np.float32]:
        """Return images `first` to `stop` (exclusive), a new array ``(stop - first, rows, columns)``."""
        pixels = self.size[0] * self.size[1]
        count = (stop - first) * pixels
        block = np.fromfile(self.path, np.float32, count, offset=first * pixels * 4)
        if block.size != count:
            raise UsageError(f"{self.path} is shorter than it was: another program changed it; start again")
        return block.reshape(-1, *self.size)

    def read_some(self, chosen: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return some images in the order that is asked for, a new array ``(len(chosen), rows, columns)``."""
        block = np.empty((len(chosen), *self.size), np.float32)
        # Neighbours in the file are read at once.
        starts = np.flatnonzero(np.diff(chosen, prepend=-2) != 1)
        for start, stop in zip(starts.tolist(), [*starts[1:].tolist(), len(chosen)], strict=True):
            first = int(chosen[start])
            block[start:stop] = self.read(first, first + stop - start)
        return block

    @classmethod
    def load(cls, path: Path) -> Self | None:
        """Return the set that a run before this one finished, None where there is none."""
        try:
            value = json.loads(_record(path).read_text(encoding="utf-8", errors="surrogateescape"))
        except FileNotFoundError:
            return None
        value["skipped"] = [Skipped(*item) for item in value["skipped"]]
        return cls(path, **{**value, "size": tuple(value["size"])})

    def save(self) -> None:
        """Record the set beside its file; from then on `load` finds it."""
        skipped = [(item.id, item.path, item.code, item.reason) for item in self.skipped]
        value = {name: getattr(self, name) for name in ("size", "ids", "paths", "groups", "n_resized", "n_scaled")}
        write_json(_record(self.path), {**value, "skipped": skipped})


def _record(path: Path) -> Path:
    return path.with_suffix(".json")


class _Reader:
    """Brings images to one size and writes them."""

    def __init__(self, listing: Listing, rules: PixelRules, like: PixelSet | None) -> None:
        self.rules = rules
        # The image that all others must be like, and its name.
        self.size, self.first = rules.size, ""
        if self.size is None and like is not None:
            self.size, self.first = like.size, like.ids[0]
        self.ids: list[str] = []
        self.paths: list[str] = []
        self.groups: list[str | None] = []
        self.skipped = list(listing.ignored)
        self.n_resized = self.n_scaled = 0

    def take(self, item: Image | Skipped, out: IO[bytes]) -> None:
        if isinstance(item, Skipped):
            self.skipped.append(item)
            return
        pixels = item.pixels
        if self.rules.with_byte_range and not is_byte_image(pixels):
            pixels = byte_grey(pixels)
            self.n_scaled += 1
        pixels = self._sized(item, pixels)
        if self.rules.with_rounding:
            pixels = np.rint(pixels)
        if pixels.min() == pixels.max():
            text = f"is constant at {self._text(pixels.shape)} pixels, so no likeness is defined"
            self.skipped.append(Skipped(item.id, item.path, "constant", text))
            return
        out.write(np.ascontiguousarray(pixels).tobytes())
        self.ids.append(item.id)
        self.paths.append(item.path)
        self.groups.append(item.group)

    def _sized(self, item: Image, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
        shape = (pixels.shape[0], pixels.shape[1])
        if self.size is None:
            self.size, self.first = shape, item.id
        if min(self.size) < self.rules.least_side:
            raise UsageError(
                f"'{item.id}' has {self._text(self.size)} pixels, at least {self.rules.least_side} x "
                f"{self.rules.least_side} are needed: give a larger --resize"
            )
        if shape == self.size:
            return pixels
        if self.rules.size is None:
            raise UsageError(
                f"'{item.id}' has {self._text(shape)} pixels (rows x columns), but '{self.first}' has "
                f"{self._text(self.size)}: give --resize {self.size[0]}x{self.size[1]} (or another size) to bring "
                "all images to one size by area averaging"
            )
        self.n_resized += 1
        return resize_area(pixels, *self.size)

    @staticmethod
    def _text(size: tuple[int, ...]) -> str:
        return " x ".join(map(str, size))


def read_pixel_set(
    listing: Listing,
    path: Path,
    rules: PixelRules,
    *,
    like: PixelSet | None = None,
    threads: int | None = None,
    progress: Callable[[int], None] = lambda _: None,
) -> PixelSet:
    """Decode a listing into a file, or take over the one that a run before this one finished.

    Args:
        listing: The images.
        path: The file; its record lies beside it under the suffix ``.json``.
        rules: What happens to every image.
        like: A set whose size all images must have.
        threads: Threads that decode; None: one for each usable processor.
        progress: Called with the number of images done since the last call.

    Raises:
        UsageError: Images differ in size and `rules` names none, are too small, or none can be used.
    """
    found = PixelSet.load(path)
    if found is not None:
        progress(len(found) + len(found.skipped))
        return found
    reader = _Reader(listing, rules, like)
    with replacing(path) as temporary, temporary.open("wb") as out:
        for result in _results(listing, threads):
            for item in result:
                reader.take(item, out)
            progress(len(result))
    if reader.size is None or not reader.ids:
        why = f"; of the first: {reader.skipped[0].reason}" if reader.skipped else ""
        raise UsageError(f"no image of {listing.source} can be used{why}")
    made = PixelSet(
        path, reader.size, reader.ids, reader.paths, reader.groups, reader.skipped, reader.n_resized, reader.n_scaled
    )  # fmt: skip
    made.save()
    return made


def _results(listing: Listing, threads: int | None) -> Iterator[list[Image | Skipped]]:
    results = read_tasks(listing, threads=threads)
    try:
        for result in results:
            yield result.items
    finally:
        results.close()  # type: ignore[attr-defined]  # stops the threads now, not when it is collected
