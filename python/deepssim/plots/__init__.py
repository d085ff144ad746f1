"""Figures of scores, audits and embeddings, as PNG, SVG or PDF."""

from __future__ import annotations

from deepssim.plots.control import draw_control
from deepssim.plots.densities import draw_densities
from deepssim.plots.embedding_map import METHODS, draw_map, make_map, read_flagged
from deepssim.plots.histogram import draw_histogram
from deepssim.plots.rates import draw_calibration, draw_roc, draw_sensitivity
from deepssim.plots.scored import ScoredPairs
from deepssim.plots.style import Look, check_target, save

__all__ = [
    "METHODS",
    "Look",
    "ScoredPairs",
    "check_target",
    "draw_calibration",
    "draw_control",
    "draw_densities",
    "draw_histogram",
    "draw_map",
    "draw_roc",
    "draw_sensitivity",
    "make_map",
    "read_flagged",
    "save",
]
