"""Weights that somebody else trained: a file of them, or torchvision's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from deepssim.errors import UsageError
from deepssim.models.archive import is_archive, read_archive

__all__ = ["download_weights", "read_weights"]


def download_weights(weights: Any) -> dict[str, Tensor]:
    """Return weights of torchvision's, downloaded where they are not in its cache.

    Args:
        weights: A member of one of its enumerations, such as ``ResNet50_Weights.IMAGENET1K_V1``.

    Raises:
        UsageError: They cannot be downloaded.
    """
    try:
        state = weights.get_state_dict(progress=False, check_hash=True)
    except Exception as error:  # the downloader raises types of its own
        raise UsageError(
            f"the ImageNet weights cannot be downloaded ({error}): give a file of them with --weights PATH "
            f"({weights.url}), or --weights none to start from nothing"
        ) from error
    assert isinstance(state, dict)
    return state


def read_weights(path: Path, wanted: str = "torchvision's weights, a .pth or .safetensors file") -> dict[str, Tensor]:
    """Read a state dict without executing anything in its file.

    Args:
        path: ``.safetensors``, or what ``torch.save`` or ``torch.jit.save`` wrote.
        wanted: What to give instead, for the error.

    Raises:
        MetricError: It is a TorchScript archive, and a damaged one.
        UsageError: It cannot be read, or is no state dict.
    """
    try:
        path.open("rb").close()  # torch meets a file that was cut short with an OSError too
    except OSError as error:
        raise UsageError(f"{path} cannot be read as weights: {error.strerror or 'it cannot be opened'}") from error
    if is_archive(path):
        return read_archive(path)
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # both readers raise types of their own
        # Without their words: torch's advise to let the file execute what it holds.
        raise UsageError(
            f"{path} cannot be read as weights: it is damaged, or holds something else than tensors; give {wanted}"
        ) from error
    if not isinstance(state, dict) or not all(isinstance(name, str) for name in state):
        raise UsageError(f"{path} holds no state dict: give {wanted}")
    return state
