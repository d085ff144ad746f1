"""The truth about planted copies: a CSV of which synthetic image is a copy of which real one.

Columns: ``id`` (of the planted image, as an audit of its folder names it), ``kind``, ``label`` (``near`` or ``exact``),
``source_id`` and ``group`` (of the real image; an empty group is not known) and ``seed``.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from deepssim.errors import UsageError
from deepssim.images.text import one_line, some
from deepssim.tables import CSV_TRIGGERS, write_csv

__all__ = ["COLUMNS", "Planted", "read_truth", "write_truth"]

COLUMNS = ("id", "kind", "label", "source_id", "group", "seed")
_LABELS = ("near", "exact")
_SHOWN = 10


@dataclass(frozen=True, slots=True)
class Planted:
    """A planted copy.

    Attributes:
        id: Of the image, as an audit of its folder names it.
        kind: How it was made; one of `deepssim.planted.copies.KINDS`, or a word of the user's.
        label: ``"near"`` or ``"exact"``: what an audit should call it.
        source_id: Of the real image.
        group: Its person; None: not known.
        seed: Of everything drawn for it.
    """

    id: str
    kind: str
    label: str
    source_id: str
    group: str | None
    seed: int

    @property
    def person(self) -> str:
        """Return what is independent of others: the person, else the source image."""
        return f"image {self.source_id}" if self.group is None else f"person {self.group}"


def write_truth(path: Path, planted: Sequence[Planted]) -> None:
    """Write the CSV, atomically."""
    texts = ((one.id, one.kind, one.label, one.source_id, one.group or "") for one in planted)
    write_csv(path, COLUMNS, ((*map(_quoted, row), one.seed) for row, one in zip(texts, planted, strict=True)))


def read_truth(path: Path) -> list[Planted]:
    """Read the CSV; a column ``seed`` or ``group`` may be missing.

    Raises:
        UsageError: It cannot be read, lacks columns or rows, has an image twice, or an unknown label; all are named.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder, "truth.csv")
        ...     write_truth(path, [Planted("planted/0.png", "local", "near", "p1/a.png", "p1", 7)])
        ...     read_truth(path)[0].person
        'person p1'
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            missing = [name for name in COLUMNS[:4] if name not in (reader.fieldnames or ())]
            if missing:
                raise UsageError(
                    f"{path} has no column {' and no column '.join(missing)}: the truth of planted copies has "
                    f"{', '.join(COLUMNS)}; deepssim plant writes it"
                )
            rows = [(reader.line_num, {key: _plain(value) for key, value in row.items() if key}) for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        what = error.strerror if isinstance(error, OSError) else str(error)
        raise UsageError(f"{path} cannot be read as CSV in UTF-8: {one_line(str(what))}") from error
    if not rows:
        raise UsageError(f"{path} has no rows: plant at least one copy")
    ids: dict[str, int] = {}
    for _, row in rows:
        ids[row["id"]] = ids.get(row["id"], 0) + 1
    _refuse(path, "lines without an id, kind or source", [f"line {n}" for n, row in rows if not _is_whole(row)])
    _refuse(path, "images that are there more than once", [name for name, n in ids.items() if n > 1])
    unknown = [f"{row['label']} (line {n})" for n, row in rows if row["label"] not in _LABELS]
    _refuse(path, "labels that are neither near nor exact", unknown)
    odd = [f"{row['seed']} (line {n})" for n, row in rows if not (row.get("seed") or "0").isdecimal()]
    _refuse(path, "seeds that are no whole numbers", odd)
    return [
        Planted(row["id"], row["kind"], row["label"], row["source_id"], row.get("group") or None,
                int(row.get("seed") or 0))
        for _, row in rows
    ]  # fmt: skip


def _quoted(text: str) -> str:
    """Tell a name that begins with quote and sign itself from one whose sign `write_csv` puts a quote before."""
    return f"'{text}" if text.startswith("'") and text.lstrip("'").startswith(CSV_TRIGGERS) else text


def _plain(value: str | None) -> str:
    """Undo what keeps spreadsheet programs from taking text for a formula."""
    text = value or ""
    return text[1:] if text.startswith("'") and text.lstrip("'").startswith(CSV_TRIGGERS) else text


def _is_whole(row: dict[str, str]) -> bool:
    return all(row[name] for name in ("id", "kind", "source_id"))


def _refuse(path: Path, what: str, found: list[str]) -> None:
    if found:
        raise UsageError(f"{path} has {len(found):,} {what}: {some(found, _SHOWN)}")
