"""Pictures of pairs for the report: 8-bit PNG, windowed for display."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow

from deepssim.calibration import LABELS
from deepssim.disk import make_private_folder, replacing, write_json
from deepssim.errors import DeepSSIMError
from deepssim.images import Image
from deepssim.matching import Reference
from deepssim.results import Pair

FOLDER = "evidence"
OWN_FILE = re.compile(r"pairs\.json|pair-\d{3}-(real|synthetic)\.png")
LONGER_SIDE = 256
WINDOW = (0.5, 99.5)  # percentiles shown as black and white

Reader = Callable[[str, str], Image]


def display_png(pixels: NDArray[np.float32]) -> bytes:
    """Return an image ``(height, width)`` as PNG: percentiles 0.5 to 99.5 spread over 8 bits."""
    low, high = np.percentile(pixels.astype(np.float64), WINDOW)
    if not high > low:
        low, high = float(pixels.min()), float(pixels.max())
    grey = np.clip((pixels.astype(np.float64) - low) / max(high - low, np.finfo(np.float64).tiny), 0, 1)
    picture = Pillow.fromarray(np.round(grey * 255).astype(np.uint8))
    picture.thumbnail((LONGER_SIDE, LONGER_SIDE), Pillow.Resampling.BOX)
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def _write(path: Path, data: bytes) -> None:
    with replacing(path) as temporary:
        temporary.write_bytes(data)


def remove_pairs(folder: Path) -> None:
    """Remove what `write_pairs` wrote, and nothing else."""
    target = folder / FOLDER
    if not target.is_dir():
        return
    for path in target.iterdir():
        if OWN_FILE.fullmatch(path.name):
            path.unlink()


def write_pairs(
    folder: Path,
    pairs: list[Pair],
    real: Reference,
    cuts: tuple[float, float],
    read_real: Reader,
    read_synthetic: Reader,
) -> list[str]:
    """Write the pictures of pairs and ``pairs.json`` into ``evidence/``.

    A pair of which an image cannot be read again is left out.

    Args:
        folder: The audit's folder.
        pairs: Best first.
        real: All real images.
        cuts: Scores from which on a pair is near and exact.
        read_real: Reads an image by (path, id).
        read_synthetic: The same for synthetic images.

    Returns:
        A line for each reason that pairs were left out for.
    """
    remove_pairs(folder)
    target = make_private_folder(folder / FOLDER)
    entries: list[dict[str, Any]] = []
    missing: dict[str, list[str]] = {}
    for pair in pairs:
        row = {name: real.table[name][pair.real_row].as_py() for name in ("id", "path", "group")}
        try:
            images = read_real(row["path"], row["id"]), read_synthetic(pair.synthetic_path, pair.synthetic_id)
        except DeepSSIMError as error:
            missing.setdefault(str(error), []).append(f"{row['id']} and {pair.synthetic_id}")
            continue
        names = [f"pair-{len(entries):03d}-{kind}.png" for kind in ("real", "synthetic")]
        for name, image in zip(names, images, strict=True):
            _write(target / name, display_png(image.pixels))
        label = LABELS[(pair.score >= cuts[0]) + (pair.score >= cuts[1])]
        height, width = images[0].pixels.shape
        entries.append(
            {
                "real_id": row["id"],
                "synthetic_id": pair.synthetic_id,
                "real_group": row["group"],
                "score": pair.score,
                "label": label,
                "real_png": names[0],
                "synthetic_png": names[1],
                "size": f"{height} x {width}",
            }
        )
    write_json(target / "pairs.json", entries)
    return [
        f"no picture of the pair {names[0]}{f' and of {len(names) - 1} more' if len(names) > 1 else ''}: {reason}"
        for reason, names in missing.items()
    ]
