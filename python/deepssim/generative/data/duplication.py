"""How often each image is trained on: repeated images are what models memorize."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from deepssim.errors import UsageError
from deepssim.generative.data.faults import refuse
from deepssim.generative.data.record import Record
from deepssim.images.text import one_line, some

__all__ = ["RULES", "check_duplication", "multiplicities"]

RULES = {"none": (1, 1), "low": (1, 4), "high": (1, 14)}
"""Least and greatest multiplicity of the published rules; the reference implementation's upper bounds are exclusive."""

_COLUMN = "column:"
_RANGE = re.compile(r"(\d{1,9})-(\d{1,9})", re.ASCII)
_WHOLE = re.compile(r"\d{1,9}(?:\.0{1,9})?", re.ASCII)
_MOST = 10_000


def check_duplication(rule: str) -> None:
    """Check a rule before anything is read.

    Raises:
        UsageError: It is none.

    Example:
        >>> check_duplication("1-15")
    """
    if not rule.startswith(_COLUMN):
        _range(rule)
    elif not rule.removeprefix(_COLUMN):
        raise UsageError(f"the duplication '{_COLUMN}' names no column: write {_COLUMN}NAME")


def multiplicities(records: Sequence[Record], rule: str = "none", seed: int = 0) -> NDArray[np.int64]:
    """Return how often each record is trained on.

    Args:
        records: Those that are trained on.
        rule: ``"none"`` (once), ``"low"`` (1 to 4 times), ``"high"`` (1 to 14 times), a range such as ``"1-15"``, all
            of which are drawn evenly; or ``"column:NAME"``: what that column of the CSV says.
        seed: Of the draw; a record's number depends on rule, seed and uid alone, not on the other records.

    Returns:
        ``(n,)``, each at least 1.

    Raises:
        UsageError: The rule is none, or there is no such column, or it holds what is no whole number from 1 on.

    Example:
        >>> from pathlib import Path
        >>> records = [Record(uid, Path(f"{uid}.png"), "train") for uid in ("p1", "p2", "p3")]
        >>> counts = multiplicities(records, "1-15", seed=7)
        >>> counts.tolist() == multiplicities(records[::-1], "1-15", seed=7)[::-1].tolist()
        True
    """
    check_duplication(rule)
    if rule.startswith(_COLUMN):
        return _of_column(records, rule.removeprefix(_COLUMN))
    low, high = _range(rule)
    return np.array([low + _draw(seed, record.uid, high - low + 1) for record in records], np.int64)


def _range(rule: str) -> tuple[int, int]:
    if rule in RULES:
        return RULES[rule]
    match = _RANGE.fullmatch(rule)
    if match is None:
        raise UsageError(
            f"there is no duplication '{one_line(rule, 60)}': it is one of {', '.join(RULES)}, a range such as 1-15, "
            f"or {_COLUMN}NAME"
        )
    low, high = int(match[1]), int(match[2])
    if not 1 <= low <= high <= _MOST:
        raise UsageError(f"the duplication {rule} goes from {low:,} to {high:,}: it must be 1 <= A <= B <= {_MOST:,}")
    return low, high


def _draw(seed: int, uid: str, n_values: int) -> int:
    """Draw evenly from 0 to ``n_values - 1``; of 256 bits, the remainder is even to one part in 10^73."""
    digest = hashlib.sha256(f"multiplicity:{seed}:{uid}".encode("utf-8", "surrogateescape")).digest()
    return int.from_bytes(digest, "big") % n_values


def _of_column(records: Sequence[Record], column: str) -> NDArray[np.int64]:
    columns = sorted({name for record in records for name in record.variables})
    if column not in columns:
        raise UsageError(
            f"the duplication names the column '{one_line(column, 60)}', which is not there; columns with variables "
            f"are {some(columns, 12) or 'none'}"
        )
    found = np.ones(len(records), np.int64)
    faults = []
    for i, record in enumerate(records):
        cell = record.variables.get(column, "")
        if _WHOLE.fullmatch(cell) and 1 <= float(cell) <= _MOST:
            found[i] = int(float(cell))
        else:
            faults.append(f"{record.place}: '{one_line(cell, 40)}'")
    refuse(f"the column '{one_line(column, 60)}' must hold whole numbers from 1 to {_MOST:,}", faults)
    return found
