"""How much noise there is at each step of a diffusion, and the steps of DDIM sampling back to none.

The arithmetic is here once, in NumPy, for every backend: what denoises, PyTorch or ONNX Runtime, predicts noise alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from deepssim.errors import UsageError

if TYPE_CHECKING:
    from deepssim.generative.config import DiffusionConfig

__all__ = ["DdimStep", "alphas_cumprod", "ddim_steps"]


@dataclass(frozen=True, slots=True)
class DdimStep:
    """One step of sampling: ``z <- keep * z + add * noise``, noise as predicted at `timestep`.

    Attributes:
        timestep: Of the training schedule, from 0; what the network is told.
        keep: Factor of the latents, float32.
        add: Factor of the predicted noise, float32.
    """

    timestep: int
    keep: np.float32
    add: np.float32


def alphas_cumprod(config: DiffusionConfig) -> NDArray[np.float64]:
    """Return what is left of the signal's variance after each step of the forward process.

    Beta goes from `beta_start` to `beta_end` in equal steps (``"linear"``), or its root does (``"scaled_linear"``,
    Rombach et al., High-Resolution Image Synthesis with Latent Diffusion Models, CVPR 2022).

    Args:
        config: Steps, schedule and the two ends of beta.

    Returns:
        ``(steps,)``: the products of ``1 - beta`` up to each step (Ho et al., Denoising Diffusion Probabilistic Models,
        NeurIPS 2020, section 2), falling from almost 1 to almost 0.

    Raises:
        UsageError: The schedule is unknown.

    Example:
        >>> from types import SimpleNamespace
        >>> config = SimpleNamespace(steps=1000, schedule="scaled_linear", beta_start=0.0015, beta_end=0.0205)
        >>> left = alphas_cumprod(config)
        >>> left.shape, round(float(left[0]), 4), round(float(left[-1]), 4)
        ((1000,), 0.9985, 0.0001)
    """
    if config.schedule == "scaled_linear":
        betas = np.linspace(config.beta_start**0.5, config.beta_end**0.5, config.steps) ** 2
    elif config.schedule == "linear":
        betas = np.linspace(config.beta_start, config.beta_end, config.steps)
    else:
        raise UsageError(f"the noise schedule {config.schedule!r} is unknown: scaled_linear or linear")
    return np.asarray(np.cumprod(1.0 - betas), np.float64)


def ddim_steps(config: DiffusionConfig, n_steps: int) -> tuple[DdimStep, ...]:
    """Return the steps of deterministic DDIM sampling, from the noisiest to the image.

    Song et al., Denoising Diffusion Implicit Models, ICLR 2021, equation 12 with eta 0, for a network that predicts
    noise: with ``a`` the variance left at a step and ``a'`` that of the step before it in time,
    ``z' = sqrt(a') (z - sqrt(1 - a) noise) / sqrt(a) + sqrt(1 - a') noise``. Steps are ``T // n`` apart and end at
    0; before the first step of training all signal is left, ``a' = 1``; nothing is clipped. Networks of the published
    case study were sampled so.

    Args:
        config: Of the training.
        n_steps: Steps of sampling, 1 to ``config.steps``.

    Raises:
        UsageError: There are no so many steps.

    Example:
        >>> from types import SimpleNamespace
        >>> config = SimpleNamespace(steps=1000, schedule="scaled_linear", beta_start=0.0015, beta_end=0.0205)
        >>> [step.timestep for step in ddim_steps(config, 4)]
        [750, 500, 250, 0]
    """
    if not 1 <= n_steps <= config.steps:
        raise UsageError(
            f"{n_steps:,} sampling steps are asked for, and the model was trained with {config.steps:,}: "
            f"give 1 to {config.steps:,}"
        )
    left = alphas_cumprod(config)
    stride = config.steps // n_steps
    steps = []
    for timestep in range((n_steps - 1) * stride, -1, -stride):
        now = left[timestep]
        then = left[timestep - stride] if timestep >= stride else 1.0
        keep = np.sqrt(then / now)
        add = np.sqrt(1.0 - then) - keep * np.sqrt(1.0 - now)
        steps.append(DdimStep(timestep, np.float32(keep), np.float32(add)))
    return tuple(steps)
