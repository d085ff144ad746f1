"""The Parquet tables of an audit folder, read in bounded memory.

A table may have tens of millions of rows. What the page needs of it, the first rows in some order and
counts, is found in one pass over the numeric columns; text is decoded only for the row groups that hold
the chosen rows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from deepssim.report.data import SETS
from deepssim.report.fields import ReportError

Row = dict[str, Any]

_BATCH_ROWS = 65_536
_MAX = 2.0**63  # larger values are as good as infinite

# Column -> kind of value; "text?" may be null, "float?" too, and the column may be missing (an older audit).
COLUMNS: dict[str, dict[str, str]] = {
    "matches.parquet": {
        "synthetic_id": "text", "synthetic_path": "text", "synthetic_group": "text?", "rank": "int",
        "real_id": "text", "real_path": "text", "real_group": "text?", "score": "float", "label": "text",
        "s1": "float?", "s2": "float?",
    },
    "leaks.parquet": {
        "real_id": "text", "real_path": "text", "real_group": "text?",
        "synthetic_id": "text", "synthetic_path": "text", "score": "float", "label": "text",
        "s1": "float?", "s2": "float?",
    },
    "real_images.parquet": {
        "real_id": "text", "real_path": "text", "real_group": "text?",
        "n_exact": "int", "n_near": "int", "best_value": "float", "best_synthetic_id": "text",
    },
    "patients.parquet": {
        "group": "text", "n_images": "int", "n_images_copied": "int", "n_exact": "int", "n_near": "int",
        "best_value": "float", "best_real_id": "text", "best_synthetic_id": "text",
    },
    "skipped.parquet": {"set": "text", "id": "text", "path": "text", "code": "text", "reason": "text"},
}  # fmt: skip


@contextmanager
def _damaged(path: Path) -> Iterator[None]:
    """Turn what pyarrow raises for a broken file into one line."""
    try:
        yield
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise ReportError(f"{path} is damaged ({reason}); run the audit again") from None


def _is_kind(kind: str, data_type: Any) -> bool:
    if kind.startswith("text"):
        if pa.types.is_dictionary(data_type):
            data_type = data_type.value_type
        # A column of nothing but nulls may have been written without a type.
        is_text = pa.types.is_string(data_type) or pa.types.is_large_string(data_type)
        return bool(is_text or (kind == "text?" and pa.types.is_null(data_type)))
    if kind == "float?" and pa.types.is_null(data_type):
        return True
    return bool(pa.types.is_integer(data_type) if kind == "int" else pa.types.is_floating(data_type))


class Table:
    """One Parquet table of an audit folder.

    Args:
        path: The file; its name says which columns it must have.

    Raises:
        ReportError: The file is damaged or lacks a column.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._kinds = dict(COLUMNS[path.name])
        with _damaged(path):
            self._file = pq.ParquetFile(path)
            schema = self._file.schema_arrow
        for column, kind in COLUMNS[path.name].items():
            if kind == "float?" and column not in schema.names:
                del self._kinds[column]
            elif column not in schema.names or not _is_kind(kind, schema.field(column).type):
                raise ReportError(f"{path} has no {kind.rstrip('?')} column {column}; run the audit again")

    @property
    def n_rows(self) -> int:
        """Rows of the table."""
        return int(self._file.metadata.num_rows)

    def batches(self, columns: Sequence[str], row_groups: Sequence[int] | None = None) -> Iterator[Any]:
        """Yield the chosen columns in record batches of at most 65,536 rows, in the file's order.

        Raises:
            ReportError: The file is damaged.
        """
        with _damaged(self.path):
            groups = list(range(self._file.num_row_groups)) if row_groups is None else list(row_groups)
            yield from self._file.iter_batches(_BATCH_ROWS, row_groups=groups, columns=list(columns))

    def names(self) -> Iterator[tuple[str, str]]:
        """Yield every id, path and group of the table with its kind (a set or ``patient``), with repeats."""
        columns = [name for name in self._kinds if name.endswith(("id", "path", "group"))]
        for batch in self.batches(["set", *columns] if "set" in self._kinds else columns):
            for column in columns:
                values = batch.column(column)
                if "set" in self._kinds:
                    pairs = zip(batch.column("set").to_pylist(), values.to_pylist(), strict=True)
                    yield from ((kind, value) for kind, value in pairs if value and kind)
                    continue
                kind = "patient" if column.endswith("group") else "synthetic" if "synthetic" in column else "real"
                yield from ((kind, value) for value in pc.unique(values).to_pylist() if value)

    def top(self, keys: Sequence[str], n: int, *, only: tuple[str, int] | None = None) -> list[Row]:
        """Return the first rows in descending order of `keys`.

        Args:
            keys: Numeric columns, the most important first. Rows that tie keep the file's order.
            n: Rows to return at most.
            only: (integer column, value): other rows are left out.

        Returns:
            The rows with all columns.

        Raises:
            ReportError: The file is damaged or a key is not finite.
        """
        for key in keys:
            if key not in self._kinds:
                raise ReportError(f"{self.path} has no column {key}; run the audit again")
        best: NDArray[np.float64] = np.empty((0, len(keys) + 1))
        start = 0
        for batch in self.batches([*keys, *([only[0]] if only else [])]):
            block = np.empty((batch.num_rows, len(keys) + 1))
            for position, key in enumerate(keys):
                block[:, position] = batch.column(key).to_numpy(zero_copy_only=False)
            block[:, -1] = np.arange(start, start + batch.num_rows)
            start += batch.num_rows
            if not (np.abs(block) < _MAX).all():
                raise ReportError(f"{self.path} holds a score that is no number; run the audit again")
            if only:
                block = block[batch.column(only[0]).to_numpy(zero_copy_only=False) == only[1]]
            block = np.concatenate([best, block])
            order = np.lexsort([block[:, -1], *(-block[:, i] for i in range(len(keys) - 1, -1, -1))])
            best = block[order[:n]]
        return self._take([int(row) for row in best[:, -1]])

    def _take(self, rows: Sequence[int]) -> list[Row]:
        """Return rows by their number, in the order asked for."""
        wanted = set(rows)
        found: dict[int, Row] = {}
        start = 0
        for group in range(self._file.num_row_groups):
            n_rows = self._file.metadata.row_group(group).num_rows
            if any(start <= row < start + n_rows for row in wanted):
                at = start
                for batch in self.batches(list(self._kinds), [group]):
                    here = sorted(row for row in wanted if at <= row < at + batch.num_rows)
                    values = batch.take(pa.array([row - at for row in here], pa.int64())).to_pylist()
                    found.update(zip(here, values, strict=True))
                    at += batch.num_rows
            start += n_rows
        return [self._checked(found[row], row) for row in rows]

    def _checked(self, row: Row, number: int) -> Row:
        for column, kind in self._kinds.items():
            if not kind.endswith("?") and row[column] is None:
                raise ReportError(f"{self.path}: row {number} has no {column}; run the audit again")
        return row


