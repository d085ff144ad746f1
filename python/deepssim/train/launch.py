"""A training run from what was asked to its folder of weights, figures and pictures, whatever is trained."""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from accelerate import Accelerator
from torch import nn

from deepssim.errors import UsageError
from deepssim.models.checkpoint import Description, build_network
from deepssim.progress import Progress, Silent
from deepssim.train.loop import Companion, Objective, Schedule, Source, Validation, train_network
from deepssim.train.options import DEVICES, RunOptions
from deepssim.train.processes import together
from deepssim.train.run_folder import RunFolder
from deepssim.train.trackers import start_trackers, trackers_of

__all__ = ["Result", "Training", "Work", "launch", "look_every"]

B = TypeVar("B")
_LOOKS = 40


@dataclass(frozen=True, slots=True)
class Result:
    """What came of a run.

    Attributes:
        folder: Holds ``best.safetensors``, ``last.safetensors``, ``metrics.jsonl`` and pictures.
        best: Figures of the best weights, with their step.
        is_main_process: Whether this process wrote them: of several that train together one does.
    """

    folder: Path
    best: Mapping[str, float]
    is_main_process: bool = True


@dataclass(frozen=True, slots=True, eq=False)
class Work(Generic[B]):
    """What there is to do once the data were read.

    Attributes:
        source: Batches; of this process, where there are several.
        objective: What is made smaller.
        validation: Selects the best weights.
        schedule: How long and how fast.
        companion: Learns beside the network; see `deepssim.train.loop.Companion`.
        pictures: Called by the main process at each look, with the network that is kept, in evaluation mode and
            without gradients, and the step; it writes pictures into the folder of the run.
    """

    source: Source[B]
    objective: Objective[B]
    validation: Validation
    schedule: Schedule
    companion: Companion[B] | None = None
    pictures: Callable[[nn.Module, int], None] | None = None


class Training(ABC, Generic[B]):
    """One kind of training: what differs between them.

    Every method is called by every process, unless it says otherwise, and may raise a DeepSSIMError.
    """

    mixed_precision = False

    @abstractmethod
    def check(self) -> None:
        """Check what was asked, before anything is written or downloaded; read what `describe` has to know."""

    @abstractmethod
    def describe(self) -> Description:
        """Describe the network."""

    @abstractmethod
    def read(self, seed: int, n_processes: int) -> Work[B]:
        """Read the data; it must not wait for other processes.

        Args:
            seed: Of the batches, another one for each process.
            n_processes: That train together.
        """

    @abstractmethod
    def prepare(self, network: nn.Module) -> list[dict[str, Any]]:
        """Load and freeze what was asked; return the optimiser's groups."""

    @abstractmethod
    def finish(self, folder: RunFolder, work: Work[B], device: torch.device) -> Mapping[str, float]:
        """Write what comes of the best weights; the main process alone does. Returns more figures of them."""


def launch(training: Training[B], options: RunOptions, progress: Progress | None = None) -> Result:
    """Train, or go on with a run that was killed.

    Several processes that `accelerate launch` or torchrun start train together. The main one writes and tells of
    progress.

    Args:
        training: What.
        options: What was asked of the run.
        progress: Told of steps.

    Raises:
        UsageError: An option cannot be, or the folder holds another run.
        MetricError: Weights do not fit.
        ElsewhereError: In another process than the main one, which says what is wrong.
    """
    accelerator = _accelerator(options, training.mixed_precision)
    if progress is None or not accelerator.is_main_process:
        progress = Silent()
    together(accelerator, training.check)
    folder = RunFolder(options.out, training.describe(), options.deciding())
    with contextlib.ExitStack() as held:
        together(accelerator, lambda: held.enter_context(folder.held()) if accelerator.is_main_process else None)
        with _own_random_state(accelerator.device):
            return _train(training, options, folder, accelerator, progress)


def _train(
    training: Training[B], options: RunOptions, folder: RunFolder, accelerator: Accelerator, progress: Progress
) -> Result:
    seed = options.seed + 7_919 * accelerator.process_index
    # Data before weights: what is wrong with a list should not be said after a download.
    work = together(accelerator, lambda: training.read(seed, accelerator.num_processes))
    torch.manual_seed(options.seed)
    network = build_network(folder.description)
    groups = together(accelerator, lambda: training.prepare(network))
    if accelerator.is_main_process:
        folder.begin()
    start_trackers(accelerator, options)
    best = train_network(
        network, groups, work.source, work.objective, work.validation, work.schedule, folder, accelerator, progress,
        options.seed, companion=work.companion, pictures=work.pictures,
    )  # fmt: skip
    is_main = accelerator.is_main_process
    accelerator.wait_for_everyone()  # a process that leaves while another is at work can abort as it ends
    accelerator.end_training()
    if is_main:
        best = {**best, **training.finish(folder, work, accelerator.device)}
    return Result(folder.path, best, is_main)


def look_every(options: RunOptions, n_steps: int) -> int:
    """Return the steps between looks at the validation set."""
    return options.validate_every or max(1, n_steps // _LOOKS)


@contextlib.contextmanager
def _own_random_state(device: torch.device) -> Iterator[None]:
    """Give back torch's random state as it was: initial weights, dropout and the like are drawn from it."""
    with torch.random.fork_rng([device.index or 0] if device.type == "cuda" else []):
        yield


def _accelerator(options: RunOptions, mixed_precision: bool) -> Accelerator:
    if options.device not in DEVICES:
        raise UsageError(f"device is {options.device!r}: it must be one of {', '.join(DEVICES)}")
    has_cuda = torch.cuda.is_available()
    if options.device == "cuda" and not has_cuda:
        raise UsageError("no CUDA device that this PyTorch can use; give --device cpu, or install a build for your GPU")
    on_cpu = options.device == "cpu" or not has_cuda
    precision = "bf16" if mixed_precision and not on_cpu else "no"
    return Accelerator(
        cpu=on_cpu, mixed_precision=precision, gradient_accumulation_steps=options.accumulate,
        log_with=trackers_of(options) or None, project_dir=str(options.out),
    )  # fmt: skip
