"""SSCD, a descriptor for copy detection (Pizzi et al., CVPR 2022, arXiv 2202.10261): the metric ``chen``.

A residual network of bottlenecks, a generalised mean of its last features and a linear layer. Published files name
their weights as Classy Vision does or as torchvision does; both are read, and only as numbers.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torchvision.models.resnet import Bottleneck, ResNet

from deepssim.errors import MetricError
from deepssim.models.archive import read_archive
from deepssim.models.blocks import unit_rows
from deepssim.models.checkpoint import MAX_DIM, Description, file_sha256, rebuild_network

__all__ = ["SIZE", "Sscd", "load_sscd"]

# Rows and columns that images are brought to, whatever their shape: its authors find skewed squares good for copies.
SIZE = (288, 288)
_MEAN = (0.485, 0.456, 0.406)
_DEVIATION = (0.229, 0.224, 0.225)
_MOST_BLOCKS = 64
# Of the generalised mean; the published networks do not learn it.
_POWER = 3.0
_LEAST = 1e-6
_STAGES = 4


class Sscd(nn.Module):
    """Residual network, generalised mean, linear layer.

    Args:
        dim: Elements of an embedding.
        depths: Bottlenecks of each stage: those of a ResNet-50.
        groups: Of the 3 x 3 convolutions; 32 in a ResNeXt.
        width_per_group: Their channels in the first stage, for each group; 4 in a ResNeXt-101 32x4d.
        reference_normalisation: Whether channels are divided by their mean in place of their deviation, as the
            reference implementation of DeepSSIM does by mistake.

    Raises:
        ValueError: The depths are none.

    Example:
        >>> encoder = Sscd(dim=8, depths=(1, 1, 1, 1)).eval()
        >>> encoder(torch.rand(2, 1, 64, 64) * 255).shape
        torch.Size([2, 8])
    """

    def __init__(
        self,
        dim: int = 512,
        depths: Sequence[int] = (3, 4, 6, 3),
        groups: int = 1,
        width_per_group: int = 64,
        *,
        reference_normalisation: bool = False,
    ) -> None:
        super().__init__()
        if len(depths) != _STAGES or not all(1 <= depth <= _MOST_BLOCKS for depth in depths):
            raise ValueError(f"depths are four whole numbers from 1 to {_MOST_BLOCKS}")
        self.backbone = ResNet(
            Bottleneck, list(depths), num_classes=dim, groups=groups, width_per_group=width_per_group
        )
        self.backbone.avgpool = _Pool()
        self._deviation = _MEAN if reference_normalisation else _DEVIATION

    def forward(self, images: Tensor) -> Tensor:
        """Embed grey images ``(n, 1, height, width)`` from 0 to 255; returns ``(n, dim)`` of unit norm."""
        # Made here, since a network that is built without memory loses what is no weight.
        mean, deviation = (
            torch.tensor(values, device=images.device).reshape(1, 3, 1, 1) for values in (_MEAN, self._deviation)
        )
        rows: Tensor = self.backbone((images / 255.0 - mean) / deviation)
        return unit_rows(rows)


class _Pool(nn.Module):
    """Generalised mean over space (GeM) of power 3, of features that are not negative."""

    def forward(self, features: Tensor) -> Tensor:
        """Pool ``(n, channels, height, width)`` to ``(n, channels, 1, 1)``."""
        powers = features.clamp(min=_LEAST).pow(_POWER)
        return powers.mean((2, 3), keepdim=True).pow(1.0 / _POWER)


def load_sscd(path: Path, *, reference_normalisation: bool = False) -> tuple[nn.Module, Description]:
    """Rebuild a published SSCD network, in evaluation mode, without executing anything in its file.

    Args:
        path: ``sscd_disc_mixup.torchscript.pt`` or another of its authors' TorchScript files.
        reference_normalisation: See `Sscd`; off by default, since it is a fault.

    Returns:
        The encoder, which takes grey images ``(n, 1, height, width)`` from 0 to 255, and what it is.

    Raises:
        MetricError: The archive is refused, or holds another network.
    """
    found = read_archive(path)
    state = {_torchvision_name(name): tensor for name, tensor in found.items()}
    arguments = _arguments(state, path, next(iter(found), "nothing"))
    if reference_normalisation:
        arguments["reference_normalisation"] = True
    description = Description(
        "sscd", arguments, *SIZE, name="chen", training={"published": "SSCD", "sha256": file_sha256(path)},
        similarity="cosine", intensity="imagenet, reference" if reference_normalisation else "imagenet",
        resize="adaptive", grey="byte",
    )  # fmt: skip
    return rebuild_network(description, _counted(state), path, "SSCD"), description


def _counted(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Add counters of batches, which some files leave out and nothing is computed from."""
    names = [name.removesuffix("running_mean") for name in state if name.endswith("running_mean")]
    return {**{f"{name}num_batches_tracked": torch.tensor(0) for name in names}, **state}


def _arguments(state: dict[str, Tensor], path: Path, first: str) -> dict[str, object]:
    """Read the size of the network off its weights."""
    fc, grouped = state.get("backbone.fc.weight"), state.get("backbone.layer1.0.conv2.weight")
    depths = [
        len({name.split(".")[2] for name in state if name.startswith(f"backbone.layer{stage}.")})
        for stage in range(1, _STAGES + 1)
    ]
    if not state:
        raise MetricError(
            f"{path} holds no weights: it was frozen, and what is left is a program; give it as published"
        )
    if fc is None or grouped is None or fc.ndim != 2 or grouped.ndim != 4 or not all(depths):
        raise MetricError(
            f"{path} is no SSCD network of bottlenecks: its weights are named {first} and so on; give a file such as "
            "sscd_disc_mixup.torchscript.pt"
        )
    dim, width, of_group = len(fc), len(grouped), grouped.shape[1]
    if not 1 <= dim <= MAX_DIM or max(depths) > _MOST_BLOCKS or not of_group or width % of_group:
        raise MetricError(f"{path} is no SSCD network: {dim} elements, {depths} blocks, {width} channels by {of_group}")
    groups = width // of_group
    return {"dim": dim, "depths": depths, "groups": groups, "width_per_group": of_group}


def _torchvision_name(name: str) -> str:
    """Return torchvision's name of a weight that has one of Classy Vision, or the same where it has none."""
    name = re.sub(r"^embeddings\.1\.", "backbone.fc.", name)
    if match := re.fullmatch(r"backbone\.initial_block\._module\.([01])\.(.+)", name):
        return f"backbone.{('conv1', 'bn1')[int(match[1])]}.{match[2]}"
    if match := re.fullmatch(r"backbone\.blocks\.(\d)\.(?:block\d+-)?(\d+)\.(?:_module\.)?(.+)", name):
        stage, block, rest = int(match[1]) + 1, match[2], match[3]
        rest = re.sub(r"^bn\.", "bn3.", rest)
        if inner := re.fullmatch(r"convolutional_block\.([013467])\.(.+)", rest):
            place = int(inner[1])
            rest = f"{'conv' if place % 3 == 0 else 'bn'}{place // 3 + 1}.{inner[2]}"
        return f"backbone.layer{stage}.{block}.{rest}"
    return name
