"""Similarity of grey images of one size, pixel against pixel: SSIM, a gradient FSIM, correlation.

Images are ``uint8`` or ``float32``, pixels of a row contiguous, and are read where they lie. Images of different
sizes are refused: how to resize is the caller's decision. The numbers do not depend on the processor, on the
number of threads or on which other images are compared in the same call; the two dtypes give the same numbers for
the same grey values.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from deepssim import _core

__all__ = ["Kind", "Window", "fsim", "ncc", "similarity_matrix", "similarity_pairs", "ssim", "ssim_map"]

Images = NDArray[np.uint8] | NDArray[np.float32]
Kind = Literal["ssim", "contrast_structure", "fsim", "ncc"]
Window = Literal["uniform", "gaussian"]


def _stack_of_one(image: Images, name: str) -> Images:
    if np.ndim(image) != 2:
        raise ValueError(f"{name} must be one grey image (rows, columns), not {np.ndim(image)}-dimensional")
    return image[np.newaxis]


def _range(data_range: float | None) -> float:
    """Return what the core takes: 0 where the range is to come from the first image."""
    if data_range is None:
        return 0.0
    if not (math.isfinite(data_range) and data_range > 0):
        raise ValueError(f"data_range must be positive, not {data_range}; give None for the range of the first image")
    return float(data_range)


def ssim(
    a: Images,
    b: Images,
    *,
    data_range: float | None,
    window: Window = "uniform",
    with_z_score: bool = False,
    has_luminance: bool = True,
) -> float:
    """Return the mean structural similarity of two images.

    Wang, Bovik, Sheikh and Simoncelli, "Image quality assessment: from error visibility to structural
    similarity", IEEE Transactions on Image Processing 13(4), 2004, equation 13, with K1 = .01 and K2 = .03, over
    the places at which the window lies inside the image. It is scikit-image's ``structural_similarity`` in
    float64, to 1e-7 where both images hold whole numbers from 0 to 255 (2e-7 where they are flat) and to rounding
    otherwise.

    Args:
        a: ``(rows, columns)``, uint8 or float32.
        b: The same shape.
        data_range: Range of the pixel values, in their unit: 255 for 8-bit images. None: largest less smallest of
            `a` (after the z-score), as published work on copies of training images takes it.
        window: "uniform": 7 x 7 pixels, sample covariance. "gaussian": standard deviation 1.5 pixels, 11 x 11
            pixels, population covariance (section III-B of the paper).
        with_z_score: Compare ``(x - mean) / std`` of each image (population standard deviation). An image that is
            constant becomes zero.
        has_luminance: False for the contrast-structure term alone, ``(2 cov + C2) / (var_a + var_b + C2)``.

    Returns:
        At most 1, which equal images reach.

    Raises:
        TypeError: An image is neither uint8 nor float32.
        ValueError: Shapes differ, are not two-dimensional or smaller than the window; a pixel is not finite;
            `data_range` is not positive, or None although `a` is constant.

    Example:
        >>> image = np.arange(144, dtype=np.uint8).reshape(12, 12)
        >>> ssim(image, image, data_range=255)
        1.0
        >>> round(ssim(image, image // 2, data_range=255), 4)
        0.6489
    """
    kind = "ssim" if has_luminance else "contrast_structure"
    return _core.similarity_pair(
        kind,
        _stack_of_one(a, "a"),
        _stack_of_one(b, "b"),
        data_range=_range(data_range),
        window=window,
        with_z_score=with_z_score,
    )


def ssim_map(
    a: Images,
    b: Images,
    *,
    data_range: float | None,
    window: Window = "uniform",
    with_z_score: bool = False,
    has_luminance: bool = True,
) -> NDArray[np.float64]:
    """Return the structural similarity at each place at which the window lies inside the images.

    Args:
        a: As `ssim` takes it, and so are the others.
        b: The same shape.
        data_range: See `ssim`.
        window: See `ssim`.
        with_z_score: See `ssim`.
        has_luminance: See `ssim`.

    Returns:
        A new array ``(rows - 2 r, columns - 2 r)``, float64, with r = 3 pixels for the uniform window and 5 for the
        Gaussian; element ``(y, x)`` belongs to the pixel ``(y + r, x + r)``. Its mean is `ssim` to 1e-7.

    Raises:
        TypeError: See `ssim`.
        ValueError: See `ssim`.

    Example:
        >>> image = np.arange(144, dtype=np.uint8).reshape(12, 12)
        >>> ssim_map(image, image, data_range=255).shape
        (6, 6)
    """
    kind = "ssim" if has_luminance else "contrast_structure"
    return _core.similarity_map(
        kind,
        _stack_of_one(a, "a"),
        _stack_of_one(b, "b"),
        data_range=_range(data_range),
        window=window,
        with_z_score=with_z_score,
    )


def fsim(a: Images, b: Images) -> float:
    """Return the feature similarity of two images, with gradients in the place of phase congruency.

    Zhang, Zhang, Mou and Zhang, "FSIM: a feature similarity index for image quality assessment", IEEE Transactions
    on Image Processing 20(8), 2011, section III, weighs the similarity of gradient magnitudes (there Scharr's) by
    phase congruency from log-Gabor filters. Here, as in published work on copies of training images, central
    differences over their maximum stand for phase congruency, and gradients are Sobel's, their borders reflected about
    the outermost pixel; T1 = .85, T2 = 160. Scores of the two definitions must not be compared.

    Args:
        a: ``(rows, columns)``, uint8 or float32, grey values from 0 to 255: T2 is in their unit squared.
        b: The same shape.

    Returns:
        From 0 to 1 for grey values from 0 to 255. Two constant images have no feature and give 0.

    Raises:
        TypeError: An image is neither uint8 nor float32.
        ValueError: Shapes differ or are below 2 x 2; a pixel is not finite or beyond 1e6.

    Example:
        >>> image = np.arange(144, dtype=np.uint8).reshape(12, 12)
        >>> fsim(image, image)
        1.0
    """
    return _core.similarity_pair("fsim", _stack_of_one(a, "a"), _stack_of_one(b, "b"))


def ncc(a: Images, b: Images) -> float:
    """Return the normalised cross-correlation of two images: Pearson's correlation of their pixels.

    Args:
        a: ``(rows, columns)``, uint8 or float32.
        b: The same shape.

    Returns:
        From -1 to 1, to about 1e-7; 0 where an image is constant.

    Raises:
        TypeError: An image is neither uint8 nor float32.
        ValueError: Shapes differ or are empty; a pixel is not finite.

    Example:
        >>> image = np.arange(144, dtype=np.uint8).reshape(12, 12)
        >>> round(ncc(image, 255 - image), 6)
        -1.0
    """
    return _core.similarity_pair("ncc", _stack_of_one(a, "a"), _stack_of_one(b, "b"))


def similarity_pairs(
    kind: Kind,
    real: Images,
    synthetic: Images,
    index_pairs: NDArray[np.int64],
    *,
    data_range: float | None = None,
    window: Window = "uniform",
    with_z_score: bool = False,
    threads: int = 0,
    cancel: _core.CancelToken | None = None,
    isa: str = "",
) -> NDArray[np.float64]:
    """Compare pairs of images given by index.

    Args:
        kind: "ssim", "contrast_structure" (`ssim` without luminance), "fsim" or "ncc".
        real: ``(n_real, rows, columns)``, uint8 or float32.
        synthetic: ``(n_synthetic, rows, columns)``.
        index_pairs: ``(n_pairs, 2)``, int64: of `real`, of `synthetic`. What several pairs need of an image is
            mostly computed once.
        data_range: See `ssim`; used by "ssim" and "contrast_structure" alone, like `window` and `with_z_score`. None:
            the range of each pair's real image.
        window: See `ssim`.
        with_z_score: See `ssim`.
        threads: 0 for all processors that this process may use.
        cancel: A token that ends the call from another thread.
        isa: A level of `deepssim.search.supported_isa_levels`; empty for the best. Numbers do not depend on it.

    Returns:
        A new array ``(n_pairs,)``, float64, in the order of `index_pairs`.

    Raises:
        TypeError: Images are neither uint8 nor float32, or indices are not int64.
        ValueError: See `ssim` and `fsim`; or an index is out of range. Images are checked before any is compared.
        RuntimeError: `cancel` was set.

    Example:
        >>> images = np.random.default_rng(0).integers(0, 256, (3, 16, 16)).astype(np.uint8)
        >>> similarity_pairs("ssim", images, images[1:], np.array([[1, 0], [2, 1]]), data_range=255)
        array([1., 1.])
    """
    index_pairs = np.asarray(index_pairs)
    if index_pairs.ndim != 2 or index_pairs.shape[1] != 2:
        raise ValueError(f"index_pairs must have the shape (n_pairs, 2), not {index_pairs.shape}")
    return _core.similarity_pairs(
        kind,
        real,
        synthetic,
        np.ascontiguousarray(index_pairs).reshape(-1),
        data_range=_range(data_range),
        window=window,
        with_z_score=with_z_score,
        threads=threads,
        cancel=cancel,
        isa=isa,
        names=("real", "synthetic"),
    )


def similarity_matrix(
    kind: Kind,
    real: Images,
    synthetic: Images,
    *,
    out: NDArray[np.float32] | NDArray[np.float64] | None = None,
    data_range: float | None = None,
    window: Window = "uniform",
    with_z_score: bool = False,
    threads: int = 0,
    cancel: _core.CancelToken | None = None,
    isa: str = "",
) -> NDArray[np.float32] | NDArray[np.float64]:
    """Compare every real image with every synthetic one.

    Beside the images and `out` it needs about 64 MiB whatever their number. For a matrix that memory does not hold,
    call it with slices of the stacks and of `out`, for example of a ``np.memmap``: the numbers are the same.

    Args:
        kind: See `similarity_pairs`, and so are the others.
        real: ``(n_real, rows, columns)``, uint8 or float32.
        synthetic: ``(n_synthetic, rows, columns)``.
        out: ``(n_real, n_synthetic)``, float32 or float64, rows contiguous and any distance apart: where to write.
            A call that fails may leave parts of it written. None: a new float32 array.
        data_range: See `similarity_pairs`.
        window: See `ssim`.
        with_z_score: See `ssim`.
        threads: 0 for all processors that this process may use.
        cancel: A token that ends the call from another thread.
        isa: See `similarity_pairs`.

    Returns:
        `out`.

    Raises:
        TypeError: Images are neither uint8 nor float32, `out` neither float32 nor float64.
        ValueError: See `ssim` and `fsim`; or `out` has another shape. Images are checked before any is compared.
        RuntimeError: `cancel` was set.

    Example:
        >>> images = np.random.default_rng(0).integers(0, 256, (3, 16, 16)).astype(np.uint8)
        >>> similarity_matrix("ncc", images, images[:2], threads=1).round(2).diagonal()
        array([1., 1.], dtype=float32)
    """
    if out is None:
        out = np.empty((len(real), len(synthetic)), np.float32)
    _core.similarity_matrix(
        kind,
        real,
        synthetic,
        out,
        data_range=_range(data_range),
        window=window,
        with_z_score=with_z_score,
        threads=threads,
        cancel=cancel,
        isa=isa,
        names=("real", "synthetic"),
    )
    return out
