"""Encoders as metric bundles: the same embeddings, from any number of images, through the command line too."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

torch = pytest.importorskip("torch")
pytest.importorskip("onnxscript")

from safetensors.torch import save  # noqa: E402

from deepssim.calibration import Calibration, Threshold  # noqa: E402
from deepssim.embed import Encoder, Graph  # noqa: E402
from deepssim.errors import MetricError, UsageError  # noqa: E402
from deepssim.export import Exported, export_encoder, sample_images  # noqa: E402
from deepssim.image_ops import resize_area  # noqa: E402
from deepssim.images import list_images  # noqa: E402
from deepssim.input_rule import InputRule  # noqa: E402
from deepssim.metric import METADATA_KEY, load_metric  # noqa: E402
from deepssim.models.blocks import ZScore  # noqa: E402
from deepssim.models.checkpoint import Description, build_network, load_encoder, save_network  # noqa: E402
from deepssim.models.convnext import ConvNextTinyGeM  # noqa: E402
from deepssim.phantom import make_cohort  # noqa: E402
from deepssim.store import Store  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")
TINY = Description("lite", {"dim": 16, "widths": [8, 12, 16], "depths": [1, 1], "hidden": 24}, 34, 28, name="tiny")


@pytest.fixture(scope="module")
def encoder() -> torch.nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = build_network(TINY)
        made(torch.rand(64, 1, 34, 28))  # running means of the batch norms
    return made.eval()


@pytest.fixture(scope="module")
def bundle(encoder, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("export") / "tiny.onnx"
    images = [image for _, _, image in make_cohort(3, 1, seed=0)]
    made = export_encoder(encoder, TINY, path, text="A tiny one.", licence="MIT", images=images)
    assert made.error < 1e-5
    assert made.n_images == 3
    return path


def test_embeddings_are_pytorchs_at_any_batch_size(encoder, bundle):
    images = np.random.default_rng(1).random((37, 1, 34, 28), np.float32) * 3000 - 1000
    with torch.no_grad():
        expected = encoder(torch.from_numpy(images)).numpy()
    graph = Graph(bundle.read_bytes())
    for n in (1, 3, 37):
        np.testing.assert_allclose(graph(images[:n]), expected[:n], atol=1e-5)
    np.testing.assert_allclose(Encoder(load_metric(str(bundle))).encode(list(images[:, 0])), expected, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(expected, axis=1), 1, atol=1e-5)


def test_embeddings_are_pytorchs_at_any_size(encoder, bundle):
    graph = Graph(bundle.read_bytes())
    for height, width in ((34, 28), (61, 97), (128, 40)):
        images = np.random.default_rng(2).random((3, 1, height, width), np.float32)
        with torch.no_grad():
            expected = encoder(torch.from_numpy(images)).numpy()
        np.testing.assert_allclose(graph(images), expected, atol=1e-5)


def test_the_bundle_says_what_it_is(bundle):
    metric = load_metric(str(bundle))
    assert (metric.name, metric.height, metric.width, metric.dim) == ("tiny", 34, 28, 16)
    assert (metric.description, metric.licence) == ("A tiny one.", "MIT")
    import onnx

    model = onnx.load(bundle)
    described = json.loads(next(p.value for p in model.metadata_props if p.key == METADATA_KEY))
    assert described["export"]["opset"] == 18 == model.opset_import[0].version
    assert 0 <= described["export"]["largest_error"] < 1e-4
    assert (described["export"]["n_images"], described["export"]["n_phantoms"]) == (3, 0)
    assert (described["export"]["precision"], described["export"]["agreement"]) == ("fp32", None)
    assert described["provenance"].startswith("Architecture lite, trained with")
    assert str(Path(__file__).parents[2]) not in str(model)


def test_a_graph_that_computes_something_else_is_not_written(encoder, tmp_path, monkeypatch):
    class Wrong(Graph):
        def __call__(self, images):
            return super().__call__(images) + np.float32(2e-4)

    monkeypatch.setattr("deepssim.export.encoder.Graph", Wrong)
    with pytest.raises(MetricError, match="nothing was written"):
        export_encoder(encoder, TINY, tmp_path / "x.onnx")
    assert list(tmp_path.iterdir()) == []


def test_without_real_images_phantoms_are_compared_and_counted_apart(encoder, tmp_path, monkeypatch):
    seen = []

    class Watched(Graph):
        def __call__(self, images):
            seen.extend(images[:, 0])
            return super().__call__(images)

    monkeypatch.setattr("deepssim.export.encoder.Graph", Watched)
    made = export_encoder(encoder, TINY, tmp_path / "x.onnx")
    assert (made.n_images, made.n_phantoms) == (0, 16)
    drawn = [resize_area(image, 34, 28) for _, _, image in make_cohort(8, 2, seed=0)]
    assert sum(any(np.array_equal(a, b) for b in seen) for a in drawn) == 16
    import onnx

    model = onnx.load(tmp_path / "x.onnx")
    described = json.loads(next(p.value for p in model.metadata_props if p.key == METADATA_KEY))["export"]
    assert (described["n_images"], described["n_phantoms"]) == (0, 16)


def test_the_command_exports_and_embeds_the_same(encoder, deepssim, tmp_path):
    checkpoint = tmp_path / "best.safetensors"
    save_network(checkpoint, encoder.state_dict(), TINY)
    images = tmp_path / "images"
    images.mkdir()
    for i, (_, _, image) in enumerate(make_cohort(4, 1, seed=3)):
        Image.fromarray((image * 255).astype(np.uint8)).resize((28, 34)).save(images / f"{i}.png")
    out = tmp_path / "mine.onnx"
    chosen = Calibration("tiny", Threshold(0.4), Threshold(0.7), source="labels")
    chosen.write(tmp_path / "best.calibration.json")
    done = deepssim("export", checkpoint, "--out", out, "--images", images, "--json", "--name", "mine")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["thresholds"] == str(tmp_path / "mine.calibration.json")
    assert load_metric(str(out)).calibration() == replace(chosen, metric="mine")
    assert json.loads(done.stdout)["n_images"] == 4
    assert json.loads(done.stdout)["n_phantoms"] == 0
    done = deepssim("embed", images, "--metric", out, "--out", tmp_path / "store", "--quiet")
    assert done.returncode == 0, done.stderr
    pixels = np.stack([np.asarray(Image.open(images / f"{i}.png"), np.float32) for i in range(4)])[:, None]
    with torch.no_grad():
        expected = encoder(torch.from_numpy(pixels)).numpy()
    found = np.empty_like(expected)
    Store(tmp_path / "store").read_rows(0, found)
    np.testing.assert_allclose(found, expected, atol=1e-4)
    done = deepssim("export", images / "0.png", "--out", out)
    assert done.returncode == 1
    assert "cannot be read as a checkpoint" in done.stderr


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"architecture": ["lite"]}, "its architecture is ['lite'], not a name"),
        ({"architecture": "lute"}, "unknown architecture 'lute'"),
        ({"arguments": ["dim"]}, "not a table"),
        ({"height": "34"}, "its height is '34', not a whole number of 1 to 4,096 pixels"),
        ({"height": -34}, "its height is -34"),
        ({"width": 10**9}, "its width is 1000000000"),
        ({"width": True}, "its width is True"),
        ({"name": None}, "its name is None, not a name"),
        ({"training": "long"}, "its training is 'long', not a table"),
        ({"colour": 3}, "cannot be read as a checkpoint"),
        *(({"arguments": {**TINY.arguments, "dim": dim}}, "its dim is") for dim in (0, -16, "16", 65_537, None, 2.5)),
        ({"arguments": {**TINY.arguments, "dim": 17}}, "2 of its weights are of another shape"),
        ({"arguments": {**TINY.arguments, "hidden": 10**9}}, "of another shape"),
        ({"arguments": {**TINY.arguments, "hidden": -1}}, "lite cannot be built"),
        ({"arguments": {**TINY.arguments, "hidden": 10**30}}, "lite cannot be built"),
        ({"arguments": {**TINY.arguments, "depths": [1, 10**9]}}, "lite cannot be built: depths are"),
        ({"arguments": {**TINY.arguments, "widths": 8}}, "lite cannot be built"),
        ({"arguments": {"size": 8}}, "lite cannot be built"),
    ],
)
def test_a_description_that_cannot_be_is_an_error_of_one_line(change, says, encoder, tmp_path):
    path = tmp_path / "best.safetensors"
    described = json.dumps({**asdict(TINY), **change})
    path.write_bytes(save(dict(encoder.state_dict()), {"deepssim.encoder": described}))
    with pytest.raises(MetricError) as caught:
        load_encoder(path)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("described", ["[]", "3", "{", "[" * 100_000])
def test_metadata_that_is_no_description_is_named(described, encoder, tmp_path):
    path = tmp_path / "best.safetensors"
    path.write_bytes(save(dict(encoder.state_dict()), {"deepssim.encoder": described}))
    with pytest.raises(MetricError, match=r"best\.safetensors cannot be read as a checkpoint"):
        load_encoder(path)


def test_an_encoder_comes_out_of_its_checkpoint_as_it_was(encoder, tmp_path):
    save_network(tmp_path / "best.safetensors", encoder.state_dict(), TINY)
    found, description = load_encoder(tmp_path / "best.safetensors")
    assert description == TINY
    assert not found.training
    images = torch.rand(3, 1, 34, 28)
    with torch.no_grad():
        assert torch.equal(found(images), encoder(images))


def test_the_command_refuses_what_it_cannot_do_before_it_begins(deepssim, encoder, tmp_path):
    checkpoint = tmp_path / "best.safetensors"
    save_network(checkpoint, encoder.state_dict(), TINY)
    out = tmp_path / "x.onnx"
    for arguments, message in (
        ([checkpoint, "--out", tmp_path / "x.pt"], "must end in .onnx"),
        (["--out", out], "give one encoder (none is given)"),
        (
            [checkpoint, "--from-torchscript", checkpoint, "--out", out],
            "give one encoder (CHECKPOINT, --from-torchscript)",
        ),
        ([checkpoint, "--out", out, "--precision", "int8"], "give a folder of them with --images"),
        ([checkpoint, "--out", out, "--size", "0x9"], "is no size in pixels"),
        ([checkpoint, "--out", out, "--size", "60000x60000"], "whole number of 1 to 4,096 pixels"),
    ):
        done = deepssim("export", *arguments)
        assert done.returncode == 2
        assert message in done.stderr
    assert not out.exists()


def test_a_folded_stem_computes_the_same(tmp_path):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = ConvNextTinyGeM(dim=8).eval()
    images = torch.rand(2, 1, 40, 32) * 255
    with torch.no_grad():
        expected = network(images)
    out = tmp_path / "tiny.onnx"
    described = Description(
        "convnext-tiny-gem", {"dim": 8}, 64, 48, "deepssimpp", {"published": "DeepSSIM++", "sha256": "ab"}
    )
    made = export_encoder(network, described, out, size=(40, 32))
    assert made.is_any_size
    assert network.stem.in_channels == 3  # as it was
    np.testing.assert_allclose(Graph(out.read_bytes())(images.numpy()), expected.numpy(), atol=1e-5)
    metric = load_metric(str(out))
    assert (metric.height, metric.width) == (40, 32)
    assert metric.provenance.startswith("Published checkpoint of DeepSSIM++, SHA-256 ab;")
    import onnx

    kernels = [t.dims for t in onnx.load(out).graph.initializer if list(t.dims[2:]) == [4, 4]]
    assert [list(dims) for dims in kernels] == [[96, 1, 4, 4]]


def test_images_come_from_all_over_a_folder(tmp_path):
    ramp = np.repeat(np.arange(4, dtype=np.uint8), 12).reshape(8, 6)  # rows of pairs, whose mean is the first of them
    for i in range(40):
        Image.fromarray(ramp + np.uint8(i)).save(tmp_path / f"{i:02d}.png")
    (tmp_path / "99.png").write_bytes(b"no image")
    found = sample_images(list_images(tmp_path), (4, 3), 5)
    assert found.shape == (4, 4, 3)  # the fifth is the damaged one
    assert found[:, 0, 0].tolist() == [0, 10, 20, 30]
    assert len(sample_images(list_images(tmp_path), (4, 3))) == 40
    volume = tmp_path / "volume.npy"
    np.save(volume, np.arange(50, dtype=np.uint8)[:, None, None] + ramp)
    assert sample_images(list_images(volume), (4, 3), 6)[:, 0, 0].tolist() == [0, 10, 20, 29, 39, 49]
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "a.png").write_bytes(b"no image")
    with pytest.raises(UsageError, match="can be read"):
        sample_images(list_images(empty), (4, 3))


def test_the_intensity_rule_forgets_units_and_survives_constants():
    rule = ZScore()
    image = torch.rand(1, 1, 9, 9)
    torch.testing.assert_close(rule(image * 4095 - 1000), rule(image), atol=1e-4, rtol=0)
    assert torch.equal(rule(torch.full((2, 1, 4, 4), 7.0)), torch.zeros(2, 1, 4, 4))
    torch.testing.assert_close(rule(image).square().mean(), torch.tensor(1.0))


def test_a_state_dict_of_dar_gets_the_published_threshold_and_no_history_of_ours(tmp_path, monkeypatch):
    from click.testing import CliRunner

    from deepssim.cli.export import command
    from deepssim.models.dar import Dar

    torch.save(Dar().state_dict(), tmp_path / "dar.pth")
    out, seen = tmp_path / "dar.onnx", {}

    def export(encoder, description, path, **options):
        seen.update(description=description, **options)
        return Exported(path, 0.0, 0, 0)

    monkeypatch.setattr("deepssim.export.export_encoder", export)
    arguments = ["--dar", tmp_path / "dar.pth", "--size", "40x36", "--reference-axes", "--out", out, "--quiet"]
    done = CliRunner().invoke(command, [str(argument) for argument in arguments])
    assert done.exit_code == 0, done.output
    described = seen["description"]
    assert (described.similarity, described.intensity) == ("correlation", "min-max, axes swapped")
    assert described.training["published"] == "the network of Dar et al."
    assert seen["rule"] == InputRule(40, 36)
    found = Calibration.read(tmp_path / "dar.calibration.json")
    assert (found.near, found.exact) == (Threshold(0.8030425, ">"), Threshold(0.8030425, ">"))
