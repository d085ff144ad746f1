"""What a generative model is trained on: records of a CSV or of a folder, and their images from 0 to 1."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from deepssim.errors import ImageError, UsageError
from deepssim.image_ops import resize_area
from deepssim.images import Image, ImageOptions, list_images, read_image, read_tasks
from deepssim.images.text import one_line, some
from deepssim.progress import Progress, Silent

__all__ = ["SPLITS", "Dataset", "Record", "load_images", "read_dataset"]

SPLITS = ("train", "valid")


@dataclass(frozen=True, slots=True)
class Record:
    """One image and what is said of it.

    Attributes:
        uid: Names it, alone, in its data set; fit to name a folder.
        path: The file of the image.
        split: ``"train"``, ``"valid"`` or what the CSV says else; ``""`` where it says nothing.
        group: Whose image it is; None: not known.
        variables: Cells of all other columns of the CSV, as text.
        caption: File of the embedding of its caption (.npz, key ``data``, or .npy).
        text: The caption itself.
        image_id: Which image of a file of several: the name of the file, ``#`` and a key; None: the only one.
        line: Of the CSV, for messages; 0: there is none.
    """

    uid: str
    path: Path
    split: str
    group: str | None = None
    variables: Mapping[str, str] = field(default_factory=dict)
    caption: Path | None = None
    text: str | None = None
    image_id: str | None = None
    line: int = 0

    @property
    def place(self) -> str:
        """Where it is said, for a message: its line, or its uid."""
        return f"line {self.line}" if self.line else f"'{one_line(self.uid, 60)}'"


@dataclass(frozen=True, slots=True)
class Dataset:
    """Records in the order in which they were found.

    Attributes:
        source: The CSV or the folder.
        records: Of all splits, each with a uid of its own.
        columns: Of the CSV; empty for a folder.
        notes: What a person should know: rows and images that were left out, one line each.
    """

    source: Path
    records: tuple[Record, ...]
    columns: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def split(self, name: str) -> tuple[Record, ...]:
        """Return the records of one split, ``"train"`` or ``"valid"``.

        Raises:
            UsageError: There are none; the message says which splits there are.

        Example:
            >>> data = Dataset(Path("a.csv"), (Record("p1", Path("p1.png"), "train"),))
            >>> [record.uid for record in data.split("train")]
            ['p1']
        """
        found = tuple(record for record in self.records if record.split == name)
        if found:
            return found
        counts: dict[str, int] = {}
        for record in self.records:
            counts[record.split] = counts.get(record.split, 0) + 1
        there = some([f"{split or '(empty)'}: {count:,}" for split, count in counts.items()]) or "no rows at all"
        raise UsageError(
            f"'{one_line(str(self.source))}' has no image with the split {name}, but {there}: the column split must "
            f"say {' and '.join(SPLITS)}"
        )

    def signature(self) -> str:
        """Return one number for all that decides about a training: what the records say, and the bytes of their files.

        Where files lie does not matter, nor the order of columns; the order of records does.

        Returns:
            A SHA-256 in hexadecimal.

        Example:
            >>> len(Dataset(Path("a.csv"), (Record("p1", Path("p1.png"), "train"),)).signature())
            64
        """
        digests: dict[Path, str] = {}
        total = hashlib.sha256()
        for record in self.records:
            files = [record.path, *([record.caption] if record.caption else [])]
            for file in files:
                digests[file] = digests.get(file) or _digest(file)
            said = [
                record.uid,
                record.split,
                record.group,
                sorted(record.variables.items()),
                record.text,
                None if record.image_id is None else record.image_id.rpartition("#")[2],
                [digests[file] for file in files],
            ]
            total.update(repr(said).encode("utf-8", "surrogateescape"))
        return total.hexdigest()


def _digest(file: Path) -> str:
    try:
        with file.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except (OSError, ValueError):
        return "not there"


def read_dataset(
    csv: str | Path | None = None,
    *,
    images: str | Path | None = None,
    group_by: str = "auto",
    valid_part: float = 0.15,
    seed: int = 0,
    slices: str = "middle",
    axis: str = "axial",
    with_splits: bool = True,
    with_images: bool = True,
) -> Dataset:
    """Read which images there are, what they are for, and what is said of them.

    A CSV has the columns ``image_path``, ``image_uid`` and ``split`` (``train``, ``valid``; rows of others are kept and
    not trained on), and if wanted ``group`` or ``patient``, ``caption_emb_path``, ``caption`` and any variables. Paths
    are absolute, or lie beside the CSV, or under the working folder. A uid that comes again is left out, as in the
    reference implementation.

    Images of a folder have no variables; their people are divided into ``train`` and ``valid``.

    Args:
        csv: The CSV.
        images: Instead: a folder, or what else `deepssim.images.list_images` takes.
        group_by: Who is who, see `deepssim.images.ImageOptions`; ``"auto"`` of a CSV: its column.
        valid_part: Part of the people of a folder who get the split ``valid``.
        seed: Of that draw.
        slices: Of volumes of a folder, see `deepssim.images.ImageOptions`.
        axis: Likewise.
        with_splits: Whether a CSV needs rows of both splits; for sampling it needs none.
        with_images: Whether the files of images must be there.

    Raises:
        UsageError: Neither or both were given, or what was given cannot be used; all faults are in one message, the
            first ones with their line and column.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     np.save(Path(folder, "scan.npy"), np.eye(4))
        ...     file = Path(folder, "data.csv")
        ...     _ = file.write_text("image_path,image_uid,split,age\\nscan.npy,p1,train,63\\nscan.npy,p2,valid,58\\n")
        ...     data = read_dataset(file)
        >>> data.records[0].uid, data.records[0].variables
        ('p1', {'age': '63'})
    """
    if (csv is None) == (images is None):
        raise UsageError("give either a CSV of the data set or a folder of images, and not both")
    options = ImageOptions(slices=slices, axis=axis, group_by=group_by)
    if csv is not None:
        from deepssim.generative.dataset_csv import read_csv

        return read_csv(Path(csv), group_by, with_splits=with_splits, with_images=with_images)
    assert images is not None
    return _read_folder(Path(images), options, valid_part, seed)


def load_images(
    records: Sequence[Record],
    *,
    size: tuple[int, int] | None = None,
    transpose: bool = False,
    progress: Progress | None = None,
    threads: int | None = None,
) -> NDArray[np.float32]:
    """Read images and bring each to values from 0 to 1 by its own least and greatest one.

    Args:
        records: Of `read_dataset`.
        size: Rows and columns of the result, by area averaging before the values are scaled; None: they have one size
            already.
        transpose: Whether rows and columns are swapped, as MONAI's reader of PNG does; published checkpoints were
            trained on such images. `size` is what comes out.
        progress: Told of images that are read.
        threads: How many images are read at a time; None: one for each usable processor.

    Returns:
        ``(n, rows, columns)`` float32, in the order of the records.

    Raises:
        UsageError: Images that cannot be read, or of several sizes; the first ones are named with the reason.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     np.save(Path(folder, "scan.npy"), np.array([[2, 4, 6]], np.uint8))
        ...     load_images([Record("p1", Path(folder, "scan.npy"), "train")]).tolist()
        [[[0.0, 0.5, 1.0]]]
    """
    raise NotImplementedError


def _read_folder(images: Path, options: ImageOptions, valid_part: float, seed: int) -> Dataset:
    raise NotImplementedError
