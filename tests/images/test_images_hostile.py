"""Broken and hostile files end as one skipped item with a reason, and take nothing else with them."""

from __future__ import annotations

import io
import os
import struct
import zlib

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image as PillowImage

from deepssim.errors import ImageError
from deepssim.images import SKIP_CODES, Image, ImageOptions, Skipped, list_images, read_image, read_tasks
from deepssim.images import frames as frames_module

SUFFIXES = ["png", "jpg", "tif", "bmp", "npy", "npz", "nii", "nii.gz", "dcm"]


@pytest.fixture(autouse=True)
def medical():
    pytest.importorskip("nibabel")
    pytest.importorskip("pydicom")


def encoded(kind: str, size: int = 32) -> bytes:
    values = np.random.default_rng(4).integers(0, 256, (size, size), dtype=np.uint8)
    stream = io.BytesIO()
    PillowImage.fromarray(values).save(stream, kind)
    return stream.getvalue()


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_zero_bytes_are_empty(tmp_path, read, suffix):
    (tmp_path / f"a.{suffix}").write_bytes(b"")
    (item,) = read(tmp_path).values()
    assert item.code == "empty"


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_random_bytes_are_unreadable(tmp_path, read, suffix):
    (tmp_path / f"a.{suffix}").write_bytes(np.random.default_rng(0).bytes(4000))
    (item,) = read(tmp_path).values()
    assert item.code == "unreadable"


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_files_of_another_kind_are_unreadable(tmp_path, read, suffix):
    (tmp_path / f"a.{suffix}").write_bytes(b"<html>404 not found</html>\n" * 100)
    (item,) = read(tmp_path).values()
    assert item.code == "unreadable"


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "BMP"])
@pytest.mark.parametrize("part", [0.02, 0.1, 0.5, 0.9])
def test_cut_images_are_truncated(tmp_path, read, kind, part):
    data = encoded(kind)
    (tmp_path / "a.png").write_bytes(data[: max(9, int(len(data) * part))])
    assert read(tmp_path)["a.png"].code == "truncated"


def test_a_damaged_png_stream_gives_no_image(tmp_path, read):
    data = bytearray(encoded("PNG"))
    data[data.index(b"IDAT") + 300] ^= 0x55
    (tmp_path / "a.png").write_bytes(bytes(data))
    assert read(tmp_path)["a.png"].code == "unreadable"


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "JPEG"])
def test_a_huge_declared_size_is_refused_before_decoding(tmp_path, read, kind):
    data = bytearray(encoded(kind))
    if kind == "PNG":
        data[16:24] = struct.pack(">II", 60_000, 60_000)
        data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    elif kind == "BMP":
        data[18:26] = struct.pack("<ii", 60_000, 60_000)
    elif kind == "JPEG":
        place = data.index(b"\xff\xc0")
        data[place + 5 : place + 9] = struct.pack(">HH", 60_000, 60_000)
    else:
        for tag in (256, 257):
            place = data.index(struct.pack("<HHI", tag, 4, 1))
            data[place + 8 : place + 12] = struct.pack("<I", 60_000)
    (tmp_path / "a.png").write_bytes(bytes(data))
    item = read(tmp_path)["a.png"]
    assert item.code == "too_large"
    assert "60,000 x 60,000" in item.reason


def test_the_pixel_limit_is_inclusive(tmp_path, read):
    (tmp_path / "a.png").write_bytes(encoded("PNG", 10))
    assert isinstance(read(tmp_path, max_pixels=100)["a.png"], Image)
    assert read(tmp_path, max_pixels=99)["a.png"].code == "too_large"


def test_a_png_of_no_width_is_empty(tmp_path, read, png):
    (tmp_path / "a.png").write_bytes(png((0, 3), 8, 0, [b""] * 3))
    assert read(tmp_path)["a.png"].code == "empty"


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "BMP"])
def test_an_image_of_one_value_is_constant(tmp_path, read, kind):
    PillowImage.new("L", (8, 9), 77).save(tmp_path / "a.png", kind)
    item = read(tmp_path)["a.png"]
    assert (item.code, item.reason) == ("constant", "all pixels have the value 77")


def test_float_pixels_that_are_no_numbers_are_counted(tmp_path, read, tiff):
    values = np.arange(20, dtype=np.float32).reshape(4, 5)
    values[1, 1:3] = np.nan
    (tmp_path / "a.tif").write_bytes(tiff({"values": values}))
    item = read(tmp_path)["a.tif"]
    assert item.code == "not_finite"
    assert item.reason.startswith("2 of 20 pixels")


HOSTILE_NAMES = [
    "a\nb.png",
    "a\x1b[31m.png",
    "\u202egnp.exe.png",
    "=cmd().png",
    "<img src=x onerror=alert(1)>.png",
    "[bold]x.png",
    " .png",
    "'; DROP TABLE images; --.png",
    "a#0.png",
    "%s%n.png",
    "caf\u0065\u0301.png",
    "\u200b.png",
]


def test_hostile_names_survive_as_data(tmp_path, read):
    data = encoded("PNG")
    for name in HOSTILE_NAMES:
        (tmp_path / name).write_bytes(data)
    items = read(tmp_path)
    assert set(items) == set(HOSTILE_NAMES)
    for name, item in items.items():
        assert isinstance(item, Image)
        assert item.id == item.path == name
        assert read_image(tmp_path, name, name, ImageOptions()).pixel_hash == item.pixel_hash


