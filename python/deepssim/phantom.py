"""Draw procedural head phantoms: axial, T1-like slices of people who do not exist.

A phantom is made of signed distances in millimetres. Nested outlines give scalp, fat, skull and brain; the
cortex is a ribbon of fixed thickness around whatever touches cerebrospinal fluid (the outer surface, the
fissures and the sulci); sulci are the zero lines of a random field along the surface of each hemisphere;
ventricles, nuclei and brain stem are capsules and ellipses whose size changes with the level. Smooth random
displacements bend all of it, so that no two people and no two sides are equal.

Every random field belongs to a patient and is a cubic B-spline on a lattice in head coordinates, so the
anatomy depends neither on the size of the picture nor on the order of calls, and changes smoothly with the
level. Head coordinates are millimetres: x to the right of the picture, y to the front (up), level * 30 mm
upwards. The same seed gives the same image; between machines it may differ in the last bits of a float32.

Shapes were drawn by eye. The spread of the patients is what ``tests/test_phantom.py`` asks for: 32 x 32
thumbnails of two patients are always less alike than an image and its degraded copy.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepssim.errors import UsageError
from deepssim.perturb import gaussian_blur

Field = NDArray[np.floating[Any]]
Point = tuple[float, float]

FIELD_OF_VIEW_MM = (204.0, 168.0)
LEVEL_MM = 30.0
_SIZE = (136, 112)
_MIN_SIDE = 8
_COHORT_LEVELS = 0.75

# Which random stream of a patient feeds which field; two fields never share one.
_SHAPE, _WARP_X, _WARP_Y, _BEND_X, _BEND_Y, _SCALP, _CSF = range(7)
_FOLDS, _WANDER, _LABYRINTH, _REACH, _COIL = range(7, 12)
_N_LATTICE_LEVELS = 7


@dataclass(frozen=True, slots=True)
class Patient:
    """The anatomy and the acquisition of one phantom.

    Attributes:
        seed: Seed of the random fields (folding, asymmetry, scalp, coil).
        half_width_mm: Half the width of the head at its widest.
        half_length_mm: Half the length of the head.
        taper: Relative narrowing of the head towards the front.
        tilt_deg: In-plane rotation of the head, counter-clockwise.
        offset_mm: Position of the head in the picture, as (x, y).
        scalp_mm: Mean thickness of skin and fat.
        skull_mm: Thickness of the bone.
        csf_mm: Mean width of the fluid around the brain.
        cortex_mm: Thickness of the cortical ribbon.
        sulcus_mm: Half the width of an open sulcus.
        sulcus_depth_mm: Mean depth of the sulci.
        n_sulci: Number of lattice cells along the surface of one hemisphere; about the number of its sulci.
        ventricle: Width of the ventricles relative to the average.
        level_offset: Shift of the level, since no two people are planned alike.
        white: Grey value of white matter.
        grey: Grey value of grey matter.
        fluid: Grey value of cerebrospinal fluid.
        fat: Grey value of fat under the scalp.
        bias: Largest relative deviation of the coil's sensitivity.
        noise: Standard deviation of the noise in each of the two channels.
    """

    seed: int
    half_width_mm: float
    half_length_mm: float
    taper: float
    tilt_deg: float
    offset_mm: tuple[float, float]
    scalp_mm: float
    skull_mm: float
    csf_mm: float
    cortex_mm: float
    sulcus_mm: float
    sulcus_depth_mm: float
    n_sulci: int
    ventricle: float
    level_offset: float
    white: float
    grey: float
    fluid: float
    fat: float
    bias: float
    noise: float


def make_patient(seed: int) -> Patient:
    """Draw the parameters of one phantom.

    Args:
        seed: Any integer that is 0 or more; the same seed is the same patient.

    Returns:
        The patient, for `render`.

    Raises:
        UsageError: The seed is negative.

    Example:
        >>> make_patient(7) == make_patient(7), make_patient(7) == make_patient(8)
        (True, False)
    """
    rng = _stream(seed, _SHAPE)
    half_width = rng.uniform(64.0, 77.0)
    return Patient(
        seed=seed,
        half_width_mm=float(half_width),
        half_length_mm=float(np.clip(half_width * rng.uniform(1.14, 1.34), 80.0, 95.0)),
        taper=float(rng.uniform(0.02, 0.16)),
        tilt_deg=float(rng.normal(0.0, 2.5)),
        offset_mm=(float(rng.uniform(-3.0, 3.0)), float(rng.uniform(-3.0, 3.0))),
        scalp_mm=float(rng.uniform(3.5, 7.0)),
        skull_mm=float(rng.uniform(5.0, 8.0)),
        csf_mm=float(rng.uniform(1.0, 3.0)),
        cortex_mm=float(rng.uniform(2.8, 3.8)),
        sulcus_mm=float(rng.uniform(0.4, 1.0)),
        sulcus_depth_mm=float(rng.uniform(13.0, 19.0)),
        n_sulci=int(rng.integers(24, 33)),
        ventricle=float(np.exp(rng.normal(0.0, 0.28))),
        level_offset=float(rng.uniform(-0.12, 0.12)),
        white=float(rng.uniform(0.74, 0.86)),
        grey=float(rng.uniform(0.47, 0.56)),
        fluid=float(rng.uniform(0.1, 0.18)),
        fat=float(rng.uniform(0.8, 1.0)),
        bias=float(rng.uniform(0.05, 0.2)),
        noise=float(rng.uniform(0.012, 0.025)),
    )


def render(
    patient: Patient,
    *,
    level: float = 0.0,
    size: tuple[int, int] = _SIZE,
    noise_seed: int | None,
) -> NDArray[np.float32]:
    """Draw one axial slice of a patient.

    Args:
        patient: Whom to draw.
        level: Height of the slice: -1 brain stem, 0 ventricles and nuclei, 1 above the ventricles.
        size: Height and width of the picture in pixels; it shows 204 x 168 mm, with equal pixels both ways.
        noise_seed: Seed of the noise; None draws the slice without noise.

    Returns:
        Float32 array of shape ``(height, width)`` with values in [0, 1]; front up.

    Raises:
        UsageError: The level is outside [-1, 1], a side is below 8 pixels, or the noise seed is negative.

    Example:
        >>> image = render(make_patient(7), level=0.2, noise_seed=0)
        >>> image.shape, image.dtype.name
        ((136, 112), 'float32')
    """
    if not -1.0 <= level <= 1.0:
        raise UsageError(f"render: level is {level}; give a number from -1 to 1")
    _check_size(size)
    z = (level + patient.level_offset) * LEVEL_MM
    canvas = _Canvas(patient, z, size)
    image = _tissues(patient, z, canvas)
    image *= 1.0 + patient.bias * np.clip(canvas.smooth(_COIL, (3, 3)), -1.0, 1.0)
    image = gaussian_blur(image, 0.45 * FIELD_OF_VIEW_MM[1] / 112.0 / canvas.pixel_mm)
    if noise_seed is not None:
        noise = _stream(noise_seed).standard_normal((2, *size), dtype=np.float32)
        noise *= np.float32(patient.noise)
        image = np.hypot(image + noise[0], noise[1])
    return np.clip(image, 0.0, 1.0).astype(np.float32)


def make_cohort(
    n_patients: int, n_levels: int, *, seed: int, size: tuple[int, int] = _SIZE
) -> Iterator[tuple[str, int, NDArray[np.float32]]]:
    """Draw several slices of several patients.

    Args:
        n_patients: Number of patients.
        n_levels: Number of slices a patient, evenly spaced from level -.75 to .75; one slice is at level 0.
        seed: Seed of the cohort; cohorts of different seeds share no patient.
        size: Height and width of the pictures in pixels.

    Yields:
        The patient's name (``patient-007``), the index of the level from below, and the image as in `render`.

    Raises:
        UsageError: A number or the seed is negative, or the size is too small; before the first image.

    Example:
        >>> [(name, level) for name, level, _ in make_cohort(2, 1, seed=0)]
        [('patient-000', 0), ('patient-001', 0)]
    """
    if n_patients < 0 or n_levels < 0:
        raise UsageError(f"make_cohort: {n_patients} patients, {n_levels} levels; give numbers that are 0 or more")
    _check_size(size)
    _derive(seed)
    levels = np.linspace(-_COHORT_LEVELS, _COHORT_LEVELS, n_levels) if n_levels > 1 else np.zeros(n_levels)
    patients = (make_patient(_derive(seed, i)) for i in range(n_patients))
    return (
        (f"patient-{i:03d}", j, render(patient, level=float(z), size=size, noise_seed=_derive(seed, i, j)))
        for i, patient in enumerate(patients)
        for j, z in enumerate(levels)
    )


class _Canvas:
    """The grid of one slice in head coordinates, bent by the patient's own displacements."""

    def __init__(self, patient: Patient, z: float, size: tuple[int, int]) -> None:
        height, width = size
        self.seed = patient.seed
        self.z = z
        self.pixel_mm = max(FIELD_OF_VIEW_MM[0] / height, FIELD_OF_VIEW_MM[1] / width)
        self._rows: Field = (np.arange(height) - (height - 1) / 2.0) * self.pixel_mm
        self._columns: Field = (np.arange(width) - (width - 1) / 2.0) * self.pixel_mm
        x0 = self._columns[None, :] - patient.offset_mm[0]
        y0 = -self._rows[:, None] - patient.offset_mm[1]
        cosine, sine = np.cos(np.radians(patient.tilt_deg)), np.sin(np.radians(patient.tilt_deg))
        self.x = (cosine * x0 + sine * y0 + 2.5 * self.smooth(_WARP_X, (5, 4))).astype(np.float32)
        self.y = (cosine * y0 - sine * x0 + 2.5 * self.smooth(_WARP_Y, (5, 4))).astype(np.float32)

    def smooth(self, stream: int, cells: tuple[int, int]) -> Field:
        """Draw a smooth field of about unit variance over the picture, from a lattice of ``cells``."""
        lattice = _lattice(self.seed, stream, cells, self.z)
        by_rows = _spline_matrix(self._rows / FIELD_OF_VIEW_MM[0] + 0.5, cells[0])
        by_columns = _spline_matrix(self._columns / FIELD_OF_VIEW_MM[1] + 0.5, cells[1])
        return np.asarray(by_rows @ lattice @ by_columns.T, dtype=np.float32)

    def inside(self, distance_mm: Field) -> Field:
        """Turn a signed distance (positive inside) into coverage from 0 to 1 with an edge of one pixel."""
        return np.asarray(np.clip(distance_mm / self.pixel_mm + 0.5, 0.0, 1.0), dtype=np.float32)


