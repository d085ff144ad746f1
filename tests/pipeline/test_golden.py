"""The reference implementation's own numbers: what it feeds its encoders, and how it compares their embeddings."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper
from PIL import Image

from deepssim.bundle import bundle_encoder
from deepssim.embed import Encoder
from deepssim.input_rule import InputRule
from deepssim.metric import load_metric

SIDE = 8


@pytest.fixture(scope="module")
def golden(data_folder) -> Path:
    folder = data_folder.parent / "golden"
    if not (folder / "preprocess.npz").is_file():
        pytest.skip("the reference's numbers are not beside the images: golden/preprocess.npz")
    return folder


def test_z_scored_images_are_the_references(golden, data_folder):
    model = onnx.load(load_metric("brain").path)
    first = next(node for node in model.graph.node if node.op_type == "Conv")
    del model.graph.output[:]
    model.graph.output.append(helper.make_tensor_value_info(first.input[0], TensorProto.FLOAT, None))
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    with np.load(golden / "preprocess.npz") as arrays:
        for i in range(4):
            image = np.asarray(Image.open(data_folder / str(arrays[f"path_{i}"])).convert("L"), np.float32)
            (found,) = session.run(None, {"image": image[None, None]})
            # The runtime takes means of thousands of numbers in float32.
            np.testing.assert_allclose(found[0], arrays[f"deepssim_{i}"], rtol=1e-5, atol=1e-5)


def test_resized_images_are_the_references(golden, data_folder):
    rule = InputRule(288, 288, "adaptive", "byte")
    with np.load(golden / "preprocess.npz") as arrays:
        for i in range(4):
            image = np.asarray(Image.open(data_folder / str(arrays[f"path_{i}"])).convert("L"), np.float32)
            found = (rule.apply(image) / np.float32(255) - np.float32(0.485)) / np.float32(0.485)
            np.testing.assert_allclose(found, arrays[f"chen_{i}"][0], atol=1e-6)


@pytest.mark.parametrize("similarity", ["cosine", "correlation"])
def test_scores_are_the_references(similarity, golden, tmp_path):
    """A bundle whose encoder returns its images as they are turns the reference's embeddings into its scores."""
    graph = helper.make_graph(
        [helper.make_node("Flatten", ["image"], ["rows"], axis=1)],
        "pixels",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 1, SIDE, SIDE])],
        [helper.make_tensor_value_info("rows", TensorProto.FLOAT, ["n", SIDE * SIDE])],
    )
    onnx.save_model(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)]), tmp_path / "encoder.onnx")
    made = bundle_encoder(tmp_path / "encoder.onnx", tmp_path / "m.onnx", intensity="none", similarity=similarity)
    encoder = Encoder(load_metric(str(made.path)), device="cpu", threads=1)
    with np.load(golden / "scores.npz") as arrays:
        real, synthetic = (encoder.encode(list(arrays[name].reshape(-1, SIDE, SIDE))) for name in ("real", "synth"))
        np.testing.assert_allclose(real @ synthetic.T, arrays[similarity], atol=1e-6)
