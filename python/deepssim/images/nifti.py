"""Slices of NIfTI volumes in canonical orientation.

The affine decides which voxel axis is which, so a slice looks the same however the volume was stored: rows
from anterior (axial) or superior (coronal, sagittal) at the top downwards, columns along right (axial,
coronal) or anterior (sagittal). A slice is ``np.rot90`` of the canonical slice.
"""

from __future__ import annotations

import gzip
import io
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from deepssim.errors import ImageError
from deepssim.images.frames import MAX_DECODED_BYTES, Context, Frame, is_number
from deepssim.images.slices import AXES, CANONICAL_AXIS, select_slices
from deepssim.images.text import reason_of
from deepssim.images.types import Image, Skipped

_GZIP_MAGIC = b"\x1f\x8b"
_HEADER_BYTES = {1: 348, 2: 540}
_MAX_OFFSET_BYTES = 2**26
_MAX_TRAILING_BYTES = 2**20
# Deflate cannot pack 1032 bytes into less than one.
_DEFLATE_RATIO = 1032
_N_AXES = 3
_MAX_ITEM_BYTES = 8


class _Volume(NamedTuple):
    shape: tuple[int, int, int]
    dtype: np.dtype[Any]
    offset: int
    slope: float
    intercept: float
    orientation: NDArray[Any]

    @property
    def n_bytes(self) -> int:
        return self.offset + math.prod(self.shape) * self.dtype.itemsize

    @property
    def canonical_shape(self) -> tuple[int, ...]:
        lengths = dict(zip(self.orientation[:, 0].astype(int).tolist(), self.shape, strict=True))
        return tuple(lengths[axis] for axis in range(_N_AXES))


def nifti_frames(data: bytes, context: Context) -> Iterator[Frame]:
    """Decode the chosen slices of a volume; a compressed volume is unpacked once.

    Stored values are scaled by slope and intercept in float64 and rounded to float32.

    Args:
        data: The file, ``.nii`` or ``.nii.gz``.
        context: Limits, the choice of slices, and the wanted slice.

    Yields:
        Frames with the axis and the slice number as key, such as "axial70".

    Raises:
        ImageError: The volume is refused; other exceptions come from a damaged file.
    """
    if not data:
        raise ImageError("empty", "has no bytes")
    packed = gzip.GzipFile(fileobj=io.BytesIO(data)) if data.startswith(_GZIP_MAGIC) else None
    head = _read_packed(packed, _HEADER_BYTES[2]) if packed else data[: _HEADER_BYTES[2]]
    volume = _parse_header(head)
    axis, inside, outside = _choose(volume, context)
    _check_sizes(volume, axis, context)
    if packed and volume.n_bytes > len(data) * _DEFLATE_RATIO:
        raise ImageError("truncated", f"declares {volume.n_bytes:,} bytes, which {len(data):,} cannot hold")
    if not packed and volume.n_bytes > len(data):
        raise ImageError("truncated", f"has {len(data):,} bytes, its header declares {volume.n_bytes:,}")
    with context.budget.reserve(volume.n_bytes if packed else 0):
        stored = _unpack(packed, head, volume.n_bytes) if packed else data
        canonical = _canonical(stored, volume)
        for index in inside:
            plane = canonical.take(index, axis=CANONICAL_AXIS[axis])
            scaled = plane.astype(np.float64) * volume.slope + volume.intercept
            yield Frame(f"{axis}{index}", np.rot90(scaled))
    length = volume.canonical_shape[CANONICAL_AXIS[axis]]
    for term in outside:
        reason = f"slice {term} is outside the volume, which has {length} {axis} slices (0 to {length - 1})"
        yield Frame(f"{axis}{term}", ImageError("unsupported", reason))


def _read_packed(packed: gzip.GzipFile, n_bytes: int) -> bytes:
    try:
        return packed.read(n_bytes)
    except EOFError as error:
        raise ImageError("truncated", "ends inside the compressed header") from error


def _parse_header(head: bytes) -> _Volume:
    import nibabel

    version = _nifti_version(head)
    if len(head) < _HEADER_BYTES[version]:
        raise ImageError("truncated", "ends inside the header")
    # nibabel's methods have no types.
    library: Any = nibabel
    kind = library.Nifti1Header if version == 1 else library.Nifti2Header
    try:
        # What is wrong and matters is checked here; nibabel's own check would log.
        header = kind(head[: _HEADER_BYTES[version]], check=False)
        shape = _volume_shape(header.get_data_shape())
        dtype = header.get_data_dtype()
        offset = int(header.get_data_offset())
        slope, intercept = header.get_slope_inter()
        orientation = library.io_orientation(header.get_best_affine())
    except ImageError:
        raise
    except Exception as error:  # nibabel raises a dozen kinds for a damaged header
        raise ImageError("unreadable", f"has a damaged NIfTI header: {reason_of(error)}") from error
    if dtype.kind not in "iuf" or dtype.itemsize > _MAX_ITEM_BYTES:
        raise ImageError("unsupported", f"holds {_dtype_name(dtype)} voxels; save them as integers or float32")
    if np.isnan(orientation).any():
        raise ImageError("unreadable", "has an affine that leaves out an axis, so its orientation is not defined")
    if not _HEADER_BYTES[version] <= offset <= _MAX_OFFSET_BYTES:
        raise ImageError("unreadable", f"has its voxels at byte {offset:,}")
    return _Volume(
        shape,
        dtype,
        offset,
        1.0 if slope is None else slope,
        0.0 if intercept is None else intercept,
        orientation,
    )


