"""Makers of image files whose pixels are known, written without the code under test."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deepssim.images import Image, ImageOptions, Skipped, list_images, read_tasks

Reader = Callable[..., dict[str, Image | Skipped]]


@pytest.fixture
def read() -> Reader:
    """List and read a source; the items by id, which must be unique, and the ignored files with them."""

    def read_all(source: Path, **options: Any) -> dict[str, Image | Skipped]:
        listing = list_images(source, ImageOptions(**options))
        items = [item for result in read_tasks(listing, threads=2) for item in result.items]
        items += listing.ignored
        found = {item.id: item for item in items}
        assert len(found) == len(items)
        return found

    return read_all


@pytest.fixture
def ramp() -> Callable[..., np.ndarray]:
    """Make an image of all the range of a dtype, that no flip or turn maps onto itself."""

    def make(dtype: Any, height: int = 5, width: int = 7) -> np.ndarray:
        rng = np.random.default_rng(7)
        dtype = np.dtype(dtype)
        if dtype.kind == "f":
            return rng.normal(0, 100, (height, width)).astype(dtype)
        if dtype.kind == "b":
            return rng.integers(0, 2, (height, width)).astype(bool)
        info = np.iinfo(dtype)
        values = rng.integers(info.min, info.max, (height, width), dtype=dtype, endpoint=True)
        values[0, 0], values[0, 1] = info.min, info.max
        return values

    return make


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


@pytest.fixture
def png() -> Callable[..., bytes]:
    """Write a PNG file chunk by chunk: rows are the packed samples of each row, without a filter byte."""

    def make(
        size: tuple[int, int],
        bits: int,
        colour: int,
        rows: list[bytes],
        extra: list[tuple[bytes, bytes]] = (),
    ) -> bytes:
        width, height = size
        header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0))
        body = chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows)))
        more = b"".join(chunk(name, data) for name, data in extra)
        return b"\x89PNG\r\n\x1a\n" + header + more + body + chunk(b"IEND", b"")

    return make


@pytest.fixture
def tiff() -> Callable[..., bytes]:
    """Write a TIFF 6.0 file: one strip a page, uncompressed or deflated, in either byte order."""
    return make_tiff


def make_tiff(*pages: dict[str, Any], order: str = "<", loop: bool = False) -> bytes:
    out = bytearray((b"II" if order == "<" else b"MM") + struct.pack(order + "HI", 42, 0))
    link, first = 4, 0
    for page in pages:
        values = page["values"]
        samples = values.shape[2] if values.ndim == 3 else 1
        data = values.astype(values.dtype.newbyteorder(order)).tobytes()
        data = zlib.compress(data) if page.get("compression") == 8 else data
        offset = len(out)
        out += data + b"\0" * (len(data) % 2)
        tags = {
            256: ("I", [values.shape[1]]),
            257: ("I", [values.shape[0]]),
            258: ("H", [page.get("bits", values.dtype.itemsize * 8)] * samples),
            259: ("H", [page.get("compression", 1)]),
            262: ("H", [page.get("photometric", 1 if samples == 1 else 2)]),
            273: ("I", [offset]),
            277: ("H", [samples]),
            278: ("I", [values.shape[0]]),
            279: ("I", [len(data)]),
            339: ("H", [{"u": 1, "i": 2, "f": 3}[values.dtype.kind]] * samples),
        } | page.get("tags", {})
        tags = {tag: value for tag, value in tags.items() if value is not None}
        struct.pack_into(order + "I", out, link, len(out))
        first = first or len(out)
        out, link = _directory(out, tags, order)
    if loop:
        struct.pack_into(order + "I", out, link, first)
    return bytes(out)


def _directory(out: bytearray, tags: dict[int, Any], order: str) -> tuple[bytearray, int]:
    place = len(out) + 2 + 12 * len(tags) + 4
    entries, outside = b"", b""
    for tag in sorted(tags):
        kind, values = tags[tag]
        raw = struct.pack(f"{order}{len(values)}{kind}", *values)
        if len(raw) > 4:
            outside += raw
            raw, place = struct.pack(order + "I", place), place + len(raw)
        entries += struct.pack(order + "HHI", tag, {"H": 3, "I": 4}[kind], len(values)) + raw.ljust(4, b"\0")
    out += struct.pack(order + "H", len(tags)) + entries
    return out + b"\0" * 4 + outside, len(out)
