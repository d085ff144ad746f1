"""Counts, tables and pictures of `memorization_experiment.py`, from what its audits wrote."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from deepssim.plots.style import HAIR, INK, MUTED, Look, new_figure, styled
from deepssim.statistics import patient_rate, proportion_of_patients

# Multiplicities of a group in the figures: the first and the last.
BANDS = ((1, 3), (4, 6), (7, 9), (10, 12), (13, 15))
N_COPIES = 8
RESAMPLES = 2000


@dataclass(frozen=True)
class Checkpoint:
    """What the audit of a checkpoint's samples found.

    Attributes:
        step: Updates of the U-Net.
        summary: Of the audit.
        audit: Folder of the audit.
        samples: Folder of the samples.
        real: Folder of the images that were trained on.
        people: ``(n_images,)`` whose each of them is.
        multiplicities: ``(n_images,)`` how often it was in an epoch.
        copies: ``(n_images,)`` samples of which it is the nearest, and that are flagged.
        exact: ``(n_images,)`` those of them that are exact.
        pairs: ``(sample's path, real image's path, row, label, s1)`` of flagged samples, the nearest first.
    """

    step: int
    summary: dict[str, Any]
    audit: Path
    samples: Path
    real: Path
    people: NDArray[np.str_]
    multiplicities: NDArray[np.int64]
    copies: NDArray[np.int64]
    exact: NDArray[np.int64]
    pairs: tuple[tuple[Path, Path, int, str, float], ...]


def measure(step: int, summary: dict[str, Any], audit: Path, samples: Path, real: Path, used: Path) -> Checkpoint:
    """Count what each image was copied by.

    Args:
        step: Of the checkpoint.
        summary: Of the audit.
        audit: Its folder.
        samples: Folder of the samples.
        real: Folder of the images that were trained on, ``PERSON/NAME.png``.
        used: ``train-used.csv`` of the training.
    """
    with used.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    row_of = {row["image_uid"]: i for i, row in enumerate(rows)}
    copies, exact = np.zeros(len(rows), np.int64), np.zeros(len(rows), np.int64)
    matches = pq.read_table(audit / "matches.parquet").to_pylist()
    nearest = [m for m in matches if m["rank"] == 1 and m["label"] in ("near", "exact")]
    pairs = []
    for match in sorted(nearest, key=lambda m: (-m["s1"], m["synthetic_id"])):
        person, name = Path(match["real_path"]).parts[-2:]
        row = row_of[f"{person}_{Path(name).stem}"]
        copies[row] += 1
        exact[row] += match["label"] == "exact"
        pairs.append((samples / match["synthetic_path"], real / match["real_path"], row, match["label"], match["s1"]))
    return Checkpoint(
        step, summary, audit, samples, real, np.array([row["group"] for row in rows]),
        np.array([int(row["multiplicity"]) for row in rows]), copies, exact, tuple(pairs),
    )  # fmt: skip


def results(
    found: Sequence[Checkpoint], ceiling: Mapping[str, Any], siblings: Mapping[str, Any], *, seed: int
) -> dict[str, Any]:
    """Return everything that is shown, as numbers."""
    first = found[0]
    return {
        "images": len(first.people),
        "patients": len(set(first.people.tolist())),
        "samples": int(first.summary["synthetic_flagged"]["total"]),
        "multiplicities": {f"{low}-{high}": int(_in_band(first, low, high).sum()) for low, high in BANDS},
        "reconstructions": _flagged(ceiling),
        "siblings": _flagged(siblings),
        "checkpoints": [_checkpoint(one, seed) for one in found],
    }


def _checkpoint(one: Checkpoint, seed: int) -> dict[str, Any]:
    names, codes = np.unique(one.people, return_inverse=True)
    leaked = one.copies > 0

    def by_person(events: NDArray[np.bool_], among: NDArray[np.bool_]) -> dict[str, Any]:
        counts = [np.bincount(codes[among & which], minlength=len(names)) for which in (events, among | True)]
        rate = patient_rate(counts[0].astype(np.int64), counts[1].astype(np.int64), seed=seed)
        return {"leaked": rate.events, "total": rate.total, "rate": rate.rate, "interval": [rate.low, rate.high]}

    everything = np.ones(len(leaked), bool)
    patients = proportion_of_patients(len(set(codes[leaked].tolist())), len(names))
    return {
        "step": one.step,
        **_flagged(one.summary),
        "images": by_person(leaked, everything),
        "patients": {
            "leaked": patients.events, "total": patients.total, "rate": patients.rate,
            "interval": [patients.low, patients.high],
        },
        "by_multiplicity": {
            f"{low}-{high}": {
                **by_person(leaked, _in_band(one, low, high)),
                "samples_per_image": float(one.copies[_in_band(one, low, high)].mean()),
            }
            for low, high in BANDS
            if _in_band(one, low, high).any()
        },
        "rank_correlation": _trend(one.multiplicities, one.copies, codes, seed),
    }  # fmt: skip


def _flagged(summary: Mapping[str, Any]) -> dict[str, Any]:
    """Return the share of flagged samples, and the control of equal size."""
    flagged, control = summary["synthetic_flagged"], summary["control"]
    return {
        "flagged": {name: flagged[name] for name in ("flagged", "exact", "near", "total", "rate", "interval")},
        "control": {
            "n_images": control["n_images"], "n_real_used": control["n_real_used"], "p_value": control["p_value"],
            **{side: {name: control[side][name] for name in ("flagged", "total", "rate", "interval")}
               for side in ("real", "holdout")},
        },
    }  # fmt: skip


def _in_band(one: Checkpoint, low: int, high: int) -> NDArray[np.bool_]:
    return (one.multiplicities >= low) & (one.multiplicities <= high)


def _trend(
    multiplicities: NDArray[np.int64], copies: NDArray[np.int64], codes: NDArray[np.int64], seed: int
) -> dict[str, Any] | None:
    """Return Spearman's correlation of multiplicity and copies over images, with an interval by resampling people."""
    if len(set(copies.tolist())) < 2:
        return None
    value = _spearman(multiplicities, copies)
    rng, n = np.random.default_rng(seed), int(codes.max()) + 1
    members = [np.flatnonzero(codes == person) for person in range(n)]
    drawn = (np.concatenate([members[i] for i in rng.integers(0, n, n)]) for _ in range(RESAMPLES))
    values = [_spearman(multiplicities[rows], copies[rows]) for rows in drawn]
    low, high = np.nanquantile(values, [0.025, 0.975])
    return {"rho": value, "interval": [float(low), float(high)]}


