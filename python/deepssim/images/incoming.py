"""Images that come one after the other: made by a program, or read from a stream of bytes.

The stream is a tar of image files or one ``.npy`` stack after the other. It is read forwards and once, in memory that
does not grow with it but for eight bytes an image that keep ids apart; nothing of it is ever unpacked to disk, and the
name of a member is text that names no file.
"""

from __future__ import annotations

import contextlib
import hashlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from deepssim.errors import ImageError, StreamError, UsageError
from deepssim.images import arrays
from deepssim.images.byte_stream import ByteStream
from deepssim.images.dicom import is_dicom
from deepssim.images.files import MAX_FILE_BYTES
from deepssim.images.formats import format_of_name, may_be_dicom, require_package
from deepssim.images.frames import Budget, Context, Frame, check_pixels, collect, hash_pixels, image_error, skipped
from deepssim.images.stream import decode_file, in_order, kept_bytes, thread_count
from deepssim.images.tar import BLOCK_BYTES, Member, is_tar, members
from deepssim.images.text import escape_path, one_line
from deepssim.images.types import FileEntry, Image, ImageOptions, Skipped

__all__ = ["ByteImageStream", "image_of", "open_stream"]

STACK_NAME = "stream.npy"
"""What images of a stack are named after; nothing in the stream says."""

_NPY_MAGIC = b"\x93NUMPY"
# What is no tar and no .npy, by its first bytes, and what to do about it.
_OTHERS = (
    (b"\x1f\x8b", "is compressed (gzip): put gzip -dc before it"),
    (b"\xfd7zXZ\0", "is compressed (xz): put xz -dc before it"),
    (b"BZh", "is compressed (bzip2): put bzip2 -dc before it"),
    (b"\x28\xb5\x2f\xfd", "is compressed (zstd): put zstd -dc before it"),
    (b"PK\x03\x04", "is a zip archive, which cannot be read from a stream: send a tar"),
    (b"\x89PNG", "is one image file: send a tar of such files"),
    (b"\xff\xd8\xff", "is one image file: send a tar of such files"),
)
_MAX_NAME_BYTES = 4096
# Members that wait to be decoded; what they unpack to is bounded by the reader of images.
_MAX_WAITING_BYTES = 2**28
_NO_FILE = {
    "link": "is a link to another member, which a stream cannot follow; write the tar with --hard-dereference",
    "symlink": "is a symbolic link, which a stream cannot follow; write the tar with --dereference",
    "sparse": "is stored as a sparse file; write the tar without --sparse",
    "device": "is no regular file",
}


def image_of(
    image_id: str, values: NDArray[Any], *, path: str | None = None, options: ImageOptions | None = None
) -> Image | Skipped:
    """Return an image made by a program, checked as one that was read from a file.

    Args:
        image_id: Unique in its stream.
        values: ``(height, width)`` of a real dtype; grey values as they would stand in a file, copied.
        path: The file that it would be; None: the id.
        options: Limits.

    Returns:
        The image, or why it cannot be used (constant, not finite, too large).

    Example:
        >>> image_of("a", np.eye(3, dtype=np.uint8)).pixels.dtype
        dtype('float32')
        >>> image_of("b", np.zeros((3, 3))).code
        'constant'
    """
    name = image_id if path is None else path
    try:
        pixels = check_pixels(values, Context(options or ImageOptions()))
    except (ImageError, MemoryError) as error:
        return skipped(image_id, name, image_error(error))
    return Image(image_id, name, None, pixels, hash_pixels(pixels))


