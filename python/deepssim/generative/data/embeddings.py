"""Embeddings of captions: read from the files that a CSV names, or made by an encoder of its texts."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepssim.errors import UsageError
from deepssim.generative.data.faults import refuse
from deepssim.generative.data.record import Record
from deepssim.images.text import one_line, reason_of, some

__all__ = ["KEY", "Embed", "caption_embeddings", "read_embedding"]

Embed = Callable[[Sequence[str]], NDArray[np.float32]]
"""Makes embeddings ``(n, dim)`` of texts; see `deepssim.models.text`."""

KEY = "data"
"""Name of the embedding in an .npz file."""

# Far above any encoder's, and small enough for any memory.
_MOST_BYTES = 2**22


def read_embedding(path: Path) -> NDArray[np.float32]:
    """Read one embedding.

    Args:
        path: An ``.npz`` file with the key ``data``, or an ``.npy`` file; of any shape, which becomes flat.

    Returns:
        ``(dim,)`` float32.

    Raises:
        ValueError: It cannot be used; the text says why, without the path.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     np.savez(Path(folder, "a.npz"), data=np.ones((1, 4)))
        ...     read_embedding(Path(folder, "a.npz"))
        array([1., 1., 1., 1.], dtype=float32)
    """
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise ValueError(f"has more than {_MOST_BYTES:,} bytes")
        # A file that is no archive is taken for an array; nothing in it is ever executed.
        array = _of_archive(path) if zipfile.is_zipfile(path) else np.load(path, allow_pickle=False)
    except FileNotFoundError as error:
        raise ValueError("is neither beside the CSV nor under the working folder") from error
    except (OSError, EOFError, KeyError, zipfile.BadZipFile, MemoryError, SyntaxError) as error:
        raise ValueError(f"cannot be read: {reason_of(error)}") from error
    return _flat(array)


def _of_archive(path: Path) -> Any:
    with zipfile.ZipFile(path) as archive:
        names = [name.removesuffix(".npy") for name in archive.namelist()]
        if KEY not in names:
            raise ValueError(f"has no key '{KEY}', but {some(names) or 'nothing'}")
        if archive.getinfo(f"{KEY}.npy").file_size > _MOST_BYTES:
            raise ValueError(f"unpacks to more than {_MOST_BYTES:,} bytes")
    with np.load(path, allow_pickle=False) as arrays:
        return arrays[KEY]


def _flat(array: Any) -> NDArray[np.float32]:
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "iuf" or not array.size:
        raise ValueError(f"holds {getattr(array, 'dtype', 'no array')} of shape {np.shape(array)}, no real numbers")
    with np.errstate(over="ignore"):
        flat = np.asarray(array, np.float32).ravel()
    if not np.isfinite(flat).all():
        raise ValueError("holds NaN, infinity or numbers beyond float32")
    return flat


def caption_embeddings(
    records: Sequence[Record], encoder: str | None, embed: Embed | None, dim: int | None = None
) -> NDArray[np.float32]:
    """Return the embeddings of the captions of records.

    Args:
        records: Each with a file of an embedding, or, where an encoder is named, with a caption.
        encoder: Name of the encoder; None: embeddings are read from files.
        embed: The encoder.
        dim: Length that they must have; None: that of most of them.

    Returns:
        ``(n, dim)`` float32.

    Raises:
        UsageError: Records without a caption, or embeddings that cannot be used; the first ones are named.

    Example:
        >>> record = Record("p1", Path("p1.png"), "train", text="an old brain")
        >>> caption_embeddings([record], "lengths", lambda texts: np.array([[len(t)] for t in texts], np.float32))
        array([[12.]], dtype=float32)
    """
    if not records:
        raise UsageError("there are no records to take captions of")
    if encoder is not None:
        return _made(records, encoder, embed, dim)
    if all(record.caption is None for record in records):
        raise UsageError(
            "conditions of text need the column caption_emb_path (files of embeddings) in the CSV, or the column "
            "caption and an encoder of texts"
        )
    found: dict[int, NDArray[np.float32]] = {}
    faults = []
    for i, record in enumerate(records):
        try:
            if record.caption is None:
                raise ValueError("is empty")
            found[i] = read_embedding(record.caption)
        except ValueError as error:
            name = "" if record.caption is None else f" '{one_line(record.caption.name, 60)}'"
            faults.append(f"{record.place}: caption_emb_path{name} {error}")
    lengths = [len(embedding) for embedding in found.values()]
    wanted = dim or (max(sorted(set(lengths)), key=lengths.count) if lengths else 0)
    whose = "the model's" if dim else "that of most"
    faults += [
        f"{records[i].place}: caption_emb_path has {len(embedding):,} numbers, and {wanted:,} is {whose}"
        for i, embedding in found.items()
        if len(embedding) != wanted
    ]
    refuse("embeddings of captions that cannot be used", faults)
    return np.stack([found[i] for i in range(len(records))])


def _made(records: Sequence[Record], encoder: str, embed: Embed | None, dim: int | None) -> NDArray[np.float32]:
    if embed is None:
        raise UsageError(
            f"the captions of this model are embedded by {one_line(encoder, 80)}: give it with --text-encoder"
        )
    given = getattr(embed, "name", encoder)
    if given != encoder:
        raise UsageError(
            f"the captions of this model are embedded by another encoder of texts, {one_line(encoder, 80)}; this one "
            f"is {one_line(given, 80)}"
        )
    texts = [record.text or "" for record in records]
    empty = [f"{record.place}: caption is empty" for record in records if not record.text]
    if len(empty) == len(records):
        raise UsageError("an encoder of texts needs the column caption in the CSV, and no row has one")
    refuse("captions that cannot be embedded", empty)
    # A text that comes again has the same embedding.
    different = list(dict.fromkeys(texts))
    made = np.asarray(embed(different), np.float32)
    if made.ndim != 2 or len(made) != len(different) or not made.shape[1] or not np.isfinite(made).all():
        raise UsageError(f"{one_line(encoder, 80)} gives embeddings of shape {made.shape} that are no finite vectors")
    if dim is not None and made.shape[1] != dim:
        raise UsageError(
            f"{one_line(encoder, 80)} gives embeddings of {made.shape[1]:,} numbers, and the model needs {dim:,}"
        )
    place = {text: i for i, text in enumerate(different)}
    return made[[place[text] for text in texts]]
