"""Slices of NIfTI volumes: orientation, scaling, choice and limits."""

from __future__ import annotations

import csv
import gzip
import struct

import numpy as np
import pytest
from PIL import Image as PillowImage

from deepssim.errors import ImageError, UsageError
from deepssim.images import COUNTED_CODES, Image, ImageOptions, Skipped, list_images, read_image

nib = pytest.importorskip("nibabel")

SHAPE = (6, 7, 8)
AXIS = {"sagittal": 0, "coronal": 1, "axial": 2}


@pytest.fixture
def volume() -> np.ndarray:
    """Voxels along right, anterior, superior; all different."""
    return np.random.default_rng(5).permutation(np.prod(SHAPE)).reshape(SHAPE).astype(np.int16)


def display(volume: np.ndarray, axis: str, index: int) -> np.ndarray:
    """The slice as it is shown, written out voxel by voxel."""
    right, front, top = volume.shape
    if axis == "axial":
        return np.array([[volume[x, y, index] for x in range(right)] for y in reversed(range(front))])
    if axis == "coronal":
        return np.array([[volume[x, index, z] for x in range(right)] for z in reversed(range(top))])
    return np.array([[volume[index, y, z] for y in range(front)] for z in reversed(range(top))])


def save(path, voxels, affine=None, dtype=None, kind=nib.Nifti1Image) -> None:
    image = kind(voxels, np.eye(4) if affine is None else affine, dtype=dtype)
    nib.save(image, path)


@pytest.mark.parametrize("axis", AXIS)
@pytest.mark.parametrize("codes", ["RAS", "LPS", "LAS", "SRA", "IPL", "AIR"])
@pytest.mark.parametrize("name", ["v.nii", "v.nii.gz"])
def test_a_slice_looks_the_same_however_the_volume_is_stored(tmp_path, read, volume, axis, codes, name):
    turn = nib.orientations.ornt_transform(nib.orientations.axcodes2ornt("RAS"), nib.orientations.axcodes2ornt(codes))
    stored = nib.orientations.apply_orientation(volume, turn)
    save(tmp_path / name, stored, nib.orientations.inv_ornt_aff(turn, volume.shape))
    assert "".join(nib.aff2axcodes(nib.load(tmp_path / name).affine)) == codes
    items = read(tmp_path, axis=axis, slices="2,4")
    assert list(items) == [f"{name}#{axis}2", f"{name}#{axis}4"]
    for index, item in zip((2, 4), items.values(), strict=True):
        np.testing.assert_array_equal(item.pixels, display(volume, axis, index))


@pytest.mark.parametrize("dtype", ["u1", "i1", "<i2", ">i2", "<u2", ">f4", "<f8", "<i8", ">u4"])
@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
def test_depths_byte_orders_and_versions(tmp_path, read, dtype, kind):
    voxels = np.random.default_rng(0).integers(0, 120, SHAPE).astype(dtype)
    header = kind.header_class(endianness=np.dtype(dtype).byteorder.replace("|", "<"))
    header.set_data_dtype(dtype)
    nib.save(kind(voxels, np.eye(4), header), tmp_path / "v.nii")
    items = read(tmp_path)
    np.testing.assert_array_equal(items["v.nii#axial4"].pixels, display(voxels, "axial", 4).astype(np.float32))


def test_slope_and_intercept_are_applied_in_float64(tmp_path, read, volume):
    image = nib.Nifti1Image(volume, np.eye(4))
    image.header.set_slope_inter(0.1, -1000)
    nib.save(image, tmp_path / "v.nii")
    # nibabel rescales on writing, so the stored values are put back.
    data = bytearray((tmp_path / "v.nii").read_bytes())
    data[352:] = volume.astype("<i2").tobytes(order="F")
    data[112:120] = struct.pack("<2f", 0.1, -1000)
    (tmp_path / "v.nii").write_bytes(bytes(data))
    expected = display(volume, "axial", 4).astype(np.float64) * np.float64(np.float32(0.1)) - 1000
    np.testing.assert_array_equal(read(tmp_path)["v.nii#axial4"].pixels, expected.astype(np.float32))


@pytest.mark.parametrize(
    ("slices", "expected"),
    [
        ("middle", [4]),
        ("all", [0, 1, 2, 3, 4, 5, 6, 7]),
        ("3", [3]),
        ("5,3,3", [3, 5]),
        ("1:6:2", [1, 3, 5]),
        ("6:", [6, 7]),
        (":2", [0, 1]),
        ("6:100", [6, 7]),
        ("0%,25%,50%,99.9%,100%", [0, 2, 4, 7]),
        ("25%, 7", [2, 7]),
    ],
)
def test_choices_of_slices(tmp_path, read, volume, slices, expected):
    save(tmp_path / "v.nii", volume)
    assert list(read(tmp_path, slices=slices)) == [f"v.nii#axial{index}" for index in expected]


