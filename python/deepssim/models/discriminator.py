"""The adversary of the VAE: tells patches of images from patches of reconstructions.

The network is MONAI's ``PatchDiscriminator`` (Isola et al. 2017, Image-to-Image Translation with Conditional
Adversarial Networks, section 3.2.2). It is needed in training alone.
"""

from __future__ import annotations

from monai.networks.nets.patchgan_discriminator import PatchDiscriminator
from torch import Tensor, nn

__all__ = ["Discriminator"]


class Discriminator(nn.Module):
    """A discriminator of patches of grey images.

    The arguments are the fields of `deepssim.generative.config.DiscriminatorConfig`; the defaults are the published
    ones.

    Args:
        channels: Of the first layer; each further one has twice as many.
        layers: Between the first and the last; all but the last of them halve height and width, as the first does.

    Attributes:
        network: MONAI's network, with batch norms: it tells the images of a batch apart from one another in training.

    Example:
        >>> import torch
        >>> tuple(Discriminator(channels=4, layers=2)(torch.zeros(2, 1, 32, 24)).shape)
        (2, 1, 6, 4)
    """

    def __init__(self, channels: int = 32, layers: int = 3) -> None:
        super().__init__()
        self.network = PatchDiscriminator(
            spatial_dims=2, channels=channels, in_channels=1, out_channels=1, num_layers_d=layers
        )

    def forward(self, images: Tensor) -> Tensor:
        """Return how real patches of images ``(n, 1, height, width)`` look: ``(n, 1, rows, columns)``, unbounded."""
        scores: Tensor = self.network(images)[-1]
        return scores
