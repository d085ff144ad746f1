"""What exports share: a network in PyTorch as an ONNX model that says nothing of this machine, and its file."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from deepssim.disk import replacing
from deepssim.extras import require

__all__ = ["OPSET", "to_onnx", "write_graph"]

OPSET = 18


def to_onnx(
    network: nn.Module,
    example: tuple[Tensor, ...],
    *,
    inputs: Sequence[str],
    output: str,
    dynamic: tuple[dict[int, Any], ...],
    opset: int = OPSET,
) -> Any:
    """Return a network as an ONNX model.

    Args:
        network: In evaluation mode on the CPU, of one output.
        example: Inputs; more than one of a batch, since a batch of one would freeze the axis.
        inputs: Their names.
        output: Its name.
        dynamic: Axes of each input that may have any size, by number: `torch.export.Dim`.
        opset: Version of ONNX operators.

    Raises:
        torch.onnx.OnnxExporterError: PyTorch cannot export it.
        MissingDependencyError: The onnxscript package is not installed.
    """
    require("onnxscript", "train")
    with warnings.catch_warnings():
        # It is told that two inputs have as many images, and is surprised that they do.
        warnings.filterwarnings("ignore", message="# The axis name", category=UserWarning)
        program = torch.onnx.export(
            network, example, dynamo=True, opset_version=opset, input_names=list(inputs), output_names=[output],
            dynamic_shapes=dynamic, external_data=False, verbose=False,
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


def write_graph(model: Any, key: str, metadata: Mapping[str, Any], path: Path) -> int:
    """Write an ONNX model with metadata, whole or not at all; the same model gives the same bytes.

    Args:
        model: As the onnx package has it; gets the metadata.
        key: Of the metadata.
        metadata: JSON.
        path: Of the file.

    Returns:
        Bytes of the file.
    """
    onnx = require("onnx", "cpu")
    onnx.helper.set_model_props(model, {key: json.dumps(metadata, sort_keys=True)})
    onnx.checker.check_model(model)
    data = model.SerializeToString(deterministic=True)
    with replacing(path) as temporary:
        temporary.write_bytes(data)
    return len(data)
