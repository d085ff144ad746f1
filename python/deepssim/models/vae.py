"""The variational autoencoder of a latent diffusion model: grey images to latents and back.

The network is MONAI's ``AutoencoderKL`` without non-local attention, as Rombach et al. 2022 (High-Resolution Image
Synthesis with Latent Diffusion Models, section 3.1) describe it; each level but the last halves height and width.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from monai.networks.nets.autoencoderkl import AutoencoderKL
from torch import Tensor, nn

__all__ = ["Vae"]


class Vae(nn.Module):
    """A variational autoencoder of grey images.

    The arguments are the fields of `deepssim.generative.config.VaeConfig`; the defaults are the published ones.

    Args:
        latent_channels: Of a latent.
        channels: Of each level, from the image to the latent.
        res_blocks: Residual blocks of a level.
        norm_groups: Groups of the group norms; divides all channels.
        norm_eps: Added to their variances.
        attention_levels: Levels with self-attention.

    Attributes:
        network: MONAI's network; its weights are those of a published checkpoint.

    Example:
        >>> vae = Vae(channels=(8, 16), norm_groups=4, attention_levels=(False, False))
        >>> mean, sigma = vae.encode(torch.zeros(2, 1, 12, 8))
        >>> tuple(mean.shape), tuple(vae.decode(mean).shape)
        ((2, 3, 6, 4), (2, 1, 12, 8))
    """

    def __init__(
        self,
        latent_channels: int = 3,
        channels: Sequence[int] = (64, 128, 128),
        res_blocks: int = 2,
        norm_groups: int = 32,
        norm_eps: float = 1e-6,
        attention_levels: Sequence[bool] = (False, False, False),
    ) -> None:
        super().__init__()
        self.network = AutoencoderKL(
            spatial_dims=2,
            in_channels=1,
            out_channels=1,
            latent_channels=latent_channels,
            channels=tuple(channels),
            num_res_blocks=res_blocks,
            norm_num_groups=norm_groups,
            norm_eps=norm_eps,
            attention_levels=tuple(attention_levels),
            with_encoder_nonlocal_attn=False,
            with_decoder_nonlocal_attn=False,
        )

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and standard deviation of the latents.

        Args:
            images: ``(n, 1, height, width)`` in [0, 1]; both sides divide by the factor of the levels.

        Returns:
            Two of ``(n, latent_channels, height / factor, width / factor)``.
        """
        mean, sigma = self.network.encode(images)
        return mean, sigma

    def decode(self, latents: Tensor) -> Tensor:
        """Return the images ``(n, 1, height, width)`` of latents; what lies outside [0, 1] is not clipped."""
        images: Tensor = self.network.decode(latents)
        return images

    def forward(self, images: Tensor, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Encode, draw a latent and decode it.

        Args:
            images: ``(n, 1, height, width)`` in [0, 1].
            generator: What the latent is drawn with; None: PyTorch's own.

        Returns:
            The reconstruction ``(n, 1, height, width)``, mean and standard deviation of the latents.
        """
        mean, sigma = self.encode(images)
        device = generator.device if generator is not None else mean.device
        noise = torch.randn(mean.shape, generator=generator, device=device, dtype=mean.dtype).to(mean.device)
        return self.decode(mean + sigma * noise), mean, sigma
