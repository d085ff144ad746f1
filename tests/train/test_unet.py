"""The U-Net: the published sizes, what it takes, and the scale factor that travels with its weights."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("monai")

from deepssim.errors import UsageError  # noqa: E402
from deepssim.generative.config import UnetConfig  # noqa: E402
from deepssim.models.checkpoint import Description, build_network, save_network  # noqa: E402
from deepssim.models.generative import load_unet, part_of  # noqa: E402
from deepssim.models.unet import Unet  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")
ARGUMENTS = {
    "channels": [4, 8], "res_blocks": 1, "norm_groups": 2, "attention_levels": [False, True], "head_channels": [0, 4],
}  # fmt: skip


# As the networks of monai-generative have in that configuration.
@pytest.mark.parametrize(("context_dim", "n_weights"), [(None, 183_981_059), (6, 261_769_219), (512, 269_023_235)])
def test_the_published_configuration_is_the_default(context_dim, n_weights):
    with torch.device("meta"):
        default = Unet(context_dim=context_dim)
        given = Unet(**UnetConfig().as_dict(), context_dim=context_dim)
    assert sum(weight.numel() for weight in default.parameters()) == n_weights
    assert {n: w.shape for n, w in given.state_dict().items()} == {n: w.shape for n, w in default.state_dict().items()}


def test_a_condition_is_neither_missing_nor_needless():
    latents, times = torch.zeros(1, 3, 4, 4), torch.tensor([3])
    with pytest.raises(ValueError, match="wants a condition of 6 elements"):
        Unet(**ARGUMENTS, context_dim=6)(latents, times)
    with pytest.raises(ValueError, match="takes none"):
        Unet(**ARGUMENTS)(latents, times, torch.zeros(1, 1, 6))


def test_the_scale_factor_travels_with_the_weights(tmp_path):
    training = {"conditions": {"kind": "variables", "dim": 6, "variables": [], "encoder": None}}
    description = Description("unet", {**ARGUMENTS, "context_dim": 6}, 16, 12, "tiny", training)
    unet = build_network(description)
    unet.scale_factor.fill_(0.75)
    path = tmp_path / "unet.safetensors"
    save_network(path, unet.state_dict(), description)
    found, said = load_unet(path)
    assert float(found.scale_factor) == 0.75
    assert said == description
    assert part_of(found, said, path).scale_factor == 0.75
    load_unet(path, conditioning="variables", context_dim=6)
    for kind, dim in (("none", None), (None, 7)):
        with pytest.raises(UsageError, match="condition of 6 variables: give --conditioning variables"):
            load_unet(path, None, kind, dim)
    torch.save(unet.state_dict(), tmp_path / "unet.pth")
    config = tmp_path / "mine.toml"
    lines = ["size = [16, 12]", "[unet]", *(f"{k} = {str(v).lower()}" for k, v in ARGUMENTS.items())]
    config.write_text("\n".join(lines))
    assert float(load_unet(tmp_path / "unet.pth", str(config))[0].scale_factor) == 0.75
