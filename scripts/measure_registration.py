"""Measure registration and its evidence on real images with known truth; prints a table.

    python scripts/measure_registration.py --data /path/to/data --split tune -n 300

Each draw flips, turns (30 degrees either way), shifts (12 px at a width of 112 px) and perhaps zooms (10 %) an image
of the split, with gamma .5 to 1.5 and the artefacts of `deepssim.perturb`; "hard" is the draw of that name there. The
error is the mean distance, in pixels at a width of 112, between where the truth and the answer put the pixels of the
image. Unrelated pairs are of two people. Below the table: AUC, and the part of copies above all but 1 % of unrelated
pairs, and of the highest of up to 400 other people's images.
"""

from __future__ import annotations

import argparse
import csv
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from deepssim import perturb
from deepssim.image_ops import Registrar, Transform

LISTS = {"brain": ("slices.csv", "subject"), "cxr": ("images.csv", "patient")}
FAILURE_PX = 2.0
REPEATS = 3
HARD_AMPLITUDE_PX = (1.5, 5.0)
CASES = ("noise", "exact", "near", "exact zoom", "near zoom", "hard exact", "hard near", "unrelated")
STATISTICS = ("s1", "s2", "local_mean", "ncc")


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
    if "hard" in case:
        view = perturb.draw_view(rng, "hard", size=image.shape)
        shown = perturb.deform(image, rng, amplitude_px=HARD_AMPLITUDE_PX) if "near" in case else image
        if "near" in case and rng.random() < perturb.LESION_PROBABILITY:
            shown = perturb.lesion(shown, rng)
        return perturb.degrade(perturb.apply_view(shown, view), rng), view
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


def draws(
    images: list[tuple[str, np.ndarray]], case: str, seed: int, n: int
) -> Iterator[tuple[np.ndarray, perturb.View, int]]:
    """Make copies of drawn images; yields them with their views and the places of their sources."""
    rng = np.random.default_rng(seed)
    for _ in range(n):
        i = int(rng.integers(len(images)))
        yield *draw(images[i][1], rng, case), i


def other_people(images: list[tuple[str, np.ndarray]], i: int) -> list[int]:
    """Return the places of the images of all people but that of image i."""
    return [j for j, (person, _) in enumerate(images) if person != images[i][0]]


def measure(
    images: list[tuple[str, np.ndarray]], registrar: Registrar, case: str, options: argparse.Namespace
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Verify drawn copies; return (statistics, errors in px, seconds for one candidate and for each of four).

    Times are of one thread and of the whole batch, as an audit works, preparation of the copies included.
    """
    rng = np.random.default_rng(options.seed + 1000)
    numbers, errors, copies, candidates = [], [], [], []
    for copy, view, i in draws(images, case, options.seed, options.n):
        others = rng.choice(other_people(images, i), 4).tolist()
        chosen = others[0] if case == "unrelated" else i
        [(registration, evidence)] = registrar.verify(copy, [chosen])
        numbers.append([getattr(evidence, name) for name in STATISTICS])
        errors.append(error_px(registration.transform, as_transform(view, copy.shape), copy.shape))
        copies.append(copy)
        candidates.append([chosen, *others[1:]])
    spent = []
    for _ in range(REPEATS):
        for n in (1, 4):
            begin = time.perf_counter()
            registrar.verify_many(copies, [some[:n] for some in candidates], threads=1)
            spent.append((time.perf_counter() - begin) / (n * len(copies)))
    return np.array(numbers), np.array(errors), np.array(spent).reshape(REPEATS, 2)


def highest_of_others(
    images: list[tuple[str, np.ndarray]], registrar: Registrar, queries: list[np.ndarray], seed: int
) -> np.ndarray:
    """For each query of `draws`, return each statistic's maximum over images of other people, 400 at most."""
    rng = np.random.default_rng(seed)
    people = [i for _, _, i in draws(images, "hard exact", seed, len(queries))]
    highest = []
    for copy, i in zip(queries, people, strict=True):
        others = other_people(images, i)
        chosen = rng.permutation(others)[:400].tolist()
        found = registrar.verify_many([copy], [chosen], threads=1)[0]
        highest.append(np.max([[getattr(e, name) for name in STATISTICS] for _, e in found], axis=0))
    return np.array(highest).reshape(len(queries), len(STATISTICS))


def auc(high: np.ndarray, low: np.ndarray) -> float:
    """Return the probability that one of `high` is above one of `low`, ties half."""
    apart = np.sign(high[:, None] - low)
    return float(apart.mean() / 2 + 0.5)


def sensitivity(high: np.ndarray, low: np.ndarray, fpr: float = 0.01) -> float:
    """Return the part of `high` above all but `fpr` of `low`."""
    return float(np.mean(high > np.quantile(low, 1 - fpr, method="higher")))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--split", default="tune", choices=["train", "tune", "test"])
    parser.add_argument("-n", type=int, default=300, help="pairs a case")
    parser.add_argument("--queries", type=int, default=40, help="copies compared with all other people")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    columns = ("median px", "90 % px", "failures %", "S1 min", "S1 max", "S2 5 %", "S2 95 %", "one ms", "of 4 ms")
    print(f"{'domain':>8}{'case':>12}" + ("{:>11}" * len(columns)).format(*columns))
    for domain in LISTS:
        images = load(options.data, domain, options.split)
        registrar = Registrar([image for _, image in images])
        found = {case: measure(images, registrar, case, options) for case in CASES}
        for case, (numbers, errors, spent) in found.items():
            cells = [*np.percentile(errors, [50, 90]), 100 * np.mean(errors > FAILURE_PX)]
            cells += [numbers[:, 0].min(), numbers[:, 0].max(), *np.percentile(numbers[:, 1], [5, 95])]
            cells += (1e3 * np.median(spent, axis=0)).tolist()
            print(f"{domain:>8}{case:>12}" + "".join(f"{cell:11.3f}" for cell in cells), flush=True)
        queries = [copy for copy, _, _ in draws(images, "hard exact", options.seed + 1, options.queries)]
        highest = highest_of_others(images, registrar, queries, options.seed + 1)
        for kind in ("", "hard "):
            exact, near = (found[kind + case][0] for case in ("exact", "near"))
            copies, others = np.concatenate([exact, near]), found["unrelated"][0]
            for at, name in enumerate(STATISTICS):
                against = {"unrelated": others[:, at], "highest of unrelated": highest[:, at]}
                cells = [
                    f"copies / {x} AUC {auc(copies[:, at], y):.4f} TPR {sensitivity(copies[:, at], y):.4f}"
                    for x, y in against.items()
                ]
                cells.append(f"exact / near AUC {auc(exact[:, at], near[:, at]):.4f}")
                print(f"{domain:>8} {kind}{name}: " + ", ".join(cells), flush=True)


if __name__ == "__main__":
    main()