def open_stream(
    file: BinaryIO, *, source: str = "standard input", options: ImageOptions | None = None, threads: int | None = None
) -> ByteImageStream:
    """Look at the first bytes of a stream of images: a tar, or ``.npy`` stacks.

    Args:
        file: Open for reading; waits until its first bytes are there.
        source: What a person calls it.
        options: How images are read; groups are not taken from names.
        threads: That decode; None: one for each usable processor.

    Raises:
        StreamError: It is empty, or of another kind; the message says what to do.
        UsageError: It is a terminal.

    Example:
        >>> import io
        >>> file = io.BytesIO()
        >>> np.save(file, np.arange(24, dtype=np.uint8).reshape(2, 3, 4))
        >>> stream = open_stream(io.BytesIO(file.getvalue()))
        >>> stream.n_expected, [image.id for image in stream.images()]
        (2, ['stream.npy#0', 'stream.npy#1'])
    """
    with contextlib.suppress(OSError, ValueError):
        if file.isatty():
            raise UsageError(f"{source} is a terminal: pipe a tar of images or a .npy stack into it")
    data = ByteStream(file)
    start = data.peek(BLOCK_BYTES)
    if start.startswith(_NPY_MAGIC):
        return ByteImageStream(data, "npy", source, options or ImageOptions(), threads)
    if is_tar(start):
        return ByteImageStream(data, "tar", source, options or ImageOptions(), threads)
    if not start:
        raise StreamError(f"{source} is empty: what should write images to it has ended without one")
    for magic, what in _OTHERS:
        if start.startswith(magic):
            raise StreamError(f"{source} {what}")
    raise StreamError(f"{source} is neither a tar of images nor a .npy stack; it begins with {start[:16]!r}")


@dataclass(slots=True)
class _Job:
    """What a thread makes images of.

    Attributes:
        work: Makes them, or raises what ends the stream.
        n_bytes: Held until that is done.
        held: Releases them.
    """

    work: Callable[[], list[Image | Skipped]]
    n_bytes: int = 0
    held: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)


class ByteImageStream:
    """Images from bytes; made by `open_stream`. An `ImageStream` that is not seekable.

    A name that comes again gets ``@`` and the number of the image in the stream behind it, so that ids are unique.
    """

    def __init__(
        self, data: ByteStream, kind: str, source: str, options: ImageOptions, threads: int | None = None
    ) -> None:
        self._data, self._kind, self._source, self._options = data, kind, source, options
        self._n_threads = thread_count(threads)
        self._is_read = False
        # The header says how many, if it can be read; reading it again says why not.
        self._n_expected = _promised(data) if kind == "npy" else 0

    @property
    def source(self) -> str:
        """What a person calls it."""
        return self._source

    @property
    def n_expected(self) -> int:
        """Images of the first stack; 0 for a tar, which does not say."""
        return self._n_expected

    @property
    def is_seekable(self) -> bool:
        """False: bytes come in order."""
        return False

    def signature(self) -> dict[str, Any]:
        """Return its kind and how it is read; the bytes are not known before they come."""
        options = self._options
        return {
            "kind": self._kind,
            "slices": options.slices,
            "axis": options.axis,
            "max_pixels": options.max_pixels,
        }

    def images(self, first: int = 0) -> Iterator[Image | Skipped]:
        """Yield what comes, in order.

        Raises:
            StreamError: It breaks off or is damaged.
            UsageError: It is not read from its beginning, or for the second time.
        """
        if first or self._is_read:
            raise UsageError("a stream of bytes is read from its beginning, and once")
        self._is_read = True
        return self._images()

    def _images(self) -> Iterator[Image | Skipped]:
        stopped = threading.Event()
        context = Context(self._options, Budget(), stopped.is_set, with_file_groups=False)
        waiting = Budget(_MAX_WAITING_BYTES)

        def jobs() -> Iterator[_Job]:
            for job in self._jobs(context):
                job.held.enter_context(waiting.reserve(job.n_bytes))
                yield job

        def work(job: _Job) -> list[Image | Skipped]:
            with job.held:
                return job.work()

        ids = _Ids()
        n_seen = 0
        for items in in_order(work, jobs(), self._n_threads, stopped, kept_bytes):
            for item in items:
                n_seen += 1
                yield replace(item, id=ids.take(item.id, n_seen))

    def _jobs(self, context: Context) -> Iterator[_Job]:
        """Yield what is to be decoded; an error of the stream comes as the last job, after all that is good."""
        try:
            yield from _tar_jobs(self._data, context) if self._kind == "tar" else _stack_jobs(self._data, context)
        except StreamError as error:
            yield _Job(_raising(error))


