"""Similarity of images: this core, and scikit-image where it is installed, by turns in the same run.

python -m pytest benchmarks/bench_similarity.py

One thread of each unless the name says otherwise. Ratios are of processor time, which other work on the machine
disturbs less than the clock.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import numpy as np
import pytest

from deepssim.image_ops import fsim, ncc, similarity_matrix, ssim
from deepssim.search import supported_isa_levels

SIZES = [(136, 112), (256, 256)]
# Images of each side of a matrix, and turns that two peers take.
N_IMAGES = 160
N_TURNS = 5
# The published use: every training image with every synthetic one; a thousandth of it is timed.
N_REAL, N_SYNTHETIC, N_TIMED = 2195, 65850, 66


def make_images(n: int, height: int, width: int, seed: int) -> np.ndarray:
    """Make ``(n, height, width)`` uint8 images: smooth shapes with noise on a black ground."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j].astype(np.float32)
    waves = rng.uniform(1, 6, (n, 2, 1, 1)).astype(np.float32)
    phase = rng.uniform(0, 6, (n, 1, 1)).astype(np.float32)
    grey = 110 + 60 * np.sin(waves[:, 0] * x + waves[:, 1] * y + phase)
    grey += 8 * rng.standard_normal(grey.shape, dtype=np.float32)
    return (np.clip(grey, 1, 255) * (x**2 + y**2 < 0.8)).astype(np.uint8)


def processor_time(work: Callable[[], object], repeats: int) -> float:
    start = time.process_time()
    for _ in range(repeats):
        work()
    return (time.process_time() - start) / repeats


def ratio_by_turns(peer: Callable[[], object], ours: Callable[[], object], n_pairs: int) -> dict[str, float]:
    """Time a pair of each by turns, in microseconds of processor time, and the median of the turns' ratios."""
    turns = [(processor_time(peer, 20), processor_time(ours, 1) / n_pairs) for _ in range(N_TURNS)]
    return {
        "peer_us": statistics.median(a for a, _ in turns) * 1e6,
        "ours_us": statistics.median(b for _, b in turns) * 1e6,
        "ratio": statistics.median(a / b for a, b in turns),
    }


@pytest.mark.parametrize("window", ["uniform", "gaussian"])
@pytest.mark.parametrize(("height", "width"), SIZES)
def test_ssim_matrix_against_scikit_image(benchmark, part, height, width, window):
    peer = pytest.importorskip("skimage.metrics").structural_similarity
    is_uniform = window == "uniform"
    settings = {} if is_uniform else {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    n = int(N_IMAGES * part) if is_uniform else 16
    real, synthetic = make_images(n, height, width, 0), make_images(n, height, width, 1)
    out = np.empty((n, n))
    a, b = real[0].astype(np.float64), synthetic[0].astype(np.float64)

    def ours() -> np.ndarray:
        return similarity_matrix("ssim", real, synthetic, out=out, data_range=255, window=window, threads=1)

    benchmark.pedantic(ours, rounds=3, iterations=1)
    for i in range(0, n, 7):
        expected = peer(real[i].astype(np.float64), synthetic[-i].astype(np.float64), data_range=255, **settings)
        assert out[i, -i] == pytest.approx(expected, abs=1e-7)
    if benchmark.enabled:
        benchmark.extra_info |= ratio_by_turns(lambda: peer(a, b, data_range=255, **settings), ours, out.size)


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_one_pair_against_scikit_image(benchmark, height, width):
    peer = pytest.importorskip("skimage.metrics").structural_similarity
    first, second = make_images(2, height, width, 0)
    a, b = first.astype(np.float64), second.astype(np.float64)
    found = benchmark(ssim, first, second, data_range=255)
    assert found == pytest.approx(peer(a, b, data_range=255), abs=1e-7)
    if benchmark.enabled:
        ours = lambda: [ssim(first, second, data_range=255) for _ in range(50)]  # noqa: E731
        benchmark.extra_info |= ratio_by_turns(lambda: peer(a, b, data_range=255), ours, 50)


@pytest.mark.parametrize("level", supported_isa_levels())
@pytest.mark.parametrize(("height", "width"), SIZES)
@pytest.mark.parametrize("kind", ["ssim", "contrast_structure", "fsim", "ncc"])
def test_matrix(benchmark, part, kind, height, width, level):
    n = N_IMAGES // 10 if level == "portable" else N_IMAGES // 2
    n = max(int(n * part), 8)
    real, synthetic = make_images(n, height, width, 0), make_images(n, height, width, 1)
    out = np.empty((n, n))
    benchmark.pedantic(
        lambda: similarity_matrix(kind, real, synthetic, out=out, with_z_score=True, threads=1, isa=level),
        rounds=3,
        iterations=1,
    )
    alone = {
        "ssim": lambda a, b: ssim(a, b, data_range=None, with_z_score=True),
        "contrast_structure": lambda a, b: ssim(a, b, data_range=None, with_z_score=True, has_luminance=False),
        "fsim": fsim,
        "ncc": ncc,
    }[kind]
    for i in range(0, n, 5):
        assert out[i, i] == alone(real[i], synthetic[i])  # every bit
    if benchmark.stats:
        benchmark.extra_info["us_per_pair"] = benchmark.stats["min"] / out.size * 1e6


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(("height", "width"), SIZES)
def test_published_matrix(benchmark, part, height, width, threads):
    """A thousandth of 2,195 x 65,850 pairs as published work compares them, and what the whole would take."""
    # At least as many as are compared below.
    n_real = max(int(N_REAL * part), 7 * N_TIMED)
    real, synthetic = make_images(n_real, height, width, 0), make_images(N_TIMED, height, width, 1)
    out = np.empty((n_real, N_TIMED), np.float32)
    benchmark.pedantic(
        lambda: similarity_matrix("ssim", real, synthetic, out=out, with_z_score=True, threads=threads),
        rounds=2,
        iterations=1,
    )
    for i in range(0, N_TIMED, 11):
        assert out[7 * i, i] == np.float32(ssim(real[7 * i], synthetic[i], data_range=None, with_z_score=True))
    if benchmark.stats:
        benchmark.extra_info["pairs_per_second"] = out.size / benchmark.stats["min"]
        benchmark.extra_info["projected_hours"] = benchmark.stats["min"] * N_SYNTHETIC / N_TIMED / 3600
