"""Recipes: the two published ones, and a small one of ours.

`deepssim` is that of Scardace et al., arXiv 2509.16582 (WACV 2026); `deepssim++` that of arXiv 2609.03615. Both start
from ImageNet weights. `lite` trains a small network from nothing on partners that are made as it goes; `lite-refine`
goes on from its weights: most images as they lie, so that the cosine of such pairs is their SSIM.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from deepssim.errors import UsageError
from deepssim.perturb import BUMP_COUNT
from deepssim.train.augment import DEEPSSIM, DEEPSSIM_PLUS, HARD, Augmentation

__all__ = ["RECIPES", "Recipe", "recipe_named"]


@dataclass(frozen=True, slots=True)
class Recipe:
    """How an encoder is trained.

    Attributes:
        name: What it is called.
        architecture: See `deepssim.models.checkpoint.ARCHITECTURES`.
        arguments: Of the architecture.
        size: Rows and columns that images are brought to.
        augmentation: How they are seen in training.
        epochs: Passes over the training pairs, where these are a list.
        steps: Updates, where partners are made without end.
        batch_size: Pairs of a step; of made partners, images of it (a multiple of 20).
        learning_rate: Highest, of the head.
        decay: Factor on the rate from each stage of a pretrained backbone to the one before it; 1: none.
        weight_decay: AdamW's.
        dropout: In the head.
        needs_imagenet: Whether it starts from ImageNet weights.
        freezes_stem: Whether the stem and the first stage keep them.
        mixed_precision: Whether a GPU works in 16 bits.
        warm_up: Part of the steps in which the rate rises.
        is_cosine: Whether it then falls to zero.
        average: Decay of the average of the weights that is kept; 0: none.
        even_bins: Whether each tenth of the similarity counts the same in the loss.
        contrast: Weight of the contrastive part of the loss, where copies come in groups.
        least_side: Fewest rows and columns of an image: the windows of SSIM need 7, the strides of ConvNeXt 32.
        n_bumps: Smallest and largest number of local displacements of partners that are made.
        goes_on: Whether it starts from an encoder.
    """

    name: str
    architecture: str
    size: tuple[int, int]
    augmentation: Augmentation
    arguments: dict[str, Any] = field(default_factory=dict)
    epochs: int = 0
    steps: int = 0
    batch_size: int = 32
    learning_rate: float = 1e-3
    decay: float = 1.0
    weight_decay: float = 1e-3
    dropout: float = 0.0
    needs_imagenet: bool = False
    freezes_stem: bool = False
    mixed_precision: bool = False
    warm_up: float = 0.0
    is_cosine: bool = False
    average: float = 0.0
    even_bins: bool = False
    contrast: float = 0.0
    least_side: int = 7
    n_bumps: tuple[int, int] = BUMP_COUNT
    goes_on: bool = False


_LITE = Recipe(
    "lite", "lite", (136, 112), HARD,
    steps=20_000, batch_size=80, learning_rate=3e-3, weight_decay=0.02, warm_up=0.05, is_cosine=True,
    average=0.985, even_bins=True, contrast=0.01,
)  # fmt: skip

RECIPES = {
    recipe.name: recipe
    for recipe in (
        Recipe(
            "deepssim", "convnext-base", (136, 112), DEEPSSIM,
            epochs=40, batch_size=32, dropout=0.33, needs_imagenet=True, freezes_stem=True,
            least_side=32,
        ),
        Recipe(
            "deepssim++", "convnext-tiny-gem", (136, 112), DEEPSSIM_PLUS,
            epochs=65, batch_size=64, decay=0.3, dropout=0.1, needs_imagenet=True, freezes_stem=True,
            mixed_precision=True, even_bins=False, least_side=32,
        ),
        _LITE,
        # Views take from the cosine, and an encoder that sees them in most pairs makes up for it in those that lie in
        # place: exact copies of 6,000 steps of `lite` had .98 where their SSIM was .91.
        replace(
            _LITE, name="lite-refine", augmentation=replace(HARD, untouched=0.8), steps=3_000, learning_rate=1e-3,
            n_bumps=(1, 8), goes_on=True,
        ),
    )
}  # fmt: skip


def recipe_named(name: str) -> Recipe:
    """Return a recipe.

    Raises:
        UsageError: There is none of this name.

    Example:
        >>> recipe_named("lite").size
        (136, 112)
    """
    if name not in RECIPES:
        raise UsageError(f"unknown recipe {name!r}; there are {', '.join(sorted(RECIPES))}")
    return RECIPES[name]
