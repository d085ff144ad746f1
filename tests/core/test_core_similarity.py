from __future__ import annotations

import csv

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from deepssim.image_ops import fsim, ncc, similarity_matrix, similarity_pairs, ssim, ssim_map
from deepssim.search import CancelToken, supported_isa_levels

KINDS = ["ssim", "contrast_structure", "fsim", "ncc"]
RNG = np.random.default_rng(0)


def window_means(image, weights):
    rows = np.apply_along_axis(np.convolve, 0, image, weights, "valid")
    return np.apply_along_axis(np.convolve, 1, rows, weights, "valid")


def ssim_oracle(a, b, data_range, window="uniform", has_luminance=True):
    """Wang 2004, windows inside the image; covariances about the image's mean, which changes only rounding."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    if window == "uniform":
        weights, norm = np.full(7, 1 / 7), 49 / 48
    else:
        weights, norm = np.exp(-0.5 * (np.arange(-5, 6) / 1.5) ** 2), 1.0
        weights /= weights.sum()
    x, y = a - a.mean(), b - b.mean()
    mx, my = window_means(x, weights), window_means(y, weights)
    vx, vy, cov = (
        norm * (window_means(p * q, weights) - m * n) for p, q, m, n in [(x, x, mx, mx), (y, y, my, my), (x, y, mx, my)]
    )
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    value = (2 * cov + c2) / (vx + vy + c2)
    ux, uy = mx + a.mean(), my + b.mean()
    return value * (2 * ux * uy + c1) / (ux**2 + uy**2 + c1) if has_luminance else value


def z_score(image):
    image = image.astype(np.float64)
    return np.zeros_like(image) if np.ptp(image) == 0 else (image - image.mean()) / image.std()


def fsim_oracle(a, b):
    def maps(image):
        image = image.astype(np.float64)
        dy, dx = np.gradient(image)
        edges = np.hypot(dx, dy)
        p = np.pad(image, 1, mode="reflect")
        smooth_x = p[:, :-2] + 2 * p[:, 1:-1] + p[:, 2:]
        smooth_y = p[:-2] + 2 * p[1:-1] + p[2:]
        slopes = np.hypot(smooth_x[2:] - smooth_x[:-2], smooth_y[:, 2:] - smooth_y[:, :-2])
        return edges / (edges.max() or 1.0), slopes

    (p, g), (q, h) = maps(a), maps(b)
    both = (2 * p * q + 0.85) / (p**2 + q**2 + 0.85) * (2 * g * h + 160) / (g**2 + h**2 + 160)
    weight = np.maximum(p, q)
    return (both * weight).sum() / (weight.sum() or 1.0)


def images(n, height, width, dtype=np.uint8, seed=0):
    """Smooth blobs on a flat ground, as medical images are."""
    rng = np.random.default_rng(seed)
    noise = rng.normal(size=(n, height + 8, width + 8)).cumsum(1).cumsum(2)
    noise = noise[:, 8:, 8:] - noise[:, :-8, 8:] - noise[:, 8:, :-8] + noise[:, :-8, :-8]
    grey = np.clip(noise * 6 + rng.normal(size=noise.shape) * 4 + 60, 0, 255)
    return grey.astype(dtype)


SIZES = st.tuples(st.integers(7, 45), st.integers(7, 75))
# What float32 may lose where every window rounds the same way, as on flat images; real ones are within 1e-7 (golden).
WORST = 2e-7


@given(data=st.data(), size=SIZES, data_range=st.sampled_from([255.0, 1.0, 60.0, 3.5]))
@settings(deadline=None, max_examples=60)
def test_bytes_have_the_ssim_of_the_definition(data, size, data_range):
    a, b = (data.draw(hnp.arrays(np.uint8, size)) for _ in range(2))
    assert ssim(a, b, data_range=data_range) == pytest.approx(ssim_oracle(a, b, data_range).mean(), abs=WORST)
    got = ssim(a, b, data_range=data_range, has_luminance=False)
    assert got == pytest.approx(ssim_oracle(a, b, data_range, has_luminance=False).mean(), abs=WORST)
    assert ssim(a, b.astype(np.float32), data_range=data_range) == ssim(a, b, data_range=data_range)


@given(data=st.data(), size=SIZES)
@settings(deadline=None, max_examples=60)
def test_z_scored_bytes_with_the_first_images_range(data, size):
    a, b = (data.draw(hnp.arrays(np.uint8, size)) for _ in range(2))
    x, y = z_score(a), z_score(b)
    if np.ptp(a) == 0:
        with pytest.raises(ValueError, match="constant"):
            ssim(a, b, data_range=None, with_z_score=True)
    else:
        got = ssim(a, b, data_range=None, with_z_score=True)
        assert got == pytest.approx(ssim_oracle(x, y, np.ptp(x)).mean(), abs=WORST)


@given(data=st.data(), size=st.tuples(st.integers(11, 30), st.integers(11, 40)))
@settings(deadline=None, max_examples=60)
def test_any_float32_and_both_windows(data, size):
    numbers = st.floats(-1000, 1000, width=32)
    a, b = (data.draw(hnp.arrays(np.float32, size, elements=numbers)) for _ in range(2))
    for window in ("uniform", "gaussian"):
        expected = ssim_oracle(a, b, 200.0, window)
        np.testing.assert_allclose(ssim_map(a, b, data_range=200.0, window=window), expected, atol=1e-6)
        assert ssim(a, b, data_range=200.0, window=window) == pytest.approx(expected.mean(), abs=1e-6)


@pytest.mark.parametrize("height", [7, 8, 40])
@pytest.mark.parametrize("width", [7, 8, 21, 22, 23, 31, 32, 33, 38, 39, 54, 64, 65, 134])
def test_sizes_round_the_vector_widths(height, width):
    a, b = images(2, height, width)
    assert ssim(a, b, data_range=255) == pytest.approx(ssim_oracle(a, b, 255).mean(), abs=1e-7)
    assert fsim(a, b) == pytest.approx(fsim_oracle(a, b), abs=1e-6)
    assert ncc(a, b) == pytest.approx(np.corrcoef(a.ravel(), b.ravel())[0, 1], abs=1e-7)


def test_scikit_image_gives_the_same():
    metrics = pytest.importorskip("skimage.metrics")
    gaussian = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    for dtype in (np.uint8, np.float32):
        a, b = images(2, 60, 51, dtype)
        x, y = a.astype(np.float64), b.astype(np.float64)
        peer = metrics.structural_similarity
        assert ssim(a, b, data_range=255) == pytest.approx(peer(x, y, data_range=255), abs=1e-7)
        got = ssim(a, b, data_range=255, window="gaussian")
        assert got == pytest.approx(peer(x, y, data_range=255, **gaussian), abs=1e-7)


def test_flat_images_far_from_each_other_are_as_near_to_the_definition_as_float32_goes():
    a, b = np.zeros((7, 7), np.uint8), np.full((7, 7), 17, np.uint8)
    assert ssim(a, b, data_range=1.0) == pytest.approx(ssim_oracle(a, b, 1.0).mean(), abs=WORST)


def test_the_extremes_of_bytes_do_not_overflow():
    board = (np.indices((40, 70)).sum(0) % 2 * 255).astype(np.uint8)
    for a, b in [(board, 255 - board), (board, board), (board * 0, board), (board * 0 + 255, board * 0)]:
        assert ssim(a, b, data_range=255) == pytest.approx(ssim_oracle(a, b, 255).mean(), abs=1e-7)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("window", ["uniform", "gaussian"])
def test_every_level_and_any_threads_give_the_same_bits(kind, dtype, window):
    real, synthetic = images(5, 37, 61, dtype), images(21, 37, 61, dtype, seed=1)
    results = [
        similarity_matrix(kind, real, synthetic, out=np.empty((5, 21)), window=window, threads=threads, isa=isa)
        for isa in supported_isa_levels()
        for threads in (1, 3)
    ]
    for result in results[1:]:
        np.testing.assert_array_equal(result, results[0])


@pytest.mark.parametrize("kind", KINDS)
def test_matrix_pairs_and_single_calls_agree_in_every_bit(kind):
    real = images(4, 20, 33)
    synthetic = images(6, 20, 33, np.float32, seed=2)
    synthetic[::2] = np.floor(synthetic[::2])  # whole numbers beside others
    matrix = similarity_matrix(kind, real, synthetic, out=np.empty((4, 6)), data_range=255)
    pairs = np.array([[i, j] for i in range(4) for j in range(6)])[RNG.permutation(24)]
    found = similarity_pairs(kind, real, synthetic, pairs, data_range=255)
    np.testing.assert_array_equal(found, matrix[tuple(pairs.T)])
    alone = similarity_matrix(kind, real[2:3], synthetic[3:4], out=np.empty((1, 1)), data_range=255)
    assert alone[0, 0] == matrix[2, 3]
    np.testing.assert_array_equal(similarity_matrix(kind, real, synthetic, data_range=255), matrix.astype(np.float32))


def test_results_go_where_the_caller_says():
    real, synthetic = images(4, 12, 12), images(6, 12, 12, seed=1)
    whole = np.full((6, 9), 7.0, np.float32)
    similarity_matrix("ncc", real, synthetic, out=whole[1:5, 2:8])
    np.testing.assert_array_equal(whole[1:5, 2:8], similarity_matrix("ncc", real, synthetic))
    whole[1:5, 2:8] = 7.0
    assert (whole == 7.0).all()


def test_views_are_read_where_they_lie():
    stack = images(6, 40, 50)
    view, copy = stack[::-2, ::-1, 3:40], stack[::-2, ::-1, 3:40].copy()
    for kind in KINDS:
        np.testing.assert_array_equal(similarity_matrix(kind, view, view), similarity_matrix(kind, copy, copy))


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_an_image_is_like_itself(dtype):
    image = images(1, 33, 47, dtype)[0]
    assert ssim(image, image, data_range=None, with_z_score=True) == pytest.approx(1, abs=1e-12)
    assert fsim(image, image) == pytest.approx(1, abs=1e-7)
    assert ncc(image, image) == pytest.approx(1, abs=1e-7)


def test_ssim_is_symmetric_when_the_range_is_given():
    a, b = images(2, 33, 47)
    assert ssim(a, b, data_range=255) == ssim(b, a, data_range=255)


def test_constant_images_have_stated_values():
    flat, image = np.full((12, 14), 0.1, np.float32), images(1, 12, 14, np.float32)[0]
    assert fsim(flat, flat) == 0.0
    assert ncc(flat, image) == ncc(flat, flat) == 0.0
    assert ssim(flat, flat, data_range=1.0) == 1.0
    expected = ssim_oracle(z_score(image), np.zeros(image.shape), np.ptp(z_score(image))).mean()
    assert ssim(image, flat, data_range=None, with_z_score=True) == pytest.approx(expected, abs=1e-7)
    with pytest.raises(ValueError, match="real image 1 is constant, so its range is 0"):
        similarity_matrix("ssim", np.stack([image, flat]), image[None])


GOOD = images(1, 12, 12, np.float32)[0]


@pytest.mark.parametrize(
    ("a", "b", "error", "words"),
    [
        (GOOD, GOOD[:, :11], ValueError, "a is 12 x 12 pixels and b 12 x 11; resize"),
        (GOOD.astype(np.float64), GOOD, TypeError, "uint8 or native float32"),
        (GOOD.astype(">f4"), GOOD, TypeError, "uint8 or native float32"),
        (GOOD[None], GOOD, ValueError, "one grey image"),
        (GOOD, np.where(GOOD > 60, np.nan, GOOD).astype(np.float32), ValueError, "b holds NaN or infinity"),
        (GOOD[:, ::2], GOOD[:, ::2], ValueError, "contiguous rows"),
        (GOOD[:0], GOOD[:0], ValueError, "too small"),
        (GOOD[:6], GOOD[:6], ValueError, "at least 7 x 7"),
    ],
)
def test_images_that_cannot_be_compared_are_refused(a, b, error, words):
    with pytest.raises(error, match=words):
        ssim(a, b, data_range=1)


def test_one_pixel_and_bad_options_are_refused():
    pixel = np.zeros((1, 1), np.uint8)
    assert ncc(pixel, pixel) == 0.0
    with pytest.raises(ValueError, match="at least 2 x 2"):
        fsim(pixel, pixel)
    with pytest.raises(ValueError, match="beyond 1e6"):
        fsim(GOOD * 1e6, GOOD)
    for data_range in (0, -1, np.nan, np.inf, 1e31):
        with pytest.raises(ValueError, match="data_range must be"):
            ssim(GOOD, GOOD, data_range=data_range)
    with pytest.raises(ValueError, match="unknown similarity"):
        similarity_matrix("psnr", GOOD[None], GOOD[None])
    with pytest.raises(ValueError, match="unknown window"):
        ssim(GOOD, GOOD, data_range=1, window="box")
    with pytest.raises(ValueError, match="shape"):
        similarity_matrix("ncc", GOOD[None], GOOD[None], out=np.empty((2, 1)))
    with pytest.raises(ValueError, match=r"pair 1 is \(0, 1\)"):
        similarity_pairs("ncc", GOOD[None], GOOD[None], np.array([[0, 0], [0, 1]]))


def test_no_image_is_no_result():
    stack = GOOD[None]
    assert similarity_matrix("ssim", stack[:0], stack).shape == (0, 1)
    assert similarity_matrix("ssim", stack, stack[:0]).shape == (1, 0)
    assert similarity_pairs("fsim", stack, stack, np.empty((0, 2), np.int64)).shape == (0,)


def test_a_token_ends_the_call():
    token = CancelToken()
    token.cancel()
    with pytest.raises(RuntimeError, match="cancelled"):
        similarity_matrix("ssim", images(4, 20, 20), images(4, 20, 20), data_range=255, cancel=token)


def test_published_scores_of_real_pairs(data_folder):
    pillow = pytest.importorskip("PIL.Image")
    table = data_folder.parent / "golden" / "pairs.csv"
    if not table.is_file():
        pytest.skip("golden/pairs.csv is not beside the images")
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        with pillow.open(data_folder / row["a"]) as first, pillow.open(data_folder / row["b"]) as second:
            a, b = np.asarray(first.convert("L")), np.asarray(second.convert("L"))
        got = ssim(a, b, data_range=None, with_z_score=True)
        assert got == pytest.approx(float(row["ssim"]), abs=1e-7), row
        assert fsim(a, b) == pytest.approx(float(row["fsim"]), abs=1e-6), row
