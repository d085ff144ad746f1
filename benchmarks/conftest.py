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
