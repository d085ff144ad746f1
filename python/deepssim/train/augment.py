"""Views and artefacts for whole batches: each image is seen in a way of its own, in one resampling.

The ranges of the published recipes are those of DeepSSIM (arXiv 2509.16582), DeepSSIM++ (arXiv 2609.03615) and the
contrastive network of Dar et al. (arXiv 2402.01054, whose repository Cardio-AI/memorization-ldm says the numbers).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["DAR", "DEEPSSIM", "DEEPSSIM_PLUS", "HARD", "Augmentation", "augment"]

_BIAS_ORDER = 3
_BLUR_RADIUS = 3


@dataclass(frozen=True, slots=True)
class Augmentation:
    """What may happen to an image, each with a probability of its own.

    Attributes:
        flip: Probability of each flip, upside down and left to right.
        upside_down: Of the first of them; None: the same.
        affine: Probability that angle and shift are drawn.
        angle_rad: Largest rotation either way, in radians.
        shift: Largest shift either way, as a part of each side.
        shift_px: The same in pixels at a shorter side of 112; of the two the one that is not zero counts.
        zoom_probability: Of zoom.
        zoom: Smallest and largest magnification.
        gamma_probability: Of gamma.
        gamma: Smallest and largest exponent; log-uniform.
        bias_probability: Of a smooth multiplicative field.
        bias: Its largest deviation.
        blur_or_noise_probability: Of either smoothing or noise, half of the time each.
        blur_px: Largest standard deviation of the smoothing, in pixels.
        noise: Largest standard deviation of the noise, as a part of the range.
        untouched: Probability that an image is left as it is.
    """

    flip: float = 0.0
    upside_down: float | None = None
    affine: float = 0.0
    angle_rad: float = 0.0
    shift: float = 0.0
    shift_px: float = 0.0
    zoom_probability: float = 0.0
    zoom: tuple[float, float] = (1.0, 1.0)
    gamma_probability: float = 0.0
    gamma: tuple[float, float] = (1.0, 1.0)
    bias_probability: float = 0.0
    bias: float = 0.12
    blur_or_noise_probability: float = 0.0
    blur_px: float = 0.9
    noise: float = 0.03
    untouched: float = 0.0


DEEPSSIM = Augmentation(flip=0.33, affine=0.33, angle_rad=0.17, gamma_probability=0.33, gamma=(0.5, 1.5))
DEEPSSIM_PLUS = Augmentation(
    flip=0.25, affine=0.75, angle_rad=0.09, shift_px=4.0, zoom_probability=0.75, zoom=(0.9, 1.05),
    bias_probability=0.5, gamma_probability=0.25, gamma=(0.7, 1.5), blur_or_noise_probability=0.25,
)  # fmt: skip
DAR = Augmentation(flip=0.5, upside_down=0.0, affine=0.5, angle_rad=math.radians(5))
# A little beyond the benchmark's hard condition, so that its edges are inside. No smoothing, noise and bias field: the
# similarity that is learnt counts them. Half of the images are seen as they are, so that a pair that lies in place gets
# its similarity too, and not what is left of it when views are in between.
HARD = Augmentation(
    flip=0.5, affine=0.9, angle_rad=0.6, shift=0.11, zoom_probability=0.9, zoom=(0.88, 1.12),
    gamma_probability=0.8, gamma=(0.5, 1.6), untouched=0.5,
)  # fmt: skip


def augment(images: Tensor, how: Augmentation, generator: torch.Generator) -> Tensor:
    """See every image of a batch in a way of its own.

    Args:
        images: ``(n, 1, height, width)`` float32 in [0, 1].
        how: What may happen.
        generator: Source of every draw, on the CPU whatever device the images are on: the same seed gives the same
            views everywhere.

    Returns:
        New images of the same shape in [0, 1]; zeros come in from outside.
    """
    draws = _Draws(len(images), generator, images.device)
    touched = ~draws.chance(how.untouched)
    out = _moved(images, how, draws, touched)
    if how.bias_probability:
        field = _fields(draws.normal(_BIAS_ORDER * _BIAS_ORDER), images.shape[2], images.shape[3])
        out = out * (1.0 + (how.bias * (draws.chance(how.bias_probability) & touched))[:, None, None, None] * field)
    if how.blur_or_noise_probability:
        out = _blurred_or_noisy(out, how, draws, touched, generator)
    out = out.clamp(0.0, 1.0)
    if how.gamma_probability:
        low, high = (math.log(value) for value in how.gamma)
        gamma = torch.where(draws.chance(how.gamma_probability) & touched, draws.uniform(low, high).exp(), 1.0)
        out = out.pow(gamma[:, None, None, None])
    return out


class _Draws:
    """Numbers for each image of a batch."""

    def __init__(self, n: int, generator: torch.Generator, device: torch.device) -> None:
        self.n, self.generator, self.device = n, generator, device

    def uniform(self, low: float, high: float) -> Tensor:
        return (low + (high - low) * torch.rand(self.n, generator=self.generator)).to(self.device)

    def chance(self, probability: float) -> Tensor:
        return (torch.rand(self.n, generator=self.generator) < probability).to(self.device)

    def normal(self, columns: int) -> Tensor:
        return torch.randn(self.n, columns, generator=self.generator).to(self.device)


def _moved(images: Tensor, how: Augmentation, draws: _Draws, touched: Tensor) -> Tensor:
    n, _, height, width = images.shape
    is_affine = draws.chance(how.affine) & touched
    angle = torch.where(is_affine, draws.uniform(-how.angle_rad, how.angle_rad), 0.0)
    across = how.shift_px / 112.0 * min(height, width)
    down, right = (how.shift * side if how.shift else across for side in (height, width))
    rows = torch.where(is_affine, draws.uniform(-down, down), 0.0)
    columns = torch.where(is_affine, draws.uniform(-right, right), 0.0)
    zoomed = draws.chance(how.zoom_probability) & touched
    zoom = torch.where(zoomed, draws.uniform(*how.zoom), 1.0)
    upside_down = how.flip if how.upside_down is None else how.upside_down
    flip_rows = torch.where(draws.chance(upside_down) & touched, -1.0, 1.0)
    flip_columns = torch.where(draws.chance(how.flip) & touched, -1.0, 1.0)
    # The way back from the view to the image, in pixels about the centre, then in the sampler's units of half a side.
    cosine, sine = angle.cos() / zoom, angle.sin() / zoom
    half_height, half_width = height / 2.0, width / 2.0
    theta = torch.zeros(n, 2, 3, device=images.device)
    theta[:, 0, 0] = flip_columns * cosine
    theta[:, 0, 1] = -flip_columns * sine * half_height / half_width
    theta[:, 0, 2] = flip_columns * (-cosine * columns + sine * rows) / half_width
    theta[:, 1, 0] = flip_rows * sine * half_width / half_height
    theta[:, 1, 1] = flip_rows * cosine
    theta[:, 1, 2] = flip_rows * (-cosine * rows - sine * columns) / half_height
    grid = functional.affine_grid(theta, list(images.shape), align_corners=False)
    return functional.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def _fields(coefficients: Tensor, height: int, width: int) -> Tensor:
    """Smooth fields of largest absolute value 1, from the first cosines without the mean."""
    orders = torch.arange(_BIAS_ORDER, device=coefficients.device)
    by_rows, by_columns = (
        torch.cos(math.pi * torch.outer((torch.arange(n, device=coefficients.device) + 0.5) / n, orders))
        for n in (height, width)
    )
    weights = coefficients.view(-1, _BIAS_ORDER, _BIAS_ORDER) / (1.0 + orders[:, None] + orders[None, :])
    weights[:, 0, 0] = 0.0
    fields = torch.einsum("ya,nab,xb->nyx", by_rows, weights, by_columns)[:, None]
    return fields / fields.abs().amax((1, 2, 3), keepdim=True).clamp(min=1e-6)


def _blurred_or_noisy(
    images: Tensor, how: Augmentation, draws: _Draws, touched: Tensor, generator: torch.Generator
) -> Tensor:
    chosen, is_blur = draws.chance(how.blur_or_noise_probability) & touched, draws.chance(0.5)
    sigma = draws.uniform(0.25, max(0.25, how.blur_px))
    amount = torch.where(chosen & ~is_blur, draws.uniform(0.0, how.noise), 0.0)
    offsets = torch.arange(-_BLUR_RADIUS, _BLUR_RADIUS + 1, device=images.device)
    taps = torch.exp(-0.5 * (offsets[None, :] / sigma[:, None]).square())
    taps = taps / taps.sum(1, keepdim=True)
    stacked = functional.pad(images.transpose(0, 1), [_BLUR_RADIUS] * 4, mode="replicate")
    smooth = functional.conv2d(stacked, taps[:, None, :, None], groups=len(images))
    smooth = functional.conv2d(smooth, taps[:, None, None, :], groups=len(images)).transpose(0, 1)
    out = torch.where((chosen & is_blur)[:, None, None, None], smooth, images)
    noise = torch.randn(images.shape, generator=generator).to(images.device)
    return out + amount[:, None, None, None] * noise
