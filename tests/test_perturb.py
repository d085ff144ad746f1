"""What must hold for copies of an image: their class, their ranges, their determinism."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from deepssim import perturb
from deepssim.errors import UsageError
from deepssim.phantom import make_patient, render

Image = NDArray[np.float32]
Change = Callable[[Image, np.random.Generator], Image]

CHANGES: list[Change] = [perturb.degrade, perturb.deform, perturb.lesion, perturb.near_copy]
SIZES = [(136, 112), (64, 64), (256, 200), (9, 40)]


@pytest.fixture(scope="module")
def head() -> Image:
    return render(make_patient(3), noise_seed=3)


def blob(size: tuple[int, int], row: float, column: float, sigma: float) -> Image:
    """Draw one Gaussian spot of height 1."""
    rows, columns = np.mgrid[: size[0], : size[1]]
    spot = np.exp(-((rows - row) ** 2 + (columns - column) ** 2) / (2 * sigma**2))
    return spot.astype(np.float32)


def centre_of_mass(image: Image) -> tuple[float, float]:
    weights = image.astype(np.float64)
    rows, columns = np.mgrid[: image.shape[0], : image.shape[1]]
    return float((rows * weights).sum() / weights.sum()), float((columns * weights).sum() / weights.sum())


def correlation(a: Image, b: Image) -> float:
    return float(np.corrcoef(a.ravel().astype(np.float64), b.ravel().astype(np.float64))[0, 1])


def blur_oracle(image: Image, sigma: float) -> NDArray[np.float64]:
    """Blur pixel by pixel in float64, walking a reflected index."""
    radius = int(4 * sigma + 0.5)
    taps = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    taps /= taps.sum()

    def along_rows(array: NDArray[np.float64]) -> NDArray[np.float64]:
        n = len(array)
        out = np.zeros_like(array)
        for i in range(n):
            for k in range(-radius, radius + 1):
                j = (i + k) % (2 * n)
                out[i] += taps[k + radius] * array[j if j < n else 2 * n - 1 - j]
        return out

    return along_rows(along_rows(image.astype(np.float64)).T).T


@given(
    height=st.integers(1, 20),
    width=st.integers(1, 20),
    sigma=st.floats(0.05, 6.0),
    seed=st.integers(0, 2**32 - 1),
)
@settings(max_examples=40, deadline=None)
def test_blur_agrees_with_a_direct_sum_over_a_reflected_image(height: int, width: int, sigma: float, seed: int) -> None:
    image = np.random.default_rng(seed).random((height, width), dtype=np.float32)
    expected = blur_oracle(image, sigma) if int(4 * sigma + 0.5) else image
    np.testing.assert_allclose(perturb.gaussian_blur(image, sigma), expected, atol=2e-6)


def test_blur_of_sigma_zero_is_an_independent_copy() -> None:
    image = np.ones((3, 4), dtype=np.float32)
    out = perturb.gaussian_blur(image, 0.0)
    out[0, 0] = 5.0
    assert image[0, 0] == 1.0


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("size", SIZES)
def test_same_seed_same_bits_and_the_source_is_untouched(change: Change, size: tuple[int, int]) -> None:
    image = np.random.default_rng(1).random(size, dtype=np.float32)
    before = image.copy()
    image.flags.writeable = False
    first = change(image, np.random.default_rng(9))
    again = change(image, np.random.default_rng(9))
    other = change(image, np.random.default_rng(10))
    assert first.dtype == np.float32
    assert first.shape == size
    assert first.min() >= 0.0
    assert first.max() <= 1.0
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    np.testing.assert_array_equal(image, before)


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("size", [(1, 1), (1, 5), (7, 2), (30, 30)])
@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
def test_flat_and_tiny_images_stay_finite(change: Change, size: tuple[int, int], value: float) -> None:
    out = change(np.full(size, value, dtype=np.float32), np.random.default_rng(0))
    assert out.shape == size
    assert np.isfinite(out).all()


def test_degrade_of_strength_zero_changes_nothing(head: Image) -> None:
    np.testing.assert_allclose(perturb.degrade(head, np.random.default_rng(0), strength=0.0), head, atol=1e-7)


def test_degrade_leaves_structures_in_place() -> None:
    spot = blob((136, 112), 60.3, 51.7, 6.0)
    for seed in range(20):
        out = perturb.degrade(spot, np.random.default_rng(seed))
        out = np.where(out > 0.3, out, 0.0).astype(np.float32)
        assert math.dist(centre_of_mass(out), (60.3, 51.7)) < 0.5


def test_degrade_stays_in_its_ranges() -> None:
    """On a flat image, which has no range and so no noise, bias and gamma stay within their bounds."""
    flat = np.full((136, 112), 0.5, dtype=np.float32)
    for seed in range(30):
        out = perturb.degrade(flat, np.random.default_rng(seed)).astype(np.float64)
        # Gamma moves the level; in the logarithm the bias is its spread times gamma.
        spread = np.log(out.max()) - np.log(out.min())
        assert 1.25 * (math.log(1.12) - math.log(0.88)) >= spread > 0.8 * math.log(1.12) * 0.9
        assert 0.5**1.25 * 0.85 < out.mean() < 0.5**0.8 * 1.15


def test_degrade_noise_is_a_part_of_the_range() -> None:
    """Two draws of noise over the same ramp differ by what .005 to .03 of its range allows."""
    ramp = np.tile(np.linspace(0.4, 0.6, 200, dtype=np.float32), (200, 1))
    for seed in range(20):
        out = perturb.degrade(ramp, np.random.default_rng(seed)).astype(np.float64)
        # Second differences along the columns remove level, ramp and bias, and have 6 times the variance.
        noise = np.diff(out, n=2, axis=0).std() / math.sqrt(6.0)
        assert 0.2 * 0.005 * 0.95 < noise < 0.2 * 0.03 * 1.05


def test_lengths_scale_with_the_image() -> None:
    """A given amplitude is the same part of a small and of a large image."""
    for factor in (1, 3):
        size = (120 * factor, 112 * factor)
        rows = np.tile(np.linspace(0.2, 1.0, size[0])[:, None], (1, size[1])).astype(np.float32)
        step = 0.8 / (size[0] - 1)
        moves = []
        for seed in range(12):
            rng = np.random.default_rng(seed)
            out = perturb.deform(rows, rng, amplitude_px=(4.0, 4.0), n_bumps=(1, 1))
            moves.append(float(np.abs(out - rows).max()) / step / factor)
        assert 3.2 < max(moves) < 4.1


def test_deform_moves_a_structure_by_the_amplitude_and_nothing_far_away() -> None:
    image = np.maximum(blob((136, 112), 68, 20, 5.0), 0.05 * blob((136, 112), 68, 95, 5.0))
    for seed in range(20):
        rng = np.random.default_rng(seed)
        out = perturb.deform(image, rng, amplitude_px=(4.0, 4.0), n_bumps=(1, 1))
        # The weak spot is background: the bump is centred on the strong one, 75 px away.
        np.testing.assert_allclose(out[:, 85:], image[:, 85:], atol=2e-3)
        assert 0.5 < math.dist(centre_of_mass(out), centre_of_mass(image)) < 5.0


def test_deform_does_not_fold() -> None:
    """Displaced rows keep their order, even under three of the strongest bumps."""
    size = (136, 112)
    ramp = np.tile(np.linspace(0.0, 1.0, size[0])[:, None], (1, size[1])).astype(np.float32)
    for seed in range(40):
        rng = np.random.default_rng(seed)
        out = perturb.deform(ramp, rng, amplitude_px=(5.0, 5.0), n_bumps=(3, 3))
        assert np.diff(out.astype(np.float64), axis=0).min() >= 0.0


def test_near_copies_deviate_more_than_exact_copies(head: Image) -> None:
    exact = [correlation(head, perturb.degrade(head, np.random.default_rng(s))) for s in range(25)]
    near = [correlation(head, perturb.near_copy(head, np.random.default_rng(s))) for s in range(25)]
    assert np.median(near) < np.quantile(exact, 0.05)


def test_near_copies_have_a_lesion_as_often_as_asked(head: Image) -> None:
    """With nothing else switched on, a lesion is the only change left."""

    def count(probability: float) -> int:
        return sum(
            not np.array_equal(
                perturb.near_copy(
                    head,
                    np.random.default_rng(seed),
                    amplitude_px=(0.0, 0.0),
                    lesion_probability=probability,
                    strength=0.0,
                ),
                head,
            )
            for seed in range(200)
        )

    assert count(0.0) == 0
    assert count(1.0) == 200
    assert 55 <= count(0.4) <= 105


def test_lesion_is_local_and_of_the_stated_size() -> None:
    image = np.full((136, 112), 0.5, dtype=np.float32)
    image[:3] = 0.0
    image[-3:] = 1.0
    for seed in range(40):
        change = np.abs(perturb.lesion(image, np.random.default_rng(seed)) - image)
        assert 0.25 < change.max() <= 0.5 + 1e-6
        # A Gaussian of 5 % of 112 px is below 1 % of its peak beyond 3.04 sigma.
        assert (change > 0.005).sum() < math.pi * (3.1 * 0.05 * 112) ** 2


def test_lesion_is_on_the_foreground() -> None:
    image = np.zeros((112, 112), dtype=np.float32)
    image[40:72, 40:72] = 0.6
    for seed in range(40):
        change = np.abs(perturb.lesion(image, np.random.default_rng(seed)) - image)
        assert change[40:72, 40:72].max() > 0.15


def test_views_are_drawn_from_the_frozen_ranges() -> None:
    rng = np.random.default_rng(4)
    assert perturb.draw_view(rng, "aligned") == perturb.View()
    n = 2000
    perturbed = [perturb.draw_view(rng, "perturbed") for _ in range(n)]
    hard = [perturb.draw_view(rng, "hard", size=(256, 128)) for _ in range(n)]
    for flag in ("flip_rows", "flip_columns"):
        assert 0.77 < sum(getattr(v, flag) for v in perturbed) / n < 0.83
        assert 0.46 < sum(getattr(v, flag) for v in hard) / n < 0.54
    assert all(v.shift_px == (0.0, 0.0) and v.zoom == 1.0 for v in perturbed)
    assert 0.17 < sum(v.angle_deg == 0.0 for v in perturbed) / n < 0.23
    assert 0.17 < sum(v.gamma == 1.0 for v in perturbed) / n < 0.23

    def spans(values: list[float], low: float, high: float) -> bool:
        slack = 0.02 * (high - low)
        return low <= min(values) < low + slack and high - slack < max(values) <= high

    ten_degrees = math.degrees(0.1745)
    assert spans([v.angle_deg for v in perturbed], -ten_degrees, ten_degrees)
    assert spans([v.gamma for v in perturbed], 0.5, 1.5)
    assert spans([v.angle_deg for v in hard], -30.0, 30.0)
    assert spans([v.zoom for v in hard], 0.9, 1.1)
    assert spans([v.gamma for v in hard], 0.5, 1.5)
    # 10 % of 256 x 128 pixels is 25.6 x 12.8, which at a shorter side of 112 is 22.4 x 11.2.
    assert spans([v.shift_px[0] for v in hard], -22.4, 22.4)
    assert spans([v.shift_px[1] for v in hard], -11.2, 11.2)


@pytest.mark.parametrize("rows", [False, True])
@pytest.mark.parametrize("columns", [False, True])
def test_flips_are_exact(rows: bool, columns: bool) -> None:
    image = np.random.default_rng(0).random((13, 8), dtype=np.float32)
    expected = image[:: -1 if rows else 1, :: -1 if columns else 1]
    out = perturb.apply_view(image, perturb.View(flip_rows=rows, flip_columns=columns))
    np.testing.assert_array_equal(out, expected)


def test_a_quarter_turn_is_counter_clockwise_as_seen() -> None:
    image = np.random.default_rng(0).random((9, 9), dtype=np.float32)
    np.testing.assert_allclose(perturb.apply_view(image, perturb.View(angle_deg=90.0)), np.rot90(image), atol=1e-6)


def test_shift_is_down_and_right_in_scaled_pixels_and_brings_in_zeros() -> None:
    image = np.random.default_rng(0).random((224, 224), dtype=np.float32)
    out = perturb.apply_view(image, perturb.View(shift_px=(1.0, -2.0)))
    np.testing.assert_allclose(out[2:, :-4], image[:-2, 4:], atol=1e-6)
    assert not out[:2].any()
    assert not out[:, -4:].any()


def test_zoom_magnifies_and_gamma_is_the_exponent() -> None:
    spot = blob((101, 101), 50, 60, 4.0)
    out = perturb.apply_view(spot, perturb.View(zoom=1.1))
    assert centre_of_mass(out) == pytest.approx((50.0, 61.0), abs=0.05)
    np.testing.assert_allclose(perturb.apply_view(spot, perturb.View(gamma=0.5)), np.sqrt(spot), rtol=1e-5)


def test_a_view_is_flips_then_turn_then_shift() -> None:
    spot = blob((101, 101), 30, 70, 3.0)
    view = perturb.View(True, False, 90.0, (5.0 * 112 / 101, 0.0))
    # (-20, 20) from the centre; flipped (20, 20); turned counter-clockwise (-20, 20); shifted (-15, 20).
    assert centre_of_mass(perturb.apply_view(spot, view)) == pytest.approx((35.0, 70.0), abs=0.05)


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (np.zeros((2, 3, 4), np.float32), "shape"),
        (np.zeros((0, 3), np.float32), "shape"),
        (np.zeros((4, 4), np.uint8), "uint8"),
        (np.full((4, 4), 255.0, np.float32), r"\[0, 1\]"),
        (np.full((4, 4), np.nan, np.float32), r"\[0, 1\]"),
        (np.full((4, 4), -0.1, np.float32), r"\[0, 1\]"),
    ],
)
@pytest.mark.parametrize("change", CHANGES)
def test_unusable_images_are_refused_in_words(change: Change, image: Image, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        change(image, np.random.default_rng(0))


def test_unusable_arguments_are_refused_in_words(head: Image) -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(UsageError, match="strength"):
        perturb.degrade(head, rng, strength=-1.0)
    with pytest.raises(UsageError, match="amplitude_px"):
        perturb.deform(head, rng, amplitude_px=(5.0, 2.0))
    with pytest.raises(UsageError, match="n_bumps"):
        perturb.deform(head, rng, n_bumps=(-1, 2))
    with pytest.raises(UsageError, match="lesion_probability"):
        perturb.near_copy(head, rng, lesion_probability=1.5)
    with pytest.raises(UsageError, match="condition"):
        perturb.draw_view(rng, "upside down")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="size"):
        perturb.draw_view(rng, "hard", size=(0, 5))
    with pytest.raises(UsageError, match="zoom"):
        perturb.apply_view(head, perturb.View(zoom=0.0))
    with pytest.raises(UsageError, match="sigma_px"):
        perturb.gaussian_blur(head, -1.0)
