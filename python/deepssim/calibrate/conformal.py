"""A threshold with a promise: an unrelated image of the same kind passes it at most so often.

The nearest score of a new unrelated image is as likely to take any place among those of n others as any other place. So
it lies over the k-th highest of them with a probability of at most k / (n + 1), whatever the distribution: the
threshold for a rate is the k-th highest for the largest k that keeps to it (split conformal prediction; Vovk, Gammerman
and Shafer, Algorithmic Learning in a Random World, 2005; Lei et al., J. Am. Stat. Assoc. 113:1094, 2018).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deepssim.calibration import Curve
from deepssim.errors import UsageError
from deepssim.statistics import LEVEL, RESAMPLES

__all__ = [
    "RateCut",
    "cut_for_rate",
    "cut_for_recall",
    "exact_bounds",
    "least_images",
    "rate_interval",
    "rounded_up",
    "sensitivity",
]

_TOLERANCE = 1e-9
_CURVE_POINTS = 100
_DECIMALS = 4
# Of metrics whose scores all lie close to 1, four decimals would leave no room over the threshold.
_MOST_DECIMALS = 8
_NEARER = 0.05

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class RateCut:
    """A threshold and what it promises.

    Attributes:
        value: A score passes where it is higher.
        rate: Highest probability with which a new unrelated image passes, k / (n + 1).
        rank: k: the threshold is the k-th highest of the scores, rounded up.
        total: n, unrelated images.
    """

    value: float
    rate: float
    rank: int
    total: int


def least_images(rate: float) -> int:
    """Return how many unrelated images a rate needs at least.

    Example:
        >>> least_images(0.01), least_images(0.05)
        (99, 19)
    """
    return max(1, math.ceil(1.0 / rate - _TOLERANCE) - 1)


def cut_for_rate(values: Floats, rate: float) -> RateCut:
    """Return the lowest threshold that a new unrelated image passes at most at a rate.

    Args:
        values: ``(n,)`` nearest score of each unrelated image.
        rate: Between 0 and 1.

    Raises:
        UsageError: The rate is not between 0 and 1, a score is not finite, or there are too few images; says how many
            are needed.

    Example:
        >>> cut_for_rate(np.arange(99.0) / 100, 0.02)
        RateCut(value=0.97, rate=0.02, rank=2, total=99)
    """
    if not 0.0 < rate < 1.0:
        raise UsageError(f"a false-positive rate lies between 0 and 1, not {rate}")
    values = np.asarray(values, np.float64)
    if not np.isfinite(values).all():
        raise UsageError("a score is not finite, and no threshold can be chosen")
    n = len(values)
    rank = math.floor(rate * (n + 1) + _TOLERANCE)
    if rank < 1:
        best = f", or ask for a rate of {rounded_up(1.0 / (n + 1)):g} or more" if n else ""
        raise UsageError(
            f"a false-positive rate of {rate:g} needs {least_images(rate):,} unrelated images or more, there are "
            f"{n:,}: give more of them{best}"
        )
    rank = min(rank, n)
    return RateCut(_short(float(np.partition(values, n - rank)[n - rank])), rank / (n + 1), rank, n)


def cut_for_recall(values: Floats, recall: float) -> float:
    """Return the highest threshold that a new copy reaches (``>=``) with at least a probability.

    Args:
        values: ``(n,)`` best score of each copy.
        recall: Between 0 and 1.

    Raises:
        UsageError: The recall is not between 0 and 1, or there are too few copies; says how many are needed.

    Example:
        >>> cut_for_recall(np.arange(1, 20) / 20, 0.95)
        0.05
    """
    if not 0.0 < recall < 1.0:
        raise UsageError(f"a recall lies between 0 and 1, not {recall}")
    values = np.sort(np.asarray(values, np.float64))
    rank = math.floor((1.0 - recall) * (len(values) + 1) + _TOLERANCE)
    if rank < 1:
        raise UsageError(
            f"a recall of {recall:g} needs {least_images(1.0 - recall):,} copies or more, there are {len(values):,}: "
            "plant more of them, or ask for a lower recall"
        )
    return float(values[min(rank, len(values)) - 1])


def _short(value: float) -> float:
    """Return a score of few decimals that is not lower, and hardly nearer to 1, the highest score there is."""
    decimals = _DECIMALS
    while value < 1.0 and decimals < _MOST_DECIMALS and rounded_up(value, decimals) - value > _NEARER * (1.0 - value):
        decimals += 1
    return rounded_up(value, decimals)


def rounded_up(value: float, decimals: int = _DECIMALS) -> float:
    """Return a number of few decimals that is not lower.

    Example:
        >>> rounded_up(0.12341), rounded_up(0.1234)
        (0.1235, 0.1234)
    """
    scale = 10**decimals
    rounded = round(math.ceil(value * scale - _TOLERANCE) / scale, decimals)
    return float(rounded if rounded >= value else round(rounded + 1 / scale, decimals))


def exact_bounds(rank: int, total: int) -> tuple[float, float]:
    """Return the 95 % interval of the true rate over the k-th highest of n independent scores.

    Over all draws of n scores of one continuous distribution the rate over the k-th highest has the distribution
    Beta(k, n + 1 - k) (order statistics; David and Nagaraja, Order Statistics, 3rd ed., section 2.1).

    Args:
        rank: k, from 1 to n.
        total: n.

    Example:
        >>> [round(bound, 4) for bound in exact_bounds(5, 499)]
        [0.0033, 0.0204]
    """
    low, high = ((1 - LEVEL) / 2, (1 + LEVEL) / 2)
    return _beta_quantile(low, rank, total), _beta_quantile(high, rank, total)


def _beta_quantile(share: float, rank: int, total: int) -> float:
    """Find x where at least `rank` of `total` draws of probability x succeed with probability `share`."""
    i = np.arange(rank)
    log_factorial = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, total + 1)))])
    logs = log_factorial[total] - log_factorial[i] - log_factorial[total - i]
    low, high = 0.0, 1.0
    for _ in range(60):
        x = (low + high) / 2
        fewer = float(np.exp(logs + i * math.log(x) + (total - i) * math.log1p(-x)).sum())
        low, high = (x, high) if 1.0 - fewer < share else (low, x)
    return (low + high) / 2


def rate_interval(
    values: Floats, cut: RateCut, images: NDArray[np.generic], people: NDArray[np.generic], *, seed: int = 0
) -> tuple[float, float]:
    """Return a 95 % interval of the rate over a threshold that was chosen on the same images.

    The wider, at each end, of two: that of independent images (`exact_bounds`), and the percentile interval when both
    the unrelated images and the people of the base are drawn with replacement, independently (the pigeonhole
    bootstrap; Owen, Ann. Appl. Stat. 1:386, 2007), since images whose nearest is one person are not independent. It is
    of the rate against this base; where a few people are the nearest of many images, the rate against a base of other
    people lies outside more often than one time in twenty.

    Args:
        values: ``(n,)`` nearest score of each unrelated image.
        cut: Chosen on them.
        images: ``(n,)`` what is drawn together: the person of an image where it has one, else the image.
        people: ``(n,)`` the person of its nearest image.
        seed: Of the resampling.
    """
    low, high = exact_bounds(cut.rank, cut.total)
    # The threshold is the lowest of these, so as many count as its rank says.
    over = np.zeros(len(values), bool)
    over[np.argsort(-np.asarray(values, np.float64), kind="stable")[: cut.rank]] = True
    (_, by_image), (_, by_person) = (np.unique(each, return_inverse=True) for each in (images, people))
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(RESAMPLES):
        weight = _drawn(rng, by_image) * _drawn(rng, by_person)
        if (total := weight.sum()) > 0:
            found.append(weight[over].sum() / total)
    drawn = np.quantile(found, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return min(low, float(drawn[0])), max(high, float(drawn[1]))


def _drawn(rng: np.random.Generator, owner: NDArray[np.int64]) -> Floats:
    """Return how often each image's owner is drawn, of as many draws as there are owners."""
    n = int(owner.max()) + 1
    return np.bincount(rng.integers(0, n, n), minlength=n)[owner].astype(np.float64)


