"""Write what tells the kinds of image apart that the package has encoders for: see `deepssim.domain`.

    python scripts/make_domains.py --data DATA --write python/deepssim/metrics

Directions come from the people of the split ``train``; the threshold of a kind lies halfway between the median
likeness of the people of ``tune`` and the highest median of a set that is of another kind: the other domain, phantoms,
and slices of the brain in other planes. The table shows these medians, and lower and upper tenths.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import nibabel
import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.membench.collection import read_collection

from deepssim.disk import replacing
from deepssim.domain import SUFFIX, likeness, principal_directions, thumbnails
from deepssim.embed import Encoder
from deepssim.metric import load_metric

KINDS = {"brain": "axial brain MRI", "chest": "frontal chest X-rays"}
N_DIRECTIONS = 8
PLANES = {"coronal brain": 1, "sagittal brain": 0}

Pixels = NDArray[np.float32]


def other_planes(data: Path) -> dict[str, list[Pixels]]:
    """Return slices in other planes of the brains of ``train`` and ``tune``, whole."""
    people = np.unique(read_collection(data, "brain", {"train", "tune"}).people)
    found: dict[str, list[Pixels]] = {name: [] for name in PLANES}
    for person in people[::4]:
        volume = nibabel.as_closest_canonical(nibabel.load(data / "brain" / "volumes" / f"{person}_T1w.nii.gz"))
        voxels = np.asarray(volume.dataobj, np.float32)
        for name, axis in PLANES.items():
            for part in (0.35, 0.5, 0.65):
                level = np.take(voxels, round(part * voxels.shape[axis]), axis=axis)
                found[name].append(np.ascontiguousarray(level.T[::-1]))
    return found


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with splits.csv, brain/ and cxr/")
    parser.add_argument("--write", type=Path, required=True, help="folder to write into: python/deepssim/metrics")
    options = parser.parse_args()
    encoder = Encoder(load_metric("pixel"), device="cpu")
    sets = {name: read_collection(options.data, name, {"tune"}).images for name in KINDS}
    sets |= {"phantoms": read_collection(None, "phantom", {"tune"}).images, **other_planes(options.data)}
    seen = {name: thumbnails(images, encoder) for name, images in sets.items()}
    for domain, kind in KINDS.items():
        own = thumbnails(read_collection(options.data, domain, {"train"}).images, encoder)[:, 0]
        directions = principal_directions(own, N_DIRECTIONS)
        found = {name: likeness(thumbs, directions) for name, thumbs in seen.items()}
        medians = {name: float(np.median(values)) for name, values in found.items()}
        threshold = round((medians[domain] + max(m for name, m in medians.items() if name != domain)) / 2, 3)
        sys.stdout.write(f"{kind}: threshold {threshold}\n")
        for name, values in found.items():
            low, high = np.quantile(values, (0.1, 0.9))
            sys.stdout.write(f"  {name:15} {len(values):4} images  {low:.3f} {medians[name]:.3f} {high:.3f}\n")
        with replacing(options.write / f"{domain}{SUFFIX}") as temporary, temporary.open("wb") as file:
            np.savez(file, kind=np.array(kind), directions=directions.astype(np.float32), threshold=threshold)


if __name__ == "__main__":
    main()
