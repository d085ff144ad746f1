"""Image operations of the C++ core, one subject a module."""

from __future__ import annotations

from deepssim.image_ops.resize import resize_area
from deepssim.image_ops.similarity import fsim, ncc, similarity_matrix, similarity_pairs, ssim, ssim_map
from deepssim.image_ops.views import BANK, FLIPS, ViewGrid, ViewOf, make_views

__all__ = [
    "BANK",
    "FLIPS",
    "ViewGrid",
    "ViewOf",
    "fsim",
    "make_views",
    "ncc",
    "resize_area",
    "similarity_matrix",
    "similarity_pairs",
    "ssim",
    "ssim_map",
]
