"""Names of the images and folders of lists of pairs."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import PurePosixPath

from deepssim.errors import UsageError
from deepssim.images.formats import format_of_name

__all__ = ["folder_names"]

_PLAIN = re.compile(r"[^0-9A-Za-z.]+")
_MOST_LETTERS = 80


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
