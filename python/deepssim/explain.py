"""Which regions make the embeddings of two images alike, and which keep them apart: occlusion, for any metric bundle.

A patch of one image is blurred away, the image embedded again, and the fall of the cosine noted; so all over the image
(occlusion sensitivity: Zeiler and Fergus, ECCV 2014). A patch gives way to a strong blur of the image itself, as in
Fong and Vedaldi (ICCV 2017), under a Gaussian window: a grey square would have edges, which an encoder sees too. Only
embeddings are needed, no gradients.

What is occluded is the input of the metric, since what is averaged away on the way to it has no influence.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepssim.embed import NORM_TOLERANCE, Encoder
from deepssim.errors import ImageError
from deepssim.images.text import one_line
from deepssim.perturb import gaussian_blur

__all__ = ["Explanation", "Region", "explain"]

Pixels = NDArray[np.float32]
Windows = NDArray[np.float64]

# Patches along the shorter side if they lay side by side, and at most along the longer one: the number of copies
# that are embedded is bounded, whatever the shape.
_PATCHES = 6
_MOST_PATCHES = 18
# A patch ends two standard deviations of its window from its centre.
_SIGMAS = 4
# Standard deviation of the blur, in patches. Fong and Vedaldi's is half of this; from .75 on the blur carries
# structure into flat places beside it, and maps of phantoms were no longer negative where one of them was changed.
_BLUR = 0.5
_N_REGIONS = 3
# What rounds to zero in three decimals is no region.
_LEAST_FALL = 5e-4


@dataclass(frozen=True, slots=True)
class Region:
    """A patch of an image and what its occlusion does.

    Attributes:
        row: Its first row, in pixels.
        column: Its first column, in pixels.
        rows: Its height in pixels.
        columns: Its width in pixels.
        fall: How much the cosine falls without it; negative: rises.
        place: Where it lies on the picture, in words: ``"upper left"``, ``"centre"``, ``"lower right"``.
    """

    row: int
    column: int
    rows: int
    columns: int
    fall: float
    place: str

    def __str__(self) -> str:
        """Return it in words."""
        return (
            f"{self.place}, {self.rows} x {self.columns} px at row {self.row}, column {self.column}: {self.fall:+.3f}"
        )


@dataclass(frozen=True, slots=True, eq=False)
class Explanation:
    """What makes two embeddings alike.

    Attributes:
        metric: Name of the metric.
        cosine: Of the two embeddings, -1 to 1.
        maps: For each image, at its size ``(rows, columns)``, float32: how much the cosine falls if the place is
            occluded. Positive: the place makes the images alike; negative: it keeps them apart.
        regions: For each image its strongest regions, at most three, which do not overlap, the strongest first.
    """

    metric: str
    cosine: float
    maps: tuple[Pixels, Pixels]
    regions: tuple[tuple[Region, ...], tuple[Region, ...]]

    def lines(self) -> list[str]:
        """Say it in words: the cosine, and the strongest regions of each image."""
        cosine = f"cosine of the embeddings by the metric {one_line(self.metric)}: {self.cosine:.4f}"
        if not any(self.regions):
            return [
                cosine,
                f"no region stands out: whichever patch is blurred away, it moves by less than {_LEAST_FALL}",
            ]
        return [
            cosine,
            "where a patch is blurred away it falls (+, the patch makes them alike) or rises (-, it keeps them apart):",
            *(f"   {name}, {region}" for name, of in zip("AB", self.regions, strict=True) for region in of),
        ]

    def as_dict(self) -> dict[str, Any]:
        """Return it for JSON, without maps."""
        regions = {name: [asdict(region) for region in of] for name, of in zip("ab", self.regions, strict=True)}
        return {"metric": self.metric, "cosine": self.cosine, "regions": regions}


@dataclass(frozen=True, slots=True)
class _Axis:
    """Patches along one side of an image, `length` and `side` in its pixels, evenly spaced by about half a patch."""

    length: int
    side: float

    @property
    def centres(self) -> NDArray[np.float64]:
        n = max(1, round(2 * self.length / self.side))
        return np.asarray((np.arange(n) + 0.5) * (self.length / n), np.float64)

    def windows(self, n_pixels: int) -> Windows:
        """Return each patch's Gaussian, 1 at its centre, where the side has so many pixels: ``(n, n_pixels)``."""
        places = (np.arange(n_pixels) + 0.5) * (self.length / n_pixels)
        away = (places[np.newaxis] - self.centres[:, np.newaxis]) * (_SIGMAS / self.side)
        return np.asarray(np.exp(-0.5 * away**2))

    def extent(self, patch: int) -> tuple[int, int]:
        """Return a patch's first pixel and how many it has."""
        centre = self.centres[patch]
        first, last = (round(min(max(centre + half, 0), self.length)) for half in (-self.side / 2, self.side / 2))
        return first, last - first

    def third(self, patch: int, names: tuple[str, str, str]) -> str:
        return names[int(3 * self.centres[patch] / self.length)]


