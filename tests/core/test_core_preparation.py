"""How a base is prepared is chosen well, and changes no answer."""

from __future__ import annotations

import dataclasses
import itertools
import threading

import numpy as np
import pytest
from cases import DIMS, KINDS, assert_same, make_rows
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import score_matrix, top_k

import deepssim.search
from deepssim.preparation import WHOLE, Preparation, Workload, choice_bytes, choose_preparation, sample_size
from deepssim.search import ReverseTopk, RowTally, Searcher, SearchError, supported_isa_levels

LEVELS = supported_isa_levels()
LARGE = Workload(n_rows=10**7, n_queries=10**6, k=10)


def uneven(n, dim, seed, *, power=1.0):
    """Rows as a trained network embeds: standard deviations of 1, 1/2, 1/3, ... in turned directions."""
    rng = np.random.default_rng(seed)
    turn = random_rotation(dim, 0)
    rows = rng.normal(size=(n, dim)) / np.arange(1, dim + 1) ** power
    return np.ascontiguousarray(rows @ turn, np.float32)


def random_rotation(dim, seed):
    return np.ascontiguousarray(np.linalg.qr(np.random.default_rng(seed).normal(size=(dim, dim)))[0], np.float32)


@pytest.mark.parametrize("dim", [64, 100, 256])
@pytest.mark.parametrize("scale", [1.0, 1000.0, 2.0**-10])
@pytest.mark.parametrize("shift", [0.0, 3.0])
def test_rows_that_vary_in_few_directions_are_turned_to_them(dim, scale, shift):
    rows = uneven(max(4 * dim, 1500), dim, 1) + np.float32(shift)
    queries = uneven(100, dim, 2) + np.float32(shift)
    rows, queries = rows * np.float32(scale), queries * np.float32(scale)
    before = rows.tobytes(), queries.tobytes()
    chosen = choose_preparation(rows, queries, LARGE)
    assert before == (rows.tobytes(), queries.tobytes())
    assert 0 < chosen.head < dim
    rotation = chosen.rotation
    assert rotation.dtype == np.float32
    assert rotation.flags.c_contiguous
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(dim), atol=1e-5)
    energy = np.square(rows.astype(np.float64) @ rotation.T).mean(axis=0)
    assert (energy[:-1] >= energy[1:] * (1 - 1e-3) - 1e-6 * energy[0]).all()
    np.testing.assert_array_equal(choose_preparation(rows, queries, LARGE).rotation, rotation)


ROWS = uneven(2000, 64, 1)
QUERIES = uneven(50, 64, 2)


def with_element(value):
    rows = ROWS.copy()
    rows[777, 5] = value
    return rows


LEFT_WHOLE = {
    "isotropic rows": (np.random.default_rng(0).normal(size=(4000, 64)).astype(np.float32), QUERIES, LARGE),
    "equal rows": (np.tile(ROWS[:1], (2000, 1)), QUERIES, LARGE),
    "rows of zero": (0 * ROWS, QUERIES, LARGE),
    "few rows": (ROWS[:127], QUERIES, LARGE),
    "one row": (ROWS[:1], QUERIES, LARGE),
    "no rows": (ROWS[:0], QUERIES, LARGE),
    "no queries": (ROWS, QUERIES[:0], LARGE),
    "queries of NaN": (ROWS, np.nan * QUERIES, LARGE),
    "queries of infinity": (ROWS, np.full_like(QUERIES, -np.inf), LARGE),
    "NaN": (with_element(np.nan), QUERIES, LARGE),
    "infinity": (with_element(np.inf), QUERIES, LARGE),
    "both infinities": (np.where(ROWS > 0, np.inf, -np.inf).astype(np.float32), QUERIES, LARGE),
    "rows near the largest norm": (ROWS / np.abs(ROWS).max() * np.float32(2.0**62), QUERIES, LARGE),
    "the largest numbers": (np.sign(ROWS) * np.float32(3e38), QUERIES, LARGE),
    "two dimensions": (ROWS[:, :2].copy(), QUERIES[:, :2].copy(), LARGE),
    "a threshold that all pairs reach": (ROWS, QUERIES, dataclasses.replace(LARGE, threshold=-1e30)),
    "all rows wanted": (ROWS, QUERIES, dataclasses.replace(LARGE, k=10**7)),
    "few pairs": (ROWS, QUERIES, Workload(2000, 50, 10)),
    "no pairs": (ROWS, QUERIES, Workload(0, 0, 0)),
    "many rows, one query": (ROWS, QUERIES, Workload(10**9, 1, 10)),
}


