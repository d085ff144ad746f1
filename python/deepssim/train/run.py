"""A training run from what was asked to its folder of weights, figures and pictures."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import nn

from deepssim.errors import MetricError, UsageError
from deepssim.images import ImageOptions, list_images
from deepssim.models.checkpoint import Description, build_encoder, load_encoder
from deepssim.progress import Progress, Silent
from deepssim.train.anchors import Anchors, read_anchors
from deepssim.train.checks import check_options, check_people
from deepssim.train.group_source import GroupSource
from deepssim.train.groups import GROUP, GroupOptions
from deepssim.train.loop import Schedule, Source, train_encoder
from deepssim.train.options import DEVICES, GROUP_BY, VALID_PART, TrainOptions
from deepssim.train.pair_source import PairSource, PairValidation, read_pairs
from deepssim.train.plots import plot_curves, plot_predictions
from deepssim.train.processes import together
from deepssim.train.recipes import Recipe
from deepssim.train.run_folder import RunFolder
from deepssim.train.trackers import start_trackers, trackers_of
from deepssim.train.validation import RetrievalValidation

__all__ = ["Result", "train"]

_LOOKS = 40


@dataclass(frozen=True, slots=True)
class Result:
    """What came of a run.

    Attributes:
        folder: Holds ``best.safetensors``, ``last.safetensors``, ``metrics.jsonl``, ``curves.png``,
            ``predictions.png``.
        best: Figures of the best weights, with their step.
        is_main_process: Whether this process wrote them: of several that train together one does.
    """

    folder: Path
    best: Mapping[str, float]
    is_main_process: bool = True


def train(options: TrainOptions, progress: Progress | None = None) -> Result:
    """Train an encoder, or go on with a run that was killed.

    Several processes that `accelerate launch` or torchrun start train together. The main one writes and tells of
    progress.

    Raises:
        UsageError: An option cannot be, or the folder holds another run.
        MetricError: Weights do not fit.
        ElsewhereError: In another process than the main one, which says what is wrong.
    """
    recipe = options.merged()
    accelerator = _accelerator(options, recipe)
    if progress is None or not accelerator.is_main_process:
        progress = Silent()
    together(accelerator, lambda: check_options(options, recipe))
    folder = RunFolder(options.out, _describe(options, recipe), options.deciding())
    with contextlib.ExitStack() as held:
        together(accelerator, lambda: held.enter_context(folder.held()) if accelerator.is_main_process else None)
        with _own_random_state(accelerator.device):
            return _train(options, recipe, folder, accelerator, progress)


def _train(
    options: TrainOptions, recipe: Recipe, folder: RunFolder, accelerator: Accelerator, progress: Progress
) -> Result:
    seed = options.seed + 7_919 * accelerator.process_index
    # Data before weights: what is wrong with a list should not be said after a download.
    source, validation, n_steps = together(accelerator, lambda: _data(options, recipe, seed, accelerator))
    torch.manual_seed(options.seed)
    encoder = build_encoder(folder.description)
    groups = together(accelerator, lambda: _prepare(encoder, options, recipe))
    if accelerator.is_main_process:
        folder.begin()
    start_trackers(accelerator, options)
    best = train_encoder(
        encoder, groups, source, validation, recipe.augmentation, _schedule(options, recipe, n_steps), folder,
        accelerator, progress, options.seed,
    )  # fmt: skip
    is_main = accelerator.is_main_process
    accelerator.end_training()
    if is_main:
        plot_curves(folder.read_log(), folder.path / "curves.png")
        kept, _ = load_encoder(folder.path / "best.safetensors")
        plot_predictions(*validation.predictions(kept, torch.device("cpu")), folder.path / "predictions.png")
    return Result(folder.path, best, is_main)


@contextlib.contextmanager
def _own_random_state(device: torch.device) -> Iterator[None]:
    """Give back torch's random state as it was: initial weights, dropout and the like are drawn from it."""
    with torch.random.fork_rng([device.index or 0] if device.type == "cuda" else []):
        yield


