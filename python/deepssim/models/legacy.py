"""Weights of the older monai-generative package (0.2), whose networks moved into MONAI and changed names on the way.

MONAI's own method renames them. What it lets pass is refused here: weights that it finds no place for, and places that
it finds no weights for, which would stay random.

It also gets one thing wrong. The older self-attention (of a VAE, and of a U-Net without conditions) has a projection
``proj_attn`` that is saved but never applied; MONAI's has one that is, and its method copies the random numbers of the
one into the other. They become the identity here, so that the network answers as it did.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from deepssim.errors import MetricError

__all__ = ["is_legacy", "load_legacy"]


def is_legacy(network: nn.Module, state: Mapping[str, Tensor]) -> bool:
    """Return whether some weights have names that a network of MONAI's does not know, and the older one may.

    Args:
        network: MONAI's, also without memory.
        state: Weights by name.
    """
    return not set(state) <= set(network.state_dict())


def load_legacy(network: nn.Module, state: Mapping[str, Tensor], source: Path | str, what: str) -> None:
    """Load weights of a network of monai-generative into the same one of MONAI.

    Args:
        network: MONAI's ``AutoencoderKL`` or ``DiffusionModelUNet``, with memory for its weights.
        state: Weights by their old names; left as they are.
        source: Where they come from, for the error.
        what: Name of the network, for the error.

    Raises:
        MetricError: A weight is missing, superfluous or of another shape; the message names the first.
    """
    left, n_given, n_wanted = _without_projections(state), len(state), len(network.state_dict())
    try:
        # It would tell on standard output, which may carry images.
        with contextlib.redirect_stdout(io.StringIO()):
            network.load_old_state_dict(left)  # type: ignore[operator]  # takes out what it has placed
    except KeyError as error:
        raise MetricError(f"{source} does not fit {what}: the weight {error.args[0]} is missing") from error
    except RuntimeError as error:
        # A title, and a line for each weight.
        told = str(error).splitlines()
        reason = (told[1] if len(told) > 1 else told[0]).strip().rstrip(". ")
        raise MetricError(f"{source} does not fit {what}: {reason[:300]}") from error
    if left:
        raise MetricError(
            f"{source} does not fit {what}: {len(left)} of its weights are superfluous, the first is {next(iter(left))}"
        )
    if n_given != n_wanted:
        raise MetricError(f"{source} does not fit {what}: it has {n_given} weights, not {n_wanted}")


def _without_projections(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a copy in which the projections that were never applied change nothing."""
    copy = dict(state)
    for name, weight in state.items():
        if name.endswith("proj_attn.weight") and weight.ndim == 2:
            copy[name] = torch.eye(*weight.shape, dtype=weight.dtype)
        elif name.endswith("proj_attn.bias"):
            copy[name] = torch.zeros_like(weight)
    return copy
