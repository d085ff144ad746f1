"""Figures of rates: the ROC, and what each threshold would do."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepssim.calibration import Calibration, Threshold
from deepssim.evaluate import EXACT, NEAR, UNRELATED
from deepssim.plots.curves import Roc, macro_f1_by_cut, roc, sensitivity
from deepssim.plots.marks import draw_thresholds, fit_name, note, percent, short, widen
from deepssim.plots.scored import ScoredPairs, lowest_passing
from deepssim.plots.style import HAIR, INK, LINE_STYLES, MUTED, Look, new_figure, plain, styled

__all__ = ["RATES", "draw_calibration", "draw_roc", "draw_sensitivity", "roc_figures"]

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

# False-positive rates that are marked, where there are so many negatives that one of them is a smaller share.
RATES = (0.05, 0.01)
MOST_POINTS = 4000  # of a line: more are finer than the figure


def _percent_axis(axis: Any, *, is_log: bool, lowest: float = 0.0) -> None:
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter

    if is_log:
        ticks = [10.0**power for power in range(math.ceil(math.log10(lowest) - 1e-9), 1)]
        axis.set_major_locator(FixedLocator(ticks))
        axis.set_minor_formatter(NullFormatter())
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value * 100:.6g} %"))
    else:
        axis.set_major_locator(FixedLocator([0, 0.2, 0.4, 0.6, 0.8, 1]))
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value * 100:.0f} %"))


@styled
def draw_roc(scored: Sequence[ScoredPairs], look: Look | None = None, *, is_log: bool = False) -> Any:
    """Draw the ROC of each metric: copies against unrelated pairs, and exact copies against all others.

    What is found where at most 5 % and 1 % of the others are flagged is marked, where there are enough of them to say.

    Args:
        scored: One or more metrics, of the same pairs or not.
        look: Palette, title and size.
        is_log: Whether the share of false positives is on a logarithmic axis. It then begins at half of one negative,
            which stands for none.

    Returns:
        The Matplotlib figure.

    Raises:
        MissingDependencyError: Matplotlib is not installed.

    Example:
        >>> pairs = ScoredPairs("ssim", np.array([0.1, 0.4, 0.35, 0.8]), np.array([0, 0, 1, 1]))
        >>> draw_roc([pairs]).axes[0].get_legend().get_texts()[0].get_text()
        'ssim: AUC 0.750'
    """
    look = look or Look()
    figure = new_figure(look, (9.4, 5.0 + 0.2 * len(scored)))
    figure.get_layout_engine().set(wspace=0.06)
    copies, exact = figure.subplots(1, 2)
    sides = [(one.scores, one.labels != UNRELATED) for one in scored]
    _draw_rocs(copies, scored, sides, look, ("copies", "unrelated pairs"), is_log=is_log)
    sides = [(one.exactness(), one.labels == EXACT) for one in scored]
    _draw_rocs(exact, scored, sides, look, ("exact copies", "all other pairs"), is_log=is_log)
    return figure


def roc_figures(scored: Sequence[ScoredPairs]) -> list[dict[str, Any]]:
    """Return the numbers in the legends of `draw_roc`, not rounded; None where a side has no pairs.

    Example:
        >>> pairs = ScoredPairs("ssim", np.array([0.1, 0.4, 0.35, 0.8]), np.array([0, 0, 1, 1]))
        >>> roc_figures([pairs])[0]["copies"]["auc"]
        0.75
    """
    found = []
    for one in scored:
        sides = {
            "copies": (one.scores, one.labels != UNRELATED),
            "exact": (one.exactness(), one.labels == EXACT),
        }
        numbers: dict[str, Any] = {"metric": one.name}
        for side, (scores, flags) in sides.items():
            numbers[side] = None
            if flags.any() and not flags.all():
                curve = roc(scores, flags)
                rates = {f"{rate:g}": curve.found_at(rate) for rate in RATES if rate * curve.n_negative >= 1}
                numbers[side] = {
                    "auc": curve.area,
                    "found_at": rates,
                    "n_positive": curve.n_positive,
                    "n_negative": curve.n_negative,
                }
        found.append(numbers)
    return found


def _draw_rocs(
    axes: Any,
    scored: Sequence[ScoredPairs],
    sides: Sequence[tuple[Floats, Flags]],
    look: Look,
    words: tuple[str, str],
    *,
    is_log: bool,
) -> None:
    found, others = words
    curves = [
        (one, roc(scores, flags), place)
        for place, (one, (scores, flags)) in enumerate(zip(scored, sides, strict=True))
        if flags.any() and not flags.all()
    ]
    axes.set_title(f"{found} against {others}", loc="left")
    axes.set(xlabel=f"{others} flagged", ylabel=f"{found} found", ylim=(-0.02, 1.02))
    _percent_axis(axes.yaxis, is_log=False)
    axes.grid(True)
    if not curves:
        has_positives = any(flags.any() for _, flags in sides)
        note(axes, f"there are no {others if has_positives else found}")
        axes.set_xticks([])
        axes.grid(False)
        return
    fewest = min(curve.n_negative for _, curve, _ in curves)
    lowest = 0.5 / max(curve.n_negative for _, curve, _ in curves)
    if is_log:
        axes.set(xscale="log", xlim=(lowest, 1))
        axes.axvspan(lowest, 2 * lowest, color=HAIR, alpha=0.6, linewidth=0, zorder=0)
        axes.text(lowest * 2**0.5, 0.5, "none flagged", rotation=90, ha="center", va="center", fontsize=8, color=MUTED)
    else:
        axes.set_xlim(-0.02, 1.02)
        axes.plot([0, 1], [0, 1], color=MUTED, linewidth=0.8, linestyle=(0, (1, 2)), zorder=1)
    _percent_axis(axes.xaxis, is_log=is_log, lowest=lowest)
    rates = [rate for rate in RATES if rate * fewest >= 1]
    for rate in rates:
        axes.axvline(rate, color=MUTED, linewidth=0.8, linestyle=(0, (2, 2)), zorder=1)
    for one, curve, place in curves:
        _draw_roc(axes, one, curve, place, look, rates, lowest if is_log else None)
    _legend_below(axes, _sizes([curve for _, curve, _ in curves], words, rates))


def _draw_roc(
    axes: Any, one: ScoredPairs, curve: Roc, place: int, look: Look, rates: Sequence[float], lowest: float | None
) -> None:
    colour = look.colours.series[place % len(look.colours.series)]
    reached = [(rate, curve.found_at(rate)) for rate in rates]
    at = ", ".join(percent(true) for _, true in reached)
    label = f"{fit_name(one.name, 2.1, points=9)}: AUC {_area(curve.area)}{f'; {at}' if at else ''}"
    false, true = _corners(curve)
    if lowest is not None:
        false = np.maximum(false, lowest)
    axes.plot(false, true, color=colour, linestyle=LINE_STYLES[place % len(LINE_STYLES)], label=label, zorder=3,
              solid_joinstyle="miter", clip_on=lowest is not None)  # fmt: skip
    axes.plot([rate for rate, _ in reached], [true for _, true in reached], linestyle="", marker="os^Dv"[place % 5],
              markersize=6, markerfacecolor="white", markeredgecolor=colour, markeredgewidth=1.4, zorder=4)  # fmt: skip


def _area(area: float) -> str:
    """Return an area with as many digits as tell it from 1."""
    if area >= 1 - 1e-12:  # a sum of steps may round
        return "1.000"
    return next((f"{area:.{digits}f}" for digits in (3, 4, 5) if f"{area:.{digits}f}"[0] != "1"), "0.99999")


def _corners(curve: Roc) -> tuple[Floats, Floats]:
    """Leave out the points on a straight line between their neighbours, and what is finer than the figure."""
    is_bend = np.ones(len(curve.false), bool)
    turn = np.diff(curve.false[:-1]) * np.diff(curve.true[1:]) - np.diff(curve.false[1:]) * np.diff(curve.true[:-1])
    is_bend[1:-1] = np.abs(turn) > 1e-18
    false, true = curve.false[is_bend], curve.true[is_bend]
    if len(false) > MOST_POINTS:
        # Even along the curve in both directions, and on the logarithm of the rate of false positives.
        length = np.cumsum(np.hypot(np.diff(false, prepend=0), np.diff(true, prepend=0)))
        length += np.log10(false + 0.5 / curve.n_negative)
        places = np.searchsorted(length, np.linspace(length[0], length[-1], MOST_POINTS))
        keep = np.unique(np.append(places.clip(0, len(false) - 1), [0, len(false) - 1]))
        false, true = false[keep], true[keep]
    return false, true


def _sizes(curves: Sequence[Roc], words: tuple[str, str], rates: Sequence[float]) -> str:
    """Say how many pairs there are, and what the marks are."""
    sizes = {(curve.n_positive, curve.n_negative) for curve in curves}
    positive, negative = sizes.pop()
    text = "" if sizes else f"{positive:,} {words[0]}, {negative:,} {words[1]}"
    marks = f"AUC; found where {', '.join(f'{rate * 100:g} %' for rate in rates)} are flagged" if rates else ""
    return "\n".join(part for part in (text, marks) if part)


def _legend_below(axes: Any, title: str) -> None:
    legend = axes.legend(loc="upper left", bbox_to_anchor=(-0.02, -0.15), borderaxespad=0, handlelength=2.6,
                         title=title or None, title_fontsize=9, alignment="left")  # fmt: skip
    legend.get_title().set_color(MUTED)


@styled
def draw_sensitivity(scored: Sequence[ScoredPairs], look: Look | None = None, *, is_log: bool = False) -> Any:
    """Draw what each threshold would do: a row a metric, to the left of near copies, to the right of exact ones.

    Lines are the share of copies found (recall), the share of others flagged (false-positive rate), the precision, and
    the macro F1 of the three classes where the other threshold stays.

    Args:
        scored: One or more metrics.
        look: Palette, title and size.
        is_log: Whether shares are on a logarithmic axis, so that small rates can be read.

    Returns:
        The Matplotlib figure.

    Raises:
        MissingDependencyError: Matplotlib is not installed.

    Example:
        >>> scores, labels = np.array([0.1, 0.4, 0.6, 0.9]), np.array([0, 0, 2, 1])
        >>> pairs = ScoredPairs("ssim", scores, labels, Threshold(0.5), Threshold(0.8))
        >>> [axes.get_xlabel() for axes in draw_sensitivity([pairs]).axes]
        ['near threshold of ssim', 'exact threshold of ssim']
    """
    look = look or Look()
    figure = new_figure(look, (9.4, 0.7 + 3.4 * len(scored)))
    figure.get_layout_engine().set(wspace=0.06, hspace=0.08)
    grid = figure.subplots(len(scored), 2, squeeze=False)
    for (left, right), one in zip(grid, scored, strict=True):
        _draw_near(left, one, look, is_log=is_log)
        _draw_exact(right, one, look, is_log=is_log)
    handles: dict[str, Any] = {}
    for axes in grid.flat:
        handles |= {line.get_label(): line for line in axes.lines if not str(line.get_label()).startswith("_")}
    figure.legend(list(handles.values()), list(handles), loc="outside lower center", ncols=4, handlelength=2.6)
    return figure


def _draw_near(axes: Any, one: ScoredPairs, look: Look, *, is_log: bool) -> None:
    is_copy = one.labels != UNRELATED
    curve = sensitivity(one.scores, is_copy)
    exact = None if one.exact is None else lowest_passing(one.exact)
    macro = None
    if exact is not None and one.detail is None:
        macro = macro_f1_by_cut(one.scores, one.labels, curve.cuts, np.full(len(curve.cuts), exact))
    _draw_curve(axes, one, curve.cuts, (curve.found, curve.flagged, curve.precision, macro), look, is_log=is_log)
    _finish(axes, one, "near", one.near, one.scores, curve.cuts, macro)


def _draw_exact(axes: Any, one: ScoredPairs, look: Look, *, is_log: bool) -> None:
    near = None if one.near is None else lowest_passing(one.near)
    scores, labels = one.scores, one.labels
    if one.detail is not None:
        is_near = one.is_near()
        if not is_near.any():
            note(axes, "no pair is near by S1")
            return
        scores, labels = one.detail[is_near], labels[is_near]
    curve = sensitivity(scores, labels == EXACT)
    macro = None
    if near is not None and one.detail is None:
        macro = macro_f1_by_cut(scores, labels, np.full(len(curve.cuts), near), curve.cuts)
    _draw_curve(axes, one, curve.cuts, (curve.found, curve.flagged, curve.precision, macro), look, is_log=is_log)
    _finish(axes, one, "exact", one.exact, scores, curve.cuts, macro)


_LINES = ("copies found (right: exact ones)", "others flagged", "precision", "macro F1, other threshold kept")


def _draw_curve(
    axes: Any, one: ScoredPairs, cuts: Floats, lines: tuple[Floats | None, ...], look: Look, *, is_log: bool
) -> None:
    palette = look.colours
    styles = (
        (palette.classes[EXACT], "-", 2.0), (palette.classes[UNRELATED], (0, (6, 2)), 2.0),
        (palette.classes[NEAR], (0, (2, 1.2)), 1.6), (INK, (0, (6, 2, 1.2, 2)), 1.3),
    )  # fmt: skip
    x = one.shown(cuts) if one.detail is None else cuts
    for values, label, (colour, style, width) in zip(lines, _LINES, styles, strict=True):
        if values is not None:
            axes.plot(x, values, color=colour, linestyle=style, linewidth=width, label=label,
                      drawstyle="steps-pre" if not one.is_distance else "steps-post")  # fmt: skip
    lowest = 0.5 / max(len(one.labels), 2)
    if is_log:
        axes.set(yscale="log", ylim=(lowest, 1.15))
    else:
        axes.set_ylim(-0.02, 1.03)
    _percent_axis(axes.yaxis, is_log=is_log, lowest=lowest)
    axes.grid(True, axis="y")


def _finish(
    axes: Any,
    one: ScoredPairs,
    word: str,
    threshold: Threshold | None,
    scores: Floats,
    cuts: Floats,
    macro: Floats | None,
) -> None:
    values = scores if one.detail is not None else one.shown(scores)
    mark = None if threshold is None else one.shown_cut(threshold.value) if one.detail is None else threshold.value
    axes.set_xlim(*widen([values], [] if mark is None else [mark], margin=0.02))
    which = "" if one.detail is None else "S1, " if word == "near" else "S2, "
    axes.set_xlabel(f"{word} threshold of {which}{fit_name(one.name, 2.6)}")
    if threshold is not None and mark is not None:
        draw_thresholds(axes, [(word, mark, one.shown_comparison(threshold.comparison))])
    if macro is not None and len(macro):
        best = int(np.argmax(macro))
        at = one.shown_cut(float(cuts[best]))
        axes.plot([at], [macro[best]], marker="o", markersize=5, color=INK, linestyle="", label="_", zorder=5)
        axes.set_title(f"highest macro F1 {macro[best]:.3f} at {short(round(at, 4))}", loc="left", fontsize=8.5,
                       color=MUTED, pad=16)  # fmt: skip


@styled
def draw_calibration(calibration: Calibration, look: Look | None = None, *, is_log: bool = False) -> Any:
    """Draw the curve that a calibration holds: what other near thresholds would have done to its images.

    Args:
        calibration: With a curve.
        look: Palette, title and size.
        is_log: Whether shares are on a logarithmic axis.

    Returns:
        The Matplotlib figure; where the calibration has no curve its panel says so.

    Raises:
        MissingDependencyError: Matplotlib is not installed.

    Example:
        >>> from deepssim.calibration import Curve
        >>> curve = Curve((0.5, 0.7), unrelated=(0.2, 0.01))
        >>> one = Calibration("pixel", Threshold(0.6), Threshold(0.8), "an example", curve=curve)
        >>> draw_calibration(one).axes[0].get_xlabel()
        'near threshold of pixel'
    """
    look = look or Look()
    figure = new_figure(look, (6.4, 4.4))
    axes = figure.subplots()
    which = "S1, " if calibration.stage == "verified" else ""
    axes.set_xlabel(f"near threshold of {which}{fit_name(calibration.metric, 3.5)}")
    curve = calibration.curve
    if curve is None or not curve.cuts:
        note(axes, "the calibration holds no curve")
        axes.set(xticks=[], yticks=[])
        return figure
    cuts = np.array(curve.cuts)
    palette = look.colours
    lines = (
        (curve.copies, "copies found", palette.classes[EXACT], "-"),
        (curve.unrelated, "unrelated images flagged", palette.classes[UNRELATED], (0, (6, 2))),
    )
    smallest = []
    for values, label, colour, style in lines:
        if values is not None:
            axes.plot(cuts, values, color=colour, linestyle=style, linewidth=2, label=label, drawstyle="steps-pre")
            smallest += [value for value in values if value > 0]
    if calibration.false_positive_rate is not None:
        _draw_rate(axes, calibration, palette.classes[UNRELATED])
        smallest += [calibration.false_positive_rate] if calibration.false_positive_rate > 0 else []
    lowest = min([*smallest, 0.01]) / 2
    axes.set_xlim(*widen([cuts], [calibration.near.value], margin=0.02))
    axes.set(yscale="log" if is_log else "linear", ylim=(lowest, 1.15) if is_log else (-0.02, 1.03))
    _percent_axis(axes.yaxis, is_log=is_log, lowest=lowest)
    axes.grid(True, axis="y")
    draw_thresholds(axes, [("near", calibration.near.value, calibration.near.comparison)])
    legend = figure.legend(loc="outside lower center", ncols=3, handlelength=2.6, title=plain(calibration.source),
                           title_fontsize=9)  # fmt: skip
    legend.get_title().set_color(MUTED)
    return figure


def _draw_rate(axes: Any, calibration: Calibration, colour: str) -> None:
    """Draw the measured rate at the threshold, with its interval."""
    rate, ends = calibration.false_positive_rate, calibration.false_positive_interval
    assert rate is not None
    errors = None if ends is None else [[max(rate - ends[0], 0)], [max(ends[1] - rate, 0)]]
    label = f"{percent(rate)} of unrelated flagged"
    if ends is not None:
        label += f" ({percent(ends[0])} to {percent(ends[1])})"
    axes.errorbar([calibration.near.value], [rate], errors, fmt="o", color=colour, markerfacecolor="white", capsize=3,
                  markersize=6, zorder=5, label=label)  # fmt: skip