def _raising(error: StreamError) -> Callable[[], list[Image | Skipped]]:
    def work() -> list[Image | Skipped]:
        raise error

    return work


def _tar_jobs(data: ByteStream, context: Context) -> Iterator[_Job]:
    for number, member in enumerate(members(data), 1):
        name = _clean_name(member.name) or f"member {number}"
        # As in a folder, where hidden files are not listed; tar on some systems adds such files of its own.
        if member.kind == "folder" or any(part.startswith(".") for part in PurePosixPath(name).parts if part != ".."):
            continue
        if (refusal := _refuse(member, name)) is not None:
            yield _of([skipped(_short(name), _short(name), refusal)])
        elif format_of_name(name) == "npy":
            yield from _array_jobs(data, name, context, member.n_bytes)
        else:
            yield _file_job(data.take(member.n_bytes, f"'{one_line(name, 80)}'"), name, context)


def _of(items: list[Image | Skipped]) -> _Job:
    return _Job(lambda: items)


def _clean_name(name: str) -> str:
    """Return a name as a listing of the unpacked folder would have it: ``./a//b.png`` is ``a/b.png``."""
    return escape_path(str(PurePosixPath(name)) if name.strip("./") else "")


def _short(name: str) -> str:
    return name if len(name) <= _MAX_NAME_BYTES else one_line(name)


def _refuse(member: Member, name: str) -> ImageError | None:
    """Return why a member is not read; None if it is."""
    has_format = format_of_name(name) is not None
    if member.kind in _NO_FILE:
        return ImageError("unsupported" if has_format else "ignored", _NO_FILE[member.kind])
    if len(name.encode()) > _MAX_NAME_BYTES:
        return ImageError("unsupported", f"has a name of {len(name):,} characters; the limit is {_MAX_NAME_BYTES:,}")
    if not has_format and not may_be_dicom(name):
        return ImageError("ignored", "is of another kind than images")
    # Stacks are read in pieces, whatever their size.
    if member.n_bytes > MAX_FILE_BYTES and format_of_name(name) != "npy":
        return ImageError("too_large", f"has {member.n_bytes:,} bytes, the limit is {MAX_FILE_BYTES:,}")
    return None


def _file_job(content: bytes, name: str, context: Context) -> _Job:
    file_format = format_of_name(name) or ("dicom" if is_dicom(content[:132]) else None)
    if file_format is None:
        return _of([skipped(name, name, ImageError("ignored", "is of another kind than images"))])
    require_package(file_format, name)
    entry = FileEntry(name, file_format, None, None)
    return _Job(lambda: decode_file(content, entry, context), len(content))


def _stack_jobs(data: ByteStream, context: Context) -> Iterator[_Job]:
    """Yield the images of stacks that follow each other, numbered through."""
    n_before = 0
    while start := data.peek(len(_NPY_MAGIC)):
        if start != _NPY_MAGIC:
            raise StreamError(f"the stream goes on after its .npy stack with what is none, at byte {data.offset:,}")
        try:
            header = _read_header(data, None)
            context.check_size(header.height, header.width)
            _check_order(header)
        except ImageError as error:
            raise StreamError(f"the .npy stack in the stream {error}") from error
        yield from _frame_jobs(data, STACK_NAME, header, context, n_before=n_before, is_named=True)
        n_before += header.n_frames


def _array_jobs(data: ByteStream, name: str, context: Context, n_bytes: int) -> Iterator[_Job]:
    """Yield the images of a member; its bytes that are not read are passed over by who counts them."""
    try:
        header = _read_header(data, n_bytes)
        context.check_size(header.height, header.width)
        _check_order(header)
        if header.offset + header.n_bytes > n_bytes:
            said = f"has {n_bytes:,} bytes, its header declares {header.offset + header.n_bytes:,}"
            raise ImageError("truncated", said)
    except ImageError as error:
        yield _of([skipped(name, name, error)])
        return
    yield from _frame_jobs(data, name, header, context, n_before=0, is_named=header.is_stack)


