"""Images of a listing or a stream to embeddings, chunk by chunk: reading, preparing and embedding go on together."""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepssim.embed import NORM_TOLERANCE, Encoder
from deepssim.errors import StreamError
from deepssim.images import Image, Listing, Skipped, read_tasks
from deepssim.perturbed import perturb_by_id
from deepssim.search import usable_processors
from deepssim.working import Working, working_image

__all__ = ["EmbeddedChunk", "Record", "embed_images", "embed_listing", "smallest_type"]

# Files whose sizes are looked at, and the mean size from which on all threads read.
_N_SAMPLED = 32
_LARGE_BYTES = 16_384
# Of a stream nothing can be read again: a chunk holds its images until it is known which are kept.
_HELD_BYTES = 2**27
# What makes the images may be slow: no more of its work than this is lost by a kill.
_CHUNK_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Record:
    """What is kept of an image beside its embedding."""

    id: str
    path: str
    group: str | None
    width: int
    height: int
    pixel_hash: str


@dataclass(slots=True)
class EmbeddedChunk:
    """A run of images in listing order, cut at the end of a read task; of a stream each image is a task.

    Attributes:
        first_task: The first read task of the chunk.
        next_task: The task to go on with.
        embeddings: ``(n, dim)`` float32.
        records: One for each row.
        skipped: Images that cannot be used.
        digests: SHA-256 of what each read task read, in order; empty for a stream.
        working: Working image of each row; empty if none were asked for.
        pixels: Pixels of each row of a stream, in the smallest type that holds them; else empty.
    """

    first_task: int
    next_task: int
    embeddings: NDArray[np.float32]
    records: list[Record]
    skipped: list[Skipped]
    digests: list[str] = field(default_factory=list)
    working: list[Working] = field(default_factory=list)
    pixels: list[NDArray[Any]] = field(default_factory=list)


@dataclass(slots=True)
class _Waiting:
    """An image on its way into a chunk."""

    record: Record
    prepared: NDArray[np.float32]
    working: Working | None
    pixels: NDArray[Any] | None = None


@dataclass(frozen=True, slots=True)
class _Embedded:
    """What came of a batch.

    Attributes:
        rows: ``(n, dim)`` embeddings.
        images: The image of each row.
        skipped: Images that have none.
    """

    rows: NDArray[np.float32]
    images: list[_Waiting]
    skipped: list[Skipped]


def _encode_images(encoder: Encoder, images: list[_Waiting], as_gallery: bool) -> _Embedded:
    encode = encoder.encode_gallery if as_gallery else encoder.encode
    embeddings = encode([image.prepared for image in images], threads=1)
    with np.errstate(over="ignore", invalid="ignore"):
        norms = np.linalg.norm(embeddings.astype(np.float64), axis=1)
    good = np.abs(norms - 1.0) <= NORM_TOLERANCE  # False for NaN
    size = f"{encoder.metric.height} x {encoder.metric.width}"
    reason = f"the metric {encoder.metric.name} sees no structure in it (flat at {size} pixels)"
    records = [image.record for image, is_good in zip(images, good, strict=True) if not is_good]
    # The graph's norms are off by some parts in a million; here they are 1 to the last bit of float32.
    rows = np.ascontiguousarray(embeddings[good].astype(np.float64) / norms[good, np.newaxis], np.float32)
    return _Embedded(
        rows,
        [image for image, is_good in zip(images, good, strict=True) if is_good],
        [Skipped(record.id, record.path, "constant", reason) for record in records],
    )


