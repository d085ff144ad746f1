"""Metric graphs in fewer bits, and whether they still say the same.

A graph with 16-bit weights keeps them as float16 and casts them back before it computes in float32: half the file, the
same arithmetic on every machine. A graph in 16 bits multiplies in float16 too; all that lies between its convolutions
and matrix products (intensity rule, normalisation, pools, the embedding) stays in float32. A graph in 8 bits multiplies
whole numbers whose scales were measured on real images (static quantisation, one scale for each channel of a weight;
Jacob et al., Quantization and training of neural networks, CVPR 2018); its first convolution and its head stay in
float32, where an error would reach everything or could not be made good.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepssim.embed import quantise_graph
from deepssim.errors import MetricError, UsageError
from deepssim.extras import require

__all__ = [
    "LARGEST_SCORE_ERROR",
    "LEAST_AGREEMENT",
    "LEAST_IMAGES",
    "PRECISIONS",
    "Agreement",
    "compare_embeddings",
    "reduce_graph",
]

PRECISIONS = ("fp32", "w16", "fp16", "int8")
# What an image needs beside it to have a nearest one, and what scales are measured on.
LEAST_IMAGES = {"fp32": 0, "w16": 32, "fp16": 32, "int8": 256}
LEAST_AGREEMENT = 0.99
LARGEST_SCORE_ERROR = 0.01
_N_CALIBRATION = 256
_BATCH = 16
_PRODUCTS = ("Conv", "MatMul", "Gemm")
# Linear layers of the head, in all of our encoders.
_N_HEAD = 2
_TIE = 1e-6


@dataclass(frozen=True, slots=True)
class Agreement:
    """How far embeddings in fewer bits say the same as the full ones.

    Attributes:
        n_images: Images that were compared with each other.
        rank1: Share of them whose nearest other image is the same.
        score_error: Largest difference of the score of two of them.
    """

    n_images: int
    rank1: float
    score_error: float

    def is_enough(self) -> bool:
        """Return whether a graph in fewer bits may take the full one's place."""
        return self.rank1 >= LEAST_AGREEMENT and self.score_error <= LARGEST_SCORE_ERROR


def compare_embeddings(full: NDArray[np.float32], reduced: NDArray[np.float32]) -> Agreement:
    """Compare the scores of all pairs of images under two graphs.

    Where two images are equally near under the full graph, either may be the nearest.

    Args:
        full: ``(n, dim)``, unit norm.
        reduced: The same images under the other graph.

    Raises:
        MetricError: There are fewer than two images, or an embedding is not finite.

    Example:
        >>> full = np.eye(3, dtype=np.float32)
        >>> compare_embeddings(full, full)
        Agreement(n_images=3, rank1=1.0, score_error=0.0)
    """
    n = len(full)
    if n < 2 or full.shape != reduced.shape:
        raise MetricError(f"embeddings {full.shape} and {reduced.shape} cannot be compared: two images or more, alike")
    if not (np.isfinite(full).all() and np.isfinite(reduced).all()):
        raise MetricError("an embedding is not finite: leave out images without structure")
    expected, found = (rows @ rows.T for rows in (full.astype(np.float64), reduced.astype(np.float64)))
    error = float(np.abs(found - expected).max())
    np.fill_diagonal(expected, -np.inf)
    np.fill_diagonal(found, -np.inf)
    chosen = expected[np.arange(n), found.argmax(1)]
    return Agreement(n, float((chosen >= expected.max(1) - _TIE).mean()), error)


def reduce_graph(model: Any, precision: str, images: NDArray[np.float32]) -> Any:
    """Return a graph in fewer bits.

    Args:
        model: ONNX model of one input ``(n, 1, height, width)`` float32; left as it is.
        precision: ``"w16"``, ``"fp16"`` or ``"int8"``.
        images: ``(n, 1, height, width)`` real images that the scales of 8 bits are measured on; 256 of them, spread
            evenly, are.

    Raises:
        UsageError: The precision is unknown, or there are too few images.
        MetricError: A weight has no place in 16 bits.
    """
    if precision not in PRECISIONS[1:]:
        raise UsageError(f"unknown precision {precision!r}: {', '.join(PRECISIONS[1:])}")
    check_images(precision, len(images))
    copy = type(model)()
    copy.CopyFrom(model)
    if precision == "int8":
        return _in_bytes(copy, images)
    return _in_halves(copy) if precision == "fp16" else _stored_in_halves(copy)


