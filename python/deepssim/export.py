"""Encoders in PyTorch to metric bundles in ONNX, compared before they are written.

The graph takes raw float32 grey images, any number at a time; intensity rule and normalisation are inside. What PyTorch
and ONNX Runtime make of the same images may differ by `LARGEST_ERROR`, else nothing is written.
"""

from __future__ import annotations

import copy
import json
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from deepssim import __version__
from deepssim.disk import replacing
from deepssim.embed import run_graph
from deepssim.errors import MetricError
from deepssim.extras import require
from deepssim.image_ops import resize_area
from deepssim.metric import METADATA_KEY
from deepssim.models.checkpoint import Description
from deepssim.models.convnext import ConvNext

__all__ = ["LARGEST_ERROR", "OPSET", "Exported", "export_encoder"]

OPSET = 18
LARGEST_ERROR = 1e-4
_BATCHES = (1, 2, 7, 32)


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written.

    Attributes:
        path: The bundle.
        error: Largest difference of an element of an embedding between PyTorch and ONNX Runtime.
        n_images: Real images that were compared beside random ones.
        n_bytes: Of the file.
    """

    path: Path
    error: float
    n_images: int
    n_bytes: int


def export_encoder(
    encoder: nn.Module,
    description: Description,
    path: Path,
    *,
    name: str | None = None,
    text: str = "",
    provenance: str = "",
    licence: str = "",
    images: Sequence[NDArray[np.float32]] = (),
    opset: int = OPSET,
) -> Exported:
    """Write an encoder as a metric bundle.

    Args:
        encoder: Raw grey images ``(n, 1, height, width)`` to embeddings of unit norm.
        description: Of it: size of the input, name, training.
        path: The ``.onnx`` file.
        name: Of the metric; None: the description's.
        text: One sentence on what it is.
        provenance: How it was made.
        licence: Of the weights.
        images: Real images in any unit, ``(height, width)``, that are compared too; brought to the input's size.
        opset: Version of ONNX operators.

    Raises:
        MetricError: The graph's embeddings differ from the encoder's by more than `LARGEST_ERROR`.
    """
    encoder = copy.deepcopy(encoder).cpu().float().eval()
    if isinstance(encoder, ConvNext):
        encoder.fold_channels()
    size = (description.height, description.width)
    model = _graph(encoder, size, opset)
    real = np.stack([_sized(image, size) for image in images])[:, None] if len(images) else np.zeros((0, 1, *size))
    dim, error = _compare(encoder, model.SerializeToString(), size, real.astype(np.float32))
    if not error <= LARGEST_ERROR:
        raise MetricError(f"ONNX Runtime's embeddings differ by {error:.2g} from PyTorch's: nothing was written")
    metadata = {
        "name": name or description.name,
        "input": {"height": size[0], "width": size[1], "channels": 1, "resize": "area"},
        "intensity": "z-score",
        "similarity": "cosine",
        "dim": dim,
        "description": text,
        "provenance": provenance or f"Architecture {description.architecture}, trained with DeepSSIM {__version__}.",
        "licence": licence,
        "export": {
            "opset": opset, "largest_error": float(f"{error:.3g}"), "batches": list(_BATCHES),
            "n_images": len(real), "torch": torch.__version__,
        },
        "training": description.training,
    }  # fmt: skip
    onnx = require("onnx", "cpu")
    onnx.helper.set_model_props(model, {METADATA_KEY: json.dumps(metadata, sort_keys=True)})
    onnx.checker.check_model(model)
    data = model.SerializeToString(deterministic=True)
    with replacing(path) as temporary:
        temporary.write_bytes(data)
    return Exported(path, error, len(real), len(data))


def _graph(encoder: nn.Module, size: tuple[int, int], opset: int) -> Any:
    require("onnxscript", "train")
    # A batch of one would freeze the axis.
    example = torch.rand(2, 1, *size)
    batch = torch.export.Dim("n", min=1)
    with warnings.catch_warnings():
        # The exporter warns of its own parts that are to change.
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            encoder, (example,), dynamo=True, opset_version=opset, input_names=["image"], output_names=["embedding"],
            dynamic_shapes=({0: batch},), external_data=False, verbose=False,
        )  # fmt: skip
    assert program is not None
    model = program.model_proto
    # Names of the modules' source files are no business of whoever reads the bundle.
    for node in model.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    for value in (*model.graph.value_info, *model.graph.input, *model.graph.output, *model.graph.initializer):
        del value.metadata_props[:]
    del model.graph.metadata_props[:]
    del model.metadata_props[:]
    return model


def _sized(image: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    return image if image.shape == size else resize_area(np.asarray(image, np.float32), *size)


def _compare(encoder: nn.Module, model: bytes, size: tuple[int, int], real: NDArray[np.float32]) -> tuple[int, float]:
    """Return the dimension and the largest difference, over batches of several sizes of random and real images."""
    rng = np.random.default_rng(0)
    largest, dim = 0.0, 0
    for n in _BATCHES:
        made = (rng.random((n, 1, *size)) * rng.choice([1.0, 255.0, 4095.0], (n, 1, 1, 1))).astype(np.float32)
        for batch in (made, *(real[i : i + n] for i in range(0, min(len(real), 4 * n), n))):
            with torch.no_grad():
                expected = encoder(torch.from_numpy(batch)).numpy()
            found = run_graph(model, batch)
            if found.shape != expected.shape:
                raise MetricError(f"the exported graph returns {found.shape} where {expected.shape} is right")
            largest, dim = max(largest, float(np.abs(found - expected).max())), expected.shape[1]
    return dim, largest