@pytest.mark.parametrize("name", LEFT_WHOLE)
def test_what_would_not_pay_is_left_whole(name):
    assert choose_preparation(*LEFT_WHOLE[name]) is WHOLE


HOSTILE = [0.0, -0.0, 1.0, np.nan, np.inf, -np.inf, 2.0**-149, 2.0**62, 3e38, -3e38]


@given(
    factor=st.sampled_from([0.0, 2.0**-140, 2.0**-70, 1.0, 2.0**40, 2.0**61, 2.0**120]),
    query_factor=st.sampled_from([0.0, 2.0**-140, 1.0, 2.0**61, 2.0**120]),
    values=st.lists(st.sampled_from(HOSTILE), max_size=3),
    workload=st.builds(
        Workload,
        n_rows=st.sampled_from([0, 1, 2000, 10**9]),
        n_queries=st.sampled_from([0, 1, 10**9]),
        k=st.sampled_from([0, 1, 10, 10**9]),
        threshold=st.sampled_from([None, 0.0, 1e39, -1e39, np.nan, np.inf]),
    ),
    seed=st.integers(0, 99),
)
@settings(deadline=None, max_examples=80, derandomize=True)
def test_a_choice_is_always_one_that_can_be_taken(factor, query_factor, values, workload, seed):
    rng = np.random.default_rng(seed)
    with np.errstate(all="ignore"):
        rows, queries = ROWS[:300, :32] * np.float32(factor), QUERIES[:, :32] * np.float32(query_factor)
    for value in values:
        rows[rng.integers(0, 300), rng.integers(0, 32)] = value
        queries[rng.integers(0, 50), rng.integers(0, 32)] = value
    chosen = choose_preparation(rows, queries, workload)
    if chosen.rotation is None:
        assert chosen is WHOLE
    else:
        assert 0 < chosen.head < 32
        np.testing.assert_allclose(chosen.rotation @ chosen.rotation.T, np.eye(32), atol=1e-5)


@pytest.mark.parametrize("dim", [1, 2, 64, 1000, 65536])
def test_a_sample_has_rows_enough_and_its_memory_is_told(dim):
    assert sample_size(dim) >= 2 * dim
    assert choice_bytes(dim) > 4 * dim * sample_size(dim)


def assert_ordered(found, n_pairs):
    assert found.n_pairs == n_pairs
    assert 0 <= found.n_exact <= found.n_rescored <= found.n_refined <= found.n_kept <= found.n_pairs


def answers(searcher, queries, threshold, *, threads=1):
    """Everything that a search gives, for a tally and a reverse answer besides, and its statistics."""
    tally, reverse = RowTally(len(searcher), 1), ReverseTopk(len(searcher), 3)
    result = searcher.search(
        queries, 6, thresholds=[threshold], max_listed=5, tally=tally, reverse=reverse, threads=threads
    )
    arrays = [result.scores, result.ids, result.counts, result.listed_scores, result.listed_ids]
    arrays += [tally.counts, tally.best_scores, tally.best_queries, *reverse.read()]
    return [array.tobytes() for array in arrays], result


@st.composite
def preparations(draw, dim):
    """A head from none to all and a rotation: none, a turn, a few elements apart, or a little off."""
    head = draw(st.one_of(st.integers(0, dim), st.sampled_from([0, 1, dim - 1, dim, dim + 1, 2**63])))
    kind = draw(st.sampled_from(["none", "random", "random", "identity", "permutation", "reflection", "off"]))
    seed = draw(st.integers(0, 99))
    rotation = random_rotation(dim, seed)
    if kind == "identity":
        rotation = np.eye(dim, dtype=np.float32)
    elif kind == "permutation":
        rotation = np.eye(dim, dtype=np.float32)[np.random.default_rng(seed).permutation(dim)]
    elif kind == "reflection":
        rotation = -rotation[::-1]
    elif kind == "off":  # the bound must cover what is not orthogonal
        noise = np.random.default_rng(seed).normal(size=(dim, dim)) * draw(st.sampled_from([1e-6, 1e-4, 1e-2]))
        rotation = (rotation + noise / dim).astype(np.float32)
    return Preparation(head, None if kind == "none" else rotation)


