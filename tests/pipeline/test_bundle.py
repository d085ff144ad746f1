"""Encoders of others, and plain pixels, as metric bundles."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from scipy.spatial.distance import cdist

from deepssim.bundle import INTENSITIES, Normalisation, bundle_encoder, bundle_pixels
from deepssim.cli import cli
from deepssim.embed import Encoder
from deepssim.errors import MetricError, UsageError
from deepssim.image_ops import byte_grey, resize_area
from deepssim.metric import METADATA_KEY, given_thresholds, l2_distance, load_metric
from deepssim.store import Store

ROOT = Path(__file__).parents[2]
SIZE = (24, 20)
DIM = 6
MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
CLIP_MEAN = np.array([0.48145466, 0.4578275, 0.40821073])
CLIP_STD = np.array([0.26862954, 0.26130258, 0.27577711])


@pytest.fixture(scope="session")
def deepssim(deepssim_here):
    return deepssim_here


def weights(channels: int) -> np.ndarray:
    return np.random.default_rng(channels).normal(size=(DIM, channels, 5, 5)).astype(np.float32)


def encoder_file(path: Path, channels: int = 3, *, opset: int = 17, change=None, **shapes: object) -> Path:
    """A convolution whose maxima over the image are the embedding: features of 20 x 16 places, pooled."""
    taken = shapes.get("input", ["n", channels, *SIZE])
    returned = shapes.get("output", ["n", DIM, 1, 1])
    nodes = [
        helper.make_node("Conv", ["image", "kernel"], ["features"]),
        helper.make_node("GlobalMaxPool", ["features"], ["embedding"]),
    ]
    graph = helper.make_graph(
        nodes,
        "theirs",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, taken)],
        [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, returned)],
        [numpy_helper.from_array(weights(channels), "kernel")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    model.ir_version = 8
    if change is not None:
        change(model)
    onnx.save_model(model, path)
    return path


def embedded(channels: np.ndarray) -> np.ndarray:
    """What the encoder returns for images ``(n, c, h, w)``, in float64."""
    patches = np.lib.stride_tricks.sliding_window_view(channels, (5, 5), axis=(2, 3))
    return np.einsum("nchwij,dcij->ndhw", patches, weights(channels.shape[1]).astype(np.float64)).max(axis=(2, 3))


def normalised(images: np.ndarray, intensity: str) -> np.ndarray:
    """What an intensity promises for images ``(n, h, w)`` as read: ``(n, 1 or 3, h, w)`` in float64."""
    if intensity in ("unit", "imagenet", "clip"):
        images = np.stack([byte_grey(image) for image in images])
    x = images.astype(np.float64)[:, None]
    low, high = x.min((2, 3), keepdims=True), x.max((2, 3), keepdims=True)
    mean, std = {"imagenet": (MEAN, STD), "clip": (CLIP_MEAN, CLIP_STD)}.get(intensity, (MEAN, STD))
    return {
        "none": lambda: x,
        "unit": lambda: x / 255,
        "imagenet": lambda: (x / 255 - mean.reshape(1, 3, 1, 1)) / std.reshape(1, 3, 1, 1),
        "clip": lambda: (x / 255 - mean.reshape(1, 3, 1, 1)) / std.reshape(1, 3, 1, 1),
        "z-score": lambda: (x - x.mean((2, 3), keepdims=True)) / x.std((2, 3), keepdims=True),
        "min-max": lambda: (x - low) / (high - low),
    }[intensity]()


def images(n: int = 70) -> np.ndarray:
    rng = np.random.default_rng(0)
    return (rng.gamma(2.0, 300.0, (n, *SIZE)) - 500).astype(np.float32)


@pytest.mark.parametrize("opset", [9, 18])
@pytest.mark.parametrize("intensity", INTENSITIES)
def test_a_bundle_is_intensity_encoder_and_unit_rows(intensity, opset, tmp_path):
    path = encoder_file(tmp_path / "theirs.onnx", opset=opset)
    made = bundle_encoder(path, tmp_path / "mine.onnx", intensity=intensity, licence="theirs")
    metric = load_metric(str(made.path))
    assert (metric.name, metric.dim, metric.similarity, metric.intensity) == ("mine", DIM, "cosine", intensity)
    assert metric.input.size == SIZE
    encoder = Encoder(metric, device="cpu", threads=1)
    found = encoder.encode([encoder.prepare(image) for image in images()])
    three = np.broadcast_to(normalised(images(), intensity), (70, 3, *SIZE))
    expected = embedded(three)
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(found, expected, atol=2e-5)


def test_a_correlation_is_that_of_the_encoders_rows(tmp_path):
    path = encoder_file(tmp_path / "theirs.onnx", channels=1)
    made = bundle_encoder(path, tmp_path / "mine.onnx", intensity="unit", similarity="correlation")
    encoder = Encoder(load_metric(str(made.path)), device="cpu", threads=1)
    found = encoder.encode([encoder.prepare(image) for image in images()]).astype(np.float64)
    rows = embedded(normalised(images(), "unit"))
    np.testing.assert_allclose(found @ found.T, 1 - cdist(rows, rows, metric="correlation"), atol=1e-5)


def test_an_l2_score_is_the_distance_of_unit_rows(tmp_path):
    bundle_pixels(tmp_path / "mine.onnx", (9, 7))
    encoder = Encoder(load_metric(str(tmp_path / "mine.onnx")), device="cpu", threads=1)
    given = images(20)
    found = encoder.encode([encoder.prepare(image) for image in given]).astype(np.float64)
    rows = np.stack([resize_area(byte_grey(image), 9, 7).ravel() for image in given]).astype(np.float64)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    distances = np.vectorize(l2_distance)(found[:10] @ found[10:].T)
    np.testing.assert_allclose(distances, cdist(rows[:10], rows[10:]), atol=1e-5)


@pytest.mark.parametrize("value", [0.0, 7.0, 255.0])
@pytest.mark.parametrize("similarity", ["l2", "correlation"])
def test_a_flat_image_has_no_direction_among_pixels(value, similarity, tmp_path):
    bundle_pixels(tmp_path / "mine.onnx", (9, 7), similarity=similarity)
    encoder = Encoder(load_metric(str(tmp_path / "mine.onnx")), device="cpu", threads=1)
    assert not encoder.encode([np.full((9, 7), value, np.float32)]).any()


def test_numbers_of_ones_own_normalise(tmp_path):
    path = encoder_file(tmp_path / "theirs.onnx")
    half = Normalisation((0.5,), (0.25,))
    made = bundle_encoder(path, tmp_path / "mine.onnx", intensity="unit", normalisation=half)
    encoder = Encoder(load_metric(str(made.path)), device="cpu", threads=1)
    found = encoder.encode([encoder.prepare(image) for image in images(5)])
    expected = embedded(np.repeat((normalised(images(5), "unit") - 0.5) / 0.25, 3, axis=1))
    np.testing.assert_allclose(found, expected / np.linalg.norm(expected, axis=1, keepdims=True), atol=2e-5)
    assert load_metric(str(made.path)).intensity == "unit, mean 0.5, deviation 0.25"


def test_the_installed_bundle_is_what_its_script_makes(tmp_path):
    script = ROOT / "scripts" / "make_ums_l2_bundle.py"
    subprocess.run([sys.executable, script, "--out", tmp_path / "u.onnx"], check=True, capture_output=True)
    metric = load_metric("ums_l2")
    assert (tmp_path / "u.onnx").read_bytes() == metric.path.read_bytes()
    assert (metric.dim, metric.similarity, metric.input.grey, metric.input.size) == (15232, "l2", "byte", (136, 112))


def made_fixed(model: onnx.ModelProto) -> None:
    """Let the graph itself hold for 64 images alone, whatever it says."""
    model.graph.initializer.append(numpy_helper.from_array(np.array([1, DIM], np.int64), "line"))
    model.graph.node[-1].output[0] = "pooled"
    model.graph.node.append(helper.make_node("Reshape", ["pooled", "line"], ["embedding"]))


def made_batched(model: onnx.ModelProto) -> None:
    """Subtract the mean of the batch, as a layer in training mode does."""
    model.graph.node[-1].output[0] = "pooled"
    model.graph.node.append(helper.make_node("ReduceMean", ["pooled"], ["mean"], axes=[0], keepdims=1))
    model.graph.node.append(helper.make_node("Sub", ["pooled", "mean"], ["embedding"]))


def made_external(model: onnx.ModelProto) -> None:
    tensor = model.graph.initializer[0]
    tensor.data_location = TensorProto.EXTERNAL
    tensor.ClearField("raw_data")
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "weights.bin"


def made_functional(model: onnx.ModelProto) -> None:
    node = helper.make_node("Relu", ["x"], ["y"])
    model.functions.append(helper.make_function("mine", "F", ["x"], ["y"], [node], list(model.opset_import)))


def made_foreign(model: onnx.ModelProto) -> None:
    model.graph.node[0].domain = "evil.example"
    model.opset_import.append(helper.make_opsetid("evil.example", 1))


def made_two(model: onnx.ModelProto) -> None:
    model.graph.output.append(helper.make_tensor_value_info("features", TensorProto.FLOAT, None))


def made_dropping(model: onnx.ModelProto) -> None:
    """A dropout that drops; ONNX Runtime leaves it out where something follows, so that running it shows nothing."""
    del model.graph.node[-1]
    model.graph.node.append(helper.make_node("GlobalMaxPool", ["features"], ["pooled"]))
    for name, value in (("share", np.float32(0.5)), ("drops", np.bool_(True))):
        model.graph.initializer.append(numpy_helper.from_array(np.array(value), name))
    model.graph.node.append(helper.make_node("Dropout", ["pooled", "share", "drops"], ["embedding"]))


def made_learning(model: onnx.ModelProto) -> None:
    del model.graph.node[-1]
    for name in ("scale", "shift", "mean", "variance"):
        model.graph.initializer.append(numpy_helper.from_array(np.ones(DIM, np.float32), name))
    norm = ["features", "scale", "shift", "mean", "variance"]
    model.graph.node.append(helper.make_node("BatchNormalization", norm, ["normed", "m", "v"], training_mode=1))
    model.graph.node.append(helper.make_node("GlobalMaxPool", ["normed"], ["embedding"]))


@pytest.mark.parametrize(
    ("change", "shapes", "says"),
    [
        (made_dropping, {}, r"as it trains \(Dropout\).*encoder\.eval\(\)"),
        (made_learning, {}, r"as it trains \(BatchNormalization\).*encoder\.eval\(\)"),
        (None, {"input": [1, 3, *SIZE]}, "exactly 1 at a time: export it with a batch axis of any length"),
        (None, {"input": ["n", 4, *SIZE]}, "4 channels"),
        (None, {"input": ["n", *SIZE, 3]}, "a bundle feeds 1 or 3, as second axis"),
        (None, {"input": ["n", "c", *SIZE]}, "--channels 1 or --channels 3"),
        (None, {"input": ["n", 3, "h", "w"]}, "--input HEIGHTxWIDTH"),
        (None, {"input": ["n", 3, 224]}, "not images"),
        (None, {"output": ["n", DIM, 20, 16]}, "features at every place"),
        (made_fixed, {"output": ["n", DIM]}, "does not run on 64 images at a time"),
        (made_batched, {}, "another embedding of an image among 1 than among 64|no direction"),
        (made_external, {}, "keeps weights in other files; a bundle is one file: onnx.save_model"),
        (made_functional, {}, "inline_local_functions"),
        (made_foreign, {}, "operators of evil.example"),
        (made_two, {}, "2 outputs: name the embedding with --embedding: embedding, features"),
    ],
)
def test_what_cannot_be_a_bundle_is_refused_with_the_way_out(change, shapes, says, tmp_path):
    path = encoder_file(tmp_path / "theirs.onnx", change=change, **shapes)
    with pytest.raises((MetricError, UsageError), match=says) as caught:
        bundle_encoder(path, tmp_path / "mine.onnx")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "mine.onnx").exists()


def test_options_that_do_not_go_together_are_refused(tmp_path):
    one, three = (encoder_file(tmp_path / f"{n}.onnx", channels=n) for n in (1, 3))
    out = tmp_path / "mine.onnx"
    for path, options, says in [
        (one, {"intensity": "imagenet"}, "takes one channel"),
        (three, {"channels": 1}, "of 3 channels, not 1"),
        (three, {"size": (24, 24)}, "24 x 20 pixels, not 24 x 24"),
        (three, {"output": "logits"}, "no output 'logits': embedding"),
        (three, {"intensity": "imagnet"}, "unknown intensity 'imagnet': none, unit"),
        (three, {"similarity": "dot"}, "unknown similarity 'dot': cosine, correlation, l2"),
        (three, {"resize": "clip", "grey": "raw"}, "its input.grey is byte"),
        (three, {"normalisation": Normalisation((0.5,), (0.5,))}, "of the intensity unit"),
    ]:
        with pytest.raises(UsageError, match=says):
            bundle_encoder(path, out, **options)
    made = bundle_encoder(one, out, intensity="unit")
    with pytest.raises(UsageError, match="a metric bundle already"):
        bundle_encoder(made.path, tmp_path / "again.onnx")
    with pytest.raises(UsageError, match=r"262,144 elements of an embedding: at most 65,536"):
        bundle_pixels(out, (512, 512))
    (tmp_path / "noise.onnx").write_bytes(b"\x00\xff\x13" * 99)
    with pytest.raises(MetricError, match="not an ONNX file"):
        bundle_encoder(tmp_path / "noise.onnx", out)


def test_the_bundle_does_not_take_the_encoders_place(tmp_path):
    path = encoder_file(tmp_path / "theirs.onnx")
    held = path.read_bytes()
    done = CliRunner().invoke(cli, ["bundle", str(path), "--out", str(path)])
    assert isinstance(done.exception, UsageError)
    assert "is the encoder itself" in str(done.exception)
    assert path.read_bytes() == held


def test_a_name_cannot_steer_a_terminal(deepssim, tmp_path):
    Image.fromarray(np.arange(480, dtype=np.uint16).astype(np.uint8).reshape(*SIZE)).save(tmp_path / "a.png")
    path = tmp_path / "mine.onnx"
    made = deepssim("bundle", encoder_file(tmp_path / "theirs.onnx"), "--out", path, "--name", "a\n\x1b[31m\u202e")
    found = deepssim("dedup", tmp_path, "--metric", path, "--out", tmp_path.with_name("dedup"))
    for done in (made, found, deepssim("metrics", path), deepssim("info", path)):
        assert done.returncode == 0, done.stderr
        assert r"a\n\x1b[31m\u202e" in done.stdout
        assert not {"\x1b", "\u202e"} & set(done.stdout + done.stderr)


def test_names_of_the_encoder_may_be_ours_and_its_own_notes_stay_out(tmp_path):
    def change(model: onnx.ModelProto) -> None:
        model.metadata_props.add(key="author", value="/home/somebody")
        model.graph.node[0].output[0] = model.graph.node[1].input[0] = "before/Div.0"

    made = bundle_encoder(encoder_file(tmp_path / "theirs.onnx", change=change), tmp_path / "mine.onnx")
    model = onnx.load(made.path)
    onnx.checker.check_model(model, full_check=True)
    assert [entry.key for entry in model.metadata_props] == [METADATA_KEY]
    assert [value.name for value in model.graph.input] == ["image"]


def test_thresholds_of_l2_are_distances():
    calibration = given_thresholds("mine", 1.0, 0.5, "l2", "told")
    assert (calibration.near.value, calibration.exact.value) == (0.5, 0.875)
    assert "1, exact up to 0.5" in calibration.how
    for near, exact in ((0.5, 1.0), (2.5, 1.0), (-0.1, -0.2), (float("nan"), 0.1)):
        with pytest.raises(UsageError):
            given_thresholds("mine", near, exact, "l2", "told")
    assert given_thresholds("mine", 0.6, 0.85, "cosine", "told").near.value == 0.6


def test_the_command_makes_a_metric_that_others_take(deepssim, tmp_path):
    encoder_file(tmp_path / "theirs.onnx")
    folder = tmp_path / "images"
    folder.mkdir()
    rng = np.random.default_rng(7)
    for i in range(5):
        Image.fromarray(rng.integers(0, 256, (48, 40)).astype(np.uint8)).save(folder / f"{i}.png")
    out = tmp_path / "mine.onnx"
    done = deepssim("bundle", tmp_path / "theirs.onnx", "--thresholds", ".6,.85", "--out", out, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["dim"] == DIM
    assert load_metric(str(out)).calibration().near.value == 0.6
    done = deepssim("embed", folder, "--metric", out, "--out", tmp_path / "store", "--quiet")
    assert done.returncode == 0, done.stderr
    assert Store(tmp_path / "store").dim == DIM
    pixels = tmp_path / "pixels.onnx"
    done = deepssim("bundle", "--pixels", "--input", "12x10", "--thresholds", ".9,.5", "--out", pixels)
    assert done.returncode == 0, done.stderr
    assert load_metric(str(pixels)).calibration().exact.value == 0.875
    for arguments, says in [
        (("--out", out), "give an ENCODER.onnx or --pixels"),
        ((tmp_path / "theirs.onnx", "--pixels", "--out", out), "not both"),
        (("--pixels", "--out", out), "--input HEIGHTxWIDTH"),
        ((tmp_path / "theirs.onnx", "--out", tmp_path / "mine.pt"), "must end in .onnx"),
        ((tmp_path / "theirs.onnx", "--thresholds", ".9,.6", "--out", out), "near threshold"),
        ((tmp_path / "theirs.onnx", "--thresholds", "high", "--out", out), "NEAR,EXACT"),
        ((tmp_path / "theirs.onnx", "--mean", ".5,x", "--out", out), "--mean"),
        ((tmp_path / "theirs.onnx", "--mean", ".5", "--out", out), "--std"),
        (("--pixels", "--input", "12x10", "--channels", "3", "--out", out), "--channels"),
    ]:
        done = deepssim("bundle", *arguments)
        assert (done.returncode, says in done.stderr) == (2, True), done.stderr
