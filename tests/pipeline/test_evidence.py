"""Verification: candidates are looked at in image space, and what was seen decides."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from deepssim import evidence as verification
from deepssim.audit import AuditOptions, audit, score
from deepssim.calibration import Calibration, Threshold, load_calibration
from deepssim.embed import Encoder
from deepssim.errors import StoreError, UsageError
from deepssim.evidence import Verifier, lay_onto
from deepssim.image_ops import Transform, evidence, register
from deepssim.images import ImageOptions, list_images
from deepssim.matching import MatchOptions, Reference, Subject
from deepssim.metric import load_metric
from deepssim.parts import EVIDENCE_FIELDS, S1, S2, evidence_of
from deepssim.perturb import View, apply_view, near_copy
from deepssim.phantom import make_cohort
from deepssim.store import Store
from deepssim.store_build import build_store
from deepssim.tables import MATCHES
from deepssim.working import working_image, working_size


def save(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.round(np.clip(image, 0, 1) * 255).astype(np.uint8)).save(path)


@pytest.fixture(scope="module")
def moved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Real images of eight people; of three of them a copy turned by 2 degrees, a near copy, and one twice as large."""
    root = tmp_path_factory.mktemp("moved")
    images = [image for _, _, image in make_cohort(8, 1, seed=5)]
    for number, image in enumerate(images):
        save(root / "real" / f"{number}" / "a.png", image)
    height, width = images[0].shape
    save(root / "synthetic" / "turned.png", apply_view(images[1], View(angle_deg=2.0, shift_px=(1.0, 0.0))))
    save(root / "synthetic" / "near.png", near_copy(images[3], np.random.default_rng(0), amplitude_px=(5.0, 5.0)))
    larger = Image.fromarray((images[5] * 255).astype(np.uint8)).resize(
        (2 * width, 2 * height), Image.Resampling.NEAREST
    )
    larger.save(root / "synthetic" / "large.png")
    for number, (_, _, image) in enumerate(make_cohort(5, 1, seed=6)):
        save(root / "synthetic" / f"other-{number}.png", image)
    return root


def run_options(**changes: object) -> AuditOptions:
    return AuditOptions(images=ImageOptions(group_by="parent"), **changes)  # type: ignore[arg-type]


def table(folder: Path) -> dict[str, dict[str, object]]:
    rows = pq.read_table(folder / "matches.parquet").to_pylist()
    return {row["synthetic_id"]: row for row in rows if row["rank"] == 1}


