"""Every figure of metrics on labelled pairs, with intervals that respect people, and the metrics against each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from deepssim.errors import UsageError
from deepssim.evaluate.classes import CLASS_NAMES, EXACT, N_CLASSES, UNRELATED, ClassReport, class_report
from deepssim.evaluate.measures import CONTRASTS, FALSE_POSITIVE_SHARES, Measures, rate_name
from deepssim.evaluate.paired import Comparison, compare_metrics
from deepssim.evaluate.resample import RESAMPLES, Resampling
from deepssim.statistics import LEVEL, extreme_bound

if TYPE_CHECKING:
    from deepssim.calibration import Calibration
    from deepssim.labelled.pairs import LabelledPairs
    from deepssim.labelled.scores import PairScores

__all__ = ["Evaluation", "Figure", "MetricEvaluation", "evaluate_pairs"]

# Fewer negatives say nothing about so small a rate.
_LEAST_NEGATIVES = 1000
_FEW_PEOPLE = 10
_COMPARED = ("macro_f1", "auc_exact", "auc_copies")

Scores = NDArray[np.float64]
Draws = NDArray[np.float64]
Labels = NDArray[np.int64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure and its 95 % interval.

    Attributes:
        value: None where it is not defined.
        low: Lower end.
        high: Upper end.
        note: What has to be known about it; often empty.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    note: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Return it for JSON."""
        return {"value": self.value, "low": self.low, "high": self.high, **({"note": self.note} if self.note else {})}


@dataclass(frozen=True, slots=True, eq=False)
class MetricEvaluation:
    """The figures of one metric.

    Attributes:
        name: Of the metric, with its condition where two would have one name.
        metric: Of the metric.
        condition: How images were seen; empty: as they lie.
        calibration: Thresholds; None: none, and so no figures of labels.
        report: Labels against the truth; None without thresholds.
        figures: By name: ``macro_f1``, ``weighted_f1``, ``precision_*``, ``recall_*`` and ``f1_*`` of each class (with
            thresholds); ``silhouette``; ``auc_exact`` (exact copies against all others), ``auc_copies`` (copies against
            unrelated pairs), ``tpr_5_exact`` and so on: true-positive rate at 5, 1 and .1 % false positives.
        cuts: Score from which on the true-positive rates count, by their names; None where no positive passes.
        notes: What has to be said about the figures.
        scores: ``(n,)`` score of each pair.
        detail: ``(n,)`` S2 of each registered pair; None for other metrics.
        labels: ``(n,)`` class that the thresholds give; None without.
        similarity: Of the metric; the scores of "l2" are shown as distances.
    """

    name: str
    metric: str
    condition: str
    calibration: Calibration | None
    report: ClassReport | None
    figures: dict[str, Figure]
    cuts: dict[str, float | None]
    notes: list[str]
    scores: Scores
    detail: Scores | None
    labels: Labels | None
    similarity: str = "cosine"

    def as_dict(self) -> dict[str, Any]:
        """Return it for JSON, without the pairs."""
        return {
            "name": self.name,
            "metric": self.metric,
            "condition": self.condition,
            "thresholds": None if self.calibration is None else self.calibration.as_dict(),
            "confusion": None if self.report is None else self.report.confusion.tolist(),
            "figures": {name: figure.as_dict() for name, figure in self.figures.items()},
            "cuts": self.cuts,
            "notes": self.notes,
        }


@dataclass(frozen=True, slots=True, eq=False)
class Evaluation:
    """Metrics on labelled pairs.

    Attributes:
        pairs: The list.
        resampling: What the intervals rest on.
        metrics: Figures of each, in the order that they were given.
        comparisons: Of all metrics, two by two.
        warnings: What makes figures doubtful.
    """

    pairs: LabelledPairs
    resampling: Resampling
    metrics: list[MetricEvaluation]
    comparisons: list[Comparison]
    warnings: list[str] = field(default_factory=list)

    @property
    def support(self) -> list[int]:
        """Pairs of each class, by its number."""
        return [int((self.pairs.labels == label).sum()) for label in range(N_CLASSES)]

    def as_dict(self) -> dict[str, Any]:
        """Return it for JSON, without the pairs."""
        sampling = self.resampling
        return {
            "format": "deepssim-evaluation",
            "version": 1,
            "pairs": str(self.pairs.path),
            "n_pairs": len(self.pairs),
            "support": dict(zip(CLASS_NAMES, self.support, strict=True)),
            "n_people": sampling.n_people,
            "people_from": self.pairs.people_from,
            "n_real": len(set(self.pairs.real_keys)),
            "n_synthetic": sampling.n_images,
            "resampling": {
                "draws": sampling.resamples,
                "seed": sampling.seed,
                "units": ["people", "synthetic images"] if sampling.is_two_way else ["people"],
                "level": LEVEL,
                "sentence": sampling.sentence(),
            },
            "classes": list(CLASS_NAMES),
            "metrics": [metric.as_dict() for metric in self.metrics],
            "comparisons": [comparison.as_dict() for comparison in self.comparisons],
            "warnings": self.warnings,
        }


