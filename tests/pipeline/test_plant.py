"""Planted copies are what the truth says, and recall is counted as it says."""

from __future__ import annotations

import csv
import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from deepssim.audit import AuditOptions, audit
from deepssim.calibrate.planted import calibrate_planted
from deepssim.calibration import Calibration, Threshold
from deepssim.errors import UsageError
from deepssim.images import ImageOptions, list_images, read_image
from deepssim.matching import MatchOptions
from deepssim.planted.copies import KINDS, PlantOptions, make_copy, plant
from deepssim.planted.recall import Found, PlantedFindings, find_planted, measure_recall
from deepssim.planted.truth import Planted, read_truth, write_truth
from deepssim.statistics import patient_rate

READING = ImageOptions(group_by="parent")
# Of phantoms; see deepssim.demo.
PHANTOMS = Calibration("phantom", Threshold(0.78), Threshold(0.925), source="other phantoms", stage="verified")


def files(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_the_same_command_gives_the_same_files_and_touches_no_input(cohort, tmp_path):
    before = files(cohort.real), files(cohort.synthetic)
    options = PlantOptions(24, tuple(KINDS), seed=5, images=READING)
    first = plant(cohort.real, tmp_path / "a", synthetic=cohort.synthetic, options=options)
    plant(cohort.real, tmp_path / "b", synthetic=cohort.synthetic, options=options)
    assert files(tmp_path / "a") == files(tmp_path / "b")
    plant(cohort.real, tmp_path / "c", synthetic=cohort.synthetic, options=replace(options, seed=6))
    assert files(tmp_path / "a")["truth.csv"] != files(tmp_path / "c")["truth.csv"]
    assert (files(cohort.real), files(cohort.synthetic)) == before
    assert first.n_synthetic == len(before[1])
    brought = {name: digest for name, digest in files(tmp_path / "a" / "images").items() if "planted" not in name}
    assert brought == before[1]
    assert {oct(path.stat().st_mode)[-3:] for path in (tmp_path / "a").rglob("*") if path.is_file()} == {"600"}
    assert oct((tmp_path / "a").stat().st_mode)[-3:] == "700"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b", "c"]  # nothing is left of the work


def test_no_person_comes_twice_before_each_came_once(cohort, tmp_path):
    # Ten people, 20 images.
    planted = plant(cohort.real, tmp_path / "a", options=PlantOptions(35, images=READING)).planted
    people, sources = [one.group for one in planted], [one.source_id for one in planted]
    for first in (0, 10, 20):
        assert len(set(people[first : first + 10])) == 10
    assert len(set(sources[:20])) == 20
    assert [one.kind for one in planted[:4]] == ["exact", "artefacts", "local", "perturbed"]
    labels = {(one.kind, one.label) for one in planted}
    assert labels == {("exact", "exact"), ("artefacts", "exact"), ("local", "near"), ("perturbed", "exact"),
                      ("perturbed", "near")}  # fmt: skip


def test_slices_of_a_volume_take_turns(tmp_path):
    rng = np.random.default_rng(0)
    (tmp_path / "real").mkdir()
    for name in ("a", "b"):
        np.save(tmp_path / "real" / f"{name}.npy", rng.integers(0, 200, (3, 40, 40)).astype(np.uint8))
    planted = plant(tmp_path / "real", tmp_path / "out", options=PlantOptions(6, ("exact",))).planted
    assert sorted(one.source_id for one in planted) == sorted(f"{name}.npy#{i}" for name in "ab" for i in range(3))
    for one in planted:
        source = read_image(tmp_path / "real", one.source_id.split("#")[0], one.source_id)
        copy = read_image(tmp_path / "out" / "images", one.id, one.id)
        assert copy.pixel_hash == source.pixel_hash


@pytest.mark.parametrize(
    ("low", "high", "step", "bits", "is_same"),
    [(0, 255, 1, 8, True), (0, 4095, 1, 16, True), (0, 65535, 1, 16, True), (-1000, 3000, 1, 16, False),
     (0, 1, 0, 16, False), (-5, 100, 1, 16, False), (0, 254.5, 0.5, 16, False)],
)  # fmt: skip
def test_an_exact_copy_has_the_same_pixels_where_png_holds_them(tmp_path, low, high, step, bits, is_same):
    rng = np.random.default_rng(1)
    pixels = rng.uniform(low, high, (48, 40))
    if step:
        pixels = np.rint(pixels / step) * step
    pixels[0, 0], pixels[0, 1] = low, high
    pixels = pixels.astype(np.float32)
    copy = make_copy(pixels, "exact", 0)
    assert copy.dtype == (np.uint8 if bits == 8 else np.uint16)
    if is_same:
        assert (copy == pixels).all()
    else:
        assert (copy.min(), copy.max()) == (0, 65535)
        assert np.corrcoef(copy.ravel(), pixels.ravel())[0, 1] > 1 - 1e-8
    for kind in KINDS:
        made = make_copy(pixels, kind, 3, is_near=True)
        assert (made.shape, made.dtype) == (copy.shape, copy.dtype)
        assert (make_copy(pixels, kind, 3, is_near=True) == made).all()
        if kind != "exact":
            assert (make_copy(pixels, kind, 4, is_near=True) != made).any()


def test_what_would_be_overwritten_or_cannot_be_copied_is_refused(cohort, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    with pytest.raises(UsageError, match="is there already"):
        plant(cohort.real, tmp_path / "full")
    first = plant(cohort.real, tmp_path / "a", options=PlantOptions(2, images=READING))
    with pytest.raises(UsageError, match="planted"):
        plant(cohort.real, tmp_path / "b", synthetic=first.folder / "images")
    with pytest.raises(UsageError, match="lie one in the other"):
        plant(cohort.real, cohort.real / "planted")
    with pytest.raises(UsageError, match="'blurred', 'odd' are none"):
        PlantOptions(kinds=("exact", "blurred", "odd"))
    with pytest.raises(UsageError, match="ask for 1"):
        PlantOptions(0)
    (tmp_path / "flat").mkdir()
    Image.fromarray(np.full((40, 40), 7, np.uint8)).save(tmp_path / "flat" / "a.png")
    with pytest.raises(UsageError, match="can be copied"):
        plant(tmp_path / "flat", tmp_path / "c")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "flat", "full"]


def test_images_that_cannot_be_read_are_replaced_by_others(cohort, tmp_path):
    (tmp_path / "real").mkdir()
    for path in sorted(cohort.real.rglob("*.png")):
        target = tmp_path / "real" / path.relative_to(cohort.real)
        target.parent.mkdir(exist_ok=True)
        target.write_bytes(path.read_bytes() if path.name != "0.png" else b"\x89PNG\r\n\x1a\n broken")
    bad = sum(path.read_bytes().endswith(b"broken") for path in (tmp_path / "real").rglob("*.png"))
    result = plant(tmp_path / "real", tmp_path / "out", options=PlantOptions(20, images=READING))
    assert len(result.planted) == 20
    assert (result.n_skipped > 0) == (bad > 0)
    assert len(list_images(tmp_path / "out" / "images").files) == 20


def test_links_take_no_space(cohort, tmp_path):
    plant(cohort.real, tmp_path / "a", synthetic=cohort.synthetic, options=PlantOptions(1, with_links=True))
    name = next(iter(files(cohort.synthetic)))
    ours, theirs = ((folder / name).stat() for folder in (tmp_path / "a" / "images", cohort.synthetic))
    assert ours.st_ino == theirs.st_ino or ours.st_dev != theirs.st_dev


def test_truth_survives_a_round_trip_and_all_faults_are_named(tmp_path):
    path = tmp_path / "truth.csv"
    rows = [Planted("=1.png", "exact", "exact", "-a/b.png", None, 3), Planted("b", "own kind", "near", "c", "g", 0)]
    write_truth(path, rows)
    assert read_truth(path) == rows
    path.write_text("id,kind,label\na,b,near\n")
    with pytest.raises(UsageError, match="no column source_id"):
        read_truth(path)
    path.write_text("id,kind,label,source_id\na,k,odd,s\na,k,near,s\nb,k,worse,s\n")
    with pytest.raises(UsageError, match="more than once: 'a'"):
        read_truth(path)
    path.write_text("id,kind,label,source_id\na,k,odd,s\nb,k,worse,s\n")
    with pytest.raises(UsageError, match=r"'odd \(line 2\)', 'worse \(line 3\)'"):
        read_truth(path)
    with pytest.raises(UsageError, match="cannot be read"):
        read_truth(tmp_path / "none.csv")


@pytest.fixture(scope="module")
def planted(cohort, tmp_path_factory) -> Path:
    """A folder with copies among the synthetic images, their audit verified and not."""
    root = tmp_path_factory.mktemp("planted")
    options = PlantOptions(40, ("exact", "artefacts", "local", "perturbed"), seed=1, images=READING)
    plant(cohort.real, root / "set", synthetic=cohort.synthetic, options=options)
    for name, verify in (("verified", True), ("scores", False)):
        audit(
            cohort.real, root / "set" / "images", root / name, holdout=cohort.holdout,
            options=AuditOptions(
                metric="pixel", calibration=PHANTOMS if verify else None, images=READING,
                match=MatchOptions(views="none"), verify=verify,
            ),
        )  # fmt: skip
    return root


def test_recall_end_to_end(cohort, planted):
    findings = find_planted(planted / "verified", planted / "set" / "truth.csv")
    recall = measure_recall(findings)
    rates = {(one.kind, one.label): one for one in recall.kinds}
    assert rates["exact", "exact"].flagged.rate == 1.0
    assert rates["exact", "exact"].right_label.rate == 1.0
    assert rates["exact", "exact"].right_source.rate == 1.0
    assert rates["local", "near"].flagged.rate >= 0.8
    assert rates["local", "near"].screened.rate == 1.0
    assert rates["all", "all"].total == 40
    assert rates["all", "all"].flagged.events == 40 - len(recall.missed)
    assert {one.planted.kind for one in recall.missed} <= {"local", "perturbed"}
    rows = pq.read_table(planted / "verified" / "matches.parquet").to_pylist()
    for one in recall.missed:
        of_copy = {row["real_id"]: row for row in rows if row["synthetic_id"] == one.planted.id}
        assert {row["label"] for row in of_copy.values()} == {"unrelated"}
        known = of_copy.get(one.planted.source_id)
        assert one.source_value == (None if known is None else known["s1"])
    assert recall.n_others == len(list(cohort.synthetic.rglob("*.png")))
    assert recall.n_others_flagged == len(cohort.copies)
    assert rates["all", "all"].people == 10
    assert rates["all", "all"].flagged.unit == "patient"


def test_recall_counts_and_intervals_are_those_of_a_hand_made_case():
    def found(number: int, person: str, kind: str, label: str, said: str, real: str, rank: int | None) -> Found:
        truth = Planted(f"{number}", kind, label, f"{person}/a", person, 0)
        return Found(truth, said, real, real.split("/", maxsplit=1)[0], 0.5, 0.5, rank, None if rank is None else 0.4)

    some = (
        found(0, "p", "local", "near", "near", "p/a", 1),
        found(1, "p", "local", "near", "exact", "p/b", 2),
        found(2, "q", "local", "near", "unrelated", "z/a", None),
        found(3, "q", "exact", "exact", "exact", "q/a", 1),
    )
    recall = measure_recall(PlantedFindings({"thresholds": {}}, some, 5, 1), seed=3)
    local, exact, all_near, all_exact, both = recall.kinds
    assert [(one.kind, one.label) for one in recall.kinds] == [
        ("local", "near"), ("exact", "exact"), ("all", "near"), ("all", "exact"), ("all", "all")
    ]  # fmt: skip
    assert (local.flagged.events, local.right_label.events, local.right_source.events) == (2, 1, 1)
    assert local.right_person is not None
    assert (local.right_person.events, local.screened.events, local.total, local.people) == (2, 2, 3, 2)
    assert local.flagged == patient_rate(np.array([2, 0]), np.array([2, 1]), seed=3)
    assert (exact.flagged.rate, all_near.total, all_exact.total, both.flagged.events) == (1.0, 3, 1, 3)
    assert [one.planted.id for one in recall.missed] == ["2"]
    nobody = tuple(replace(one, planted=replace(one.planted, group=None)) for one in some)
    recall = measure_recall(PlantedFindings({"thresholds": {}}, nobody, 5, 1))
    assert recall.kinds[0].right_person is None
    assert recall.kinds[0].flagged.unit == "image"


def test_thresholds_from_planted_copies_keep_their_recall(planted):
    for name, stage in (("verified", "verified"), ("scores", "embedding")):
        findings = find_planted(planted / name, planted / "set" / "truth.csv")
        made = calibrate_planted(findings, 0.8, domain="phantoms")
        near = np.array([one.value for one in findings.found if one.planted.label == "near"])
        calibration = made.calibration
        assert (near >= calibration.near.value).mean() == made.near_recall >= 0.8
        assert calibration.stage == stage
        assert calibration.near.value in findings.summary["histogram"]["edges"]
        assert calibration.false_positive_rate is not None
        low, high = calibration.false_positive_interval
        assert low <= calibration.false_positive_rate <= high
        # What the histogram says of the holdout is what the curve says at the threshold.
        cuts = calibration.curve.cuts
        at = cuts.index(calibration.near.value) if calibration.near.value in cuts else None
        if at is not None:
            assert calibration.curve.unrelated[at] == pytest.approx(calibration.false_positive_rate, abs=1e-6)
    findings = find_planted(planted / "verified", planted / "set" / "truth.csv")
    with pytest.raises(UsageError, match="needs 99 copies or more, there are 15"):
        calibrate_planted(findings, 0.99)
    without = replace(findings, summary={**findings.summary, "control": None})
    made = calibrate_planted(without, 0.8)
    assert made.calibration.false_positive_rate is None
    assert any("no holdout" in line for line in made.warnings)


def test_the_commands_say_and_write_what_was_found(planted, deepssim_here, tmp_path):
    truth, table, missed = planted / "set" / "truth.csv", tmp_path / "t.csv", tmp_path / "m.csv"
    done = deepssim_here("recall", planted / "verified", "--truth", truth, "--csv", table, "--missed", missed)
    assert done.returncode == 0
    assert "exact, exact" in done.stdout
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["kind"] for row in rows][:2] == ["exact", "artefacts"]
    assert rows[0]["flagged_rate"] == "1.0"
    found = json.loads(deepssim_here("recall", planted / "verified", "--truth", truth, "--json").stdout)
    assert found["kinds"][0]["flagged"]["rate"] == 1.0
    with missed.open(newline="") as file:
        assert len(list(csv.DictReader(file))) == len(found["missed"])
    done = deepssim_here("recall", planted / "set", "--truth", truth)
    assert (done.returncode, "no folder of a finished audit" in done.stderr) == (2, True)
    other = tmp_path / "other.csv"
    other.write_text("id,kind,label,source_id\nplanted/999999.png,exact,exact,a\n")
    done = deepssim_here("recall", planted / "verified", "--truth", other)
    assert (done.returncode, "planted/999999.png" in done.stderr) == (2, True)
    mine = tmp_path / "mine.json"
    done = deepssim_here(
        "calibrate", "planted", planted / "verified", "--truth", truth, "--recall", ".8", "--out", mine
    )
    assert done.returncode == 0
    assert Calibration.read(mine).stage == "verified"


