"""Makers of rows for benchmarks: float32, unit norm, the same for the same seed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

SHARE_OF_DUPLICATES = 0.3
# Relative distance of a near-duplicate, from a rewritten file to a visible edit.
JITTER = (1e-4, 3e-2)


def to_unit(rows: Floats) -> Floats:
    """Divide each row of ``(n, dim)`` by its norm, in place, and return the rows."""
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows


def gaussian(n: int, dim: int, seed: int) -> Floats:
    """Make ``(n, dim)`` rows of uniform direction: no structure that a bound could use."""
    return to_unit(np.random.default_rng(seed).standard_normal((n, dim), dtype=np.float32))


def jittered(rows: Floats, rng: np.random.Generator) -> Floats:
    """Move each row by a share of its norm that is log-uniform over `JITTER`, in a uniform direction."""
    share = np.exp(rng.uniform(*np.log(JITTER), (len(rows), 1))).astype(np.float32)
    step = to_unit(rng.standard_normal(rows.shape, dtype=np.float32))
    return rows + step * share * np.linalg.norm(rows, axis=1, keepdims=True)


def anisotropic(n_base: int, n_queries: int, dim: int, seed: int, power: float = 1.0) -> tuple[Floats, Floats]:
    """Make rows as a trained encoder gives them.

    The eigenvalues of the covariance fall like ``1 / j**power`` in a random orthogonal basis; all rows share
    a mean whose norm is that of the deviation; `SHARE_OF_DUPLICATES` of the base rows are near-duplicates of
    other base rows, and as many of the queries are near-duplicates of base rows.

    Args:
        n_base: Base rows.
        n_queries: Queries.
        dim: Elements of a row.
        seed: The same seed gives the same rows.
        power: 1 for variances like ``1 / j``, 2 for standard deviations like ``1 / j``.

    Returns:
        Base rows ``(n_base, dim)`` and queries ``(n_queries, dim)``.
    """
    rng = np.random.default_rng(seed)
    basis = np.linalg.qr(rng.standard_normal((dim, dim)))[0]
    deviations = np.arange(1, dim + 1) ** (-power / 2)
    factor = (deviations[:, None] * basis).astype(np.float32)
    direction = rng.standard_normal(dim)
    mean = (direction * np.linalg.norm(deviations) / np.linalg.norm(direction)).astype(np.float32)
    rows = rng.standard_normal((n_base + n_queries, dim), dtype=np.float32) @ factor + mean
    base, queries = rows[:n_base], rows[n_base:]

    n_originals = n_base - int(SHARE_OF_DUPLICATES * n_base)
    order = rng.permutation(n_base)
    originals, copies = order[:n_originals], order[n_originals:]
    base[copies] = jittered(base[rng.choice(originals, len(copies))], rng)
    near = rng.permutation(n_queries)[: int(SHARE_OF_DUPLICATES * n_queries)]
    queries[near] = jittered(base[rng.integers(0, n_base, len(near))], rng)
    return to_unit(base), to_unit(queries)


def make(
    kind: list[str], n_base: int, n_queries: int, dim: int, *, seed: int = 0, power: float = 1.0
) -> tuple[Floats, Floats]:
    """Make or load rows.

    Args:
        kind: ``["gaussian"]``, ``["anisotropic"]``, or the paths of two ``.npy`` files, base and queries,
            which are cut to `n_base` and `n_queries` rows; `dim` is then theirs.
        n_base: Base rows.
        n_queries: Queries.
        dim: Elements of a row.
        seed: The same seed gives the same rows.
        power: See `anisotropic`.

    Raises:
        ValueError: The kind is unknown or the files do not fit.
    """
    match kind:
        case ["gaussian"]:
            return gaussian(n_base, dim, seed), gaussian(n_queries, dim, seed + 1)
        case ["anisotropic"]:
            return anisotropic(n_base, n_queries, dim, seed, power)
        case [base_path, queries_path]:
            base = np.load(Path(base_path), mmap_mode="r")[:n_base]
            queries = np.load(Path(queries_path), mmap_mode="r")[:n_queries]
            if base.ndim != 2 or queries.ndim != 2 or base.shape[1] != queries.shape[1]:
                raise ValueError(f"{base_path} {base.shape} and {queries_path} {queries.shape} are not rows of one dim")
            return np.ascontiguousarray(base, np.float32), np.ascontiguousarray(queries, np.float32)
    raise ValueError(f"unknown data {kind}: give gaussian, anisotropic or two .npy files, base and queries")
