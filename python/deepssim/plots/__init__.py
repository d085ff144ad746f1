"""Figures of scores, audits and embeddings, as PNG, SVG or PDF."""

from __future__ import annotations

from deepssim.plots.control import draw_control
from deepssim.plots.densities import draw_densities
from deepssim.plots.embedding_map import METHODS, draw_map, make_map, read_flagged
from deepssim.plots.histogram import count_scores, draw_histogram
from deepssim.plots.rates import draw_calibration, draw_roc, draw_sensitivity, roc_figures
from deepssim.plots.scored import ScoredPairs
from deepssim.plots.style import Look, check_target, save

__all__ = [
    "METHODS",
    "Look",
    "ScoredPairs",
    "check_target",
    "count_scores",
    "draw_calibration",
    "draw_control",
    "draw_densities",
    "draw_histogram",
    "draw_map",
    "draw_roc",
    "draw_sensitivity",
    "make_map",
    "read_flagged",
    "roc_figures",
    "save",
]
