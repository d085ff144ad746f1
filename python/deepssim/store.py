"""Embeddings on disk: a folder of shards and a manifest.

A store is ``manifest.json``, ``embeddings-00000.npy`` (float32, row-major), ``ids-00000.parquet`` (row, id,
path, group, width, height, pixel_hash) and so on, and ``skipped.parquet`` (id, path, code, reason); where pairs can
be verified in image space, ``working-00000.npy`` too (`deepssim.working`). Shards are written under a temporary name,
fsynced and renamed; the manifest names only whole shards. A store that was cut short is continued; one whose images,
reader or metric changed is stale, and is refused or rebuilt.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.lib import format as npy
from numpy.typing import NDArray

from deepssim.disk import read_json
from deepssim.embed_stream import Record
from deepssim.errors import StoreError
from deepssim.images import COUNTED_CODES, Skipped
from deepssim.images.files import hash_file
from deepssim.working import Working, WorkingFile

FORMAT = "deepssim-store"
VERSION = 1
MANIFEST = "manifest.json"
SKIPPED = "skipped.parquet"
OWN_FILE = re.compile(
    r"\.lock|manifest\.json|skipped\.parquet|(embeddings|ids|skipped|working)-\d{5}\.(npy|parquet)|prepared-int[0-9a-z-]+\.bin"
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
    def working(self) -> str:
        """The name of its file of working images."""
        return f"working-{self.index:05d}.npy"

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
            self.shards = table_of_shards(self.manifest)
            self.is_complete = bool(self.manifest["complete"])
            self.metric = {key: str(self.manifest["metric"][key]) for key in ("name", "hash", "similarity")}
            self.made_from = dict(self.manifest["made_from"])
        except (KeyError, TypeError, ValueError) as error:
            raise StoreError(f"{path / MANIFEST} is damaged: {error!r}") from error
        if not self.is_complete and not allow_incomplete:
            raise StoreError(f"the store {path} is incomplete: run the same embed command again to finish it")
        self._offsets = [self._check_shard(shard) for shard in self.shards]
        self._working: list[WorkingFile] | None = None

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
            files = [(shard.embeddings, "embeddings_sha256"), (shard.ids, "ids_sha256")]
            if self.has_working:
                files.append((shard.working, "working_sha256"))
            for name, key in files:
                if file_digest(self.path / name) != entry.get(key):
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

    def gather(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Read rows in any order, ``(len(rows), dim)``; one that comes again is read once, neighbours together.

        Raises:
            StoreError: A file ended early.
        """
        wanted, inverse = np.unique(rows, return_inverse=True)
        out = np.empty((len(wanted), self.dim), np.float32)
        starts = np.flatnonzero(np.diff(wanted, prepend=-2) != 1)
        for start, stop in zip(starts.tolist(), [*starts[1:].tolist(), len(wanted)], strict=True):
            self.read_rows(int(wanted[start]), out[start:stop])
        return out[inverse]

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

    @property
    def has_working(self) -> bool:
        """Whether working images lie beside the embeddings, so that pairs can be verified."""
        return bool(self.made_from.get("working"))

    def working_image(self, row: int) -> Working:
        """Read the working image of a row; see `deepssim.working`.

        Raises:
            StoreError: The store has none, or a file is damaged.
        """
        if not self.has_working:
            raise StoreError(f"{self.path} was embedded without working images; embed the images again with them")
        if self._working is None:
            self._working = [self._working_file(shard) for shard in self.shards]
        for shard, file in zip(self.shards, self._working, strict=True):
            if shard.first_row <= row < shard.first_row + shard.rows:
                return file.read(row - shard.first_row)
        raise StoreError(f"the store {self.path} has no row {row}")

    def _working_file(self, shard: Shard) -> WorkingFile:
        sizes = self.shard_records(shard, ["height", "width"])
        return WorkingFile(self.path / shard.working, sizes["height"].to_pylist(), sizes["width"].to_pylist())

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


def table_of_shards(manifest: dict[str, Any]) -> list[Shard]:
    """Return the shards that a manifest names, in order."""
    shards, first = [], 0
    for index, entry in enumerate(manifest["shards"]):
        shards.append(Shard(index, first, int(entry["rows"]), int(entry["next_task"])))
        first += int(entry["rows"])
    return shards


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file of a store."""
    try:
        with path.open("rb") as file:
            return hash_file(file.fileno())
    except OSError as error:
        raise StoreError(f"{path} cannot be read: {error.strerror}; embed the images again") from error
