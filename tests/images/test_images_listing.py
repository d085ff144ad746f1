"""Folders, files and manifests: what is listed, in which order, under which id and of which group."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from deepssim.errors import MissingDependencyError, UsageError
from deepssim.images import COUNTED_CODES, SKIP_CODES, ImageOptions, Skipped, decoder_versions, list_images


def image(path: Path, seed: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, np.random.default_rng(seed).integers(0, 255, (4, 5), dtype=np.uint8))


def refusal(source, **options) -> str:
    with pytest.raises(UsageError) as caught:
        list_images(source, ImageOptions(**options))
    text = str(caught.value)
    assert text.isprintable()
    return text


def paths(listing) -> list[str]:
    return [entry.path for entry in listing.files]


def test_a_folder_is_listed_deep_and_in_byte_order(tmp_path):
    names = ["b.npy", "a/z.npy", "a.npy", "Z.npy", "é.npy", "a/b/c/d.npy", "a-b.npy", "😀.npy", "\uffee.npy"]
    for name in names:
        image(tmp_path / name)
    listing = list_images(tmp_path)
    assert paths(listing) == sorted(names, key=str.encode)
    assert (listing.source, listing.root) == (str(tmp_path), tmp_path.resolve())
    assert [entry.id for entry in listing.files] == [None] * len(names)
    assert [task.file_index for task in listing.tasks] == list(range(len(names)))


def test_hidden_things_are_left_out_in_silence(tmp_path):
    for name in ("a.npy", ".b.npy", ".git/c.npy", "d/.e/f.npy"):
        image(tmp_path / name)
    listing = list_images(tmp_path)
    assert paths(listing) == ["a.npy"]
    assert listing.ignored == ()


def test_other_files_are_listed_as_ignored(tmp_path):
    image(tmp_path / "a.npy")
    for name in ("notes.txt", "a.nii.gz.bak", "x.gz", "README", "sub/y.CSV"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x" * 300)
    listing = list_images(tmp_path)
    assert [item.path for item in listing.ignored] == [
        "README",
        "a.nii.gz.bak",
        "notes.txt",
        "sub/y.CSV",
        "x.gz",
    ]
    assert {item.code for item in listing.ignored} == {"ignored"}
    assert "ignored" not in COUNTED_CODES


def test_suffixes_count_in_any_case(tmp_path):
    pytest.importorskip("nibabel")
    pytest.importorskip("pydicom")
    expected = {
        "a.PNG": "raster",
        "a.jPeG": "raster",
        "a.jpg": "raster",
        "a.Tif": "raster",
        "a.tiff": "raster",
        "a.BMP": "raster",
        "a.NPY": "npy",
        "a.Npz": "npz",
        "a.NII": "nifti",
        "a.Nii.Gz": "nifti",
        "a.DCM": "dicom",
        "a.dicom": "dicom",
        "a.IMA": "dicom",
    }
    for name in expected:
        (tmp_path / name).write_bytes(b"x")
    assert {entry.path: entry.format for entry in list_images(tmp_path).files} == expected


def test_one_file_is_a_source(tmp_path):
    image(tmp_path / "sub" / "a.npy")
    listing = list_images(str(tmp_path / "sub" / "a.npy"))
    assert paths(listing) == ["a.npy"]
    assert listing.root == (tmp_path / "sub").resolve()


def test_a_link_to_a_file_means_the_file(tmp_path):
    image(tmp_path / "store" / "a.npy")
    (tmp_path / "link.npy").symlink_to(tmp_path / "store" / "a.npy")
    listing = list_images(tmp_path / "link.npy")
    assert (listing.root, paths(listing)) == ((tmp_path / "store").resolve(), ["a.npy"])


def test_a_source_without_images_says_what_is_there(tmp_path):
    assert "it has no files" in refusal(tmp_path)
    for name in ("a.csv", "b.csv", "c.txt"):
        (tmp_path / name).write_text("x")
    text = refusal(tmp_path)
    assert "3 files of other kinds (.csv, .txt)" in text
    assert "NIfTI" in text
    assert "1 file of other kinds (.txt)" in refusal(tmp_path / "c.txt")
    assert "No such file" in refusal(tmp_path / "none")
    refusal("")
    refusal("a\0b")


def test_a_hostile_source_name_stays_one_line(tmp_path):
    folder = tmp_path / "a\n\x1b[31m\u202e"
    folder.mkdir()
    assert "\\n\\x1b[31m\\u202e" in refusal(folder)


def test_links_out_of_the_folder_are_refused(tmp_path):
    image(tmp_path / "out" / "x.npy")
    image(tmp_path / "in" / "a.npy")
    (tmp_path / "in" / "file.npy").symlink_to(tmp_path / "out" / "x.npy")
    (tmp_path / "in" / "folder").symlink_to(tmp_path / "out")
    # A name that begins like the root is not under it.
    image(tmp_path / "in-side" / "y.npy")
    (tmp_path / "in" / "near.npy").symlink_to(tmp_path / "in-side" / "y.npy")
    (tmp_path / "in" / "dead.npy").symlink_to(tmp_path / "nowhere")
    listing = list_images(tmp_path / "in")
    assert paths(listing) == ["a.npy"]
    assert {item.path: item.code for item in listing.ignored} == {
        "dead.npy": "missing",
        "file.npy": "outside",
        "folder": "outside",
        "near.npy": "outside",
    }
    assert "outside" in COUNTED_CODES


def test_links_inside_the_folder_do_not_list_a_folder_twice(tmp_path):
    image(tmp_path / "a" / "x.npy")
    image(tmp_path / "b" / "y.npy")
    (tmp_path / "a" / "loop").symlink_to(tmp_path)
    (tmp_path / "a" / "to_b").symlink_to(tmp_path / "b")
    (tmp_path / "b" / "to_a").symlink_to(tmp_path / "a")
    (tmp_path / "self").symlink_to("self")
    image(tmp_path / ".hidden" / "z.npy")
    (tmp_path / "shown").symlink_to(".hidden")
    (tmp_path / "also_shown").symlink_to(".hidden")
    listing = list_images(tmp_path)
    assert paths(listing) == ["a/x.npy", "also_shown/z.npy", "b/y.npy"]
    assert {item.path: item.code for item in listing.ignored} == {
        "a/loop": "ignored",
        "a/to_b": "ignored",
        "b/to_a": "ignored",
        "shown": "ignored",
        "self": "unreadable",
    }


def test_pipes_are_never_opened(tmp_path):
    image(tmp_path / "a.npy")
    os.mkfifo(tmp_path / "pipe.npy")
    os.mkfifo(tmp_path / "pipe")
    listing = list_images(tmp_path)
    assert paths(listing) == ["a.npy"]
    assert {item.path: item.code for item in listing.ignored} == {
        "pipe": "ignored",
        "pipe.npy": "unsupported",
    }
    assert "neither a folder nor a regular file" in refusal(tmp_path / "pipe.npy")


def test_names_that_are_not_utf8_are_skipped_with_an_escaped_id(tmp_path):
    image(tmp_path / "a.npy")
    try:
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff\xfe.npy")).write_bytes(b"x")
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    listing = list_images(tmp_path)
    assert paths(listing) == ["a.npy"]
    assert listing.ignored == (
        Skipped("\\xff\\xfe.npy", "\\xff\\xfe.npy", "unsupported", "has a name that is not UTF-8; rename it"),
    )


def test_a_file_cannot_have_the_id_of_an_image_inside_another(tmp_path):
    image(tmp_path / "a.npz")
    (tmp_path / "a.npz.npy").rename(tmp_path / "a.npz")
    image(tmp_path / "a.npz#m.npy")
    listing = list_images(tmp_path)
    assert paths(listing) == ["a.npz"]
    assert [(item.id, item.code) for item in listing.ignored] == [("a.npz#m.npy", "unsupported")]


@pytest.mark.parametrize("name", ["nibabel", "pydicom"])
def test_a_missing_package_is_named_when_it_is_needed(tmp_path, monkeypatch, name):
    image(tmp_path / "a.npy")
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda module: None if module == name else find(module))
    list_images(tmp_path)
    (tmp_path / ("b.nii.gz" if name == "nibabel" else "b.dcm")).write_bytes(b"x")
    with pytest.raises(MissingDependencyError, match=r"pip install (nibabel|pydicom)"):
        list_images(tmp_path)


# Manifests


@pytest.fixture(params=["csv", "parquet"])
def manifest(request, tmp_path):
    """Write a table of columns as a manifest beside some images."""
    for name in ("a.npy", "b.npy", "sub/c.npy"):
        image(tmp_path / name)

    def write(**columns) -> Path:
        file = tmp_path / f"list.{request.param}"
        if request.param == "csv":
            import csv

            with file.open("w", newline="", encoding="utf-8") as stream:
                writer = csv.writer(stream)
                writer.writerow(columns)
                writer.writerows(zip(*(["" if v is None else v for v in c] for c in columns.values()), strict=True))
        else:
            pyarrow = pytest.importorskip("pyarrow")
            from pyarrow import parquet

            parquet.write_table(pyarrow.table(columns), file)
        return file

    return write


def test_a_manifest_gives_ids_and_groups_sorted_by_id(manifest):
    file = manifest(
        path=["sub/c.npy", "./a.npy", "sub/../b.npy"],
        id=["2", "z", None],
        group=["p1", None, "p2"],
        age=[1, 2, 3],
    )
    listing = list_images(file)
    assert [(entry.base_id, entry.path, entry.group) for entry in listing.files] == [
        ("2", "sub/c.npy", "p1"),
        ("b.npy", "b.npy", "p2"),
        ("z", "a.npy", None),
    ]


@pytest.mark.parametrize(
    ("group_by", "groups"),
    [("auto", ["p", None]), ("none", [None, None]), ("regex:[a-z]", ["a", "b"])],
)
def test_an_option_wins_over_the_column_of_a_manifest(manifest, group_by, groups):
    file = manifest(path=["a.npy", "b.npy"], group=["p", ""])
    listing = list_images(file, ImageOptions(group_by=group_by))
    assert [entry.group for entry in listing.files] == groups


def test_what_a_manifest_names_wrongly_is_skipped(manifest, tmp_path):
    (tmp_path / "notes.txt").write_text("x")
    outside = tmp_path.parent / f"{tmp_path.name}-outside.npy"
    image(outside)
    (tmp_path / "link.npy").symlink_to(outside)
    listing = list_images(
        manifest(path=["a.npy", "none.npy", "sub", "notes.txt", f"../{outside.name}", str(outside), "link.npy"])
    )
    assert paths(listing) == ["a.npy"]
    assert {item.path: item.code for item in listing.ignored} == {
        "none.npy": "missing",
        "sub": "unsupported",
        "notes.txt": "unsupported",
        f"../{outside.name}": "outside",
        str(outside): "outside",
        "link.npy": "outside",
    }


def test_absolute_paths_under_the_folder_are_taken(manifest, tmp_path):
    assert paths(list_images(manifest(path=[str(tmp_path.resolve() / "sub" / "c.npy")]))) == ["sub/c.npy"]


def test_manifests_that_cannot_be_used_are_refused(manifest):
    assert "no column 'path'" in refusal(manifest(file=["a.npy"]))
    assert "no rows" in refusal(manifest(path=[]))
    assert "without a path; the first is row 2" in refusal(manifest(path=["a.npy", ""], id=["1", "2"]))
    assert "2 missing" in refusal(manifest(path=["x.npy", "y.npy"])).replace("refused or ", "")
    assert "'#'" in refusal(manifest(path=["a.npy", "b.npy"], id=["s", "s#1"]))


def test_repeated_ids_are_named_five_at_a_time(manifest):
    names = [f"id{index}" for index in range(7)]
    text = refusal(manifest(path=["a.npy"] * 14, id=names * 2))
    assert "7 ids more than once: 'id0', 'id1', 'id2', 'id3', 'id4' and 2 more" in text
    # A path is an id where there is none.
    assert "'a.npy'" in refusal(manifest(path=["a.npy", "./a.npy"]))


def test_one_file_under_two_ids_is_legal(manifest):
    assert len(list_images(manifest(path=["a.npy", "a.npy"], id=["1", "2"])).files) == 2


def test_numbers_and_missing_cells_of_parquet(tmp_path):
    pandas = pytest.importorskip("pandas")
    image(tmp_path / "a.npy")
    image(tmp_path / "b.npy")
    table = pandas.DataFrame({"path": ["a.npy", "b.npy"], "id": [7, 8], "group": [3.0, None]})
    table.to_parquet(tmp_path / "list.parquet")
    assert [(e.id, e.group) for e in list_images(tmp_path / "list.parquet").files] == [
        ("7", "3"),
        ("8", None),
    ]


@pytest.mark.parametrize(
    "data",
    [
        b"path\n\xff\xfe\n",
        b'path,id\n"a.npy,1\n',
        b"path\na\0b.npy\n",
        b"",
        b"path,id\na.npy\n",
        b"path,path\na,b\n",
    ],
)
def test_damaged_csv_is_refused(tmp_path, data):
    (tmp_path / "list.csv").write_bytes(data)
    assert "list.csv" in refusal(tmp_path / "list.csv")


def test_csv_of_a_spreadsheet_is_read(tmp_path):
    image(tmp_path / "a b.npy")
    (tmp_path / "list.csv").write_bytes(b'\xef\xbb\xbf path ,group\r\n"a b.npy",P 1\r\n\r\n')
    listing = list_images(tmp_path / "list.csv")
    assert [(entry.path, entry.group) for entry in listing.files] == [("a b.npy", "P 1")]


@pytest.mark.parametrize("data", [b"", b"PAR1junkPAR1"])
def test_damaged_parquet_is_refused(tmp_path, data):
    pytest.importorskip("pyarrow")
    (tmp_path / "list.parquet").write_bytes(data)
    assert "cannot be read as Parquet" in refusal(tmp_path / "list.parquet")


# Groups


def groups(source, group_by):
    return {entry.path: entry.group for entry in list_images(source, ImageOptions(group_by=group_by)).files}


def test_parent_folders_of_one_name_stay_apart(tmp_path):
    for name in ("x/p1/a.npy", "y/p1/a.npy", "p2/a.npy"):
        image(tmp_path / name)
    assert groups(tmp_path, "parent") == {"x/p1/a.npy": "x/p1", "y/p1/a.npy": "y/p1", "p2/a.npy": "p2"}
    image(tmp_path / "bare.npy")
    assert "1 files have no parent folder" in refusal(tmp_path, group_by="parent")
    assert "'bare.npy'" in refusal(tmp_path / "bare.npy", group_by="parent")


@pytest.mark.parametrize(
    ("pattern", "group"),
    [
        (r"sub-\d+", "sub-01"),
        (r"sub-(\d+)", "01"),
        (r"(ses)-.*(?P<group>T\dw)", "T1w"),
        (r"^[^/]+/(?P<group>sub-[0-9]+)_", "sub-01"),
    ],
)
def test_patterns_are_searched_in_the_relative_path(tmp_path, pattern, group):
    image(tmp_path / "ses-2" / "sub-01_T1w.npy")
    assert set(groups(tmp_path, f"regex:{pattern}").values()) == {group}


def test_paths_that_a_pattern_misses_are_named(tmp_path):
    for name in ("p1_a.npy", "q.npy", "r.npy"):
        image(tmp_path / name)
    assert "in 2 of 3 paths" in refusal(tmp_path, group_by=r"regex:p(\d)")
    assert "'q.npy', 'r.npy'" in refusal(tmp_path, group_by=r"regex:p(\d)")
    assert "in 2 of 3 paths" in refusal(tmp_path, group_by=r"regex:(?P<group>p\d)?")


def test_folders_without_a_rule_have_no_groups(tmp_path):
    image(tmp_path / "p1" / "a.npy")
    assert groups(tmp_path, "auto") == groups(tmp_path, "none") == {"p1/a.npy": None}


# Options and packages


@pytest.mark.parametrize(
    "options",
    [
        {"axis": "Axial"},
        {"axis": 2},
        {"group_by": "regex:"},
        {"group_by": "regex:("},
        {"group_by": "patient"},
        {"group_by": None},
        {"max_pixels": 0},
        {"max_pixels": 1.5},
        {"max_pixels": True},
    ],
)
def test_wrong_options_are_refused_in_one_line(options):
    with pytest.raises(UsageError) as caught:
        ImageOptions(**options)
    assert str(caught.value).isprintable()


def test_every_code_is_explained():
    assert {"ignored", "empty", "unreadable", "truncated", "constant", "not_finite", "too_large"} <= set(SKIP_CODES)
    assert {"unsupported", "outside", "missing", "blank"} <= set(SKIP_CODES)
    assert frozenset(SKIP_CODES) - {"ignored", "blank"} == COUNTED_CODES


def test_the_record_names_the_decoders():
    assert {"numpy", "pillow"} <= set(decoder_versions())


def test_importing_loads_no_optional_package():
    code = "import sys, deepssim.images; print(*sorted(sys.modules))"
    names = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "deepssim.images" in names
    assert not {"PIL", "nibabel", "pydicom", "pyarrow", "pandas", "torch", "onnxruntime"} & set(names)
