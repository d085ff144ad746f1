"""The training loop: plain steps on Accelerate, which can be killed at any point and goes on to the same bits.

It knows a network, batches, an objective and a validation, and nothing of what is learnt: encoders of similarity and
contrastive ones give their own.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.swa_utils import AveragedModel

from deepssim.progress import Progress
from deepssim.train.processes import for_all, from_main, together
from deepssim.train.run_folder import RunFolder

__all__ = ["Companion", "Objective", "Schedule", "Source", "Validation", "train_network"]

B = TypeVar("B")
B_co = TypeVar("B_co", covariant=True)
B_contra = TypeVar("B_contra", contravariant=True)


class Source(Protocol[B_co]):
    """Where batches come from: step n is the same whenever it is asked for."""

    def steps(self, first: int) -> Iterator[B_co]:
        """Yield the batches from a step on, to the last at least."""


class Objective(Protocol[B_contra]):
    """What a network is taught."""

    def loss(
        self, network: nn.Module, batch: B_contra, draws: torch.Generator, device: torch.device
    ) -> tuple[Tensor, dict[str, float]]:
        """Return what is made smaller, and its parts as numbers; one of them is ``loss``.

        Args:
            network: In training mode; call it once for a batch, since other processes wait for its gradients.
            batch: Of the source, on the CPU.
            draws: Whatever is random comes from it: a function of seed, step and process.
            device: Where the network is.
        """


class Companion(Protocol[B_contra]):
    """A second network that learns in the same steps and is no part of what is kept, such as an adversary.

    It has an optimiser of its own; of several processes each holds a copy, whose gradients are averaged.
    """

    @property
    def network(self) -> nn.Module:
        """What learns: with the same weights on every process; it stays in training mode."""

    @property
    def learning_rate(self) -> float:
        """Highest; it changes as the schedule's does."""

    def loss(self, batch: B_contra, device: torch.device) -> tuple[Tensor, dict[str, float]] | None:
        """Return what is made smaller, and its parts as numbers, whose names are none of the objective's.

        Called after the objective's loss of the same batch, and after the network's update where there is one: what
        the objective made of the batch may have been kept for this.

        Returns:
            None where nothing is to be learnt of this batch; the answer is the same on every process.
        """