def evaluate_pairs(
    pairs: LabelledPairs, scores: Sequence[PairScores], *, resamples: int = RESAMPLES, seed: int = 0
) -> Evaluation:
    """Measure metrics on labelled pairs.

    Args:
        pairs: The list.
        scores: Of each metric.
        resamples: Draws of people for intervals and tests.
        seed: Of these draws.

    Raises:
        UsageError: There are no metrics, or fewer than 100 draws.

    Example:
        >>> from pathlib import Path
        >>> from deepssim.calibration import Calibration, Threshold
        >>> from deepssim.labelled.pairs import LabelledPairs
        >>> from deepssim.labelled.scores import PairScores
        >>> names = tuple("abcdef")
        >>> pairs = LabelledPairs(Path("a.csv"), names, names, np.array([0, 0, 1, 1, 2, 2]), np.array(names), "itself")
        >>> cuts = Calibration("m", Threshold(0.6), Threshold(0.85), "an example")
        >>> found = evaluate_pairs(pairs, [PairScores("m", np.array([0.1, 0.2, 0.9, 0.8, 0.7, 0.7]), cuts)])
        >>> figures = found.metrics[0].figures
        >>> round(figures["macro_f1"].value, 3), figures["auc_exact"].value
        (0.822, 1.0)
    """
    if not scores:
        raise UsageError("there is no metric to evaluate")
    if resamples < 100:
        raise UsageError(f"resamples is {resamples}: an interval needs at least 100 draws")
    resampling = Resampling(pairs.people, np.array(pairs.synthetic_keys), resamples=resamples, seed=seed)
    names = _names(scores)
    measures = [Measures(one, pairs.labels) for one in scores]
    drawn: list[list[Draws]] = [[] for _ in measures]
    for weights in resampling.weights():
        for parts, measure in zip(drawn, measures, strict=True):
            parts.append(measure.of(weights))
    values = [measure.of(np.ones((1, len(pairs))))[0] for measure in measures]
    draws = [np.concatenate(parts) for parts in drawn]
    metrics = [
        _metric(name, one, measure, value, drawn_values, resampling)
        for name, one, measure, value, drawn_values in zip(names, scores, measures, values, draws, strict=True)
    ]
    compared = [{figure: k for k, figure in enumerate(measure.names) if figure in _COMPARED} for measure in measures]
    comparisons = compare_metrics(
        {n: {f: float(v[k]) for f, k in c.items()} for n, c, v in zip(names, compared, values, strict=True)},
        {n: {f: d[:, k] for f, k in c.items()} for n, c, d in zip(names, compared, draws, strict=True)},
        {m.name: None if m.labels is None else m.labels == pairs.labels for m in metrics},
        resampling.n_units(np.ones(len(pairs), np.bool_)),
    )
    return Evaluation(pairs, resampling, metrics, comparisons, _warnings(pairs, resampling))


def _names(scores: Sequence[PairScores]) -> list[str]:
    """Return a name of each metric that no other has."""
    names: list[str] = []
    conditions = {one.condition for one in scores}
    for one in scores:
        name = f"{one.metric}, {one.condition}" if one.condition and len(conditions) > 1 else one.metric
        unique, k = name, 2
        while unique in names:
            unique, k = f"{name} ({k})", k + 1
        names.append(unique)
    return names


def _metric(
    name: str, scores: PairScores, measure: Measures, values: Scores, draws: Draws, resampling: Resampling
) -> MetricEvaluation:
    report = None if measure.labels is None else class_report(measure.truth, measure.labels)
    notes = [] if report is not None else ["no thresholds are known: labels are not judged"]
    on_thresholds = scores.n_on_thresholds()
    if on_thresholds:
        notes.append(
            f"{on_thresholds:,} scores meet a threshold once it is rounded to {scores.precision}, as they are; they "
            "are compared with the threshold itself, as NumPy before 2 does and NumPy 2 does not"
        )
    units = _units(measure, resampling)
    figures = {
        figure: _figure(figure, float(value), draws[:, k], units[figure], resampling.n_people)
        for k, (figure, value) in enumerate(zip(measure.names, values.tolist(), strict=True))
    }
    cuts: dict[str, float | None] = {}
    for contrast in CONTRASTS:
        for share in FALSE_POSITIVE_SHARES:
            rate = rate_name(share, contrast)
            n_negative = measure.contrasts[contrast].n_negative
            if share * _LEAST_NEGATIVES <= 1 and n_negative < _LEAST_NEGATIVES:
                figures[rate] = _too_few(figures[rate], share, measure, contrast, resampling)
                continue
            if share * n_negative < 1:
                bound = _bound_text(measure, contrast, resampling)
                figures[rate] = replace(figures[rate], note=f"with no false positive; {bound}")
            cuts[rate] = measure.contrasts[contrast].cut_at(share)
    return MetricEvaluation(
        name, scores.metric, scores.condition, scores.calibration, report, figures, cuts, notes, scores.scores,
        scores.detail, measure.labels, scores.similarity,
    )  # fmt: skip


