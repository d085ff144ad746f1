"""A plain generator of finished audit folders, with names as hostile as a file system allows.

Nothing of the package is imported: the files are written as the audit describes them.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image, PngImagePlugin

SCRIPT = "<script>alert(1)</script>"
ATTRIBUTE = '"><img src=x onerror="alert(2)">'
BIDI = "scan\u202egnp.exe"
LONG = "patient-archive/" + "deep/" * 95 + "slice.png"
HOSTILE = (
    SCRIPT,
    ATTRIBUTE,
    BIDI,
    LONG,
    "'{{ 7*7 }}'",
    "nul\x00tab\tline\nend",
    "zero\u200bwidth",
    "e\u0301" + "\u0301" * 40,
)

GROUPS = [f"patient-{index:04d}" for index in range(40)]
DIGEST = "0123456789abcdef" * 4


@dataclass(frozen=True)
class Kind:
    """What a fake audit contains."""

    n_pairs: int = 6
    n_leaks: int = 29
    n_skipped: int = 130
    level: str = "copies"
    has_groups: bool = True
    has_holdout: bool = True
    is_hostile: bool = True
    is_noise: bool = False
    has_evidence: bool = True
    is_verified: bool = False


def real_id(index: int, kind: Kind) -> str:
    """Return the id of a real image; the first ones are hostile."""
    if kind.is_hostile and index < len(HOSTILE):
        return HOSTILE[index]
    return f"{GROUPS[index % 40]}/T1w-{index // 40:03d}.png"


def synthetic_id(index: int, kind: Kind) -> str:
    """Return the id of a synthetic image; the first ones are hostile."""
    if kind.is_hostile and index < len(HOSTILE):
        return "gen-" + HOSTILE[index]
    return f"generated/sample-{index:06d}.png"


def group(index: int, kind: Kind) -> str | None:
    """Return the patient of a real image."""
    if not kind.has_groups:
        return None
    return f"pid{SCRIPT}{index}" if kind.is_hostile and index < 2 else GROUPS[index % 40]


def _interval(count: int, total: int) -> list[float]:
    """Return a Wilson interval, enough for a fake."""
    z, p = 1.959964, count / total
    centre, half = p + z * z / (2 * total), z * np.sqrt(p * (1 - p) / total + z * z / (4 * total**2))
    return [
        float(max(centre - half, 0) / (1 + z * z / total)),
        float(min(centre + half, total) / (1 + z * z / total)),
    ]


def _rate(key: str, count: int, total: int, unit: str, **more: int) -> dict[str, Any]:
    interval = _interval(count, total)
    return {
        key: count,
        **more,
        "total": total,
        "rate": count / total,
        "interval": interval,
        "unit": unit,
        "level": 0.95,
    }


def _histogram(kind: Kind) -> dict[str, Any]:
    rng = np.random.default_rng(3)
    edges = np.linspace(-1, 1, 201)
    body = np.clip(rng.normal(0.82, 0.05, 488), -1, 0.95)
    flagged = np.r_[rng.uniform(0.971, 0.988, 3), rng.uniform(0.991, 1, 9)] if kind.level == "copies" else [0.93] * 12
    matched = np.r_[body[:488] - 0.03, flagged[:11] if kind.level == "copies" else flagged, 0.8][:500]
    return {
        "edges": edges.tolist(),
        "real": np.histogram(np.r_[body, flagged], edges)[0].tolist(),
        "real_matched": np.histogram(matched, edges)[0].tolist() if kind.has_holdout else None,
        "holdout": np.histogram(np.clip(rng.normal(0.79, 0.05, 500), -1, 0.96), edges)[0].tolist()
        if kind.has_holdout
        else None,
    }


def _control(kind: Kind, n_flagged: int) -> dict[str, Any] | None:
    if not kind.has_holdout:
        return None
    n_real = 11 if n_flagged else 0
    return {
        "n_images": 100,
        "n_real_used": 100,
        "drawn": "by patient",
        "seed": 0,
        "real": {"flagged": n_real, "exact": min(n_real, 8), "rate": n_real / 500, "interval": _interval(n_real, 500)},
        "holdout": {"flagged": 0, "exact": 0, "rate": 0.0, "interval": _interval(0, 500)},
        "only_real": n_real,
        "only_holdout": 0,
        "both": 0,
        "p_value": 0.00049 if n_real else 1.0,
        "warnings": ["3 holdout images are identical to real images and were left out of the comparison."],
    }


VERIFIED_THRESHOLDS = {
    "near": {"value": 0.75, "comparison": ">="},
    "exact": {"value": 0.45, "comparison": ">="},
    "source": "provisional",
    "stage": "verified",
    "domain": "",
    "base_size": None,
    "how": "",
    "false_positive_rate": None,
}
THRESHOLDS = {
    "near": {"value": 0.97, "comparison": ">="},
    "exact": {"value": 0.99, "comparison": ">="},
    "source": "built-in calibration for pixel",
    "stage": "embedding",
    "domain": "axial T1w brain MRI",
    "base_size": 400,
    "how": "Largest threshold with at most 0.4 % false alarms on people whom no image of the base shows.",
    "false_positive_rate": 0.004,
}


def summary(kind: Kind) -> dict[str, Any]:
    """Return the content of summary.json."""
    unit = "patient" if kind.has_groups else "image"
    n_flagged = 12 if kind.level == "copies" else 0
    n_exact = 9 if n_flagged else 0
    sentence = (
        "12 of 500 synthetic images (2.4 %) reproduce a real image; 8 of 40 patients are affected."
        if n_flagged
        else "None of 500 synthetic images is a copy of a real image by these thresholds."
    )
    groups = 40 if kind.has_groups else None
    counts = {
        "real": {"images": 400, "groups": groups, "skipped": 0, "ignored": 1},
        "synthetic": {"images": 500, "groups": None, "skipped": kind.n_skipped, "ignored": 0},
        "holdout": {"images": 100, "groups": 10, "skipped": 0, "ignored": 0} if kind.has_holdout else None,
    }
    n_leaks = kind.n_leaks if n_flagged else 0
    verified = {"decided_by": "s1", "verification": {"candidates": 4}, "thresholds": VERIFIED_THRESHOLDS}
    return {
        "format": "deepssim-summary",
        "version": 1,
        "metric": {"name": "pixel", "hash": DIGEST[::-1], "similarity": "cosine", "dim": 1024},
        "thresholds": THRESHOLDS,
        "counts": counts,
        "synthetic_flagged": _rate("flagged", n_flagged, 500, unit, near=n_flagged - n_exact, exact=n_exact),
        "real_copied": _rate(
            "copied", 10 if n_flagged else 0, 400, unit, near_only=2 if n_flagged else 0, exact=8 if n_flagged else 0
        ),
        "patients_copied": _rate("copied", 8 if n_flagged else 0, 40, unit) if kind.has_groups else None,
        "pairs_over_threshold": {
            "near": max(n_leaks - 9, 0),
            "exact": min(n_leaks, 9),
            "listed": n_leaks,
            "truncated": False,
        },
        "control": _control(kind, n_flagged),
        "histogram": _histogram(kind),
        "verdict": {
            "level": kind.level,
            "sentence": sentence,
            "details": [
                "9 are exact duplicates by their score, 3 near duplicates.",
                "Against images that the generator never saw, the same thresholds flag none.",
            ]
            if n_flagged
            else [],
        },
        "limits": [
            "An image that is not flagged may still carry features of a training patient.",
            "Scores of 0.97 and more were rare on other people, which is no proof for these.",
            "Copies that were flipped or turned by more than 10 degrees can be missed by this metric.",
        ],
        "warnings": [f"Real image {real_id(20, kind)} in /secret/hospital/real has been read twice."],
        **(verified if kind.is_verified else {}),
    }


def run(kind: Kind) -> dict[str, Any]:
    """Return the content of run.json."""

    def one(name: str, n: int) -> dict[str, Any]:
        return {
            "source": f"/secret/hospital/{name}",
            "digest": name[0] * 4 + DIGEST[4:],
            "images": n,
            "group_by": "parent",
        }

    return {
        "format": "deepssim-run",
        "version": 1,
        "command": "audit",
        "started": "2026-11-24T05:12:03+00:00",
        "finished": "2026-11-24T05:12:15+00:00",
        "seconds": 12.3,
        "versions": {"deepssim": "0.1.0", "python": "3.11.2", "numpy": "2.4.6", "onnxruntime": "1.28.0"},
        "machine": {
            "system": "Linux 6.1",
            "processor": "x86_64",
            "isa": "avx512",
            "threads": 2,
            "provider": "CPUExecutionProvider",
        },
        "inputs": {
            "real": one("real", 400),
            "synthetic": one("synthetic", 500),
            "holdout": one("unseen", 100) if kind.has_holdout else None,
        },
        "options": {
            "k": 5,
            "memory_limit": None,
            "out": "/secret/hospital/audit",
            "group_by": "parent",
            "slices": "middle",
        },
        "thresholds": THRESHOLDS,
        "plan": {"bytes_total": 268435456, "chunk_rows": 4096},
        "seeds": {"control": 0},
    }


def _phantom(rng: np.random.Generator, size: tuple[int, int], *, is_noise: bool) -> np.ndarray:
    """Return a smooth head-like picture, or noise, float in [0, 1]."""
    height, width = size
    if is_noise:
        return rng.random(size)
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    radius = np.hypot(x / 0.8, y / 0.9)
    picture = np.where(radius < 1, 0.35, 0.0) + np.where((radius > 0.86) & (radius < 1), 0.45, 0.0)
    for _ in range(9):
        cx, cy, sx, sy = *rng.uniform(-0.45, 0.45, 2), *rng.uniform(0.05, 0.22, 2)
        picture += rng.uniform(-0.3, 0.4) * np.exp(-(((x - cx) / sx) ** 2) - ((y - cy) / sy) ** 2) * (radius < 0.84)
    return np.clip(picture, 0, 1)


def _write_verified(evidence: Path, index: int, real: np.ndarray, label: str) -> dict[str, Any]:
    """Write the pictures of a verified pair; returns the fields of its entry."""
    agreement = np.full(real.shape, 250, np.uint8)
    if label == "near":
        agreement[30:60, 40:70] = 110
    agreement[:5], agreement[:, -7:] = 0, 0  # outside the overlap
    for name, levels in (("aligned", np.rint(real * 255).astype(np.uint8)), ("agreement", agreement)):
        note = PngImagePlugin.PngInfo()
        note.add_text("PatientName", f"patient-{index:04d}^SECRET")
        Image.fromarray(levels).save(evidence / f"pair-{index:03d}-{name}.png", pnginfo=note)
    s1 = 0.99 - 0.01 * index if label != "unrelated" else 0.5 - 0.01 * index
    transforms = ("as it lies", "mirrored, turned -4.2 degrees, moved 3.0 px", "turned 2.0 degrees, scaled by 1.020")
    return {
        "s1": s1,
        "s2": {"exact": 0.8, "near": 0.2, "unrelated": -0.1}[label],
        "overlap": 0.931,
        "screening_rank": 1 + index % 4,
        "transform": transforms[index % 3],
        "aligned_png": f"pair-{index:03d}-aligned.png",
        "agreement_png": f"pair-{index:03d}-agreement.png",
    }


def _write_evidence(folder: Path, kind: Kind) -> None:
    rng = np.random.default_rng(0)
    evidence = folder / "evidence"
    evidence.mkdir()
    size = (256, 256) if kind.is_noise else (136, 112)
    pairs = []
    for index in range(kind.n_pairs):
        real = _phantom(rng, size, is_noise=kind.is_noise)
        other = rng.random(size) if kind.is_noise else np.clip(real * 0.9 + rng.normal(0, 0.02, size), 0, 1)
        if index % 3 == 2 and not kind.is_noise:
            other[30:60, 40:70] *= 0.6
        for name, picture in (("real", real), ("synthetic", other)):
            note = PngImagePlugin.PngInfo()
            note.add_text("PatientName", f"patient-{index:04d}^SECRET")
            grey = Image.fromarray(np.rint(picture * 255).astype(np.uint8))
            if name == "synthetic" and index == 1 and not kind.is_noise:
                grey = grey.resize((128, 128))
            grey.save(evidence / f"pair-{index:03d}-{name}.png", pnginfo=note)
        score = 0.9993 - 0.0035 * index if kind.level == "copies" else 0.95 - 0.001 * index
        label = "exact" if score >= 0.99 else "near" if score >= 0.97 else "unrelated"
        pairs.append(
            {
                "real_id": real_id(index, kind),
                "synthetic_id": synthetic_id(index, kind),
                "real_group": group(index, kind),
                "score": score,
                "label": label,
                "real_png": f"pair-{index:03d}-real.png",
                "synthetic_png": f"pair-{index:03d}-synthetic.png",
                "size": f"{size[0]} x {size[1]}",
                **(_write_verified(evidence, index, real, label) if kind.is_verified else {}),
            }
        )
    (evidence / "pairs.json").write_text(json.dumps(pairs), encoding="utf-8")


def _write_table(path: Path, columns: dict[str, list[Any]], **types: pa.DataType) -> None:
    arrays = {name: pa.array(values, types.get(name)) for name, values in columns.items()}
    pq.write_table(pa.table(arrays), path, row_group_size=10_000)


def _statistics(s1: list[float], kind: Kind) -> dict[str, list[Any]]:
    return {"s1": s1, "s2": [value - 0.3 for value in s1]} if kind.is_verified else {}


def _write_copies(folder: Path, kind: Kind) -> None:
    """Write leaks, real_images and patients."""
    n = kind.n_leaks
    scores = np.linspace(0.9993, 0.97, n).astype(np.float32).tolist()
    rows = list(range(n))
    _write_table(
        folder / "leaks.parquet",
        {
            "real_id": [real_id(i % 400, kind) for i in rows],
            "real_path": [real_id(i % 400, kind) for i in rows],
            "real_group": [group(i % 400, kind) for i in rows],
            "synthetic_id": [synthetic_id(i, kind) for i in rows],
            "synthetic_path": [synthetic_id(i, kind) for i in rows],
            "score": scores,
            "label": ["exact" if i < 9 else "near" for i in rows],
            **_statistics([0.99 - 0.2 * i / max(n, 1) for i in rows], kind),
        },
        score=pa.float32(),
        real_group=pa.string(),
    )
    reals = list(range(min(max(n, 1), 400)))
    _write_table(
        folder / "real_images.parquet",
        {
            "real_id": [real_id(i, kind) for i in reals],
            "real_path": [real_id(i, kind) for i in reals],
            "real_group": [group(i, kind) for i in reals],
            "n_exact": [max(3 - i, 0) for i in reals],
            "n_near": [1 + i % 2 for i in reals],
            "best_value": [0.9993 - 0.0001 * i for i in reals],
            "best_synthetic_id": [synthetic_id(i, kind) for i in reals],
        },
        best_value=pa.float32(),
        real_group=pa.string(),
    )
    if kind.has_groups:
        people = list(range(8))
        _write_table(
            folder / "patients.parquet",
            {
                "group": [group(i, kind) for i in people],
                "n_images": [10] * 8,
                "n_images_copied": [3, 1, 1, 1, 1, 1, 1, 1],
                "n_exact": [max(3 - i, 0) for i in people],
                "n_near": [1] * 8,
                "best_value": [0.9993 - 0.001 * i for i in people],
                "best_real_id": [real_id(i, kind) for i in people],
                "best_synthetic_id": [synthetic_id(i, kind) for i in people],
            },
            best_value=pa.float32(),
        )


def _write_matches(folder: Path, kind: Kind) -> None:
    rows = [(s, rank) for s in range(500) for rank in (1, 2)]
    scores = [0.96 - 0.0002 * s - 0.01 * (rank - 1) for s, rank in rows]
    _write_table(
        folder / "matches.parquet",
        {
            "synthetic_id": [synthetic_id(s, kind) for s, _ in rows],
            "synthetic_path": [synthetic_id(s, kind) for s, _ in rows],
            "synthetic_group": [None] * len(rows),
            "rank": [rank for _, rank in rows],
            "real_id": [real_id((s + rank) % 400, kind) for s, rank in rows],
            "real_path": [real_id((s + rank) % 400, kind) for s, rank in rows],
            "real_group": [group((s + rank) % 400, kind) for s, rank in rows],
            "score": scores,
            "label": ["unrelated"] * len(rows),
            **_statistics([0.6 - 0.0002 * s - 0.01 * rank for s, rank in rows], kind),
        },
        rank=pa.int32(),
        score=pa.float32(),
        synthetic_group=pa.string(),
        real_group=pa.string(),
    )


def _write_skipped(folder: Path, kind: Kind) -> None:
    n = kind.n_skipped
    codes = ["constant" if i % 3 else "truncated" for i in range(n)] + ["ignored", "blank", "blank"]
    ids = [f"{SCRIPT if kind.is_hostile and i == 0 else 'bad'}-file-{i:04d}.png" for i in range(n + 3)]
    _write_table(
        folder / "skipped.parquet",
        {
            "set": ["synthetic"] * n + ["real", "real", "holdout"],
            "id": ids,
            "path": ids,
            "code": codes,
            "reason": [f"{name}: every pixel is 0" for name in ids],
        },
    )


def write_audit(folder: Path, kind: Kind = Kind()) -> Path:
    """Write a finished audit folder and return it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "summary.json").write_text(json.dumps(summary(kind)), encoding="utf-8")
    (folder / "run.json").write_text(json.dumps(run(kind)), encoding="utf-8")
    _write_matches(folder, kind)
    _write_skipped(folder, kind)
    if kind.level == "copies":
        _write_copies(folder, kind)
    if kind.has_evidence:
        _write_evidence(folder, kind)
    return folder
