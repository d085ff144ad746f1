"""Read the images of a listing in parallel and in order."""

from __future__ import annotations

import hashlib
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import TypeVar

from deepssim.errors import ImageError, UsageError
from deepssim.images import arrays, dicom, nifti, raster
from deepssim.images.files import MAX_FILE_BYTES, file_size, hash_file, open_inside, read_whole, unread_digest
from deepssim.images.formats import format_of_name, require_package
from deepssim.images.frames import MAX_DECODED_BYTES, Budget, Context, Frame, collect, image_error, skipped
from deepssim.images.types import FileEntry, Image, ImageOptions, Listing, ReadTask, Skipped, TaskResult

_K = TypeVar("_K")
_T = TypeVar("_T")

_DECODERS: dict[str, Callable[[bytes, Context], Iterator[Frame]]] = {
    "raster": raster.raster_frames,
    "npz": arrays.npz_frames,
    "nifti": nifti.nifti_frames,
    "dicom": dicom.dicom_frames,
}
_WINDOW_PER_THREAD = 2


def read_tasks(listing: Listing, *, first_task: int = 0, threads: int | None = None) -> Iterator[TaskResult]:
    """Decode the files of a listing in parallel, and give the results in the order of its tasks.

    At most about two tasks a thread are under way or waiting to be taken, and no new one is begun while the
    images that wait take more than 2 GiB, so memory does not grow with the listing. Results do not depend on
    the number of threads. Closing the iterator stops the threads.

    Args:
        listing: From `list_images`.
        first_task: Where to begin, to go on after a stop.
        threads: How many files are decoded at a time; None means one for each usable processor.

    Returns:
        An iterator over results. A bad image is a `Skipped` in a result, never an exception.

    Raises:
        UsageError: ``first_task`` or ``threads`` is out of range.

    Example:
        >>> import numpy as np, tempfile
        >>> from deepssim.images import list_images
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     np.save(Path(folder, "a.npy"), np.arange(12, dtype=np.uint16).reshape(3, 4))
        ...     results = list(read_tasks(list_images(folder)))
        >>> results[0].items[0].pixels.shape
        (3, 4)
    """
    n_threads = thread_count(threads)
    if not 0 <= first_task <= len(listing.tasks):
        raise UsageError(f"first_task is {first_task}: the listing has {len(listing.tasks):,} tasks")
    stopped = threading.Event()
    context = Context(listing.options, Budget(), stopped.is_set, with_file_groups=listing.with_file_groups)

    def work(index: int) -> TaskResult:
        return _read_task(listing, index, context)

    return in_order(
        work, range(first_task, len(listing.tasks)), n_threads, stopped, lambda result: kept_bytes(result.items)
    )


def listing_digest(listing: Listing, *, threads: int | None = None) -> str:
    """Return one number for everything that decides about the images of a listing.

    It changes when an id, path, group, format or byte of a file changes, and when an option changes that
    matters for these files. Every file is read once, in constant memory.

    Args:
        listing: From `list_images`.
        threads: How many files are read at a time; None means one for each usable processor.

    Returns:
        A SHA-256 in hexadecimal.

    Raises:
        UsageError: ``threads`` is out of range.

    Example:
        >>> import numpy as np, tempfile
        >>> from deepssim.images import list_images
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     np.save(Path(folder, "a.npy"), np.arange(12).reshape(3, 4))
        ...     len(listing_digest(list_images(folder)))
        64
    """

    def work(index: int) -> str:
        return _file_digest(listing.root, listing.files[index].path)

    total = hashlib.sha256()
    formats = {entry.format for entry in listing.files}
    options = listing.options
    facts = [str(options.max_pixels)]
    if "nifti" in formats:
        facts += [options.slices, options.axis]
    if "dicom" in formats:
        facts.append(str(listing.with_file_groups))
    _update(total, facts)
    digests = in_order(work, range(len(listing.files)), thread_count(threads), threading.Event(), len)
    for entry, digest in zip(listing.files, digests, strict=True):
        has_group = "" if entry.group is None else "group"
        _update(total, [entry.base_id, entry.path, entry.format, has_group, entry.group or "", digest])
    return total.hexdigest()