class Validation(Protocol):
    """A fixed set of what is not trained on; the same at every look."""

    def measure(self, network: nn.Module, device: torch.device) -> Mapping[str, float]:
        """Return figures by name; ``selection`` is the lower the better."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """How long and how fast.

    Attributes:
        steps: Updates of the weights.
        learning_rate: Highest, of the head.
        weight_decay: AdamW's, on matrices alone.
        warm_up: Part of the steps in which the rate rises.
        is_cosine: Whether it then falls as a cosine does; else it stays.
        floor: Part of the highest rate that it falls to.
        clip: Largest norm of the gradient; infinity: any.
        accumulate: Batches of an update.
        average: Decay of the average of the weights that is kept beside them; 0: none.
        validate_every: Steps between looks at the validation set.
        save_every: Steps between saved states.
        patience: Looks without a better one after which training ends; 0: never.
        keep_every: Steps between weights that are kept for good, as ``step-000500.safetensors``; 0: none.
    """

    steps: int
    learning_rate: float = 1e-3
    weight_decay: float = 1e-3
    warm_up: float = 0.0
    is_cosine: bool = False
    floor: float = 0.0
    clip: float = 1.0
    accumulate: int = 1
    average: float = 0.0
    validate_every: int = 500
    save_every: int = 200
    patience: int = 0
    keep_every: int = 0


def train_network(
    network: nn.Module,
    groups: list[dict[str, Any]],
    source: Source[B],
    objective: Objective[B],
    validation: Validation,
    schedule: Schedule,
    folder: RunFolder,
    accelerator: Accelerator,
    progress: Progress,
    seed: int = 0,
    *,
    companion: Companion[B] | None = None,
    pictures: Callable[[nn.Module, int], None] | None = None,
) -> dict[str, float]:
    """Train a network, from where its folder left off.

    Args:
        network: What learns.
        groups: Parameter groups of the optimiser, each with ``params`` and ``lr``.
        source: Batches; of this process, where there are several.
        objective: What is made smaller.
        validation: Looked at by the main process every so often; selects the best weights.
        schedule: How long and how fast.
        folder: Where checkpoints and figures go.
        accelerator: Devices, precision and processes.
        progress: Told of steps.
        seed: Of what the objective draws, and of dropout.
        companion: A network that learns beside it.
        pictures: Called by the main process at each look, after it, with the network that is kept, in evaluation mode,
            and the step.

    Returns:
        The figures of the best weights.

    Raises:
        UsageError: The state in the folder cannot be read, or the loss is no number.
    """
    state = _State(network, groups, schedule, folder, accelerator, seed)
    beside = _Beside(companion, state) if companion is not None else None
    state.beside = beside
    state.resume()
    with progress.track("training", schedule.steps) as advance:
        advance(state.step)
        began = time.monotonic()
        for batch in source.steps(state.step * schedule.accumulate):
            if state.step >= schedule.steps or state.is_tired():
                break
            with accelerator.accumulate(state.model):
                loss, parts = objective.loss(state.model, batch, state.begin_batch(), accelerator.device)
                accelerator.backward(loss)
                if accelerator.sync_gradients:
                    state.check_finite(float(accelerator.clip_grad_norm_(state.model.parameters(), schedule.clip)))
                state.optimizer.step()
                state.optimizer.zero_grad()
                if beside is not None:
                    parts = {**parts, **beside.learn(batch)}
            state.losses.append(parts)
            if not accelerator.sync_gradients:
                continue
            state.after_update()
            advance(1)
            is_last = state.step == schedule.steps
            if state.step % schedule.validate_every == 0 or is_last:
                progress.status(_look(state, validation, began))
                if pictures is not None:
                    _draw(state, pictures)
                began = time.monotonic()
            if schedule.keep_every and state.step % schedule.keep_every == 0:
                state.keep_weights()
            if state.step % schedule.save_every == 0 or is_last:
                state.save()
    return state.best


def _look(state: _State, validation: Validation, began: float) -> str:
    """Measure the weights, keep the figures with the seconds since the last look, and return them as a line."""
    accelerator = state.accelerator
    # One process decides for all which weights are best and when it is enough: figures of others differ in bits.
    figures = from_main(accelerator, lambda: dict(validation.measure(state.averaged, accelerator.device)))
    state.check_finite(*figures.values())
    means = state.mean_losses()
    state.keep_figures({**means, **figures, "seconds": round(time.monotonic() - began, 1)})
    return _line(state.step, means, figures)


def _draw(state: _State, pictures: Callable[[nn.Module, int], None]) -> None:
    """Let the main process draw what the weights make; the others wait."""

    def draw() -> None:
        network = state.averaged
        was_training = network.training
        network.eval()
        try:
            with torch.no_grad():
                pictures(network, state.step)
        finally:
            network.train(was_training)

    from_main(state.accelerator, draw)


def _line(step: int, means: dict[str, float], figures: dict[str, float]) -> str:
    shown = {"loss": means["loss"], **{k: v for k, v in figures.items() if k != "selection"}}
    return f"step {step}: " + ", ".join(f"{name.replace('_', ' ')} {value:.4f}" for name, value in shown.items())


class _State:
    """All that changes while training."""

    def __init__(
        self, network: nn.Module, groups: list[dict[str, Any]], schedule: Schedule, folder: RunFolder,
        accelerator: Accelerator, seed: int,
    ) -> None:  # fmt: skip
        self.schedule, self.folder, self.accelerator, self.seed = schedule, folder, accelerator, seed
        self.step, self.best, self.looks_since_best = 0, {"selection": math.inf}, 0
        self.losses: list[dict[str, float]] = []  # since the last look
        self.beside: _Beside[Any] | None = None
        self._batch = 0
        optimizer = torch.optim.AdamW(_decayed(groups, schedule.weight_decay), betas=(0.9, 0.999), fused=True)
        self.network = network
        self.model, self.optimizer = accelerator.prepare(network, optimizer)
        self.scheduler = LambdaLR(self.optimizer.optimizer, self.rate)
        self._average = AveragedModel(network, multi_avg_fn=self._mix, use_buffers=True) if schedule.average else None

    @property
    def averaged(self) -> nn.Module:
        """The network that is looked at and kept."""
        return self._average.module if self._average is not None else self.network

    def rate(self, step: int) -> float:
        """Return the part of the highest rate at a step."""
        schedule = self.schedule
        warm = schedule.warm_up * schedule.steps
        if step < warm:
            return (step + 1) / (warm + 1)
        if not schedule.is_cosine:
            return 1.0
        part = 0.5 * (1.0 + math.cos(math.pi * (step - warm) / max(1.0, schedule.steps - warm)))
        return schedule.floor + (1.0 - schedule.floor) * part

    def _mix(self, average: Sequence[Tensor], now: Sequence[Tensor], n: int | Tensor) -> None:
        decay = min(self.schedule.average, (1.0 + float(n)) / (10.0 + float(n)))
        for kept, new in zip(average, now, strict=True):
            if kept.is_floating_point():
                kept.lerp_(new, 1.0 - decay)
            else:
                kept.copy_(new)

    def begin_batch(self) -> torch.Generator:
        """Return the source of what is drawn for the batch to come, and seed what drops parts of the network.

        Both are functions of seed, process and position, so that nothing of them has to be saved: what a device drew
        on another process could not be.
        """
        position, process = self.step * 1_000 + self._batch, self.accelerator.process_index
        draws = torch.Generator()
        draws.manual_seed((self.seed * 1_000_003 + position) * 4_096 + process)
        words = np.random.SeedSequence([self.seed, self.step, self._batch, process]).generate_state(1, np.uint64)
        torch.default_generator.manual_seed(int(words[0]) >> 1)
        if self.accelerator.device.type == "cuda":
            torch.cuda.manual_seed(int(words[0]) >> 1)
        self._batch += 1
        return draws

    def check_finite(self, *figures: float) -> None:
        """Raise if a figure is no number: what comes of such weights is worth nothing.

        Of what is the same on every process, such as the norm of the gradient, and unlike the loss.
        """
        if not all(map(math.isfinite, figures)):
            raise for_all(
                self.accelerator,
                f"training diverged at step {self.step}: the loss is no number. Start again in another folder with a "
                f"--learning-rate below {self.schedule.learning_rate:g}",
            )

    def mean_losses(self) -> dict[str, float]:
        """Return the means since the last look, each over the batches that had such a part, and begin anew."""
        values: dict[str, list[float]] = {}
        for parts in self.losses:
            for name, value in parts.items():
                values.setdefault(name, []).append(value)
        self.losses = []
        return {name: sum(had) / len(had) for name, had in values.items()}

    def after_update(self) -> None:
        """Count a step."""
        self.scheduler.step()
        self.step += 1
        self._batch = 0
        if self._average is not None:
            self._average.update_parameters(self.accelerator.unwrap_model(self.model))

    def is_tired(self) -> bool:
        """Whether the last looks brought nothing."""
        return 0 < self.schedule.patience <= self.looks_since_best

    def keep_figures(self, figures: dict[str, float]) -> None:
        """Log figures, and keep the weights if they are the best so far."""
        is_best = figures["selection"] < self.best["selection"]
        self.looks_since_best = 0 if is_best else self.looks_since_best + 1
        if is_best:
            self.best = {"step": self.step, **figures}
        self.accelerator.log(figures, step=self.step)
        if not self.accelerator.is_main_process:
            return
        rate = self.scheduler.get_last_lr()[0]  # of the head, whose group comes first
        self.folder.log({"step": self.step, **figures, "learning_rate": rate, "is_best": is_best})
        self.folder.save_weights("last", self.averaged.state_dict(), figures)
        if is_best:
            self.folder.save_weights("best", self.averaged.state_dict(), figures)

    def keep_weights(self) -> None:
        """Keep the weights of this step for good."""
        if self.accelerator.is_main_process:
            self.folder.save_weights(f"step-{self.step:06d}", self.averaged.state_dict(), {"step": self.step})

    def save(self) -> None:
        """Write all that a resumed run needs."""
        if self.accelerator.is_main_process:
            self.folder.save_state(
                {
                    "step": self.step,
                    "best": dict(self.best),
                    "looks_since_best": self.looks_since_best,
                    "network": self.accelerator.unwrap_model(self.model).state_dict(),
                    "average": self._average.state_dict() if self._average is not None else {},
                    "optimizer": self.optimizer.state_dict(),
                    "scheduler": self.scheduler.state_dict(),
                    "losses": self.losses,
                    "companion": self.beside.state() if self.beside is not None else {},
                }
            )

    def resume(self) -> None:
        """Go on from the folder's state, if it has one; every process from the same."""
        state = together(self.accelerator, self.folder.read_state)
        if state is not None:
            self._load(state)
        steps = gather_object([self.step])
        if len({*steps}) > 1:
            raise for_all(
                self.accelerator,
                f"processes see other states of {self.folder.path}, at the steps {sorted({*steps})}: name a folder "
                "that all machines share with --out",
            )
        if self.accelerator.is_main_process:
            self.folder.cut_log(self.step)

    def _load(self, state: dict[str, Any]) -> None:
        self.step, self.best, self.looks_since_best = state["step"], state["best"], state["looks_since_best"]
        self.accelerator.unwrap_model(self.model).load_state_dict(state["network"])
        if self._average is not None:
            self._average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scheduler.load_state_dict(state["scheduler"])
        self.losses = state.get("losses", [])
        if self.beside is not None:
            self.beside.load(state["companion"])


