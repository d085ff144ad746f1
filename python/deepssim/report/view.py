"""The page as plain strings, tables and figures: everything that the template only has to lay out."""

from __future__ import annotations

from dataclasses import dataclass

from markupsafe import Markup

from deepssim.metric import l2_distance
from deepssim.report import figures, text
from deepssim.report.data import Control, Rate, Summary, Threshold
from deepssim.report.pseudonyms import Names

WIDE, NARROW = 900, 340

WORDS = {
    "copies": "Copies found",
    "suspect": "Inconclusive",
    "none_found": "No copy found",
    "incomplete": "Incomplete",
}
_COMPARISONS = {">=": "\u2265", "<=": "\u2264", ">": ">", "<": "<"}


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell; `kind` is ``text``, ``number``, ``name`` or ``label``; `sub` a second, quieter line."""

    text: str
    kind: str = "text"
    sub: str | None = None


@dataclass(frozen=True, slots=True)
class Column:
    """A column's heading and the kind of its cells."""

    title: str
    kind: str = "text"


@dataclass(frozen=True, slots=True)
class TableView:
    """A table; `more` says what it leaves out."""

    caption: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    more: str | None = None


@dataclass(frozen=True, slots=True)
class Card:
    """One of the key figures: `value` large, `unit` beside it, lines below."""

    title: str
    value: str
    unit: str
    lines: tuple[str, ...]
    is_known: bool = True


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure in two widths, with its data as a table."""

    wide: Markup
    narrow: Markup
    table: TableView | None
    caption: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ControlView:
    """The comparison with the holdout; without one only `notes` says so."""

    has_holdout: bool
    sentence: str
    figure: Figure | None
    notes: tuple[str, ...]
    warnings: tuple[str, ...]


def rate_text(rate: Rate) -> str:
    """Return a rate with its interval in words; 0 and all are said by the bound that the interval gives.

    Args:
        rate: Any rate.

    Returns:
        Such as "2.4 % (95 % interval 1.0-4.0 %, by patient)" or "at most 0.6 % with 95 % confidence".
    """
    if rate.total == 0:
        return "no rate: there are none"
    value = rate.count / rate.total if rate.rate is None else rate.rate
    if rate.interval is None:
        return f"{text.percent(value)}, no interval known"
    digits = text.percent_digits([value, *rate.interval])
    level = text.percent(rate.level, 0 if abs(rate.level * 100 % 1) < 1e-9 else 1)
    low, high = rate.interval
    if rate.count == 0:
        return f"at most {text.percent(high, digits, towards='up')} with {level} confidence"
    if rate.count == rate.total:
        return f"at least {text.percent(low, digits, towards='down')} with {level} confidence"
    unit = f", by {rate.unit}" if rate.unit in ("patient", "image") else ""
    return f"{text.percent(value, digits)} ({level} interval {text.interval(rate.interval, digits)}{unit})"


def comparison_text(threshold: Threshold) -> str:
    """Return a threshold with its comparison, such as ``>= 0.97``."""
    return f"{_COMPARISONS[threshold.comparison]} {text.threshold(threshold.value)}"


def condition(summary: Summary, label: str) -> str:
    """Return what makes a pair near or exact: a bound of the score, of S1, or of S2 where it is near."""
    thresholds = summary.thresholds
    one = thresholds.exact if label == "exact" else thresholds.near
    shown = comparison_text(one)
    if not summary.is_verified:
        if summary.metric.similarity != "l2":
            return shown
        return f"{shown} (distance {'≤' if one.comparison == '>=' else '<'} {l2_distance(one.value):.4g})"
    return f"near, and S2 {shown}" if label == "exact" else f"S1 {shown}"


def is_one_threshold(summary: Summary) -> bool:
    """Say whether scores decide by one threshold for both, so that no pair is ever near."""
    return not summary.is_verified and summary.thresholds.near == summary.thresholds.exact


def subtitle(summary: Summary, names: Names) -> str:
    """Return what was compared with what, in one line."""
    real, synthetic = summary.counts["real"], summary.counts["synthetic"]
    groups = "" if real.groups is None else f" of {text.plural(real.groups, 'patient')}"
    metric = names.free(summary.metric.name)
    how = f"screened by the metric {metric}, verified in image space" if summary.is_verified else f"metric {metric}"
    return (
        f"{text.plural(synthetic.images, 'synthetic image')} against {text.plural(real.images, 'real image')}{groups}, "
        f"{how}"
    )


def cards(summary: Summary) -> tuple[Card, ...]:
    """Return the key figures: synthetic images, real images, patients, control."""
    flagged, copied, patients, control = summary.flagged, summary.copied, summary.patients, summary.control

    def split(rate: Rate) -> tuple[str, ...]:
        if rate.exact is None or rate.count == 0:
            return ()
        return (f"{text.count(rate.exact)} exact, {text.count(rate.count - rate.exact)} near only",)

    found = [
        Card("Synthetic images flagged", text.count(flagged.count), f"of {text.count(flagged.total)}",
             (rate_text(flagged), *split(flagged))),
        Card("Real images reproduced", text.count(copied.count), f"of {text.count(copied.total)}",
             (rate_text(copied), *split(copied))),
    ]  # fmt: skip
    if patients is None:
        why = "The patient is not known for every real image, so no figure per patient is given."
        found.append(Card("Patients reproduced", "not known", "", (why,), is_known=False))
    else:
        unit = f"of {text.count(patients.total)}"
        found.append(Card("Patients reproduced", text.count(patients.count), unit, (rate_text(patients),)))
    if control is None:
        why = "No holdout was given, so chance alone is not measured."
        found.append(Card("Holdout control", "not run", "", (why,), is_known=False))
    else:
        lines = [f"flagged against {text.plural(control.n_images, 'unseen image')}; "
                 f"{text.count(control.real.count)} against as many real images"]  # fmt: skip
        if control.p_value is not None:
            lines.append(f"{text.p_value(control.p_value)}, sign test")
        unit = f"of {text.count(control.holdout.total)}"
        found.append(Card("Holdout control", text.count(control.holdout.count), unit, tuple(lines)))
    return tuple(found)


_UNKNOWN_RATE = (
    "The thresholds of S1 and S2 come without a measured rate of false alarms: only a control tells how many there are."
)


def calibration_note(summary: Summary, names: Names) -> str | None:
    """Return what the calibration itself says about false alarms, and at which size of the base."""
    thresholds = summary.thresholds
    if thresholds.false_positive_rate is None:
        # An audit of before says nothing here, and its report stays as it was.
        return _UNKNOWN_RATE if summary.is_verified else None
    note = f"The calibration of the thresholds gives false alarms of {false_alarms(summary)}"
    if thresholds.domain:
        note += f" on {names.free(thresholds.domain)}"
    n_real = summary.counts["real"].images
    if thresholds.base_size is not None:
        note += f", against a base of {text.plural(thresholds.base_size, 'image')}"
        if thresholds.base_size < n_real:
            note += f"; this base has {text.count(n_real)}, and a larger base gives more"
    return note + ". It was measured when the thresholds were chosen, not in this audit."


def false_alarms(summary: Summary) -> str | None:
    """Return the false-positive rate of the calibration with its interval, where they are known."""
    rate, bounds = summary.thresholds.false_positive_rate, summary.thresholds.false_positive_interval
    if rate is None:
        return None
    digits = text.percent_digits([rate, *(bounds or ())])
    shown = text.percent(rate, digits)
    return shown if bounds is None else f"{shown} (95\u202f% interval {text.interval(bounds, digits)})"


def control_view(summary: Summary, names: Names) -> ControlView:
    """Return the section on the control."""
    control = summary.control
    calibration = calibration_note(summary, names)
    if control is None:
        notes = (
            "Without comparable real images that the generator never saw, nobody can say how many flags "
            "chance alone gives: two people can look alike, and a threshold found on other images may not fit these.",
            *([calibration] if calibration else []),
        )
        return ControlView(False, "", None, notes, ())
    return ControlView(
        True,
        _control_sentence(control),
        _control_figure(control),
        tuple(_control_notes(control, is_verified=summary.is_verified)) + ((calibration,) if calibration else ()),
        tuple(text.prose(names.free(one)) for one in control.warnings),
    )


def _control_sentence(control: Control) -> str:
    real, holdout = control.real, control.holdout
    return (
        f"{text.count(real.count)} of {text.plural(real.total, 'synthetic image')} "
        f"{'is' if real.count == 1 else 'are'} flagged against real images, {text.count(holdout.count)} "
        "against equally many images that the generator never saw."
    )


_SAME_WAY = "Both go through the same screening and verification. "


def _control_notes(control: Control, *, is_verified: bool) -> list[str]:
    drawn = "" if control.n_real_used == 0 else f", drawn {control.drawn}"
    real, holdout = text.plural(control.n_real_used, "real image"), text.plural(control.n_images, "holdout image")
    notes = [
        f"Both sides have the same synthetic images and a base of the same size: {real}{drawn}, and {holdout}. "
        f"{_SAME_WAY if is_verified else ''}The figures above are for all real images and may therefore be higher.",
        f"Flagged against real images only: {text.count(control.only_real)}; against holdout images only: "
        f"{text.count(control.only_holdout)}; against both: {text.count(control.both)}.",
    ]
    if control.p_value is not None:
        notes.append(
            "One-sided exact sign test on the synthetic images flagged on one side only: "
            f"{text.p_value(control.p_value)}. It asks whether so many "
            "more flags against real images could come by chance alone."
        )
    return notes


def _control_figure(control: Control) -> Figure:
    sides = (
        ("Real images", control.n_real_used, control.real),
        ("Holdout images", control.n_images, control.holdout),
    )
    bars, rows = [], []
    for (name, n_base, rate), kind in zip(sides, ("real", "holdout"), strict=True):
        value = rate.rate if rate.rate is not None else rate.count / max(rate.total, 1)
        label = f"{text.count(rate.count)} of {text.count(rate.total)}"
        bars.append(figures.Bar(name, label, value, rate.interval, kind))
        cells = (
            text.count(n_base),
            text.count(rate.count),
            "\u2013" if rate.exact is None else text.count(rate.exact),
        )
        numbers = [Cell(cell, "number") for cell in cells]
        rows.append((Cell(name), *numbers, Cell(rate_text(rate))))
    columns = (Column("Base"), Column("Images in it", "number"), Column("Flagged", "number"),
               Column("Exact", "number"), Column("Rate"))  # fmt: skip
    return Figure(
        figures.comparison(bars, width=520, uid="control-wide"),
        figures.comparison(bars, width=NARROW, uid="control-narrow"),
        TableView("The same synthetic images against both bases", columns, tuple(rows)),
        ("Share of the synthetic images that are flagged; the whisker is the confidence interval.",),
    )


@dataclass(frozen=True, slots=True)
class _Words:
    """How the histogram is spoken of."""

    above: str
    below: str
    axis: str
    title: str
    caption: str
    line: str
    column: str
    table: str
    series: tuple[str, str, str]


_BY_SCORE = _Words(
    "nearest real image",
    "nearest holdout image",
    "score of the nearest image",
    "Histogram of the nearest score of each synthetic image",
    "at the score of its nearest image",
    "the score",
    "Score",
    "Synthetic images by the score of their nearest image",
    ("Nearest real", "Nearest real, equal draw", "Nearest holdout"),
)
_BY_S1 = _Words(
    "best real candidate",
    "best holdout candidate",
    "S1 of the best candidate",
    "Histogram of the best S1 of each synthetic image",
    "at the S1 of the candidate that agrees best with it",
    "the best S1",
    "S1",
    "Synthetic images by the S1 of their best candidate",
    ("Best real", "Best real, equal draw", "Best holdout"),
)


def _marks(summary: Summary) -> list[figures.Mark]:
    """Return the thresholds that lie on the axis; of a verified audit S2 does not."""
    thresholds = summary.thresholds
    if summary.is_verified:
        return [figures.Mark(thresholds.near.value, f"near or exact: {condition(summary, 'near')}", "near")]
    both = (("near", thresholds.near), ("exact", thresholds.exact))
    marks = [
        figures.Mark(one.value, f"{label} {condition(summary, label)}", label)
        for label, one in (both if thresholds.near.value != thresholds.exact.value else both[1:])
    ]
    return sorted(marks, key=lambda mark: mark.value)


def histogram_view(summary: Summary) -> Figure | None:
    """Return the histogram of the best values, or None where there is none at all."""
    counts = summary.histogram
    if not any(counts.real) and not any(counts.holdout or ()):
        return None
    words = _BY_S1 if summary.is_verified else _BY_SCORE
    # Against the holdout only the equally large draw of real images compares: a larger base gives higher maxima.
    has_both = counts.real_matched is not None and counts.holdout is not None
    up = counts.real_matched if has_both and counts.real_matched is not None else counts.real
    outline = counts.real if has_both else None
    marks = _marks(summary)
    bins = figures.prepare(counts.edges, up, outline, counts.holdout, [mark.value for mark in marks])
    sides = (f"{words.above}, equally large draw" if has_both else words.above, words.below)
    caption = [
        f"Each synthetic image counts once, {words.caption}."
        + (" Large counts are on a logarithmic scale, so that a few copies among many images can be seen." if
           bins.highest > figures.LINEAR_UP_TO else "")
    ]  # fmt: skip
    if has_both:
        caption.append(
            f"Filled bars compare like with like: as many real images as holdout images. The line is {words.line} "
            "against all real images. What lies below the axis and over a threshold is a false alarm."
        )
    if summary.is_verified:
        caption.append(
            f"Whether a copy is exact is not seen here: that is decided by S2 "
            f"{comparison_text(summary.thresholds.exact)}, which has no place on this axis."
        )
    outside = [mark.label for mark in marks if not bins.edges[0] <= mark.value <= bins.edges[-1]]
    if outside:
        caption.append(f"Outside the range of the figure: {', '.join(outside)}.")
    wide, narrow = (
        figures.histogram(bins, marks, sides, axis=words.axis, title=words.title, width=width, uid=f"histogram-{name}")
        for name, width in (("wide", WIDE), ("narrow", NARROW))
    )
    return Figure(wide, narrow, _histogram_table(bins, has_both, words), tuple(caption))


def _histogram_table(bins: figures.Bins, has_both: bool, words: _Words) -> TableView:
    series = [(words.series[0], bins.outline if has_both else bins.up)]
    if has_both:
        series.append((words.series[1], bins.up))
    if bins.down is not None:
        series.append((words.series[2], bins.down))
    rows = []
    for index, (low, high) in enumerate(zip(bins.edges, bins.edges[1:], strict=False)):
        values = [counts[index] if counts else 0 for _, counts in series]
        if any(values):
            bounds = f"{text.decimal(low, 3)} to {text.decimal(high, 3)}"
            rows.append((Cell(bounds), *(Cell(text.count(value), "number") for value in values)))
    columns = (Column(words.column), *(Column(name, "number") for name, _ in series))
    return TableView(words.table, columns, tuple(rows))
