"""Encoders in PyTorch to metric bundles in ONNX, compared before they are written.

The graph takes float32 grey images, any number at a time and of any size that the network can take; intensity rule and
normalisation are inside, what comes before is the metric's input rule. What PyTorch and ONNX Runtime make of the same
images may differ by `LARGEST_ERROR`, else nothing is written; nor is a graph in fewer bits that does not find the same
nearest images.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from deepssim import __version__
from deepssim.embed import Graph
from deepssim.errors import MetricError, UsageError
from deepssim.export.graphs import OPSET, to_onnx, write_graph
from deepssim.gallery import GalleryViews
from deepssim.images import Image, Listing, read_tasks
from deepssim.input_rule import InputRule
from deepssim.metric import METADATA_KEY
from deepssim.models.checkpoint import Description
from deepssim.models.convnext import ConvNext
from deepssim.phantom import make_cohort
from deepssim.precision import (
    LARGEST_SCORE_ERROR,
    LEAST_AGREEMENT,
    Agreement,
    check_images,
    compare_embeddings,
    reduce_graph,
)

__all__ = ["LARGEST_ERROR", "Exported", "export_encoder", "input_rule", "resized", "sample_images"]

LARGEST_ERROR = 1e-4
# Real images that are taken from a folder: all pairs of them are compared.
MOST_IMAGES = 1024
_BATCHES = (1, 2, 7, 32)
_N_GIVEN_BATCHES = 2
# People and slices that are drawn where no real images are given.
_PHANTOMS = (8, 2)
# Rows or columns below which the exporter need not keep a side variable.
_LEAST_SIDE = 32
# Added to a side, to see that the graph holds for other sizes: not a multiple of any stride.
_OTHER_SIZE = (9, 23)


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written.

    Attributes:
        path: The bundle.
        error: Largest difference of an element of an embedding between PyTorch and ONNX Runtime, in 32 bits.
        n_images: Real images that were compared beside random ones.
        n_bytes: Of the file.
        precision: One of `deepssim.precision.PRECISIONS`.
        agreement: Of a graph in fewer bits with the full one; None: it is the full one.
        is_any_size: Whether the graph also takes images of other sizes than the metric's.
        n_phantoms: Drawn images that were compared in place of real ones, where there were none.
    """

    path: Path
    error: float
    n_images: int
    n_bytes: int
    precision: str = "fp32"
    agreement: Agreement | None = None
    is_any_size: bool = True
    n_phantoms: int = 0


def export_encoder(
    encoder: nn.Module,
    description: Description,
    path: Path,
    *,
    name: str | None = None,
    text: str = "",
    provenance: str = "",
    licence: str = "",
    images: Sequence[NDArray[np.float32]] | NDArray[np.float32] = (),
    opset: int = OPSET,
    precision: str = "fp32",
    size: tuple[int, int] | None = None,
    rule: InputRule | None = None,
    gallery: GalleryViews | None = None,
) -> Exported:
    """Write an encoder as a metric bundle.

    Args:
        encoder: Grey images ``(n, 1, height, width)``, as the input rule makes them, to embeddings of unit norm; left
            as it is.
        description: Of it: size of the input, name, training.
        path: The ``.onnx`` file.
        name: Of the metric; None: the description's.
        text: One sentence on what it is.
        provenance: How it was made; empty: what the description says of it.
        licence: Of the weights.
        images: Real images, ``(height, width)``, that are compared too; those of the input's size count as prepared
            (`sample_images`), others are prepared by the input rule. Where there are none, phantoms are
            (`deepssim.phantom`): random pixels say little of how a network sees structure.
        opset: Version of ONNX operators.
        precision: One of `deepssim.precision.PRECISIONS`; all but ``"fp32"`` need real images.
        size: Rows and columns that images are brought to; None: those that the encoder was trained on.
        rule: What happens to images before; None: what the description says.
        gallery: How real images are seen; None: as they are.

    Raises:
        MetricError: PyTorch cannot export it, the graph's embeddings differ from the encoder's by more than
            `LARGEST_ERROR`, or in fewer bits other images are nearest.
        UsageError: Too few images for the precision, or a size that is none.
    """
    check_images(precision, len(images))
    reference = copy.deepcopy(encoder).cpu().float().eval()
    description = resized(description, size) if size else description
    rule = rule or input_rule(description)
    model, is_any_size = _graph(_folded(reference), rule.size, opset)
    real = _stacked([image if image.shape == rule.size else _prepared(image, rule) for image in images], rule)
    drawn = [] if len(real) else [_prepared(image, rule) for _, _, image in make_cohort(*_PHANTOMS, seed=0)]
    phantoms = _stacked(drawn, rule)
    batches = _batches(rule, np.concatenate([real, phantoms]), is_any_size)
    dim, error = _compare(reference, Graph(model.SerializeToString()), batches)
    model, agreement = (model, None) if precision == "fp32" else _reduced(model, precision, real)
    checked = {
        "opset": opset, "precision": precision, "largest_error": float(f"{error:.3g}"), "batches": list(_BATCHES),
        "n_images": len(real), "n_phantoms": len(phantoms), "agreement": asdict(agreement) if agreement else None,
        "torch": torch.__version__,
    }  # fmt: skip
    metadata = {
        **_metadata(description, rule, dim, provenance),
        "name": name or description.name, "description": text, "licence": licence, "export": checked,
        **({"gallery": gallery.as_metadata()} if gallery is not None else {}),
    }  # fmt: skip
    n_bytes = write_graph(model, METADATA_KEY, metadata, path)
    return Exported(path, error, len(real), n_bytes, precision, agreement, is_any_size, len(phantoms))


