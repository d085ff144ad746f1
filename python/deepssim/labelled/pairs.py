"""Labelled pairs: which real and which synthetic image belong together, and what people said they are.

The list is that of the reference implementation: a CSV with the columns ``real_key``, ``synth_key`` and ``label`` (0
different, 1 duplicate, 2 similar), and, if wanted, ``group``: the person of the real image. A key is ``uid___name`` for
the file ``uid/name.png``, or the id or path of an image as a store has it.
"""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from deepssim.errors import UsageError
from deepssim.evaluate.classes import EXACT, NEAR, UNRELATED
from deepssim.images.groups import check_group_by, groups_of_paths
from deepssim.images.text import one_line, some
from deepssim.reference.names import file_of

__all__ = ["LABEL_WORDS", "LabelledPairs", "find_keys", "read_labelled", "with_groups"]

_COLUMNS = ("real_key", "synth_key", "label")
_GROUP = "group"
LABEL_WORDS: Mapping[str, int] = {
    "0": UNRELATED, "different": UNRELATED, "unrelated": UNRELATED,
    "1": EXACT, "duplicate": EXACT, "exact": EXACT,
    "2": NEAR, "similar": NEAR, "near": NEAR,
}  # fmt: skip
"""What a label may be called, and its class; case does not matter."""
_SEPARATORS = {";": "semicolons", "\t": "tabs"}
_SHOWN = 10
_FROM_COLUMN, _FROM_FOLDER, _EACH_IMAGE = "column group", "folder of the real image", "each real image by itself"

Labels = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class LabelledPairs:
    """Pairs with their true classes.

    Attributes:
        path: The CSV.
        real_keys: Real image of each pair, as written there.
        synthetic_keys: Its synthetic image.
        labels: ``(n,)``: `deepssim.evaluate.UNRELATED`, `EXACT` or `NEAR`.
        people: ``(n,)``: person of the real image of each pair.
        people_from: How that is known, in a few words.
    """

    path: Path
    real_keys: tuple[str, ...]
    synthetic_keys: tuple[str, ...]
    labels: Labels
    people: NDArray[np.str_]
    people_from: str

    def __len__(self) -> int:
        return len(self.real_keys)

    @property
    def has_own_people(self) -> bool:
        """Whether the list itself says who the people are."""
        return self.people_from == _FROM_COLUMN


def read_labelled(path: str | Path, *, group_by: str = "auto") -> LabelledPairs:
    r"""Read labelled pairs.

    Args:
        path: A CSV in UTF-8 with the columns ``real_key``, ``synth_key``, ``label`` (0, 1, 2, or one of `LABEL_WORDS`)
            and, if wanted, ``group``; others are ignored. A row that is there twice counts twice.
        group_by: Who is the person of a real image, where there is no column ``group``: "auto" and "parent": the
            folder that its key names; with "auto", where all real images lie in one folder or none, each image is a
            person of its own. "regex:PATTERN": first group of a match in the file that the key names. "none": each
            image is a person of its own.

    Raises:
        UsageError: The file cannot be read, lacks columns or rows, has unknown labels, rows without a key, or one pair
            with two labels; all of them are named.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder, "pairs.csv")
        ...     _ = path.write_text("real_key,synth_key,label\np1___a,p1___gen-0,1\np2___a,p1___gen-0,0\n")
        ...     pairs = read_labelled(path)
        >>> pairs.labels.tolist(), pairs.people.tolist()
        ([1, 0], ['p1', 'p2'])
    """
    check_group_by(group_by)
    path = Path(path)
    rows, has_groups = _rows(path)
    if not rows:
        raise UsageError(f"{path} has no rows: list at least one pair")
    problems = _problems(rows, has_groups=has_groups)
    if problems:
        raise UsageError(f"{path} has {'; '.join(problems)}")
    labels = np.array([LABEL_WORDS[row.label.lower()] for row in rows], np.int64)
    real, synthetic = tuple(row.real for row in rows), tuple(row.synthetic for row in rows)
    people, how = ([row.group for row in rows], _FROM_COLUMN) if has_groups else _people_of_keys(path, real, group_by)
    return LabelledPairs(path, real, synthetic, labels, np.array(people, np.str_), how)


