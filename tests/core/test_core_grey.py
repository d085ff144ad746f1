"""Grey values brought into [0, 1]: against the rule written out again, and what must hold whatever the image."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from deepssim.image_ops import unit_grey


def oracle(image: np.ndarray) -> np.ndarray:
    grey = image.astype(np.float64)
    if ((grey >= 0) & (grey <= 255) & (grey == np.round(grey))).all():
        return grey / 255
    low, high = np.quantile(grey, [0.0005, 0.9995])
    if low == high:
        low, high = grey.min(), grey.max()
    return np.clip((grey - low) / (high - low), 0, 1) if low < high else np.zeros(grey.shape)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.float32, np.float64])
def test_images_of_whole_numbers_to_255_are_divided_by_255(dtype):
    image = np.random.default_rng(0).integers(0, 256, (9, 7)).astype(dtype)
    out = unit_grey(image)
    assert out.dtype == np.float32
    np.testing.assert_array_equal(out, (image.astype(np.float64) / 255).astype(np.float32))


@settings(max_examples=100, deadline=None)
@given(
    hnp.arrays(
        np.float64,
        hnp.array_shapes(min_dims=2, max_dims=2, max_side=40),
        elements=st.one_of(st.integers(-2000, 4000).map(float), st.floats(-1e4, 1e4, width=32)),
    )
)
def test_it_follows_the_rule(image):
    out = unit_grey(image)
    assert out.min() >= 0
    assert out.max() <= 1
    np.testing.assert_allclose(out, oracle(image), atol=1e-5)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 8), st.integers(-4000, 4000))
def test_unit_and_offset_of_a_16_bit_image_do_not_matter(seed, factor, offset):
    image = np.random.default_rng(seed).integers(300, 4096, (24, 24))
    np.testing.assert_allclose(unit_grey(image * factor + offset - 9000), unit_grey(image), atol=1e-6)


def test_a_burnt_in_marker_does_not_darken_the_rest():
    image = np.random.default_rng(1).integers(0, 4096, (64, 64)).astype(np.uint16)
    marked = image.copy()
    marked[0, 0] = 65535
    assert np.abs(unit_grey(marked) - unit_grey(image))[1:].max() < 0.01


def test_a_constant_image_is_zero_unless_it_is_an_8_bit_image():
    np.testing.assert_array_equal(unit_grey(np.full((4, 5), 1234.5)), 0)
    np.testing.assert_array_equal(unit_grey(np.full((4, 5), 51)), np.float32(0.2))


def test_one_bright_pixel_in_many_is_still_seen():
    image = np.full((100, 100), -5.0)
    image[3, 4] = 7.0
    np.testing.assert_array_equal(unit_grey(image), image == 7)


def test_the_largest_floats_do_not_overflow():
    out = unit_grey(np.array([[-1.7e308, 0.0, 1.7e308]]))
    np.testing.assert_allclose(out, [[0, 0.5, 1]], atol=1e-3)


@pytest.mark.parametrize(
    ("image", "error"),
    [
        (np.zeros((0, 3)), ValueError),
        (np.zeros(3), ValueError),
        (np.zeros((1, 2, 3)), ValueError),
        (np.array([[np.nan, 1]]), ValueError),
        (np.array([[np.inf, 1]]), ValueError),
        (np.array([[1j]]), TypeError),
        (np.array([["a"]]), TypeError),
    ],
)
def test_what_is_no_grey_image_is_refused(image, error):
    with pytest.raises(error):
        unit_grey(image)
