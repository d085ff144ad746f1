"""Teaching a U-Net the noise in latents, and how well it tells that of latents which it was not trained on.

Ho et al. 2020 (Denoising Diffusion Probabilistic Models), algorithm 1 and equation 14: a latent, a uniformly drawn
timestep and noise; what is made smaller is the squared error of the predicted noise. Guidance without a classifier
needs conditions that are dropped now and then (Ho and Salimans 2022, algorithm 1).
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import mse_loss

__all__ = ["LOOK_PASSES", "Clock", "LatentSource", "LatentTable", "NoiseObjective", "NoiseValidation", "add_noise"]

# Latents that a look predicts the noise of, on each side: as many steps of training cost about a third of them.
_N_LOOKED_AT = 128
LOOK_PASSES = 2 * _N_LOOKED_AT
_BATCH = 32


@dataclass(slots=True)
class Clock:
    """How far training is, known to what is not told.

    Attributes:
        step: Updates of the weights once the batch under way was used.
        epoch: Passes over the repeats by then.
    """

    step: int = 0
    epoch: float = 0.0


class LatentTable:
    """Latents and their conditions, moved to a device once.

    Args:
        latents: ``(n, c, h, w)`` float32, padded and scaled.
        contexts: ``(n, 1, d)`` float32; None: there are no conditions.
    """

    def __init__(self, latents: Tensor, contexts: Tensor | None = None) -> None:
        self.latents, self.contexts = latents, contexts

    def __len__(self) -> int:
        return len(self.latents)

    def take(self, rows: Tensor, device: torch.device) -> tuple[Tensor, Tensor | None]:
        """Return latents and conditions of rows, on a device."""
        if self.latents.device != device:
            self.latents = self.latents.to(device)
            self.contexts = None if self.contexts is None else self.contexts.to(device)
        rows = rows.to(device)
        return self.latents[rows], None if self.contexts is None else self.contexts[rows]


@dataclass(frozen=True, slots=True, eq=False)
class LatentSource:
    """A `deepssim.train.loop.Source` of rows of latents, each as often in an epoch as it is said to be.

    Epochs follow each other without a gap: a batch may end one and begin the next, so that all are full and every
    epoch has every repeat exactly once. Of several processes that train together each takes its part of the same
    passes.

    Attributes:
        repeats: ``(total,)`` int64: rows, each as often as it is in an epoch.
        batch_size: Rows of a batch.
        seed: Of the order; the same for all processes.
        n_steps: Batches of each process in all.
        process: Place of this one.
        n_processes: That train together.
        accumulate: Batches of an update.
        clock: Told how far training is.
    """

    repeats: NDArray[np.int64]
    batch_size: int
    seed: int
    n_steps: int
    process: int = 0
    n_processes: int = 1
    accumulate: int = 1
    clock: Clock | None = None

    @classmethod
    def of(cls, multiplicities: Sequence[int] | NDArray[np.int64], **more: int | Clock | None) -> LatentSource:
        """Make one of how often each row is in an epoch.

        Example:
            >>> source = LatentSource.of([1, 3], batch_size=4, seed=0, n_steps=2)
            >>> [batch.sort().values.tolist() for batch in source.steps(0)]
            [[0, 1, 1, 1], [0, 1, 1, 1]]
        """
        repeats = np.repeat(np.arange(len(multiplicities)), multiplicities)
        return cls(repeats, **more)  # type: ignore[arg-type]

    def epoch_at(self, n_batches: int) -> float:
        """Return the passes over all repeats after batches of each process."""
        return n_batches * self.batch_size * self.n_processes / len(self.repeats)

    def rows(self, number: int) -> NDArray[np.int64]:
        """Return the rows of a batch of this process."""
        first = (number * self.n_processes + self.process) * self.batch_size
        return self.between(first, first + self.batch_size)

    def between(self, first: int, last: int) -> NDArray[np.int64]:
        """Return the rows from one place to another of all passes, one after the other, whoever takes them."""
        total = len(self.repeats)
        parts = []
        for epoch in range(first // total, -(-last // total)):
            order = _order(self.seed, epoch, total)
            parts.append(self.repeats[order[max(0, first - epoch * total) : last - epoch * total]])
        return np.concatenate(parts)

    def steps(self, first: int) -> Iterator[Tensor]:
        """Yield the rows ``(batch_size,)`` int64 of the batches from one on."""
        for number in range(first, self.n_steps):
            if self.clock is not None:
                self.clock.step = (number + 1) // self.accumulate
                self.clock.epoch = self.epoch_at(number + 1)
            yield torch.from_numpy(self.rows(number))


@functools.lru_cache(maxsize=2)
def _order(seed: int, epoch: int, total: int) -> NDArray[np.int64]:
    return np.random.default_rng([seed, epoch]).permutation(total)


@dataclass(frozen=True, slots=True, eq=False)
class NoiseObjective:
    """A `deepssim.train.loop.Objective`: the squared error of the noise that a U-Net sees in latents.

    Attributes:
        table: What batches are rows of.
        alphas: ``(timesteps,)`` float32: what is left of a latent's variance at each timestep, the cumulative product.
        drop_condition: Part of the latents whose condition is left out, the zero vector in its place.
    """

    table: LatentTable
    alphas: Tensor
    drop_condition: float = 0.0

    def loss(
        self, network: nn.Module, batch: Tensor, draws: torch.Generator, device: torch.device
    ) -> tuple[Tensor, dict[str, float]]:
        """Return the loss of a batch, and its parts as numbers; see `Objective`."""
        latents, contexts = self.table.take(batch, device)
        # Drawn on the CPU, so that they are the same on every device.
        noise = torch.randn(latents.shape, generator=draws).to(device)
        timesteps = torch.randint(0, len(self.alphas), (len(latents),), generator=draws)
        if contexts is not None and self.drop_condition:
            is_kept = torch.rand(len(latents), generator=draws) >= self.drop_condition
            contexts = contexts * is_kept.to(device)[:, None, None]
        noisy = add_noise(latents, noise, self.alphas[timesteps].to(device))
        predicted = network(noisy, timesteps.to(device), contexts)
        loss = mse_loss(predicted.float(), noise)
        return loss, {"loss": float(loss.detach())}


def add_noise(latents: Tensor, noise: Tensor, alphas: Tensor) -> Tensor:
    """Return latents with noise, of the variance that they had where theirs is 1.

    Args:
        latents: ``(n, c, h, w)``.
        noise: The same.
        alphas: ``(n,)`` part of the variance that is the latent's: the cumulative product of DDPM, equation 4.

    Example:
        >>> add_noise(torch.ones(1, 1, 1, 1), torch.zeros(1, 1, 1, 1), torch.tensor([0.25])).item()
        0.5
    """
    alphas = alphas[:, None, None, None]
    return alphas.sqrt() * latents + (1.0 - alphas).sqrt() * noise


@dataclass(frozen=True, slots=True, eq=False)
class NoiseValidation:
    """A `deepssim.train.loop.Validation`: the error of the noise at timesteps and with noise that stay the same.

    Of the images that select and of those that are trained on, both with the same timesteps and noise, so that their
    difference is of the images: a U-Net that knows its training images by heart tells the noise in them better. Where
    no image selects, the last weights are the best.

    Attributes:
        table: All latents.
        valid: ``(v,)`` rows that select; may be none.
        training: ``(t,)`` rows that are trained on.
        timesteps: ``(p,)`` spread over all.
        noise: ``(p, c, h, w)``.
        alphas: See `NoiseObjective`.
        clock: How far training is.
    """

    table: LatentTable
    valid: Tensor
    training: Tensor
    timesteps: Tensor
    noise: Tensor
    alphas: Tensor
    clock: Clock

    @classmethod
    def of(
        cls, table: LatentTable, valid: NDArray[np.int64], training: NDArray[np.int64], alphas: Tensor, clock: Clock,
        seed: int = 0,
    ) -> NoiseValidation:  # fmt: skip
        """Make the set: 128 of each side, of more spread over all, of fewer each more than once.

        Args:
            table: All latents.
            valid: Rows that select.
            training: Rows that are trained on.
            alphas: See `NoiseObjective`.
            clock: How far training is.
            seed: Of timesteps and noise.
        """
        rng = np.random.default_rng([seed, 31])
        sides = [
            torch.from_numpy(side[np.linspace(0, len(side), _N_LOOKED_AT, endpoint=False).astype(int)])
            if len(side)
            else torch.empty(0, dtype=torch.int64)
            for side in (valid, training)
        ]
        # One timestep of each of as many equal parts: a mean over all with little noise of its own.
        within = (np.arange(_N_LOOKED_AT) + rng.random(_N_LOOKED_AT)) / _N_LOOKED_AT
        timesteps = torch.from_numpy(rng.permutation((within * len(alphas)).astype(np.int64)))
        shape = (_N_LOOKED_AT, *table.latents.shape[1:])
        noise = torch.from_numpy(rng.standard_normal(shape, dtype=np.float32))
        return cls(table, sides[0], sides[1], timesteps, noise, alphas, clock)

    def measure(self, network: nn.Module, device: torch.device) -> dict[str, float]:
        """Return the errors of both sides, their difference (valid minus training) and the passes over the repeats."""
        training = self._error(network, self.training, device)
        epoch = round(self.clock.epoch, 3)
        if not len(self.valid):
            return {"train_loss": training, "epoch": epoch, "selection": -float(self.clock.step)}
        valid = self._error(network, self.valid, device)
        gap = valid - training
        return {"valid_loss": valid, "train_loss": training, "gap": gap, "epoch": epoch, "selection": valid}

    @torch.no_grad()
    def _error(self, network: nn.Module, rows: Tensor, device: torch.device) -> float:
        was_training = network.training
        network.eval()
        total = 0.0
        for start in range(0, len(rows), _BATCH):
            part = slice(start, start + _BATCH)
            latents, contexts = self.table.take(rows[part], device)
            noise, timesteps = self.noise[part].to(device), self.timesteps[part]
            noisy = add_noise(latents, noise, self.alphas[timesteps].to(device))
            predicted = network(noisy, timesteps.to(device), contexts).float()
            total += float(mse_loss(predicted, noise, reduction="none").mean(dim=(1, 2, 3)).sum())
        network.train(was_training)
        return total / len(rows)