def _nifti_version(head: bytes) -> int:
    for version, magic in ((1, head[344:348]), (2, head[4:8])):
        if magic[:3] == f"n+{version}".encode():
            return version
        if magic[:3] == f"ni{version}".encode():
            raise ImageError("unsupported", "is the header of a pair of files; save the volume as one .nii file")
    if len(head) < _HEADER_BYTES[1]:
        raise ImageError("truncated", "ends inside the header")
    raise ImageError("unreadable", "is no NIfTI file")


def _dtype_name(dtype: np.dtype[Any]) -> str:
    return "colour" if dtype.names else str(dtype)


def _volume_shape(shape: Sequence[int]) -> tuple[int, int, int]:
    lengths = [int(length) for length in shape]
    if not lengths or min(lengths) < 1:
        raise ImageError("empty", f"has the shape {tuple(lengths)}")
    while len(lengths) > _N_AXES and lengths[-1] == 1:
        lengths.pop()
    if len(lengths) > _N_AXES:
        raise ImageError(
            "unsupported",
            f"has {len(lengths)} axes, {tuple(lengths)}; save each volume of the series as a file",
        )
    if len(lengths) == 1:
        raise ImageError("unsupported", "has one axis; it must be a volume or a slice")
    lengths += [1] * (_N_AXES - len(lengths))
    return lengths[0], lengths[1], lengths[2]


def _choose(volume: _Volume, context: Context) -> tuple[str, list[int], list[str]]:
    """Return axis, slice numbers inside the volume, and choices outside it."""
    options = context.options
    if context.wanted is None:
        length = volume.canonical_shape[CANONICAL_AXIS[options.axis]]
        inside, outside = select_slices(options.slices, length)
        return options.axis, inside, outside
    for key in context.wanted:
        for axis in AXES:
            number = key.removeprefix(axis)
            if number != key and is_number(number):
                if int(number) < volume.canonical_shape[CANONICAL_AXIS[axis]]:
                    return axis, [int(number)], []
                raise ImageError("missing", f"there is no slice {number} along the {axis} axis of the volume")
    raise ImageError("missing", "the id names no slice of the volume")


def _check_sizes(volume: _Volume, axis: str, context: Context) -> None:
    lengths = list(volume.canonical_shape)
    n_slices = lengths.pop(CANONICAL_AXIS[axis])
    if min(lengths) == 1 and n_slices > 1:
        thin = next(name for name in AXES if volume.canonical_shape[CANONICAL_AXIS[name]] == 1)
        raise ImageError("unsupported", f"is one slice thick along the {thin} axis; read it with axis '{thin}'")
    context.check_size(lengths[1], lengths[0])
    if volume.n_bytes - volume.offset > MAX_DECODED_BYTES:
        raise ImageError(
            "too_large",
            f"is a volume of {volume.n_bytes - volume.offset:,} bytes, the limit is {MAX_DECODED_BYTES:,}",
        )


def _unpack(packed: gzip.GzipFile, head: bytes, n_bytes: int) -> memoryview:
    """Unpack exactly the declared bytes, and check the checksum at the end of the stream."""
    # np.empty takes memory only as far as it is written: a false size in the header costs nothing.
    buffer = np.empty(n_bytes, np.uint8).data
    done = min(len(head), n_bytes)
    buffer[:done] = head[:done]
    try:
        while done < n_bytes:
            n_read = packed.readinto(buffer[done:])
            if not n_read:
                raise ImageError("truncated", f"unpacks to {done:,} bytes, its header declares {n_bytes:,}")
            done += n_read
        trailing = 0
        while more := packed.read(_MAX_TRAILING_BYTES):
            trailing += len(more)
            if trailing > _MAX_TRAILING_BYTES:
                raise ImageError("unreadable", "unpacks to far more than its header declares")
    except EOFError as error:
        raise ImageError("truncated", "ends inside the compressed voxels") from error
    return buffer


def _canonical(stored: bytes | memoryview, volume: _Volume) -> NDArray[Any]:
    """View the stored voxels as ``(right, anterior, superior)``; no copy."""
    from nibabel import orientations

    voxels: NDArray[Any] = np.frombuffer(stored, volume.dtype, math.prod(volume.shape), volume.offset)
    library: Any = orientations
    canonical: NDArray[Any] = library.apply_orientation(voxels.reshape(volume.shape, order="F"), volume.orientation)
    return canonical


def mark_blank(items: list[Image | Skipped]) -> list[Image | Skipped]:
    """Give constant slices at the ends of a volume the code "blank".

    They are normal where all slices are read.

    Args:
        items: All slices of one volume, in order.

    Returns:
        The same, unless there is no image among them: then the constant slices stay what they are.
    """
    is_constant = [isinstance(item, Skipped) and item.code == "constant" for item in items]
    if all(is_constant):
        return items
    first = is_constant.index(False)
    last = len(items) - is_constant[::-1].index(False)
    return [
        replace(item, code="blank") if isinstance(item, Skipped) and not first <= index < last else item
        for index, item in enumerate(items)
    ]
