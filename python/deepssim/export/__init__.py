"""Networks in PyTorch to ONNX, compared before they are written: encoders and the parts of generative models."""

from deepssim.export.encoder import LARGEST_ERROR, Exported, export_encoder, input_rule, resized, sample_images
from deepssim.export.generative import LARGEST_PART_ERROR, ExportedPart, export_model
from deepssim.export.graphs import OPSET

__all__ = [
    "LARGEST_ERROR",
    "LARGEST_PART_ERROR",
    "OPSET",
    "Exported",
    "ExportedPart",
    "export_encoder",
    "export_model",
    "input_rule",
    "resized",
    "sample_images",
]
