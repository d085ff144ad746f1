"""Pictures of pairs: checked, stripped of everything but pixels, and written as data URIs.

The difference of a pair is made here, from the two small pictures, so that a report can be made again
years later without the images themselves.
"""

from __future__ import annotations

import base64
import io
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from deepssim.report.fields import ReportError

# Evidence has at most 256 pixels on its longer side; a file far beyond was not written by an audit.
_MAX_SIDE = 256
_MAX_FILE_SIDE = 4096
_LIMIT = 2.0
_LEVELS = 255

# Dark in the middle, since it stands beside pictures on black: what agrees sinks into the background. Blue
# and orange stay apart for all common kinds of colour blindness.
DIVERGING: tuple[tuple[float, tuple[int, int, int]], ...] = (
    (-2.0, (166, 216, 255)),
    (-1.0, (47, 117, 196)),
    (0.0, (17, 19, 24)),
    (1.0, (201, 93, 26)),
    (2.0, (255, 214, 140)),
)


@dataclass(frozen=True, slots=True)
class Views:
    """The three pictures of a pair as data URIs; `is_resized` says that the sizes had to be made equal."""

    real: str
    synthetic: str
    difference: str
    real_size: tuple[int, int]
    synthetic_size: tuple[int, int]
    difference_size: tuple[int, int]
    is_resized: bool


def _read_grey(path: Path) -> Image.Image:
    """Read an 8-bit grey PNG of the evidence, at most 256 pixels long."""
    try:
        if path.is_symlink():
            raise ReportError(f"{path} is a link; evidence must lie in the audit folder, run the audit again")
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path, formats=("PNG",)) as picture:
                if max(picture.size) > _MAX_FILE_SIDE or picture.mode != "L":
                    raise ReportError(f"{path} is no small 8-bit grey picture; run the audit again")
                picture.load()
                grey = picture.copy()
    except FileNotFoundError:
        raise ReportError(f"{path} is missing; restore it, or make the report without images") from None
    except (
        OSError, SyntaxError, ValueError, UnidentifiedImageError,
        Image.DecompressionBombError, Image.DecompressionBombWarning,
    ) as error:  # fmt: skip
        reason = " ".join(str(error).split())
        raise ReportError(f"{path} is damaged ({reason}); restore it, or make the report without images") from None
    if max(grey.size) > _MAX_SIDE:
        grey.thumbnail((_MAX_SIDE, _MAX_SIDE), Image.Resampling.BOX)
    return grey


def data_uri(picture: Image.Image) -> str:
    """Return a picture as the data URI of a new PNG: pixels and palette, no text, no time, no profile."""
    clean = Image.frombytes(picture.mode, picture.size, picture.tobytes())
    if picture.mode == "P":
        clean.putpalette(picture.getpalette() or [])
    buffer = io.BytesIO()
    clean.save(buffer, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def standardise(picture: Image.Image) -> NDArray[np.float32]:
    """Return the grey values with zero mean and unit variance, float32 ``(height, width)``.

    A constant picture has no variance and becomes zeros.
    """
    values = np.asarray(picture, dtype=np.float64)
    spread = values.std()
    if spread == 0:
        return np.zeros(values.shape, np.float32)
    scaled: NDArray[np.float32] = ((values - values.mean()) / spread).astype(np.float32)
    return scaled


def difference(real: Image.Image, synthetic: Image.Image) -> NDArray[np.float32]:
    """Return synthetic minus real in standard deviations, in the frame of the real picture.

    Both are standardised first, so that a change of brightness or contrast alone is no difference. A
    synthetic picture of another size is resized bilinearly.

    Args:
        real: 8-bit grey picture.
        synthetic: 8-bit grey picture.

    Returns:
        Float32 ``(height, width)`` of the real picture.
    """
    other = standardise(synthetic)
    if real.size != synthetic.size:
        resized = Image.fromarray(other).resize(real.size, Image.Resampling.BILINEAR)
        other = np.asarray(resized, dtype=np.float32)
    return other - standardise(real)


def palette() -> list[int]:
    """Return the 256 colours of the diverging map as flat RGB values, from -2 to +2 standard deviations."""
    stops = np.array([stop for stop, _ in DIVERGING])
    colours = np.array([colour for _, colour in DIVERGING], dtype=np.float64)
    at = np.linspace(-_LIMIT, _LIMIT, _LEVELS + 1)
    channels = [np.interp(at, stops, colours[:, channel]) for channel in range(3)]
    return [int(value) for value in np.rint(np.stack(channels, axis=1)).ravel()]


def colour(values: NDArray[np.float32]) -> Image.Image:
    """Return a difference in the diverging map, fixed to -2 to +2 standard deviations.

    The scale never adapts to the picture: the same colour means the same difference in every pair.

    Args:
        values: Float32 ``(height, width)`` in standard deviations.

    Returns:
        A picture with a palette of 256 colours.
    """
    scaled = (np.clip(values, -_LIMIT, _LIMIT) + _LIMIT) / (2 * _LIMIT) * _LEVELS
    picture = Image.fromarray(np.rint(scaled).astype(np.uint8))
    coloured = Image.frombytes("P", picture.size, picture.tobytes())
    coloured.putpalette(palette())
    return coloured


def views(real_png: Path, synthetic_png: Path) -> Views:
    """Read the two pictures of a pair and make their difference.

    Args:
        real_png: 8-bit grey PNG.
        synthetic_png: 8-bit grey PNG.

    Returns:
        The three pictures.

    Raises:
        ReportError: A picture is missing or damaged.
    """
    real, synthetic = _read_grey(real_png), _read_grey(synthetic_png)
    return Views(
        real=data_uri(real),
        synthetic=data_uri(synthetic),
        difference=data_uri(colour(difference(real, synthetic))),
        real_size=real.size,
        synthetic_size=synthetic.size,
        difference_size=real.size,
        is_resized=real.size != synthetic.size,
    )
