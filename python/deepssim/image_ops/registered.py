"""How alike two images are once one is laid onto the other: SSIM, FSIM and correlation over what both show."""

from __future__ import annotations

from dataclasses import astuple, dataclass

import numpy as np
from numpy.typing import NDArray

from deepssim import _core
from deepssim.image_ops.grey import float_grey
from deepssim.image_ops.registration import Image, Transform

__all__ = ["RegisteredMaps", "RegisteredSimilarity", "registered_maps", "registered_similarity"]


@dataclass(frozen=True, slots=True)
class RegisteredSimilarity:
    """The field's statistics of a registered pair, over the pixels that both images show.

    All but the overlap are -1 where under 35 % overlap, as in `Evidence`.

    Attributes:
        ssim: Structural similarity, at most 1. 1 where both images are constant in the overlap, 0 where `a` alone is,
            and -1 where no window of 7 x 7 pixels lies in the overlap.
        contrast_structure: The same without the luminance term.
        fsim: Gradient FSIM, 0 to 1; 0 where neither image has an edge.
        ncc: Pearson's correlation of the grey values, -1 to 1; 0 where one image is constant.
        overlap: Part of the image that both show, 0 to 1; of the two images' parts the smaller.
    """

    ssim: float
    contrast_structure: float
    fsim: float
    ncc: float
    overlap: float


@dataclass(frozen=True, slots=True)
class RegisteredMaps:
    """Where a registered pair is alike: float32 of image a's shape, NaN but at the centres of windows in the overlap.

    Attributes:
        ssim: What `RegisteredSimilarity.ssim` is the mean of.
        contrast_structure: The same without the luminance term.
    """

    ssim: NDArray[np.float32]
    contrast_structure: NDArray[np.float32]


def registered_similarity(a: Image, b: Image, transform: Transform) -> RegisteredSimilarity:
    """Compare image a with image b laid onto it (`warp`), pixel against pixel.

    SSIM is that of Wang, Bovik, Sheikh and Simoncelli (IEEE Transactions on Image Processing 13(4), 2004, equation
    13): the grey values of both images over their standard deviation in the overlap, less the mean there; the range
    from the first image's largest and smallest value there, as published work on copies of training images takes it;
    windows of 7 x 7 pixels with the sample covariance, those that lie wholly in the overlap. FSIM is `fsim`'s on
    grey values to 255, over the pixels all of whose neighbours in the frame lie in the overlap; its maxima are taken
    over the same pixels.

    Under the identity it is ``ssim(a, b, with_z_score=True, data_range=None)``, ``fsim(255 * a, 255 * b)`` and
    ``ncc(a, b)``, to 1e-6. Like theirs, the numbers do not depend on the processor.

    Args:
        a: ``(rows, columns)``, float32 in [0, 1] or uint8 (divided by 255), from 7 x 7 to 4,096 x 4,096 pixels.
        b: The same shape.
        transform: What lays b onto a.

    Returns:
        The statistics.

    Raises:
        TypeError: An image is neither float32 nor uint8.
        ValueError: An image is too small or too large, not 2-D, has values outside [0, 1] or NaN; the shapes differ;
            the transform is not finite or its scale outside .1 to 10.

    Example:
        >>> image = np.random.default_rng(0).random((64, 64), np.float32)
        >>> found = registered_similarity(image, image[:, ::-1].copy(), Transform(is_mirrored=True))
        >>> found.ssim, found.fsim, found.overlap
        (1.0, 1.0, 1.0)
    """
    found = _core.registered_similarity(float_grey(a), float_grey(b), astuple(transform))
    return RegisteredSimilarity(*found[:5])


def registered_maps(a: Image, b: Image, transform: Transform) -> tuple[RegisteredSimilarity, RegisteredMaps]:
    """Compare as `registered_similarity` does, and return the maps behind SSIM too.

    Args:
        a: As in `registered_similarity`.
        b: As in `registered_similarity`.
        transform: What lays b onto a.

    Returns:
        The statistics and the maps, new arrays.

    Raises:
        TypeError: As in `registered_similarity`.
        ValueError: As in `registered_similarity`.

    Example:
        >>> image = np.random.default_rng(0).random((64, 64), np.float32)
        >>> _, maps = registered_maps(image, image, Transform(shift_rows=10.0))
        >>> maps.ssim.shape, bool(np.isnan(maps.ssim[12]).all()), bool(np.isnan(maps.ssim[13, 3:-3]).any())
        ((64, 64), True, False)
    """
    found = _core.registered_similarity(float_grey(a), float_grey(b), astuple(transform), with_maps=True)
    return RegisteredSimilarity(*found[:5]), RegisteredMaps(*found[5:])
