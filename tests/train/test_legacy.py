"""State dicts of monai-generative 0.2.3: the same answers, as that package gave them itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("monai")

from deepssim.errors import DeepSSIMError, MetricError, UsageError  # noqa: E402
from deepssim.generative.config import GenerativeConfig  # noqa: E402
from deepssim.models.generative import load_generative, load_unet, load_vae, weights_hash  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")
KEPT = Path(__file__).parent / "data" / "legacy.npz"
# One with attention of its own, one with that to conditions.
SOME = ("vae-attention", "unet-no-attention")
# Of answers of about 1; the largest that was seen is 1e-6.
TOLERANCE = 1e-5


class Kept:
    """A network of the older package: its weights, and what it made of some inputs."""

    def __init__(self, name: str, folder: Path) -> None:
        with np.load(KEPT) as file:
            self.arrays = {key.partition("/")[2]: file[key] for key in file.files if key.startswith(f"{name}/")}
        self.arguments: dict[str, Any] = json.loads(str(self.arrays["arguments"]))
        self.kind: str = self.arguments.pop("kind")
        shapes = self.arguments.pop("shapes")
        flat = torch.from_numpy(self.arrays["weights"]).float()
        parts = flat.split([int(np.prod(shape)) for shape in shapes.values()])
        self.state = {key: part.reshape(shapes[key]) for key, part in zip(shapes, parts, strict=True)}
        self.path = folder / f"{name}.pth"
        torch.save(self.state, self.path)

    def config(self, **changed: Any) -> GenerativeConfig:
        section = {**self.arguments, **changed}
        tables = {self.kind: {k: v for k, v in section.items() if k not in ("context_dim", "latent_channels")}}
        tables.setdefault("vae", {})["latent_channels"] = section.get("latent_channels", 3)
        return GenerativeConfig.from_dict({"size": [8, 12], **tables}, "mine")

    def tensor(self, name: str) -> Any:
        return torch.from_numpy(self.arrays[name])


@pytest.fixture
def kept(tmp_path):
    return lambda name: Kept(name, tmp_path)


def close(found: Any, expected: np.ndarray) -> None:
    assert np.abs(expected).max() > 0.1  # something that could be wrong
    np.testing.assert_allclose(found.numpy(), expected, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("name", ["vae", "vae-attention"])
@torch.no_grad()
def test_a_vae_of_the_older_package_encodes_and_decodes_as_it_did(kept, name):
    old = kept(name)
    vae, description = load_vae(old.path, old.config())
    mean, sigma = vae.encode(old.tensor("images"))
    close(mean, old.arrays["mean"])
    close(sigma, old.arrays["sigma"])
    close(vae.decode(old.tensor("mean")), old.arrays["decoded"])
    assert (description.architecture, description.height, description.width) == ("vae", 8, 12)
    assert not vae.training


@pytest.mark.parametrize("name", ["unet", "unet-variables", "unet-no-attention"])
@torch.no_grad()
def test_a_unet_of_the_older_package_finds_the_noise_that_it_did(kept, name):
    old = kept(name)
    unet, description = load_unet(old.path, old.config())
    context = old.tensor("context") if "context" in old.arrays else None
    close(unet(old.tensor("latents"), old.tensor("timesteps"), context), old.arrays["noise"])
    assert float(unet.scale_factor) == 1.0
    dim = old.arguments["context_dim"]
    kinds = {None: "none", 6: "variables", 5: "text"}
    assert description.training["conditions"]["kind"] == kinds[dim]
    assert description.arguments["context_dim"] == dim


@pytest.mark.parametrize("name", SOME)
def test_names_of_current_monai_and_of_wrappers_load_too(kept, name, tmp_path):
    old = kept(name)
    first, _ = load_generative(old.path, old.config())
    for wrapped in (
        first.network.state_dict(),
        {f"module.{key}": weight for key, weight in old.state.items()},
        {"state_dict": first.state_dict(), "epoch": 3},
    ):
        torch.save(wrapped, tmp_path / "again.pth")
        again, _ = load_generative(tmp_path / "again.pth", old.config())
        assert weights_hash(again.state_dict()) == weights_hash(first.state_dict())


@pytest.mark.parametrize("name", SOME)
@pytest.mark.parametrize("change", ["missing", "more", "shape"])
def test_no_weight_stays_random_and_none_is_left_over(kept, name, change, tmp_path):
    old = kept(name)
    key = list(old.state)[-3]
    state = dict(old.state)
    if change == "missing":
        del state[key]
    elif change == "more":
        state["some.other.weight"] = torch.zeros(3)
    else:
        state[key] = torch.zeros(2, *state[key].shape)
    torch.save(state, tmp_path / "bad.pth")
    with pytest.raises(MetricError, match=r"bad\.pth") as caught:
        load_generative(tmp_path / "bad.pth", old.config())
    assert "\n" not in str(caught.value)
    assert {"missing": "", "more": "some.other.weight", "shape": key}[change] in str(caught.value)


@pytest.mark.parametrize(
    ("name", "changed", "words"),
    [
        ("vae", {"channels": [4, 8, 8], "attention_levels": [False] * 3}, r"channels = \[4, 8\], not \[4, 8, 8\]"),
        ("vae", {"res_blocks": 2}, "res_blocks = 1, not 2"),
        ("vae-attention", {"latent_channels": 3}, "latent_channels = 2, not 3"),
        ("vae-attention", {"attention_levels": [False, False]}, "attention_levels = "),
        ("unet", {"latent_channels": 4}, "latent_channels = 3, not 4"),
        ("unet", {"resblock_updown": True}, "resblock_updown = False, not True"),
        ("unet-variables", {"channels": [4, 8, 16]}, r"channels = \[4, 8, 8\], not"),
        ("unet-no-attention", {"transformer_layers": 1}, "transformer_layers = 2, not 1"),
    ],
)
def test_a_configuration_that_does_not_fit_is_told_what_the_weights_are(kept, name, changed, words):
    old = kept(name)
    with pytest.raises(MetricError, match=words) as caught:
        load_generative(old.path, old.config(**changed))
    assert "--config FILE.toml" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "conditioning", "dim", "words"),
    [
        ("unet", "variables", None, "takes no condition: give --conditioning none"),
        ("unet", "text", 512, "takes no condition: give --conditioning none"),
        ("unet-variables", "none", None, "takes a condition of 6 variables: give --conditioning variables (or text)"),
        ("unet-variables", "variables", 7, "takes a condition of 6 variables: give --conditioning variables (or text)"),
        ("unet-no-attention", "variables", None, "takes a condition of 5 elements: give --conditioning text"),
    ],
)
def test_a_condition_that_does_not_fit_is_told_which_does(kept, name, conditioning, dim, words):
    old = kept(name)
    with pytest.raises(UsageError) as caught:
        load_unet(old.path, old.config(), conditioning, dim)
    assert words in str(caught.value)


def test_the_wrong_network_is_named(kept, tmp_path):
    vae, unet = kept("vae"), kept("unet")
    with pytest.raises(MetricError, match=r"vae\.pth is no U-Net: it holds a VAE; deepssim train ldm --vae FILE"):
        load_unet(vae.path, vae.config())
    with pytest.raises(MetricError, match=r"unet\.pth is no VAE: it holds a U-Net; deepssim generate --diffusion"):
        load_vae(unet.path, unet.config())
    torch.save({"final_conv.conv.weight": torch.zeros(1)}, tmp_path / "d.pth")
    with pytest.raises(MetricError, match="it holds the discriminator of a VAE"):
        load_vae(tmp_path / "d.pth")
    torch.save({"fc.weight": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(MetricError, match=r"something else \(its weights are named fc\.weight"):
        load_vae(tmp_path / "other.pth")
    with pytest.raises(MetricError, match="configuration paper-brain says: channels = "):
        load_vae(vae.path)


class Evil:
    def __reduce__(self):
        return (Path("executed").touch, ())


def test_nothing_in_a_file_is_executed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"quant_conv_mu.conv.weight": torch.zeros(1), "x": Evil()}, "evil.pth")
    Path("cut.pth").write_bytes(Path("evil.pth").read_bytes()[:200])
    Path("text.pth").write_text("weights")
    for name in ("evil.pth", "cut.pth", "text.pth", "none.pth", "none.safetensors", "text.pth/x.pth"):
        with pytest.raises(DeepSSIMError, match=name) as caught:
            load_vae(Path(name))
        assert "\n" not in str(caught.value)
    assert not Path("executed").exists()
