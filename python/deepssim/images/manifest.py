"""Lists of images in CSV or Parquet: which file, under which id, of which patient."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from deepssim.errors import MissingDependencyError, UsageError
from deepssim.images.text import is_utf8, one_line, some

SUFFIXES = (".csv", ".parquet")
"""Suffixes of a manifest."""

_COLUMNS = ("path", "id", "group")


class Row(NamedTuple):
    """One row of a manifest.

    Args:
        path: As written.
        id: None where there is none.
        group: None where there is none.
    """

    path: str
    id: str | None
    group: str | None


class Manifest(NamedTuple):
    """A manifest.

    Args:
        rows: In the order of the file.
        has_groups: Whether any row has a group.
    """

    rows: list[Row]
    has_groups: bool


def read_manifest(file: Path) -> Manifest:
    """Read a manifest: column ``path``, and ``id`` and ``group`` if there are any; others are left alone.

    Args:
        file: A ``.csv`` file (UTF-8, with a header) or a ``.parquet`` file.

    Returns:
        Its rows.

    Raises:
        UsageError: It cannot be read, has no column ``path``, no rows, or rows without a path.
        MissingDependencyError: pyarrow is needed and not installed.
    """
    rows = _parquet_rows(file) if file.suffix.lower() == ".parquet" else _csv_rows(file)
    name = one_line(file.name)
    if not rows:
        raise UsageError(f"the manifest '{name}' has no rows: list at least one image")
    pathless = [number for number, row in enumerate(rows, 1) if not row.path]
    if pathless:
        raise UsageError(
            f"the manifest '{name}' has {len(pathless):,} rows without a path; the first is row {pathless[0]}"
        )
    broken = [text for row in rows for text in row if text is not None and not is_utf8(text)]
    if broken:
        raise UsageError(f"the manifest '{name}' has text that is not UTF-8: {some(broken, 2)}")
    return Manifest(rows, any(row.group is not None for row in rows))


def check_ids(ids: Iterable[str], name: str) -> None:
    """Check that no two images of a manifest can have one id.

    Args:
        ids: Id of each row, the path where it has none.
        name: Of the manifest, for the message.

    Raises:
        UsageError: Two rows have one id, or one id is another with "#" and more, as the images of a stack
            have.
    """
    counts = Counter(ids)
    repeated = [text for text, count in counts.items() if count > 1]
    if repeated:
        raise UsageError(
            f"the manifest '{one_line(name)}' has {len(repeated):,} ids more than once: "
            f"{some(sorted(repeated))}; give each row an id of its own"
        )
    clashing = [
        text
        for text in counts
        if "#" in text and any(text[:place] in counts for place, char in enumerate(text) if char == "#")
    ]
    if clashing:
        raise UsageError(
            f"the manifest '{one_line(name)}' has ids that look like an image inside another row's file: "
            f"{some(sorted(clashing))}; leave '#' out of ids"
        )


def _csv_rows(file: Path) -> list[Row]:
    name = one_line(file.name)
    try:
        with file.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.reader(stream, strict=True)
            place = _places([cell.strip() for cell in next(reader, [])], name)
            rows: list[Row] = []
            for cells in reader:
                if not cells:
                    continue
                if len(cells) <= max(place.values()):
                    raise UsageError(f"the manifest '{name}' has too few cells in line {reader.line_num}")
                found = {column: cells[index] for column, index in place.items()}
                rows.append(Row(found["path"], _text(found.get("id")), _text(found.get("group"))))
            return rows
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        what = error.strerror if isinstance(error, OSError) else str(error)
        raise UsageError(f"the manifest '{name}' cannot be read as CSV in UTF-8: {one_line(str(what))}") from error


def _places(header: list[str], name: str) -> dict[str, int]:
    """Return which column is where."""
    if "path" not in header:
        raise UsageError(f"the manifest '{name}' has no column 'path'; its columns are {some(header) or 'none'}")
    twice = [column for column in _COLUMNS if header.count(column) > 1]
    if twice:
        raise UsageError(f"the manifest '{name}' has the column '{twice[0]}' more than once")
    return {column: header.index(column) for column in _COLUMNS if column in header}


def _parquet_rows(file: Path) -> list[Row]:
    try:
        from pyarrow import ArrowException, parquet
    except ImportError as error:
        raise MissingDependencyError(
            "a Parquet manifest is read with pyarrow, which is not installed: pip install pyarrow"
        ) from error
    name = one_line(file.name)
    try:
        with parquet.ParquetFile(file) as table:
            place = _places(list(table.schema_arrow.names), name)
            columns = {column: table.read(columns=[column]).column(0).to_pylist() for column in place}
    except (OSError, ArrowException) as error:
        raise UsageError(f"the manifest '{name}' cannot be read as Parquet: it is damaged or no such file") from error
    bad = next((value for value in columns["path"] if value is not None and not isinstance(value, str)), None)
    if bad is not None:
        raise UsageError(f"the manifest '{name}' has paths that are {type(bad).__name__}, not text")
    empty: list[Any] = [None] * len(columns["path"])
    return [
        Row(path or "", _text(image_id), _text(group))
        for path, image_id, group in zip(
            columns["path"], columns.get("id", empty), columns.get("group", empty), strict=True
        )
    ]


def _text(value: Any) -> str | None:
    """Return a cell as text; None for an empty one. Whole floats are numbers that pandas has widened."""
    if value is None or value != value:  # noqa: PLR0124 - NaN
        return None
    text = str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
    return text if text.strip() else None
