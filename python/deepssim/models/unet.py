"""The U-Net of a latent diffusion model: noisy latents and their timestep to the noise in them.

The network is MONAI's ``DiffusionModelUNet``: Rombach et al. 2022 (High-Resolution Image Synthesis with Latent
Diffusion Models, section 3.2), conditions by cross-attention (section 3.3).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from monai.networks.nets.diffusion_model_unet import DiffusionModelUNet
from torch import Tensor, nn

__all__ = ["Unet"]


class Unet(nn.Module):
    """A denoiser of latents.

    The arguments but the last two are the fields of `deepssim.generative.config.UnetConfig`; the defaults are the
    published ones.

    Args:
        channels: Of each level, from the latent down; each level but the last halves height and width.
        res_blocks: Residual blocks of a level.
        attention_levels: Levels with attention.
        head_channels: Channels of an attention head at each level; unused where there is no attention.
        norm_groups: Groups of the group norms; divides all channels.
        norm_eps: Added to their variances.
        resblock_updown: Whether residual blocks change the size, rather than pooling and convolutions.
        upcast_attention: Whether attention is computed in 32 bits in mixed precision.
        transformer_layers: Of each level with attention, where there is a condition.
        latent_channels: Of the VAE.
        context_dim: Elements of a condition; None: the network takes none.

    Attributes:
        network: MONAI's network; its weights are those of a published checkpoint.
        context_dim: As given.
        scale_factor: What latents of the VAE are multiplied by before they are noised; travels with the weights.

    Example:
        >>> unet = Unet(channels=(8, 16), attention_levels=(False, True), head_channels=(0, 8), norm_groups=4,
        ...             context_dim=6)
        >>> noise = unet(torch.zeros(2, 3, 8, 4), torch.tensor([999, 3]), torch.zeros(2, 1, 6))
        >>> tuple(noise.shape), float(unet.scale_factor)
        ((2, 3, 8, 4), 1.0)
    """

    scale_factor: Tensor

    def __init__(
        self,
        channels: Sequence[int] = (256, 512, 768),
        res_blocks: int = 2,
        attention_levels: Sequence[bool] = (False, True, True),
        head_channels: Sequence[int] = (0, 512, 768),
        norm_groups: int = 32,
        norm_eps: float = 1e-6,
        resblock_updown: bool = True,
        upcast_attention: bool = True,
        transformer_layers: int = 1,
        latent_channels: int = 3,
        context_dim: int | None = None,
    ) -> None:
        super().__init__()
        self.context_dim = context_dim
        self.network = DiffusionModelUNet(
            spatial_dims=2,
            in_channels=latent_channels,
            out_channels=latent_channels,
            num_res_blocks=res_blocks,
            channels=tuple(channels),
            attention_levels=tuple(attention_levels),
            norm_num_groups=norm_groups,
            norm_eps=norm_eps,
            resblock_updown=resblock_updown,
            num_head_channels=tuple(head_channels),
            with_conditioning=context_dim is not None,
            transformer_num_layers=transformer_layers,
            cross_attention_dim=context_dim,
            upcast_attention=upcast_attention,
        )
        self.register_buffer("scale_factor", torch.tensor(1.0))

    def forward(self, latents: Tensor, timesteps: Tensor, context: Tensor | None = None) -> Tensor:
        """Return the noise in latents.

        Args:
            latents: ``(n, latent_channels, height, width)``, noisy; both sides divide by 2 for each level but one.
            timesteps: ``(n,)`` whole numbers, 0 is the least noise.
            context: Conditions ``(n, 1, context_dim)``; a dropped one is the zero vector. None for a network without.

        Returns:
            As the latents.

        Raises:
            ValueError: A condition is missing, or the network takes none.
        """
        if (context is None) != (self.context_dim is None):
            wanted = f"wants a condition of {self.context_dim} elements" if context is None else "takes none"
            raise ValueError(f"a condition: the network {wanted}")
        noise: Tensor = self.network(latents, timesteps, context=context)
        return noise
