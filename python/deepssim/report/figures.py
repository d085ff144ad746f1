"""The figures of the report as inline SVG.

Colours come from classes, so that they follow the page into dark mode and onto paper; geometry is in
presentation attributes, which the page's content-security policy allows, unlike ``style`` attributes.
Each figure is drawn for one width, since text in a scaled figure would be unreadable on a phone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from deepssim.report import text

# Below this count the axis is linear: small counts are read off exactly.
LINEAR_UP_TO = 12
# More bars than this are thinner than the lines between them.
_MAX_BARS = 150


@dataclass(frozen=True, slots=True)
class Bins:
    """A histogram ready to draw: n + 1 edges and n counts each, trimmed to where something is.

    `up` is drawn above the axis; `outline` (or None) as a line over it; `down` (or None) below the axis.
    """

    edges: tuple[float, ...]
    up: tuple[int, ...]
    outline: tuple[int, ...] | None
    down: tuple[int, ...] | None

    @property
    def highest(self) -> int:
        """The largest count."""
        return max(max(series) for series in (self.up, self.outline, self.down) if series)


@dataclass(frozen=True, slots=True)
class Mark:
    """A vertical line on the score axis: its value, its label and its class (``near`` or ``exact``)."""

    value: float
    label: str
    kind: str


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar of the control chart, as fractions; `kind` is ``real`` or ``holdout``."""

    name: str
    label: str
    rate: float
    interval: tuple[float, float] | None
    kind: str


def prepare(
    edges: Sequence[float],
    up: Sequence[int],
    outline: Sequence[int] | None,
    down: Sequence[int] | None,
    marks: Sequence[float],
) -> Bins:
    """Trim a histogram to the bins that hold something or a threshold, and merge bins if there are many.

    Args:
        edges: Rising, n + 1 values.
        up: n counts.
        outline: n counts or None.
        down: n counts or None.
        marks: Thresholds, in the units of the edges.

    Returns:
        The bins; every count of the input is in exactly one of them.
    """
    series = [one for one in (up, outline, down) if one is not None]
    used = [i for i in range(len(up)) if any(one[i] for one in series)]
    used += [i for mark in marks for i in range(len(up)) if edges[i] <= mark <= edges[i + 1]]
    first, last = (max(min(used) - 1, 0), min(max(used) + 1, len(up) - 1)) if used else (0, len(up) - 1)
    step = math.ceil((last - first + 1) / _MAX_BARS)
    starts = list(range(first, last + 1, step))

    def merged(counts: Sequence[int] | None) -> tuple[int, ...] | None:
        if counts is None:
            return None
        return tuple(sum(counts[start : min(start + step, last + 1)]) for start in starts)

    return Bins(
        edges=(*(edges[start] for start in starts), edges[last + 1]),
        up=merged(up) or (),
        outline=merged(outline),
        down=merged(down),
    )


def _attributes(values: dict[str, object]) -> Markup:
    pieces = []
    for name, value in values.items():
        shown = f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)
        pieces.append(Markup(' {}="{}"').format(Markup(name.rstrip("_").replace("_", "-")), shown))
    return Markup("").join(pieces)


def _tag(name: str, content: str = "", **attributes: object) -> Markup:
    """Return one element; `content` is escaped unless it is Markup."""
    return Markup("<{0}{1}>{2}</{0}>").format(Markup(name), _attributes(attributes), escape(content))


def _frame(width: int, height: int, uid: str, title: str, description: str, parts: list[Markup]) -> Markup:
    head = [_tag("title", title, id=f"{uid}-t"), _tag("desc", description, id=f"{uid}-d")]
    return _tag(
        "svg",
        Markup("").join([*head, *parts]),
        viewBox=f"0 0 {width} {height}",
        width=width,
        height=height,
        role="img",
        aria_labelledby=f"{uid}-t",
        aria_describedby=f"{uid}-d",
        focusable="false",
    )


