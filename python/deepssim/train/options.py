"""What is asked of a training run."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from deepssim.errors import UsageError
from deepssim.train.recipes import Recipe, recipe_named

__all__ = ["DEVICES", "GROUP_BY", "VALID_PART", "TrainOptions"]

DEVICES = ("auto", "cpu", "cuda")
GROUP_BY = "auto"
VALID_PART = 0.15


@dataclass(frozen=True, slots=True)
class TrainOptions:
    """What is asked of a run. None: what the recipe says.

    Attributes:
        recipe: Its name.
        images: Folder of images: of the pairs' keys, or of real images that partners are made of.
        pairs: CSV of pairs; None: partners are made (recipe ``lite`` alone).
        validation_images: Folder of real images of people who select the weights; None: a part of the people.
        out: Folder of the run.
        name: Of the metric.
        group_by: Who is who, where partners are made; see `deepssim.images.ImageOptions`. None: `GROUP_BY`.
        valid_part: Part of the people who select the weights, without `validation_images`. None: `VALID_PART`.
        size: Rows and columns that images are brought to.
        dim: Elements of an embedding.
        epochs: Passes over the pairs.
        steps: Updates, where partners are made.
        batch_size: See `Recipe`.
        learning_rate: See `Recipe`.
        weight_decay: See `Recipe`.
        dropout: See `Recipe`.
        weights: ``"imagenet"``, ``"none"`` or a file: of backbone weights, or of an encoder to go on from (`lite`).
        device: One of `DEVICES`.
        workers: Processes that read images or make partners.
        accumulate: Batches of an update.
        patience: Looks at the validation set without a better one after which training ends; 0: never.
        validate_every: Steps between looks; 0: forty looks in all.
        save_every: Steps between saved states.
        tensorboard: Whether figures also go to TensorBoard files in the folder.
        wandb: ``"offline"`` or ``"online"``: whether they also go to Weights & Biases; ``"no"``.
        seed: Of every draw.
    """

    recipe: str
    images: Path
    out: Path
    pairs: Path | None = None
    validation_images: Path | None = None
    name: str | None = None
    group_by: str | None = None
    valid_part: float | None = None
    size: tuple[int, int] | None = None
    dim: int = 256
    epochs: int | None = None
    steps: int | None = None
    batch_size: int | None = None
    learning_rate: float | None = None
    weight_decay: float | None = None
    dropout: float | None = None
    weights: str | None = None
    device: str = "auto"
    workers: int = 1
    accumulate: int = 1
    patience: int = 0
    validate_every: int = 0
    save_every: int = 500
    tensorboard: bool = False
    wandb: str = "no"
    seed: int = 0

    def merged(self) -> Recipe:
        """Return the recipe with what was asked instead."""
        recipe = recipe_named(self.recipe)
        names = ("size", "epochs", "steps", "batch_size", "learning_rate", "weight_decay", "dropout")
        return replace(recipe, **{n: getattr(self, n) for n in names if getattr(self, n) is not None})

    def deciding(self) -> dict[str, Any]:
        """Return the settings that decide the result; where a run goes on, others may differ."""
        free = {"out", "device", "workers", "save_every", "tensorboard", "wandb"}
        asked = {name: value for name, value in asdict(self).items() if name not in free}
        asked["group_by"] = self.group_by or GROUP_BY
        asked["valid_part"] = VALID_PART if self.valid_part is None else self.valid_part
        # A folder is the same one wherever the command is given.
        asked = {name: str(value.resolve()) if isinstance(value, Path) else value for name, value in asked.items()}
        if self.pairs is not None:
            asked["pairs_sha256"] = _sha256(self.pairs)
        if self.weights not in (None, "none", "imagenet"):
            asked["weights"] = _sha256(Path(str(self.weights)))
        return asked


def _sha256(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror or error}") from error