def explain(a: Pixels, b: Pixels, encoder: Encoder) -> Explanation:
    """Find out which regions of two images make their embeddings alike.

    The patches are squares of a sixth of the shorter side (an eighteenth of the longer one, where that is more), half
    a patch apart. A pixel of a map is the mean over the patches, weighted by their windows. A copy in which the metric
    sees nothing any more counts as unrelated: cosine 0. Each image is embedded 145 times or, where it is not square, up
    to 433 times.

    Args:
        a: An image ``(rows, columns)`` in the unit that the metric takes: as it is read.
        b: The other; may have another size.
        encoder: The metric.

    Returns:
        Cosine, maps and regions.

    Raises:
        ImageError: The metric sees no structure in an image.

    Example:
        >>> from deepssim.metric import load_metric
        >>> from deepssim.phantom import make_patient, render
        >>> image = render(make_patient(1), noise_seed=1)
        >>> changed = image.copy()
        >>> changed[60:84, 20:44] = image[60:84, 20:44][::-1]
        >>> found = explain(image, changed, Encoder(load_metric("pixel"), device="cpu"))
        >>> round(found.cosine, 3), found.maps[1].shape, bool(found.maps[1][72, 32] < 0)
        (0.963, (136, 112), True)
        >>> str(found.regions[1][0])
        'lower left, 19 x 18 px at row 86, column 5: +0.005'
    """
    images = (a, b)
    axes = [_axes(image.shape) for image in images]
    vectors = [_embed_occluded(encoder, image, *of) for image, of in zip(images, axes, strict=True)]
    for name, rows in zip("AB", vectors, strict=True):
        if not rows[0].any():
            size = f"{encoder.metric.height} x {encoder.metric.width}"
            reason = f"the metric {encoder.metric.name} sees no structure in image {name} (flat at {size} pixels)"
            raise ImageError("constant", f"{reason}: give another image or metric")
    cosine = float(np.clip(vectors[0][0] @ vectors[1][0], -1, 1))
    falls = [
        (cosine - rows[1:] @ other[0]).reshape(len(down.centres), len(across.centres))
        for rows, other, (down, across) in zip(vectors, vectors[::-1], axes, strict=True)
    ]
    first, second = (_map(fall, *of) for fall, of in zip(falls, axes, strict=True))
    of_first, of_second = (_regions(fall, *of) for fall, of in zip(falls, axes, strict=True))
    return Explanation(encoder.metric.name, cosine, (first, second), (of_first, of_second))


def _axes(shape: tuple[int, ...]) -> tuple[_Axis, _Axis]:
    side = max(min(shape) / _PATCHES, max(shape) / _MOST_PATCHES)
    return _Axis(shape[0], side), _Axis(shape[1], side)


def _embed_occluded(encoder: Encoder, image: Pixels, down: _Axis, across: _Axis) -> NDArray[np.float64]:
    """Embed an image and its occluded copies; returns unit rows ``(1 + n, dim)``, zeros where nothing is seen."""
    seen = encoder.prepare(image)
    change = gaussian_blur(seen, _BLUR * min(seen.shape) / _PATCHES) - seen
    columns = across.windows(seen.shape[1])
    copies = [
        (seen + np.outer(row, column) * change).astype(np.float32)
        for row in down.windows(seen.shape[0])
        for column in columns
    ]
    embeddings = encoder.encode([seen, *copies]).astype(np.float64)
    norms = np.linalg.norm(embeddings, axis=1, keepdims=True)
    is_good = np.abs(norms - 1) <= NORM_TOLERANCE  # False for NaN
    unit: NDArray[np.float64] = np.divide(embeddings, norms, out=np.zeros_like(embeddings), where=is_good)
    return unit


def _map(falls: NDArray[np.float64], down: _Axis, across: _Axis) -> Pixels:
    """Return the window-weighted mean of the patches' falls at each pixel."""
    rows, columns = down.windows(down.length), across.windows(across.length)
    # Windows are products of one along the rows and one along the columns, so weighted sums are matrix products.
    weights = np.outer(rows.sum(axis=0), columns.sum(axis=0))
    return np.asarray(rows.T @ falls @ columns / weights, np.float32)


def _regions(falls: NDArray[np.float64], down: _Axis, across: _Axis) -> tuple[Region, ...]:
    strength = np.abs(falls)
    found: list[Region] = []
    while len(found) < _N_REGIONS and strength.max() >= _LEAST_FALL:
        i, j = (int(k) for k in np.unravel_index(np.argmax(strength), strength.shape))
        (row, rows), (column, columns) = down.extent(i), across.extent(j)
        place = f"{down.third(i, ('upper', '', 'lower'))} {across.third(j, ('left', 'centre', 'right'))}".strip()
        found.append(Region(row, column, rows, columns, float(falls[i, j]), place))
        near = (np.abs(axis.centres - axis.centres[k]) < axis.side for axis, k in ((down, i), (across, j)))
        strength[np.ix_(*near)] = 0
    return tuple(found)
