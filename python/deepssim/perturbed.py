"""The perturbed condition made on the fly: one random view of each image, decided by its id and a seed."""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

from deepssim.image_ops import is_byte_image
from deepssim.perturb import apply_view, draw_view

__all__ = ["perturb_by_id"]


def perturb_by_id(pixels: NDArray[np.float32], image_id: str, seed: int = 0) -> NDArray[np.float32]:
    """Show an image flipped, turned and re-contrasted by the draw that its id and a seed decide.

    The draw is that of the benchmark's condition *perturbed* (`deepssim.perturb.draw_view`): each flip with
    probability .8, rotation within 10 degrees with probability .8, gamma .5 to 1.5 with probability .8. It does not
    depend on which other images there are, nor on their order.

    Args:
        pixels: ``(rows, columns)`` grey values in any unit, finite, not constant.
        image_id: Of the image, such as its path under the folder.
        seed: Of all draws.

    Returns:
        A new float32 array of the same shape and unit. An 8-bit image stays one: its values are whole numbers. Others
        keep to the range from their smallest to their largest value. What comes in from outside is the low end.

    Example:
        >>> image = np.arange(256, dtype=np.float32).reshape(16, 16)
        >>> a, b, c = (perturb_by_id(image, *what) for what in (("a", 0), ("a", 0), ("a", 1)))
        >>> bool((a == b).all()), bool((a == c).all())
        (True, False)
    """
    text = f"perturbed:{seed}:{image_id}".encode("utf-8", "surrogateescape")
    rng = np.random.default_rng(int.from_bytes(hashlib.blake2b(text, digest_size=16).digest(), "little"))
    view = draw_view(rng, "perturbed")
    is_byte = is_byte_image(pixels)
    low, high = (np.float32(0), np.float32(255)) if is_byte else (pixels.min(), pixels.max())
    unit = np.clip((pixels - low) / (high - low), 0, 1).astype(np.float32, copy=False)
    seen = apply_view(unit, view) * (high - low) + low
    return np.asarray(np.rint(seen) if is_byte else seen, np.float32)
