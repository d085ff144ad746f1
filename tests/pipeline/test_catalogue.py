"""What is told of the metrics that are there, and of those that can be had."""

from __future__ import annotations

import json

import pytest

from deepssim.bundle import bundle_pixels, write_thresholds
from deepssim.calibration import load_calibration
from deepssim.catalogue import OBTAINABLE, describe_metric, find_metrics
from deepssim.cli import COMMANDS
from deepssim.errors import MetricError, UsageError
from deepssim.metric import given_thresholds, installed_metrics, load_metric

PUBLISHED = {
    "chen": ((0.4, ">"), (0.6, ">")),
    "dar": ((0.8030425, ">"), (0.8030425, ">")),
    "deepssim": ((0.6, ">"), (0.85, ">")),
    "deepssimpp": ((0.76, ">"), (0.92, ">=")),
    "semdedup": ((0.97, ">="), (0.99905, ">=")),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_thresholds_are_installed_as_they_were_published(name):
    calibration = load_calibration(name)
    found = tuple((t.value, t.comparison) for t in (calibration.near, calibration.exact))
    assert (calibration.metric, calibration.stage, found) == (name, "embedding", PUBLISHED[name])


def test_what_can_be_had_is_what_has_no_weights_here():
    assert {one.name for one in OBTAINABLE} == set(PUBLISHED)
    assert not {one.name for one in OBTAINABLE} & set(installed_metrics())
    for one in OBTAINABLE:
        assert one.command.split()[1] in COMMANDS


def test_all_is_told_of_a_metric(tmp_path):
    made = bundle_pixels(tmp_path / "mine.onnx", (9, 7))
    write_thresholds(made.path, given_thresholds("x", 1.0, 0.5, "l2", "told"), made.name)
    told = describe_metric(load_metric(str(made.path)))
    assert (told["name"], told["path"], told["dim"]) == ("mine", str(made.path), 63)
    assert told["thresholds"]["near"] == {"value": 0.5, "comparison": ">=", "distance": 1.0}
    assert told["thresholds"]["exact"]["distance"] == pytest.approx(0.5)
    assert load_metric(str(made.path)).calibration().metric == "mine"
    assert describe_metric(load_metric("pixel"))["path"] is None
    assert "pixel.chest" in describe_metric(load_metric("pixel"))["calibrations"]


def test_metrics_are_found_in_files_and_folders_and_the_rest_is_named(tmp_path):
    (tmp_path / "no.onnx").write_bytes(b"\x00\xff\x13" * 99)
    bundle_pixels(tmp_path / "mine.onnx", (9, 7))
    metrics, faults = find_metrics([tmp_path, tmp_path / "mine.onnx"])
    assert [metric.name for metric in metrics] == ["mine", "mine"]
    assert len(faults) == 1
    assert "no.onnx is not an ONNX file" in faults[0]
    with pytest.raises(MetricError, match=r"no\.onnx"):
        find_metrics([tmp_path / "no.onnx"])
    with pytest.raises(UsageError, match=r"one\.onnx, .*two: no such file or folder"):
        find_metrics([tmp_path / "one.onnx", tmp_path / "two"])


def test_the_command_lists_them(deepssim_here, tmp_path):
    done = deepssim_here("metrics", "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert {one["name"] for one in told["metrics"]} == set(installed_metrics())
    chen = next(one for one in told["obtainable"] if one["name"] == "chen")
    assert chen["thresholds"]["near"] == {"value": 0.4, "comparison": ">"}
    assert chen["command"].startswith("deepssim export --sscd")
    made = bundle_pixels(tmp_path / "mine.onnx", (9, 7))
    write_thresholds(made.path, given_thresholds("mine", 1.0, 0.5, "l2", "told"), made.name)
    done = deepssim_here("metrics", made.path)
    assert done.returncode == 0, done.stderr
    assert "9 x 7, area; byte grey" in done.stdout
    assert "near <= 1 (score >= 0.5), exact <= 0.5 (score >= 0.875)" in done.stdout
