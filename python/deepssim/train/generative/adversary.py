"""The adversary of the VAE: a discriminator of patches that learns beside it (Isola et al. 2017; Mao et al. 2017).

Least squares as MONAI's ``PatchAdversarialLoss`` has them: scores pass a leaky rectifier first. The judgement of a
reconstruction teaches the VAE alone. In the public code of arXiv 2509.16582 its gradient also stays in the weights of
the discriminator, which then learns to call reconstructions two thirds real; that is not followed.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional

from deepssim.generative.config import DiscriminatorConfig
from deepssim.models.discriminator import Discriminator
from deepssim.train.generative.batches import Batch

__all__ = ["Adversary", "least_squares"]

# Of MONAI's PatchAdversarialLoss.
_SLOPE = 0.05


def least_squares(scores: Tensor, *, is_real: bool) -> Tensor:
    """Return how far scores of patches are from 1 for real ones, from 0 for others: the mean square.

    Args:
        scores: Of a discriminator, of any shape.
        is_real: What they are wished to be.

    Example:
        >>> float(least_squares(torch.tensor([1.0, 0.0]), is_real=True))
        0.5
    """
    return (functional.leaky_relu(scores, _SLOPE) - float(is_real)).square().mean()


class Adversary:
    """A `deepssim.train.loop.Companion` that tells images from reconstructions.

    Args:
        config: Size of the discriminator.
        weight: Of its judgement in the loss of the VAE, and of its own loss, as published.
        learning_rate: Its own.
        warm_up: Batches before it judges and learns.
        seed: Of its first weights; the same on every process.
    """

    def __init__(
        self, config: DiscriminatorConfig, weight: float, learning_rate: float, warm_up: int = 0, seed: int = 0
    ) -> None:
        with torch.random.fork_rng([]):
            torch.manual_seed(seed)
            self._network = Discriminator(**config.as_dict())
        self.weight, self._learning_rate, self._warm_up = weight, learning_rate, warm_up
        self._judged: tuple[Tensor, Tensor] | None = None

    @property
    def network(self) -> nn.Module:
        """See `Companion`."""
        return self._network

    @property
    def learning_rate(self) -> float:
        """See `Companion`."""
        return self._learning_rate

    def is_warm(self, batch: Batch) -> bool:
        """Whether the judgement of a batch counts."""
        return batch.number >= self._warm_up

    def judge(self, reconstruction: Tensor, images: Tensor) -> Tensor:
        """Return how far reconstructions are from passing as real, and keep both to learn from.

        The gradient reaches the reconstructions and not the discriminator.

        Args:
            reconstruction: ``(n, 1, height, width)``.
            images: What they are of, likewise.
        """
        self._judged = reconstruction.detach(), images
        with _frozen(self._network):
            return least_squares(self._network(reconstruction), is_real=True)

    def loss(self, batch: Batch, device: torch.device) -> tuple[Tensor, dict[str, float]] | None:
        """Return how far it is from telling apart what was judged last; see `Companion`."""
        if not self.is_warm(batch) or self._judged is None:
            return None
        (reconstruction, images), self._judged = self._judged, None
        # One after the other: its batch norms would take one mean over both.
        made = least_squares(self._network(reconstruction), is_real=False)
        real = least_squares(self._network(images), is_real=True)
        loss = 0.5 * (made + real)
        return self.weight * loss, {"discriminator": float(loss.detach())}


@contextmanager
def _frozen(network: nn.Module) -> Iterator[None]:
    network.requires_grad_(False)
    try:
        yield
    finally:
        network.requires_grad_(True)
