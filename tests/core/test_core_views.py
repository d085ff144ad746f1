"""Views of a small image: what each shows, against plain NumPy."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deepssim.image_ops import BANK, FLIPS, ViewGrid, make_views


def picture(rows, columns, seed=0):
    return np.random.default_rng(seed).normal(size=(rows, columns)).astype(np.float32)


def slow_view(image, view, least_overlap, aspect=1.0):
    """One view, pixel by pixel in float64."""
    image = image.astype(np.float64)
    height, width = image.shape
    out, inside = np.zeros(image.shape), np.zeros(image.shape, bool)
    angle = math.radians(view.angle_degrees)
    for r in range(height):
        for c in range(width):
            y, x = r - view.shift_rows - (height - 1) / 2, c - view.shift_columns - (width - 1) / 2
            across = (math.cos(angle) * x - math.sin(angle) * y * aspect) / view.zoom
            row = (math.cos(angle) * y + math.sin(angle) * x / aspect) / view.zoom + (height - 1) / 2
            column = (-across if view.is_mirrored else across) + (width - 1) / 2
            if not (-1e-9 <= row <= height - 1 + 1e-9 and -1e-9 <= column <= width - 1 + 1e-9):
                continue
            row, column = min(max(row, 0), height - 1), min(max(column, 0), width - 1)
            r0, c0 = int(row), int(column)
            r1, c1 = min(r0 + 1, height - 1), min(c0 + 1, width - 1)
            top = image[r0, c0] * (1 - column + c0) + image[r0, c1] * (column - c0)
            bottom = image[r1, c0] * (1 - column + c0) + image[r1, c1] * (column - c0)
            out[r, c] = top * (1 - row + r0) + bottom * (row - r0)
            inside[r, c] = True
    if inside.sum() < max(2, least_overlap * inside.size):
        return np.zeros(image.shape)
    centred = np.where(inside, out - out[inside].mean(), 0.0)
    norm = np.linalg.norm(centred)
    return centred / norm if norm > 1e-5 * np.linalg.norm(out) else np.zeros(image.shape)


@given(
    rows=st.integers(2, 9),
    columns=st.integers(2, 9),
    n_angles=st.sampled_from([1, 2, 4, 5, 45]),
    zooms=st.lists(st.sampled_from([0.5, 0.93, 1.0, 1.07, 2.0]), min_size=1, max_size=2),
    shift=st.integers(0, 2),
    with_mirror=st.booleans(),
    least_overlap=st.sampled_from([0.0, 0.35, 0.9]),
    aspect=st.sampled_from([1.0, 0.6, 1.0625, 3.0]),
    seed=st.integers(0, 5),
    data=st.data(),
)
@settings(deadline=None, max_examples=150)
def test_a_view_shows_what_its_name_says(
    rows, columns, n_angles, zooms, shift, with_mirror, least_overlap, aspect, seed, data
):
    grid = ViewGrid(n_angles, tuple(zooms), shift, with_mirror, least_overlap)
    image = picture(rows, columns, seed)
    made = make_views(image, grid, aspect=aspect)
    assert made.shape == (len(grid), rows * columns)
    index = data.draw(st.integers(0, len(grid) - 1))
    expected = slow_view(image, grid.view(index), least_overlap, aspect)
    np.testing.assert_allclose(made[index].reshape(rows, columns), expected, atol=2e-5)


def test_views_have_unit_norm_and_no_mean():
    made = make_views(picture(34, 28), BANK)
    norms = np.linalg.norm(made.astype(np.float64), axis=1)
    assert ((np.abs(norms - 1) < 1e-5) | (norms == 0)).all()
    assert np.abs(made.sum(axis=1)).max() < 1e-4


def test_flips_are_the_flips_of_numpy():
    image = picture(7, 4)
    centred = image - image.mean()
    centred /= np.linalg.norm(centred)
    expected = [centred, centred[::-1, ::-1], centred[:, ::-1], centred[::-1]]
    for made, wanted in zip(make_views(image, FLIPS), expected, strict=True):
        np.testing.assert_allclose(made.reshape(7, 4), wanted, atol=1e-6)


def test_the_bank_holds_the_flips_and_what_lies_in_place():
    image = picture(8, 7)
    bank = make_views(image, BANK)
    for flip in make_views(image, FLIPS):
        assert (bank @ flip).max() > 1 - 1e-5


def test_a_quarter_turn_is_counter_clockwise_and_a_shift_goes_down_and_right():
    image = picture(6, 6)
    grid = ViewGrid(n_angles=4, shift=1, with_mirror=False)
    views = [grid.view(i) for i in range(len(grid))]
    made = make_views(image, grid).reshape(-1, 6, 6)
    turned = views.index(dataclasses.replace(grid.view(4), angle_degrees=90.0))
    np.testing.assert_allclose(np.corrcoef(made[turned].ravel(), np.rot90(image).ravel())[0, 1], 1.0, atol=1e-6)
    moved = views.index(dataclasses.replace(grid.view(4), shift_rows=1, shift_columns=1))
    assert not made[moved, 0].any()
    assert not made[moved, :, 0].any()
    np.testing.assert_allclose(np.corrcoef(made[moved, 1:, 1:].ravel(), image[:-1, :-1].ravel())[0, 1], 1.0, atol=1e-6)


@pytest.mark.parametrize("image", [np.zeros((5, 4)), np.full((5, 4), 7.3), np.full((3, 3), 1e30), np.ones((1, 1))])
def test_what_shows_nothing_is_zero(image):
    assert not make_views(image.astype(np.float32), ViewGrid(n_angles=3, shift=1)).any()


@pytest.mark.parametrize(
    ("image", "grid", "error"),
    [
        (np.zeros((0, 4), np.float32), FLIPS, ValueError),
        (np.array([[1, np.nan]], np.float32), FLIPS, ValueError),
        (np.array([[1, np.inf]], np.float32), FLIPS, ValueError),
        (np.zeros((2, 2)), FLIPS, TypeError),
        (np.zeros(4, np.float32), FLIPS, ValueError),
        (picture(2, 2), ViewGrid(zooms=(0.0,)), ValueError),
        (picture(2, 2), ViewGrid(zooms=(np.nan,)), ValueError),
        (picture(2, 2), ViewGrid(n_angles=2**20, shift=9), ValueError),
    ],
)
def test_what_cannot_be_seen_is_refused(image, grid, error):
    with pytest.raises(error):
        make_views(image, grid)


@pytest.mark.parametrize("aspect", [0.0, -1.0, np.nan, np.inf])
def test_an_aspect_that_cannot_be_is_refused(aspect):
    with pytest.raises(ValueError, match="aspect"):
        make_views(picture(3, 2), FLIPS, aspect=aspect)


def test_a_turn_of_a_squeezed_image_is_the_squeezed_turn():
    # A film of 48 x 32 brought to 16 x 16 has pixels of 3 x 2: a half turn stays one, a quarter turn crops.
    x, y = np.meshgrid(np.linspace(-1, 1, 16), np.linspace(-1.5, 1.5, 16))
    grid = ViewGrid(n_angles=4, with_mirror=False)
    seen = make_views((x + 0.25 * y).astype(np.float32), grid, aspect=1.5)[1].reshape(16, 16)
    shown = seen != 0
    turned = -y + 0.25 * x  # of the picture: what was to the right is now above
    assert 0.5 < shown.mean() < 0.75
    assert np.corrcoef(seen[shown], turned[shown])[0, 1] > 0.999


def test_no_view_is_named_that_is_not_there():
    assert len(ViewGrid(n_angles=0)) == 0
    assert make_views(picture(3, 3), ViewGrid(n_angles=0)).shape == (0, 9)
    for index in (-1, len(FLIPS)):
        with pytest.raises(IndexError):
            FLIPS.view(index)
