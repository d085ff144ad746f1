"""Whether a threshold calibrated for a false-positive rate keeps to it on other people.

Images that copy nobody are played by images of people outside the base, with the artefacts of a copy, as they lie, and
under the views *perturbed* and *hard*: three of each image. A threshold is calibrated on such images of the ``tune``
people against images of one half of the ``train`` people, and the rate is measured on those of the ``test`` people
against as many images of the other half; in several divisions into halves. Nobody has a part on both sides, and no
encoder was trained on the people whose images are looked for: those whom it was trained on are no control, since it was
taught to tell them apart. Screening and verification are those of an audit.

    python scripts/measure_calibration.py --data DATA

Prints a Markdown table: the promised rate (k / (n + 1), averaged over the divisions), the rate measured on ``test``
people, all divisions together, with its 95 % interval by resampling them, and in how many divisions the measured rate
lay in the interval that the calibration itself gave.
"""

from __future__ import annotations

import argparse
import csv
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parent))

from real_images import people

from deepssim.calibrate.conformal import cut_for_rate, rate_interval
from deepssim.calibration import load_calibration
from deepssim.control import draw_by_group
from deepssim.embed import Encoder
from deepssim.evidence import Verifier
from deepssim.images import ImageOptions, list_images
from deepssim.matching import Matcher, MatchOptions, Reference, Subject
from deepssim.metric import load_metric
from deepssim.perturb import apply_view, degrade, draw_view
from deepssim.statistics import patient_rate
from deepssim.store import Store
from deepssim.store_build import build_store

CONDITIONS = ("aligned", "perturbed", "hard")
NEVER = float(np.finfo(np.float32).max)

Grey = NDArray[np.uint8]


@dataclass(frozen=True)
class Sets:
    """Real images of the people of train, and made images of those of tune and test, with their people and splits."""

    real: Store
    made: Store
    made_people: NDArray[np.str_]
    made_splits: NDArray[np.str_]


def films(data: Path, domain: str) -> Iterator[tuple[str, Path]]:
    """Yield person and file of every image of a domain: ten slices of each brain, all films."""
    folder, table, column = (
        ("brain", "slices.csv", "subject") if domain == "brain" else ("cxr", "images.csv", "patient")
    )
    with (data / folder / table).open() as file:
        for row in csv.DictReader(file):
            yield row[column], data / folder / row["path"]


def write_images(data: Path, domain: str, out: Path, seed: int) -> dict[str, str]:
    """Write real and made images, a folder a person; returns the split of each person."""
    split_of = people(data, "brain" if domain == "brain" else "cxr", ("train", "tune", "test"))
    for number, (person, path) in enumerate(films(data, domain)):
        with Image.open(path) as film:
            pixels: Grey = np.asarray(film.convert("L"))
        if split_of[person] == "train":
            save(out / "real" / person / f"{path.stem}.png", pixels)
            continue
        for k, condition in enumerate(CONDITIONS):
            rng = np.random.default_rng([seed, number, k])
            made = degrade(pixels.astype(np.float32) / np.float32(255), rng)
            made = apply_view(made, draw_view(rng, condition, size=(pixels.shape[0], pixels.shape[1])))
            save(out / "made" / person / f"{path.stem}-{condition}.png", np.rint(made * 255).astype(np.uint8))
    return split_of


def save(path: Path, pixels: Grey) -> None:
    """Write an 8-bit PNG file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def embed(out: Path, metric: str, split_of: dict[str, str], threads: int) -> Sets:
    """Embed both sets with a metric, as an audit does."""
    encoder, options = Encoder(load_metric(metric), device="cpu", threads=threads), ImageOptions(group_by="parent")
    real, made = (
        build_store(list_images(out / name, options), encoder, out / f"{name}-{metric}.store", with_working=True,
                    as_gallery=name == "real", threads=threads or None)
        for name in ("real", "made")
    )  # fmt: skip
    groups = made.records(["group"])["group"].to_pylist()
    return Sets(real, made, np.array(groups, np.str_), np.array([split_of[group] for group in groups], np.str_))


def nearest(
    sets: Sets, base: Reference, rows: NDArray[np.int64], stage: str, threads: int
) -> tuple[NDArray[np.float64], NDArray[np.str_]]:
    """Return the value of each image's nearest and whose it is."""
    verifier = Verifier(load_calibration("verified"), threads) if stage == "verified" else None
    # In place: the views of the metric pixel take a hundred times as long.
    options = MatchOptions(threads=threads, views="none", max_listed=1)
    matcher = Matcher(base, None, (NEVER, NEVER), options, len(rows), None, verifier)
    sizes = sets.made.records(["height", "width"]).to_pylist()
    embeddings = np.empty((len(sets.made), sets.made.dim), np.float32)
    sets.made.read_rows(0, embeddings)
    subjects = [
        Subject(sizes[row]["height"], sizes[row]["width"], sets.made.working_image(row)) for row in rows.tolist()
    ]
    part = matcher.match_rows(embeddings[rows], 0, subjects)
    return part.values[:, 0].astype(np.float64), np.array(base.names, np.str_)[base.codes[part.rows[:, 0]]]


