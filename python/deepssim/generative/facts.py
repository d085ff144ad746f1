"""What is known of a latent diffusion model apart from its weights, whatever its networks come from.

Checkpoints and ONNX files say the same of a part: its arguments, the hash of its weights, how it was trained. Two
parts make a model if they belong together, and that is judged here alone.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from deepssim.errors import MetricError, UsageError
from deepssim.generative.config import DiffusionConfig, UnetConfig, VaeConfig
from deepssim.generative.data.conditions import ConditionSpec
from deepssim.generative.sampling.sampler import ModelFacts
from deepssim.generative.shapes import LatentShapes

__all__ = ["TRAINING_KEYS", "Part", "model_facts", "model_fingerprint"]

TRAINING_KEYS = ("conditions", "diffusion", "drop_condition", "image", "transpose", "vae_hash")
"""Of a U-Net's training: what sampling has to know."""

# Digits of a hash that are shown.
_SHOWN = 12


@dataclass(frozen=True, slots=True)
class Part:
    """A VAE or a U-Net.

    Attributes:
        source: Where it comes from, for messages.
        arguments: Of its class: the fields of `VaeConfig`, or of `UnetConfig` and ``latent_channels`` and
            ``context_dim``.
        hash: SHA-256 of its weights.
        image: Rows and columns of the images that it was trained on.
        training: Of a U-Net: `TRAINING_KEYS`; what is missing is as published.
        scale_factor: Of a U-Net: what latents are multiplied by.
    """

    source: str
    arguments: Mapping[str, Any]
    hash: str
    image: tuple[int, int]
    training: Mapping[str, Any] = field(default_factory=dict)
    scale_factor: float = 1.0

    def as_dict(self) -> dict[str, Any]:
        """Return all but the source as JSON has it."""
        return {
            "arguments": dict(self.arguments),
            "hash": self.hash,
            "image": list(self.image),
            "training": {key: self.training[key] for key in TRAINING_KEYS if key in self.training},
            "scale_factor": self.scale_factor,
        }

    @classmethod
    def from_dict(cls, value: Mapping[str, Any], source: str) -> Self:
        """Read what `as_dict` returned.

        Raises:
            MetricError: It is something else.
        """
        try:
            rows, columns = (int(side) for side in value["image"])
            return cls(
                source, dict(value["arguments"]), str(value["hash"]), (rows, columns), dict(value["training"]),
                float(value["scale_factor"]),
            )  # fmt: skip
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise MetricError(f"{source} says of itself what cannot be read: {error}") from error


def model_fingerprint(vae_hash: str, unet_hash: str) -> str:
    """Return the SHA-256 of both networks, from those of their weights.

    Example:
        >>> model_fingerprint("ab", "cd") == model_fingerprint("cd", "ab")
        False
    """
    return hashlib.sha256(f"{vae_hash}:{unet_hash}".encode()).hexdigest()


def model_facts(vae: Part, unet: Part) -> ModelFacts:
    """Return what a sampler has to know of a model of two parts.

    Args:
        vae: The autoencoder.
        unet: The denoiser.

    Raises:
        MetricError: They do not belong together, or one of them says of itself what cannot be.

    Example:
        >>> vae = Part("vae.pth", VaeConfig().as_dict(), "ab", (136, 112))
        >>> facts = model_facts(vae, Part("unet.pth", UnetConfig().as_dict(), "cd", (136, 112)))
        >>> facts.shapes.padded, facts.conditions.kind
        ((3, 36, 28), 'none')
    """
    trained = unet.training
    trained_on = trained.get("vae_hash") or vae.hash
    if trained_on != vae.hash:
        raise MetricError(
            f"{unet.source} was trained on latents of another VAE than {vae.source} (its weights have the SHA-256 "
            f"{str(trained_on)[:_SHOWN]}..., these {vae.hash[:_SHOWN]}...): give the VAE of its training"
        )
    vae_channels, unet_channels = (part.arguments.get("latent_channels", 3) for part in (vae, unet))
    if vae_channels != unet_channels:
        raise MetricError(
            f"{unet.source} takes latents of {unet_channels} channels, and those of {vae.source} have {vae_channels}: "
            "give the VAE of its training"
        )
    try:
        vae_config = VaeConfig(**vae.arguments)
        unet_config = UnetConfig(**{k: v for k, v in unet.arguments.items() if k not in _OF_THE_MODEL})
        image = tuple(int(side) for side in trained.get("image") or unet.image)
        shapes = LatentShapes.of((image[0], image[1]), vae_config, unet_config.divisor)
        diffusion = DiffusionConfig(**trained.get("diffusion", {}))
        dropped = float(trained.get("drop_condition") or 0.0)
        conditions = ConditionSpec.from_dict(trained["conditions"]) if trained.get("conditions") else ConditionSpec()
    except (IndexError, TypeError, ValueError, OverflowError, UsageError, MetricError) as error:
        raise MetricError(f"{unet.source} and {vae.source} say of themselves what cannot be: {error}") from error
    if not (math.isfinite(unet.scale_factor) and unet.scale_factor > 0):
        raise MetricError(
            f"{unet.source} scales latents by {unet.scale_factor}, which cannot be: its weights are damaged"
        )
    takes = unet.arguments.get("context_dim") or 0
    if conditions.dim != takes:
        raise MetricError(
            f"{unet.source} takes a condition of {takes} elements, and says of its training that it had "
            f"{conditions.dim}: the file was changed"
        )
    return ModelFacts(
        shapes=shapes, scale_factor=unet.scale_factor, diffusion=diffusion, conditions=conditions, vae_hash=vae.hash,
        fingerprint=model_fingerprint(vae.hash, unet.hash), is_guidable=dropped > 0 and takes > 0,
        is_transposed=trained["transpose"] if isinstance(trained.get("transpose"), bool) else None,
    )  # fmt: skip


# Arguments of the U-Net that its configuration does not name, since they follow from VAE and condition.
_OF_THE_MODEL = ("latent_channels", "context_dim")
