"""Copies of one's own images, planted among generated ones, and how many of them an audit finds."""

from deepssim.planted.copies import KINDS, PlantOptions, PlantResult, make_copy, plant
from deepssim.planted.recall import Found, PlantedFindings, Recall, find_planted, measure_recall
from deepssim.planted.truth import Planted, read_truth, write_truth

__all__ = [
    "KINDS",
    "Found",
    "PlantOptions",
    "PlantResult",
    "Planted",
    "PlantedFindings",
    "Recall",
    "find_planted",
    "make_copy",
    "measure_recall",
    "plant",
    "read_truth",
    "write_truth",
]
