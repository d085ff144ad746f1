"""Image operations of the C++ core, one subject a module."""

from __future__ import annotations

from deepssim.image_ops.grey import byte_grey, float_grey, is_byte_image, unit_grey
from deepssim.image_ops.registered import (
    RegisteredMaps,
    RegisteredSimilarity,
    registered_maps,
    registered_similarity,
)
from deepssim.image_ops.registration import (
    Evidence,
    EvidenceMaps,
    Registrar,
    Registration,
    Transform,
    evidence,
    evidence_maps,
    register,
    warp,
)
from deepssim.image_ops.resize import resize_area
from deepssim.image_ops.similarity import fsim, ncc, similarity_matrix, similarity_pairs, ssim, ssim_map
from deepssim.image_ops.threads import map_on_threads
from deepssim.image_ops.views import BANK, FLIPS, ViewGrid, ViewOf, make_views

__all__ = [
    "BANK",
    "FLIPS",
    "Evidence",
    "EvidenceMaps",
    "RegisteredMaps",
    "RegisteredSimilarity",
    "Registrar",
    "Registration",
    "Transform",
    "ViewGrid",
    "ViewOf",
    "byte_grey",
    "evidence",
    "evidence_maps",
    "float_grey",
    "fsim",
    "is_byte_image",
    "make_views",
    "map_on_threads",
    "ncc",
    "register",
    "registered_maps",
    "registered_similarity",
    "resize_area",
    "similarity_matrix",
    "similarity_pairs",
    "ssim",
    "ssim_map",
    "unit_grey",
    "warp",
]
