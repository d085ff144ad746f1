"""What happens to an image before a metric's graph sees it: its grey values and its size.

Everything that a graph cannot do itself, since images come in any size and unit, is here; the rest (scaling,
normalisation, repeated channels) is inside the graph, and so under the bundle's hash.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from deepssim.image_ops import byte_grey, resize_area

__all__ = ["FITS", "GREYS", "INTERPOLATIONS", "RESIZES", "InputRule"]

GREYS = ("raw", "byte")
RESIZES = ("area", "adaptive", "clip")
# Of the resize "clip": OpenCLIP's resize_mode.
FITS = ("shortest", "longest", "squash")
INTERPOLATIONS = ("bicubic", "bilinear")
# Longer over shorter side beyond which OpenCLIP's resize would take any memory for what is cut off afterwards.
_MOST_ASPECT = 32

Pixels = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class InputRule:
    """How an image of any size and unit becomes the input of a graph.

    Attributes:
        height: Rows of the input, in pixels.
        width: Columns of the input, in pixels.
        resize: ``"area"``: each pixel is the mean over the rectangle that it covers, fractions included
            (`deepssim.image_ops.resize_area`). ``"adaptive"``: the mean over whole pixels from the rectangle's floor to
            its ceiling, as PyTorch's adaptive average pooling and MONAI's ``Resize(mode="area")`` take it; an enlarged
            image repeats pixels. ``"clip"``: OpenCLIP's, Pillow's filter on 8-bit values, then `fit`.
        grey: ``"raw"``: values as the reader has them; the graph's rule does not depend on the unit. ``"byte"``: from 0
            to 255 (`deepssim.image_ops.byte_grey`).
        fit: Of ``"clip"``: ``"shortest"`` (the shorter side fits, the rest is cut off), ``"longest"`` (the longer one
            fits, the rest is filled) or ``"squash"`` (both fit).
        interpolation: Of ``"clip"``: ``"bicubic"`` or ``"bilinear"``.
        fill: Of ``"clip"`` and ``"longest"``: the value about the image, from 0 to 255.

    Raises:
        ValueError: A field is none of these; the message names all that are.
    """

    height: int
    width: int
    resize: str = "area"
    grey: str = "raw"
    fit: str = "shortest"
    interpolation: str = "bicubic"
    fill: int = 0

    def __post_init__(self) -> None:
        """Check the fields, since they may come from somebody's file."""
        for name, known in (("resize", RESIZES), ("grey", GREYS), ("fit", FITS), ("interpolation", INTERPOLATIONS)):
            if getattr(self, name) not in known:
                raise ValueError(f"input.{name} {getattr(self, name)!r}: known are {', '.join(known)}")
        if min(self.height, self.width) < 1:
            raise ValueError(f"an input of {self.height} x {self.width} pixels: a size below 1")
        if not 0 <= self.fill <= 255:
            raise ValueError(f"input.fill {self.fill}: a grey value from 0 to 255")
        if self.resize == "clip" and self.grey != "byte":
            raise ValueError("the resize clip works on 8-bit values: its input.grey is byte")

    @property
    def size(self) -> tuple[int, int]:
        """Rows and columns of the input."""
        return self.height, self.width

    def apply(self, pixels: Pixels) -> Pixels:
        """Prepare an image.

        Args:
            pixels: ``(rows, columns)`` float32, in any unit, finite.

        Returns:
            ``(height, width)`` float32; the same array where nothing is to do.

        Raises:
            ValueError: The image has not two dimensions, or no pixels, or not finite ones.

        Example:
            >>> rule = InputRule(1, 3, resize="adaptive", grey="byte")
            >>> rule.apply(np.array([[0, 10], [20, 30]], np.float32))
            array([[10., 15., 20.]], dtype=float32)
        """
        grey = byte_grey(pixels) if self.grey == "byte" else pixels
        # OpenCLIP's filters work on 8-bit values, also where nothing is resized.
        if self.resize == "clip":
            return _resize_clip(grey, self)
        if grey.shape == self.size:
            return grey
        grey = np.ascontiguousarray(grey)
        return (resize_area if self.resize == "area" else _resize_adaptive)(grey, self.height, self.width)

    def as_metadata(self) -> dict[str, Any]:
        """Return as in a bundle's metadata; what is as it always was is left out.

        Example:
            >>> InputRule(136, 112).as_metadata()
            {'height': 136, 'width': 112, 'channels': 1, 'resize': 'area'}
        """
        told: dict[str, Any] = {"height": self.height, "width": self.width, "channels": 1, "resize": self.resize}
        if self.grey != "raw":
            told["grey"] = self.grey
        if self.resize == "clip":
            told |= {"fit": self.fit, "interpolation": self.interpolation, "fill": self.fill}
        return told

    @classmethod
    def from_metadata(cls, value: Any) -> Self:
        """Read a bundle's metadata.

        Raises:
            ValueError: A field is none that is known.
            TypeError: The entry is something else.
            KeyError: It lacks a field.
        """
        return cls(
            int(value["height"]),
            int(value["width"]),
            str(value["resize"]),
            str(value.get("grey", "raw")),
            str(value.get("fit", "shortest")),
            str(value.get("interpolation", "bicubic")),
            int(value.get("fill", 0)),
        )


