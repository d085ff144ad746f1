"""A made-up cohort with planted copies: the whole pipeline against a known truth.

The people do not exist: their heads are procedural phantoms. A "generator" that memorizes is played by
copying some of the training images, exactly, blurred and noisy, mirrored and turned, or locally changed, among
images of people that were never in the training set.
"""

from __future__ import annotations

import csv
import itertools
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image as Pillow

from deepssim.audit import AuditOptions, AuditResult, audit
from deepssim.calibration import Calibration, Threshold
from deepssim.disk import make_private_folder, replacing
from deepssim.errors import UsageError
from deepssim.images import ImageOptions
from deepssim.perturb import View, apply_view, degrade, near_copy
from deepssim.phantom import make_cohort
from deepssim.progress import Progress, Silent

N_LEVELS = 5
# Phantoms are more alike than people: near is above all of 300 unrelated images of two other cohorts (the highest S1 is
# .765), exact between their locally changed copies (S2 at most .894) and the others (.949 and more).
CALIBRATION = Calibration("phantom", Threshold(0.78), Threshold(0.925), source="other phantoms", stage="verified")
N_REAL, N_HOLDOUT, N_UNSEEN = 50, 25, 30  # people
N_COPIES = 15  # of each kind
KINDS = ("identical", "blurred and noisy", "mirrored and turned", "locally changed", "unrelated")
TRUTH = "truth.csv"
# Only a folder with this file is one that an earlier demo made, and may be made anew.
MARKER = ".deepssim-demo"

Grey = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class PlantedResult:
    """What the audit made of one kind of synthetic image.

    Attributes:
        kind: One of `KINDS`.
        total: Images of that kind.
        flagged: How many were flagged.
        exact: How many of them as exact.
        source_right: How many have their true source at rank 1; None for unrelated images.
    """

    kind: str
    total: int
    flagged: int
    exact: int
    source_right: int | None


def _save(path: Path, image: Grey) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Pillow.fromarray(np.round(np.clip(image, 0, 1) * 255).astype(np.uint8)).save(path)


def _synthesise(real: list[tuple[str, Grey]], unseen: Iterator[Grey], seed: int) -> Iterator[tuple[str, str, Grey]]:
    """Yield (kind, source or "", image) for every synthetic image."""
    rng = np.random.default_rng([seed, 1])
    sources = iter(rng.permutation(len(real)))
    for kind in KINDS[:-1]:
        for index in itertools.islice(sources, N_COPIES):
            name, image = real[index]
            if kind == "blurred and noisy":
                image = degrade(image, rng)
            elif kind == "mirrored and turned":
                view = View(flip_columns=True, angle_deg=float(rng.uniform(-20, 20)), shift_px=(3.0, -4.0))
                image = apply_view(degrade(image, rng), view)
            elif kind == "locally changed":
                image = near_copy(image, rng)
            yield kind, name, image
    for image in unseen:
        yield "unrelated", "", degrade(image, rng)


def make_images(folder: Path, *, seed: int = 0) -> None:
    """Write ``real/``, ``holdout/``, ``synthetic/`` and ``truth.csv`` (synthetic, kind, source).

    Raises:
        UsageError: The folder holds something else.
    """
    if folder.exists() and any(folder.iterdir()) and not (folder / MARKER).is_file():
        raise UsageError(f"{folder} holds other files: name a new or an empty folder")
    make_private_folder(folder)
    (folder / MARKER).touch(mode=0o600)
    for name in ("real", "holdout", "synthetic"):
        shutil.rmtree(folder / name, ignore_errors=True)
    cohort = make_cohort(N_REAL + N_HOLDOUT + N_UNSEEN, N_LEVELS, seed=seed)
    real: list[tuple[str, Grey]] = []
    for patient, level, image in itertools.islice(cohort, N_REAL * N_LEVELS):
        name = f"{patient}/level-{level}.png"
        # What is on disk is what a generator would have been trained on: 8 bits.
        real.append((name, (np.round(np.clip(image, 0, 1) * 255) / 255).astype(np.float32)))
        _save(folder / "real" / name, image)
    for patient, level, image in itertools.islice(cohort, N_HOLDOUT * N_LEVELS):
        _save(folder / "holdout" / patient / f"level-{level}.png", image)
    planted = list(_synthesise(real, (image for _, _, image in cohort), seed))
    order = np.random.default_rng([seed, 2]).permutation(len(planted))
    with replacing(folder / TRUTH) as temporary, temporary.open("w", newline="", encoding="utf-8") as out:
        writer = csv.writer(out)
        writer.writerow(["synthetic", "kind", "source"])
        for number, index in enumerate(order):
            kind, source, image = planted[index]
            name = f"generated-{number:04d}.png"
            _save(folder / "synthetic" / name, image)
            writer.writerow([name, kind, source])


def run_demo(
    folder: Path, *, seed: int = 0, progress: Progress | None = None
) -> tuple[AuditResult, list[PlantedResult]]:
    """Make the images, audit them with the holdout, and hold the result against the truth."""
    report = progress or Silent()
    report.status(f"drawing {N_REAL + N_HOLDOUT + N_UNSEEN} people who do not exist, {N_LEVELS} slices each")
    make_images(folder, seed=seed)
    result = audit(
        folder / "real",
        folder / "synthetic",
        folder / "result",
        holdout=folder / "holdout",
        options=AuditOptions(calibration=CALIBRATION, images=ImageOptions(group_by="parent"), command="demo"),
        progress=report,
    )
    return result, compare_with_truth(folder)


def compare_with_truth(folder: Path) -> list[PlantedResult]:
    """Count, for each planted kind, what was flagged and whether the source was named."""
    table = pq.read_table(folder / "result" / "matches.parquet", filters=[("rank", "=", 1)])
    found = {row["synthetic_id"]: row for row in table.to_pylist()}
    with (folder / TRUTH).open(newline="", encoding="utf-8") as file:
        truth = list(csv.DictReader(file))
    results = []
    for kind in KINDS:
        rows = [(t["source"], found[t["synthetic"]]) for t in truth if t["kind"] == kind and t["synthetic"] in found]
        results.append(
            PlantedResult(
                kind,
                sum(t["kind"] == kind for t in truth),
                sum(row["label"] != "unrelated" for _, row in rows),
                sum(row["label"] == "exact" for _, row in rows),
                None if kind == "unrelated" else sum(source == row["real_id"] for source, row in rows),
            )
        )
    return results
