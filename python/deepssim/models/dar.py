"""The contrastive network of Dar et al. (Nat. Biomed. Eng. 2025, arXiv 2402.01054).

A ResNet-50 (He et al., CVPR 2016) takes one grey channel and gives 128 numbers, whose Pearson correlation says whether
two images are copies. Names of its weights are those of published checkpoints (``model.*``).
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torchvision import models

from deepssim.errors import MetricError, UsageError
from deepssim.models.blocks import MinMax, unit_rows
from deepssim.models.checkpoint import (
    METADATA_KEY,
    Description,
    load_encoder,
    load_weights,
    rebuild_network,
)
from deepssim.models.pretrained import download_weights, read_weights

__all__ = ["DIM", "Dar", "centred_rows", "describe_dar", "load_dar", "load_start"]

# Elements of a published embedding.
DIM = 128
# Of an older head of theirs, which no embedding goes through; and of what takes three channels or gives 1,000 classes.
_UNUSED = ("fc_end.",)
_REPLACED = ("conv1.", "fc.")
_PREFIX = "model."
_WANTED = "a state dict of the network of Dar et al., or a checkpoint of deepssim train dar"


class Dar(nn.Module):
    """ResNet-50 with one input channel and a linear layer in place of the classes.

    Args:
        dim: Elements of an embedding.
        reference_axes: Whether rows and columns of the images are swapped first, as a reader that swaps the axes of
            PNG files showed them to a network that was trained elsewhere.

    Example:
        >>> import torch
        >>> encoder = Dar().eval()
        >>> encoder(torch.rand(2, 1, 34, 28)).shape
        torch.Size([2, 128])
    """

    def __init__(self, dim: int = DIM, *, reference_axes: bool = False) -> None:
        super().__init__()
        self.intensity = MinMax()
        self.reference_axes = reference_axes
        self.model = models.resnet50(weights=None)
        self.model.conv1 = nn.Conv2d(1, 64, 7, 2, padding=3, bias=False)
        self.model.fc = nn.Linear(self.model.fc.in_features, dim)

    def forward(self, images: Tensor, *, is_centred: bool = True) -> Tensor:
        """Embed raw grey images ``(n, 1, height, width)``.

        Args:
            images: In any unit.
            is_centred: Whether embeddings are centred and of unit norm, so that the inner product of two is their
                correlation. Without, they are as they leave the network: the published loss compares those.

        Returns:
            ``(n, dim)``.
        """
        greys = self.intensity(images)
        if self.reference_axes:
            greys = greys.transpose(2, 3)
        features: Tensor = self.model(greys)
        return centred_rows(features) if is_centred else features


def centred_rows(rows: Tensor) -> Tensor:
    """Take the mean of each row from it and scale it to unit norm; a constant row becomes zeros.

    The inner product of two such rows is the Pearson correlation of what they were.

    Args:
        rows: ``(n, dim)``.

    Example:
        >>> import torch
        >>> a, b = centred_rows(torch.tensor([[1.0, 2.0, 3.0], [30.0, 20.0, 10.0]]))
        >>> round(float(a @ b), 6)
        -1.0
    """
    return unit_rows(rows - rows.mean(1, keepdim=True))


def describe_dar(size: tuple[int, int], *, reference_axes: bool = False, dim: int = DIM) -> Description:
    """Describe such an encoder.

    Args:
        size: Rows and columns of its images.
        reference_axes: See `Dar`.
        dim: Elements of an embedding.

    Raises:
        ValueError: It is no size of an image.
    """
    arguments = {"dim": dim, **({"reference_axes": True} if reference_axes else {})}
    return Description(
        "dar", arguments, *size, name="dar", similarity="correlation", intensity="min-max", resize="area", grey="raw"
    )


def load_dar(
    path: Path, size: tuple[int, int] | None = None, *, reference_axes: bool = False
) -> tuple[nn.Module, Description]:
    """Read a trained network: one of ours, or a state dict with the names of the published one.

    Args:
        path: A checkpoint of ``deepssim train dar``, or what ``torch.save`` wrote of a state dict (``model.*``, with
            or without ``fc_end.*``, which no embedding goes through). Nothing in the file is executed.
        size: Rows and columns of its images; None: those of a checkpoint of ours, and a state dict says none.
        reference_axes: See `Dar`; a checkpoint of ours was trained on images as they are, so that it is refused.

    Returns:
        The encoder, in evaluation mode on the CPU, and what it is.

    Raises:
        MetricError: The file holds another network.
        UsageError: It cannot be read, or a size is missing or none.
    """
    if _is_ours(path):
        encoder, description = load_encoder(path)
        if description.architecture != "dar":
            raise MetricError(f"{path} is an encoder of the architecture {description.architecture}, not dar")
        if reference_axes and not description.arguments.get("reference_axes"):
            raise UsageError(f"{path} was trained on images as they are: leave the reference's axes out")
        return encoder, _sized(description, size) if size is not None else description
    if size is None:
        raise UsageError(f"{path} does not say which images it was trained on: give their rows and columns with --size")
    state = _ours(read_weights(path, _WANTED), path)
    description = _sized(describe_dar((1, 1), reference_axes=reference_axes, dim=_dim(state, path)), size)
    return rebuild_network(description, state, path, "the network of Dar et al."), description


def load_start(encoder: Dar, weights: str) -> None:
    """Load what training starts from.

    Args:
        encoder: What to load it into.
        weights: ``"imagenet"``: torchvision's, downloaded where they are not in its cache, as published; a file of
            them; or a checkpoint of this network (`load_dar`), to go on from. Of ImageNet weights the first
            convolution and the classes are left out: they are for colour images and other classes.

    Raises:
        UsageError: They cannot be downloaded or read.
        MetricError: The file holds other weights.
    """
    if weights == "imagenet":
        return _load_backbone(encoder, download_weights(models.ResNet50_Weights.IMAGENET1K_V1), weights)
    path = Path(weights)
    if _is_ours(path):
        state = dict(load_dar(path)[0].state_dict())
    else:
        read = read_weights(path)
        if not any(name.startswith(_PREFIX) for name in read):
            return _load_backbone(encoder, read, weights)
        state = _ours(read, path)
    return load_weights(encoder, state, path, "the network of Dar et al.")


def _load_backbone(encoder: Dar, state: dict[str, Tensor], source: str) -> None:
    own = encoder.model.state_dict()
    kept = {name: tensor for name, tensor in own.items() if name.startswith(_REPLACED)}
    given = {n: t for n, t in state.items() if isinstance(t, Tensor) and not n.startswith(_REPLACED)}
    # Counters of batches, which older files do not have, change nothing.
    counters = {n: t for n, t in own.items() if n.endswith("num_batches_tracked") and n not in given}
    load_weights(encoder.model, {**given, **kept, **counters}, source, "the backbone of ResNet-50")


def _is_ours(path: Path) -> bool:
    """Return whether a file is a checkpoint of this package; whatever cannot be read as one is not."""
    try:
        with safe_open(path, framework="pt") as file:
            return METADATA_KEY in (file.metadata() or {})
    except (OSError, SafetensorError):
        return False


def _ours(state: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    """Return the weights that an embedding goes through."""
    kept = {n: t for n, t in state.items() if isinstance(t, Tensor) and not n.startswith(_UNUSED)}
    if not any(name.startswith(_PREFIX) for name in kept):
        first = next(iter(state), "nothing")
        raise MetricError(
            f"{path} is no network of Dar et al.: its weights are named {first} and so on, not {_PREFIX}conv1.weight; "
            f"give {_WANTED}"
        )
    return kept


def _dim(state: dict[str, Tensor], path: Path) -> int:
    weight = state.get("model.fc.weight")
    if weight is None or weight.ndim != 2:
        raise MetricError(f"{path} is no network of Dar et al.: model.fc.weight is missing or no matrix")
    return len(weight)


def _sized(description: Description, size: tuple[int, int]) -> Description:
    try:
        return replace(description, height=size[0], width=size[1])
    except ValueError as error:
        raise UsageError(f"no encoder takes images of {size[0]} x {size[1]} pixels: {error}") from error
