"""How long an audit of the size of the published study takes: 2,195 real brain slices, 65,850 generated ones, verified.

    python scripts/measure_audit.py --data DATA --out /tmp/paper --part 0.1

Real images are axial slices of all brains, generated ones copies and strangers under the hard view, thirty to a real
image; ``--part`` makes so many of them and projects: what reads and embeds the real set is counted once, the rest by
the number of generated images. Figures of time alone: people of every split are used. Images are kept in ``--out``.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parent))

from real_images import brain_slices

from deepssim.audit import AuditOptions, audit
from deepssim.cli._progress import make_progress
from deepssim.images import ImageOptions, list_images
from deepssim.matching import MatchOptions
from deepssim.perturb import apply_view, degrade, draw_view, near_copy
from deepssim.run_metric import RunMetric
from deepssim.store_build import build_store

N_REAL = 2195
PER_REAL = 30

Grey = NDArray[np.float32]


def save(path: Path, image: Grey) -> None:
    """Write an image in [0, 1] as an 8-bit PNG file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.rint(image * 255).astype(np.uint8)).save(path)


def write_sets(data: Path, folder: Path, n_synthetic: int) -> None:
    """Write real and generated images, unless they are there."""
    if (folder / "whole").is_file() and (folder / "whole").read_text() == str(n_synthetic):
        return
    slices = [(person, name, pixels) for _, person, name, pixels in brain_slices(data, ("train", "tune", "test"))]
    used, others = slices[:N_REAL], slices[N_REAL:]
    for person, name, pixels in used:
        save(folder / "real" / person / f"{name}.png", pixels.astype(np.float32) / np.float32(255))
    for k in range(n_synthetic):
        rng = np.random.default_rng(k)
        chosen = (used, used, others)[k % 3]
        image = chosen[int(rng.integers(len(chosen)))][2].astype(np.float32) / np.float32(255)
        made = near_copy(image, rng) if k % 3 == 1 else degrade(image, rng)
        save(folder / "generated" / f"{k // 1000:03d}" / f"{k:06d}.png",
             apply_view(made, draw_view(rng, "hard", size=(image.shape[0], image.shape[1]))))  # fmt: skip
    (folder / "whole").write_text(str(n_synthetic))


def main() -> None:
    """Write the sets, audit them, print seconds."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with brain/")
    parser.add_argument("--out", type=Path, required=True, help="folder of the images and results")
    parser.add_argument("--part", type=float, default=0.1, help="of the generated images")
    parser.add_argument("--metric", default="auto")
    options = parser.parse_args()
    n_whole = N_REAL * PER_REAL
    n_synthetic = round(options.part * n_whole)
    write_sets(options.data, options.out, n_synthetic)
    reading = ImageOptions(group_by="parent")
    began = time.perf_counter()
    metric = RunMetric(options.metric, "cpu", 0)
    listing = list_images(options.out / "real", reading)
    metric.choose([options.out / "real"], lambda: listing, lambda text: sys.stderr.write(f"{text}\n") and None)
    store = options.out / f"real-{int(began)}.store"
    build_store(listing, metric.encoder(), store, with_working=True, as_gallery=True)
    real_seconds = time.perf_counter() - began
    asked = AuditOptions(metric=str(metric.encoder().metric.path), images=reading, match=MatchOptions(), device="cpu")
    began = time.perf_counter()
    result = audit(store, options.out / "generated", options.out / f"result-{int(began)}", options=asked,
          progress=make_progress(False))  # fmt: skip
    seconds = time.perf_counter() - began
    whole = real_seconds + seconds * n_whole / n_synthetic
    sys.stdout.write(
        f"{metric.encoder().metric.name}: {N_REAL:,} real images {real_seconds:.1f} s, {n_synthetic:,} generated ones "
        f"{seconds:.1f} s ({n_synthetic / seconds:,.0f} a second); {n_whole:,} of them: {whole / 60:.1f} minutes\n"
    )
    sys.stdout.write(f"{result.summary['synthetic_flagged']}\n{result.summary['screening']}\n")


if __name__ == "__main__":
    main()
