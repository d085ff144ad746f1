"""What the VAE is taught, and how well it gives images back."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from deepssim.train.generative.adversary import Adversary
from deepssim.train.generative.batches import Batch

__all__ = ["VaeObjective", "VaeValidation", "blur", "kl_divergence", "reconstruct"]

# More make looks slower than training, and the error hardly surer.
_MOST_SEEN = 256


def kl_divergence(mean: Tensor, sigma: Tensor) -> Tensor:
    """Return the Kullback-Leibler divergence of latents from a standard normal: a sum a latent, and their mean.

    Args:
        mean: ``(n, channels, height, width)``.
        sigma: Standard deviations, likewise.

    Example:
        >>> float(kl_divergence(torch.full((2, 1, 1, 2), 3.0), torch.ones(2, 1, 1, 2)))
        9.0
    """
    return 0.5 * (mean.square() + sigma.square() - 2 * sigma.log() - 1).sum((1, 2, 3)).mean()


@dataclass(frozen=True, slots=True, eq=False)
class VaeObjective:
    """A `deepssim.train.loop.Objective`: L1 + KL + perceptual + adversarial (Rombach et al. 2022, section 3.1).

    Attributes:
        kl_weight: Of `kl_divergence`.
        perceptual: Distance of reconstructions from images, which stays as it is; None: there is none.
        perceptual_weight: Of it.
        adversary: Judges reconstructions; None: there is none.
        mirrored: Axis along which half of the images are mirrored, each with its own draw; None: none are.
    """

    kl_weight: float
    perceptual: nn.Module | None = None
    perceptual_weight: float = 0.0
    adversary: Adversary | None = None
    mirrored: int | None = None

    def loss(
        self, network: nn.Module, batch: Batch, draws: torch.Generator, device: torch.device
    ) -> tuple[Tensor, dict[str, float]]:
        """Return the loss of a batch, and its terms before they are weighted; see `Objective`."""
        images = batch.images
        if self.mirrored is not None:
            is_mirrored = torch.rand(len(images), generator=draws) < 0.5
            images = torch.where(is_mirrored[:, None, None, None], images.flip(self.mirrored), images)
        images = images.to(device)
        # Whatever the network works in, the loss is in 32 bits.
        reconstruction, mean, sigma = (tensor.float() for tensor in network(images, draws))
        terms = {"l1": functional.l1_loss(reconstruction, images), "kl": kl_divergence(mean, sigma)}
        loss = terms["l1"] + self.kl_weight * terms["kl"]
        if self.perceptual is not None:
            terms["perceptual"] = self.perceptual.to(device)(reconstruction, images)
            loss = loss + self.perceptual_weight * terms["perceptual"]
        if self.adversary is not None and self.adversary.is_warm(batch):
            terms["adversarial"] = self.adversary.judge(reconstruction, images)
            loss = loss + self.adversary.weight * terms["adversarial"]
        return loss, {"loss": float(loss.detach()), **{name: float(term.detach()) for name, term in terms.items()}}


def reconstruct(network: nn.Module, images: Tensor, device: torch.device, batch_size: int = 16) -> Tensor:
    """Return what a VAE makes of images by the means of their latents, on the CPU.

    Args:
        network: A `deepssim.models.vae.Vae`; in evaluation mode meanwhile.
        images: ``(n, 1, height, width)`` in [0, 1].
        device: Where the network is.
        batch_size: Images at a time.

    Returns:
        ``(n, 1, height, width)`` float32, not clipped.
    """
    encode: Callable[[Tensor], tuple[Tensor, Tensor]] = network.encode  # type: ignore[assignment]
    decode: Callable[[Tensor], Tensor] = network.decode  # type: ignore[assignment]
    was_training = network.training
    network.eval()
    try:
        with torch.no_grad():
            made = [decode(encode(part.to(device))[0]).float().cpu() for part in torch.split(images, batch_size)]
    finally:
        network.train(was_training)
    return torch.cat(made)


def blur(images: Tensor, n_numbers: int) -> Tensor:
    """Return images after they were as few numbers as a latent: averaged to so many pixels and widened again.

    A VAE that does no better than this does not earn its latents.

    Args:
        images: ``(n, 1, height, width)``.
        n_numbers: Of a latent: channels x rows x columns. Both sides of the image shrink by the same factor; the
            averages are over areas, the way back is bilinear.

    Example:
        >>> blur(torch.tensor([[[[0.0, 1.0], [0.0, 1.0]]]]), 1).flatten().tolist()
        [0.5, 0.5, 0.5, 0.5]
    """
    height, width = images.shape[-2:]
    rows = min(height, max(1, round(height * math.sqrt(n_numbers / (height * width)))))
    columns = min(width, max(1, n_numbers // rows))
    small = functional.adaptive_avg_pool2d(images, (rows, columns))
    return functional.interpolate(small, (height, width), mode="bilinear", align_corners=False)


class VaeValidation:
    """A `deepssim.train.loop.Validation`: how far reconstructions of unseen images are from them.

    Args:
        images: ``(n, height, width)`` float32 in [0, 1]; of more than 256, as many spread over all.
        n_numbers: Of a latent; see `blur`.
        batch_size: Images at a time.

    Attributes:
        images: ``(n, 1, height, width)`` those that are looked at.
        blurred: L1 and PSNR of `blur`, by the names of the figures.
    """

    def __init__(self, images: NDArray[np.float32], n_numbers: int, batch_size: int) -> None:
        chosen = np.linspace(0, len(images) - 1, min(_MOST_SEEN, len(images))).astype(int)
        self.images = torch.from_numpy(images[chosen])[:, None]
        self._batch_size = batch_size
        self.blurred = _errors("blur", self.images, blur(self.images, n_numbers))

    def measure(self, network: nn.Module, device: torch.device) -> dict[str, float]:
        """Return L1, which selects, and PSNR of the reconstructions, beside those of a blur of the same size."""
        figures = _errors("valid", self.images, reconstruct(network, self.images, device, self._batch_size))
        return {**figures, **self.blurred, "selection": figures["valid_l1"]}


def _errors(name: str, images: Tensor, made: Tensor) -> dict[str, float]:
    """Return the mean absolute error, and the mean over images of the peak signal-to-noise ratio in dB (peak 1)."""
    difference = (made - images).double()
    squares = difference.square().mean((1, 2, 3)).clamp(min=1e-12)
    return {f"{name}_l1": float(difference.abs().mean()), f"{name}_psnr": float((-10 * squares.log10()).mean())}
