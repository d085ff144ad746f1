"""Reading of VAEs and U-Nets: checkpoints of this package, and state dicts of MONAI or of the older monai-generative.

A checkpoint of this package says what it is. A state dict does not: the configuration says it, what names and shapes of
weights tell is compared with that first, and whatever differs is named with the option that puts it right.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from deepssim.errors import MetricError, UsageError
from deepssim.generative.config import GenerativeConfig, config_names, read_config
from deepssim.generative.data.conditions import PUBLISHED_VARIABLES, ConditionSpec, Variable
from deepssim.generative.facts import Part
from deepssim.models.checkpoint import GENERATIVE, Description, build_network, load_network, load_weights
from deepssim.models.layout import differences, kind_of, plain_names, unet_layout, vae_layout
from deepssim.models.legacy import is_legacy, load_legacy
from deepssim.models.pretrained import read_weights
from deepssim.models.unet import Unet
from deepssim.models.vae import Vae

__all__ = ["PUBLISHED", "Config", "load_generative", "load_unet", "load_vae", "part_of", "weights_hash"]

PUBLISHED = "paper-brain"
"""Configuration of a state dict, where none is named."""

Config = GenerativeConfig | str | None
_WANTED = "a .safetensors of deepssim train, or a .pth of torch.save(network.state_dict(), PATH)"
_WHAT = {"vae": "a VAE", "unet": "a U-Net", "discriminator": "the discriminator of a VAE"}
_CONTEXT_OF_TEXT = 512


def load_vae(path: Path, config: Config = None, *, size: tuple[int, int] | None = None) -> tuple[Vae, Description]:
    """Read a VAE, in evaluation mode on the CPU; nothing in its file is executed.

    Args:
        path: ``.safetensors`` of this package, or what ``torch.save`` wrote of a state dict of MONAI's
            ``AutoencoderKL`` or of monai-generative's.
        config: Of a state dict; None: `PUBLISHED`. A checkpoint of this package has its own.
        size: Rows and columns of the images, of a state dict; None: those of the configuration.

    Returns:
        The VAE and what it is.

    Raises:
        MetricError: The file holds another network, or one of another size than the configuration says.
        UsageError: It cannot be read, or there is no such configuration.

    Example:
        >>> import tempfile
        >>> arguments = {"channels": [8, 16], "norm_groups": 4, "attention_levels": [False, False]}
        >>> config = GenerativeConfig.from_dict({"vae": arguments, "size": [32, 24]}, "mine")
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     torch.save(Vae(**arguments).network.state_dict(), Path(folder) / "vae.pth")
        ...     vae, description = load_vae(Path(folder) / "vae.pth", config)
        >>> description.height, vae.training
        (32, False)
    """
    found, description = _load(path, "vae", config, size, None)
    return cast(Vae, found), description


def load_unet(
    path: Path,
    config: Config = None,
    conditioning: str | None = None,
    context_dim: int | None = None,
    *,
    size: tuple[int, int] | None = None,
) -> tuple[Unet, Description]:
    """Read a U-Net, in evaluation mode on the CPU; nothing in its file is executed.

    Args:
        path: As `load_vae` takes it, of ``DiffusionModelUNet``.
        config: Of a state dict; None: `PUBLISHED`. A checkpoint of this package has its own.
        conditioning: ``"none"``, ``"variables"`` or ``"text"``; None: what the file says, and of a state dict what its
            weights tell: a condition of as many elements as there are published variables is those.
        context_dim: Elements of a condition; None: as the weights tell.
        size: Rows and columns of the images, of a state dict; None: those of the configuration.

    Returns:
        The U-Net and what it is; `training` holds `deepssim.generative.facts.TRAINING_KEYS`, of a state dict without
        the hash of its VAE, which is not known.

    Raises:
        MetricError: The file holds another network, one of another size than the configuration says, or one with
            another condition.
        UsageError: It cannot be read, or there is no such configuration.
    """
    found, description = _load(path, "unet", config, size, (conditioning, context_dim))
    return cast(Unet, found), description


def load_generative(
    path: Path, config: Config = None, conditioning: str | None = None, *, size: tuple[int, int] | None = None
) -> tuple[Vae | Unet, Description]:
    """Read a VAE or a U-Net, whichever it is; see `load_vae` and `load_unet`."""
    found, description = _load(path, None, config, size, (conditioning, None))
    return cast("Vae | Unet", found), description


def weights_hash(state: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of weights: names, types, shapes and bytes, in the order of the names.

    Example:
        >>> weights_hash({"a": torch.zeros(2)}) == weights_hash({"a": torch.zeros(1, 2)})
        False
    """
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        digest.update(f"{name}:{tensor.dtype}:{tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def part_of(network: Vae | Unet, description: Description, source: Path | str) -> Part:
    """Return what `deepssim.generative.facts.model_facts` has to know of a network.

    Args:
        network: From `load_vae` or `load_unet`.
        description: Likewise.
        source: Where it comes from, for messages.

    Example:
        >>> arguments = {"channels": [8, 16], "norm_groups": 4, "attention_levels": [False, False]}
        >>> part = part_of(Vae(**arguments), Description("vae", arguments, 32, 24), "vae.safetensors")
        >>> part.image, len(part.hash)
        ((32, 24), 64)
    """
    return Part(
        source=str(source),
        arguments=description.arguments,
        hash=weights_hash(network.state_dict()),
        image=(description.height, description.width),
        training=description.training,
        scale_factor=float(network.scale_factor) if isinstance(network, Unet) else 1.0,
    )


def _load(
    path: Path, kind: str | None, config: Config, size: tuple[int, int] | None,
    condition: tuple[str | None, int | None] | None,
) -> tuple[nn.Module, Description]:  # fmt: skip
    """Read a network of a kind; None: of either."""
    if path.suffix == ".safetensors":
        return _load_own(path, kind, condition)
    read = read_weights(path, _WANTED)
    for nested in ("state_dict", "model"):
        if isinstance(read.get(nested), dict):
            read = cast("dict[str, Tensor]", read[nested])
    state = plain_names(read)
    is_kind = kind_of(state)
    if is_kind not in GENERATIVE or kind not in (None, is_kind):
        first = next(iter(state), "nothing")
        held = f"{_WHAT[is_kind]}" if is_kind else f"something else (its weights are named {first} and so on)"
        raise MetricError(f"{path} is no {_noun(kind)}: it holds {held}{_taken_by(is_kind)}")
    assert is_kind is not None
    if config is None or isinstance(config, str):
        config = read_config(config or PUBLISHED)
    described = _described(path, is_kind, state, config, size)
    if is_kind == "unet":
        described = _conditioned(described, path, *(condition or (None, None)))
    return _rebuilt(described, state, path), described


def _load_own(
    path: Path, kind: str | None, condition: tuple[str | None, int | None] | None
) -> tuple[nn.Module, Description]:
    network, description = load_network(path)
    if description.architecture not in GENERATIVE:
        raise MetricError(
            f"{path} is no {_noun(kind)}, but an encoder of images ({description.architecture}): deepssim export makes "
            "a metric of it"
        )
    if kind not in (None, description.architecture):
        held = f"{_WHAT[description.architecture]}{_taken_by(description.architecture)}"
        raise MetricError(f"{path} is no {_noun(kind)}: it holds {held}")
    if condition is not None and description.architecture == "unet":
        trained = (description.training.get("conditions") or {}).get("kind", "none")
        dim = description.arguments.get("context_dim")
        if condition[0] not in (None, trained) or condition[1] not in (None, dim):
            raise UsageError(f"{path} was trained with {_condition_words(trained, dim)}: give --conditioning {trained}")
    return network, description


def _described(
    path: Path, kind: str, state: Mapping[str, Tensor], config: GenerativeConfig, size: tuple[int, int] | None
) -> Description:
    """Describe a state dict by a configuration, if its weights do not tell otherwise."""
    found = vae_layout(state) if kind == "vae" else unet_layout(state)
    arguments = config.vae.as_dict() if kind == "vae" else config.unet.as_dict()
    expected = _expected(kind, config)
    if told := differences(found, expected):
        fitting = [name for name in config_names() if not differences(found, _expected(kind, read_config(name)))]
        if fitting:
            raise MetricError(
                f"{path} is {_WHAT[kind]} of another size than the configuration {config.name} says: "
                f"{'; '.join(told)}; give --config {' or '.join(fitting)}, which it fits"
            )
        tables = "[vae] and [unet]" if kind == "unet" else "[vae]"
        untold = "norm_groups and head_channels" if kind == "unet" else "norm_groups"
        untold += ", which weights do not tell"
        raise MetricError(
            f"{path} is {_WHAT[kind]} of another size than the configuration {config.name} says: {'; '.join(told)}; "
            f"write that into a file, {tables} with {untold}, and name it with --config FILE.toml"
        )
    rows, columns = size or config.size or (0, 0)
    if not rows:
        raise UsageError(
            f"neither {path} nor the configuration {config.name} says how large its images are: give --size HxW"
        )
    training: dict[str, Any] = {}
    if kind == "unet":
        arguments = {**expected, "context_dim": found["context_dim"]}
        training = {"diffusion": config.diffusion.as_dict(), "image": [rows, columns], "drop_condition": 0.0}
    try:
        return Description(kind, arguments, rows, columns, name=path.stem, intensity="min-max", training=training)
    except ValueError as error:
        raise UsageError(f"{path} cannot be of images of {rows} x {columns} pixels: {error}") from error


def _expected(kind: str, config: GenerativeConfig) -> dict[str, Any]:
    """Return the arguments of a network that its weights tell, as a configuration has them."""
    if kind == "vae":
        return config.vae.as_dict()
    return {**config.unet.as_dict(), "latent_channels": config.vae.latent_channels}


def _conditioned(described: Description, path: Path, kind: str | None, dim: int | None) -> Description:
    """Add what a state dict is conditioned on, which the user says, or the number of its elements."""
    takes: int | None = described.arguments["context_dim"]
    guess = _kind_of_condition(takes)
    kind = kind or guess
    fits = (kind == "none") == (takes is None) and dim in (None, takes)
    if not fits or (kind == "variables" and takes != len(PUBLISHED_VARIABLES)):
        other = " (or text)" if guess == "variables" else ""
        raise UsageError(f"{path} takes {_condition_words(guess, takes)}: give --conditioning {guess}{other}")
    variables = tuple(Variable(name) for name in PUBLISHED_VARIABLES) if kind == "variables" else ()
    spec = ConditionSpec(kind, takes or 0, variables)
    return replace(described, training={**described.training, "conditions": spec.as_dict()})


def _kind_of_condition(dim: int | None) -> str:
    if dim is None:
        return "none"
    return "variables" if dim == len(PUBLISHED_VARIABLES) else "text"


def _condition_words(kind: str, dim: int | None) -> str:
    if kind == "none":
        return "no condition"
    if kind == "variables":
        return f"a condition of {dim} variables"
    published = ", as published" if dim == _CONTEXT_OF_TEXT else ""
    return f"a condition of {dim} elements{published}"


def _rebuilt(described: Description, state: Mapping[str, Tensor], path: Path) -> nn.Module:
    """Build a network around a state dict, renaming weights where they have older names."""
    with torch.device("meta"):
        network = build_network(described)
    bare = cast(nn.Module, network.network)
    weights = {name: tensor.float() for name, tensor in state.items() if name != "scale_factor"}
    what = f"{_WHAT[described.architecture].removeprefix('a ')} as configured"
    if not is_legacy(bare, weights):
        network.to_empty(device="cpu")
        load_weights(bare, weights, path, what)
    else:
        network.to_empty(device="cpu")
        load_legacy(bare, weights, path, what)
    if described.architecture == "unet":
        network.register_buffer("scale_factor", state.get("scale_factor", torch.tensor(1.0)).float().reshape(()))
    return network.eval()


def _noun(kind: str | None) -> str:
    return {"vae": "VAE", "unet": "U-Net", None: "part of a latent diffusion model"}[kind]


def _taken_by(kind: str | None) -> str:
    return f"; {GENERATIVE[kind][1]} takes it" if kind in GENERATIVE else f"; give {_WANTED}"
