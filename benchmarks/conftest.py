"""Shared data of the benchmarks. Every benchmark asserts its answer."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

# `pytest` alone, unlike ``python -m pytest``, does not look for modules in the current folder.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.data import gaussian


@pytest.fixture(scope="session")
def make_rows():
    return gaussian


@pytest.fixture(scope="session")
def part(request):
    """Return the part of the data that is used: all where something is timed, a tenth where answers are checked."""
    return 0.1 if request.config.getoption("benchmark_disable", default=False) else 1.0
