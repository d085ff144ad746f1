"""Images of people: real ones from a folder, or phantoms."""

from __future__ import annotations

import csv
import functools
from collections.abc import Collection as Names
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from deepssim.image_ops import resize_area
from deepssim.phantom import make_cohort

Grey = NDArray[np.float32]

DOMAINS = ("brain", "chest", "phantom")
# (folder of the data, its table, the column of the person)
TABLES = {"brain": ("brain", "slices.csv", "subject"), "chest": ("cxr", "images.csv", "patient")}
# (people, seed): cohorts of different seeds share no one.
PHANTOMS = {"train": (40, 1), "tune": (20, 2), "test": (30, 3)}
PHANTOM_LEVELS = 10


@dataclass(frozen=True)
class Collection:
    """Images of one domain.

    Attributes:
        domain: One of `DOMAINS`.
        images: Grey images in [0, 1], all of one size.
        people: The person of each.
        levels: The place of each within its person: index of the slice, number of the film.
    """

    domain: str
    images: list[Grey]
    people: NDArray[np.str_]
    levels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.images)


def read_collection(data: Path | None, domain: str, splits: Names[str], *, side: int | None = None) -> Collection:
    """Read the images of the people of some splits.

    Args:
        data: Folder with ``splits.csv``, ``brain/`` and ``cxr/``; not needed for phantoms.
        domain: One of `DOMAINS`.
        splits: Of ``train``, ``tune`` and ``test``.
        side: Shorter side in pixels that images are resized to by area averaging; None: as they are.

    Raises:
        ValueError: The domain is unknown or there is no data.
    """
    if domain == "phantom":
        return _resized(_phantoms(splits), side)
    if domain not in TABLES:
        raise ValueError(f"unknown domain {domain!r}: one of {', '.join(DOMAINS)}")
    if data is None or not (data / "splits.csv").is_file():
        raise ValueError(f"no splits.csv in {data}; set DEEPSSIM_DATA to the folder that holds it, brain/ and cxr/")
    folder, table, column = TABLES[domain]
    with (data / "splits.csv").open(newline="", encoding="utf-8") as file:
        used = {r["person"] for r in csv.DictReader(file) if r["domain"] == folder and r["split"] in splits}
    with (data / folder / table).open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row[column] in used]
    rows.sort(key=lambda row: (row[column], row["path"]))
    images: list[Grey] = []
    people: list[str] = []
    levels: list[int] = []
    for row in rows:
        with Image.open(data / folder / row["path"]) as picture:
            images.append(np.asarray(picture.convert("L"), dtype=np.float32) / np.float32(255.0))
        levels.append(levels[-1] + 1 if people and people[-1] == row[column] else 0)
        people.append(row[column])
    return _resized(Collection(domain, images, np.array(people), np.array(levels, np.int64)), side)


def _phantoms(splits: Names[str]) -> Collection:
    parts = [_cohort(split) for split in sorted(splits)]
    return Collection(
        "phantom",
        [image for part in parts for image in part.images],
        np.concatenate([part.people for part in parts]),
        np.concatenate([part.levels for part in parts]),
    )


@functools.cache  # a run asks for the same cohorts for every condition
def _cohort(split: str) -> Collection:
    n_people, seed = PHANTOMS[split]
    names, levels, images = zip(*make_cohort(n_people, PHANTOM_LEVELS, seed=seed), strict=True)
    people = np.array([f"{split}-{name}" for name in names])
    return Collection("phantom", list(images), people, np.array(levels, np.int64))


def _resized(collection: Collection, side: int | None) -> Collection:
    if side is None or min(collection.images[0].shape) == side:
        return collection
    height, width = collection.images[0].shape
    scale = side / min(height, width)
    size = (round(height * scale), round(width * scale))
    images = [resize_area(image, *size) for image in collection.images]
    return Collection(collection.domain, images, collection.people, collection.levels)