def check_images(precision: str, n_images: int) -> None:
    """Refuse a precision that needs more real images than there are.

    Raises:
        UsageError: There are too few; says how many are needed.
    """
    least = LEAST_IMAGES[precision]
    if n_images < least:
        raise UsageError(
            f"{precision} is measured on {least} real images or more, there are {n_images}: "
            "give a folder of more with --images, or export fp32"
        )


def _in_bytes(model: Any, images: NDArray[np.float32]) -> Any:
    products = [node.name for node in model.graph.node if node.op_type in _PRODUCTS]
    first = next((node.name for node in model.graph.node if node.op_type == "Conv"), None)
    linear = [node.name for node in model.graph.node if node.op_type in _PRODUCTS[1:]]
    excluded = {*linear[-_N_HEAD:], *([first] if first else [])}
    if len(excluded) == len(products):
        raise MetricError("the graph has no layer beside its first convolution and its head that could be in 8 bits")
    chosen = images[np.linspace(0, len(images) - 1, min(len(images), _N_CALIBRATION)).round().astype(int)]

    def batches() -> Iterator[NDArray[np.float32]]:
        for start in range(0, len(chosen), _BATCH):
            yield chosen[start : start + _BATCH]

    data = quantise_graph(model, batches(), operators=_PRODUCTS, excluded=sorted(excluded))
    return require("onnx", "cpu").load_model_from_string(data)


def _stored_in_halves(model: Any) -> Any:
    """Keep the weights of products in float16, and cast them back before they are used."""
    onnx = require("onnx", "cpu")
    graph = model.graph
    used = {name for node in graph.node if node.op_type in _PRODUCTS for name in node.input}
    chosen = [t for t in graph.initializer if t.name in used and t.data_type == onnx.TensorProto.FLOAT and t.dims]
    casts = []
    for tensor in chosen:
        half = _half_weight(onnx, tensor, f"{tensor.name}.half")
        casts.append(_cast(onnx, half.name, tensor.name, onnx.TensorProto.FLOAT))
        tensor.CopyFrom(half)
    nodes = [*casts, *graph.node]
    kept = [type(node)() for node in nodes]
    for copy, node in zip(kept, nodes, strict=True):
        copy.CopyFrom(node)
    del graph.node[:]
    graph.node.extend(kept)
    return model


def _in_halves(model: Any) -> Any:
    """Multiply in float16: cast what a product takes, keep its weights so, cast back what it gives."""
    onnx = require("onnx", "cpu")
    graph = model.graph
    weights = {tensor.name: tensor for tensor in graph.initializer if tensor.data_type == onnx.TensorProto.FLOAT}
    halves: dict[str, str] = {}
    nodes = []
    for node in graph.node:
        if node.op_type not in _PRODUCTS:
            nodes.append(node)
            continue
        for place, name in enumerate(node.input):
            if not name:
                continue
            if name not in halves:
                halves[name] = f"{name}.half"
                if name in weights:
                    graph.initializer.append(_half_weight(onnx, weights[name], halves[name]))
                else:
                    nodes.append(_cast(onnx, name, halves[name], onnx.TensorProto.FLOAT16))
            node.input[place] = halves[name]
        (output,) = node.output
        node.output[0] = f"{output}.product"
        nodes += [node, _cast(onnx, f"{output}.product", output, onnx.TensorProto.FLOAT)]
    kept = [type(node)() for node in nodes]
    for copy, node in zip(kept, nodes, strict=True):
        copy.CopyFrom(node)
    del graph.node[:]
    graph.node.extend(kept)
    used = {name for node in kept for name in node.input} | {value.name for value in graph.output}
    for place in reversed(range(len(graph.initializer))):
        if graph.initializer[place].name not in used:
            del graph.initializer[place]
    return model


def _half_weight(onnx: Any, tensor: Any, name: str) -> Any:
    values = onnx.numpy_helper.to_array(tensor)
    largest = float(np.abs(values).max(initial=0.0))
    if not (math.isfinite(largest) and largest <= float(np.finfo(np.float16).max)):
        raise MetricError(f"the weight {tensor.name} reaches {largest:.3g}, which has no place in 16 bits: export fp32")
    return onnx.numpy_helper.from_array(values.astype(np.float16), name)


def _cast(onnx: Any, given: str, made: str, to: int) -> Any:
    return onnx.helper.make_node("Cast", [given], [made], name=f"cast.{made}", to=to)
