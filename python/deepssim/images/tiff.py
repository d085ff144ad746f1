"""The directories of a TIFF file, read before Pillow decodes a page.

Pillow gives silently wrong pixels for some pages that are legal TIFF 6.0. Seen with Pillow 13:

- 16-bit white-is-zero pages come out as stored, 8-bit ones inverted;
- unsigned 32-bit values come out as signed, signed 8-bit ones as unsigned;
- compressed big-endian pages of signed integers or floats have their bytes in the wrong order;
- colour with 16 bits a channel loses its lower 8.

So the tags are read here, pages of the last two kinds are refused, and the others are put right.
"""

from __future__ import annotations

import struct
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from deepssim.errors import ImageError

MAX_PAGES = 10_000
"""The most pages of a file; Pillow's time to find a page grows with the square of their number."""

_BIG_TIFF = 43
_MAX_ENTRIES = 4096
_MAX_VALUES = 16
_FIELD = {1: "B", 3: "H", 4: "I", 16: "Q"}

_SUBFILE, _WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC = 254, 256, 257, 258, 259, 262
_SAMPLES, _SAMPLE_FORMAT = 277, 339

_UNSIGNED, _SIGNED, _FLOAT = 1, 2, 3
_KIND = {_UNSIGNED: "unsigned", _SIGNED: "signed", _FLOAT: "float"}
_UNCOMPRESSED = 1
_WHITE_IS_ZERO = 0
_REDUCED_OR_MASK = 0b101
# Grey pages that Pillow reads: bits and kind of the samples.
_GREY = frozenset(
    {(1, _UNSIGNED), (2, _UNSIGNED), (4, _UNSIGNED), (8, _UNSIGNED), (12, _UNSIGNED), (16, _UNSIGNED)}
    | {(32, _UNSIGNED), (8, _SIGNED), (16, _SIGNED), (32, _SIGNED), (32, _FLOAT)}
)
_BYTE_BITS, _SHORT_BITS, _INT_BITS = 8, 16, 32


class Page(NamedTuple):
    """What the directory of one page says.

    Args:
        is_big_endian: Byte order of the file.
        width: In pixels.
        height: In pixels.
        bits: Bits of the largest sample.
        kind: 1 unsigned, 2 signed, 3 float.
        n_samples: Samples of a pixel.
        compression: Number of the method; 1 is none.
        photometric: 0 white is zero, 1 black is zero, others colour; None if not said.
        is_auxiliary: Whether it is a small copy or a mask of another page.
    """

    is_big_endian: bool
    width: int
    height: int
    bits: int
    kind: int
    n_samples: int
    compression: int
    photometric: int | None
    is_auxiliary: bool


def read_pages(data: bytes) -> list[Page]:
    """Read the directories of all pages.

    Args:
        data: A TIFF or BigTIFF file.

    Returns:
        One entry a page, in the order of the file. A chain that bites its tail ends there, as in Pillow.

    Raises:
        ImageError: "truncated", "unreadable" or "too_large".
    """
    order = "<" if data[:2] == b"II" else ">"
    pages: list[Page] = []
    seen: set[int] = set()
    try:
        is_big = struct.unpack_from(order + "H", data, 2)[0] == _BIG_TIFF
        pointer = "Q" if is_big else "I"
        (offset,) = struct.unpack_from(order + pointer, data, 8 if is_big else 4)
        while offset and offset not in seen:
            if len(pages) == MAX_PAGES:
                raise ImageError("too_large", f"has more than {MAX_PAGES:,} pages; split it")
            seen.add(offset)
            tags, end = _read_directory(data, offset, order, is_big=is_big)
            pages.append(_page(tags, is_big_endian=order == ">"))
            (offset,) = struct.unpack_from(order + pointer, data, end)
    except struct.error as error:
        raise ImageError("truncated", "ends inside the directory of a page") from error
    if not pages:
        raise ImageError("unreadable", "is a TIFF file without pages")
    return pages


