"""Metric bundles out of somebody's encoder in ONNX, or out of pixels alone.

An encoder takes images ``(n, 1 or 3, height, width)`` and returns embeddings. Its bundle takes raw grey images and
returns rows of unit norm: grey values are scaled and repeated before it, rows centred and scaled behind it, all inside
one graph, which is run in ONNX Runtime before it is written.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepssim import __version__
from deepssim.bundle.encoder import OnnxEncoder, read_onnx_encoder
from deepssim.bundle.graph_parts import Parts
from deepssim.calibration import SUFFIX, Calibration
from deepssim.disk import replacing
from deepssim.embed import NORM_TOLERANCE, Graph
from deepssim.errors import MetricError, UsageError
from deepssim.extras import require
from deepssim.input_rule import InputRule
from deepssim.metric import METADATA_KEY, SIMILARITIES
from deepssim.phantom import make_cohort

__all__ = [
    "INTENSITIES",
    "Bundled",
    "Normalisation",
    "bundle_encoder",
    "bundle_pixels",
    "pixel_bundle",
    "write_thresholds",
]

# Grey values that a rule of intensity starts from: those of the file, or 0 to 255.
_GREY = {
    "none": "raw", "unit": "byte", "imagenet": "byte", "clip": "byte", "z-score": "raw", "min-max": "raw",
}  # fmt: skip
INTENSITIES = tuple(_GREY)
OPSET = 18
_IR_VERSION = 8
# Elements of an embedding that the search takes.
_MAX_DIM = 65_536
# How far an element may be from what the same image alone gives.
_LARGEST_DIFFERENCE = 1e-3
_BATCHES = (1, 2, 7)
_MOST_IMAGES = 64
_PHANTOMS = (8, 2)
_PREFIX = "encoder/"


@dataclass(frozen=True, slots=True)
class Normalisation:
    """What is subtracted from grey values in [0, 1] and what they are divided by, one number for each channel.

    Raises:
        ValueError: Not one or three numbers of each, or a deviation that is not positive.
    """

    means: tuple[float, ...]
    deviations: tuple[float, ...]

    def __post_init__(self) -> None:
        """Check the numbers."""
        if len(self.means) != len(self.deviations) or len(self.means) not in (1, 3):
            raise ValueError(f"{len(self.means)} means and {len(self.deviations)} deviations: give 1 or 3 of each")
        if not np.isfinite([*self.means, *self.deviations]).all() or min(self.deviations) <= 0:
            raise ValueError("means are finite numbers, deviations positive ones")

    def __str__(self) -> str:
        means, deviations = (", ".join(f"{n:g}" for n in numbers) for numbers in (self.means, self.deviations))
        return f"mean {means}, deviation {deviations}"


# Of torchvision's ImageNet weights, and of the images that CLIP was trained on.
NORMALISATIONS = {
    "imagenet": Normalisation((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "clip": Normalisation((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
}


@dataclass(frozen=True, slots=True)
class Bundled:
    """What was written.

    Attributes:
        path: The bundle.
        name: Of the metric.
        dim: Elements of an embedding.
        n_bytes: Of the file.
        median_score: Of all pairs of 16 drawn slices of a head of eight people: near 1, the metric hardly tells images
            apart.
    """

    path: Path
    name: str
    dim: int
    n_bytes: int
    median_score: float


def bundle_encoder(
    encoder: Path,
    path: Path,
    *,
    size: tuple[int, int] | None = None,
    intensity: str = "imagenet",
    normalisation: Normalisation | None = None,
    similarity: str = "cosine",
    resize: str = "area",
    grey: str | None = None,
    channels: int | None = None,
    output: str | None = None,
    name: str | None = None,
    description: str = "",
    licence: str = "",
) -> Bundled:
    """Make a metric bundle of an encoder in ONNX.

    Args:
        encoder: ``.onnx``: float32 or float16 ``(n, 1 or 3, height, width)`` to ``(n, dim)`` or ``(n, dim, 1, 1)``.
        path: The bundle.
        size: Rows and columns of its input; None: those that the encoder wants.
        intensity: One of `INTENSITIES`: ``"imagenet"``, ``"clip"`` (grey values in [0, 1], normalised for each
            channel), ``"unit"`` (in [0, 1]), ``"z-score"``, ``"min-max"`` (of each image) or ``"none"`` (as read).
        normalisation: Of grey values in [0, 1], with ``"unit"``; None: none.
        similarity: One of `deepssim.metric.SIMILARITIES`.
        resize: One of `deepssim.input_rule.RESIZES`.
        grey: One of `deepssim.input_rule.GREYS`; None: what the intensity starts from.
        channels: 1 or 3; None: those that the encoder says.
        output: Name of the output that holds the embedding; None: the only one.
        name: Of the metric; None: the file's.
        description: One sentence.
        licence: Of the weights.

    Raises:
        UsageError: An option is none that is known, or does not go with the encoder.
        MetricError: The encoder must not or cannot be run, or does not return embeddings; nothing is written.
    """
    _check_choices(intensity, similarity, normalisation)
    taken = read_onnx_encoder(encoder, size=size, channels=channels, output=output)
    rule = _rule(taken.size, resize, grey or _GREY[intensity])
    named = normalisation or NORMALISATIONS.get(intensity)
    if named is not None and len(named.means) > taken.channels:
        raise UsageError(
            f"{encoder} takes one channel, and the intensity {intensity} is for three: choose unit, z-score or "
            "min-max, or --mean and --std of one number"
        )
    made = _surrounded(taken, intensity, named, similarity)
    metadata = {
        "name": name or path.stem, "intensity": f"unit, {normalisation}" if normalisation else intensity,
        "similarity": similarity, "description": description, "licence": licence,
        "provenance": f"An encoder in ONNX, SHA-256 {taken.hash}; bundled with DeepSSIM {__version__}.",
    }  # fmt: skip
    wanted = taken.output_shape[1] if taken.output_shape else None
    dim, median = _run(Graph(_serialised(made, encoder)), rule, str(encoder), wanted)
    return _written(_finished(made, rule, metadata, dim), path, metadata["name"], dim, median)


def _serialised(model: Any, encoder: Path) -> bytes:
    try:
        return bytes(model.SerializeToString())
    except ValueError as error:  # of protobuf
        raise MetricError(f"{encoder} makes no bundle of less than 2 GiB") from error


def bundle_pixels(
    path: Path,
    size: tuple[int, int],
    *,
    similarity: str = "l2",
    resize: str = "area",
    grey: str = "byte",
    name: str | None = None,
    description: str = "",
) -> Bundled:
    """Make a metric bundle whose embedding is the image itself, of unit norm: no encoder.

    Args:
        path: The bundle.
        size: Rows and columns that images are brought to.
        similarity: One of `deepssim.metric.SIMILARITIES`.
        resize: One of `deepssim.input_rule.RESIZES`.
        grey: One of `deepssim.input_rule.GREYS`.
        name: Of the metric; None: the file's.
        description: One sentence.

    Raises:
        UsageError: An option is none that is known, or the embedding would be too long.
    """
    _check_choices("none", similarity, None)
    rule = _rule(size, resize, grey)
    if size[0] * size[1] > _MAX_DIM:
        raise UsageError(
            f"{size[0]} x {size[1]} pixels are {size[0] * size[1]:,} elements of an embedding: at most {_MAX_DIM:,}"
        )
    told = {"name": name or path.stem, "description": description, "provenance": f"No weights; DeepSSIM {__version__}."}
    data = pixel_bundle(rule, similarity, told)
    _, median = _run(Graph(data), rule, "the graph", size[0] * size[1])
    return _written(data, path, told["name"], size[0] * size[1], median)


def pixel_bundle(rule: InputRule, similarity: str, told: dict[str, str]) -> bytes:
    """Return a bundle whose embedding is the image; one that is constant becomes zeros.

    Args:
        rule: What happens to an image before.
        similarity: One of `deepssim.metric.SIMILARITIES`.
        told: Name, description and provenance, for the metadata.

    Returns:
        The file; the same bytes for the same arguments.

    Example:
        >>> len(pixel_bundle(InputRule(2, 3), "l2", {"name": "six"})) < 4096
        True
    """
    parts = Parts(OPSET, "")
    flat = parts.node("Flatten", ["image"], axis=1)
    unit = parts.unit_rows(flat, is_centred=similarity == "correlation")
    embedding = parts.without_flat(unit, flat)
    opset = require("onnx", "cpu").helper.make_opsetid("", OPSET)
    metadata = {**told, "intensity": rule.grey, "similarity": similarity, "licence": "MIT"}
    return _finished(
        _model(parts.nodes, parts.constants, embedding, rule.size, [opset]), rule, metadata, rule.height * rule.width
    )


def write_thresholds(bundle: Path, calibration: Calibration, name: str) -> Path:
    """Write thresholds beside a bundle, where it finds them; returns the file.

    Args:
        bundle: The ``.onnx`` file.
        calibration: The thresholds.
        name: Of the bundle's metric.
    """
    path = bundle.with_suffix(SUFFIX)
    with replacing(path) as temporary:
        replace(calibration, metric=name).write(temporary)
    return path


def _check_choices(intensity: str, similarity: str, normalisation: Normalisation | None) -> None:
    for what, value, known in (("intensity", intensity, INTENSITIES), ("similarity", similarity, SIMILARITIES)):
        if value not in known:
            raise UsageError(f"unknown {what} {value!r}: {', '.join(known)}")
    if normalisation is not None and intensity != "unit":
        raise UsageError(f"means and deviations are of the intensity unit, and the intensity is {intensity}")


def _rule(size: tuple[int, int], resize: str, grey: str) -> InputRule:
    try:
        return InputRule(*size, resize, grey)
    except ValueError as error:
        raise UsageError(str(error)) from error


def _surrounded(taken: OnnxEncoder, intensity: str, named: Normalisation | None, similarity: str) -> Any:
    """Return the encoder with what stands before and behind it."""
    onnx = require("onnx", "cpu")
    before, behind = Parts(taken.opset, "before/"), Parts(taken.opset, "behind/")
    fed = {"none": _as_it_is, "z-score": Parts.z_score, "min-max": Parts.min_max}.get(intensity, _unit)(before, "image")
    if named is not None:
        fed = before.normalised(fed, named.means, named.deviations)
    if taken.channels > 1 and (named is None or len(named.means) == 1):
        fed = before.node("Concat", [fed] * taken.channels, axis=1)
    if taken.input_type != onnx.TensorProto.FLOAT:
        fed = before.node("Cast", [fed], to=taken.input_type)
    # So that no name of theirs is one of ours.
    inner = onnx.compose.add_prefix(taken.model, _PREFIX, inplace=True).graph
    feeding = onnx.helper.make_node("Identity", [fed], [_PREFIX + taken.input])
    found = _PREFIX + taken.output
    if taken.output_type != onnx.TensorProto.FLOAT:
        found = behind.node("Cast", [found], to=onnx.TensorProto.FLOAT)
    # Rows, where it is (n, dim, 1, 1); where its shape is not said, a row of all that there is.
    if taken.output_shape is None or len(taken.output_shape) != 2:
        found = behind.node("Flatten", [found], axis=1)
    embedding = behind.unit_rows(found, is_centred=similarity == "correlation")
    made = _model(
        [*before.nodes, feeding, *inner.node, *behind.nodes],
        [*before.constants, *inner.initializer, *behind.constants],
        embedding, taken.size, list(taken.model.opset_import),
    )  # fmt: skip
    made.graph.sparse_initializer.extend(inner.sparse_initializer)
    made.ir_version = max(_IR_VERSION, taken.model.ir_version)
    return made


def _as_it_is(_: Parts, given: str) -> str:
    return given


def _unit(parts: Parts, given: str) -> str:
    return parts.node("Div", [given, parts.constant(255.0)])


def _model(
    nodes: Sequence[Any], constants: Sequence[Any], embedding: str, size: tuple[int, int], opsets: Sequence[Any]
) -> Any:
    onnx = require("onnx", "cpu")
    types, helper = onnx.TensorProto, onnx.helper
    graph = helper.make_graph(
        [*nodes, helper.make_node("Identity", [embedding], ["embedding"])],
        "metric",
        [helper.make_tensor_value_info("image", types.FLOAT, ["n", 1, *size])],
        [helper.make_tensor_value_info("embedding", types.FLOAT, ["n", "dim"])],
        constants,
    )
    model = helper.make_model(graph, opset_imports=list(opsets), producer_name="deepssim")
    model.ir_version = _IR_VERSION
    return model


def _finished(model: Any, rule: InputRule, metadata: dict[str, Any], dim: int) -> bytes:
    """Return the file of a model with its metadata."""
    model.graph.output[0].type.tensor_type.shape.dim[1].dim_value = dim
    entry = {**metadata, "dim": dim, "input": rule.as_metadata()}
    require("onnx", "cpu").helper.set_model_props(model, {METADATA_KEY: json.dumps(entry, sort_keys=True)})
    return bytes(model.SerializeToString(deterministic=True))


def _written(data: bytes, path: Path, name: str, dim: int, median: float) -> Bundled:
    with replacing(path) as temporary:
        temporary.write_bytes(data)
    return Bundled(path, name, dim, len(data), median)


@cache
def _drawn() -> tuple[NDArray[np.float32], ...]:
    """Return slices of heads, always the same."""
    return tuple(image for _, _, image in make_cohort(*_PHANTOMS, seed=0))


def _run(graph: Graph, rule: InputRule, source: str, wanted: int | None) -> tuple[int, float]:
    """Return the dimension and the median score of drawn images, of a graph that does what a bundle must."""
    drawn = [rule.apply(image) for image in _drawn()]
    rng = np.random.default_rng(0)
    noise = rng.random((_MOST_IMAGES - len(drawn), *rule.size), np.float32) * 255
    images = np.concatenate([np.stack(drawn), noise])[:, None]
    rows = _embedded(graph, images, source)
    if rows.ndim != 2 or len(rows) != len(images):
        raise MetricError(f"{source} returns {rows.shape} for {len(images)} images, not a row of numbers for each")
    most = wanted or _MAX_DIM
    if rows.shape[1] > most:
        raise MetricError(
            f"{source} returns {rows.shape[1]:,} numbers for an image, more than {most:,}: features at every place? "
            "let it pool them to one row"
        )
    norms = np.linalg.norm(rows.astype(np.float64), axis=1)
    if n_bad := int((~(np.abs(norms - 1) <= NORM_TOLERANCE)).sum()):
        raise MetricError(
            f"{source} returns no direction for {n_bad} of {len(rows)} test images: zeros, NaN or infinite; "
            "is the intensity the one that it was trained with?"
        )
    for n in _BATCHES:
        difference = float(np.abs(_embedded(graph, images[:n], source) - rows[:n]).max())
        if not difference <= _LARGEST_DIFFERENCE:
            raise MetricError(
                f"{source} returns another embedding of an image among {n} than among {len(images)} (by "
                f"{difference:.2g}): "
                "export it in evaluation mode, and without what looks at the whole batch"
            )
    scores = rows[: len(drawn)].astype(np.float64) @ rows[: len(drawn)].T
    return rows.shape[1], float(np.median(scores[np.triu_indices(len(drawn), 1)]))


def _embedded(graph: Graph, images: NDArray[np.float32], source: str) -> NDArray[np.float32]:
    try:
        return graph(images)
    except Exception as error:  # the runtime raises types of its own
        raise MetricError(
            f"{source} does not run on {len(images)} images at a time: {str(error).splitlines()[0][:300]}; "
            "export it for batches of any length"
        ) from error