def _units(measure: Measures, resampling: Resampling) -> dict[str, int]:
    """Return how many independent people (or images) each figure rests on: of the scarcest that it needs."""
    truth, labels = measure.truth, measure.labels
    of_class = [resampling.n_units(truth == label) for label in range(N_CLASSES)]
    present = [n for n in of_class if n]
    copies, others = resampling.n_units(truth != UNRELATED), resampling.n_units(truth != EXACT)
    units = {"macro_f1": min(present), "weighted_f1": min(present), "silhouette": min(present)}
    for label, name in enumerate(CLASS_NAMES):
        units[f"recall_{name}"] = units[f"f1_{name}"] = of_class[label]
        if labels is not None:
            units[f"precision_{name}"] = resampling.n_units(labels == label)
    for contrast, positive, negative in (("exact", of_class[EXACT], others), ("copies", copies, of_class[UNRELATED])):
        units[f"auc_{contrast}"] = min(positive, negative)
        units |= {rate_name(share, contrast): positive for share in FALSE_POSITIVE_SHARES}
    return units


def _figure(name: str, value: float, draws: Draws, n_units: int, n_people: int) -> Figure:
    """Return a figure with its percentile interval, or the exact bound where resampling says nothing."""
    least = -1.0 if name == "silhouette" else 0.0
    if np.isnan(value):
        return Figure(None, note="not defined: a class is missing")
    if n_units < 1:
        return Figure(value, least, 1.0, "no pair is of this class, or labelled so")
    if n_people < 2:
        return Figure(value, least, 1.0, "one person says nothing about others")
    known = draws[np.isfinite(draws)]
    low, high = (
        (float(x) for x in np.quantile(known, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])) if len(known) else (least, 1.0)
    )
    # Where all is right, or nothing, every draw says so too; what it leaves open is the bound of so many people.
    if value >= 1 - 1e-12:
        low = min(low, 1 - extreme_bound(n_units))
    elif value <= 1e-12 and name != "silhouette":
        high = max(high, extreme_bound(n_units))
    lacking = len(draws) - len(known)
    note = f"{lacking:,} of {len(draws):,} draws lack a class and are left out" if lacking else ""
    return Figure(value, min(low, value), max(high, value), note)


def _bound_text(measure: Measures, contrast: str, resampling: Resampling) -> str:
    """Say what no false positive says of the false-positive rate."""
    is_negative = measure.truth != EXACT if contrast == "exact" else measure.truth == UNRELATED
    n_units = resampling.n_units(is_negative)
    n_negative = measure.contrasts[contrast].n_negative
    unit = "people or images" if resampling.is_two_way else "people"
    return (
        f"no false positive among {n_negative:,} negatives bounds the rate at {100 * extreme_bound(n_negative):.2g} % "
        f"if they were independent, and at {100 * extreme_bound(n_units):.2g} % by their {n_units:,} {unit}"
    )


def _too_few(figure: Figure, share: float, measure: Measures, contrast: str, resampling: Resampling) -> Figure:
    if figure.value is None:
        return figure
    bound = _bound_text(measure, contrast, resampling)
    return Figure(
        None, note=f"{100 * share:g} % cannot be told with fewer than {_LEAST_NEGATIVES:,} negatives: {bound}"
    )


def _warnings(pairs: LabelledPairs, resampling: Resampling) -> list[str]:
    warnings = []
    if resampling.n_people < _FEW_PEOPLE:
        warnings.append(
            f"{resampling.n_people:,} people are few: intervals by resampling are too narrow below about {_FEW_PEOPLE}"
        )
    missing = [name for label, name in enumerate(CLASS_NAMES) if not (pairs.labels == label).any()]
    if missing:
        warnings.append(f"no pair is labelled {' or '.join(missing)}: figures that need it are not defined")
    repeated = len(pairs) - len(set(zip(pairs.real_keys, pairs.synthetic_keys, strict=True)))
    if repeated:
        warnings.append(f"{repeated:,} pairs are listed again, and count again")
    return warnings
