"""What the training of a U-Net is given, read and checked before anything is written or encoded."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepssim.errors import MetricError, UsageError
from deepssim.generative.config import GenerativeConfig, LdmTrainingConfig, VaeConfig, read_config
from deepssim.generative.data.conditions import PUBLISHED_VARIABLES, ConditionSpec, Embed, conditioning_name, fit
from deepssim.generative.data.duplication import check_duplication, multiplicities
from deepssim.generative.data.records import Dataset, Record, load_images
from deepssim.generative.facts import Part
from deepssim.generative.shapes import LatentShapes
from deepssim.images.text import one_line
from deepssim.models.checkpoint import Description, file_sha256
from deepssim.models.generative import load_unet, load_vae, part_of
from deepssim.models.layout import differences
from deepssim.models.unet import Unet
from deepssim.models.vae import Vae
from deepssim.train.checks import check_seed
from deepssim.train.generative.options import GenerativeOptions
from deepssim.train.options import RunOptions

__all__ = ["LdmOptions", "LdmParts", "read_parts"]

# Of the options, what decides no weights.
_UNDECISIVE = frozenset({"latent_shape", "vae_space_shape", "latents_cache", "sample_steps", "sample_every"})


@dataclass(frozen=True, slots=True, kw_only=True)
class LdmOptions(GenerativeOptions):
    """What is asked of a run of the U-Net. None: what the configuration says.

    Attributes:
        vae: The autoencoder: ``.safetensors`` of `train_vae`, or a ``.pth`` of published weights.
        weights: U-Net whose weights it starts from.
        conditioning: ``"none"``, ``"variables"`` or ``"text"``.
        variables: Columns of the CSV that condition; empty: the published six.
        scaler: What is done to them: ``"none"``, ``"standard"`` or ``"min-max"``.
        text_encoder: What makes embeddings of captions, see `deepssim.models.text`; None: they are read from files.
        duplication: How often each training image is seen in an epoch; see
            `deepssim.generative.data.duplication.multiplicities`.
        batch_size: Latents of a batch.
        learning_rate: AdamW's.
        ema: Decay of the average of the weights; 0: none.
        scale_factor: What latents are multiplied by, a number or ``"first-batch"``; None also: that of `weights`, where
            there are some.
        drop_condition: Part of the latents whose condition is left out, for guidance.
        latent_shape: Of a padded latent, to be checked: ``"3x36x28"``.
        vae_space_shape: Of a latent of the autoencoder, likewise.
        latents_cache: Folder of latents that runs share; None: in the folder of the run.
        sample_steps: Steps of sampling for pictures; 0: no pictures.
        sample_every: Steps of training between pictures: the first look after each so many has one; 0: so many that
            pictures take a fifth of the time at most.
    """

    recipe: str = "ldm"
    workers: int = 0
    vae: Path
    weights: Path | None = None
    conditioning: str = "none"
    variables: tuple[str, ...] = ()
    scaler: str = "none"
    text_encoder: str | None = None
    duplication: str = "none"
    batch_size: int | None = None
    learning_rate: float | None = None
    ema: float | None = None
    scale_factor: float | str | None = None
    drop_condition: float | None = None
    latent_shape: str | None = None
    vae_space_shape: str | None = None
    latents_cache: Path | None = None
    sample_steps: int = 50
    sample_every: int = 0

    def deciding(self) -> dict[str, Any]:
        """See `RunOptions.deciding`: contents of files, and nothing that decides no weights."""
        asked = {name: value for name, value in RunOptions.deciding(self).items() if name not in _UNDECISIVE}
        config = read_config(self.config)
        asked["config"] = {name: getattr(config, name).as_dict() for name in ("unet", "diffusion", "ldm_training")}
        asked["size"] = self.size or config.size
        asked["vae"] = file_sha256(self.vae)
        asked["weights"] = None if self.weights is None else file_sha256(self.weights)
        del asked["dataset"], asked["images"]
        asked["data"] = self.read(with_splits=False).signature()
        return asked


@dataclass(frozen=True, slots=True, eq=False)
class LdmParts:
    """Data, autoencoder and settings that fit each other.

    Attributes:
        config: The configuration.
        asked: How it is trained, with what was asked instead.
        dataset: All records.
        training: Those that are trained on.
        validation: Those that select the weights; may be none.
        multiplicities: ``(len(training),)`` how often each is in an epoch.
        size: Rows and columns that images are brought to; None: they have them.
        shapes: Of images and latents.
        vae: The autoencoder, in evaluation mode on the CPU.
        vae_part: What is known of it.
        conditions: What the U-Net is told of an image.
        contexts: ``(n, 1, d)`` float32 of the training records, then of the validation ones; None: there are none.
        arguments: Of the U-Net.
        start: U-Net whose weights it starts from.
        notes: What a person should know, a line each.
    """

    config: GenerativeConfig
    asked: LdmTrainingConfig
    dataset: Dataset
    training: tuple[Record, ...]
    validation: tuple[Record, ...]
    multiplicities: NDArray[np.int64]
    size: tuple[int, int] | None
    shapes: LatentShapes
    vae: Vae
    vae_part: Part
    conditions: ConditionSpec
    contexts: NDArray[np.float32] | None
    arguments: dict[str, Any]
    start: Unet | None
    notes: tuple[str, ...]

    @property
    def records(self) -> tuple[Record, ...]:
        """All that have a latent: the training records, then the validation ones."""
        return self.training + self.validation


def read_parts(options: LdmOptions) -> LdmParts:
    """Read what a training is given.

    Args:
        options: What was asked.

    Raises:
        UsageError: An option cannot be, or data and networks do not fit each other.
        MetricError: A file of weights is none, or of another network.
    """
    check_seed(options)
    config = read_config(options.config)
    conditioning = conditioning_name(options.conditioning)
    asked = _asked(options, config, conditioning)
    dataset = options.read(with_splits=False)
    training = dataset.split("train")
    validation = tuple(record for record in dataset.records if record.split == "valid")
    size = options.size or config.size
    image = _first_size(training[0], size, options.transpose)
    vae, description = _read_vae(options, config, image)
    shapes = LatentShapes.of(image, VaeConfig(**description.arguments), config.unet.divisor)
    shapes.check(options.latent_shape, options.vae_space_shape)
    conditions, contexts = _conditions(options, conditioning, training, validation)
    arguments = {
        **config.unet.as_dict(),
        "latent_channels": shapes.vae[0],
        "context_dim": conditions.dim or None,
    }
    vae_part = part_of(vae, description, options.vae)
    start, notes = _read_start(options, config, conditions, arguments, image, vae_part.hash)
    if not validation:
        notes += ("no image has the split valid, so the last weights are the best ones",)
    return LdmParts(
        config, asked, dataset, training, validation, multiplicities(training, options.duplication, options.seed),
        size, shapes, vae, vae_part, conditions, contexts, arguments, start, (*dataset.notes, *notes),
    )  # fmt: skip


def _asked(options: LdmOptions, config: GenerativeConfig, conditioning: str) -> LdmTrainingConfig:
    """Return how the U-Net is trained; check what needs no data."""
    given: dict[str, Any] = {
        "batch_size": options.batch_size,
        "epochs": options.epochs,
        "learning_rate": options.learning_rate,
        "ema": options.ema,
        "scale": options.scale_factor,
        "drop_condition": options.drop_condition,
    }
    asked = replace(config.ldm_training, **{name: value for name, value in given.items() if value is not None})
    if options.epochs is not None and options.steps is not None:
        raise UsageError("--epochs and --steps both say how long: give one of them")
    if asked.drop_condition and conditioning == "none":
        raise UsageError("--drop-condition leaves out conditions, and there are none: give --conditioning, or leave it")
    if options.variables and conditioning != "variables":
        raise UsageError("--variables are what --conditioning variables takes: give that, or leave them out")
    if options.text_encoder is not None and conditioning != "text":
        raise UsageError("--text-encoder embeds captions for --conditioning text: give that, or leave it out")
    if options.sample_steps > config.diffusion.steps:
        raise UsageError(
            f"--sample-steps is {options.sample_steps:,}, and the diffusion has {config.diffusion.steps:,} steps: "
            f"give 0 to {config.diffusion.steps:,}"
        )
    check_duplication(options.duplication)
    return asked


def _first_size(record: Record, size: tuple[int, int] | None, transpose: bool) -> tuple[int, int]:
    rows, columns = load_images([record], size=size, transpose=transpose).shape[1:]
    return rows, columns


def _read_vae(options: LdmOptions, config: GenerativeConfig, image: tuple[int, int]) -> tuple[Vae, Description]:
    """Read the autoencoder, and check that it was trained on images such as these."""
    vae, description = load_vae(options.vae, config, size=image)
    trained, faults = (description.height, description.width), []
    if trained != image:
        rows, columns = trained
        why = " (their rows and columns exchanged: --transpose)" if trained == image[::-1] else ""
        other = "or an autoencoder of such images"
        if options.size is None and config.size is not None:
            why, other = f", as the configuration {config.name} says{why}", "and the --config of its training"
        faults.append(
            f"it was trained on images of {rows} x {columns} pixels, and these are of {image[0]} x {image[1]}"
            f"{why}: give --size {rows}x{columns}, {other}"
        )
    is_transposed = description.training.get("transpose")
    if isinstance(is_transposed, bool) and is_transposed != options.transpose:
        faults.append(
            "it was trained with --transpose: give it here too"
            if is_transposed
            else "it was trained without --transpose: leave it out"
        )
    channels = description.arguments.get("latent_channels")
    if channels != config.vae.latent_channels:
        faults.append(
            f"its latents have {channels} channels, and the configuration {config.name} says "
            f"{config.vae.latent_channels}: give the --config of its training"
        )
    if faults:
        raise UsageError(f"{options.vae} does not fit: {'; '.join(faults)}")
    return vae, description


def _conditions(
    options: LdmOptions, kind: str, training: tuple[Record, ...], validation: tuple[Record, ...]
) -> tuple[ConditionSpec, NDArray[np.float32] | None]:
    """Return what the U-Net is told, and that of all records."""
    embed: Embed | None = None
    name = None
    if options.text_encoder is not None:
        from deepssim.models.text import TextEncoder

        encoder = TextEncoder(options.text_encoder)
        embed, name = encoder, encoder.name
    names = options.variables or PUBLISHED_VARIABLES
    spec = fit(training, kind, names, options.scaler, encoder=name, embed=embed)
    return spec, spec.arrays(training + validation, embed)


def _read_start(
    options: LdmOptions, config: GenerativeConfig, conditions: ConditionSpec, arguments: dict[str, Any],
    image: tuple[int, int], vae_hash: str,
) -> tuple[Unet | None, tuple[str, ...]]:  # fmt: skip
    """Read the U-Net whose weights the training starts from, if there is one, and what a person should know of it."""
    if options.weights is None:
        return None, ()
    path = options.weights
    unet, description = load_unet(path, config, conditions.kind, conditions.dim or None, size=image)
    if told := differences(description.arguments, arguments):
        raise MetricError(
            f"{path} is a U-Net of another size than the configuration {config.name} says: {'; '.join(told)}; give "
            "the --config of its training"
        )
    trained = description.training
    if trained.get("diffusion", config.diffusion.as_dict()) != config.diffusion.as_dict():
        raise UsageError(
            f"{path} was trained with other noise than the configuration {config.name} says: {trained['diffusion']}; "
            "write that into its table [diffusion]"
        )
    notes = []
    if trained.get("vae_hash") not in (None, vae_hash):
        notes.append(f"{path} was trained on latents of another autoencoder than {options.vae}")
    if trained.get("conditions") not in (None, conditions.as_dict()):
        notes.append(f"{path} was trained with other conditions, or with the same ones scaled in another way")
    return unet, tuple(one_line(note, 400) for note in notes)
