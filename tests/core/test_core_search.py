from __future__ import annotations

import numpy as np
import pytest
from cases import DIMS, KINDS, assert_same, make_rows, problems
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from oracle import score_matrix, top_k

from deepssim.search import Searcher, exact_scores, merge_topk, supported_isa_levels

LEVELS = supported_isa_levels()


def found_by(searcher, queries, k, **options):
    result = searcher.search(queries, k, **options)
    return result.scores, result.ids


@pytest.mark.parametrize("isa", LEVELS)
@pytest.mark.parametrize("kind", KINDS)
def test_scores_equal_the_definition_and_ties_go_to_the_lower_id(kind, isa):
    for dim in DIMS:
        n = max(3, min(40, 8000 // dim))
        queries, base = make_rows(kind, min(n, 14), dim, 1), make_rows(kind, n, dim, 2)
        assert_same(found_by(Searcher.of(base, isa=isa), queries, 6), top_k(score_matrix(queries, base), 6))


@pytest.mark.parametrize("isa", LEVELS)
@pytest.mark.parametrize("kind", KINDS)
def test_bases_of_several_blocks(kind, isa):
    queries, base = make_rows(kind, 50, 5, 3), make_rows(kind, 1100, 5, 4)
    assert_same(found_by(Searcher.of(base, isa=isa), queries, 7, threads=2), top_k(score_matrix(queries, base), 7))


@given(problem=problems(), k=st.integers(0, 70), threads=st.integers(0, 4), isa=st.sampled_from(LEVELS))
@settings(deadline=None, max_examples=60)
def test_any_shape_and_kind(problem, k, threads, isa):
    queries, base = problem
    searcher = Searcher.of(base, isa=isa)
    result = searcher.search(queries, k, threads=threads)
    assert_same((result.scores, result.ids), top_k(score_matrix(queries, base), k))
    found = result.statistics
    assert found.n_pairs == len(queries) * len(base)
    assert found.n_exact <= found.n_rescored <= found.n_refined <= found.n_kept <= found.n_pairs


# Elements that Hypothesis chooses one by one: it finds and shrinks what generators above do not think of.
ELEMENTS = st.one_of(
    st.floats(-(2.0**40), 2.0**40, width=32),
    st.sampled_from([0.0, -0.0, 1.0, -1.0, 2.0**-149, 1.0 + 2.0**-23, 1.0 - 2.0**-24, 2.0**-126]),
)


@given(data=st.data(), dim=st.integers(1, 9), isa=st.sampled_from(LEVELS))
@settings(deadline=None, max_examples=80)
def test_any_elements(data, dim, isa):
    rows = data.draw(hnp.arrays(np.float32, st.tuples(st.integers(2, 12), st.just(dim)), elements=ELEMENTS))
    assert_same(found_by(Searcher.of(rows, isa=isa), rows[::2], 5), top_k(score_matrix(rows[::2], rows), 5))


@given(
    a=hnp.arrays(np.float32, (3, 7), elements=st.floats(allow_nan=False, allow_infinity=False, width=32)),
    b=hnp.arrays(np.float32, (3, 7), elements=st.floats(-1, 1, width=32)),
)
@example(a=np.full((3, 7), 2.0**-149, np.float32), b=np.full((3, 7), -1.0, np.float32))
@settings(deadline=None, max_examples=100)
def test_exact_scores_are_the_definition(a, b):
    with np.errstate(over="ignore"):  # sums beyond float32 are infinite, here as there
        expected = np.array([score_matrix(a[i : i + 1], b[i : i + 1])[0, 0] for i in range(3)])
    np.testing.assert_array_equal(exact_scores(a, b).view(np.int32), expected.view(np.int32))


@given(problem=problems(), data=st.data())
@settings(deadline=None, max_examples=30)
def test_how_queries_and_base_are_cut_changes_nothing(problem, data):
    queries, base = problem
    k = data.draw(st.integers(1, 9))
    whole = found_by(Searcher.of(base), queries, k)
    searcher = Searcher.of(base)
    cut = data.draw(st.integers(0, len(queries)))
    parts = [found_by(searcher, part, k) for part in (queries[:cut], queries[cut:])]
    assert_same(tuple(np.concatenate(side) for side in zip(*parts, strict=True)), whole)

    cuts = sorted(data.draw(st.lists(st.integers(0, len(base)), min_size=1, max_size=4)))
    shards = []
    for begin, end in zip([0, *cuts], [*cuts, len(base)], strict=True):
        shard = Searcher(base.shape[1], end - begin, id_offset=begin)
        shard.add(base[begin:end])
        shards.append(found_by(shard, queries, k))
    order = data.draw(st.permutations(range(len(shards))))
    merged = merge_topk(np.stack([shards[i][0] for i in order]), np.stack([shards[i][1] for i in order]))
    assert_same(merged, whole)


@pytest.mark.parametrize("kind", ["unit", "integers", "near-ties"])
def test_threads_and_levels_agree_on_a_larger_search(kind):
    queries, base = make_rows(kind, 400, 48, 1), make_rows(kind, 3000, 48, 2)
    reference = found_by(Searcher.of(base, isa="portable"), queries, 10, threads=1)
    for isa in LEVELS:
        searcher = Searcher.of(base, isa=isa)
        for threads in (1, 2, 3):
            assert_same(found_by(searcher, queries, 10, threads=threads), reference)
    picked = np.random.default_rng(0).integers(0, 400, 5)
    assert_same(tuple(side[picked] for side in reference), top_k(score_matrix(queries[picked], base), 10))


@pytest.mark.parametrize("isa", LEVELS)
@pytest.mark.parametrize("n_between", [0, 1100])
def test_rows_are_not_lost_where_float32_errs_by_nearly_its_bound(isa, n_between):
    dim = 257
    query = np.full((1, dim), 2.0**-12, np.float32)
    query[0, 0] = 1
    under, over = query.copy(), -query  # every addition rounds back: float32 sees 1 and over[0]
    over[0, 0] = 1 + 0.75 * (dim - 1) * 2.0**-23
    base = np.vstack([over, np.zeros((n_between, dim), np.float32), under, 0 * under])
    searcher = Searcher.of(base, isa=isa)
    scores = score_matrix(query, base)
    assert scores.argmax() == n_between + 1
    assert_same(found_by(searcher, query, 1), top_k(scores, 1))
    assert searcher.count(query, [float(scores.max())]).pairs == [1]


def test_rows_at_the_limits_of_scale():
    base = np.array([[2.0**62, 0], [-(2.0**62), 0], [0, 2.0**-149], [0, 0], [2.0**62, 2.0**-149]], np.float32)
    assert_same(found_by(Searcher.of(base), base, 5), top_k(score_matrix(base, base), 5))


def test_rows_added_in_parts_are_the_rows_added_at_once():
    base = make_rows("integers", 100, 12, 1)
    searcher = Searcher(12, 130)
    for begin, end in ((0, 1), (1, 17), (17, 17), (17, 100)):
        searcher.add(base[begin:end])
    assert len(searcher) == 100
    assert_same(found_by(searcher, base[:9], 40), top_k(score_matrix(base[:9], base), 40))


def test_the_rows_are_copied_and_results_are_new():
    base = make_rows("unit", 30, 8, 1)
    searcher = Searcher.of(base)
    first = found_by(searcher, base[:4].copy(), 3)
    kept = tuple(side.copy() for side in first)
    queries = base[:4].copy()
    base[:] = 0
    second = found_by(searcher, queries, 3)
    assert_same(second, kept)
    second[0][:] = 7
    assert_same(first, kept)


@pytest.mark.parametrize(("k", "n_rows", "n_queries"), [(0, 5, 3), (9, 5, 3), (3, 0, 3), (3, 5, 0), (0, 0, 0)])
def test_sizes_at_the_ends_are_legal(k, n_rows, n_queries):
    queries, base = make_rows("unit", n_queries, 6, 1), make_rows("unit", n_rows, 6, 2)
    assert_same(found_by(Searcher.of(base), queries, k), top_k(score_matrix(queries, base), k))
