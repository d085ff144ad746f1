"""Images to embeddings, by a metric bundle in ONNX Runtime.

Batches have a fixed shape and the last one is padded: an embedding does not depend on how many images
came with it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepssim.errors import ImageError, MetricError, UsageError
from deepssim.extras import require
from deepssim.image_ops import resize_area
from deepssim.images import Image, Listing, Skipped, read_tasks
from deepssim.metric import Metric
from deepssim.working import Working, working_image

BATCH = 64
# An embedding whose norm is further than this from 1 holds no usable direction.
NORM_TOLERANCE = 1e-3
DEVICES = ("auto", "cpu", "gpu")


def available_providers() -> list[str]:
    """Return ONNX Runtime's execution providers that this machine could try."""
    return list(require("onnxruntime", "cpu").get_available_providers())


class Graph:
    """A graph of one input and one output on the CPU, as it is: what an export is compared with.

    Args:
        model: The ONNX file.
        threads: Of ONNX Runtime; 0: its own choice.

    Raises:
        MetricError: It does not load.
    """

    def __init__(self, model: bytes, threads: int = 0) -> None:
        runtime = require("onnxruntime", "cpu")
        options = runtime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        try:
            self._session: Any = runtime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # the runtime raises types of its own
            raise MetricError(f"the graph does not load in ONNX Runtime: {str(error).splitlines()[0]}") from error
        self._input: str = self._session.get_inputs()[0].name

    def __call__(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """Embed images ``(n, 1, height, width)``, n as it is: no batch is padded; returns ``(n, dim)``."""
        (result,) = self._session.run(None, {self._input: images})
        return np.asarray(result, np.float32)


def quantise_graph(
    model: Any, batches: Iterator[NDArray[np.float32]], *, operators: Sequence[str], excluded: Sequence[str]
) -> bytes:
    """Let a graph multiply 8-bit numbers, by ONNX Runtime's static quantisation.

    Activations and weights get scales of their own, weights one for each channel. Weights have 7 bits: with 8, sums of
    two products overflow on processors without VNNI, and an embedding would depend on the machine.

    Args:
        model: ONNX model of one input; is changed.
        batches: Images that the scales of activations are measured on.
        operators: Kinds of nodes to quantise.
        excluded: Names of nodes that stay as they are.

    Returns:
        The ONNX file.
    """
    quantisation = require("onnxruntime.quantization", "cpu")
    (name,) = (value.name for value in model.graph.input)

    # What the runtime would otherwise ask for on the log: the exporter has folded constants and inferred shapes.
    model.metadata_props.add(key="onnx.quant.pre_process", value="onnxruntime.quant")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "int8.onnx"
        quantisation.quantize_static(
            model,
            path,
            _Reader(name, batches),
            quant_format=quantisation.QuantFormat.QDQ,
            op_types_to_quantize=list(operators),
            nodes_to_exclude=list(excluded),
            per_channel=True,
            reduce_range=True,
            activation_type=quantisation.QuantType.QUInt8,
            weight_type=quantisation.QuantType.QInt8,
        )
        return path.read_bytes()


@dataclass(frozen=True, slots=True)
class _Reader:
    """Batches, as the runtime's calibration takes them."""

    name: str
    batches: Iterator[NDArray[np.float32]]

    def get_next(self) -> dict[str, NDArray[np.float32]] | None:
        batch = next(self.batches, None)
        return None if batch is None else {self.name: batch}


class Encoder:
    """A metric bundle, ready to run.

    Args:
        metric: The bundle.
        device: ``"cpu"``, ``"gpu"`` (an error if it does not load) or ``"auto"``.
        threads: Threads of ONNX Runtime; 0: its own choice.

    Raises:
        MetricError: The graph does not load or has other inputs and outputs than its metadata says.
        UsageError: A GPU was asked for and did not load.
    """

    def __init__(self, metric: Metric, *, device: str = "auto", threads: int = 0) -> None:
        self.metric = metric
        runtime = require("onnxruntime", "cpu")
        available = runtime.get_available_providers()
        wants_gpu = device == "gpu" or (device == "auto" and "CUDAExecutionProvider" in available)
        providers = ["CUDAExecutionProvider", "CPUExecutionProvider"] if wants_gpu else ["CPUExecutionProvider"]
        if device == "gpu" and "CUDAExecutionProvider" not in available:
            raise UsageError(
                "no GPU provider in this ONNX Runtime; pip uninstall onnxruntime, then pip install onnxruntime-gpu"
            )
        options = runtime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        # Threads that spin between batches take the cores that decode images.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self._session: Any = runtime.InferenceSession(metric.model_bytes(), options, providers=providers)
        except MetricError:
            raise
        except Exception as error:  # the runtime raises types of its own
            raise MetricError(f"{metric.path} does not load in ONNX Runtime: {str(error).splitlines()[0]}") from error
        self.provider: str = self._session.get_providers()[0]
        if device == "gpu" and self.provider != "CUDAExecutionProvider":
            raise UsageError(f"a GPU was asked for, but ONNX Runtime fell back to {self.provider}")
        self.runtime_version: str = runtime.__version__
        self._check_signature()

    def _check_signature(self) -> None:
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        good = (
            len(inputs) == 1
            and inputs[0].type == "tensor(float)"
            and len(inputs[0].shape) == 4
            and inputs[0].shape[1] == 1
            and outputs
            and len(outputs[0].shape) == 2
        )
        if not good:
            raise MetricError(f"{self.metric.path} does not take (n, 1, height, width) float32 or return (n, dim)")
        self._input: str = inputs[0].name
        self._output: str = outputs[0].name

    def prepare(self, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
        """Bring an image ``(height, width)`` to the input's size by area averaging."""
        metric = self.metric
        if pixels.shape == (metric.height, metric.width):
            return pixels
        return resize_area(pixels, metric.height, metric.width)

    def encode(self, prepared: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
        """Embed images of the input's size.

        Returns:
            ``(n, dim)`` float32, unit norm; a row is zero or not finite where the image has no structure.
        """
        metric = self.metric
        out = np.empty((len(prepared), metric.dim), np.float32)
        batch = np.zeros((BATCH, 1, metric.height, metric.width), np.float32)
        for start in range(0, len(prepared), BATCH):
            part = prepared[start : start + BATCH]
            batch[:] = 0
            for i, image in enumerate(part):
                batch[i, 0] = image
            (result,) = self._session.run([self._output], {self._input: batch})
            if result.shape != (BATCH, metric.dim):
                raise MetricError(f"{metric.path} returned {result.shape}, its metadata says dim {metric.dim}")
            out[start : start + len(part)] = result[: len(part)]
        return out


@dataclass(frozen=True, slots=True)
class Record:
    """What is kept of an image beside its embedding."""

    id: str
    path: str
    group: str | None
    width: int
    height: int
    pixel_hash: str


@dataclass(slots=True)
class EmbeddedChunk:
    """A run of images in listing order, cut at the end of a read task.

    Attributes:
        first_task: The first read task of the chunk.
        next_task: The task to go on with.
        embeddings: ``(n, dim)`` float32.
        records: One for each row.
        skipped: Images that cannot be used.
        digests: SHA-256 of what each read task read, in order.
        working: Working image of each row; empty if none were asked for.
    """

    first_task: int
    next_task: int
    embeddings: NDArray[np.float32]
    records: list[Record]
    skipped: list[Skipped]
    digests: list[str] = field(default_factory=list)
    working: list[Working] = field(default_factory=list)


@dataclass(slots=True)
class _Waiting:
    """An image on its way into a chunk."""

    record: Record
    pixels: NDArray[np.float32]
    working: Working | None


def _encode_images(
    encoder: Encoder, images: list[_Waiting], skipped: list[Skipped]
) -> tuple[NDArray[np.float32], list[_Waiting]]:
    """Embed images; returns the embeddings and images of those that have one, and adds the others to `skipped`."""
    embeddings = encoder.encode([image.pixels for image in images])
    with np.errstate(over="ignore", invalid="ignore"):
        norms = np.linalg.norm(embeddings.astype(np.float64), axis=1)
    good = np.abs(norms - 1.0) <= NORM_TOLERANCE  # False for NaN
    usable = []
    for image, is_good in zip(images, good, strict=True):
        if is_good:
            usable.append(image)
            continue
        record = image.record
        size = f"{encoder.metric.height} x {encoder.metric.width}"
        reason = f"the metric {encoder.metric.name} sees no structure in it (flat at {size} pixels)"
        skipped.append(Skipped(record.id, record.path, "constant", reason))
    # The graph's norms are off by some parts in a million; here they are 1 to the last bit of float32.
    kept = embeddings[good].astype(np.float64) / norms[good, np.newaxis]
    return np.ascontiguousarray(kept, np.float32), usable


def embed_listing(
    listing: Listing,
    encoder: Encoder,
    *,
    first_task: int = 0,
    chunk_rows: int = 8192,
    with_working: bool = False,
    threads: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> Iterator[EmbeddedChunk]:
    """Read and embed a listing chunk by chunk, in order, in constant memory.

    Args:
        listing: What to read.
        encoder: The metric.
        first_task: The read task to start at, where a chunk ended before.
        chunk_rows: A chunk ends with the task that reaches so many images.
        with_working: Whether chunks hold working images too.
        threads: Threads that decode.
        progress: Called with the number of images done since the last call.
    """
    images: list[_Waiting] = []
    parts: list[NDArray[np.float32]] = []
    chunk = EmbeddedChunk(first_task, first_task, np.empty((0, encoder.metric.dim), np.float32), [], [])

    def encode_waiting() -> None:
        embeddings, usable = _encode_images(encoder, images, chunk.skipped)
        parts.append(embeddings)
        chunk.records.extend(image.record for image in usable)
        chunk.working.extend(image.working for image in usable if image.working is not None)
        images.clear()

    for result in read_tasks(listing, first_task=first_task, threads=threads):
        chunk.digests.append(result.digest)
        for item in result.items:
            if isinstance(item, Skipped):
                chunk.skipped.append(item)
                continue
            working = working_image(item.pixels) if with_working else None
            images.append(_Waiting(_record(item), encoder.prepare(item.pixels), working))
            if len(images) == BATCH:
                encode_waiting()
        if progress is not None:
            progress(len(result.items))
        if len(chunk.records) + len(images) >= chunk_rows or result.task_index + 1 == len(listing.tasks):
            encode_waiting()
            chunk.next_task, chunk.embeddings = result.task_index + 1, np.concatenate(parts)
            yield chunk
            chunk = EmbeddedChunk(chunk.next_task, chunk.next_task, chunk.embeddings[:0], [], [])
            parts = []


def _record(image: Image) -> Record:
    height, width = image.pixels.shape
    return Record(image.id, image.path, image.group, width, height, image.pixel_hash)


def embed_image(encoder: Encoder, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    """Embed one image ``(height, width)``; returns ``(dim,)``.

    Raises:
        ImageError: The metric sees no structure in it.
    """
    embedding = encoder.encode([encoder.prepare(pixels)])[0]
    if not abs(float(np.linalg.norm(embedding.astype(np.float64))) - 1.0) <= NORM_TOLERANCE:
        raise ImageError("constant", f"the metric {encoder.metric.name} sees no structure in the image")
    result: NDArray[np.float32] = embedding
    return result
