"""Each base row's best queries, found in the scan that finds each query's best rows."""

from __future__ import annotations

import numpy as np
import pytest
from cases import KINDS, assert_same, make_rows, problems
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import score_matrix, top_k

from deepssim.search import Preparation, ReverseTopk, RowTally, Searcher, SearchError, supported_isa_levels

LEVELS = supported_isa_levels()


def best_queries(scores, k, *, allowed=None, groups=None, cap=0, first_query=0):
    """The definition with the roles exchanged: scores ``(n_queries, n_rows)``, groups of queries."""
    turned = None if allowed is None else allowed.T
    return top_k(scores.T, k, allowed=turned, groups=groups, cap=cap, offset=first_query)


@pytest.mark.parametrize("isa", LEVELS)
@pytest.mark.parametrize("kind", KINDS)
def test_each_row_finds_its_best_queries_and_ties_go_to_the_lower_query(kind, isa):
    for n_queries, n_rows, dim in ((90, 150, 9), (600, 70, 3), (3, 200, 65), (1, 1, 1)):
        queries, base = make_rows(kind, n_queries, dim, 1), make_rows(kind, n_rows, dim, 2)
        reverse = ReverseTopk(n_rows, 4)
        result = Searcher.of(base, isa=isa).search(queries, 3, reverse=reverse, first_query=1000, threads=2)
        scores = score_matrix(queries, base)
        assert_same(reverse.read(), best_queries(scores, 4, first_query=1000))
        assert_same((result.scores, result.ids), top_k(scores, 3))
        assert result.statistics.n_pairs == n_queries * n_rows


def cut_at(data, n):
    """The bounds of pieces of n queries, some empty, in any order."""
    cuts = sorted(data.draw(st.lists(st.integers(0, n), max_size=4)))
    return data.draw(st.permutations(list(zip([0, *cuts], [*cuts, n], strict=True))))


@given(problem=problems(), data=st.data(), isa=st.sampled_from(LEVELS))
@settings(deadline=None, max_examples=120, derandomize=True)
def test_pieces_of_the_queries_in_any_order_add_up(problem, data, isa):
    queries, base = problem
    scores = score_matrix(queries, base)
    k, reverse_k = data.draw(st.integers(0, 5)), data.draw(st.integers(0, 25))
    first_query = data.draw(st.sampled_from([0, 7, 2**62]))
    searcher = Searcher.of(base, isa=isa)
    reverse = ReverseTopk(len(base), reverse_k)
    for begin, end in cut_at(data, len(queries)):
        result = searcher.search(
            queries[begin:end],
            k,
            reverse=reverse,
            first_query=first_query + begin,
            threads=data.draw(st.integers(0, 3)),
        )
        assert_same((result.scores, result.ids), top_k(scores[begin:end], k))
        reverse.read()  # reading in between changes nothing
    assert_same(reverse.read(), best_queries(scores, reverse_k, first_query=first_query))
    assert_same(reverse.read(), best_queries(scores, reverse_k, first_query=first_query))


@given(
    kind=st.sampled_from(KINDS),
    sizes=st.tuples(st.integers(1, 70), st.integers(1, 150), st.sampled_from([1, 3, 6, 17])),
    seed=st.integers(0, 2**32 - 1),
    ks=st.tuples(st.integers(0, 6), st.integers(1, 6)),
    caps=st.tuples(st.integers(0, 2), st.integers(0, 2)),
    n_groups=st.sampled_from([1, 4, 50]),
    same=st.tuples(st.booleans(), st.booleans()),
    data=st.data(),
)
@settings(deadline=None, max_examples=200, derandomize=True)
def test_one_scan_answers_rows_queries_and_thresholds(kind, sizes, seed, ks, caps, n_groups, same, data):
    n_queries, n_rows, dim = sizes
    queries, base = make_rows(kind, n_queries, dim, seed), make_rows(kind, n_rows, dim, seed + 1)
    rng = np.random.default_rng(seed)
    groups, query_groups = (rng.integers(-1, n_groups, n) for n in (n_rows, n_queries))
    scores = score_matrix(queries, base)
    same_group, same_id = same
    allowed = np.ones(scores.shape, bool)
    if same_group:
        allowed &= (query_groups[:, None] != groups) | (query_groups[:, None] == -1)
    if same_id:  # ids of rows begin at 5, ids of queries at 8
        allowed &= np.arange(n_queries)[:, None] + 8 != np.arange(n_rows) + 5
    levels = sorted({float(np.quantile(scores, q, method="lower")) + 0.0 for q in (0.8, 0.97)})

    searcher = Searcher(dim, n_rows, with_groups=True, id_offset=5, isa=data.draw(st.sampled_from(LEVELS)))
    searcher.add(base, groups)
    if data.draw(st.booleans()):
        searcher.prepare(Preparation(data.draw(st.integers(0, dim))))
    reverse, tally = ReverseTopk(n_rows, ks[1], caps[1]), RowTally(n_rows, len(levels))
    for begin, end in cut_at(data, n_queries):
        part = slice(begin, end)
        result = searcher.search(
            queries[part],
            ks[0],
            max_per_group=caps[0],
            thresholds=levels,
            max_listed=9,
            query_groups=query_groups[part],
            exclude_same_group=same_group,
            exclude_same_id=same_id,
            first_query=8 + begin,
            tally=tally,
            reverse=reverse,
            threads=data.draw(st.integers(0, 3)),
        )
        may = allowed[part]
        expected = top_k(scores[part], ks[0], allowed=may, groups=groups, cap=caps[0], offset=5)
        assert_same((result.scores, result.ids), expected)
        over = np.stack([may & (scores[part] >= np.float32(t)) for t in levels], axis=2)
        np.testing.assert_array_equal(result.counts, over.sum(axis=1))
        listed = top_k(scores[part], 9, allowed=over[:, :, 0], offset=5)
        assert_same((result.listed_scores, result.listed_ids), listed)
    expected = best_queries(scores, ks[1], allowed=allowed, groups=query_groups, cap=caps[1], first_query=8)
    assert_same(reverse.read(), expected)
    over = np.stack([allowed & (scores >= np.float32(t)) for t in levels], axis=2)
    np.testing.assert_array_equal(tally.counts, over.sum(axis=0))
    best = best_queries(scores, 1, allowed=over[:, :, 0], first_query=8)
    assert_same((tally.best_scores, tally.best_queries), (best[0][:, 0], best[1][:, 0]))