def embed_listing(
    listing: Listing,
    encoder: Encoder,
    *,
    first_task: int = 0,
    chunk_rows: int = 8192,
    with_working: bool = False,
    as_gallery: bool = False,
    perturb_seed: int | None = None,
    threads: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> Iterator[EmbeddedChunk]:
    """Read and embed a listing chunk by chunk, in order, in constant memory.

    Args:
        listing: What to read.
        encoder: The metric.
        first_task: The read task to start at, where a chunk ended before.
        chunk_rows: A chunk ends with the task that reaches so many images.
        with_working: Whether chunks hold working images too.
        as_gallery: Whether these are images to be searched; see `deepssim.gallery`.
        perturb_seed: Show images perturbed, by draws of this seed (`deepssim.perturbed`); None: as they are.
        threads: Threads that read and embed; None: one for each processor that this process may use.
        progress: Called with the number of images done since the last call.
    """
    chunk = EmbeddedChunk(first_task, first_task, np.empty((0, encoder.metric.dim), np.float32), [], [])
    n_threads = threads or usable_processors()
    n_embed = max(1, min(encoder.threads, n_threads // 2))
    with ThreadPoolExecutor(n_embed, thread_name_prefix="deepssim-embed") as pool:
        batches = _Batches(encoder, as_gallery, pool, 2 * n_embed)
        for result in read_tasks(listing, first_task=first_task, threads=_n_readers(listing, n_threads, n_embed)):
            chunk.digests.append(result.digest)
            for item in result.items:
                if isinstance(item, Skipped):
                    chunk.skipped.append(item)
                    continue
                pixels = item.pixels if perturb_seed is None else perturb_by_id(item.pixels, item.id, perturb_seed)
                working = working_image(pixels) if with_working else None
                batches.add(_Waiting(_record(item), encoder.prepare(pixels), working))
            if progress is not None:
                progress(len(result.items))
            if len(chunk.records) + batches.n_images >= chunk_rows or result.task_index + 1 == len(listing.tasks):
                batches.finish(chunk)
                chunk.next_task = result.task_index + 1
                yield chunk
                chunk = EmbeddedChunk(chunk.next_task, chunk.next_task, chunk.embeddings[:0], [], [])


def embed_images(
    images: Iterator[Image | Skipped],
    encoder: Encoder,
    *,
    first: int = 0,
    chunk_rows: int = 8192,
    with_working: bool = False,
    threads: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> Iterator[EmbeddedChunk]:
    """Embed images that come one after the other, chunk by chunk, in order, in constant memory.

    Args:
        images: What comes.
        encoder: The metric.
        first: Number of the first that comes.
        chunk_rows: A chunk ends at so many images, or sooner where they are large or come slowly.
        with_working: Whether chunks hold working images too.
        threads: Threads that embed, and read; None: one for each processor that this process may use.
        progress: Called with the number of images done since the last call.

    Raises:
        StreamError: The stream breaks off; what came before was yielded.
    """
    seen = first
    n_embed = max(1, min(encoder.threads, (threads or usable_processors()) // 2))
    with ThreadPoolExecutor(n_embed, thread_name_prefix="deepssim-embed") as pool:
        batches = _Batches(encoder, False, pool, 2 * n_embed)
        is_open, broken = True, None
        while is_open:
            chunk = EmbeddedChunk(seen, seen, np.empty((0, encoder.metric.dim), np.float32), [], [])
            n_held, end = 0, time.monotonic() + _CHUNK_SECONDS
            while max(batches.n_images, len(chunk.skipped)) < chunk_rows and n_held < _HELD_BYTES:
                if seen > chunk.first_task and time.monotonic() > end:
                    break
                try:
                    item = next(images)
                except StopIteration:
                    is_open = False
                    break
                except StreamError as error:
                    is_open, broken = False, error
                    break
                seen += 1
                if progress is not None:
                    progress(1)
                if isinstance(item, Skipped):
                    chunk.skipped.append(item)
                    continue
                working = working_image(item.pixels) if with_working else None
                pixels = smallest_type(item.pixels)
                n_held += pixels.nbytes
                batches.add(_Waiting(_record(item), encoder.prepare(item.pixels), working, pixels))
            batches.finish(chunk)
            chunk.next_task = seen
            if seen > chunk.first_task:
                yield chunk
        if broken is not None:
            raise broken


def smallest_type(pixels: NDArray[np.float32]) -> NDArray[Any]:
    """Return pixels as 8 or 16 bits where these hold each value exactly; a copy there, else as they are.

    Example:
        >>> smallest_type(np.array([[0, 300]], np.float32)).dtype, smallest_type(np.array([[0, 0.5]], np.float32)).dtype
        (dtype('uint16'), dtype('float32'))
    """
    low, high = float(pixels.min()), float(pixels.max())
    if low < 0 or high > np.iinfo(np.uint16).max:
        return pixels
    small = pixels.astype(np.uint8 if high <= np.iinfo(np.uint8).max else np.uint16)
    return small if np.array_equal(small, pixels) else pixels


def _n_readers(listing: Listing, n_threads: int, n_embed: int) -> int:
    """Return how many threads read.

    Of small files those that do not embed: reading them holds the interpreter's lock for a good part, and more readers
    only wait for it. Of larger files all: decoding them does without the lock, and is more work than embedding. On two
    cores 1,300 instead of 1,210 brain slices of 6 KB a second, and 570 instead of 480 films of 26 KB.
    """
    places = range(0, len(listing.files), max(1, len(listing.files) // _N_SAMPLED))
    sizes = []
    for place in places:
        with contextlib.suppress(OSError):
            sizes.append((listing.root / listing.files[place].path).stat().st_size)
    are_large = bool(sizes) and sum(sizes) >= _LARGE_BYTES * len(sizes)
    return n_threads if are_large else max(1, n_threads - n_embed)


class _Batches:
    """Batches of one chunk, embedded by threads of their own while further images are read."""

    def __init__(self, encoder: Encoder, as_gallery: bool, pool: Executor, most_pending: int) -> None:
        self.encoder, self.as_gallery, self.pool, self.most_pending = encoder, as_gallery, pool, most_pending
        self.n_images = 0
        self._waiting: list[_Waiting] = []
        self._pending: deque[Future[_Embedded]] = deque()
        self._done: list[_Embedded] = []

    def add(self, image: _Waiting) -> None:
        """Add an image; a full batch is embedded."""
        self._waiting.append(image)
        self.n_images += 1
        if len(self._waiting) == self.encoder.batch:
            self._submit()

    def finish(self, chunk: EmbeddedChunk) -> None:
        """Wait for all batches and write what came of them into a chunk; the next batch is of another."""
        if self._waiting:
            self._submit()
        while self._pending:
            self._done.append(self._pending.popleft().result())
        for embedded in self._done:
            chunk.records += [image.record for image in embedded.images]
            chunk.working += [image.working for image in embedded.images if image.working is not None]
            chunk.pixels += [image.pixels for image in embedded.images if image.pixels is not None]
            chunk.skipped += embedded.skipped
        chunk.embeddings = np.concatenate([chunk.embeddings, *(embedded.rows for embedded in self._done)])
        self._done, self.n_images = [], 0

    def _submit(self) -> None:
        # Images that wait take memory.
        while len(self._pending) >= self.most_pending:
            self._done.append(self._pending.popleft().result())
        self._pending.append(self.pool.submit(_encode_images, self.encoder, self._waiting, self.as_gallery))
        self._waiting = []


def _record(image: Image) -> Record:
    height, width = image.pixels.shape
    return Record(image.id, image.path, image.group, width, height, image.pixel_hash)