def _read_header(data: ByteStream, n_bytes: int | None) -> arrays.Header:
    """Take the header of an array, of which no more than `n_bytes` are there (None: the stream has no other end).

    Raises:
        ImageError: It is no array of images.
        StreamError: The stream breaks off.
    """
    limit = arrays.PREFIX_BYTES if n_bytes is None else min(n_bytes, arrays.PREFIX_BYTES)
    prefix = data.take(limit, "a .npy header")
    length = arrays.header_bytes(prefix)
    if n_bytes is not None and length > n_bytes:
        raise ImageError("truncated", "ends inside the header")
    raw = prefix + data.take(length - len(prefix), "a .npy header")
    return arrays.parse_header(raw)


def _check_order(header: arrays.Header) -> None:
    """Refuse a stack whose images do not come one after the other, if it cannot be held as a whole."""
    if header.is_fortran and header.n_frames > 1 and header.n_bytes > _MAX_WAITING_BYTES:
        raise ImageError(
            "unsupported", "is in Fortran order, where no image comes before the last byte; save it in C order"
        )


def _frame_jobs(
    data: ByteStream, name: str, header: arrays.Header, context: Context, *, n_before: int, is_named: bool
) -> Iterator[_Job]:
    is_whole = header.is_fortran and header.n_frames > 1
    ranges = [(0, header.n_frames)] if is_whole else arrays.plan_ranges(header)
    frame_bytes = header.height * header.width * header.dtype.itemsize
    for start, stop in ranges:
        content = data.take((stop - start) * frame_bytes, f"'{one_line(name, 80)}'")

        def work(content: bytes = content, start: int = start, stop: int = stop) -> list[Image | Skipped]:
            stack = arrays.as_stack(content, header, stop - start)
            frames = (Frame(str(n_before + start + i) if is_named else None, values) for i, values in enumerate(stack))
            return collect(frames, name, name, None, context)

        yield _Job(work, len(content))


def _promised(data: ByteStream) -> int:
    """Return how many images the first header declares, 0 where it is no header of images."""
    try:
        length = arrays.header_bytes(data.peek(arrays.PREFIX_BYTES))
        return arrays.parse_header(data.peek(length)).n_frames
    except ImageError:
        return 0


class _Ids:
    """Keeps ids apart, in eight bytes for each that was taken.

    Two ids with one hash are taken for the same, which costs no more than a longer id.
    """

    _MOST_LOOSE = 4096

    def __init__(self) -> None:
        self._loose: set[int] = set()
        # Sorted, each longer than the next: as many as the number of ids has digits in base two.
        self._sorted: list[NDArray[np.uint64]] = []

    def take(self, wanted: str, number: int) -> str:
        """Return the id for an image, `number` of its stream: what is wanted, or with its number where it is taken."""
        while True:
            key = int.from_bytes(hashlib.blake2b(wanted.encode("utf-8", "surrogateescape"), digest_size=8).digest())
            if key not in self._loose and not self._is_sorted_in(key):
                break
            wanted = f"{wanted}@{number}"
        self._loose.add(key)
        if len(self._loose) == self._MOST_LOOSE:
            self._settle()
        return wanted

    def _is_sorted_in(self, key: int) -> bool:
        wanted = np.uint64(key)
        for keys in self._sorted:
            place = int(np.searchsorted(keys, wanted))
            if place < len(keys) and keys[place] == wanted:
                return True
        return False

    def _settle(self) -> None:
        keys = np.array(sorted(self._loose), np.uint64)
        self._loose.clear()
        while self._sorted and len(self._sorted[-1]) <= len(keys):
            keys = np.sort(np.concatenate([self._sorted.pop(), keys]))
        self._sorted.append(keys)
