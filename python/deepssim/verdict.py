"""From counts to the summary and the sentence at its head."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepssim.calibration import Calibration
from deepssim.matching import Control, Reference
from deepssim.parts import Ints
from deepssim.results import HISTOGRAM_EDGES, Flags, Outcome
from deepssim.statistics import LEVEL, Rate, image_rate, patient_rate, proportion_of_patients, sign_test

FORMAT = "deepssim-summary"
VERSION = 1
SIGNIFICANT = 0.05
# Part of the copies of real images that screening has to find, or a warning is given.
EXPECTED_RECALL = 0.95

LIMITS = (
    "Similarity alone does not prove anonymity: that no copy was found does not show that no patient can be "
    "recognised or that membership in the training set cannot be inferred.",
    "A flag is a likeness, not a proof of copying: two patients, or two images of one patient, can look alike.",
    "The thresholds are for images like those that they were chosen on: on others they may flag more or less. A "
    "holdout of comparable images that the generator never saw is the way to find out.",
    "Only the images given were examined: another draw of the generator may copy other patients.",
)
SCORE_LIMIT = "Copies that the metric does not see are not counted. What it tolerates is named with the metric."
CANDIDATES_LIMIT = (
    "Only {candidates} of each synthetic image by the screening score, with a cap on those of one patient, "
    "were laid onto it and compared: a copy whose source is not among them is missed, and more real images and "
    "patients may be concerned than are counted."
)
EXACT_LIMIT = (
    "Exact means that no place was seen to deviate clearly: a local change of about a pixel, or one where the image "
    "has no structure, may not be seen."
)
PIXEL_SEES = {
    "none": "in place: a copy that was mirrored, turned, shifted or zoomed",
    "flips": "as they are and flipped: a copy that was turned, shifted or zoomed",
    "bank": "mirrored or not, at any angle, shifted and zoomed by up to a tenth: a copy that was moved further or "
    "cropped to a part",
}


@dataclass(frozen=True, slots=True)
class SetCounts:
    """How many images of a set were used and left out."""

    images: int
    groups: int | None
    skipped: int
    ignored: int

    def as_dict(self) -> dict[str, Any]:
        """Return as in ``summary.json``."""
        return {"images": self.images, "groups": self.groups, "skipped": self.skipped, "ignored": self.ignored}


def percent(share: float) -> str:
    """Return a share for a sentence.

    Example:
        >>> percent(0.0241)
        '2.4 %'
    """
    value = 100 * share
    if 0 < value < 0.1:
        return f"{value:.2g} %"
    return f"{value:.2f} %" if 0 < value < 1 else f"{value:.1f} %"


def _p_text(p: float) -> str:
    return "p < 0.0001" if p < 0.0001 else f"p = {p:.2g}"


def _rate_dict(rate: Rate) -> dict[str, Any]:
    return {
        "total": rate.total,
        "rate": rate.rate,
        "interval": [rate.low, rate.high],
        "unit": rate.unit,
        "level": LEVEL,
    }


def _flag_rate(flags: Flags, has_groups: bool, seed: int) -> Rate:
    # Generated images are independent draws: where none is flagged, their number is what bounds the rate.
    # Flags cluster by the patient who is copied, so intervals of other rates resample patients.
    if not has_groups or not flags.flagged.any():
        return image_rate(int(flags.flagged.sum()), int(flags.totals.sum()))
    return patient_rate(flags.flagged[:-1], flags.totals[:-1], seed=seed)


def _control_dict(outcome: Outcome, control: Control) -> dict[str, Any] | None:
    counts = outcome.control
    if counts is None:
        return None
    by_patient = control.real.has_groups and control.holdout.has_groups
    sides = {}
    for name, flags, reference in (
        ("real", counts.real, control.real),
        ("holdout", counts.holdout, control.holdout),
    ):
        rate = _flag_rate(flags, reference.has_groups, control.seed)
        sides[name] = {"flagged": rate.events, "exact": int(flags.exact.sum()), **_rate_dict(rate)}
    return {
        "n_images": len(control.holdout),
        "n_real_used": len(control.real),
        "drawn": "by patient" if by_patient else "by image",
        "seed": control.seed,
        **sides,
        "only_real": counts.only_real,
        "only_holdout": counts.only_holdout,
        "both": counts.both,
        "p_value": sign_test(counts.only_real, counts.only_holdout),
        "warnings": list(control.warnings),
    }


def _pairs_dict(outcome: Outcome) -> dict[str, Any]:
    n_over, n_exact = (int(outcome.tally.counts[:, i].sum()) for i in (0, 1))
    return {
        "near": n_over - n_exact,
        "exact": n_exact,
        "listed": outcome.n_leaks,
        "truncated": outcome.n_leaks < n_over,
    }


def _histogram_dict(outcome: Outcome) -> dict[str, Any]:
    counts = outcome.control
    return {
        "edges": [round(float(edge), 6) for edge in HISTOGRAM_EDGES],
        "real": outcome.histogram.tolist(),
        "real_matched": counts.histogram_real.tolist() if counts else None,
        "holdout": counts.histogram_holdout.tolist() if counts else None,
    }


def summarize(
    outcome: Outcome,
    real: Reference,
    counts: dict[str, SetCounts | None],
    calibration: Calibration,
    metric: dict[str, Any],
    control: Control | None,
    *,
    candidates: int,
    seed: int,
    too_many_skipped: bool,
    warnings: list[str],
    trial: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the contents of ``summary.json``."""
    tally, is_verified = outcome.tally, calibration.stage == "verified"
    flagged = _flag_rate(outcome.flags, real.has_groups, seed)
    n_exact = int(outcome.flags.exact.sum())
    copied = tally.counts[:, 0] > 0
    n_copied_exact = int((tally.counts[:, 1] > 0).sum())
    if real.has_groups:
        copied_rate = patient_rate(*_by_code(real, copied), seed=seed)
        n_patients = len(set(real.codes[copied].tolist()))
        patients = proportion_of_patients(n_patients, real.n_groups)
    else:
        copied_rate, patients = image_rate(int(copied.sum()), len(real)), None
    summary: dict[str, Any] = {
        "format": FORMAT,
        "version": VERSION,
        "metric": metric,
        "decided_by": "s1" if is_verified else "score",
        "verification": {"candidates": candidates} if is_verified else None,
        "screening": trial,
        "thresholds": calibration.as_dict(),
        "counts": {name: value.as_dict() if value else None for name, value in counts.items()},
        "synthetic_flagged": {
            "near": flagged.events - n_exact,
            "exact": n_exact,
            "flagged": flagged.events,
            "identical": outcome.n_identical,
            **_rate_dict(flagged),
        },
        "real_copied": {
            "near_only": copied_rate.events - n_copied_exact,
            "exact": n_copied_exact,
            "copied": copied_rate.events,
            **_rate_dict(copied_rate),
        },
        "patients_copied": {"copied": patients.events, **_rate_dict(patients)} if patients else None,
        "pairs_over_threshold": _pairs_dict(outcome),
        "control": _control_dict(outcome, control) if control else None,
        "histogram": _histogram_dict(outcome),
        "limits": _limits(metric, candidates if is_verified else None, len(real)),
        "warnings": warnings,
    }
    summary["verdict"] = _verdict(summary, too_many_skipped)
    return summary


