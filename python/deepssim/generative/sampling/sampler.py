"""Images made of noise by a latent diffusion model, whatever runs its networks.

An image is a function of the model, its record's identifier and condition, its number, the seed and the number of
steps; nothing that was made before it matters. Networks always see batches of one size, the last one padded, since
their last bits may depend on that.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from deepssim.errors import MetricError, UsageError
from deepssim.generative.sampling.schedule import ddim_steps
from deepssim.images.text import one_line

if TYPE_CHECKING:
    from deepssim.generative.config import DiffusionConfig
    from deepssim.generative.data.conditions import ConditionSpec
    from deepssim.generative.shapes import LatentShapes

__all__ = [
    "DEFAULT_BATCH",
    "Backend",
    "Decoder",
    "Denoiser",
    "ModelFacts",
    "Request",
    "check_sampling",
    "noise_of",
    "sample",
]

Array = NDArray[np.float32]
DEFAULT_BATCH = 8
"""Images at a time; an image is the same whatever was made with it, but its last bits may depend on this number."""


class Denoiser(Protocol):
    """Predicts the noise of latents."""

    def __call__(self, latents: Array, timestep: int, context: Array | None) -> Array:
        """Predict.

        Args:
            latents: ``(batch, channels, height, width)`` in the padded shape.
            timestep: Of the training schedule, the same for all.
            context: Conditions ``(batch, 1, dim)``; None: the model takes none.

        Returns:
            As `latents`.
        """


class Decoder(Protocol):
    """Makes images of latents of the VAE's space."""

    def __call__(self, latents: Array) -> Array:
        """Decode.

        Args:
            latents: ``(batch, channels, height, width)``, cropped and divided by the scale factor.

        Returns:
            Images ``(batch, height, width)``, about 0 to 1.
        """


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What a sampler has to know of a model.

    Attributes:
        shapes: Of images and latents.
        scale_factor: Latents of the diffusion are those of the VAE times this.
        diffusion: Schedule of the training.
        conditions: What the U-Net is conditioned on.
        vae_hash: SHA-256 of the VAE's weights.
        fingerprint: SHA-256 of both networks' weights.
        is_guidable: Whether conditions were dropped in training, so that a zero condition means none.
        is_transposed: Whether the model saw images with rows and columns exchanged; None: its files do not say it.
    """

    shapes: LatentShapes
    scale_factor: float
    diffusion: DiffusionConfig
    conditions: ConditionSpec
    vae_hash: str
    fingerprint: str
    is_guidable: bool
    is_transposed: bool | None = None


@dataclass(frozen=True, slots=True)
class Backend:
    """A model, ready to run.

    Attributes:
        denoise: The U-Net.
        decode: The VAE's decoder.
        facts: Of the model.
        name: ``"torch"`` or ``"onnx"``.
        batch: Images at a time, always.
        device: What it runs on, in a word.
    """

    denoise: Denoiser
    decode: Decoder
    facts: ModelFacts
    name: str
    batch: int
    device: str = "cpu"


@dataclass(frozen=True, slots=True, eq=False)
class Request:
    """One image that is asked for.

    Attributes:
        uid: Identifier of its record.
        number: Of the image among those of the record, from 0.
        context: Condition ``(1, dim)`` float32; None: the model takes none.
        place: In the plan, from 0. Each place has its own seat in a batch, so that what is made alone goes through the
            same arithmetic as among others. None: the next free seat.
    """

    uid: str
    number: int
    context: Array | None = None
    place: int | None = None


def noise_of(seed: int, uid: str, number: int, shape: Sequence[int]) -> Array:
    """Return the noise that an image begins as: standard normal, a function of the arguments alone.

    Args:
        seed: Of the run, at least 0.
        uid: Identifier of the record.
        number: Of the image, from 0.
        shape: Of the latents.

    Returns:
        Float32 of that shape, from a Philox generator (Salmon et al., SC 2011) seeded with all three.

    Example:
        >>> first = noise_of(0, "p07", 3, (3, 36, 28))
        >>> first.shape, bool((first == noise_of(0, "p07", 3, (3, 36, 28))).all())
        ((3, 36, 28), True)
    """
    digest = hashlib.sha256(uid.encode("utf-8", "surrogateescape")).digest()
    words = np.frombuffer(digest, "<u4").tolist()
    sequence = np.random.SeedSequence([seed, number], spawn_key=words)
    generator = np.random.Generator(np.random.Philox(sequence))
    return generator.standard_normal(tuple(shape), np.float32)


def sample(
    backend: Backend, requests: Iterable[Request], *, steps: int = 50, guidance: float = 1.0, seed: int = 0
) -> Iterator[Array]:
    """Make images by DDIM sampling, batch by batch.

    Args:
        backend: The model.
        requests: What is asked for; read one further than the batch.
        steps: Of sampling.
        guidance: Weight ``g`` of the condition: noise is ``n0 + g (n - n0)``, n0 without and n with it (Ho and
            Salimans, Classifier-Free Diffusion Guidance, 2022, in the form where 1 is no guidance).
        seed: With record and number, what the noise is drawn by.

    Yields:
        Float32 ``(height, width)``, one for each request, in order; about 0 to 1, not clipped.

    Raises:
        UsageError: Guidance of a model that cannot be guided, or steps that are too many.
        MetricError: An image is not finite.
    """
    facts = backend.facts
    check_sampling(facts, steps=steps, guidance=guidance)
    coefficients = ddim_steps(facts.diffusion, steps)
    for seats in _seated(requests, backend.batch):
        latents, context = _start(facts, seats, backend.batch, seed)
        # What overflows is told of below, with the image's name.
        with np.errstate(over="ignore", invalid="ignore"):
            for step in coefficients:
                noise = _predict(backend, latents, step.timestep, context, guidance)
                latents = step.keep * latents + step.add * noise
            images = backend.decode(facts.shapes.unpad(latents) / np.float32(facts.scale_factor))
        for seat, request in seats.items():
            if not np.isfinite(images[seat]).all():
                raise MetricError(
                    f"image {request.number} of {one_line(request.uid, 80)} is not finite: the weights are damaged, "
                    "or U-Net and VAE do not belong together"
                )
            yield images[seat]


def _seated(requests: Iterable[Request], batch: int) -> Iterator[dict[int, Request]]:
    """Yield batches, each a request by its seat; a seat that is taken already begins the next batch."""
    seats: dict[int, Request] = {}
    last = -1
    for request in requests:
        seat = (last + 1 if request.place is None else request.place) % batch
        if seat <= last:
            yield seats
            seats = {}
        seats[seat] = request
        last = seat
    if seats:
        yield seats


def _start(facts: ModelFacts, seats: dict[int, Request], batch: int, seed: int) -> tuple[Array, Array | None]:
    """Return the noise and the conditions of a batch; empty seats repeat the first request."""
    shape = facts.shapes.padded
    first = next(iter(seats))
    latents = np.empty((batch, *shape), np.float32)
    context = None if facts.conditions.kind == "none" else np.zeros((batch, 1, facts.conditions.dim), np.float32)
    for seat, request in seats.items():
        latents[seat] = noise_of(seed, request.uid, request.number, shape)
        if context is not None and request.context is not None:
            context[seat] = request.context
    empty = [seat for seat in range(batch) if seat not in seats]
    latents[empty] = latents[first]
    if context is not None:
        context[empty] = context[first]
    return latents, context


def check_sampling(facts: ModelFacts, *, steps: int, guidance: float) -> None:
    """Refuse what a model cannot do, before anything is made or written.

    Args:
        facts: Of the model.
        steps: Of sampling.
        guidance: Weight of the condition.

    Raises:
        UsageError: Guidance of a model that cannot be guided, or steps that are too many.
    """
    ddim_steps(facts.diffusion, steps)
    if not np.isfinite(guidance) or guidance < 0:
        raise UsageError(f"guidance is {guidance}: give a number of at least 0, 1 for none")
    if guidance == 1:
        return
    if facts.conditions.kind == "none":
        raise UsageError("the model takes no condition, so nothing can be guided: leave guidance at 1")
    if not facts.is_guidable:
        raise UsageError(
            "the model was never trained without its condition, so it cannot be guided: leave guidance at 1, "
            "or train one with a part of the conditions dropped"
        )


def _predict(backend: Backend, latents: Array, timestep: int, context: Array | None, guidance: float) -> Array:
    if context is None or guidance == 1:
        return backend.denoise(latents, timestep, context)
    without = backend.denoise(latents, timestep, np.zeros_like(context))
    with_condition = backend.denoise(latents, timestep, context)
    return without + np.float32(guidance) * (with_condition - without)
