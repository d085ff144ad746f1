"""Training of the U-Net of a latent diffusion model (Rombach et al. 2022, as in Scardace et al., arXiv 2509.16582).

The autoencoder stays as it is: images become latents once, and the U-Net learns the noise in them. Training images can
be repeated on purpose, so that a model memorizes some of them and an audit has something to find.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deepssim.errors import UsageError
from deepssim.models.checkpoint import file_sha256
from deepssim.progress import Progress
from deepssim.train.launch import Result
from deepssim.train.options import RunOptions

__all__ = ["LdmOptions", "train_ldm"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LdmOptions(RunOptions):
    """What is asked of a run of the U-Net. None: what the configuration says.

    Attributes:
        vae: The autoencoder: ``.safetensors`` of `train_vae`, or a ``.pth`` of published weights.
        config: Name of a configuration of the package, or a TOML file.
        dataset: CSV of the images; see `deepssim.generative.records.read_dataset`.
        images: Folder of images, instead of a CSV.
        group_by: Who is who in the folder.
        valid_part: Part of its people who select the weights.
        size: Rows and columns that images are brought to.
        transpose: Whether images are seen with rows and columns exchanged, as published autoencoders saw them.
        weights: U-Net whose weights it starts from.
        conditioning: ``"none"``, ``"variables"`` or ``"text"``.
        variables: Columns of the CSV that condition; empty: the published six.
        scaler: What is done to them: ``"none"``, ``"standard"`` or ``"min-max"``.
        duplication: How often each training image is seen in an epoch: ``"none"``, ``"low"`` (1 to 4), ``"high"``
            (1 to 14), ``"1-N"``, or a column of the CSV.
        batch_size: Latents of a batch.
        learning_rate: AdamW's.
        ema: Decay of the average of the weights; 0: none.
        scale_factor: What latents are multiplied by; None also: that of `weights`, where there are some.
        drop_condition: Part of the latents whose condition is left out, for guidance.
        latent_shape: Of a padded latent, to be checked: ``"3x36x28"``.
        vae_space_shape: Of a latent of the autoencoder, likewise.
        latents_cache: Folder of latents that runs share; None: in the folder of the run.
        sample_steps: Steps of sampling for pictures; 0: no pictures.
        sample_every: Steps of training between pictures; 0: at each look at the validation set.
        keep_every: Steps of training between weights that are kept; 0: none are.
    """

    recipe: str = "ldm"
    vae: Path
    config: str = "paper-brain"
    dataset: Path | None = None
    images: Path | None = None
    group_by: str = "auto"
    valid_part: float = 0.15
    size: tuple[int, int] | None = None
    transpose: bool = False
    weights: Path | None = None
    conditioning: str = "none"
    variables: tuple[str, ...] = ()
    scaler: str = "none"
    duplication: str = "none"
    batch_size: int | None = None
    learning_rate: float | None = None
    ema: float | None = None
    scale_factor: float | None = None
    drop_condition: float | None = None
    latent_shape: str | None = None
    vae_space_shape: str | None = None
    latents_cache: Path | None = None
    sample_steps: int = 50
    sample_every: int = 0
    keep_every: int = 0


def train_ldm(options: LdmOptions, progress: Progress | None = None) -> Result:
    """Train the U-Net of a latent diffusion model, or go on with a run that was killed.

    Args:
        options: What was asked.
        progress: Told of steps.

    Raises:
        UsageError: An option cannot be, or the folder holds another run.
        MetricError: Weights do not fit.
        ElsewhereError: In another process than the main one, which says what is wrong.
    """
    raise NotImplementedError
