"""Make the metric bundle `pixel`: normalised cross-correlation of 32 x 32 thumbnails.

    python scripts/make_pixel_bundle.py [--out python/deepssim/metrics/pixel.onnx]

The graph subtracts the mean (twice: the first mean of large values is itself rounded), scales by the
largest magnitude so that no square can overflow, and divides by the Euclidean norm. That is a z-score up
to a factor that the norm takes away, so the inner product of two embeddings is the normalised
cross-correlation. A flat image gives zeros. The file is the same, byte for byte, at every run.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SIDE = 32
OPSET = 18


def build() -> onnx.ModelProto:
    """Return the model."""
    axes = numpy_helper.from_array(np.array([1], np.int64), "axes")
    shape = numpy_helper.from_array(np.array([0, SIDE * SIDE], np.int64), "shape")
    tiny = numpy_helper.from_array(np.array(1e-30, np.float32), "tiny")
    nodes = [
        helper.make_node("Reshape", ["image", "shape"], ["flat"]),
        helper.make_node("ReduceMean", ["flat", "axes"], ["mean"], keepdims=1),
        helper.make_node("Sub", ["flat", "mean"], ["coarse"]),
        helper.make_node("ReduceMean", ["coarse", "axes"], ["rest"], keepdims=1),
        helper.make_node("Sub", ["coarse", "rest"], ["centred"]),
        helper.make_node("Abs", ["centred"], ["magnitude"]),
        helper.make_node("ReduceMax", ["magnitude", "axes"], ["peak"], keepdims=1),
        helper.make_node("Max", ["peak", "tiny"], ["scale"]),
        helper.make_node("Div", ["centred", "scale"], ["scaled"]),
        helper.make_node("ReduceL2", ["scaled", "axes"], ["norm"], keepdims=1),
        helper.make_node("Max", ["norm", "tiny"], ["divisor"]),
        helper.make_node("Div", ["scaled", "divisor"], ["embedding"]),
    ]
    graph = helper.make_graph(
        nodes,
        "pixel",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 1, SIDE, SIDE])],
        [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["n", SIDE * SIDE])],
        [axes, shape, tiny],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], producer_name="deepssim")
    model.ir_version = 8
    metadata = {
        "name": "pixel",
        "input": {"height": SIDE, "width": SIDE, "channels": 1, "resize": "area"},
        "intensity": "z-score",
        "similarity": "cosine",
        "dim": SIDE * SIDE,
        "description": "Normalised cross-correlation of thumbnails; sees copies that were not moved.",
        "provenance": "No weights; made by scripts/make_pixel_bundle.py.",
        "licence": "MIT",
    }
    helper.set_model_props(model, {"deepssim.metric": json.dumps(metadata, sort_keys=True)})
    onnx.checker.check_model(model)
    return model


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
