"""What all tests share: the program as a user runs it; the benchmarks beside them can be imported."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))


@pytest.fixture(scope="session")
def deepssim() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Return what runs the command line in a process of its own, with more environment where it is given."""

    def run(*arguments: object, cwd: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", "from deepssim.cli import main; main()", *map(str, arguments)]
        env = {**os.environ, **environment}
        return subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd, env=env)

    return run


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """The folder with real images, if this machine has one."""
    named = os.environ.get("DEEPSSIM_DATA")
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(named) if named else beside
    if not (folder / "splits.csv").is_file():
        pytest.skip("real images are not here: set DEEPSSIM_DATA to their folder")
    return folder
