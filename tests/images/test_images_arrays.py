"""Arrays and stacks in .npy and .npz files."""

from __future__ import annotations

import io
import pickle
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deepssim.images import Image, ImageOptions, list_images, read_image, read_tasks

DTYPES = ["?", "u1", "i1", "<u2", ">u2", "<i4", ">i4", "<u8", ">i8", "<f2", "<f4", ">f4", "<f8", ">f8"]


def npy_bytes(header: str, data: bytes = b"", version: bytes = b"\x01\x00") -> bytes:
    text = header.encode() + b" " * (-len(header) - 11 & 15) + b"\n"
    return b"\x93NUMPY" + version + struct.pack("<H", len(text)) + text + data


def declare(shape: str, descr: str = "'|u1'", order: str = "False") -> str:
    return f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}"


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", ["C", "F"])
def test_every_dtype_and_layout_is_exact(tmp_path, read, ramp, dtype, layout):
    values = ramp(np.dtype(dtype).newbyteorder("=")).astype(dtype)
    np.save(tmp_path / "a.npy", np.array(values, order=layout))
    np.savez(tmp_path / "b.npz", m=np.array(values, order=layout))
    items = read(tmp_path)
    assert list(items) == ["a.npy", "b.npz#m"]
    for item in items.values():
        np.testing.assert_array_equal(item.pixels, values.astype(np.float32))
        assert item.pixels.flags.c_contiguous


@settings(max_examples=25, deadline=None)
@given(
    n_frames=st.integers(1, 600),
    height=st.integers(1, 4),
    width=st.integers(5, 9),
    layout=st.sampled_from("CF"),
    dtype=st.sampled_from(["u1", ">u2", "<f8"]),
)
def test_frames_of_a_stack_are_its_images(tmp_path_factory, n_frames, height, width, layout, dtype):
    stack = np.random.default_rng(3).integers(0, 250, (n_frames, height, width)).astype(dtype)
    file = tmp_path_factory.mktemp("stack") / "s.npy"
    np.save(file, np.array(stack, order=layout))
    listing = list_images(file)
    assert listing.n_expected == n_frames
    items = [item for result in read_tasks(listing, threads=2) for item in result.items]
    assert [item.id for item in items] == [f"s.npy#{index}" for index in range(n_frames)]
    for item, frame in zip(items, stack, strict=True):
        assert isinstance(item, Image)
        np.testing.assert_array_equal(item.pixels, frame.astype(np.float32))


def test_ranges_cover_a_stack_in_bounded_pieces(tmp_path):
    shape = (700, 64, 64)
    np.lib.format.open_memmap(tmp_path / "s.npy", "w+", "u1", shape).flush()
    wide = (5, 2048, 2049)
    np.lib.format.open_memmap(tmp_path / "w.npy", "w+", "u1", wide).flush()
    listing = list_images(tmp_path)
    ranges = {0: [], 1: []}
    for task in listing.tasks:
        ranges[task.file_index].append((task.start, task.stop))
    assert ranges[0] == [(0, 256), (256, 512), (512, 700)]
    # One frame takes 16.8 MB as float32, two would pass the 32 MiB.
    assert ranges[1] == [(index, index + 1) for index in range(5)]


def test_a_range_digest_changes_only_with_its_frames(tmp_path, ramp):
    stack = np.random.default_rng(0).integers(0, 255, (600, 6, 7), dtype=np.uint8)
    digests = {}
    for layout in "CF":
        for change in (None, 300):
            if change is not None:
                stack = stack.copy()
                stack[change, 0, 0] ^= 1
            np.save(tmp_path / "s.npy", np.array(stack, order=layout))
            digests[layout, change] = [result.digest for result in read_tasks(list_images(tmp_path))]
        same = [a == b for a, b in zip(digests[layout, None], digests[layout, 300], strict=True)]
        assert same == [True, False, True]


