"""Pictures of pairs: checked, stripped of everything but pixels, and written as data URIs.

Differences and overlays are made here, from the small pictures, so that a report can be made again years later
without the images themselves.
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
_LEVELS = 253

# Dark in the middle, since it stands beside pictures on black: what agrees sinks into the background. Blue
# and orange stay apart for all common kinds of colour blindness.
DIVERGING: tuple[tuple[float, tuple[int, int, int]], ...] = (
    (-2.0, (166, 216, 255)),
    (-1.0, (47, 117, 196)),
    (0.0, (17, 19, 24)),
    (1.0, (201, 93, 26)),
    (2.0, (255, 214, 140)),
)


# Local correlation -> how much of the warm colour covers the picture. At .8 two images agree as well as a copy does
# after noise and blur; from .2 on there is nothing in common. One scale for all pairs.
WARM_FROM, WARM_FULL = 0.8, 0.2
WARM: tuple[int, int, int] = (255, 112, 16)
_WARM_COVER = 0.88
# Where they agree, grey becomes blue: dark to light, so that the anatomy stays visible.
COOL: tuple[tuple[int, int, int], tuple[int, int, int]] = ((12, 26, 48), (196, 222, 250))
# Outside the overlap nothing is said: stripes that no image has.
HATCH: tuple[tuple[int, int, int], tuple[int, int, int]] = ((34, 36, 40), (84, 88, 94))
_HATCHES = 17  # stripes along the longer side
_OUTSIDE_SHARE = 0.4
_N_COVERS, _N_GREYS, _N_DIMMED = 7, 32, 31


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture as a data URI, with its size (width, height)."""

    uri: str
    size: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Views:
    """The pictures of a pair.

    `difference` is synthetic minus real, of a verified pair minus the real image laid onto it (`aligned`);
    `agreement` shows where these two agree. `is_resized` says that sizes had to be made equal for the difference.
    """

    real: Picture
    synthetic: Picture
    difference: Picture
    is_resized: bool
    aligned: Picture | None = None
    agreement: Picture | None = None


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


def standardise(picture: Image.Image, inside: NDArray[np.bool_] | None = None) -> NDArray[np.float32]:
    """Return the grey values with zero mean and unit variance, float32 ``(height, width)``.

    Mean and variance are those of the pixels `inside`, by default of all. A picture that is constant there has no
    variance and becomes zeros.
    """
    values = np.asarray(picture, dtype=np.float64)
    chosen = values if inside is None else values[inside]
    spread = chosen.std() if chosen.size else 0.0
    if spread == 0:
        return np.zeros(values.shape, np.float32)
    scaled: NDArray[np.float32] = ((values - chosen.mean()) / spread).astype(np.float32)
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
    """Return the diverging map as flat RGB values, from -2 to +2 standard deviations, and the two of `HATCH`."""
    stops = np.array([stop for stop, _ in DIVERGING])
    colours = np.array([colour for _, colour in DIVERGING], dtype=np.float64)
    at = np.linspace(-_LIMIT, _LIMIT, _LEVELS + 1)
    channels = [np.interp(at, stops, colours[:, channel]) for channel in range(3)]
    return [int(value) for value in np.rint(np.stack(channels, axis=1)).ravel()] + [*HATCH[0], *HATCH[1]]


def _stripes(shape: tuple[int, int]) -> NDArray[np.bool_]:
    period = max(4, round(max(shape) / _HATCHES))
    rows, columns = np.indices(shape)
    stripes: NDArray[np.bool_] = (rows + columns) % period < period // 4
    return stripes


def colour(values: NDArray[np.float32], inside: NDArray[np.bool_] | None = None) -> Image.Image:
    """Return a difference in the diverging map, fixed to -2 to +2 standard deviations.

    The scale never adapts to the picture: the same colour means the same difference in every pair.

    Args:
        values: Float32 ``(height, width)`` in standard deviations.
        inside: Where it says something; the rest is hatched.

    Returns:
        A picture with a palette of 256 colours.
    """
    scaled = np.rint((np.clip(values, -_LIMIT, _LIMIT) + _LIMIT) / (2 * _LIMIT) * _LEVELS).astype(np.uint8)
    if inside is not None:
        scaled = np.where(inside, scaled, _LEVELS + 1 + _stripes(values.shape)).astype(np.uint8)
    picture = Image.fromarray(scaled)
    coloured = Image.frombytes("P", picture.size, picture.tobytes())
    coloured.putpalette(palette())
    return coloured