def resized(description: Description, size: tuple[int, int]) -> Description:
    """Return the description of an encoder that images of another size are fed to.

    Raises:
        UsageError: It is no size of an image.
    """
    try:
        return replace(description, height=size[0], width=size[1])
    except ValueError as error:
        raise UsageError(f"no encoder is exported at {size[0]} x {size[1]} pixels: {error}") from error


def input_rule(description: Description) -> InputRule:
    """Return what happens to images before an encoder.

    Raises:
        MetricError: The description names a rule that this version does not know.
    """
    try:
        return InputRule(description.height, description.width, description.resize, description.grey)
    except ValueError as error:
        raise MetricError(f"the encoder {description.name} wants an input that cannot be: {error}") from error


def sample_images(listing: Listing, size: tuple[int, int] | InputRule, most: int = MOST_IMAGES) -> NDArray[np.float32]:
    """Read images from all over a listing, so that no person or scanner is all of them.

    Args:
        listing: From `deepssim.images.list_images`.
        size: What happens to them, or rows and columns that they are brought to by area averaging.
        most: How many are read.

    Returns:
        ``(n, height, width)``, in the unit of the files unless the rule says otherwise.

    Raises:
        UsageError: None of them can be read.
    """
    rule = size if isinstance(size, InputRule) else InputRule(*size)
    n_tasks = len(listing.tasks)
    per_task = max(1.0, listing.n_expected / max(1, n_tasks))
    wanted = min(n_tasks, math.ceil(most / per_task))
    chosen = [listing.tasks[i] for i in np.linspace(0, n_tasks - 1, wanted).round().astype(int)] if wanted else []
    found = [
        _prepared(item.pixels, rule)
        for result in read_tasks(replace(listing, tasks=chosen))
        for item in result.items
        if isinstance(item, Image)
    ]
    if not found:
        raise UsageError(f"no image of {listing.source} can be read: name a folder of images")
    kept = np.linspace(0, len(found) - 1, min(most, len(found))).round().astype(int)
    return np.stack([found[i] for i in kept])


def _folded(encoder: nn.Module) -> nn.Module:
    """Return a copy whose stem takes the one grey channel, where it takes three."""
    folded = copy.deepcopy(encoder)
    if isinstance(folded, ConvNext):
        folded.fold_channels()
    return folded


def _metadata(description: Description, rule: InputRule, dim: int, provenance: str) -> dict[str, Any]:
    return {
        "input": rule.as_metadata(),
        "intensity": description.intensity,
        "similarity": description.similarity,
        "dim": dim,
        "provenance": provenance or _provenance(description),
        "training": description.training,
    }


def _provenance(description: Description) -> str:
    if published := description.training.get("published"):
        digest = description.training.get("sha256", "unknown")
        return (
            f"Published checkpoint of {published}, SHA-256 {digest}; rebuilt from its weights, DeepSSIM {__version__}."
        )
    if description.training.get("random"):
        return f"Architecture {description.architecture} with random weights, DeepSSIM {__version__}: for tests alone."
    return f"Architecture {description.architecture}, trained with DeepSSIM {__version__}."


