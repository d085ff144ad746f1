"""How much a screening finds, by its metric, the views of the real images, the candidates and the cap on a patient's.

    python scripts/measure_screening.py REAL/ --metric brain pixel --k 2 4 8 16 --max-per-group 1 2 4 0

Copies of real images are made and searched as each audit does in its own trial (`deepssim.trial`): exact and near ones,
mirrored, turned by up to 30 degrees, shifted and zoomed by up to a tenth. The first table is the share of them whose
source is a candidate. The second is what it costs on this machine: to embed a real image in its views, and to make a
copy and find its candidates, with the views of the metric, if it has any. What a candidate costs to verify:
scripts/measure_registration.py.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from dataclasses import replace
from itertools import product
from pathlib import Path

from deepssim.calibration import load_calibration
from deepssim.embed import Encoder
from deepssim.evidence import Verifier
from deepssim.gallery import GalleryViews
from deepssim.images import ImageOptions, list_images
from deepssim.matching import Matcher, MatchOptions, Reference
from deepssim.metric import Metric, load_metric
from deepssim.store import Store
from deepssim.store_build import build_store
from deepssim.trial import run_trial

# Enough for the largest number of copies that a trial makes.
EXPECTED_ROWS = 10**6
GALLERIES = {"none": None, "flips": (0.0,), "12": (-20.0, 0.0, 20.0), "20": (-30.0, -15.0, 0.0, 15.0, 30.0)}


def gallery_of(metric: Metric, name: str) -> Metric:
    """Return a metric with other views of real images."""
    turns = GALLERIES[name]
    return replace(metric, gallery=GalleryViews(turns) if turns is not None else None)


def measure(store: Store, encoder: Encoder, k: int, cap: int) -> tuple[str, float]:
    """Return the cells of a trial, and milliseconds for a copy: making it, embedding it, finding its candidates."""
    calibration = load_calibration("verified")
    options = MatchOptions(k=k, max_per_group=cap)
    verifier = Verifier(calibration, 0)
    layout = encoder.metric.layout
    matcher = Matcher(Reference(store), None, calibration.cuts(), options, EXPECTED_ROWS, layout, verifier)
    began = time.perf_counter()
    trial = run_trial(matcher, encoder, expected_rows=EXPECTED_ROWS)
    seconds = time.perf_counter() - began
    cells = [f"{trial.exact.rate:.3f}", f"{trial.near.rate:.3f}", f"{trial.both.rate:.3f}"]
    cells.append(f"{trial.both.low:.3f} to {trial.both.high:.3f}")
    return " | ".join(cells), 1e3 * seconds / trial.both.total


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("real", type=Path, help="folder of real images, one folder for each person")
    parser.add_argument("--metric", nargs="+", default=["brain"], help="installed metrics or bundles")
    parser.add_argument("--gallery", nargs="+", choices=tuple(GALLERIES), help="views of real images; default: its own")
    parser.add_argument("--k", nargs="+", type=int, default=[1, 2, 4, 8, 16], help="candidates")
    parser.add_argument("--max-per-group", nargs="+", type=int, default=[2, 0], help="of one person; 0: no cap")
    options = parser.parse_args()
    listing = list_images(options.real, ImageOptions(group_by="parent"))
    write = sys.stdout.write
    costs = []
    write("| metric | views of real images | k | of one person | exact | near | both | 95 % interval |\n")
    write("|---|---|---:|---:|---:|---:|---:|---|\n")
    for name, gallery in product(options.metric, options.gallery or [None]):
        metric = load_metric(name)
        if gallery is not None:
            metric = gallery_of(metric, gallery)
        encoder = Encoder(metric, device="cpu")
        with tempfile.TemporaryDirectory(prefix="screening-") as folder:
            began = time.perf_counter()
            store = build_store(listing, encoder, Path(folder) / "real.store", with_working=True, as_gallery=True)
            cost = 1e3 * (time.perf_counter() - began) / len(store)
            shown = len(metric.gallery) if metric.gallery is not None else 1
            for k, cap in product(options.k, options.max_per_group):
                if cap >= k and 0 in options.max_per_group:
                    continue  # the same as no cap
                cells, per_copy = measure(store, encoder, k, cap)
                write(f"| {metric.name} | {shown} | {k} | {cap or 'any'} | {cells} |\n")
                sys.stdout.flush()
            costs.append(f"| {metric.name} | {shown} | {len(store):,} | {cost:.2f} | {per_copy:.2f} |\n")
    write("\n| metric | views of real images | real images | ms to embed one | ms to make a copy and screen it |\n")
    write("|---|---:|---:|---:|---:|\n" + "".join(costs))


if __name__ == "__main__":
    main()
