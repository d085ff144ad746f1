"""Statistics of a registered pair against their definitions in float64."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deepssim import _core
from deepssim.image_ops import (
    Transform,
    evidence,
    fsim,
    ncc,
    registered_maps,
    registered_similarity,
    ssim,
    warp,
)
from deepssim.phantom import make_patient, render

PHANTOM = render(make_patient(1), noise_seed=1)
OTHER = render(make_patient(2), noise_seed=2)
LEVELS = _core.supported_isa_levels()
STATISTICS = ("ssim", "contrast_structure", "fsim", "ncc", "overlap")

TRANSFORMS = st.builds(
    Transform,
    is_mirrored=st.booleans(),
    angle_degrees=st.floats(-180, 180),
    shift_rows=st.floats(-25, 25),
    shift_columns=st.floats(-25, 25),
    scale=st.floats(0.8, 1.25),
)


def places(shape, t):
    """Where in the moving image each pixel looks: shift, turn, scale and mirror undone, about the centre."""
    angle = math.radians(t.angle_degrees)
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    back = np.linalg.inv(turn @ np.diag([1.0, -1.0 if t.is_mirrored else 1.0]) * t.scale)
    centre = (np.array(shape) - 1) / 2
    grid = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1) - centre - [t.shift_rows, t.shift_columns]
    return np.moveaxis(grid @ back.T + centre, -1, 0)


def overlap_mask(shape, t):
    """Which pixels b covers; None where one lies so near to b's edge that rounding decides."""
    r, c = places(shape, t)
    apart = np.minimum(np.minimum(r, shape[0] - 1 - r), np.minimum(c, shape[1] - 1 - c))
    return None if (np.abs(apart + 1e-6) < 1e-5).any() and t != Transform() else apart >= -1e-6


def eroded(mask, reach, beyond):
    padded = np.pad(mask, reach, constant_values=beyond)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (2 * reach + 1, 2 * reach + 1))
    return windows.all((2, 3))


def oracle_ssim(a, b, mask):
    """Both images z-scored over the mask; the index at each 7 x 7 window in it."""

    def z(image):
        inside = image[mask]
        return (image - inside.mean()) / inside.std() if np.ptp(inside) else np.zeros(image.shape)

    x, y = (np.where(mask, z(image), 0) for image in (a, b))
    centres = eroded(mask, 3, False)[3:-3, 3:-3]
    windows = [np.lib.stride_tricks.sliding_window_view(image, (7, 7))[centres].reshape(-1, 49) for image in (x, y)]
    (mx, my), (vx, vy) = zip(*((w.mean(1), w.var(1, ddof=1)) for w in windows), strict=True)
    cov = ((windows[0] - mx[:, None]) * (windows[1] - my[:, None])).sum(1) / 48
    spread = np.ptp(x[mask])
    c1, c2 = (0.01 * spread) ** 2, (0.03 * spread) ** 2
    structure = (2 * cov + c2) / (vx + vy + c2)
    return (structure * (2 * mx * my + c1) / (mx**2 + my**2 + c1)).mean(), structure.mean()


def oracle_fsim(a, b, mask):
    inside = eroded(mask, 1, True)

    def maps(image):
        image = image * 255
        edges = np.hypot(*np.gradient(image))
        p = np.pad(image, 1, mode="reflect")
        smooth_rows, smooth_columns = p[:-2] + 2 * p[1:-1] + p[2:], p[:, :-2] + 2 * p[:, 1:-1] + p[:, 2:]
        slopes = np.hypot(smooth_rows[:, 2:] - smooth_rows[:, :-2], smooth_columns[2:] - smooth_columns[:-2])
        most = edges[inside].max()
        return edges[inside] / most if most else edges[inside], slopes[inside]

    (ea, sa), (eb, sb) = maps(a), maps(b)
    like = (2 * ea * eb + 0.85) / (ea**2 + eb**2 + 0.85) * (2 * sa * sb + 160) / (sa**2 + sb**2 + 160)
    weights = np.maximum(ea, eb)
    return (like * weights).sum() / weights.sum() if weights.sum() else 0.0