@pytest.mark.parametrize(
    "slices",
    [
        "",
        "x",
        "-1",
        "1,,2",
        "1.5",
        "101%",
        "5:2",
        "5:5",
        "1:9:0",
        "1:9:00",
        "9" * 10,
        "all,3",
        "1;2",
        "٣",
        "nan%",
        3,
    ],
)
def test_wrong_choices_are_refused_in_one_line(slices):
    with pytest.raises(UsageError) as caught:
        ImageOptions(slices=slices)
    assert "\n" not in str(caught.value)


def test_a_slice_outside_the_volume_is_one_skipped_item(tmp_path, read, volume):
    save(tmp_path / "v.nii", volume)
    items = read(tmp_path, slices="3,8,50,20:30")
    assert [getattr(item, "code", "image") for item in items.values()] == ["image"] + ["unsupported"] * 3
    assert "8 axial slices (0 to 7)" in items["v.nii#axial50"].reason


def test_blank_ends_are_normal_only_where_all_slices_are_read(tmp_path, read, volume):
    volume[..., [0, 1, 4, 7]] = 0
    save(tmp_path / "v.nii", volume)
    codes = [getattr(item, "code", "image") for item in read(tmp_path, slices="all").values()]
    assert codes == ["blank", "blank", "image", "image", "constant", "image", "image", "blank"]
    assert "blank" not in COUNTED_CODES
    assert "constant" in COUNTED_CODES
    assert read(tmp_path, slices="0")["v.nii#axial0"].code == "constant"


def test_a_volume_without_content_counts_as_skipped(tmp_path, read):
    save(tmp_path / "v.nii", np.zeros(SHAPE, np.uint8))
    assert {item.code for item in read(tmp_path, slices="all").values()} == {"constant"}


def test_trailing_axes_of_one_are_dropped_and_series_refused(tmp_path, read, volume):
    save(tmp_path / "one.nii", volume[..., None, None])
    save(tmp_path / "series.nii", np.stack([volume, volume], axis=-1))
    save(tmp_path / "line.nii", np.arange(5, dtype=np.int16))
    items = read(tmp_path)
    np.testing.assert_array_equal(items["one.nii#axial4"].pixels, display(volume, "axial", 4))
    assert items["series.nii"].code == "unsupported"
    assert items["line.nii"].code == "unsupported"


def test_a_single_slice_is_read_along_its_axis_only(tmp_path, read, volume):
    save(tmp_path / "v.nii", volume[:, :, 3])
    np.testing.assert_array_equal(read(tmp_path)["v.nii#axial0"].pixels, display(volume, "axial", 3))
    assert "axis 'axial'" in read(tmp_path, axis="coronal")["v.nii"].reason


@pytest.mark.parametrize("dtype", [np.complex64, [("R", "u1"), ("G", "u1"), ("B", "u1")]])
def test_complex_and_colour_voxels_are_refused(tmp_path, read, dtype):
    save(tmp_path / "v.nii", np.zeros(SHAPE, dtype))
    assert read(tmp_path)["v.nii"].code == "unsupported"


def header_of(tmp_path, volume) -> bytearray:
    save(tmp_path / "v.nii", volume)
    data = bytearray((tmp_path / "v.nii").read_bytes())
    (tmp_path / "v.nii").unlink()
    return data


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    ("place", "raw", "code"),
    [
        (40, struct.pack("<8h", 3, 30000, 30000, 30000, 1, 1, 1, 1), "too_large"),
        (40, struct.pack("<8h", 3, 60, 70, 80, 1, 1, 1, 1), "truncated"),
        (40, struct.pack("<8h", 3, 0, 7, 8, 1, 1, 1, 1), "empty"),
        (40, struct.pack("<8h", 3, -5, 7, 8, 1, 1, 1, 1), "empty"),
        (70, struct.pack("<h", 9999), "unreadable"),
        (70, struct.pack("<h", 1536), "unsupported"),
        (108, struct.pack("<f", 1e30), "unreadable"),
        (108, struct.pack("<f", float("nan")), "unreadable"),
        (108, struct.pack("<f", 0), "unreadable"),
        (112, struct.pack("<2f", 1, float("inf")), "unreadable"),
        (280, struct.pack("<12f", *[0] * 12), "unreadable"),
        (280, struct.pack("<12f", *[float("nan")] * 12), "unreadable"),
        (344, b"ni1\0", "unsupported"),
        (344, b"abcd", "unreadable"),
    ],
)
def test_damaged_headers_are_refused(tmp_path, read, volume, packed, place, raw, code):
    data = header_of(tmp_path, volume)
    data[place : place + len(raw)] = raw
    name = "v.nii.gz" if packed else "v.nii"
    (tmp_path / name).write_bytes(gzip.compress(bytes(data)) if packed else bytes(data))
    item = read(tmp_path, max_pixels=10**9 if code == "too_large" else 2**26)[name]
    assert (item.code, "\n" in item.reason) == (code, False)