def listing_signature(listing: Listing) -> str:
    """Return a cheap stand-in for `listing_digest`: no file is read, a change of content shows in its times.

    Args:
        listing: From `list_images`.

    Returns:
        A SHA-256 in hexadecimal of options, names, sizes, times and inodes.

    Example:
        >>> import numpy as np, tempfile
        >>> from deepssim.images import list_images
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     np.save(Path(folder, "a.npy"), np.arange(12).reshape(3, 4))
        ...     len(listing_signature(list_images(folder)))
        64
    """
    digest = hashlib.sha256(repr(listing.options).encode("utf-8", "surrogateescape"))
    for entry in listing.files:
        try:
            stat = (listing.root / entry.path).stat()
            signature = (stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino)
        except OSError:
            signature = (-1, -1, -1, -1)
        line = repr((entry.path, entry.id, entry.group, entry.format, signature))
        digest.update(line.encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def read_image(root: Path, path: str, image_id: str, options: ImageOptions | None = None) -> Image:
    """Read one image again by its id.

    Args:
        root: The root of the listing.
        path: The file, as in the listing.
        image_id: The id of the image, as in the listing; the part behind the file's id says which image of
            the file.
        options: As for the listing; the slice comes from the id.

    Returns:
        The image. Its group is what the file itself says, None where only the listing knows.

    Raises:
        ImageError: There is no such image, or it cannot be used.
        MissingDependencyError: A package is not installed.

    Example:
        >>> import numpy as np, tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     np.save(Path(folder, "a.npy"), np.arange(24).reshape(2, 3, 4))
        ...     image = read_image(Path(folder), "a.npy", "a.npy#1")
        >>> float(image.pixels[0, 0])
        12.0
    """
    if path.startswith("/") or ".." in PurePosixPath(path).parts:
        raise ImageError("outside", "the path leads out of the folder")
    # Without a suffix it was listed because of the mark of DICOM.
    entry = FileEntry(path, format_of_name(path) or "dicom", None, None)
    require_package(entry.format, path)
    keys = _frame_keys(path, image_id)
    meant = {f"{path}#{key}" for key in keys}
    if not image_id.startswith(f"{path}#"):
        meant.add(path)
    context = Context(options or ImageOptions(), wanted=keys)
    try:
        with open_inside(Path(os.path.realpath(root)), path) as descriptor:
            _, items = _read_open(descriptor, entry, ReadTask(0, None, None), context)
    except (ImageError, OSError, MemoryError) as error:
        raise image_error(error) from error
    for item in items:
        if isinstance(item, Skipped):
            raise ImageError(item.code, item.reason)
        if item.id in meant:
            return Image(image_id, path, item.group, item.pixels, item.pixel_hash)
    raise ImageError("missing", "there is no such image in the file")


def _frame_keys(path: str, image_id: str) -> tuple[str, ...]:
    """Return what the end of an id can mean as a frame; an id from a manifest may itself hold "#"."""
    if image_id.startswith(f"{path}#"):
        return (image_id[len(path) + 1 :],)
    return tuple(image_id[place + 1 :] for place, char in enumerate(image_id) if char == "#")


def _read_task(listing: Listing, index: int, context: Context) -> TaskResult:
    task = listing.tasks[index]
    entry = listing.files[task.file_index]
    try:
        with open_inside(listing.root, entry.path) as descriptor:
            digest, items = _read_open(descriptor, entry, task, context)
    except (ImageError, OSError, MemoryError) as error:
        failure = image_error(error)
        digest, items = unread_digest(failure.code), [skipped(entry.base_id, entry.path, failure)]
    return TaskResult(index, digest, items)


def _read_open(
    descriptor: int, entry: FileEntry, task: ReadTask, context: Context
) -> tuple[str, list[Image | Skipped]]:
    """Return the digest and the items of one task of an open file."""
    if entry.format == "npy":
        return _read_array(descriptor, entry, task, context)
    size = file_size(descriptor)
    if size > MAX_FILE_BYTES:
        error = ImageError("too_large", f"is a file of {size:,} bytes, the limit is {MAX_FILE_BYTES:,}; split it")
        return hash_file(descriptor), [skipped(entry.base_id, entry.path, error)]
    data, digest = read_whole(descriptor)
    return digest, decode_file(data, entry, context)


def decode_file(data: bytes, entry: FileEntry, context: Context) -> list[Image | Skipped]:
    """Return images of a whole file and what was left out.

    Args:
        data: The file.
        entry: Its names; of any format but ``.npy``.
        context: Limits.
    """
    items = collect(_DECODERS[entry.format](data, context), entry.base_id, entry.path, entry.group, context)
    if entry.format == "nifti" and context.options.slices == "all" and context.wanted is None:
        items = nifti.mark_blank(items)
    return items


def _read_array(
    descriptor: int, entry: FileEntry, task: ReadTask, context: Context
) -> tuple[str, list[Image | Skipped]]:
    try:
        digest, frames = arrays.read_npy(descriptor, task.start, task.stop, context)
    except ImageError as error:
        return hash_file(descriptor), [skipped(entry.base_id, entry.path, error)]
    if task.start is None and context.wanted is None:
        digest = hash_file(descriptor)
    return digest, collect(frames, entry.base_id, entry.path, entry.group, context)


def _file_digest(root: Path, path: str) -> str:
    try:
        with open_inside(root, path) as descriptor:
            return hash_file(descriptor)
    except (ImageError, OSError) as error:
        return unread_digest(image_error(error).code)


def _update(total: hashlib._Hash, texts: list[str]) -> None:
    """Add texts with their lengths, so that no two lists of texts give the same bytes."""
    for text in texts:
        data = text.encode("utf-8", "surrogateescape")
        total.update(len(data).to_bytes(8, "little") + data)


def thread_count(threads: int | None) -> int:
    """Return how many threads are meant; None: one for each usable processor."""
    if threads is None:
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if threads < 1:
        raise UsageError(f"threads is {threads}: it must be at least 1")
    return threads


def kept_bytes(items: Iterable[Image | Skipped]) -> int:
    """Return the bytes of all pixels."""
    return sum(item.pixels.nbytes for item in items if isinstance(item, Image))


def in_order(
    work: Callable[[_K], _T],
    indices: Iterable[_K],
    n_threads: int,
    stopped: threading.Event,
    n_bytes: Callable[[_T], int],
) -> Iterator[_T]:
    """Run ``work`` in threads and yield its results in order, with a bounded number in memory.

    Args:
        work: Done in a thread.
        indices: What each is done with; taken by the caller's thread.
        n_threads: How many.
        stopped: Set when the iterator is closed.
        n_bytes: Of a result; no new work is begun while more than 2 GiB wait.
    """
    pending: deque[Future[_T]] = deque()
    waiting = iter(indices)
    executor = ThreadPoolExecutor(n_threads, thread_name_prefix="deepssim-read")
    try:
        while True:
            while len(pending) < _WINDOW_PER_THREAD * n_threads:
                held = sum(n_bytes(future.result()) for future in pending if future.done() and not future.exception())
                if pending and held > MAX_DECODED_BYTES:
                    break
                try:
                    index = next(waiting)
                except StopIteration:
                    break
                pending.append(executor.submit(work, index))
            if not pending:
                return
            yield pending.popleft().result()
    finally:
        stopped.set()
        executor.shutdown(wait=True, cancel_futures=True)
