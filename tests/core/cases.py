"""Rows that make the order of scores hard to get right, and what several tests check alike."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

KINDS = ("unit", "integers", "near-ties", "scales", "denormal", "cancelling", "opposite", "zeros")

# Round the widths of vectors, unrolled loops and caches, up to a large embedding.
DIMS = (1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 97, 257, 1000, 4096)


def make_rows(kind, n, dim, seed):
    """Return ``(n, dim)`` float32 rows; the same kind with another seed makes queries that fit."""
    rng = np.random.default_rng(seed)
    pattern = np.random.default_rng(0).uniform(-1, 1, dim).astype(np.float32)
    rows = rng.uniform(-1, 1, (n, dim))
    if kind == "unit":
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    elif kind == "integers":
        rows = rng.integers(-1, 2, (n, dim))
    elif kind == "near-ties":  # a row is the pattern, but one element may be an ulp or two apart
        rows = np.tile(pattern, (n, 1))
        rows[np.arange(n), rng.integers(0, dim, n)] *= 1 + rng.integers(0, 3, n).astype(np.float32) * np.float32(2**-23)
    elif kind == "scales":
        rows *= 2.0 ** rng.integers(-60, 50, (n, 1))
    elif kind == "denormal":
        rows *= 2.0 ** rng.integers(-78, -70, (n, 1))
    elif kind == "cancelling":  # sums much smaller than their terms
        rows = np.tile(pattern * 1024, (n, 1))
        rows[:, 1::2] = rows[:, 0 : 2 * (dim // 2) : 2] * rng.choice([-1, 1], (n, 1))
        rows[:, -1] = rng.uniform(-1e-6, 1e-6, n)
    elif kind == "opposite":  # duplicates of one row and its negative
        rows = pattern * rng.choice([-1, 1], (n, 1))
    elif kind == "zeros":
        rows *= rng.integers(0, 2, (n, 1))
    return np.ascontiguousarray(rows, np.float32)


@st.composite
def problems(draw, max_rows=60):
    """Queries and base rows of one kind."""
    kind = draw(st.sampled_from(KINDS))
    dim = draw(st.sampled_from(DIMS))
    # The oracle takes about 30 ns an element.
    room = max(1, min(max_rows, 60_000 // dim))
    n_rows = draw(st.integers(0, room))
    n_queries = draw(st.integers(0, min(20, room)))
    seed = draw(st.integers(0, 2**32 - 1))
    return make_rows(kind, n_queries, dim, seed), make_rows(kind, n_rows, dim, seed + 1)


def assert_same(found, expected):
    """Scores equal in every bit, ids equal."""
    scores, ids = found
    np.testing.assert_array_equal(ids, expected[1])
    np.testing.assert_array_equal(scores.view(np.int32), expected[0].view(np.int32))
