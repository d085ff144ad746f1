"""What several figures have in common: thresholds on an axis, panels, notes in words."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepssim.plots.style import INK, MUTED, plain

__all__ = ["draw_thresholds", "fit_name", "grid_of", "note", "panels", "percent", "short", "widen"]

_WORD_SIZE = 8.5  # of the words over the panels, in points
_LINE = 11.0  # from one line of these words to the next, in points
_WORDS_SHARE = 0.3  # of an axis that such words may take
_LETTERS_PER_INCH = 12  # of 10 points


def short(value: float) -> str:
    """Return a threshold as a person writes it.

    Example:
        >>> short(0.85), short(0.8030425), short(-0.0)
        ('0.85', '0.80304', '0')
    """
    return f"{value + 0.0:.5g}" if value else "0"


def percent(share: float) -> str:
    """Return a share in percent, with more digits the smaller it is.

    Example:
        >>> percent(0.5), percent(0.0123), percent(0.0004), percent(0.999), percent(0)
        ('50 %', '1.2 %', '0.04 %', '99.9 %', '0 %')
    """
    value = share * 100
    if value in (0, 100):
        return f"{value:.0f} %"
    if 99 < value < 100:
        return f"{math.floor(value * 10) / 10:.1f} %"  # not all is never shown as all
    if 0 < value < 0.01:
        return "< 0.01 %"
    return f"{value:.{0 if value >= 9.95 else 1 if value >= 0.995 else 2}f} %"


def draw_thresholds(axes: Any, marks: Sequence[tuple[str, float, str]]) -> None:
    """Draw dashed vertical lines, their words above the axes: the lower one's to its left, the others' to the right.

    Where there is no room to the left, words that would meet stand on lines of their own.

    Args:
        axes: Where.
        marks: (word, value, comparison) of each.
    """
    signs = {">": ">", ">=": "\u2265", "<": "<", "<=": "\u2264"}
    ordered = sorted(marks, key=lambda mark: mark[1])
    low, high = axes.get_xlim()
    line, taken = 0, -math.inf
    for place, (word, value, comparison) in enumerate(ordered):
        axes.axvline(value, color=INK, linestyle=(0, (4, 3)), linewidth=1, zorder=4)
        share = (value - low) / (high - low)
        is_left = place == 0 and len(ordered) > 1
        side = "right" if is_left and share > 0.25 else "left" if share < 0.7 or not is_left else "right"
        if not is_left and share > 0.8 and len(ordered) == 1:
            side = "right"
        text = f"{word} {signs[comparison]} {short(value)}"
        line = line + 1 if side == "left" and share < taken else 0
        if side == "left":
            taken = share + _WORDS_SHARE
        axes.annotate(
            f"{text} " if side == "right" else f" {text}", (value, 1), xycoords=("data", "axes fraction"),
            xytext=(0, 2 + _LINE * line), textcoords="offset points", ha=side, va="bottom", fontsize=_WORD_SIZE,
            color=INK,
        )  # fmt: skip


def widen(
    values: Sequence[NDArray[np.float64]], marks: Sequence[float], *, margin: float = 0.03
) -> tuple[float, float]:
    """Return ends of an axis that hold all values and marks, also where there is but one."""
    ends = [float(end) for one in values if len(one) for end in (one.min(), one.max())] + list(marks)
    low, high = min(ends), max(ends)
    room = (high - low) * margin or max(abs(low) * 0.05, 0.05)
    return low - room, high + room


def grid_of(n: int) -> tuple[int, int]:
    """Return rows and columns for n panels.

    Example:
        >>> [grid_of(n) for n in (1, 3, 4, 5)]
        [(1, 1), (1, 3), (2, 2), (2, 3)]
    """
    columns = n if n <= 3 else 2 if n == 4 else 3
    return math.ceil(n / columns), columns


def panels(figure: Any, n: int) -> list[Any]:
    """Return axes for n panels, row by row, and no empty ones."""
    rows, columns = grid_of(n)
    grid = figure.subplots(rows, columns, squeeze=False)
    flat = list(grid.flat)
    for axes in flat[n:]:
        axes.remove()
    return flat[:n]


def fit_name(name: str, inches: float, *, points: float = 10) -> str:
    """Return a name that fits into a width, without its middle where it is too long.

    Args:
        name: Of a metric.
        inches: The width.
        points: Size of the letters.

    Example:
        >>> fit_name("/data/metrics/of-mine/encoder.onnx", 2)
        '/data/metri…encoder.onnx'
    """
    text = plain(name)
    most = max(int(inches * _LETTERS_PER_INCH * 10 / points), 8)
    if len(text) <= most:
        return text
    return f"{text[: (most - 1) // 2]}\u2026{text[-(most // 2) :]}"


def note(axes: Any, text: str) -> None:
    """Say in an empty panel why it is empty."""
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", color=MUTED, fontsize=10)
