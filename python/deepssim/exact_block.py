"""Scores of every row with every other: blocks of the matrix that a search never makes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from deepssim.errors import UsageError
from deepssim.search import exact_scores

__all__ = ["score_block"]

Floats = NDArray[np.float32]

# Half the distance between 1 and the next float64.
_UNIT = 2.0**-53


def score_block(a: Floats, b: Floats) -> Floats:
    """Return the score of each row of `a` with each row of `b`, ``(len(a), len(b))``.

    A score is the one that the search defines: the inner product over the reals, rounded to float64 and then to
    float32. Float64 sums of any order lie within ``dim * 2^-53 * |x| |y|`` of it (Higham, Accuracy and Stability of
    Numerical Algorithms, section 3.1; products of two float32 are exact); where both ends round to one float32, that
    is the score, and else the exact sum decides.

    Args:
        a: ``(n, dim)`` float32, finite.
        b: ``(m, dim)`` float32.

    Raises:
        UsageError: Shapes or types are others, or rows hold NaN or infinity.

    Example:
        >>> score_block(np.eye(2, dtype=np.float32), np.array([[0.5, 0.25]], np.float32)).tolist()
        [[0.5], [0.25]]
    """
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1] or a.dtype != np.float32 or b.dtype != np.float32:
        raise UsageError(f"scores are of two float32 arrays (n, dim), not {a.dtype} {a.shape} and {b.dtype} {b.shape}")
    wide = a.astype(np.float64), b.astype(np.float64)
    norms = [np.sqrt(np.einsum("ij,ij->i", rows, rows)) for rows in wide]
    if not all(np.isfinite(norm).all() for norm in norms):
        raise UsageError("rows hold NaN or infinity: no score is defined")
    sums = wide[0] @ wide[1].T
    # A little more than the bound, for the rounding of the bound itself.
    bound = np.outer(norms[0] * ((a.shape[1] + 4) * _UNIT * 1.01), norms[1])
    bound += np.finfo(np.float64).tiny
    low, high = (sums - bound).astype(np.float32), (sums + bound).astype(np.float32)
    # Zeros of both signs are one float32 and two patterns of bits; a sum that may be zero is decided exactly.
    rows, columns = np.nonzero((low != high) | (low == 0))
    step = max(1, 2**22 // max(1, a.shape[1]))
    for start in range(0, len(rows), step):
        i, j = rows[start : start + step], columns[start : start + step]
        low[i, j] = exact_scores(a[i], b[j])
    return low
