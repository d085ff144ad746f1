"""What is read from the folder, and what happens when it is not as it should be."""

from __future__ import annotations

import html as html_module
import json
import os
import re
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fake_audit import Kind, write_audit

from deepssim.errors import DeepSSIMError, UsageError
from deepssim.report import ReportError, tables, write_report


def edit(path: Path, change: Callable[[Any], None]) -> None:
    value = json.loads(path.read_text(encoding="utf-8"))
    change(value)
    path.write_text(json.dumps(value), encoding="utf-8")


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def drop_column(path: Path, column: str) -> None:
    table = pq.read_table(path)
    pq.write_table(table.drop_columns([column]), path)


DAMAGE: list[tuple[str, Callable[[Path], object]]] = [
    ("summary.json", lambda f: (f / "summary.json").unlink()),
    ("summary.json", lambda f: cut(f / "summary.json")),
    ("summary.json", lambda f: (f / "summary.json").write_text("[1]")),
    ("summary.json", lambda f: (f / "summary.json").write_bytes(b"\xff\xfe\x00")),
    ("summary.json", lambda f: (f / "summary.json").write_text("[" * 200_000)),
    ("version", lambda f: edit(f / "summary.json", lambda v: v.update(version=2))),
    ("deepssim-summary", lambda f: edit(f / "summary.json", lambda v: v.update(format="other"))),
    ("rate", lambda f: edit(f / "summary.json", lambda v: v["synthetic_flagged"].update(rate=float("nan")))),
    ("flagged", lambda f: edit(f / "summary.json", lambda v: v["synthetic_flagged"].update(flagged=501))),
    ("interval", lambda f: edit(f / "summary.json", lambda v: v["real_copied"].update(interval=[0.4, 0.1]))),
    ("histogram", lambda f: edit(f / "summary.json", lambda v: v["histogram"]["real"].append(1))),
    ("level", lambda f: edit(f / "summary.json", lambda v: v["verdict"].update(level="fine"))),
    ("limits", lambda f: edit(f / "summary.json", lambda v: v.update(limits=[1]))),
    ("listed", lambda f: edit(f / "summary.json", lambda v: v["pairs_over_threshold"].pop("listed"))),
    ("leaks.parquet", lambda f: edit(f / "summary.json", lambda v: v["pairs_over_threshold"].update(listed=30))),
    ("run.json", lambda f: cut(f / "run.json")),
    ("leaks.parquet", lambda f: (f / "leaks.parquet").unlink()),
    ("leaks.parquet", lambda f: cut(f / "leaks.parquet")),
    ("matches.parquet", lambda f: cut(f / "matches.parquet")),
    ("patients.parquet", lambda f: (f / "patients.parquet").unlink()),
    ("n_images_copied", lambda f: drop_column(f / "patients.parquet", "n_images_copied")),
    ("real_images.parquet", lambda f: (f / "real_images.parquet").unlink()),
    ("skipped.parquet", lambda f: (f / "skipped.parquet").unlink()),
    ("pairs.json", lambda f: (f / "evidence" / "pairs.json").write_text("{}")),
    ("pair 0", lambda f: edit(f / "evidence" / "pairs.json", lambda v: v[0].update(real_png="../../secret.png"))),
    ("pair 1", lambda f: edit(f / "evidence" / "pairs.json", lambda v: v[1].update(score="high"))),
    ("pair-000-real.png", lambda f: cut(f / "evidence" / "pair-000-real.png")),
    ("pair-001-synthetic.png", lambda f: (f / "evidence" / "pair-001-synthetic.png").unlink()),
]


@pytest.mark.parametrize(("named", "damage"), DAMAGE)
def test_damage_gives_one_line_and_leaves_no_file(audit: Path, named: str, damage: Callable[[Path], object]):
    damage(audit)
    before = set(audit.iterdir())
    with pytest.raises(ReportError) as caught:
        write_report(audit)
    message = str(caught.value)
    assert named in message
    assert "\n" not in message
    assert set(audit.iterdir()) == before


