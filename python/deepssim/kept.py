"""Images of a stream that are kept on disk: what is flagged, the nearest few that are not, and a random sample.

A file holds the pixels as they came: PNG of 8 or 16 bits where these hold each value exactly, else ``.npy``. Its name
is made of the id, so that no id can name another place. The sample are the images whose ids have the smallest hashes:
it depends neither on the order of the images nor on whether the run was cut short.
"""

from __future__ import annotations

import hashlib
import heapq
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from deepssim.calibration import LABELS
from deepssim.disk import make_private_folder, replacing
from deepssim.errors import ImageError, UsageError
from deepssim.images import Image, ImageOptions, read_image
from deepssim.images.formats import format_of_name
from deepssim.parts import Part
from deepssim.results import Pair, best_pairs
from deepssim.tables import write_csv

__all__ = ["DEFAULT_SAMPLE", "FOLDER", "KeptImages", "remove_kept"]

FOLDER = "images"
INDEX = "index.csv"
DEFAULT_SAMPLE = 100
_COLUMNS = ("file", "id", "label", "is_nearest", "is_sample")
_OWN_FILE = re.compile(r"index\.csv|[A-Za-z0-9_][A-Za-z0-9._-]{0,79}-[0-9a-f]{16}\.(png|npy)")
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")
_SUFFIXES = (".png", ".npy")


def _stem(image_id: str) -> str:
    """Return the name of an image's file without its suffix.

    Example:
        >>> _stem("../a b.png")
        'a_b-6a571d45846220da'
    """
    readable = _UNSAFE.sub("_", image_id if format_of_name(image_id) is None else image_id.rpartition(".")[0])
    readable = readable[-80:].lstrip("._-") or "image"
    return f"{readable}-{hashlib.sha256(image_id.encode('utf-8', 'surrogateescape')).hexdigest()[:16]}"


def _draw(image_id: str) -> int:
    """Return the number that decides about the sample: the smallest ones are in it."""
    salted = b"sample\0" + image_id.encode("utf-8", "surrogateescape")
    return int.from_bytes(hashlib.sha256(salted).digest()[:8], "big")


@dataclass(frozen=True, slots=True, order=True)
class _Drawn:
    """An image of the sample; the heap has the one to go first."""

    minus_draw: int
    image_id: str


