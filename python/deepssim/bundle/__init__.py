"""Metric bundles made of a user's encoder, or of the pixels themselves."""

from deepssim.bundle.encoder import OnnxEncoder, read_onnx_encoder
from deepssim.bundle.making import (
    INTENSITIES,
    Bundled,
    Normalisation,
    bundle_encoder,
    bundle_pixels,
    pixel_bundle,
    write_thresholds,
)

__all__ = [
    "INTENSITIES",
    "Bundled",
    "Normalisation",
    "OnnxEncoder",
    "bundle_encoder",
    "bundle_pixels",
    "pixel_bundle",
    "read_onnx_encoder",
    "write_thresholds",
]
