"""Densities of scores, a row for each class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepssim.evaluate import EXACT, NEAR, UNRELATED
from deepssim.plots.marks import draw_thresholds, fit_name, grid_of, panels, percent, widen
from deepssim.plots.scored import ScoredPairs, Stage
from deepssim.plots.style import MUTED, Look, new_figure, styled

__all__ = ["LEAST_PAIRS", "density", "draw_densities"]

Floats = NDArray[np.float64]

# Of fewer pairs a smooth curve would claim a shape that nobody has seen: they are drawn as ticks alone.
LEAST_PAIRS = 25
MOST_TICKS = 1000
GRID = 1024
# The rows of a panel from the top: a row is 1 high, of which the ticks take the lowest part.
ROWS = (UNRELATED, NEAR, EXACT)
TICKS, BASE, TOP = (0.06, 0.17), 0.22, 0.94


def density(values: Floats, low: float, high: float, *, n_grid: int = GRID) -> tuple[Floats, Floats]:
    """Return the Gaussian kernel density of values on an even grid.

    The bandwidth is Silverman's (Density Estimation, 1986, eq. 3.31); values are put into the grid's cells first, so
    that the cost does not grow with their number times the grid. What would lie beyond the ends is reflected: a score
    has bounds.

    Args:
        values: ``(n,)``, not all equal.
        low: Lower end of the grid.
        high: Upper end.
        n_grid: Points of the grid.

    Returns:
        Grid and density, ``(n_grid,)`` each; the area under it is 1.

    Example:
        >>> x, y = density(np.array([0.2, 0.4, 0.45, 0.6]), 0.0, 1.0)
        >>> round(float((y[1:] + y[:-1]).sum() / 2 * (x[1] - x[0])), 2)
        1.0
    """
    step = (high - low) / n_grid
    counts = np.histogram(values, n_grid, (low, high))[0] / len(values)
    quartiles = np.subtract(*np.percentile(values, [75, 25])) / 1.349
    deviation = float(values.std(ddof=1))
    width = 0.9 * (min(deviation, float(quartiles)) or deviation) * len(values) ** -0.2
    width = max(width, step)  # the grid can show no finer
    reach = int(np.ceil(4 * width / step))
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) * step / width) ** 2)
    kernel /= kernel.sum()
    # Mirrored at both ends, as often as the kernel reaches.
    padded = np.pad(counts, reach, mode="symmetric")
    smooth = np.convolve(padded, kernel, mode="valid") / step
    return np.asarray(low + (np.arange(n_grid) + 0.5) * step, np.float64), smooth


@styled
def draw_densities(scored: Sequence[ScoredPairs], look: Look | None = None) -> Any:
    r"""Draw how scores are distributed within each class: a panel a metric, a row a class.

    A row has the density of its pairs, and a tick for each of them below. Each density is as high as its row: heights
    compare within a row alone. A class of few pairs has ticks alone. Beside a row stands how many of its pairs reach
    each threshold.

    Args:
        scored: One or more metrics.
        look: Palette, title and size.

    Returns:
        The Matplotlib figure.

    Raises:
        MissingDependencyError: Matplotlib is not installed.

    Example:
        >>> pairs = ScoredPairs("ssim", np.linspace(0, 1, 60), np.repeat([0, 2, 1], [30, 25, 5]))
        >>> [text.get_text() for text in draw_densities([pairs]).axes[0].get_yticklabels()]
        ['unrelated\n30 pairs', 'near copy\n25 pairs', 'exact copy\n5 pairs']
    """
    look = look or Look()
    stages = [stage for one in scored for stage in one.stages()]
    rows, columns = grid_of(len(stages))
    size = (6.4, 4.4) if len(stages) == 1 else (5.4 * columns, 3.8 * rows)
    figure = new_figure(look, size)
    width = (look.size or size)[0] / columns * 0.7
    for axes, stage in zip(panels(figure, len(stages)), stages, strict=True):
        _draw(axes, stage, look)
        axes.set_xlabel(f"{stage.axis} of {fit_name(stage.name, width)}" if stage.axis == "distance" else
                        fit_name(stage.name, width))  # fmt: skip
    return figure


def _draw(axes: Any, stage: Stage, look: Look) -> None:
    palette = look.colours
    low, high = widen([stage.values], [value for _, value, _ in stage.marks], margin=0.1)
    ends = float(stage.values.min()), float(stage.values.max())
    labels = []
    for row, label in enumerate(ROWS):
        bottom = len(ROWS) - 1 - row
        values = stage.values[stage.labels == label]
        colour = palette.classes[label]
        axes.axhline(bottom + BASE, color=MUTED, linewidth=0.6, zorder=1)
        shown = values
        if len(values) > MOST_TICKS:  # evenly by rank, the ends with them
            shown = np.sort(values)[np.linspace(0, len(values) - 1, MOST_TICKS).round().astype(int)]
        axes.vlines(shown, bottom + TICKS[0], bottom + TICKS[1], color=colour, linewidth=0.7, zorder=2)
        if len(values) >= LEAST_PAIRS and values.min() < values.max():
            x, y = density(values, *_bounds(stage, ends))
            y = bottom + BASE + y / y.max() * (TOP - BASE)
            axes.fill_between(x, bottom + BASE, y, facecolor=colour, alpha=0.55, linewidth=0, zorder=2,
                              hatch=palette.hatches[label] or None, edgecolor="white")  # fmt: skip
            is_there = y > bottom + BASE + 0.003
            axes.plot(x, np.where(is_there, y, np.nan), color=colour, linewidth=1.4, zorder=3)
        labels.append(f"{palette.words[label]}\n{len(values):,} {'pair' if len(values) == 1 else 'pairs'}")
        _say_shares(axes, stage, values, bottom + BASE + 0.06)
    axes.set_yticks([len(ROWS) - 1 - row + 0.5 for row in range(len(ROWS))], labels)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.set(xlim=(low, high), ylim=(0, len(ROWS)))
    draw_thresholds(axes, stage.marks)


def _bounds(stage: Stage, ends: tuple[float, float]) -> tuple[float, float]:
    """Return where densities end: where scores do by their nature, if they come near, else well beyond the values."""
    room = (ends[1] - ends[0]) * 0.15
    least, most = (0.0, 2.0) if stage.axis == "distance" else (-1.0, 1.0)
    low, high = ends[0] - room, ends[1] + room
    return (max(low, least) if ends[0] >= least else low), (min(high, most) if ends[1] <= most else high)


def _say_shares(axes: Any, stage: Stage, values: Floats, height: float) -> None:
    if len(values) == 0 or not stage.marks:
        return
    parts = [
        f"{percent(stage.share(values, value, comparison))} pass {word}" for word, value, comparison in stage.marks
    ]
    axes.annotate("\n".join(parts), (1, height), xycoords=("axes fraction", "data"), xytext=(6, 0),
                  textcoords="offset points", fontsize=8.5, color=MUTED, va="bottom", linespacing=1.35)  # fmt: skip