class KeptImages:
    """Files in a folder, chosen part by part.

    Args:
        folder: Theirs; made if missing.
        n_sample: Images of the random sample.
        max_pixels: Of one image.

    Raises:
        UsageError: The folder cannot be made.
    """

    def __init__(self, folder: Path, n_sample: int = DEFAULT_SAMPLE, *, max_pixels: int = 2**26) -> None:
        self.folder, self.n_sample = make_private_folder(folder), n_sample
        self._options = ImageOptions(max_pixels=max_pixels)
        self._sample: list[_Drawn] = []
        self._nearest: list[Pair] = []
        for path in self.folder.glob(".*.partial"):
            path.unlink()

    def choose(self, part: Part, records: pa.Table) -> list[int]:
        """Take a part into account; later parts may push out again what is neither flagged nor among the nearest.

        Args:
            part: The answer for a run of images.
            records: Theirs: columns ``id`` and ``path``.

        Returns:
            Indices within the part of the images to keep, for now.
        """
        ids = records["id"].to_pylist()
        for image_id in ids if self.n_sample else ():
            drawn = _Drawn(-_draw(image_id), image_id)
            if len(self._sample) < self.n_sample:
                heapq.heappush(self._sample, drawn)
            elif drawn > self._sample[0]:
                heapq.heapreplace(self._sample, drawn)
        self._nearest = best_pairs(self._nearest, part, records, is_wanted=~_flagged(part))
        wanted = self._wanted()
        return [i for i, is_flagged in enumerate(_flagged(part).tolist()) if is_flagged or ids[i] in wanted]

    def _wanted(self) -> set[str]:
        return {drawn.image_id for drawn in self._sample} | {pair.synthetic_id for pair in self._nearest}

    def write(self, image_id: str, pixels: NDArray[Any]) -> None:
        """Write an image ``(height, width)``, 8 or 16 bits or float32."""
        name = self.folder / _stem(image_id)
        if pixels.dtype == np.float32:
            with replacing(name.with_name(f"{name.name}.npy"), is_lasting=False) as path, path.open("wb") as file:
                np.save(file, pixels, allow_pickle=False)
            return
        with replacing(name.with_name(f"{name.name}.png"), is_lasting=False) as path:
            path.write_bytes(_png(pixels))

    def read(self, path: str, image_id: str) -> Image:
        """Read an image again.

        Raises:
            ImageError: It is not kept, or not there any more.
        """
        for suffix in _SUFFIXES:
            name = _stem(image_id) + suffix
            if (self.folder / name).is_file():
                image = read_image(self.folder, name, name, self._options)
                return Image(image_id, path, None, image.pixels, image.pixel_hash)
        raise ImageError("missing", f"it is not among the kept images in {self.folder}")

    def drop_others(self, answers: Iterator[tuple[Part, pa.Table]]) -> int:
        """Write ``index.csv`` of what is kept at the end, and remove the files of all other images.

        Args:
            answers: All parts of the run with the records of their images.

        Returns:
            How many images are kept.
        """
        rows = self._rows(answers)
        kept: set[str] = set()

        def noted() -> Iterator[tuple[object, ...]]:
            for row in rows:
                kept.add(str(row[0]))
                yield row

        write_csv(self.folder / INDEX, _COLUMNS, noted())
        for path in self.folder.iterdir():
            if path.name not in kept and path.name != INDEX and _OWN_FILE.fullmatch(path.name):
                path.unlink(missing_ok=True)
        return len(kept)

    def _rows(self, answers: Iterator[tuple[Part, pa.Table]]) -> Iterator[tuple[object, ...]]:
        sample = {drawn.image_id for drawn in self._sample}
        nearest = {pair.synthetic_id for pair in self._nearest}
        for part, records in answers:
            ids, flagged = records["id"].to_pylist(), _flagged(part).tolist()
            levels = _levels(part).tolist()
            for image_id, is_flagged, level in zip(ids, flagged, levels, strict=True):
                if not (is_flagged or image_id in nearest or image_id in sample):
                    continue
                names = [_stem(image_id) + suffix for suffix in _SUFFIXES]
                file = next((name for name in names if (self.folder / name).is_file()), "")
                if file:
                    yield file, image_id, LABELS[level], int(image_id in nearest), int(image_id in sample)


def _levels(part: Part) -> NDArray[np.int8]:
    """Return the highest level of each image's pairs."""
    levels: NDArray[np.int8] = part.levels.max(axis=1, initial=0)
    np.maximum.at(levels, part.listed_queries, part.listed_levels)
    return levels


def _flagged(part: Part) -> NDArray[np.bool_]:
    return _levels(part) > 0


def _png(pixels: NDArray[Any]) -> bytes:
    from PIL import Image as Pillow

    buffer = io.BytesIO()
    Pillow.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def check_free(out: Path) -> None:
    """Refuse a folder of results in which the place of kept images holds files of others.

    Raises:
        UsageError: With the name of one.
    """
    folder = out / FOLDER
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise UsageError(f"{folder} is no folder: the kept images go there; name another folder with --out")
    for path in folder.iterdir() if folder.is_dir() else ():
        if not _OWN_FILE.fullmatch(path.name):
            raise UsageError(f"{path} is in the way of kept images: move it, or name another folder with --out")


def remove_kept(out: Path) -> None:
    """Remove what a run kept in a folder of results, and nothing else."""
    folder = out / FOLDER
    if not folder.is_dir() or folder.is_symlink():
        return
    others = False
    for path in folder.iterdir():
        if _OWN_FILE.fullmatch(path.name):
            path.unlink()
        else:
            others = True
    if not others:
        folder.rmdir()
