"""What is asked of a training run."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from deepssim.models.checkpoint import file_sha256
from deepssim.train.recipes import Recipe, recipe_named

__all__ = ["DEVICES", "GROUP_BY", "VALID_PART", "PeopleOptions", "RunOptions", "TrainOptions"]

DEVICES = ("auto", "cpu", "cuda")
GROUP_BY = "auto"
VALID_PART = 0.15


# What may differ where a run goes on: it does not decide the result.
_FREE = frozenset({"out", "device", "workers", "save_every", "keep_every", "tensorboard", "wandb"})


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """What every training run can be asked.

    Attributes:
        recipe: What is trained, in a word.
        out: Folder of the run.
        name: Of the metric.
        epochs: Passes over the images or pairs; None: what is usual.
        steps: Updates, where passes are not counted; None: likewise.
        device: One of `DEVICES`.
        workers: Processes that read images or make partners.
        accumulate: Batches of an update.
        patience: Looks at the validation set without a better one after which training ends; 0: never.
        validate_every: Steps between looks; 0: forty looks in all.
        save_every: Steps between saved states.
        keep_every: Steps between weights that are kept for good; 0: only the best and the last are.
        tensorboard: Whether figures also go to TensorBoard files in the folder.
        wandb: ``"offline"`` or ``"online"``: whether they also go to Weights & Biases; ``"no"``.
        seed: Of every draw.
    """

    recipe: str
    out: Path
    name: str | None = None
    epochs: int | None = None
    steps: int | None = None
    device: str = "auto"
    workers: int = 1
    accumulate: int = 1
    patience: int = 0
    validate_every: int = 0
    save_every: int = 500
    keep_every: int = 0
    tensorboard: bool = False
    wandb: str = "no"
    seed: int = 0

    def deciding(self) -> dict[str, Any]:
        """Return the settings that decide the result; where a run goes on, others may differ.

        Raises:
            UsageError: A file that decides it cannot be read.
        """
        asked = {name: value for name, value in asdict(self).items() if name not in _FREE}
        # A folder is the same one wherever the command is given.
        return {name: str(value.resolve()) if isinstance(value, Path) else value for name, value in asked.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class PeopleOptions(RunOptions):
    """What a run on images of people can be asked. None: what is usual.

    Attributes:
        images: Folder of images that are trained on.
        validation_images: Folder of images of people who select the weights; None: a part of the people.
        group_by: Who is who; see `deepssim.images.ImageOptions`. None: `GROUP_BY`.
        valid_part: Part of the people who select the weights, without `validation_images`. None: `VALID_PART`.
        size: Rows and columns that images are brought to.
        weights: ``"imagenet"``, ``"none"`` or a file: where to start.
        batch_size: Images or pairs of a batch.
        learning_rate: Highest.
    """

    images: Path
    validation_images: Path | None = None
    group_by: str | None = None
    valid_part: float | None = None
    size: tuple[int, int] | None = None
    weights: str | None = None
    batch_size: int | None = None
    learning_rate: float | None = None

    def deciding(self) -> dict[str, Any]:
        """See `RunOptions.deciding`: what was left to its default, and the contents of a file of weights."""
        asked = RunOptions.deciding(self)
        asked["group_by"] = self.group_by or GROUP_BY
        asked["valid_part"] = VALID_PART if self.valid_part is None else self.valid_part
        if self.weights not in (None, "none", "imagenet"):
            asked["weights"] = file_sha256(Path(str(self.weights)))
        return asked


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainOptions(PeopleOptions):
    """What is asked of a run of an encoder. None: what the recipe says.

    `recipe` is the name of a `deepssim.train.recipes.Recipe`; `images` are those of the pairs' keys, or real ones that
    partners are made of; `epochs` counts passes over a list of pairs, and `steps` updates where partners are made.

    Attributes:
        pairs: CSV of pairs; None: partners are made (recipe ``lite`` alone).
        dim: Elements of an embedding.
        weight_decay: See `Recipe`.
        dropout: See `Recipe`.
    """

    pairs: Path | None = None
    dim: int = 256
    weight_decay: float | None = None
    dropout: float | None = None

    def merged(self) -> Recipe:
        """Return the recipe with what was asked instead."""
        recipe = recipe_named(self.recipe)
        names = ("size", "epochs", "steps", "batch_size", "learning_rate", "weight_decay", "dropout")
        return replace(recipe, **{n: getattr(self, n) for n in names if getattr(self, n) is not None})

    def deciding(self) -> dict[str, Any]:
        """See `RunOptions.deciding`: also the contents of the list of pairs."""
        asked = PeopleOptions.deciding(self)
        if self.pairs is not None:
            asked["pairs_sha256"] = file_sha256(self.pairs)
        return asked
