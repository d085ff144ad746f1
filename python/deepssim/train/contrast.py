"""Contrastive training on real images: each has to find a view of itself (Dar et al., arXiv 2402.01054)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from deepssim.models.dar import centred_rows
from deepssim.train.anchors import Anchors
from deepssim.train.augment import Augmentation, augment
from deepssim.train.loss import nt_xent
from deepssim.train.nearest import nearest_threshold
from deepssim.train.validation import embed, ranks

__all__ = ["ContrastObjective", "ContrastValidation", "ImageSource"]

# More make looks slower than training, and the search hardly harder.
_MOST_SEEN, _MOST_OTHERS = 1_000, 4_000


@dataclass(frozen=True, slots=True, eq=False)
class ImageSource:
    """A `deepssim.train.loop.Source` of images, in a new order each epoch.

    An epoch leaves out what does not fill a batch: other images each time.

    Attributes:
        images: ``(n, height, width)`` uint8.
        batch_size: Images of a batch; of fewer images than that, all.
        seed: Of the order; another one for each process.
        n_steps: Batches in all.
    """

    images: NDArray[np.uint8]
    batch_size: int
    seed: int
    n_steps: int

    @property
    def epoch_steps(self) -> int:
        """Batches of an epoch."""
        return max(1, len(self.images) // self.batch_size)

    def steps(self, first: int) -> Iterator[Tensor]:
        """Yield the batches from a step on, ``(n, 1, height, width)`` float32 in [0, 1]."""
        for number in range(first, self.n_steps):
            epoch, step = divmod(number, self.epoch_steps)
            order = np.random.default_rng([self.seed, epoch]).permutation(len(self.images))
            chosen = np.sort(order[step * self.batch_size :][: self.batch_size])
            yield torch.from_numpy(self.images[chosen]).float().div_(255)[:, None]


@dataclass(frozen=True, slots=True)
class ContrastObjective:
    """A `deepssim.train.loop.Objective`: images and one view of each, all others are to be told apart.

    Attributes:
        augmentation: How the views are seen.
        temperature: Of `nt_xent`.
    """

    augmentation: Augmentation
    temperature: float

    def loss(
        self, network: nn.Module, batch: Tensor, draws: torch.Generator, device: torch.device
    ) -> tuple[Tensor, dict[str, float]]:
        """Return the loss of a batch, and its parts as numbers; see `Objective`."""
        images = batch.to(device)
        both = torch.cat([images, augment(images, self.augmentation, draws)])
        both = both.contiguous(memory_format=torch.channels_last)
        first, second = network(both, is_centred=False).chunk(2)
        loss = nt_xent(first, second, self.temperature)
        return loss, {"loss": float(loss.detach())}


@dataclass(frozen=True, slots=True, eq=False)
class ContrastValidation:
    """A `deepssim.train.loop.Validation`: do images of people who are not trained on find a view of themselves?

    Attributes:
        images: ``(v, 1, height, width)`` uint8, as all images here.
        seen: ``(v, 1, height, width)`` a view of each.
        others: ``(o, 1, height, width)`` images that are searched beside them.
        batches: Places of the images in batches as large as those of the training, which the loss depends on.
        temperature: Of the loss.
    """

    images: Tensor
    seen: Tensor
    others: Tensor
    batches: list[NDArray[np.int64]]
    temperature: float

    @classmethod
    def of(
        cls, selecting: Anchors, training: Anchors, augmentation: Augmentation, batch_size: int, temperature: float,
        *, seed: int = 0,
    ) -> ContrastValidation:  # fmt: skip
        """Make the set.

        Args:
            selecting: Images of people who are not trained on; of more than 1,000, as many spread over all.
            training: Others, which are searched too; of more than 4,000, likewise.
            augmentation: How views are seen.
            batch_size: Images of a batch.
            temperature: Of the loss.
            seed: Of the views.
        """
        images, others = (
            torch.from_numpy(anchors.images[np.linspace(0, len(anchors) - 1, min(most, len(anchors))).astype(int)])
            for anchors, most in ((selecting, _MOST_SEEN), (training, _MOST_OTHERS))
        )
        images, others = images[:, None], others[:, None]
        draws = torch.Generator()
        draws.manual_seed(seed)
        seen = augment(images.float().div(255), augmentation, draws).mul(255).round().to(torch.uint8)
        order = np.random.default_rng([seed, 21]).permutation(len(images))
        batches = np.array_split(order, max(1, round(len(images) / batch_size)))
        return cls(images, seen, others, batches, temperature)

    def measure(self, network: nn.Module, device: torch.device) -> dict[str, float]:
        """Return the loss, which selects, how often a view finds its source among the k nearest, and the threshold."""
        raw = [
            torch.from_numpy(embed(network, images, device, is_centred=False))
            for images in (self.images, self.seen, self.others)
        ]
        losses = [float(nt_xent(raw[0][rows], raw[1][rows], self.temperature)) for rows in self.batches]
        images, seen, others = (centred_rows(rows).numpy() for rows in raw)
        scores = seen @ np.concatenate([images, others]).T
        rank = ranks(scores, scores[np.arange(len(seen)), np.arange(len(seen))])
        figures = {f"source_in_{k}": float(np.mean(rank < k)) for k in (1, 4, 8)}
        loss = float(np.average(losses, weights=[len(rows) for rows in self.batches]))
        # Of weights that diverged there is none, and the search takes no such rows.
        is_finite = bool(np.isfinite(others).all() and np.isfinite(images).all())
        threshold = nearest_threshold(others, images)[1].value if is_finite else float("nan")
        return {"valid_loss": loss, **figures, "threshold": threshold, "selection": loss}

    def copies(self, network: nn.Module, device: torch.device) -> NDArray[np.float64]:
        """Return the correlation of each image with its view."""
        images, seen = (embed(network, images, device).astype(np.float64) for images in (self.images, self.seen))
        return np.asarray((images * seen).sum(axis=1))
