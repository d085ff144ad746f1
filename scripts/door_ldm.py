"""What the doors of latent diffusion models share: state dicts that say which way round their images were.

A state dict has names and weights alone, and an autoencoder of square images does not show whether rows and columns
were exchanged. Ours carry a note where PyTorch keeps versions of modules, which no reader of weights minds.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = ["first_size", "is_transposed", "save_state_dict"]

PREFIX = "network."  # around the weights of MONAI's networks
NOTE = "deepssim"


def save_state_dict(weights: Mapping[str, Any], path: Path, *, transpose: bool) -> None:
    """Write the weights of MONAI's network as a state dict by its own names.

    Args:
        weights: Of ours around it; what does not belong to MONAI's is left out.
        path: The file; it appears when it is whole.
        transpose: Whether it saw images with rows and columns exchanged.
    """
    import torch

    from deepssim.disk import replacing

    state = OrderedDict((name.removeprefix(PREFIX), t) for name, t in weights.items() if name.startswith(PREFIX))
    state._metadata = OrderedDict({"": {"version": 1}, NOTE: {"transpose": transpose}})  # type: ignore[attr-defined]
    with replacing(path) as temporary:
        torch.save(state, temporary)


def is_transposed(path: Path) -> bool | None:
    """Return whether a network saw images with rows and columns exchanged; None where its file does not say it.

    What is wrong with the file is left to the command, which says it better.
    """
    told = _of_safetensors(path) if path.suffix == ".safetensors" else _of_state_dict(path)
    return told if isinstance(told, bool) else None


def _of_safetensors(path: Path) -> Any:
    try:
        with path.open("rb") as file:
            header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        return json.loads(next(iter(header["__metadata__"].values())))["training"]["transpose"]
    except (OSError, ValueError, KeyError, TypeError, StopIteration, MemoryError, OverflowError):
        return None


def _of_state_dict(path: Path) -> Any:
    import torch

    try:
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)  # weights are not read
        return state._metadata[NOTE]["transpose"]
    except Exception:  # torch raises types of its own
        return None


def first_size(dataset: Path) -> tuple[int, int] | None:
    """Return rows and columns of the first training image, which all have there; None where it cannot be read."""
    from deepssim.errors import DeepSSIMError
    from deepssim.generative.data.records import load_images, read_dataset

    try:
        rows, columns = load_images(read_dataset(dataset, with_splits=False).split("train")[:1]).shape[1:]
    except DeepSSIMError:
        return None
    return rows, columns
