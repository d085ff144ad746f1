"""Rigid registration of grey images, and how well a registered pair agrees.

Images are 2-D arrays of grey values, float32 in [0, 1] or uint8 (divided by 255). The two images of a pair have
one size; resize them first (`resize_area`). Lengths of the method are pixels at an image width of 112 and
grow with the width.

Results do not depend on the processor's instruction set nor on the number of threads.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass

import numpy as np
from numpy.typing import NDArray

from deepssim import _core
from deepssim.image_ops.grey import float_grey
from deepssim.image_ops.threads import map_on_threads

__all__ = [
    "Evidence",
    "EvidenceMaps",
    "Registrar",
    "Registration",
    "Transform",
    "evidence",
    "evidence_maps",
    "register",
    "warp",
]

Image = NDArray[np.float32] | NDArray[np.uint8]

_STILL_DEGREES = 0.05
_STILL_PX = 0.05
_STILL_SCALE = 0.0005


@dataclass(frozen=True, slots=True)
class Transform:
    """What happens to an image, about its centre and in this order: mirror, scale, turn, shift.

    The centre is ``((rows - 1) / 2, (columns - 1) / 2)``. An image turned upside down is one that is mirrored and
    turned by 180 degrees, so every flip has its place here.

    Attributes:
        is_mirrored: Whether left and right are exchanged.
        angle_degrees: Rotation in degrees, counter-clockwise as the image is seen (rows downwards).
        shift_rows: Shift in pixels; positive is down.
        shift_columns: Shift in pixels; positive is to the right.
        scale: Magnification; above 1 makes structures larger.

    Example:
        >>> str(Transform(is_mirrored=True, angle_degrees=4.2, shift_rows=3.0))
        'mirrored, turned 4.2 degrees, moved 3.0 px'
    """

    is_mirrored: bool = False
    angle_degrees: float = 0.0
    shift_rows: float = 0.0
    shift_columns: float = 0.0
    scale: float = 1.0

    def matrix(self, shape: tuple[int, int]) -> NDArray[np.float64]:
        """Return the sampling matrix ``[A | d]`` of shape (2, 3), float64, for images of `shape`.

        The pixel ``(row, column)`` of the result shows the pixel ``A @ (row, column) + d`` of the image, as
        `scipy.ndimage.affine_transform` takes it.
        """
        return np.array(_core.transform_matrix(_numbers(self), *shape)).reshape(2, 3)

    def inverse(self) -> Transform:
        """Return the transform that undoes this one.

        Example:
            >>> Transform(shift_rows=3.0).inverse().shift_rows
            -3.0
        """
        return Transform(*_core.inverse_transform(_numbers(self)))

    def __str__(self) -> str:
        """Say it in words, leaving out what would not be seen (.05 degrees, .05 px, .05 %)."""
        angle, words = self.angle_degrees, []
        if self.is_mirrored and abs(angle) > 90.0:
            words.append("mirrored upside down")
            angle -= 180.0 if angle > 0.0 else -180.0
        elif self.is_mirrored:
            words.append("mirrored")
        if abs(angle) >= _STILL_DEGREES:
            words.append(f"turned {angle:.1f} degrees")
        if abs(self.scale - 1.0) >= _STILL_SCALE:
            words.append(f"scaled by {self.scale:.3f}")
        distance = float(np.hypot(self.shift_rows, self.shift_columns))
        if distance >= _STILL_PX:
            words.append(f"moved {distance:.1f} px")
        return ", ".join(words) or "as it lies"


@dataclass(frozen=True, slots=True)
class Registration:
    """The best way found to lay image b onto image a.

    Attributes:
        transform: What to do with b (`warp`).
        fit: Correlation of the locally normalised images over the overlap, -1 to 1. Copies are above about .8.
            It is 0 where one image is constant, and -1 where under 35 % of the images overlap.
        overlap: Part of the image that both show, 0 to 1; of the two images' parts the smaller.
    """

    transform: Transform
    fit: float
    overlap: float


@dataclass(frozen=True, slots=True)
class Evidence:
    """How well a registered pair agrees; all over the pixels that both images show.

    Where under 35 % overlap, all but `overlap` are -1. Of constant images and of overlaps under 3 px wide `s1` and
    `ncc` are 0; what is flat in both is taken as agreeing by `s2`, which is -1 for overlaps under 5 px wide.

    Attributes:
        s1: Correlation of the locally normalised images, -1 to 1: tells copies from others.
        s2: Mean of the lowest 1 % of the local correlation, about -.5 to 1: tells exact copies from near ones,
            which deviate in places.
        local_mean: Mean of all of the local correlation, about -.5 to 1; -1 where `s2` is -1 for want of pixels.
        ncc: Correlation of the blurred grey values, -1 to 1.
        overlap: As in `Registration`.
    """

    s1: float
    s2: float
    local_mean: float
    ncc: float
    overlap: float


@dataclass(frozen=True, slots=True)
class EvidenceMaps:
    """Where a registered pair agrees, in the frame of image a; float32 of its shape, NaN outside the overlap.

    Of images much wider than 112 px, blocks of pixels share a value: that of the pyramid level which was compared.

    Attributes:
        agreement: Product of the locally normalised images; the overlap is 1 px narrower here.
        local_correlation: Local correlation, whose low end S2 is; the overlap is 2 px narrower here.
    """

    agreement: NDArray[np.float32]
    local_correlation: NDArray[np.float32]


def register(a: Image, b: Image, *, with_scale: bool = True) -> Registration:
    """Find the flip, rotation, shift and zoom (.85 to 1.15) that lays image b onto image a.

    The starts are all flips and rotations of a thumbnail at three zooms and at shifts to about 12 % of the rows and
    10 % of the columns. The best six get a first look, the best two distinct places are refined, and the better one
    goes on over a pyramid of locally normalised images, by Gauss-Newton with the mean of both images' gradients
    (efficient second-order minimisation, Benhimane and Malis, IROS 2004, section 3) and Cauchy weights. The scale is
    freed only where that fits better, and pairs that hardly fit get a few steps alone.

    Args:
        a: ``(rows, columns)``, float32 in [0, 1] or uint8, at most 4,096 a side.
        b: The same shape.
        with_scale: Whether zoom may be part of it.

    Returns:
        The transform of b, and how well it fits. Unrelated images give the best fit that was met, a low one.

    Raises:
        TypeError: An image is neither float32 nor uint8.
        ValueError: An image is empty, not 2-D, has values outside [0, 1] or NaN, or the shapes differ.

    Example:
        >>> image = np.random.default_rng(0).random((64, 64), np.float32)
        >>> found = register(image[:, ::-1].copy(), image)
        >>> str(found.transform), round(found.fit, 3)
        ('mirrored', 1.0)
    """
    numbers, fit, overlap = _core.register_images(_prepared(a), _prepared(b), with_scale=with_scale)
    return Registration(Transform(*numbers), fit, overlap)


def evidence(a: Image, b: Image, transform: Transform) -> Evidence:
    """Compare image a with image b laid onto it.

    Takes the pyramid level whose width is next to 112 px, warps b there, blurs both (1 px) and normalises them:
    less the Gaussian mean, over the local standard deviation (sigma 3 px, .04 added in squares). Their correlation
    is S1. For S2 they are correlated in windows of 7 x 7 px with .3 added above and below, and the lowest 1 %
    averaged over the overlap less 2 px. All else takes the overlap less 1 px, and where a window or a Gaussian
    reaches beyond it, only what is inside counts: the fill that came in when a copy was turned is no anatomy. All
    Gaussians are three extended boxes (Gwosdek et al., SSVM 2011).

    Args:
        a: As in `register`.
        b: As in `register`.
        transform: What lays b onto a.

    Returns:
        The statistics.

    Raises:
        TypeError: As in `register`.
        ValueError: As in `register`, or the transform is not finite or its scale outside .1 to 10.

    Example:
        >>> image = np.random.default_rng(0).random((64, 64), np.float32)
        >>> evidence(image, image, Transform())
        Evidence(s1=1.0, s2=1.0, local_mean=1.0, ncc=1.0, overlap=1.0)
    """
    found = _core.evidence(_prepared(a), _prepared(b), _numbers(transform))
    return Evidence(*found[:5])


def evidence_maps(a: Image, b: Image, transform: Transform) -> tuple[Evidence, EvidenceMaps]:
    """Compare as `evidence` does, and return the maps behind the statistics too.

    Args:
        a: As in `register`.
        b: As in `register`.
        transform: What lays b onto a.

    Returns:
        The statistics and the maps, new arrays.

    Raises:
        TypeError: As in `evidence`.
        ValueError: As in `evidence`.

    Example:
        >>> image = np.random.default_rng(0).random((64, 64), np.float32)
        >>> _, maps = evidence_maps(image, image, Transform())
        >>> maps.local_correlation.shape
        (64, 64)
    """
    found = _core.evidence(_prepared(a), _prepared(b), _numbers(transform), with_maps=True)
    return Evidence(*found[:5]), EvidenceMaps(*found[5:])


def warp(image: NDArray[np.float32], transform: Transform) -> NDArray[np.float32]:
    """Show an image under a transform, by bilinear interpolation.

    Args:
        image: ``(rows, columns)``, float32, rows contiguous; any finite values.
        transform: What to do with it.

    Returns:
        A new array of the same shape; 0 where nothing of the image lies.

    Raises:
        TypeError: The image is not float32.
        ValueError: It is empty, not 2-D or over 4,096 a side, or the transform is not finite.

    Example:
        >>> warp(np.array([[1, 2, 3]], np.float32), Transform(shift_columns=1.0))
        array([[0., 1., 2.]], dtype=float32)
    """
    return _core.warp_image(image, _numbers(transform))


class Registrar:
    """Real images, prepared once, that synthetic images are verified against.

    Nothing changes after construction: any number of threads may call `verify` at once.

    Args:
        real_images: Images of one shape, as in `register`. 6 to 10 bytes a pixel are kept of each (`n_bytes`).
        threads: How many prepare them; 0 takes all processors that this process may use.

    Raises:
        TypeError: As in `register`.
        ValueError: As in `register`.

    Example:
        >>> images = np.random.default_rng(0).random((3, 48, 48), np.float32)
        >>> registrar = Registrar(images)
        >>> [(registration, evidence)] = registrar.verify(images[1][::-1].copy(), [1])
        >>> str(registration.transform)
        'mirrored upside down'
    """

    def __init__(self, real_images: Iterable[Image], *, threads: int = 1) -> None:
        self._images = map_on_threads(_prepared, real_images, threads)
        shapes = {image.shape for image in self._images}
        if len(shapes) > 1:
            raise ValueError(f"the real images have {len(shapes)} different shapes; resize them to one size first")

    def __len__(self) -> int:
        return len(self._images)

    @property
    def n_bytes(self) -> int:
        """Bytes that the prepared images take."""
        return sum(image.bytes for image in self._images)

    def verify(
        self, synthetic_image: Image, candidates: Sequence[int], *, with_scale: bool = True
    ) -> list[tuple[Registration, Evidence]]:
        """Register real images onto one synthetic image and compare them, on one thread.

        Args:
            synthetic_image: As in `register`, in the shape of the real images.
            candidates: Which real images, by their place from 0.
            with_scale: As in `register`.

        Returns:
            A pair for each candidate, in their order; the transforms move the real images.

        Raises:
            TypeError: As in `register`.
            ValueError: As in `register`, or a candidate does not exist.
        """
        return self.verify_many([synthetic_image], [candidates], with_scale=with_scale, threads=1)[0]

    def verify_many(
        self,
        synthetic_images: Sequence[Image],
        candidates: Sequence[Sequence[int]],
        *,
        with_scale: bool = True,
        threads: int = 0,
    ) -> list[list[tuple[Registration, Evidence]]]:
        """Do what `verify` does for many synthetic images, on threads; Ctrl-C ends it.

        Args:
            synthetic_images: As in `verify`.
            candidates: For each synthetic image, which real images.
            with_scale: As in `register`.
            threads: How many; 0 takes all processors that this process may use.

        Returns:
            For each synthetic image what `verify` returns.

        Raises:
            TypeError: As in `verify`.
            ValueError: As in `verify`, or the two sequences differ in length, or threads is negative.
        """
        if len(synthetic_images) != len(candidates):
            raise ValueError(f"{len(synthetic_images)} synthetic images have {len(candidates)} lists of candidates")
        counts = [len(chosen) for chosen in candidates]
        starts = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)]).astype(np.int64)
        flat = np.array([i for chosen in candidates for i in chosen], dtype=np.int64)
        rows = _core.verify_images(
            map_on_threads(_prepared, synthetic_images, threads),
            self._images,
            starts,
            flat,
            with_scale=with_scale,
            threads=threads,
        )
        pairs = [_as_pair(row) for row in rows.tolist()]
        return [pairs[first : first + n] for first, n in zip(starts.tolist(), counts, strict=False)]


def _prepared(image: Image) -> _core.RegistrationImage:
    return _core.RegistrationImage(float_grey(image))


def _numbers(transform: Transform) -> tuple[bool, float, float, float, float]:
    return astuple(transform)


def _as_pair(row: list[float]) -> tuple[Registration, Evidence]:
    mirrored, angle, shift_rows, shift_columns, scale, fit, overlap, *statistics = row
    transform = Transform(bool(mirrored), angle, shift_rows, shift_columns, scale)
    return Registration(transform, fit, overlap), Evidence(*statistics)
