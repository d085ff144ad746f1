"""The published encoders, on ConvNeXt (Liu et al., A ConvNet for the 2020s, CVPR 2022).

`ConvNextBase` is DeepSSIM's (Scardace et al., arXiv 2509.16582, section 3), `ConvNextTinyGeM` DeepSSIM++'s (arXiv
2609.03615). Names of layers are theirs where a published checkpoint has them.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torchvision import models

from deepssim.models.blocks import GeM, ZScore, unit_rows
from deepssim.models.checkpoint import load_weights
from deepssim.models.pretrained import download_weights, read_weights

__all__ = ["ConvNext", "ConvNextBase", "ConvNextTinyGeM", "load_imagenet"]

# Places of torchvision's ``features``: the stem and first stage, then a downsampling layer and a stage each.
_STAGES = ((0, 2), (2, 4), (4, 6), (6, 8))


class ConvNext(nn.Module):
    """What both have in common.

    Args:
        make: Builds torchvision's network.
    """

    # Where ImageNet weights come from, when they are to be downloaded.
    imagenet: Any

    def __init__(self, make: Callable[..., nn.Module]) -> None:
        super().__init__()
        self.intensity = ZScore()
        features = make(weights=None).features
        assert isinstance(features, nn.Sequential)
        self.feature_extractor = features

    @property
    def stem(self) -> nn.Conv2d:
        """The first convolution."""
        first = self.feature_extractor[0]
        assert isinstance(first, nn.Sequential)
        layer = first[0]
        assert isinstance(layer, nn.Conv2d)
        return layer

    def grey(self, images: Tensor) -> Tensor:
        """Normalise images ``(n, 1, height, width)`` and repeat them for the channels that the stem takes."""
        normalised: Tensor = self.intensity(images)
        return normalised.expand(-1, self.stem.in_channels, -1, -1)

    def fold_channels(self) -> None:
        """Let the stem take one channel: three equal ones under three kernels are one under their sum."""
        stem = self.stem
        folded = nn.Conv2d(1, stem.out_channels, stem.kernel_size, stem.stride)  # type: ignore[arg-type]
        with torch.no_grad():
            folded.weight.copy_(stem.weight.double().sum(1, keepdim=True))
            if stem.bias is not None and folded.bias is not None:
                folded.bias.copy_(stem.bias)
        first = self.feature_extractor[0]
        assert isinstance(first, nn.Sequential)
        first[0] = folded.to(stem.weight.device)

    def stages(self) -> list[nn.Sequential]:
        """Return the four stages, each with the layer before it."""
        return [self.feature_extractor[first:last] for first, last in _STAGES]

    def freeze_stem(self) -> None:
        """Keep the stem and the first stage as they are."""
        for parameter in self.stages()[0].parameters():
            parameter.requires_grad = False

    def parameter_groups(self, learning_rate: float, decay: float) -> list[dict[str, Any]]:
        """Return the optimiser's groups.

        Args:
            learning_rate: Of the head.
            decay: Factor from the head to the last stage, and from each stage to the one before it.
        """
        backbone = {id(p) for p in self.feature_extractor.parameters()}
        groups = [{"params": [p for p in self.parameters() if id(p) not in backbone], "lr": learning_rate}]
        for depth, stage in enumerate(reversed(self.stages()), 1):
            groups.append({"params": list(stage.parameters()), "lr": learning_rate * decay**depth})
        return groups


class ConvNextBase(ConvNext):
    """DeepSSIM: the last stage's mean, batch normalisation, two linear layers.

    Args:
        dim: Elements of an embedding.
        dropout: Before the last layer.
    """

    imagenet = models.ConvNeXt_Base_Weights.IMAGENET1K_V1

    def __init__(self, dim: int = 256, dropout: float = 0.33) -> None:
        super().__init__(models.convnext_base)
        self.fc = nn.Sequential(
            nn.AdaptiveAvgPool2d((1, 1)), nn.Flatten(), nn.BatchNorm1d(1024),
            nn.Linear(1024, 512), nn.GELU(), nn.Dropout(dropout), nn.Linear(512, dim),
        )  # fmt: skip

    def forward(self, images: Tensor) -> Tensor:
        """Embed raw grey images ``(n, 1, height, width)``; returns ``(n, dim)`` of unit norm."""
        embedded: Tensor = self.fc(self.feature_extractor(self.grey(images)))
        return unit_rows(embedded)


class ConvNextTinyGeM(ConvNext):
    """DeepSSIM++: generalised means of all four stages, layer normalisation, two linear layers.

    Args:
        dim: Elements of an embedding.
        dropout: Before the last layer.
    """

    imagenet = models.ConvNeXt_Tiny_Weights.IMAGENET1K_V1

    def __init__(self, dim: int = 256, dropout: float = 0.1) -> None:
        super().__init__(models.convnext_tiny)
        self.pools = nn.ModuleList(GeM() for _ in _STAGES)
        total = 96 + 192 + 384 + 768
        hidden = (total + dim) // 2
        self.head = nn.Sequential(
            nn.LayerNorm(total), nn.Linear(total, hidden), nn.GELU(), nn.Dropout(dropout), nn.Linear(hidden, dim)
        )

    def forward(self, images: Tensor) -> Tensor:
        """Embed raw grey images ``(n, 1, height, width)``; returns ``(n, dim)`` of unit norm."""
        features = self.grey(images)
        pooled = []
        for (first, last), pool in zip(_STAGES, self.pools, strict=True):
            features = self.feature_extractor[first:last](features)
            pooled.append(pool(features))
        return unit_rows(self.head(torch.cat(pooled, 1)))


def load_imagenet(encoder: ConvNext, weights: str) -> None:
    """Load ImageNet weights into the backbone.

    Args:
        encoder: What to load them into.
        weights: ``"imagenet"``: torchvision's, downloaded where they are not in its cache; else a file of
            torchvision's state dict, ``.safetensors`` or what torch.save wrote.

    Raises:
        UsageError: They cannot be downloaded, or the file cannot be read.
        MetricError: The file holds other weights.
    """
    state = download_weights(encoder.imagenet) if weights == "imagenet" else read_weights(Path(weights))
    prefix = "features."
    ours = {
        name.removeprefix(prefix): tensor
        for name, tensor in state.items()
        if name.startswith(prefix) and isinstance(tensor, Tensor)
    }
    load_weights(encoder.feature_extractor, ours, weights, f"the backbone of {type(encoder).__name__}")
