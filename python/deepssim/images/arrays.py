"""Images in ``.npy`` and ``.npz`` files: one array ``(height, width)`` or a stack ``(n, height, width)``.

Pickles are never loaded. Large stacks are read by ranges of frames with ``pread``: never as a whole, and
never mapped (a mapped file that is cut short kills the process).
"""

from __future__ import annotations

import hashlib
import io
import math
import struct
import zipfile
import zlib
from collections.abc import Iterator
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from deepssim.errors import ImageError
from deepssim.images.files import file_size, read_at
from deepssim.images.frames import MAX_DECODED_BYTES, Context, Frame, is_number
from deepssim.images.text import one_line

MAX_RANGE_FRAMES = 256
"""The most frames of one task."""

MAX_RANGE_BYTES = 2**25
"""The most bytes of the decoded frames of one task, if that is not less than one frame."""

_MAX_HEADER_BYTES = 2**16
_FORTRAN_CHUNK_BYTES = 2**23
_COLOUR_CHANNELS = (3, 4)
_ENCRYPTED = 0x1
_MAX_MEMBERS = 2**16
_IMAGE_AXES = 2
_STACK_AXES = 3
_MAX_ITEM_BYTES = 8
PREFIX_BYTES = 12
"""The first bytes of a file: magic, version, and a header length of two or four bytes."""

# By format version: bytes before the header, and the field with its length.
_LENGTH_FIELD = {1: (10, "<H"), 2: (12, "<I")}


class Header(NamedTuple):
    """What the header of an array says.

    Args:
        dtype: Of the values as stored.
        n_frames: How many images.
        height: Of each, in pixels.
        width: Of each, in pixels.
        is_fortran: Whether the first axis runs fastest.
        is_stack: Whether the array has three axes.
        offset: Of the first value, in bytes.
    """

    dtype: np.dtype[Any]
    n_frames: int
    height: int
    width: int
    is_fortran: bool
    is_stack: bool
    offset: int

    @property
    def n_bytes(self) -> int:
        """Bytes of all values."""
        return self.n_frames * self.height * self.width * self.dtype.itemsize


def header_bytes(prefix: bytes) -> int:
    """Return the length of a header from its first bytes.

    Args:
        prefix: The first 12 bytes of a file or less.

    Raises:
        ImageError: It is no ``.npy`` file, or its header is cut or absurdly long.
    """
    if prefix[:6] != b"\x93NUMPY":
        code = "empty" if not prefix else "unreadable"
        raise ImageError(code, "has no bytes" if not prefix else "is not a .npy file")
    if len(prefix) < PREFIX_BYTES:
        raise ImageError("truncated", "ends inside the header")
    version = prefix[6]
    if version not in _LENGTH_FIELD:
        raise ImageError("unsupported", f"has .npy format version {version}; save a plain array of numbers")
    before, field = _LENGTH_FIELD[version]
    length = before + int(struct.unpack_from(field, prefix, 8)[0])
    if length > _MAX_HEADER_BYTES:
        raise ImageError("unreadable", f"declares a header of {length:,} bytes")
    return length


def parse_header(data: bytes) -> Header:
    """Parse the header of an array and check that it holds images.

    Args:
        data: The header, from the first byte of the file to its first value.

    Raises:
        ImageError: "unreadable", "unsupported" or "empty".
    """
    stream = io.BytesIO(data)
    try:
        version = np.lib.format.read_magic(stream)
        read = np.lib.format.read_array_header_1_0 if version[0] == 1 else np.lib.format.read_array_header_2_0
        shape, is_fortran, dtype = read(stream, max_header_size=_MAX_HEADER_BYTES)
    except Exception as error:  # the header is parsed as a literal of the language, which can fail in many ways
        raise ImageError("unreadable", "has a damaged .npy header") from error
    if dtype.kind not in "biuf" or dtype.itemsize > _MAX_ITEM_BYTES:
        hint = "pickled objects are never loaded; " if dtype.hasobject else ""
        raise ImageError(
            "unsupported", f"holds {one_line(str(dtype), 60)}; {hint}save it as integers, float32 or float64"
        )
    if any(length < 0 for length in shape):
        raise ImageError("unreadable", "has a damaged .npy header")
    if len(shape) not in {_IMAGE_AXES, _STACK_AXES}:
        raise ImageError(
            "unsupported",
            f"has the shape {one_line(str(shape), 60)}; save it as (height, width) or (n, height, width)",
        )
    is_stack = len(shape) == _STACK_AXES
    if is_stack and shape[2] in _COLOUR_CHANNELS and min(shape[:2]) > max(_COLOUR_CHANNELS):
        raise ImageError(
            "unsupported",
            f"has the shape {shape}, which looks like one colour image; save it as grey, (height, width)",
        )
    if math.prod(shape) == 0:
        raise ImageError("empty", f"has the shape {shape}")
    n_frames = int(shape[0]) if is_stack else 1
    return Header(dtype, n_frames, int(shape[-2]), int(shape[-1]), bool(is_fortran), is_stack, len(data))


