"""Embeddings on disk: a folder of shards and a manifest.

A store is ``manifest.json``, ``embeddings-00000.npy`` (float32, row-major), ``ids-00000.parquet`` (row, id,
path, group, width, height, pixel_hash) and so on, and ``skipped.parquet`` (id, path, code, reason). Shards
are written under a temporary name, fsynced and renamed; the manifest names only whole shards. A store that
was cut short is continued; one whose images, reader or metric changed is stale, and is refused or rebuilt.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.lib import format as npy
from numpy.typing import NDArray

from deepssim.disk import LOCK, locked, make_private_folder, read_json, remove_leftovers, replacing, write_json
from deepssim.embed import EmbeddedChunk, Encoder, Record, embed_listing
from deepssim.errors import StoreError, UsageError
from deepssim.images import COUNTED_CODES, READER_VERSION, Listing, Skipped, decoder_versions, listing_digest
from deepssim.images.files import hash_file
from deepssim.tables import write_table

FORMAT = "deepssim-store"
VERSION = 1
MANIFEST = "manifest.json"
SKIPPED = "skipped.parquet"
OWN_FILE = re.compile(
    r"\.lock|manifest\.json|skipped\.parquet|(embeddings|ids|skipped)-\d{5}\.(npy|parquet)|prepared-int[0-9a-z-]+\.bin"
)

RECORD_SCHEMA = pa.schema(
    [
        ("row", pa.int64()),
        ("id", pa.string()),
        ("path", pa.string()),
        ("group", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("pixel_hash", pa.string()),
    ]
)
SKIPPED_SCHEMA = pa.schema([(name, pa.string()) for name in ("id", "path", "code", "reason")])


def count_skipped(table: pa.Table) -> int:
    """Return how many rows of a table of skipped images count as skipped; the others were never images."""
    is_counted = pc.is_in(table["code"], value_set=pa.array(sorted(COUNTED_CODES)))
    return int(pc.sum(is_counted).as_py() or 0)


def skipped_table(skipped: list[Skipped]) -> pa.Table:
    """Return skipped images as a table."""
    rows = [{"id": s.id, "path": s.path, "code": s.code, "reason": s.reason} for s in skipped]
    return pa.Table.from_pylist(rows, schema=SKIPPED_SCHEMA)


def record_table(records: list[Record], first_row: int) -> pa.Table:
    """Return records as a table whose rows are numbered from `first_row`."""
    columns: dict[str, list[Any]] = {"row": list(range(first_row, first_row + len(records)))}
    for name in RECORD_SCHEMA.names[1:]:
        columns[name] = [getattr(record, name) for record in records]
    return pa.Table.from_pydict(columns, schema=RECORD_SCHEMA)


@dataclass(frozen=True, slots=True)
class Shard:
    """One shard of a store.

    Attributes:
        index: Its number.
        first_row: The store's row that its first row is.
        rows: Its rows.
        next_task: The read task after it.
    """

    index: int
    first_row: int
    rows: int
    next_task: int

    @property
    def embeddings(self) -> str:
        """The name of its array file."""
        return f"embeddings-{self.index:05d}.npy"

    @property
    def ids(self) -> str:
        """The name of its table."""
        return f"ids-{self.index:05d}.parquet"

    @property
    def skipped(self) -> str:
        """The name of its table of skipped images, until the store is complete."""
        return f"skipped-{self.index:05d}.parquet"


class Store:
    """A store that is opened for reading.

    Attributes:
        path: The folder.
        manifest: Its manifest.
        shards: In order.

    Raises:
        StoreError: It is no store, is incomplete, or a file is damaged; the message names it.
    """

    def __init__(self, path: Path, *, allow_incomplete: bool = False) -> None:
        self.path = path = path.absolute()
        self.manifest = read_json(path / MANIFEST, file_format=FORMAT, version=VERSION)
        try:
            self.dim = int(self.manifest["dim"])
            self.shards = _shards(self.manifest)
            self.is_complete = bool(self.manifest["complete"])
            self.metric = {key: str(self.manifest["metric"][key]) for key in ("name", "hash", "similarity")}
            self.made_from = dict(self.manifest["made_from"])
        except (KeyError, TypeError, ValueError) as error:
            raise StoreError(f"{path / MANIFEST} is damaged: {error!r}") from error
        if not self.is_complete and not allow_incomplete:
            raise StoreError(f"the store {path} is incomplete: run the same embed command again to finish it")
        self._offsets = [self._check_shard(shard) for shard in self.shards]

    def __len__(self) -> int:
        return sum(shard.rows for shard in self.shards)

    @classmethod
    def is_store(cls, path: Path) -> bool:
        """Whether `path` is a folder with a manifest."""
        return (path / MANIFEST).is_file()

    def _check_shard(self, shard: Shard) -> int:
        """Return the byte offset of a shard's data; refuse one that is not what the manifest says."""
        path = self.path / shard.embeddings
        try:
            with path.open("rb") as file:
                version = npy.read_magic(file)
                header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
                shape, is_fortran, dtype = header(file)
                offset = file.tell()
                size = os.fstat(file.fileno()).st_size
        except (OSError, ValueError) as error:
            raise StoreError(f"{path} is missing or damaged: {error}; embed the images again") from error
        good = shape == (shard.rows, self.dim) and dtype == np.dtype("<f4") and not is_fortran
        if not good or size != offset + 4 * shard.rows * self.dim:
            raise StoreError(f"{path} is not what the manifest says; embed the images again")
        if not (self.path / shard.ids).is_file():
            raise StoreError(f"{self.path / shard.ids} is missing; embed the images again")
        return offset

    def verify(self) -> None:
        """Read every byte and compare it with the digests in the manifest.

        Raises:
            StoreError: A file is not what was written; the message names it.
        """
        for shard, entry in zip(self.shards, self.manifest["shards"], strict=True):
            for name, key in ((shard.embeddings, "embeddings_sha256"), (shard.ids, "ids_sha256")):
                if _file_digest(self.path / name) != entry.get(key):
                    raise StoreError(f"{self.path / name} is damaged; embed the images again")
        self.skipped()

    def read_rows(self, first: int, out: NDArray[np.float32]) -> None:
        """Read rows ``first`` to ``first + len(out)`` into `out` ``(n, dim)``, C-contiguous.

        Plain reads into the caller's buffer: a mapped file would swell the process's memory, and kill it
        when it is truncated.

        Raises:
            StoreError: A file ended early.
        """
        done = 0
        for shard, offset in zip(self.shards, self._offsets, strict=True):
            begin = max(first + done, shard.first_row)
            end = min(first + len(out), shard.first_row + shard.rows)
            if begin != first + done or begin >= end:
                continue
            self._read_range(shard, offset, begin - shard.first_row, out[done : done + end - begin])
            done += end - begin
        if done != len(out):
            raise StoreError(f"the store {self.path} has no rows {first + done} to {first + len(out)}")

    def _read_range(self, shard: Shard, offset: int, first: int, out: NDArray[np.float32]) -> None:
        path = self.path / shard.embeddings
        view = memoryview(out.view(np.uint8).reshape(-1).data)
        position = offset + 4 * first * self.dim
        try:
            descriptor = os.open(path, os.O_RDONLY)
        except OSError as error:
            raise StoreError(f"{path} cannot be read: {error.strerror}") from error
        try:
            while len(view) > 0:
                n_read = os.preadv(descriptor, [view], position)
                if n_read == 0:
                    raise StoreError(f"{path} ended early; embed the images again")
                view = view[n_read:]
                position += n_read
        finally:
            os.close(descriptor)

    def chunks(
        self, rows: int, first_row: int = 0, end_row: int | None = None
    ) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """Yield (first row, rows) in order, of rows ``first_row`` to `end_row` (default: all).

        The array is one buffer, overwritten by the next step.
        """
        end = len(self) if end_row is None else end_row
        buffer = np.empty((min(rows, max(end - first_row, 1)), self.dim), np.float32)
        for first in range(first_row, end, rows):
            part = buffer[: min(rows, end - first)]
            self.read_rows(first, part)
            yield first, part

    def records(self, columns: list[str] | None = None) -> pa.Table:
        """Return the table of all rows (or some of its columns)."""
        schema = RECORD_SCHEMA if columns is None else pa.schema([RECORD_SCHEMA.field(c) for c in columns])
        tables = [self.shard_records(shard, columns) for shard in self.shards]
        return pa.concat_tables(tables) if tables else schema.empty_table()

    def shard_records(self, shard: Shard, columns: list[str] | None = None) -> pa.Table:
        """Return the table of a shard's rows."""
        path = self.path / shard.ids
        try:
            table = pq.read_table(path, columns=columns)
        except (OSError, pa.ArrowException) as error:
            raise StoreError(f"{path} is damaged: {error}; embed the images again") from error
        if table.num_rows != shard.rows:
            raise StoreError(f"{path} has {table.num_rows} rows, the manifest says {shard.rows}")
        return table

    def iter_records(self) -> Iterator[pa.Table]:
        """Yield the tables of all rows in order, some thousand rows at a time."""
        for shard in self.shards:
            path = self.path / shard.ids
            try:
                with pq.ParquetFile(path) as file:
                    for batch in file.iter_batches(batch_size=8192):
                        yield pa.Table.from_batches([batch], schema=RECORD_SCHEMA)
            except (OSError, pa.ArrowException, ValueError) as error:
                raise StoreError(f"{path} is damaged: {error}; embed the images again") from error

    def skipped(self) -> pa.Table:
        """Return the table of skipped images."""
        names = [SKIPPED] if self.is_complete else [shard.skipped for shard in self.shards]
        parts = []
        for name in names:
            try:
                parts.append(pq.read_table(self.path / name))
            except (OSError, pa.ArrowException) as error:
                raise StoreError(f"{self.path / name} is missing or damaged; embed the images again") from error
        return pa.concat_tables(parts) if parts else SKIPPED_SCHEMA.empty_table()


