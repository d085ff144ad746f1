"""The figures of a system on a draw of the benchmark, each with its interval."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.membench.bench import N_NONE, Bench
from benchmarks.membench.systems import Answers, Cuts
from benchmarks.membench.thresholds import FALSE_POSITIVE_SHARE
from deepssim.evaluate import (
    EXACT,
    NEAR,
    RESAMPLES,
    UNRELATED,
    ClassReport,
    Contrast,
    Silhouette,
    class_report,
    interval_by_person,
    rate_at_false_positives,
)
from deepssim.statistics import LEVEL, extreme_bound

CLASSES = {"unrelated": UNRELATED, "exact": EXACT, "near": NEAR}

_PICKS: dict[str, Callable[[ClassReport], float]] = {
    "macro_f1": lambda report: report.macro_f1,
    "weighted_f1": lambda report: report.weighted_f1,
    "precision_unrelated": lambda report: float(report.precision[UNRELATED]),
    "precision_exact": lambda report: float(report.precision[EXACT]),
    "precision_near": lambda report: float(report.precision[NEAR]),
}

# False positives at which published tables give the share of exact copies that is found among all other images.
EXACT_SHARE = 0.05

Indices = NDArray[np.int64]
Scores = NDArray[np.float64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Figure:
    """A figure and its 95 % interval by person.

    Attributes:
        value: NaN where there is nothing to measure.
        low: Lower end.
        high: Upper end.
        n: Images that it is of.
        n_people: Their people.
    """

    value: float
    low: float
    high: float
    n: int
    n_people: int


def label_figures(bench: Bench, answers: Answers, cuts: Cuts) -> dict[str, Figure]:
    """Measure what depends on thresholds.

    Returns:
        By name: ``macro_f1``, ``weighted_f1``, ``precision_*`` and ``recall_*`` of the classes, ``false_positives``
        (unrelated images called copies), ``tpr_5_exact`` (exact copies over the lowest score that at most 5 % of all
        other images reach; the detail, of what the near threshold calls copies, where answers have one),
        ``sibling_near`` and ``sibling_exact`` (siblings called so).
    """
    labels, truth, people = answers.labels(cuts), bench.truth, bench.people
    main = np.flatnonzero(~bench.is_sibling)
    found = {}

    @functools.cache  # every figure is resampled by the same draws
    def report_of(at: bytes) -> ClassReport:
        drawn = np.frombuffer(at, np.int64)
        return class_report(truth[drawn], labels[drawn])

    for name, pick in _PICKS.items():
        found[name] = _of_both(lambda at, pick=pick: pick(report_of(at.tobytes())), main, truth, people)  # type: ignore[misc]
    for name, number in CLASSES.items():
        found[f"recall_{name}"] = share(labels == number, main[truth[main] == number], people)
    found["false_positives"] = share(labels != UNRELATED, main[truth[main] == UNRELATED], people)
    is_exact = truth[main] == EXACT
    contrast = Contrast(answers.exactness(cuts)[main], is_exact, ~is_exact)
    found["tpr_5_exact"] = _of_weights(lambda weights: contrast.rate_at(weights, EXACT_SHARE), main, people)
    for name in ("near", "exact"):
        found[f"sibling_{name}"] = share(labels == CLASSES[name], np.flatnonzero(bench.is_sibling), people)
    return found


def score_figures(bench: Bench, answers: Answers) -> dict[str, Figure]:
    """Measure what does not depend on thresholds.

    Returns:
        By name: ``tpr_at_1_fpr`` (copies over the lowest value that at most 1 % of unrelated images reach),
        ``auc_copies`` (the chance that a copy has a higher value than an unrelated image), ``silhouette`` (of the
        values by true class), ``rank1_exact`` and ``rank1_near`` (copies whose best real image is their source),
        ``candidate`` (copies whose source was looked at; only where not all were).
    """
    truth, people, value = bench.truth, bench.people, answers.value
    main = np.flatnonzero(~bench.is_sibling)
    copies = np.flatnonzero(bench.source != N_NONE)
    found = {}
    found["tpr_at_1_fpr"] = _of_both(
        lambda at: rate_at_false_positives(
            value[at][truth[at] != UNRELATED], value[at][truth[at] == UNRELATED], FALSE_POSITIVE_SHARE
        )[0],
        main,
        truth,
        people,
    )
    is_unrelated = truth[main] == UNRELATED
    found["auc_copies"] = _of_weights(Contrast(value[main], ~is_unrelated, is_unrelated).area, main, people)
    found["silhouette"] = _of_weights(Silhouette(value[main], truth[main]).mean, main, people)
    right = answers.best == bench.source
    for name in ("exact", "near"):
        found[f"rank1_{name}"] = share(right, copies[truth[copies] == CLASSES[name]], people)
    if answers.candidates is not None:
        # Rows of strangers, which have no source, are not among the copies.
        seen = answers.candidates[np.arange(len(truth)), np.maximum(bench.source, 0)]
        found["candidate"] = share(seen, copies, people)
    return found


def share(event: Mask, images: Indices, people: NDArray[np.str_]) -> Figure:
    """Return the share of images with an event.

    Where all or none have it, resampling says nothing: the end is the exact bound for so many people.
    """
    if len(images) == 0:
        return Figure(np.nan, np.nan, np.nan, 0, 0)
    value = float(event[images].mean())
    n_people = len(np.unique(people[images]))
    if value == 0.0:
        return Figure(value, 0.0, extreme_bound(n_people), len(images), n_people)
    if value == 1.0:
        return Figure(value, 1.0 - extreme_bound(n_people), 1.0, len(images), n_people)
    return _figure(lambda at: float(event[at].mean()), images, people)


def _of_both(
    statistic: Callable[[Indices], float], images: Indices, truth: Indices, people: NDArray[np.str_]
) -> Figure:
    """Return a figure that needs copies and unrelated images.

    Where few people are drawn, a draw may lack one of the two: it counts as the figure itself, for it says nothing
    against it.
    """

    def of_draw(at: Indices) -> float:
        is_copy = truth[at] != UNRELATED
        return whole if is_copy.all() or not is_copy.any() else statistic(at)

    whole = np.nan
    whole = of_draw(images)
    return _figure(of_draw, images, people)


def _of_weights(
    statistic: Callable[[NDArray[np.float64]], Scores], images: Indices, people: NDArray[np.str_]
) -> Figure:
    """Return a figure that is found for many draws at once, from how often each holds an image.

    A draw for which there is none counts as the figure itself, as in `_of_both`.
    """
    names, owner = np.unique(people[images], return_inverse=True)
    whole = float(statistic(np.ones((1, len(images))))[0])
    drawn = np.random.default_rng(0).multinomial(len(names), np.full(len(names), 1 / len(names)), size=RESAMPLES)
    values = statistic(drawn[:, owner].astype(np.float64))
    values = np.where(np.isnan(values), whole, values)
    low, high = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Figure(whole, float(low), float(high), len(images), len(names))


def _figure(statistic: Callable[[Indices], float], images: Indices, people: NDArray[np.str_]) -> Figure:
    if len(images) == 0:
        return Figure(np.nan, np.nan, np.nan, 0, 0)
    low, high = interval_by_person(lambda drawn: statistic(images[drawn]), people[images])
    return Figure(statistic(images), low, high, len(images), len(np.unique(people[images])))
