"""DICOM images as modality values.

Stored values go through the rescale slope and intercept, or the modality LUT (DICOM PS3.3, C.11.1), and
nothing else: no window, no presentation LUT, no padding value. MONOCHROME1, where large means dark, is turned
round over the range that the stored values can have: ``v`` becomes ``low + high - v``, with low and high from
Bits Stored and Pixel Representation, before the rescale; with a modality LUT, low and high are its smallest
and largest entry. So the rule depends on the header only and is the same for all images of a series.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from deepssim.errors import ImageError
from deepssim.images.frames import MAX_DECODED_BYTES, Context, Frame, luma
from deepssim.images.text import one_line, reason_of

if TYPE_CHECKING:
    from pydicom.dataset import FileDataset

_PREAMBLE_BYTES = 132
_DEFLATED = b"1.2.840.10008.1.2.1.99"
_META_GROUP = 2
_TRANSFER_SYNTAX = 0x0010
_LONG_LENGTH = frozenset({b"OB", b"OW", b"OF", b"OD", b"OL", b"OV", b"SQ", b"UN", b"UT", b"UC", b"UR", b"SV", b"UV"})
_INFLATE_BYTES = 2**20
_PIXELS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
_COLOUR = frozenset({"RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT", "YBR_PARTIAL_420"})
_GREY = frozenset({"MONOCHROME1", "MONOCHROME2"})
_COLOUR_SAMPLES = 3
_MAX_FRAMES = 2**16
_LUT_ENTRIES = 2**16


def is_dicom(start: bytes) -> bool:
    """Say whether a file begins like a DICOM file: "DICM" at byte 128.

    Args:
        start: At least its first 132 bytes.

    Example:
        >>> is_dicom(bytes(128) + b"DICM")
        True
    """
    return start[128:132] == b"DICM"


def dicom_frames(data: bytes, context: Context) -> Iterator[Frame]:
    """Decode the frames of a DICOM file.

    Args:
        data: The file.
        context: Limits and the wanted frame.

    Yields:
        Frames with their number as key where there are several, and the Patient ID as group.

    Raises:
        ImageError: The file is refused; other exceptions come from pydicom.
    """
    if not data:
        raise ImageError("empty", "has no bytes")
    dataset = _read_dataset(data)
    n_frames, decoded_bytes = _check_image(dataset, context)
    group = _patient(dataset)
    chosen = context.chosen(n_frames)
    with context.budget.reserve(decoded_bytes):
        stored_frames = _stored_frames(dataset, chosen, n_frames)
        for index in chosen:
            stored = next(stored_frames, None)
            if stored is None:
                raise ImageError("truncated", f"declares {n_frames:,} frames and ends after {index:,}")
            yield Frame(str(index) if n_frames > 1 else None, _modality_values(stored, dataset, index), group)


def _stored_frames(dataset: FileDataset, chosen: range, n_frames: int) -> Iterator[NDArray[Any]]:
    """Decode frames one after another."""
    from pydicom.pixels.utils import iter_pixels, pixel_array
    from pydicom.uid import JPEG2000TransferSyntaxes

    syntax = dataset.file_meta.TransferSyntaxUID
    try:
        if syntax in JPEG2000TransferSyntaxes:
            # iter_pixels of pydicom 3.0 fails where header and code stream differ in sign, which is common.
            for index in chosen:
                yield pixel_array(dataset, index=index)
        else:
            # indices=None spares pydicom a search for each frame.
            yield from iter_pixels(dataset, indices=None if len(chosen) == n_frames else list(chosen))
    except RuntimeError as error:
        reason = reason_of(RuntimeError(str(error).rpartition("plugins:")[2])).removeprefix("pillow: ")
        if "does not support" not in reason:
            raise ImageError("unreadable", f"cannot be decoded: {reason}") from error
        raise ImageError("unsupported", f"{reason}; to read it: {_install_command(syntax.name)}") from error


def _read_dataset(data: bytes) -> FileDataset:
    from pydicom import dcmread

    has_mark = is_dicom(data)
    _check_deflated(data, _PREAMBLE_BYTES if has_mark else 0)
    try:
        # Old files lack the mark; force lets pydicom guess their encoding.
        dataset = dcmread(io.BytesIO(data), force=not has_mark)
    except MemoryError:
        raise
    except Exception as error:  # pydicom raises a dozen kinds for bytes that are no DICOM
        if has_mark:
            raise
        raise ImageError("unreadable", "is no DICOM file") from error
    if not has_mark and "Rows" not in dataset and "SOPClassUID" not in dataset:
        raise ImageError("unreadable", "is no DICOM file")
    return dataset


def _check_deflated(data: bytes, start: int) -> None:
    """Check how far a deflated data set unpacks, because pydicom unpacks it without a limit."""
    if _DEFLATED not in data:
        return
    is_deflated, end = _scan_meta(data, start)
    if is_deflated is None:
        raise ImageError("unreadable", "has a damaged file meta group")
    if not is_deflated:
        return
    unpacker = zlib.decompressobj(-zlib.MAX_WBITS)
    total, rest = 0, data[end:]
    while rest and not unpacker.eof:
        total += len(unpacker.decompress(rest, _INFLATE_BYTES))
        rest = unpacker.unconsumed_tail
        if total > MAX_DECODED_BYTES:
            raise ImageError("too_large", f"unpacks to more than {MAX_DECODED_BYTES:,} bytes")


def _scan_meta(data: bytes, start: int) -> tuple[bool | None, int]:
    """Walk through the file meta group, which is always explicit little-endian (DICOM PS3.10, 7.1).

    Returns:
        Whether a transfer syntax says deflated (None: the group says none), and where the group ends.
    """
    offset, is_deflated = start, None
    while offset + 8 <= len(data):
        group, element, kind, length = struct.unpack_from("<HH2sH", data, offset)
        if group != _META_GROUP:
            break
        offset += 8
        if kind in _LONG_LENGTH:
            if offset + 4 > len(data):
                break
            (length,) = struct.unpack_from("<I", data, offset)
            offset += 4
        if element == _TRANSFER_SYNTAX:
            is_deflated = bool(is_deflated) or data[offset : offset + length].rstrip(b"\0 ") == _DEFLATED
        offset += length
    return is_deflated, offset


def _check_image(dataset: FileDataset, context: Context) -> tuple[int, int]:
    """Check what the header declares before anything is decoded.

    Returns:
        The number of frames, and the bytes that they take as decoded and as float32.
    """
    from pydicom.pixels.utils import get_expected_length

    if not any(name in dataset for name in _PIXELS):
        raise ImageError("unsupported", f"holds no image ({_kind_of(dataset)}); leave such files out")
    rows, columns = int(dataset.get("Rows") or 0), int(dataset.get("Columns") or 0)
    context.check_size(rows, columns)
    n_frames = max(1, int(dataset.get("NumberOfFrames") or 1))
    samples = max(1, int(dataset.get("SamplesPerPixel") or 1))
    item_bytes = max(1, -(-int(dataset.get("BitsAllocated") or 8) // 8))
    n_bytes = n_frames * rows * columns * samples * item_bytes
    if n_bytes > MAX_DECODED_BYTES or n_frames > _MAX_FRAMES:
        raise ImageError(
            "too_large",
            f"has {n_frames:,} frames of {n_bytes // n_frames:,} bytes; split it into several files",
        )
    _check_colours(dataset, samples)
    syntax = _transfer_syntax(dataset)
    if syntax.is_encapsulated:
        _check_decoder(syntax)
    else:
        pixels = next(dataset[name].value for name in _PIXELS if name in dataset)
        expected = get_expected_length(dataset)
        if len(pixels or b"") < expected:
            raise ImageError("truncated", f"has {len(pixels or b''):,} of {expected:,} bytes of pixels")
    return n_frames, n_bytes + n_frames * rows * columns * 4


def _kind_of(dataset: FileDataset) -> str:
    uid = dataset.get("SOPClassUID") or dataset.file_meta.get("MediaStorageSOPClassUID")
    return one_line(str(getattr(uid, "name", "") or "no SOP class"), 60)


def _check_colours(dataset: FileDataset, samples: int) -> None:
    photometric = str(dataset.get("PhotometricInterpretation") or "")
    is_grey = photometric in _GREY | {"PALETTE COLOR"} and samples == 1
    is_colour = photometric in _COLOUR and samples == _COLOUR_SAMPLES
    if not is_grey and not is_colour:
        raise ImageError(
            "unsupported",
            f"has the photometric interpretation '{one_line(photometric, 40)}' with {samples} samples "
            "a pixel; convert it to MONOCHROME2",
        )
    if photometric == "MONOCHROME1" and "PixelData" not in dataset:
        raise ImageError("unsupported", "is MONOCHROME1 with float pixels; convert it to MONOCHROME2")


def _transfer_syntax(dataset: FileDataset) -> Any:
    """Return the transfer syntax; a file without one gets that of the encoding with which it was read."""
    from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

    syntax = dataset.file_meta.get("TransferSyntaxUID")
    if not syntax:
        is_implicit, is_little = dataset.original_encoding
        explicit = ExplicitVRLittleEndian if is_little else ExplicitVRBigEndian
        syntax = ImplicitVRLittleEndian if is_implicit else explicit
        dataset.file_meta.TransferSyntaxUID = syntax
    if syntax.is_private or not syntax.is_transfer_syntax:
        raise ImageError("unsupported", f"has the transfer syntax {one_line(str(syntax), 70)}; convert it")
    return syntax


def _check_decoder(syntax: Any) -> None:
    from pydicom.pixels.decoders.base import get_decoder

    name = one_line(str(syntax.name), 80)
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError as error:
        raise ImageError("unsupported", f"is compressed as {name}; decompress it first") from error
    if decoder.is_available:
        return
    raise ImageError("unsupported", f"is compressed as {name}; to read it: {_install_command(name)}")


def _install_command(syntax_name: str) -> str:
    if "JPEG-LS" in syntax_name:
        return "pip install pyjpegls"
    if "2000" in syntax_name:
        return "pip install pylibjpeg pylibjpeg-openjpeg"
    return "pip install python-gdcm"


def _patient(dataset: FileDataset) -> str | None:
    patient = str(dataset.get("PatientID") or "").strip(" \0\t\r\n")
    # Parquet needs valid UTF-8, and a wrongly declared character set can leave lone surrogates.
    return patient.encode("utf-8", "backslashreplace").decode("utf-8") or None


def _modality_values(stored: NDArray[Any], dataset: FileDataset, index: int) -> NDArray[Any]:
    """Return the grey values of one decoded frame."""
    from pydicom.pixels.processing import apply_color_lut

    photometric = str(dataset.PhotometricInterpretation)
    if photometric == "PALETTE COLOR":
        return luma(apply_color_lut(stored, dataset))
    if photometric in _COLOUR:
        return luma(stored)
    is_inverted = photometric == "MONOCHROME1"
    if dataset.get("ModalityLUTSequence"):
        return _look_up(stored, dataset, is_inverted=is_inverted)
    if is_inverted:
        # low + high of the stored range: -1 for two's complement, 2^bits - 1 otherwise.
        ends = -1 if dataset.get("PixelRepresentation") else 2 ** int(dataset.BitsStored) - 1
        stored = ends - stored.astype(np.int64)
    slope, intercept = _rescale(dataset, index)
    if (slope, intercept) == (1.0, 0.0):
        return stored
    return stored.astype(np.float64) * slope + intercept


def _rescale(dataset: FileDataset, index: int) -> tuple[float, float]:
    """Return slope and intercept: of the frame, of all frames (enhanced objects), or of the file."""
    per_frame = dataset.get("PerFrameFunctionalGroupsSequence") or []
    shared = dataset.get("SharedFunctionalGroupsSequence") or []
    for groups in (per_frame[index : index + 1], shared[:1]):
        for group in groups:
            for item in group.get("PixelValueTransformationSequence") or []:
                return _number(item.get("RescaleSlope"), 1.0), _number(item.get("RescaleIntercept"), 0.0)
    return _number(dataset.get("RescaleSlope"), 1.0), _number(dataset.get("RescaleIntercept"), 0.0)


def _number(value: Any, default: float) -> float:
    return default if value is None or value == "" else float(value)


def _look_up(stored: NDArray[Any], dataset: FileDataset, *, is_inverted: bool) -> NDArray[Any]:
    """Apply the modality LUT (DICOM PS3.3, C.11.1.1): values beyond its ends take the first or last entry."""
    item = dataset.ModalityLUTSequence[0]
    n_entries, first, bits = (int(number) for number in item.LUTDescriptor)
    n_entries = n_entries or _LUT_ENTRIES
    raw = item.LUTData
    if isinstance(raw, bytes):
        order = "<" if dataset.original_encoding[1] else ">"
        table = np.frombuffer(raw, f"{order}u2") if len(raw) >= 2 * n_entries else np.frombuffer(raw, np.uint8)
    else:
        table = np.atleast_1d(np.asarray(raw, np.int64))
    if bits not in range(1, 17) or len(table) < n_entries:
        raise ImageError("unreadable", f"has a modality LUT of {len(table):,} instead of {n_entries:,} entries")
    table = table[:n_entries].astype(np.int64)
    if is_inverted:
        table = table.min() + table.max() - table
    return table[np.clip(stored.astype(np.int64) - first, 0, n_entries - 1)]
