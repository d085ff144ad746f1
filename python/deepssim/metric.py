"""A metric is a file: an ONNX bundle whose metadata says what to feed it.

The graph takes raw float32 grey images ``(n, 1, height, width)`` and returns ``(n, dim)`` embeddings of
unit norm; intensity rule, network, centring and normalisation are inside. The metadata entry
``deepssim.metric`` (JSON) names size, host-side resize, similarity, provenance and licence. The bundle's
hash is the SHA-256 of the file, so it covers graph, weights and preprocessing.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from deepssim.calibration import Calibration
from deepssim.errors import MetricError, UsageError
from deepssim.extras import require
from deepssim.gallery import GalleryViews

METADATA_KEY = "deepssim.metric"
DEFAULT_METRIC = "pixel"
SIMILARITIES = ("cosine",)
RESIZES = ("area",)
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
        height: Rows of the input, in pixels.
        width: Columns of the input, in pixels.
        dim: Elements of an embedding.
        similarity: ``"cosine"``: the inner product of two embeddings.
        resize: How an image of another size is brought to the input's: ``"area"``.
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
    height: int
    width: int
    dim: int
    similarity: str
    resize: str
    description: str
    provenance: str
    licence: str
    layout: tuple[int, int] | None = None
    gallery: GalleryViews | None = None

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
    _refuse_unsafe(model, path)
    described = _metadata(model, path)
    try:
        metric = Metric(
            name=str(described["name"]),
            path=path,
            hash=hashlib.sha256(data).hexdigest(),
            height=int(described["input"]["height"]),
            width=int(described["input"]["width"]),
            dim=int(described["dim"]),
            similarity=str(described["similarity"]),
            resize=str(described["input"]["resize"]),
            description=str(described.get("description", "")),
            provenance=str(described.get("provenance", "")),
            licence=str(described.get("licence", "")),
            layout=_layout(described.get("layout")),
            gallery=GalleryViews.from_metadata(described.get("gallery")),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise MetricError(f"the metadata of {path} lacks or garbles {error}") from error
    if metric.similarity not in SIMILARITIES or metric.resize not in RESIZES:
        raise MetricError(f"{path} asks for {metric.similarity}/{metric.resize}, which this version does not know")
    if min(metric.height, metric.width, metric.dim) < 1:
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


def _refuse_unsafe(model: Any, path: Path) -> None:
    foreign = {o.domain for o in model.opset_import} - ALLOWED_DOMAINS
    if foreign:
        raise MetricError(f"{path} uses operators of {', '.join(sorted(foreign))}: not a bundle that is safe to run")
    graphs = [model.graph]
    if model.functions:
        raise MetricError(f"{path} defines functions of its own: not a bundle that is safe to run")
    while graphs:
        graph = graphs.pop()
        tensors = list(graph.initializer) + [s.values for s in graph.sparse_initializer]
        for node in graph.node:
            if node.domain not in ALLOWED_DOMAINS:
                raise MetricError(f"{path} uses the operator domain {node.domain}: not safe to run")
            for attribute in node.attribute:
                tensors += [attribute.t, *attribute.tensors]
                graphs += [attribute.g, *attribute.graphs] if attribute.type in (5, 10) else []
        if any(tensor.external_data or tensor.data_location == 1 for tensor in tensors):
            raise MetricError(f"{path} keeps weights in other files; a bundle is one file")
