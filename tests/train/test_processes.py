"""Two processes that train together, over gloo on CPUs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

torch = pytest.importorskip("torch")
pytest.importorskip("accelerate")

from deepssim.models.checkpoint import load_encoder  # noqa: E402
from deepssim.phantom import make_cohort  # noqa: E402


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Path:
    people, out = tmp_path_factory.mktemp("people"), tmp_path_factory.mktemp("out")
    for person, number, image in make_cohort(8, 2, seed=2):
        path = people / f"p{person}" / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray((image * 255).astype(np.uint8)).save(path)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command += [str(Path(__file__).with_name("ranks.py")), str(people), str(out)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return out


@pytest.fixture(scope="module")
def said(ran: Path) -> list[dict]:
    return [json.loads((ran / f"rank-{rank}.json").read_text()) for rank in (0, 1)]


def log(folder: Path) -> list[dict[str, float]]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name != "seconds"} for line in lines]


def test_two_processes_train_together_and_one_writes(said, ran):
    assert [each["n_processes"] for each in said] == [2, 2]
    assert [each["main"] for each in said] == [True, False]
    assert [line["step"] for line in log(ran / "whole")] == [3, 6]
    assert said[0]["best"] == said[1]["best"]


def test_two_killed_processes_go_on_to_the_same_bits(said, ran):
    assert all(each["was_killed"] for each in said)
    assert log(ran / "cut") == log(ran / "whole")
    whole, cut = (load_encoder(ran / name / "last.safetensors")[0].state_dict() for name in ("whole", "cut"))
    for name, tensor in whole.items():
        assert torch.equal(tensor, cut[name]), name


def test_what_fails_on_one_process_ends_all_and_the_main_one_says_it(said):
    (kind, text), (other, _) = (each["other_settings"] for each in said)
    assert kind == "UsageError"
    assert "other settings (seed)" in text
    assert other == "ElsewhereError"
    assert said[0]["fails_on_one"] == ["UsageError", "process 1: no such thing"]
    assert said[1]["fails_on_one"][0] == "ElsewhereError"


def test_the_main_process_decides_when_it_is_enough(said, ran):
    assert [each["tired"] for each in said] == [1, 1]
    assert [line["step"] for line in log(ran / "tired")] == [1, 2, 3]
