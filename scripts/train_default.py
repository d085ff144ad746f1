"""Train an encoder of the package on real images of one kind, from the data alone.

    python scripts/train_default.py brain --data DATA --out runs/brain
    deepssim export runs/brain/best.safetensors --out brain.onnx --images runs/brain/images/tune

Trains on the people of the split ``train``; those of ``tune`` select the weights; those of ``test`` are not touched.
Of the brains all axial slices of the volumes are used that show enough of the brain, in the crop that the folder
``slices`` has; of the chest the films. The recipe is `lite` with the settings below. A run that was killed goes on when
the same command is given again.
"""

from __future__ import annotations

import argparse
import csv
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import nibabel
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from deepssim.cli._progress import make_progress
from deepssim.train.run import TrainOptions, train

SPLITS = ("train", "tune")
# Rows and columns that images are brought to; the encoder sees half of each.
SIZES = {"brain": (136, 112), "chest": (128, 128)}
STEPS = 40_000
# Canonical voxels of the crop: columns from right to left, rows from front to back, slices.
CROP = (slice(8, 120), slice(4, 140), range(44, 101))


def people(data: Path, domain: str) -> dict[str, str]:
    """Return the split of each person of a domain, of `SPLITS` alone."""
    with (data / "splits.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["domain"] == domain and row["split"] in SPLITS]
    return {row["person"]: row["split"] for row in rows}


def brain_slices(data: Path) -> Iterator[tuple[str, str, str, NDArray[np.uint8]]]:
    """Yield split, person, name and pixels of axial slices."""
    columns, rows, levels = CROP
    for person, split in people(data, "brain").items():
        volume = nibabel.as_closest_canonical(nibabel.load(data / "brain" / "volumes" / f"{person}_T1w.nii.gz"))
        voxels = np.asarray(volume.dataobj)
        for level in levels:
            yield split, person, f"z{level:03d}", np.ascontiguousarray(voxels[columns, rows, level].T[::-1])


def chest_films(data: Path) -> Iterator[tuple[str, str, str, NDArray[np.uint8]]]:
    """Yield split, person, name and pixels of films."""
    split_of = people(data, "cxr")
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


def write_images(images: Iterator[tuple[str, str, str, NDArray[np.uint8]]], folder: Path) -> None:
    """Write them as ``split/person/name.png``, all or nothing."""
    if folder.exists():
        return
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    for split, person, name, pixels in images:
        path = partial / split / person / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    partial.rename(folder)


def main() -> None:
    """Write the images and train."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("domain", choices=sorted(SIZES))
    parser.add_argument("--data", type=Path, required=True, help="folder with splits.csv, brain/ and cxr/")
    parser.add_argument("--out", type=Path, required=True, help="folder of the run")
    parser.add_argument("--steps", type=int, default=STEPS, help=f"updates; default {STEPS:,}")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--workers", type=int, default=1, help="processes that make partners")
    options = parser.parse_args()
    images = options.out / "images"
    options.out.mkdir(parents=True, exist_ok=True)
    write_images(brain_slices(options.data) if options.domain == "brain" else chest_films(options.data), images)
    asked = TrainOptions(
        recipe="lite",
        images=images / "train",
        validation_images=images / "tune",
        out=options.out,
        name=options.domain,
        group_by="parent",
        size=SIZES[options.domain],
        steps=options.steps,
        device=options.device,
        workers=options.workers,
    )
    result = train(asked, make_progress(False))
    sys.stdout.write(f"{result.folder / 'best.safetensors'}: {dict(result.best)}\n")


if __name__ == "__main__":
    main()