def _nearest(candidates: int) -> str:
    return "the nearest real image" if candidates == 1 else f"the {candidates:,} nearest real images"


def _every(n_real: int) -> str:
    return "the one real image was" if n_real == 1 else f"all {n_real:,} real images were"


def screening_sentence(trial: dict[str, Any]) -> str:
    """Say what `deepssim.trial` found, from its entry in ``summary.json``."""
    both, n, n_real = trial["both"], trial["candidates"], trial["real_images"]
    if n >= n_real:
        return f"Screening was not put to the test: {_every(n_real)} looked at for each synthetic one."
    low, high = (percent(bound) for bound in both["interval"])
    return (
        f"Screening was tried on {both['total']:,} copies made of these real images (with artefacts or local changes; "
        f"mirrored, turned, shifted, zoomed): {percent(both['rate'])} had their source among the {n:,} candidates "
        f"(95 % interval {low} to {high}; exact copies {percent(trial['exact']['rate'])}, near ones "
        f"{percent(trial['near']['rate'])})."
    )


def screening_warnings(trial: dict[str, Any] | None) -> list[str]:
    """Say what to do where the source is missed too often."""
    if trial is None or trial["candidates"] >= trial["real_images"] or trial["both"]["rate"] >= EXPECTED_RECALL:
        return []
    return [
        f"Screening misses {percent(1 - trial['both']['rate'])} of the copies that were made of these real images: "
        "take more candidates (--k), or another metric (--metric pixel looks at every image in many views)."
    ]


def _limits(metric: dict[str, Any], candidates: int | None, n_real: int) -> list[str]:
    """Return what the result does not show; `candidates` is None where pairs were not verified."""
    sees = PIXEL_SEES[metric["views"]] if metric["name"] == "pixel" else ""
    if candidates is None:
        pixel = f"The metric pixel compares thumbnails {sees} is missed, and a small local change is not seen."
        return [*([pixel] if sees else []), *LIMITS[:2], SCORE_LIMIT, *LIMITS[2:]]
    if candidates >= n_real:
        return [*LIMITS[:2], EXACT_LIMIT, *LIMITS[2:]]
    screening = f"The metric pixel screens by thumbnails {sees} may not have its source among the candidates."
    return [
        CANDIDATES_LIMIT.format(candidates=_nearest(candidates)),
        *([screening] if sees else []),
        *LIMITS[:2],
        EXACT_LIMIT,
        *LIMITS[2:],
    ]


