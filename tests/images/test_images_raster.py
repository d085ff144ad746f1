"""PNG, JPEG and BMP come out with the pixels that were written, at full depth."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
from PIL import Image as PillowImage

from deepssim.images import Image, Skipped


def luma_oracle(colour: np.ndarray) -> np.ndarray:
    red, green, blue = (colour[..., band].astype(np.float64) for band in range(3))
    return (0.299 * red + 0.587 * green + 0.114 * blue).astype(np.float32)


def only(items) -> Image | Skipped:
    (item,) = items.values()
    return item


def assert_pixels(item, expected) -> None:
    assert isinstance(item, Image), item
    assert item.pixels.dtype == np.float32
    assert item.pixels.flags.c_contiguous
    np.testing.assert_array_equal(item.pixels, np.asarray(expected).astype(np.float32))


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif", "TIFF", "PNG"])
def test_8_bit_grey_is_kept(tmp_path, read, ramp, suffix):
    values = ramp(np.uint8)
    PillowImage.fromarray(values).save(tmp_path / f"a.{suffix}")
    items = read(tmp_path)
    assert list(items) == [f"a.{suffix}"]
    assert_pixels(only(items), values)


def test_16_bit_png_keeps_every_level(tmp_path, read):
    values = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    PillowImage.fromarray(values).save(tmp_path / "a.png")
    assert_pixels(only(read(tmp_path)), values)


def test_few_bits_are_spread_over_8(tmp_path, read, png):
    (tmp_path / "one.png").write_bytes(png((8, 2), 1, 0, [b"\x55", b"\x0f"]))
    (tmp_path / "four.png").write_bytes(png((4, 1), 4, 0, [b"\x01\xf7"]))
    items = read(tmp_path)
    assert_pixels(items["one.png"], [[0, 255] * 4, [0] * 4 + [255] * 4])
    assert_pixels(items["four.png"], [[0, 17, 255, 119]])


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif"])
def test_colour_becomes_luma(tmp_path, read, suffix):
    values = np.random.default_rng(1).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    PillowImage.fromarray(values).save(tmp_path / f"a.{suffix}")
    item = only(read(tmp_path))
    assert_pixels(item, luma_oracle(values))


def test_grey_stored_as_colour_is_exactly_grey(tmp_path, read):
    grey = np.arange(256, dtype=np.uint8).reshape(16, 16)
    PillowImage.fromarray(grey).save(tmp_path / "grey.png")
    PillowImage.fromarray(np.dstack([grey] * 3)).save(tmp_path / "rgb.png")
    PillowImage.fromarray(grey).convert("P").save(tmp_path / "palette.png")
    PillowImage.fromarray(np.dstack([grey, np.full_like(grey, 255)]), "LA").save(tmp_path / "la.png")
    PillowImage.fromarray(np.dstack([grey] * 3 + [np.full_like(grey, 255)])).save(tmp_path / "rgba.png")
    np.save(tmp_path / "a.npy", grey)
    items = read(tmp_path)
    assert len(items) == 6
    for item in items.values():
        assert_pixels(item, grey)
    assert len({item.pixel_hash for item in items.values()}) == 1


def test_cmyk_and_ycbcr_go_through_rgb(tmp_path, read):
    values = np.random.default_rng(2).integers(0, 256, (8, 9, 3), dtype=np.uint8)
    image = PillowImage.fromarray(values)
    image.convert("CMYK").save(tmp_path / "a.tif")
    np.testing.assert_allclose(only(read(tmp_path)).pixels, luma_oracle(values), atol=1)


@pytest.mark.parametrize(
    ("bits", "colour", "row"),
    [(16, 2, b"\x12\x34" * 9), (16, 4, b"\x12\x34" * 6), (16, 6, b"\x12\x34" * 12)],
    ids=["rgb", "grey+alpha", "rgba"],
)
def test_deep_colour_png_is_refused_not_cut_to_8_bits(tmp_path, read, png, bits, colour, row):
    (tmp_path / "a.png").write_bytes(png((3, 1), bits, colour, [row]))
    item = only(read(tmp_path))
    assert item.code == "unsupported"
    assert "16-bit grey" in item.reason


@pytest.mark.parametrize("alpha", [254, 0])
def test_transparent_pixels_are_refused(tmp_path, read, ramp, alpha):
    grey = ramp(np.uint8)
    opacity = np.full_like(grey, 255)
    opacity[1, 1] = alpha
    PillowImage.fromarray(np.dstack([grey, opacity]), "LA").save(tmp_path / "la.png")
    PillowImage.fromarray(np.dstack([grey, grey, grey, opacity])).save(tmp_path / "rgba.png")
    assert {item.code for item in read(tmp_path).values()} == {"unsupported"}


def test_a_colour_that_is_declared_transparent_matters_only_where_it_is_used(tmp_path, read, png):
    rows = [bytes([10, 20, 30]), bytes([40, 50, 60])]
    deep = [struct.pack(">3H", 1000, 2000, 3000)]
    cases = {
        "grey": (png((3, 2), 8, 0, rows, [(b"tRNS", struct.pack(">H", 20))]), False),
        "grey_unused": (png((3, 2), 8, 0, rows, [(b"tRNS", struct.pack(">H", 21))]), True),
        "deep": (png((3, 1), 16, 0, deep, [(b"tRNS", struct.pack(">H", 2000))]), False),
        "deep_unused": (png((3, 1), 16, 0, deep, [(b"tRNS", struct.pack(">H", 2001))]), True),
        "rgb": (png((1, 2), 8, 2, rows, [(b"tRNS", struct.pack(">3H", 10, 20, 30))]), False),
        "rgb_unused": (png((1, 2), 8, 2, rows, [(b"tRNS", struct.pack(">3H", 10, 20, 31))]), True),
        "palette": (
            png((3, 1), 8, 3, [b"\0\1\2"], [(b"PLTE", bytes(range(12))), (b"tRNS", b"\xff\x80")]),
            False,
        ),
        "palette_unused": (
            png((3, 1), 8, 3, [b"\0\1\2"], [(b"PLTE", bytes(range(12))), (b"tRNS", b"\xff\xff\xff\0")]),
            True,
        ),
    }
    for name, (data, _) in cases.items():
        (tmp_path / f"{name}.png").write_bytes(data)
    items = read(tmp_path)
    assert {name: isinstance(items[f"{name}.png"], Image) for name in cases} == {
        name: is_read for name, (_, is_read) in cases.items()
    }


def test_jpeg_grey_values_are_those_of_the_decoder(tmp_path, read):
    smooth = np.add.outer(np.arange(64), 2 * np.arange(48)).astype(np.uint8)
    PillowImage.fromarray(smooth).save(tmp_path / "a.jpg", quality=95)
    item = only(read(tmp_path))
    assert item.pixels.shape == (64, 48)
    np.testing.assert_allclose(item.pixels, smooth, atol=6)


TURNS = {
    1: lambda a: a,
    2: np.fliplr,
    3: lambda a: np.rot90(a, 2),
    4: np.flipud,
    5: np.transpose,
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(a, 2).T,
    8: np.rot90,
}


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_exif_orientation_is_applied(tmp_path, read, ramp, orientation, suffix):
    values = ramp(np.uint16)
    exif = PillowImage.Exif()
    exif[0x0112] = orientation
    PillowImage.fromarray(values).save(tmp_path / f"a.{suffix}", exif=exif)
    assert_pixels(only(read(tmp_path)), TURNS[orientation](values))


def test_jpeg_orientation_is_applied(tmp_path, read):
    smooth = np.add.outer(np.arange(64), 2 * np.arange(48)).astype(np.uint8)
    exif = PillowImage.Exif()
    exif[0x0112] = 6
    PillowImage.fromarray(smooth).save(tmp_path / "a.jpg", exif=exif, quality=95)
    item = only(read(tmp_path))
    np.testing.assert_allclose(item.pixels, np.rot90(smooth, -1), atol=6)


def test_damaged_exif_leaves_the_image_as_stored(tmp_path, read, ramp, png):
    values = ramp(np.uint8)
    rows = [row.tobytes() for row in values]
    (tmp_path / "a.png").write_bytes(png((7, 5), 8, 0, rows, [(b"eXIf", b"II*\0junk")]))
    assert_pixels(only(read(tmp_path)), values)


def test_the_content_decides_about_the_format(tmp_path, read, ramp):
    values = ramp(np.uint8)
    stream = io.BytesIO()
    PillowImage.fromarray(values).save(stream, "BMP")
    (tmp_path / "a.png").write_bytes(stream.getvalue())
    assert_pixels(only(read(tmp_path)), values)


def test_other_formats_of_pillow_are_not_opened(tmp_path, read, ramp):
    PillowImage.fromarray(ramp(np.uint8)).save(tmp_path / "a.gif")
    (tmp_path / "a.gif").rename(tmp_path / "a.png")
    assert only(read(tmp_path)).code == "unreadable"


def test_an_animation_is_refused(tmp_path, read, ramp):
    values = ramp(np.uint8)
    more = [PillowImage.fromarray(255 - values)]
    PillowImage.fromarray(values).save(tmp_path / "a.png", save_all=True, append_images=more)
    item = only(read(tmp_path))
    assert item.code == "unsupported"
    assert "animation" in item.reason


def test_negative_zero_and_zero_have_one_hash(tmp_path, read):
    np.save(tmp_path / "a.npy", np.array([[0.0, 1.0]]))
    np.save(tmp_path / "b.npy", np.array([[-0.0, 1.0]]))
    items = read(tmp_path)
    assert items["a.npy"].pixel_hash == items["b.npy"].pixel_hash
    assert not np.signbit(items["b.npy"].pixels).any()


def test_the_hash_knows_the_shape(tmp_path, read):
    np.save(tmp_path / "a.npy", np.arange(12).reshape(3, 4))
    np.save(tmp_path / "b.npy", np.arange(12).reshape(4, 3))
    items = read(tmp_path)
    assert items["a.npy"].pixel_hash != items["b.npy"].pixel_hash
