"""Make the metric bundle `pixel`: correlation of locally normalised thumbnails of 32 x 28.

    python scripts/make_pixel_bundle.py [--out python/deepssim/metrics/pixel.onnx]

The graph takes a thumbnail to units of its own: it divides by the largest magnitude, so that no sum can
overflow, and subtracts the mean (twice: the first mean of values with a large offset is itself rounded);
then it divides by the largest magnitude again. Grey values of any scale, 8 or 16 bit or Hounsfield units,
give the same embedding. Then each pixel is *normalised locally*: less the Gaussian mean about it, over the
root of the Gaussian mean of squares of that plus a floor, which keeps noise in flat places small. Weights
count pixels inside alone, so that the border is no edge. At the end the mean is subtracted and the row
divided by its Euclidean norm: the inner product of two embeddings is the correlation of two such images. A
flat image gives zeros. The file is the same, byte for byte, at every run.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

ROWS, COLUMNS = 32, 28
SIGMA_PX = 1.5
# Of the thumbnail's standard deviation.
FLOOR = 0.07
OPSET = 18


def smoothing(size: int) -> NDArray[np.float32]:
    """Return the matrix that takes Gaussian means of a row or column: each line adds up to 1."""
    places = np.arange(size, dtype=np.float64)
    weights = np.exp(-0.5 * ((places[:, None] - places[None, :]) / SIGMA_PX) ** 2)
    return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)


def build() -> onnx.ModelProto:
    """Return the model."""
    constants = [
        numpy_helper.from_array(np.array([1], np.int64), "axes"),
        numpy_helper.from_array(np.array([0, ROWS * COLUMNS], np.int64), "line"),
        numpy_helper.from_array(np.array([0, 1, ROWS, COLUMNS], np.int64), "picture"),
        numpy_helper.from_array(np.array([0, 1, 1, 1], np.int64), "number"),
        numpy_helper.from_array(np.array(1e-30, np.float32), "tiny"),
        numpy_helper.from_array(np.array(FLOOR**2, np.float32), "floor"),
        numpy_helper.from_array(smoothing(ROWS), "down"),
        numpy_helper.from_array(np.ascontiguousarray(smoothing(COLUMNS).T), "across"),
    ]
    nodes = [
        helper.make_node("Reshape", ["image", "line"], ["flat"]),
        *_scaled("flat", "units"),
        *_centred("units", "thumbnail"),
        helper.make_node("Mul", ["thumbnail", "thumbnail"], ["powers"]),
        helper.make_node("ReduceMean", ["powers", "axes"], ["variance"], keepdims=1),
        helper.make_node("Mul", ["variance", "floor"], ["least"]),
        helper.make_node("Reshape", ["least", "number"], ["lowest"]),
        helper.make_node("Reshape", ["thumbnail", "picture"], ["grey"]),
        *_smoothed("grey", "means"),
        helper.make_node("Sub", ["grey", "means"], ["details"]),
        helper.make_node("Mul", ["details", "details"], ["squares"]),
        *_smoothed("squares", "energies"),
        helper.make_node("Add", ["energies", "lowest"], ["raised"]),
        helper.make_node("Max", ["raised", "tiny"], ["positive"]),
        helper.make_node("Sqrt", ["positive"], ["contrast"]),
        helper.make_node("Div", ["details", "contrast"], ["normalised"]),
        helper.make_node("Reshape", ["normalised", "line"], ["row"]),
        *_centred("row", "scaled"),
        helper.make_node("ReduceL2", ["scaled", "axes"], ["norm"], keepdims=1),
        helper.make_node("Max", ["norm", "tiny"], ["divisor"]),
        helper.make_node("Div", ["scaled", "divisor"], ["embedding"]),
    ]
    graph = helper.make_graph(
        nodes,
        "pixel",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 1, ROWS, COLUMNS])],
        [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["n", ROWS * COLUMNS])],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], producer_name="deepssim")
    model.ir_version = 8
    metadata = {
        "name": "pixel",
        "input": {"height": ROWS, "width": COLUMNS, "channels": 1, "resize": "area"},
        "intensity": "local normalisation",
        "similarity": "cosine",
        "dim": ROWS * COLUMNS,
        "layout": [ROWS, COLUMNS],
        "description": "Correlation of locally normalised thumbnails; views find copies that were mirrored or moved.",
        "provenance": "No weights; made by scripts/make_pixel_bundle.py.",
        "licence": "MIT",
    }
    helper.set_model_props(model, {"deepssim.metric": json.dumps(metadata, sort_keys=True)})
    onnx.checker.check_model(model)
    return model


def _centred(given: str, made: str) -> list[NodeProto]:
    """Subtract the mean of each row and divide by its largest magnitude."""
    return [
        helper.make_node("ReduceMean", [given, "axes"], [f"{given}.mean"], keepdims=1),
        helper.make_node("Sub", [given, f"{given}.mean"], [f"{given}.coarse"]),
        helper.make_node("ReduceMean", [f"{given}.coarse", "axes"], [f"{given}.rest"], keepdims=1),
        helper.make_node("Sub", [f"{given}.coarse", f"{given}.rest"], [f"{given}.centred"]),
        *_scaled(f"{given}.centred", made),
    ]


def _scaled(given: str, made: str) -> list[NodeProto]:
    """Divide each row by its largest magnitude."""
    return [
        helper.make_node("Abs", [given], [f"{given}.magnitude"]),
        helper.make_node("ReduceMax", [f"{given}.magnitude", "axes"], [f"{given}.peak"], keepdims=1),
        helper.make_node("Max", [f"{given}.peak", "tiny"], [f"{given}.scale"]),
        helper.make_node("Div", [given, f"{given}.scale"], [made]),
    ]


def _smoothed(given: str, made: str) -> list[NodeProto]:
    """Take Gaussian means."""
    return [
        helper.make_node("MatMul", ["down", given], [f"{given}.down"]),
        helper.make_node("MatMul", [f"{given}.down", "across"], [made]),
    ]


def main() -> None:
    """Write the bundle."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("python/deepssim/metrics/pixel.onnx"))
    out: Path = parser.parse_args().out
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_bytes(build().SerializeToString(deterministic=True))
    print(out)


if __name__ == "__main__":
    main()
