"""Scores of labelled pairs, wherever they come from: a matrix or stores (`stored`), or the images (`images`)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deepssim.calibration import Calibration, Threshold, installed_calibrations, load_calibration
from deepssim.errors import MetricError, UsageError
from deepssim.evaluate.classes import EXACT, NEAR, UNRELATED
from deepssim.metric import Metric, installed_metrics, load_metric

__all__ = ["PairScores", "default_calibration", "perturbed_condition"]

Scores = NDArray[np.float64]
Labels = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class PairScores:
    """Scores of pairs by one metric.

    Attributes:
        metric: Its name.
        scores: ``(n,)``, higher is closer; S1 where pairs were registered.
        calibration: Thresholds; None: none are known, and the metric labels nothing.
        detail: ``(n,)`` S2 where pairs were registered, else None.
        condition: How images were seen, where that is not as they lie; empty: as they lie.
        similarity: Of the metric, one of `deepssim.metric.SIMILARITIES`; "l2" is shown as a distance.
        precision: What the scores were stored in.
    """

    metric: str
    scores: Scores
    calibration: Calibration | None
    detail: Scores | None = None
    condition: str = ""
    similarity: str = "cosine"
    precision: str = "float64"

    def labels(self) -> Labels:
        """Return the class that the thresholds give each pair, ``(n,)``.

        Scores are compared in float64, as they are: a score that a file rounded to float16 is compared rounded.

        Raises:
            UsageError: There are no thresholds.

        Example:
            >>> calibration = Calibration("m", Threshold(0.6, ">"), Threshold(0.85, ">"), "an example")
            >>> PairScores("m", np.array([0.6, 0.61, 0.9]), calibration).labels().tolist()
            [0, 2, 1]
        """
        if self.calibration is None:
            raise UsageError(f"the metric {self.metric} has no thresholds: give --thresholds {self.metric}=NEAR,EXACT")
        is_near = _passes(self.scores, self.calibration.near)
        if self.detail is None:
            is_exact = _passes(self.scores, self.calibration.exact)
        else:
            is_exact = is_near & _passes(self.detail, self.calibration.exact)
        return np.where(is_exact, EXACT, np.where(is_near, NEAR, UNRELATED)).astype(np.int64)

    def n_on_thresholds(self) -> int:
        """Return how many scores meet a threshold exactly once it is rounded as they were, and not before.

        They are labelled by the threshold as it is. NumPy before 2 compares them so as well; NumPy 2 rounds the
        threshold first.
        """
        if self.calibration is None or self.precision == "float64":
            return 0
        rounded = [
            float(np.dtype(self.precision).type(threshold.value))
            for threshold in (self.calibration.near, self.calibration.exact)
            if float(np.dtype(self.precision).type(threshold.value)) != threshold.value
        ]
        return int(np.isin(self.scores, rounded).sum())


def _passes(scores: Scores, threshold: Threshold) -> NDArray[np.bool_]:
    return scores >= threshold.value if threshold.comparison == ">=" else scores > threshold.value


def default_calibration(metric: str, bundle: Metric | None = None) -> Calibration | None:
    """Return the thresholds that come with a metric, None where there are none.

    Those beside the bundle, for scores of single pairs without views; else an installed calibration of the metric's
    name; for "ssim" those of "deepssim", which imitates it.

    Args:
        metric: Name.
        bundle: Where it is at hand.

    Example:
        >>> default_calibration("verified").stage, default_calibration("ncc")
        ('verified', None)
    """
    if bundle is None and metric in installed_metrics():
        bundle = load_metric(metric)
    if bundle is not None:
        try:
            return bundle.calibration("none")
        except MetricError:
            pass
    name = "deepssim" if metric == "ssim" else metric
    return load_calibration(name) if name in installed_calibrations() else None


def perturbed_condition(real_seed: int | None, synthetic_seed: int | None) -> str:
    """Say which images are perturbed.

    Example:
        >>> perturbed_condition(None, None), perturbed_condition(None, 3)
        ('', 'perturbed (synthetic images, seed 3)')
    """
    if real_seed is None and synthetic_seed is None:
        return ""
    if real_seed == synthetic_seed:
        return f"perturbed (real and synthetic images, seed {real_seed})"
    sides = [f"{what} images, seed {seed}" for what, seed in (("real", real_seed), ("synthetic", synthetic_seed))
             if seed is not None]  # fmt: skip
    return f"perturbed ({', '.join(sides)})"