class _Counts:
    """The vertical scale: linear for small counts, else logarithmic in 1 + count so that 0 stays at 0."""

    def __init__(self, highest: int, height: float) -> None:
        self.is_log = highest > LINEAR_UP_TO
        self._height = height
        if self.is_log:
            steps = (1, 3) if highest < 300 else (1,)
            powers = range(int(math.log10(highest)) + 1)
            self.ticks = [0, *(m * 10**power for power in powers for m in steps if m * 10**power <= highest)]
            self._top = math.log10(1 + highest)
        else:
            step = 1 if highest <= 4 else 2 if highest <= 8 else 3
            self.ticks = list(range(0, max(highest, 1) + 1, step))
            self._top = float(max(highest, 1))

    @property
    def name(self) -> str:
        """What the axis shows."""
        return "images, logarithmic" if self.is_log else "images"

    def __call__(self, count: int) -> float:
        """Return the height of a count in pixels."""
        value = math.log10(1 + count) if self.is_log else float(count)
        return value / self._top * self._height


def _score_ticks(low: float, high: float, n: int) -> list[float]:
    """Return about `n` round values inside an interval."""
    raw = (high - low) / n
    power = 10.0 ** math.floor(math.log10(raw))
    step = next((m * power for m in (1, 2, 5, 10) if m * power >= raw * (1 - 1e-9)), 10 * power)
    first = math.ceil(low / step - 1e-9)
    return [index * step for index in range(first, math.floor(high / step + 1e-9) + 1)]


@dataclass(frozen=True, slots=True)
class _Plot:
    """Where things lie on the page of the histogram, in pixels."""

    left: float
    right: float
    base: float
    low: float
    high: float

    def x(self, value: float) -> float:
        """Return where a score lies, in pixels."""
        return self.left + (value - self.low) / (self.high - self.low) * (self.right - self.left)


def _bars(bins: Bins, counts: Sequence[int], plot: _Plot, scale: _Counts, sign: int, cuts: list[float]) -> list[str]:
    """Return one path per zone between the thresholds; a bar across a threshold is cut there."""
    paths = ["" for _ in range(len(cuts) + 1)]
    bounds = [-math.inf, *cuts, math.inf]
    for start, stop, n in zip(bins.edges, bins.edges[1:], counts, strict=False):
        if n == 0:
            continue
        top = plot.base - sign * scale(n)
        for zone in range(len(paths)):
            low, high = max(start, bounds[zone]), min(stop, bounds[zone + 1])
            if low < high:
                x0, x1 = plot.x(low), plot.x(high)
                gap = 0.6 if x1 - x0 > 3 else 0.0
                paths[zone] += f"M{x0 + gap / 2:.2f} {plot.base:.2f}V{top:.2f}H{x1 - gap / 2:.2f}V{plot.base:.2f}Z"
    return paths


def _outline(bins: Bins, counts: Sequence[int], plot: _Plot, scale: _Counts) -> str:
    path = f"M{plot.x(bins.edges[0]):.2f} {plot.base:.2f}"
    for stop, n in zip(bins.edges[1:], counts, strict=True):
        path += f"V{plot.base - scale(n):.2f}H{plot.x(stop):.2f}"
    return path + f"V{plot.base:.2f}"


def _zones(plot: _Plot, marks: Sequence[Mark], top: float, bottom: float) -> list[Markup]:
    """Shade what lies over each threshold and label the lines, the last threshold highest."""
    if not marks:  # thresholds outside the axis
        return []
    parts = []
    ends = [*(mark.value for mark in marks[1:]), plot.high]
    for row, (mark, end) in enumerate(zip(marks, ends, strict=True)):
        x = plot.x(mark.value)
        label_y = top - 9 - 18 * row
        parts.append(
            _tag(
                "rect",
                class_=f"zone zone-{mark.kind}",
                x=x,
                y=top,
                width=max(plot.x(end) - x, 0.0),
                height=bottom - top,
            )
        )
        parts.append(_tag("line", class_=f"line line-{mark.kind}", x1=x, x2=x, y1=label_y - 9, y2=bottom))
        is_right = x > (plot.left + plot.right) / 2
        parts.append(
            _tag("text", mark.label, class_=f"label label-{mark.kind}", x=x - 6 if is_right else x + 6, y=label_y,
                 text_anchor="end" if is_right else "start")
        )  # fmt: skip
    return parts


