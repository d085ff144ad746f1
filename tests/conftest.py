"""What all tests share: the program as a user runs it; the benchmarks beside them can be imported."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
import warnings
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
def deepssim_here() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Return what runs the command line in this process: the same exit codes and words, without a start each time."""

    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        from deepssim.cli import main

        given, out, err = [str(part) for part in arguments], io.StringIO(), io.StringIO()
        with (
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
            warnings.catch_warnings(),
            pytest.raises(SystemExit) as end,
        ):
            main(given)
        return subprocess.CompletedProcess(given, int(end.value.code or 0), out.getvalue(), err.getvalue())

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
