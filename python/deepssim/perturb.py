"""Make known copies of an image: artefacts, local changes of anatomy, and views.

Three things can happen to an image that a generative model has memorised. *Artefacts* leave every
structure where it was (`degrade`: an exact copy). *Local changes* move or alter a few structures
(`deform`, `lesion`: a near copy). A *view* moves the image as a whole (`draw_view`, `apply_view`) and
changes nothing about what it copies.

Images are float32 arrays of shape ``(height, width)`` with values in [0, 1]. Lengths named ``_px`` are
pixels at a shorter side of 112 pixels and grow with the image; relative lengths are parts of the
shorter side. Intensities are parts of the image's own range (maximum minus minimum). Every draw comes
from the generator that is passed in, so the same seed gives the same image.

The ranges are those of the benchmark with known truth; a figure under other ranges is another benchmark.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from deepssim.errors import UsageError
from deepssim.perturb_grid import block_mean, convolve, sample

Image = NDArray[np.float32]
ViewKind = Literal["aligned", "perturbed", "hard"]

REFERENCE_SIDE_PX = 112.0
BLUR_SIGMA_PX = (0.25, 0.9)
BIAS_AMPLITUDE = 0.12
GAMMA = (0.8, 1.25)
NOISE_SIGMA = (0.005, 0.03)
BUMP_AMPLITUDE_PX = (2.5, 5.0)
BUMP_COUNT = (1, 3)
BUMP_WIDTH = (0.07, 0.14)
LESION_AMPLITUDE = (0.3, 0.5)
LESION_WIDTH = (0.025, 0.05)
LESION_PROBABILITY = 0.4

_TRUNCATE_SIGMAS = 4.0
_BIAS_ORDER = 3
# Structure is judged on a grid of about this many cells along the shorter side: fine enough to tell a
# ventricle from the white matter beside it, coarse enough to cost nothing.
_STRUCTURE_CELLS = 28
_STRUCTURE_SIGMA = 0.05
_FOREGROUND_LEVEL = 0.1


@dataclass(frozen=True, slots=True)
class View:
    """One way of looking at an image: flips, rotation and zoom about the centre, shift, gamma, in this order.

    Attributes:
        flip_rows: Whether the order of the rows is reversed (upside down).
        flip_columns: Whether the order of the columns is reversed (left and right exchanged).
        angle_deg: Rotation in degrees, counter-clockwise as the image is seen (rows downwards).
        shift_px: Shift (rows, columns), in pixels at a shorter side of 112 pixels; positive is down, right.
        zoom: Magnification; above 1 makes structures larger.
        gamma: Exponent of the grey values.
    """

    flip_rows: bool = False
    flip_columns: bool = False
    angle_deg: float = 0.0
    shift_px: tuple[float, float] = (0.0, 0.0)
    zoom: float = 1.0
    gamma: float = 1.0


def gaussian_blur(image: Image, sigma_px: float) -> Image:
    """Blur an image with a Gaussian.

    Separable; borders are reflected with the edge pixel repeated (``d c b a | a b c d``); the kernel ends
    at 4 sigma, rounded to the nearest pixel.

    Args:
        image: Real array of shape ``(height, width)``; any finite values.
        sigma_px: Standard deviation in pixels of this image (not scaled); 0 returns a copy.

    Returns:
        A new float32 array of the same shape.

    Raises:
        UsageError: The image is not 2-D or is empty, or sigma is negative or not finite.

    Example:
        >>> import numpy as np
        >>> blurred = gaussian_blur(np.eye(9, dtype=np.float32), 1.0)
        >>> round(float(blurred.sum()), 3)
        9.0
    """
    array = _as_grid(image)
    if not 0.0 <= sigma_px < np.inf:
        raise UsageError(f"gaussian_blur: sigma_px is {sigma_px}; give a number of pixels that is 0 or more")
    radius = int(_TRUNCATE_SIGMAS * sigma_px + 0.5)
    if radius == 0:
        return array.copy()
    offsets = np.arange(radius + 1)
    taps = np.exp(-0.5 * (offsets / sigma_px) ** 2)
    taps = (taps / (2.0 * taps.sum() - taps[0])).astype(np.float32)
    for axis in (0, 1):
        array = convolve(array, taps, axis)
    return array


def degrade(image: Image, rng: np.random.Generator, *, strength: float = 1.0) -> Image:
    """Add artefacts that know nothing of anatomy; the result is an exact copy of the image.

    In this order: Gaussian blur (sigma .25 to .9 px at a shorter side of 112 px), a smooth multiplicative
    bias field (largest deviation 12 %), gamma (.8 to 1.25, log-uniform), Gaussian noise (standard deviation
    .005 to .03 of the image's range), and clipping to [0, 1].

    Args:
        image: Float array of shape ``(height, width)`` with values in [0, 1].
        rng: Source of every draw.
        strength: Factor on every artefact (on the logarithm of gamma); 0 changes nothing.

    Returns:
        A new float32 array of the same shape with values in [0, 1].

    Raises:
        UsageError: The image is not 2-D, not floating, empty or outside [0, 1], or strength is negative.

    Example:
        >>> import numpy as np
        >>> from deepssim.phantom import make_patient, render
        >>> image = render(make_patient(1), noise_seed=1)
        >>> copy = degrade(image, np.random.default_rng(0))
        >>> bool(np.corrcoef(image.ravel(), copy.ravel())[0, 1] > 0.95)
        True
    """
    array = _check_image(image, "degrade")
    if not 0.0 <= strength < np.inf:
        raise UsageError(f"degrade: strength is {strength}; give a number that is 0 or more")
    scale = _pixel_scale(array)
    sigma = strength * rng.uniform(*BLUR_SIGMA_PX) * scale
    field = _bias_field(array.shape, rng)
    gamma = np.exp(strength * rng.uniform(np.log(GAMMA[0]), np.log(GAMMA[1])))
    noise = strength * rng.uniform(*NOISE_SIGMA) * _value_range(array)
    out = gaussian_blur(array, sigma)
    out *= np.float32(1.0) + np.float32(strength * BIAS_AMPLITUDE) * field
    out = _gamma(out, gamma)
    out += np.float32(noise) * rng.standard_normal(array.shape, dtype=np.float32)
    return _clipped(out)


def deform(
    image: Image,
    rng: np.random.Generator,
    *,
    amplitude_px: tuple[float, float] = BUMP_AMPLITUDE_PX,
    n_bumps: tuple[int, int] = BUMP_COUNT,
) -> Image:
    """Move a few structures by smooth, local displacements, so that the anatomy really deviates.

    Each bump is a Gaussian of standard deviation 7 to 14 % of the shorter side that displaces in one random
    direction. A displacement where the image is flat would change nothing, so its centre is drawn on the
    foreground (grey value above a tenth of the range) with a probability proportional to the gradient nearby
    (root mean square under a Gaussian of 5 % of the shorter side). Bumps keep the sum of
    their widths apart where the image has room, so that together they do not fold it.

    Args:
        image: Float array of shape ``(height, width)`` with values in [0, 1].
        rng: Source of every draw.
        amplitude_px: Smallest and largest peak displacement, in pixels at a shorter side of 112 pixels.
        n_bumps: Smallest and largest number of bumps.

    Returns:
        A new float32 array of the same shape with values in [0, 1]; the edge is repeated outside.

    Raises:
        UsageError: The image is unusable (see `degrade`), or a range is negative or reversed.

    Example:
        >>> import numpy as np
        >>> from deepssim.phantom import make_patient, render
        >>> image = render(make_patient(1), noise_seed=None)
        >>> bool(np.abs(deform(image, np.random.default_rng(0)) - image).max() > 0.1)
        True
    """
    array = _check_image(image, "deform")
    _check_range(amplitude_px, "deform: amplitude_px")
    _check_range(n_bumps, "deform: n_bumps")
    side = min(array.shape)
    rows = np.arange(array.shape[0], dtype=np.float64)[:, None]
    columns = np.arange(array.shape[1], dtype=np.float64)[None, :]
    d_rows = np.zeros(array.shape)
    d_columns = np.zeros(array.shape)
    bump, part = np.empty(array.shape), np.empty(array.shape)
    weights = _structure(array)
    placed: list[tuple[float, float, float]] = []
    for _ in range(int(rng.integers(n_bumps[0], n_bumps[1], endpoint=True))):
        width = rng.uniform(*BUMP_WIDTH) * side
        amplitude = rng.uniform(*amplitude_px) * _pixel_scale(array)
        angle = rng.uniform(0.0, 2.0 * np.pi)
        row, column = _draw_centre(array.shape, weights, placed, width, rng)
        placed.append((row, column, width))
        bump_rows = amplitude * np.exp(-0.5 * ((rows - row) / width) ** 2)
        np.multiply(bump_rows, np.exp(-0.5 * ((columns - column) / width) ** 2), out=bump)
        d_rows += np.multiply(np.sin(angle), bump, out=part)
        d_columns += np.multiply(np.cos(angle), bump, out=part)
    d_rows += rows
    d_columns += columns
    # Chest films reach the edge: zeros from outside would be a black rim, which is not a change of anatomy.
    np.clip(d_rows, 0.0, array.shape[0] - 1.0, out=d_rows)
    np.clip(d_columns, 0.0, array.shape[1] - 1.0, out=d_columns)
    return sample(array, d_rows, d_columns)


def lesion(image: Image, rng: np.random.Generator) -> Image:
    """Add one local intensity lesion to the foreground.

    A Gaussian spot of standard deviation 2.5 to 5 % of the shorter side whose peak is .3 to .5 of the image's
    range. Its sign is drawn, and turned where the spot would leave [0, 1] by more than the other sign does.

    Args:
        image: Float array of shape ``(height, width)`` with values in [0, 1].
        rng: Source of every draw.

    Returns:
        A new float32 array of the same shape with values in [0, 1].

    Raises:
        UsageError: The image is unusable (see `degrade`).

    Example:
        >>> import numpy as np
        >>> grey = np.full((64, 64), 0.5, dtype=np.float32)
        >>> grey[0] = 0.0
        >>> round(float(np.abs(lesion(grey, np.random.default_rng(0)) - grey).max()), 1)
        0.2
    """
    array = _check_image(image, "lesion")
    width = rng.uniform(*LESION_WIDTH) * min(array.shape)
    amplitude = rng.uniform(*LESION_AMPLITUDE) * _value_range(array)
    row, column = _draw_centre(array.shape, _foreground(array), [], width, rng)
    sign = 1.0 if rng.random() < 0.5 else -1.0
    here = float(array[min(round(row), array.shape[0] - 1), min(round(column), array.shape[1] - 1)])
    room = 1.0 - here if sign > 0 else here
    if room < amplitude and room < 1.0 - room:
        sign = -sign
    spot_rows = np.exp(-0.5 * ((np.arange(array.shape[0]) - row) / width) ** 2)
    spot_columns = np.exp(-0.5 * ((np.arange(array.shape[1]) - column) / width) ** 2)
    spot = (sign * amplitude * spot_rows)[:, None] * spot_columns[None, :]
    return _clipped(array + spot.astype(np.float32))


def near_copy(
    image: Image,
    rng: np.random.Generator,
    *,
    amplitude_px: tuple[float, float] = BUMP_AMPLITUDE_PX,
    n_bumps: tuple[int, int] = BUMP_COUNT,
    lesion_probability: float = LESION_PROBABILITY,
    strength: float = 1.0,
) -> Image:
    """Make a near copy: local displacements, in 40 % also a lesion, then the artefacts of an exact copy.

    Args:
        image: Float array of shape ``(height, width)`` with values in [0, 1].
        rng: Source of every draw.
        amplitude_px: As in `deform`; the hard condition of the benchmark takes (1.5, 5.0).
        n_bumps: As in `deform`.
        lesion_probability: Probability of a `lesion`, 0 to 1.
        strength: As in `degrade`.

    Returns:
        A new float32 array of the same shape with values in [0, 1].

    Raises:
        UsageError: The image is unusable (see `degrade`), or an argument is out of range.

    Example:
        >>> import numpy as np
        >>> from deepssim.phantom import make_patient, render
        >>> near_copy(render(make_patient(1), noise_seed=1), np.random.default_rng(0)).shape
        (136, 112)
    """
    if not 0.0 <= lesion_probability <= 1.0:
        raise UsageError(f"near_copy: lesion_probability is {lesion_probability}; give a number from 0 to 1")
    out = deform(image, rng, amplitude_px=amplitude_px, n_bumps=n_bumps)
    if rng.random() < lesion_probability:
        out = lesion(out, rng)
    return degrade(out, rng, strength=strength)


def draw_view(rng: np.random.Generator, kind: ViewKind, *, size: tuple[int, int] = (136, 112)) -> View:
    """Draw how a copy is seen under one condition of the benchmark.

    *aligned*: as it is. *perturbed*: each flip with probability .8, rotation within 10 degrees (.1745 rad)
    with probability .8, gamma .5 to 1.5 with probability .8. *hard*: each flip with probability .5, and all
    of rotation within 30 degrees, shift within 10 % of each side, zoom .9 to 1.1, gamma .5 to 1.5.

    Args:
        rng: Source of every draw.
        kind: The condition.
        size: Height and width of the images to come; only their ratio matters, for the shift of *hard*.

    Returns:
        The view, for `apply_view`.

    Raises:
        UsageError: The condition is unknown, or the size is not positive.

    Example:
        >>> import numpy as np
        >>> draw_view(np.random.default_rng(0), "aligned") == View()
        True
    """
    if min(size) < 1:
        raise UsageError(f"draw_view: size is {size}; give a positive height and width")
    if kind == "aligned":
        return View()
    if kind == "perturbed":
        flip_rows, flip_columns, turns, contrasts = (rng.random(4) < 0.8).tolist()
        angle, gamma = rng.uniform((-0.1745, 0.5), (0.1745, 1.5)).tolist()
        degrees = math.degrees(angle) if turns else 0.0
        return View(flip_rows, flip_columns, degrees, gamma=gamma if contrasts else 1.0)
    if kind == "hard":
        flip_rows, flip_columns = (rng.random(2) < 0.5).tolist()
        down, right = (rng.uniform(-0.1, 0.1, 2) * np.asarray(size) * (REFERENCE_SIDE_PX / min(size))).tolist()
        angle, zoom, gamma = rng.uniform((-30.0, 0.9, 0.5), (30.0, 1.1, 1.5)).tolist()
        return View(flip_rows, flip_columns, angle, (down, right), zoom, gamma)
    raise UsageError(f"draw_view: unknown condition {kind!r}; choose aligned, perturbed or hard")


def apply_view(image: Image, view: View) -> Image:
    """Show an image under a view, by one bilinear resampling; zeros come in from outside.

    Args:
        image: Float array of shape ``(height, width)`` with values in [0, 1].
        view: What to apply, in the order that `View` names.

    Returns:
        A new float32 array of the same shape with values in [0, 1]. Views without rotation, zoom and shift
        keep the grey values bit for bit (before gamma).

    Raises:
        UsageError: The image is unusable (see `degrade`), or zoom or gamma is not positive.

    Example:
        >>> import numpy as np
        >>> image = np.linspace(0, 1, 12, dtype=np.float32).reshape(3, 4)
        >>> bool((apply_view(image, View(flip_columns=True)) == image[:, ::-1]).all())
        True
    """
    array = _check_image(image, "apply_view")
    if not (view.zoom > 0.0 and view.gamma > 0.0):
        raise UsageError(f"apply_view: zoom is {view.zoom} and gamma {view.gamma}; both must be above 0")
    scale = _pixel_scale(array)
    centre = ((array.shape[0] - 1) / 2.0, (array.shape[1] - 1) / 2.0)
    rows = np.arange(array.shape[0])[:, None] - centre[0] - view.shift_px[0] * scale
    columns = np.arange(array.shape[1])[None, :] - centre[1] - view.shift_px[1] * scale
    cosine = math.cos(math.radians(view.angle_deg)) / view.zoom
    sine = math.sin(math.radians(view.angle_deg)) / view.zoom
    # The way back from the view to the image: every step is undone, the last one first.
    source_rows = (cosine * rows + sine * columns) * (-1.0 if view.flip_rows else 1.0)
    source_columns = (cosine * columns - sine * rows) * (-1.0 if view.flip_columns else 1.0)
    return _gamma(sample(array, source_rows + centre[0], source_columns + centre[1]), view.gamma)


def _as_grid(image: NDArray[Any]) -> Image:
    array = np.asarray(image, dtype=np.float32)
    if array.ndim != 2 or array.size == 0:
        raise UsageError(f"image has shape {array.shape}; give one grey image of shape (height, width)")
    return array


def _check_image(image: NDArray[Any], who: str) -> Image:
    if not np.issubdtype(np.asarray(image).dtype, np.floating):
        raise UsageError(f"{who}: image is {np.asarray(image).dtype}; scale it to [0, 1] as float32")
    array = _as_grid(image)
    low, high = float(array.min()), float(array.max())
    # Written so that NaN fails too.
    if not (low >= 0.0 and high <= 1.0):
        raise UsageError(f"{who}: image has values from {low:g} to {high:g}; scale them to [0, 1]")
    return array


def _check_range(bounds: tuple[float, float], what: str) -> None:
    if not 0 <= bounds[0] <= bounds[1] < np.inf:
        raise UsageError(f"{what} is {bounds}; give (smallest, largest), neither negative")


def _clipped(image: Image) -> Image:
    return np.asarray(np.clip(image, 0.0, 1.0, out=image), dtype=np.float32)


def _pixel_scale(image: Image) -> float:
    return float(min(image.shape)) / REFERENCE_SIDE_PX


def _value_range(image: Image) -> float:
    return float(image.max()) - float(image.min())


def _gamma(image: Image, gamma: float) -> Image:
    if gamma == 1.0:
        return image
    return np.asarray(np.power(image, np.float32(gamma)), dtype=np.float32)


def _bias_field(size: tuple[int, ...], rng: np.random.Generator) -> Image:
    """Draw a smooth field with largest absolute value 1, from the first cosines without the mean."""
    orders = np.arange(_BIAS_ORDER)
    by_rows, by_columns = (np.cos(np.pi * np.outer((np.arange(n) + 0.5) / n, orders)) for n in size)
    coefficients = rng.standard_normal((_BIAS_ORDER, _BIAS_ORDER)) / (1.0 + orders[:, None] + orders[None, :])
    coefficients[0, 0] = 0.0
    field = by_rows @ coefficients @ by_columns.T
    peak = np.abs(field).max()
    return np.asarray(field / peak if peak > 0 else field, dtype=np.float32)


def _block_size(size: tuple[int, ...]) -> int:
    return max(1, min(size) // _STRUCTURE_CELLS)


def _foreground(image: Image) -> NDArray[np.float64]:
    """Weigh the cells of a coarse grid: 1 on the foreground, 0 elsewhere."""
    cells = block_mean(image, _block_size(image.shape))
    return np.asarray(cells > float(image.min()) + _FOREGROUND_LEVEL * _value_range(image), dtype=np.float64)


def _structure(image: Image) -> NDArray[np.float64]:
    """Weigh the cells of a coarse grid by the root mean square gradient nearby, zero on the background."""
    block = _block_size(image.shape)
    energy = np.zeros_like(image)
    energy[1:-1] += (image[2:] - image[:-2]) ** 2
    energy[:, 1:-1] += (image[:, 2:] - image[:, :-2]) ** 2
    cells = gaussian_blur(block_mean(energy, block), _STRUCTURE_SIGMA * min(image.shape) / block)
    return np.sqrt(cells) * _foreground(image)


def _draw_centre(
    size: tuple[int, ...],
    weights: NDArray[np.float64],
    placed: list[tuple[float, float, float]],
    width: float,
    rng: np.random.Generator,
) -> tuple[float, float]:
    """Draw a position in pixels from the weights of a coarse grid, away from what was placed if possible."""
    block = _block_size(size)
    rows = (np.arange(weights.shape[0])[:, None] + 0.5) * block
    columns = (np.arange(weights.shape[1])[None, :] + 0.5) * block
    free = weights.copy()
    for row, column, other in placed:
        free[(rows - row) ** 2 + (columns - column) ** 2 < (width + other) ** 2] = 0.0
    for candidate in (free, weights, np.ones_like(weights)):
        total = candidate.sum()
        if total > 0.0:
            break
    # As Generator.choice draws, without its checks: they take longer than the draw.
    cumulative = (candidate / total).ravel().cumsum()
    cumulative /= cumulative[-1]
    cell = int(cumulative.searchsorted(rng.random(), side="right"))
    row, column = np.divmod(cell, candidate.shape[1])
    jitter = rng.random(2)
    return float((row + jitter[0]) * block), float((column + jitter[1]) * block)