@pytest.mark.parametrize("name", ["matches.parquet", "skipped.parquet"])
@pytest.mark.parametrize("has_rows", [True, False])
def test_a_table_that_every_run_writes_is_missed_though_the_page_needs_no_row_of_it(
    tmp_path: Path, name: str, *, has_rows: bool
):
    folder = write_audit(tmp_path / "audit", Kind(n_skipped=5 if has_rows else 0, is_hostile=False))
    edit(folder / "summary.json", lambda v: v["counts"]["real"].update(ignored=0))
    (folder / name).unlink()
    with pytest.raises(ReportError) as caught:
        write_report(folder)
    assert str(caught.value) == f"{folder / name} is missing; restore it or run the audit again"
    assert not (folder / "report.html").exists()


def test_an_old_report_survives_a_failure(audit: Path):
    path = write_report(audit)
    before = path.read_bytes()
    cut(audit / "run.json")
    with pytest.raises(DeepSSIMError):
        write_report(audit)
    assert path.read_bytes() == before


def test_the_report_is_private_whole_and_the_same_again(audit: Path):
    path = write_report(audit)
    assert path == audit / "report.html"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    first = path.read_bytes()
    assert write_report(audit).read_bytes() == first
    assert first.rstrip().endswith(b"</html>")
    assert not [one for one in audit.iterdir() if one.name.startswith(".")]


def test_the_default_name_says_that_something_is_left_out(audit: Path):
    assert write_report(audit, with_images=False).name == "report-shareable.html"
    assert write_report(audit, pseudonyms=True).name == "report-shareable.html"
    assert not (audit / "report.html").exists()
    other = audit.parent / "elsewhere.html"
    assert write_report(audit, out=other) == other


def test_a_link_is_replaced_and_not_followed(audit: Path, tmp_path: Path):
    victim = tmp_path / "victim"
    victim.write_text("mine")
    (audit / "report.html").symlink_to(victim)
    path = write_report(audit)
    assert victim.read_text() == "mine"
    assert not path.is_symlink()


@pytest.mark.parametrize("out", ["missing/report.html", "."])
def test_a_place_that_cannot_be_written_is_a_usage_error(audit: Path, out: str):
    with pytest.raises(UsageError):
        write_report(audit, out=audit / out)


def test_no_folder_is_a_usage_error(tmp_path: Path):
    with pytest.raises(UsageError, match="finished audit"):
        write_report(tmp_path / "none")


def test_a_folder_without_evidence_shows_the_top_of_the_leaks(audit: Path):
    shutil.rmtree(audit / "evidence")
    html = write_report(audit).read_text(encoding="utf-8")
    assert "The audit folder holds no pictures of pairs." in html
    assert "<img" not in html
    assert html.index("0.9993") < html.index("0.9982")


def test_without_flags_the_nearest_matches_are_shown(tmp_path: Path):
    kind = Kind(level="none_found", is_hostile=False, has_evidence=False, has_groups=False, has_holdout=False)
    html = write_report(write_audit(tmp_path / "audit", kind)).read_text(encoding="utf-8")
    assert "Nearest pairs (none is over the threshold)" in html
    assert "generated/sample-000000.png" in html
    assert "at most 0.8\u202f% with 95\u202f% confidence" in html
    assert "not known" in html
    assert "There is no holdout" in html


def test_zero_images_make_a_report(tmp_path: Path):
    folder = write_audit(tmp_path / "audit", Kind(level="none_found", has_evidence=False, has_holdout=False))

    def empty(value: Any) -> None:
        for key in ("synthetic_flagged", "real_copied", "patients_copied"):
            value[key].update(total=0, rate=None, interval=None)
        value["histogram"]["real"] = [0] * len(value["histogram"]["real"])

    edit(folder / "summary.json", empty)
    matches = folder / "matches.parquet"
    pq.write_table(pq.read_table(matches).slice(0, 0), matches)
    assert "No synthetic image was scored." in write_report(folder).read_text(encoding="utf-8")


