"""Metric bundles in ONNX Runtime: images in, embeddings out.

Batches have a fixed shape for a metric and the last one is padded: an embedding does not depend on how many images
came with it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepssim.errors import MetricError, UsageError
from deepssim.extras import require
from deepssim.metric import Metric
from deepssim.search import usable_processors

# Images of a batch: 64 of 136 x 112 pixels, the size of the published encoders, or as many smaller ones; fewer of
# larger ones, since what a network makes of a batch takes memory by its pixels.
_MOST_IMAGES = 64
_MOST_PIXELS = _MOST_IMAGES * 136 * 112
# An embedding whose norm is further than this from 1 holds no usable direction.
NORM_TOLERANCE = 1e-3
DEVICES = ("auto", "cpu", "cuda")
CPU, CUDA, OPENVINO = (f"{name}ExecutionProvider" for name in ("CPU", "CUDA", "OpenVINO"))


def available_providers() -> list[str]:
    """Return ONNX Runtime's execution providers that this machine could try."""
    return list(require("onnxruntime", "cpu").get_available_providers())


class Graph:
    """A graph of one output, as it is: what an export is compared with, and what samples images.

    Args:
        model: The ONNX file.
        threads: Of ONNX Runtime; 0: its own choice.
        device: ``"cpu"``, ``"cuda"`` (an error if it does not load) or ``"auto"``: a GPU if there is one.
        source: Where the graph comes from, for errors.

    Raises:
        MetricError: It does not load.
        UsageError: A GPU was asked for and did not load.

    Attributes:
        inputs: Names of the inputs, and the shape of each: a number of elements for each axis, None where any will do.
        metadata: Texts that the file says of itself, by their keys.
        provider: Of ONNX Runtime.
    """

    def __init__(self, model: bytes, threads: int = 0, *, device: str = "cpu", source: str = "the graph") -> None:
        if device not in DEVICES:
            raise UsageError(f"unknown device {device!r}: {', '.join(DEVICES)}")
        runtime = require("onnxruntime", "cpu")
        options = runtime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        providers = [CPU] if device == "cpu" else _providers(runtime.get_available_providers(), device)
        # Kernels that are chosen by timing them, or multiply in 19 bits, would answer otherwise from run to run.
        exact = {"use_tf32": "0", "cudnn_conv_algo_search": "HEURISTIC"}
        chosen = [(name, exact) if name == CUDA else name for name in providers]
        try:
            self._session: Any = runtime.InferenceSession(model, options, providers=chosen)
        except Exception as error:  # the runtime raises types of its own
            raise MetricError(f"{source} does not load in ONNX Runtime: {str(error).splitlines()[0]}") from error
        self.provider: str = self._session.get_providers()[0]
        if device == "cuda" and self.provider != CUDA:
            raise UsageError(f"a GPU was asked for, but ONNX Runtime fell back to {self.provider}")
        self.inputs: dict[str, tuple[int | None, ...]] = {
            value.name: tuple(side if isinstance(side, int) else None for side in value.shape)
            for value in self._session.get_inputs()
        }
        self.metadata: dict[str, str] = dict(self._session.get_modelmeta().custom_metadata_map)
        self._source = source

    def __call__(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """Embed images ``(n, 1, height, width)``, n as it is: no batch is padded; returns ``(n, dim)``."""
        (name, *_) = self.inputs
        return self.run({name: images})

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
        """Return the output for inputs by name.

        Raises:
            MetricError: The graph does not take them, does not fit into memory, or returns no real numbers.
        """
        try:
            result = self._session.run(None, dict(inputs))[0]
        except Exception as error:  # the runtime raises types of its own
            reason = (str(error) or type(error).__name__).splitlines()[0][:300]
            raise MetricError(f"{self._source} does not run in ONNX Runtime: {reason}") from error
        if not isinstance(result, np.ndarray) or result.dtype.kind != "f":
            raise MetricError(f"{self._source} does not return an array of real numbers")
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


def _providers(available: Sequence[str], device: str) -> list[str]:
    if device == "cuda" and CUDA not in available:
        raise UsageError(
            "no GPU provider in this ONNX Runtime; pip uninstall onnxruntime, then pip install onnxruntime-gpu"
        )
    processor = [OPENVINO, CPU] if OPENVINO in available else [CPU]
    return [CUDA, *processor] if CUDA in available and device != "cpu" else processor


class Encoder:
    """A metric bundle, ready to run.

    On a processor each batch is the work of one thread, and several batches run at a time: small networks gain more
    from that than from threads that share a batch, and an embedding does not depend on how many there are.

    Args:
        metric: The bundle.
        device: ``"cpu"``, ``"cuda"`` (an error if it does not load) or ``"auto"``: a GPU if there is one. Where ONNX
            Runtime was built with OpenVINO, that is what a processor means.
        threads: Batches at a time; 0: one for each processor that this process may use.

    Raises:
        MetricError: The graph does not load or has other inputs and outputs than its metadata says.
        UsageError: A GPU was asked for and did not load.

    Attributes:
        metric: The bundle.
        batch: Images that are embedded at a time, by the size of the input alone: the answer of a network may differ in
            its last bits between batches of two sizes.
        provider: Of ONNX Runtime.
        threads: Batches at a time.
    """

    def __init__(self, metric: Metric, *, device: str = "auto", threads: int = 0) -> None:
        if device not in DEVICES:
            raise UsageError(f"unknown device {device!r}: {', '.join(DEVICES)}")
        self.metric = metric
        fitting = _MOST_PIXELS // (metric.height * metric.width)
        self.batch: int = min(_MOST_IMAGES, 1 << max(fitting.bit_length() - 1, 0))
        runtime = require("onnxruntime", "cpu")
        providers = _providers(runtime.get_available_providers(), device)
        options = runtime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        try:
            self._session: Any = runtime.InferenceSession(metric.model_bytes(), options, providers=providers)
        except MetricError:
            raise
        except Exception as error:  # the runtime raises types of its own
            raise MetricError(f"{metric.path} does not load in ONNX Runtime: {str(error).splitlines()[0]}") from error
        self.provider: str = self._session.get_providers()[0]
        if device == "cuda" and self.provider != CUDA:
            raise UsageError(f"a GPU was asked for, but ONNX Runtime fell back to {self.provider}")
        self.runtime_version: str = runtime.__version__
        # Other providers share one batch among threads of their own.
        self.threads = (threads or usable_processors()) if self.provider == CPU else 1
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
        """Bring an image ``(height, width)`` to what the graph takes, by the metric's rule (`deepssim.input_rule`)."""
        return self.metric.input.apply(pixels)

    def encode(self, prepared: Sequence[NDArray[np.float32]], *, threads: int | None = None) -> NDArray[np.float32]:
        """Embed images of the input's size.

        Args:
            prepared: Images ``(height, width)``.
            threads: Batches at a time; None: as many as this encoder may.

        Returns:
            ``(n, dim)`` float32, unit norm; a row is zero or not finite where the image has no structure.
        """
        out = np.empty((len(prepared), self.metric.dim), np.float32)
        size = self.batch
        starts = range(0, len(prepared), size)
        n_threads = min(threads or self.threads, self.threads, len(starts))
        if n_threads < 2:
            for start in starts:
                self._encode_batch(prepared[start : start + size], out[start : start + size])
            return out
        with ThreadPoolExecutor(n_threads, thread_name_prefix="deepssim-embed") as pool:
            tasks = [
                pool.submit(self._encode_batch, prepared[start : start + size], out[start : start + size])
                for start in starts
            ]
            for task in tasks:
                task.result()
        return out

    def encode_gallery(
        self, prepared: Sequence[NDArray[np.float32]], *, threads: int | None = None
    ) -> NDArray[np.float32]:
        """Embed images that are searched: as `encode` does, in the views of the metric (`deepssim.gallery`), if any."""
        views = self.metric.gallery
        if views is None:
            return self.encode(prepared, threads=threads)
        seen = [np.ascontiguousarray(view) for image in prepared for view in views.of(image)]
        return views.mean(self.encode(seen, threads=threads))

    def _encode_batch(self, images: Sequence[NDArray[np.float32]], out: NDArray[np.float32]) -> None:
        metric = self.metric
        batch = np.zeros((self.batch, 1, metric.height, metric.width), np.float32)
        for i, image in enumerate(images):
            batch[i, 0] = image
        (result,) = self._session.run([self._output], {self._input: batch})
        if result.shape != (self.batch, metric.dim):
            raise MetricError(f"{metric.path} returned {result.shape}, its metadata says dim {metric.dim}")
        out[:] = result[: len(images)]
