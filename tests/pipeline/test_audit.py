from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from deepssim.audit import AuditOptions, audit, score
from deepssim.embed import Encoder
from deepssim.errors import MemoryLimitError, StoreError, UsageError
from deepssim.images import ImageOptions, list_images
from deepssim.matching import MatchOptions
from deepssim.metric import load_metric
from deepssim.store import Store
from deepssim.store_build import build_store, write_store

TABLES = ("matches", "leaks", "real_images", "patients", "skipped")


def digests(folder: Path) -> dict[str, str]:
    return {
        name: hashlib.sha256((folder / f"{name}.parquet").read_bytes()).hexdigest()
        for name in TABLES
        if (folder / f"{name}.parquet").exists()
    }


def options(verify: bool | None = None, **match: int) -> AuditOptions:
    # In place: views are compared with all pairs in test_screening.py, and take their time.
    match_options = MatchOptions(views="none", **match)
    return AuditOptions(images=ImageOptions(group_by="parent"), match=match_options, verify=verify)


def test_copies_are_rank_one_and_flagged_and_others_are_not(cohort, tmp_path):
    result = audit(cohort.real, cohort.synthetic, tmp_path / "out", holdout=cohort.holdout, options=options())
    first = {
        row["synthetic_id"]: row
        for row in pq.read_table(tmp_path / "out" / "matches.parquet", filters=[("rank", "=", 1)]).to_pylist()
    }
    assert {i: first[i]["real_id"] for i in cohort.copies} == cohort.copies
    assert all(first[i]["label"] != "unrelated" for i in cohort.copies)
    assert all(row["label"] == "unrelated" for i, row in first.items() if i not in cohort.copies)
    summary = result.summary
    assert summary["synthetic_flagged"]["flagged"] == len(cohort.copies)
    assert summary["synthetic_flagged"]["identical"] == 1
    assert summary["control"]["holdout"]["flagged"] == 0
    assert summary["control"]["n_images"] == summary["control"]["n_real_used"] == 8
    copied_people = {real.split("/")[0] for real in cohort.copies.values()}
    assert summary["patients_copied"]["copied"] == len(copied_people)
    assert set(pq.read_table(tmp_path / "out" / "patients.parquet")["group"].to_pylist()) == copied_people
    assert summary["verdict"]["level"] == "copies"
    assert sum(summary["histogram"]["real"]) == summary["synthetic_flagged"]["total"]