@pytest.mark.parametrize("with_groups", [False, True])
@pytest.mark.parametrize("kind", ["unit", "integers", "opposite", "near-ties"])
def test_a_base_searched_by_itself_finds_the_same_from_both_sides(kind, with_groups):
    rows = make_rows(kind, 130, 7, 4)
    groups = np.arange(130) // 3 if with_groups else None
    searcher = Searcher(7, 130, with_groups=with_groups, id_offset=40)
    searcher.add(rows, groups)
    reverse = ReverseTopk(130, 6)
    result = searcher.search(
        rows,
        6,
        reverse=reverse,
        query_groups=groups,
        exclude_same_group=with_groups,
        exclude_same_id=True,
        first_query=40,
    )
    allowed = ~np.eye(130, dtype=bool) if groups is None else groups[:, None] != groups
    expected = top_k(score_matrix(rows, rows), 6, allowed=allowed, offset=40)
    assert_same((result.scores, result.ids), expected)
    assert_same(reverse.read(), expected)


def test_equal_queries_are_kept_by_their_ids_whatever_came_first():
    base = np.ones((3, 4), np.float32)
    for order in ((0, 1, 2), (2, 1, 0), (1, 2, 0)):
        reverse = ReverseTopk(3, 5)
        searcher = Searcher.of(base)
        for part in order:
            searcher.search(np.ones((40, 4), np.float32), 0, reverse=reverse, first_query=40 * part, threads=2)
        assert reverse.read()[1].tolist() == [[0, 1, 2, 3, 4]] * 3


def test_it_starts_empty_and_what_it_gives_is_new():
    reverse = ReverseTopk(3, 2)
    assert (reverse.rows, reverse.k) == (3, 2)
    scores, ids = reverse.read()
    assert np.isneginf(scores).all()
    assert ids.tolist() == [[-1, -1]] * 3
    scores[:], ids[:] = 7, 7
    assert (reverse.read()[1] == -1).all()
    assert ReverseTopk(0, 2).read()[1].shape == (0, 2)
    assert ReverseTopk(3, 0).read()[1].shape == (3, 0)


def test_a_refused_search_adds_nothing_to_it():
    base = make_rows("unit", 20, 4, 1)
    searcher = Searcher.of(base)
    reverse = ReverseTopk(20, 2)
    bad = base.copy()
    bad[19, 3] = np.nan
    with pytest.raises(SearchError, match="query row 19"):
        searcher.search(bad, 1, reverse=reverse)
    with pytest.raises(SearchError, match="ascend"):
        searcher.search(base, 1, thresholds=[1.0, 0.0], reverse=reverse)
    assert (reverse.read()[1] == -1).all()
    with pytest.raises(SearchError, match="needs groups of the queries"):
        searcher.search(base, 1, reverse=ReverseTopk(20, 2, 1))


def test_rows_added_since_make_it_one_of_another_base():
    rows = make_rows("unit", 20, 4, 1)
    searcher = Searcher(4, 20)
    searcher.add(rows[:10])
    reverse = ReverseTopk(10, 2)
    searcher.search(rows, 1, reverse=reverse)
    searcher.add(rows[10:])
    with pytest.raises(SearchError, match="another number of base rows"):
        searcher.search(rows, 1, reverse=reverse)
    assert_same(reverse.read(), best_queries(score_matrix(rows, rows[:10]), 2))


BASE = make_rows("integers", 40, 5, 1)


@pytest.mark.parametrize("n_rows", [0, 1, 39, 41, 2000])
@pytest.mark.parametrize("prepared", [True, False])
def test_answers_made_for_other_bases_are_refused_and_left_alone(n_rows, prepared):
    searcher = Searcher.of(BASE)
    if prepared:
        searcher.prepare()
    tally, reverse = RowTally(n_rows, 1), ReverseTopk(n_rows, 2)
    fitting = RowTally(len(BASE), 1)
    with pytest.raises(SearchError, match="another number of base rows"):
        searcher.search(BASE, 1, thresholds=[0.0], tally=tally)
    with pytest.raises(SearchError, match="another number of base rows"):
        searcher.search(BASE, 1, thresholds=[0.0], tally=fitting, reverse=reverse)
    for other in (reverse, searcher, 3, "tally"):
        with pytest.raises(SearchError):
            searcher.search(BASE, 1, thresholds=[0.0], tally=other)
    assert not tally.counts.any()
    assert not fitting.counts.any()
    assert (reverse.read()[1] == -1).all()
