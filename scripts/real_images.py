"""Real images of one kind, for the scripts beside this file: all axial slices of brains, all films of chests."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path

import nibabel
import numpy as np
from numpy.typing import NDArray
from PIL import Image

SPLITS = ("train", "tune")
# Canonical voxels of the crop: columns from right to left, rows from front to back, slices.
CROP = (slice(8, 120), slice(4, 140), range(44, 101))


def people(data: Path, domain: str, splits: Sequence[str]) -> dict[str, str]:
    """Return the split of each person of a domain, of some splits alone."""
    with (data / "splits.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["domain"] == domain and row["split"] in splits]
    return {row["person"]: row["split"] for row in rows}


def brain_slices(data: Path, splits: Sequence[str] = SPLITS) -> Iterator[tuple[str, str, str, NDArray[np.uint8]]]:
    """Yield split, person, name and pixels of axial slices."""
    columns, rows, levels = CROP
    for person, split in people(data, "brain", splits).items():
        volume = nibabel.as_closest_canonical(nibabel.load(data / "brain" / "volumes" / f"{person}_T1w.nii.gz"))
        voxels = np.asarray(volume.dataobj)
        for level in levels:
            yield split, person, f"z{level:03d}", np.ascontiguousarray(voxels[columns, rows, level].T[::-1])


def chest_films(data: Path, splits: Sequence[str] = SPLITS) -> Iterator[tuple[str, str, str, NDArray[np.uint8]]]:
    """Yield split, person, name and pixels of films."""
    split_of = people(data, "cxr", splits)
    with (data / "cxr" / "images.csv").open() as file:
        for row in csv.DictReader(file):
            if row["patient"] in split_of:
                with Image.open(data / "cxr" / row["path"]) as film:
                    yield (
                        split_of[row["patient"]],
                        row["patient"],
                        Path(row["path"]).stem,
                        np.asarray(film.convert("L")),
                    )
