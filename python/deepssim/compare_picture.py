"""One picture of a comparison: both images, one laid onto the other, where they agree, and the numbers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow
from PIL import ImageDraw, ImageFont

from deepssim.compare import Comparison
from deepssim.disk import replacing
from deepssim.explain import Explanation
from deepssim.image_ops import evidence_maps, warp
from deepssim.images.text import one_line
from deepssim.report.images import colour, palette

__all__ = ["draw_comparison", "save_comparison"]

Colours = NDArray[np.float64]

_BACKGROUND = (17, 19, 24)
_TEXT = (232, 234, 238)
_QUIET = (150, 156, 168)
_RULE = (52, 57, 68)
_LONGER_SIDE = 420
_LEAST_WIDTH = 370
_GAP = 28
_MARGIN = 36
_CAPTION = 62
_KEY = 46
_TEXT_SIZE = 16
_SMALL = 13
_TITLE = 22

# What the local correlation looks like over the first image: value, colour, opacity. Where images agree nothing lies
# over them. Yellow to red stands out of grey for all common kinds of colour blindness by its lightness too.
_AGREEMENT: tuple[tuple[float, tuple[int, int, int], float], ...] = (
    (0.0, (122, 20, 74), 0.92),
    (0.4, (203, 44, 48), 0.88),
    (0.7, (240, 120, 40), 0.8),
    (0.88, (255, 176, 52), 0.6),
    (0.97, (255, 215, 120), 0.0),
)
# How much of an image the colours of its map cover, where the map is strongest, and how bright it is beneath them.
_N_DIVERGING = 254  # colours of the diverging palette; two of the hatch follow
_COVER = 0.85
_BENEATH = 0.75
_LEAST_LIMIT = 0.001
# Beyond the overlap: slanted lines over the darkened image.
_BEYOND = (70, 78, 94)


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def _agreement(values: NDArray[np.float64]) -> tuple[Colours, NDArray[np.float64]]:
    """Return colours ``(..., 3)`` and opacities of local correlations."""
    stops = [stop for stop, _, _ in _AGREEMENT]
    channels = [np.interp(values, stops, [colours[k] for _, colours, _ in _AGREEMENT]) for k in range(3)]
    return np.stack(channels, -1), np.interp(values, stops, [opacity for _, _, opacity in _AGREEMENT])


def _rgb(grey: NDArray[np.float32]) -> Colours:
    """Return an image in [0, 1] as grey colours, its brightness as it is."""
    return np.repeat(grey.astype(np.float64)[..., np.newaxis] * 255, 3, axis=-1)


class _Frame:
    """The panels' common scale."""

    def __init__(self, size: tuple[int, int]) -> None:
        factor = _LONGER_SIDE / max(size)
        self.height, self.width = (max(1, round(side * factor)) for side in size)
        self.cell_width = max(self.width, _LEAST_WIDTH)

    def enlarged(self, colours: Colours) -> Colours:
        picture = Pillow.fromarray(np.rint(np.clip(colours, 0, 255)).astype(np.uint8))
        larger = picture.resize((self.width, self.height), Pillow.Resampling.BICUBIC)
        return np.asarray(larger).astype(np.float64)

    def enlarged_map(self, values: NDArray[np.float32]) -> NDArray[np.float64]:
        """Enlarge a map; NaN where the nearest pixel is NaN."""
        is_missing = np.isnan(values)
        filled = Pillow.fromarray(np.where(is_missing, 0, values).astype(np.float32))
        size = (self.width, self.height)
        larger = np.asarray(filled.resize(size, Pillow.Resampling.BILINEAR)).astype(np.float64)
        # Values beside missing ones would be mixed with the zeros: divided by how much of them is there.
        there = Pillow.fromarray((~is_missing).astype(np.float32))
        weight = np.asarray(there.resize(size, Pillow.Resampling.BILINEAR)).astype(np.float64)
        return np.where(weight >= 0.5, larger / np.maximum(weight, 0.5), np.nan)

    def beyond(self, colours: Colours, is_beyond: NDArray[np.bool_]) -> Colours:
        """Darken and hatch what lies beyond the overlap."""
        y, x = np.indices(is_beyond.shape)
        lines = (x + y) % 9 == 0
        dark = colours * 0.35
        dark[lines] = _BEYOND
        return np.where(is_beyond[..., np.newaxis], dark, colours)


