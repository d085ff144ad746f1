"""The objective of encoders: that the cosine of two embeddings is the similarity of the two images."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from deepssim.train.augment import Augmentation, augment
from deepssim.train.loss import contrast, cosine_error

__all__ = ["Batch", "SimilarityObjective"]


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Images and pairs among them.

    Attributes:
        images: ``(n, 1, height, width)`` float32 in [0, 1].
        left: ``(p,)`` places of the first images of pairs.
        right: Of the second.
        target: ``(p,)`` similarity of the pairs.
        people: ``(n,)`` where images come in groups whose copies are to find each other, else None.
        group_size: Images of a group.
        n_copies: Copies of one image, the first of a group.
    """

    images: Tensor
    left: Tensor
    right: Tensor
    target: Tensor
    people: Tensor | None = None
    group_size: int = 0
    n_copies: int = 0


@dataclass(frozen=True, slots=True)
class SimilarityObjective:
    """A `deepssim.train.loop.Objective` of images in views.

    Attributes:
        augmentation: How training images are seen.
        even_bins: See `cosine_error`.
        contrast: Weight of `contrast`.
        temperature: Of it.
    """

    augmentation: Augmentation
    even_bins: bool = False
    contrast: float = 0.0
    temperature: float = 0.05

    def loss(
        self, network: nn.Module, batch: Batch, draws: torch.Generator, device: torch.device
    ) -> tuple[Tensor, dict[str, float]]:
        """Return the loss of a batch, and its parts as numbers; see `Objective`."""
        images = augment(batch.images.to(device), self.augmentation, draws)
        embeddings = network(images)
        cosine = (embeddings[batch.left.to(device)] * embeddings[batch.right.to(device)]).sum(1)
        error = cosine_error(cosine, batch.target.to(device), even_bins=self.even_bins)
        parts = {"loss": float(error.detach())}
        if not self.contrast or batch.people is None:
            return error, parts
        apart = contrast(embeddings, batch.people.to(device), batch.group_size, batch.n_copies, self.temperature)
        return error + self.contrast * apart, {**parts, "contrast": float(apart.detach())}
