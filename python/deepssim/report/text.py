"""Text and numbers as a person reads them.

`visible` and `markup` are the only way in which a string from a file reaches the page: characters that
hide, reorder or break text are shown as their code point, so that a name cannot pretend to be another.
Numbers carry narrow no-break spaces (U+202F) before ``%`` and between thousands, as ISO 80000-1 asks.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from itertools import groupby

from markupsafe import Markup, escape

NARROW = "\u202f"
NO_BREAK = "\u00a0"
MINUS = "\u2212"
DASH = "\u2013"
ELLIPSIS = "\u2026"

# Cc control, Cf format (bidi, zero width), Cs lone surrogates, Co private use, Cn unassigned, Zl/Zp line ends.
_HIDDEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
# Longer runs of combining marks paint over the neighbouring lines ("zalgo").
_MAX_MARKS = 3
_MONTHS = (
    "January", "February", "March", "April", "May", "June", "July",
    "August", "September", "October", "November", "December",
)  # fmt: skip


def _is_hidden(char: str, marks: int, *, is_first: bool) -> bool:
    """Say whether a character is shown as its code point; `marks` is the run of marks up to it."""
    if unicodedata.category(char) in _HIDDEN or marks > _MAX_MARKS:
        return True
    # A mark at the start would join whatever stands before the text on the page.
    return is_first and marks > 0


def _pieces(text: str) -> Iterator[tuple[str, bool]]:
    """Split `text` into (piece, is_code_point); runs of one hidden character become ``U+202E x 3``."""
    if text.isascii() and text.isprintable():  # nearly all, and a picture is a million characters
        if text:
            yield text, False
        return
    plain: list[str] = []
    marks = 0
    for char, run in groupby(text):
        n_run = len(list(run))
        n_shown = 0
        for _ in range(n_run):
            marks = marks + 1 if unicodedata.category(char).startswith("M") else 0
            if _is_hidden(char, marks, is_first=not plain):
                break
            plain.append(char)
            n_shown += 1
        if n_shown < n_run:
            marks += n_run - n_shown - 1 if marks else 0
            if plain:
                yield "".join(plain), False
                plain = []
            times = f" \u00d7 {n_run - n_shown}" if n_run - n_shown > 1 else ""
            yield f"U+{ord(char):04X}{times}", True
    if plain:
        yield "".join(plain), False


def visible(text: str) -> str:
    r"""Return `text` with every hidden or reordering character written as ``[U+XXXX]``.

    Args:
        text: Any string, also with lone surrogates.

    Returns:
        A string that can be encoded as UTF-8 and reads in the order in which it is stored. It is not HTML.

    >>> visible("scan\u202egnp.exe")
    'scan[U+202E]gnp.exe'
    """
    return "".join(f"[{piece}]" if is_code else piece for piece, is_code in _pieces(text))


def markup(text: str) -> Markup:
    r"""Return `text` as escaped HTML, hidden characters as marked code points.

    The mark (an element of class ``esc``) tells a real U+202E from a name that spells out "U+202E".

    >>> markup("<b>\u200b")
    Markup('&lt;b&gt;<span class="esc">U+200B</span>')
    """
    parts = [
        Markup('<span class="esc">{}</span>').format(piece) if is_code else escape(piece)
        for piece, is_code in _pieces(text)
    ]
    return Markup("").join(parts)


def shorten(text: str, limit: int) -> str:
    """Cut the middle out of `text` so that `limit` characters and an ellipsis are left.

    Both ends are kept: in a path the file name at the end tells most.

    >>> shorten("abcdefghij", 6)
    'ab…ghij'
    """
    if len(text) <= limit:
        return text
    head = limit * 2 // 5
    return text[:head] + ELLIPSIS + text[len(text) - (limit - head) :]


def prose(text: str) -> str:
    r"""Return a sentence with narrow no-break spaces before ``%`` and, for commas, between thousands.

    >>> prose("2.4 % of 1,200") == "2.4\u202f% of 1\u202f200"
    True
    """
    spaced = re.sub(r"(?<=\d) %", NARROW + "%", text)
    spaced = re.sub(r"\bp = (?=\d)", f"p{NO_BREAK}={NO_BREAK}", spaced)
    return re.sub(r"(?<![\w.,])\d{1,3}(?:,\d{3})+(?![\w,])", lambda match: match[0].replace(",", NARROW), spaced)


def count(value: int) -> str:
    r"""Return a whole number with narrow spaces between thousands.

    >>> count(1234567) == "1\u202f234\u202f567"
    True
    """
    return f"{value:,}".replace(",", NARROW).replace("-", MINUS)


def decimal(value: float, digits: int) -> str:
    """Return `value` with `digits` decimals, a real minus sign and narrow spaces between thousands."""
    return f"{value:,.{digits}f}".replace(",", NARROW).replace("-", MINUS)


def score(value: float) -> str:
    """Return a score with four decimals, cut off and not rounded.

    So 0.99997 does not read as a perfect score, nor one just under a threshold as one at it.

    >>> score(0.97), score(0.99997), score(0.9899999)
    ('0.9700', '0.9999', '0.9900')
    """
    # The tolerance is above the error of float32 (6e-8) and far below the last decimal.
    return decimal(math.floor(value * 1e4 + 1e-2) / 1e4, 4)


def threshold(value: float) -> str:
    """Return a threshold with as many decimals as it was given, and at least two.

    >>> threshold(0.97), threshold(0.99905)
    ('0.97', '0.99905')
    """
    digits = next((d for d in range(2, 9) if math.isclose(round(value, d), value, abs_tol=1e-12)), 9)
    return decimal(value, digits)


def percent_digits(values: Sequence[float]) -> int:
    """Return how many decimals show the smallest non-zero of some fractions in per cent (1 to 4).

    One number for a rate and its interval keeps the three comparable.
    """
    # A Wilson interval of 0 events starts at some 1e-17, which is no reason for decimals.
    smallest = min((value for value in values if value > 1e-6), default=1.0)
    return next((digits for digits in range(1, 4) if smallest * 100 >= 10.0**-digits), 4)


def percent(value: float, digits: int = 1, *, towards: str = "nearest") -> str:
    r"""Return a fraction as per cent.

    Args:
        value: A fraction, 0 to 1.
        digits: Decimals.
        towards: ``"nearest"``, ``"up"`` or ``"down"``. Bounds of an interval are rounded outwards, so that
            "at most 0.6 %" stays true.

    >>> percent(0.00561, towards="up") == "0.6\u202f%"
    True
    """
    scaled = value * 100 * 10**digits
    if towards == "up":
        scaled = math.ceil(scaled - 1e-9)
    elif towards == "down":
        scaled = math.floor(scaled + 1e-9)
    return decimal(scaled / 10**digits, digits) + NARROW + "%"


def interval(bounds: tuple[float, float], digits: int) -> str:
    """Return a confidence interval such as ``1.0 to 4.2 %``, unbroken over lines and rounded outwards."""
    low = percent(bounds[0], digits, towards="down").removesuffix(NARROW + "%")
    return f"{low}{NO_BREAK}to{NO_BREAK}{percent(bounds[1], digits, towards='up')}"


def p_value(value: float) -> str:
    """Return a p-value; below .0001 only the bound is said.

    >>> p_value(0.00049), p_value(1e-9)
    ('p = 0.0005', 'p < 0.0001')
    """
    if value < 1e-4:
        return "p < 0.0001"
    return f"p = {value:.4f}" if value < 0.1 else f"p = {value:.2f}"


def duration(seconds: float) -> str:
    r"""Return a time span in the largest two units that matter.

    >>> duration(3725.2) == "1\u202fh 2\u202fmin"
    True
    """
    if seconds < 60:
        return f"{seconds:.1f}{NARROW}s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}{NARROW}min {rest}{NARROW}s"
    hours, minutes = divmod(minutes, 60)
    return f"{count(hours)}{NARROW}h {minutes}{NARROW}min"


def moment(text: str) -> str:
    """Return an ISO 8601 time as ``24 November 2026, 05:12 UTC``; anything else is returned as it is.

    Month names are English whatever the locale of the process.
    """
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        return text
    zone = ""
    if when.tzinfo is not None:
        when = when.astimezone(UTC)
        zone = " UTC"
    return f"{when.day} {_MONTHS[when.month - 1]} {when.year}, {when:%H:%M}{zone}"


def plain(value: object) -> str:
    """Return a value of JSON (an option, a version) for a person."""
    if value is None:
        return DASH
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float):
        # A seed or a number of threads is no amount: no spaces between thousands.
        shown = f"{value:g}" if isinstance(value, float) else str(value)
        return shown.replace("-", MINUS)
    if isinstance(value, list | tuple | dict):
        items = (
            [f"{key}: {plain(item)}" for key, item in value.items()] if isinstance(value, dict) else map(plain, value)
        )
        return ", ".join(items) or DASH
    return str(value)


def plural(number: int, singular: str, many: str | None = None) -> str:
    """Return the number with its noun.

    >>> plural(1, "pair"), plural(2, "pair")
    ('1 pair', '2 pairs')
    """
    return f"{count(number)} {singular if number == 1 else many or singular + 's'}"
