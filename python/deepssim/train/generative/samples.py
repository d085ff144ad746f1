"""Pictures of what a U-Net under training makes, and beside each sample the training image that is most like it.

Whether a model copies shows there long before a loss tells it.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image as Pillow
from PIL import ImageDraw
from torch import nn

from deepssim.disk import replacing
from deepssim.errors import MetricError
from deepssim.generate import backend_of
from deepssim.generative.data.records import Record, load_images
from deepssim.generative.sampling.sampler import ModelFacts, Request, sample
from deepssim.image_ops import resize_area
from deepssim.models.unet import Unet
from deepssim.models.vae import Vae
from deepssim.plots.style import Look, new_figure, save, styled

__all__ = ["N_SAMPLES", "Gallery", "SamplePictures", "draw_ldm_curves", "draw_samples", "nearest_images", "read_notes"]

N_SAMPLES = 16
_COLUMNS = 8
# Of the nearest by thumbnails, so many are looked at in full.
_CANDIDATES = 4
_CHUNK = 4096
_LOG = "samples.jsonl"
DPI = 110
# Shorter side of an image in a picture at least, in pixels, and what is below it for a number.
_LEAST_PX, _GAP_PX, _TEXT_PX = 96, 4, 14


@dataclass(frozen=True, slots=True, eq=False)
class Gallery:
    """Training images in which the nearest of a sample are searched.

    Attributes:
        records: Distinct images that are trained on.
        thumbnails: ``(n, rows, columns)`` uint8 of them.
        size: Rows and columns that they are brought to when they are read; None: they have them.
        transpose: Whether they are seen with rows and columns exchanged.
    """

    records: Sequence[Record]
    thumbnails: NDArray[np.uint8]
    size: tuple[int, int] | None
    transpose: bool


def nearest_images(
    samples: NDArray[np.float32], gallery: Gallery
) -> tuple[list[Record], NDArray[np.float32], NDArray[np.float64]]:
    """Find the training image that correlates most with each sample: by thumbnails, the best of them in full.

    Args:
        samples: ``(s, height, width)``.
        gallery: The training images.

    Returns:
        For each sample the record, its image ``(s, height, width)`` and their correlation; 0 with a constant image.

    Raises:
        UsageError: A training image cannot be read any more.
    """
    rows, columns = gallery.thumbnails.shape[1:]
    small = _unit(np.stack([resize_area(image, rows, columns) for image in samples]))
    n_candidates = min(_CANDIDATES, len(gallery.records))
    scores = np.concatenate(
        [
            small @ _unit(gallery.thumbnails[start : start + _CHUNK].astype(np.float32)).T
            for start in range(0, len(gallery.thumbnails), _CHUNK)
        ],
        axis=1,
    )
    candidates = np.argsort(-scores, axis=1, kind="stable")[:, :n_candidates]
    chosen = np.unique(candidates)
    images = load_images([gallery.records[i] for i in chosen], size=gallery.size, transpose=gallery.transpose)
    exact = _unit(samples) @ _unit(images).T
    found = [
        max(np.searchsorted(chosen, places).tolist(), key=lambda place: exact[row, place])
        for row, places in enumerate(candidates)
    ]
    records = [gallery.records[int(chosen[place])] for place in found]
    return records, images[found], exact[np.arange(len(samples)), found].astype(np.float64)


def _unit(images: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return images as rows whose inner products are correlations."""
    rows = images.reshape(len(images), -1).astype(np.float32)
    rows = rows - rows.mean(axis=1, keepdims=True)
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12), np.float32)