def _shards(manifest: dict[str, Any]) -> list[Shard]:
    shards, first = [], 0
    for index, entry in enumerate(manifest["shards"]):
        shards.append(Shard(index, first, int(entry["rows"]), int(entry["next_task"])))
        first += int(entry["rows"])
    return shards


def _file_digest(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hash_file(file.fileno())
    except OSError as error:
        raise StoreError(f"{path} cannot be read: {error.strerror}; embed the images again") from error


def _new_manifest(metric: dict[str, str], made_from: dict[str, Any], *, source: str, root: str) -> dict[str, Any]:
    """Return the manifest of a store without shards."""
    return {
        "format": FORMAT,
        "version": VERSION,
        "complete": False,
        "dim": 0,
        "count": 0,
        "metric": metric,
        "made_from": made_from,
        "source": source,
        "root": root,
        "shards": [],
    }


def _add_shard(
    path: Path, manifest: dict[str, Any], shard: Shard, embeddings: NDArray[np.float32], records: list[Record]
) -> None:
    """Write the files of a shard and enter it in a manifest, which the caller writes."""
    with replacing(path / shard.embeddings) as temporary, temporary.open("wb") as file:
        npy.write_array(file, np.ascontiguousarray(embeddings, "<f4"), version=(1, 0), allow_pickle=False)
    write_table(path / shard.ids, record_table(records, shard.first_row))
    manifest["shards"].append(
        {
            "embeddings": shard.embeddings,
            "embeddings_sha256": _file_digest(path / shard.embeddings),
            "ids": shard.ids,
            "ids_sha256": _file_digest(path / shard.ids),
            "rows": shard.rows,
            "next_task": shard.next_task,
        }
    )
    manifest["count"] += shard.rows


def identity(listing: Listing, digest: str, encoder: Encoder) -> dict[str, Any]:
    """Return what a store is made from: if any of it differs, a store is stale."""
    return {
        "images_digest": digest,
        "options": {"slices": listing.options.slices, "axis": listing.options.axis},
        "group_by": listing.options.group_by,
        "max_pixels": listing.options.max_pixels,
        "reader": {"version": READER_VERSION, **decoder_versions()},
        "metric_hash": encoder.metric.hash,
        "onnxruntime": encoder.runtime_version,
        "provider": encoder.provider,
    }


class _Builder:
    """Adds whole shards to a folder, each followed by the manifest that names it."""

    def __init__(self, path: Path, made_from: dict[str, Any], listing: Listing, encoder: Encoder) -> None:
        metric = encoder.metric
        self.path = path
        self.manifest = _new_manifest(
            {"name": metric.name, "hash": metric.hash, "similarity": metric.similarity},
            made_from,
            source=listing.source,
            root=str(listing.root),
        )
        self.manifest["dim"] = metric.dim

    def resume(self, earlier: Store) -> int:
        """Take over the shards of an earlier run; returns the task to go on with."""
        self.manifest["shards"] = earlier.manifest["shards"]
        self.manifest["count"] = earlier.manifest["count"]
        return earlier.shards[-1].next_task if earlier.shards else 0

    def add(self, chunk: EmbeddedChunk) -> None:
        """Write a shard and then the manifest."""
        shard = Shard(len(self.manifest["shards"]), self.manifest["count"], len(chunk.records), chunk.next_task)
        write_table(self.path / shard.skipped, skipped_table(chunk.skipped))
        _add_shard(self.path, self.manifest, shard, chunk.embeddings, chunk.records)
        write_json(self.path / MANIFEST, self.manifest)

    def finish(self, ignored: list[Skipped]) -> Store:
        """Join the tables of skipped images and mark the store complete."""
        shards = _shards(self.manifest)
        parts = [skipped_table(ignored)] + [pq.read_table(self.path / s.skipped) for s in shards]
        write_table(self.path / SKIPPED, pa.concat_tables(parts))
        write_json(self.path / MANIFEST, {**self.manifest, "complete": True})
        for shard in shards:
            (self.path / shard.skipped).unlink(missing_ok=True)
        return Store(self.path)


def write_store(
    path: Path,
    chunks: Iterable[tuple[NDArray[np.float32], Sequence[str], Sequence[str | None] | None]],
    *,
    metric: str,
    metric_hash: str = "",
) -> Store:
    """Write embeddings that were made elsewhere as a store, a shard for each chunk.

    Args:
        path: A new or empty folder.
        chunks: (embeddings ``(n, dim)`` float32, ids, groups or None) in order; ids must differ.
        metric: Name of what made them; two stores are compared only if name and hash agree.
        metric_hash: Hash of what made them.

    Raises:
        UsageError: The folder is not empty, there is no row, or shapes disagree.
    """
    path = make_private_folder(path.absolute())
    if any(path.iterdir()):
        raise UsageError(f"{path} is not empty: name a new folder for the store")
    described = {"name": metric, "hash": metric_hash, "similarity": "cosine"}
    manifest = _new_manifest(described, {"embeddings": "given"}, source=str(path), root="")
    for index, (embeddings, ids, groups) in enumerate(chunks):
        known = groups if groups is not None else [None] * len(ids)
        if embeddings.ndim != 2 or not len(embeddings) == len(ids) == len(known):
            raise UsageError(f"chunk {index} has {embeddings.shape} embeddings, {len(ids)} ids, {len(known)} groups")
        if manifest["dim"] not in (0, embeddings.shape[1]):
            raise UsageError(f"chunk {index} has rows of {embeddings.shape[1]} elements, not {manifest['dim']}")
        manifest["dim"] = int(embeddings.shape[1])
        shard = Shard(index, manifest["count"], len(ids), index + 1)
        records = [Record(i, i, group, 0, 0, "") for i, group in zip(ids, known, strict=True)]
        _add_shard(path, manifest, shard, embeddings, records)
    if manifest["count"] == 0:
        raise UsageError("there are no embeddings to write")
    write_table(path / SKIPPED, SKIPPED_SCHEMA.empty_table())
    write_json(path / MANIFEST, {**manifest, "complete": True})
    return Store(path)


def _clear(path: Path) -> None:
    """Empty a folder that holds nothing but a store; anything else in it is a reason to refuse."""
    strangers = [entry.name for entry in path.iterdir() if not OWN_FILE.fullmatch(entry.name) or entry.is_dir()]
    if strangers:
        raise UsageError(f"{path} holds other files ({strangers[0]}): name an empty or a new folder for the store")
    (path / MANIFEST).unlink(missing_ok=True)
    for entry in path.iterdir():
        if entry.name != LOCK:
            entry.unlink()


def build_store(
    listing: Listing,
    encoder: Encoder,
    path: Path,
    *,
    shard_rows: int = 4096,
    threads: int | None = None,
    progress: Callable[[int], None] | None = None,
    status: Callable[[str], None] | None = None,
) -> Store:
    """Embed a listing into a store, or reuse or continue the one that is there.

    Whether a store is stale is decided by the bytes of all files, not by their times.

    Args:
        listing: The images.
        encoder: The metric.
        path: Folder of the store.
        shard_rows: A shard ends with the read task that reaches so many rows.
        threads: Threads that decode.
        progress: Called with the number of images done since the last call.
        status: Told in a line what is done with a store that is there.

    Raises:
        UsageError: The folder holds other files, or no image could be used.
    """
    say = status if status is not None else (lambda _: None)
    path = path.absolute()
    source = Path(listing.source)
    if source.is_dir() and path.resolve().is_relative_to(source.resolve()):
        raise UsageError(f"{path} lies inside the images ({listing.source}): name a folder outside for the store")
    with locked(make_private_folder(path)):
        return _build(listing, encoder, path, shard_rows, threads, progress, say)


def _build(
    listing: Listing,
    encoder: Encoder,
    path: Path,
    shard_rows: int,
    threads: int | None,
    progress: Callable[[int], None] | None,
    say: Callable[[str], None],
) -> Store:
    remove_leftovers(path)
    made_from = identity(listing, listing_digest(listing, threads=threads), encoder)
    builder = _Builder(path, made_from, listing, encoder)
    first_task = 0
    if Store.is_store(path):
        try:
            earlier = Store(path, allow_incomplete=True)
            if earlier.manifest.get("root") != str(listing.root):
                raise UsageError(
                    f"{path} holds embeddings of other images ({earlier.manifest.get('source')}): name another folder, "
                    "or delete it"
                )
            is_fresh = earlier.made_from == made_from
            if is_fresh:
                earlier.verify()
            if is_fresh and earlier.is_complete:
                say(f"reusing {path}: {len(earlier):,} embeddings of the same images and metric")
                return earlier
            if is_fresh:
                first_task = builder.resume(earlier)
                say(f"continuing {path} after {len(earlier):,} embeddings")
            else:
                say(f"rebuilding {path}: its images, reader or metric changed")
        except StoreError as error:
            say(f"rebuilding {path}: {error}")
    if first_task == 0:
        builder.manifest.update(shards=[], count=0)
        _clear(path)
    for chunk in embed_listing(
        listing, encoder, first_task=first_task, chunk_rows=shard_rows, threads=threads, progress=progress
    ):
        builder.add(chunk)
    store = builder.finish(list(listing.ignored))
    if len(store) == 0:
        raise UsageError(f"no image of {listing.source} can be used; the reasons are in {path / SKIPPED}")
    return store
