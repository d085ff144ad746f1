"""DICOM files: modality values, photometric interpretations, frames, patients and limits."""

from __future__ import annotations

import warnings
import zlib

import numpy as np
import pytest
from PIL import Image as PillowImage

from deepssim.errors import ImageError
from deepssim.images import Image, ImageOptions, read_image

pydicom = pytest.importorskip("pydicom")

from pydicom.dataset import Dataset, FileMetaDataset  # noqa: E402
from pydicom.encaps import encapsulate  # noqa: E402
from pydicom.uid import (  # noqa: E402
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
    generate_uid,
)

MR = "1.2.840.10008.5.1.4.1.1.4"


def dataset(stored: np.ndarray, *, bits: int | None = None, syntax=ExplicitVRLittleEndian, **elements) -> Dataset:
    """Build an MR image; ``stored`` is (rows, columns), (n, rows, columns) or (rows, columns, 3)."""
    made = Dataset()
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = syntax
    made.file_meta.MediaStorageSOPClassUID = made.SOPClassUID = MR
    made.file_meta.MediaStorageSOPInstanceUID = made.SOPInstanceUID = generate_uid()
    made.PatientID = "patient 7"
    is_colour = stored.ndim == 3 and stored.shape[-1] == 3
    made.SamplesPerPixel = 3 if is_colour else 1
    made.PhotometricInterpretation = "RGB" if is_colour else "MONOCHROME2"
    if is_colour:
        made.PlanarConfiguration = 0
    if stored.ndim == 3 and not is_colour:
        made.NumberOfFrames = len(stored)
    made.Rows, made.Columns = stored.shape[:2] if is_colour else stored.shape[-2:]
    made.BitsAllocated = stored.dtype.itemsize * 8
    made.BitsStored = bits or made.BitsAllocated
    made.HighBit = made.BitsStored - 1
    made.PixelRepresentation = int(stored.dtype.kind == "i")
    order = ">" if syntax == ExplicitVRBigEndian else "<"
    raw = stored.astype(stored.dtype.newbyteorder(order)).tobytes()
    made.PixelData = raw + b"\0" * (len(raw) % 2)
    made["PixelData"].VR = "OW" if made.BitsAllocated > 8 else "OB"
    for name, value in elements.items():
        if value is None:
            delattr(made, name)
        else:
            setattr(made, name, value)
    return made


def save(made: Dataset, path) -> None:
    made.save_as(path, enforce_file_format=True)


@pytest.fixture
def one(tmp_path, read):
    """Save a data set as the only file, and read its only item."""

    def read_one(made: Dataset, **options):
        save(made, tmp_path / "a.dcm")
        (item,) = read(tmp_path, **options).values()
        return item

    return read_one


def assert_pixels(item, expected) -> None:
    assert isinstance(item, Image), item
    np.testing.assert_array_equal(item.pixels, np.asarray(expected).astype(np.float32))


@pytest.mark.parametrize("dtype", ["u1", "i1", "u2", "i2", "u4", "i4"])
@pytest.mark.parametrize(
    "syntax",
    [ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian],
    ids=["explicit", "implicit", "big", "deflated"],
)
def test_stored_values_of_every_depth_and_encoding(one, ramp, dtype, syntax):
    values = ramp(dtype, 6, 8)
    made = dataset(values, syntax=syntax)
    item = one(made)
    assert_pixels(item, values)
    assert item.id == item.path == "a.dcm"
    assert item.group == "patient 7"


def test_rescale_is_applied_in_float64(one, ramp):
    values = ramp("i2")
    item = one(dataset(values, RescaleSlope="0.1", RescaleIntercept="-1024"))
    assert_pixels(item, values.astype(np.float64) * 0.1 - 1024)


def test_no_window_is_applied(one, ramp):
    values = ramp("u2")
    assert_pixels(one(dataset(values, WindowCenter="10", WindowWidth="5")), values)


