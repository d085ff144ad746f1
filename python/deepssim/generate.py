"""The networks of a latent diffusion model in PyTorch; noise and steps are `deepssim.generative.sampling.sampler`'s."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deepssim.errors import UsageError
from deepssim.generative.facts import model_facts
from deepssim.generative.sampling.sampler import DEFAULT_BATCH, Backend, ModelFacts
from deepssim.models.generative import Config, load_unet, load_vae, part_of
from deepssim.models.unet import Unet
from deepssim.models.vae import Vae

__all__ = ["DEVICES", "backend_of", "find_device", "load_backend"]

DEVICES = ("auto", "cpu", "cuda")


def load_backend(
    vae: Path,
    unet: Path,
    *,
    config: Config = None,
    conditioning: str | None = None,
    size: tuple[int, int] | None = None,
    device: str = "auto",
    batch: int = DEFAULT_BATCH,
    threads: int = 0,
) -> Backend:
    """Load a model from two checkpoints.

    Args:
        vae: The autoencoder, see `deepssim.models.generative.load_vae`.
        unet: The denoiser, see `deepssim.models.generative.load_unet`.
        config: Of state dicts, which do not say what they are; None: the published one.
        conditioning: What the U-Net is conditioned on; None: what it says itself.
        size: Rows and columns of the images, of state dicts; None: those of the configuration.
        device: One of `DEVICES`.
        batch: Images at a time.
        threads: Of the processor; 0: PyTorch's own choice.

    Raises:
        MetricError: A checkpoint cannot be used, or the two do not belong together.
        UsageError: An option cannot be.
    """
    where = find_device(device)
    vae_network, vae_description = load_vae(vae, config, size=size)
    unet_network, unet_description = load_unet(unet, config, conditioning, size=size)
    facts = model_facts(part_of(vae_network, vae_description, vae), part_of(unet_network, unet_description, unet))
    return backend_of(vae_network, unet_network, facts, device=where, batch=batch, threads=threads)


def backend_of(
    vae: Vae,
    unet: Unet,
    facts: ModelFacts,
    *,
    device: torch.device | str = "cpu",
    batch: int = DEFAULT_BATCH,
    threads: int = 0,
) -> Backend:
    """Make networks that are there ready to sample, in evaluation mode and in 32 bits.

    Args:
        vae: The autoencoder; is moved to the device.
        unet: The denoiser; likewise.
        facts: Of the two.
        device: Where they run.
        batch: Images at a time.
        threads: Of the processor; 0: PyTorch's own choice.

    Example:
        >>> from deepssim.generative.data.conditions import ConditionSpec
        >>> from deepssim.generative.config import DiffusionConfig
        >>> from deepssim.generative.sampling.plan import plan_free
        >>> from deepssim.generative.sampling.sampler import sample
        >>> from deepssim.generative.shapes import LatentShapes
        >>> vae = Vae(channels=(8, 16), norm_groups=4, attention_levels=(False, False))
        >>> unet = Unet((8, 16), attention_levels=(False, True), head_channels=(0, 8), norm_groups=4)
        >>> shapes = LatentShapes((16, 12), (3, 8, 6), (3, 8, 6))
        >>> facts = ModelFacts(shapes, 1.0, DiffusionConfig(), ConditionSpec(), "vae", "both", is_guidable=False)
        >>> backend = backend_of(vae, unet, facts, batch=2)
        >>> [image.shape for image in sample(backend, map(plan_free(3).request, range(3)), steps=2)]
        [(16, 12), (16, 12), (16, 12)]
    """
    where = torch.device(device)
    vae = vae.to(where, torch.float32).eval()
    unet = unet.to(where, torch.float32).eval()

    def denoise(
        latents: NDArray[np.float32], timestep: int, context: NDArray[np.float32] | None
    ) -> NDArray[np.float32]:
        with _calm(threads, batch):
            times = torch.full((len(latents),), timestep, dtype=torch.int64, device=where)
            condition = None if context is None else _tensor(context, where)
            return _array(unet(_tensor(latents, where), times, condition))

    def decode(latents: NDArray[np.float32]) -> NDArray[np.float32]:
        with _calm(threads, batch):
            return _array(vae.decode(_tensor(latents, where))[:, 0])

    return Backend(denoise, decode, facts, "torch", batch, where.type)


def find_device(device: str) -> torch.device:
    """Return the device that a word names.

    Args:
        device: One of `DEVICES`; ``"auto"``: a GPU if there is one.

    Raises:
        UsageError: Another word, or a GPU where there is none.

    Example:
        >>> find_device("cpu").type
        'cpu'
    """
    if device not in DEVICES:
        raise UsageError(f"device is {device!r}: it must be one of {', '.join(DEVICES)}")
    has_cuda = torch.cuda.is_available()
    if device == "cuda" and not has_cuda:
        raise UsageError("no CUDA device that this PyTorch can use; give --device cpu, or install a build for your GPU")
    return torch.device("cpu" if device == "cpu" or not has_cuda else "cuda")


@contextlib.contextmanager
def _calm(threads: int, batch: int) -> Iterator[None]:
    """Run networks without gradients and without choices that depend on what ran before; say what is too large."""
    before = torch.get_num_threads()
    try:
        if threads:
            torch.set_num_threads(threads)
        # Algorithms that are picked by timing them, or in TF32, would give other last bits from run to run.
        with (
            torch.inference_mode(),
            torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False),
        ):
            yield
    except torch.OutOfMemoryError as error:
        raise UsageError(
            f"a batch of {batch:,} images does not fit into the memory of the GPU: give a smaller --batch-size"
        ) from error
    finally:
        if threads:
            torch.set_num_threads(before)


def _tensor(array: NDArray[np.float32], device: torch.device) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array)).to(device)


def _array(tensor: Tensor) -> NDArray[np.float32]:
    return np.asarray(tensor.float().cpu().numpy(), np.float32)
