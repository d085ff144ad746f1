"""The VAE: shapes, the latent that is drawn, and a checkpoint that no encoder is taken for."""

from __future__ import annotations

import json

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("monai")

from safetensors import safe_open  # noqa: E402

from deepssim.errors import MetricError  # noqa: E402
from deepssim.generative.config import VaeConfig  # noqa: E402
from deepssim.models.checkpoint import (  # noqa: E402
    METADATA_KEY,
    NETWORK_KEY,
    Description,
    architecture_of,
    build_network,
    load_encoder,
    load_network,
    save_network,
)
from deepssim.models.discriminator import Discriminator  # noqa: E402
from deepssim.models.generative import load_unet, load_vae, weights_hash  # noqa: E402
from deepssim.models.vae import Vae  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")
TINY = Description(
    "vae", {"channels": [4, 8], "res_blocks": 1, "norm_groups": 2, "attention_levels": [False, True]}, 16, 12, "tiny"
)


@pytest.fixture(scope="module")
def vae():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return build_network(TINY).eval()


def test_the_published_configuration_is_the_default():
    with torch.device("meta"):
        given, default = Vae(**VaeConfig().as_dict()), Vae()
        latent, _ = default.encode(torch.zeros(1, 1, 136, 112))
    assert {n: w.shape for n, w in given.state_dict().items()} == {n: w.shape for n, w in default.state_dict().items()}
    assert tuple(latent.shape) == (1, 3, 34, 28)
    # As the network of monai-generative has in that configuration.
    assert sum(weight.numel() for weight in default.parameters()) == 3_129_960


def test_a_latent_is_drawn_around_its_mean_by_the_generator_alone(vae):
    images = torch.rand(3, 1, 16, 12, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        first, mean, sigma = vae(images, torch.Generator().manual_seed(5))
        torch.rand(7)  # of PyTorch's own generator, which plays no part
        again, _, _ = vae(images, torch.Generator().manual_seed(5))
        noise = torch.randn(mean.shape, generator=torch.Generator().manual_seed(5))
        expected = vae.decode(mean + sigma * noise)
    assert torch.equal(first, again)
    assert torch.equal(first, expected)
    assert tuple(mean.shape) == (3, 3, 8, 6)
    assert (sigma > 0).all()


def test_a_vae_comes_out_of_its_checkpoint_as_it_was_and_is_no_encoder(vae, tmp_path):
    path = tmp_path / "vae.safetensors"
    save_network(path, vae.state_dict(), TINY)
    found, description = load_vae(path)
    assert description == TINY
    assert weights_hash(found.state_dict()) == weights_hash(vae.state_dict())
    assert weights_hash(load_network(path)[0].state_dict()) == weights_hash(vae.state_dict())
    assert architecture_of(path) == "vae"
    with safe_open(path, framework="pt") as file:
        assert METADATA_KEY not in file.metadata()
        assert json.loads(file.metadata()[NETWORK_KEY])["architecture"] == "vae"
    with pytest.raises(
        MetricError, match="is a variational autoencoder, and no encoder: deepssim train ldm --vae FILE"
    ):
        load_encoder(path)
    with pytest.raises(MetricError, match="is no U-Net: it holds a VAE; deepssim train ldm --vae FILE"):
        load_unet(path)


def test_an_encoder_of_images_is_no_vae(tmp_path):
    lite = Description("lite", {"dim": 4, "widths": [4, 4, 4], "depths": [1, 1], "hidden": 4}, 8, 8)
    save_network(tmp_path / "lite.safetensors", build_network(lite).state_dict(), lite)
    with pytest.raises(MetricError, match=r"is no VAE, but an encoder of images \(lite\)"):
        load_vae(tmp_path / "lite.safetensors")
    assert architecture_of(tmp_path / "lite.safetensors") == "lite"
    assert architecture_of(tmp_path / "none.safetensors") is None


def test_one_changed_number_is_another_hash(vae):
    before = weights_hash(vae.state_dict())
    state = {name: weight.clone() for name, weight in vae.state_dict().items()}
    assert weights_hash(dict(reversed(state.items()))) == before
    next(iter(state.values())).view(-1)[0] += 1e-7
    assert weights_hash(state) != before


def test_the_discriminator_judges_patches():
    with torch.device("meta"):
        published = Discriminator()
        assert tuple(published(torch.zeros(2, 1, 136, 112)).shape) == (2, 1, 15, 12)
    # As monai-generative has.
    assert sum(weight.numel() for weight in published.parameters()) == 693_665
