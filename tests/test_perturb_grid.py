"""The grid work of perturbations has the bits of plain NumPy, which is slower."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deepssim.perturb_grid import block_mean, convolve, sample


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 90), st.integers(1, 90), st.integers(1, 12), st.sampled_from("CF"), st.integers(0, 2**32 - 1))
def test_block_means_are_those_of_numpy(rows, columns, block, order, seed):
    image = np.asarray(np.random.default_rng(seed).random((rows, columns), np.float32), order=order)
    height, width = rows // block * block, columns // block * block
    cells = image[:height, :width].reshape(height // block, block, width // block, block)
    with np.errstate(invalid="ignore"):
        np.testing.assert_array_equal(block_mean(image, block), cells.mean(axis=(1, 3)))


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 20), st.integers(1, 20), st.integers(0, 30), st.sampled_from([0, 1]), st.integers(0, 2**32 - 1))
def test_convolution_is_the_sum_over_a_reflected_margin(rows, columns, radius, axis, seed):
    rng = np.random.default_rng(seed)
    image, taps = rng.random((rows, columns), np.float32), rng.random(radius + 1, np.float32)
    margin = [(0, 0), (0, 0)]
    margin[axis] = (radius, radius)
    padded = np.pad(image, margin, mode="symmetric")
    length = image.shape[axis]

    def window(start):
        return padded[start : start + length] if axis == 0 else padded[:, start : start + length]

    expected = taps[0] * window(radius)
    for k in range(1, radius + 1):
        expected = expected + taps[k] * (window(radius - k) + window(radius + k))
    np.testing.assert_array_equal(convolve(image, taps, axis), expected)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 2**32 - 1))
def test_sampling_weighs_four_neighbours_and_zeros_outside(rows, columns, seed):
    rng = np.random.default_rng(seed)
    image = rng.random((rows, columns), np.float32)
    places = [rng.uniform(-3, side + 2, (5, 4)) for side in (rows, columns)]
    padded = np.pad(image.astype(np.float64), 2)
    found = sample(image, *places)
    for at in np.ndindex(5, 4):
        y, x = (np.clip(p[at], -1.0, side) + 2.0 for p, side in zip(places, (rows, columns), strict=True))
        top, left = min(int(y), rows + 2), min(int(x), columns + 2)
        fy, fx = y - top, x - left
        four = padded[top : top + 2, left : left + 2]
        expected = [1 - fy, fy] @ four @ [1 - fx, fx]
        assert found[at] == pytest.approx(expected, abs=1e-6)