def sensitivity(unrelated: Floats | None, copies: Floats | None = None) -> Curve:
    """Return what share of unrelated images and of copies reaches each of some thresholds.

    Args:
        unrelated: ``(n,)`` nearest scores; None: there are none.
        copies: ``(m,)`` best scores; None: there are none.

    Returns:
        At most 101 thresholds, evenly from the lowest to just over the highest score.

    Example:
        >>> curve = sensitivity(np.array([0.1, 0.2]), np.array([0.2, 0.3]))
        >>> curve.cuts[0], curve.unrelated[0], curve.copies[-1]
        (0.1, 1.0, 0.0)
    """
    known = [np.asarray(values, np.float64) for values in (unrelated, copies) if values is not None]
    joined = np.concatenate(known)
    if len(joined) == 0:
        raise UsageError("there are no scores to draw a curve of")
    low, high = math.floor(joined.min() * 1000) / 1000, rounded_up(float(joined.max()) + 1e-3, 3)
    cuts = np.unique(np.linspace(low, high, _CURVE_POINTS + 1).round(_DECIMALS))
    shares = [
        None
        if values is None
        else tuple((1.0 - np.searchsorted(np.sort(values), cuts, side="left") / max(1, len(values))).round(6))
        for values in (unrelated, copies)
    ]
    return Curve(tuple(cuts.tolist()), unrelated=shares[0], copies=shares[1])
