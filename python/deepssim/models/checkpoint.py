"""Checkpoints of networks: weights in safetensors, and what has to be built around them.

A file of tensors executes nothing when it is read. Its metadata entry (JSON) names the architecture, its arguments and
the size of the images that it was trained on: ``deepssim.encoder`` in a file of an encoder, ``deepssim.network`` in one
of a part of a generative model.
"""

from __future__ import annotations

import hashlib
import importlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from deepssim.disk import replacing
from deepssim.errors import MetricError, UsageError

__all__ = [
    "ARCHITECTURES",
    "MAX_DIM",
    "METADATA_KEY",
    "NETWORK_KEY",
    "Description",
    "architecture_of",
    "build_network",
    "file_sha256",
    "load_encoder",
    "load_network",
    "load_weights",
    "rebuild_network",
    "save_network",
]

METADATA_KEY = "deepssim.encoder"
NETWORK_KEY = "deepssim.network"
# Name -> module and class, imported when one is built. Arguments are keyword arguments of the class.
ARCHITECTURES = {
    "convnext-base": ("deepssim.models.convnext", "ConvNextBase"),
    "convnext-tiny-gem": ("deepssim.models.convnext", "ConvNextTinyGeM"),
    "dar": ("deepssim.models.dar", "Dar"),
    "lite": ("deepssim.models.lite", "Lite"),
    "sscd": ("deepssim.models.sscd", "Sscd"),
    "unet": ("deepssim.models.unet", "Unet"),
    "vae": ("deepssim.models.vae", "Vae"),
}
# Parts of a generative model: what each is, and which commands take it.
GENERATIVE = {
    "unet": ("the U-Net of a latent diffusion model", "deepssim generate --diffusion FILE"),
    "vae": ("a variational autoencoder", "deepssim train ldm --vae FILE or deepssim generate --vae FILE"),
}

# Elements of an embedding that the search takes.
MAX_DIM = 65_536
# Rows or columns: a batch of such images is embedded when an encoder is exported.
MAX_SIDE = 4096


@dataclass(frozen=True, slots=True)
class Description:
    """What a network is, apart from its weights.

    Attributes:
        architecture: One of `ARCHITECTURES`.
        arguments: Of its class, for example ``{"dim": 256}``.
        height: Rows of the images that it was trained on.
        width: Their columns.
        name: Short name, of the metric that an encoder makes.
        training: How it was trained: whatever a reader should know, JSON.
        similarity: Of two embeddings: one of `deepssim.metric.SIMILARITIES`.
        intensity: What its graph does to grey values, in a word.
        resize: How images of another size are brought to this one: one of `deepssim.input_rule.RESIZES`.
        grey: What is done to grey values before that: one of `deepssim.input_rule.GREYS`.

    Raises:
        ValueError: A field is of another type, or no size of an image.
    """

    architecture: str
    arguments: dict[str, Any]
    height: int
    width: int
    name: str = "encoder"
    training: dict[str, Any] = field(default_factory=dict)
    similarity: str = "cosine"
    intensity: str = "z-score"
    resize: str = "area"
    grey: str = "raw"

    def __post_init__(self) -> None:
        """Check the fields, since they may come from somebody's file."""
        for key, kind, words in (
            ("architecture", str, "a name"), ("arguments", dict, "a table"), ("name", str, "a name"),
            ("training", dict, "a table"), ("similarity", str, "a name"), ("intensity", str, "a name"),
            ("resize", str, "a name"), ("grey", str, "a name"),
        ):  # fmt: skip
            if not isinstance(getattr(self, key), kind):
                raise ValueError(f"its {key} is {_shown(getattr(self, key))}, not {words}")
        for key in ("height", "width"):
            side = getattr(self, key)
            if type(side) is not int or not 1 <= side <= MAX_SIDE:
                raise ValueError(f"its {key} is {_shown(side)}, not a whole number of 1 to {MAX_SIDE:,} pixels")
        dim = self.arguments.get("dim", 1)
        if type(dim) is not int or not 1 <= dim <= MAX_DIM:
            raise ValueError(f"its dim is {_shown(dim)}, not a whole number of 1 to {MAX_DIM:,} elements")