def _axes(plot: _Plot, scale: _Counts, sides: Sequence[int], bottom: float) -> list[Markup]:
    parts = []
    for tick in scale.ticks:
        for sign in sides if tick else (1,):
            y = plot.base - sign * scale(tick)
            parts.append(_tag("line", class_="axis" if tick == 0 else "grid", x1=plot.left, x2=plot.right, y1=y, y2=y))
            parts.append(_tag("text", text.count(tick), class_="tick", x=plot.left - 8, y=y + 4, text_anchor="end"))
    values = _score_ticks(plot.low, plot.high, 8 if plot.right - plot.left > 480 else 4)
    step = values[1] - values[0] if len(values) > 1 else 1.0
    digits = max(1, math.ceil(-math.log10(step) - 1e-9))
    for value in values:
        x = plot.x(value)
        parts.append(_tag("line", class_="axis", x1=x, x2=x, y1=bottom, y2=bottom + 5))
        parts.append(
            _tag(
                "text",
                text.decimal(value + 0.0, digits),
                class_="tick",
                x=x,
                y=bottom + 20,
                text_anchor="middle",
            )
        )
    return parts


def histogram(
    bins: Bins,
    marks: Sequence[Mark],
    names: tuple[str, str],
    *,
    axis: str = "score of the nearest image",
    title: str = "Histogram of the nearest score of each synthetic image",
    width: int,
    uid: str,
) -> Markup:
    """Draw the best value of each image: real above the axis, holdout mirrored below it.

    Counts are on a logarithmic scale when large: a handful of copies among thousands must be seen.

    Args:
        bins: See `prepare`.
        marks: Thresholds in rising order; those outside the bins are left out.
        names: What stands above and below the axis.
        axis: What the axis shows.
        title: Of the figure, read aloud.
        width: Of the figure, in CSS pixels.
        uid: Prefix of the element ids, unique on the page.

    Returns:
        The SVG element.
    """
    sides = (1, -1) if bins.down is not None else (1,)
    top, half = 56.0, 150.0 if bins.down is not None else 210.0
    bottom = top + half * len(sides)
    plot = _Plot(46.0, width - 8.0, top + half, bins.edges[0], bins.edges[-1])
    scale = _Counts(bins.highest, half - 22)
    shown = [mark for mark in marks if plot.low <= mark.value <= plot.high]
    cuts = [mark.value for mark in shown]
    parts = [*_zones(plot, shown, top, bottom), *_axes(plot, scale, sides, bottom)]
    kinds = ["plain", *(mark.kind for mark in shown)]
    drawn = list(zip(kinds, _bars(bins, bins.up, plot, scale, 1, cuts), strict=True))
    if bins.down is not None:
        drawn.append(("holdout", "".join(_bars(bins, bins.down, plot, scale, -1, []))))
    parts += [_tag("path", class_=f"bar bar-{kind}", d=path) for kind, path in drawn if path]
    if bins.outline is not None:
        parts.append(_tag("path", class_="outline", d=_outline(bins, bins.outline, plot, scale)))
    parts.append(_tag("text", names[0], class_="side", x=plot.left + 6, y=top + 14))
    if bins.down is not None:
        parts.append(_tag("text", names[1], class_="side", x=plot.left + 6, y=bottom - 8))
    parts.append(_tag("text", axis, class_="name", x=plot.right, y=bottom + 40, text_anchor="end"))
    parts.append(_tag("text", scale.name, class_="name", x=2.0, y=bottom + 40))
    described = "; ".join(mark.label for mark in shown) or "no threshold in this range"
    return _frame(
        width, int(bottom + 50), uid, title,
        f"{axis[0].upper()}{axis[1:]}, from {text.decimal(plot.low, 2)} to {text.decimal(plot.high, 2)}; {described}. "
        "The counts are in the table below the figure.", parts,
    )  # fmt: skip


