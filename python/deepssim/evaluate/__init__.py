"""How well labels and scores agree with a known truth."""

from deepssim.evaluate.classes import (
    CLASS_NAMES,
    EXACT,
    N_CLASSES,
    NEAR,
    UNRELATED,
    ClassReport,
    class_report,
    labels_of,
)
from deepssim.evaluate.contrast import Contrast, Silhouette
from deepssim.evaluate.cuts import best_cuts, best_registered_cuts, rate_at_false_positives
from deepssim.evaluate.evaluation import Evaluation, Figure, MetricEvaluation, evaluate_pairs
from deepssim.evaluate.paired import Comparison, compare_metrics, holm, mcnemar
from deepssim.evaluate.resample import RESAMPLES, Resampling, interval_by_person

__all__ = [
    "CLASS_NAMES",
    "EXACT",
    "NEAR",
    "N_CLASSES",
    "RESAMPLES",
    "UNRELATED",
    "ClassReport",
    "Comparison",
    "Contrast",
    "Evaluation",
    "Figure",
    "MetricEvaluation",
    "Resampling",
    "Silhouette",
    "best_cuts",
    "best_registered_cuts",
    "class_report",
    "compare_metrics",
    "evaluate_pairs",
    "holm",
    "interval_by_person",
    "labels_of",
    "mcnemar",
    "rate_at_false_positives",
]