def with_groups(pairs: LabelledPairs, groups: Mapping[str, str | None], how: str) -> LabelledPairs:
    """Return pairs whose people are the groups of their real images, where these are all known and no column said more.

    Args:
        pairs: As read.
        groups: Group of each real key.
        how: Where the groups come from, in a few words.

    Example:
        >>> one = np.zeros(1, np.int64)
        >>> pairs = LabelledPairs(Path("a.csv"), ("a",), ("b",), one, np.array(["a"]), "each real image by itself")
        >>> with_groups(pairs, {"a": "p7"}, "groups of the store").people.tolist()
        ['p7']
    """
    found = [groups.get(key) for key in pairs.real_keys]
    known = [group for group in found if group is not None]
    if pairs.has_own_people or len(known) < len(found):
        return pairs
    return replace(pairs, people=np.array(known, np.str_), people_from=how)


def find_keys(
    keys: Iterable[str], names: Sequence[str], where: str, *, others: Sequence[str] | None = None
) -> list[int]:
    """Return the place of each key among names of images.

    A key fits a name if both are the same text, else if both name one file (``p1___gen-0`` and ``p1/gen-0.png``), else
    if both name one file but for its suffix and the folders above its own.

    Args:
        keys: What is looked for.
        names: Ids or keys, each another.
        where: What has these names, for the message.
        others: A second name of each image, such as the path beside an id.

    Raises:
        UsageError: Keys fit no name, or several; all of them are named.

    Example:
        >>> find_keys(["p1___gen-0", "b"], ["b", "site/p1/gen-0.jpg"], "the store")
        [1, 0]
    """
    keys = list(keys)
    found: dict[str, list[int]] = {}
    left = list(dict.fromkeys(keys))
    for form in (str, _file_form, _short_form):
        if not left:
            break  # most lists need the first form alone, and stores are large
        table = _table(form, names, others)
        found |= {key: places for key in left if (places := table.get(form(key)))}
        left = [key for key in left if key not in found]
    missing, unclear = left, [key for key, places in found.items() if len(places) > 1]
    if missing:
        such = f", such as '{one_line(names[0], 80)}'" if names else ""
        raise UsageError(
            f"{_counted('image', missing)} of the labelled pairs cannot be found in {where}: "
            f"{some(missing, _SHOWN)}; it has {len(names):,}{such}"
        )
    if unclear:
        raise UsageError(
            f"{len(unclear):,} keys of the labelled pairs fit several images of {where}: "
            f"{some(unclear, _SHOWN)}; write the ids as they stand there"
        )
    return [found[key][0] for key in keys]


def _table(form: Callable[[str], str], names: Sequence[str], others: Sequence[str] | None) -> dict[str, list[int]]:
    """Return the places of each name in some form."""
    table: dict[str, set[int]] = defaultdict(set)
    for several in (names, others or ()):
        for place, name in enumerate(several):
            table[form(name)].add(place)
    return {name: sorted(places) for name, places in table.items()}


def _file_form(name: str) -> str:
    try:
        return file_of(name)
    except UsageError:
        return name


def _short_form(name: str) -> str:
    """Return folder and stem: how the reference implementation names images."""
    whole, mark, frame = name.rpartition("#")
    path = PurePosixPath(_file_form(whole if mark else name))
    stem = path.name[:-7] if path.name.endswith(".nii.gz") else path.stem
    return f"{path.parent.name}/{stem}{mark}{frame if mark else ''}"


class _Row(NamedTuple):
    line: int
    real: str
    synthetic: str
    label: str
    group: str


