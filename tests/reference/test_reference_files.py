"""Matrices, indices and embeddings as NumPy writes them, and what hostile files are told."""

from __future__ import annotations

import io
import os
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deepssim.errors import UsageError
from deepssim.reference import (
    MatrixFile,
    identifiers,
    read_embedding,
    read_index,
    read_matrix,
    write_embedding,
    write_index,
    write_matrix,
)


@pytest.fixture
def values():
    return np.random.default_rng(0).standard_normal((7, 5))


@pytest.mark.parametrize("kind", ["<f2", "<f4", "<f8", ">f4"])
@pytest.mark.parametrize("save", ["savez", "savez_compressed", "save"])
@pytest.mark.parametrize("is_fortran", [False, True])
def test_a_matrix_of_any_kind_is_read_as_numpy_reads_it(tmp_path, values, kind, save, is_fortran):
    array = np.asarray(values, kind, order="F" if is_fortran else "C")
    path = tmp_path / ("m.npy" if save == "save" else "m.npz")
    if save == "save":
        np.save(path, array)
    else:
        getattr(np, save)(path, data=array)
    matrix = MatrixFile.open(path)
    assert matrix.shape == (7, 5)
    assert matrix.dtype == np.dtype(kind).newbyteorder("=")
    np.testing.assert_array_equal(read_matrix(path), array)
    np.testing.assert_array_equal(matrix.rows(2, 6), array[2:6])
    rows, columns = np.random.default_rng(1).integers(0, [[7], [5]], (2, 40))
    np.testing.assert_array_equal(matrix.pick(rows, columns), array[rows, columns].astype(np.float64))
    assert len(matrix.pick([], [])) == 0
    for place in ((7, 0), (0, 5), (-1, 0)):
        with pytest.raises(UsageError, match="outside"):
            matrix.pick([place[0]], [place[1]])


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 4), st.booleans(), st.booleans())
def test_bands_of_any_height_make_the_same_file(tmp_path_factory, n, m, height, float16, is_archive):
    folder = tmp_path_factory.mktemp("m")
    values = np.random.default_rng(n * 10 + m).standard_normal((n, m)).astype(np.float32)
    path = folder / ("m.npz" if is_archive else "m.npy")
    write_matrix(path, (n, m), (values[k : k + height] for k in range(0, n, height)), float16=float16)
    wanted = values.astype(np.float16) if float16 else values
    loaded = np.load(path)
    np.testing.assert_array_equal(loaded["data"] if is_archive else loaded, wanted)
    np.testing.assert_array_equal(read_matrix(path), wanted)
    assert [p.name for p in folder.iterdir()] == [path.name]


def test_a_matrix_that_was_not_finished_does_not_appear(tmp_path):
    with pytest.raises(ValueError, match="rows"):
        write_matrix(tmp_path / "m.npz", (2, 2), [np.zeros((1, 2), np.float32)])
    assert list(tmp_path.iterdir()) == []


def test_a_matrix_of_other_images_is_refused(tmp_path, values):
    np.savez(tmp_path / "m.npz", data=values)
    matrix = MatrixFile.open(tmp_path / "m.npz")
    matrix.check(7, 5)
    with pytest.raises(UsageError, match="swapped"):
        matrix.check(5, 7)
    with pytest.raises(UsageError, match="8 real and 5"):
        matrix.check(8, 5)


def test_indices_are_read_as_numpy_reads_them_and_from_our_tables(tmp_path):
    names = ["p1___training", "p2___training", "ünï___x"]
    write_index(tmp_path / "a.npz", names)
    assert np.load(tmp_path / "a.npz")["data"].tolist() == names
    np.savez(tmp_path / "b.npz", data=np.array(names))
    np.savez_compressed(tmp_path / "c.npz", data=np.array([name.encode() for name in names]))
    (tmp_path / "d.csv").write_text("row,id,path\n" + "".join(f"{k},{n},x\n" for k, n in enumerate(names)))
    for name in ("a.npz", "b.npz", "c.npz", "d.csv"):
        assert read_index(tmp_path / name) == tuple(names)


def test_an_embedding_is_read_as_numpy_reads_it(tmp_path):
    row = np.arange(4, dtype=np.float32)
    write_embedding(tmp_path / "a.npz", row)
    np.testing.assert_array_equal(np.load(tmp_path / "a.npz")["arr_0"], row)
    np.savez(tmp_path / "b.npz", row.astype(np.float16))
    np.testing.assert_array_equal(read_embedding(tmp_path / "b.npz"), row)
    for bad in (np.array([1, np.nan]), np.zeros((1, 3)), np.zeros(0), np.array(["a"]), np.arange(3)):
        np.savez(tmp_path / "c.npz", bad)
        with pytest.raises(UsageError, match=r"c\.npz"):
            read_embedding(tmp_path / "c.npz")


class Bomb:
    def __reduce__(self):
        return (os.system, ("touch executed",))


def npy(header: str, data: bytes = b"", version: bytes = b"\x01\x00") -> bytes:
    text = header.encode().ljust(117) + b"\n"
    return b"\x93NUMPY" + version + len(text).to_bytes(2, "little") + text + data