def _spearman(a: NDArray[np.int64], b: NDArray[np.int64]) -> float:
    ranks = [_ranks(values) for values in (a, b)]
    if any(np.ptp(values) == 0 for values in ranks):
        return float("nan")
    return float(np.corrcoef(*ranks)[0, 1])


def _ranks(values: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return ranks, the mean one of equal values."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return np.asarray((last - (counts - 1) / 2)[inverse], np.float64)


def _percent(rate: Mapping[str, Any]) -> str:
    low, high = rate["interval"]
    return f"{100 * rate['rate']:.1f} ({100 * low:.1f} to {100 * high:.1f})"


def markdown(facts: Mapping[str, Any]) -> str:
    """Return the tables."""
    planted = ", ".join(f"{n} images {band} times" for band, n in facts["multiplicities"].items())
    lines = [
        f"{facts['images']} images of {facts['patients']} patients were trained on; in an epoch {planted}.",
        f"Of each checkpoint {facts['samples']} samples. Percent, in brackets the 95 % interval.",
        "",
        "| step | samples flagged | of them exact | control: real | control: holdout | images leaked "
        "| patients leaked | multiplicity and copies, rank correlation |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for one in facts["checkpoints"]:
        trend = one["rank_correlation"]
        shown = (
            "none"
            if trend is None
            else f"{trend['rho']:.2f} ({trend['interval'][0]:.2f} to {trend['interval'][1]:.2f})"
        )
        lines.append(
            f"| {one['step']:,} | {_percent(one['flagged'])} | {one['flagged']['exact']} "
            f"| {_percent(one['control']['real'])} | {_percent(one['control']['holdout'])} | {_percent(one['images'])} "
            f"| {_percent(one['patients'])} | {shown} |"
        )
    bands = list(facts["multiplicities"])
    lines += [
        "",
        "Images leaked, by how often they were in an epoch; behind the bar the samples that copy one of them, a mean.",
        "",
        "| step | " + " | ".join(bands) + " |",
        "|---" * (len(bands) + 1) + "|",
    ]
    for one in facts["checkpoints"]:
        cells = [one["by_multiplicity"].get(band) for band in bands]
        texts = ["" if c is None else f"{_percent(c)} \\| {c['samples_per_image']:.2f}" for c in cells]
        lines.append(f"| {one['step']:,} | " + " | ".join(texts) + " |")
    made, siblings = facts["reconstructions"], facts["siblings"]
    lines += [
        "",
        f"The autoencoder's reconstructions of the same images: {_percent(made['flagged'])} flagged, "
        f"{made['flagged']['exact']} exact; against the holdout {_percent(made['control']['holdout'])}.",
        f"The last samples against other slices of the same patients: {_percent(siblings['flagged'])} flagged.",
        "",
    ]
    return "\n".join(lines)


@styled
def draw_steps(facts: Mapping[str, Any]) -> Any:
    """Draw rates over the steps of the training."""
    look = Look()
    figure = new_figure(look, (7.2, 4.2))
    axis = figure.subplots()
    colours = look.colours
    steps = [one["step"] for one in facts["checkpoints"]]
    for name, label, colour, style in (
        ("flagged", "samples that copy", colours.synthetic, "-"),
        ("images", "images that leak", colours.real, (0, (5, 2))),
        ("patients", "patients who leak", INK, (0, (1.2, 1.4))),
    ):
        _line(axis, steps, [one[name] for one in facts["checkpoints"]], label, colour, style)
    holdout = [one["control"]["holdout"] for one in facts["checkpoints"]]
    _line(axis, steps, holdout, "samples flagged against the holdout", colours.holdout, (0, (7, 2, 1.5, 2)))
    axis.set_xlabel("step of the training")
    axis.set_ylabel("percent")
    axis.set_ylim(bottom=0)
    axis.grid(axis="y", color=HAIR)
    axis.legend(loc="upper left")
    return figure


def _line(
    axis: Any, steps: Sequence[int], rates: Sequence[Mapping[str, Any]], label: str, colour: str, style: Any
) -> None:
    values = [100 * rate["rate"] for rate in rates]
    low, high = ([100 * rate["interval"][side] for rate in rates] for side in (0, 1))
    axis.plot(steps, values, color=colour, linestyle=style, marker="o", markersize=4, label=label)
    axis.fill_between(steps, low, high, color=colour, alpha=0.15, linewidth=0)


@styled
def draw_multiplicity(facts: Mapping[str, Any]) -> Any:
    """Draw the share of leaked images by how often they were in an epoch, of some checkpoints."""
    look = Look()
    figure = new_figure(look, (7.2, 4.2))
    axis = figure.subplots()
    every = facts["checkpoints"]
    shown = [every[i] for i in sorted({0, len(every) // 3, 2 * len(every) // 3, len(every) - 1})]
    bands = list(facts["multiplicities"])
    width = 0.8 / len(shown)
    for place, one in enumerate(shown):
        rates = [one["by_multiplicity"].get(band) for band in bands]
        there = [(i, rate) for i, rate in enumerate(rates) if rate is not None]
        xs = [i - 0.4 + width * (place + 0.5) for i, _ in there]
        values = np.array([100 * rate["rate"] for _, rate in there])
        intervals = np.array([[100 * end for end in rate["interval"]] for _, rate in there]).T
        axis.bar(xs, values, width * 0.92, color=look.colours.series[place], label=f"step {one['step']:,}")
        errors = np.maximum(np.abs(intervals - values), 0)
        axis.errorbar(xs, values, errors, fmt="none", ecolor=MUTED, elinewidth=1, capsize=2)
    axis.set_xticks(range(len(bands)), [f"{b}\n({facts['multiplicities'][b]} images)" for b in bands])
    axis.set_xlabel("times in an epoch")
    axis.set_ylabel("images that leak, percent")
    axis.set_ylim(bottom=0)
    axis.grid(axis="y", color=HAIR)
    axis.legend(loc="upper left")
    return figure


def draw_copies(one: Checkpoint, path: Path) -> None:
    """Draw caught copies: sample, the image that it copies, and their difference; each image once, nearest first."""
    chosen, seen = [], Counter[int]()
    for pair in one.pairs:
        if seen[pair[2]] == 0:
            chosen.append(pair)
        seen[pair[2]] += 1
    if not chosen:
        path.unlink(missing_ok=True)
        return
    # From the nearest to the furthest that is still flagged: the best alone would flatter.
    picked = [chosen[i] for i in np.linspace(0, len(chosen) - 1, min(N_COPIES, len(chosen))).round().astype(int)]
    first = np.asarray(Image.open(picked[0][0]).convert("L"))
    height, width = first.shape
    caption = 28
    sheet = Image.new("L", (len(picked) * (width + 4), 3 * (height + 4) + caption), 255)
    pen = ImageDraw.Draw(sheet)
    for column, (sample, real, row, label, s1) in enumerate(picked):
        made, source = (np.asarray(Image.open(file).convert("L"), np.int16) for file in (sample, real))
        difference = np.clip(128 + (made - source) / 2, 0, 255)
        for place, image in enumerate((made, source, difference)):
            sheet.paste(Image.fromarray(image.astype(np.uint8)), (column * (width + 4), place * (height + 4)))
        text = f"{label}, s1 {s1:.2f}\nx{one.multiplicities[row]}, {seen[row]} samples"
        pen.multiline_text((column * (width + 4) + 2, 3 * (height + 4)), text, fill=0, font_size=10, spacing=1)
    sheet.save(path)
