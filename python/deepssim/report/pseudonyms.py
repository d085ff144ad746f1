"""Names as the page may show them: as they are, or as pseudonyms.

A pseudonym is the start of an HMAC-SHA256 of the name under a secret key that stays in the audit folder:
whoever holds the folder can find a patient again, whoever holds only the report cannot test a guess.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

from deepssim.report.fields import ReportError

KEY_NAME = "pseudonyms.key"
WITHHELD = "withheld"

_KEY_BYTES = 32
# 40 bits: among the few hundred names of one report two alike have a chance of one in ten million.
_HEX_DIGITS = 10
_LETTERS = {"real": "R", "synthetic": "S", "holdout": "H", "patient": "P"}
# Absolute and relative paths, also of Windows, up to the next space or closing mark.
_PATHS = re.compile(
    r"""(?<![\w.])(?:[A-Za-z]:\\|\\\\|~?/(?=\w)|\.{1,2}/)[^\s'",;:)\]]*|[^\s'"]+/[^\s'"]*\.[A-Za-z]\w{0,5}\b"""
)
# The words that options take by themselves; any other word may be the name of a person or a machine.
_WORDS = frozenset(
    {
        "auto", "none", "parent", "middle", "all", "axial", "coronal", "sagittal", "cpu", "cuda",
        "cosine", "pearson", "l2", "embedding", "verified", "image", "patient", "real", "synthetic",
        "holdout", "near", "exact", "array", "parquet",
    }
)  # fmt: skip


class Names(Protocol):
    """How names and texts from the files are shown."""

    is_pseudonymous: bool

    def of(self, kind: str, value: str) -> str:
        """Return what stands for the id of an image (kind = its set) or a patient (``patient``)."""

    def path(self, value: str) -> str | None:
        """Return a path as it may be shown, or None."""

    def free(self, text: str) -> str:
        """Return a sentence as it may be shown."""

    def option(self, value: object) -> object:
        """Return the value of an option as it may be shown."""


class PlainNames:
    """Names as they are."""

    is_pseudonymous = False

    def of(self, kind: str, value: str) -> str:
        """Return the name itself."""
        return value

    def path(self, value: str) -> str | None:
        """Return the path itself."""
        return value

    def free(self, text: str) -> str:
        """Return the text itself."""
        return text

    def option(self, value: object) -> object:
        """Return the value itself."""
        return value


class Pseudonyms:
    """Pseudonyms under one key.

    Args:
        key: 32 secret bytes.
        known: Names that occur in free texts of the folder, with their kind; see `names_in`.
    """

    is_pseudonymous = True

    def __init__(self, key: bytes, known: Iterable[tuple[str, str]] = ()) -> None:
        self._key = key
        self._kinds = {name: kind for kind, name in sorted(known)}
        # The longest first: "sub-01/z40" must not be left as a pseudonym and "/z40". One pass over the text,
        # so that a short name cannot match inside a pseudonym that was just put there.
        alternatives = sorted(self._kinds, key=lambda name: (-len(name), name))
        self._known = re.compile("|".join(map(re.escape, alternatives))) if alternatives else None

    def of(self, kind: str, value: str) -> str:
        """Return the pseudonym, such as ``P-3f09a1c2d4``.

        >>> Pseudonyms(bytes(32)).of("patient", "sub-01")
        'P-a2ce27248b'
        """
        message = f"{kind}\0{value}".encode("utf-8", "surrogatepass")
        digest = hmac.new(self._key, message, hashlib.sha256).hexdigest()
        return f"{_LETTERS.get(kind, 'X')}-{digest[:_HEX_DIGITS]}"

    def path(self, value: str) -> str | None:
        """Return None: paths carry names of patients and machines."""
        return None

    def free(self, text: str) -> str:
        """Return the text with known names replaced and paths taken out.

        >>> Pseudonyms(bytes(32), [("patient", "sub-01")]).free("see sub-01 in /data/x.png")
        'see P-a2ce27248b in [path withheld]'
        """
        if self._known is not None:
            text = self._known.sub(lambda match: self.of(self._kinds[match[0]], match[0]), text)
        return _PATHS.sub("[path withheld]", text)

    def option(self, value: object) -> object:
        """Return numbers and the words that options take; any other text may name a person or a machine."""
        if isinstance(value, str) and value not in _WORDS:
            return WITHHELD
        if isinstance(value, list | tuple):
            return [self.option(item) for item in value]
        if isinstance(value, dict):
            return {key: self.option(item) for key, item in value.items()}
        return value


def names_in(text: str, names: Iterable[tuple[str, str]]) -> set[tuple[str, str]]:
    """Return those (kind, name) whose name occurs in `text`.

    Names that are mere words of the report would wreck it: those shorter than four characters and numbers
    below 10,000, which a sentence full of counts holds by chance, are left alone.
    """
    return {(kind, name) for kind, name in names if len(name) > 3 and name in text and not _is_small(name)}


def _is_small(name: str) -> bool:
    return name.isdecimal() and len(name) < 5


def folder_key(folder: Path) -> bytes:
    """Return the key of an audit folder, made on first use.

    Args:
        folder: The audit folder; the key is its file ``pseudonyms.key``, mode 0600.

    Returns:
        32 bytes.

    Raises:
        ReportError: The key cannot be read or written, or is no key.
    """
    path = folder / KEY_NAME
    try:
        if not path.is_symlink() and not path.exists():
            _make_key(path)
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
        with os.fdopen(descriptor, "rb") as stream:
            key = stream.read(_KEY_BYTES + 1)
    except OSError as error:
        raise ReportError(f"{path}: {error.strerror}; the folder of the audit must be writable") from None
    if len(key) != _KEY_BYTES:
        raise ReportError(f"{path} is no key of {_KEY_BYTES} bytes; restore it, or delete it for new pseudonyms")
    return key


def _make_key(path: Path) -> None:
    """Write a new key; one that another process made meanwhile is kept."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    except FileExistsError:
        return
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(secrets.token_bytes(_KEY_BYTES))
        stream.flush()
        os.fsync(stream.fileno())