def zipped(member: bytes, names: tuple[str, ...] = ("data", "arr_0"), how: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", how) as archive:
        for name in names:
            archive.writestr(f"{name}.npy", member)
    return buffer.getvalue()


def hostile() -> dict[str, bytes]:
    good = io.BytesIO()
    np.savez(good, data=np.zeros((3, 3), np.float32))
    whole = good.getvalue()
    several = io.BytesIO()
    one = npy("{'descr': '<f4', 'fortran_order': False, 'shape': (1, 1)}", bytes(4))
    with zipfile.ZipFile(several, "w") as archive:
        for name in ("data.npy", "arr_0.npy"):
            archive.writestr(name, one)
            with pytest.warns(UserWarning, match="Duplicate"):
                archive.writestr(name, one)
    return {
        "empty": b"",
        "text": b"not an array",
        "cut": whole[:-30],
        "cut in the middle": whole[: len(whole) // 2],
        "other member": zipped(npy("{'descr': '<f4', 'fortran_order': False, 'shape': (1, 1)}", bytes(4)), ("x",)),
        "two members": several.getvalue(),
        "too long": zipped(npy("{'descr': '<f4', 'fortran_order': False, 'shape': (1000000, 1000000)}", bytes(4))),
        "negative": zipped(npy("{'descr': '<f4', 'fortran_order': False, 'shape': (-1, -1)}", bytes(4))),
        "huge product": zipped(npy(f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({2**40}, {2**40})}}")),
        "no literal": zipped(npy("__import__('os').system('touch executed')")),
        "deep literal": zipped(npy("(" * 90)),
        "no array": zipped(b"hello"),
        "version": zipped(npy("{'descr': '<f4', 'fortran_order': False, 'shape': (1, 1)}", bytes(4), b"\x09\x00")),
        "structured": zipped(npy("{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (1, 1)}", bytes(4))),
        "zero width": zipped(npy(f"{{'descr': '<U0', 'fortran_order': False, 'shape': ({2**40},)}}")),
        "no text": zipped(npy("{'descr': '<U1', 'fortran_order': False, 'shape': (1,)}", b"\xff\xff\xff\x7f")),
        "pickle": zipped(npy("{'descr': '|O', 'fortran_order': False, 'shape': (1,)}", pickle.dumps(Bomb()))),
        "bare pickle": pickle.dumps(Bomb()),
        "damaged deflate": zipped(bytes(200), how=zipfile.ZIP_DEFLATED).replace(b"\x63\x60", b"\xff\xff"),
        "lzma": zipped(npy("{'descr': '<f4', 'fortran_order': False, 'shape': (1, 1)}", bytes(4)),
                       how=zipfile.ZIP_LZMA),
    }  # fmt: skip


@pytest.mark.parametrize("read", [read_matrix, read_index, read_embedding])
def test_hostile_files_are_an_error_of_one_line_and_execute_nothing(tmp_path, monkeypatch, read):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "bad.npz"
    for what, data in hostile().items():
        path.write_bytes(data)
        with pytest.raises(UsageError) as raised:
            read(path)
        assert "bad.npz" in str(raised.value), what
        assert "\n" not in str(raised.value), what
    assert not (tmp_path / "executed").exists()


def test_pickles_are_refused_with_the_way_to_convert_them(tmp_path):
    np.savez(tmp_path / "i.npz", data=np.array(["a", None], object))
    with pytest.raises(UsageError, match="dtype=str"):
        read_index(tmp_path / "i.npz")


def test_what_is_no_file_is_an_error(tmp_path):
    os.mkfifo(tmp_path / "pipe.npz")
    for name in ("pipe.npz", "missing.npz", ".", "a\0b"):
        with pytest.raises(UsageError):
            read_matrix(tmp_path / name)


def test_an_index_of_one_image_twice_is_refused(tmp_path):
    np.savez(tmp_path / "i.npz", data=np.array(["a___b", "c___d", "a___b"]))
    with pytest.raises(UsageError, match="a___b"):
        read_index(tmp_path / "i.npz")
    np.savez(tmp_path / "i.npz", data=np.array([], str))
    with pytest.raises(UsageError, match="no image"):
        read_index(tmp_path / "i.npz")


def test_a_matrix_cut_while_it_is_read_is_an_error(tmp_path):
    write_matrix(tmp_path / "m.npy", (100, 10), [np.zeros((100, 10), np.float32)])
    matrix = MatrixFile.open(tmp_path / "m.npy")
    with (tmp_path / "m.npy").open("r+b") as file:
        file.truncate(500)
    with pytest.raises(UsageError, match="cut"):
        matrix.pick([99], [0])


def test_names_are_folder_and_stem_as_the_reference_takes_them():
    paths = ["p1/training.png", "a/p2/gen-0.png", "scan.dcm", "x.nii.gz", "T1.5.png"]
    ids = ["p1/training.png", "a/p2/gen-0.png", "scan.dcm", "x.nii.gz#12", "T1.5.png"]
    assert identifiers(ids, paths, "data") == [
        "p1___training", "p2___gen-0", "data___scan", "data___x#12", "data___T1.5",
    ]  # fmt: skip


def test_no_name_leads_out_of_its_folder():
    (name,) = identifiers(["s.npz#../../../etc/x\n"], ["s.npz"], "data")
    assert "/" not in name
    assert "\n" not in name
    assert Path("/embeddings", f"{name}.npz").parent == Path("/embeddings")


@pytest.mark.parametrize("path", ["p___1/a.png", "p1/a___b.png", "p1_/a.png", f"p1/{'x' * 250}.png"])
def test_names_that_the_reference_would_misread_are_refused(path):
    with pytest.raises(UsageError, match="rename"):
        identifiers([path, "p9/ok.png"], [path, "p9/ok.png"], "data")


def test_two_images_of_one_name_are_both_named():
    with pytest.raises(UsageError, match=r"a/p1/x\.png.*b/p1/x\.png"):
        identifiers(["a/p1/x.png", "b/p1/x.png"], ["a/p1/x.png", "b/p1/x.png"], "data")
