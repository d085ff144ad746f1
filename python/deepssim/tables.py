"""The tables that a run leaves behind, written as a stream in row groups of fixed size.

The bytes of a table depend on its rows alone, not on the chunks in which they came.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import pyarrow as pa
import pyarrow.parquet as pq

from deepssim.disk import replacing

ROW_GROUP = 65536
CSV_TRIGGERS = ("=", "+", "-", "@", "\t", "\r")

MATCHES = pa.schema(
    [
        ("synthetic_id", pa.string()),
        ("synthetic_path", pa.string()),
        ("synthetic_group", pa.string()),
        ("rank", pa.int32()),
        ("real_id", pa.string()),
        ("real_path", pa.string()),
        ("real_group", pa.string()),
        ("score", pa.float32()),
        ("label", pa.string()),
        ("screening_rank", pa.int32()),
        ("s1", pa.float32()),
        ("s2", pa.float32()),
        ("local_mean", pa.float32()),
        ("ncc", pa.float32()),
        ("overlap", pa.float32()),
        ("ssim", pa.float32()),
        ("fsim", pa.float32()),
        ("is_mirrored", pa.bool_()),
        ("angle_degrees", pa.float32()),
        ("shift_rows", pa.float32()),
        ("shift_columns", pa.float32()),
        ("scale", pa.float32()),
    ]
)
LEAKS = pa.schema(
    [
        ("real_id", pa.string()),
        ("real_path", pa.string()),
        ("real_group", pa.string()),
        ("synthetic_id", pa.string()),
        ("synthetic_path", pa.string()),
        ("score", pa.float32()),
        ("label", pa.string()),
        ("s1", pa.float32()),
        ("s2", pa.float32()),
    ]
)
REAL_IMAGES = pa.schema(
    [
        ("real_id", pa.string()),
        ("real_path", pa.string()),
        ("real_group", pa.string()),
        ("n_exact", pa.int64()),
        ("n_near", pa.int64()),
        ("best_value", pa.float32()),
        ("best_synthetic_id", pa.string()),
    ]
)
PATIENTS = pa.schema(
    [
        ("group", pa.string()),
        ("n_images", pa.int64()),
        ("n_images_copied", pa.int64()),
        ("n_exact", pa.int64()),
        ("n_near", pa.int64()),
        ("best_value", pa.float32()),
        ("best_real_id", pa.string()),
        ("best_synthetic_id", pa.string()),
    ]
)
SKIPPED = pa.schema([(name, pa.string()) for name in ("set", "id", "path", "code", "reason")])


def write_table(path: Path, table: pa.Table) -> None:
    """Write a table that is there as a whole, atomically."""
    with replacing(path) as temporary:
        pq.write_table(table, temporary, compression="zstd", row_group_size=ROW_GROUP)


class TableWriter:
    """Writes a Parquet file from tables of any size; the file appears whole when the block ends well."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self.path, self.schema = path, schema
        self._waiting: list[pa.Table] = []
        self._n_waiting = 0
        self.rows = 0

    def __enter__(self) -> Self:
        self._replacing = replacing(self.path)
        temporary = self._replacing.__enter__()
        self._writer = pq.ParquetWriter(temporary, self.schema, compression="zstd")
        return self

    def add(self, table: pa.Table) -> None:
        """Add rows of the table's schema."""
        self._waiting.append(table)
        self._n_waiting += table.num_rows
        self.rows += table.num_rows
        if self._n_waiting >= ROW_GROUP:
            self._write(self._n_waiting // ROW_GROUP * ROW_GROUP)

    def _write(self, n_rows: int) -> None:
        joined = pa.concat_tables(self._waiting)
        for start in range(0, n_rows, ROW_GROUP):
            # One contiguous chunk a row group: page limits follow chunks.
            group = joined.slice(start, min(ROW_GROUP, n_rows - start)).combine_chunks()
            self._writer.write_table(group, row_group_size=ROW_GROUP)
        self._waiting = [joined.slice(n_rows).combine_chunks()]
        self._n_waiting -= n_rows

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None and self._n_waiting:
            self._write(self._n_waiting)
        self._writer.close()
        self._replacing.__exit__(kind, error, trace)


def safe_cell(value: object) -> object:
    """Keep spreadsheet programs from taking text for a formula.

    Example:
        >>> safe_cell("=1+1")
        "'=1+1"
    """
    return "'" + value if isinstance(value, str) and value.startswith(CSV_TRIGGERS) else value


def write_csv(path: Path, names: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a CSV of text and numbers, atomically; no text is taken for a formula."""
    with (
        replacing(path) as temporary,
        temporary.open("w", newline="", encoding="utf-8", errors="surrogateescape") as out,
    ):
        writer = csv.writer(out)
        writer.writerow([safe_cell(name) for name in names])
        writer.writerows([safe_cell(value) for value in row] for row in rows)


def _rows(table: pa.Table) -> Iterator[list[object]]:
    for row in zip(*(column.to_pylist() for column in table.columns), strict=True):
        yield [safe_cell(value) for value in row]


def parquet_to_csv(source: Path, target: Path) -> None:
    """Write a Parquet file of ours as CSV, some thousand rows at a time."""
    with (
        pq.ParquetFile(source) as file,
        replacing(target) as temporary,
        temporary.open("w", newline="", encoding="utf-8", errors="surrogateescape") as out,
    ):
        writer = csv.writer(out)
        writer.writerow(file.schema_arrow.names)
        for batch in file.iter_batches(batch_size=8192):
            writer.writerows(_rows(pa.Table.from_batches([batch])))


class TableStream:
    """Hands out rows of consecutive tables in pieces of any size."""

    def __init__(self, tables: Iterable[pa.Table]) -> None:
        self._tables = iter(tables)
        self._held: pa.Table | None = None

    def take(self, n_rows: int) -> pa.Table:
        """Return the next `n_rows` rows; ValueError if there are fewer."""
        parts: list[pa.Table] = []
        missing = n_rows
        while missing > 0:
            if self._held is None or self._held.num_rows == 0:
                try:
                    self._held = next(self._tables)
                except StopIteration:
                    raise ValueError(f"{missing} rows are missing") from None
            parts.append(self._held.slice(0, missing))
            missing -= parts[-1].num_rows
            self._held = self._held.slice(parts[-1].num_rows)
        if not parts:
            return self._held.slice(0, 0) if self._held is not None else pa.table({})
        return pa.concat_tables(parts).combine_chunks()
