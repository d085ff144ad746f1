"""A metric with one threshold calls a pair exact or unrelated, never near."""

from __future__ import annotations

import json
import shutil

import pyarrow.parquet as pq
import pytest

from deepssim.audit import AuditOptions, audit
from deepssim.calibration import Calibration, Threshold
from deepssim.images import ImageOptions
from deepssim.matching import MatchOptions
from deepssim.report import write_report


@pytest.mark.parametrize("views", ["none", "bank"])
def test_an_audit_with_one_threshold_lists_what_two_would_and_calls_all_of_it_exact(cohort, tmp_path, views):
    # Every copy and a few others: the bank turns and shifts each image many times.
    some = tmp_path / "synthetic"
    some.mkdir()
    for path in sorted(cohort.synthetic.iterdir())[:8]:
        shutil.copy(path, some / path.name)

    def run(name: str, near: Threshold, exact: Threshold) -> tuple[dict, list[dict], list[dict], list[dict]]:
        calibration = Calibration("pixel", near, exact, source="a study", how="told here", views=None)
        options = AuditOptions(
            metric="pixel",
            calibration=calibration,
            verify=False,
            images=ImageOptions(group_by="parent"),
            match=MatchOptions(views=views),
        )
        out = tmp_path / name
        audit(cohort.real, some, out, holdout=cohort.holdout, options=options)
        tables = (pq.read_table(out / f"{t}.parquet").to_pylist() for t in ("leaks", "real_images", "matches"))
        return json.loads((out / "summary.json").read_text()), *tables

    cut = Threshold(0.765, ">")
    two, two_leaks, two_images, two_matches = run("two", cut, Threshold(0.999, ">"))
    one, one_leaks, one_images, one_matches = run("one", cut, cut)
    assert [{**row, "label": ""} for row in one_leaks] == [{**row, "label": ""} for row in two_leaks]
    assert {row["label"] for row in one_leaks} == {"exact"}
    assert {row["label"] for row in one_matches} == {"exact", "unrelated"}
    assert {row["label"] for row in two_leaks} == {"exact", "near"}
    assert len(one_matches) == len(two_matches)
    counted = {row["real_id"]: (row["n_exact"], row["n_near"]) for row in one_images}
    assert counted == {row["real_id"]: (row["n_exact"] + row["n_near"], 0) for row in two_images}
    assert one["synthetic_flagged"]["near"] == 0
    assert one["synthetic_flagged"]["exact"] == two["synthetic_flagged"]["flagged"]
    assert one["pairs_over_threshold"]["near"] == 0
    assert one["control"]["holdout"]["flagged"] == two["control"]["holdout"]["flagged"]
    page = write_report(tmp_path / "one").read_text()
    assert "told here" in page
    assert "a study" in page


def test_thresholds_of_another_metric_are_said(cohort, tmp_path):
    calibration = Calibration("brain", Threshold(0.8), Threshold(0.9), source="a study")
    options = AuditOptions(
        metric="pixel", calibration=calibration, verify=False, match=MatchOptions(views="none"),
        images=ImageOptions(group_by="parent"),
    )  # fmt: skip
    result = audit(cohort.real, cohort.synthetic, tmp_path / "out", options=options)
    assert any("chosen for scores of the metric brain" in line for line in result.summary["warnings"])