def test_top_rows_are_those_of_a_full_sort(tmp_path: Path):
    rng = np.random.default_rng(0)
    n = 150_000
    score = rng.integers(0, 50, n).astype(np.float32) / 50
    near = rng.integers(0, 2000, n)
    path = tmp_path / "real_images.parquet"
    columns: dict[str, Any] = {
        "real_id": [f"r{i}" for i in range(n)],
        "real_path": [f"r{i}" for i in range(n)],
        "real_group": pa.nulls(n),
        "n_exact": np.zeros(n, np.int64),
        "n_near": near,
        "best_value": score,
        "best_synthetic_id": ["s"] * n,
    }
    pq.write_table(pa.table(columns), path, row_group_size=20_000)
    rows = tables.Table(path).top(["n_near", "best_value"], 37)
    expected = sorted(range(n), key=lambda i: (-near[i], -score[i], i))[:37]
    assert [row["real_id"] for row in rows] == [f"r{i}" for i in expected]


def test_a_large_audit_makes_a_small_report(tmp_path: Path):
    kind = Kind(n_pairs=24, n_leaks=100_000, n_skipped=20_000, is_noise=True)
    path = write_report(write_audit(tmp_path / "audit", kind))
    assert 3e6 < path.stat().st_size < 15e6


def test_lists_are_cut_and_say_so(hostile: Path, tmp_path: Path):
    html = write_report(hostile, out=tmp_path / "r.html").read_text(encoding="utf-8")
    assert "30 more in skipped.parquet" in html
    assert "9 more in real_images.parquet" in html
    assert "29 pairs over the threshold (9 exact, 20 near)." in html


def test_the_package_does_not_load_the_report():
    code = "import sys, deepssim; print([m for m in ('jinja2', 'pyarrow', 'deepssim.report') if m in sys.modules])"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.strip() == "[]"


def test_pairs_under_the_threshold_are_not_passed_off_as_worst(audit: Path):
    edit(audit / "evidence" / "pairs.json", lambda v: v[1].update(score=0.9, label="unrelated"))
    html = write_report(audit).read_text(encoding="utf-8")
    assert "29 pairs over the threshold (9 exact, 20 near). 1 of those with the highest scores" in html
    assert "1 more pair under the threshold, for comparison." in html


def words_of(page: Path) -> str:
    return " ".join(re.sub(r"<[^>]+>", " ", html_module.unescape(page.read_text(encoding="utf-8"))).split())


def test_the_rate_of_the_calibration_is_told_with_its_interval(audit: Path):
    def told(value: dict[str, Any]) -> None:
        value["thresholds"].update(false_positive_rate=0.01, false_positive_interval=[0.002, 0.034], base_size=90)

    edit(audit / "summary.json", told)
    said = words_of(write_report(audit))
    assert "gives false alarms of 1.0 % (95 % interval 0.2 to 3.4 %) on axial T1w brain MRI, against a base" in said
    assert "this base has 400, and a larger base gives more" in said
    assert "measured when the thresholds were chosen" in said


def test_one_threshold_for_both_is_said_and_never_explained_as_near(audit: Path):
    edit(audit / "summary.json", lambda v: v["thresholds"].update(near=v["thresholds"]["exact"]))
    said = words_of(write_report(audit))
    assert "never: one threshold for both" in said
    assert "does not tell exact copies from near ones" in said
    assert "Near duplicate" not in said


def test_thresholds_of_an_l2_metric_are_told_as_distances_too(audit: Path):
    edit(audit / "summary.json", lambda v: v["metric"].update(similarity="l2"))
    said = words_of(write_report(audit))
    assert "≥ 0.99 (distance ≤ 0.1414)" in said  # sqrt(2 - 2 * .99)
