"""A made-up model that is quick; it can be imported too."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture
def make() -> Callable[..., Any]:
    """Return what makes the model."""
    from fake_backend import make_backend

    return make_backend


@pytest.fixture
def backend(make) -> Any:
    """Return a model without conditions."""
    return make()