@pytest.mark.parametrize(("dtype", "bits", "ends"), [("u1", 8, 255), ("u2", 12, 4095), ("i2", 16, -1)])
def test_monochrome1_is_turned_round_over_its_stored_range(one, dtype, bits, ends):
    values = np.random.default_rng(1).integers(0, 100, (5, 6)).astype(dtype)
    made = dataset(values, bits=bits, PhotometricInterpretation="MONOCHROME1")
    assert_pixels(one(made), ends - values.astype(int))
    made.RescaleSlope, made.RescaleIntercept = "2", "-7"
    assert_pixels(one(made), 2 * (ends - values.astype(int)) - 7)


@pytest.mark.parametrize("photometric", ["MONOCHROME2", "MONOCHROME1"])
def test_modality_lut_goes_before_rescale_and_clamps(one, photometric):
    values = np.array([[0, 9, 10, 11], [12, 13, 14, 255]], np.uint8)
    table = [100, 300, 200, 1000]
    item = Dataset()
    item.LUTDescriptor, item.LUTData, item.ModalityLUTType = [4, 10, 16], table, "US"
    item["LUTDescriptor"].VR = item["LUTData"].VR = "US"
    made = dataset(values, ModalityLUTSequence=[item], PhotometricInterpretation=photometric)
    expected = np.array([[100, 100, 100, 300], [200, 1000, 1000, 1000]])
    assert_pixels(one(made), expected if photometric == "MONOCHROME2" else 1100 - expected)


def test_frames_are_images_of_one_patient(tmp_path, read, ramp):
    stack = np.stack([ramp("u2"), ramp("u2")[::-1], np.full((5, 7), 3, np.uint16)])
    save(dataset(stack), tmp_path / "a.dcm")
    items = read(tmp_path)
    assert [getattr(item, "code", item.id) for item in items.values()] == ["a.dcm#0", "a.dcm#1", "constant"]
    assert_pixels(items["a.dcm#1"], stack[1])
    assert items["a.dcm#1"].group == "patient 7"
    assert_pixels(read_image(tmp_path, "a.dcm", "a.dcm#1", ImageOptions()), stack[1])
    with pytest.raises(ImageError, match="no such image"):
        read_image(tmp_path, "a.dcm", "a.dcm#3", ImageOptions())


def test_frames_of_enhanced_objects_have_their_own_rescale(tmp_path, read, ramp):
    def group(slope: str, intercept: str) -> Dataset:
        values = Dataset()
        values.RescaleSlope, values.RescaleIntercept = slope, intercept
        outer = Dataset()
        outer.PixelValueTransformationSequence = [values]
        return outer

    stack = np.stack([ramp("u2"), ramp("u2")])
    save(
        dataset(
            stack,
            PerFrameFunctionalGroupsSequence=[group("2", "1"), Dataset()],
            SharedFunctionalGroupsSequence=[group("3", "0")],
        ),
        tmp_path / "a.dcm",
    )
    items = read(tmp_path)
    assert_pixels(items["a.dcm#0"], stack[0] * 2.0 + 1)
    assert_pixels(items["a.dcm#1"], stack[1] * 3.0)


def test_colour_becomes_luma(one):
    colour = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    red, green, blue = (colour[..., band].astype(np.float64) for band in range(3))
    assert_pixels(one(dataset(colour)), 0.299 * red + 0.587 * green + 0.114 * blue)
    grey = np.dstack([colour[..., 0]] * 3)
    assert_pixels(one(dataset(grey)), colour[..., 0])


def test_palette_becomes_luma(one):
    values = np.array([[0, 1], [2, 3]], np.uint8)
    made = dataset(values, PhotometricInterpretation="PALETTE COLOR")
    for name, first in (("Red", 0), ("Green", 100), ("Blue", 50)):
        setattr(made, f"{name}PaletteColorLookupTableDescriptor", [4, 0, 16])
        made[f"{name}PaletteColorLookupTableDescriptor"].VR = "US"
        table = np.arange(first, first + 4, dtype="<u2")
        setattr(made, f"{name}PaletteColorLookupTableData", table.tobytes())
    luma = [[0.299 * index + 0.587 * (100 + index) + 0.114 * (50 + index) for index in row] for row in values]
    assert_pixels(one(made), luma)


