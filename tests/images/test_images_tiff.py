"""TIFF pages of every depth, where Pillow alone would give other pixels than were written."""

from __future__ import annotations

import numpy as np
import pytest

from deepssim.images import Image, Skipped

MINUS = {"u": lambda a: np.iinfo(a.dtype).max - a, "f": lambda a: -a}
DEPTHS = ["u1", "i1", "u2", "i2", "u4", "i4", "f4"]


def is_refused(dtype: str, order: str, compression: int, photometric: int) -> bool:
    """Which legal pages are refused, as the table of the documentation says."""
    is_wide = dtype in {"i2", "u4", "i4", "f4"}
    if order == ">" and is_wide and (compression == 8 or dtype == "u4"):
        return True
    if photometric == 0:
        return dtype not in {"u1", "u2", "f4"} or (dtype == "u2" and order == ">")
    return False


@pytest.mark.parametrize("photometric", [0, 1])
@pytest.mark.parametrize("compression", [1, 8])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("dtype", DEPTHS)
def test_a_grey_page_is_exact_or_refused(tmp_path, read, ramp, tiff, dtype, order, compression, photometric):
    values = ramp(dtype)
    page = {"values": values, "compression": compression, "photometric": photometric}
    (tmp_path / "a.tif").write_bytes(tiff(page, order=order))
    item = read(tmp_path)["a.tif"]
    if is_refused(dtype, order, compression, photometric):
        assert isinstance(item, Skipped)
        assert item.code == "unsupported"
        assert "save it" in item.reason
        return
    assert isinstance(item, Image), item
    expected = MINUS[values.dtype.kind](values) if photometric == 0 else values
    np.testing.assert_array_equal(item.pixels, expected.astype(np.float32))


@pytest.mark.parametrize("dtype", ["f2", "f8", "u8", "i8"])
@pytest.mark.parametrize("order", ["<", ">"])
def test_other_depths_say_what_to_do(tmp_path, read, ramp, tiff, dtype, order):
    (tmp_path / "a.tif").write_bytes(tiff({"values": ramp(dtype)}, order=order))
    item = read(tmp_path)["a.tif"]
    assert item.code == "unsupported"
    assert "32-bit float" in item.reason


@pytest.mark.parametrize("order", ["<", ">"])
def test_deep_colour_is_refused_not_cut_to_8_bits(tmp_path, read, tiff, order):
    values = np.random.default_rng(0).integers(0, 65536, (4, 5, 3), dtype=np.uint16)
    (tmp_path / "a.tif").write_bytes(tiff({"values": values}, order=order))
    assert read(tmp_path)["a.tif"].code == "unsupported"


def test_a_page_that_does_not_say_what_zero_is_is_refused(tmp_path, read, ramp, tiff):
    (tmp_path / "a.tif").write_bytes(tiff({"values": ramp("u1"), "tags": {262: None}}))
    assert read(tmp_path)["a.tif"].code == "unsupported"


def test_pages_are_images(tmp_path, read, ramp, tiff):
    pages = [ramp("u1"), ramp("u2")[:, :4], ramp("f4")[:3]]
    (tmp_path / "a.tif").write_bytes(tiff(*({"values": page} for page in pages)))
    items = read(tmp_path)
    assert list(items) == ["a.tif#0", "a.tif#1", "a.tif#2"]
    for item, page in zip(items.values(), pages, strict=True):
        np.testing.assert_array_equal(item.pixels, page.astype(np.float32))


def test_one_bad_page_does_not_take_the_others(tmp_path, read, ramp, tiff):
    good = ramp("u1")
    pages = [good, ramp("f8"), np.full((5, 7), 3, np.uint8), good[::-1]]
    (tmp_path / "a.tif").write_bytes(tiff(*({"values": page} for page in pages)))
    items = read(tmp_path)
    assert [getattr(item, "code", "image") for item in items.values()] == [
        "image",
        "unsupported",
        "constant",
        "image",
    ]
    np.testing.assert_array_equal(items["a.tif#3"].pixels, good[::-1])


def test_small_copies_and_masks_are_not_images(tmp_path, read, ramp, tiff):
    small = {"values": ramp("u1")[:2, :3], "tags": {254: ("I", [1])}}
    mask = {"values": ramp("u1"), "tags": {254: ("I", [4])}}
    (tmp_path / "a.tif").write_bytes(tiff({"values": ramp("u1")}, small, mask))
    items = read(tmp_path)
    assert isinstance(items["a.tif#0"], Image)
    assert items["a.tif#1"].code == items["a.tif#2"].code == "ignored"


def test_a_chain_that_bites_its_tail_ends(tmp_path, read, ramp, tiff):
    pages = [{"values": ramp("u1")}, {"values": ramp("u2")}]
    (tmp_path / "a.tif").write_bytes(tiff(*pages, loop=True))
    assert list(read(tmp_path)) == ["a.tif#0", "a.tif#1"]


def test_too_many_pages_are_refused(tmp_path, read, tiff):
    # Each directory has one tag: a width; the chain is what counts.
    entry = (1).to_bytes(2, "little") + bytes.fromhex("000104000100000001000000")
    n_pages = 10_001
    size = len(entry) + 4
    body = b"".join(
        entry + (8 + (index + 1) * size if index + 1 < n_pages else 0).to_bytes(4, "little") for index in range(n_pages)
    )
    (tmp_path / "a.tif").write_bytes(b"II*\0" + (8).to_bytes(4, "little") + body)
    item = read(tmp_path)["a.tif"]
    assert item.code == "too_large"


@pytest.mark.parametrize("keep", [4, 8, 20, 40, 100])
def test_a_cut_file_is_named_as_one(tmp_path, read, ramp, tiff, keep):
    data = tiff({"values": ramp("u1", 20, 20)})
    (tmp_path / "a.tif").write_bytes(data[:keep])
    assert read(tmp_path)["a.tif"].code == "truncated"


def test_pixels_that_are_not_there_are_named(tmp_path, read, ramp, tiff):
    values = ramp("u1", 20, 20)
    data = bytearray(tiff({"values": values}))
    # The strip is said to begin at the end of the file.
    place = data.index((273).to_bytes(2, "little")) + 8
    data[place : place + 4] = len(data).to_bytes(4, "little")
    (tmp_path / "a.tif").write_bytes(bytes(data))
    assert read(tmp_path)["a.tif"].code == "truncated"
