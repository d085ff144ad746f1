"""The CSV of a data set, whatever is in it: every fault is found before anything is done with it."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from deepssim.errors import UsageError
from deepssim.generative.data.faults import refuse
from deepssim.generative.data.record import SPLITS, Dataset, Record, uid_fault
from deepssim.images.groups import check_group_by, groups_of_paths
from deepssim.images.text import one_line, some

__all__ = ["read_csv"]

_PATH, _UID, _SPLIT, _CAPTION, _TEXT = "image_path", "image_uid", "split", "caption_emb_path", "caption"
_GROUPS = ("group", "patient")
_SPECIAL = frozenset({_PATH, _UID, _SPLIT, _CAPTION, _TEXT, *_GROUPS})


@dataclass(slots=True)
class _Reading:
    """What is known while a CSV is read."""

    path: Path
    with_splits: bool
    with_images: bool
    header: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    seen: dict[str, Record] = field(default_factory=dict)
    n_repeated: int = 0

    @property
    def name(self) -> str:
        return f"'{one_line(str(self.path))}'"

    def is_needed(self, column: str) -> bool:
        return {_PATH: self.with_images, _SPLIT: self.with_splits}.get(column, True)


def read_csv(path: Path, group_by: str = "auto", *, with_splits: bool = True, with_images: bool = True) -> Dataset:
    """Read the CSV of a data set; see `deepssim.generative.data.records.read_dataset`.

    Raises:
        UsageError: It cannot be used; all faults are told, the first ones in full.
    """
    check_group_by(group_by)
    reading = _Reading(path, with_splits, with_images)
    cells_of_paths: list[str] = []
    for line, cells in _rows(reading):
        record = _record(reading, line, cells)
        if record is not None:
            cells_of_paths.append(cells.get(_PATH, ""))
            reading.seen[record.uid] = record
    refuse(reading.name, reading.faults)
    records = tuple(reading.seen.values())
    if not records:
        raise UsageError(f"{reading.name} has a header and no rows")
    if group_by == "none":
        records = tuple(replace(record, group=None) for record in records)
    elif group_by != "auto":
        groups = groups_of_paths(cells_of_paths, group_by, str(path))
        records = tuple(replace(record, group=group) for record, group in zip(records, groups, strict=True))
    dataset = Dataset(path, records, tuple(reading.header), tuple(_notes(reading, records)))
    if with_splits:
        for split in SPLITS:
            dataset.split(split)
    return dataset


def _rows(reading: _Reading) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield the rows with their line; the header is checked before."""
    try:
        with reading.path.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.reader(stream, strict=True)
            reading.header = [cell.strip() for cell in next(reader, [])]
            _check_header(reading)
            for cells in reader:
                if any(cell.strip() for cell in cells):
                    if len(cells) < len(reading.header) or any(cells[len(reading.header) :]):
                        reading.faults.append(
                            f"line {reader.line_num} has {len(cells):,} cells, and the header {len(reading.header):,}"
                        )
                    else:
                        yield reader.line_num, dict(zip(reading.header, map(str.strip, cells), strict=False))
    except (OSError, ValueError, csv.Error) as error:
        what = error.strerror if isinstance(error, OSError) else str(error)
        raise UsageError(f"{reading.name} cannot be read as CSV in UTF-8: {one_line(str(what))}") from error


def _check_header(reading: _Reading) -> None:
    header = reading.header
    needed = [name for name in (_PATH, _UID, _SPLIT) if reading.is_needed(name)]
    missing = [name for name in needed if name not in header]
    if missing:
        semicolons = "; separate columns by commas" if len(header) == 1 and ";" in header[0] else ""
        raise UsageError(
            f"{reading.name} has no column {some(missing)}; its columns are {some(header, 12) or 'none'}{semicolons}"
        )
    twice = sorted({name for name in header if name and header.count(name) > 1})
    if twice:
        raise UsageError(f"{reading.name} has columns more than once: {some(twice)}")


def _record(reading: _Reading, line: int, cells: dict[str, str]) -> Record | None:
    """Return the record of a row; None, and a fault, where it cannot be one."""
    uid = cells[_UID]
    split = cells.get(_SPLIT, "")
    split = split.lower() if split.lower() in SPLITS else split
    faults = (
        [f"image_uid '{one_line(uid, 60)}' {why}" if uid else "image_uid is empty"] if (why := uid_fault(uid)) else []
    )
    if reading.with_splits and not split:
        faults.append("split is empty")
    if uid in reading.seen and not faults:
        first = reading.seen[uid]
        reading.n_repeated += 1
        if first.split == split:
            return None
        faults.append(
            f"image_uid '{one_line(uid, 60)}' is in the split {one_line(split, 40)}, and in "
            f"{one_line(first.split, 40)} in line {first.line}"
        )
    is_used = reading.with_images and (split in SPLITS or not reading.with_splits)
    path, image_id = _image(reading, cells.get(_PATH, ""))
    if is_used and path is None:
        faults.append(
            f"image_path '{one_line(cells[_PATH], 80)}' is neither beside the CSV nor under the working folder"
            if cells[_PATH]
            else "image_path is empty"
        )
    if faults:
        reading.faults += [f"line {line}: {fault}" for fault in faults]
        return None
    caption = cells.get(_CAPTION, "")
    return Record(
        uid=uid,
        path=path or reading.path.parent / cells.get(_PATH, ""),
        split=split,
        group=next((cells[name] for name in _GROUPS if cells.get(name)), None),
        variables={name: cell for name, cell in cells.items() if name and name not in _SPECIAL},
        caption=(_found(reading, caption) or reading.path.parent / caption) if caption else None,
        text=cells.get(_TEXT) or None,
        image_id=image_id,
        line=line,
    )


def _image(reading: _Reading, cell: str) -> tuple[Path | None, str | None]:
    """Return the file of an image, and which of its images is meant where the cell ends in ``#`` and a key."""
    path = _found(reading, cell)
    if path is not None or "#" not in cell:
        return path, None
    for place in (place for place, char in enumerate(cell) if char == "#"):
        path = _found(reading, cell[:place])
        if path is not None:
            return path, f"{path.name}{cell[place:]}"
    return None, None


def _found(reading: _Reading, cell: str) -> Path | None:
    """Return where a file is: absolute, beside the CSV, or under the working folder."""
    if not cell:
        return None
    for path in (reading.path.parent / cell, Path(cell)):
        try:
            if path.is_file():
                return path.absolute()
        except (OSError, ValueError):  # a name that no system allows
            continue
    return None


def _notes(reading: _Reading, records: tuple[Record, ...]) -> Iterator[str]:
    if reading.n_repeated:
        yield (f"{reading.n_repeated:,} rows have an image_uid that an earlier row has: the first of each is kept")
    people = [{record.group for record in records if record.split == split} - {None} for split in SPLITS]
    both = sorted(str(group) for group in people[0] & people[1])
    if both:
        yield (
            f"{len(both):,} people have images in train and in valid ({some(both, 3)}): the validation is not of "
            "unseen people"
        )
