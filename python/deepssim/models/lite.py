"""The small encoder: a residual network for one kind of image that a CPU can train."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from deepssim.models.blocks import GeM, ZScore, unit_rows

__all__ = ["Lite"]

# Channels of a stage and blocks of one, which may come from somebody's file: many more than would help.
_MOST_CHANNELS = 8192
_MOST_BLOCKS = 64


class _Residual(nn.Module):
    """Two 3 x 3 convolutions and a skip connection (He et al., Deep residual learning, CVPR 2016)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = _convolution(channels, channels)
        norm = nn.BatchNorm2d(channels)
        nn.init.zeros_(norm.weight)  # begins as the identity
        self.second = nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1, bias=False), norm)

    def forward(self, features: Tensor) -> Tensor:
        return torch.relu(features + self.second(self.first(features)))


def _convolution(channels_in: int, channels_out: int, size: int = 3, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, size, stride, padding=size // 2, bias=False),
        nn.BatchNorm2d(channels_out),
        nn.ReLU(inplace=True),
    )


class Lite(nn.Module):
    """Stem, stages of a strided convolution and residual blocks, GeM of every stage, a small head.

    Pooling over the whole image lets a turned or shifted copy keep its embedding, and the four scales keep what is
    small beside what is large. For images of about 128 pixels a side: the stem quarters them in one step, which shows
    it noise and blur at the price of a network for half the size.

    Args:
        dim: Elements of an embedding.
        widths: Channels of the stem and of each stage.
        depths: Residual blocks of each stage.
        hidden: Width of the head's hidden layer.
        dropout: Before the last layer.
        stem: Size and stride of the first convolution.

    Raises:
        ValueError: Widths and depths do not go together, or are no widths and depths.
    """

    def __init__(
        self,
        dim: int = 256,
        widths: tuple[int, ...] = (24, 32, 64, 128, 256),
        depths: tuple[int, ...] = (1, 1, 1, 1),
        hidden: int = 384,
        dropout: float = 0.0,
        stem: tuple[int, int] = (7, 4),
    ) -> None:
        super().__init__()
        if len(widths) != len(depths) + 1:
            raise ValueError(f"{len(depths)} depths need {len(depths) + 1} widths, not {len(widths)}")
        for name, values, least, most in (("widths", widths, 1, _MOST_CHANNELS), ("depths", depths, 0, _MOST_BLOCKS)):
            if not 1 <= len(values) <= _MOST_BLOCKS or not all(least <= value <= most for value in values):
                raise ValueError(f"{name} are up to {_MOST_BLOCKS} whole numbers from {least} to {most:,}")
        self.intensity = ZScore()
        self.stem = _convolution(1, widths[0], *stem)
        self.stages = nn.ModuleList(
            nn.Sequential(_convolution(before, width, 3, 2), *(_Residual(width) for _ in range(depth)))
            for before, width, depth in zip(widths, widths[1:], depths, strict=False)
        )
        self.pools = nn.ModuleList(GeM() for _ in depths)
        total = sum(widths[1:])
        self.head = nn.Sequential(
            nn.LayerNorm(total), nn.Linear(total, hidden), nn.GELU(), nn.Dropout(dropout), nn.Linear(hidden, dim)
        )

    def forward(self, images: Tensor) -> Tensor:
        """Embed raw grey images ``(n, 1, height, width)``; returns ``(n, dim)`` of unit norm."""
        features = self.stem(self.intensity(images))
        pooled = []
        for stage, pool in zip(self.stages, self.pools, strict=True):
            features = stage(features)
            pooled.append(pool(features))
        return unit_rows(self.head(torch.cat(pooled, 1)))
