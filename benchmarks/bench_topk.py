"""Top-k at several sizes: this core, and what NumPy users would write, in the same run.

python -m pytest benchmarks/bench_topk.py
"""

from __future__ import annotations

import numpy as np
import pytest

from deepssim.search import Searcher, supported_isa_levels

# (base rows, queries, elements, k)
SIZES = [(2195, 8000, 256, 10), (10000, 4000, 64, 10), (50000, 2000, 256, 1), (50000, 2000, 256, 100)]


def with_numpy(base: np.ndarray, queries: np.ndarray, k: int) -> np.ndarray:
    """Return ids by a float32 matrix product: fast, not exact, and the whole matrix in memory."""
    scores = queries @ base.T
    found = np.argpartition(-scores, k - 1, axis=1)[:, :k]
    order = np.argsort(-np.take_along_axis(scores, found, 1), axis=1, kind="stable")
    return np.take_along_axis(found, order, 1)


def agreement(a: np.ndarray, b: np.ndarray) -> float:
    return float((a == b).mean())


@pytest.mark.parametrize("level", supported_isa_levels())
@pytest.mark.parametrize(("n_base", "n_queries", "dim", "k"), SIZES)
def test_topk(benchmark, make_rows, part, n_base, n_queries, dim, k, level):
    n_base, n_queries = max(int(n_base * part), 2 * k), int(n_queries * part)
    if level == "portable":
        n_queries //= 10
    base, queries = make_rows(n_base, dim, 0), make_rows(n_queries, dim, 1)
    searcher = Searcher.of(base, isa=level)
    result = benchmark(searcher.search, queries, k)
    assert agreement(result.ids[:200], with_numpy(base, queries[:200], k)) > 0.99
    assert (np.diff(result.scores, axis=1) <= 0).all()
    benchmark.extra_info["pairs"] = result.statistics.n_pairs
    benchmark.extra_info["rescored_share"] = result.statistics.n_rescored / result.statistics.n_pairs
    if benchmark.stats:
        benchmark.extra_info["pairs_per_second"] = result.statistics.n_pairs / benchmark.stats["median"]


@pytest.mark.parametrize(("n_base", "n_queries", "dim", "k"), SIZES)
def test_topk_numpy(benchmark, make_rows, part, n_base, n_queries, dim, k):
    n_base, n_queries = max(int(n_base * part), 2 * k), int(n_queries * part)
    base, queries = make_rows(n_base, dim, 0), make_rows(n_queries, dim, 1)
    ids = benchmark(with_numpy, base, queries, k)
    assert ids.shape == (n_queries, k)


def test_packing(benchmark, make_rows, part):
    base = make_rows(int(50000 * part), 256, 0)
    assert len(benchmark(Searcher.of, base)) == len(base)
