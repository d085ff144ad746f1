"""Training of encoders whose cosine is a similarity: `deepssim.train.launch.Training` by a recipe."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from deepssim.errors import MetricError
from deepssim.models.checkpoint import Description, load_encoder
from deepssim.progress import Progress
from deepssim.train.checks import check_options
from deepssim.train.group_source import GroupSource
from deepssim.train.groups import GROUP, GroupOptions
from deepssim.train.launch import Result, Training, Work, launch, look_every
from deepssim.train.loop import Schedule, Source
from deepssim.train.options import TrainOptions
from deepssim.train.pair_source import PairSource, PairValidation, read_pairs
from deepssim.train.people import read_people
from deepssim.train.plots import plot_curves, plot_predictions
from deepssim.train.recipes import Recipe
from deepssim.train.run_folder import RunFolder
from deepssim.train.similarity import Batch, SimilarityObjective
from deepssim.train.validation import RetrievalValidation

__all__ = ["EncoderTraining", "train"]

_CURVES = {"loss": "training loss", "mae": "MAE, validation"}


def train(options: TrainOptions, progress: Progress | None = None) -> Result:
    """Train an encoder, or go on with a run that was killed.

    Raises:
        UsageError: An option cannot be, or the folder holds another run.
        MetricError: Weights do not fit.
        ElsewhereError: In another process than the main one, which says what is wrong.
    """
    recipe = options.merged()
    return launch(EncoderTraining(options, recipe, recipe.mixed_precision), options, progress)


@dataclass(frozen=True, eq=False)
class EncoderTraining(Training[Batch]):
    """A run of a recipe.

    Attributes:
        options: What was asked.
        recipe: With it.
        mixed_precision: Whether a GPU works in 16 bits.
    """

    options: TrainOptions
    recipe: Recipe
    mixed_precision: bool = False

    def check(self) -> None:
        """See `Training`."""
        check_options(self.options, self.recipe)

    def describe(self) -> Description:
        """See `Training`."""
        options, recipe = self.options, self.recipe
        arguments = {**recipe.arguments, "dim": options.dim, "dropout": recipe.dropout}
        height, width = recipe.size
        name = options.name or recipe.name.replace("+", "p")
        training = {"recipe": recipe.name, "seed": options.seed}
        return Description(recipe.architecture, arguments, height, width, name, training)

    def read(self, seed: int, n_processes: int) -> Work[Batch]:
        """See `Training`."""
        options, recipe = self.options, self.recipe
        source, validation, n_steps = _data(options, recipe, seed, n_processes)
        objective = SimilarityObjective(recipe.augmentation, recipe.even_bins, recipe.contrast)
        schedule = Schedule(
            n_steps, recipe.learning_rate, recipe.weight_decay, recipe.warm_up, recipe.is_cosine,
            accumulate=options.accumulate, average=recipe.average, validate_every=look_every(options, n_steps),
            save_every=options.save_every, patience=options.patience, keep_every=options.keep_every,
        )  # fmt: skip
        return Work(source, objective, validation, schedule)

    def prepare(self, network: nn.Module) -> list[dict[str, Any]]:
        """See `Training`."""
        return _prepare(network, self.options, self.recipe)

    def finish(self, folder: RunFolder, work: Work[Batch], device: torch.device) -> Mapping[str, float]:
        """Draw ``curves.png`` and ``predictions.png``."""
        plot_curves(folder.read_log(), folder.path / "curves.png", _CURVES, "Error of the cosine")
        kept, _ = load_encoder(folder.path / "best.safetensors")
        assert isinstance(work.validation, (RetrievalValidation, PairValidation))
        predictions = work.validation.predictions(kept, torch.device("cpu"))
        plot_predictions(*predictions, folder.path / "predictions.png")
        return {}


def _prepare(encoder: nn.Module, options: TrainOptions, recipe: Recipe) -> list[dict[str, Any]]:
    weights = options.weights or ("imagenet" if recipe.needs_imagenet else "none")
    if not recipe.needs_imagenet:
        if weights != "none":
            _load(encoder, Path(weights))
        encoder.to(memory_format=torch.channels_last)
        return [{"params": list(encoder.parameters()), "lr": recipe.learning_rate}]
    from deepssim.models.convnext import ConvNext, load_imagenet

    assert isinstance(encoder, ConvNext)
    if weights != "none":
        load_imagenet(encoder, weights)
        if recipe.freezes_stem:
            encoder.freeze_stem()
    return encoder.parameter_groups(recipe.learning_rate, recipe.decay)


def _load(encoder: nn.Module, path: Path) -> None:
    """Start from the weights of a checkpoint."""
    state = load_encoder(path)[0].state_dict()
    own = encoder.state_dict()
    if {name: value.shape for name, value in state.items()} != {name: value.shape for name, value in own.items()}:
        raise MetricError(f"{path} is an encoder of another network or size of embedding: it cannot be gone on from")
    encoder.load_state_dict(state)


def _data(
    options: TrainOptions, recipe: Recipe, seed: int, n_processes: int
) -> tuple[Source[Batch], RetrievalValidation | PairValidation, int]:
    """Return batches, the validation set, and updates in all."""
    if options.pairs is not None:
        lists = read_pairs(options.pairs, options.images)
        per_epoch = max(1, len(lists["train"]) // (recipe.batch_size * n_processes * options.accumulate))
        n_steps = recipe.epochs * per_epoch
        source = PairSource(lists["train"], recipe.size, recipe.batch_size, seed, n_steps * options.accumulate,
                            options.workers)  # fmt: skip
        return source, PairValidation(lists["valid"], recipe.size), n_steps
    training, selecting = read_people(options, recipe.size)
    groups = GroupOptions(step_groups=recipe.batch_size // GROUP, n_bumps=recipe.n_bumps)
    groups = replace(groups, block_groups=groups.step_groups * max(1, groups.block_groups // groups.step_groups))
    made = GroupSource(training, groups, seed, recipe.steps * options.accumulate, options.workers)
    return made, RetrievalValidation.of(selecting, training, recipe.size, seed=options.seed), recipe.steps
