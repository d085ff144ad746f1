"""Pictures of a training run: curves of its figures, and predicted against true similarity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepssim.plots.style import Look, new_figure, save, styled

__all__ = ["plot_correlations", "plot_curves", "plot_predictions"]

DPI = 110
_styled = partial(styled, extra="train")


@_styled
def plot_curves(log: Sequence[Mapping[str, Any]], path: Path, errors: Mapping[str, str], title: str) -> None:
    """Draw errors and shares found against the step, as a PNG.

    Args:
        log: Lines of ``metrics.jsonl``; the shares are those whose name has ``_in_``.
        path: The file.
        errors: Names of figures that the left half shows, with their labels.
        title: Of the left half.
    """
    figure = new_figure(Look(), (9, 3.6))
    left, shares = figure.subplots(1, 2)
    steps = [line["step"] for line in log]
    for name, label in errors.items():
        left.plot(steps, [line.get(name, np.nan) for line in log], label=label)
    left.set(xlabel="step", ylim=(0, None), title=title)
    for name in [name for name in (log[0] if log else {}) if "_in_" in name]:
        shares.plot(steps, [line.get(name, np.nan) for line in log], label=name.replace("_", " "))
    shares.set(xlabel="step", ylim=(0, 1.02), title="Source among the k nearest")
    for axes in (left, shares):
        axes.grid()
        if axes.lines:
            axes.legend(fontsize=8)
    save(figure, path, dpi=DPI)


@_styled
def plot_predictions(target: NDArray[np.float32], cosine: NDArray[np.float32], path: Path) -> None:
    """Draw predicted against true similarity, with the mean absolute error of each tenth, as a PNG.

    Args:
        target: ``(p,)`` true similarity.
        cosine: ``(p,)`` of the embeddings.
        path: The file.
    """
    figure = new_figure(Look(), (9, 4))
    cloud, bars = figure.subplots(1, 2, width_ratios=(1.1, 1))
    low = float(min(0.0, target.min(), cosine.min()))
    cloud.plot([low, 1], [low, 1], color="0.6", linewidth=1)
    cloud.scatter(target, cosine, s=5, alpha=0.35, linewidths=0)
    cloud.set(xlabel="SSIM", ylabel="cosine of the embeddings", xlim=(low, 1.01), ylim=(low, 1.01), aspect="equal")
    cloud.set_title(f"{len(target):,} pairs, MAE {np.abs(cosine - target).mean():.4f}")
    edges = np.linspace(0, 1, 11)
    place = np.clip((target * 10).astype(int), 0, 9)
    errors = [np.abs(cosine - target)[place == k].mean() if (place == k).any() else 0.0 for k in range(10)]
    bars.bar(edges[:-1] + 0.05, errors, width=0.085)
    bars.set(xlabel="SSIM", ylabel="mean absolute error", title="By tenth of the similarity")
    save(figure, path, dpi=DPI)


@_styled
def plot_correlations(
    unrelated: NDArray[np.float64], copies: NDArray[np.float64], threshold: float, path: Path
) -> None:
    """Draw where the scores of unrelated images and of copies lie, and a threshold, as a PNG.

    Args:
        unrelated: ``(n,)`` score of each image with its nearest one of another person.
        copies: ``(m,)`` score of each image with a view of it.
        threshold: From which on a pair is a copy.
        path: The file.
    """
    figure = new_figure(Look(), (7, 3.6))
    axes = figure.subplots()
    bins = np.linspace(min(0.0, float(unrelated.min()), float(copies.min())), 1.0, 61)
    for scores, label in (
        (unrelated, "training image to its nearest validation image"),
        (copies, "validation image to a view of it"),
    ):
        shares = np.full(len(scores), 100 / len(scores))
        axes.hist(scores, bins.tolist(), weights=shares, alpha=0.6, label=f"{label} ({len(scores):,})")
    axes.axvline(threshold, color="black", linestyle="--", linewidth=1, label=f"threshold {threshold:.4f}")
    axes.set(xlabel="correlation of the embeddings", ylabel="% of images", xlim=(bins[0], 1.0))
    axes.legend(fontsize=8, loc="upper left")
    axes.grid()
    save(figure, path, dpi=DPI)