def test_leaks_are_all_pairs_over_the_threshold_by_brute_force(cohort, tmp_path):
    audit(cohort.real, cohort.synthetic, tmp_path / "out", options=options(verify=False))
    encoder = Encoder(load_metric("pixel"))
    stores = [
        build_store(list_images(p, ImageOptions()), encoder, tmp_path / p.name) for p in (cohort.real, cohort.synthetic)
    ]
    rows = []
    for store in stores:
        rows.append(np.empty((len(store), store.dim), np.float32))
        store.read_rows(0, rows[-1])
    scores = (rows[1].astype(np.float64) @ rows[0].astype(np.float64).T).astype(np.float32)
    near = np.float32(load_metric("pixel").calibration("none").cuts()[0])
    ids = [store.records(["id"])["id"].to_pylist() for store in stores]
    expected = {(ids[1][i], ids[0][j]) for i, j in zip(*np.nonzero(scores >= near), strict=True)}
    leaks = pq.read_table(tmp_path / "out" / "leaks.parquet").to_pylist()
    assert {(r["synthetic_id"], r["real_id"]) for r in leaks} == expected
    images = pq.read_table(tmp_path / "out" / "real_images.parquet").to_pylist()
    assert {r["real_id"]: r["n_exact"] + r["n_near"] for r in images} == {
        real: sum(r == real for _, r in expected) for _, real in expected
    }


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Rows of small integers: very many exact ties, between patients and shards."""
    root = tmp_path_factory.mktemp("stores")
    rng = np.random.default_rng(5)

    def rows(n: int) -> np.ndarray:
        return rng.integers(-1, 2, (n, 12)).astype(np.float32)

    def chunks(name: str, sizes: tuple[int, ...]):
        start = 0
        for size in sizes:
            yield rows(size), [f"{name}{i}" for i in range(start, start + size)], [f"g{i % 7}" for i in range(size)]
            start += size

    write_store(root / "real", chunks("r", (50, 1, 149)), metric="external")
    write_store(root / "synthetic", chunks("s", (333, 67, 400)), metric="external")
    return root / "real", root / "synthetic"


def score_options(threads: int = 1, memory_limit: int = 0) -> AuditOptions:
    return AuditOptions(
        thresholds=(5.0, 8.0),
        match=MatchOptions(k=7, max_per_group=0, max_listed=300, threads=threads, memory_limit=memory_limit),
        command="score",
    )


def test_tables_have_the_same_bytes_whatever_the_threads_memory_and_isa(stores, tmp_path, monkeypatch):
    from deepssim.search import supported_isa_levels

    score(*stores, tmp_path / "base", options=score_options())
    expected = digests(tmp_path / "base")
    assert set(expected) == set(TABLES)
    smallest = 10 * 2**20
    for number, (threads, limit) in enumerate([(1, smallest), (2, 0), (4, smallest + 2**20), (3, 2**30)]):
        score(*stores, tmp_path / str(number), options=score_options(threads, limit))
        assert digests(tmp_path / str(number)) == expected
    for level in supported_isa_levels():
        monkeypatch.setenv("DEEPSSIM_ISA", level)
        score(*stores, tmp_path / level, options=score_options())
        run = json.loads((tmp_path / level / "run.json").read_text())
        assert run["machine"]["isa"] == level
        assert digests(tmp_path / level) == expected


def test_ties_in_matches_go_to_the_lower_row(stores, tmp_path):
    score(*stores, tmp_path / "out", options=score_options())
    real, synthetic = (Store(path) for path in stores)
    a, b = np.empty((len(synthetic), 12), np.float32), np.empty((len(real), 12), np.float32)
    synthetic.read_rows(0, a)
    real.read_rows(0, b)
    table = pq.read_table(tmp_path / "out" / "matches.parquet")
    found = np.array([int(i[1:]) for i in table["real_id"].to_pylist()]).reshape(-1, 7)
    expected = np.argsort(-(a @ b.T), axis=1, kind="stable")[:, :7]
    assert (found == expected).all()


def test_a_memory_limit_that_cannot_be_met_is_refused_with_one_that_can(stores, tmp_path):
    with pytest.raises(MemoryLimitError, match="bytes"):
        score(*stores, tmp_path / "out", options=score_options(memory_limit=1000))


def test_stores_of_different_metrics_are_not_compared(stores, tmp_path):
    other = write_store(tmp_path / "other", [(np.ones((3, 12), np.float32), ["a", "b", "c"], None)], metric="else")
    with pytest.raises(StoreError, match="one metric"):
        score(stores[0], other.path, tmp_path / "out", options=score_options())


def test_a_store_is_reused_and_a_stale_one_is_rebuilt(cohort, tmp_path):
    real = tmp_path / "real"
    shutil.copytree(cohort.real, real)
    encoder = Encoder(load_metric("pixel"))

    def build() -> tuple[Store, list[str]]:
        said: list[str] = []
        return build_store(list_images(real), encoder, tmp_path / "store", status=said.append), said

    first, said = build()
    assert said == []
    _, said = build()
    assert "reusing" in said[0]
    path = next(real.rglob("*.png"))
    stat = path.stat()
    content = bytearray(path.read_bytes())
    other = sorted(real.rglob("*.png"))[-1].read_bytes()
    path.write_bytes(other)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))  # the time says nothing changed
    rebuilt, said = build()
    assert "rebuilding" in said[0]
    assert len(rebuilt) == len(first)
    path.write_bytes(content)


def test_a_damaged_store_is_an_error_and_is_rebuilt_by_embedding(cohort, tmp_path):
    encoder = Encoder(load_metric("pixel"))
    store = build_store(list_images(cohort.real), encoder, tmp_path / "store")
    shard = store.path / store.shards[0].embeddings
    shard.write_bytes(shard.read_bytes()[:-4])
    with pytest.raises(StoreError, match="not what the manifest says"):
        Store(store.path)
    said: list[str] = []
    assert len(build_store(list_images(cohort.real), encoder, store.path, status=said.append)) == len(store)
    assert "rebuilding" in said[0]


def test_a_killed_audit_goes_on_and_ends_with_the_same_bytes(tmp_path):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 255, (6000, 24, 24), dtype=np.uint8)
    np.save(tmp_path / "synthetic.npy", images)
    (tmp_path / "real").mkdir()
    np.save(tmp_path / "real" / "real.npy", images[:500] ^ 1)
    code = (
        "import sys; from deepssim.audit import *; from deepssim.matching import *; import deepssim.matching as m;"
        "import deepssim.sources as s; s.PART_IMAGES = 512;"
        "options = AuditOptions(match=MatchOptions(views='none'));"
        "audit(sys.argv[1], sys.argv[2], sys.argv[3], options=options)"
    )
    arguments = [str(tmp_path / name) for name in ("real", "synthetic.npy")]

    def start(out: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, "-c", code, *arguments, str(tmp_path / out)])

    assert start("whole").wait() == 0
    expected = digests(tmp_path / "whole")
    out = tmp_path / "killed"
    kills = 0
    for parts in (1, 3, 6):
        process = start("killed")
        while process.poll() is None and len(list(out.glob(".work-*/done-*.json"))) < parts:
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        if process.wait() == -signal.SIGKILL:
            kills += 1
            # Nothing under a final name, or a whole file.
            for path in out.rglob("*.parquet"):
                pq.read_table(path)
            for path in out.rglob("*.npy"):
                np.load(path)
    assert kills >= 1
    assert start("killed").wait() == 0
    assert digests(out) == expected
    assert not list(out.glob(".work-*"))
    assert not list(out.rglob("*.partial"))


def test_results_are_private(cohort, tmp_path):
    out = tmp_path / "out"
    audit(cohort.real, cohort.synthetic, out, options=options())
    assert out.stat().st_mode & 0o777 == 0o700
    for path in out.rglob("*"):
        assert path.stat().st_mode & 0o777 == (0o700 if path.is_dir() else 0o600), path


def test_too_many_bad_images_mark_the_run_but_write_everything(cohort, tmp_path):
    real = tmp_path / "real"
    shutil.copytree(cohort.real, real)
    (real / "patient-000" / "bad.png").write_bytes(b"not a picture")
    result = audit(real, cohort.synthetic, tmp_path / "out", options=options())
    assert result.too_many_skipped
    skipped = pq.read_table(tmp_path / "out" / "skipped.parquet").to_pylist()
    assert [(r["set"], r["path"]) for r in skipped] == [("real", "patient-000/bad.png")]
    assert result.summary["counts"]["real"]["skipped"] == 1


def test_inputs_that_are_the_same_or_nested_are_refused(cohort, tmp_path):
    with pytest.raises(UsageError, match="the same"):
        audit(cohort.real, cohort.real, tmp_path / "a")
    with pytest.raises(UsageError, match="one in the other"):
        audit(cohort.real, cohort.real / "patient-000", tmp_path / "b")
    with pytest.raises(UsageError, match="does not exist"):
        audit(cohort.real, tmp_path / "nowhere", tmp_path / "c")


def test_a_folder_with_other_files_is_never_written_to(cohort, tmp_path):
    (tmp_path / "thesis.txt").write_text("precious")
    with pytest.raises(UsageError, match="other files"):
        audit(cohort.real, cohort.synthetic, tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.txt"]


def test_without_groups_no_figure_by_patient_is_given(cohort, tmp_path):
    summary = audit(cohort.real, cohort.synthetic, tmp_path / "out").summary
    assert summary["patients_copied"] is None
    assert not (tmp_path / "out" / "patients.parquet").exists()
    assert any("--group-by" in warning for warning in summary["warnings"])


def test_a_holdout_that_shares_images_with_the_real_set_is_called_no_control(cohort, tmp_path):
    holdout = tmp_path / "holdout"
    shutil.copytree(cohort.holdout, holdout)
    shutil.copytree(cohort.real / "patient-000", holdout / "patient-000")
    result = audit(cohort.real, cohort.synthetic, tmp_path / "out", holdout=holdout, options=options())
    warnings = " ".join(result.summary["control"]["warnings"])
    assert "identical" in warnings
    assert "same name" in warnings


def test_a_small_holdout_is_compared_with_as_many_real_images_by_person(cohort, tmp_path):
    result = audit(cohort.real, cohort.synthetic, tmp_path / "out", holdout=cohort.holdout, options=options(seed=4))
    control = result.summary["control"]
    assert (control["n_images"], control["n_real_used"], control["drawn"]) == (8, 8, "by patient")
    assert sum(result.summary["histogram"]["holdout"]) == control["holdout"]["total"]


def test_two_runs_do_not_write_to_one_folder(cohort, tmp_path):
    from deepssim.disk import locked, make_private_folder

    out = make_private_folder(tmp_path / "out")
    with locked(out), pytest.raises(UsageError, match="another run"):
        audit(cohort.real, cohort.synthetic, out)
    assert audit(cohort.real, cohort.synthetic, out).summary["counts"]["real"]["images"] == 20


def test_results_do_not_go_into_an_input(cohort):
    with pytest.raises(UsageError, match="one in the other"):
        audit(cohort.real, cohort.synthetic, cohort.real / "result")
    assert not (cohort.real / "result").exists()
