"""Members of a tar stream: POSIX ustar and pax, GNU and old tar, read forwards in constant memory.

Formats: IEEE Std 1003.1-2017, *pax*, "ustar Interchange Format" and "pax Header Block"; for long names and sparse
files the manual of GNU tar, "Basic Tar Format". Nothing is ever unpacked: a name is text, and a link or a device is
no more than a member that is no image.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from deepssim.errors import StreamError
from deepssim.images.byte_stream import ByteStream
from deepssim.images.text import one_line

__all__ = ["Member", "is_tar", "members"]

BLOCK_BYTES = 512
MAX_HEADER_BYTES = 2**20
"""The most bytes of a long name or of a pax header."""

_MAX_EXTRA_HEADERS = 8
# tar fills its last record up with zeros, 10 KiB by default.
_MAX_ZERO_BYTES = 2**26
_ZEROS = bytes(BLOCK_BYTES)
_KINDS = {b"1": "link", b"2": "symlink", b"3": "device", b"4": "device", b"5": "folder", b"6": "device"}
_PAX_RECORD = re.compile(rb"(\d{1,10}) ([^=\n]+)=")
_MAX_SIZE = 2**62


@dataclass(frozen=True, slots=True)
class Member:
    """One member, of which the contents come next in the stream.

    Attributes:
        name: As it stands there; bytes that are not UTF-8 as lone surrogates.
        kind: "file", "link" (to another member), "symlink", "device" (also a pipe), "folder" or "sparse" (a file of
            which only parts are stored).
        n_bytes: Of its contents.
    """

    name: str
    kind: str
    n_bytes: int


def is_tar(block: bytes) -> bool:
    """Say whether a block of 512 bytes begins a tar: a header with a right checksum, or zeros.

    Example:
        >>> is_tar(bytes(512)), is_tar(b"no tar" * 100)
        (True, False)
    """
    return len(block) >= BLOCK_BYTES and (block[:BLOCK_BYTES] == _ZEROS or _has_checksum(block))


def members(stream: ByteStream) -> Iterator[Member]:
    """Yield the members in order; what a caller leaves of the contents is passed over.

    Several tars one after the other are read as one, if each has its end.

    Raises:
        StreamError: The stream is damaged, or ends without the mark that a whole tar ends with.

    Example:
        >>> import io, tarfile
        >>> file = io.BytesIO()
        >>> with tarfile.open(fileobj=file, mode="w") as tar:
        ...     tar.addfile(tarfile.TarInfo("a.png"))
        >>> [member.name for member in members(ByteStream(io.BytesIO(file.getvalue())))]
        ['a.png']
    """
    is_ended = False
    while block := stream.peek(BLOCK_BYTES):
        if block == _ZEROS:
            _skip_zeros(stream)
            is_ended = True
            continue
        member = _read_member(stream)
        is_ended = False
        end = stream.offset + -(-member.n_bytes // BLOCK_BYTES) * BLOCK_BYTES
        yield member
        stream.skip(end - stream.offset, f"'{one_line(member.name, 80)}'")
    if not is_ended:
        raise StreamError(
            f"the stream breaks off after {stream.offset:,} bytes, without the mark that ends a tar: what writes it "
            "ended early"
        )


def _skip_zeros(stream: ByteStream) -> None:
    started = stream.offset
    while stream.peek(BLOCK_BYTES) == _ZEROS:
        stream.skip(BLOCK_BYTES, "the end of the tar")
        if stream.offset - started > _MAX_ZERO_BYTES:
            raise StreamError(f"the tar is followed by more than {_MAX_ZERO_BYTES:,} bytes of zeros")
    rest = stream.peek(BLOCK_BYTES)
    if len(rest) < BLOCK_BYTES and not any(rest):
        stream.skip(len(rest), "the end of the tar")


def _read_member(stream: ByteStream) -> Member:
    """Read a header with those that stand before it to say more of it."""
    long_name: str | None = None
    pax: dict[str, bytes] = {}
    for _ in range(_MAX_EXTRA_HEADERS):
        block = _read_header(stream)
        kind, n_bytes = block[156:157], _number(block[124:136], stream)
        if kind == b"L":
            long_name = _text(_extra(stream, n_bytes).split(b"\0", 1)[0])
        elif kind in {b"x", b"X"}:
            pax = _parse_pax(_extra(stream, n_bytes), stream)
        elif kind in {b"K", b"g"}:
            _extra(stream, n_bytes)  # of a link, or of all members: nothing that matters here
        else:
            name = _text(pax["path"]) if "path" in pax else (long_name or _name(block))
            return _member(stream, block, name, _pax_size(pax, n_bytes, stream), is_sparse=_is_sparse(pax))
    raise _damaged(stream, "too many headers describe one member")


def _member(stream: ByteStream, block: bytes, name: str, n_bytes: int, *, is_sparse: bool) -> Member:
    kind = _KINDS.get(block[156:157], "file")
    if kind != "file":
        return Member(name, kind, 0)
    if block[156:157] == b"S":
        is_extended = block[482]
        while is_extended:
            is_extended = stream.take(BLOCK_BYTES, "a header of the tar")[504]
        is_sparse = True
    # A name that ends in "/" is a folder in tars older than the flag for it.
    if name.endswith("/") and block[156:157] in {b"\0", b"0"}:
        return Member(name, "folder", n_bytes)
    return Member(name, "sparse" if is_sparse else "file", n_bytes)


def _read_header(stream: ByteStream) -> bytes:
    block = stream.peek(BLOCK_BYTES)
    if len(block) == BLOCK_BYTES and not _has_checksum(block):
        raise _damaged(stream, "no tar header stands where one should")
    return stream.take(BLOCK_BYTES, "a header of the tar")


def _has_checksum(block: bytes) -> bool:
    """Compare the sum of the header's bytes, its own field taken as spaces; some old programs summed signed bytes."""
    try:
        wanted = int(block[148:156].strip(b" \0") or b"x", 8)
    except ValueError:
        return False
    counted = block[:148] + b" " * 8 + block[156:BLOCK_BYTES]
    total = sum(counted)
    return wanted in {total, total - 256 * sum(byte > 127 for byte in counted)}


