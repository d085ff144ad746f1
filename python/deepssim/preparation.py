"""How to make a base ready for the scan: in which directions, and how many of them first.

Embeddings of a trained network vary in few directions. Rotated to the principal ones, their leading elements and
the norm of the rest bound a score after a fraction of the work. Whether that pays depends on the rows, the
queries and how many there are of each, so it is estimated from samples. What is chosen changes the speed of a
search and nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["WHOLE", "Preparation", "Workload", "choice_bytes", "choose_preparation", "sample_size"]

Floats = NDArray[np.float32]

SAMPLE_BYTES = 8 * 2**20
SAMPLE_QUERIES = 64
PROBE_ROWS = 4096
LEAD = 8
HEADS = (16, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024)

# Costs in multiply-adds of the integer scan, from benchmarks/bench_topk.py: float32 runs at a quarter of its rate;
# a pair costs as much as twenty elements beside its elements; a pair that the head leaves is looked at on its own.
FLOAT32_COST = 4.0
PAIR_COST = 20.0
KEPT_PAIR_COST = 8000.0
# Rows of equal variance in all directions have a spread of one; sampling alone gives a little more.
SMALLEST_SPREAD = 1.5
SMALLEST_GAIN = 1.15


@dataclass(frozen=True, slots=True)
class Workload:
    """What a base is prepared for.

    Attributes:
        n_rows: Base rows.
        n_queries: Queries to expect, over all searches.
        k: Places of an answer.
        threshold: The lowest score of interest beside the k best, or None.
    """

    n_rows: int
    n_queries: int
    k: int
    threshold: float | None = None


@dataclass(frozen=True, slots=True)
class Preparation:
    """A choice.

    Attributes:
        head: Leading elements scanned for every pair; 0: all.
        rotation: ``(dim, dim)`` float32, orthonormal rows, or None.
    """

    head: int = 0
    rotation: Floats | None = None


WHOLE = Preparation()


def sample_size(dim: int) -> int:
    """Return how many base rows a choice looks at."""
    return max(2 * dim, SAMPLE_BYTES // (4 * dim))


def choice_bytes(dim: int) -> int:
    """Return the memory that a choice takes, at most: copies of the sample and square matrices in float64."""
    return 3 * 4 * dim * sample_size(dim) + 12 * 8 * dim**2 + 16 * SAMPLE_QUERIES * PROBE_ROWS


def choose_preparation(rows: Floats, queries: Floats, workload: Workload) -> Preparation:
    """Choose by an estimate of what each way costs.

    Args:
        rows: ``(n, dim)`` a sample of the base, `sample_size` rows or fewer.
        queries: ``(m, dim)`` queries; a few are looked at.
        workload: What is to be searched.

    Returns:
        `WHOLE` where a rotation would not pay.
    """
    dim = rows.shape[1]
    if len(rows) < 2 * dim or len(queries) == 0 or not _may_pay(dim, len(rows), workload):
        return WHOLE
    with np.errstate(all="ignore"):  # rows near the largest norm overflow here
        mean = rows.mean(axis=0)
        centred = rows - mean
        covariance = centred.T @ centred
        if not np.isfinite(covariance).all() or not _spread(covariance) >= SMALLEST_SPREAD:
            return WHOLE
        return _choose_among(centred, mean, covariance, queries, workload)


def _choose_among(
    centred: Floats, mean: Floats, covariance: Floats, queries: Floats, workload: Workload
) -> Preparation:
    # Moments about zero: rows are centred, queries are not, and their mean must not be left to the rest.
    moments = covariance.astype(np.float64) / len(centred) + np.outer(mean, mean)
    _, vectors = np.linalg.eigh(moments)
    rotation = np.ascontiguousarray(vectors[:, ::-1].T, np.float32)  # the largest variance first
    probe = centred[:: max(1, len(centred) // PROBE_ROWS)][:PROBE_ROWS]
    asked = queries[:: max(1, len(queries) // SAMPLE_QUERIES)][:SAMPLE_QUERIES]
    asked = asked[np.isfinite(asked).all(axis=1)]
    if len(asked) == 0:
        return WHOLE
    head = _best_head(probe @ rotation.T, asked @ rotation.T, asked @ mean, workload)
    return Preparation(head, rotation) if head else WHOLE


def _may_pay(dim: int, n_sampled: int, workload: Workload) -> bool:
    """Whether finding and applying a rotation is small beside the scan that it may shorten."""
    scan = workload.n_queries * workload.n_rows * (dim + PAIR_COST)
    finding = (n_sampled * dim**2 + 20.0 * dim**3) * FLOAT32_COST
    return _rotating(dim, workload) + finding < 0.25 * scan


def _rotating(dim: int, workload: Workload) -> float:
    return FLOAT32_COST * dim**2 * (1.25 * workload.n_rows + workload.n_queries)


def _spread(covariance: Floats) -> float:
    """Return one for equal variance in all directions, `dim` for one direction alone."""
    trace = float(np.trace(covariance))
    return len(covariance) * float(np.square(covariance).sum()) / trace**2 if trace > 0 else 1.0


def _best_head(rows: Floats, queries: Floats, offsets: Floats, workload: Workload) -> int:
    """Return how many leading elements cost least, 0 where no split beats the whole."""
    dim = rows.shape[1]
    scores = queries @ rows.T + offsets[:, None]
    # The k-th best of the base, as the sample shows it: too low where its rank in the sample is below one.
    rank = int(np.clip(round(workload.k * len(rows) / max(1, workload.n_rows)), 1, len(rows)))
    wanted = np.partition(scores, len(rows) - rank, axis=1)[:, len(rows) - rank]
    if workload.k == 0:
        wanted = np.full(len(queries), np.inf, np.float32)
    if workload.threshold is not None:
        wanted = np.minimum(wanted, np.float32(workload.threshold))
    pairs = float(workload.n_rows) * workload.n_queries
    whole = pairs * (dim + PAIR_COST)
    best, best_cost = 0, whole / SMALLEST_GAIN
    for head in (h for h in HEADS if h < dim):
        rest = np.linalg.norm(queries[:, head:], axis=1)[:, None] * np.linalg.norm(rows[:, head:], axis=1)
        bound = scores - queries[:, head:] @ rows[:, head:].T + rest + _code_loss(rows[:, :head], queries[:, :head])
        kept = float((bound >= wanted[:, None]).mean())
        cost = pairs * (head + PAIR_COST + kept * KEPT_PAIR_COST) + _rotating(dim, workload)
        if cost < best_cost:
            best, best_cost = head, cost
    return best


def _code_loss(rows: Floats, queries: Floats) -> Floats:
    """Return what eight-bit codes lose at most, ``(n_queries, n_rows)``, taking their errors as uniform."""

    def step(x: Floats) -> Floats:
        return np.asarray(np.abs(x).max(axis=1) / np.float32(127 * np.sqrt(12)), np.float32)

    total = np.zeros((len(queries), len(rows)), np.float32)
    for part in (slice(None, LEAD), slice(LEAD, None)):  # the core bounds the leading elements apart
        q, x = queries[:, part], rows[:, part]
        root = np.float32(np.sqrt(q.shape[1]))
        total += root * np.linalg.norm(q, axis=1)[:, None] * step(rows)
        total += root * step(queries)[:, None] * np.linalg.norm(x, axis=1)
    return total