def build_network(description: Description) -> nn.Module:
    """Build a network with fresh weights.

    Raises:
        MetricError: The architecture or an argument is unknown, or an argument cannot be.
    """
    if description.architecture not in ARCHITECTURES:
        raise MetricError(
            f"unknown architecture {description.architecture!r}; known: {', '.join(sorted(ARCHITECTURES))}"
        )
    module, name = ARCHITECTURES[description.architecture]
    try:
        network = getattr(importlib.import_module(module), name)(**description.arguments)
    except Exception as error:  # layers raise whatever they please at arguments that cannot be
        reason = (str(error) or type(error).__name__).splitlines()[0][:200]
        raise MetricError(f"{description.architecture} cannot be built: {reason}") from error
    assert isinstance(network, nn.Module)
    return network


def save_network(path: Path, state: Mapping[str, Tensor], description: Description) -> None:
    """Write weights and description, atomically."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    key = NETWORK_KEY if description.architecture in GENERATIVE else METADATA_KEY
    data = save(tensors, {key: json.dumps(asdict(description), sort_keys=True)})
    with replacing(path) as temporary:
        temporary.write_bytes(data)


def load_encoder(path: Path) -> tuple[nn.Module, Description]:
    """Read an encoder, in evaluation mode on the CPU.

    Raises:
        MetricError: The file is no checkpoint of an encoder (a part of a generative model: the message says which
            commands take it), or weights are missing, superfluous or of another shape.
    """
    state, description = _read(path)
    if description.architecture in GENERATIVE:
        what, command = GENERATIVE[description.architecture]
        raise MetricError(f"{path} is {what}, and no encoder: {command} takes it")
    return rebuild_network(description, state, path, description.architecture), description


def load_network(path: Path) -> tuple[nn.Module, Description]:
    """Read any network, in evaluation mode on the CPU.

    Raises:
        MetricError: The file is no checkpoint of a network, or weights are missing, superfluous or of another shape.
    """
    state, description = _read(path)
    return rebuild_network(description, state, path, description.architecture), description


def architecture_of(path: Path) -> str | None:
    """Return the name of a checkpoint's architecture, without its weights; None: the file is no checkpoint."""
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
        described = json.loads(metadata.get(METADATA_KEY) or metadata.get(NETWORK_KEY) or "{}")
    except (OSError, SafetensorError, ValueError, RecursionError):
        return None
    found = described.get("architecture") if isinstance(described, dict) else None
    return found if isinstance(found, str) else None


def _read(path: Path) -> tuple[dict[str, Tensor], Description]:
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            described = metadata.get(METADATA_KEY) or metadata.get(NETWORK_KEY)
            if described is None:
                raise MetricError(f"{path} is no checkpoint of deepssim train: the entry {METADATA_KEY} is missing")
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # no mapping
        return state, Description(**json.loads(described))
    except (OSError, SafetensorError, ValueError, TypeError, RecursionError) as error:
        raise MetricError(f"{path} cannot be read as a checkpoint: {str(error)[:300]}") from error


def rebuild_network(description: Description, state: Mapping[str, Tensor], source: Path | str, what: str) -> nn.Module:
    """Build a network around weights, in evaluation mode on the CPU.

    Args:
        description: What it is.
        state: All of its weights by name.
        source: Where they come from, for the error.
        what: Name of the network, for the error.

    Raises:
        MetricError: It cannot be built, or weights are missing, superfluous or of another shape.
    """
    # Shapes first, without memory: a small file may describe a network of any size.
    with torch.device("meta"):
        network = build_network(description)
    _check_weights(network, state, source, what)
    network.to_empty(device="cpu")
    network.load_state_dict(dict(state))
    return network.eval()


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}..."


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file, hexadecimal.

    Raises:
        UsageError: It cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror or error}") from error


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
    _check_weights(network, state, source, what)
    network.load_state_dict(dict(state))


def _check_weights(network: nn.Module, state: Mapping[str, Tensor], source: Path | str, what: str) -> None:
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
