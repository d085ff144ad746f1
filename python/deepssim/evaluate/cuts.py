"""Cuts of scores whose truth is known."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from deepssim.errors import UsageError
from deepssim.evaluate.classes import EXACT, N_CLASSES, NEAR, UNRELATED

__all__ = ["best_cuts", "best_registered_cuts", "rate_at_false_positives"]

Labels = NDArray[np.int64]
Scores = NDArray[np.float64]


def best_cuts(scores: Scores, truth: Labels, *, n_grid: int = 400) -> tuple[float, float]:
    """Return the two cuts of one score that give the highest macro F1.

    Cuts lie halfway between neighbouring scores, at most `n_grid` of them at even ranks; of several best pairs
    the one in the middle of the first run is taken, so that the margin is shared.

    Args:
        scores: ``(n,)`` higher is closer.
        truth: ``(n,)`` classes.
        n_grid: Cuts that are tried for each of the two.

    Returns:
        The near and the exact cut, for `labels_of`.

    Raises:
        UsageError: There are no scores.
    """
    if len(scores) == 0:
        raise UsageError("there are no scores to choose cuts from")
    order = np.argsort(scores, kind="stable")
    ordered = np.asarray(scores, np.float64)[order]
    # Places where a cut can be: before the first, after the last, and between scores that differ.
    places = np.concatenate([[0], np.flatnonzero(np.diff(ordered)) + 1, [len(ordered)]])
    places = places[np.unique(np.linspace(0, len(places) - 1, n_grid + 1).astype(int))]
    counts = np.concatenate([np.zeros((1, N_CLASSES)), np.cumsum(np.eye(N_CLASSES)[truth[order]], axis=0)])
    below, total = counts[places], counts[-1]
    # (near cut, exact cut, class): what is labelled unrelated, exact and near, in the order of the classes.
    labelled = np.stack(
        np.broadcast_arrays(below[:, None], (total - below)[None], below[None] - below[:, None]), axis=2
    )
    hits = labelled[:, :, range(N_CLASSES), range(N_CLASSES)]
    sizes = labelled.sum(axis=3) + total
    value = np.divide(2 * hits, sizes, out=np.zeros_like(hits), where=sizes > 0).mean(axis=2)
    value[np.tril_indices(len(places), -1)] = -1.0  # the near cut is the lower one
    best = np.argwhere(value >= value.max() - 1e-12)
    i, j = best[len(best) // 2]
    return _cut_at(ordered, int(places[i])), _cut_at(ordered, int(places[j]))


def _cut_at(ordered: Scores, place: int) -> float:
    """Return a cut under which `place` of the scores lie, halfway to the next."""
    if place == 0:
        return float(np.nextafter(ordered[0], -np.inf))
    if place == len(ordered):
        return float(np.nextafter(ordered[-1], np.inf))
    middle = ordered[place - 1] + (ordered[place] - ordered[place - 1]) / 2
    return float(middle if middle > ordered[place - 1] else ordered[place])


def rate_at_false_positives(positives: Scores, negatives: Scores, share: float) -> tuple[float, float]:
    """Return the share of positives over the lowest cut that at most a share of negatives reaches, and the cut.

    Args:
        positives: Scores of copies.
        negatives: Scores of unrelated images, each its highest over the base.
        share: Of negatives that may reach the cut, 0 to 1.

    Raises:
        UsageError: One side is empty.

    Example:
        >>> rate_at_false_positives(np.array([0.8, 0.9]), np.array([0.1, 0.85]), 0.0)[0]
        0.5
    """
    if len(positives) == 0 or len(negatives) == 0:
        raise UsageError("both copies and unrelated images are needed")
    allowed = int(np.floor(share * len(negatives) + 1e-9))
    descending = np.sort(np.asarray(negatives, np.float64))[::-1]
    cut = -np.inf if allowed >= len(descending) else float(np.nextafter(descending[allowed], np.inf))
    return float((positives >= cut).mean()), cut


def best_registered_cuts(s1: Scores, s2: Scores, truth: Labels) -> tuple[float, float]:
    """Return the cuts of registered pairs: of S1 between copies and others, of S2 between exact and near copies.

    Each is the one that gives the highest mean F1 of the two sides, as `best_cuts` chooses it; the second looks at
    the true copies alone.

    Args:
        s1: ``(n,)`` higher is closer.
        s2: ``(n,)`` likewise.
        truth: ``(n,)`` classes.

    Raises:
        UsageError: There are no copies, or only copies.

    Example:
        >>> s1, s2 = np.array([0.2, 0.8, 0.9]), np.array([0.1, 0.5, 0.9])
        >>> near, exact = best_registered_cuts(s1, s2, np.array([0, 2, 1]))
        >>> round(near, 3), round(exact, 3)
        (0.5, 0.7)
    """
    is_copy = truth != UNRELATED
    if not is_copy.any() or is_copy.all():
        raise UsageError("both copies and unrelated pairs are needed to choose thresholds")
    near = best_cuts(s1, np.where(is_copy, NEAR, UNRELATED).astype(np.int64))[0]
    exact = best_cuts(s2[is_copy], np.where(truth[is_copy] == EXACT, EXACT, UNRELATED).astype(np.int64))[1]
    return near, exact