def test_float_pixels(one):
    values = np.random.default_rng(0).normal(size=(6, 8)).astype(np.float32)
    made = dataset(np.zeros((6, 8), np.uint32), PixelData=None)
    made.FloatPixelData = values.tobytes()
    del made.BitsStored, made.HighBit, made.PixelRepresentation
    assert_pixels(one(made), values)


def test_run_length_compression(tmp_path, read, ramp):
    values = ramp("u2", 16, 16)
    made = dataset(values)
    made.compress(RLELossless)
    save(made, tmp_path / "a.dcm")
    assert_pixels(read(tmp_path)["a.dcm"], values)


def encapsulated(values: np.ndarray, syntax, frame: bytes) -> Dataset:
    made = dataset(values, syntax=syntax)
    made.PixelData = encapsulate([frame])
    made["PixelData"].is_undefined_length = True
    return made


def test_jpeg_in_dicom_is_the_jpeg(tmp_path, read):
    smooth = np.add.outer(np.arange(64), 2 * np.arange(48)).astype(np.uint8)
    PillowImage.fromarray(smooth).save(tmp_path / "a.jpg", quality=95)
    frame = (tmp_path / "a.jpg").read_bytes()
    save(encapsulated(smooth, JPEGBaseline8Bit, frame), tmp_path / "a.dcm")
    items = read(tmp_path)
    assert items["a.dcm"].pixel_hash == items["a.jpg"].pixel_hash


@pytest.mark.parametrize("syntax", [JPEGLosslessSV1, JPEGLSLossless])
def test_a_missing_decoder_names_the_package(one, ramp, syntax):
    if pydicom.pixels.get_decoder(syntax).is_available:
        pytest.skip("a decoder for this compression is installed")
    item = one(encapsulated(ramp("u1"), syntax, b"\xff\xd8\xff\xd9"))
    assert item.code == "unsupported"
    assert "pip install" in item.reason


def test_signed_jpeg_2000_under_an_unsigned_stream(one):
    """The stream says unsigned, the header signed: the values are those of the header."""
    features = pytest.importorskip("PIL.features")
    if not features.check("jpg_2000"):
        pytest.skip("Pillow has no JPEG 2000 here")
    import io

    signed = np.arange(-32, 32, dtype=np.int8).reshape(8, 8)
    stream = io.BytesIO()
    PillowImage.fromarray(signed.view(np.uint8)).save(stream, "JPEG2000", no_jp2=True, num_resolutions=1)
    made = encapsulated(signed, JPEG2000Lossless, stream.getvalue())
    item = one(made)
    assert_pixels(item, signed)


@pytest.mark.parametrize(
    ("elements", "code"),
    [
        ({"PixelData": None}, "unsupported"),
        ({"Rows": 0}, "empty"),
        ({"Rows": None}, "empty"),
        ({"Rows": 60000, "Columns": 60000}, "too_large"),
        ({"NumberOfFrames": "2000000000"}, "too_large"),
        ({"NumberOfFrames": "70000", "Rows": 1, "Columns": 1}, "too_large"),
        ({"Rows": 50}, "truncated"),
        ({"NumberOfFrames": "3"}, "truncated"),
        ({"PhotometricInterpretation": "HSV"}, "unsupported"),
        ({"PhotometricInterpretation": "RGB"}, "unsupported"),
        ({"SamplesPerPixel": 4}, "unsupported"),
        ({"RescaleSlope": "1e300", "RescaleIntercept": "0"}, "not_finite"),
        ({"RescaleSlope": "0", "RescaleIntercept": "5"}, "constant"),
    ],
)
def test_headers_that_give_no_image_say_why(one, ramp, elements, code):
    item = one(dataset(ramp("u2"), **elements))
    assert item.code == code, item
    assert "\n" not in item.reason


def test_a_report_is_named_by_its_class(one, ramp):
    made = dataset(ramp("u1"), PixelData=None)
    made.file_meta.MediaStorageSOPClassUID = made.SOPClassUID = "1.2.840.10008.5.1.4.1.1.88.11"
    assert "Basic Text SR" in one(made).reason


