"""Pairs that somebody labelled: the list, the scores of metrics on it, and their thresholds."""

from deepssim.labelled.pairs import LABEL_WORDS, LabelledPairs, find_keys, read_labelled, with_groups
from deepssim.labelled.scores import PairScores, default_calibration

__all__ = [
    "LABEL_WORDS",
    "LabelledPairs",
    "PairScores",
    "default_calibration",
    "find_keys",
    "read_labelled",
    "with_groups",
]
