"""Pictures of the training of a VAE: what it gives back, and curves of its figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow
from PIL import ImageDraw, ImageFont

from deepssim.disk import replacing
from deepssim.plots.style import Look, new_figure, save, styled

__all__ = ["draw_reconstructions", "draw_vae_curves"]

DPI = 110
_styled = partial(styled, extra="train")
# Colour of a difference is full from here on; a tenth of the range is plain to see.
_DIFFERENCE = 0.1
# Pixels of the longer side of an image, about; between images, of a line of text, and of the narrowest sheet.
_SIDE, _GAP, _LINE, _LEAST_WIDTH = 160, 6, 24, 560
_LABELS = {
    "kl": "KL",
    "perceptual": "perceptual",
    "adversarial": "adversarial",
    "discriminator": "loss of the discriminator",
}


def draw_reconstructions(
    images: NDArray[np.float32], reconstructions: NDArray[np.float32], path: Path, title: str
) -> None:
    """Draw images, what a VAE gave back, and the difference, as a PNG of three rows.

    Args:
        images: ``(n, height, width)`` in [0, 1].
        reconstructions: Likewise.
        path: The file.
        title: Above all.
    """
    n, height, width = images.shape
    factor = max(1, round(_SIDE / max(height, width)))
    tall, wide = height * factor, width * factor
    rows = (
        ("image", _grey(images)),
        ("given back", _grey(reconstructions)),
        (f"difference: red is too bright, blue too dark, full colour from {_DIFFERENCE:g}",
         _diverging(reconstructions - images)),
    )  # fmt: skip
    sheet = Pillow.new("RGB", (max(_LEAST_WIDTH, n * (wide + _GAP) + _GAP), _LINE + 3 * (tall + _LINE) + _GAP), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(14)
    draw.text((_GAP, 4), title, fill="black", font=font)
    for row, (label, colours) in enumerate(rows):
        top = _LINE + row * (tall + _LINE)
        draw.text((_GAP, top + 4), label, fill=(89, 98, 108), font=font)
        for column in range(n):
            tile = Pillow.fromarray(colours[column]).resize((wide, tall), Pillow.Resampling.NEAREST)
            sheet.paste(tile, (_GAP + column * (wide + _GAP), top + _LINE))
    with replacing(path) as temporary:
        sheet.save(temporary, "PNG")


def _grey(images: NDArray[np.float32]) -> NDArray[np.uint8]:
    levels = np.rint(np.clip(images, 0, 1) * 255).astype(np.uint8)
    return np.repeat(levels[..., np.newaxis], 3, axis=-1)


def _diverging(differences: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Return white where there is none, red above and blue below."""
    strength = np.clip(differences[..., np.newaxis] / _DIFFERENCE, -1, 1)
    colours = np.where(strength > 0, np.array([178, 24, 43]), np.array([33, 102, 172]))
    levels: NDArray[np.uint8] = np.rint(255 + np.abs(strength) * (colours - 255)).astype(np.uint8)
    return levels


@_styled
def draw_vae_curves(log: Sequence[Mapping[str, Any]], path: Path, weights: Mapping[str, float]) -> None:
    """Draw errors and terms of the loss against the step, as a PNG.

    Args:
        log: Lines of ``metrics.jsonl``.
        path: The file.
        weights: Of the terms in the loss, by their names in the log.
    """
    figure = new_figure(Look(), (12, 3.6))
    error, ratio, terms = figure.subplots(1, 3)
    steps = [line["step"] for line in log]

    def draw(axes: Any, name: str, label: str, factor: float = 1.0, **style: Any) -> None:
        axes.plot(steps, [factor * line.get(name, np.nan) for line in log], label=label, **style)

    baseline: dict[str, Any] = {"color": "0.5", "linestyle": "--", "linewidth": 1.2}
    draw(error, "l1", "training")
    draw(error, "valid_l1", "validation")
    draw(error, "blur_l1", "blur of the latents' size", **baseline)
    error.set(xlabel="step", title="Mean absolute error", yscale="log")
    draw(ratio, "valid_psnr", "validation")
    draw(ratio, "blur_psnr", "blur of the latents' size", **baseline)
    ratio.set(xlabel="step", title="PSNR, dB")
    draw(terms, "l1", "L1")
    for name, weight in weights.items():
        if any(name in line for line in log):
            draw(terms, name, f"{_LABELS.get(name, name)} x {weight:g}", weight)
    terms.set(xlabel="step", title="Terms of the loss, weighted", yscale="log")
    for axes in (error, terms):  # powers of ten would be mathematics, which no text is read as
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    error.yaxis.set_minor_formatter(lambda value, _: f"{value:g}" if f"{value:e}"[0] in "25" else "")
    for axes in (error, ratio, terms):
        axes.grid()
        axes.legend(fontsize=8)
    save(figure, path, dpi=DPI)
