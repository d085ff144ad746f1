"""Oracles of the benchmarks: float64 products, exact sums, and how far answers agree."""

from __future__ import annotations

import math

import numpy as np

from benchmarks.data import Floats
from benchmarks.peer import Answer


def exact_score(a: Floats, b: Floats) -> np.float32:
    """Return the inner product over the reals, rounded to float64 and then to float32.

    The product of two float32 numbers is exact in float64, and `math.fsum` rounds the sum once.
    """
    return np.float32(math.fsum(float(x) * float(y) for x, y in zip(a, b, strict=True)))


def count_wrong_scores(answer: Answer, base: Floats, queries: Floats, n_sampled: int = 200, seed: int = 0) -> int:
    """Count pairs of a sample of an answer whose score is not exact, bit by bit."""
    ids, scores = answer
    rng = np.random.default_rng(seed)
    rows = rng.integers(0, ids.shape[0], n_sampled)
    places = rng.integers(0, min(ids.shape[1], len(base)), n_sampled)
    return sum(
        bool(exact_score(queries[row], base[ids[row, place]]) != scores[row, place])
        for row, place in zip(rows, places, strict=True)
    )


def recall(ids: np.ndarray, base: Floats, queries: Floats, k: int, *, tolerance: float = 0.0) -> float:
    """Return the share of found ids that are among the k best by float64 products, ties allowed.

    Args:
        ids: ``(n_queries, k)``; a repeated id counts once.
        base: Base rows.
        queries: Queries.
        k: Places of an answer.
        tolerance: How far below the k-th score a row may be, for peers that compute in float32.
    """
    scores = queries.astype(np.float64) @ base.astype(np.float64).T
    least = np.partition(scores, len(base) - k, axis=1)[:, len(base) - k]
    n_right = sum(
        len({int(i) for i in found if scores[row, i] >= least[row] - tolerance}) for row, found in enumerate(ids)
    )
    return n_right / (len(queries) * k)


def share_of_equal_ids(a: np.ndarray, b: np.ndarray) -> float:
    """Return the share of places at which two answers hold the same id."""
    return float((a == b).mean())
