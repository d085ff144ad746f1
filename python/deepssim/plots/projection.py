"""Two dimensions of many: principal axes of a store of embeddings, in bounded memory, and UMAP."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepssim.errors import UsageError
from deepssim.extras import require
from deepssim.store import Store

__all__ = ["PrincipalAxes", "draw_rows", "principal_axes", "read_rows", "umap_points"]

Floats = NDArray[np.float64]
Rows = NDArray[np.int64]

MOST_ROWS = 100_000
# From here on a covariance matrix is larger than the rows that it comes from.
MOST_DIM = 2048
MOST_ROWS_WIDE = 2000
BLOCK_BYTES = 2**25


@dataclass(frozen=True, slots=True)
class PrincipalAxes:
    """The directions in which embeddings vary most.

    Attributes:
        mean: ``(dim,)``.
        axes: ``(2, dim)`` orthonormal; the element of largest size is positive in each.
        shares: ``(2,)`` of the variance.
        n_rows: Rows that they were found from.
    """

    mean: Floats
    axes: Floats
    shares: Floats
    n_rows: int

    def __call__(self, rows: NDArray[np.floating[Any]]) -> Floats:
        """Return the coordinates of rows ``(n, dim)``: ``(n, 2)``."""
        return np.asarray((rows - self.mean) @ self.axes.T)


def draw_rows(n: int, most: int, seed: int, always: Rows | None = None) -> Rows:
    """Draw at most `most` of n rows without replacement, in rising order; those of `always` come on top.

    Example:
        >>> draw_rows(5, 10, 0).tolist(), len(draw_rows(1000, 10, 0)), 999 in draw_rows(1000, 10, 0, np.array([999]))
        ([0, 1, 2, 3, 4], 10, True)
    """
    if n <= most:
        return np.arange(n)
    drawn = np.random.default_rng(seed).choice(n, most, replace=False, shuffle=False)
    return np.unique(np.concatenate([drawn, drawn[:0] if always is None else always])).astype(np.int64)


def read_rows(store: Store, rows: Rows) -> Iterator[NDArray[np.float32]]:
    """Yield rows of a store, rising, in blocks of bounded size; neighbours are read together."""
    step = max(1, BLOCK_BYTES // (4 * store.dim))
    for first in range(0, len(rows), step):
        wanted = rows[first : first + step]
        block = np.empty((len(wanted), store.dim), np.float32)
        starts = np.flatnonzero(np.diff(wanted, prepend=-2) != 1)
        for start, stop in zip(starts.tolist(), [*starts[1:].tolist(), len(wanted)], strict=True):
            store.read_rows(int(wanted[start]), block[start:stop])
        yield block


def principal_axes(store: Store, *, seed: int = 0) -> PrincipalAxes:
    """Return the first two principal axes of a store.

    Of up to 100,000 rows (2,000 where they have more than 2,048 elements) all are used, else so many that are drawn.
    The eigenvectors are those of the covariance matrix, summed block by block in float64; of wide rows those of the
    matrix of inner products.

    Args:
        store: The embeddings.
        seed: Of the draw.

    Raises:
        UsageError: There are fewer than two rows, or all are equal.
    """
    rows = draw_rows(len(store), MOST_ROWS if store.dim <= MOST_DIM else MOST_ROWS_WIDE, seed)
    if len(rows) < 2:
        raise UsageError(f"{store.path} has {len(rows)} images: a map needs two")
    total = np.zeros(store.dim)
    for block in read_rows(store, rows):
        total += block.sum(axis=0, dtype=np.float64)
    mean = total / len(rows)
    if store.dim <= MOST_DIM:
        axes, variances, whole = _from_covariance(store, rows, mean)
    else:
        axes, variances, whole = _from_products(store, rows, mean)
    if not whole > 1e-12 * max(1.0, float(mean @ mean)):
        raise UsageError(f"all embeddings of {store.path} are equal: there is nothing to draw")
    axes *= np.sign(axes[np.arange(len(axes)), np.abs(axes).argmax(axis=1)])[:, None]
    return PrincipalAxes(mean, axes, variances / whole, len(rows))


def _from_covariance(store: Store, rows: Rows, mean: Floats) -> tuple[Floats, Floats, float]:
    sums = np.zeros((store.dim, store.dim))
    for block in read_rows(store, rows):
        centred = block - mean
        sums += centred.T @ centred
    values, vectors = np.linalg.eigh(sums)
    if store.dim == 1:  # a second axis of nothing
        return np.concatenate([vectors.T, np.zeros((1, 1))]), np.array([values[0], 0.0]), float(values.sum())
    return vectors.T[:-3:-1].copy(), np.maximum(values[:-3:-1], 0), float(np.trace(sums))


def _from_products(store: Store, rows: Rows, mean: Floats) -> tuple[Floats, Floats, float]:
    # 2,000 rows of 65,536 elements are half a gigabyte as they lie: they are held in float32.
    held = np.concatenate(list(read_rows(store, rows)))
    held -= mean.astype(np.float32)
    products = np.zeros((len(held), len(held)))
    for first in range(0, store.dim, MOST_DIM):
        part = held[:, first : first + MOST_DIM].astype(np.float64)
        products += part @ part.T
    values, vectors = np.linalg.eigh(products)
    values, vectors = np.maximum(values[:-3:-1], 0), vectors.T[:-3:-1]
    axes = np.stack([held.T @ vector.astype(np.float32) for vector in vectors]).astype(np.float64)
    lengths = np.linalg.norm(axes, axis=1, keepdims=True)
    return axes / np.where(lengths > 0, lengths, 1), values, float(np.trace(products))


def umap_points(rows: NDArray[np.float32], *, seed: int = 0) -> Floats:
    """Return a UMAP of rows, ``(n, 2)`` (McInnes, Healy and Melville 2018, arXiv 1802.03426), seeded.

    Args:
        rows: ``(n, dim)``, of all sets together.
        seed: Of its draws.

    Raises:
        UsageError: There are fewer than ten rows.
        MissingDependencyError: umap-learn is not installed.
    """
    if len(rows) < 10:
        raise UsageError(f"a UMAP of {len(rows)} images says nothing: choose --method pca")
    umap = require("umap", "umap")
    # One thread: with more, the same seed gives other points every time.
    fitted = umap.UMAP(
        n_components=2, n_neighbors=min(15, len(rows) - 1), metric="cosine", init="pca", random_state=seed, n_jobs=1
    )
    return np.asarray(fitted.fit_transform(rows), np.float64)
