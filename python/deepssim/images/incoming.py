"""Images that come one after the other: made by a program, or read from a stream of bytes."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from deepssim.errors import ImageError
from deepssim.images.frames import Context, check_pixels, hash_pixels, skipped
from deepssim.images.types import Image, ImageOptions, Skipped

__all__ = ["image_of"]


def image_of(
    image_id: str, values: NDArray[Any], *, path: str | None = None, options: ImageOptions | None = None
) -> Image | Skipped:
    """Return an image made by a program, checked as one that was read from a file.

    Args:
        image_id: Unique in its stream.
        values: ``(height, width)`` of a real dtype; grey values as they would stand in a file, copied.
        path: The file that it would be; None: the id.
        options: Limits.

    Returns:
        The image, or why it cannot be used (constant, not finite, too large).

    Example:
        >>> import numpy as np
        >>> image_of("a", np.eye(3, dtype=np.uint8)).pixels.dtype
        dtype('float32')
        >>> image_of("b", np.zeros((3, 3))).code
        'constant'
    """
    name = image_id if path is None else path
    try:
        pixels = check_pixels(values, Context(options or ImageOptions()))
    except (ImageError, MemoryError) as error:
        code = error.code if isinstance(error, ImageError) else "too_large"
        return skipped(image_id, name, ImageError(code, str(error) or "does not fit into memory"))
    return Image(image_id, name, None, pixels, hash_pixels(pixels))
