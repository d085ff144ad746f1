"""Training of the metric ``dar`` on a user's own real images (Dar et al., Nat. Biomed. Eng. 2025, arXiv 2402.01054).

What the paper leaves open is taken from its public code, Cardio-AI/memorization-ldm, ``train_selfsupervised2D.py``: an
image and one view of it (left to right, turned by up to 5 degrees, half of the time each), NT-Xent at temperature .07,
Adam at 1e-4, which falls as a cosine to its half over 200 epochs, batches of 64, ImageNet weights but for the first and
the last layer; the weights of the lowest validation loss are kept.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from deepssim.calibration import SUFFIX, Calibration
from deepssim.disk import replacing
from deepssim.errors import UsageError
from deepssim.models.checkpoint import Description, load_encoder
from deepssim.models.dar import Dar, describe_dar, load_start
from deepssim.progress import Progress
from deepssim.train.anchors import Anchors
from deepssim.train.augment import DAR
from deepssim.train.checks import check_seed, check_sides, check_size
from deepssim.train.contrast import ContrastObjective, ContrastValidation, ImageSource
from deepssim.train.launch import Result, Training, Work, launch, look_every
from deepssim.train.loop import Schedule
from deepssim.train.nearest import nearest_threshold
from deepssim.train.options import PeopleOptions
from deepssim.train.people import read_people
from deepssim.train.plots import plot_correlations, plot_curves
from deepssim.train.run_folder import RunFolder
from deepssim.train.validation import embed

__all__ = [
    "BATCH_SIZE",
    "EPOCHS",
    "LEARNING_RATE",
    "SIZE",
    "DarOptions",
    "DarTraining",
    "train_dar",
]

SIZE = (136, 112)
EPOCHS = 200
BATCH_SIZE = 64
LEARNING_RATE = 1e-4
TEMPERATURE = 0.07
# Part of the highest rate to which it falls.
_FLOOR = 0.5
# The strides of ResNet-50.
_LEAST_SIDE = 32
_CURVES = {"loss": "training loss", "valid_loss": "validation loss"}


@dataclass(frozen=True, slots=True, kw_only=True)
class DarOptions(PeopleOptions):
    """What is asked of a run of `dar`. None: what is published.

    `epochs` or `steps` says how long, `weights` where it starts (None: from nothing, since nothing is downloaded
    unasked), `size` is `SIZE` where it is None.
    """

    recipe: str = "dar"


def train_dar(options: DarOptions, progress: Progress | None = None) -> Result:
    """Train the network of the metric ``dar``, or go on with a run that was killed.

    Beside ``best.safetensors`` comes ``best.calibration.json`` with its threshold; see `deepssim.train.nearest`.

    Args:
        options: What was asked.
        progress: Told of steps.

    Raises:
        UsageError: An option cannot be, or the folder holds another run.
        MetricError: Weights do not fit.
        ElsewhereError: In another process than the main one, which says what is wrong.
    """
    return launch(DarTraining(options), options, progress)


class DarTraining(Training[Tensor]):
    """A `deepssim.train.launch.Training`.

    Args:
        options: What was asked.
    """

    def __init__(self, options: DarOptions) -> None:
        self.options = options
        self.size = options.size or SIZE
        self.batch_size = options.batch_size or BATCH_SIZE
        self.learning_rate = options.learning_rate or LEARNING_RATE
        self._sides: tuple[Anchors, Anchors] | None = None

    def check(self) -> None:
        """See `Training`."""
        options = self.options
        check_seed(options)
        check_size(self.size, _LEAST_SIDE, "the network dar")
        check_sides(options)
        if options.epochs is not None and options.steps is not None:
            raise UsageError("--epochs and --steps both say how long: give one of them")
        if self.batch_size < 2:
            raise UsageError(
                f"--batch-size is {self.batch_size}: images are told from others, so that it is at least 2"
            )

    def describe(self) -> Description:
        """See `Training`."""
        name = self.options.name or "dar"
        training = {"recipe": self.options.recipe, "seed": self.options.seed}
        return replace(describe_dar(self.size), name=name, training=training)

    def read(self, seed: int, n_processes: int) -> Work[Tensor]:
        """See `Training`."""
        options = self.options
        training, selecting = self._sides = read_people(options, self.size, with_alike=False)
        source = ImageSource(training.images, self.batch_size, seed, 0)
        per_epoch = max(1, source.epoch_steps // (n_processes * options.accumulate))
        n_steps = options.steps or per_epoch * (options.epochs or EPOCHS)
        schedule = Schedule(
            n_steps, self.learning_rate, weight_decay=0.0, is_cosine=True, floor=_FLOOR, clip=math.inf,
            accumulate=options.accumulate, validate_every=look_every(options, n_steps), save_every=options.save_every,
            patience=options.patience, keep_every=options.keep_every,
        )  # fmt: skip
        batch_size = min(self.batch_size, len(training))
        validation = ContrastValidation.of(selecting, training, DAR, batch_size, TEMPERATURE, seed=options.seed)
        source = replace(source, n_steps=n_steps * options.accumulate)
        return Work(source, ContrastObjective(DAR, TEMPERATURE), validation, schedule)

    def prepare(self, network: nn.Module) -> list[dict[str, Any]]:
        """See `Training`."""
        assert isinstance(network, Dar)
        if self.options.weights not in (None, "none"):
            load_start(network, str(self.options.weights))
        network.to(memory_format=torch.channels_last)
        return [{"params": list(network.parameters()), "lr": self.learning_rate}]

    def finish(self, folder: RunFolder, work: Work[Tensor], device: torch.device) -> Mapping[str, float]:
        """Draw ``curves.png`` and ``correlations.png``, and write the threshold."""
        plot_curves(folder.read_log(), folder.path / "curves.png", _CURVES, "NT-Xent")
        kept = load_encoder(folder.path / "best.safetensors")[0].to(device)
        assert self._sides is not None
        assert isinstance(work.validation, ContrastValidation)
        training, selecting = (embed(kept, torch.from_numpy(side.images)[:, None], device) for side in self._sides)
        nearest, calibration = _calibration(training, selecting, folder.description.name)
        with replacing(folder.path / f"best{SUFFIX}") as temporary:
            calibration.write(temporary)
        copies = work.validation.copies(kept, device)
        plot_correlations(nearest, copies, calibration.exact.value, folder.path / "correlations.png")
        found = float(np.mean(copies >= calibration.exact.cut()))
        return {"threshold": calibration.exact.value, "views_over_threshold": found}


def _calibration(
    training: NDArray[np.float32], validation: NDArray[np.float32], metric: str
) -> tuple[NDArray[np.float64], Calibration]:
    """Return the scores of the nearest and the one threshold: no pair is near without being exact."""
    nearest, threshold = nearest_threshold(training, validation)
    how = (
        f"95th percentile of the correlation of each of {len(training):,} training images with its nearest of "
        f"{len(validation):,} validation images, of people who were not trained on (arXiv 2402.01054)."
    )
    share = float(np.mean(nearest >= threshold.cut()))
    calibration = Calibration(
        metric, threshold, threshold, f"threshold of the training of {metric}", base_size=len(validation),
        false_positive_rate=share, how=how, views="none",
    )  # fmt: skip
    return nearest, calibration
