"""Batches of images that lie in memory, in a new order each epoch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["Batch", "Batches"]


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Some images.

    Attributes:
        images: ``(n, 1, height, width)`` float32 in [0, 1].
        number: Of the batch, from 0 at the start of the training.
    """

    images: Tensor
    number: int


@dataclass(frozen=True, slots=True, eq=False)
class Batches:
    """A `deepssim.train.loop.Source`: every image once an epoch; the last batch of one has what is left.

    Attributes:
        images: ``(n, height, width)`` float32 in [0, 1].
        batch_size: Images of a batch.
        seed: Of the order; another one for each process.
        n_batches: In all.

    Example:
        >>> made = Batches(np.zeros((5, 4, 4), np.float32), batch_size=2, seed=0, n_batches=4)
        >>> [(batch.number, len(batch.images)) for batch in made.steps(1)]
        [(1, 2), (2, 1), (3, 2)]
    """

    images: NDArray[np.float32]
    batch_size: int
    seed: int
    n_batches: int

    @property
    def epoch_batches(self) -> int:
        """Batches of an epoch."""
        return -(-len(self.images) // self.batch_size)

    def steps(self, first: int) -> Iterator[Batch]:
        """Yield the batches from one on."""
        for number in range(first, self.n_batches):
            epoch, place = divmod(number, self.epoch_batches)
            order = np.random.default_rng([self.seed, epoch]).permutation(len(self.images))
            chosen = order[place * self.batch_size :][: self.batch_size]
            yield Batch(torch.from_numpy(self.images[chosen])[:, None], number)
