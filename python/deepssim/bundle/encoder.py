"""Somebody's encoder in ONNX: what it takes and returns, read without running it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deepssim.bundle.graph_parts import LEAST_OPSET
from deepssim.errors import MetricError, UsageError
from deepssim.extras import require
from deepssim.metric import MAX_BUNDLE_BYTES, METADATA_KEY, refuse_unsafe

__all__ = ["OnnxEncoder", "read_onnx_encoder"]

# How a network is exported so that it can be one here.
_EXPORT = (
    "in PyTorch torch.onnx.export(encoder, (two_images,), path, dynamo=True, external_data=False, "
    "dynamic_shapes=({0: torch.export.Dim('n')},))"
)


@dataclass(frozen=True, slots=True)
class OnnxEncoder:
    """An encoder in ONNX.

    Attributes:
        path: The file.
        model: As the onnx package has it.
        hash: SHA-256 of the file, hexadecimal.
        opset: Version of ONNX operators.
        input: Name of its input.
        input_type: Of its elements, a number of ONNX.
        channels: 1 or 3.
        size: Rows and columns of the images that it takes.
        output: Name of the output that holds the embedding.
        output_type: Of its elements, a number of ONNX.
        output_shape: Lengths of its axes; None for one that is not said, and for all where not even their number is.
    """

    path: Path
    model: Any
    hash: str
    opset: int
    input: str
    input_type: int
    channels: int
    size: tuple[int, int]
    output: str
    output_type: int
    output_shape: tuple[int | None, ...] | None


def read_onnx_encoder(
    path: Path, *, size: tuple[int, int] | None = None, channels: int | None = None, output: str | None = None
) -> OnnxEncoder:
    """Read an encoder in ONNX.

    Args:
        path: ``.onnx``.
        size: Rows and columns that images will have; None: what the encoder says.
        channels: 1 or 3; None: what the encoder says.
        output: Name of the output that holds the embedding; None: the only one.

    Raises:
        UsageError: Something must be said, or what was said does not go with the encoder.
        MetricError: It cannot be read, must not be run, or is no encoder of grey images.
    """
    data = _read(path)
    model = _load(data, path)
    value, shape, found = _input(model, path, channels)
    name, output_type, output_shape = _output(model, path, output)
    input_type = value.type.tensor_type.elem_type
    return OnnxEncoder(
        path, model, hashlib.sha256(data).hexdigest(), _opset(model), value.name, input_type, found,
        _size(shape, path, size), name, output_type, output_shape,
    )  # fmt: skip


def _read(path: Path) -> bytes:
    try:
        if path.stat().st_size > MAX_BUNDLE_BYTES:
            raise MetricError(f"{path} is larger than an ONNX file can be (2 GiB)")
        return path.read_bytes()
    except OSError as error:
        raise MetricError(f"the encoder {path} cannot be read: {error.strerror}") from error


def _load(data: bytes, path: Path) -> Any:
    onnx = require("onnx", "cpu")
    try:
        model = onnx.load_model_from_string(data)
    except Exception as error:  # the parser raises types of its own
        raise MetricError(f"{path} is not an ONNX file") from error
    refuse_unsafe(model, path)
    if any(entry.key == METADATA_KEY for entry in model.metadata_props):
        raise UsageError(f"{path} is a metric bundle already: --metric {path}")
    if not model.graph.node or not model.opset_import:
        raise MetricError(f"{path} holds no graph")
    if _opset(model) < LEAST_OPSET:
        raise MetricError(
            f"{path} uses operators of ONNX version {_opset(model)}: export it with {LEAST_OPSET} or a later one"
        )
    training = sorted(_in_training(model))
    if training:
        raise MetricError(
            f"{path} was exported as it trains ({', '.join(training)}), so that an image has no embedding of its own: "
            "export it in evaluation mode, encoder.eval()"
        )
    return model


def _in_training(model: Any) -> set[str]:
    """Return the kinds of nodes that do what they do in training alone.

    A runtime may leave a dropout out, or not: it cannot be seen for sure by running the graph.
    """
    onnx = require("onnx", "cpu")
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    constants |= {
        node.output[0]: attribute.t
        for node in model.graph.node if node.op_type == "Constant"
        for attribute in node.attribute if attribute.name == "value"
    }  # fmt: skip

    def trains(node: Any) -> bool:
        if node.op_type == "BatchNormalization":
            return any(attribute.name == "training_mode" and attribute.i for attribute in node.attribute)
        # Its third input, where there is one: whether it drops.
        mode = node.input[2] if node.op_type == "Dropout" and len(node.input) > 2 else ""
        return bool(mode and (mode not in constants or onnx.numpy_helper.to_array(constants[mode]).any()))

    return {node.op_type for node in model.graph.node if trains(node)}


def _opset(model: Any) -> int:
    return max(
        (int(entry.version) for entry in model.opset_import if entry.domain in ("", "ai.onnx")), default=LEAST_OPSET
    )


def _shape(value: Any) -> tuple[int | None, ...] | None:
    tensor = value.type.tensor_type
    if not tensor.HasField("shape"):
        return None
    return tuple(entry.dim_value if entry.HasField("dim_value") else None for entry in tensor.shape.dim)


def _shown(shape: tuple[int | None, ...]) -> str:
    return " x ".join(str(side or "?") for side in shape)


def _input(model: Any, path: Path, channels: int | None) -> tuple[Any, tuple[int | None, ...], int]:
    """Return the input, its shape and its channels."""
    constants = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in constants]
    if len(inputs) != 1:
        names = ", ".join(value.name for value in inputs) or "none"
        raise MetricError(f"{path} has {len(inputs)} inputs ({names}), not one: export the image encoder alone")
    types, kind = require("onnx", "cpu").TensorProto, inputs[0].type.tensor_type.elem_type
    if kind not in (types.FLOAT, types.FLOAT16):
        raise MetricError(f"{path} takes elements of the type {types.DataType.Name(kind)}: a bundle feeds float32")
    shape = _shape(inputs[0]) or (None,) * 4
    if len(shape) != 4:
        raise MetricError(f"{path} takes {len(shape)} axes ({_shown(shape)}), not images (n, channels, height, width)")
    if shape[0] is not None:
        raise MetricError(
            f"{path} takes exactly {shape[0]} at a time: export it with a batch axis of any length, {_EXPORT}"
        )
    found = shape[1] or channels
    if found is None:
        raise UsageError(f"{path} does not say how many channels it takes: --channels 1 or --channels 3")
    if found not in (1, 3):
        raise MetricError(
            f"{path} takes images of {found} channels ({_shown(shape)}): a bundle feeds 1 or 3, as second axis"
        )
    if channels not in (None, found):
        raise UsageError(f"{path} takes images of {found} channels, not {channels}")
    return inputs[0], shape, found


def _size(shape: tuple[int | None, ...], path: Path, size: tuple[int, int] | None) -> tuple[int, int]:
    asked: tuple[int | None, ...] = size or (None, None)
    if any(mine is None and theirs is None for mine, theirs in zip(asked, shape[2:], strict=True)):
        raise UsageError(f"{path} takes images of any size: say which with --input HEIGHTxWIDTH")
    if any(None not in (mine, theirs) and mine != theirs for mine, theirs in zip(asked, shape[2:], strict=True)):
        raise UsageError(f"{path} takes images of {_shown(shape[2:])} pixels, not {_shown(asked)}")
    height, width = (int(mine or theirs or 0) for mine, theirs in zip(asked, shape[2:], strict=True))
    return height, width


def _output(model: Any, path: Path, wanted: str | None) -> tuple[str, int, tuple[int | None, ...] | None]:
    """Return name, type and shape of the output that holds the embedding."""
    names = [value.name for value in model.graph.output]
    if wanted is None and len(names) != 1:
        raise UsageError(f"{path} has {len(names)} outputs: name the embedding with --embedding: {', '.join(names)}")
    if wanted is not None and wanted not in names:
        raise UsageError(f"{path} has no output {wanted!r}: {', '.join(names)}")
    value = model.graph.output[names.index(wanted) if wanted else 0]
    shape = _shape(value)
    if shape is not None and (len(shape) not in (2, 4) or set(shape[2:]) - {None, 1}):
        raise MetricError(
            f"{path} returns {_shown(shape)} in {value.name}: features at every place; let it pool them to one row for "
            "each image, (n, dim)"
        )
    return value.name, value.type.tensor_type.elem_type, shape
