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
from deepssim.evidence import lay_onto
from deepssim.images import Image
from deepssim.matching import Reference, Subject
from deepssim.parts import evidence_of
from deepssim.results import Pair
from deepssim.working import working_image

FOLDER = "evidence"
OWN_FILE = re.compile(r"pairs\.json|pair-\d{3}-(real|synthetic|aligned|agreement)\.png")
LONGER_SIDE = 256
WINDOW = (0.5, 99.5)  # percentiles shown as black and white

Reader = Callable[[str, str], Image]


def display_png(pixels: NDArray[np.float32]) -> bytes:
    """Return an image ``(height, width)`` as PNG: percentiles 0.5 to 99.5 spread over 8 bits."""
    low, high = np.percentile(pixels.astype(np.float64), WINDOW)
    if not high > low:
        low, high = float(pixels.min()), float(pixels.max())
    grey = np.clip((pixels.astype(np.float64) - low) / max(high - low, np.finfo(np.float64).tiny), 0, 1)
    return _png(np.round(grey * 255).astype(np.uint8))


def agreement_png(local_correlation: NDArray[np.float32]) -> bytes:
    """Return a map of local correlations as PNG: 1 to 255 for -1 to 1, 0 where it is NaN."""
    level = np.round(127 * np.clip(local_correlation.astype(np.float64), -1, 1)) + 128
    inside = ~np.isnan(level)
    picture, mask = (
        _small(np.where(inside, values, 0).astype(np.uint8)) for values in (level, np.full_like(level, 255))
    )
    # Where a pixel of the small map is only partly inside, its mean would pass for disagreement.
    return _png(np.where(np.asarray(mask) == 255, np.asarray(picture), 0).astype(np.uint8))


def _small(levels: NDArray[np.uint8]) -> Pillow.Image:
    picture = Pillow.fromarray(levels)
    picture.thumbnail((LONGER_SIDE, LONGER_SIDE), Pillow.Resampling.BOX)
    return picture


def _png(levels: NDArray[np.uint8]) -> bytes:
    picture = _small(levels)
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
    read_real: Reader,
    read_synthetic: Reader,
) -> list[str]:
    """Write the pictures of pairs and ``pairs.json`` into ``evidence/``.

    A pair of which an image cannot be read again is left out. Of a verified pair there are also the real image laid
    onto the synthetic one and the map of their local correlation, both from the working images.

    Args:
        folder: The audit's folder.
        pairs: Best first.
        real: All real images.
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
        height, width = images[0].pixels.shape
        entries.append(
            {
                "real_id": row["id"],
                "synthetic_id": pair.synthetic_id,
                "real_group": row["group"],
                "score": pair.score,
                "label": LABELS[pair.level],
                "real_png": names[0],
                "synthetic_png": names[1],
                "size": f"{height} x {width}",
                **_write_evidence(target, len(entries), pair, real, images[1].pixels),
            }
        )
    write_json(target / "pairs.json", entries)
    return [
        f"no picture of the pair {names[0]}{f' and of {len(names) - 1} more' if len(names) > 1 else ''}: {reason}"
        for reason, names in missing.items()
    ]


def _write_evidence(
    target: Path, number: int, pair: Pair, real: Reference, synthetic: NDArray[np.float32]
) -> dict[str, Any]:
    """Write what was seen of a verified pair; returns the fields of its entry."""
    if not pair.evidence:
        return {}
    evidence, transform = evidence_of(np.array(pair.evidence, np.float32))
    height, width = synthetic.shape
    subject = Subject(height, width, working_image(synthetic))
    aligned, local_correlation = lay_onto(subject, real.store.working_image(int(real.rows[pair.real_row])), transform)
    names = [f"pair-{number:03d}-{kind}.png" for kind in ("aligned", "agreement")]
    _write(target / names[0], display_png(aligned))
    _write(target / names[1], agreement_png(local_correlation))
    return {
        "s1": evidence.s1,
        "s2": evidence.s2,
        "overlap": evidence.overlap,
        "screening_rank": pair.screening_rank,
        "transform": str(transform),
        "aligned_png": names[0],
        "agreement_png": names[1],
    }