@pytest.mark.parametrize(
    ("array", "code"),
    [
        (np.float64(3), "unsupported"),
        (np.zeros(5), "unsupported"),
        (np.zeros((2, 1, 5, 5)), "unsupported"),
        (np.zeros((5, 5), complex), "unsupported"),
        (np.zeros((5, 5), "S3"), "unsupported"),
        (np.zeros((5, 5), [("a", "u1")]), "unsupported"),
        (np.zeros((5, 5), "M8[s]"), "unsupported"),
        (np.zeros((5, 5), np.longdouble), "unsupported"),
        (np.zeros((64, 64, 3), np.uint8), "unsupported"),
        (np.zeros((0, 5)), "empty"),
        (np.zeros((0, 5, 5)), "empty"),
        (np.zeros((3, 0, 5)), "empty"),
        (np.full((5, 5), 7), "constant"),
        (np.full((1, 1), 7), "constant"),
        (np.array([[1, np.nan]]), "not_finite"),
        (np.array([[1, np.inf]]), "not_finite"),
        (np.array([[1, 1e300]]), "not_finite"),
    ],
)
@pytest.mark.parametrize("name", ["a.npy", "a.npz"])
def test_arrays_that_are_no_images_say_why(tmp_path, read, array, code, name):
    if name == "a.npy":
        np.save(tmp_path / name, array)
    else:
        np.savez_compressed(tmp_path / name, m=array)
    (item,) = read(tmp_path).values()
    assert item.code == code
    assert "\n" not in item.reason


def test_the_number_of_bad_pixels_is_said(tmp_path, read):
    np.save(tmp_path / "a.npy", np.array([[1, np.nan, np.inf], [2, 3, -np.inf]]))
    assert "3 of 6 pixels" in read(tmp_path)["a.npy"].reason


def test_large_integers_are_rounded_to_the_nearest_float32(tmp_path, read):
    values = np.array([[2**24 + 1, 2**53 + 1, 0, 16777219]], np.int64)
    np.save(tmp_path / "a.npy", values)
    np.testing.assert_array_equal(read(tmp_path)["a.npy"].pixels, [[16777216.0, 9007199254740992.0, 0.0, 16777220.0]])


class Trap:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


@pytest.mark.parametrize("name", ["a.npy", "a.npz"])
def test_pickles_are_never_loaded(tmp_path, read, name):
    trap = tmp_path / "sprung"
    array = np.array([[Trap(trap)] * 2] * 2, dtype=object)
    (np.save if name == "a.npy" else np.savez)(tmp_path / name, array)
    raw = pickle.dumps(Trap(trap))
    (tmp_path / "raw.npy").write_bytes(raw)
    codes = {item.code for item in read(tmp_path).values()}
    assert codes == {"unsupported", "unreadable"}
    assert not trap.exists()


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "empty"),
        (b"\x93NUMPY", "truncated"),
        (b"\x93NUMPY\x01\x00\x00\x02{'descr'", "truncated"),
        (b"\x93NUMPY\x02\x00\xff\xff\xff\xff{'de", "unreadable"),
        (b"\x93NUMPY\x07\x00\x10\x00{'descr'   ", "unsupported"),
        (npy_bytes("__import__('os').getcwd()"), "unreadable"),
        (npy_bytes("(" * 5000), "unreadable"),
        (npy_bytes(declare("(3, 3)"), b"\0" * 8), "truncated"),
        (npy_bytes(declare("(-3, 3)"), b"\0" * 9), "unreadable"),
        (npy_bytes(declare("(1000000, 1000000)"), b"\0" * 9), "too_large"),
        (npy_bytes(declare("(4294967296, 4294967296, 1)"), b"\0" * 9), "too_large"),
        (npy_bytes(declare("(100000000000, 4, 5)"), b"\0" * 9), "truncated"),
        (b"\x00\x01\x02" * 100, "unreadable"),
    ],
)
def test_damaged_headers_are_refused(tmp_path, read, data, code):
    (tmp_path / "a.npy").write_bytes(data)
    assert read(tmp_path)["a.npy"].code == code
    with zipfile.ZipFile(tmp_path / "b.npz", "w") as archive:
        archive.writestr("m.npy", data)
    (tmp_path / "a.npy").unlink()
    assert read(tmp_path)["b.npz#m"].code == code


def test_members_and_their_frames_are_images(tmp_path, read, ramp):
    one, stack = ramp("u2"), np.stack([ramp("u1"), ramp("u1")[::-1]])
    np.savez(tmp_path / "a.npz", **{"one": one, "deep/stack": stack})
    items = read(tmp_path)
    assert list(items) == ["a.npz#deep/stack/0", "a.npz#deep/stack/1", "a.npz#one"]
    np.testing.assert_array_equal(items["a.npz#deep/stack/1"].pixels, stack[1])
    np.testing.assert_array_equal(items["a.npz#one"].pixels, one)


