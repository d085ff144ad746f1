from __future__ import annotations

import contextlib
import gzip
import io
import os
import pty
import random
import subprocess
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow

from deepssim.errors import DeepSSIMError, StreamError, UsageError
from deepssim.images import Image, Skipped, image_of, list_images, open_stream, read_tasks
from deepssim.images.incoming import _Ids


def pixels(seed: int, shape: tuple[int, ...] = (9, 7), dtype: str = "u1") -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, shape).astype(dtype)


def encoded(array: np.ndarray, kind: str) -> bytes:
    buffer = io.BytesIO()
    if kind == "npy":
        np.save(buffer, array)
    else:
        Pillow.fromarray(array).save(buffer, kind)
    return buffer.getvalue()


def tar_of(contents: dict[str, bytes] | list[tuple[str, bytes]], tar_format: int = tarfile.PAX_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tar_format) as tar:
        for name, content in contents.items() if isinstance(contents, dict) else contents:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def read(data: bytes, **given: int) -> list[Image | Skipped]:
    return list(open_stream(io.BytesIO(data), **given).images())


def read_all_good(data: bytes) -> tuple[list[Image | Skipped], str]:
    """Return what comes before the stream breaks off, and why it does."""
    found: list[Image | Skipped] = []
    try:
        for item in open_stream(io.BytesIO(data)).images():
            found.append(item)
    except StreamError as error:
        return found, str(error)
    return found, ""


def names_and_hashes(items: list[Image | Skipped]) -> list[tuple[str, str]]:
    return [(item.id, item.pixel_hash if isinstance(item, Image) else item.code) for item in items]


FILES = {
    "a/one.png": encoded(pixels(1), "png"),
    "a/deep.png": encoded(pixels(2, dtype="u2") * 200, "png"),
    "b.jpg": encoded(pixels(3, (40, 30)), "jpeg"),
    "c.tif": encoded(pixels(4), "tiff"),
    "d.bmp": encoded(pixels(5), "bmp"),
    "one.npy": encoded(pixels(6, dtype="f4"), "npy"),
    "stack.npy": encoded(pixels(7, (300, 5, 4)), "npy"),
    "turned.npy": encoded(np.asfortranarray(pixels(8, (3, 5, 4))), "npy"),
    "flat.png": encoded(np.full((4, 4), 7, np.uint8), "png"),
    "broken.png": encoded(pixels(9), "png")[:60],
}


def test_a_tar_gives_the_images_and_refusals_that_the_unpacked_folder_gives(tmp_path):
    for name, content in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    expected = [item for result in read_tasks(list_images(tmp_path)) for item in result.items]
    for threads in (1, 3):
        found = read(tar_of(dict(sorted(FILES.items()))), threads=threads)
        assert names_and_hashes(found) == names_and_hashes(expected)