def _tissues(patient: Patient, z: float, canvas: _Canvas) -> Field:
    """Lay the tissues over each other, from the outside in."""
    growth = float(np.sqrt(1.0 - ((z + 10.0) / 85.0) ** 2))
    head = _hull(canvas, patient.half_width_mm * growth, patient.half_length_mm * growth, patient.taper)
    bone = head - patient.scalp_mm * (1.0 + 0.25 * canvas.smooth(_SCALP, (5, 5)))
    dura = bone - patient.skull_mm
    brain = dura - patient.csf_mm * (1.0 + 0.4 * canvas.smooth(_CSF, (7, 6)))
    inside = canvas.inside

    image = 0.42 * inside(head)
    _paint(image, inside(head - 1.6), patient.fat)
    _paint(image, inside(bone), 0.05)
    _paint(image, 0.8 * inside(0.22 * patient.skull_mm - np.abs(bone - 0.5 * patient.skull_mm)), 0.38)
    _paint(image, inside(dura), patient.fluid)

    inner = patient.half_width_mm * growth - patient.scalp_mm - patient.skull_mm - patient.csf_mm
    pial = _pial_distance(patient, z, canvas, brain, inner)
    _paint(image, inside(pial), patient.grey)
    _paint(image, inside(pial - patient.cortex_mm), patient.white)
    _paint_deep(image, patient, z, canvas)
    return image