def comparison(bars: Sequence[Bar], *, width: int, uid: str) -> Markup:
    """Draw rates with their intervals as horizontal bars on one common scale from 0.

    Args:
        bars: From top to bottom.
        width: Of the figure, in CSS pixels.
        uid: Prefix of the element ids, unique on the page.

    Returns:
        The SVG element.
    """
    left, right, row, bar_height = 2.0, width - 26.0, 64.0, 20.0
    reach = max(max(bar.rate, bar.interval[1] if bar.interval else 0.0) for bar in bars)
    ticks = _score_ticks(0.0, max(reach, 1e-4), 4)
    high = max(ticks[-1], reach)
    height = row * len(bars) + 30
    digits = text.percent_digits([tick for tick in ticks if tick])

    def x(value: float) -> float:
        return left + value / high * (right - left)

    parts = []
    for tick in ticks:
        parts.append(_tag("line", class_="axis" if tick == 0 else "grid", x1=x(tick), x2=x(tick), y1=4, y2=height - 26))
        anchor = "start" if tick == 0 else "middle"
        label = text.percent(tick, digits if tick * 100 % 1 > 1e-9 else 0)
        parts.append(_tag("text", label, class_="tick", x=x(tick), y=height - 8, text_anchor=anchor))
    for index, bar in enumerate(bars):
        y = row * index + 28.0
        parts.append(_tag("text", bar.name, class_="side", x=left + 6, y=y - 8))
        parts.append(_tag("text", bar.label, class_="tick", x=right, y=y - 8, text_anchor="end"))
        parts.append(
            _tag(
                "rect",
                class_=f"bar bar-{bar.kind}",
                x=left,
                y=y,
                width=max(x(bar.rate) - left, 1.5),
                height=bar_height,
            )
        )
        if bar.interval:
            low, up, middle = x(bar.interval[0]), x(bar.interval[1]), y + bar_height / 2
            whisker = f"M{low:.2f} {middle}H{up:.2f}M{low:.2f} {middle - 5}v10M{up:.2f} {middle - 5}v10"
            parts.append(_tag("path", class_="whisker", d=whisker))
    description = "; ".join(f"{bar.name}: {bar.label}" for bar in bars)
    return _frame(width, int(height), uid, "Synthetic images flagged, with confidence intervals", description, parts)


def legend(stops: Sequence[tuple[float, tuple[int, int, int]]], *, uid: str) -> Markup:
    """Draw the colour scale of the difference pictures, from the first stop to the last.

    Args:
        stops: (value in standard deviations, red green blue), rising.
        uid: Prefix of the element ids, unique on the page.

    Returns:
        The SVG element.
    """
    low, high = stops[0][0], stops[-1][0]
    colours = [
        _tag(
            "stop",
            offset=f"{(value - low) / (high - low):.3f}",
            stop_color="#{:02x}{:02x}{:02x}".format(*rgb),
        )
        for value, rgb in stops
    ]
    parts = [
        _tag("defs", _tag("linearGradient", Markup("").join(colours), id=f"{uid}-g")),
        _tag("rect", x=10, y=4, width=240, height=12, rx=2, fill=f"url(#{uid}-g)"),
    ]
    for value, _ in stops:
        sign = "+" if value > 0 else text.MINUS if value < 0 else ""
        x = 10 + (value - low) / (high - low) * 240
        parts.append(_tag("text", f"{sign}{abs(value):g}", class_="tick", x=x, y=32, text_anchor="middle"))
    return _frame(
        260, 38, uid, "Colour scale of the differences",
        "From minus 2 standard deviations, light blue, over 0, black, to plus 2, light orange.", parts,
    )  # fmt: skip


