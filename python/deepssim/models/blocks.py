"""What encoders are put together from."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["GeM", "MinMax", "ZScore", "unit_rows"]

# Of an embedding before it is normalised: below this there is no direction.
_LEAST_NORM = 1e-12


class ZScore(nn.Module):
    """Grey values less their mean over their standard deviation, of each image; a constant image becomes zero."""

    def forward(self, images: Tensor) -> Tensor:
        """Normalise images ``(n, 1, height, width)``; the standard deviation is the population's."""
        # By the range first: the squares of 16-bit values or of CT numbers would lose what differs.
        low, high = images.amin((1, 2, 3), keepdim=True), images.amax((1, 2, 3), keepdim=True)
        unit = (images - low) / torch.where(high > low, high - low, torch.ones_like(high))
        centred = unit - unit.mean((1, 2, 3), keepdim=True)
        deviation = centred.square().mean((1, 2, 3), keepdim=True).sqrt()
        return centred / torch.where(deviation > 0, deviation, torch.ones_like(deviation))


class MinMax(nn.Module):
    """Grey values less their minimum over their range, of each image; a constant image becomes zero."""

    def forward(self, images: Tensor) -> Tensor:
        """Scale images ``(n, 1, height, width)`` to [0, 1]."""
        low, high = images.amin((1, 2, 3), keepdim=True), images.amax((1, 2, 3), keepdim=True)
        return (images - low) / torch.where(high > low, high - low, torch.ones_like(high))


class GeM(nn.Module):
    """Generalised mean over space (Radenovic et al., Fine-tuning CNN image retrieval with no human annotation, 2018).

    Args:
        power: What it starts from; learned.
        least: Floor of the features, since a power of negative numbers is none.
    """

    def __init__(self, power: float = 3.0, least: float = 1e-6) -> None:
        super().__init__()
        self.p = nn.Parameter(torch.tensor([power]))
        self.least = least

    def forward(self, features: Tensor) -> Tensor:
        """Pool ``(n, channels, height, width)`` to ``(n, channels)``."""
        return features.clamp(min=self.least).pow(self.p).mean((2, 3)).pow(1.0 / self.p)


def unit_rows(rows: Tensor) -> Tensor:
    """Scale rows to unit norm; a row of zeros stays."""
    return functional.normalize(rows, dim=1, eps=_LEAST_NORM)