def member(values: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, values)
    return stream.getvalue()


def test_an_archive_that_unpacks_to_too_much_is_refused_unread(tmp_path, read):
    with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("m.npy", member(np.arange(12).reshape(3, 4)))
    data = bytearray((tmp_path / "a.npz").read_bytes())
    place = data.index(b"PK\x01\x02")
    data[place + 24 : place + 28] = (2**32 - 2).to_bytes(4, "little")
    (tmp_path / "a.npz").write_bytes(bytes(data))
    item = read(tmp_path)["a.npz"]
    assert item.code == "too_large"
    assert "4,294,967,294 bytes" in item.reason


def test_a_member_cannot_unpack_to_more_than_the_pixel_limit(tmp_path, read):
    with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("m.npy", npy_bytes(declare("(4000, 5000)"), bytes(20_000_000)))
    assert (tmp_path / "a.npz").stat().st_size < 30_000
    assert read(tmp_path, max_pixels=10**6)["a.npz#m"].code == "too_large"


def test_twice_named_encrypted_and_unusual_members_are_refused(tmp_path, read):
    good = member(np.arange(12).reshape(3, 4))
    with zipfile.ZipFile(tmp_path / "twice.npz", "w") as archive:
        archive.writestr("m.npy", good)
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("m.npy", good)
    with zipfile.ZipFile(tmp_path / "lzma.npz", "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("m.npy", good)
    with zipfile.ZipFile(tmp_path / "frame.npz", "w") as archive:
        archive.writestr("m.npy", good)
        archive.writestr("m/0.npy", good)
    with zipfile.ZipFile(tmp_path / "locked.npz", "w") as archive:
        archive.writestr("m.npy", good)
    data = bytearray((tmp_path / "locked.npz").read_bytes())
    data[data.index(b"PK\x01\x02") + 8] |= 1
    (tmp_path / "locked.npz").write_bytes(bytes(data))
    items = read(tmp_path)
    assert {item.code for item in items.values()} == {"unsupported"}
    assert len(items) == 4


def test_a_damaged_member_gives_no_image(tmp_path, read):
    values = np.arange(3000, dtype=np.uint16).reshape(50, 60)
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("bad.npy", member(values))
        archive.writestr("good.npy", member(values))
    data = bytearray((tmp_path / "a.npz").read_bytes())
    data[1000] ^= 1
    (tmp_path / "a.npz").write_bytes(bytes(data))
    items = read(tmp_path)
    assert items["a.npz#bad"].code == "unreadable"
    assert isinstance(items["a.npz#good"], Image)


def test_what_is_no_archive_is_named(tmp_path, read):
    np.savez(tmp_path / "cut.npz", m=np.arange(12).reshape(3, 4))
    (tmp_path / "cut.npz").write_bytes((tmp_path / "cut.npz").read_bytes()[:-40])
    (tmp_path / "junk.npz").write_bytes(b"junk" * 99)
    (tmp_path / "none.npz").write_bytes(b"")
    items = read(tmp_path)
    assert [items[f"{name}.npz"].code for name in ("cut", "junk", "none")] == [
        "truncated",
        "unreadable",
        "empty",
    ]


def test_a_stack_that_shrinks_while_it_is_read_is_noticed(tmp_path):
    np.save(tmp_path / "s.npy", np.random.default_rng(0).normal(size=(600, 4, 5)))
    listing = list_images(tmp_path)
    np.save(tmp_path / "s.npy", np.random.default_rng(0).normal(size=(300, 4, 5)))
    codes = [getattr(result.items[0], "code", "image") for result in read_tasks(listing)]
    assert codes == ["image", "unreadable", "unreadable"]


@pytest.mark.parametrize("layout", ["C", "F"])
def test_one_frame_can_be_read_again(tmp_path, layout):
    stack = np.random.default_rng(0).normal(size=(600, 4, 5))
    np.save(tmp_path / "s.npy", np.array(stack, order=layout))
    image = read_image(tmp_path, "s.npy", "s.npy#417", ImageOptions())
    np.testing.assert_array_equal(image.pixels, stack[417].astype(np.float32))