def npy_header(descriptor: int, context: Context) -> tuple[Header, bytes]:
    """Read and check the header of an open ``.npy`` file, and that the file is long enough for it.

    Args:
        descriptor: An open regular file.
        context: Limits.

    Returns:
        The header and its bytes.

    Raises:
        ImageError: The file holds no images of an acceptable size.
    """
    size = file_size(descriptor)
    length = header_bytes(bytes(read_at(descriptor, 0, min(size, PREFIX_BYTES))))
    raw = bytes(read_at(descriptor, 0, length))
    header = parse_header(raw)
    context.check_size(header.height, header.width)
    if header.offset + header.n_bytes > size:
        raise ImageError("truncated", f"has {size:,} bytes, its header declares {header.offset + header.n_bytes:,}")
    return header, raw


def plan_ranges(header: Header) -> list[tuple[int, int]]:
    """Cut a stack into ranges of frames.

    Args:
        header: Of a stack.

    Returns:
        Start and end (exclusive) of each range, in order, at most 256 frames and 32 MiB decoded, but at least
        one frame, each.

    Example:
        >>> plan_ranges(Header(np.dtype("u1"), 600, 8, 8, False, True, 128))
        [(0, 256), (256, 512), (512, 600)]
    """
    step = max(1, min(MAX_RANGE_FRAMES, MAX_RANGE_BYTES // (header.height * header.width * 4)))
    return [(start, min(start + step, header.n_frames)) for start in range(0, header.n_frames, step)]


def read_npy(descriptor: int, start: int | None, stop: int | None, context: Context) -> tuple[str, Iterator[Frame]]:
    """Read an array or a range of a stack.

    Args:
        descriptor: An open regular file.
        start: First frame, or None for all.
        stop: End of the frames, or None for all.
        context: Limits and the wanted frame.

    Returns:
        SHA-256 in hexadecimal of the header and the bytes of the range, and the frames.

    Raises:
        ImageError: The file holds no images of an acceptable size, or has changed since it was listed.
    """
    header, raw = npy_header(descriptor, context)
    frames = range(header.n_frames)[slice(start, stop)]
    if context.wanted is not None:
        frames = context.chosen(header.n_frames) if header.is_stack else frames
    if stop is not None and (not header.is_stack or len(frames) != stop - (start or 0)):
        raise ImageError("unreadable", "has changed while it was read; start again")
    digest = hashlib.sha256(raw)
    if header.is_fortran and header.n_frames > 1:
        stack = _fortran_frames(descriptor, header, frames)
        digest.update(np.ascontiguousarray(stack).data)
    else:
        frame_bytes = header.height * header.width * header.dtype.itemsize
        data = read_at(descriptor, header.offset + frames.start * frame_bytes, len(frames) * frame_bytes)
        digest.update(data)
        stack = as_stack(data, header, len(frames))
    return digest.hexdigest(), (
        Frame(str(index) if header.is_stack else None, values) for index, values in zip(frames, stack, strict=True)
    )


def as_stack(data: bytes | bytearray, header: Header, n_frames: int) -> NDArray[Any]:
    """View values of a header's dtype and order as ``(n, height, width)``; no copy."""
    values: NDArray[Any] = np.frombuffer(data, header.dtype)
    if header.is_fortran:
        return values.reshape((n_frames, header.height, header.width), order="F")
    return values.reshape(n_frames, header.height, header.width)


def _fortran_frames(descriptor: int, header: Header, frames: range) -> NDArray[Any]:
    """Gather frames of a stack in Fortran order, where the values of one pixel in all frames lie together.

    The whole file goes through a small buffer for every range, so such files are slow but need no more
    memory.
    """
    n_pixels = header.height * header.width
    row_bytes = header.n_frames * header.dtype.itemsize
    part = slice(frames.start * header.dtype.itemsize, frames.stop * header.dtype.itemsize)
    gathered = np.empty((n_pixels, part.stop - part.start), np.uint8)
    if row_bytes > _FORTRAN_CHUNK_BYTES:
        for pixel in range(n_pixels):
            offset = header.offset + pixel * row_bytes + part.start
            gathered[pixel] = np.frombuffer(read_at(descriptor, offset, part.stop - part.start), np.uint8)
    else:
        step = max(1, _FORTRAN_CHUNK_BYTES // row_bytes)
        for first in range(0, n_pixels, step):
            last = min(first + step, n_pixels)
            data = read_at(descriptor, header.offset + first * row_bytes, (last - first) * row_bytes)
            gathered[first:last] = np.frombuffer(data, np.uint8).reshape(last - first, row_bytes)[:, part]
    values = gathered.view(header.dtype).reshape(header.width, header.height, len(frames))
    return np.ascontiguousarray(values.transpose(2, 1, 0))


def npz_frames(data: bytes, context: Context) -> Iterator[Frame]:
    """Decode the arrays of an ``.npz`` file in the order of their names.

    Args:
        data: The file.
        context: Limits and the wanted frame.

    Yields:
        Frames with the key ``member`` for an image and ``member/3`` for frame 3 of a stack.

    Raises:
        ImageError: The archive as a whole is refused.
    """
    if not data:
        raise ImageError("empty", "has no bytes")
    try:
        archive = zipfile.ZipFile(io.BytesIO(data))
    except zipfile.BadZipFile as error:
        cut = data[:4] == b"PK\x03\x04"
        raise ImageError(
            "truncated" if cut else "unreadable",
            "has no end-of-archive record: the file is cut" if cut else "is not an .npz file",
        ) from error
    with archive:
        members = _checked_members(archive)
        if not members:
            raise ImageError("empty", "holds no arrays")
        largest = max(info.file_size for info in members.values())
        with context.budget.reserve(largest):
            for name in sorted(members):
                wanted = _wanted_frame(name, members, context)
                if wanted is not None:
                    yield from _member_frames(archive, members[name], name, wanted, context)


def _checked_members(archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    infos = archive.infolist()
    if len(infos) > _MAX_MEMBERS:
        raise ImageError("too_large", f"holds {len(infos):,} members, the limit is {_MAX_MEMBERS:,}")
    members: dict[str, zipfile.ZipInfo] = {}
    for info in infos:
        name = info.filename.removesuffix(".npy")
        shown = one_line(name, 60)
        if name in members:
            raise ImageError("unsupported", f"holds two members named '{shown}'")
        if info.flag_bits & _ENCRYPTED:
            raise ImageError("unsupported", f"member '{shown}' is encrypted; save the arrays without a password")
        if info.compress_type not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
            raise ImageError("unsupported", f"member '{shown}' is not stored or deflated; save with numpy.savez")
        members[name] = info
    declared = sum(info.file_size for info in infos)
    if declared > MAX_DECODED_BYTES:
        raise ImageError("too_large", f"unpacks to {declared:,} bytes, the limit is {MAX_DECODED_BYTES:,}; split it")
    # "stack/3" must mean one image only.
    for name in members:
        head, _, tail = name.rpartition("/")
        if head in members and is_number(tail):
            raise ImageError("unsupported", f"member '{one_line(name, 60)}' looks like a frame of another member")
    return members


def _wanted_frame(name: str, members: dict[str, zipfile.ZipInfo], context: Context) -> str | None:
    """Return which frames of a member are wanted: "" for all, a number for one, None for none."""
    if context.wanted is None:
        return ""
    for key in context.wanted:
        if key in members:
            return "" if key == name else None
        head, _, tail = key.rpartition("/")
        if head in members and is_number(tail):
            return tail if head == name else None
    return None


def _member_frames(
    archive: zipfile.ZipFile, info: zipfile.ZipInfo, name: str, wanted: str, context: Context
) -> Iterator[Frame]:
    try:
        if not info.filename.endswith(".npy"):
            raise ImageError("unsupported", "is not a .npy member; save arrays with numpy.savez")
        with archive.open(info) as stream:
            header, values = _read_member(stream, info.file_size, context)
    except ImageError as error:
        yield Frame(name, error)
        return
    except (OSError, EOFError, ValueError, NotImplementedError, zipfile.BadZipFile, zlib.error) as error:
        yield Frame(name, ImageError("unreadable", f"member is damaged: {one_line(str(error), 80)}"))
        return
    stack = as_stack(values, header, header.n_frames)
    for index, frame in enumerate(stack):
        if not wanted or int(wanted) == index:
            yield Frame(f"{name}/{index}" if header.is_stack else name, frame)


def _read_member(stream: IO[bytes], size: int, context: Context) -> tuple[Header, bytearray]:
    prefix = stream.read(PREFIX_BYTES)
    length = header_bytes(prefix)
    raw = prefix + stream.read(length - len(prefix))
    if len(raw) < length:
        raise ImageError("truncated", f"ends after {len(raw):,} of {length:,} bytes of its header")
    header = parse_header(raw)
    context.check_size(header.height, header.width)
    if header.offset + header.n_bytes > size:
        raise ImageError("truncated", f"has {size:,} bytes, its header declares {header.offset + header.n_bytes:,}")
    values = bytearray(header.n_bytes)
    view = memoryview(values)
    done = 0
    while done < len(values):
        n_read = stream.readinto(view[done : done + _FORTRAN_CHUNK_BYTES])  # type: ignore[attr-defined]
        if not n_read:
            raise ImageError("truncated", f"ends after {header.offset + done:,} of {size:,} bytes")
        done += n_read
    # The checksum is compared only at the end of the member.
    while stream.read(_FORTRAN_CHUNK_BYTES):
        pass
    return header, values
