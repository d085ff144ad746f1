"""Pictures of pairs."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from deepssim.pictures import LONGER_SIDE, agreement_png


def levels_of(local_correlation: np.ndarray) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(agreement_png(local_correlation.astype(np.float32)))))


def test_correlations_have_levels_and_the_outside_is_0():
    assert levels_of(np.array([[-1.0, 0.0, 1.0, np.nan, -1.5]])).tolist() == [[1, 128, 255, 0, 1]]


def test_a_smaller_map_shows_no_disagreement_at_the_border_of_the_overlap():
    agreeing = np.full((300, 500), 0.9)
    rows, columns = np.indices(agreeing.shape)
    agreeing[rows + columns < 101] = np.nan
    levels = levels_of(agreeing)
    assert max(levels.shape) == LONGER_SIDE
    assert set(np.unique(levels)) == {0, round(127 * 0.9) + 128}
