"""Two metrics on the same pairs: is one better, or was it the choice of people?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepssim.statistics import LEVEL, extreme_bound, sign_test

__all__ = ["Comparison", "McNemar", "compare_metrics", "holm", "mcnemar"]

Draws = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class McNemar:
    """The test that published tables give; it takes every pair as independent of every other.

    Attributes:
        first_only: Pairs that the first metric alone labels rightly.
        second_only: Pairs that the second alone does.
        p: Two-sided exact p-value.
    """

    first_only: int
    second_only: int
    p: float


@dataclass(frozen=True, slots=True)
class Comparison:
    """The difference of two metrics in one figure, on the same draws of people.

    Attributes:
        first: Name of a metric.
        second: Of the other.
        figure: "macro_f1", "auc_exact" or "auc_copies".
        difference: First less second.
        low: Lower end of its interval.
        high: Upper end.
        p: Two-sided p-value of no difference, from the draws; not below 2 / (draws + 1).
        p_holm: Corrected for all comparisons of this figure (Holm 1979); `p` where there is but one.
        mcnemar: The published convention; None for figures without labels.
    """

    first: str
    second: str
    figure: str
    difference: float
    low: float
    high: float
    p: float
    p_holm: float
    mcnemar: McNemar | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return it for JSON."""
        return asdict(self)


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values corrected for their number by Holm's step-down method, in the same order.

    Holm, "A simple sequentially rejective multiple test procedure", Scandinavian Journal of Statistics 6, 1979.

    Example:
        >>> [round(p, 3) for p in holm([0.01, 0.04, 0.03])]
        [0.03, 0.06, 0.06]
    """
    order = np.argsort(p_values, kind="stable")
    out = [1.0] * len(p_values)
    least = 0.0
    for rank, place in enumerate(order.tolist()):
        least = max(least, min(1.0, (len(p_values) - rank) * p_values[place]))
        out[place] = least
    return out


def mcnemar(is_right: NDArray[np.bool_], is_right_too: NDArray[np.bool_]) -> McNemar:
    """Test whether two metrics label equally many pairs rightly, taking pairs as independent.

    McNemar, Psychometrika 12, 1947, in its exact binomial form.

    Args:
        is_right: ``(n,)`` whether the first metric labels each pair rightly.
        is_right_too: ``(n,)`` whether the second does.

    Example:
        >>> mcnemar(np.array([1, 1, 1, 1, 1, 0]) > 0, np.array([0, 0, 0, 0, 0, 0]) > 0).p
        0.0625
    """
    first, second = int((is_right & ~is_right_too).sum()), int((is_right_too & ~is_right).sum())
    return McNemar(first, second, min(1.0, 2 * sign_test(max(first, second), min(first, second))))


def compare_metrics(
    values: Mapping[str, Mapping[str, float]],
    draws: Mapping[str, Mapping[str, Draws]],
    is_right: Mapping[str, NDArray[np.bool_] | None],
    n_units: int,
) -> list[Comparison]:
    """Compare all metrics two by two.

    Args:
        values: Of each metric, the value of each figure.
        draws: The same on draws that all metrics share, ``(n_draws,)``; NaN where a draw lacks a class.
        is_right: Of each metric, which pairs it labels rightly; None where it has no thresholds.
        n_units: People that the figures rest on: the bound where nothing differs in any draw.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> noise = rng.normal(size=200) / 100
        >>> found = compare_metrics(
        ...     {"a": {"auc_exact": 0.9}, "b": {"auc_exact": 0.8}},
        ...     {"a": {"auc_exact": 0.9 + noise}, "b": {"auc_exact": 0.8 + noise}}, {"a": None, "b": None}, 20)
        >>> round(found[0].difference, 3), found[0].p < 0.05
        (0.1, True)
    """
    out: list[Comparison] = []
    figures = list(dict.fromkeys(figure for of_metric in values.values() for figure in of_metric))
    for figure in figures:
        names = [name for name in values if figure in values[name] and np.isfinite(values[name][figure])]
        found = []
        for first, second in combinations(names, 2):
            differences = draws[first][figure] - draws[second][figure]
            low, high, p = _interval(differences[np.isfinite(differences)], n_units)
            difference = values[first][figure] - values[second][figure]
            found.append((first, second, difference, low, high, p))
        corrected = holm([p for *_, p in found])
        for (first, second, difference, low, high, p), p_holm in zip(found, corrected, strict=True):
            a, b = is_right[first], is_right[second]
            test = mcnemar(a, b) if figure == "macro_f1" and a is not None and b is not None else None
            out.append(Comparison(first, second, figure, difference, low, high, p, p_holm, test))
    return out


def _interval(differences: Draws, n_units: int) -> tuple[float, float, float]:
    n = len(differences)
    if n == 0 or n_units < 2:
        return -1.0, 1.0, 1.0
    if not differences.any():
        # No difference in any draw: what so many people cannot rule out.
        bound = extreme_bound(n_units)
        return -bound, bound, 1.0
    low, high = np.quantile(differences, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    fewer = min(int((differences <= 0).sum()), int((differences >= 0).sum()))
    return float(low), float(high), min(1.0, 2 * (fewer + 1) / (n + 1))