def _pial_distance(patient: Patient, z: float, canvas: _Canvas, brain: Field, half_width_mm: float) -> Field:
    """Return the distance in millimetres to the nearest fluid outside the ventricles, negative in it."""
    side = np.abs(canvas.x)
    # The corpus callosum bridges the fissure at the height of the ventricles.
    bridge = 1.0 - min(abs(z - 2.0) / 24.0, 1.0) ** 4
    front, back = 37.0 * bridge - 2.0, -40.0 * bridge + 2.0
    fissure = np.hypot(side, np.maximum(np.minimum(front - canvas.y, canvas.y - back), 0.0)) - 0.6
    depth = np.minimum(brain, fissure)
    surface = np.minimum(depth, _lateral_fissure(side, canvas, half_width_mm, _window(z, -45.0, 10.0)))
    sulci = _sulcus_distance(patient, z, canvas, depth, half_width_mm)
    return _soft_minimum(surface, sulci - patient.sulcus_mm, 0.7)


def _lateral_fissure(side: Field, canvas: _Canvas, half_width_mm: float, strength: float) -> Field | float:
    """Return the distance in millimetres outside the Sylvian fissure with the insula at its bottom."""
    if strength == 0.0:
        return np.inf
    bottom = half_width_mm * (0.86 - 0.27 * strength)
    y = canvas.y + 4.0 * canvas.smooth(_BEND_X, (10, 8))
    x = side + 3.0 * canvas.smooth(_BEND_Y, (10, 8))
    front, back = 13.0 + 8.0 * strength, 12.0 - 17.0 * strength
    mouth = _capsule(x, y, ((half_width_mm + 4.0, 17.0), (bottom, 12.0)), (1.6, 0.5))
    insula = _capsule(x, y, ((bottom + 1.0, front), (bottom + 3.0, back)), (0.7, 0.3))
    return -np.maximum(mouth, insula)


