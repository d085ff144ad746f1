from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from deepssim.image_ops import resize_area


def weights(n_in, n_out):
    """``(n_out, n_in)``: the share of each input in each output, by the overlap of intervals."""
    edges_in, edges_out = np.arange(n_in + 1) * n_out, np.arange(n_out + 1) * n_in  # in units of 1 / n_out
    low = np.maximum(edges_in[:-1], edges_out[:-1, None])
    high = np.minimum(edges_in[1:], edges_out[1:, None])
    return np.maximum(high - low, 0) / n_in


def by_definition(image, height, width):
    wide = image.astype(np.float64)
    return weights(image.shape[0], height) @ wide @ weights(image.shape[1], width).T


IMAGES = hnp.arrays(
    np.float32, hnp.array_shapes(min_dims=2, max_dims=2, max_side=24), elements=st.floats(-4096, 4096, width=32)
)
SIDES = st.integers(1, 40)


@given(image=IMAGES, height=SIDES, width=SIDES)
@settings(deadline=None, max_examples=150)
def test_pixels_are_means_over_the_area_that_they_cover(image, height, width):
    out = resize_area(image, height, width)
    assert out.shape == (height, width)
    assert out.dtype == np.float32
    # Half an ulp of float32 for the result, and float64 rounding for sums of this magnitude.
    np.testing.assert_allclose(out, by_definition(image, height, width), rtol=2**-24, atol=1e-9)


@given(image=IMAGES, height=SIDES, width=SIDES)
@settings(deadline=None, max_examples=60)
def test_the_mean_is_kept_and_the_range_is_not_left(image, height, width):
    out = resize_area(image, height, width)
    assert out.mean(dtype=np.float64) == pytest.approx(image.mean(dtype=np.float64), rel=1e-5, abs=1e-3)
    assert image.min() <= out.min()
    assert out.max() <= image.max()


@pytest.mark.parametrize("factor", [1, 2, 3, 8])
def test_means_of_blocks_are_exact(factor):
    image = np.random.default_rng(0).integers(0, 65536, (5 * factor, 7 * factor)).astype(np.float32)
    blocks = image.reshape(5, factor, 7, factor).astype(np.float64).sum(axis=(1, 3))
    np.testing.assert_array_equal(resize_area(image, 5, 7), (blocks / factor**2).astype(np.float32))


@pytest.mark.parametrize("factor", [1, 2, 5])
def test_enlarging_by_a_whole_factor_repeats_pixels(factor):
    image = np.random.default_rng(0).uniform(-1, 1, (4, 6)).astype(np.float32)
    repeated = image.repeat(factor, axis=0).repeat(factor, axis=1)
    np.testing.assert_array_equal(resize_area(image, 4 * factor, 6 * factor), repeated)


@given(value=st.floats(allow_nan=False, allow_infinity=False, width=32), height=SIDES, width=SIDES)
@settings(deadline=None, max_examples=60)
def test_constants_keep_every_bit(value, height, width):
    out = resize_area(np.full((17, 23), value, np.float32), height, width)
    np.testing.assert_array_equal(out, np.full((height, width), value, np.float32))


def test_nan_stays_where_it_is():
    image = np.zeros((4, 4), np.float32)
    image[0, 0] = np.nan
    assert np.isnan(resize_area(image, 2, 2)).tolist() == [[True, False], [False, False]]


@pytest.mark.parametrize("view", [lambda a: a[::-1], lambda a: a[::3], lambda a: a[:, 2:9], lambda a: a[2:3]])
def test_any_row_stride_is_taken(view):
    image = np.random.default_rng(0).uniform(-1, 1, (12, 10)).astype(np.float32)
    image.flags.writeable = False
    np.testing.assert_array_equal(resize_area(view(image), 5, 4), resize_area(view(image).copy(), 5, 4))


@pytest.mark.parametrize(
    ("image", "height", "width", "error", "words"),
    [
        (np.zeros((4, 4)), 2, 2, TypeError, "float32"),
        (np.zeros((4, 4), ">f4"), 2, 2, TypeError, "native byte order"),
        (np.zeros((4, 4, 1), np.float32), 2, 2, ValueError, "two-dimensional"),
        (np.zeros((4, 8), np.float32)[:, ::2], 2, 2, ValueError, "contiguous rows"),
        (np.zeros((0, 4), np.float32), 2, 2, ValueError, "cannot resize 0 x 4"),
        (np.zeros((4, 4), np.float32), 0, 2, ValueError, "to 0 x 2"),
        (np.zeros((4, 4), np.float32), 2, 65537, ValueError, "over 65,536"),
    ],
)
def test_images_and_sizes_that_cannot_be_are_refused(image, height, width, error, words):
    with pytest.raises(error, match=words):
        resize_area(image, height, width)