def _panels(comparison: Comparison, frame: _Frame) -> list[Colours]:
    a, b = comparison.greys
    transform = comparison.registration.transform
    aligned = warp(b, transform)
    is_outside = warp(np.ones_like(b), transform) < 0.5
    outside = frame.enlarged(_rgb(is_outside.astype(np.float32)))[..., 0] > 127
    base = frame.enlarged(_rgb(a))
    _, maps = evidence_maps(a, b, transform)
    values = frame.enlarged_map(maps.local_correlation)
    is_missing = np.isnan(values)
    colours, opacity = _agreement(np.where(is_missing, 1, values))
    overlay = base * (1 - opacity[..., np.newaxis]) + colours * opacity[..., np.newaxis]
    difference = np.where(
        is_outside, np.float32(0), _standardised(aligned, ~is_outside) - _standardised(a, ~is_outside)
    )
    coloured = np.asarray(colour(difference.astype(np.float32)).convert("RGB")).astype(np.float64)
    return [
        base,
        frame.enlarged(_rgb(b)),
        frame.beyond(frame.enlarged(_rgb(aligned)), outside),
        frame.beyond(overlay, is_missing),
        frame.beyond(frame.enlarged(coloured), outside),
    ]


def _standardised(image: NDArray[np.float32], inside: NDArray[np.bool_]) -> NDArray[np.float32]:
    values = image[inside].astype(np.float64)
    if values.size == 0 or values.min() == values.max():
        return np.zeros_like(image)
    scores: NDArray[np.float64] = (image - values.mean()) / values.std()
    return scores.astype(np.float32)


