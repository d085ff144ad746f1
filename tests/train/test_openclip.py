"""Image encoders of OpenCLIP: its own embeddings of the images themselves, without its text tower and its network."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

torch = pytest.importorskip("torch")
pytest.importorskip("onnxscript")
open_clip = pytest.importorskip("open_clip")

from safetensors.torch import save_file  # noqa: E402

from deepssim.calibration import load_calibration  # noqa: E402
from deepssim.embed import Encoder  # noqa: E402
from deepssim.errors import MetricError, UsageError  # noqa: E402
from deepssim.metric import load_metric  # noqa: E402
from deepssim.models.openclip import load_openclip  # noqa: E402
from deepssim.phantom import make_cohort  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")
TEXT = {"context_length": 8, "vocab_size": 50, "width": 16, "heads": 2, "layers": 1}
VIT = {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 8}
CONFIG = {"embed_dim": 24, "quick_gelu": True, "vision_cfg": VIT, "text_cfg": TEXT}
PREPROCESSING = {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.4], "interpolation": "bilinear", "resize_mode": "squash"}


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> tuple[Any, Any, Path]:
    """A model of OpenCLIP's with random weights, its preprocessing, and its folder as the hub has it."""
    folder = tmp_path_factory.mktemp("openclip") / "tiny"
    folder.mkdir()
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": CONFIG, "preprocess_cfg": PREPROCESSING}))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = open_clip.CLIP(**CONFIG).eval()
        save_file(made.state_dict(), folder / "open_clip_model.safetensors")
    built, preprocess = open_clip.create_model_from_pretrained(f"local-dir:{folder}")
    return built.eval(), preprocess, folder


@pytest.fixture(scope="module")
def pictures() -> list[Image.Image]:
    """8-bit images of several shapes."""
    drawn = [Image.fromarray((image * 255).astype(np.uint8)) for _, _, image in make_cohort(4, 1, seed=0)]
    return [*drawn, drawn[0].resize((31, 90)), drawn[1].resize((32, 32)), drawn[2].resize((300, 20))]


def theirs(built: Any, preprocess: Any, pictures: list[Image.Image]) -> np.ndarray:
    batch = torch.stack([preprocess(picture.convert("RGB")) for picture in pictures])
    with torch.no_grad():
        return built.encode_image(batch, normalize=True).numpy()


def run(*arguments: object) -> Any:
    """Run the command in this process: torch is loaded already."""
    from deepssim.cli.export import command

    return CliRunner().invoke(command, [*map(str, arguments), "--quiet"])


def test_the_bundle_embeds_images_as_openclip_does(model, pictures, tmp_path):
    built, preprocess, folder = model
    out = tmp_path / "semdedup.onnx"
    done = run("--openclip", folder, "--out", out)
    assert done.exit_code == 0, done.output
    metric = load_metric(str(out))
    assert (metric.name, metric.dim, metric.similarity) == ("semdedup", 24, "cosine")
    assert (metric.input.resize, metric.input.fit, metric.input.interpolation) == ("clip", "squash", "bilinear")
    assert metric.intensity == "unit, mean 0.5, 0.4, 0.3, deviation 0.2, 0.3, 0.4"
    assert metric.calibration() == load_calibration("semdedup")
    encoder = Encoder(metric, device="cpu", threads=1)
    found = encoder.encode([encoder.prepare(np.asarray(picture, np.float32)) for picture in pictures])
    np.testing.assert_allclose(found, theirs(built, preprocess, pictures), atol=2e-6)


@pytest.mark.parametrize("form", ["whole", "wrapped", "tower", "half", "torchscript"])
def test_weights_are_read_in_the_forms_that_there_are(form, model, pictures, scripted, tmp_path):
    built, preprocess, folder = model
    state = built.state_dict()
    path = tmp_path / "weights.pt"
    if form == "torchscript":
        scripted(_Holder(built.visual), path)
    else:
        torch.save(
            {
                "whole": lambda: state,
                "wrapped": lambda: {"epoch": 3, "state_dict": {f"module.{n}": t for n, t in state.items()}},
                "tower": built.visual.state_dict,
                "half": lambda: {name: tensor.half() for name, tensor in state.items()},
            }[form](),
            path,
        )
    encoder, description, rule = load_openclip(str(folder), str(path))
    assert len(description.training["sha256"]) == 64
    greys = np.stack([rule.apply(np.asarray(picture, np.float32)) for picture in pictures])[:, None]
    with torch.no_grad():
        found = encoder(torch.from_numpy(greys)).numpy()
    np.testing.assert_allclose(found, theirs(built, preprocess, pictures), atol=5e-3 if form == "half" else 2e-6)


