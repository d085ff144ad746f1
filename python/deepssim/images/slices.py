"""Which slices of a volume to take."""

from __future__ import annotations

import math
import re

from deepssim.errors import UsageError
from deepssim.images.text import one_line

AXES = ("axial", "coronal", "sagittal")
"""Names of the axes that slices can be perpendicular to."""

CANONICAL_AXIS = {"sagittal": 0, "coronal": 1, "axial": 2}
"""Their numbers in a canonical volume: right, anterior, superior."""

# Long enough for every axis; short enough that no number is slow to read.
_INDEX = re.compile(r"\d{1,9}", re.ASCII)
_PERCENT = re.compile(r"(\d{1,3}(?:\.\d{1,9})?)%", re.ASCII)
_RANGE = re.compile(r"(\d{1,9})?:(\d{1,9})?(?::(\d{1,9}))?", re.ASCII)

Term = int | float | slice
"""A slice number, a percentage of the axis, or a range of slice numbers."""


def parse_slices(text: str) -> tuple[Term, ...]:
    """Parse a choice of slices.

    Args:
        text: "middle", "all", or terms separated by commas: a number, a percentage with "%", or a range
            ``start:stop`` or ``start:stop:step`` with ``stop`` excluded, as in Python.

    Returns:
        The terms: int for a number, float for a percentage, slice for a range.

    Raises:
        UsageError: The text is none of these.

    Example:
        >>> parse_slices("25%,40,60:90:10")
        (25.0, 40, slice(60, 90, 10))
    """
    if not isinstance(text, str):
        raise UsageError(f"slices is {text!r}: it must be text such as 'middle', 'all', '40' or '20:100:4'")
    if text == "middle":
        return (50.0,)
    if text == "all":
        return (slice(None),)
    return tuple(_term(part.strip(), text) for part in text.split(","))


def _term(part: str, text: str) -> Term:
    if _INDEX.fullmatch(part):
        return int(part)
    if (match := _PERCENT.fullmatch(part)) and float(match[1]) <= 100:
        return float(match[1])
    if (match := _RANGE.fullmatch(part)) and match[3] != "0" * len(match[3] or ""):
        start, stop, step = (None if number is None else int(number) for number in match.groups())
        if start is None or stop is None or start < stop:
            return slice(start, stop, step)
    raise UsageError(
        f"slices is '{one_line(text, 60)}', and '{one_line(part, 30)}' in it is no slice: "
        "use 'middle', 'all', or numbers, percentages and ranges such as "
        "'40', '40,44,60', '20:100:4', '25%,75%'"
    )


def count_slices(text: str) -> int | None:
    """Return how many slices a choice asks for, or None where only the volume can tell.

    Args:
        text: A choice that `parse_slices` accepts.

    Example:
        >>> count_slices("25%,50%,75%"), count_slices("all")
        (3, None)
    """
    terms = parse_slices(text)
    return None if any(isinstance(term, slice) for term in terms) else len(set(terms))


def select_slices(text: str, n_slices: int) -> tuple[list[int], list[str]]:
    """Find the slices that a choice means in one volume.

    A percentage p takes slice ``floor(n_slices * p / 100)``, at most the last one, so "middle" is
    ``n_slices // 2``. Ranges are cut at the ends of the volume.

    Args:
        text: A choice that `parse_slices` accepts.
        n_slices: Length of the axis in voxels, at least 1.

    Returns:
        The slice numbers, ascending and without repeats, and the terms that lie outside the volume as text.

    Example:
        >>> select_slices("50%,3,40", 10)
        ([3, 5], ['40'])
    """
    inside: set[int] = set()
    outside: list[str] = []
    for term in parse_slices(text):
        if isinstance(term, slice):
            taken = range(n_slices)[term]
            inside.update(taken)
            if not taken:
                outside.append(f"{term.start or 0}:{'' if term.stop is None else term.stop}")
        elif isinstance(term, float):
            inside.add(min(n_slices - 1, math.floor(n_slices * term / 100)))
        elif term < n_slices:
            inside.add(term)
        else:
            outside.append(str(term))
    return sorted(inside), list(dict.fromkeys(outside))
