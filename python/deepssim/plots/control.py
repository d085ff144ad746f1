"""The nearest-score histogram of an audit, against the real images and against the control."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from deepssim.plots.marks import draw_thresholds, note
from deepssim.plots.style import HAIR, INK, MUTED, Look, new_figure, plain, styled
from deepssim.report.data import Rate, Summary, read_summary
from deepssim.report.figures import LINEAR_UP_TO, Bins, prepare

__all__ = ["draw_control", "read_summary"]


@styled
def draw_control(folder: Path, look: Look | None = None) -> Any:
    """Draw the best score of each synthetic image of an audit: real images above, the holdout below.

    With a holdout the filled bars are of as many real images as the holdout has, so that both sides compare; the line
    is of all real images. Counts over a dozen are on a logarithmic scale, so that a few copies among many images are
    seen. The counts are those of ``summary.json``, of all synthetic images.

    Args:
        folder: Results of an audit.
        look: Palette, title and size.

    Returns:
        The Matplotlib figure.

    Raises:
        ReportError: The folder is no audit's, or its summary is damaged.
        MissingDependencyError: Matplotlib is not installed.
    """
    look = look or Look()
    summary = read_summary(folder)
    counts = summary.histogram
    has_both = counts.real_matched is not None and counts.holdout is not None
    figure = new_figure(look, (7.2, 5.0 if has_both else 3.9))
    axes = figure.subplots()
    name = plain(summary.metric.name)
    axes.set_xlabel("S1 of the best candidate" if summary.is_verified else f"score of the nearest image, {name}")
    if not any(counts.real):
        note(axes, "the audit has no synthetic images")
        axes.set(xticks=[], yticks=[])
        return figure
    marks = _marks(summary)
    up = counts.real_matched if has_both and counts.real_matched is not None else counts.real
    bins = prepare(
        counts.edges, up, counts.real if has_both else None, counts.holdout if has_both else None,
        [value for _, value, _ in marks],
    )  # fmt: skip
    _draw(axes, bins, look)
    axes.set_xlim(bins.edges[0], bins.edges[-1])
    draw_thresholds(axes, [mark for mark in marks if bins.edges[0] <= mark[1] <= bins.edges[-1]])
    _name_sides(axes, summary, look, has_both=has_both)
    return figure


def _marks(summary: Summary) -> list[tuple[str, float, str]]:
    """Return the thresholds that lie on the axis; of a verified audit that of exact copies, S2, does not."""
    near, exact = summary.thresholds.near, summary.thresholds.exact
    marks = [("near", near.value, near.comparison), ("exact", exact.value, exact.comparison)]
    if summary.is_verified:
        return marks[:1]
    return marks if near.value != exact.value else marks[1:]


def _height(counts: Sequence[int], *, is_log: bool) -> Any:
    values = np.asarray(counts, np.float64)
    return np.log10(1 + values) if is_log else values


def _draw(axes: Any, bins: Bins, look: Look) -> None:
    palette = look.colours
    is_log = bins.highest > LINEAR_UP_TO
    edges = np.array(bins.edges)
    heights = _height(bins.up, is_log=is_log)
    axes.stairs(heights, edges, fill=True, color=palette.real, alpha=0.85, linewidth=0, zorder=2)
    if bins.outline is not None:
        outline = _height(bins.outline, is_log=is_log)
        axes.stairs(outline, edges, color=INK, linewidth=1, zorder=3)
    if bins.down is not None:
        down = _height(bins.down, is_log=is_log)
        axes.stairs(-down, edges, fill=True, facecolor=palette.holdout, alpha=0.85, edgecolor="white", hatch="////",
                    linewidth=0, zorder=2)  # fmt: skip
    axes.axhline(0, color=MUTED, linewidth=0.8, zorder=4)
    top = float(_height([max(bins.highest, 1)], is_log=is_log)[0])
    # Room above and below for the words.
    axes.set_ylim(-top * 1.3 if bins.down is not None else 0, top * 1.3)
    ticks = _ticks(bins.highest, is_log=is_log)
    places = [*(-_height(ticks[1:], is_log=is_log)[::-1] if bins.down is not None else []),
              *_height(ticks, is_log=is_log)]  # fmt: skip
    texts = [f"{tick:,}" for tick in ([*ticks[:0:-1], *ticks] if bins.down is not None else ticks)]
    axes.set_yticks(places, texts)
    axes.set_ylabel("synthetic images" + (", logarithmic" if is_log else ""))
    axes.grid(True, axis="y", color=HAIR)


def _ticks(highest: int, *, is_log: bool) -> list[int]:
    if is_log:
        factors = (1, 3) if highest < 300 else (1,)
        powers = range(int(math.log10(highest)) + 1)
        return [0, *(factor * 10**power for power in powers for factor in factors if factor * 10**power <= highest)]
    step = 1 if highest <= 4 else 2 if highest <= 8 else 3
    return list(range(0, max(highest, 1) + 1, step))


def _flagged(rate: Rate) -> str:
    return f"{rate.count:,} of {rate.total:,} flagged"


def _name_sides(axes: Any, summary: Summary, look: Look, *, has_both: bool) -> None:
    palette, control = look.colours, summary.control
    n_real = summary.counts["real"].images
    ground = {"facecolor": "white", "edgecolor": "none", "alpha": 0.85, "pad": 1.5}
    style = {"transform": axes.transAxes, "fontsize": 9.5, "zorder": 6, "bbox": ground}
    if has_both and control is not None:
        axes.text(0.012, 0.975, f"against {control.n_real_used:,} real images: {_flagged(control.real)}", va="top",
                  color=palette.real, fontweight="bold", **style)  # fmt: skip
        axes.text(0.012, 0.915, f"line: against all {n_real:,} real images: {_flagged(summary.flagged)}", va="top",
                  color=INK, **style)  # fmt: skip
        axes.text(0.012, 0.025, f"against {control.n_images:,} images that the generator never saw: "
                  f"{_flagged(control.holdout)}", va="bottom", color=palette.holdout, fontweight="bold",
                  **style)  # fmt: skip
    else:
        axes.text(0.012, 0.97, f"against {n_real:,} real images: {_flagged(summary.flagged)}", va="top",
                  color=palette.real, fontweight="bold", **style)  # fmt: skip
