"""Keys: how lists of pairs name images, ``uid___name`` for the file ``uid/name.png`` of a folder."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import PurePosixPath

from deepssim.errors import UsageError
from deepssim.images.formats import format_of_name
from deepssim.images.text import one_line
from deepssim.tables import CSV_TRIGGERS

__all__ = ["file_of", "folder_names", "key_of"]

_SEPARATOR = "___"
_PLAIN = re.compile(r"[^0-9A-Za-z.]+")
_MOST_LETTERS = 80


def file_of(key: str) -> str:
    """Return the file of a key, relative to the folder.

    Raises:
        UsageError: The key leads out of the folder.

    Example:
        >>> file_of("p07___gen-3"), file_of("p07/gen-3.png"), file_of("p07___T1.5")
        ('p07/gen-3.png', 'p07/gen-3.png', 'p07/T1.5.png')
    """
    name = key.replace(_SEPARATOR, "/", 1)
    path = PurePosixPath(name if format_of_name(name) else f"{name}.png")
    if path.is_absolute() or ".." in path.parts:
        raise UsageError(f"the key {one_line(key)} leads out of the folder of images")
    return str(path)


def key_of(path: str) -> str:
    """Return the key of a file, given relative to the folder; PNG files lose their suffix, as in the published lists.

    Raises:
        UsageError: No key leads to this file.

    Example:
        >>> key_of("p07/gen-3.png"), key_of("site/p07/scan.dcm"), key_of("scan.png")
        ('p07___gen-3', 'site/p07___scan.dcm', '.___scan')
    """
    file = PurePosixPath(path)
    name = file.name[:-4] if file.name.endswith(".png") else file.name
    key = f"{file.parent}{_SEPARATOR}{name}"
    if key.startswith(CSV_TRIGGERS):  # spreadsheet programs would take it for a formula
        key = f"./{key}"
    # The reference implementation splits at every separator and expects two parts.
    if key.count(_SEPARATOR) != 1 or file_of(key) != str(file):
        raise UsageError(
            f"'{one_line(path)}' cannot be named in a list of pairs, where 'folder{_SEPARATOR}name' stands for "
            "folder/name.png: rename it"
        )
    return key


def folder_names(ids: Sequence[str], taken: Sequence[str] = ()) -> list[str]:
    """Return a name of a folder for each image: its id in plain letters, with a mark where two would have one.

    Args:
        ids: Of the images, each another.
        taken: Names that no folder may have.

    Raises:
        UsageError: Two images cannot be told apart.

    Example:
        >>> folder_names(["sub-01/z054.png", "stack.npy#3", "a__b.png", "a b.png"])
        ['sub-01-z054', 'stack.npy-3', 'a-b-b634ba14', 'a-b-47c1591e']
    """
    plain = [_plain(name) for name in ids]
    used = Counter(name.casefold() for name in (*plain, *taken))  # some file systems do not tell cases apart
    # The mark comes from the id alone, so that it does not change when other images come and go.
    names = [
        name if used[name.casefold()] == 1 else f"{name}-{hashlib.sha256(image.encode()).hexdigest()[:8]}"
        for name, image in zip(plain, ids, strict=True)
    ]
    if len({name.casefold() for name in names}) < len(names):
        raise UsageError("two real images have names that differ in nothing but signs: rename them")
    return names


def _plain(image: str) -> str:
    stem = image[: -len(PurePosixPath(image).suffix)] if format_of_name(image) else image
    return _PLAIN.sub("-", stem)[:_MOST_LETTERS].strip("-.") or "image"