class _Holder(torch.nn.Module):
    """A model of which the image tower is a part, as one that can be scripted."""

    def __init__(self, visual: torch.nn.Module) -> None:
        super().__init__()
        self.visual = _Weights(visual)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


class _Weights(torch.nn.Module):
    """Weights with their names, and no program."""

    def __init__(self, of: torch.nn.Module) -> None:
        super().__init__()
        for name, tensor in of.named_parameters(recurse=False):
            self.register_parameter(name, tensor)
        for name, tensor in of.named_buffers(recurse=False):
            self.register_buffer(name, tensor)
        for name, child in of.named_children():
            self.add_module(name, _Weights(child))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


def test_a_built_in_model_takes_random_weights_only_when_asked(monkeypatch):
    with pytest.raises(UsageError, match=r"--weights FILE, one of OpenCLIP's tags.*openai.*or none"):
        load_openclip("RN50")
    with pytest.raises(UsageError, match="neither a file nor weights of RN50: --weights FILE"):
        load_openclip("RN50", "openia")
    with pytest.raises(UsageError, match=r"OpenCLIP knows no model '/no/such/folder': give the name of one, a folder"):
        load_openclip("/no/such/folder")
    with pytest.raises(UsageError, match=r"OpenCLIP knows no model 'RN5', but .*RN50"):
        load_openclip("RN5", "none")
    encoder, description, rule = load_openclip("RN50", "none")
    assert description.training == {"random": True}
    assert description.intensity == "clip"
    assert rule.size == (224, 224)
    with torch.no_grad():
        assert encoder(torch.rand(1, 1, 224, 224)).shape == (1, 1024)


def test_without_a_network_the_error_names_the_option(monkeypatch):
    def fail(*_: object, **__: object) -> str:
        raise OSError("[Errno -2] Name or service not known\nand more")

    monkeypatch.setattr(open_clip, "download_pretrained", fail)
    monkeypatch.setattr(open_clip.pretrained, "download_pretrained_from_hf", fail)
    with pytest.raises(
        UsageError, match=r"cannot be downloaded \(.*not known\): give a file of them with --weights FILE"
    ):
        load_openclip("RN50", "openai")
    with pytest.raises(UsageError, match=r"copy its open_clip_config\.json and weights into a folder.*--weights FILE"):
        load_openclip("hf-hub:somebody/something")


def test_what_is_no_model_is_named(model, tmp_path):
    folder = model[2]
    with pytest.raises(UsageError, match=r"holds no open_clip_config\.json"):
        load_openclip(str(tmp_path))
    (tmp_path / "open_clip_config.json").write_text("{}")
    with pytest.raises(UsageError, match=r"holds none of open_clip_model\.safetensors"):
        load_openclip(str(tmp_path))
    with pytest.raises(MetricError, match="no configuration of an OpenCLIP model"):
        load_openclip(str(tmp_path), "none")
    with pytest.raises(UsageError, match="there is no file"):
        load_openclip(str(folder), str(tmp_path / "weights.pt"))
    torch.save({"conv1.weight": torch.zeros(3)}, tmp_path / "other.pt")
    with pytest.raises(MetricError, match=r"does not fit the image tower of tiny: \d+ of its weights are missing"):
        load_openclip(str(folder), str(tmp_path / "other.pt"))
    for change in ({"vision_cfg": {**VIT, "patch_size": 0}}, {"embed_dim": "many"}, {"vision_cfg": {"wdith": 3}}):
        (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": {**CONFIG, **change}}))
        with pytest.raises(MetricError, match="cannot be built"):
            load_openclip(str(tmp_path), "none")
    cfg = {"model_cfg": CONFIG, "preprocess_cfg": {"resize_mode": "crop"}}
    (tmp_path / "open_clip_config.json").write_text(json.dumps(cfg))
    with pytest.raises(MetricError, match="known are shortest, longest, squash"):
        load_openclip(str(tmp_path), "none")
