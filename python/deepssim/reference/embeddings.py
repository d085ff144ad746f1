"""Folders of embeddings, one ``.npz`` an image, as the reference implementation writes and reads them.

It reads whatever lies in such a folder, so embeddings of another run must never stay there: a folder appears as a
whole, in the place of the one before, and one that holds anything else is refused.
"""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from deepssim.disk import FOLDER_MODE, make_private_folder
from deepssim.errors import UsageError
from deepssim.images import Skipped
from deepssim.images.text import some
from deepssim.reference.files import read_embedding, write_embedding
from deepssim.reference.names import REAL_NAME, SEPARATOR
from deepssim.store import Store
from deepssim.store_build import write_store

__all__ = ["check_replaceable", "holds_embeddings", "read_embeddings", "replacing_embeddings", "write_embeddings"]

_SUFFIX = ".npz"
_CHUNK_ROWS = 4096
_SHOWN = 10

Floats = NDArray[np.float32]


def holds_embeddings(folder: Path) -> bool:
    """Say whether a folder holds embeddings, named ``uid___name.npz``, and nothing else.

    Example:
        >>> holds_embeddings(Path("no such folder"))
        False
    """
    if not folder.is_dir():
        return False
    entries = list(folder.iterdir())
    return bool(entries) and not _strangers(entries)


def _strangers(entries: Iterable[Path]) -> list[str]:
    return sorted(e.name for e in entries if SEPARATOR not in e.name or e.suffix != _SUFFIX or not e.is_file())


def check_replaceable(folder: Path) -> None:
    """Refuse a place for embeddings where other things lie.

    Raises:
        UsageError: What lies there is more than embeddings.
    """
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is a file, and the embeddings need a folder of that name")
    strangers = _strangers(folder.iterdir()) if folder.is_dir() else []
    if strangers:
        raise UsageError(
            f"{folder} holds other things than embeddings ({some(strangers, 3)}) and would be replaced: name another "
            "folder for the embeddings"
        )


@contextmanager
def replacing_embeddings(folder: Path) -> Iterator[Path]:
    """Give an empty folder to write to; on success it takes the place of `folder`, else it is removed.

    Raises:
        UsageError: What lies at `folder` is more than embeddings; it stays as it is.
    """
    check_replaceable(folder)
    make_private_folder(folder.parent)
    for stale in folder.parent.glob(f".{folder.name}.*.partial"):
        shutil.rmtree(stale, ignore_errors=True)
    temporary = folder.with_name(f".{folder.name}.{secrets.token_hex(6)}.partial")
    temporary.mkdir(mode=FOLDER_MODE)
    try:
        yield temporary
        if folder.is_dir():
            shutil.rmtree(folder)
        temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_embeddings(folder: Path, store: Store, names: Sequence[str], advance: Callable[[int], None]) -> None:
    """Write the rows of a store, one file a row.

    Args:
        folder: An existing one.
        store: The embeddings.
        names: Of their files, without the suffix.
        advance: Called with the number of files written.
    """
    for first, rows in store.chunks(_CHUNK_ROWS):
        for name, row in zip(names[first : first + len(rows)], rows, strict=True):
            write_embedding(folder / f"{name}{_SUFFIX}", row)
        advance(len(rows))


def read_embeddings(
    folder: Path, out: Path, metric: str, *, is_centred: bool, advance: Callable[[int], None]
) -> tuple[tuple[Store, Store], dict[str, list[Skipped]]]:
    """Read a folder of embeddings into two stores, the images called ``training`` and all others.

    Args:
        folder: As `holds_embeddings` wants it.
        out: An existing folder for the stores.
        metric: Name of what made them.
        is_centred: Whether the similarity is a correlation: the mean of each embedding is taken off.
        advance: Called with the number of files read.

    Returns:
        The stores, with rows of length 1, and of each set the images whose embedding has no direction.

    Raises:
        UsageError: Files cannot be read, lengths differ, or there are no real or no synthetic images.
    """
    names = sorted(path.stem for path in folder.iterdir())
    is_real = [name.split(SEPARATOR)[-1] == REAL_NAME for name in names]
    n_real = sum(is_real)
    if not 0 < n_real < len(names):
        raise UsageError(
            f"{folder} holds {n_real:,} embeddings of images called {REAL_NAME} and {len(names) - n_real:,} others: "
            "both are needed"
        )
    skipped: dict[str, list[Skipped]] = {"real": [], "synthetic": []}
    dims: dict[int, str] = {}

    def chunks(wanted: bool) -> Iterator[tuple[Floats, list[str], None]]:
        chosen = [name for name, real in zip(names, is_real, strict=True) if real == wanted]
        for first in range(0, len(chosen), _CHUNK_ROWS):
            part = chosen[first : first + _CHUNK_ROWS]
            rows = [read_embedding(folder / f"{name}{_SUFFIX}") for name in part]
            for name, row in zip(part, rows, strict=True):
                dims.setdefault(len(row), name)
            if len(dims) > 1:
                (a, one), (b, other) = list(dims.items())[:2]
                raise UsageError(
                    f"{folder} holds embeddings of several metrics: that of {one} has {a:,} elements, that of {other} "
                    f"{b:,}; make them again"
                )
            units, good = _unit_rows(np.stack(rows), is_centred)
            skipped["real" if wanted else "synthetic"].extend(
                Skipped(name, f"{name}{_SUFFIX}", "constant", "its embedding has no direction")
                for name, is_good in zip(part, good.tolist(), strict=True)
                if not is_good
            )
            advance(len(part))
            yield units[good], [name for name, is_good in zip(part, good.tolist(), strict=True) if is_good], None

    made = [write_store(out / part, chunks(part == "real"), metric=metric) for part in ("real", "synthetic")]
    return (made[0], made[1]), skipped


def _unit_rows(rows: Floats, is_centred: bool) -> tuple[Floats, NDArray[np.bool_]]:
    wide = rows.astype(np.float64)
    if is_centred:
        wide -= wide.mean(axis=1, keepdims=True)
    norms = np.linalg.norm(wide, axis=1)
    # What is left of equal elements is rounding.
    good = norms > 1e-12 * np.linalg.norm(rows.astype(np.float64), axis=1)
    return np.ascontiguousarray(wide / np.where(good, norms, 1)[:, np.newaxis], np.float32), good