def _sulcus_distance(patient: Patient, z: float, canvas: _Canvas, depth: Field, half_width_mm: float) -> Field:
    """Return the distance in millimetres to the middle of the nearest sulcus.

    Sulci are the zero lines of a random field whose sign alternates along the surface of each hemisphere
    (so that they run inwards, evenly spaced), plus one without direction (so that they bend and branch).
    Below the reach of the sulci the distance grows, which ends them.
    """
    centre = 0.45 * half_width_mm
    outward = (np.abs(canvas.x) - centre) / (0.55 * half_width_mm)
    angle = np.arctan2(canvas.y / (1.25 * half_width_mm), outward)
    cells = 2 * (patient.n_sulci // 2)
    along = angle * np.float32(cells / (2.0 * np.pi)) + 0.8 * canvas.smooth(_WANDER, (12, 10))
    folds = 0.5 * _lattice(patient.seed, _FOLDS, (2, 6, cells), z) + 1.8 * (-1.0) ** np.arange(cells)
    value = _sample_periodic(folds, canvas.x > 0.0, np.clip(depth, 0.0, 36.0) / 9.0, along)
    value += 2.0 * canvas.smooth(_LABYRINTH, (29, 24))
    slope_rows, slope_columns = np.gradient(value, canvas.pixel_mm)
    distance = np.abs(value) / np.sqrt(slope_rows**2 + slope_columns**2 + np.float32(0.02**2))
    reach = patient.sulcus_depth_mm * (1.0 + 0.35 * canvas.smooth(_REACH, (14, 12)))
    return np.asarray(distance + np.logaddexp(np.float32(0.0), depth - reach))


def _paint_deep(image: Field, patient: Patient, z: float, canvas: _Canvas) -> None:
    """Paint what lies in the depth: nuclei, brain stem and ventricles."""
    inside, width = canvas.inside, patient.ventricle
    x = canvas.x + 1.3 * canvas.smooth(_BEND_X, (10, 8))
    y = canvas.y + 1.3 * canvas.smooth(_BEND_Y, (10, 8))
    side = np.abs(x)
    nucleus = 0.5 * patient.grey + 0.5 * patient.white
    stem = _window(z, -60.0, -12.0)
    if stem > 0.0:
        _paint_brain_stem(image, patient, canvas, (x, y), stem)

    shrink = _window(z, -20.0, 16.0)
    if shrink > 0.0:
        thalamus = _ellipse(side, y, (9.5, -9.0), (8.0 * shrink, 13.0 * shrink), 20.0)
        putamen = _ellipse(side, y, (24.0, 4.0), (5.5 * shrink, 15.0 * shrink), -14.0)
        _paint(image, 0.9 * inside(np.maximum(thalamus, putamen)), nucleus)
    caudate = np.zeros_like(image)
    front = _window(z, -12.0, 24.0)
    if front > 0.0:
        head, tail = (9.0 + 4.0 * width, 27.0), (9.0 + 4.0 * width, 10.0)
        caudate = 0.9 * inside(_capsule(side, y, (head, tail), (4.5 * front, 2.0 * front)))
        _paint(image, caudate, patient.grey)
    ventricles = _ventricle_distance(x, y, z, width)
    if ventricles is not None:
        # Whatever the folds do there, white matter (the corpus callosum above all) lines the ventricles.
        _paint(image, np.clip(inside(0.5 * ventricles + 1.5) - caudate, 0.0, 1.0), patient.white)
        _paint(image, inside(ventricles), patient.fluid)


def _paint_brain_stem(
    image: Field, patient: Patient, canvas: _Canvas, xy: tuple[Field, Field], strength: float
) -> None:
    """Paint the midbrain, the cisterns before, beside and behind it, and the cerebellar vermis."""
    inside, (x, y), side = canvas.inside, xy, np.abs(xy[0])
    vermis = _ellipse(side, y, (0.0, -45.0), (15.0 * strength, 16.0 * strength), 0.0)
    folia = 0.3 * (patient.white - patient.grey) * (1.0 + np.sin(0.9 * y + 0.05 * side**2))
    _paint(image, 0.9 * inside(vermis), patient.grey + folia)
    ambient = _ellipse(side, y, (0.0, -16.5), (19.0 * strength, 16.0 * strength), 0.0)
    star = _capsule(side, y, ((0.0, 6.0), (17.0, 13.0)), (4.0 * strength, 1.0 * strength))
    _paint(image, 0.9 * inside(np.maximum(star, ambient)), patient.fluid)
    peduncle = _ellipse(side, y, (7.5, -8.0), (7.5 * strength, 9.5 * strength), -25.0)
    tectum = _ellipse(side, y, (0.0, -17.0), (14.0 * strength, 12.5 * strength), 0.0)
    _paint(image, inside(np.maximum(peduncle, tectum)), 0.1 * patient.grey + 0.9 * patient.white)
    _paint(image, inside(_capsule(x, y, ((0.0, -22.0), (0.0, -24.0)), (1.0, 1.4))), patient.fluid)


def _ventricle_distance(x: Field, y: Field, z: float, width: float) -> Field | None:
    """Return the distance in millimetres inside the ventricles, or None where there are none.

    Frontal horns, bodies, trigones with posterior horns, and the third ventricle are capsules; each has the
    heights at which it begins and ends, and is widest between them.
    """
    w = width
    lateral = (
        ((-12.0, 20.0), ((2.5, 8.0), (4.0 + w, 20.0), (10.0 + 3.0 * w, 31.0)), (1.5, 3.0, 1.8)),
        ((2.0, 25.0), ((9.0 + w, 26.0), (4.0 + w, 4.0), (10.0 + 2.0 * w, -24.0)), (3.0, 3.2, 4.2)),
        ((-18.0, 16.0), ((13.0, -17.0), (20.0, -26.0), (20.0, -42.0)), (2.4, 4.2, 1.5)),
    )
    side = np.abs(x)
    parts = []
    for heights, points, radii in lateral:
        scale = w * _window(z, *heights)
        if scale > 0.0:
            for k in (0, 1):
                parts.append(_capsule(side, y, (points[k], points[k + 1]), (radii[k] * scale, radii[k + 1] * scale)))
    third = w * _window(z, -32.0, 6.0)
    if third > 0.0:
        parts.append(_capsule(x, y, ((0.0, 4.0), (0.0, -14.0)), (1.6 * third, 1.2 * third)))
    if not parts:
        return None
    nearest: Field = np.maximum.reduce(parts)
    return nearest


def _paint(image: Field, cover: Field, value: float | Field) -> None:
    """Blend a grey value into the image, in place."""
    image += cover * (np.asarray(value, dtype=np.float32) - image)


def _window(z: float, low: float, high: float) -> float:
    """Rise from 0 at ``low`` to 1 in the middle and fall to 0 at ``high``, like the section of an ellipse."""
    t = (2.0 * z - low - high) / (high - low)
    return float(np.sqrt(max(0.0, 1.0 - t * t)))


def _hull(canvas: _Canvas, half_width: float, half_length: float, taper: float) -> Field:
    """Return the depth in millimetres below an egg-shaped outline (first-order distance)."""
    narrowing = 1.0 - taper * np.clip(canvas.y / half_length, -1.0, 1.0)
    return _ellipse_depth(canvas.x / (narrowing * half_width), canvas.y / half_length, (half_width, half_length))


def _ellipse(x: Field, y: Field, centre: Point, radii: Point, turn_deg: float) -> Field:
    """Return the first-order distance in millimetres inside a turned ellipse."""
    cosine, sine = math.cos(math.radians(turn_deg)), math.sin(math.radians(turn_deg))
    dx, dy = x - centre[0], y - centre[1]
    u, v = (cosine * dx + sine * dy) / radii[0], (cosine * dy - sine * dx) / radii[1]
    return _ellipse_depth(u, v, radii)


def _ellipse_depth(u: Field, v: Field, radii: Point) -> Field:
    """Return the first-order distance inside an ellipse at positions given in units of its radii."""
    radius = np.sqrt(u * u + v * v) + np.float32(1e-6)
    slope = np.sqrt((u / radii[0]) ** 2 + (v / radii[1]) ** 2) + np.float32(1e-8)
    return np.asarray((1.0 - radius) * radius / slope, dtype=np.float32)


def _capsule(x: Field, y: Field, ends: tuple[Point, Point], radii: Point) -> Field:
    """Return the distance in millimetres inside a line with a radius that changes along it."""
    (x0, y0), (x1, y1) = ends
    dx, dy = x1 - x0, y1 - y0
    px, py = x - x0, y - y0
    t = np.clip((px * dx + py * dy) / (dx * dx + dy * dy), 0.0, 1.0)
    distance = np.hypot(px - t * dx, py - t * dy)
    return np.asarray(radii[0] + t * (radii[1] - radii[0]) - distance, dtype=np.float32)


def _soft_minimum(a: Field, b: Field, width: float) -> Field:
    """Take the smaller of two distances, rounded where they meet."""
    return np.asarray(-width * np.logaddexp(-a / width, -b / width), dtype=np.float32)


def _lattice(seed: int, stream: int, shape: tuple[int, ...], z: float) -> Field:
    """Draw a lattice of normal numbers and interpolate it at a height, keeping the variance about 1."""
    values = _stream(seed, stream).standard_normal((_N_LATTICE_LEVELS, *shape))
    weights = _spline_matrix(np.array([z / (2.4 * LEVEL_MM) + 0.5]), _N_LATTICE_LEVELS)[0]
    return np.asarray(np.tensordot(weights / np.linalg.norm(weights), values, axes=1))


def _spline_weights(t: Field) -> Field:
    """Return the four weights of a uniform cubic B-spline at fractions ``t``, along a new first axis."""
    s = 1.0 - t
    return np.stack([s**3, 3 * t**3 - 6 * t**2 + 4, 3 * s**3 - 6 * s**2 + 4, t**3]) / 6.0


def _spline_matrix(positions: Field, n_knots: int) -> Field:
    """Return the matrix that evaluates a cubic B-spline with ``n_knots`` on [0, 1], ends repeated."""
    at = np.clip(positions, 0.0, 1.0) * (n_knots - 1)
    first = np.minimum(at.astype(np.intp), n_knots - 2)
    matrix = np.zeros((len(positions), n_knots))
    for k, weight in enumerate(_spline_weights(at - first)):
        np.add.at(matrix, (np.arange(len(positions)), np.clip(first + k - 1, 0, n_knots - 1)), weight)
    return matrix


def _sample_periodic(lattices: Field, which: NDArray[np.bool_], deep: Field, along: Field) -> Field:
    """Evaluate one of two cubic B-splines ``(2, n_deep, n_along)``, periodic along the last axis."""
    _, n_deep, n_along = lattices.shape
    padded = np.pad(lattices, ((0, 0), (1, 2), (0, 0)), mode="edge").astype(np.float32)
    flat = padded.ravel()
    base = np.minimum(deep.astype(np.intp), n_deep - 1)
    turn = np.floor(along).astype(np.intp)
    weights_deep = _spline_weights(deep - base).astype(np.float32)
    weights_along = _spline_weights(along - turn).astype(np.float32)
    row = (which.astype(np.intp) * (n_deep + 3) + base) * n_along
    columns = [(turn + k - 1) % n_along for k in range(4)]
    out = np.zeros(deep.shape, dtype=np.float32)
    for j in range(4):
        line = row + j * n_along
        part = sum(weights_along[k] * flat[line + columns[k]] for k in range(4))
        out += weights_deep[j] * part
    return out


def _check_size(size: tuple[int, int]) -> None:
    if min(size) < _MIN_SIDE:
        raise UsageError(f"size is {size}; give a height and width of at least {_MIN_SIDE} pixels")


def _derive(*key: int) -> int:
    """Turn a seed and its indices into one seed."""
    if min(key) < 0:
        raise UsageError(f"seed is {key[0]}; give an integer that is 0 or more")
    return int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0])


def _stream(*key: int) -> np.random.Generator:
    if min(key) < 0:
        raise UsageError(f"seed is {key[0]}; give an integer that is 0 or more")
    return np.random.default_rng(key)
