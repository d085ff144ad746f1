"""Train an encoder of the package on real images of one kind, from the data alone.

    python scripts/train_default.py brain --data DATA --out runs/brain --write python/deepssim/metrics

Trains on the people of the split ``train``; those of ``tune`` select the weights; those of ``test`` are not touched.
Of the brains all axial slices of the volumes are used that show enough of the brain, in the crop that the folder
``slices`` has; of the chest the films. The recipe `lite` teaches them to find the source of a copy, `lite-refine` goes
on from its last weights and brings the cosine nearer to the SSIM; each has a folder of its own. A run that was killed
goes on when the same command is given again. At the end the best weights of the second are exported as the metric
``brain`` or ``chest``, compared with PyTorch on images of ``tune``. Thresholds and figures:
scripts/calibrate_encoder.py, scripts/measure_encoder.py.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from real_images import brain_slices, chest_films

from deepssim import __version__
from deepssim.cli._progress import make_progress
from deepssim.export import export_encoder, sample_images
from deepssim.gallery import GalleryViews
from deepssim.images import list_images
from deepssim.models.checkpoint import load_encoder
from deepssim.train.options import TrainOptions
from deepssim.train.run import train

# Rows and columns that images are brought to.
SIZES = {"brain": (136, 112), "chest": (128, 128)}
STEPS = {"lite": 12_000, "lite-refine": 3_000}
# Real images are embedded as the mean over all flips at these turns.
GALLERY = GalleryViews((-20.0, 0.0, 20.0))
KINDS = {
    "brain": "axial T1-weighted brain MRI (OpenNeuro ds002748 1.0.5, CC0)",
    "chest": "frontal chest X-rays (NIH ChestX-ray8, Wang et al., CVPR 2017)",
}


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


def write_metric(weights: Path, domain: str, images: Path, folder: Path) -> None:
    """Export an encoder as the package's metric of a domain."""
    encoder, description = load_encoder(weights)
    real = sample_images(list_images(images), (description.height, description.width))
    made = export_encoder(
        encoder,
        description,
        folder / f"{domain}.onnx",
        name=domain,
        text=f"Cosine taught to be SSIM, whatever the flip, turn, shift, zoom or contrast; for {KINDS[domain]}.",
        provenance=f"python scripts/train_default.py {domain}, DeepSSIM {__version__}; people of the split train.",
        licence="MIT",
        images=real,
        precision="w16",
        gallery=GALLERY,
    )
    sys.stdout.write(f"{made.path}: {made.n_bytes:,} bytes, {made.error:.1e} from PyTorch, {made.agreement}\n")


def main() -> None:
    """Write the images, train, and export."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("domain", choices=sorted(SIZES))
    parser.add_argument("--data", type=Path, required=True, help="folder with splits.csv, brain/ and cxr/")
    parser.add_argument("--out", type=Path, required=True, help="folder of the run")
    parser.add_argument("--write", type=Path, help="folder to write the metric into: python/deepssim/metrics")
    parser.add_argument("--steps", nargs=2, type=int, default=list(STEPS.values()), help="updates of both recipes")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--workers", type=int, default=1, help="processes that make partners")
    options = parser.parse_args()
    images = options.out / "images"
    options.out.mkdir(parents=True, exist_ok=True)
    write_images(brain_slices(options.data) if options.domain == "brain" else chest_films(options.data), images)
    weights = None
    for recipe, steps in zip(STEPS, options.steps, strict=True):
        asked = TrainOptions(
            recipe=recipe,
            images=images / "train",
            validation_images=images / "tune",
            out=options.out / recipe,
            name=options.domain,
            group_by="parent",
            size=SIZES[options.domain],
            steps=steps,
            weights=weights,
            device=options.device,
            workers=options.workers,
        )
        result = train(asked, make_progress(False))
        weights = str(result.folder / "last.safetensors")
        sys.stdout.write(f"{result.folder}: {dict(result.best)}\n")
    if options.write is not None:
        write_metric(result.folder / "best.safetensors", options.domain, images / "tune", options.write)


if __name__ == "__main__":
    main()