@given(
    kind=st.sampled_from([*KINDS, "uneven"]),
    dim=st.sampled_from([d for d in DIMS if d < 300]),
    seed=st.integers(0, 2**32 - 2),
    isa=st.sampled_from(LEVELS),
    threads=st.integers(0, 3),
    data=st.data(),
)
@settings(deadline=None, max_examples=150, derandomize=True)
def test_no_preparation_changes_an_answer(kind, dim, seed, isa, threads, data):
    n = data.draw(st.integers(1, max(2, min(150, 12_000 // dim))))
    make = uneven if kind == "uneven" else lambda n, dim, seed: make_rows(kind, n, dim, seed)
    queries, base = make(min(n, 17), dim, seed), make(n, dim, seed + 1)
    scores = score_matrix(queries, base)
    threshold = float(np.quantile(scores, 0.9, method="lower")) + 0.0
    searcher = Searcher.of(base, isa=isa)
    searcher.prepare(WHOLE)
    whole, result = answers(searcher, queries, threshold)
    assert_same((result.scores, result.ids), top_k(scores, 6))
    for preparation in data.draw(st.lists(preparations(dim), min_size=1, max_size=3)):
        searcher.prepare(preparation, threads=threads)
        found, result = answers(searcher, queries, threshold, threads=threads)
        assert found == whole
        assert_ordered(result.statistics, len(queries) * n)
        alone = searcher.search(queries, 6, threads=threads)  # without a reverse answer more is discarded
        assert_same((alone.scores, alone.ids), top_k(scores, 6))
        assert_ordered(alone.statistics, len(queries) * n)


@pytest.mark.parametrize("isa", LEVELS)
@pytest.mark.parametrize("power", [0.0, 1.0, 3.0])
def test_every_head_on_a_larger_base_at_each_level(isa, power):
    queries, base = uneven(70, 40, 2, power=power), uneven(2500, 40, 1, power=power)
    searcher = Searcher.of(base, isa=isa)
    searcher.prepare(WHOLE)
    whole, result = answers(searcher, queries, 1.0)
    picked = [0, 33, 69]
    assert_same((result.scores[picked], result.ids[picked]), top_k(score_matrix(queries[picked], base), 6))
    for head, rotation in itertools.product((0, 1, 15, 16, 17, 31, 39, 40), (None, random_rotation(40, 0))):
        searcher.prepare(Preparation(head, rotation))
        found, result = answers(searcher, queries, 1.0, threads=2)
        assert found == whole
        assert_ordered(result.statistics, 70 * 2500)


@pytest.mark.parametrize("isa", LEVELS)
def test_no_rotation_loses_rows_at_the_limits_of_scale(isa):
    turn = random_rotation(6, 3)
    rows = np.ascontiguousarray(np.vstack([turn, -turn, np.eye(6, dtype=np.float32)]))
    for factor in (2.0**62.9, 2.0**-63, 2.0**-75, 2.0**-126, 2.0**-149):
        base = rows * np.float32(factor)
        searcher = Searcher.of(base, isa=isa)
        for preparation in (WHOLE, Preparation(2), Preparation(0, turn), Preparation(2, turn), Preparation(5, turn)):
            searcher.prepare(preparation)
            result = searcher.search(base, 18)
            assert_same((result.scores, result.ids), top_k(score_matrix(base, base), 18))


@pytest.fixture
def chosen(monkeypatch):
    """What searches choose while a test runs."""
    made = []

    def choose(rows, queries, workload):
        made.append(choose_preparation(rows, queries, workload))
        return made[-1]

    monkeypatch.setattr(deepssim.search, "choose_preparation", choose)
    return made


def test_expected_queries_change_how_a_base_is_prepared_and_no_answer(chosen):
    base, queries = uneven(2000, 128, 1, power=2.0), uneven(40, 128, 2, power=2.0)
    found = []
    for expected_queries in (0, 1, 10**9):
        searcher = Searcher(128, 2000, expected_queries=expected_queries, isa="portable")
        searcher.add(base)
        found.append(answers(searcher, queries, 6.0)[0])
        answers(searcher, queries, 6.0)
    assert len(chosen) == 3  # once a base, not once a search
    assert chosen[0] is chosen[1] is WHOLE
    assert chosen[2].rotation is not None
    assert found[0] == found[1] == found[2]


def test_rows_added_after_a_search_are_found(chosen):
    base, queries = uneven(2000, 64, 1, power=2.0), uneven(12, 64, 2, power=2.0)
    scores = score_matrix(queries, base)
    searcher = Searcher(64, 2000, expected_queries=10**9, isa="portable")
    for begin, end in ((0, 1), (1, 900), (900, 900), (900, 901), (901, 2000)):
        searcher.add(base[begin:end])
        result = searcher.search(queries, 5)
        assert_same((result.scores, result.ids), top_k(scores[:, :end], 5))
        assert_ordered(result.statistics, 12 * end)
    assert chosen[0] is WHOLE
    assert chosen[-1].rotation is not None


@pytest.mark.parametrize("preparation", [WHOLE, Preparation(3), Preparation(2, random_rotation(8, 1))])
def test_rows_added_after_a_preparation_are_found(preparation):
    base = make_rows("unit", 90, 8, 1)
    searcher = Searcher(8, 90)
    searcher.prepare(preparation)  # of nothing
    for begin, end in ((0, 30), (30, 31), (31, 90)):
        searcher.add(base[begin:end])
        searcher.prepare(preparation)
        searcher.add(base[:0])
        result = searcher.search(base, 5)
        assert_same((result.scores, result.ids), top_k(score_matrix(base, base[:end]), 5))


def rotations():
    good = random_rotation(5, 3)
    return {
        "good": good,
        "its rows backwards": good[::-1],
        "of wider rows": np.pad(good, ((0, 0), (1, 2)), constant_values=np.nan)[:, 1:-2],
        "read-only": np.frombuffer(good.tobytes(), np.float32).reshape(good.shape),
        "a reflection": -good,
        "float64": good.astype(np.float64),
        "Fortran order": np.asfortranarray(good),
        "misaligned": np.frombuffer(b"x" + good.tobytes(), np.float32, offset=1).reshape(good.shape),
        "zeros": 0 * good,
        "NaN": np.nan * good,
        "infinity": np.full_like(good, np.inf),
        "huge": good * np.float32(1e38),
        "tiny": good * np.float32(1e-38),
        "scaled": good * np.float32(1.1),
        "one row many times": np.broadcast_to(good[0], good.shape),
        "not square": good[:-1],
        "no columns": good[:, :0],
        "smaller": np.eye(4, dtype=np.float32),
        "larger": np.eye(6, dtype=np.float32),
        "three axes": good[None],
        "a row": good[0],
        "a list": good.tolist(),
        "a number": 3,
        "a word": "rotation",
    }


BASE = make_rows("integers", 40, 5, 1)


@pytest.mark.parametrize("is_rotated_before", [True, False])
@pytest.mark.parametrize("name", rotations())
def test_a_rotation_of_the_wrong_kind_is_refused_and_forgotten(name, is_rotated_before):
    chosen = rotations()
    rotation, is_right = chosen[name], list(chosen).index(name) < 5
    searcher = Searcher.of(BASE)
    if is_rotated_before:
        searcher.prepare(Preparation(3, chosen["good"]))
    before = np.array(rotation).tobytes()
    for head in (0, 2):
        if is_right:
            searcher.prepare(Preparation(head, rotation))
        else:
            with pytest.raises(SearchError) as refusal:
                searcher.prepare(Preparation(head, rotation))
            assert "\n" not in str(refusal.value)
        result = searcher.search(BASE, 4)
        assert_same((result.scores, result.ids), top_k(score_matrix(BASE, BASE), 4))
    assert np.array(rotation).tobytes() == before


@pytest.mark.parametrize("shape", [(0, 5), (0, 0), (0, 99)])
def test_a_rotation_without_rows_is_refused(shape):
    with pytest.raises(SearchError):
        Searcher.of(BASE).prepare(Preparation(2, np.zeros(shape, np.float32)))


@given(n_rows=st.integers(0, 40), most=st.one_of(st.integers(0, 45), st.integers(0, 2**20)))
@settings(deadline=None, max_examples=60, derandomize=True)
def test_a_sample_is_evenly_spread(n_rows, most):
    rows = Searcher.of(BASE[:n_rows])._core.sample(most)
    expected = BASE[: n_rows if most else 0][:: max(1, -(-n_rows // max(1, most)))]
    np.testing.assert_array_equal(rows, expected)


def test_rows_added_during_searches_are_in_the_answer_or_not_yet():
    base, queries = make_rows("integers", 600, 12, 1), make_rows("integers", 40, 12, 2)
    scores = score_matrix(queries, base)
    searcher = Searcher(12, 600, expected_queries=10**6)
    searcher.add(base[:100])
    found = []

    def search():
        for _ in range(12):
            result = searcher.search(queries, 5, threads=1)
            found.append((result.statistics.n_pairs // len(queries), (result.scores, result.ids)))

    workers = [threading.Thread(target=search) for _ in range(2)]
    for worker in workers:
        worker.start()
    for first in range(100, 600, 50):
        searcher.add(base[first : first + 50])
    for worker in workers:
        worker.join()
    assert len(found) == 24
    for n_rows, answer in found:
        assert n_rows in range(100, 601, 50)
        assert_same(answer, top_k(scores[:, :n_rows], 5))
