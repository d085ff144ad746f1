"""Thresholds at a chosen false-positive rate per image."""

from __future__ import annotations

from deepssim.calibrate.conformal import cut_for_rate, rate_interval, sensitivity
from deepssim.calibrate.unrelated import UnrelatedScores
from deepssim.calibration import Calibration, Threshold
from deepssim.errors import UsageError
from deepssim.statistics import extreme_bound

__all__ = ["calibrate_rate"]

_WHAT = {
    "control": "{n:,} synthetic images against {base:,} images of {people} whom the generator never saw",
    "real": "{n:,} real images against {base:,} images of other people, of {people} in all (real images are not "
    "exchangeable with generated ones)",
}


def calibrate_rate(
    scores: UnrelatedScores, rate: float, *, kind: str, domain: str = "", seed: int = 0
) -> tuple[Calibration, tuple[str, ...]]:
    """Choose the near threshold that an unrelated image passes at most at a rate.

    The exact threshold stays what it was; where scores of embeddings decide it may not be below the near one, so it is
    raised to it where it would be.

    Args:
        scores: Of unrelated images.
        rate: Of false positives per image, between 0 and 1.
        kind: ``"control"`` or ``"real"``: where the scores come from.
        domain: The kind of images, in words.
        seed: Of the resampling.

    Returns:
        The calibration, and what makes it doubtful.

    Raises:
        UsageError: There are too few images for the rate, or there is no exact threshold to take.

    Example:
        >>> import numpy as np
        >>> one = np.array([f"image {i}" for i in range(99)])
        >>> scores = UnrelatedScores(
        ...     np.arange(99) / 100, one, one, None, 50, "m", "cosine", "none", "embedding",
        ...     (Threshold(0.99), "an example"), "the highest score of m",
        ... )
        >>> calibrate_rate(scores, 0.01, kind="control")[0].near
        Threshold(value=0.98, comparison='>')
    """
    if scores.exact is None:
        raise UsageError(
            f"the metric {scores.metric} has no thresholds that the exact one could be taken from: give --exact VALUE, "
            "or --like with a calibration"
        )
    cut = cut_for_rate(scores.values, rate)
    near, (exact, exact_from) = Threshold(cut.value, ">"), scores.exact
    warnings = list(scores.warnings)
    if scores.stage == "embedding" and exact.cut() < near.cut():
        warnings.append(
            f"The exact threshold ({exact.value:g}, {exact_from}) lies below the near one ({near.value:g}) and was "
            "raised to it: every flagged image will be called an exact copy."
        )
        exact, exact_from = near, "raised to the near one"
    if near.value >= 1.0:
        warnings.append(
            "No image can pass a threshold of 1, not even a copy: unrelated images are as alike as can be (the same "
            "images in both sets, or a metric that cannot tell them apart)."
        )
    low, high = rate_interval(scores.values, cut, scores.images, scores.people, seed=seed)
    n_units = len(set(scores.images.tolist()))
    if n_units < len(scores):
        warnings += _few_people(n_units, rate)
    people = "unknown people" if scores.n_people is None else f"{scores.n_people:,} people"
    what = _WHAT[kind].format(n=len(scores), base=scores.base_size, people=people)
    how = (
        f"near: a new unrelated image passes with a probability of at most {cut.rate:.3g} (the {_ordinal(cut.rank)} "
        f"highest of {what}; {scores.how}); exact: {exact_from}"
    )
    calibration = Calibration(
        metric="verified" if scores.stage == "verified" else scores.metric,
        near=near,
        exact=exact,
        source=f"deepssim calibrate {kind}, at a false-positive rate of {rate:g}",
        stage=scores.stage,
        domain=domain,
        base_size=scores.base_size,
        false_positive_rate=cut.rate,
        how=how,
        views=scores.views if scores.stage == "embedding" else None,
        false_positive_interval=(low, high),
        curve=sensitivity(scores.values),
    )
    return calibration, tuple(warnings)


def _few_people(n_people: int, rate: float) -> list[str]:
    """Say where whole people are too few for a rate: the promise is of images that are drawn independently."""
    if extreme_bound(n_people) <= 3 * rate:
        return []
    return [
        f"The unrelated images are of {n_people:,} people, and images of one person are alike: for other people the "
        f"rate is less sure than {rate:g} sounds; see its interval."
    ]


def _ordinal(n: int) -> str:
    suffix = "th" if n % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(n % 10, "th")
    return f"{n:,}{suffix}"
