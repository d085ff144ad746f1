"""From a decoded frame to a checked image.

Every format yields frames: a key (which image of the file), and either a 2-D array of raw values or the
reason why there is none. What follows is the same for all: check, convert to float32, hash, name.
"""

from __future__ import annotations

import contextlib
import hashlib
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from deepssim.errors import ImageError, MissingDependencyError
from deepssim.images.text import reason_of
from deepssim.images.types import Image, ImageOptions, Skipped

MAX_DECODED_BYTES = 2**31
"""The most bytes that one file may unpack to, and that the images kept of one task may take."""

# Luma of ITU-R BT.601-7, section 2.5.1.
_LUMA = (0.299, 0.587, 0.114)
_LUMA_BLOCK_PIXELS = 2**20
_MAX_DIGITS = 12

_TRUNCATED = (
    "truncated",
    "incomplete",
    "unexpected end",
    "requires a buffer",
    "ended before",
    "premature",
    "end of file",
    "not enough",
    "must be at least",
)


class Frame(NamedTuple):
    """One image of a file before the checks.

    Args:
        key: What stands behind "#" in the id; None for the image of a one-image file.
        values: ``(height, width)`` of any real dtype, or why there is none.
        group: The patient that the file itself names.
    """

    key: str | None
    values: NDArray[Any] | ImageError
    group: str | None = None