def overlay_palette() -> NDArray[np.uint8]:
    """Return the 256 colours of `overlay`: by cover and grey, then the dimmed greys outside and the stripe.

    The palette is fixed. One made from the picture would average a small deviation away.
    """
    low, high = (np.array(rgb, np.float64) for rgb in COOL)
    cover = np.linspace(0, _WARM_COVER, _N_COVERS)[:, np.newaxis, np.newaxis]
    grey = np.linspace(0, 1, _N_GREYS)[:, np.newaxis]
    inside = (low + grey * (high - low)) * (1 - cover) + np.array(WARM) * cover
    dimmed = np.array(HATCH[0]) + np.linspace(0, 255 * _OUTSIDE_SHARE, _N_DIMMED)[:, np.newaxis]
    colours = np.concatenate([inside.reshape(-1, 3), dimmed, [HATCH[1]]])
    rounded: NDArray[np.uint8] = np.rint(np.clip(colours, 0, 255)).astype(np.uint8)
    return rounded


def overlay(synthetic: Image.Image, correlation: NDArray[np.float32], inside: NDArray[np.bool_]) -> Image.Image:
    """Return a picture coloured by how well it agrees locally: blue where it does, orange where it does not.

    Args:
        synthetic: 8-bit grey picture.
        correlation: Float32 ``(height, width)``, -1 to 1.
        inside: The overlap; outside of it the picture is dimmed and hatched.

    Returns:
        A picture with a palette of 256 colours.
    """
    grey = np.asarray(synthetic, np.float64) / 255
    cover = np.clip((WARM_FROM - correlation) / (WARM_FROM - WARM_FULL), 0, 1)
    within = np.rint(cover * (_N_COVERS - 1)) * _N_GREYS + np.rint(grey * (_N_GREYS - 1))
    outside = _N_COVERS * _N_GREYS + np.rint(grey * (_N_DIMMED - 1))
    levels = np.where(inside, within, np.where(_stripes(correlation.shape), 255, outside)).astype(np.uint8)
    picture = Image.frombytes("P", synthetic.size, levels.tobytes())
    picture.putpalette(overlay_palette().tobytes())
    return picture


def _picture(picture: Image.Image) -> Picture:
    return Picture(data_uri(picture), picture.size)


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
        real=_picture(real),
        synthetic=_picture(synthetic),
        difference=_picture(colour(difference(real, synthetic))),
        is_resized=real.size != synthetic.size,
    )


def verified_views(real_png: Path, synthetic_png: Path, aligned_png: Path, agreement_png: Path) -> Views:
    """Read the pictures of a verified pair and make the difference and the overlay, over the overlap.

    Everything but the real picture is shown in the frame of the synthetic one.

    Args:
        real_png: 8-bit grey PNG.
        synthetic_png: 8-bit grey PNG.
        aligned_png: The real image laid onto the synthetic one, 8-bit grey PNG.
        agreement_png: Local correlation, 8-bit PNG: 0 outside the overlap, 1 to 255 for -1 to 1.

    Returns:
        The five pictures.

    Raises:
        ReportError: A picture is missing or damaged, or the last two differ in size.
    """
    real, synthetic, aligned, agreement = (
        _read_grey(path) for path in (real_png, synthetic_png, aligned_png, agreement_png)
    )
    if aligned.size != agreement.size:
        raise ReportError(
            f"{agreement_png} is {agreement.width} x {agreement.height} pixels, {aligned_png.name} "
            f"{aligned.width} x {aligned.height}, which no audit writes; run the audit again"
        )
    is_resized = aligned.size != synthetic.size
    if is_resized:
        aligned = aligned.resize(synthetic.size, Image.Resampling.BILINEAR)
        # Nearest: a mean with the 0 outside the overlap would pass for disagreement.
        agreement = agreement.resize(synthetic.size, Image.Resampling.NEAREST)
    levels = np.asarray(agreement)
    inside = levels > 0
    correlation = ((levels.astype(np.float32) - 128) / 127).astype(np.float32)
    differing = standardise(synthetic, inside) - standardise(aligned, inside)
    return Views(
        real=_picture(real),
        synthetic=_picture(synthetic),
        difference=_picture(colour(differing, inside)),
        is_resized=is_resized,
        aligned=_picture(aligned),
        agreement=_picture(overlay(synthetic, correlation, inside)),
    )
