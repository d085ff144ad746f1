"""A folder in the reference's layout."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deepssim.perturb import degrade, near_copy
from deepssim.phantom import make_cohort

N_PEOPLE = 6


def save(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.rint(image * 255).astype(np.uint8)).save(path)


@pytest.fixture(scope="session")
def layout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``pK/training.png`` with an exact copy ``gen-0``, a near one ``gen-1`` and a stranger ``gen-2``."""
    root = tmp_path_factory.mktemp("layout")
    rng = np.random.default_rng(0)
    images = [image for _, _, image in make_cohort(2 * N_PEOPLE, 1, seed=5)]
    for k in range(N_PEOPLE):
        save(root / f"p{k}" / "training.png", images[k])
        generated = degrade(images[k], rng), near_copy(images[k], rng), degrade(images[N_PEOPLE + k], rng)
        for number, image in enumerate(generated):
            save(root / f"p{k}" / f"gen-{number}.png", image)
    return root
