"""The synthetic side of a run: a listing of images or a store, matched part by part and resumable.

Each part is written whole before the next begins, with the records of its images. A run that was killed
takes over the parts of its predecessor, whose work folder carries the fingerprint of everything that the
parts depend on.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from deepssim.disk import make_private_folder, remove_leftovers, write_json
from deepssim.embed import Encoder
from deepssim.embed_stream import EmbeddedChunk, embed_listing
from deepssim.errors import DeepSSIMError, ImageError, StoreError
from deepssim.images import Image, ImageOptions, Listing, listing_signature, read_image
from deepssim.matching import Matcher, Subject
from deepssim.parts import Part
from deepssim.progress import Progress
from deepssim.read_ahead import read_ahead
from deepssim.store import SKIPPED_SCHEMA, Store, record_table, skipped_table
from deepssim.tables import write_table
from deepssim.working import Working

# A killed run repeats at most so many images.
PART_IMAGES = 1024


class Synthetic(Protocol):
    """What a run needs of its synthetic side."""

    source: str

    @property
    def expected_rows(self) -> int:
        """Images to expect, about."""

    def fingerprint(self) -> dict[str, Any]:
        """Return what changes when the images change."""

    def options(self) -> dict[str, str] | None:
        """Return how volumes were cut, None where that is not known."""

    def match(self, matcher: Matcher, work: WorkFolder, progress: Progress) -> None:
        """Write the parts that `work` lacks."""

    def records(self, work: WorkFolder) -> Iterator[pa.Table]:
        """Yield the records of all matched images, in order."""

    def skipped(self, work: WorkFolder) -> pa.Table:
        """Return the table of what was left out."""

    def digest(self, work: WorkFolder) -> str:
        """Return a digest of what was read."""

    def read(self, path: str, image_id: str) -> Image:
        """Read one image again."""

    def facts(self) -> dict[str, Any]:
        """Return what the record of a run says more of it."""

    def publish(self, work: WorkFolder) -> None:
        """Leave beside the results what is to stay of the images."""


class WorkFolder:
    """Parts of a run under way, in a folder named by the run's fingerprint."""

    def __init__(self, out: Path, fingerprint: dict[str, Any]) -> None:
        text = json.dumps(fingerprint, sort_keys=True, default=str)
        name = ".work-" + hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:16]
        self.path = make_private_folder(out / name)
        remove_leftovers(self.path)
        self.entries: list[dict[str, Any]] = []
        while (done := self._file("done", len(self.entries), "json")).is_file():
            self.entries.append(json.loads(done.read_text(encoding="utf-8")))

    def discard_if_empty(self) -> None:
        """Remove the folder where no part is done."""
        if not self.entries:
            shutil.rmtree(self.path, ignore_errors=True)

    def _file(self, kind: str, index: int, suffix: str) -> Path:
        return self.path / f"{kind}-{index:05d}.{suffix}"

    @property
    def rows(self) -> int:
        """Rows of all whole parts."""
        return sum(entry["rows"] for entry in self.entries)

    def last(self, key: str) -> int:
        """Return a number that the last part recorded, 0 where there is none."""
        return int(self.entries[-1][key]) if self.entries else 0

    def add(self, part: Part, entry: dict[str, Any], chunk: EmbeddedChunk | None = None) -> None:
        """Write a part; it counts from the moment its last file is there."""
        index = len(self.entries)
        part.write(self._file("part", index, "npz"))
        if chunk is not None:
            write_table(self._file("records", index, "parquet"), record_table(chunk.records, part.first_row))
            write_table(self._file("skipped", index, "parquet"), skipped_table(chunk.skipped))
        entry = {"rows": len(part), **entry}
        write_json(self._file("done", index, "json"), entry)
        self.entries.append(entry)

    def parts(self) -> Iterator[Part]:
        """Yield all parts in order."""
        for index in range(len(self.entries)):
            yield Part.read(self._file("part", index, "npz"))

    def tables(self, kind: str) -> Iterator[pa.Table]:
        """Yield the tables of a kind in order."""
        for index in range(len(self.entries)):
            yield pq.read_table(self._file(kind, index, "parquet"))


def images_done(folder: Path) -> int:
    """Return how many images the parts in a folder of a run under way hold, whatever run that is."""
    n_images = 0
    for done in folder.glob("done-*.json"):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            n_images += int(json.loads(done.read_text(encoding="utf-8"))["rows"])
    return n_images


