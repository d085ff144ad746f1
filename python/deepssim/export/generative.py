"""The parts of a latent diffusion model to ONNX: the VAE's encoder and decoder, and the U-Net.

Each graph takes any number of images or latents at a time, of the one size that the model was trained on. What PyTorch
and ONNX Runtime make of the same inputs may differ by `LARGEST_PART_ERROR` of the largest value, else nothing is
written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from deepssim import __version__
from deepssim.disk import check_writable, locked, remove_leftovers
from deepssim.embed import Graph
from deepssim.errors import MetricError, UsageError
from deepssim.export.graphs import OPSET, to_onnx, write_graph
from deepssim.generative.config import VaeConfig
from deepssim.generative.facts import Part, model_facts
from deepssim.generative.sampling.graphs import FILES, METADATA_KEY, read_graph
from deepssim.generative.sampling.sampler import ModelFacts
from deepssim.generative.shapes import LatentShapes
from deepssim.image_ops import resize_area
from deepssim.models.unet import Unet
from deepssim.models.vae import Vae
from deepssim.phantom import make_cohort

__all__ = ["LARGEST_PART_ERROR", "ExportedPart", "export_model"]

LARGEST_PART_ERROR = 1e-4
"""Largest difference between PyTorch and ONNX Runtime, as part of the largest value, which counts as 1 at least."""
_BATCHES = (1, 2, 7)
# Of the weights of a file, beside which its graph has room.
_MOST_BYTES = 2**31 - 2**26

Inputs = dict[str, NDArray[Any]]


@dataclass(frozen=True, slots=True)
class ExportedPart:
    """What was written.

    Attributes:
        path: The file.
        part: ``"encoder"``, ``"decoder"`` or ``"unet"``.
        error: Largest difference between PyTorch and ONNX Runtime, as part of the largest value.
        n_bytes: Of the file.
    """

    path: Path
    part: str
    error: float
    n_bytes: int


@dataclass(frozen=True, slots=True)
class _Made:
    """A graph that has been compared."""

    part: str
    model: Any
    metadata: dict[str, Any]
    error: float


def export_model(
    folder: Path,
    *,
    vae: tuple[Vae, Part] | None = None,
    unet: tuple[Unet, Part] | None = None,
    opset: int = OPSET,
    progress: Callable[[str], None] | None = None,
) -> tuple[ExportedPart, ...]:
    """Write the parts of a model: ``encoder.onnx`` and ``decoder.onnx`` of a VAE, ``unet.onnx`` of a U-Net.

    Args:
        folder: Made where it is not there.
        vae: The VAE and `deepssim.models.generative.part_of` it; left as it is.
        unet: The U-Net, likewise; without a VAE, the one whose decoder lies in the folder is its own.
        opset: Version of ONNX operators.
        progress: Told of each part before it is made.

    Returns:
        One for each file.

    Raises:
        MetricError: The two do not belong together, PyTorch cannot export one, or the graph's answers differ from the
            network's by more than `LARGEST_PART_ERROR`: nothing is written then.
        UsageError: Nothing was given, a U-Net without a VAE, or the folder cannot be written.
    """
    if vae is None and unet is None:
        raise UsageError("nothing to export: give a VAE, a U-Net or both")
    facts = None
    if unet is not None:
        vae_part = vae[1] if vae is not None else _lying_there(folder, unet[1])
        facts = model_facts(vae_part, unet[1])
        vae = vae and (vae[0], replace(vae[1], image=facts.shapes.image))
        trained = {**unet[1].training, "vae_hash": facts.vae_hash, "image": list(facts.shapes.image)}
        unet = unet[0], replace(unet[1], image=facts.shapes.image, training=trained)
    check_writable(folder)
    tell = progress or (lambda _: None)
    with locked(folder):
        remove_leftovers(folder)
        made: list[_Made] = []
        if vae is not None:
            made += _vae_parts(*vae, opset, tell)
        if unet is not None and facts is not None:
            made.append(_unet_part(*unet, facts, opset, tell))
        return tuple(_written(one, folder / FILES[one.part]) for one in made)


def _written(made: _Made, path: Path) -> ExportedPart:
    try:
        n_bytes = write_graph(made.model, METADATA_KEY, made.metadata, path)
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror or error}") from error
    return ExportedPart(path, made.part, made.error, n_bytes)


def _lying_there(folder: Path, unet: Part) -> Part:
    """Return the VAE whose decoder lies in a folder."""
    if not (folder / FILES["decoder"]).is_file():
        raise UsageError(f"{unet.source} is a U-Net, and wants its VAE beside it: give that too, with --vae FILE")
    return read_graph(folder / FILES["decoder"], "decoder")[1]


class _Encoder(nn.Module):
    def __init__(self, vae: Vae) -> None:
        super().__init__()
        self.vae = vae

    def forward(self, image: Tensor) -> Tensor:
        return self.vae.encode(image)[0]


class _Decoder(nn.Module):
    def __init__(self, vae: Vae) -> None:
        super().__init__()
        self.vae = vae

    def forward(self, latents: Tensor) -> Tensor:
        return self.vae.decode(latents)


def _vae_parts(vae: Vae, part: Part, opset: int, tell: Callable[[str], None]) -> Iterator[_Made]:
    try:
        shapes = LatentShapes.of(part.image, VaeConfig(**part.arguments), 1)
    except UsageError as error:
        raise MetricError(f"{part.source}: {error}") from error
    images = _images(part.image, sum(_BATCHES))
    with torch.no_grad():
        means = vae.encode(torch.from_numpy(images))[0].numpy()
    # Samples of a diffusion are like the latents of images, and not the same.
    latents = means + np.float32(0.5) * np.random.default_rng(0).standard_normal(means.shape, np.float32)
    tell("exporting the encoder")
    example: Inputs = {"image": np.zeros((2, 1, *part.image), np.float32)}
    yield _compared("encoder", _Encoder(vae), part, example, "mean", [{"image": b} for b in _batched(images)], opset)
    tell("exporting the decoder")
    example = {"latents": np.zeros((2, *shapes.vae), np.float32)}
    yield _compared(
        "decoder", _Decoder(vae), part, example, "image", [{"latents": b} for b in _batched(latents)], opset
    )


def _unet_part(unet: Unet, part: Part, facts: ModelFacts, opset: int, tell: Callable[[str], None]) -> _Made:
    tell("exporting the U-Net")
    rng = np.random.default_rng(0)

    def inputs(n: int) -> Inputs:
        times = rng.integers(0, facts.diffusion.steps, n)
        times[0] = (facts.diffusion.steps - 1) * (n % 2)
        latents = rng.standard_normal((n, *facts.shapes.padded), np.float32)
        found: Inputs = {"latents": latents, "timesteps": times.astype(np.int64)}
        if facts.conditions.kind != "none":
            found["context"] = rng.random((n, 1, facts.conditions.dim), np.float32)
        return found

    return _compared("unet", unet, part, inputs(2), "noise", [inputs(n) for n in _BATCHES], opset)


def _images(size: tuple[int, int], n: int) -> NDArray[np.float32]:
    """Draw images ``(n, 1, height, width)`` from 0 to 1: heads, and noise, which has every frequency."""
    drawn = [resize_area(image, *size) for _, _, image in make_cohort(n - n // 3, 1, seed=0)]
    rng = np.random.default_rng(0)
    noise = [rng.random(size, np.float32) for _ in range(n // 3)]
    low_high = [((image - image.min()) / max(float(np.ptp(image)), 1e-6))[None] for image in (*drawn, *noise)]
    return np.asarray(low_high, np.float32)


def _batched(values: NDArray[np.float32]) -> Iterator[NDArray[np.float32]]:
    ends = np.cumsum(_BATCHES)
    yield from (values[end - n : end] for n, end in zip(_BATCHES, ends, strict=True))


def _compared(
    name: str, network: nn.Module, part: Part, example: Inputs, output: str, batches: list[Inputs], opset: int
) -> _Made:
    """Make a graph and see that it answers as the network does."""
    n_bytes = sum(weight.numel() * weight.element_size() for weight in network.parameters())
    if n_bytes > _MOST_BYTES:
        raise MetricError(
            f"the {name} of {part.source} has {n_bytes / 2**30:.1f} GiB of weights, more than an ONNX file can hold "
            "(2 GiB): sample from the checkpoint itself"
        )
    network.eval()
    batch = torch.export.Dim("n", min=1)
    tensors = {key: torch.from_numpy(value) for key, value in example.items()}
    try:
        model = to_onnx(
            network, tuple(tensors.values()), inputs=tuple(tensors), output=output,
            dynamic=tuple({0: batch} for _ in tensors), opset=opset,
        )  # fmt: skip
    except torch.onnx.OnnxExporterError as error:
        reason = str(error).strip().splitlines()[0]
        raise MetricError(f"PyTorch cannot export the {name} of {part.source}: {reason}") from error
    graph = Graph(model.SerializeToString(), source=f"the {name} of {part.source}")
    largest = max(_difference(name, network, graph, inputs) for inputs in batches)
    checked = {
        "opset": opset, "largest_error": float(f"{largest:.3g}"), "batches": list(_BATCHES), "torch": torch.__version__,
        "deepssim": __version__,
    }  # fmt: skip
    return _Made(name, model, {"part": name, **part.as_dict(), "export": checked}, largest)


def _difference(name: str, network: nn.Module, graph: Graph, inputs: Inputs) -> float:
    with torch.no_grad():
        expected = network(*(torch.from_numpy(value) for value in inputs.values())).numpy()
    found = graph.run(inputs)
    if found.shape != expected.shape:
        raise MetricError(f"the exported {name} returns {found.shape} where {expected.shape} is right")
    error = float(np.abs(found - expected).max()) / max(1.0, float(np.abs(expected).max()))
    if not error <= LARGEST_PART_ERROR:
        n = len(next(iter(inputs.values())))
        raise MetricError(
            f"ONNX Runtime's {name} differs from PyTorch's by {error:.2g} of the largest value in a batch of {n}, more "
            f"than {LARGEST_PART_ERROR:g}: nothing was written"
        )
    return error
