"""A latent diffusion model in a few lines of NumPy: quick, and each image its own."""

from __future__ import annotations

from typing import Any

import numpy as np

from deepssim.generative.config import DiffusionConfig
from deepssim.generative.data.conditions import ConditionSpec
from deepssim.generative.sampling.sampler import Backend, ModelFacts
from deepssim.generative.shapes import LatentShapes


def make_backend(*, batch: int = 4, dim: int = 0, is_guidable: bool = False, fingerprint: str = "f" * 64) -> Backend:
    """Return a model of images of 8 x 6 pixels, whose latents are 3 x 4 x 3 and padded to 3 x 4 x 4."""
    weights = np.random.default_rng(1).standard_normal((3, 3)).astype(np.float32)

    def denoise(latents: Any, timestep: int, context: Any) -> Any:
        assert latents.shape == (batch, 3, 4, 4)
        assert (context is None) == (dim == 0)
        shift = 0 if context is None else context.sum(axis=(1, 2))[:, None, None, None]
        mixed = np.einsum("ij,njhw->nihw", weights, latents)
        return np.tanh(mixed + np.float32(timestep / 1000) + shift).astype(np.float32)

    def decode(latents: Any) -> Any:
        assert latents.shape == (batch, 3, 4, 3)
        return (0.5 + 0.2 * latents.mean(axis=1).repeat(2, axis=1).repeat(2, axis=2)).astype(np.float32)

    conditions = ConditionSpec("text", dim) if dim else ConditionSpec()
    shapes = LatentShapes((8, 6), (3, 4, 3), (3, 4, 4))
    facts = ModelFacts(shapes, 1.0, DiffusionConfig(), conditions, "v" * 64, fingerprint, is_guidable)
    return Backend(denoise, decode, facts, "torch", batch)