def test_a_file_without_suffix_is_known_by_its_mark(tmp_path, read, ramp):
    values = ramp("u2")
    for name in ("IM0001", "1.2.840.113619.2", "a.IMA", "b.dicom"):
        save(dataset(values), tmp_path / name)
    (tmp_path / "README").write_text("no image" * 50)
    items = read(tmp_path)
    assert items.pop("README").code == "ignored"
    assert len(items) == 4
    for item in items.values():
        assert_pixels(item, values)


def test_an_old_file_without_the_mark_is_read_by_its_suffix(tmp_path, read, ramp):
    values = ramp("u2")
    save(dataset(values, syntax=ImplicitVRLittleEndian), tmp_path / "a.dcm")
    data = (tmp_path / "a.dcm").read_bytes()
    # From the first element of the data set proper: (0008,0016).
    (tmp_path / "a.dcm").write_bytes(data[data.index(b"\x08\x00\x16\x00") :])
    assert_pixels(read(tmp_path)["a.dcm"], values)


@pytest.mark.parametrize("name", ["a.dcm", "b.ima"])
def test_random_bytes_are_no_dicom(tmp_path, read, name):
    (tmp_path / name).write_bytes(np.random.default_rng(0).bytes(5000))
    assert read(tmp_path)[name].code == "unreadable"


@pytest.mark.parametrize("keep", [0, 100, 140, 300])
def test_a_cut_file_gives_no_image(tmp_path, read, ramp, keep):
    save(dataset(ramp("u2")), tmp_path / "a.dcm")
    (tmp_path / "a.dcm").write_bytes((tmp_path / "a.dcm").read_bytes()[:keep])
    assert not isinstance(read(tmp_path)["a.dcm"], Image)


def test_a_deflate_bomb_is_refused_before_pydicom_unpacks_it(tmp_path, read, ramp, monkeypatch):
    from deepssim.images import dicom

    save(dataset(ramp("u2"), syntax=DeflatedExplicitVRLittleEndian), tmp_path / "a.dcm")
    data = (tmp_path / "a.dcm").read_bytes()
    end = 144 + int.from_bytes(data[140:144], "little")
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    bomb = packer.compress(bytes(2**23)) + packer.flush()
    (tmp_path / "a.dcm").write_bytes(data[:end] + bomb)

    def unpack(*_args, **_options):
        raise AssertionError("pydicom must not see the file")

    monkeypatch.setattr(dicom, "MAX_DECODED_BYTES", 2**22)
    monkeypatch.setattr(pydicom, "dcmread", unpack)
    item = read(tmp_path)["a.dcm"]
    assert (item.code, len(bomb) < 2**14) == ("too_large", True)


def test_an_empty_patient_is_no_group(one, ramp):
    assert one(dataset(ramp("u1"), PatientID="")).group is None
    assert one(dataset(ramp("u1"), PatientID=None)).group is None
    assert one(dataset(ramp("u1"), PatientID=" x ")).group == "x"


def test_the_patient_is_the_group_only_under_auto(tmp_path, one, ramp):
    assert one(dataset(ramp("u1")), group_by="none").group is None
    assert one(dataset(ramp("u1")), group_by="regex:[a-z]").group == "a"


def test_files_that_come_with_pydicom_are_read_or_explained(tmp_path, read):
    """Every test file of pydicom itself gives images or a reason, never an exception."""
    folder = pydicom.data.get_testdata_file("CT_small.dcm", download=False)
    if folder is None:
        pytest.skip("this pydicom comes without its test files")
    import pathlib

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        items = read(pathlib.Path(folder).parent)
    by_name = {item.path: item for item in items.values()}
    expected = pydicom.dcmread(folder)
    modality = expected.pixel_array.astype(np.float64) * expected.RescaleSlope + expected.RescaleIntercept
    assert_pixels(by_name["CT_small.dcm"], modality)
    assert sum(isinstance(item, Image) for item in items.values()) >= 40
    for item in items.values():
        if not isinstance(item, Image):
            assert item.reason.isprintable()
            assert str(tmp_path.anchor + "tmp") not in item.reason
