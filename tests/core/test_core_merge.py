from __future__ import annotations

import numpy as np
import pytest
from cases import assert_same
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import ranked

from deepssim.search import SearchError, merge_topk


def lists_of(draw_scores, n_parts, n_queries, k):
    """Sorted, padded lists of disjoint ids with few distinct scores."""
    scores = np.full((n_parts, n_queries, k), -np.inf, np.float32)
    ids = np.full((n_parts, n_queries, k), -1, np.int64)
    rng = np.random.default_rng(draw_scores)
    for query in range(n_queries):
        pool = rng.permutation(n_parts * k)
        for part in range(n_parts):
            n = rng.integers(0, k + 1)
            own_ids = pool[part * k : part * k + n]
            own = rng.integers(-2, 3, n).astype(np.float32)
            order = ranked(own, own_ids)
            scores[part, query, :n], ids[part, query, :n] = own[order], own_ids[order]
    return scores, ids


def merged_by_definition(scores, ids, groups, cap):
    _, n_queries, k = scores.shape
    out_scores = np.full((n_queries, k), -np.inf, np.float32)
    out_ids = np.full((n_queries, k), -1, np.int64)
    for query in range(n_queries):
        flat = [a[:, query].ravel() for a in (scores, ids, groups)]
        taken: dict[int, int] = {}
        place = 0
        for i in ranked(flat[0], flat[1]):
            group = int(flat[2][i])
            taken[group] = taken.get(group, 0) + 1
            if place == k or flat[1][i] < 0 or (cap and group != -1 and taken[group] > cap):
                continue
            out_scores[query, place], out_ids[query, place] = flat[0][i], flat[1][i]
            place += 1
    return out_scores, out_ids


@given(
    seed=st.integers(0, 2**32 - 1),
    n_parts=st.integers(0, 5),
    n_queries=st.integers(0, 4),
    k=st.integers(0, 6),
    cap=st.integers(0, 2),
)
@settings(deadline=None, max_examples=150)
def test_merging_is_one_sort_of_everything(seed, n_parts, n_queries, k, cap):
    scores, ids = lists_of(seed, n_parts, n_queries, k)
    groups = np.where(ids < 0, -1, ids % 4 - 1)
    merged = merge_topk(scores, ids, groups, max_per_group=cap)
    assert_same(merged, merged_by_definition(scores, ids, groups, cap))


@given(seed=st.integers(0, 2**32 - 1), data=st.data())
@settings(deadline=None, max_examples=60)
def test_merging_is_commutative_and_associative(seed, data):
    scores, ids = lists_of(seed, 5, 3, 4)
    whole = merge_topk(scores, ids)
    order = data.draw(st.permutations(range(5)))
    assert_same(merge_topk(scores[order], ids[order]), whole)
    cut = data.draw(st.integers(0, 5))
    halves = [merge_topk(scores[part], ids[part]) for part in (slice(cut), slice(cut, None))]
    assert_same(merge_topk(np.stack([h[0] for h in halves]), np.stack([h[1] for h in halves])), whole)


def test_signed_zeros_tie():
    merged = merge_topk(np.array([[[0.0]], [[-0.0]]], np.float32), np.array([[[5]], [[2]]]))
    assert merged[1].tolist() == [[2]]


def test_nan_is_refused_and_its_place_named():
    scores, ids = lists_of(1, 3, 4, 2)
    scores[2, 1, 0] = np.nan
    with pytest.raises(SearchError, match="NaN in part 2, query 1"):
        merge_topk(scores, ids)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda s, i: (s.astype(np.float64), i), "scores must be .* float32"),
        (lambda s, i: (s, i.astype(np.int32)), "ids must be .* int64"),
        (lambda s, i: (s.astype(">f4"), i), "native float32"),
        (lambda s, i: (s, i[:2].copy()), "ids and scores differ in shape"),
        (lambda s, i: (s[0], i[0]), "shape \\(parts, queries, k\\)"),
        (lambda s, i: (s.transpose(0, 2, 1), i.transpose(0, 2, 1)), "C-contiguous"),
        (lambda s, i: (s[..., ::2], i[..., ::2]), "C-contiguous"),
        (lambda s, i: (unaligned(s), i), "aligned"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(change, words):
    with pytest.raises(SearchError, match=words):
        merge_topk(*change(*lists_of(1, 3, 4, 2)))


def unaligned(array):
    raw = np.zeros(array.nbytes + 1, np.uint8)
    return raw[1:].view(array.dtype).reshape(array.shape)


def test_a_cap_needs_groups():
    scores, ids = lists_of(1, 3, 4, 2)
    with pytest.raises(SearchError, match="needs groups"):
        merge_topk(scores, ids, max_per_group=1)
    with pytest.raises(SearchError, match="groups and scores differ"):
        merge_topk(scores, ids, ids[:1], max_per_group=1)
