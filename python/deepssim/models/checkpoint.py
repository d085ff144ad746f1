"""Checkpoints of encoders: weights in safetensors, and what has to be built around them.

A file of tensors executes nothing when it is read. Its metadata entry ``deepssim.encoder`` (JSON) names the
architecture, its arguments and the size of the images that it was trained on.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from deepssim.disk import replacing
from deepssim.errors import MetricError

__all__ = ["ARCHITECTURES", "Description", "build_encoder", "load_encoder", "load_weights", "save_encoder"]

METADATA_KEY = "deepssim.encoder"
# Name -> module and class, imported when one is built. Arguments are keyword arguments of the class.
ARCHITECTURES = {
    "convnext-base": ("deepssim.models.convnext", "ConvNextBase"),
    "convnext-tiny-gem": ("deepssim.models.convnext", "ConvNextTinyGeM"),
    "lite": ("deepssim.models.lite", "Lite"),
}


@dataclass(frozen=True, slots=True)
class Description:
    """What an encoder is, apart from its weights.

    Attributes:
        architecture: One of `ARCHITECTURES`.
        arguments: Of its class, for example ``{"dim": 256}``.
        height: Rows of the images that it was trained on.
        width: Their columns.
        name: Short name of the metric that it makes.
        training: How it was trained: whatever a reader should know, JSON.
    """

    architecture: str
    arguments: dict[str, Any]
    height: int
    width: int
    name: str = "encoder"
    training: dict[str, Any] = field(default_factory=dict)


def build_encoder(description: Description) -> nn.Module:
    """Build an encoder with fresh weights.

    Raises:
        MetricError: The architecture or an argument is unknown.
    """
    if description.architecture not in ARCHITECTURES:
        raise MetricError(
            f"unknown architecture {description.architecture!r}; known: {', '.join(sorted(ARCHITECTURES))}"
        )
    module, name = ARCHITECTURES[description.architecture]
    try:
        encoder = getattr(importlib.import_module(module), name)(**description.arguments)
    except (TypeError, ValueError) as error:
        raise MetricError(f"{description.architecture} cannot be built: {error}") from error
    assert isinstance(encoder, nn.Module)
    return encoder


def save_encoder(path: Path, state: Mapping[str, Tensor], description: Description) -> None:
    """Write weights and description, atomically."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    data = save(tensors, {METADATA_KEY: json.dumps(asdict(description), sort_keys=True)})
    with replacing(path) as temporary:
        temporary.write_bytes(data)


def load_encoder(path: Path) -> tuple[nn.Module, Description]:
    """Read an encoder, in evaluation mode on the CPU.

    Raises:
        MetricError: The file is no checkpoint of an encoder, or weights are missing, superfluous or of another shape.
    """
    try:
        with safe_open(path, framework="pt") as file:
            described = (file.metadata() or {}).get(METADATA_KEY)
            if described is None:
                raise MetricError(f"{path} is no checkpoint of an encoder: the entry {METADATA_KEY} is missing")
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # no mapping
        description = Description(**json.loads(described))
    except (OSError, SafetensorError, ValueError, TypeError) as error:
        raise MetricError(f"{path} cannot be read as a checkpoint of an encoder: {error}") from error
    encoder = build_encoder(description)
    load_weights(encoder, state, path, description.architecture)
    return encoder.eval(), description


def load_weights(network: nn.Module, state: Mapping[str, Tensor], source: Path | str, what: str) -> None:
    """Load weights into a network: all that it has, and no others.

    Args:
        network: What to load them into.
        state: Weights by name.
        source: Where they come from, for the error.
        what: Name of the network, for the error.

    Raises:
        MetricError: A weight is missing, superfluous or of another shape; the message names the first.
    """
    expected = network.state_dict()
    faults = {
        "missing": [name for name in expected if name not in state],
        "superfluous": [name for name in state if name not in expected],
        "of another shape": [n for n, t in expected.items() if n in state and state[n].shape != t.shape],
    }
    for fault, names in faults.items():
        if names:
            raise MetricError(
                f"{source} does not fit {what}: {len(names)} of its weights are {fault}, the first is {names[0]}"
            )
    network.load_state_dict(dict(state))
