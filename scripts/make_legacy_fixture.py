"""Write what networks of monai-generative 0.2.3 make of some inputs: tests/train/data/legacy.npz.

That package cannot share an environment with current MONAI, so its answers are kept. The networks are tiny, of the
published kind and of its variants; all weights are random, and are 16-bit numbers, which 32 bits hold exactly.

    python3 -m venv /tmp/legacy
    /tmp/legacy/bin/pip install "monai==1.3.2" "monai-generative==0.2.3" torch numpy
    /tmp/legacy/bin/python scripts/make_legacy_fixture.py tests/train/data/legacy.npz

With --published a folder of full-size state dicts, inputs and outputs (1.6 GB) is written instead, to be compared by
hand:

    /tmp/legacy/bin/python scripts/make_legacy_fixture.py --published /tmp/published
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from generative.networks.nets import AutoencoderKL, DiffusionModelUNet  # of monai-generative
from torch import Tensor, nn

# Names -> arguments of this package's classes; sizes of the inputs (images of a VAE, latents of a U-Net).
TINY: dict[str, tuple[str, dict[str, Any], tuple[int, int]]] = {
    "vae": (
        "vae",
        {"channels": [4, 8], "res_blocks": 1, "norm_groups": 2, "attention_levels": [False, False]},
        (8, 12),
    ),
    "vae-attention": (
        "vae",
        {"channels": [4, 8], "res_blocks": 2, "norm_groups": 4, "attention_levels": [False, True],
         "latent_channels": 2},
        (8, 12),
    ),
    "unet": (
        "unet",
        {"channels": [4, 8], "res_blocks": 1, "norm_groups": 2, "attention_levels": [False, True],
         "head_channels": [0, 4], "resblock_updown": False, "context_dim": None},
        (4, 6),
    ),
    "unet-variables": (
        "unet",
        {"channels": [4, 8, 8], "res_blocks": 1, "norm_groups": 2, "attention_levels": [False, True, True],
         "head_channels": [0, 8, 4], "resblock_updown": True, "context_dim": 6},
        (8, 4),
    ),
    "unet-no-attention": (
        "unet",
        {"channels": [4, 4], "res_blocks": 1, "norm_groups": 2, "attention_levels": [False, False],
         "head_channels": [0, 4], "resblock_updown": True, "upcast_attention": False, "context_dim": 5,
         "transformer_layers": 2},
        (4, 4),
    ),
}  # fmt: skip
_PUBLISHED_UNET = {
    "channels": [256, 512, 768], "res_blocks": 2, "norm_groups": 32, "attention_levels": [False, True, True],
    "head_channels": [0, 512, 768], "resblock_updown": True,
}  # fmt: skip
PUBLISHED: dict[str, tuple[str, dict[str, Any], tuple[int, int]]] = {
    "vae": (
        "vae",
        {"channels": [64, 128, 128], "res_blocks": 2, "norm_groups": 32, "attention_levels": [False] * 3},
        (136, 112),
    ),
    "unet-none": ("unet", {**_PUBLISHED_UNET, "context_dim": None}, (36, 28)),
    "unet-variables": ("unet", {**_PUBLISHED_UNET, "context_dim": 6}, (36, 28)),
    "unet-text": ("unet", {**_PUBLISHED_UNET, "context_dim": 512}, (36, 28)),
}


def build(kind: str, arguments: dict[str, Any]) -> nn.Module:
    """Build a network of monai-generative."""
    common = {
        "spatial_dims": 2, "num_channels": tuple(arguments["channels"]), "num_res_blocks": arguments["res_blocks"],
        "norm_num_groups": arguments["norm_groups"], "norm_eps": 1e-6,
        "attention_levels": tuple(arguments["attention_levels"]),
    }  # fmt: skip
    latent = arguments.get("latent_channels", 3)
    if kind == "vae":
        return AutoencoderKL(
            **common, in_channels=1, out_channels=1, latent_channels=latent, with_decoder_nonlocal_attn=False,
            with_encoder_nonlocal_attn=False,
        )  # fmt: skip
    return DiffusionModelUNet(
        **common, in_channels=latent, out_channels=latent, num_head_channels=tuple(arguments["head_channels"]),
        resblock_updown=arguments["resblock_updown"], with_conditioning=arguments["context_dim"] is not None,
        cross_attention_dim=arguments["context_dim"], upcast_attention=arguments.get("upcast_attention", True),
        transformer_num_layers=arguments.get("transformer_layers", 1),
    )  # fmt: skip


def fill(network: nn.Module, generator: torch.Generator) -> None:
    """Make all weights random: some begin as zeros, and would hide what is wrong before them."""
    with torch.no_grad():
        for name, weight in network.named_parameters():
            fan_in = max(1, weight[0].numel()) if weight.ndim > 1 else 1
            drawn = torch.randn(weight.shape, generator=generator)
            is_norm = weight.ndim == 1 and name.endswith("weight")
            drawn = 1 + 0.1 * drawn if is_norm else drawn * (fan_in**-0.5 if weight.ndim > 1 else 0.1)
            weight.copy_(drawn.half().float())


def run(
    kind: str, network: nn.Module, arguments: dict[str, Any], size: tuple[int, int], seed: int
) -> dict[str, Tensor]:
    """Return inputs and outputs of a network in evaluation mode."""
    generator = torch.Generator().manual_seed(seed)
    network.eval()
    with torch.no_grad():
        if kind == "vae":
            images = torch.rand(2, 1, *size, generator=generator)
            mean, sigma = network.encode(images)
            return {"images": images, "mean": mean, "sigma": sigma, "decoded": network.decode(mean)}
        latents = torch.randn(2, arguments.get("latent_channels", 3), *size, generator=generator)
        timesteps = torch.tensor([999, 20])
        dim = arguments["context_dim"]
        context = None if dim is None else torch.rand(2, 1, dim, generator=generator)
        noise = network(latents, timesteps, context=context)
    given = {"latents": latents, "timesteps": timesteps, "noise": noise}
    return given if context is None else {**given, "context": context}


def main() -> None:
    """Write the file, or the folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--published", action="store_true", help="full size, into a folder")
    options = parser.parse_args()
    arrays: dict[str, np.ndarray] = {}
    for seed, (name, (kind, arguments, size)) in enumerate((PUBLISHED if options.published else TINY).items()):
        network = build(kind, arguments)
        fill(network, torch.Generator().manual_seed(seed))
        told = run(kind, network, arguments, size, seed)
        if options.published:
            options.out.mkdir(parents=True, exist_ok=True)
            torch.save(network.state_dict(), options.out / f"{name}.pth")
            np.savez(options.out / f"{name}.npz", **{key: value.numpy() for key, value in told.items()})
            continue
        state = network.state_dict()
        described = {"kind": kind, **arguments, "shapes": {key: list(weight.shape) for key, weight in state.items()}}
        arrays[f"{name}/arguments"] = np.array(json.dumps(described))
        arrays[f"{name}/weights"] = torch.cat([weight.flatten() for weight in state.values()]).half().numpy()
        arrays |= {f"{name}/{key}": value.numpy() for key, value in told.items()}
    if not options.published:
        np.savez_compressed(options.out, **arrays)


if __name__ == "__main__":
    main()