def test_hostile_ids_of_a_manifest_survive_as_data(tmp_path, read):
    (tmp_path / "a.png").write_bytes(encoded("PNG"))
    (tmp_path / "list.csv").write_text('path,id,group\na.png,"x\n\u202e=1",\u2066p\n', encoding="utf-8")
    (item,) = read(tmp_path / "list.csv").values()
    assert (item.id, item.path, item.group) == ("x\n\u202e=1", "a.png", "\u2066p")


def test_a_file_that_goes_after_listing_is_missing(tmp_path):
    for name in ("a.png", "b.png", "c.png"):
        (tmp_path / name).write_bytes(encoded("PNG"))
    listing = list_images(tmp_path)
    (tmp_path / "a.png").unlink()
    (tmp_path / "b.png").unlink()
    os.mkfifo(tmp_path / "b.png")
    codes = [getattr(result.items[0], "code", "image") for result in read_tasks(listing)]
    assert codes == ["missing", "unsupported", "image"]


def test_a_file_that_becomes_a_link_after_listing_is_refused(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.png").write_bytes(encoded("PNG"))
    (tmp_path / "secret.png").write_bytes(encoded("PNG", 16))
    listing = list_images(tmp_path / "in")
    (tmp_path / "in" / "a.png").unlink()
    (tmp_path / "in" / "a.png").symlink_to(tmp_path / "secret.png")
    (result,) = read_tasks(listing)
    assert result.items[0].code == "outside"


@pytest.mark.parametrize("path", ["../secret.png", "/etc/hostname", "in/../../secret.png", "link.png"])
def test_reading_again_stays_under_the_root(tmp_path, path):
    root = tmp_path / "root"
    root.mkdir()
    (tmp_path / "secret.png").write_bytes(encoded("PNG"))
    (root / "link.png").symlink_to(tmp_path / "secret.png")
    with pytest.raises(ImageError) as caught:
        read_image(root, path, path, ImageOptions())
    assert caught.value.code == "outside"


def test_running_out_of_memory_is_a_reason_not_an_end(tmp_path, monkeypatch):
    (tmp_path / "a.png").write_bytes(encoded("PNG"))
    np.save(tmp_path / "b.npy", np.arange(12).reshape(3, 4))

    def fail(*_args):
        raise MemoryError

    monkeypatch.setattr(frames_module, "luma", fail)
    monkeypatch.setattr(frames_module, "hash_pixels", fail)
    codes = [result.items[0].code for result in read_tasks(list_images(tmp_path))]
    assert codes == ["too_large", "too_large"]


def test_images_of_one_file_are_kept_only_up_to_a_limit(tmp_path, read, tiff, monkeypatch):
    monkeypatch.setattr(frames_module, "MAX_DECODED_BYTES", 3 * 35 * 4)
    pages = [{"values": np.arange(35, dtype=np.uint8).reshape(5, 7) + index} for index in range(6)]
    (tmp_path / "a.tif").write_bytes(tiff(*pages))
    items = read(tmp_path)
    assert list(items) == ["a.tif#0", "a.tif#1", "a.tif#2", "a.tif"]
    assert items["a.tif"].code == "too_large"


def sound(suffix: str) -> bytes:
    """A good file of each format."""
    values = np.random.default_rng(1).integers(0, 200, (12, 10), dtype=np.uint8)
    stream = io.BytesIO()
    if suffix == "npy":
        np.save(stream, values)
    elif suffix == "npz":
        np.savez_compressed(stream, m=values)
    elif suffix.startswith("nii"):
        import gzip

        import nibabel

        raw = nibabel.Nifti1Image(np.stack([values] * 3, axis=-1), np.eye(4)).to_bytes()
        return gzip.compress(raw, mtime=0) if suffix.endswith("gz") else raw
    elif suffix == "dcm":
        from pydicom.dataset import Dataset, FileMetaDataset
        from pydicom.uid import ExplicitVRLittleEndian

        made = Dataset()
        made.file_meta = FileMetaDataset()
        made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        made.file_meta.MediaStorageSOPClassUID = made.SOPClassUID = "1.2.840.10008.5.1.4.1.1.4"
        made.file_meta.MediaStorageSOPInstanceUID = made.SOPInstanceUID = "1.2.3"
        made.Rows, made.Columns, made.SamplesPerPixel, made.PixelRepresentation = 12, 10, 1, 0
        made.BitsAllocated, made.BitsStored, made.HighBit = 8, 8, 7
        made.PhotometricInterpretation = "MONOCHROME2"
        made.PixelData = values.tobytes()
        made["PixelData"].VR = "OB"
        made.save_as(stream, enforce_file_format=True)
    else:
        kind = {"png": "PNG", "jpg": "JPEG", "tif": "TIFF", "bmp": "BMP"}[suffix]
        PillowImage.fromarray(values).save(stream, kind)
    return stream.getvalue()


@pytest.mark.filterwarnings("ignore")
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), suffix=st.sampled_from(SUFFIXES))
def test_flipped_cut_and_repeated_bytes_never_raise(tmp_path_factory, data, suffix):
    file = tmp_path_factory.mktemp("fuzz") / f"a.{suffix}"
    raw = bytearray(sound(suffix))
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(raw) - 1))
        raw[place] = data.draw(st.integers(0, 255))
    raw = raw[: data.draw(st.integers(1, len(raw)))] if data.draw(st.booleans()) else raw
    file.write_bytes(bytes(raw))
    (result,) = read_tasks(list_images(file), threads=1)
    assert result.items
    for item in result.items:
        if isinstance(item, Skipped):
            assert item.code in SKIP_CODES
            assert item.reason.isprintable()
            assert 0 < len(item.reason) < 400
            assert str(file.parent) not in item.reason
        else:
            assert np.isfinite(item.pixels).all()
