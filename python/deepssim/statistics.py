"""Rates with intervals. The person, not the image, is the unit of resampling where persons are known."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

LEVEL = 0.95
RESAMPLES = 2000
Z = 1.959963984540054  # the 97.5 % quantile of the normal distribution


@dataclass(frozen=True, slots=True)
class Rate:
    """A share and its confidence interval at `LEVEL`.

    Attributes:
        events: Numerator.
        total: Denominator.
        low: Lower end.
        high: Upper end.
        unit: ``"patient"`` or ``"image"``: what was taken as independent.
    """

    events: int
    total: int
    low: float
    high: float
    unit: str

    @property
    def rate(self) -> float:
        """``events / total``; 0 of 0 is 0."""
        return self.events / self.total if self.total else 0.0


def wilson_interval(events: int, total: int) -> tuple[float, float]:
    """Return Wilson's score interval of a proportion (Wilson 1927, J. Am. Stat. Assoc. 22:209).

    Example:
        >>> low, high = wilson_interval(5, 10)
        >>> round(low, 3), round(high, 3)
        (0.237, 0.763)
    """
    if total == 0:
        return 0.0, 1.0
    share = events / total
    centre = share + Z * Z / (2 * total)
    spread = Z * math.sqrt(share * (1 - share) / total + Z * Z / (4 * total * total))
    scale = 1 + Z * Z / total
    return max(0.0, (centre - spread) / scale), min(1.0, (centre + spread) / scale)


def extreme_bound(total: int) -> float:
    """Return the exact one-sided upper bound of a rate of which no event was seen in `total` trials."""
    return 1.0 - (1.0 - LEVEL) ** (1.0 / total) if total else 1.0


def image_rate(events: int, total: int) -> Rate:
    """Return a rate whose images are taken as independent."""
    if events == 0:
        return Rate(0, total, 0.0, extreme_bound(total), "image")
    low, high = wilson_interval(events, total)
    return Rate(events, total, low, high, "image")


def patient_rate(events: NDArray[np.int64], totals: NDArray[np.int64], *, seed: int = 0) -> Rate:
    """Return a rate over images whose patients are taken as independent.

    Patients are drawn with replacement; the interval is the percentile interval of the ratio. Without an
    event (or with nothing else) resampling says nothing, and the exact bound for that many patients is
    given.

    Args:
        events: ``(n_patients,)`` images of each with the event.
        totals: ``(n_patients,)`` images of each.
        seed: Of the resampling.
    """
    used = totals > 0
    events, totals = events[used], totals[used]
    n, seen, total = len(totals), int(events.sum()), int(totals.sum())
    if seen == 0:
        return Rate(0, total, 0.0, extreme_bound(n), "patient")
    if seen == total:
        return Rate(seen, total, 1.0 - extreme_bound(n), 1.0, "patient")
    if n < 2:
        return Rate(seen, total, 0.0, 1.0, "patient")
    rng = np.random.default_rng(seed)
    ratios = np.empty(RESAMPLES)
    for i in range(RESAMPLES):
        drawn = rng.integers(0, n, n)
        ratios[i] = events[drawn].sum() / totals[drawn].sum()
    low, high = np.quantile(ratios, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Rate(seen, total, float(low), float(high), "patient")


def proportion_of_patients(events: int, total: int) -> Rate:
    """Return the share of patients with an event."""
    low, high = wilson_interval(events, total)
    if events == 0:
        low, high = 0.0, extreme_bound(total)
    return Rate(events, total, low, high, "patient")


def sign_test(wins: int, losses: int) -> float:
    """Return the one-sided exact p-value that `wins` exceed `losses` by chance alone.

    Example:
        >>> sign_test(5, 0)
        0.03125
    """
    n = wins + losses
    if n == 0 or wins == 0:
        return 1.0
    k = np.arange(wins, n + 1)
    lgamma = np.vectorize(math.lgamma)
    logs = math.lgamma(n + 1) - lgamma(k + 1) - lgamma(n - k + 1) - n * math.log(2.0)
    peak = logs.max()
    return float(min(1.0, math.exp(peak) * np.exp(logs - peak).sum()))