def agreement_key(
    cool: Sequence[tuple[int, int, int]],
    warm: tuple[int, int, int],
    hatch: Sequence[tuple[int, int, int]],
    *,
    reach: tuple[float, float],
    uid: str,
) -> Markup:
    """Draw the key of the agreement pictures: from what agrees to what differs, and what is outside.

    Args:
        cool: Darkest and lightest colour of what agrees.
        warm: Colour of what differs.
        hatch: The two colours outside the overlap.
        reach: Local correlation from which down the warm colour begins, and where it is full.
        uid: Prefix of the element ids, unique on the page.

    Returns:
        The SVG element.
    """
    agrees, differs, ground, stripe = (
        "#{:02x}{:02x}{:02x}".format(*rgb) for rgb in (cool[1], warm, hatch[0], hatch[1])
    )
    stops = [_tag("stop", offset=offset, stop_color=colour) for offset, colour in ((0, agrees), (1, differs))]
    lines = "".join(f"M{x} 16l12 -12" for x in range(176, 252, 8))
    parts = [
        _tag("defs", Markup("").join([
            _tag("linearGradient", Markup("").join(stops), id=f"{uid}-g"),
            _tag("clipPath", _tag("rect", x=184, y=4, width=66, height=12, rx=2), id=f"{uid}-c"),
        ])),
        _tag("rect", x=10, y=4, width=150, height=12, rx=2, fill=f"url(#{uid}-g)"),
        _tag("rect", x=184, y=4, width=66, height=12, rx=2, fill=ground),
        _tag("path", d=lines, stroke=stripe, stroke_width=2, clip_path=f"url(#{uid}-c)"),
        _tag("text", "agrees", class_="tick", x=10, y=32),
        _tag("text", "differs", class_="tick", x=160, y=32, text_anchor="end"),
        _tag("text", "not shared", class_="tick", x=217, y=32, text_anchor="middle"),
    ]  # fmt: skip
    return _frame(
        260, 38, uid, "Colour scale of the agreement",
        f"Blue down to a local correlation of {reach[0]:g}, then more and more orange down to {reach[1]:g}; striped "
        "where only one of the two images is.", parts,
    )  # fmt: skip


def gauge(value: float, mark: float, mark_name: str, title: str, *, kind: str, uid: str) -> Markup:
    """Draw a value from 0 to 1 as a bar against its threshold.

    Args:
        value: Values below 0 are drawn as 0.
        mark: The threshold.
        mark_name: What the threshold is for.
        title: Name, value and threshold in words; its first two words stand above the bar.
        kind: Class of the bar: ``exact``, ``near`` or ``plain``.
        uid: Prefix of the element ids, unique on the page.

    Returns:
        The SVG element.
    """
    left, right, top = 1.0, 199.0, 24.0
    at, end = (left + min(max(one, 0.0), 1.0) * (right - left) for one in (mark, value))
    name, shown = title.replace(",", "").split(" ")[:2]
    is_right = at > (left + right) / 2
    label = f"{mark_name} from {text.threshold(mark)}"
    parts = [
        _tag("text", name, class_="side", x=left, y=15),
        _tag("text", shown, class_=f"reading reading-{kind}", x=right, y=15, text_anchor="end"),
        _tag("rect", class_="track", x=left, y=top, width=right - left, height=8, rx=2),
        _tag("rect", class_=f"bar bar-{kind}", x=left, y=top, width=max(end - left, 1.0), height=8, rx=2),
        _tag("path", class_="whisker", d=f"M{at:.2f} {top - 4}v16"),
        _tag("text", label, class_="tick", x=at + 4 if is_right else at - 4, y=top + 26,
             text_anchor="end" if is_right else "start"),
    ]  # fmt: skip
    return _frame(200, 54, uid, title, f"A bar from 0 to {shown} of 1; the line is the threshold.", parts)
