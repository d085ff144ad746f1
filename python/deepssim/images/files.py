"""Open files under a root and read their bytes, whatever lies there."""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from deepssim.errors import ImageError

MAX_FILE_BYTES = 2**31
"""The most bytes of a file that is read as a whole (all formats but ``.npy``)."""

_CHUNK_BYTES = 2**22


def is_under(real_path: str, real_root: str) -> bool:
    """Say whether a path without links lies under a folder without links.

    Args:
        real_path: Result of ``os.path.realpath``.
        real_root: Result of ``os.path.realpath``.

    Example:
        >>> is_under("/data/a.png", "/data"), is_under("/database/a.png", "/data")
        (True, False)
    """
    return real_path == real_root or real_path.startswith(real_root.rstrip("/") + "/")


@contextlib.contextmanager
def open_inside(root: Path, path: str) -> Iterator[int]:
    """Open a regular file under a root for reading, and close it at the end.

    Never waits for a pipe and never follows a link out of the root.

    Args:
        root: Folder without links.
        path: Relative POSIX path.

    Yields:
        The file descriptor.

    Raises:
        ImageError: "outside", "missing", "unsupported" (not a regular file) or "unreadable".
    """
    if "\0" in path:
        raise ImageError("missing", "no file has a zero byte in its name")
    try:
        real = os.path.realpath(root / path, strict=True)
        if not is_under(real, str(root)):
            raise ImageError("outside", "the path leads out of the folder; copy the file into it")
        # O_NONBLOCK: opening a pipe without a writer would wait for ever.
        descriptor = os.open(real, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise open_error(error) from error
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise ImageError("unsupported", "is not a regular file")
        yield descriptor
    finally:
        os.close(descriptor)


def open_error(error: OSError) -> ImageError:
    """Turn an error of the operating system into a reason without a path.

    Args:
        error: What opening or reading raised.
    """
    if isinstance(error, FileNotFoundError):
        return ImageError("missing", "there is no such file")
    return ImageError("unreadable", f"cannot be read: {error.strerror or type(error).__name__}")


def read_at(descriptor: int, offset: int, n_bytes: int) -> bytearray:
    """Read exactly so many bytes at an offset.

    Args:
        descriptor: An open regular file.
        offset: In bytes.
        n_bytes: How many bytes.

    Raises:
        ImageError: "truncated": the file ends before.
    """
    buffer = bytearray(n_bytes)
    view = memoryview(buffer)
    done = 0
    while done < n_bytes:
        n_read = os.preadv(descriptor, [view[done:]], offset + done)
        if n_read == 0:
            raise ImageError("truncated", f"ends after {offset + done:,} of {offset + n_bytes:,} bytes")
        done += n_read
    return buffer


def file_size(descriptor: int) -> int:
    """Return the size of an open file in bytes."""
    return os.fstat(descriptor).st_size


def hash_file(descriptor: int) -> str:
    """Return the SHA-256 of an open file in hexadecimal, in constant memory.

    Args:
        descriptor: An open regular file.
    """
    digest = hashlib.sha256()
    buffer = bytearray(_CHUNK_BYTES)
    offset = 0
    while n_read := os.preadv(descriptor, [buffer], offset):
        digest.update(memoryview(buffer)[:n_read])
        offset += n_read
    return digest.hexdigest()


def read_whole(descriptor: int) -> tuple[bytes, str]:
    """Read a file as a whole, once, for its digest and its pixels.

    Args:
        descriptor: An open regular file of at most `MAX_FILE_BYTES`.

    Returns:
        The bytes and their SHA-256 in hexadecimal.
    """
    # One read of the size, then what came after it while reading: the file may grow.
    parts = [bytes(read_at(descriptor, 0, file_size(descriptor)))]
    offset = len(parts[0])
    while more := os.pread(descriptor, _CHUNK_BYTES, offset):
        parts.append(more)
        offset += len(more)
    data = parts[0] if len(parts) == 1 else b"".join(parts)
    return data, hashlib.sha256(data).hexdigest()


def unread_digest(code: str) -> str:
    """Return what stands for the digest of a file that cannot be opened.

    Args:
        code: Why.
    """
    return hashlib.sha256(f"not read: {code}".encode()).hexdigest()
