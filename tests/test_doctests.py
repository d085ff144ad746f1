"""Every example in a docstring, run on the package as it is installed."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

import deepssim

MODULES = sorted(
    module.name for module in pkgutil.walk_packages(deepssim.__path__, "deepssim.") if module.name != "deepssim._core"
)
# These rooms need the extra train.
TRAINING = ("deepssim.models", "deepssim.train", "deepssim.generate", "deepssim.export")


@pytest.mark.parametrize("name", MODULES)
def test_examples_hold(name):
    if name.startswith(TRAINING):
        pytest.importorskip("torch")
    assert doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS).failed == 0
