"""A latent diffusion model in ONNX Runtime, without PyTorch: the folder that ``deepssim export`` writes of one.

``unet.onnx`` and ``decoder.onnx`` say in their metadata (``deepssim.generative``, JSON) all that sampling has to know;
``encoder.onnx`` lies beside them and is not needed. Networks run on all cores that they may; how many there are does
not change an image, the size of a batch may change its last bits.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepssim.embed import CUDA, Graph
from deepssim.errors import MetricError, UsageError
from deepssim.generative.facts import Part, model_facts
from deepssim.generative.sampling.sampler import DEFAULT_BATCH, Backend, ModelFacts
from deepssim.images.text import one_line
from deepssim.search import usable_processors

__all__ = ["FILES", "METADATA_KEY", "load_backend", "read_graph"]

METADATA_KEY = "deepssim.generative"
FILES = {"decoder": "decoder.onnx", "unet": "unet.onnx", "encoder": "encoder.onnx"}
"""File of each part of a model."""

Inputs = dict[str, tuple[int | None, ...]]
_MAX_BYTES = 2**31 - 1
# The entry that names another file as the place of weights, in whatever way its lengths are written: nothing but the
# file itself is ever read.
_EXTERNAL = re.compile(rb"(?:\x0a|\x8a\x80*\x00)(?:\x08|\x88\x80*\x00)location")
_HOW = "deepssim export UNET --vae VAE --out FOLDER writes it"


def load_backend(folder: Path, *, device: str = "auto", batch: int = DEFAULT_BATCH, threads: int = 0) -> Backend:
    """Load a model from a folder of ``deepssim export``.

    Args:
        folder: With ``unet.onnx`` and ``decoder.onnx``.
        device: ``"cpu"``, ``"cuda"`` (an error if it does not load) or ``"auto"``: a GPU if there is one.
        batch: Images at a time.
        threads: Of the processor; 0: all that this process may use.

    Raises:
        UsageError: A file is missing, or a GPU was asked for and did not load.
        MetricError: A file is no part of a model, or the two do not belong together.
    """
    missing = [name for name in (FILES["unet"], FILES["decoder"]) if not (folder / name).is_file()]
    if missing:
        raise UsageError(f"{folder} has no {' and no '.join(missing)}: {_HOW}")
    threads = threads or usable_processors()
    unet, unet_part = read_graph(folder / FILES["unet"], "unet", threads, device)
    decoder, vae_part = read_graph(folder / FILES["decoder"], "decoder", threads, device)
    facts = model_facts(vae_part, unet_part)
    _check_inputs(unet, decoder, facts, folder)

    def denoise(
        latents: NDArray[np.float32], timestep: int, context: NDArray[np.float32] | None
    ) -> NDArray[np.float32]:
        given: dict[str, NDArray[Any]] = {"latents": latents, "timesteps": np.full(len(latents), timestep, np.int64)}
        noise = unet.run(given if context is None else {**given, "context": context})
        return _checked(noise, latents.shape, unet_part.source)

    def decode(latents: NDArray[np.float32]) -> NDArray[np.float32]:
        images = decoder.run({"latents": latents})
        return _checked(images, (len(latents), 1, *facts.shapes.image), vae_part.source)[:, 0]

    return Backend(denoise, decode, facts, "onnx", batch, "cuda" if unet.provider == CUDA else "cpu")


def read_graph(path: Path, part: str, threads: int = 0, device: str = "cpu") -> tuple[Graph, Part]:
    """Read a part of a model, and what it says of itself.

    Args:
        path: The ``.onnx`` file.
        part: ``"encoder"``, ``"decoder"`` or ``"unet"``.
        threads: Of ONNX Runtime; 0: its own choice.
        device: See `load_backend`.

    Raises:
        UsageError: It cannot be read.
        MetricError: It is no such part, is damaged, or keeps weights in other files.
    """
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise MetricError(f"{path} is larger than an ONNX file can be (2 GiB)")
        data = path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror or error}") from error
    if _EXTERNAL.search(data):
        raise MetricError(f"{path} keeps weights in other files, which is not safe to run; {_HOW}")
    graph = Graph(data, threads, device=device, source=str(path))
    try:
        told = json.loads(graph.metadata[METADATA_KEY])
    except (KeyError, ValueError, RecursionError) as error:
        raise MetricError(f"{path} is an ONNX file, but no part of a latent diffusion model; {_HOW}") from error
    held = told.get("part") if isinstance(told, dict) else None
    if held != part:
        said = f"the {one_line(str(held), 40)}" if held else "nothing"
        raise MetricError(f"{path} holds {said} of a model, not its {part}; {_HOW}")
    return graph, Part.from_dict(told, str(path))


def _check_inputs(unet: Graph, decoder: Graph, facts: ModelFacts, folder: Path) -> None:
    """Refuse graphs that take something else than what they say of themselves."""
    wanted: Inputs = {"latents": (None, *facts.shapes.padded), "timesteps": (None,)}
    if facts.conditions.kind != "none":
        wanted["context"] = (None, 1, facts.conditions.dim)
    of_decoder: Inputs = {"latents": (None, *facts.shapes.vae)}
    for graph, inputs, name in ((unet, wanted, FILES["unet"]), (decoder, of_decoder, FILES["decoder"])):
        if graph.inputs != inputs:
            raise MetricError(
                f"{folder / name} takes {_words(graph.inputs)}, and says of itself that it takes {_words(inputs)}: "
                "the file was changed, or is of images of another size than the file beside it"
            )


def _checked(output: NDArray[np.float32], shape: tuple[int, ...], source: str) -> NDArray[np.float32]:
    """Return what a graph made; one that makes something else than it says would be broadcast, or written so."""
    if output.shape != shape:
        raise MetricError(f"{source} returned {output.shape} where {shape} is due: the file was changed; {_HOW}")
    return output


def _words(inputs: Inputs) -> str:
    shapes = {name: ", ".join("n" if side is None else str(side) for side in shape) for name, shape in inputs.items()}
    return ", ".join(f"{name} ({shape})" for name, shape in shapes.items())
