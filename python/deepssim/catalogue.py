"""Which metrics there are: those that are installed or lie in a file, and those that a command makes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deepssim.calibration import SUFFIX, Calibration, Threshold, installed_calibrations, load_calibration
from deepssim.errors import MetricError, UsageError
from deepssim.metric import Metric, installed_metrics, l2_distance, load_metric

__all__ = ["OBTAINABLE", "Obtainable", "describe_metric", "describe_thresholds", "find_metrics"]


@dataclass(frozen=True, slots=True)
class Obtainable:
    """A metric whose weights do not come with the package.

    Attributes:
        name: Of the metric, and of its installed calibration.
        description: One sentence.
        input: What it is fed.
        similarity: One of `deepssim.metric.SIMILARITIES`.
        command: What makes its bundle.
        needs: What that takes.
        licence: Of the weights.
    """

    name: str
    description: str
    input: str
    similarity: str
    command: str
    needs: str
    licence: str


OBTAINABLE = (
    Obtainable(
        "chen",
        "SSCD, a descriptor for copy detection in photographs (Pizzi et al., CVPR 2022, arXiv 2202.10261).",
        "288 x 288, adaptive; byte grey, three channels, imagenet",
        "cosine",
        "deepssim export --sscd sscd_disc_mixup.torchscript.pt --out chen.onnx",
        "the file of https://github.com/facebookresearch/sscd-copy-detection, 94 MiB",
        "MIT",
    ),
    Obtainable(
        "dar",
        "ResNet-50 that contrastive learning taught on the real images themselves (Dar et al., arXiv 2402.01054).",
        "as trained; grey values in [0, 1]",
        "correlation",
        "deepssim train dar --dataset-images-dir REAL/ --exp-name dar, then "
        "deepssim export --dar runs/dar/best.safetensors --out dar.onnx",
        "your real images; or somebody's state dict: deepssim export --dar FILE.pth --size HxW --out dar.onnx",
        "yours",
    ),
    Obtainable(
        "deepssim",
        "DeepSSIM, taught to answer SSIM (arXiv 2509.16582).",
        "136 x 112, area; grey as read, z-score",
        "cosine",
        "deepssim export --from-torchscript best_model_jit.pt --out deepssim.onnx",
        "its published checkpoint; or your own: deepssim train",
        "of the checkpoint",
    ),
    Obtainable(
        "deepssimpp",
        "DeepSSIM++, taught to answer SSIM after registration (arXiv 2609.03615).",
        "136 x 112, area; grey as read, z-score",
        "cosine",
        "deepssim export --from-torchscript best_model_jit.pt --out deepssimpp.onnx",
        "its published checkpoint; or your own: deepssim train",
        "of the checkpoint",
    ),
    Obtainable(
        "semdedup",
        "The image encoder of an OpenCLIP model, such as BiomedCLIP (Abbas et al., arXiv 2303.09540).",
        "of the model, clip; byte grey, three channels, the model's mean and deviation",
        "cosine",
        "deepssim export --openclip MODEL --weights FILE --out semdedup.onnx",
        "weights of the model in a file, or a network and --weights TAG",
        "of the weights",
    ),
)


def find_metrics(places: list[Path]) -> tuple[list[Metric], list[str]]:
    """Return the metrics of bundles and folders, the installed ones where none is given.

    Args:
        places: ``.onnx`` files, and folders of them.

    Returns:
        The metrics, and why files of a folder are none.

    Raises:
        UsageError: A place does not exist.
        MetricError: A file that was named is no bundle.

    Example:
        >>> [metric.name for metric in find_metrics([])[0] if metric.name == "pixel"]
        ['pixel']
    """
    if not places:
        return [load_metric(name) for name in installed_metrics()], []
    if missing := [str(place) for place in places if not place.exists()]:
        raise UsageError(f"{', '.join(missing)}: no such file or folder; without one the installed metrics are listed")
    metrics, faults = [], []
    for place in places:
        if not place.is_dir():
            metrics.append(load_metric(str(place)))
            continue
        for path in sorted(place.glob("*.onnx")):
            try:
                metrics.append(load_metric(str(path)))
            except MetricError as error:
                faults.append(str(error))
    return metrics, faults


def describe_metric(metric: Metric) -> dict[str, Any]:
    """Return what is told of a metric: input, similarity, thresholds with their source, licence."""
    own = metric.path.with_suffix(SUFFIX)
    is_installed = metric.name in installed_metrics() and load_metric(metric.name).hash == metric.hash
    others = [
        name
        for name in installed_calibrations()
        if name != metric.name and load_calibration(name).metric == metric.name
    ]
    return {
        "name": metric.name,
        "path": None if is_installed else str(metric.path),
        "description": metric.description,
        "input": metric.input.as_metadata(),
        "intensity": metric.intensity,
        "similarity": metric.similarity,
        "dim": metric.dim,
        "thresholds": describe_thresholds(Calibration.read(own), metric.similarity) if own.is_file() else None,
        "calibrations": others if is_installed else [],
        "provenance": metric.provenance,
        "licence": metric.licence,
        "hash": metric.hash,
    }


def describe_thresholds(calibration: Calibration, similarity: str) -> dict[str, Any]:
    """Return both thresholds with comparison and source; of an L2 metric the distances too.

    Example:
        >>> describe_thresholds(load_calibration("chen"), "cosine")["near"]
        {'value': 0.4, 'comparison': '>'}
    """

    def told(threshold: Threshold) -> dict[str, Any]:
        distance = {"distance": l2_distance(threshold.value)} if similarity == "l2" else {}
        return {"value": threshold.value, "comparison": threshold.comparison, **distance}

    return {
        "near": told(calibration.near),
        "exact": told(calibration.exact),
        "source": calibration.source,
        "how": calibration.how,
        "domain": calibration.domain,
    }