class Budget:
    """Lets threads unpack large files at the same time only as far as a number of bytes allows.

    A single file that is larger than the limit waits until no other is unpacked. Each thread reserves once at
    a time, so that waiting cannot block for ever.
    """

    def __init__(self, limit_bytes: int = MAX_DECODED_BYTES) -> None:
        """Start with nothing reserved.

        Args:
            limit_bytes: The sum that may be reserved.
        """
        self._limit = limit_bytes
        self._reserved = 0
        self._changed = threading.Condition()

    @contextlib.contextmanager
    def reserve(self, n_bytes: int) -> Iterator[None]:
        """Wait until so many bytes are free, and hold them.

        Args:
            n_bytes: Bytes that will be needed.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._reserved == 0 or self._reserved + n_bytes <= self._limit)
            self._reserved += n_bytes
        try:
            yield
        finally:
            with self._changed:
                self._reserved -= n_bytes
                self._changed.notify_all()


@dataclass(frozen=True, slots=True)
class Context:
    """What a decoder has to know.

    Args:
        options: How images are read.
        budget: Shared by the threads of one reading.
        is_stopped: Says whether the reader has gone, so that the rest need not be decoded.
        wanted: For reading one image again: the keys that its id can mean, longest first. None: all images.
        with_file_groups: Whether a patient that the file names becomes the group.
    """

    options: ImageOptions
    budget: Budget = field(default_factory=Budget)
    is_stopped: Callable[[], bool] = lambda: False
    wanted: tuple[str, ...] | None = None
    with_file_groups: bool = True

    def chosen(self, n_frames: int) -> range:
        """Return the frames to decode: all, or the one that is wanted.

        Args:
            n_frames: Frames in the file; a file of one frame has no keys.

        Raises:
            ImageError: "missing": the wanted frame does not exist.
        """
        if self.wanted is None or n_frames == 1:
            return range(n_frames)
        for key in self.wanted:
            if is_number(key) and int(key) < n_frames:
                return range(int(key), int(key) + 1)
        raise ImageError("missing", f"there is no such image in the file, which has {n_frames:,}")

    def check_size(self, height: int, width: int) -> None:
        """Check the declared size of one image before anything is decoded.

        Args:
            height: In pixels.
            width: In pixels.

        Raises:
            ImageError: "empty" or "too_large".
        """
        if height < 1 or width < 1:
            raise ImageError("empty", f"has {width} x {height} pixels")
        if height * width > self.options.max_pixels:
            raise ImageError(
                "too_large",
                f"has {width:,} x {height:,} pixels, the limit is {self.options.max_pixels:,} in all",
            )


def is_number(text: str) -> bool:
    """Say whether a key is a plain frame number.

    Args:
        text: A key.

    Example:
        >>> is_number("12"), is_number("-1")
        (True, False)
    """
    return text.isascii() and text.isdigit() and len(text) <= _MAX_DIGITS


def luma(colour: NDArray[Any]) -> NDArray[np.float32]:
    """Return the luma of a colour image: .299 R + .587 G + .114 B (ITU-R BT.601).

    Computed in float64 and rounded once, so where R = G = B it is exactly that value.

    Args:
        colour: ``(height, width, 3)`` of integers of at most 16 bits, in any unit.

    Returns:
        ``(height, width)`` in the same unit.

    Example:
        >>> luma(np.full((1, 2, 3), 254, np.uint8)).tolist()
        [[254.0, 254.0]]
    """
    height, width = colour.shape[:2]
    grey = np.empty((height, width), np.float32)
    rows = max(1, _LUMA_BLOCK_PIXELS // max(1, width))
    for top in range(0, height, rows):
        block = colour[top : top + rows].astype(np.float64)
        grey[top : top + rows] = sum(weight * block[..., band] for band, weight in enumerate(_LUMA))
    return grey


def check_pixels(values: NDArray[Any], context: Context) -> NDArray[np.float32]:
    """Convert raw values to float32 and check that they are an image.

    Values are kept as they are, never rescaled or clipped; integers beyond 2^24 and float64 are rounded to
    the nearest float32. Negative zero becomes zero, so that equal images are equal bytes.

    Args:
        values: ``(height, width)`` of a real dtype, in any byte order and layout.
        context: Limits.

    Returns:
        ``(height, width)``, C-contiguous; a new array.

    Raises:
        ImageError: "empty", "too_large", "not_finite" or "constant".
    """
    height, width = values.shape
    context.check_size(height, width)
    with np.errstate(over="ignore", invalid="ignore"):
        pixels = np.array(values, dtype=np.float32, order="C", copy=True)
    n_bad = pixels.size - int(np.count_nonzero(np.isfinite(pixels)))
    if n_bad:
        raise ImageError(
            "not_finite",
            f"{n_bad:,} of {pixels.size:,} pixels are NaN, infinite or beyond the range of float32",
        )
    if pixels.min() == pixels.max():
        raise ImageError("constant", f"all pixels have the value {pixels.flat[0]:g}")
    pixels += np.float32(0)
    return pixels


def hash_pixels(pixels: NDArray[np.float32]) -> str:
    """Return the BLAKE2b-128 of shape and pixels in hexadecimal.

    Args:
        pixels: ``(height, width)``, C-contiguous.

    Example:
        >>> len(hash_pixels(np.zeros((2, 3), np.float32)))
        32
    """
    digest = hashlib.blake2b(np.array(pixels.shape, "<u8").tobytes(), digest_size=16)
    digest.update(np.ascontiguousarray(pixels, "<f4").data)
    return digest.hexdigest()


def image_error(error: Exception) -> ImageError:
    """Turn any exception of a decoder into a code and one line.

    Args:
        error: What a decoder raised.
    """
    if isinstance(error, ImageError):
        return error
    if isinstance(error, MemoryError):
        return ImageError("too_large", "does not fit into memory")
    name = type(error).__name__
    reason = reason_of(error)
    if name.startswith("DecompressionBomb"):
        return ImageError("too_large", f"refused by Pillow: {reason}")
    if isinstance(error, EOFError) or any(word in reason.lower() for word in _TRUNCATED):
        return ImageError("truncated", f"ends before the image does: {reason}")
    return ImageError("unreadable", f"cannot be decoded: {reason}")


def collect(
    frames: Iterable[Frame], base_id: str, path: str, group: str | None, context: Context
) -> list[Image | Skipped]:
    """Check and name all frames of a file.

    Args:
        frames: From a decoder, which may raise anything at any frame; what came before is kept.
        base_id: Id of the file.
        path: Its relative POSIX path.
        group: Its group; a frame that names one itself has that, where files decide about groups.
        context: Limits.

    Returns:
        Images and what was left out, in the order of the frames.

    Raises:
        MissingDependencyError: A package is missing.
    """
    items: list[Image | Skipped] = []
    kept_bytes = 0
    try:
        for frame in frames:
            if context.is_stopped():
                break
            frame_id = base_id if frame.key is None else f"{base_id}#{frame.key}"
            try:
                if isinstance(frame.values, ImageError):
                    raise frame.values
                pixels = check_pixels(frame.values, context)
            except (ImageError, MemoryError) as error:
                items.append(skipped(frame_id, path, image_error(error)))
                continue
            kept_bytes += pixels.nbytes
            if kept_bytes > MAX_DECODED_BYTES:
                raise ImageError("too_large", "the images in the file take more than 2 GiB; split the file")
            own_group = frame.group if context.with_file_groups else None
            items.append(Image(frame_id, path, own_group or group, pixels, hash_pixels(pixels)))
    except MissingDependencyError:
        raise
    except Exception as error:  # a decoder of hostile bytes can raise anything
        items.append(skipped(base_id, path, image_error(error)))
    return items


def skipped(image_id: str, path: str, error: ImageError) -> Skipped:
    """Return the record of an image that is left out.

    Args:
        image_id: Its id.
        path: Its file.
        error: Why.
    """
    return Skipped(image_id, path, error.code, str(error))
