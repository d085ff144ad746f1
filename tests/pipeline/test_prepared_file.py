"""Prepared bases that are kept beside their store."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from deepssim.audit import AuditOptions, score
from deepssim.base import Base
from deepssim.errors import StoreError
from deepssim.matching import MatchOptions
from deepssim.prepared_file import keep_prepared, take_prepared
from deepssim.search import Preparation, Searcher, supported_isa_levels
from deepssim.store import Store
from deepssim.store_build import write_store

DIM = 40


def unit(n: int, seed: int) -> np.ndarray:
    rows = np.random.default_rng(seed).standard_normal((n, DIM)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return write_store(tmp_path / "real", [(unit(333, 1), [f"r{i}" for i in range(333)], None)], metric="test")


def searcher_of(store: Store, isa: str = "") -> Searcher:
    rows = np.empty((len(store), DIM), np.float32)
    store.read_rows(0, rows)
    return Searcher.of(rows, isa=isa)


def rotation() -> np.ndarray:
    q, _ = np.linalg.qr(np.random.default_rng(3).standard_normal((DIM, DIM)))
    return q.astype(np.float32)


@pytest.mark.parametrize("level", supported_isa_levels())
@pytest.mark.parametrize("preparation", [Preparation(), Preparation(12), Preparation(12, rotation())])
def test_what_was_kept_is_taken_up_and_answers_the_same(store, level, preparation):
    first = searcher_of(store, level)
    first.prepare(preparation)
    path = keep_prepared(store, first)
    assert path.stat().st_mode & 0o777 == 0o600
    second = searcher_of(store, level)
    assert take_prepared(store, second)
    assert second.prepared_header() == first.prepared_header()
    a, b = first.search(unit(20, 2), 5), second.search(unit(20, 2), 5)
    assert np.array_equal(a.scores, b.scores)
    assert np.array_equal(a.ids, b.ids)
    assert a.statistics == b.statistics


def damage(path: Path, how: str) -> None:
    data = bytearray(path.read_bytes())
    if how == "cut":
        data = data[: len(data) // 2]
    elif how == "longer":
        data += b"x"
    elif how == "empty":
        data = bytearray()
    elif how == "no line":
        data = data.replace(b"\n", b" ")
    elif how == "no json":
        data[0:1] = b"]"
    elif how == "a bit":
        data[-1000] ^= 4
    path.write_bytes(data)


@pytest.mark.parametrize("how", ["cut", "longer", "empty", "no line", "no json", "a bit"])
def test_a_damaged_file_is_as_good_as_none(store, how):
    first = searcher_of(store)
    first.prepare(Preparation(12, rotation()))
    damage(keep_prepared(store, first), how)
    second = searcher_of(store)
    assert not take_prepared(store, second)
    assert np.array_equal(second.search(unit(20, 2), 5).ids, first.search(unit(20, 2), 5).ids)


def test_a_file_of_other_rows_is_as_good_as_none(store, tmp_path):
    first = searcher_of(store)
    first.prepare()
    kept = keep_prepared(store, first)
    other = write_store(tmp_path / "other", [(unit(333, 9), [f"r{i}" for i in range(333)], None)], metric="test")
    (other.path / kept.name).write_bytes(kept.read_bytes())
    assert not take_prepared(other, searcher_of(other))


def test_a_base_keeps_and_takes_up_by_itself(store):
    rows, codes = np.arange(333), np.zeros(333, np.int64)
    queries = unit(30, 4)
    plain = Base(store, rows, codes, expected_queries=30).search(queries, 3)
    assert not list(store.path.glob("prepared-*"))
    keeping = Base(store, rows, codes, expected_queries=30, keep_prepared=True)
    assert np.array_equal(keeping.search(queries, 3).ids, plain.ids)
    [kept] = store.path.glob("prepared-*")
    stamp = kept.stat().st_mtime_ns
    again = Base(store, rows, codes, expected_queries=30, keep_prepared=True)
    assert np.array_equal(again.search(queries, 3).ids, plain.ids)
    assert kept.stat().st_mtime_ns == stamp
    some = Base(store, rows[:100], codes[:100], expected_queries=30, keep_prepared=True)
    assert (some.search(queries, 3).ids < 100).all()  # a part of the store has nothing to do with the file


def test_a_folder_that_cannot_be_written_is_named(store, monkeypatch):
    searcher = searcher_of(store)
    searcher.prepare()

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("deepssim.prepared_file._write", refuse)
    with pytest.raises(StoreError, match="--keep-prepared"):
        keep_prepared(store, searcher)


def test_score_gives_the_same_tables_from_what_was_kept(store, tmp_path):
    synthetic = write_store(tmp_path / "made", [(unit(50, 7), [f"s{i}" for i in range(50)], None)], metric="test")
    tables = []
    for number, keep in enumerate([False, True, True]):
        options = AuditOptions(thresholds=(0.3, 0.6), match=MatchOptions(keep_prepared=keep), command="score")
        result = score(store.path, synthetic.path, tmp_path / str(number), options=options)
        tables.append((tmp_path / str(number) / "matches.parquet").read_bytes())
        # Embeddings that came without images: one line says so, not one for each pair.
        assert sum("no picture" in line for line in result.summary["warnings"]) == 1
    assert tables[0] == tables[1] == tables[2]
