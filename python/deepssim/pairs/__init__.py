"""Pairs of images with their similarity: what encoders are trained on, and how it is chosen."""

from __future__ import annotations

from deepssim.pairs.choose import BinCount, PairOptions, PairResult, Target
from deepssim.pairs.listed import list_pairs
from deepssim.pairs.made import make_pairs
from deepssim.reference.names import file_of, key_of

__all__ = [
    "BinCount",
    "PairOptions",
    "PairResult",
    "Target",
    "file_of",
    "key_of",
    "list_pairs",
    "make_pairs",
]
