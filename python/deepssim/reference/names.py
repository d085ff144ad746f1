"""How the reference implementation names images: ``uid___name`` for the file ``uid/name.png`` of a folder."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import PurePosixPath
from urllib.parse import quote

from deepssim.errors import UsageError
from deepssim.images.formats import format_of_name
from deepssim.images.text import one_line, some
from deepssim.tables import CSV_TRIGGERS

__all__ = ["REAL_NAME", "SEPARATOR", "file_of", "identifiers", "key_of", "refuse_unnameable"]

SEPARATOR = "___"
REAL_NAME = "training"
"""Name of a real image in its folder; all others there are synthetic."""
# No part of a name of a file: separators of folders, and what terminals act on.
_UNSAFE = re.compile(r"[/\\\x00-\x1f\x7f]")
_MOST_BYTES = 255 - len(".npz")


def file_of(key: str) -> str:
    """Return the file of a key, relative to the folder.

    Raises:
        UsageError: The key leads out of the folder.

    Example:
        >>> file_of("p07___gen-3"), file_of("p07/gen-3.png"), file_of("p07___T1.5")
        ('p07/gen-3.png', 'p07/gen-3.png', 'p07/T1.5.png')
    """
    name = key.replace(SEPARATOR, "/", 1)
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
    key = f"{file.parent}{SEPARATOR}{name}"
    if key.startswith(CSV_TRIGGERS):  # spreadsheet programs would take it for a formula
        key = f"./{key}"
    # The reference implementation splits at every separator and expects two parts.
    if key.count(SEPARATOR) != 1 or file_of(key) != str(file):
        raise UsageError(
            f"'{one_line(path)}' cannot be named in a list of pairs, where 'folder{SEPARATOR}name' stands for "
            "folder/name.png: rename it"
        )
    return key


def identifiers(ids: Sequence[str], paths: Sequence[str], root: str) -> list[str]:
    """Return the names of images in matrices, indices and embeddings: ``<folder>___<stem>``, each another.

    The name of an image inside a file (a slice, a frame) ends in ``#`` and its number. Signs that a name of a file
    cannot hold are percent-encoded.

    Args:
        ids: Of the images.
        paths: Their files, relative to `root`.
        root: Name of the folder that holds them all, for files that lie in it.

    Raises:
        UsageError: Two images would have one name, or the reference could not tell folder and name apart; all are
            named.

    Example:
        >>> identifiers(["p07/gen-3.png", "scan.nii.gz#40"], ["p07/gen-3.png", "scan.nii.gz"], "brains")
        ['p07___gen-3', 'brains___scan#40']
    """
    names: dict[str, str] = {}
    odd: list[str] = []
    twice: list[str] = []
    for image, path in zip(ids, paths, strict=True):
        file = PurePosixPath(path)
        stem = file.name[:-7] if file.name.endswith(".nii.gz") else file.stem
        frame = image[len(path) :] if image.startswith(f"{path}#") else ""
        parts = [_UNSAFE.sub(_encoded, text) for text in (file.parent.name or root, stem + frame)]
        name = SEPARATOR.join(parts)
        # The reference splits at every separator and expects two parts.
        if name.split(SEPARATOR) != parts or len(name.encode("utf-8", "surrogateescape")) > _MOST_BYTES:
            odd.append(image)
        elif name in names:
            twice.append(f"{name}, of {names[name]} and {image}")
        names[name] = image
    _refuse(odd)
    if twice:
        raise UsageError(
            f"{len(twice):,} pairs of images would have one name in the reference's files: {some(twice)}; "
            "rename their folders"
        )
    return list(names)


def refuse_unnameable(paths: Sequence[str]) -> None:
    """Refuse files whose images `identifiers` could not name, before anything is done with them.

    Args:
        paths: The files, relative to the folder that holds them all.

    Raises:
        UsageError: There are such files; all are named.

    Example:
        >>> refuse_unnameable(["p07/gen-3.png"])
    """
    parts = [[(file := PurePosixPath(path)).parent.name, file.stem] for path in paths]
    _refuse([path for path, both in zip(paths, parts, strict=True) if SEPARATOR.join(both).split(SEPARATOR) != both])


def _refuse(odd: list[str]) -> None:
    if odd:
        raise UsageError(
            f"{len(odd):,} images cannot be named in the reference's files, where 'folder{SEPARATOR}name' is an image: "
            f"{some(odd)}; rename them, without '{SEPARATOR}' and shorter than {_MOST_BYTES} bytes"
        )


def _encoded(sign: re.Match[str]) -> str:
    return quote(sign[0], safe="")
