"""PNG, JPEG, TIFF and BMP, through Pillow, at full depth.

The content decides about the format, not the suffix. Pillow's classes for the four formats are used directly,
so that no other decoder of Pillow ever sees the bytes, and the declared size is checked against our own limit
before anything is decoded. Samples of 1, 2 and 4 bits are spread over 0 to 255, as the formats define them
for display; all others are kept as stored.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from deepssim.errors import ImageError
from deepssim.images import tiff
from deepssim.images.frames import Context, Frame, image_error, luma

if TYPE_CHECKING:
    from PIL.ImageFile import ImageFile

_PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
_PNG_HEADER_BYTES = 33
_PNG_COLOUR_OR_ALPHA = (2, 4, 6)
_FULL_DEPTH_BITS = 16
_TIFF_MAGICS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_ORIENTATION = 0x0112
_OPAQUE = 255
# The end mark, and how much may follow it (cameras append their own data).
_JPEG_END = b"\xff\xd9"
_JPEG_TAIL_BYTES = 2**16
_TRANSPARENT = "has transparent pixels, which have no grey value; put it on a background and save it without alpha"


def raster_frames(data: bytes, context: Context) -> Iterator[Frame]:
    """Decode an image file.

    Args:
        data: The file.
        context: Limits and the wanted page.

    Yields:
        One frame, or one for each page of a TIFF file with the number of the page as its key.

    Raises:
        ImageError: The file is refused; other exceptions come from the decoder.
    """
    from PIL import BmpImagePlugin, JpegImagePlugin, PngImagePlugin

    if not data:
        raise ImageError("empty", "has no bytes")
    if data.startswith(_TIFF_MAGICS):
        yield from _tiff_frames(data, context)
        return
    if data.startswith(_PNG_MAGIC):
        _check_png(data, context)
        image: ImageFile = PngImagePlugin.PngImageFile(io.BytesIO(data))
        if getattr(image, "n_frames", 1) > 1:
            raise ImageError("unsupported", "is an animation; save its frames as separate files")
    elif data.startswith(b"\xff\xd8\xff"):
        try:
            image = JpegImagePlugin.JpegImageFile(io.BytesIO(data))
        except (SyntaxError, OSError) as error:
            if _JPEG_END in data[-_JPEG_TAIL_BYTES:]:
                raise
            raise ImageError("truncated", "ends inside the JPEG header") from error
    elif data.startswith(b"BM"):
        image = BmpImagePlugin.BmpImageFile(io.BytesIO(data))
    elif _PNG_MAGIC.startswith(data) or data in {b"\xff", b"\xff\xd8"}:
        raise ImageError("truncated", f"has only {len(data)} bytes")
    else:
        raise ImageError("unreadable", "is no PNG, JPEG, TIFF or BMP file")
    with image:
        context.check_size(image.height, image.width)
        with context.budget.reserve(_decoded_bytes(image.height, image.width)):
            image.load()
            yield Frame(None, _upright(_grey(image), _orientation(image)))


def _decoded_bytes(height: int, width: int) -> int:
    # At most four samples as decoded, the same as an array, and the grey value as float32.
    return height * width * 12


def _check_png(data: bytes, context: Context) -> None:
    """Check the header of a PNG file, of which Pillow would silently drop the lower bytes of deep colour."""
    if len(data) < _PNG_HEADER_BYTES or data[12:16] != b"IHDR":
        code = "truncated" if len(data) < _PNG_HEADER_BYTES else "unreadable"
        raise ImageError(code, "has no whole PNG header")
    width, height, bits, colour = struct.unpack_from(">IIBB", data, 16)
    context.check_size(height, width)
    if bits == _FULL_DEPTH_BITS and colour in _PNG_COLOUR_OR_ALPHA:
        raise ImageError(
            "unsupported", "has 16 bits a channel and colour or alpha; save it as 16-bit grey or 8-bit colour"
        )


def _tiff_frames(data: bytes, context: Context) -> Iterator[Frame]:
    from PIL.TiffImagePlugin import TiffImageFile

    pages = tiff.read_pages(data)
    image: TiffImageFile | None = None
    for index in context.chosen(len(pages)):
        page = pages[index]
        key = str(index) if len(pages) > 1 else None
        try:
            context.check_size(page.height, page.width)
            tiff.check_page(page)
            with context.budget.reserve(_decoded_bytes(page.height, page.width)):
                if image is None:
                    image = _open_tiff(data, index)
                image.seek(index)
                # Pillow applies the orientation of a TIFF page itself.
                image.load()
                values = tiff.correct_page(_grey(image), page)
        except Exception as error:  # one bad page must not take the others with it
            yield Frame(key, image_error(error))
            image = None
            continue
        yield Frame(key, values)


def _open_tiff(data: bytes, index: int) -> Any:
    """Open a TIFF file so that page ``index`` can be reached, also if Pillow cannot read the first page."""
    from PIL.TiffImagePlugin import TiffImageFile

    try:
        return TiffImageFile(io.BytesIO(data))
    except SyntaxError as error:
        if index == 0:
            raise
        raise ImageError("unreadable", "cannot be reached, because the first page cannot be decoded") from error


def _grey(image: ImageFile) -> NDArray[Any]:
    """Return the grey values of a loaded image at full depth.

    Raises:
        ImageError: "unsupported": transparent pixels, or a colour space without a defined luma.
    """
    bands = image.getbands()
    if len(bands) > 1 and bands[-1] in {"A", "a"}:
        if np.asarray(image.getchannel(len(bands) - 1)).min() < _OPAQUE:
            raise ImageError("unsupported", _TRANSPARENT)
    elif "transparency" in image.info:
        _check_transparency(image, image.info["transparency"])
    if image.mode == "1":
        return np.asarray(image.convert("L"))
    if image.mode in {"L", "I", "F"} or image.mode.startswith("I;16"):
        return np.asarray(image)
    if image.mode in {"LA", "La"}:
        return np.asarray(image.getchannel(0))
    if image.mode in {"RGB", "RGBX", "RGBA", "RGBa"}:
        return luma(np.asarray(image)[..., :3])
    if image.mode in {"P", "PA", "CMYK", "YCbCr"}:
        return luma(np.asarray(image.convert("RGB")))
    raise ImageError("unsupported", f"has the colour mode {image.mode}; save it as grey or RGB")


def _check_transparency(image: ImageFile, transparency: Any) -> None:
    """Check that no pixel has the value that the file declares to be transparent."""
    if image.mode == "P":
        alpha = np.asarray(image.convert("RGBA").getchannel(3))
        is_seen = bool(alpha.min() < _OPAQUE)
    elif isinstance(transparency, tuple):
        is_seen = bool((np.asarray(image) == np.array(transparency)).all(axis=-1).any())
    else:
        values = np.asarray(image.convert("L") if image.mode == "1" else image)
        is_seen = bool((values == transparency).any())
    if is_seen:
        raise ImageError("unsupported", _TRANSPARENT)


def _orientation(image: ImageFile) -> int:
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # damaged EXIF: viewers show the image as stored
        return 1


def _upright(values: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Apply an EXIF orientation (TIFF 6.0, tag 274) to ``(height, width)`` values; a view."""
    if orientation in {5, 6, 7, 8}:
        values = values.T
    if orientation in {3, 4, 7, 8}:
        values = values[::-1]
    if orientation in {2, 3, 6, 7}:
        values = values[:, ::-1]
    return values