class _Beside(Generic[B]):
    """A companion with its optimiser.

    Not wrapped as the network is: it is called several times for one gradient, which wrappers of several processes do
    not take, and it is small.
    """

    def __init__(self, companion: Companion[B], state: _State) -> None:
        self._companion, self._state, self._accelerator = companion, state, state.accelerator
        self.network = companion.network.to(state.accelerator.device).train()
        groups = [{"params": list(self.network.parameters()), "lr": companion.learning_rate}]
        self.optimizer = torch.optim.AdamW(
            _decayed(groups, state.schedule.weight_decay), betas=(0.9, 0.999), fused=True
        )

    def learn(self, batch: B) -> dict[str, float]:
        """Add the gradient of a batch, and update the weights where the network's are; returns parts of the loss."""
        made = self._companion.loss(batch, self._accelerator.device)
        if made is not None:
            self._accelerator.backward(made[0])
        if self._accelerator.sync_gradients:
            self._update()
        return {} if made is None else made[1]

    def _update(self) -> None:
        gradients = [p.grad for p in self.network.parameters() if p.grad is not None]
        if not gradients:
            return
        if self._accelerator.num_processes > 1:
            means = self._accelerator.reduce(torch.cat([g.flatten() for g in gradients]), "mean")
            for gradient, mean in zip(gradients, means.split([g.numel() for g in gradients]), strict=True):
                gradient.copy_(mean.view_as(gradient))
        self._state.check_finite(float(torch.nn.utils.get_total_norm(gradients)))
        for group in self.optimizer.param_groups:  # by the step, since there may have been nothing to learn before
            group["lr"] = self._companion.learning_rate * self._state.rate(self._state.step)
        self.optimizer.step()
        self.optimizer.zero_grad()

    def state(self) -> dict[str, Any]:
        """Return all that a resumed run needs."""
        return {"network": self.network.state_dict(), "optimizer": self.optimizer.state_dict()}

    def load(self, state: dict[str, Any]) -> None:
        """Go on from it."""
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])


def _decayed(groups: list[dict[str, Any]], weight_decay: float) -> list[dict[str, Any]]:
    """Split groups: biases, norms and other vectors are not drawn towards zero."""
    out = []
    for group in groups:
        rest = {name: value for name, value in group.items() if name != "params"}
        params = [p for p in group["params"] if p.requires_grad]
        out.append({**rest, "params": [p for p in params if p.ndim > 1], "weight_decay": weight_decay})
        out.append({**rest, "params": [p for p in params if p.ndim <= 1], "weight_decay": 0.0})
    return [group for group in out if group["params"]]