@pytest.mark.parametrize("tar_format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_and_foreign_names_come_through_in_every_format(tar_format):
    names = ["x.png", "é" * 20 + ".png", "d" * 80 + "/" + "f" * 90 + ".png"]
    if tar_format != tarfile.USTAR_FORMAT:
        names.append("/".join("p" * 100 for _ in range(9)) + ".png")
    content = encoded(pixels(1), "png")
    assert [item.id for item in read(tar_of([(name, content) for name in names], tar_format))] == names


def test_the_tar_of_the_system_is_read(tmp_path):
    for name in ("b.png", "a.png", "in/c.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(FILES["a/one.png"])
    os.link(tmp_path / "a.png", tmp_path / "linked.png")
    (tmp_path / "pointing.png").symlink_to("a.png")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / ".hidden.png").write_bytes(FILES["a/one.png"])
    data = subprocess.run(["tar", "-cC", tmp_path, "."], capture_output=True, check=True).stdout
    found = {item.id: item for item in read(data)}
    images = {name for name, item in found.items() if isinstance(item, Image)}
    # Which of the two names of one file is the link depends on the order of the folder.
    assert images | {"a.png", "linked.png"} == {"a.png", "b.png", "in/c.png", "linked.png"}
    assert len(images & {"a.png", "linked.png"}) == 1
    refused = {name: item.code for name, item in found.items() if isinstance(item, Skipped)}
    assert sorted(refused.values()) == ["ignored", "unsupported", "unsupported"]
    assert refused["pipe"] == "ignored"
    assert "--hard-dereference" in "".join(item.reason for item in found.values() if isinstance(item, Skipped))


def test_names_that_lead_elsewhere_or_come_twice_are_ids_and_no_more(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = ["../up.png", "/etc/top.png", "a.png", "./a.png", "a.png@4", "b\n\x1b[2J.png", "a" * 5000 + ".png", ""]
    found = read(tar_of([(name, FILES["a/one.png"]) for name in names]))
    ids = [item.id for item in found]
    assert ids[:6] == ["../up.png", "/etc/top.png", "a.png", "a.png@4", "a.png@4@5", "b\n\x1b[2J.png"]
    assert len(set(ids)) == len(ids)
    assert [item.code for item in found if isinstance(item, Skipped)] == ["ignored", "unsupported", "ignored"]
    assert list(tmp_path.iterdir()) == []


def test_tars_and_stacks_one_after_the_other_are_read_as_one():
    first, second = tar_of({"a.png": FILES["a/one.png"]}), tar_of({"b.png": FILES["a/one.png"]})
    assert [item.id for item in read(first + second)] == ["a.png", "b.png"]
    stacks = encoded(pixels(1, (2, 5, 4)), "npy") + encoded(pixels(2, (1, 6, 6)), "npy")
    found = read(stacks)
    assert [item.id for item in found] == ["stream.npy#0", "stream.npy#1", "stream.npy#2"]
    assert found[2].pixels.shape == (6, 6)


def test_what_breaks_off_anywhere_keeps_what_came_before_and_says_so():
    whole = tar_of(dict(FILES))
    expected = names_and_hashes(read(whole))
    ends = random.Random(0).sample(range(512, len(whole.rstrip(b"\0"))), 60)
    for end in (*ends, 512, 1024, 1536):
        found, why = read_all_good(whole[:end])
        assert names_and_hashes(found) == expected[: len(found)]
        assert "breaks off" in why
    stack = encoded(pixels(1, (600, 5, 6)), "npy")
    for end in (100, 200, len(stack) - 1):
        found, why = read_all_good(stack[:end])
        assert len(found) in {0, 512}
        assert "breaks off" in why


def test_no_bytes_whatever_make_anything_but_an_error_of_ours():
    whole = bytearray(tar_of({name: FILES[name] for name in ("a/one.png", "one.npy", "broken.png", "c.tif")}))
    draw, n_used = random.Random(1), len(whole.rstrip(b"\0"))
    for _ in range(150):
        data = bytearray(whole)
        for _ in range(draw.choice([1, 3, 30])):
            data[draw.randrange(n_used)] = draw.randrange(256)
        with contextlib.suppress(DeepSSIMError):
            read(bytes(data), threads=1)


def header(**fields: bytes) -> bytearray:
    block = bytearray(tarfile.TarInfo("a.png").tobuf(tarfile.USTAR_FORMAT))
    for name, value in fields.items():
        start = {"size": 124, "kind": 156}[name]
        block[start : start + len(value)] = value
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return block


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "empty"),
        (gzip.compress(b"x" * 9999), "gzip -dc"),
        (FILES["a/one.png"], "send a tar"),
        (b"hello", "neither a tar"),
        (header(size=b"\xff" * 12) + bytes(512), "a size is no number"),
        (header(size=b"99999999999"), "a size is no number"),
        (header(size=b"\x80" + b"\0" * 3 + b"\x7f" * 8), "a size is no number"),
        (header(kind=b"x", size=b"77777777777"), "the limit is"),
        (header(kind=b"L", size=b"77777777777"), "the limit is"),
        (header(kind=b"L", size=b"00000000000") * 9, "too many headers"),
        (header(kind=b"x", size=b"00000000003") + b"abc" + bytes(509), "no list of records"),
        (header(size=b"77777777777") + bytes(512), "breaks off"),
        (header(kind=b"S", size=b"00000000000"), "mark that ends a tar"),
        (tar_of({"a.png": FILES["a/one.png"]}) + b"rubbish" * 100, "no tar header"),
        (encoded(pixels(1, (2, 5, 4)), "npy") + b"rubbish", "is none"),
        (encoded(np.array(["text"]), "npy"), "stack in the stream holds"),
    ],
)
def test_what_cannot_be_read_says_why(data, words):
    with pytest.raises(StreamError, match=words):
        read(bytes(data))


def test_a_declared_size_takes_no_memory_and_a_large_file_is_passed_over(monkeypatch):
    import tracemalloc

    from deepssim.images import incoming

    monkeypatch.setattr(incoming, "MAX_FILE_BYTES", 2**20)
    large = bytes(2**21)
    data = tar_of({"large.png": large, "a.png": FILES["a/one.png"]})
    assert [(item.id, isinstance(item, Image)) for item in read(data)] == [("large.png", False), ("a.png", True)]
    tracemalloc.start()
    with pytest.raises(StreamError, match="breaks off"):
        read(bytes(header(size=b"17777777777") + bytes(512)))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**20


def test_a_terminal_is_refused_at_once():
    main, side = pty.openpty()
    with open(side, "rb", buffering=0) as file, pytest.raises(UsageError, match="terminal"):  # noqa: PTH123
        open_stream(file)
    os.close(main)


def test_a_stream_of_bytes_is_read_once_and_from_its_beginning():
    stream = open_stream(io.BytesIO(tar_of({"a.png": FILES["a/one.png"]})))
    with pytest.raises(UsageError, match="beginning"):
        stream.images(3)
    assert len(list(stream.images())) == 1
    with pytest.raises(UsageError, match="once"):
        stream.images()


def test_ids_stay_apart_by_the_thousand():
    ids = _Ids()
    ids._MOST_LOOSE = 64
    assert [ids.take(f"i{n}", n) for n in range(5000)] == [f"i{n}" for n in range(5000)]
    assert ids.take("i17", 5001) == "i17@5001"
    assert len(ids._sorted) <= 8


def test_an_image_of_a_program_is_checked_as_that_of_a_file(tmp_path):
    Path(tmp_path / "a.png").write_bytes(encoded(pixels(1), "png"))
    (expected,) = next(iter(read_tasks(list_images(tmp_path)))).items
    made = image_of("a.png", pixels(1))
    assert isinstance(made, Image)
    assert made.pixel_hash == expected.pixel_hash
    assert image_of("b", np.full((3, 3), np.nan)).code == "not_finite"
