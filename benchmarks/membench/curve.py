"""What is detected of a near copy, by how far its deformation moves the anatomy."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from benchmarks.membench.bench import make_bench
from benchmarks.membench.figures import Figure, share
from benchmarks.membench.run import Say, Settings, read_people
from benchmarks.membench.systems import Cuts, from_evidence
from benchmarks.membench.verified import examine, to_bytes
from deepssim.calibration import load_calibration
from deepssim.evaluate import EXACT, NEAR, UNRELATED
from deepssim.perturb import ViewKind

AMPLITUDES_PX = (0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 7.0)
# Dashes in pixels, 0: a whole line.
DASHES = {"aligned": 4.0, "perturbed": 12.0, "hard": 0.0}
# Blue and orange that colour-blind readers tell apart, green for phantoms (Okabe and Ito).
COLOURS = {"brain": (0, 114, 178), "chest": (213, 94, 0), "phantom": (0, 158, 115)}
WIDTH, HEIGHT, LEFT, TOP, RIGHT, BOTTOM = 1480, 640, 90, 60, 40, 80


@dataclass(frozen=True)
class Point:
    """What is seen of near copies of one amplitude.

    Attributes:
        domain: Kind of image.
        condition: How copies are seen.
        amplitude_px: Peak displacement at a shorter side of 112 px; 0: exact copies.
        flagged: Share called near or exact.
        called_near: Share called near, and not exact.
    """

    domain: str
    condition: str
    amplitude_px: float
    flagged: Figure
    called_near: Figure


def measure_curve(
    settings: Settings,
    domains: Sequence[str],
    conditions: Sequence[ViewKind],
    say: Say,
    *,
    amplitudes_px: Sequence[float] = AMPLITUDES_PX,
) -> list[Point]:
    """Measure the verifier, with the first of the calibrations, on near copies without lesions.

    Every copy is compared with every real image of the draw.
    """
    name = settings.calibrations[0]
    cuts = Cuts(*load_calibration(name).cuts(), name)
    points = []
    for domain in domains:
        people = read_people(settings, domain, (settings.split,))
        for condition in conditions:
            for amplitude in (0.0, *amplitudes_px):
                bench = make_bench(
                    people,
                    condition,
                    seed=settings.seed,
                    amplitude_px=amplitude or None,
                    lesion_probability=0.0,
                )
                copies = np.flatnonzero(bench.truth == (NEAR if amplitude else EXACT))
                where = f"curve of {domain} {condition}, {amplitude:g} px"
                evidence = examine(
                    [to_bytes(image) for image in bench.real],
                    [to_bytes(bench.synthetic[i]) for i in copies],
                    threads=settings.threads,
                    cache=settings.cache,
                    report=lambda text, where=where: say(f"{where}: {text}"),  # type: ignore[misc]
                )
                labels = from_evidence("verifier", evidence).labels(cuts)
                every = np.arange(len(copies))
                owners = bench.people[copies]
                flagged, near = (share(event, every, owners) for event in (labels != UNRELATED, labels == NEAR))
                points.append(Point(domain, condition, amplitude, flagged, near))
            say(f"curve of {domain} {condition}: done")
    return points


def plot_curve(points: Sequence[Point], path: Path) -> None:
    """Draw two panels: the share flagged and the share told from exact copies, with 95 % intervals."""
    picture = Image.new("RGB", (WIDTH, HEIGHT), "white")
    pen = ImageDraw.Draw(picture)
    half = WIDTH // 2
    titles = ("flagged as a copy", "called near, not exact")
    largest = max((point.amplitude_px for point in points), default=1.0) or 1.0
    for panel, title in enumerate(titles):
        box = (panel * half + LEFT, TOP, (panel + 1) * half - RIGHT, HEIGHT - BOTTOM)
        _axes(pen, box, title, largest)
        curves = list(dict.fromkeys((p.domain, p.condition) for p in points))
        for number, (domain, condition) in enumerate(curves):
            own = [p for p in points if (p.domain, p.condition) == (domain, condition)]
            shares = [(p.amplitude_px, p.called_near if panel else p.flagged) for p in own]
            aside = 5 * (number - (len(curves) - 1) / 2)  # so that intervals stand beside each other
            _line(pen, box, shares, largest, COLOURS[domain], DASHES[condition], aside)
            if panel == 0:
                row = box[3] - 24 * (number + 1) - 6
                middle = row + 11
                _stroke(pen, [(box[2] - 230, middle), (box[2] - 190, middle)], COLOURS[domain], DASHES[condition])
                pen.text((box[2] - 180, row), f"{domain}, {condition}", fill="black", font=_font(18))
    picture.save(path)


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def _axes(pen: ImageDraw.ImageDraw, box: tuple[int, int, int, int], title: str, largest: float) -> None:
    left, top, right, bottom = box
    pen.text((left, top - 40), f"Near copies {title}, %", fill="black", font=_font(22))
    for percent in range(0, 101, 20):
        y = bottom - (bottom - top) * percent / 100
        pen.line([(left, y), (right, y)], fill=(225, 225, 225), width=1)
        pen.text((left - 10, y), f"{percent}", fill="black", font=_font(18), anchor="rm")
    for px in range(0, int(largest) + 1):
        x = left + (right - left) * px / largest
        pen.line([(x, bottom), (x, bottom + 6)], fill="black", width=1)
        pen.text((x, bottom + 10), f"{px}", fill="black", font=_font(18), anchor="mt")
    pen.line([(left, top), (left, bottom), (right, bottom)], fill="black", width=2)
    text = "peak displacement, px at a shorter side of 112 px (0: exact copies)"
    pen.text(((left + right) / 2, bottom + 40), text, fill="black", font=_font(18), anchor="mt")


def _line(
    pen: ImageDraw.ImageDraw,
    box: tuple[int, int, int, int],
    shares: Sequence[tuple[float, Figure]],
    largest: float,
    colour: tuple[int, int, int],
    dash: float,
    aside: float,
) -> None:
    left, top, right, bottom = box

    def place(px: float, value: float) -> tuple[float, float]:
        return left + (right - left) * px / largest, bottom - (bottom - top) * value

    for px, figure in shares:
        x, _ = place(px, 0.0)
        (_, low), (_, high), (_, middle) = (place(px, v) for v in (figure.low, figure.high, figure.value))
        pen.line([(x + aside, low), (x + aside, high)], fill=tuple((c + 255) // 2 for c in colour), width=3)
        pen.ellipse([x + aside - 5, middle - 5, x + aside + 5, middle + 5], fill=colour)
    middles = [place(px, figure.value) for px, figure in shares if px > 0]
    _stroke(pen, [(x + aside, y) for x, y in middles], colour, dash)


def _stroke(
    pen: ImageDraw.ImageDraw, path: Sequence[tuple[float, float]], colour: tuple[int, int, int], dash: float
) -> None:
    """Draw a line, whole or in dashes of so many pixels."""
    if not dash:
        pen.line(list(path), fill=colour, width=3)
        return
    done = 0.0  # along the line, so that dashes go on round corners
    for (x0, y0), (x1, y1) in itertools.pairwise(path):
        length = math.hypot(x1 - x0, y1 - y0)
        n = max(1, round(length / 2))
        for i in range(n):
            if (done + length * i / n) % (2 * dash) < dash:
                a, b = i / n, (i + 1) / n
                ends = [(x0 + (x1 - x0) * t, y0 + (y1 - y0) * t) for t in (a, b)]
                pen.line(ends, fill=colour, width=3)
        done += length
