"""Training of the VAE of a latent diffusion model, as in arXiv 2509.16582 and its public code.

L1 + 1e-6 KL + .1 perceptual + .125 least-squares adversarial; Adam at 1e-4 for the VAE and for its discriminator; 16
images of a batch, 100 epochs. That code divides its ``batch_size`` by its ``max_batch_size`` and adds up the gradients
of so many batches, each of ``batch_size`` images: 32 images make an update. So it is here, and an option says it as it
is: ``accumulate`` batches make an update. Two things differ: the last batches of an epoch make no update of their own,
and the VAE's gradient is kept out of the discriminator; see `deepssim.train.generative.adversary`.

The published perceptual term is LPIPS with SqueezeNet, whose weights are downloaded; here it compares features of an
encoder of this package if no files of those weights are given.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from numpy.typing import NDArray
from torch import Tensor, nn

from deepssim.domain import choose_metric
from deepssim.errors import UsageError
from deepssim.generative.config import GenerativeConfig, read_config
from deepssim.generative.data.records import load_images
from deepssim.models.checkpoint import Description, file_sha256, load_network
from deepssim.progress import Progress, Silent
from deepssim.train.checks import check_seed
from deepssim.train.generative.adversary import Adversary
from deepssim.train.generative.batches import Batch, Batches
from deepssim.train.generative.options import GenerativeOptions
from deepssim.train.generative.perceptual import ENCODERS, LEAST_LPIPS_SIDE, load_lpips, perceptual_of
from deepssim.train.generative.pictures import draw_reconstructions, draw_vae_curves
from deepssim.train.generative.vae_loss import VaeObjective, VaeValidation, reconstruct
from deepssim.train.launch import Result, Training, Work, launch, look_every
from deepssim.train.loop import Schedule
from deepssim.train.options import RunOptions
from deepssim.train.run_folder import RunFolder

__all__ = ["PERCEPTUAL", "VaeOptions", "VaeTraining", "train_vae"]

PERCEPTUAL = ("auto", *ENCODERS, "none")
PICTURE = "reconstructions.png"
# Images that are drawn, and looked at to tell what they are of.
_N_DRAWN = 8
_N_LOOKED_AT = 24
# The encoder whose features suit a configuration.
_ENCODER_OF = {"paper-brain": "brain", "paper-chest": "chest"}


@dataclass(frozen=True, slots=True, kw_only=True)
class VaeOptions(GenerativeOptions):
    """What is asked of a run of the VAE. None, and 0 of `accumulate`: what the configuration says.

    Attributes:
        batch_size: Images of a batch.
        max_batch_size: `batch_size` over this is `accumulate`, as in the reference implementation.
        learning_rate: Adam's, of both networks.
        warm_up: Updates before the discriminator's judgement counts.
        perceptual: One of `PERCEPTUAL`: whose features are compared. ``"auto"``: of the encoder that the images look
            made for; where they look like nothing known, the one that suits the configuration.
        perceptual_weights: Files of LPIPS instead; see `deepssim.train.generative.perceptual.load_lpips`.
        flip: Whether each image is mirrored left to right half of the time.
    """

    recipe: str = "vae"
    accumulate: int = 0
    workers: int = 0
    batch_size: int | None = None
    max_batch_size: int | None = None
    learning_rate: float | None = None
    warm_up: int | None = None
    perceptual: str = "auto"
    perceptual_weights: tuple[Path, ...] = ()
    flip: bool = False

    def deciding(self) -> dict[str, Any]:
        """See `RunOptions.deciding`: also what the configuration says, and the contents of images and weights."""
        asked = RunOptions.deciding(self)
        config = read_config(self.config)
        asked["config"] = {name: getattr(config, name).as_dict() for name in ("vae", "discriminator", "vae_training")}
        asked["perceptual_weights"] = [file_sha256(file) for file in self.perceptual_weights]
        del asked["dataset"], asked["images"], asked["max_batch_size"]  # which `accumulate` has taken up
        asked["data"] = self.read().signature()
        return asked


def train_vae(options: VaeOptions, progress: Progress | None = None) -> Result:
    """Train the VAE of a latent diffusion model, or go on with a run that was killed.

    The folder also gets ``reconstructions.png`` at each look, and ``curves.png``.

    Args:
        options: What was asked.
        progress: Told of steps.

    Raises:
        UsageError: An option cannot be, or the folder holds another run.
        MetricError: Weights do not fit.
        ElsewhereError: In another process than the main one, which says what is wrong.
    """
    config = read_config(options.config)
    options = replace(options, accumulate=_accumulate(options, config))
    return launch(VaeTraining(options, config, progress or Silent()), options, progress)


def _accumulate(options: VaeOptions, config: GenerativeConfig) -> int:
    """Return how many batches make an update."""
    training = config.vae_training
    if options.max_batch_size is None:
        return options.accumulate or training.batch_size // training.micro_batch
    if options.accumulate:
        raise UsageError("--accumulate and --max-batch-size both say how many batches make an update: give one of them")
    batch_size = options.batch_size or training.batch_size
    if batch_size % options.max_batch_size:
        raise UsageError(
            f"--max-batch-size is {options.max_batch_size}: it must divide --batch-size {batch_size}, since one over "
            "the other is the number of batches of an update"
        )
    return batch_size // options.max_batch_size


class VaeTraining(Training[Batch]):
    """A `deepssim.train.launch.Training`.

    Args:
        options: What was asked; `accumulate` is 1 at least.
        config: With it.
        progress: Told of images that are read, and of choices.
    """

    mixed_precision = True

    def __init__(self, options: VaeOptions, config: GenerativeConfig, progress: Progress) -> None:
        self.options, self.config, self._progress = options, config, progress
        self.batch_size = options.batch_size or config.vae_training.batch_size
        self.learning_rate = options.learning_rate or config.vae_training.learning_rate
        self.perceptual = "none"
        self._sides: tuple[NDArray[np.float32], NDArray[np.float32]] | None = None

    def check(self) -> None:
        """Check what was asked, and read the images: their size is a part of what the network is."""
        check_seed(self.options)
        self._check_options()
        progress = self._progress if PartialState().is_main_process else Silent()
        data = self.options.read()
        sides = [data.split(name) for name in ("train", "valid")]
        if len(sides[0]) < 2:
            raise UsageError(f"{data.source} has 1 training image, and two are needed at least: give more images")
        images = load_images(
            [*sides[0], *sides[1]], size=self.options.size or self.config.size, transpose=self.options.transpose,
            progress=progress, threads=self.options.workers or None,
        )  # fmt: skip
        self._check_size((images.shape[1], images.shape[2]))
        self._sides = images[: len(sides[0])], images[len(sides[0]) :]
        for note in data.notes:
            progress.status(note)
        self.perceptual, why = self._choose_features(self._sides[0])
        progress.status(f"perceptual term: {why}")

    def _check_options(self) -> None:
        options, weight = self.options, self.config.vae_training.perceptual_weight
        if (options.dataset is None) == (options.images is None):
            raise UsageError("give --dataset-csv or --images-dir: one of them says what is trained on")
        if options.epochs is not None and options.steps is not None:
            raise UsageError("--epochs and --steps both say how long: give one of them")
        if options.perceptual not in PERCEPTUAL:
            raise UsageError(f"--perceptual is {options.perceptual}: it must be one of {', '.join(PERCEPTUAL)}")
        if options.perceptual_weights and options.perceptual != "auto":
            raise UsageError(
                f"--perceptual {options.perceptual} and --perceptual-weights contradict each other: give one"
            )
        if not weight and (options.perceptual_weights or options.perceptual in ENCODERS):
            raise UsageError(
                f"the configuration {self.config.name} gives the perceptual term no weight: leave --perceptual and "
                "--perceptual-weights out, or set vae_training.perceptual_weight in a configuration of your own"
            )
        if options.warm_up is not None and not self.config.vae_training.adversarial_weight:
            raise UsageError(
                f"the configuration {self.config.name} gives the adversarial term no weight: leave "
                "--adversarial-warm-up out"
            )
        if options.perceptual_weights:
            load_lpips(options.perceptual_weights)

    def _check_size(self, size: tuple[int, int]) -> None:
        factor = self.config.vae.factor
        said = "--size" if self.options.size else "images of"
        if any(side % factor for side in size):
            around = [sorted({max(1, side // factor) * factor, -(-side // factor) * factor}) for side in size]
            sizes = " or ".join(dict.fromkeys(f"{around[0][i]}x{around[1][i]}" for i in (0, -1)))
            raise UsageError(
                f"{said} {size[0]}x{size[1]} pixels cannot be: rows and columns must be multiples of {factor} for the "
                f"{len(self.config.vae.channels)} levels of {self.config.name}. The nearest that are: give --size "
                f"{sizes}"
            )
        least = self.config.discriminator.smallest if self.config.vae_training.adversarial_weight else 1
        least = max(least, LEAST_LPIPS_SIDE if self.options.perceptual_weights else 1)
        if min(size) < least:
            raise UsageError(
                f"{said} {size[0]}x{size[1]} pixels are too small for {self.config.name}: {least} rows and columns are "
                "needed at least, or fewer discriminator.layers in a configuration of your own"
            )

    def _choose_features(self, images: NDArray[np.float32]) -> tuple[str, str]:
        """Return the name of what is compared, and a line that says why."""
        options, name = self.options, self.config.name
        if not self.config.vae_training.perceptual_weight:
            return "none", f"none, since its weight is 0 in {name}"
        if options.perceptual_weights:
            return "lpips", "LPIPS with SqueezeNet, as published, by the weights that were given"
        if options.perceptual == "none":
            return "none", "none, as asked; reconstructions become smoother than published ones"
        if options.perceptual in ENCODERS:
            return options.perceptual, f"features of the encoder {options.perceptual}, as asked"
        places = np.linspace(0, len(images) - 1, min(_N_LOOKED_AT, len(images))).astype(int)
        choice = choose_metric([images[place] for place in places], options.workers)
        if choice.metric in ENCODERS:
            return choice.metric, f"features of the encoder {choice.reason}"
        nearest = _ENCODER_OF.get(name) or max(ENCODERS, key=lambda known: choice.likeness.get(known, 0.0))
        return nearest, (
            f"features of the encoder {nearest}, though the images are like nothing that it was made for: name another "
            "with --perceptual, or none"
        )

    def describe(self) -> Description:
        """See `Training`."""
        options = self.options
        training = {
            "recipe": options.recipe,
            "seed": options.seed,
            "config": self.config.name,
            "perceptual": self.perceptual,
            "transpose": options.transpose,
        }
        assert self._sides is not None
        height, width = self._sides[0].shape[1:]
        return Description(
            "vae", self.config.vae.as_dict(), height, width, options.name or "vae", training, intensity="min-max"
        )

    def read(self, seed: int, n_processes: int) -> Work[Batch]:
        """See `Training`."""
        options, training = self.options, self.config.vae_training
        assert self._sides is not None
        source = Batches(self._sides[0], self.batch_size, seed, 0)
        n_batches = (options.epochs or training.epochs) * source.epoch_batches
        n_steps = options.steps or math.ceil(n_batches / (options.accumulate * n_processes))
        warm_up = training.adversarial_warm_up if options.warm_up is None else options.warm_up
        adversary = None
        if training.adversarial_weight:
            adversary = Adversary(
                self.config.discriminator, training.adversarial_weight, self.learning_rate,
                warm_up * options.accumulate, options.seed,
            )  # fmt: skip
        mirrored = (-2 if options.transpose else -1) if options.flip else None
        objective = VaeObjective(training.kl_weight, self._features(), training.perceptual_weight, adversary, mirrored)
        schedule = Schedule(
            n_steps, self.learning_rate, weight_decay=0.0, clip=training.clip or math.inf,
            accumulate=options.accumulate, average=training.ema, validate_every=look_every(options, n_steps),
            save_every=options.save_every, patience=options.patience, keep_every=options.keep_every,
        )  # fmt: skip
        validation = self._validation()
        return Work(
            replace(source, n_batches=n_steps * options.accumulate), objective, validation, schedule, adversary,
            lambda network, step: _draw(network, validation.images, options.out / PICTURE, f"step {step:,}"),
        )  # fmt: skip

    def _validation(self) -> VaeValidation:
        assert self._sides is not None
        images = self._sides[1]
        factor = self.config.vae.factor
        n_numbers = self.config.vae.latent_channels * (images.shape[1] // factor) * (images.shape[2] // factor)
        return VaeValidation(images, n_numbers, self.batch_size)

    def _features(self) -> nn.Module | None:
        if self.perceptual == "none":
            return None
        # Fresh weights, which the files' replace, are drawn as they are made.
        with torch.random.fork_rng([]):
            if self.perceptual == "lpips":
                return load_lpips(self.options.perceptual_weights)
            return perceptual_of(self.perceptual)

    def prepare(self, network: nn.Module) -> list[dict[str, Any]]:
        """See `Training`."""
        return [{"params": list(network.parameters()), "lr": self.learning_rate}]

    def finish(self, folder: RunFolder, work: Work[Batch], device: torch.device) -> Mapping[str, float]:
        """Draw ``curves.png``, and ``reconstructions.png`` by the best weights."""
        training = self.config.vae_training
        weights = {
            "kl": training.kl_weight,
            "perceptual": training.perceptual_weight,
            "adversarial": training.adversarial_weight,
            "discriminator": training.adversarial_weight,
        }
        draw_vae_curves(folder.read_log(), folder.path / "curves.png", weights)
        network, description = load_network(folder.path / "best.safetensors")
        assert isinstance(work.validation, VaeValidation)
        error = description.training["figures"]["valid_l1"]
        _draw(
            network.to(device), work.validation.images, folder.path / PICTURE,
            f"best weights, mean absolute error {error:.4f}",
        )  # fmt: skip
        return {}


def _draw(network: nn.Module, images: Tensor, path: Path, title: str) -> None:
    """Draw some images, and what the network gives back."""
    chosen = images[np.unique(np.linspace(0, len(images) - 1, min(_N_DRAWN, len(images))).astype(int))]
    made = reconstruct(network, chosen, next(network.parameters()).device)
    draw_reconstructions(chosen[:, 0].numpy(), made[:, 0].numpy(), path, title)