def draw_samples(
    samples: NDArray[np.float32], nearest: NDArray[np.float32], correlations: NDArray[np.float64], title: str
) -> bytes:
    """Draw samples in rows of eight, below each its nearest training image and their correlation, as a PNG.

    Args:
        samples: ``(s, height, width)``; shown from 0, black, to 1, white.
        nearest: The same.
        correlations: ``(s,)``.
        title: Above all.

    Example:
        >>> grey = np.full((3, 8, 8), 0.5, np.float32)
        >>> draw_samples(grey, grey, np.zeros(3), "step 5")[1:4]
        b'PNG'
    """
    height, width = samples.shape[1:]
    scale = max(1, round(_LEAST_PX / min(height, width)))
    cell_height, cell_width = height * scale, width * scale
    columns = min(_COLUMNS, len(samples))
    block = 2 * (cell_height + _GAP_PX) + _TEXT_PX + _GAP_PX
    n_blocks = -(-len(samples) // columns)
    page = Pillow.new("L", (columns * (cell_width + _GAP_PX) + _GAP_PX, n_blocks * block + _TEXT_PX + 2 * _GAP_PX), 255)
    pen = ImageDraw.Draw(page)
    pen.text((_GAP_PX, _GAP_PX), title, fill=0)
    for i in range(len(samples)):
        left = _GAP_PX + (i % columns) * (cell_width + _GAP_PX)
        top = _TEXT_PX + 2 * _GAP_PX + (i // columns) * block
        for j, image in enumerate((samples[i], nearest[i])):
            grey = np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8)
            picture = Pillow.fromarray(grey).resize((cell_width, cell_height), Pillow.Resampling.NEAREST)
            page.paste(picture, (left, top + j * (cell_height + _GAP_PX)))
        pen.text((left, top + 2 * (cell_height + _GAP_PX)), f"r = {correlations[i]:.3f}", fill=0)
    buffer = io.BytesIO()
    page.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


@dataclass(frozen=True, slots=True, eq=False)
class SamplePictures:
    """Draws ``samples-STEP.png`` at looks, and notes in ``samples.jsonl`` which training images samples are like.

    Attributes:
        folder: Of the run.
        vae: The autoencoder.
        facts: Of the model.
        requests: Samples that are asked for, the same at each look.
        gallery: The training images.
        n_steps: Of sampling.
        every: Steps of training between pictures.
        look_every: Steps between looks.
        last: Step of the last look.
        seed: Of the noise that samples begin as.
        device: Where the networks are.
    """

    folder: Path
    vae: Vae
    facts: ModelFacts
    requests: Sequence[Request]
    gallery: Gallery
    n_steps: int
    every: int
    look_every: int
    last: int
    seed: int
    device: torch.device

    def is_due(self, step: int) -> bool:
        """Whether there is a picture at a look: the first look after each so many steps has one, and the last."""
        if step == self.last:
            return True
        return step // self.every > (step - self.look_every) // self.every

    def __call__(self, network: nn.Module, step: int) -> None:
        """Draw what a network makes.

        Args:
            network: In evaluation mode, on the device.
            step: Of the training.
        """
        if not self.is_due(step):
            return
        assert isinstance(network, Unet)
        backend = backend_of(self.vae, network, self.facts, device=self.device, batch=len(self.requests))
        try:
            samples = np.stack(list(sample(backend, self.requests, steps=self.n_steps, seed=self.seed)))
        except MetricError:
            return  # of weights that are far from anything; the next look has a picture
        samples = np.clip(samples, 0, 1)  # as they are written
        records, nearest, correlations = nearest_images(samples, self.gallery)
        title = (
            f"step {step:,}: samples, and below each the nearest of {len(self.gallery.records):,} training images "
            "with their correlation"
        )
        with replacing(self.folder / f"samples-{step:06d}.png") as temporary:
            temporary.write_bytes(draw_samples(samples, nearest, correlations, title))
        self._note(step, records, correlations)

    def _note(self, step: int, records: Sequence[Record], correlations: NDArray[np.float64]) -> None:
        """Add a line; lines of steps that are trained again are dropped."""
        path = self.folder / _LOG
        kept = [json.dumps(note) for note in read_notes(self.folder) if note["step"] < step]
        found = [
            {"nearest": record.uid, "correlation": round(float(value), 6)}
            for record, value in zip(records, correlations, strict=True)
        ]
        kept.append(json.dumps({"step": step, "mean": round(float(correlations.mean()), 6), "samples": found}))
        with replacing(path) as temporary:
            temporary.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")


def read_notes(folder: Path) -> list[dict[str, Any]]:
    """Return the lines of ``samples.jsonl`` of a run: ``step``, ``mean``, ``samples``; none if it is not there."""
    path = folder / _LOG
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


@partial(styled, extra="train")
def draw_ldm_curves(log: Sequence[Mapping[str, Any]], notes: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draw the error of the noise, its gap and how like samples are to training images, as a PNG.

    Args:
        log: Lines of ``metrics.jsonl``.
        notes: Of `read_notes`.
        path: The file.
    """
    figure = new_figure(Look(), (12, 3.6))
    error, gap, like = figure.subplots(1, 3)
    steps = [line["step"] for line in log]

    def draw(axes: Any, name: str, label: str, **style: Any) -> None:
        if any(name in line for line in log):
            axes.plot(steps, [line.get(name, np.nan) for line in log], label=label, **style)

    draw(error, "loss", "batches of the training", color="0.6", linewidth=1.0)
    draw(error, "train_loss", "training images")
    draw(error, "valid_loss", "validation images")
    error.set(xlabel="step", ylim=(0, None), title="Squared error of the noise")
    draw(gap, "gap", "validation minus training images")
    gap.axhline(0, color="0.5", linewidth=1)
    gap.set(xlabel="step", title="Gap: above 0, training images are known")
    for pick, label in ((np.max, "greatest"), (np.mean, "mean")):
        values = [pick([found["correlation"] for found in note["samples"]]) for note in notes]
        like.plot([note["step"] for note in notes], values, label=f"{label} of {N_SAMPLES} samples")
    like.set(xlabel="step", ylim=(None, 1.02), title="Correlation with nearest training image")
    for axes in (error, gap, like):
        axes.grid()
        if axes.get_legend_handles_labels()[1]:
            axes.legend(fontsize=8)
    save(figure, path, dpi=DPI)
