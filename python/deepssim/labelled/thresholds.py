"""Thresholds of metrics on labelled pairs: those that a user gives, and those that are chosen on pairs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from deepssim.calibration import Calibration, Threshold, load_calibration, parse_thresholds
from deepssim.errors import UsageError
from deepssim.evaluate import best_cuts, best_registered_cuts
from deepssim.images.text import one_line
from deepssim.labelled.pairs import LabelledPairs
from deepssim.labelled.scores import PairScores
from deepssim.metric import l2_score

__all__ = ["choose_thresholds", "give_thresholds"]


def give_thresholds(
    scores: Sequence[PairScores], thresholds: Sequence[str], calibrations: Sequence[str]
) -> list[PairScores]:
    """Return scores with the thresholds that a user gave.

    Args:
        scores: Of each metric.
        thresholds: ``NAME=NEAR,EXACT``, or ``NEAR,EXACT`` where there is one metric. For registered pairs S1 and S2;
            for the similarity "l2" distances.
        calibrations: ``NAME=CALIBRATION``: an installed one or a file.

    Raises:
        UsageError: Names are unknown (all are named), given twice, or missing where there are several metrics;
            a calibration is of scores of another stage.

    Example:
        >>> import numpy as np
        >>> give_thresholds([PairScores("ssim", np.zeros(1), None)], ["ssim=.6,.85"], [])[0].calibration.near.value
        0.6
    """
    known = [one.metric for one in scores]
    chosen: dict[str, Callable[[PairScores], Calibration]] = {}
    unknown: list[str] = []
    for option, texts, read in (
        ("--thresholds", thresholds, _from_numbers), ("--calibration", calibrations, _from_calibration)
    ):  # fmt: skip
        for text in texts:
            name, mark, value = text.rpartition("=")
            if not mark:
                if len(set(known)) > 1:
                    raise UsageError(
                        f"{option} {one_line(text, 60)} is for one metric, and there are {len(set(known))}: give "
                        f"{option} NAME={one_line(text, 60)} with NAME one of {', '.join(dict.fromkeys(known))}"
                    )
                name = known[0]
            if name not in known:
                unknown.append(name)
            elif name in chosen:
                raise UsageError(f"the metric {name} is given thresholds twice")
            else:
                chosen[name] = read(value)
    if unknown:
        raise UsageError(
            f"thresholds are given for {', '.join(one_line(name, 60) for name in unknown)}, which is not evaluated: "
            f"the metrics are {', '.join(dict.fromkeys(known))}"
        )
    return [replace(one, calibration=chosen[one.metric](one)) if one.metric in chosen else one for one in scores]


def _from_numbers(text: str) -> Callable[[PairScores], Calibration]:
    near, exact = parse_thresholds(text)

    def of(scores: PairScores) -> Calibration:
        values = (l2_score(near), l2_score(exact)) if scores.similarity == "l2" else (near, exact)
        stage = "embedding" if scores.detail is None else "verified"
        return Calibration(scores.metric, Threshold(values[0]), Threshold(values[1]), "given by the user", stage=stage)

    return of


def _from_calibration(text: str) -> Callable[[PairScores], Calibration]:
    calibration = load_calibration(text)

    def of(scores: PairScores) -> Calibration:
        stage = "embedding" if scores.detail is None else "verified"
        if calibration.stage != stage:
            raise UsageError(
                f"the calibration {one_line(text, 80)} is of the stage {calibration.stage}, but the metric "
                f"{scores.metric} is judged at the stage {stage}: choose another"
            )
        return calibration

    return of


def choose_thresholds(pairs: LabelledPairs, scores: Sequence[PairScores], source: str) -> list[Calibration]:
    """Choose the thresholds of each metric that give the best macro F1 on pairs.

    Args:
        pairs: The list.
        scores: Of each metric on these pairs.
        source: Where the thresholds come from, in a few words.

    Raises:
        UsageError: The pairs lack copies or unrelated ones.

    Example:
        >>> import numpy as np
        >>> from pathlib import Path
        >>> names = ("a", "b", "c")
        >>> pairs = LabelledPairs(Path("a.csv"), names, names, np.array([0, 2, 1]), np.array(names), "itself")
        >>> found = choose_thresholds(pairs, [PairScores("m", np.array([0.1, 0.5, 0.9]), None)], "an example")
        >>> round(found[0].near.value, 3), round(found[0].exact.value, 3)
        (0.3, 0.7)
    """
    found = []
    for one in scores:
        if one.detail is None:
            near, exact = best_cuts(one.scores, pairs.labels)
            stage = "embedding"
        else:
            near, exact = best_registered_cuts(one.scores, one.detail, pairs.labels)
            stage = "verified"
        found.append(Calibration(one.metric, Threshold(near), Threshold(exact), source, stage=stage))
    return found