def _accelerator(options: TrainOptions, recipe: Recipe) -> Accelerator:
    if options.device not in DEVICES:
        raise UsageError(f"device is {options.device!r}: it must be one of {', '.join(DEVICES)}")
    has_cuda = torch.cuda.is_available()
    if options.device == "cuda" and not has_cuda:
        raise UsageError("no CUDA device that this PyTorch can use; give --device cpu, or install a build for your GPU")
    on_cpu = options.device == "cpu" or not has_cuda
    precision = "bf16" if recipe.mixed_precision and not on_cpu else "no"
    return Accelerator(
        cpu=on_cpu, mixed_precision=precision, gradient_accumulation_steps=options.accumulate,
        log_with=trackers_of(options) or None, project_dir=str(options.out),
    )  # fmt: skip


def _describe(options: TrainOptions, recipe: Recipe) -> Description:
    arguments = {**recipe.arguments, "dim": options.dim, "dropout": recipe.dropout}
    height, width = recipe.size
    name = options.name or recipe.name.replace("+", "p")
    return Description(
        recipe.architecture, arguments, height, width, name, {"recipe": recipe.name, "seed": options.seed}
    )


def _prepare(encoder: nn.Module, options: TrainOptions, recipe: Recipe) -> list[dict[str, Any]]:
    """Load and freeze what the recipe says; return the optimiser's groups."""
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
    options: TrainOptions, recipe: Recipe, seed: int, accelerator: Accelerator
) -> tuple[Source, RetrievalValidation | PairValidation, int]:
    """Return batches, the validation set, and updates in all."""
    if options.pairs is not None:
        lists = read_pairs(options.pairs, options.images)
        per_epoch = max(1, len(lists["train"]) // (recipe.batch_size * accelerator.num_processes * options.accumulate))
        n_steps = recipe.epochs * per_epoch
        source = PairSource(lists["train"], recipe.size, recipe.batch_size, seed, n_steps * options.accumulate,
                            options.workers)  # fmt: skip
        return source, PairValidation(lists["valid"], recipe.size), n_steps
    training, selecting = _people(options, recipe.size)
    groups = GroupOptions(step_groups=recipe.batch_size // GROUP, n_bumps=recipe.n_bumps)
    groups = replace(groups, block_groups=groups.step_groups * max(1, groups.block_groups // groups.step_groups))
    made = GroupSource(training, groups, seed, recipe.steps * options.accumulate, options.workers)
    return made, RetrievalValidation.of(selecting, training, recipe.size, seed=options.seed), recipe.steps


def _people(options: TrainOptions, size: tuple[int, int]) -> tuple[Anchors, Anchors]:
    reading = ImageOptions(group_by=options.group_by or GROUP_BY)
    anchors = read_anchors(list_images(options.images, reading), size)
    if options.validation_images is not None:
        selecting = read_anchors(list_images(options.validation_images, reading), size)
        check_people(anchors, selecting)
        return anchors, selecting
    people = np.random.default_rng([options.seed, 10]).permutation(int(anchors.people.max()) + 1)
    part = VALID_PART if options.valid_part is None else options.valid_part
    n_valid = round(part * len(people))
    if not 2 <= n_valid <= len(people) - 2:
        raise UsageError(
            f"{part:g} of {len(people)} people leave {n_valid} to select the weights and {len(people) - n_valid} to "
            "train on, and two of each are needed at least: give another --valid-part, or other people with "
            "--validation-images-dir"
        )
    is_valid = np.isin(anchors.people, people[:n_valid])
    return anchors.subset(~is_valid), anchors.subset(is_valid)


def _schedule(options: TrainOptions, recipe: Recipe, n_steps: int) -> Schedule:
    every = options.validate_every or max(1, n_steps // _LOOKS)
    return Schedule(
        n_steps, recipe.learning_rate, recipe.weight_decay, recipe.warm_up, recipe.is_cosine,
        accumulate=options.accumulate, average=recipe.average, even_bins=recipe.even_bins, contrast=recipe.contrast,
        validate_every=every, save_every=options.save_every, patience=options.patience,
    )  # fmt: skip
