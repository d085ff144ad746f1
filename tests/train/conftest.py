"""What the tests of encoders share."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="session")
def scripted() -> Callable[[Any, Path], Path]:
    """Return what writes a network as a TorchScript archive, as published checkpoints are."""
    torch = pytest.importorskip("torch")

    def save(network: Any, path: Path) -> Path:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=r"`torch\.jit\.\w+` is (deprecated|not supported)")
            torch.jit.script(network).save(str(path))
        return path

    return save


@pytest.fixture(scope="module")
def one_thread():
    """Leave the other cores to whoever else tests."""
    torch = pytest.importorskip("torch")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
