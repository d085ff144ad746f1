"""Bases that are larger than memory, and reading ahead."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from deepssim.base import Base
from deepssim.errors import MemoryLimitError
from deepssim.matching import Matcher, MatchOptions, Reference
from deepssim.read_ahead import read_ahead
from deepssim.store import Store
from deepssim.store_build import write_store

N_BASE, N_QUERIES, DIM = 700, 90, 24


def unit(n: int, seed: int) -> np.ndarray:
    rows = np.random.default_rng(seed).standard_normal((n, DIM)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    parts = [(unit(n, n), [f"r{n}-{i}" for i in range(n)], [f"g{i % 60}" for i in range(n)]) for n in (300, 400)]
    return write_store(tmp_path_factory.mktemp("base") / "store", parts, metric="test")


def equal(a: object, b: object) -> bool:
    names = ("scores", "ids", "counts", "listed_scores", "listed_ids")
    if not all(np.array_equal(getattr(a, n), getattr(b, n)) for n in names):
        return False
    x, y = a.tallied, b.tallied
    order = np.argsort(x.rows), np.argsort(y.rows)
    return all(
        np.array_equal(getattr(x, n)[order[0]], getattr(y, n)[order[1]])
        for n in ("rows", "counts", "scores", "queries")
    )


@pytest.mark.parametrize("cap", [0, 1])
@pytest.mark.parametrize("chosen", ["all", "some"])
@pytest.mark.parametrize("block_rows", [1, 7, 350, 699, 700])
def test_a_base_read_in_blocks_answers_as_the_whole(store, block_rows, chosen, cap):
    rows = np.arange(N_BASE) if chosen == "all" else np.flatnonzero(np.arange(N_BASE) % 3 == 1)
    if block_rows == 1:
        rows = rows[:40]
    codes = rows % 60
    whole = Base(store, rows, codes, expected_queries=N_QUERIES)
    blocks = Base(store, rows, codes, block_rows=block_rows)
    assert blocks.n_blocks == -(-len(rows) // block_rows)
    for chunk in range(3):  # the order of blocks turns round from chunk to chunk
        options = {
            "max_per_group": cap,
            "thresholds": (0.3, 0.5),
            "max_listed": 6,
            "first_query": 90 * chunk,
            "threads": 2,
        }
        queries = unit(N_QUERIES, 50 + chunk)
        a, b = whole.search(queries, 9, **options), blocks.search(queries, 9, **options)
        assert equal(a, b)
        assert b.statistics.n_pairs == N_QUERIES * len(rows)


def test_an_empty_base_has_an_answer(store):
    found = Base(store, np.zeros(0, np.int64), np.zeros(0, np.int64)).search(unit(3, 1), 2, thresholds=(0.5,))
    assert (found.ids == -1).all()
    assert len(found.tallied.rows) == 0


def test_a_limit_below_the_base_is_kept_by_blocks(store, monkeypatch):
    monkeypatch.setattr("deepssim.matching.LEAST_BLOCK_ROWS", 16)
    real = Reference(store)
    options = MatchOptions(k=5, max_listed=8, threads=1)
    cuts = (0.3, 0.5)
    free = Matcher(real, None, cuts, options, 10**6)
    assert free.block_rows == 0
    queries = unit(N_QUERIES, 3)
    expected = free.match_rows(queries, 0)
    with pytest.raises(MemoryLimitError) as refused:
        Matcher(real, None, cuts, MatchOptions(k=5, max_listed=8, threads=1, memory_limit=1))
    least = refused.value.minimum_bytes
    assert least is not None
    with pytest.raises(MemoryLimitError, match="at least"):
        Matcher(real, None, cuts, MatchOptions(k=5, max_listed=8, threads=1, memory_limit=least - 1))
    tight = Matcher(real, None, cuts, MatchOptions(k=5, max_listed=8, threads=1, memory_limit=least + 40_000))
    assert 0 < tight.block_rows < len(store)
    assert tight.planned_bytes <= least + 40_000 < free.planned_bytes
    found = tight.match_rows(queries, 0)
    assert np.array_equal(found.scores, expected.scores)
    assert np.array_equal(found.rows, expected.rows)
    assert np.array_equal(found.listed_scores, expected.listed_scores)
    assert np.array_equal(found.levels, expected.levels)


def test_items_are_read_one_ahead_and_never_two():
    begun: list[int] = []
    ready = threading.Event()

    def read(n: int) -> int:
        begun.append(n)
        ready.set()
        return n

    items = read_ahead(range(4), read)
    for n in range(4):
        assert next(items) == n
        if n < 3:
            assert ready.wait(10)
            while len(begun) < n + 2:
                pass
        ready.clear()
        assert len(begun) == min(4, n + 2)


def test_an_error_comes_where_its_item_would_have_come():
    def read(n: int) -> int:
        if n == 2:
            raise ValueError("no third")
        return n

    items = read_ahead(range(5), read)
    assert [next(items), next(items)] == [0, 1]
    with pytest.raises(ValueError, match="no third"):
        next(items)
    assert list(read_ahead([], read)) == []