def _read_directory(data: bytes, offset: int, order: str, *, is_big: bool) -> tuple[dict[int, tuple[int, ...]], int]:
    """Return the numeric tags of a directory, and where the pointer to the next one stands."""
    counter, entry_bytes, inline = ("Q", 20, 8) if is_big else ("H", 12, 4)
    (n_entries,) = struct.unpack_from(order + counter, data, offset)
    if n_entries > _MAX_ENTRIES:
        raise ImageError("unreadable", f"has a page with {n_entries:,} tags")
    first = offset + struct.calcsize(counter)
    tags: dict[int, tuple[int, ...]] = {}
    for entry in range(first, first + n_entries * entry_bytes, entry_bytes):
        tag, field = struct.unpack_from(order + "HH", data, entry)
        (count,) = struct.unpack_from(order + ("Q" if is_big else "I"), data, entry + 4)
        if field not in _FIELD or not 1 <= count <= _MAX_VALUES:
            continue
        values = f"{order}{count}{_FIELD[field]}"
        place = entry + entry_bytes - inline
        if struct.calcsize(values) > inline:
            (place,) = struct.unpack_from(order + ("Q" if is_big else "I"), data, place)
        if place + struct.calcsize(values) > len(data):
            raise ImageError("truncated", "ends inside the directory of a page")
        tags[tag] = struct.unpack_from(values, data, place)
    return tags, first + n_entries * entry_bytes


def _page(tags: dict[int, tuple[int, ...]], *, is_big_endian: bool) -> Page:
    def first(tag: int, default: int) -> int:
        return tags.get(tag, (default,))[0]

    n_samples = first(_SAMPLES, 1)
    kinds = set(tags.get(_SAMPLE_FORMAT, (_UNSIGNED,)))
    return Page(
        is_big_endian=is_big_endian,
        width=first(_WIDTH, 0),
        height=first(_HEIGHT, 0),
        bits=max(tags.get(_BITS, (1,))),
        kind=kinds.pop() if len(kinds) == 1 else 0,
        n_samples=n_samples,
        compression=first(_COMPRESSION, _UNCOMPRESSED),
        photometric=tags[_PHOTOMETRIC][0] if _PHOTOMETRIC in tags else None,
        is_auxiliary=bool(first(_SUBFILE, 0) & _REDUCED_OR_MASK),
    )


def check_page(page: Page) -> None:
    """Refuse what Pillow cannot read, or reads wrongly and cannot be put right.

    Args:
        page: Its directory.

    Raises:
        ImageError: "unsupported", with what to do; "ignored" for a small copy or a mask of another page.
    """
    if page.is_auxiliary:
        raise ImageError("ignored", "a small copy or a mask of another page")
    if page.photometric is None:
        raise ImageError("unsupported", "does not say whether black or white is zero; save it again as plain TIFF")
    if page.n_samples > 1:
        if page.bits > _BYTE_BITS:
            raise ImageError(
                "unsupported",
                f"is colour with {page.bits} bits a channel; save it as 16-bit grey or 8-bit colour",
            )
        return
    if (page.bits, page.kind) not in _GREY:
        kind = _KIND.get(page.kind, "other")
        raise ImageError(
            "unsupported",
            f"has {page.bits}-bit {kind} samples; save it as 8- or 16-bit integers or 32-bit float",
        )
    is_wide = page.bits > _BYTE_BITS and (page.kind != _UNSIGNED or page.bits == _INT_BITS)
    if page.is_big_endian and is_wide and (page.compression != _UNCOMPRESSED or page.kind == _UNSIGNED):
        raise ImageError(
            "unsupported",
            f"is big-endian {page.bits}-bit {_KIND[page.kind]}, which is not read reliably; save it little-endian",
        )
    if page.photometric == _WHITE_IS_ZERO and not _is_white_known(page):
        raise ImageError("unsupported", "counts white as zero in an unusual depth; save it with black as zero")


def _is_white_known(page: Page) -> bool:
    """Say whether Pillow opens this depth where white is zero."""
    if page.kind == _UNSIGNED:
        return page.bits <= _BYTE_BITS or (page.bits == _SHORT_BITS and not page.is_big_endian)
    return page.kind == _FLOAT


def correct_page(values: NDArray[Any], page: Page) -> NDArray[Any]:
    """Put right what Pillow gives for a grey page.

    White-is-zero is turned round so that bright is large: ``65535 - v`` at 16 bits, ``-v`` for floats, which
    have no largest value. (At 8 bits and less Pillow has done it: ``255 - v``.)

    Args:
        values: ``(height, width)`` as Pillow decoded it.
        page: Its directory, checked by `check_page`.

    Returns:
        ``(height, width)``.
    """
    if page.n_samples > 1:
        return values
    if page.kind == _SIGNED and values.dtype == np.uint8:
        values = values.view(np.int8)
    if page.kind == _UNSIGNED and values.dtype == np.int32:
        values = values.view(np.uint32)
    if page.photometric == _WHITE_IS_ZERO:
        if page.kind == _FLOAT:
            return -values
        if page.bits == _SHORT_BITS:
            return np.iinfo(np.uint16).max - values
    return values
