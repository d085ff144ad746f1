"""What the names and shapes of weights say of the generative network that they belong to.

Groups of norms and channels of attention heads leave no trace in the shapes; all other arguments do. So a checkpoint
without a description is compared with a configuration before anything is built, and the message says what it is.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor

__all__ = ["differences", "kind_of", "plain_names", "unet_layout", "vae_layout"]

Weights = Mapping[str, Tensor]

# What wrappers put before the names: of several GPUs, of a compiler, of this package.
_PREFIXES = re.compile(r"^(module\.|_orig_mod\.|network\.)+")


def plain_names(state: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return weights by the names of MONAI's networks, without the prefixes of wrappers; what is no tensor is left out.

    Example:
        >>> import torch
        >>> list(plain_names({"module.conv_in.conv.bias": torch.zeros(1), "epoch": 3}))
        ['conv_in.conv.bias']
    """
    return {_PREFIXES.sub("", name): value for name, value in state.items() if isinstance(value, Tensor)}


def kind_of(state: Weights) -> str | None:
    """Return ``"vae"``, ``"unet"`` or ``"discriminator"``; None: of another network.

    Example:
        >>> import torch
        >>> kind_of({"quant_conv_mu.conv.bias": torch.zeros(3)})
        'vae'
    """
    for kind, name in (("vae", "quant_conv_mu."), ("unet", "time_embed."), ("discriminator", "final_conv.")):
        if any(key.startswith(name) for key in state):
            return kind
    return None


def vae_layout(state: Weights) -> dict[str, Any]:
    """Return the arguments of a VAE that its weights tell.

    Returns:
        Fields of `deepssim.generative.config.VaeConfig`; ``res_blocks`` is a list where levels differ.

    Example:
        >>> from deepssim.models.vae import Vae
        >>> vae = Vae(channels=(8, 16), norm_groups=4, attention_levels=(False, True))
        >>> vae_layout(vae.network.state_dict())
        {'latent_channels': 3, 'channels': [8, 16], 'res_blocks': 2, 'attention_levels': [False, True]}
    """
    channels, blocks, attention = _encoder_levels(state)
    return {
        "latent_channels": _size(state, "quant_conv_mu.conv.weight", 0),
        "channels": channels,
        "res_blocks": _one_or_all(blocks),
        "attention_levels": attention,
    }


def _encoder_levels(state: Weights) -> tuple[list[int], list[int], list[bool]]:
    """Return channels, residual blocks and attention by level, from the flat list of the encoder's blocks."""
    numbers = sorted({int(match[1]) for name in state if (match := re.match(r"encoder\.blocks\.(\d+)\.", name))})
    channels, blocks, attention = [0], [0], [False]
    for number in numbers:
        block = f"encoder.blocks.{number}."
        if f"{block}conv1.conv.weight" in state:
            channels[-1] = _size(state, f"{block}conv1.conv.weight", 0)
            blocks[-1] += 1
        elif f"{block}conv.conv.weight" in state:
            channels.append(0)
            blocks.append(0)
            attention.append(False)
        elif any(f"{block}{name}.weight" in state for name in ("to_q", "attn.to_q")):
            attention[-1] = True
    return channels, blocks, attention


def unet_layout(state: Weights) -> dict[str, Any]:
    """Return the arguments of a U-Net that its weights tell.

    Returns:
        Fields of `deepssim.generative.config.UnetConfig`, and ``latent_channels`` and ``context_dim`` (None: it takes
        no condition).

    Example:
        >>> from deepssim.models.unet import Unet
        >>> unet = Unet((8, 16), 1, (False, True), (0, 8), norm_groups=4, context_dim=6)
        >>> found = unet_layout(unet.network.state_dict())
        >>> found["channels"], found["res_blocks"], found["resblock_updown"], found["context_dim"]
        ([8, 16], 1, True, 6)
    """
    n_levels = 1 + max((int(m[1]) for name in state if (m := re.match(r"down_blocks\.(\d+)\.", name))), default=-1)
    levels = [f"down_blocks.{level}." for level in range(n_levels)]
    resnets = re.compile(r"(down_blocks\.\d+\.)resnets\.\d+\.conv1\.conv\.weight")
    counts = Counter(match[1] for name in state if (match := resnets.fullmatch(name)))
    context = sorted(name for name in state if name.endswith("attn2.to_k.weight"))
    found = {
        "channels": [_size(state, f"{level}resnets.0.conv1.conv.weight", 0) for level in levels],
        "res_blocks": _one_or_all([counts[level] for level in levels]),
        "attention_levels": [any(name.startswith(f"{level}attentions.") for name in state) for level in levels],
        "latent_channels": _size(state, "conv_in.conv.weight", 1),
        "context_dim": _size(state, context[0], 1) if context else None,
    }
    if n_levels > 1:
        found["resblock_updown"] = any(name.startswith("down_blocks.0.downsampler.conv1.") for name in state)
    if context:
        layers = {
            m[1] for name in state if (m := re.match(r"middle_block\.attention\.transformer_blocks\.(\d+)", name))
        }
        found["transformer_layers"] = len(layers)
    return found


def differences(found: Mapping[str, Any], expected: Mapping[str, Any], shown: Callable[[Any], str] = str) -> list[str]:
    """Return in words where weights and a configuration differ.

    Args:
        found: `vae_layout` or `unet_layout`.
        expected: Arguments by the configuration.
        shown: Writes a value.

    Example:
        >>> differences({"channels": [8, 16]}, {"channels": [64, 128, 128], "norm_eps": 1e-6})
        ['channels = [8, 16], not [64, 128, 128]']
    """
    pairs = ((name, value, expected[name]) for name, value in found.items() if name in expected)
    return [f"{name} = {shown(a)}, not {shown(b)}" for name, a, b in pairs if _plain(a) != _plain(b)]


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _size(state: Weights, name: str, axis: int) -> int:
    weight = state.get(name)
    return 0 if weight is None or weight.ndim <= axis else int(weight.shape[axis])


def _one_or_all(counts: Sequence[int]) -> int | list[int]:
    return counts[0] if counts and len(set(counts)) == 1 else list(counts)
