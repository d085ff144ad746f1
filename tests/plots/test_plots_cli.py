"""``deepssim plot`` and the door of the reference implementation's script."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "plot_reports.py"


@pytest.fixture(scope="session")
def deepssim(deepssim_here):
    return deepssim_here


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a matrix, its indices and labelled pairs, as the reference implementation writes them."""
    folder = tmp_path_factory.mktemp("reference")
    rng = np.random.default_rng(0)
    real, synthetic = [f"p{k}___training" for k in range(12)], [f"p{k % 12}___gen-{k}" for k in range(30)]
    matrix = rng.random((12, 30)).astype(np.float16)
    np.savez_compressed(folder / "matrix.npz", data=matrix)
    np.savez_compressed(folder / "real.npz", data=np.array(real))
    np.savez_compressed(folder / "synth.npz", data=np.array(synthetic))
    with (folder / "test.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["real_key", "synth_key", "label"])
        for k in range(120):
            writer.writerow([real[k // 10], synthetic[(7 * k) % 30], k % 3])
    return folder


def source(folder: Path) -> list[str]:
    names = {
        "--pairs": "test.csv",
        "--matrix": "matrix.npz",
        "--real-indices": "real.npz",
        "--synth-indices": "synth.npz",
    }
    return [text for flag, name in names.items() for text in (flag, str(folder / name))]


@pytest.mark.parametrize("is_stored", [False, True])
def test_the_histogram_tells_its_bins(deepssim, files, tmp_path, is_stored):
    out = tmp_path / "new" / "a.svg"
    done = deepssim(
        "plot",
        "histogram",
        *source(files),
        "--metric",
        "deepssim",
        "--out",
        out,
        "--json",
        "--size",
        "6.5x5",
        *(["--stored-bins"] if is_stored else []),
    )
    assert done.returncode == 0, done.stderr
    (told,) = json.loads(done.stdout)["figures"]
    matrix, real, synthetic = (np.load(files / name)["data"] for name in ("matrix.npz", "real.npz", "synth.npz"))
    with (files / "test.csv").open() as file:
        rows = list(csv.DictReader(file))
    scores = np.array([
        matrix[real.tolist().index(row["real_key"]), synthetic.tolist().index(row["synth_key"])] for row in rows
    ])  # fmt: skip
    assert scores.dtype == np.float16
    scores = scores if is_stored else scores.astype(np.float64)  # the reference implementation takes them as stored
    edges = np.histogram_bin_edges(scores, bins=55)
    assert told["edges"] == edges.tolist()
    for name, label in (("unrelated", "0"), ("exact", "1"), ("near", "2")):
        chosen = scores[[row["label"] == label for row in rows]]
        assert told["counts"][name] == np.histogram(chosen, edges)[0].tolist()
    assert told["thresholds"] == {"near": 0.6, "exact": 0.85}  # the published ones of this metric
    assert out.read_bytes().startswith(b"<?xml")


def test_the_door_takes_the_flags_of_the_reference(files, tmp_path):
    flags = {
        "low_threshold": ".6", "upper_threshold": "0.85", "exp_title": "--A title $", "output_path": tmp_path / "plot",
        "matrix_path": files / "matrix.npz", "real_indices_path": files / "real.npz",
        "synth_indices_path": files / "synth.npz", "testset_csv": files / "test.csv",
    }  # fmt: skip
    command = [sys.executable, str(SCRIPT), *(f"--{name}={value}" for name, value in flags.items())]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=dict(os.environ))
    assert done.returncode == 0, done.stderr
    assert "deepssim plot histogram" in done.stderr
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


def test_mistakes_are_one_line_before_anything_is_scored(deepssim, files, tmp_path):
    cases = (
        (
            ["histogram", *source(files), "--out", files / "matrix.png", "--thresholds", "x"],
            "thresholds are two numbers",
        ),
        (["roc", *source(files), "--out", tmp_path / "a.jpg"], "a.jpg must end in .png, .svg or .pdf"),
        (["map", "--out", tmp_path / "a.png"], "say which images are drawn"),
    )
    for arguments, what in cases:
        done = deepssim("plot", *arguments)
        assert done.returncode == 2
        assert what in done.stderr
        assert "Traceback" not in done.stderr
        assert done.stderr.count("Error:") == 1
    assert not list(tmp_path.iterdir())
