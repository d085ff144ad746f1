"""Nothing of the user's is deleted, no damage is passed over, nothing ends in a traceback."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from deepssim.audit import AuditOptions, audit, score
from deepssim.disk import remove_leftovers, replacing
from deepssim.embed import Encoder
from deepssim.errors import StoreError, UsageError
from deepssim.images import ImageOptions, list_images
from deepssim.metric import load_metric
from deepssim.store import Store
from deepssim.store_build import build_store


@pytest.fixture
def store(cohort, tmp_path) -> Path:
    listing = list_images(cohort.real, ImageOptions(group_by="parent"))
    return build_store(listing, Encoder(load_metric("pixel")), tmp_path / "real.store").path


@pytest.mark.parametrize("name", [".git/config", ".ssh/id", "skipped-scans/a", "ids-old.txt", "embeddings-1.npy", "x"])
def test_embed_never_clears_a_folder_with_other_files(deepssim, cohort, tmp_path, name):
    precious = tmp_path / "out" / name
    precious.parent.mkdir(parents=True)
    precious.write_text("precious")
    done = deepssim("embed", cohort.real, "--out", tmp_path / "out", "-q")
    assert done.returncode == 2
    assert "other files" in done.stderr
    assert precious.read_text() == "precious"


def test_embed_never_replaces_a_store_of_other_images(deepssim, cohort, store):
    done = deepssim("embed", cohort.synthetic, "--out", store, "-q")
    assert done.returncode == 2
    assert len(Store(store)) == 20


@pytest.mark.parametrize("name", ["run.json", "summary.json", "report.html", "evidence/precious.txt"])
def test_audit_never_takes_a_strangers_folder_for_its_own(cohort, tmp_path, name):
    precious = tmp_path / "out" / name
    precious.parent.mkdir(parents=True)
    precious.write_text('{"mine": 1}')
    with pytest.raises(UsageError, match="other files"):
        audit(cohort.real, cohort.synthetic, tmp_path / "out")
    assert precious.read_text() == '{"mine": 1}'


def test_audit_leaves_other_files_in_its_own_folder_alone(cohort, tmp_path):
    out = tmp_path / "out"
    audit(cohort.real, cohort.synthetic, out)
    names = ["manifest-of-mine.parquet", "report-2024.html", "evidence/note.txt", ".secret.partial"]
    for name in names:
        (out / name).write_text("precious")
    audit(cohort.real, cohort.synthetic, out)
    assert [(out / name).read_text() for name in names] == ["precious"] * len(names)


@pytest.mark.parametrize("name", ["embeddings-00000.npy", "pair-000-real.png", "run.json", "report-shareable.html"])
def test_what_a_killed_run_left_is_removed_and_nothing_else(tmp_path, name):
    (tmp_path / f".{name}.partial").write_text("precious")
    with replacing(tmp_path / name) as temporary:
        temporary.write_text("whole")
    temporary.write_text("half")  # as if the run had been killed within
    remove_leftovers(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([f".{name}.partial", name])


def test_the_demo_never_clears_a_folder_that_it_did_not_make(deepssim, tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "keep.txt").write_text("precious")
    (tmp_path / "truth.csv").write_text("mine")
    done = deepssim("demo", "--out", tmp_path, "-q")
    assert done.returncode == 2
    assert (tmp_path / "real" / "keep.txt").read_text() == "precious"


@pytest.mark.parametrize("name", ["embeddings-00000.npy", "ids-00000.parquet"])
def test_a_changed_byte_in_a_store_is_found(cohort, store, tmp_path, name):
    path = store / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    synthetic = build_store(list_images(cohort.synthetic), Encoder(load_metric("pixel")), tmp_path / "syn.store")
    with pytest.raises(StoreError, match="damaged"):
        score(store, synthetic.path, tmp_path / "out")
    said: list[str] = []
    listing = list_images(cohort.real, ImageOptions(group_by="parent"))
    build_store(listing, Encoder(load_metric("pixel")), store, status=said.append).verify()
    assert "rebuilding" in said[0]


@pytest.mark.parametrize("damaged", ["real", "synthetic", "holdout"])
@pytest.mark.parametrize("run", [audit, score])
def test_a_changed_byte_is_found_in_whichever_set_was_given_as_a_store(cohort, tmp_path, run, damaged):
    encoder = Encoder(load_metric("pixel"))
    given = {
        name: build_store(list_images(getattr(cohort, name)), encoder, tmp_path / name).path
        for name in ("real", "synthetic", "holdout")
    }
    path = given[damaged] / "embeddings-00000.npy"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(StoreError, match=f"{damaged}/embeddings-00000.npy is damaged"):
        run(given["real"], given["synthetic"], tmp_path / "out", holdout=given["holdout"])


@pytest.mark.parametrize("damage", ["skipped.parquet", "ids-00000.parquet", "embeddings-00000.npy", "manifest.json"])
@pytest.mark.parametrize("way", ["missing", "cut"])
def test_a_damaged_store_is_one_line_and_embedding_mends_it(deepssim, cohort, store, damage, way):
    path = store / damage
    if way == "missing":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:100])
    done = deepssim("info", store)
    assert done.returncode in (1, 2)
    assert done.stderr.startswith("Error: ")
    assert "Traceback" not in done.stderr
    if damage != "manifest.json":
        again = deepssim("embed", cohort.real, "--group-by", "parent", "--out", store, "-q")
        assert again.returncode == 0, again.stderr
        Store(store).verify()


def test_a_manifest_without_its_fields_is_damaged(store):
    manifest = json.loads((store / "manifest.json").read_text())
    del manifest["metric"]["name"]
    (store / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(StoreError, match="damaged"):
        Store(store)


def test_only_bad_synthetic_images_are_a_usage_error_with_the_reason(deepssim, cohort, tmp_path):
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "a.png").write_bytes(b"nothing")
    done = deepssim("audit", cohort.real, tmp_path / "bad", "--out", tmp_path / "out", "-q")
    assert done.returncode == 2
    assert "can be used" in done.stderr


@pytest.mark.parametrize("thresholds", ["2,3", "-3,-2", "-.99,1"])
def test_thresholds_outside_the_scores_still_give_a_report(deepssim, cohort, tmp_path, thresholds):
    done = deepssim(
        "audit",
        cohort.real,
        cohort.synthetic,
        "--out",
        tmp_path / "out",
        f"--thresholds={thresholds}",
        "-q",
        "--views",
        "none",
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "report.html").is_file()


def test_identical_images_are_copies_whatever_the_thresholds(deepssim, cohort, tmp_path):
    done = deepssim(
        "audit", cohort.real, cohort.synthetic, "--out", tmp_path / "out", "--thresholds=2,3", "-q", "--json"
    )
    assert json.loads(done.stdout)["summary"]["verdict"]["level"] == "copies"


def test_warnings_of_the_control_reach_the_terminal(deepssim, cohort, tmp_path):
    shutil.copytree(cohort.real, tmp_path / "holdout")
    done = deepssim(
        "audit", cohort.real, cohort.synthetic, "--holdout", tmp_path / "holdout", "--out", tmp_path / "out", "-q"
    )
    assert "identical to real ones in every pixel" in done.stdout
    assert "never saw" not in done.stdout


def test_an_option_that_a_store_cannot_follow_is_refused(cohort, store, tmp_path):
    options = AuditOptions(images=ImageOptions(group_by="regex:(.*)/"))
    with pytest.raises(UsageError, match="--group-by"):
        audit(store, cohort.synthetic, tmp_path / "a", options=options)
    options = AuditOptions(images=ImageOptions(group_by="parent"))
    assert audit(store, cohort.synthetic, tmp_path / "b", options=options).summary["patients_copied"] is not None


def test_sets_that_were_cut_differently_are_warned_of(cohort, tmp_path):
    encoder = Encoder(load_metric("pixel"))
    paths = []
    for name, axis in (("real", "axial"), ("synthetic", "coronal")):
        listing = list_images(getattr(cohort, name), ImageOptions(axis=axis))
        paths.append(build_store(listing, encoder, tmp_path / name).path)
    warnings = score(*paths, tmp_path / "out").summary["warnings"]
    assert any("read differently" in warning for warning in warnings)


def test_real_images_in_a_folder_of_generated_ones_are_warned_of(cohort, tmp_path):
    shutil.copytree(cohort.synthetic, tmp_path / "made")
    (tmp_path / "made" / "p1").mkdir()
    shutil.copy(next(cohort.real.rglob("*.png")), tmp_path / "made" / "p1" / "training.png")
    for made, n in ((tmp_path / "made", 1), (cohort.synthetic, 0)):
        options = AuditOptions(metric="pixel", verify=False)
        warnings = audit(cohort.real, made, tmp_path / f"out-{n}", options=options).summary["warnings"]
        assert sum("1 of the synthetic images are named training" in warning for warning in warnings) == n


def test_identical_images_score_one(cohort, tmp_path):
    import pyarrow.parquet as pq

    audit(cohort.real, cohort.synthetic, tmp_path / "out")
    table = pq.read_table(tmp_path / "out" / "matches.parquet", filters=[("synthetic_id", "=", "copy-00.png")])
    assert abs(table["score"][0].as_py() - 1) <= 2**-22


def test_a_reader_who_has_enough_is_no_error_and_a_full_disk_is_one_line(cohort):
    code = "from deepssim.cli import main; main(['--help'])"
    with Path("/dev/full").open("w") as full:
        done = subprocess.run([sys.executable, "-c", code], stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run([sys.executable, "-c", code], stdout=writing, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writing)
    assert "Traceback" not in done.stderr


def test_a_name_with_a_tilde_is_a_name(deepssim, cohort, tmp_path):
    done = deepssim("audit", cohort.real, cohort.synthetic, "--out", "~/out", "-q", "--views", "none", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "~" / "out" / "report.html").is_file()


def test_images_without_structure_at_the_metrics_size_are_skipped(tmp_path):
    # A checkerboard of single pixels is flat once it is averaged.
    board = np.indices((64, 64)).sum(axis=0) % 2
    noise = np.random.default_rng(0).random((3, 64, 64))
    np.save(tmp_path / "mixed.npy", np.concatenate([board[np.newaxis], noise]).astype(np.float32))
    store = build_store(list_images(tmp_path / "mixed.npy"), Encoder(load_metric("pixel")), tmp_path / "store")
    assert len(store) == 3
    assert store.skipped()["code"].to_pylist() == ["constant"]


def test_a_store_does_not_go_into_the_images(deepssim, cohort):
    done = deepssim("embed", cohort.real, "--out", cohort.real / "st", "-q")
    assert done.returncode == 2
    assert not (cohort.real / "st").exists()
