"""A record: one image, and what is said of it; a data set: records in an order."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from deepssim.errors import UsageError
from deepssim.images.text import one_line, some

__all__ = ["SPLITS", "Dataset", "Record", "uid_fault"]

SPLITS = ("train", "valid")

# What a name of a file may have on all usual systems, less what is added to it.
_MOST_UID_BYTES = 200


@dataclass(frozen=True, slots=True)
class Record:
    """One image and what is said of it.

    Attributes:
        uid: Names it, alone, in its data set; fit to name a folder.
        path: The file of the image.
        split: ``"train"``, ``"valid"`` or what the CSV says else; ``""`` where it says nothing.
        group: Whose image it is; None: not known.
        variables: Cells of all other columns of the CSV, as text.
        caption: File of the embedding of its caption (.npz, key ``data``, or .npy).
        text: The caption itself.
        image_id: Which image of a file of several: the name of the file, ``#`` and a key; None: the only one.
        line: Of the CSV, for messages; 0: there is none.
    """

    uid: str
    path: Path
    split: str
    group: str | None = None
    variables: Mapping[str, str] = field(default_factory=dict)
    caption: Path | None = None
    text: str | None = None
    image_id: str | None = None
    line: int = 0

    @property
    def key(self) -> str:
        """Which image of its file it is, as in ids of `deepssim.images`; empty where there is one alone."""
        return "" if self.image_id is None else self.image_id.removeprefix(f"{self.path.name}#")

    @property
    def place(self) -> str:
        """Where it is said, for a message: its line, or its uid."""
        return f"line {self.line}" if self.line else f"'{one_line(self.uid, 60)}'"


@dataclass(frozen=True, slots=True)
class Dataset:
    """Records in the order in which they were found.

    Attributes:
        source: The CSV or the folder.
        records: Of all splits, each with a uid of its own.
        columns: Of the CSV; empty for a folder.
        notes: What a person should know: rows and images that were left out, one line each.
    """

    source: Path
    records: tuple[Record, ...]
    columns: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def split(self, name: str) -> tuple[Record, ...]:
        """Return the records of one split, ``"train"`` or ``"valid"``.

        Raises:
            UsageError: There are none; the message says which splits there are.

        Example:
            >>> data = Dataset(Path("a.csv"), (Record("p1", Path("p1.png"), "train"),))
            >>> [record.uid for record in data.split("train")]
            ['p1']
        """
        found = tuple(record for record in self.records if record.split == name)
        if found:
            return found
        counts = Counter(record.split for record in self.records)
        there = some([f"{split or '(empty)'}: {count:,}" for split, count in counts.items()]) or "no rows at all"
        raise UsageError(
            f"'{one_line(str(self.source))}' has no image with the split {name}, but {there}: the column split must "
            f"say {' and '.join(SPLITS)}"
        )

    def signature(self) -> str:
        """Return one number for all that decides about a training: what the records say, and the bytes of their files.

        Where files lie does not matter, nor the order of columns; the order of records does.

        Returns:
            A SHA-256 in hexadecimal.

        Example:
            >>> len(Dataset(Path("a.csv"), (Record("p1", Path("p1.png"), "train"),)).signature())
            64
        """
        digests: dict[Path, str] = {}
        total = hashlib.sha256()
        for record in self.records:
            files = [record.path, *([record.caption] if record.caption else [])]
            for file in files:
                digests[file] = digests.get(file) or _digest(file)
            said = [
                record.uid,
                record.split,
                record.group,
                sorted(record.variables.items()),
                record.text,
                record.key,
                [digests[file] for file in files],
            ]
            total.update(repr(said).encode("utf-8", "surrogateescape"))
        return total.hexdigest()


def _digest(file: Path) -> str:
    try:
        with file.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except (OSError, ValueError):
        return "not there"


def uid_fault(uid: str) -> str:
    r"""Say why a uid cannot name a folder, or nothing.

    Example:
        >>> uid_fault("sub-01"), uid_fault("site/sub-01")
        ('', 'has a slash')
    """
    if not uid:
        return "is empty"
    if "/" in uid or "\\" in uid:
        return "has a slash" if "/" in uid else "has a backslash"
    if not uid.isprintable():
        return "has signs that cannot be seen"
    if uid.startswith("."):
        return "begins with a dot, which hides a folder"
    if len(uid.encode("utf-8", "surrogatepass")) > _MOST_UID_BYTES:
        return f"is longer than {_MOST_UID_BYTES} bytes"
    return ""
