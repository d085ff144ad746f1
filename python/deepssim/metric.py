"""A metric is a file: an ONNX bundle whose metadata says what to feed it.

The graph takes raw float32 grey images ``(n, 1, height, width)`` and returns ``(n, dim)`` embeddings of
unit norm; intensity rule, network, centring and normalisation are inside. The metadata entry
``deepssim.metric`` (JSON) names what happens to an image before (`deepssim.input_rule`), similarity, provenance and
licence. The bundle's hash is the SHA-256 of the file, so it covers graph, weights and preprocessing.

A score is the inner product of two embeddings, whatever the similarity: a correlation is that of rows which the graph
has centred, and an L2 distance of unit rows is ``sqrt(2 - 2 s)``, by which it is shown and told.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from deepssim.calibration import Calibration, Threshold
from deepssim.errors import MetricError, UsageError
from deepssim.extras import require
from deepssim.gallery import GalleryViews
from deepssim.input_rule import InputRule

__all__ = [
    "ALLOWED_DOMAINS",
    "DEFAULT_METRIC",
    "MAX_BUNDLE_BYTES",
    "METADATA_KEY",
    "SIMILARITIES",
    "Metric",
    "given_thresholds",
    "installed_metrics",
    "l2_distance",
    "l2_score",
    "load_metric",
    "refuse_unsafe",
]

METADATA_KEY = "deepssim.metric"
DEFAULT_METRIC = "pixel"
SIMILARITIES = ("cosine", "correlation", "l2")
# Operators of these domains run in every build of ONNX Runtime; custom ones load code.
ALLOWED_DOMAINS = frozenset({"", "ai.onnx", "ai.onnx.ml", "com.microsoft"})
MAX_BUNDLE_BYTES = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Metric:
    """What is known of a bundle without running it.

    Attributes:
        name: Short name, for example ``"pixel"``.
        path: The ``.onnx`` file.
        hash: SHA-256 of the file, hexadecimal.
        input: What happens to an image before the graph.
        dim: Elements of an embedding.
        similarity: ``"cosine"``, ``"correlation"`` (the graph subtracts the mean of each row) or ``"l2"`` (shown as a
            distance); the score is the inner product of two embeddings in each.
        intensity: What the graph does to grey values, in a word.
        description: One sentence.
        provenance: How the bundle was made.
        licence: Of the weights.
        layout: Rows and columns of an embedding that is an image itself, which can be seen in other ways; None: it
            is none.
        gallery: How real images are seen; None: as they are.
    """

    name: str
    path: Path
    hash: str
    input: InputRule
    dim: int
    similarity: str
    intensity: str
    description: str
    provenance: str
    licence: str
    layout: tuple[int, int] | None = None
    gallery: GalleryViews | None = None

    @property
    def height(self) -> int:
        """Rows of the input, in pixels."""
        return self.input.height

    @property
    def width(self) -> int:
        """Columns of the input, in pixels."""
        return self.input.width

    @property
    def resize(self) -> str:
        """How an image of another size is brought to the input's: one of `deepssim.input_rule.RESIZES`."""
        return self.input.resize

    def calibration(self, views: str | None = None) -> Calibration:
        """Read the thresholds that lie beside the bundle.

        Args:
            views: How synthetic images are seen; ``NAME.calibration.json`` holds the thresholds of a metric's default
                views, ``NAME.views-none.calibration.json`` and so on those of others. None: the default views.

        Raises:
            MetricError: There are none.
        """
        special = self.path.with_suffix(f".views-{views}.calibration.json")
        default = self.path.with_suffix(".calibration.json")
        if special.is_file():
            return Calibration.read(special)
        if default.is_file():
            calibration = Calibration.read(default)
            if views is None or calibration.views in (None, views):
                return calibration
        of = f" for --views {views}" if views not in (None, "none") else ""
        raise MetricError(
            f"the metric {self.name} has no thresholds of its own{of}; give them with --thresholds NEAR,EXACT"
        )

    def model_bytes(self) -> bytes:
        """Return the bundle's bytes, checked against the hash that was read before."""
        data = _read_bundle(self.path)
        if hashlib.sha256(data).hexdigest() != self.hash:
            raise MetricError(f"{self.path} changed while it was in use; start again")
        return data


def installed_metrics() -> list[str]:
    """Return the names of the metrics that come with the package."""
    folder = resources.files("deepssim") / "metrics"
    return sorted(f.name.removesuffix(".onnx") for f in folder.iterdir() if f.name.endswith(".onnx"))


def load_metric(name_or_path: str) -> Metric:
    """Read a bundle by the name of an installed metric or the path of an ``.onnx`` file.

    Raises:
        MetricError: Unknown, unreadable, or a bundle that must not be run (external data, custom
            operators, no metadata of ours).
        MissingDependencyError: The onnx package is not installed.

    Example:
        >>> load_metric("pixel").layout
        (32, 28)
    """
    names = installed_metrics()
    if name_or_path in names:
        with resources.as_file(resources.files("deepssim") / "metrics" / f"{name_or_path}.onnx") as path:
            return _inspect(path)
    path = Path(name_or_path)
    if path.suffix != ".onnx":
        raise UsageError(
            f"unknown metric {name_or_path!r}; installed: {', '.join(names)}; or give the path of an .onnx bundle"
        )
    return _inspect(path)


def _read_bundle(path: Path) -> bytes:
    try:
        if path.stat().st_size > MAX_BUNDLE_BYTES:
            raise MetricError(f"{path} is larger than an ONNX file can be (2 GiB)")
        return path.read_bytes()
    except OSError as error:
        raise MetricError(f"the metric bundle {path} cannot be read: {error.strerror}") from error