def _graph(encoder: nn.Module, size: tuple[int, int], opset: int) -> tuple[Any, bool]:
    """Return the ONNX model, and whether it takes other sizes too."""
    batch = torch.export.Dim("n", min=1)
    if _takes_other_sizes(encoder, size):
        sides = {
            i: torch.export.Dim(side, min=min(_LEAST_SIDE, size[i - 2])) for i, side in ((2, "height"), (3, "width"))
        }
        try:
            model = _exported(encoder, size, opset, {0: batch, **sides})
        except torch.onnx.OnnxExporterError:
            pass  # it can, but the exporter cannot say how
        else:
            shape = model.graph.input[0].type.tensor_type.shape.dim
            return model, bool(shape[2].dim_param and shape[3].dim_param)
    try:
        return _exported(encoder, size, opset, {0: batch}), False
    except torch.onnx.OnnxExporterError as error:
        raise MetricError(f"PyTorch cannot export this network: {str(error).strip().splitlines()[0]}") from error


def _takes_other_sizes(encoder: nn.Module, size: tuple[int, int]) -> bool:
    """Return whether the network has no head that wants one size, such as a grid of features."""
    try:
        with torch.no_grad():
            encoder(torch.rand(1, 1, size[0] + _OTHER_SIZE[0], size[1] + _OTHER_SIZE[1]))
    except Exception:  # networks say so in whatever way they please
        return False
    return True


def _exported(encoder: nn.Module, size: tuple[int, int], opset: int, dynamic: dict[int, Any]) -> Any:
    # A batch of one would freeze the axis.
    return to_onnx(
        encoder, (torch.rand(2, 1, *size),), inputs=("image",), output="embedding", dynamic=(dynamic,), opset=opset
    )


def _stacked(images: Sequence[NDArray[np.float32]], rule: InputRule) -> NDArray[np.float32]:
    stacked = np.zeros((len(images), 1, *rule.size), np.float32)
    for i, image in enumerate(images):
        stacked[i, 0] = image
    return stacked


def _prepared(image: NDArray[np.float32], rule: InputRule) -> NDArray[np.float32]:
    return rule.apply(np.asarray(image, np.float32))


def _batches(rule: InputRule, given: NDArray[np.float32], is_any_size: bool) -> Iterator[NDArray[np.float32]]:
    """Yield random images in the units that there can be, and those given, so many at a time; some of another size."""
    rng, size = np.random.default_rng(0), rule.size
    units = [255.0] if rule.grey == "byte" else [1.0, 255.0, 4095.0]

    def random(n: int, height: int, width: int) -> NDArray[np.float32]:
        images = rng.random((n, 1, height, width)) * rng.choice(units, (n, 1, 1, 1))
        return np.asarray(images, np.float32)

    for n in _BATCHES:
        yield random(n, *size)
        yield from (given[start : start + n] for start in range(0, min(len(given), _N_GIVEN_BATCHES * n), n))
    if is_any_size:
        yield random(2, size[0] + _OTHER_SIZE[0], size[1] + _OTHER_SIZE[1])


def _compare(encoder: nn.Module, graph: Graph, batches: Iterator[NDArray[np.float32]]) -> tuple[int, float]:
    """Return the dimension and the largest difference between PyTorch and ONNX Runtime."""
    largest, dim = 0.0, 0
    for batch in batches:
        with torch.no_grad():
            expected = encoder(torch.from_numpy(batch)).numpy()
        found = graph(batch)
        if found.shape != expected.shape:
            raise MetricError(f"the exported graph returns {found.shape} where {expected.shape} is right")
        error = float(np.abs(found - expected).max())
        if not error <= LARGEST_ERROR:
            raise MetricError(
                f"ONNX Runtime's embeddings of {len(batch)} images differ by {error:.2g} from PyTorch's, more than "
                f"{LARGEST_ERROR:g}: nothing was written"
            )
        largest, dim = max(largest, error), expected.shape[1]
    return dim, largest


def _reduced(model: Any, precision: str, real: NDArray[np.float32]) -> tuple[Any, Agreement]:
    """Return the graph in fewer bits, if it finds the same nearest images."""
    reduced = reduce_graph(model, precision, real)
    full, fewer = (_embedded(Graph(graph.SerializeToString()), real) for graph in (model, reduced))
    agreement = compare_embeddings(full, fewer)
    if not agreement.is_enough():
        raise MetricError(
            f"{precision} changes too much on {agreement.n_images:,} images: {agreement.rank1:.1%} keep their nearest "
            f"(at least {LEAST_AGREEMENT:.0%} must), a score moves by {agreement.score_error:.4f} (at most "
            f"{LARGEST_SCORE_ERROR:g} may): nothing was written; export {'w16 or ' if precision == 'int8' else ''}fp32"
        )
    return reduced, agreement


def _embedded(graph: Graph, images: NDArray[np.float32]) -> NDArray[np.float32]:
    n = _BATCHES[-1]
    return np.concatenate([graph(images[start : start + n]) for start in range(0, len(images), n)])
