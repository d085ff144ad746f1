"""How far features of two images are apart: the perceptual term of the VAE's loss, from a network that stays as it is.

Both kinds compare as LPIPS does (Zhang et al., The unreasonable effectiveness of deep features as a perceptual metric,
CVPR 2018): the features of a place become a vector of unit norm, and the squared differences are averaged over places.

- `EncoderFeatures`: the stem and the stages of one of the package's encoders, which learnt what a copy is on images of
  the same kind. Nothing has to be downloaded. All channels count the same.
- `Lpips`: the published term, from files of weights that the user has: SqueezeNet 1.1 of torchvision, and the weights
  of channels that Zhang et al. taught it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from deepssim.errors import MetricError, UsageError
from deepssim.extras import require
from deepssim.images.text import some
from deepssim.metric import installed_metrics
from deepssim.models.lite import Lite

__all__ = ["ENCODERS", "LEAST_LPIPS_SIDE", "EncoderFeatures", "Lpips", "load_lpips", "perceptual_of"]

ENCODERS = ("brain", "chest")
# Below such a norm a place has no features, only what is left of them.
_LEAST_NORM = 1e-3
# Ends of the slices of SqueezeNet 1.1, and channels there.
_SLICES = ((0, 2, 64), (2, 5, 128), (5, 8, 256), (8, 10, 384), (10, 11, 384), (11, 12, 512), (12, 13, 512))
# Of ImageNet, for values from -1 to 1; the published training gives it values from 0 to 1 all the same.
_SHIFT, _SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
# What lpips calls a layer of SqueezeNet: the slice is in its name.
_SLICED = re.compile(r"net\.slice\d+\.(\d+\..+)")
LEAST_LPIPS_SIDE = 17


def _distance(first: Tensor, second: Tensor, weights: Tensor | None, least: float) -> Tensor:
    """Return the mean over images and places of the squared difference of unit features, weighted by channel."""
    units: list[Tensor] = [f / (torch.linalg.vector_norm(f, dim=1, keepdim=True) + least) for f in (first, second)]
    squared = (units[0] - units[1]).square()
    weighted: Tensor = squared if weights is None else squared * weights
    return weighted.sum(1).mean()


class EncoderFeatures(nn.Module):
    """Distance between features of an encoder of the package.

    Both images are brought to mean 0 and standard deviation 1 by the mean and the deviation of the true one, as the
    encoder expects, so that a wrong contrast is a difference too.

    Args:
        encoder: With its weights; put into evaluation mode and frozen.
    """

    def __init__(self, encoder: Lite) -> None:
        super().__init__()
        self.layers = nn.ModuleList([encoder.stem, *encoder.stages])
        self.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> EncoderFeatures:
        """Stay in evaluation mode: what else is in a batch must not matter."""
        return super().train(False)

    def forward(self, made: Tensor, true: Tensor) -> Tensor:
        """Return the mean over stages of the distance of images ``(n, 1, height, width)``, 0 or more."""
        mean, deviation = true.mean((1, 2, 3), keepdim=True), true.std((1, 2, 3), keepdim=True, correction=0)
        deviation = torch.where(deviation > 0, deviation, torch.ones_like(deviation))
        first, second = (made - mean) / deviation, (true - mean) / deviation
        distances = []
        for layer in self.layers:
            first, second = layer(first), layer(second)
            distances.append(_distance(first, second, None, _LEAST_NORM))
        return torch.stack(distances).mean()


class Lpips(nn.Module):
    """LPIPS with SqueezeNet, with random weights until some are loaded; frozen and in evaluation mode.

    Raises:
        MissingDependencyError: torchvision is not installed.
    """

    def __init__(self) -> None:
        super().__init__()
        torchvision = require("torchvision", "train")
        features = torchvision.models.squeezenet1_1(weights=None).features
        self.features: Any = features
        self.channels = nn.ParameterList(nn.Parameter(torch.zeros(1, n, 1, 1)) for _, _, n in _SLICES)
        self.register_buffer("shift", torch.tensor(_SHIFT)[None, :, None, None], persistent=False)
        self.register_buffer("scale", torch.tensor(_SCALE)[None, :, None, None], persistent=False)
        self.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> Lpips:
        """Stay in evaluation mode."""
        return super().train(False)

    def forward(self, made: Tensor, true: Tensor) -> Tensor:
        """Return the mean distance of images ``(n, 1, height, width)`` in [0, 1]."""
        shift, scale = self.shift, self.scale
        assert isinstance(shift, Tensor)
        assert isinstance(scale, Tensor)
        first, second = (made - shift) / scale, (true - shift) / scale
        total = torch.zeros((), device=made.device)
        for (begin, end, _), weights in zip(_SLICES, self.channels, strict=True):
            for layer in self.features[begin:end]:
                first, second = layer(first), layer(second)
            total = total + _distance(first, second, weights, 1e-10)
        return total


def load_lpips(files: Sequence[Path]) -> Lpips:
    """Read LPIPS with SqueezeNet from files of weights that together have all of it.

    Args:
        files: ``squeezenet1_1-*.pth`` of torchvision and ``squeeze.pth`` of lpips; or one state dict of
            ``lpips.LPIPS(net="squeeze")``.

    Raises:
        MetricError: A file cannot be read, or weights are missing or of another shape; all of them are counted.
    """
    state: dict[str, Tensor] = {}
    for file in files:
        state |= {_own_name(name): value for name, value in _read_state(file).items()}
    network = Lpips()
    expected = network.state_dict()
    faults = [
        f"{_their_name(name)} ({'missing' if name not in state else f'of {tuple(state[name].shape)}'})"
        for name, value in expected.items()
        if name not in state or state[name].shape != value.shape
    ]
    if faults:
        raise MetricError(
            f"{some([str(file) for file in files], 3)} do not make up LPIPS with SqueezeNet: {len(faults)} of its "
            f"{len(expected)} weights are missing or of another shape, {some(faults, 3)}; give squeezenet1_1-*.pth of "
            "torchvision and squeeze.pth of lpips, one --perceptual-weights each"
        )
    network.load_state_dict({name: state[name] for name in expected})
    return network


def _own_name(name: str) -> str:
    """Return what a weight is called here."""
    if match := _SLICED.fullmatch(name):
        return f"features.{match[1]}"
    match = re.fullmatch(r"lin(\d)\.model\.1\.weight", name)
    return f"channels.{match[1]}" if match else name


def _their_name(name: str) -> str:
    """Return what a weight is called in the files that are asked for."""
    kind, _, rest = name.partition(".")
    return f"lin{rest}.model.1.weight" if kind == "channels" else name


def _read_state(file: Path) -> dict[str, Tensor]:
    try:
        state = torch.load(file, map_location="cpu", weights_only=True)
    except OSError as error:
        raise MetricError(f"{file} cannot be read as weights: {error.strerror or error}") from error
    except Exception as error:  # torch raises types of its own, with advice to execute what is in the file
        raise MetricError(f"{file} holds no weights that can be read without executing it") from error
    if not isinstance(state, dict):
        raise MetricError(f"{file} holds no weights by name: give a state dict")
    return {str(name): value for name, value in state.items() if isinstance(value, Tensor)}


def _load_encoder(name: str) -> Lite:
    """Read the features of an encoder out of its graph, where each norm is part of the convolution before it."""
    onnx = require("onnx", "cpu")
    graph = onnx.load_from_string((resources.files("deepssim") / "metrics" / f"{name}.onnx").read_bytes()).graph
    found = {item.name.removesuffix(".half"): item for item in graph.initializer}
    encoder = Lite()
    with torch.no_grad():
        for place, module in encoder.named_modules():
            if not isinstance(module, nn.Conv2d):
                continue
            parent, _, last = place.rpartition(".")
            norm = encoder.get_submodule(f"{parent}.{int(last) + 1}")
            assert isinstance(norm, nn.BatchNorm2d)
            assert norm.running_var is not None
            weight, bias = (
                torch.from_numpy(onnx.numpy_helper.to_array(found[f"{place}.{what}"]).astype("float32"))
                for what in ("weight", "weight_bias")
            )
            module.weight.copy_(weight)
            norm.bias.copy_(bias)
            norm.weight.copy_((norm.running_var + norm.eps).sqrt())  # so that it adds the bias and does no more
    return encoder


def perceptual_of(name: str) -> EncoderFeatures:
    """Return the features of an encoder that comes with the package.

    Args:
        name: One of `ENCODERS`.

    Raises:
        UsageError: There is none of this name.
        MissingDependencyError: onnx is not installed.

    Example:
        >>> true = torch.rand(1, 1, 32, 32)
        >>> distance = perceptual_of("brain")
        >>> float(distance(true, true)), bool(distance(true.flip(3), true) > 0)
        (0.0, True)
    """
    if name not in ENCODERS or name not in installed_metrics():
        raise UsageError(f"there are no features of an encoder {name!r}: name one of {', '.join(ENCODERS)}, or none")
    return EncoderFeatures(_load_encoder(name))