def _rows(path: Path) -> tuple[list[_Row], bool]:
    """Return the rows of a list, and whether they have groups."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            header = [cell.strip() for cell in next(reader, [])]
            missing = [name for name in _COLUMNS if name not in header]
            if missing:
                other = next((word for sign, word in _SEPARATORS.items() if len(header) == 1 and sign in header[0]), "")
                hint = f"; its columns are separated by {other}, write commas" if other else ""
                raise UsageError(
                    f"{path} has no column {' and no column '.join(missing)}: labelled pairs need "
                    f"{', '.join(_COLUMNS)}; it has {some(header, _SHOWN) if any(header) else 'no header'}{hint}"
                )
            twice = [name for name in (*_COLUMNS, _GROUP) if header.count(name) > 1]
            if twice:
                raise UsageError(f"{path} has the column {twice[0]} more than once")
            places = [header.index(name) for name in _COLUMNS]
            group = header.index(_GROUP) if _GROUP in header else None
            rows, short = [], []
            for cells in reader:
                if not any(cells):
                    continue
                if len(cells) <= max(*places, group or 0):
                    short.append(f"line {reader.line_num}")
                    continue
                real, synthetic, label = (cells[place].strip() for place in places)
                of_group = "" if group is None else cells[group].strip()
                rows.append(_Row(reader.line_num, real, synthetic, label, of_group))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        what = error.strerror if isinstance(error, OSError) else str(error)
        raise UsageError(f"{path} cannot be read as CSV in UTF-8: {one_line(str(what))}") from error
    if short:
        raise UsageError(f"{path} has {_counted('row', short)} with too few cells: {_listed(short)}")
    return rows, group is not None


def _problems(rows: Sequence[_Row], *, has_groups: bool) -> list[str]:
    """Return what is wrong with rows, all of it."""
    keyless = [f"line {row.line}" for row in rows if not (row.real and row.synthetic)]
    unknown = [f"{row.label!r} in line {row.line}" for row in rows if row.label.lower() not in LABEL_WORDS]
    groupless = [f"line {row.line}" for row in rows if has_groups and not row.group]
    labels: dict[tuple[str, str], dict[int, int]] = defaultdict(dict)
    groups: dict[str, dict[str, int]] = defaultdict(dict)
    for row in rows:
        if row.label.lower() in LABEL_WORDS:
            labels[row.real, row.synthetic].setdefault(LABEL_WORDS[row.label.lower()], row.line)
        groups[row.real].setdefault(row.group, row.line)
    contradictions = [
        f"{real} with {synthetic} is {' and '.join(f'{label} in line {line}' for label, line in of.items())}"
        for (real, synthetic), of in labels.items()
        if len(of) > 1
    ]
    of_two = [
        f"{real} is of {' and '.join(f'{group} in line {line}' for group, line in of.items())}"
        for real, of in groups.items()
        if len(of) > 1
    ]
    problems = (
        (_counted("row", keyless), "without a key", keyless),
        (_counted("row", unknown), "with an unknown label (0 different, 1 duplicate, 2 similar)", unknown),
        (_counted("row", groupless), "without a group", groupless),
        (_counted("pair", contradictions), "with two labels", contradictions),
        (_counted("real image", of_two), "with two groups", of_two),
    )
    return [f"{count} {what}: {_listed(found)}" for count, what, found in problems if found]


def _counted(what: str, found: Sequence[str]) -> str:
    return f"{len(found):,} {what}{'' if len(found) == 1 else 's'}"


def _listed(found: Sequence[str]) -> str:
    shown = ", ".join(one_line(text, 200) for text in found[:_SHOWN])
    return f"{shown} and {len(found) - _SHOWN:,} more" if len(found) > _SHOWN else shown


def _people_of_keys(path: Path, real: Sequence[str], group_by: str) -> tuple[list[str], str]:
    if group_by == "none":
        return list(real), _EACH_IMAGE
    files = [_file_form(key) for key in real]
    if group_by.startswith("regex:"):
        return groups_of_paths(files, group_by, str(path)), group_by
    if group_by == "parent":
        return groups_of_paths(files, group_by, str(path)), _FROM_FOLDER
    folders = [str(PurePosixPath(file).parent) for file in files]
    # One folder of all says nothing about who is who.
    if len(set(folders)) < 2:
        return list(real), _EACH_IMAGE
    people = [key if folder == "." else folder for key, folder in zip(real, folders, strict=True)]
    return people, _FROM_FOLDER
