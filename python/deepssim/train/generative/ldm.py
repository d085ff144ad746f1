"""Training of the U-Net of a latent diffusion model (Rombach et al. 2022, as in Scardace et al., arXiv 2509.16582).

The autoencoder stays as it is: images become latents once, and the U-Net learns the noise in them. Training images can
be repeated on purpose, so that a model memorizes some of them and an audit has something to find.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from accelerate.state import PartialState
from numpy.typing import NDArray
from torch import Tensor, nn

from deepssim.disk import check_writable
from deepssim.errors import MetricError
from deepssim.generative.facts import Part, model_facts
from deepssim.generative.sampling.sampler import Request
from deepssim.generative.sampling.schedule import alphas_cumprod
from deepssim.generative.section import FIRST_BATCH
from deepssim.models.checkpoint import Description
from deepssim.models.unet import Unet
from deepssim.progress import Progress, Silent
from deepssim.tables import write_csv
from deepssim.train.generative.latents import LatentKey, LatentSet, image_digests, read_latents
from deepssim.train.generative.ldm_parts import LdmOptions, LdmParts, read_parts
from deepssim.train.generative.noise import (
    LOOK_PASSES,
    Clock,
    LatentSource,
    LatentTable,
    NoiseObjective,
    NoiseValidation,
)
from deepssim.train.generative.samples import N_SAMPLES, Gallery, SamplePictures, draw_ldm_curves, read_notes
from deepssim.train.launch import Result, Training, Work, launch, look_every
from deepssim.train.loop import Schedule
from deepssim.train.run_folder import RunFolder

__all__ = ["LdmOptions", "LdmTraining", "train_ldm"]

_USED = "train-used.csv"
_LATENTS = "latents"


def train_ldm(options: LdmOptions, progress: Progress | None = None) -> Result:
    """Train the U-Net of a latent diffusion model, or go on with a run that was killed.

    Beside the weights the folder gets ``train-used.csv`` (how often each image was in an epoch), ``curves.png``,
    ``samples-STEP.png`` (samples, and below each its nearest training image) and the latents.

    Args:
        options: What was asked.
        progress: Told of steps.

    Raises:
        UsageError: An option cannot be, or the folder holds another run.
        MetricError: Weights do not fit.
        ElsewhereError: In another process than the main one, which says what is wrong.
    """
    return launch(LdmTraining(options, progress), options, progress)


class LdmTraining(Training[Tensor]):
    """A `deepssim.train.launch.Training`.

    Args:
        options: What was asked.
        progress: Told of what is encoded.
    """

    mixed_precision = True

    def __init__(self, options: LdmOptions, progress: Progress | None = None) -> None:
        self.options = options
        self._progress = progress or Silent()
        self._parts: LdmParts | None = None
        self._scale = 1.0

    @property
    def parts(self) -> LdmParts:
        """What the training was given; see `check`."""
        assert self._parts is not None
        return self._parts

    def check(self) -> None:
        """See `Training`."""
        self._parts = read_parts(self.options)
        if self.options.latents_cache is not None:
            check_writable(self.options.latents_cache)

    def describe(self) -> Description:
        """See `Training`."""
        parts, options = self.parts, self.options
        height, width = parts.shapes.image
        training = {
            "recipe": options.recipe,
            "seed": options.seed,
            "config": parts.config.name,
            "diffusion": parts.config.diffusion.as_dict(),
            "conditions": parts.conditions.as_dict(),
            "image": [height, width],
            "transpose": options.transpose,
            "vae_hash": parts.vae_part.hash,
            "drop_condition": parts.asked.drop_condition,
        }
        name = options.name or "ldm"
        return Description("unet", parts.arguments, height, width, name, training, intensity="min-max")

    def read(self, seed: int, n_processes: int) -> Work[Tensor]:
        """See `Training`; the order of the latents is the same for all processes, of which each takes its part."""
        parts, options, asked = self.parts, self.options, self.parts.asked
        process = PartialState()
        progress = self._progress if process.is_main_process else Silent()
        for note in parts.notes:
            progress.status(note)
        latents = self._latents(progress, process)
        clock = Clock()
        batch = asked.batch_size * n_processes * options.accumulate
        n_steps = options.steps or math.ceil(asked.epochs * int(parts.multiplicities.sum()) / batch)
        source = LatentSource.of(
            parts.multiplicities, batch_size=asked.batch_size, seed=options.seed,
            n_steps=n_steps * options.accumulate, process=process.process_index, n_processes=n_processes,
            accumulate=options.accumulate, clock=clock,
        )  # fmt: skip
        first = source.between(0, asked.batch_size)
        self._scale = self._scale_of(latents.latents[latents.rows[first]])
        table = self._table(latents)
        alphas = torch.from_numpy(alphas_cumprod(parts.config.diffusion).astype(np.float32))
        n_training = len(parts.training)
        validation = NoiseValidation.of(
            table, np.arange(n_training, len(table)), np.arange(n_training), alphas, clock, options.seed
        )
        schedule = Schedule(
            n_steps, asked.learning_rate, weight_decay=asked.weight_decay, clip=asked.clip or math.inf,
            accumulate=options.accumulate, average=asked.ema,
            validate_every=options.validate_every or max(look_every(options, n_steps), _apart(LOOK_PASSES, batch)),
            save_every=options.save_every, patience=options.patience, keep_every=options.keep_every,
        )  # fmt: skip
        pictures = self._pictures(latents, schedule, process.device) if options.sample_steps else None
        return Work(source, NoiseObjective(table, alphas, asked.drop_condition), validation, schedule, None, pictures)

    def _latents(self, progress: Progress, process: PartialState) -> LatentSet:
        """Return the latents of all records, and write how often each image is trained on."""
        parts, options = self.parts, self.options
        digests = image_digests(parts.records, threads=options.workers or None)
        key = LatentKey(
            parts.vae_part.hash, dict(parts.vae_part.arguments), parts.shapes.image, options.transpose,
            tuple(sorted(set(digests))),
        )  # fmt: skip
        if process.is_main_process:
            rows = zip(parts.training, parts.multiplicities.tolist(), strict=True)
            used = ([record.uid, record.group or "", count] for record, count in rows)
            write_csv(options.out / _USED, ["image_uid", "group", "multiplicity"], used)
        return read_latents(
            parts.records, parts.vae, key, digests, options.latents_cache or options.out / _LATENTS, size=parts.size,
            device=process.device, is_shared=options.latents_cache is not None, threads=options.workers or None,
            progress=progress,
        )  # fmt: skip

    def _scale_of(self, first: NDArray[np.float32]) -> float:
        """Return what latents are multiplied by, from those of the first batch (Rombach et al. 2022, appendix G)."""
        parts = self.parts
        if parts.start is not None and self.options.scale_factor is None:
            return float(parts.start.scale_factor)
        if parts.asked.scale != FIRST_BATCH:
            return float(parts.asked.scale)
        spread = float(first.std(dtype=np.float64))
        if not spread > 0:
            raise MetricError(f"{self.options.vae} gives all images the same latent: its weights are of no use")
        return 1.0 / spread

    def _table(self, latents: LatentSet) -> LatentTable:
        contexts = self.parts.contexts
        scaled = self.parts.shapes.pad(latents.latents[latents.rows] * np.float32(self._scale))
        return LatentTable(torch.from_numpy(scaled), None if contexts is None else torch.from_numpy(contexts))

    def _pictures(self, latents: LatentSet, schedule: Schedule, device: torch.device) -> SamplePictures:
        parts, options = self.parts, self.options
        _, firsts = np.unique(latents.rows[: len(parts.training)], return_index=True)
        gallery = Gallery(
            [parts.training[i] for i in firsts], latents.thumbnails[latents.rows[firsts]], parts.size,
            options.transpose,
        )  # fmt: skip
        description = self.describe()
        unet = Part("the U-Net", parts.arguments, "", parts.shapes.image, description.training, self._scale)
        requests = _requests(parts)
        batch = parts.asked.batch_size * options.accumulate
        every = options.sample_every or _apart(N_SAMPLES * options.sample_steps, batch)
        return SamplePictures(
            options.out, parts.vae, model_facts(parts.vae_part, unet), requests, gallery, options.sample_steps,
            every, schedule.validate_every, schedule.steps, options.seed, device,
        )  # fmt: skip

    def prepare(self, network: nn.Module) -> list[dict[str, Any]]:
        """See `Training`."""
        assert isinstance(network, Unet)
        if self.parts.start is not None:
            network.load_state_dict(self.parts.start.state_dict())
        network.scale_factor.fill_(self._scale)
        network.to(memory_format=torch.channels_last)  # a tenth faster on processors, more in 16 bits on a GPU
        return [{"params": list(network.parameters()), "lr": self.parts.asked.learning_rate}]

    def finish(self, folder: RunFolder, work: Work[Tensor], device: torch.device) -> Mapping[str, float]:
        """Draw ``curves.png``."""
        draw_ldm_curves(folder.read_log(), read_notes(folder.path), folder.path / "curves.png")
        return {"scale_factor": self._scale}


def _apart(n_passes: int, batch: int) -> int:
    """Return the steps of training after which passes through the network took a fourth of the time of the training.

    A step costs about three passes of each of its images: there, and back by activations and by weights.
    """
    return math.ceil(4 * n_passes / (3 * batch))


def _requests(parts: LdmParts) -> list[Request]:
    """Ask for samples: of conditions spread over the training records, where there are any."""
    if parts.contexts is None:
        return [Request("sample", number) for number in range(N_SAMPLES)]
    places = np.linspace(0, len(parts.training), N_SAMPLES, endpoint=False).astype(int).tolist()
    return [Request(parts.training[i].uid, number, parts.contexts[i]) for number, i in enumerate(places)]
