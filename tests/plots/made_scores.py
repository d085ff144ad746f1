"""Scores of labelled pairs, made up."""

from __future__ import annotations

import numpy as np

from deepssim.calibration import Threshold
from deepssim.plots import ScoredPairs


def make_scored(name: str = "ssim", seed: int = 0, *, n: int = 400, has_detail: bool = False) -> ScoredPairs:
    """Return scores of three overlapping classes."""
    rng = np.random.default_rng(seed)
    labels = rng.choice(3, n, p=[0.6, 0.1, 0.3])
    scores = np.clip(np.array([0.4, 0.9, 0.75])[labels] + rng.normal(0, 0.09, n), -1, 1)
    detail = np.clip(np.array([0.1, 0.9, 0.5])[labels] + rng.normal(0, 0.1, n), -1, 1) if has_detail else None
    return ScoredPairs(name, scores, labels, Threshold(0.6, ">"), Threshold(0.85, ">"), detail)
