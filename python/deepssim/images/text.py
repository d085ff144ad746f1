"""Short, safe, one-line text for reasons and messages."""

from __future__ import annotations

import re

_ADDRESS = re.compile(r"<([\w.]+) object at 0x[0-9a-fA-F]+>")
_ABSOLUTE_PATH = re.compile(r"(?<![\w.:/])/(?:[^\s/'\":]+/)+[^\s'\":]*")


def one_line(text: str, limit: int = 160) -> str:
    r"""Return text as one line of at most ``limit`` characters, with all that is not printable escaped.

    Control characters, line breaks and bidirectional overrides come out as ``\x..`` or ``\u....``, so that a
    file name cannot draw on a terminal or forge a second line.

    Args:
        text: Any text, also with lone surrogates.
        limit: The most characters to return; a longer text ends in "...".

    Example:
        >>> one_line("scan\n\u202egnp.exe")
        'scan\\n\\u202egnp.exe'
    """
    escaped = "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in text[: limit + 1]
    )
    return escaped if len(escaped) <= limit else escaped[: limit - 3] + "..."


def reason_of(error: BaseException) -> str:
    """Return what an exception of a decoder says as one line without paths and memory addresses.

    The same broken file must give the same words in every run and on every machine.

    Args:
        error: The exception.
    """
    text = _ADDRESS.sub(r"\1", str(error))
    text = _ABSOLUTE_PATH.sub("...", " ".join(text.split())).rstrip(". ")
    return one_line(text or type(error).__name__)


def is_utf8(text: str) -> bool:
    r"""Say whether text can be written as UTF-8 (a file name that is not UTF-8 holds lone surrogates).

    Args:
        text: A path or an id.

    Example:
        >>> is_utf8("caf\u00e9"), is_utf8("caf\udce9")
        (True, False)
    """
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def escape_path(path: str) -> str:
    r"""Return a path whose bytes are not UTF-8 with those bytes as ``\x..``.

    Args:
        path: A path as the operating system gave it (``surrogateescape``).

    Example:
        >>> escape_path("caf\udce9.png")
        'caf\\xe9.png'
    """
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def some(names: list[str], limit: int = 5) -> str:
    """Return the first names of a list for a message, escaped and quoted.

    Args:
        names: Any names.
        limit: The most names to show.

    Example:
        >>> some(["a", "b", "c"], limit=2)
        "'a', 'b' and 1 more"
    """
    shown = ", ".join(f"'{one_line(name, 80)}'" for name in names[:limit])
    return shown if len(names) <= limit else f"{shown} and {len(names) - limit:,} more"
