"""A small cohort on disk, made once a session."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deepssim.perturb import degrade
from deepssim.phantom import make_cohort


@dataclass(frozen=True)
class Cohort:
    real: Path
    synthetic: Path
    holdout: Path
    copies: dict[str, str]  # synthetic id -> real id


def save(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.round(np.clip(image, 0, 1) * 255).astype(np.uint8)).save(path)


@pytest.fixture(scope="session")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    root = tmp_path_factory.mktemp("cohort")
    rng = np.random.default_rng(0)
    copies: dict[str, str] = {}
    for number, (patient, level, image) in enumerate(make_cohort(20, 2, seed=3)):
        name = f"{patient}/{level}.png"
        if number < 20:  # ten people
            save(root / "real" / name, image)
            if number % 4 == 0:
                copy = f"copy-{number:02d}.png"
                save(root / "synthetic" / copy, image if number == 0 else degrade(image, rng))
                copies[copy] = name
        elif number < 28:  # four people
            save(root / "holdout" / name, image)
        else:
            save(root / "synthetic" / f"other-{number:02d}.png", degrade(image, rng))
    return Cohort(root / "real", root / "synthetic", root / "holdout", copies)
