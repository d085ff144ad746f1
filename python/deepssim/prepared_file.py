"""A prepared base kept beside its store.

One file for each way that instruction sets code rows: a line of JSON that says of which rows and by which version
it was made, the bytes of the core, and the SHA-256 of all that. A file that is of other rows, of another version
or damaged is as good as none: it is made anew.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from deepssim.disk import replacing
from deepssim.errors import DeepSSIMError, StoreError
from deepssim.search import Searcher
from deepssim.store import Store

__all__ = ["keep_prepared", "take_prepared"]

FORMAT = "deepssim-prepared"
VERSION = 2
DIGEST_BYTES = 32
LONGEST_LINE = 2**20


def _path(store: Store, searcher: Searcher) -> Path:
    return store.path / f"prepared-{searcher.codes}.bin"


def _key(store: Store, searcher: Searcher) -> dict[str, Any]:
    digests = [entry.get("embeddings_sha256") for entry in store.manifest["shards"]]
    return {"format": FORMAT, "version": VERSION, "codes": searcher.codes, "shards": digests}


def keep_prepared(store: Store, searcher: Searcher) -> Path:
    """Write what a searcher of all rows of a store has prepared; returns the file.

    Raises:
        SearchError: Nothing was prepared yet.
        StoreError: The store's folder cannot be written.
    """
    path = _path(store, searcher)
    try:
        _write(path, store, searcher)
    except OSError as error:
        raise StoreError(f"{path} cannot be written: {error.strerror}; leave out --keep-prepared") from error
    return path


def _write(path: Path, store: Store, searcher: Searcher) -> None:
    with replacing(path) as temporary, temporary.open("wb") as file:
        digest = hashlib.sha256()

        def write(piece: bytes | memoryview) -> None:
            digest.update(piece)
            file.write(piece)

        header = searcher.prepared_header()
        write(json.dumps({**_key(store, searcher), "header": header}).encode() + b"\n")
        searcher.write_prepared(write)
        file.write(digest.digest())


def take_prepared(store: Store, searcher: Searcher) -> bool:
    """Give a searcher of all rows of a store what was kept of it; returns whether there was any that fits."""
    try:
        with _path(store, searcher).open("rb") as file:
            digest = hashlib.sha256()
            line = file.readline(LONGEST_LINE)
            digest.update(line)
            described = json.loads(line)
            if {k: v for k, v in described.items() if k != "header"} != _key(store, searcher):
                return False

            def read(piece: memoryview) -> None:
                view = piece.cast("B") if piece.nbytes else piece
                if piece.nbytes and file.readinto(view) != piece.nbytes:
                    raise EOFError("the file ended early")
                digest.update(view)

            searcher.read_prepared(read, described["header"])
            is_whole = file.read(DIGEST_BYTES + 1) == digest.digest()
    except (OSError, EOFError, ValueError, TypeError, KeyError, AttributeError, DeepSSIMError):
        is_whole = False
    if not is_whole:
        searcher.forget_prepared()
    return is_whole
