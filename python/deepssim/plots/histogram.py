"""The histogram of scores by class, as it is published for these metrics."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepssim.evaluate import EXACT, NEAR, UNRELATED
from deepssim.plots.marks import draw_thresholds, fit_name, grid_of, panels, widen
from deepssim.plots.scored import ScoredPairs, Stage
from deepssim.plots.style import Look, Palette, lay_out, new_figure, styled

__all__ = ["N_BINS", "count_scores", "draw_histogram"]

N_BINS = 55
# Of the published figure: the order of the legend, and that of the bars where they tie.
ORDER = (UNRELATED, EXACT, NEAR)


def count_scores(
    values: NDArray[np.float64], labels: NDArray[np.int64], n_bins: int = N_BINS, *, is_stored: bool = False
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Count values by bin and class; the bins are of one width and span all values.

    Args:
        values: ``(n,)``.
        labels: ``(n,)`` classes.
        n_bins: Number of bins.
        is_stored: Whether edges are rounded to the precision that the values were stored with, as the reference
            implementation has them: it computes edges in the float16 of its matrices, and bins differ in width then.

    Returns:
        Edges ``(n_bins + 1,)`` and counts ``(3, n_bins)`` by class.

    Example:
        >>> edges, counts = count_scores(np.array([0.0, 0.1, 1.0]), np.array([0, 0, 1]), 2)
        >>> edges.tolist(), counts.tolist()
        ([0.0, 0.5, 1.0], [[2, 0], [0, 1], [0, 0]])
    """
    precision = stored_precision(values) if is_stored else np.float64
    edges = np.histogram_bin_edges(values.astype(precision), bins=n_bins).astype(np.float64)
    return edges, np.stack([np.histogram(values[labels == label], edges)[0] for label in range(3)]).astype(np.int64)


def stored_precision(values: NDArray[np.float64]) -> type[np.floating[Any]]:
    """Return the coarsest floating-point type that holds all values.

    Example:
        >>> stored_precision(np.array([0.5, 0.25])).__name__, stored_precision(np.array([0.1])).__name__
        ('float16', 'float64')
    """
    with np.errstate(over="ignore"):
        for precision in (np.float16, np.float32):
            if np.array_equal(values.astype(precision), values):
                return precision
    return np.float64


@styled
def draw_histogram(
    scored: Sequence[ScoredPairs], look: Look | None = None, *, n_bins: int = N_BINS, is_stored: bool = False
) -> Any:
    """Draw how many pairs of each class have which score: a panel a metric.

    Bars of the classes lie over one another, the shorter one in front, so that none hides another. Thresholds are
    dashed lines. The vertical axis is hidden: heights compare within a panel alone.

    Args:
        scored: One or more metrics.
        look: Palette, title and size.
        n_bins: Bins over all scores of a panel.
        is_stored: See `count_scores`.

    Returns:
        The Matplotlib figure.

    Raises:
        MissingDependencyError: Matplotlib is not installed.

    Example:
        >>> pairs = ScoredPairs("ssim", np.array([0.2, 0.3, 0.9]), np.array([0, 0, 1]))
        >>> figure = draw_histogram([pairs], Look(palette="reference", title="SSIM"))
        >>> len(figure.axes[0].patches)  # three classes would be 165, but none is near
        110
    """
    look = look or Look()
    stages = [stage for one in scored for stage in one.stages()]
    is_single = len(stages) == 1
    rows, columns = grid_of(len(stages))
    size = (6.0, 5.0) if is_single else (4.4 * columns, 3.9 * rows)
    # Of one panel the title stands below, as published; of several it stands above all.
    figure = new_figure(Look(look.palette, "" if is_single else look.title, look.size), size)
    names = [look.title if is_single and look.title else stage.name for stage in stages]
    width = (look.size or size)[0] / columns
    drawn = []
    for axes, stage, name in zip(panels(figure, len(stages)), stages, names, strict=True):
        edges, counts = count_scores(stage.values, stage.labels, n_bins, is_stored=is_stored)
        _draw(axes, stage, look.colours, (edges, counts))
        points = 15 if is_single else 12
        axes.set_xlabel(fit_name(name, width * 0.95, points=points), fontsize=points, labelpad=8)
        axes.tick_params(axis="x", labelsize=13 if is_single else 10)
        legend = axes.legend(loc="upper left", fontsize=11.5 if is_single else 9, frameon=True, framealpha=0.92,
                             edgecolor="none", borderaxespad=0.2, handlelength=1.6)  # fmt: skip
        drawn.append((axes, legend, edges, counts.max(axis=0)))
    lay_out(figure)  # so that the legends' places are known
    for axes, legend, edges, highest in drawn:
        _keep_clear(axes, legend, edges, highest)
    return figure


def _draw(axes: Any, stage: Stage, palette: Palette, counted: tuple[NDArray[np.float64], NDArray[np.int64]]) -> None:
    edges, counts = counted
    # Among equals the later class is in front, as published.
    ranks = np.argsort(np.argsort(-counts[list(ORDER)], axis=0, kind="stable"), axis=0, kind="stable")
    for place, label in enumerate(ORDER):
        n_pairs = int(counts[label].sum())
        if n_pairs == 0:
            continue
        bars = axes.bar(
            edges[:-1], counts[label], np.diff(edges), align="edge", color=palette.classes[label], edgecolor="black",
            linewidth=0.6, alpha=0.9, hatch=palette.hatches[label], label=f"{palette.words[label]} ({n_pairs:,})",
        )  # fmt: skip
        for at, bar in enumerate(bars):
            bar.set_zorder(2 + float(ranks[place, at]) / 10)
    axes.set_xlim(*widen([edges], [value for _, value, _ in stage.marks]))
    axes.set_ylim(0, float(counts.max()) * 1.05)
    axes.yaxis.set_visible(False)
    axes.spines["left"].set_visible(False)
    draw_thresholds(axes, stage.marks)


def _keep_clear(axes: Any, legend: Any, edges: NDArray[np.float64], highest: NDArray[np.int64]) -> None:
    """Raise the end of the vertical axis until no bar reaches the legend."""
    box = legend.get_window_extent().transformed(axes.transAxes.inverted())
    low, high = axes.get_xlim()
    under = edges[:-1] < low + (high - low) * box.x1
    if not under.any():
        return
    free = max(box.y0 - 0.03, 0.2)
    top = max(axes.get_ylim()[1], float(highest[under].max()) / free)
    axes.set_ylim(0, top)
