from __future__ import annotations

import numpy as np
import pytest
from cases import KINDS, assert_same, make_rows, problems
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from oracle import score_matrix, top_k

from deepssim.search import RowTally, Searcher, SearchError, merge_topk, supported_isa_levels

LEVELS = supported_isa_levels()


def thresholds_from(scores, parts):
    """Ascending thresholds that are scores themselves, so that equality counts."""
    ordered = np.unique(scores)
    return sorted({float(ordered[int(part * (ordered.size - 1))]) + 0.0 for part in parts})


def check_counts(result, scores, thresholds, max_listed):
    expected = np.stack([(scores >= np.float32(t)).sum(axis=1) for t in thresholds], axis=1)
    np.testing.assert_array_equal(result.counts, expected)
    listed = top_k(scores, max_listed, allowed=scores >= np.float32(thresholds[0]))
    assert_same((result.listed_scores, result.listed_ids), listed)


def check_tally(tally, scores, thresholds, first_query):
    expected = np.stack([(scores >= np.float32(t)).sum(axis=0) for t in thresholds], axis=1)
    np.testing.assert_array_equal(tally.counts, expected)
    by_row = scores.transpose()
    best = top_k(by_row, 1, allowed=by_row >= np.float32(thresholds[0]), offset=first_query)
    assert_same((tally.best_scores, tally.best_queries), (best[0][:, 0], best[1][:, 0]))


@pytest.mark.parametrize("isa", LEVELS)
@pytest.mark.parametrize("kind", KINDS)
def test_every_pair_at_or_over_a_threshold_is_counted(kind, isa):
    queries, base = make_rows(kind, 50, 9, 1), make_rows(kind, 1100, 9, 2)
    scores = score_matrix(queries, base)
    thresholds = thresholds_from(scores, (0.6, 0.99, 1.0))
    searcher = Searcher.of(base, isa=isa)
    tally = RowTally(len(base), len(thresholds))
    result = searcher.search(queries, 3, thresholds=thresholds, max_listed=12, tally=tally, threads=2, first_query=1000)
    assert_same((result.scores, result.ids), top_k(scores, 3))
    check_counts(result, scores, thresholds, 12)
    check_tally(tally, scores, thresholds, 1000)
    counts = searcher.count(queries, thresholds)
    assert counts.pairs == result.counts.sum(axis=0).tolist()
    assert counts.queries == (result.counts > 0).sum(axis=0).tolist()


@given(problem=problems(), data=st.data(), isa=st.sampled_from(LEVELS))
@settings(deadline=None, max_examples=50)
def test_thresholds_over_any_cut_of_the_queries(problem, data, isa):
    queries, base = problem
    assume(len(queries) > 0 and len(base) > 0)
    scores = score_matrix(queries, base)
    thresholds = thresholds_from(scores, data.draw(st.lists(st.floats(0, 1), min_size=1, max_size=3)))
    max_listed = data.draw(st.integers(0, 20))
    k = data.draw(st.integers(0, 3))
    cut = data.draw(st.integers(0, len(queries)))
    searcher = Searcher.of(base, isa=isa)
    tally = RowTally(len(base), len(thresholds))
    for part, first in ((queries[cut:], cut), (queries[:cut], 0)):
        result = searcher.search(part, k, thresholds=thresholds, max_listed=max_listed, tally=tally, first_query=first)
        check_counts(result, scores[first : first + len(part)], thresholds, max_listed)
    check_tally(tally, scores, thresholds, 0)


def test_thresholds_are_compared_in_float32():
    base = np.array([[0.1], [np.nextafter(np.float32(0.1), np.float32(0))]], np.float32)
    result = Searcher.of(base).search(np.ones((1, 1), np.float32), 0, thresholds=[0.1])
    assert result.counts.tolist() == [[1]]


def group_case(seed, n_groups, n_queries=20, n_rows=130):
    rng = np.random.default_rng(seed)
    groups = rng.integers(-1, n_groups, n_rows)
    query_groups = rng.integers(-1, n_groups, n_queries)
    return groups, query_groups