class SyntheticImages:
    """Images that are embedded and matched chunk by chunk; no embedding is kept."""

    def __init__(self, listing: Listing, encoder: Encoder, threads: int | None) -> None:
        self.listing, self.encoder, self.threads = listing, encoder, threads
        self.source = listing.source

    @property
    def expected_rows(self) -> int:
        """Images that the listing promises."""
        return self.listing.n_expected

    def fingerprint(self) -> dict[str, Any]:
        """Return the listing with size and times of every file: a change of content shows in ctime."""
        return {"root": str(self.listing.root), "files": listing_signature(self.listing)}

    def options(self) -> dict[str, str] | None:
        """Return how volumes are cut."""
        return {"slices": self.listing.options.slices, "axis": self.listing.options.axis}

    def match(self, matcher: Matcher, work: WorkFolder, progress: Progress) -> None:
        """Embed and match what is left."""
        first_task = work.last("next_task")
        if first_task:
            progress.status(f"continuing after {work.rows:,} synthetic images")
        if first_task >= len(self.listing.tasks):
            return
        with progress.track("synthetic images", self.listing.n_expected) as advance:
            advance(work.last("images_seen"))
            seen = work.last("images_seen")
            for chunk in embed_listing(
                self.listing,
                self.encoder,
                first_task=first_task,
                chunk_rows=min(matcher.chunk_rows, PART_IMAGES),
                with_working=matcher.verifier is not None,
                threads=self.threads,
                progress=advance,
            ):
                seen += len(chunk.records) + len(chunk.skipped)
                working: Sequence[Working | None] = chunk.working or [None] * len(chunk.records)
                subjects = [
                    Subject(record.height, record.width, image)
                    for record, image in zip(chunk.records, working, strict=True)
                ]
                part = matcher.match_rows(chunk.embeddings, work.rows, subjects)
                entry = {"next_task": chunk.next_task, "images_seen": seen, "digest": _joint(chunk.digests)}
                work.add(part, entry, chunk)

    def records(self, work: WorkFolder) -> Iterator[pa.Table]:
        """Yield the records that lie beside the parts."""
        return work.tables("records")

    def skipped(self, work: WorkFolder) -> pa.Table:
        """Return what listing and reading left out."""
        return pa.concat_tables([skipped_table(list(self.listing.ignored)), *work.tables("skipped")])

    def digest(self, work: WorkFolder) -> str:
        """Return the digest of the parts' digests."""
        return _joint([entry["digest"] for entry in work.entries])

    def read(self, path: str, image_id: str) -> Image:
        """Read one image again."""
        return read_image(self.listing.root, path, image_id, self.listing.options)

    def facts(self) -> dict[str, Any]:
        """Return nothing: the images are where they were."""
        return {}

    def publish(self, work: WorkFolder) -> None:
        """Leave nothing: the images are where they were."""


class SyntheticStore:
    """Embeddings that lie in a store."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.source = str(store.path)

    @property
    def expected_rows(self) -> int:
        """Rows of the store."""
        return len(self.store)

    def fingerprint(self) -> dict[str, Any]:
        """Return the manifest's own."""
        return store_fingerprint(self.store)

    def options(self) -> dict[str, str] | None:
        """Return how volumes were cut."""
        return self.store.made_from.get("options")

    def match(self, matcher: Matcher, work: WorkFolder, progress: Progress) -> None:
        """Match what is left, straight from the shards."""
        total = len(self.store)
        if work.rows:
            progress.status(f"continuing after {work.rows:,} synthetic rows")
        step = min(matcher.chunk_rows, max(total, 1))
        if matcher.verifier is not None:
            step = min(step, PART_IMAGES)
        buffers = np.empty((2, step, self.store.dim), np.float32)
        sizes = self.store.records(["height", "width"])

        def read(place: tuple[int, int]) -> tuple[int, NDArray[np.float32]]:
            turn, first = place
            rows = buffers[turn % 2, : min(step, total - first)]
            self.store.read_rows(first, rows)
            return first, rows

        with progress.track("synthetic rows", total) as advance:
            advance(work.rows)
            for first, rows in read_ahead(enumerate(range(work.rows, total, step)), read):
                subjects = self._subjects(sizes, first, len(rows), with_working=matcher.verifier is not None)
                work.add(matcher.match_rows(rows, first, subjects), {})
                advance(len(rows))

    def _subjects(self, sizes: pa.Table, first: int, n: int, *, with_working: bool) -> list[Subject]:
        heights, widths = (sizes[name].slice(first, n).fill_null(0).to_pylist() for name in ("height", "width"))
        images = [self.store.working_image(first + i) if with_working else None for i in range(n)]
        return [Subject(*values) for values in zip(heights, widths, images, strict=True)]

    def records(self, work: WorkFolder) -> Iterator[pa.Table]:
        """Yield the store's records."""
        return self.store.iter_records()

    def skipped(self, work: WorkFolder) -> pa.Table:
        """Return the store's table."""
        return self.store.skipped().select(SKIPPED_SCHEMA.names)

    def digest(self, work: WorkFolder) -> str:
        """Return the digest of the images that the store was made from."""
        return str(self.store.manifest["made_from"].get("images_digest", ""))

    def read(self, path: str, image_id: str) -> Image:
        """Read one image again, if the images are still where they were embedded from."""
        return read_from_store(self.store, path, image_id)

    def facts(self) -> dict[str, Any]:
        """Return nothing: the store is where it was."""
        return {}

    def publish(self, work: WorkFolder) -> None:
        """Leave nothing: the store is where it was."""


def store_fingerprint(store: Store) -> dict[str, Any]:
    """Return what changes when the embeddings of a store change."""
    stats = [(store.path / s.embeddings).stat() for s in store.shards]
    signature = [(s.st_size, s.st_mtime_ns, s.st_ctime_ns, s.st_ino) for s in stats]
    return {"path": str(store.path.resolve()), "manifest": store.manifest, "shards": signature}


def read_from_store(store: Store, path: str, image_id: str) -> Image:
    """Read an image of a store again from its file.

    Raises:
        ImageError: The files are not there any more, or the embeddings were made elsewhere.
    """
    manifest = store.manifest
    if not manifest.get("root"):
        raise ImageError("missing", "its embeddings were given without images")
    try:
        options = ImageOptions(**manifest["made_from"]["options"], max_pixels=manifest["made_from"]["max_pixels"])
    except (KeyError, TypeError) as error:
        raise StoreError(f"the manifest of {store.path} is damaged: {error!r}") from error
    try:
        return read_image(Path(manifest["root"]), path, image_id, options)
    except DeepSSIMError:
        raise
    except OSError as error:
        raise ImageError("missing", f"it cannot be read again: {error.strerror}") from error


def _joint(digests: list[str]) -> str:
    return hashlib.sha256("\n".join(digests).encode()).hexdigest()
