"""Typed access to the JSON files of an audit folder.

The files may be years old, cut short or edited. Every access names the file and the field when something
is not as it should be, so that a damaged file gives one line and not a traceback.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from deepssim.errors import DeepSSIMError

# The largest of these files is a summary with a histogram: tens of kilobytes.
_MAX_JSON_BYTES = 64 * 2**20
# Numbers beyond this were not written by an audit, and their products may be no numbers.
_MAX = 2**63


class ReportError(DeepSSIMError):
    """A report cannot be made: a file of the audit folder is missing, damaged or of another version."""


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and -_MAX < value < _MAX


def _is_count(value: object) -> bool:
    return type(value) is int and 0 <= value < _MAX


class Fields:
    """One JSON object of a file, read field by field.

    Args:
        value: The decoded object.
        where: File and field, for messages.

    Raises:
        ReportError: `value` is not a JSON object.
    """

    def __init__(self, value: object, where: str) -> None:
        if not isinstance(value, dict):
            raise ReportError(f"{where} must be an object; the file is damaged, run the audit again")
        self._values: dict[str, Any] = value
        self._where = where

    def _bad(self, key: str, what: str) -> ReportError:
        return ReportError(f"{self._where}: {key} {what}; the file is damaged, run the audit again")

    def _get(self, key: str) -> Any:
        if key not in self._values:
            raise self._bad(key, "is missing")
        return self._values[key]

    def items(self) -> list[tuple[str, object]]:
        """Return all fields, in the file's order."""
        return list(self._values.items())

    def is_null(self, key: str) -> bool:
        """Say whether a field is null or not there."""
        return self._values.get(key) is None

    def text(self, key: str) -> str:
        """Return a string.

        Raises:
            ReportError: The field is missing or no string. So for the methods below.
        """
        value = self._get(key)
        if not isinstance(value, str):
            raise self._bad(key, "must be text")
        return value

    def text_or_none(self, key: str) -> str | None:
        """Return a string, or None where the field is null or not there."""
        return None if self.is_null(key) else self.text(key)

    def number(self, key: str, low: float = -math.inf, high: float = math.inf) -> float:
        """Return a finite number from `low` to `high`."""
        value = self._get(key)
        if not _is_number(value):
            raise self._bad(key, "must be a finite number")
        if not low <= value <= high:
            raise self._bad(key, f"must lie between {low:g} and {high:g}")
        return float(value)

    def number_or_none(self, key: str, low: float = -math.inf, high: float = math.inf) -> float | None:
        """Return a finite number, or None where the field is null or not there."""
        return None if self.is_null(key) else self.number(key, low, high)

    def count(self, key: str) -> int:
        """Return a whole number, 0 or more."""
        value = self._get(key)
        if not _is_count(value):
            raise self._bad(key, "must be a whole number, 0 or more")
        return int(value)

    def count_or_none(self, key: str) -> int | None:
        """Return a whole number, or None where the field is null or not there."""
        return None if self.is_null(key) else self.count(key)

    def flag(self, key: str) -> bool:
        """Return true or false."""
        value = self._get(key)
        if not isinstance(value, bool):
            raise self._bad(key, "must be true or false")
        return value

    def one_of(self, key: str, words: tuple[str, ...]) -> str:
        """Return a string that is one of `words`."""
        value = self.text(key)
        if value not in words:
            raise self._bad(key, f"must be one of {', '.join(words)}")
        return value

    def fields(self, key: str) -> Fields:
        """Return an object inside this one."""
        return Fields(self._get(key), f"{self._where}: {key}")

    def fields_or_none(self, key: str) -> Fields | None:
        """Return an object, or None where the field is null or not there."""
        return None if self.is_null(key) else self.fields(key)

    def _list(self, key: str) -> list[Any]:
        value = self._get(key)
        if not isinstance(value, list):
            raise self._bad(key, "must be a list")
        return value

    def texts(self, key: str) -> tuple[str, ...]:
        """Return a list of strings."""
        values = self._list(key)
        if not all(isinstance(value, str) for value in values):
            raise self._bad(key, "must be a list of texts")
        return tuple(values)

    def numbers(self, key: str) -> tuple[float, ...]:
        """Return a list of finite numbers."""
        values = self._list(key)
        if not all(map(_is_number, values)):
            raise self._bad(key, "must be a list of finite numbers")
        return tuple(float(value) for value in values)

    def counts(self, key: str) -> tuple[int, ...]:
        """Return a list of whole numbers, 0 or more."""
        values = self._list(key)
        if not all(map(_is_count, values)):
            raise self._bad(key, "must be a list of whole numbers, 0 or more")
        return tuple(values)

    def bounds(self, key: str) -> tuple[float, float] | None:
        """Return an interval of fractions (low, high), or None where the field is null or not there."""
        if self.is_null(key):
            return None
        values = self.numbers(key)
        if len(values) != 2 or not 0 <= values[0] <= values[1] <= 1:
            raise self._bad(key, "must be two fractions, the lower first")
        return values[0], values[1]


def read_json(path: Path) -> object:
    """Read a JSON file.

    Args:
        path: The file, UTF-8, at most 64 MiB.

    Returns:
        The decoded value.

    Raises:
        ReportError: The file is missing, too large or no JSON.
    """
    try:
        with path.open("rb") as stream:
            raw = stream.read(_MAX_JSON_BYTES + 1)
    except FileNotFoundError:
        raise ReportError(f"{path} is missing; name the folder of a finished audit") from None
    except OSError as error:
        raise ReportError(f"{path} cannot be read: {error.strerror}") from None
    if len(raw) > _MAX_JSON_BYTES:
        raise ReportError(f"{path} is larger than 64 MiB, which no audit writes; run the audit again")
    try:
        return json.loads(raw)
    except (ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise ReportError(f"{path} is damaged ({reason}); run the audit again") from None


def read_versioned(path: Path, file_format: str, version: int) -> Fields:
    """Read a JSON object that names its format and version.

    Args:
        path: The file.
        file_format: What its field ``format`` must say.
        version: The newest version that this program reads.

    Returns:
        The object.

    Raises:
        ReportError: The file is missing, damaged, of another format or newer.
    """
    fields = Fields(read_json(path), str(path))
    if fields.text("format") != file_format:
        raise ReportError(f"{path} is not a {file_format} file; name the folder of a finished audit")
    found = fields.count("version")
    if found > version:
        raise ReportError(f"{path} has version {found}, this program reads {version}; update deepssim")
    return fields