def _resize_adaptive(image: Pixels, height: int, width: int) -> Pixels:
    """Take means over whole pixels, rows then columns; sums in float64, which 8-bit values leave exact."""
    rows = _window_sums(image.astype(np.float64), height)
    sums = _window_sums(np.ascontiguousarray(rows.T), width).T
    n_rows, n_columns = (np.subtract(*_windows(n, m)[::-1]) for n, m in zip(image.shape, (height, width), strict=True))
    return np.ascontiguousarray(sums / np.outer(n_rows, n_columns), np.float32)


def _windows(n: int, n_out: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return where each of the windows begins and ends: floor(i n / n_out) to ceil((i + 1) n / n_out)."""
    places = np.arange(n_out, dtype=np.int64)
    return places * n // n_out, -(-(places + 1) * n // n_out)


def _window_sums(rows: NDArray[np.float64], n_out: int) -> NDArray[np.float64]:
    total = np.zeros((len(rows) + 1, rows.shape[1]))
    np.cumsum(rows, axis=0, out=total[1:])
    begin, end = _windows(len(rows), n_out)
    return np.asarray(total[end] - total[begin])


def _resize_clip(grey: Pixels, rule: InputRule) -> Pixels:
    """Resize and crop as OpenCLIP's evaluation transforms do, with the same filters and roundings."""
    # Heavy, and of these metrics alone.
    from PIL import Image

    filters = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}
    seen = _trimmed(grey) if rule.fit == "shortest" else grey
    rows, columns = _fitted(seen.shape, rule)
    # OpenCLIP forgets its interpolation where the input is no square.
    is_default = rule.fit == "shortest" and rule.height != rule.width
    resized = Image.fromarray(np.rint(seen).astype(np.uint8)).resize(
        (columns, rows), filters["bicubic" if is_default else rule.interpolation]
    )
    canvas = Image.new(
        "L", (max(columns, rule.width), max(rows, rule.height)), rule.fill if rule.fit == "longest" else 0
    )
    canvas.paste(resized, ((canvas.width - columns) // 2, (canvas.height - rows) // 2))
    top, left = round((canvas.height - rule.height) / 2), round((canvas.width - rule.width) / 2)
    cut = np.asarray(canvas, np.float32)[top : top + rule.height, left : left + rule.width]
    return np.ascontiguousarray(cut)


def _trimmed(grey: Pixels) -> Pixels:
    """Return the middle of an image that is thinner than any sensible one."""
    most = _MOST_ASPECT * min(grey.shape)
    top, left = (max(0, (side - most) // 2) for side in grey.shape)
    return grey[top : top + most, left : left + most]


def _fitted(shape: tuple[int, ...], rule: InputRule) -> tuple[int, int]:
    """Return rows and columns before anything is cut off or filled."""
    rows, columns = shape
    if rule.fit == "squash":
        return rule.size
    if rule.fit == "shortest" and rule.height == rule.width:
        # torchvision's Resize cuts the longer side down to a whole number.
        longer = rule.height * max(shape) // min(shape)
        return (rule.height, longer) if rows <= columns else (longer, rule.width)
    ratios = rows / rule.height, columns / rule.width
    ratio = max(ratios) if rule.fit == "longest" else min(ratios)
    return max(1, round(rows / ratio)), max(1, round(columns / ratio))
