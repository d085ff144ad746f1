from __future__ import annotations

import re

import numpy as np
import pytest
from cases import assert_same, make_rows
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import score_matrix, top_k

from deepssim.errors import MemoryLimitError, UsageError
from deepssim.search import Searcher, plan_search


def named_limit(error):
    """The number of bytes that a refusal says is enough."""
    found = re.search(r"at least (\d+) bytes", str(error))
    assert found, str(error)
    return int(found[1])


REQUESTS = st.fixed_dictionaries(
    {
        "base_rows": st.integers(0, 10**7),
        "dim": st.integers(1, 65536),
        "k": st.integers(0, 1000),
        "max_listed": st.integers(0, 100),
        "levels": st.integers(0, 4),
        "with_groups": st.booleans(),
        "with_tally": st.booleans(),
        "threads": st.integers(1, 64),
        "max_chunk_rows": st.integers(1, 10**6),
    }
)


@given(request=REQUESTS, more=st.floats(0, 3))
@settings(deadline=None, max_examples=150)
def test_a_plan_fits_its_limit_and_a_refusal_names_one_that_works(request, more):
    with pytest.raises(MemoryLimitError) as refusal:
        plan_search(**request, memory_limit=1)
    minimum = named_limit(refusal.value)
    with pytest.raises(MemoryLimitError):
        plan_search(**request, memory_limit=minimum - 1)
    for limit in (minimum, int(minimum * (1 + more))):
        plan = plan_search(**request, memory_limit=limit)
        assert plan.total_bytes <= limit
        assert 1 <= plan.threads <= request["threads"]
        assert 1 <= plan.chunk_rows <= request["max_chunk_rows"]
        parts = plan.base_bytes + plan.prepared_bytes + plan.tally_bytes + plan.threads * plan.worker_bytes
        assert plan.total_bytes == parts + plan.chunk_rows * plan.row_bytes


def test_a_chunk_of_a_plan_is_searched_under_the_limit_of_the_plan():
    base = make_rows("unit", 500, 24, 1)
    searcher = Searcher.of(base)
    smallest = plan_search(500, 24, k=5, threads=1, max_chunk_rows=1).total_bytes
    for limit in range(smallest, 4 * smallest, smallest // 5):
        plan = plan_search(500, 24, k=5, threads=3, max_chunk_rows=300, memory_limit=limit)
        queries = make_rows("unit", plan.chunk_rows, 24, 2)
        result = searcher.search(queries, 5, threads=3, memory_limit=limit)
        assert result.scores.shape == (plan.chunk_rows, 5)


@pytest.mark.parametrize("threads", [1, 2, 7])
def test_limits_change_no_answer_and_a_refusal_names_one_that_works(threads):
    queries, base = make_rows("integers", 120, 10, 1), make_rows("integers", 400, 10, 2)
    searcher = Searcher.of(base)
    expected = top_k(score_matrix(queries, base), 20)
    with pytest.raises(MemoryLimitError, match="search fewer queries at a time") as refusal:
        searcher.search(queries, 20, threads=threads, memory_limit=50_000)
    minimum = named_limit(refusal.value)
    with pytest.raises(MemoryLimitError):
        searcher.search(queries, 20, threads=threads, memory_limit=minimum - 1)
    for limit in np.linspace(minimum, 20 * minimum, 25).astype(int).tolist():
        result = searcher.search(queries, 20, threads=threads, memory_limit=limit)
        assert_same((result.scores, result.ids), expected)


@pytest.mark.parametrize(
    "request_", [{"dim": 0}, {"dim": 65537}, {"dim": 4, "base_rows": 2**63}, {"dim": 4, "k": 2**62}]
)
def test_sizes_that_cannot_be_are_refused(request_):
    with pytest.raises(UsageError):
        plan_search(**{"base_rows": 1, **request_})


def test_a_base_that_no_machine_holds_is_refused():
    with pytest.raises((MemoryLimitError, UsageError)):
        Searcher(65536, 2**40)