@given(
    kind=st.sampled_from(KINDS),
    seed=st.integers(0, 2**32 - 1),
    n_groups=st.sampled_from([1, 3, 40]),
    same_group=st.booleans(),
    same_id=st.booleans(),
    cap=st.integers(0, 3),
    k=st.integers(1, 12),
    isa=st.sampled_from(LEVELS),
)
@settings(deadline=None, max_examples=80)
def test_exclusions_and_caps(kind, seed, n_groups, same_group, same_id, cap, k, isa):
    queries, base = make_rows(kind, 20, 6, seed), make_rows(kind, 130, 6, seed + 1)
    groups, query_groups = group_case(seed, n_groups)
    scores = score_matrix(queries, base)
    allowed = np.ones(scores.shape, bool)
    if same_group:
        allowed &= (query_groups[:, None] != groups[None, :]) | (query_groups[:, None] == -1)
    if same_id:
        allowed[np.arange(20), np.arange(20) + 7] = False
    threshold = thresholds_from(scores, [0.8])
    searcher = Searcher.of(base, groups, isa=isa)
    result = searcher.search(
        queries,
        k,
        max_per_group=cap,
        query_groups=query_groups,
        exclude_same_group=same_group,
        exclude_same_id=same_id,
        first_query=7,
        thresholds=threshold,
        max_listed=10,
    )
    assert_same((result.scores, result.ids), top_k(scores, k, allowed=allowed, groups=groups, cap=cap))
    # The cap is a rule for the k; counts and lists miss nothing.
    over = allowed & (scores >= np.float32(threshold[0]))
    np.testing.assert_array_equal(result.counts[:, 0], over.sum(axis=1))
    assert_same((result.listed_scores, result.listed_ids), top_k(scores, 10, allowed=over))


@pytest.mark.parametrize("cap", [1, 2])
def test_capped_answers_of_shards_merge_to_the_answer_of_the_whole(cap):
    queries, base = make_rows("integers", 20, 6, 1), make_rows("integers", 130, 6, 2)
    groups, _ = group_case(3, 5)
    scores, ids, known = [], [], []
    for begin, end in ((60, 130), (0, 13), (13, 60)):
        shard = Searcher(6, end - begin, with_groups=True, id_offset=begin)
        shard.add(base[begin:end], groups[begin:end])
        result = shard.search(queries, 8, max_per_group=cap)
        scores.append(result.scores)
        ids.append(result.ids)
        known.append(np.where(result.ids < 0, -1, groups[result.ids]))
    merged = merge_topk(np.stack(scores), np.stack(ids), np.stack(known), max_per_group=cap)
    assert_same(merged, top_k(score_matrix(queries, base), 8, groups=groups, cap=cap))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"thresholds": [0.5, 0.4]}, "ascend"),
        ({"thresholds": [0.5, 0.5]}, "ascend"),
        ({"thresholds": [float("nan")]}, "finite"),
        ({"thresholds": [float("inf")]}, "finite"),
        ({"thresholds": [1e39]}, "finite"),
        ({"max_listed": 3}, "needs a threshold"),
        ({"max_per_group": 1}, "needs groups"),
        ({"exclude_same_group": True}, "needs groups"),
        ({"query_groups": np.zeros(4, np.int64)}, "expected 5 query groups, got 4"),
        ({"tally": RowTally(7, 0)}, "another number of base rows"),
        ({"tally": RowTally(8, 1)}, "another number of base rows or thresholds"),
        ({"first_query": -1}, "query ids must lie"),
    ],
)
def test_options_that_contradict_the_base_are_refused(options, words):
    searcher = Searcher.of(make_rows("unit", 8, 4, 1))
    with pytest.raises(SearchError, match=words):
        searcher.search(make_rows("unit", 5, 4, 2), 1, **options)


def test_a_tally_adds_up_over_calls_and_starts_empty():
    base = make_rows("unit", 6, 4, 1)
    tally = RowTally(6, 2)
    assert tally.counts.tolist() == [[0, 0]] * 6
    assert np.isneginf(tally.best_scores).all()
    assert (tally.best_queries == -1).all()
    searcher = Searcher.of(base)
    for _ in range(3):
        searcher.count(base, [0.99, 2.0], tally=tally)
    assert tally.counts.tolist() == [[3, 0]] * 6
    assert tally.best_queries.tolist() == list(range(6))
