"""Data sets: sloppy and hostile CSVs are told with line and column, folders are divided by people."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Picture

from deepssim.errors import UsageError
from deepssim.generative.data.records import Dataset, Record, load_images, read_dataset

HEADER = "image_path,image_uid,split,age_norm"


def save(path: Path, pixels: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Picture.fromarray(pixels.astype(np.uint8)).save(path)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for name in ("a", "b", "c"):
        save(tmp_path / f"{name}.png", rng.integers(0, 256, (6, 4)))
    return tmp_path


def csv(folder: Path, *rows: str, header: str = HEADER) -> Path:
    path = folder / "data.csv"
    path.write_text("\n".join([header, *rows, ""]), encoding="utf-8")
    return path


def refused(path: Path, **options: bool) -> str:
    with pytest.raises(UsageError) as caught:
        read_dataset(path, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_rows_become_records_in_their_order(folder):
    rows = [f"{folder / 'b.png'},p2,valid,0.5,x", "a.png,p1, Train ,0.25,", "c.png,p3,test,,x"]
    data = read_dataset(csv(folder, *rows, header="\ufeff" + HEADER + ",patient"))
    assert [(r.uid, r.split, r.group, r.line) for r in data.records] == [
        ("p2", "valid", "x", 2),
        ("p1", "train", None, 3),
        ("p3", "test", "x", 4),
    ]
    assert data.split("train")[0].path == folder / "a.png"
    assert data.split("train")[0].variables == {"age_norm": "0.25"}
    assert data.columns[-1] == "patient"


def test_paths_lie_beside_the_csv_or_under_the_working_folder(folder, tmp_path_factory, monkeypatch):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    monkeypatch.chdir(folder)
    save(elsewhere / "a.png", np.eye(4) * 9)
    data = read_dataset(csv(elsewhere, "a.png,p1,train,1", "b.png,p2,valid,1"))
    assert [record.path for record in data.records] == [elsewhere / "a.png", folder / "b.png"]


def test_paths_may_lead_up_and_through_links(folder):
    (folder / "lists").mkdir()
    (folder / "store").mkdir()
    (folder / "a.png").rename(folder / "store" / "1f2e3d")
    (folder / "a.png").symlink_to(folder / "store" / "1f2e3d")
    data = read_dataset(csv(folder / "lists", "../a.png,p1,train,1", "../store/../b.png,p2,valid,1"))
    assert load_images(data.records).shape == (2, 6, 4)


def test_captions_are_found_like_images_and_groups_by_pattern(folder):
    (folder / "a.npz").write_bytes(b"")
    rows = ["a.png,p1,train,a.npz,a brain", "b.png,p2,valid,none.npz,"]
    path = csv(folder, *rows, header="image_path,image_uid,split,caption_emb_path,caption")
    first, second = read_dataset(path, group_by="regex:^(.)").records
    assert (first.caption, first.text, first.group) == (folder / "a.npz", "a brain", "a")
    # A file that is not there matters to conditions of text alone.
    assert (second.caption, second.text, second.group) == (folder / "none.npz", None, "b")
    assert first.variables == {}


def test_all_faults_are_in_one_message_with_their_lines(folder):
    rows = [
        "a.png,p1,train,1",
        "b.png,,valid,1",
        "none.png,p3,train,1",
        "b.png,p4,,1",
        ",p5,train,1",
        "b.png,x/y,valid,1",
        "b,p7",
    ]
    text = refused(csv(folder, *rows))
    for part in (
        "6 faults: ",
        "line 3: image_uid is empty",
        "line 4: image_path 'none.png' is neither beside the CSV nor under the working folder",
        "line 5: split is empty",
        "line 6: image_path is empty",
        "line 7: image_uid 'x/y' has a slash",
        "and 1 more",
    ):
        assert part in text


@pytest.mark.parametrize(
    ("uid", "why"),
    [
        ("..", "begins with a dot"),
        ("a\\b", "has a backslash"),
        ("a\x1b[2Jb", "has signs that cannot be seen"),
        ("a\u202eb", "has signs that cannot be seen"),
        ("a" * 300, "is longer than 200 bytes"),
    ],
)
def test_uids_that_cannot_name_a_folder_are_refused_and_shown_escaped(folder, uid, why):
    text = refused(csv(folder, f"a.png,{uid},train,1", "b.png,p2,valid,1"))
    assert why in text
    assert text.isprintable()


def test_a_uid_that_comes_again_is_left_out_and_counted(folder):
    data = read_dataset(csv(folder, "a.png,p1,train,1", "b.png,p1,train,2", "a.png,p1,train,3", "c.png,p2,valid,1"))
    assert [(record.uid, record.path.name) for record in data.records] == [("p1", "a.png"), ("p2", "c.png")]
    assert "2 rows have an image_uid that an earlier row has: the first of each is kept" in data.notes
    assert "in the split valid, and in train in line 2" in refused(csv(folder, "a.png,p1,train,1", "a.png,p1,valid,1"))


def test_people_on_both_sides_are_told(folder):
    data = read_dataset(csv(folder, "a.png,p1,train,x", "b.png,p2,valid,x", header="image_path,image_uid,split,group"))
    assert any("1 people have images in train and in valid ('x')" in note for note in data.notes)


def test_missing_splits_and_columns_name_what_is_there(folder):
    assert "has no image with the split valid, but 'train: 1', 'test: 1'" in refused(
        csv(folder, "a.png,p1,train,1", "b.png,p2,test,1")
    )
    assert "has no column 'image_uid', 'split'; its columns are 'image_path', 'uid'" in refused(
        csv(folder, "a.png,p1", header="image_path,uid")
    )
    assert "separate columns by commas" in refused(csv(folder, "a.png;p1;train", header="image_path;image_uid;split"))
    assert "columns more than once: 'split'" in refused(csv(folder, header="image_path,image_uid,split,split"))
    assert "a header and no rows" in refused(csv(folder, header=HEADER))
    assert "its columns are none" in refused(csv(folder, header=""))


def test_files_that_are_no_csv_are_refused(folder):
    path = folder / "data.csv"
    for content in (b"\x89PNG\r\n\x1a\n\xff", b'image_path,image_uid,split\n"a'):
        path.write_bytes(content)
        assert "cannot be read as CSV in UTF-8" in refused(path)
    assert "No such file" in refused(folder / "none.csv")
    with pytest.raises(UsageError, match="either a CSV"):
        read_dataset()


def test_sampling_needs_neither_splits_nor_images(folder):
    path = csv(folder, "none.png,p1,1", "a.png,p2,2", header="image_path,image_uid,age_norm")
    data = read_dataset(path, with_splits=False, with_images=False)
    assert [record.uid for record in data.records] == ["p1", "p2"]
    assert "none.png" in refused(path, with_splits=False)


def test_the_signature_follows_contents_and_not_places(folder, tmp_path_factory):
    rows = ["a.png,p1,train,1", "b.png,p2,valid,1"]
    before = read_dataset(csv(folder, *rows)).signature()
    moved = tmp_path_factory.mktemp("moved")
    for name in ("a", "b"):
        (moved / f"{name}.png").write_bytes((folder / f"{name}.png").read_bytes())
    assert read_dataset(csv(moved, *rows)).signature() == before
    assert read_dataset(csv(moved, "a.png,p1,train,2", rows[1])).signature() != before
    save(moved / "a.png", np.eye(6) * 200)
    assert read_dataset(csv(moved, *rows)).signature() != before


def test_images_are_scaled_by_their_own_range(folder):
    save(folder / "low.png", np.array([[50, 100], [150, 75]]))
    np.save(folder / "wide.npy", np.array([[-3e38, 3e38], [0, 0]], np.float32))
    records = [Record(n, folder / n, "train") for n in ("low.png", "wide.npy")]
    expected = [[[0, 0.5], [1, 0.25]], [[0, 1], [0.5, 0.5]]]
    np.testing.assert_array_equal(load_images(records), np.array(expected, np.float32))


def test_scaling_gives_the_bits_of_the_formula_in_float32(folder):
    pixels = np.asarray(Picture.open(folder / "a.png")).astype(np.float32)
    expected = (pixels - pixels.min()) / (pixels.max() - pixels.min())
    np.testing.assert_array_equal(load_images([Record("a", folder / "a.png", "train")])[0], expected)


def test_transposing_swaps_rows_and_columns_before_the_size(folder):
    records = [Record("a", folder / "a.png", "train")]
    plain = load_images(records)
    np.testing.assert_array_equal(load_images(records, transpose=True)[0], plain[0].T)
    assert load_images(records, transpose=True, size=(2, 3)).shape == (1, 2, 3)


def test_sizes_that_differ_are_named_unless_a_size_is_given(folder):
    save(folder / "d.png", np.eye(8) * 255)
    records = [Record(n, folder / f"{n}.png", "train", line=i + 2) for i, n in enumerate("abd")]
    with pytest.raises(
        UsageError, match=r"several sizes, 6 x 4 \(line 2, a\.png\) and 8 x 8 \(line 4, d\.png\): say to"
    ):
        load_images(records)
    small = load_images(records, size=(3, 2), threads=2)
    assert small.shape == (3, 3, 2)
    assert [float(image.min()) for image in small] == [0, 0, 0]
    assert [float(image.max()) for image in small] == [1, 1, 1]


def test_images_that_cannot_be_read_are_named_together(folder):
    save(folder / "flat.png", np.full((6, 4), 7))
    (folder / "cut.png").write_bytes((folder / "a.png").read_bytes()[:60])
    records = [Record(n, folder / f"{n}.png", "train", line=i + 2) for i, n in enumerate(("a", "flat", "cut", "none"))]
    with pytest.raises(UsageError) as caught:
        load_images(records)
    text = str(caught.value)
    assert "3 faults: line 3, flat.png: all pixels have the value 7; line 4, cut.png: " in text
    assert "line 5, none.png: there is no such file" in text


def test_a_folder_is_divided_by_people_whatever_the_order(tmp_path):
    rng = np.random.default_rng(1)
    for person in range(10):
        for scan in range(2):
            save(tmp_path / f"p{person}" / f"scan {scan}.png", rng.integers(0, 256, (4, 4)))
    data = read_dataset(images=tmp_path, group_by="parent", valid_part=0.3)
    people = [{record.group for record in data.split(name)} for name in ("train", "valid")]
    assert (len(people[0]), len(people[1])) == (7, 3)
    assert not people[0] & people[1]
    assert data.records[0].uid == "p0-scan 0"
    again = read_dataset(images=tmp_path, group_by="parent", valid_part=0.3, seed=1)
    assert {record.group for record in again.split("valid")} != people[1]
    with pytest.raises(UsageError, match=r"images of 10 people .* 0\.01 of them leave 0 for the split valid"):
        read_dataset(images=tmp_path, group_by="parent", valid_part=0.01)


def test_names_that_would_be_one_uid_stay_apart(tmp_path):
    for name in ("a/b.png", "a-b.png", "a/b.bmp", "x___y.png"):
        save(tmp_path / name, np.eye(4) * 255)
    uids = [record.uid for record in read_dataset(images=tmp_path, valid_part=0.5).records]
    assert len(set(uids)) == 4
    assert all(uid.startswith("a-b-") or uid == "x-y" for uid in uids)


def test_files_of_several_images_give_all_of_them_and_notes_of_what_is_left_out(tmp_path):
    stack = np.random.default_rng(2).integers(0, 255, (5, 4, 6), dtype=np.uint8)
    stack[3] = 9
    np.save(tmp_path / "stack.npy", stack)
    np.savez(tmp_path / "pack.npz", stack)
    (tmp_path / "bad.png").write_bytes(b"nothing")
    data = read_dataset(images=tmp_path, valid_part=0.5)
    assert len(data.records) == 8
    assert any(note.startswith("3 images are left out (") for note in data.notes)
    assert any("no image says whose it is" in note for note in data.notes)
    # The images of a file are of one person.
    assert len({(record.path, record.split) for record in data.records}) == 2
    for record, image in zip(data.records, load_images(data.records), strict=True):
        pixels = stack[int(record.key.rpartition("/")[2])].astype(np.float32)
        np.testing.assert_array_equal(image, (pixels - pixels.min()) / (pixels.max() - pixels.min()))


def test_a_row_can_name_one_image_of_a_stack(tmp_path):
    stack = np.random.default_rng(3).integers(0, 255, (3, 4, 6), dtype=np.uint8)
    np.save(tmp_path / "stack.npy", stack)
    data = read_dataset(csv(tmp_path, "stack.npy#2,p1,train,1", "stack.npy#0,p2,valid,1"))
    pixels = stack[2].astype(np.float32)
    np.testing.assert_array_equal(load_images(data.split("train"))[0], (pixels - pixels.min()) / np.ptp(pixels))


def test_an_empty_split_is_an_error_and_not_an_empty_list():
    with pytest.raises(UsageError, match="no image with the split train, but no rows at all"):
        Dataset(Path("x.csv"), ()).split("train")
