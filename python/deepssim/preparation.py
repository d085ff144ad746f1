"""How to make a base ready for the scan: in which directions, and how many of them first.

Embeddings of a trained network vary in few directions. Rotated to the principal ones, their leading elements and
the norm of the rest bound a score after a fraction of the work. Whether that pays depends on the rows, the
queries and how many there are of each, so it is estimated from samples. What is chosen changes the speed of a
search and nothing else.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import ThreadpoolController

__all__ = ["WHOLE", "Preparation", "Workload", "choice_bytes", "choose_preparation", "sample_size"]

Floats = NDArray[np.float32]

SAMPLE_BYTES = 8 * 2**20
SAMPLE_QUERIES = 32
PROBE_ROWS = 2048
LEAD = 8
HEADS = (16, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024)

# Costs in float32 multiply-adds of the rotation, from benchmarks/bench_topk.py: a pair beside its elements, and a
# pair that the head leaves and that is looked at on its own.
PAIR_COST = 6.5
KEPT_PAIR_COST = 4000.0
# Rows of equal variance in all directions have a spread of one; sampling alone gives a little more.
SMALLEST_SPREAD = 1.5
SMALLEST_GAIN = 1.15


@dataclass(frozen=True, slots=True)
class ScanCost:
    """What an instruction set makes of elements.

    Attributes:
        element: Cost of an element of a pair, in float32 multiply-adds.
        multiple: Elements that a head is padded to a multiple of.
    """

    element: float
    multiple: int = 4


SCAN_COSTS = {"amx": ScanCost(0.067, 64), "avx512vnni": ScanCost(0.24)}
SCAN_COST = ScanCost(0.4)


@dataclass(frozen=True, slots=True)
class Workload:
    """What a base is prepared for.

    Attributes:
        n_rows: Base rows.
        n_queries: Queries to expect, over all searches.
        k: Places of an answer.
        threshold: The lowest score of interest beside the k best, or None.
        isa: Instruction-set level that scans.
    """

    n_rows: int
    n_queries: int
    k: int
    threshold: float | None = None
    isa: str = ""

    @property
    def n_pairs(self) -> float:
        """Pairs to scan."""
        return float(self.n_rows) * self.n_queries

    def scan_cost(self, elements: int) -> float:
        """Return what scanning all pairs by so many elements costs, without the pairs that are left."""
        cost = SCAN_COSTS.get(self.isa, SCAN_COST)
        padded = -(-elements // cost.multiple) * cost.multiple
        return self.n_pairs * (padded * cost.element + PAIR_COST)

    def turning_cost(self, dim: int) -> float:
        """Return what rotating the rows and the queries costs."""
        return float(dim) ** 2 * (1.1 * self.n_rows + self.n_queries)


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
    # One thread: those of a BLAS wait busily for more work, in the way of the core's, for longer than this takes.
    # Rows near the largest norm overflow here.
    with _blas().limit(limits=1, user_api="blas"), np.errstate(all="ignore"):
        mean = rows.mean(axis=0)
        centred = rows - mean
        covariance = centred.T @ centred
        if not np.isfinite(covariance).all() or not _spread(covariance) >= SMALLEST_SPREAD:
            return WHOLE
        return _choose_among(centred, mean, covariance, queries, workload)


@functools.cache
def _blas() -> ThreadpoolController:
    return ThreadpoolController()


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
    finding = n_sampled * dim**2 + 20.0 * dim**3
    return workload.turning_cost(dim) + finding < 0.25 * workload.scan_cost(dim)


def _spread(covariance: Floats) -> float:
    """Return one for equal variance in all directions, `dim` for one direction alone."""
    trace = float(np.trace(covariance))
    return len(covariance) * float(np.square(covariance).sum()) / trace**2 if trace > 0 else 1.0


def _best_head(rows: Floats, queries: Floats, offsets: Floats, workload: Workload) -> int:
    """Return how many leading elements cost least, 0 where no split beats the whole."""
    dim = rows.shape[1]
    scores = queries @ rows.T + offsets[:, None]
    wanted = _wanted_scores(scores, workload)

    def cost_of(head: int, bounds: Floats) -> float:
        kept = float((bounds >= wanted[:, None]).mean())
        return workload.scan_cost(head) + kept * workload.n_pairs * KEPT_PAIR_COST

    # Of the whole more pairs are left, because nothing guides its first thresholds, but each costs less.
    best, best_cost = 0, cost_of(dim, scores + _code_loss(rows, queries)) / SMALLEST_GAIN
    approximate = offsets[:, None]
    last = 0
    for head in (head for head in HEADS if head < dim):
        approximate = approximate + queries[:, last:head] @ rows[:, last:head].T
        last = head
        turning = workload.turning_cost(dim)
        if workload.scan_cost(head) + turning >= best_cost:
            break
        rest = _norms(queries[:, head:])[:, None] * _norms(rows[:, head:])
        cost = cost_of(head, approximate + _code_loss(rows[:, :head], queries[:, :head]) + rest) + turning
        if cost < best_cost:
            best, best_cost = head, cost
    return best


def _wanted_scores(scores: Floats, workload: Workload) -> Floats:
    """Return the lowest score of interest of each query, from scores ``(n_queries, n_rows)`` of a sample."""
    if workload.k == 0:
        wanted = np.full(len(scores), np.inf, np.float32)
    else:
        # The k-th best of the base, as the sample shows it: too low where its rank in the sample is below one.
        n = scores.shape[1]
        rank = int(np.clip(round(workload.k * n / max(1, workload.n_rows)), 1, n))
        wanted = np.partition(scores, n - rank, axis=1)[:, n - rank]
    return wanted if workload.threshold is None else np.minimum(wanted, np.float32(workload.threshold))


def _norms(rows: Floats) -> Floats:
    return np.asarray(np.sqrt(np.einsum("ij,ij->i", rows, rows)))


def _code_loss(rows: Floats, queries: Floats) -> Floats:
    """Return what eight-bit codes lose at most, ``(n_queries, n_rows)``, taking their errors as uniform."""

    def step(x: Floats) -> Floats:
        return np.asarray(np.abs(x).max(axis=1) / np.float32(127 * np.sqrt(12)), np.float32)

    row_step, query_step = step(rows), step(queries)
    total = np.zeros((len(queries), len(rows)), np.float32)
    for part in (slice(None, LEAD), slice(LEAD, None)):  # the core bounds the leading elements apart
        q, x = queries[:, part], rows[:, part]
        total += np.float32(np.sqrt(q.shape[1])) * (_norms(q)[:, None] * row_step + query_step[:, None] * _norms(x))
    return total