def _inspect(path: Path) -> Metric:
    onnx = require("onnx", "cpu")
    data = _read_bundle(path)
    try:
        model = onnx.load_model_from_string(data)
    except Exception as error:  # the parser raises types of its own
        raise MetricError(f"{path} is not an ONNX file") from error
    refuse_unsafe(model, path)
    described = _metadata(model, path)
    try:
        metric = Metric(
            name=str(described["name"]),
            path=path,
            hash=hashlib.sha256(data).hexdigest(),
            input=InputRule.from_metadata(described["input"]),
            dim=int(described["dim"]),
            similarity=str(described["similarity"]),
            intensity=str(described.get("intensity", "")),
            description=str(described.get("description", "")),
            provenance=str(described.get("provenance", "")),
            licence=str(described.get("licence", "")),
            layout=_layout(described.get("layout")),
            gallery=GalleryViews.from_metadata(described.get("gallery")),
        )
    except (AttributeError, KeyError, OverflowError, TypeError, ValueError) as error:
        raise MetricError(f"the metadata of {path} lacks or garbles {error}") from error
    if metric.similarity not in SIMILARITIES:
        raise MetricError(
            f"{path} asks for the similarity {metric.similarity!r}, which this version does not know: "
            f"{', '.join(SIMILARITIES)}"
        )
    if metric.dim < 1:
        raise MetricError(f"{path} names a size below 1")
    if metric.layout is not None and (min(metric.layout) < 1 or metric.layout[0] * metric.layout[1] != metric.dim):
        raise MetricError(f"{path} names a layout that is not of {metric.dim} elements")
    return metric


def _layout(described: Any) -> tuple[int, int] | None:
    if described is None:
        return None
    rows, columns = described
    return int(rows), int(columns)


def _metadata(model: Any, path: Path) -> dict[str, Any]:
    for entry in model.metadata_props:
        if entry.key == METADATA_KEY:
            try:
                value = json.loads(entry.value)
            except ValueError as error:
                raise MetricError(f"the metadata of {path} is not JSON") from error
            if isinstance(value, dict):
                return value
    raise MetricError(f"{path} has no {METADATA_KEY} metadata: it is an ONNX file, but not a metric bundle")


def refuse_unsafe(model: Any, path: Path) -> None:
    """Refuse an ONNX model that could load code or other files.

    Args:
        model: As the onnx package has it.
        path: Where it comes from, for the error.

    Raises:
        MetricError: It uses operators of strangers, has functions of its own or keeps weights in other files; the
            message says how such a file is made into one that runs.
    """
    graphs, domains, is_external = [model.graph], {entry.domain for entry in model.opset_import}, False
    while graphs:
        graph = graphs.pop()
        tensors = list(graph.initializer) + [s.values for s in graph.sparse_initializer]
        for node in graph.node:
            domains.add(node.domain)
            for attribute in node.attribute:
                tensors += [attribute.t, *attribute.tensors]
                graphs += [attribute.g, *attribute.graphs] if attribute.type in (5, 10) else []
        is_external |= any(tensor.external_data or tensor.data_location == 1 for tensor in tensors)
    if model.functions:
        raise MetricError(
            f"{path} defines functions of its own: not a bundle that is safe to run; "
            "onnx.inliner.inline_local_functions(model) writes them out"
        )
    if foreign := domains - ALLOWED_DOMAINS:
        raise MetricError(
            f"{path} uses operators of {', '.join(sorted(foreign))}, which load code: not safe to run; export it with "
            "operators of ONNX alone"
        )
    if is_external:
        raise MetricError(
            f"{path} keeps weights in other files; a bundle is one file: "
            "onnx.save_model(onnx.load(PATH), OUT, save_as_external_data=False) makes one of it"
        )


def l2_distance(score: float) -> float:
    """Return the Euclidean distance of two unit rows from their inner product.

    Example:
        >>> l2_distance(1.0), l2_distance(0.5)
        (0.0, 1.0)
    """
    return math.sqrt(max(0.0, 2.0 - 2.0 * score))


def l2_score(distance: float) -> float:
    """Return the inner product of two unit rows at a Euclidean distance.

    Args:
        distance: From 0 (equal) to 2 (opposite).

    Raises:
        UsageError: It is none of these.

    Example:
        >>> l2_score(1.0)
        0.5
    """
    if not 0 <= distance <= 2:  # False for NaN
        raise UsageError(f"a distance of two embeddings of unit norm is from 0 to 2, not {distance:g}")
    return 1.0 - distance * distance / 2.0


def given_thresholds(name: str, near: float, exact: float, similarity: str, source: str) -> Calibration:
    """Return a calibration of two thresholds that a user gave.

    Args:
        name: Of the metric.
        near: Scores from here on, or distances up to here where the similarity is ``"l2"``.
        exact: Likewise.
        similarity: Of the metric.
        source: Where they come from, in a few words.

    Raises:
        UsageError: They are in the wrong order, or no distances.

    Example:
        >>> given_thresholds("ums", 1.0, 0.5, "l2", "mine").near.value
        0.5
    """
    if similarity != "l2":
        return Calibration(name, Threshold(near), Threshold(exact), source=source)
    if near < exact:
        raise UsageError(
            f"thresholds of an L2 metric are distances: the near one ({near:g}) over the exact one ({exact:g})"
        )
    return Calibration(
        name, Threshold(l2_score(near)), Threshold(l2_score(exact)), source=source,
        how=f"near up to an L2 distance of {near:g}, exact up to {exact:g}; kept as inner products",
    )  # fmt: skip