def divide(sets: Sets, rng: np.random.Generator) -> list[Reference]:
    """Divide the real images by person into two bases of as many images."""
    whole = Reference(sets.real)
    names = np.array(whole.names, np.str_)
    halves = np.array_split(rng.permutation(names), 2)
    bases = [whole.subset(np.flatnonzero(np.isin(names[whole.codes], some))) for some in halves]
    n = min(len(base) for base in bases)
    seed = int(rng.integers(2**31))
    return [base.subset(draw_by_group(base.codes, n, seed)) if len(base) > n else base for base in bases]


def measure(sets: Sets, stage: str, rates: list[float], n_divisions: int, seed: int, threads: int) -> list[str]:
    """Calibrate and measure in every division; returns a row of the table for each rate."""
    rows, test_rows = (np.flatnonzero(sets.made_splits == split) for split in ("tune", "test"))
    names, owner = np.unique(sets.made_people[test_rows], return_inverse=True)
    found: dict[float, list[tuple[float, float, float, float]]] = {rate: [] for rate in rates}
    events, sizes, counts = {rate: np.zeros(len(names), np.int64) for rate in rates}, [], []
    for division in range(n_divisions):
        base, other = divide(sets, np.random.default_rng([seed, division]))
        values, whose = nearest(sets, base, rows, stage, threads)
        test_values, _ = nearest(sets, other, test_rows, stage, threads)
        sizes.append(len(base))
        counts.append(len(rows))
        for rate in rates:
            cut = cut_for_rate(values, rate)
            low, high = rate_interval(values, cut, sets.made_people[rows], whose, seed=seed)
            passes = test_values > cut.value
            events[rate] += np.bincount(owner[passes], minlength=len(names))
            found[rate].append((cut.rate, low, high, float(passes.mean())))
    totals = np.bincount(owner, minlength=len(names)) * n_divisions
    lines = []
    for rate in rates:
        measured = patient_rate(events[rate], totals, seed=seed)
        promised = float(np.mean([one[0] for one in found[rate]]))
        inside = sum(low <= value <= high for _, low, high, value in found[rate])
        low, high = (100 * float(np.mean([one[k] for one in found[rate]])) for k in (1, 2))
        lines.append(
            f"{round(np.mean(sizes))} | {round(np.mean(counts))} | {100 * rate:g} % | {100 * promised:.2f} % "
            f"({low:.1f} to {high:.1f}) | {100 * measured.rate:.2f} % ({100 * measured.low:.2f} to "
            f"{100 * measured.high:.2f}) of {len(test_rows)} x {n_divisions} | {inside} of {n_divisions} |"
        )
    return lines


def main() -> None:
    """Read the options and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with splits.csv, brain/ and cxr/")
    parser.add_argument("--rates", type=float, nargs="+", default=[0.01, 0.05])
    parser.add_argument("--divisions", type=int, default=10, help="of the people, where embeddings decide")
    parser.add_argument("--verified-divisions", type=int, default=4, help="where images decide")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    sys.stdout.write(
        "| images | decided by | base | unrelated images | asked | promised (mean interval) | measured on test people "
        f"| in the interval |\n{'|---' * 8}|\n"
    )
    for domain in ("brain", "chest"):
        with tempfile.TemporaryDirectory() as folder:
            out, began = Path(folder), time.monotonic()
            split_of = write_images(options.data, domain, out, options.seed)
            for metric, stages in (("pixel", ("embedding",)), (domain, ("embedding", "verified"))):
                sets = embed(out, metric, split_of, options.threads)
                for stage in stages:
                    n = options.verified_divisions if stage == "verified" else options.divisions
                    decided = f"`{metric}`, in place" if metric == "pixel" else f"`{metric}`"
                    decided = f"S1, candidates of `{metric}`" if stage == "verified" else decided
                    for line in measure(sets, stage, options.rates, n, options.seed, options.threads):
                        sys.stdout.write(f"| {domain} | {decided} | {line}\n")
                        sys.stdout.flush()
                    sys.stderr.write(f"{domain}, {metric}, {stage}: {time.monotonic() - began:.0f} s\n")


if __name__ == "__main__":
    main()
