"""Labelled scores that figures are drawn from; fake audits can be imported."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from deepssim.plots import ScoredPairs

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1] / "report")]


@pytest.fixture(scope="session")
def scored() -> ScoredPairs:
    """Scores of one metric."""
    from made_scores import make_scored

    return make_scored()
