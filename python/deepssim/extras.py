"""Optional packages: imported where they are needed, named where they are missing."""

from __future__ import annotations

import importlib
from typing import Any

from deepssim.errors import MissingDependencyError

# Import names that are not the package's.
_PACKAGES = {"open_clip": "open-clip-torch", "sklearn": "scikit-learn", "umap": "umap-learn"}
# What training and export need, all of the extra ``train``.
_TRAINING = ("torch", "torchvision", "accelerate", "safetensors", "onnxscript")
# And VAEs and U-Nets; MONAI can be imported without einops, and fails when it builds attention.
_GENERATIVE = ("einops", "monai")


def require_training() -> None:
    """Import what training and export need.

    Raises:
        MissingDependencyError: Something is not installed.
    """
    for module in _TRAINING:
        require(module, "train")


def require_generative() -> None:
    """Import what VAEs and U-Nets need, which takes some seconds.

    Raises:
        MissingDependencyError: Something is not installed.
    """
    require_training()
    for module in _GENERATIVE:
        require(module, "train")


def require(module: str, extra: str) -> Any:
    """Import an optional module.

    Args:
        module: Its import name, for example ``"onnxruntime"``.
        extra: The extra of this package that brings it, for example ``"cpu"``.

    Raises:
        MissingDependencyError: It is not installed; the message holds the line that installs it.

    Example:
        >>> require("json", "cpu").dumps([1])
        '[1]'
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        root = module.partition(".")[0]
        raise MissingDependencyError(
            f"{root} cannot be imported ({error}); install it with: pip install {_PACKAGES.get(root, root)} "
            f"(the extra {extra} of deepssim has it)"
        ) from error