@settings(max_examples=80, deadline=None)
@given(TRANSFORMS, st.sampled_from([(48, 41), (33, 64), (64, 50)]), st.integers(0, 2**32 - 1))
def test_statistics_are_those_of_the_definition(t, shape, seed):
    mask = overlap_mask(shape, t)
    rng = np.random.default_rng(seed)
    b = rng.random(shape, np.float32)
    a = np.clip(warp(b, t) + 0.2 * rng.random(shape, np.float32), 0, 1)
    found = registered_similarity(a, b, t)
    if mask is None:
        return
    assert found.overlap == pytest.approx(mask.mean() * min(1, t.scale**-2), abs=1e-9)
    if found.overlap < 0.35:
        assert found == type(found)(-1, -1, -1, -1, found.overlap)
        return
    warped = warp(b, t).astype(np.float64)
    fixed = a.astype(np.float64)
    assert found.ncc == pytest.approx(np.corrcoef(fixed[mask], warped[mask])[0, 1], abs=1e-9)
    assert (found.ssim, found.contrast_structure) == pytest.approx(oracle_ssim(fixed, warped, mask), abs=1e-6)
    assert found.fsim == pytest.approx(oracle_fsim(fixed, warped, mask), abs=1e-5)


@pytest.mark.parametrize("images", [(PHANTOM, OTHER), (PHANTOM, PHANTOM), (OTHER, np.sqrt(PHANTOM))])
def test_under_the_identity_they_are_those_of_the_whole_images(images):
    a, b = images
    found = registered_similarity(a, b, Transform())
    kept = {"data_range": None, "with_z_score": True}
    assert found.ssim == pytest.approx(ssim(a, b, **kept), abs=1e-6)
    assert found.contrast_structure == pytest.approx(ssim(a, b, has_luminance=False, **kept), abs=1e-6)
    assert found.fsim == pytest.approx(fsim(a * np.float32(255), b * np.float32(255)), abs=1e-6)
    assert found.ncc == pytest.approx(ncc(a, b), abs=1e-6)
    assert found.overlap == 1


def test_equal_images_reach_one_exactly():
    found = registered_similarity(PHANTOM, PHANTOM, Transform())
    assert (found.ssim, found.contrast_structure, found.fsim, found.ncc) == (1, 1, 1, pytest.approx(1, abs=1e-12))


def test_what_lies_outside_the_overlap_does_not_matter():
    t = Transform(shift_rows=20.0, shift_columns=-7.0)
    a = warp(PHANTOM, t)
    noisy = np.where(np.pad(np.ones((116, 105), bool), ((20, 0), (0, 7))), a, np.random.default_rng(0).random(a.shape))
    assert registered_similarity(noisy.astype(np.float32), PHANTOM, t) == registered_similarity(a, PHANTOM, t)


def test_a_nearly_flat_overlap_beside_bright_pixels_keeps_its_precision():
    rng = np.random.default_rng(3)
    t = Transform(shift_rows=14.0)
    b = (0.5 + 1e-5 * rng.random((48, 41))).astype(np.float32)
    a = warp(b, t)
    a[:14] = rng.integers(0, 2, (14, 41))
    mask = np.arange(48)[:, None] + np.zeros(41, int) >= 14
    expected = oracle_ssim(a.astype(np.float64), warp(b, t).astype(np.float64), mask)
    found = registered_similarity(a, b, t)
    assert (found.ssim, found.contrast_structure) == pytest.approx(expected, abs=1e-6)


@settings(max_examples=15, deadline=None)
@given(TRANSFORMS)
def test_every_level_gives_the_same_bits(t):
    numbers = (t.is_mirrored, t.angle_degrees, t.shift_rows, t.shift_columns, t.scale)
    answers = [_core.registered_similarity(PHANTOM, OTHER, numbers, with_maps=True, isa=level) for level in LEVELS]
    for answer in answers[1:]:
        assert answer[:5] == answers[0][:5]
        for ours, theirs in zip(answer[5:], answers[0][5:], strict=True):
            np.testing.assert_array_equal(ours, theirs)