def test_a_truth_that_was_changed_or_is_of_other_images_is_refused(planted, deepssim_here, tmp_path):
    truth, edited = planted / "set" / "truth.csv", tmp_path / "truth.csv"
    lines = truth.read_text().splitlines(keepends=True)
    edited.write_text("".join(lines[:-3]))
    with pytest.raises(UsageError, match="lacks 3 copies of its own planting"):
        find_planted(planted / "verified", edited)
    rows = read_truth(truth)
    write_truth(edited, [replace(rows[0], source_id="p99/a.png"), *rows[1:]])
    with pytest.raises(UsageError, match=r"1 images that .* names as sources are no real images .*p99/a\.png"):
        find_planted(planted / "verified", edited)
    edited.write_bytes(truth.read_bytes())
    for option in ("--csv", "--missed"):
        done = deepssim_here("recall", planted / "verified", "--truth", edited, option, edited)
        assert done.returncode == 2
        assert "would be lost" in done.stderr
    assert edited.read_bytes() == truth.read_bytes()


def test_without_exact_copies_the_exact_threshold_stays_as_it_was_and_no_lower_than_the_near_one():
    def findings(exact: dict[str, object]) -> PlantedFindings:
        found = tuple(
            Found(Planted(f"planted/{i}.png", "local", "near", f"p{i}", f"p{i}", i), "near", f"p{i}", f"p{i}",
                  0.8 + i / 1000, 0.8 + i / 1000, 1, 0.8)
            for i in range(20)
        )  # fmt: skip
        summary = {"decided_by": "score", "metric": {"name": "m", "views": "none"}, "control": None,
                   "thresholds": {"exact": exact}, "histogram": {"edges": []},
                   "counts": {"real": {"images": 9}}}  # fmt: skip
        return PlantedFindings(summary, found, 0, 0)

    kept = calibrate_planted(findings({"value": 0.9, "comparison": ">"}), 0.9).calibration
    assert (kept.exact.value, kept.exact.comparison) == (0.9, ">")
    raised = calibrate_planted(findings({"value": 0.5, "comparison": ">"}), 0.9).calibration
    assert raised.exact == raised.near
    assert "raised" in raised.how


def test_names_that_look_like_formulas_survive_a_round_trip(tmp_path):
    names = ["=1+1", "'=1+1", "''@x", "'plain", "+a", "-1", "'", "''", 'a,b"c', "new\nline", "'\ttab", "é"]
    rows = [Planted(f"planted/{i}.png", "exact", "exact", name, name, i) for i, name in enumerate(names)]
    write_truth(tmp_path / "truth.csv", rows)
    assert read_truth(tmp_path / "truth.csv") == rows
    with (tmp_path / "truth.csv").open(newline="") as file:
        assert not any(cell.startswith(("=", "+", "-", "@")) for row in csv.reader(file) for cell in row)
