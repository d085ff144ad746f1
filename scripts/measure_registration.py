"""Measure registration and its evidence on real images with known truth; prints a table.

    python scripts/measure_registration.py --data /path/to/data --split tune -n 300

Each draw flips, turns (30 degrees either way), shifts (12 px at a width of 112 px) and perhaps zooms (10 %) an image of
the split, with gamma .5 to 1.5 and the artefacts of `deepssim.perturb`. The error is the mean distance, in pixels at a
width of 112, between where the truth and the answer put the pixels of the image. Unrelated pairs are of two people.
"""

from __future__ import annotations

import argparse
import csv
import time
from pathlib import Path

import numpy as np
from PIL import Image

from deepssim import perturb
from deepssim.image_ops import Registrar, Transform

LISTS = {"brain": ("slices.csv", "subject"), "cxr": ("images.csv", "patient")}
FAILURE_PX = 2.0


def load(data: Path, domain: str, split: str) -> list[tuple[str, np.ndarray]]:
    """Load (person, image) of the people of a split."""
    with (data / "splits.csv").open() as file:
        people = {row["person"] for row in csv.DictReader(file) if row["domain"] == domain and row["split"] == split}
    name, column = LISTS[domain]
    images = []
    with (data / domain / name).open() as file:
        for row in csv.DictReader(file):
            if row[column] in people:
                with Image.open(data / domain / row["path"]) as picture:
                    images.append((row[column], np.asarray(picture.convert("L"), np.float32) / np.float32(255)))
    return images


def draw(image: np.ndarray, rng: np.random.Generator, case: str) -> tuple[np.ndarray, perturb.View]:
    """Make one copy under a case, with the view that it is seen under."""
    flips = (rng.random(2) < 0.5).tolist()
    angle, down, right, zoom, gamma = rng.uniform((-30, -12, -12, 0.9, 0.5), (30, 12, 12, 1.1, 1.5)).tolist()
    view = perturb.View(*flips, angle, (down, right), zoom if "zoom" in case else 1.0, gamma)
    changed = perturb.deform(image, rng) if "near" in case else image
    changed = perturb.lesion(changed, rng) if "near" in case else changed
    if "noise" not in case:
        return perturb.degrade(perturb.apply_view(changed, view), rng), view
    shown = perturb.apply_view(changed, view)
    noise = rng.uniform(*perturb.NOISE_SIGMA) * rng.standard_normal(shown.shape)
    return np.clip(shown + noise, 0, 1).astype(np.float32), view


def as_transform(view: perturb.View, shape: tuple[int, int]) -> Transform:
    """Translate a view: upside down is mirrored and turned by 180 degrees."""
    scale = min(shape) / perturb.REFERENCE_SIDE_PX
    angle = view.angle_deg + (180.0 if view.flip_rows else 0.0)
    shift = (view.shift_px[0] * scale, view.shift_px[1] * scale)
    return Transform(view.flip_rows != view.flip_columns, angle, *shift, view.zoom)


def error_px(a: Transform, b: Transform, shape: tuple[int, int]) -> float:
    """Mean distance between two sampling maps over the central half of the image."""
    rows, columns = (np.linspace(0.25 * n, 0.75 * n, 9) for n in shape)
    grid = np.stack([g.ravel() for g in np.meshgrid(rows, columns, indexing="ij")] + [np.ones(81)])
    off = (a.matrix(shape) - b.matrix(shape)) @ grid
    return float(np.hypot(*off).mean() * perturb.REFERENCE_SIDE_PX / min(shape))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--split", default="tune", choices=["train", "tune", "test"])
    parser.add_argument("-n", type=int, default=300, help="pairs a case")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    columns = ("domain", "case", "median px", "90 % px", "failures", "S1 min", "S1 max", "S2 5 %", "S2 95 %", "ms")
    print(("{:>13}" * len(columns)).format(*columns))
    for domain in LISTS:
        images = load(options.data, domain, options.split)
        registrar = Registrar([image for _, image in images])
        for case in ("noise", "exact", "near", "exact zoom", "near zoom", "unrelated"):
            rng = np.random.default_rng(options.seed)
            errors, found, spent = [], [], []
            while len(found) < options.n:
                i = int(rng.integers(len(images)))
                copy, view = draw(images[i][1], rng, case)
                j = int(rng.integers(len(images))) if case == "unrelated" else i
                if case == "unrelated" and images[j][0] == images[i][0]:
                    continue
                begin = time.perf_counter()
                [(registration, evidence)] = registrar.verify(copy, [j])
                spent.append(time.perf_counter() - begin)
                found.append((evidence.s1, evidence.s2))
                errors.append(error_px(registration.transform, as_transform(view, copy.shape), copy.shape))
            s1, s2 = np.array(found).T
            cells = [*np.percentile(errors, [50, 90]), 100 * np.mean(np.array(errors) > FAILURE_PX)]
            cells += [s1.min(), s1.max(), *np.percentile(s2, [5, 95]), 1e3 * np.median(spent)]
            print(f"{domain:>13}{case:>13}" + "".join(f"{cell:13.3f}" for cell in cells), flush=True)


if __name__ == "__main__":
    main()
