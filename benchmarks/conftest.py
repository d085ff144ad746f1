"""Shared data of the benchmarks. Every benchmark asserts its answer."""

from __future__ import annotations

import numpy as np
import pytest


def unit_rows(n: int, dim: int, seed: int) -> np.ndarray:
    rows = np.random.default_rng(seed).standard_normal((n, dim), dtype=np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.fixture(scope="session")
def make_rows():
    return unit_rows
