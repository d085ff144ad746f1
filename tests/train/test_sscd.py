"""SSCD networks out of their TorchScript files: the same embeddings, whatever their weights are called."""

from __future__ import annotations

import json
import warnings
from collections import OrderedDict
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

torch = pytest.importorskip("torch")
pytest.importorskip("onnxscript")

from torch import nn  # noqa: E402
from torch.nn import functional  # noqa: E402
from torchvision.models.resnet import Bottleneck, ResNet, resnet18  # noqa: E402

from deepssim.calibration import Calibration, load_calibration  # noqa: E402
from deepssim.errors import MetricError, UsageError  # noqa: E402
from deepssim.export import Exported, input_rule  # noqa: E402
from deepssim.input_rule import InputRule  # noqa: E402
from deepssim.metric import load_metric  # noqa: E402
from deepssim.models.sscd import load_sscd  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")
SMALL = (1, 2, 1, 1)
MEAN, STD = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])


class Pool(nn.Module):
    def __init__(self, power: float) -> None:
        super().__init__()
        self.pooling_param = power

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        flat = x.reshape(x.shape[0], x.shape[1], -1)
        return flat.clamp(min=1e-6).pow(self.pooling_param).mean(dim=2).pow(1.0 / self.pooling_param)


class Norm(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.normalize(x)


class ClassyBlock(nn.Module):
    """A bottleneck with Classy Vision's names."""

    def __init__(self, given: int, made: int, stride: int, groups: int, width: int) -> None:
        super().__init__()
        self.convolutional_block = nn.Sequential(
            nn.Conv2d(given, width, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(),
            nn.Conv2d(width, width, 3, stride, 1, groups=groups, bias=False), nn.BatchNorm2d(width), nn.ReLU(),
            nn.Conv2d(width, made, 1, bias=False),
        )  # fmt: skip
        self.bn = nn.BatchNorm2d(made)
        self.relu = nn.ReLU()
        self.downsample = None
        if stride != 1 or given != made:
            self.downsample = nn.Sequential(nn.Conv2d(given, made, 1, stride, bias=False), nn.BatchNorm2d(made))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        residual = x if self.downsample is None else self.downsample(x)
        return self.relu(self.bn(self.convolutional_block(x)) + residual)


class ClassyStem(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self._module = nn.Sequential(
            nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(3, 2, 1)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self._module(x)


class ClassyTrunk(nn.Module):
    def __init__(self, depths: tuple[int, ...], groups: int, width: int) -> None:
        super().__init__()
        self.initial_block = ClassyStem()
        stages, given = [], 64
        for i, depth in enumerate(depths):
            made, blocks = 256 * 2**i, OrderedDict()
            for j in range(depth):
                stride = 2 if i and j == 0 else 1
                blocks[f"block{i}-{j}"] = ClassyBlock(given, made, stride, groups, groups * width * 2**i)
                given = made
            stages.append(nn.Sequential(blocks))
        self.blocks = nn.Sequential(*stages)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.blocks(self.initial_block(x))


class Classy(nn.Module):
    """As SSCD's networks were trained: trunk, pool, linear layer, unit norm."""

    def __init__(self, dim: int = 512, depths: tuple[int, ...] = SMALL, groups: int = 1, width: int = 64) -> None:
        super().__init__()
        self.backbone = ClassyTrunk(depths, groups, width)
        self.embeddings = nn.Sequential(Pool(3.0), nn.Linear(2048, dim), Norm())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.embeddings(self.backbone(x))


class Torchvision(nn.Module):
    """The same with torchvision's trunk."""

    def __init__(self, dim: int = 512) -> None:
        super().__init__()
        self.backbone = ResNet(Bottleneck, list(SMALL), num_classes=dim)
        self.backbone.avgpool = Pool(3.0)
        self.embeddings = Norm()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.embeddings(self.backbone(x))


def lively(network: nn.Module) -> nn.Module:
    """Give it running statistics that are not those of a fresh network."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-0.1, 0.1)
            module.running_var.uniform_(0.5, 2)
            module.weight.data.uniform_(0.5, 1.5)
            module.bias.data.uniform_(-0.2, 0.2)
    return network.eval()


def traced(network: nn.Module, path: Path) -> Path:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"`torch\.jit\.\w+` is (deprecated|not supported)")
        torch.jit.trace(network, torch.rand(1, 3, 64, 64)).save(str(path))
    return path


def prepared(greys: torch.Tensor, std: list[float]) -> torch.Tensor:
    """What the network is fed: three equal channels, normalised as torchvision's ImageNet weights want."""
    three = (greys / 255).repeat(1, 3, 1, 1)
    return (three - torch.tensor(MEAN)[:, None, None]) / torch.tensor(std)[:, None, None]


@pytest.fixture(scope="module")
def seeded():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def full() -> nn.Module:
    return Classy(512, (3, 4, 6, 3))


def grouped() -> nn.Module:
    return Classy(40, (1, 1, 2, 1), groups=32, width=4)


@pytest.mark.parametrize(
    ("make", "way"),
    [
        (Classy, "traced"),
        (Classy, "scripted"),
        (Torchvision, "traced"),
        (Torchvision, "scripted"),
        (full, "traced"),
        (grouped, "traced"),
    ],
)
def test_embeddings_are_those_of_the_file(make, way, seeded, scripted, tmp_path):
    network = lively(make())
    path = (traced if way == "traced" else scripted)(network, tmp_path / "sscd.torchscript.pt")
    encoder, description = load_sscd(path)
    assert (description.name, description.height, description.width) == ("chen", 288, 288)
    assert (description.resize, description.grey, description.similarity) == ("adaptive", "byte", "cosine")
    greys = torch.randint(0, 256, (3, 1, 96, 80)).float()
    with torch.no_grad():
        expected = network(prepared(greys, STD))
        torch.testing.assert_close(encoder(greys), expected, atol=1e-5, rtol=0)
        faulty, _ = load_sscd(path, reference_normalisation=True)
        torch.testing.assert_close(faulty(greys), network(prepared(greys, MEAN)), atol=1e-5, rtol=0)


def test_another_network_and_a_frozen_one_are_named(seeded, scripted, tmp_path):
    with pytest.raises(MetricError, match=r"no SSCD network of bottlenecks: its weights are named conv1\.weight"):
        load_sscd(scripted(resnet18(), tmp_path / "other.pt"))
    network = Classy().eval()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"`torch\.jit\.\w+` is (deprecated|not supported)")
        torch.jit.freeze(torch.jit.script(network)).save(str(tmp_path / "frozen.pt"))
    with pytest.raises(MetricError, match="holds no weights: it was frozen"):
        load_sscd(tmp_path / "frozen.pt")
    del network.backbone.blocks[3]
    with pytest.raises(MetricError, match="no SSCD network"):
        load_sscd(scripted(network.backbone, tmp_path / "short.pt"))


def run(*arguments: object) -> Any:
    """Run the command in this process: torch is loaded already."""
    from deepssim.cli.export import command

    return CliRunner().invoke(command, [*map(str, arguments), "--quiet"])


def shortened(path: Path, *, reference_normalisation: bool = False) -> Any:
    """Load a network without the stages that are alike, since the exporter takes seconds for each.

    That of the reference differs before the first convolution alone, and keeps no more than that needs.
    """
    encoder, description = load_sscd(path, reference_normalisation=reference_normalisation)
    kept = 0 if reference_normalisation else 1
    for stage in range(kept + 1, 5):
        setattr(encoder.backbone, f"layer{stage}", nn.Identity())
    encoder.backbone.fc = nn.Linear(256 if kept else 64, 16)
    return encoder, description


@pytest.fixture(scope="module")
def bundles(seeded, tmp_path_factory) -> dict[str, Path]:
    """The right one and the reference's, at a small size, whose graphs take images of any."""
    folder = tmp_path_factory.mktemp("sscd")
    path = traced(lively(Classy(16, (1, 1, 1, 1))), folder / "sscd.torchscript.pt")
    made = {"file": path, "right": folder / "right.onnx", "reference": folder / "reference.onnx"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("deepssim.models.sscd.load_sscd", shortened)
        for name, options in (("right", ()), ("reference", ("--reference-normalisation",))):
            done = run("--sscd", path, "--size", "64x64", "--out", made[name], "--json", *options)
            assert done.exit_code == 0, done.output
            assert json.loads(done.stdout)["thresholds"] is None  # they are for another size
    return made


def fed(bundle: Path, images: np.ndarray) -> np.ndarray:
    """What reaches the first convolution of a bundle's graph."""
    import onnx
    import onnxruntime

    model = onnx.load(bundle)
    first = next(node for node in model.graph.node if node.op_type == "Conv")
    del model.graph.output[:]
    model.graph.output.append(onnx.helper.make_tensor_value_info(first.input[0], onnx.TensorProto.FLOAT, None))
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"image": images})[0]


@pytest.mark.parametrize(("name", "divisor"), [("reference", MEAN[0]), ("right", STD[0])])
def test_the_bundle_feeds_its_network_what_the_reference_does(name, divisor, bundles, data_folder):
    from PIL import Image

    golden = data_folder.parent / "golden" / "preprocess.npz"
    if not golden.is_file():
        pytest.skip("golden/preprocess.npz is not beside the images")
    rule = input_rule(load_sscd(bundles["file"])[1])
    assert rule == InputRule(288, 288, "adaptive", "byte")
    with np.load(golden) as arrays:
        for i in range(4):
            image = np.asarray(Image.open(data_folder / str(arrays[f"path_{i}"])).convert("L"), np.float32)
            found = fed(bundles[name], rule.apply(image)[None, None])
            assert found.shape == (1, 3, 288, 288)
            # The golden tensors were divided by the mean, which is the fault.
            expected = arrays[f"chen_{i}"] * (MEAN[0] / divisor)
            np.testing.assert_allclose(found[0, :1], expected, atol=1e-6)


def test_the_metric_says_what_it_is(bundles):
    metric = load_metric(str(bundles["right"]))
    assert (metric.name, metric.licence, metric.intensity, metric.dim) == ("chen", "MIT", "imagenet", 16)
    assert metric.input == InputRule(64, 64, "adaptive", "byte")
    assert load_metric(str(bundles["reference"])).intensity == "imagenet, reference"


def test_published_thresholds_lie_beside_the_bundle(bundles, tmp_path, monkeypatch):
    out = tmp_path / "mine.onnx"
    written = Exported(out, 0.0, 0, 0)
    monkeypatch.setattr("deepssim.export.export_encoder", lambda *_, **__: written)
    done = run("--sscd", bundles["file"], "--out", out, "--name", "mine")
    assert done.exit_code == 0, done.output
    found = Calibration.read(tmp_path / "mine.calibration.json")
    assert found == replace(load_calibration("chen"), metric="mine")
    assert "rule published for chen" in done.output
    done = run("--sscd", bundles["file"], "--out", out, "--size", "64x64")
    assert "was there before and stays" in done.output


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--sscd", "FILE", "--reference-axes"), "--reference-axes is for --dar"),
        (("--openclip", "RN50", "--reference-normalisation"), "--reference-normalisation is for --sscd"),
        (("--sscd", "FILE", "--weights", "none"), "--weights is for --openclip"),
        (("--sscd", "FILE", "--dar", "FILE"), r"give one encoder \(--sscd, --dar\)"),
        (("--openclip", "RN50", "--weights", "none", "--size", "64x64"), "leave --size out"),
        ((), "none is given"),
    ],
)
def test_options_of_another_encoder_are_refused(arguments, says, bundles, tmp_path):
    given = [bundles["file"] if argument == "FILE" else argument for argument in arguments]
    done = run(*given, "--out", tmp_path / "x.onnx")
    assert isinstance(done.exception, UsageError)
    with pytest.raises(UsageError, match=says):
        raise done.exception