def _by_code(real: Reference, copied: NDArray[np.bool_]) -> tuple[Ints, Ints]:
    events = np.bincount(real.codes[copied], minlength=real.n_groups).astype(np.int64)
    return events, np.bincount(real.codes, minlength=real.n_groups).astype(np.int64)


def _level(summary: dict[str, Any], too_many_skipped: bool) -> str:
    flagged, control = summary["synthetic_flagged"], summary["control"]
    if flagged["identical"] > 0:
        return "copies"
    if flagged["flagged"] == 0:
        return "incomplete" if too_many_skipped else "none_found"
    if control is None:
        return "copies" if flagged["exact"] > 0 else "suspect"
    more = control["only_real"] > control["only_holdout"] and control["p_value"] < SIGNIFICANT
    return "copies" if more else "suspect"


def _sentence(summary: dict[str, Any], level: str) -> str:
    flagged, copied, patients = (summary[key] for key in ("synthetic_flagged", "real_copied", "patients_copied"))
    total = f"{flagged['total']:,}"
    if level in ("none_found", "incomplete"):
        upper = percent(flagged["interval"][1])
        end = ", but too many inputs were left out to conclude" if level == "incomplete" else ""
        return f"None of {total} synthetic images comes near a real image (at most {upper} with 95 % confidence){end}."
    if flagged["flagged"] == 0:
        return f"{flagged['identical']:,} of {total} synthetic images are identical to a real image in every pixel."
    whose = f" of {patients['copied']:,} of {patients['total']:,} patients" if patients else ""
    found = (
        f"{flagged['flagged']:,} of {total} synthetic images ({percent(flagged['rate'])}) are near or exact copies of "
        f"{copied['copied']:,} real images{whose}"
    )
    if level == "copies":
        return found + "."
    if summary["control"] is None:
        return found.replace("are near or exact copies of", "look like near copies of") + (
            "; without a holdout it cannot be said how many chance alone would flag."
        )
    return (
        f"{flagged['flagged']:,} of {total} synthetic images ({percent(flagged['rate'])}) pass the threshold, but no "
        "more than against images that the generator never saw: no evidence of copying beyond chance likeness."
    )


def _how(verification: dict[str, Any] | None, n_real: int) -> str:
    if verification is None:
        return "No pair was verified in image space: the scores of the metric alone decide."
    if verification["candidates"] >= n_real:
        return f"Verified in image space: {_every(n_real)} laid onto each synthetic image and compared."
    nearest = _nearest(verification["candidates"])
    were = "was" if verification["candidates"] == 1 else "were"
    return (
        f"Verified in image space: {nearest} of each synthetic image {were} laid onto it and compared; others were not "
        "looked at."
    )


def _verdict(summary: dict[str, Any], too_many_skipped: bool) -> dict[str, Any]:
    level = _level(summary, too_many_skipped)
    flagged, control, verification = (summary[key] for key in ("synthetic_flagged", "control", "verification"))
    details = []
    if flagged["flagged"]:
        by = "the nearest real image" if verification is None else "the candidate that agrees best"
        details.append(f"{flagged['exact']:,} exact and {flagged['near']:,} near copies, by {by}.")
    if flagged["identical"]:
        details.append(f"{flagged['identical']:,} synthetic images are identical to a real one in every pixel.")
    if control is not None:
        details.append(
            f"Against {control['n_images']:,} holdout images, "
            f"{control['holdout']['flagged']:,} of {control['holdout']['total']:,} synthetic images "
            f"({percent(control['holdout']['rate'])}) pass the threshold; against as many real ones, "
            f"{control['real']['flagged']:,} ({percent(control['real']['rate'])}; "
            f"one-sided sign test {_p_text(control['p_value'])})."
        )
    else:
        details.append("There was no holdout: the share that chance alone flags on these images is not known.")
    details.append(_how(verification, summary["counts"]["real"]["images"]))
    if summary["screening"] is not None:
        details.append(screening_sentence(summary["screening"]))
    if summary["patients_copied"] is None:
        details.append("Figures by patient are not given: the real images have no (or not all a) known patient.")
    if too_many_skipped and level != "incomplete":
        details.append("Too many inputs were left out: the figures are of the others alone.")
    return {"level": level, "sentence": _sentence(summary, level), "details": details}