@settings(max_examples=30, deadline=None)
@given(TRANSFORMS)
def test_maps_have_the_statistics_as_their_means_and_nan_outside(t):
    found, maps = registered_maps(PHANTOM, OTHER, t)
    assert found == registered_similarity(PHANTOM, OTHER, t)
    assert found.overlap == pytest.approx(evidence(PHANTOM, OTHER, t).overlap)
    for name in ("ssim", "contrast_structure"):
        values = getattr(maps, name)
        assert values.shape == PHANTOM.shape
        if found.overlap < 0.35:
            assert np.isnan(values).all()
        else:
            assert np.nanmean(values, dtype=np.float64) == pytest.approx(getattr(found, name), abs=1e-7)
        mask = overlap_mask(PHANTOM.shape, t)
        if mask is not None and found.overlap >= 0.35:
            np.testing.assert_array_equal(~np.isnan(values), eroded(mask, 3, False))


def test_constant_images_have_the_values_that_the_docstring_says():
    flat, other = np.full((20, 20), 0.25, np.float32), np.full((20, 20), 0.75, np.float32)
    textured = np.random.default_rng(0).random((20, 20), np.float32)
    both = registered_similarity(flat, other, Transform())
    assert (both.ssim, both.contrast_structure, both.fsim, both.ncc) == (1, 1, 0, 0)
    first = registered_similarity(flat, textured, Transform())
    assert (first.ssim, first.contrast_structure, first.ncc) == (0, 0, 0)
    second = registered_similarity(textured, flat, Transform())
    expected = oracle_ssim(textured.astype(float), flat.astype(float), np.ones((20, 20), bool))
    assert (second.ssim, second.contrast_structure) == pytest.approx(expected, abs=1e-6)
    _, maps = registered_maps(flat, other, Transform())
    assert np.nanmin(maps.ssim) == 1
    assert np.isnan(maps.ssim[:3]).all()


def test_where_no_window_fits_ssim_is_unknown():
    image = np.random.default_rng(0).random((7, 20), np.float32)
    found = registered_similarity(image, image, Transform(shift_rows=1.0))
    assert (found.ssim, found.contrast_structure) == (-1, -1)
    assert found.fsim >= 0


def test_8_bit_images_are_divided_by_255():
    a, b = ((image * 255).astype(np.uint8) for image in (PHANTOM, OTHER))
    t = Transform(angle_degrees=5.0)
    scaled = [image.astype(np.float32) / np.float32(255) for image in (a, b)]
    assert registered_similarity(a, b, t) == registered_similarity(*scaled, t)


def test_views_are_read_where_they_lie():
    wide = np.random.default_rng(0).random((40, 90), np.float32)
    t = Transform(angle_degrees=-12.0)
    flipped = wide[::-1, 3:50]
    assert registered_similarity(flipped, wide[:, 40:87], t) == registered_similarity(
        flipped.copy(), wide[:, 40:87].copy(), t
    )


@pytest.mark.parametrize(
    ("a", "b", "t", "error", "says"),
    [
        (PHANTOM, PHANTOM[:-1], Transform(), ValueError, "resize"),
        (PHANTOM[:6], PHANTOM[:6], Transform(), ValueError, "7 x 7"),
        (PHANTOM[:0], PHANTOM[:0], Transform(), ValueError, "7 x 7"),
        (PHANTOM[:1, :1], PHANTOM[:1, :1], Transform(), ValueError, "7 x 7"),
        (np.zeros((8, 5000), np.float32), np.zeros((8, 5000), np.float32), Transform(), ValueError, "4,096"),
        (PHANTOM * 2, PHANTOM, Transform(), ValueError, "unit_grey"),
        (PHANTOM, PHANTOM - np.float32(0.5), Transform(), ValueError, "second"),
        (np.where(PHANTOM > 0.2, np.nan, PHANTOM).astype(np.float32), PHANTOM, Transform(), ValueError, "NaN"),
        (PHANTOM.astype(np.float64), PHANTOM, Transform(), TypeError, "float32"),
        (PHANTOM[0], PHANTOM[0], Transform(), ValueError, "two-dimensional"),
        (PHANTOM, PHANTOM, Transform(angle_degrees=math.nan), ValueError, "finite"),
        (PHANTOM, PHANTOM, Transform(scale=0.0), ValueError, "scale"),
    ],
)
def test_bad_input_is_refused_in_words(a, b, t, error, says):
    with pytest.raises(error, match=says):
        registered_similarity(a, b, t)