def _number(field: bytes, stream: ByteStream) -> int:
    """Read a size: octal digits, or with the highest bit set a binary number (GNU)."""
    if field[0] & 0x80:
        value = int.from_bytes(field, "big") - (0x80 << 8 * (len(field) - 1))
        is_good = field[0] == 0x80
    else:
        digits = field.strip(b" \0")
        is_good = all(digit in b"01234567" for digit in digits)
        value = int(digits or b"0", 8) if is_good else 0
    if not is_good or value > _MAX_SIZE:
        raise _damaged(stream, "a size is no number")
    return value


def _name(block: bytes) -> str:
    """Join the two fields of a name, the second of which is of POSIX tars only."""
    name, prefix = block[:100].split(b"\0", 1)[0], block[345:500].split(b"\0", 1)[0]
    is_posix = block[257:263] == b"ustar\0"
    return _text(prefix + b"/" + name if prefix and is_posix else name)


def _text(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")


def _extra(stream: ByteStream, n_bytes: int) -> bytes:
    if n_bytes > MAX_HEADER_BYTES:
        raise _damaged(stream, f"a header declares {n_bytes:,} bytes, the limit is {MAX_HEADER_BYTES:,}")
    data = stream.take(n_bytes, "a header of the tar")
    stream.skip(-n_bytes % BLOCK_BYTES, "a header of the tar")
    return data


def _parse_pax(data: bytes, stream: ByteStream) -> dict[str, bytes]:
    """Read records ``LENGTH KEY=VALUE`` and a line feed, where the length is that of the record."""
    found: dict[str, bytes] = {}
    start = 0
    while start < len(data):
        match = _PAX_RECORD.match(data, start)
        end = start + int(match[1]) if match else 0
        if match is None or end <= match.end() or end > len(data) or data[end - 1 : end] != b"\n":
            raise _damaged(stream, "a pax header is no list of records")
        found[match[2].decode("utf-8", "replace")] = data[match.end() : end - 1]
        start = end
    return found


def _pax_size(pax: dict[str, bytes], declared: int, stream: ByteStream) -> int:
    if "size" not in pax:
        return declared
    text = pax["size"]
    if not (text.isdigit() and len(text) < 20 and int(text) <= _MAX_SIZE):
        raise _damaged(stream, "a size is no number")
    return int(text)


def _is_sparse(pax: dict[str, bytes]) -> bool:
    return any(key.startswith("GNU.sparse.") for key in pax)


def _damaged(stream: ByteStream, why: str) -> StreamError:
    return StreamError(f"the stream is damaged at byte {stream.offset:,}: {why}")