@pytest.fixture(scope="module")
def audited(moved: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("audited") / "out"
    audit(moved / "real", moved / "synthetic", out, options=run_options())
    return out


def test_what_was_done_to_a_copy_is_in_the_table(audited):
    best = table(audited)
    turned = best["turned.png"]
    assert turned["real_id"] == "1/a.png"
    assert turned["label"] == "exact"
    assert turned["angle_degrees"] == pytest.approx(2.0, abs=0.1)
    assert turned["scale"] == pytest.approx(1.0, abs=0.005)
    assert not turned["is_mirrored"]
    near = best["near.png"]
    assert (near["real_id"], near["label"]) == ("3/a.png", "near")
    assert near["s2"] < turned["s2"]
    assert all(row["label"] == "unrelated" for name, row in best.items() if name.startswith("other"))


def test_an_image_of_another_size_is_compared_at_the_smaller_one(audited):
    large = table(audited)["large.png"]
    assert (large["real_id"], large["label"]) == ("5/a.png", "exact")
    assert large["s1"] == pytest.approx(1.0, abs=1e-3)


def test_rows_are_ordered_by_s1_and_keep_their_place_in_the_screening(audited):
    rows = pq.read_table(audited / "matches.parquet").to_pylist()
    for name in {row["synthetic_id"] for row in rows}:
        own = [row for row in rows if row["synthetic_id"] == name]
        assert [row["rank"] for row in own] == list(range(1, len(own) + 1))
        assert [row["s1"] for row in own] == sorted((row["s1"] for row in own), reverse=True)
        by_screening = sorted(own, key=lambda row: row["screening_rank"])
        assert [row["score"] for row in by_screening] == sorted((row["score"] for row in own), reverse=True)


def test_leaks_and_counts_are_of_verified_pairs(audited):
    rows = [row for row in pq.read_table(audited / "matches.parquet").to_pylist() if row["label"] != "unrelated"]
    leaks = pq.read_table(audited / "leaks.parquet").to_pylist()
    assert {(r["synthetic_id"], r["real_id"], r["s1"]) for r in leaks} == {
        (r["synthetic_id"], r["real_id"], r["s1"]) for r in rows
    }
    images = pq.read_table(audited / "real_images.parquet").to_pylist()
    assert {r["real_id"]: r["n_near"] + r["n_exact"] for r in images} == {
        real: sum(r["real_id"] == real for r in rows) for real in {r["real_id"] for r in rows}
    }
    assert {r["real_id"]: r["best_value"] for r in images} == {
        real: max(r["s1"] for r in rows if r["real_id"] == real) for real in {r["real_id"] for r in rows}
    }


def test_columns_are_what_verification_measures():
    names = MATCHES.names
    assert tuple(names[names.index("s1") :]) == EVIDENCE_FIELDS


def test_stores_give_the_same_tables_as_images(moved, audited, tmp_path):
    encoder = Encoder(load_metric("pixel"))
    for name, how in (("real", ImageOptions(group_by="parent")), ("synthetic", ImageOptions())):
        build_store(list_images(moved / name, how), encoder, tmp_path / name, shard_rows=3, with_working=True)
    score(tmp_path / "real", tmp_path / "synthetic", tmp_path / "out", options=run_options(command="score"))
    for name in ("matches", "leaks", "real_images", "patients"):
        assert (tmp_path / "out" / f"{name}.parquet").read_bytes() == (audited / f"{name}.parquet").read_bytes()


def test_the_control_goes_through_the_same_verification(moved, tmp_path):
    holdout = tmp_path / "holdout"
    shutil.copytree(moved / "real" / "1", holdout / "x")  # the source of a copy: seen in the holdout as well
    for number, (_, _, image) in enumerate(make_cohort(5, 1, seed=9)):
        save(holdout / str(number) / "a.png", image)
    result = audit(moved / "real", moved / "synthetic", tmp_path / "out", holdout=holdout, options=run_options())
    control = result.summary["control"]
    assert result.summary["decided_by"] == "s1"
    assert (control["holdout"]["flagged"], control["holdout"]["exact"]) == (1, 1)


def test_without_verification_scores_decide_and_columns_are_empty(moved, tmp_path):
    result = audit(moved / "real", moved / "synthetic", tmp_path / "out", options=run_options(verify=False))
    assert result.summary["decided_by"] == "score"
    rows = pq.read_table(tmp_path / "out" / "matches.parquet").to_pylist()
    assert {row[name] for row in rows for name in EVIDENCE_FIELDS} == {None}
    assert not list((tmp_path / "out" / "evidence").glob("*aligned*"))


def test_stores_without_images_are_scored_with_a_warning_or_refused(moved, tmp_path):
    encoder = Encoder(load_metric("pixel"))
    for name in ("real", "synthetic"):
        build_store(list_images(moved / name, ImageOptions()), encoder, tmp_path / name)
    stores = tmp_path / "real", tmp_path / "synthetic"
    result = score(*stores, tmp_path / "out", options=AuditOptions(command="score"))
    assert result.summary["decided_by"] == "score"
    assert any("holds no images" in warning for warning in result.summary["warnings"])
    with pytest.raises(UsageError, match="--no-verify"):
        score(*stores, tmp_path / "out2", options=AuditOptions(command="score", verify=True))
    with pytest.raises(StoreError, match="without working images"):
        Store(tmp_path / "real").working_image(0)


def test_thresholds_of_the_other_stage_are_refused(moved, tmp_path):
    for name, verify in (("pixel", True), ("verified", False)):
        with pytest.raises(UsageError, match="decides by"):
            audit(
                moved / "real",
                moved / "synthetic",
                tmp_path / "out",
                options=run_options(calibration=load_calibration(name), verify=verify),
            )


def test_the_pictures_of_a_pair_show_it_aligned(audited):
    import json

    pairs = json.loads((audited / "evidence" / "pairs.json").read_text())
    turned = next(pair for pair in pairs if pair["synthetic_id"] == "turned.png")
    assert turned["transform"].startswith("turned 2.0 degrees")
    for key in ("aligned_png", "agreement_png"):
        with Image.open(audited / "evidence" / turned[key]) as picture:
            assert picture.mode == "L"
    with Image.open(audited / "evidence" / turned["agreement_png"]) as picture:
        levels = np.asarray(picture)
    assert np.median(levels[levels > 0]) > 128 + 100  # a copy agrees nearly everywhere
    assert (levels == 0).any()  # and nothing is said outside the overlap


@pytest.fixture(scope="module")
def reference(moved: Path, tmp_path_factory: pytest.TempPathFactory) -> Reference:
    store = tmp_path_factory.mktemp("reference") / "store"
    listing = list_images(moved / "real", ImageOptions(group_by="parent"))
    return Reference(build_store(listing, Encoder(load_metric("pixel")), store, shard_rows=3, with_working=True))


def subjects_of(moved: Path) -> list[Subject]:
    subjects = []
    for path in sorted((moved / "synthetic").glob("*.png")):
        pixels = np.asarray(Image.open(path), np.float32)
        subjects.append(Subject(*pixels.shape, working_image(pixels)))
    return subjects


def test_evidence_is_that_of_the_pair_alone(moved, reference):
    subjects = subjects_of(moved)
    rows = np.array([[i % 8, (i + 3) % 8, -1] for i in range(len(subjects))])
    found = Verifier(load_calibration("verified")).examine(subjects, rows, reference)
    assert np.isnan(found[:, 2]).all()
    for i, subject in enumerate(subjects):
        real = reference.store.working_image(int(rows[i, 1]))
        if subject.working.shape != real.shape:
            continue
        registration = register(subject.working, real)
        measured, transform = evidence_of(found[i, 1])
        assert transform.angle_degrees == pytest.approx(registration.transform.angle_degrees, abs=1e-4)
        assert measured.s1 == pytest.approx(evidence(subject.working, real, registration.transform).s1, abs=1e-5)


def test_batches_and_threads_change_no_bit(moved, reference, monkeypatch):
    subjects = subjects_of(moved)
    rows = np.random.default_rng(0).permuted(np.tile(np.arange(8), (len(subjects), 1)), axis=1)[:, :4]
    expected = Verifier(load_calibration("verified"), threads=1).examine(subjects, rows, reference)
    for pixels in (1, 70_000, 10**9):
        monkeypatch.setattr(verification, "BATCH_PIXELS", pixels)
        found = Verifier(load_calibration("verified"), threads=3).examine(subjects, rows, reference)
        assert found.tobytes() == expected.tobytes()


def test_a_handful_of_pixels_proves_nothing(moved, reference):
    tiny = Subject(1, 2, np.array([[0, 255]], np.uint8))
    verifier = Verifier(load_calibration("verified"))
    found = verifier.examine([tiny], np.array([[0, 1]]), reference)
    assert (found[..., S1] == -1).all()
    assert evidence_of(found[0, 0])[0].overlap == 0
    assert verifier.levels(found).tolist() == [[0, 0]]


def test_small_images_are_counted_in_a_warning(moved, tmp_path):
    for number in range(2):
        save(tmp_path / "synthetic" / f"{number}.png", np.random.default_rng(number).random((20, 20)))
    result = audit(moved / "real", tmp_path / "synthetic", tmp_path / "out", options=run_options())
    assert result.summary["synthetic_flagged"]["flagged"] == 0
    assert any(warning.startswith("2 synthetic images could not be verified") for warning in result.summary["warnings"])


def test_images_of_another_shape_are_counted_in_a_warning(moved, tmp_path):
    with Image.open(moved / "real" / "1" / "a.png") as picture:
        upright = np.asarray(picture, np.float32) / 255
    save(tmp_path / "synthetic" / "turned.png", np.rot90(upright))
    save(tmp_path / "synthetic" / "cropped.png", upright[30:-30])
    save(tmp_path / "synthetic" / "upright.png", upright)
    result = audit(moved / "real", tmp_path / "synthetic", tmp_path / "out", options=run_options())
    assert any(warning.startswith("1 synthetic images have another ratio") for warning in result.summary["warnings"])


@pytest.mark.parametrize("is_mirrored", [False, True])
def test_a_copy_turned_with_its_frame_is_found_and_laid_back(is_mirrored, moved, tmp_path):
    with Image.open(moved / "real" / "1" / "a.png") as picture:
        upright = np.asarray(picture, np.float32) / 255
    copy = apply_view(upright, View(flip_columns=is_mirrored, angle_deg=6.0, shift_px=(3.0, -2.0)))
    save(tmp_path / "synthetic" / "turned.png", np.rot90(copy, -1))
    audit(moved / "real", tmp_path / "synthetic", tmp_path / "out", options=run_options())
    match = pq.read_table(tmp_path / "out" / "matches.parquet").slice(0, 1).to_pylist()[0]
    assert match["real_path"] == "1/a.png"
    assert match["label"] == "exact"
    assert match["is_mirrored"] == is_mirrored
    assert match["angle_degrees"] == pytest.approx(-84.0, abs=0.5)
    # What was down is to the left of the turned frame.
    assert (match["shift_rows"], match["shift_columns"]) == pytest.approx((-2.0, -3.0), abs=0.5)
    turned = np.rot90(copy, -1).copy()
    transform = Transform(
        *(match[name] for name in ("is_mirrored", "angle_degrees", "shift_rows", "shift_columns", "scale"))
    )
    subject = Subject(*turned.shape, working_image(turned * np.float32(255)))
    aligned, agreement = lay_onto(subject, working_image(upright * np.float32(255)), transform)
    assert aligned.shape == turned.shape
    assert float(np.nanmedian(agreement)) > 0.8


def test_levels_follow_s1_then_s2():
    calibration = Calibration("x", Threshold(0.75), Threshold(0.25, ">"), source="", stage="verified")
    rows = np.zeros((6, len(EVIDENCE_FIELDS)), np.float32)
    rows[:, S1] = [0.74, 0.75, 0.9, 0.9, np.nan, -1.0]
    rows[:, S2] = [0.9, 0.1, 0.25, 0.26, np.nan, -1.0]
    assert Verifier(calibration).levels(rows).tolist() == [0, 1, 1, 2, 0, 0]
    with pytest.raises(UsageError, match="stage"):
        Verifier(load_calibration("pixel"))


def test_a_real_image_is_laid_onto_the_synthetic_one():
    image = next(image for _, _, image in make_cohort(1, 1, seed=5))
    turned = apply_view(image, View(angle_deg=10.0))
    subject = Subject(*turned.shape, working_image(turned * np.float32(255)))
    aligned, agreement = lay_onto(subject, working_image(image * np.float32(255)), Transform(angle_degrees=10.0))
    assert float(np.abs(aligned - turned).mean()) < 0.01
    assert float(np.nanmedian(agreement)) > 0.8
    assert np.isnan(agreement).any()


def test_working_images_are_small_and_keep_their_shape():
    assert working_size(256, 256) == (256, 256)
    assert working_size(512, 4096) == (128, 1024)
    assert working_size(1, 9000) == (1, 1024)
    assert working_image(np.linspace(-1000, 3000, 600 * 700, dtype=np.float32).reshape(600, 700)).shape == (256, 299)


def test_a_damaged_file_of_working_images_is_named(moved, tmp_path):
    listing = list_images(moved / "real", ImageOptions())
    store = build_store(listing, Encoder(load_metric("pixel")), tmp_path / "store", with_working=True)
    path = store.path / "working-00000.npy"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(StoreError, match="working-00000"):
        Store(store.path).verify()
    path.write_bytes(data[:-1])
    with pytest.raises(StoreError, match="working-00000"):
        Store(store.path).working_image(0)


def test_candidates_of_one_patient_are_capped(cohort, tmp_path):
    audit(
        cohort.real,
        cohort.synthetic,
        tmp_path / "out",
        options=run_options(match=MatchOptions(k=4, max_per_group=1)),
    )
    rows = pq.read_table(tmp_path / "out" / "matches.parquet").to_pylist()
    seen = [(row["synthetic_id"], row["real_group"]) for row in rows]
    assert len(seen) == len(set(seen))