@dataclass(frozen=True, slots=True)
class Skips:
    """What was left out: how many by (set, code), and the first rows that count as skipped."""

    counts: dict[tuple[str, str], int]
    first: list[Row]
    n_counted: int


def read_skips(table: Table, uncounted: frozenset[str], n: int) -> Skips:
    """Read ``skipped.parquet``.

    Args:
        table: The table.
        uncounted: Codes of files that were left out on purpose and do not count as skipped.
        n: Rows to keep of those that count, in the file's order.

    Returns:
        The counts and the first rows.

    Raises:
        ReportError: The file is damaged.
    """
    counts: Counter[tuple[str, str]] = Counter()
    first: list[Row] = []
    for batch in table.batches(list(COLUMNS["skipped.parquet"])):
        codes = batch.column("code").to_pylist()
        counts.update(zip(batch.column("set").to_pylist(), codes, strict=True))
        here = [i for i, code in enumerate(codes) if code not in uncounted][: n - len(first)]
        first += batch.take(pa.array(here, pa.int64())).to_pylist()
    if any(part not in SETS or code is None for part, code in counts) or any(None in row.values() for row in first):
        raise ReportError(f"{table.path} has a row without a set, code or reason; run the audit again")
    n_counted = sum(n for (_, code), n in counts.items() if code not in uncounted)
    return Skips(dict(counts), first, n_counted)
