"""Published checkpoints: TorchScript archives of DeepSSIM and DeepSSIM++, rebuilt from their tensors."""

from __future__ import annotations

import re
from pathlib import Path

from torch import Tensor, nn

from deepssim.errors import MetricError
from deepssim.models.archive import read_archive
from deepssim.models.checkpoint import Description, build_encoder

__all__ = ["load_published"]

# Rows and columns of the images that both were trained on.
_SIZE = (136, 112)
_STEM = "0.0.weight"


def load_published(path: Path) -> tuple[nn.Module, Description]:
    """Rebuild a published encoder, in evaluation mode.

    Args:
        path: ``best_model_jit.pt``, as the reference implementation saves it, or the same of DeepSSIM++.

    Raises:
        MetricError: The archive is refused, or holds another network.
    """
    state = read_archive(path)
    prefix = _backbone(state, path)
    features = {name.removeprefix(prefix): t for name, t in state.items() if name.startswith(prefix)}
    rest = {name: tensor for name, tensor in state.items() if not name.startswith(prefix)}
    width = features[_STEM].shape[0]
    if width == 128:
        description, head = _base(rest, path)
    elif width == 96:
        description, head = _tiny(rest, path)
    else:
        raise MetricError(f"{path} holds a network whose stem has {width} channels: neither DeepSSIM nor DeepSSIM++")
    encoder = build_encoder(description)
    try:
        encoder.load_state_dict({**{f"feature_extractor.{k}": t for k, t in features.items()}, **head})
    except RuntimeError as error:
        raise MetricError(f"{path} does not fit {description.name}: {str(error).splitlines()[-1].strip()}") from error
    return encoder.eval(), description


def _backbone(state: dict[str, Tensor], path: Path) -> str:
    """Return what stands before the names of torchvision's ``features``."""
    found = [name.removesuffix(_STEM) for name, t in state.items() if name.endswith(_STEM) and t.ndim == 4]
    if len(found) != 1:
        raise MetricError(f"{path} holds no ConvNeXt: {len(found)} of its tensors could be a stem")
    return found[0]


def _base(rest: dict[str, Tensor], path: Path) -> tuple[Description, dict[str, Tensor]]:
    linear = [t for t in rest.values() if t.ndim == 2]
    if len(linear) != 2:
        raise MetricError(f"{path} has {len(linear)} linear layers behind its backbone, DeepSSIM has two")
    arguments = {"dim": int(linear[-1].shape[0])}
    head = {"fc." + ".".join(name.split(".")[-2:]): tensor for name, tensor in rest.items()}
    training = {"published": "DeepSSIM"}
    return Description("convnext-base", arguments, *_SIZE, "deepssim", training), head


def _tiny(rest: dict[str, Tensor], path: Path) -> tuple[Description, dict[str, Tensor]]:
    """Name what is behind the backbone by its shapes: powers of the pools, one normalisation, two linear layers."""
    powers = [tensor for tensor in rest.values() if tensor.numel() == 1 and tensor.is_floating_point()]
    others = {name: tensor for name, tensor in rest.items() if tensor.numel() > 1}
    linear = [re.sub(r"weight$", "", name) for name, tensor in others.items() if tensor.ndim == 2]
    norms = [name.removesuffix("weight") for name, t in others.items()
             if t.ndim == 1 and name.endswith("weight")]  # fmt: skip
    if len(powers) != 4 or len(linear) != 2 or len(norms) != 1:
        raise MetricError(
            f"{path} has {len(powers)} pools, {len(norms)} norms and {len(linear)} linear layers behind its backbone, "
            "DeepSSIM++ has 4, 1 and 2"
        )
    head = {f"pools.{i}.p": power.reshape(1) for i, power in enumerate(powers)}
    for place, name in ((0, norms[0]), (1, linear[0]), (4, linear[1])):
        head |= {f"head.{place}.{part}": others[name + part] for part in ("weight", "bias") if name + part in others}
    arguments = {"dim": int(others[linear[1] + "weight"].shape[0])}
    return Description("convnext-tiny-gem", arguments, *_SIZE, "deepssimpp", {"published": "DeepSSIM++"}), head