@pytest.mark.parametrize("keep", [0, 3, 10, 200, 400, -500, -9, -1])
def test_a_cut_file_is_named_as_one(tmp_path, read, volume, keep):
    data = bytes(header_of(tmp_path, volume))
    packed = gzip.compress(data)
    (tmp_path / "a.nii").write_bytes(data[:keep])
    (tmp_path / "b.nii.gz").write_bytes(packed[:keep])
    expected = "empty" if keep == 0 else "truncated"
    assert {item.code for item in read(tmp_path).values()} == {expected}


def test_a_damaged_compressed_volume_gives_no_image(tmp_path, read, volume):
    packed = bytearray(gzip.compress(bytes(header_of(tmp_path, volume))))
    packed[-6] ^= 1  # the checksum
    (tmp_path / "a.nii.gz").write_bytes(bytes(packed))
    assert read(tmp_path)["a.nii.gz"].code == "unreadable"


def test_a_volume_that_unpacks_to_more_than_declared_is_refused(tmp_path, read, volume):
    data = bytes(header_of(tmp_path, volume))
    (tmp_path / "bomb.nii.gz").write_bytes(gzip.compress(data + bytes(20_000_000)))
    (tmp_path / "padded.nii.gz").write_bytes(gzip.compress(data + bytes(100)))
    items = read(tmp_path)
    assert items["bomb.nii.gz"].code == "unreadable"
    assert isinstance(items["padded.nii.gz#axial4"], Image)


def test_scaling_that_gives_no_number_is_named(tmp_path, read, volume):
    data = header_of(tmp_path, volume)
    data[112:120] = struct.pack("<2f", 3e38, 0)
    (tmp_path / "v.nii").write_bytes(bytes(data))
    assert read(tmp_path)["v.nii#axial4"].code == "not_finite"


def test_slices_over_the_pixel_limit_are_refused(tmp_path, read, volume):
    save(tmp_path / "v.nii", volume)
    assert read(tmp_path, max_pixels=41)["v.nii"].code == "too_large"
    assert isinstance(read(tmp_path, max_pixels=42)["v.nii#axial4"], Image)


def test_one_volume_is_one_group(tmp_path, read, volume):
    (tmp_path / "site").mkdir()
    save(tmp_path / "site" / "sub-01_T1w.nii.gz", volume)
    save(tmp_path / "sub-02.NII", volume)
    items = read(tmp_path, slices="2,3")
    assert {item.id: item.group for item in items.values()} == {
        "site/sub-01_T1w.nii.gz#axial2": "site/sub-01_T1w",
        "site/sub-01_T1w.nii.gz#axial3": "site/sub-01_T1w",
        "sub-02.NII#axial2": "sub-02",
        "sub-02.NII#axial3": "sub-02",
    }


def test_a_slice_can_be_read_again_whatever_the_options(tmp_path, volume):
    save(tmp_path / "v.nii.gz", volume)
    image = read_image(tmp_path, "v.nii.gz", "v.nii.gz#coronal5", ImageOptions(slices="1"))
    np.testing.assert_array_equal(image.pixels, display(volume, "coronal", 5))
    image = read_image(tmp_path, "v.nii.gz", "scan#7#sagittal0", ImageOptions())
    np.testing.assert_array_equal(image.pixels, display(volume, "sagittal", 0))
    for wrong in ("v.nii.gz", "v.nii.gz#axial8", "v.nii.gz#axial-1", "v.nii.gz#oblique1", "v.nii.gz#axial"):
        with pytest.raises(ImageError) as caught:
            read_image(tmp_path, "v.nii.gz", wrong, ImageOptions())
        assert caught.value.code == "missing"


def test_expected_counts_follow_the_choice(tmp_path, volume):
    save(tmp_path / "v.nii", volume)
    assert list_images(tmp_path, ImageOptions(slices="25%,50%,75%")).n_expected == 3
    assert list_images(tmp_path, ImageOptions(slices="all")).n_expected == 1


def test_real_slices_are_those_of_their_volumes(data_folder, read):
    """The PNG slices were cut from the volumes by other code: rows and columns must match without a flip."""
    with (data_folder / "brain" / "slices.csv").open() as stream:
        rows = [row for row in csv.DictReader(stream) if row["subject"] in {"sub-01", "sub-20"}]
    assert rows
    levels = ",".join(sorted({row["level"] for row in rows}, key=int))
    for subject in ("sub-01", "sub-20"):
        name = f"{subject}_T1w.nii.gz"
        items = read(data_folder / "brain" / "volumes" / name, slices=levels)
        assert not any(isinstance(item, Skipped) for item in items.values())
        for row in rows:
            if row["subject"] != subject:
                continue
            expected = np.asarray(PillowImage.open(data_folder / "brain" / row["path"]))
            whole = items[f"{name}#axial{row['level']}"].pixels
            top, left = ((a - b) // 2 for a, b in zip(whole.shape, expected.shape, strict=True))
            part = whole[top : top + expected.shape[0], left : left + expected.shape[1]]
            np.testing.assert_array_equal(part, expected)