class _Sheet:
    """A picture being drawn."""

    def __init__(self, width: int, height: int) -> None:
        self.picture = Pillow.new("RGB", (width, height), _BACKGROUND)
        self.draw = ImageDraw.Draw(self.picture)

    def text(self, place: tuple[float, float], words: str, size: int, fill: tuple[int, int, int], anchor: str) -> None:
        self.draw.text(place, words, font=_font(size), fill=fill, anchor=anchor)

    def paste(self, place: tuple[int, int], colours: Colours) -> None:
        self.picture.paste(Pillow.fromarray(np.rint(np.clip(colours, 0, 255)).astype(np.uint8)), place)

    def fitted(self, words: str, size: int, width: float) -> str:
        """Shorten text in its middle until it fits."""
        words = one_line(words, 300)
        if self.draw.textlength(words, _font(size)) <= width:
            return words
        keep = len(words)
        while keep > 2:
            keep -= 1
            short = words[: keep // 2] + "..." + words[len(words) - (keep - keep // 2) :]
            if self.draw.textlength(short, _font(size)) <= width:
                return short
        return words[:1]

    def caption(self, x: float, y: float, width: float, title: str, note: str) -> None:
        self.text((x, y), self.fitted(title, _TEXT_SIZE, width), _TEXT_SIZE, _TEXT, "la")
        self.text((x, y + 24), self.fitted(note, _SMALL, width), _SMALL, _QUIET, "la")

    def key(self, x: int, y: int, width: int, colours: Colours, ticks: Sequence[tuple[float, str]]) -> None:
        """Draw a bar of colours ``(n, 3)`` with ticks at parts of its width."""
        row = np.rint(np.clip(colours, 0, 255)).astype(np.uint8)[np.newaxis]
        bar = Pillow.fromarray(row).resize((width, 10), Pillow.Resampling.BILINEAR)
        self.picture.paste(bar, (x, y))
        for part, words in ticks:
            at = x + part * (width - 1)
            anchor = "la" if part == 0 else "ra" if part == 1 else "ma"
            self.draw.line([(at, y + 10), (at, y + 14)], fill=_QUIET)
            self.text((at, y + 18), words, _SMALL, _QUIET, anchor)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _draw_table(sheet: _Sheet, comparison: Comparison, x: int, y: int, width: int) -> None:
    """Write the numbers into the sixth cell."""
    lies, moved = x + width * 0.76, x + width
    sheet.text((lies, y), "as they lie", _SMALL, _QUIET, "ra")
    sheet.text((moved, y), "registered", _SMALL, _QUIET, "ra")
    y += 22
    for name, first, second in comparison.rows():
        sheet.draw.line([(x, y), (x + width, y)], fill=_RULE)
        sheet.text((x, y + 7), name, _TEXT_SIZE, _TEXT, "la")
        sheet.text((lies, y + 7), _number(first), _TEXT_SIZE, _QUIET if first is None else _TEXT, "ra")
        sheet.text((moved, y + 7), _number(second), _TEXT_SIZE, _QUIET if second is None else _TEXT, "ra")
        y += 33
    sheet.draw.line([(x, y), (x + width, y)], fill=_RULE)
    transform = comparison.registration.transform
    lines = [
        f"B {'mirrored, ' if transform.is_mirrored else ''}turned {transform.angle_degrees:+.2f} degrees, "
        f"scaled by {transform.scale:.4f},",
        f"moved {transform.shift_rows:+.2f} px down and {transform.shift_columns:+.2f} px right",
    ]
    if not comparison.has_overlap:
        lines.append("Under 35 % overlap: nothing to compare once registered.")
    for line in lines:
        y += 22
        sheet.text((x, y - 10), sheet.fitted(line, _SMALL, width), _SMALL, _QUIET, "la")


def _over(base: Colours, values: NDArray[np.float64]) -> Colours:
    """Lay the diverging colours of values from -1 to 1 over an image ``(..., 3)``; where they are 0 it stays grey."""
    colours = np.array(palette(), np.float64).reshape(-1, 3)[:_N_DIVERGING]
    nearest = np.rint((np.clip(values, -1, 1) + 1) / 2 * (_N_DIVERGING - 1)).astype(np.intp)
    cover = (_COVER * np.clip(np.abs(values), 0, 1))[..., np.newaxis]
    return np.asarray(base * _BENEATH * (1 - cover) + colours[nearest] * cover)


def _draw_explanation(sheet: _Sheet, comparison: Comparison, explanation: Explanation, frame: _Frame, y: int) -> None:
    """Draw the third row: the map of each image over it, its strongest regions outlined, and these in numbers."""
    limit = max(_LEAST_LIMIT, *(float(np.abs(values).max()) for values in explanation.maps))
    places = [_MARGIN + k * (frame.cell_width + _GAP) for k in range(3)]
    top = y + _CAPTION - 8
    for k, name in enumerate("AB"):
        x, values = places[k], explanation.maps[k]
        note = f"how far the cosine falls where a patch of {name} is blurred away"
        sheet.caption(x, y, frame.cell_width, f"{name}   What makes them alike or not", note)
        sheet.paste((x, top), _over(frame.enlarged(_rgb(comparison.greys[k])), frame.enlarged_map(values) / limit))
        down, across = frame.height / values.shape[0], frame.width / values.shape[1]
        for number, region in enumerate(explanation.regions[k], 1):
            corner = x + region.column * across, top + region.row * down
            end = corner[0] + region.columns * across - 1, corner[1] + region.rows * down - 1
            sheet.draw.rectangle([corner, end], outline=_TEXT)
            sheet.text((corner[0] + 4, corner[1] + 2), str(number), _SMALL, _TEXT, "la")
    shades = _over(np.full((101, 3), 128.0), np.linspace(-1, 1, 101))
    ticks = [(0.0, f"-{limit:.2g}, keeps them apart"), (0.5, "0"), (1.0, f"makes them alike, +{limit:.2g}")]
    sheet.key(places[0], top + frame.height + 12, places[1] + frame.width - places[0], shades, ticks)
    note = f"cosine of the embeddings {explanation.cosine:.3f}"
    sheet.caption(places[2], y, frame.cell_width, f"By the metric {explanation.metric}", note)
    _draw_regions(sheet, explanation, places[2], top, frame.cell_width)


def _draw_regions(sheet: _Sheet, explanation: Explanation, x: int, y: int, width: int) -> None:
    for name, regions in zip("AB", explanation.regions, strict=True):
        for number, region in enumerate(regions, 1):
            sheet.draw.line([(x, y), (x + width, y)], fill=_RULE)
            sheet.text((x, y + 7), f"{name} {number}   {region.place}", _TEXT_SIZE, _TEXT, "la")
            where = f"row {region.row}, column {region.column}"
            sheet.text((x + width * 0.76, y + 9), where, _SMALL, _QUIET, "ra")
            sheet.text((x + width, y + 7), f"{region.fall:+.3f}", _TEXT_SIZE, _TEXT, "ra")
            y += 33
    sheet.draw.line([(x, y), (x + width, y)], fill=_RULE)
    note = "without the patch the cosine falls (+) or rises (-) by so much"
    sheet.text((x, y + 12), sheet.fitted(note, _SMALL, width), _SMALL, _QUIET, "la")


def draw_comparison(comparison: Comparison, explanation: Explanation | None = None) -> Pillow.Image:
    """Draw a comparison.

    The upper row shows image A, image B, and B laid onto A; the lower one the local correlation over A, the
    difference of both in standard deviations, and the numbers. What B does not cover is hatched. With an explanation a
    third row shows its maps over both images, on one scale.

    Args:
        comparison: From `deepssim.compare.compare_images`.
        explanation: From `deepssim.explain.explain`, of the comparison's pixels.

    Returns:
        An RGB picture, about 1,400 x 1,100 pixels for square images, 1,650 high with an explanation.

    Example:
        >>> import tempfile
        >>> from deepssim.compare import compare_images
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     np.save(Path(folder, "a.npy"), np.random.default_rng(0).random((64, 64), np.float32))
        ...     found = compare_images(Path(folder, "a.npy"), Path(folder, "a.npy"))
        >>> draw_comparison(found).mode
        'RGB'
    """
    frame = _Frame(comparison.size)
    panels = _panels(comparison, frame)
    width = 2 * _MARGIN + 3 * frame.cell_width + 2 * _GAP
    lower = _MARGIN + _CAPTION + frame.height + _GAP
    third = lower + _CAPTION + max(frame.height + _KEY, 420) + _MARGIN // 2
    height = third if explanation is None else third + _CAPTION + max(frame.height + _KEY, 240) + _MARGIN // 2
    sheet = _Sheet(width, height)
    sizes = [f"{rows} x {columns} px" for rows, columns in comparison.sizes]
    shown = f", shown at {comparison.size[0]} x {comparison.size[1]}" if comparison.is_resized else ""
    captions = [
        (f"A   {Path(comparison.names[0]).name}", sizes[0] + shown),
        (f"B   {Path(comparison.names[1]).name}", sizes[1] + (", turned by 90 degrees" * comparison.is_turned) + shown),
        ("B laid onto A", str(comparison.registration.transform)),
        ("Where they agree", "local correlation over A"),
        ("Difference", "B laid onto A less A, standard deviations"),
    ]
    places = [(_MARGIN + k % 3 * (frame.cell_width + _GAP), _MARGIN if k < 3 else lower) for k in range(6)]
    for panel, (title, note), (x, y) in zip(panels, captions, places, strict=False):
        sheet.caption(x, y, frame.cell_width, title, note)
        sheet.paste((x, y + _CAPTION - 8), panel)
    below = lower + _CAPTION - 8 + frame.height + 12
    values = np.linspace(0, 1, 101)
    colours, opacity = _agreement(values)
    middle = np.full(3, 128.0)
    shades = middle * (1 - opacity[:, np.newaxis]) + colours * opacity[:, np.newaxis]
    ticks = [(0.0, "0 or less"), (0.5, ".5"), (1.0, "alike, 1")]
    sheet.key(places[3][0], below, frame.width, shades, ticks)
    differences = np.array(palette(), np.float64).reshape(-1, 3)
    ticks = [(0.0, "-2, darker in B"), (0.5, "0"), (1.0, "brighter in B, 2")]
    sheet.key(places[4][0], below, frame.width, differences, ticks)
    x, y = places[5]
    sheet.caption(x, y, frame.cell_width, "In numbers", "1 is alike, 0 unrelated")
    _draw_table(sheet, comparison, x, y + _CAPTION - 8, frame.cell_width)
    if explanation is not None:
        _draw_explanation(sheet, comparison, explanation, frame, third)
    return sheet.picture


def save_comparison(comparison: Comparison, path: Path, explanation: Explanation | None = None) -> None:
    """Write the picture of a comparison as PNG, readable by its owner alone."""
    picture = draw_comparison(comparison, explanation)
    with replacing(path) as temporary:
        picture.save(temporary, "PNG", optimize=True)
