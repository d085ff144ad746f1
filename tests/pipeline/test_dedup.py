"""Duplicates within a set: the published procedure, against twenty lines of NumPy."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from deepssim.cli import cli
from deepssim.dedup import find as dedup
from deepssim.dedup.files import check_manifest, write_dedup
from deepssim.dedup.find import DedupOptions, closest_earlier, deduplicate
from deepssim.errors import DeepSSIMError, MemoryLimitError, MissingDependencyError, StoreError, UsageError
from deepssim.images import list_images
from deepssim.store_build import write_store


@pytest.fixture(scope="session")
def deepssim(deepssim_here):
    return deepssim_here


def unit(rows):
    rows = np.asarray(rows, np.float64)
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def store_of(path, rows, ids=None):
    rows = np.asarray(rows, np.float32)
    return write_store(path, [(rows, ids or [f"i{i:04d}" for i in range(len(rows))], None)], metric="any")


def blobs(rng, n_blobs, n_each, dim=16, spread=0.05):
    centres = rng.normal(size=(n_blobs, dim))
    return unit(np.repeat(centres, n_each, axis=0) + spread * rng.normal(size=(n_blobs * n_each, dim)))


def oracle(rows, cluster, centrality, threshold, keep):
    """Algorithm A7 of the paper: of the upper triangle of each cluster in order, who has a cosine above."""
    key = {"farthest": centrality, "nearest": -centrality, "first": np.zeros(len(rows))}[keep]
    cosines = rows.astype(np.float64) @ rows.T.astype(np.float64)
    removed, n_pairs = set(), 0
    for number in np.unique(cluster):
        order = sorted(np.flatnonzero(cluster == number), key=lambda i: (key[i], i))
        above = np.triu(cosines[np.ix_(order, order)], 1) > threshold
        n_pairs += int(np.triu(above, 1).sum())
        removed |= {order[place] for place in np.flatnonzero(above.any(axis=0))}
    return removed, n_pairs


small_rows = st.integers(1, 40).flatmap(
    lambda n: st.lists(st.lists(st.integers(-2, 2), min_size=3, max_size=3), min_size=n, max_size=n)
)


@settings(deadline=None, max_examples=40)
@given(small_rows, st.sampled_from([1, 4, 256]))
def test_the_closest_earlier_row_is_the_first_of_the_highest(rows, leaf):
    rows = np.array(rows, np.float32)
    levels = [-1.5, 0.5, 3.0]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dedup, "LEAF", leaf)
        found = closest_earlier(rows, levels, threads=1)
    scores = rows @ rows.T
    for i in range(len(rows)):
        before = scores[i, :i]
        assert found.places[i] == (before.argmax() if i else -1)
        assert found.scores[i] == (before.max() if i else -np.inf)
    lower = scores[np.tril_indices(len(rows), -1)]
    assert found.pairs.tolist() == [int((lower > level).sum()) for level in levels]


@pytest.mark.parametrize("keep", ["farthest", "nearest", "first"])
@pytest.mark.parametrize("clusters", [1, 5])
def test_images_are_removed_as_in_the_paper(tmp_path, keep, clusters):
    rows = blobs(np.random.default_rng(1), 12, 25, spread=0.25)
    store = store_of(tmp_path / "s", rows)
    options = DedupOptions(0.9, clusters, keep, levels=(0.8, 0.95), threads=1)
    found = deduplicate(store, options)
    assert found.cluster.max() + 1 == clusters
    removed, n_pairs = oracle(rows, found.cluster, found.centrality, 0.9, keep)
    assert set(np.flatnonzero(found.is_removed)) == removed
    assert 20 < len(removed) < len(rows)
    assert options.all_levels() == (0.8, 0.9, 0.95)
    assert found.pairs[1] == n_pairs
    for place, level in enumerate(options.all_levels()):
        assert found.removed[place] == len(oracle(rows, found.cluster, found.centrality, level, keep)[0])
    exact = rows.astype(np.float64)
    for image in removed:
        first = found.earlier[image]
        assert found.cluster[first] == found.cluster[image]
        assert found.score[image] == pytest.approx(exact[first] @ exact[image], abs=1e-6)
        stay = [i for i in np.flatnonzero(~found.is_removed) if found.cluster[i] == found.cluster[image]]
        assert found.kept_score[image] == pytest.approx(max(exact[i] @ exact[image] for i in stay), abs=1e-6)
        assert found.kept_score[image] == pytest.approx(exact[found.kept[image]] @ exact[image], abs=1e-6)


def test_what_clusters_miss_is_counted(tmp_path):
    rng = np.random.default_rng(2)
    rows = unit(rng.normal(size=(400, 4)))
    store = store_of(tmp_path / "s", rows)
    found = deduplicate(store, DedupOptions(0.95, 20, threads=1))
    place = found.options.all_levels().index(0.95)
    cosines = rows.astype(np.float64) @ rows.T
    upper = np.triu(cosines > 0.95, 1)
    assert found.comparison.pairs[place] == upper.sum() > found.pairs[place]
    everything = np.zeros(len(rows), np.int64)
    removed, _ = oracle(rows, everything, found.centrality, 0.95, "farthest")
    assert found.comparison.removed[place] == len(removed)
    assert removed > set(np.flatnonzero(found.is_removed))
    kept = np.flatnonzero(~found.is_removed)
    left, _ = oracle(rows[kept], everything[kept], found.centrality[kept], 0.95, "farthest")
    assert found.comparison.left == len(left) > 0
    assert deduplicate(store, DedupOptions(clusters=20, compare=False, threads=1)).comparison is None
    assert deduplicate(store, DedupOptions(clusters=1, threads=1)).comparison is None


def test_clusters_are_those_of_the_data(tmp_path):
    rows = blobs(np.random.default_rng(3), 6, 30, spread=0.02)
    found = deduplicate(store_of(tmp_path / "s", rows), DedupOptions(0.9, 6, threads=1))
    assert len({tuple(np.unique(found.cluster[i : i + 30])) for i in range(0, 180, 30)}) == 6
    centre = unit(rows[:30].astype(np.float64).mean(axis=0)[None])[0]
    assert found.centrality[:30] == pytest.approx(rows[:30] @ centre, abs=1e-5)
    assert (~found.is_removed).sum() == 6
    assert found.kept[:30].tolist() == [int(found.centrality[:30].argmin())] * 30


def test_of_identical_images_the_first_stays(tmp_path):
    rows = unit([[1, 2, 3], [3, -2, 1], [1, 2, 3], [1, 2, 3], [3, -2, 1]])
    for keep in ("farthest", "nearest", "first"):
        found = deduplicate(store_of(tmp_path / keep, rows), DedupOptions(clusters=1, keep=keep))
        assert found.kept.tolist() == [0, 1, 0, 0, 1]
        assert found.earlier.tolist() == [-1, 0, 0, 0, 1] if keep == "first" else True
        assert found.n_chained == 0


def test_an_image_is_removed_for_one_that_was_removed_itself(tmp_path):
    angles = np.radians([0, 15, 30, 200])
    rows = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    found = deduplicate(store_of(tmp_path / "s", rows), DedupOptions(0.95, 1, "first"))
    assert found.kept.tolist() == [0, 0, 0, 3]
    assert found.earlier[2] == 1
    assert found.kept_score[2] == pytest.approx(np.cos(np.radians(30)))
    assert found.n_chained == 1


def test_a_score_that_equals_the_threshold_is_no_duplicate(tmp_path):
    rows = np.array([[1, 0], [0.5, np.sqrt(0.75)]])
    assert not deduplicate(store_of(tmp_path / "s", rows), DedupOptions(0.5, 1)).is_removed.any()
    assert deduplicate(store_of(tmp_path / "t", rows), DedupOptions(0.4999, 1)).is_removed.any()


def same(a, b):
    return all(
        np.array_equal(getattr(a, name), getattr(b, name))
        for name in ("cluster", "centrality", "earlier", "score", "kept", "kept_score", "pairs")
    )


def test_threads_memory_and_chunks_change_nothing(tmp_path, monkeypatch):
    rows = blobs(np.random.default_rng(4), 40, 20, dim=8, spread=0.3)
    store = store_of(tmp_path / "s", rows)
    monkeypatch.setattr(dedup, "LEAST_SAMPLE", 10)
    first = deduplicate(store, DedupOptions(clusters=3, threads=1))
    assert first.n_sample == 768
    needed = 8 * 8 * 768
    assert same(first, deduplicate(store, DedupOptions(clusters=3, threads=2, memory_limit=needed)))
    monkeypatch.setattr(dedup, "READ_ROWS", 37)
    again = deduplicate(store, DedupOptions(clusters=3, threads=2, memory_limit=needed))
    assert same(first, again)
    assert again.comparison is None  # all pairs do not fit
    assert not same(first, deduplicate(store, DedupOptions(clusters=3, seed=1, threads=1)))


def test_a_limit_that_is_too_small_is_named(tmp_path):
    store = store_of(tmp_path / "s", blobs(np.random.default_rng(5), 2, 30, dim=4))
    with pytest.raises(MemoryLimitError, match=r"k-means of 60.* 1,920 bytes"):
        deduplicate(store, DedupOptions(clusters=2, memory_limit=1000))
    with pytest.raises(MemoryLimitError, match=r"largest cluster has 60 images"):
        deduplicate(store, DedupOptions(clusters=1, memory_limit=1919))
    deduplicate(store, DedupOptions(clusters=1, memory_limit=1920))
    with pytest.raises(MemoryLimitError, match="all pairs"):
        deduplicate(store, DedupOptions(clusters=2, compare=True, memory_limit=1000))


def test_rows_of_other_norms_are_brought_to_one_and_zeros_refused(tmp_path):
    rows = blobs(np.random.default_rng(6), 3, 10)
    stretched = rows * np.linspace(0.5, 4, 30, dtype=np.float32)[:, None]
    found = deduplicate(store_of(tmp_path / "s", stretched), DedupOptions(clusters=1))
    assert same(found, found)
    plain = deduplicate(store_of(tmp_path / "t", rows), DedupOptions(clusters=1))
    assert found.kept.tolist() == plain.kept.tolist()
    rows[17] = 0
    with pytest.raises(StoreError, match="row 17 of"):
        deduplicate(store_of(tmp_path / "u", rows), DedupOptions(clusters=1))


def test_values_that_cannot_be_are_refused(tmp_path):
    for options in ({"threshold": 1.0}, {"threshold": float("nan")}, {"keep": "best"}, {"clusters": 0}):
        with pytest.raises(UsageError):
            DedupOptions(**options)
    store = store_of(tmp_path / "s", unit([[1, 2], [2, 1], [1, -1]]))
    with pytest.raises(UsageError, match="4 clusters are more than the 3 images"):
        deduplicate(store, DedupOptions(clusters=4))
    alone = deduplicate(store_of(tmp_path / "one", [[1, 0]]), DedupOptions())
    assert alone.kept.tolist() == [0]


def test_fewer_distinct_images_than_clusters_leave_clusters_empty(tmp_path):
    store = store_of(tmp_path / "s", unit([[1, 2], [2, 1]] * 4))
    found = deduplicate(store, DedupOptions(clusters=5))
    assert sorted(set(found.cluster.tolist())) == [0, 1]
    assert (~found.is_removed).sum() == 2


def test_without_scikit_learn_all_pairs_are_still_compared(tmp_path, monkeypatch):
    store = store_of(tmp_path / "s", unit([[1, 2], [2, 1], [1, -1]]))
    monkeypatch.setitem(sys.modules, "sklearn.cluster", None)
    with pytest.raises(MissingDependencyError, match="pip install scikit-learn"):
        deduplicate(store, DedupOptions(clusters=2))
    deduplicate(store, DedupOptions(clusters=1))


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(7)
    images = tmp_path / "images"
    for person in range(6):
        (images / f"p{person}").mkdir(parents=True)
        picture = np.kron(rng.integers(30, 220, (8, 7)), np.ones((4, 4))).astype(np.uint8)
        for name in ("a", "b"):
            shown = picture if name == "a" else np.clip(picture + rng.integers(-6, 7, picture.shape), 0, 255)
            Image.fromarray(shown.astype(np.uint8)).save(images / f"p{person}" / f"{name}.png")
    Image.fromarray(np.full((32, 28), 9, np.uint8)).save(images / "p0" / "flat.png")
    return images


def test_a_folder_is_deduplicated_and_its_list_read_again(deepssim, folder, tmp_path):
    out, manifest = tmp_path / "out", folder / "kept.csv"
    arguments = ["dedup", folder, "--metric", "pixel", "--out", out, "--group-by", "parent", "--clusters", "3"]
    done = deepssim(*arguments, "--manifest", manifest, "--max-skipped", "1", "--json")
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert (summary["images"], summary["kept"], summary["removed"]) == (12, 6, 6)
    assert json.loads((out / "summary.json").read_text()) == summary
    assert summary["kmeans"]["learnt_from"] == 12
    assert summary["left_across_clusters"] == 0
    kept, duplicates = read_csv(out / "kept.csv"), read_csv(out / "duplicates.csv")
    assert {row["group"] for row in kept} == {f"p{i}" for i in range(6)}
    assert {row["n_duplicates"] for row in kept} == {"1"}
    for row in duplicates:
        assert row["kept_id"] == row["duplicate_of"] != row["id"]
        assert Path(row["id"]).parent == Path(row["kept_id"]).parent
        assert float(row["score"]) > 0.95
    assert pq.read_table(out / "duplicates.parquet")["id"].to_pylist() == [row["id"] for row in duplicates]
    # A constant image has no likeness: it is skipped, and too many skipped images are told by the exit code.
    assert pq.read_table(out / "embeddings" / "skipped.parquet")["code"].to_pylist() == ["constant"]
    again = deepssim(*arguments)
    assert (again.returncode, "reusing" in again.stderr, "Too many" in again.stderr) == (4, True, True)
    assert {p.name for p in out.iterdir()} == {
        "embeddings", "kept.csv", "kept.parquet", "duplicates.csv", "duplicates.parquet", "summary.json",
    }  # fmt: skip
    listing = list_images(manifest)
    assert [entry.base_id for entry in listing.files] == sorted(row["id"] for row in kept)
    assert {entry.group for entry in listing.files} == {row["group"] for row in kept}
    embedded = deepssim("embed", manifest, "--metric", "pixel", "--out", tmp_path / "kept.store", "--json")
    assert json.loads(embedded.stdout)["images"] == 6


def test_the_table_is_for_people(deepssim, tmp_path):
    store_of(tmp_path / "s", blobs(np.random.default_rng(8), 4, 10))
    done = deepssim(
        "dedup", tmp_path / "s", "--out", tmp_path / "out", "--epsilon", ".07", "--clusters", "2", "--quiet"
    )
    assert done.returncode == 0, done.stderr
    assert "cosine > 0.93" in done.stdout
    assert "2 clusters" in done.stdout
    assert done.stderr == ""
    exact = deepssim("dedup", tmp_path / "s", "--out", tmp_path / "out", "--exact")
    assert "all pairs compared" in exact.stdout


def test_a_distance_is_asked_for_and_shown_where_the_metric_has_one(deepssim, tmp_path):
    store = store_of(tmp_path / "s", unit([[1, 0], [1, 0.3], [0, 1]]))
    described = json.loads((store.path / "manifest.json").read_text())
    described["metric"]["similarity"] = "l2"
    (store.path / "manifest.json").write_text(json.dumps(described))
    done = deepssim("dedup", store.path, "--out", tmp_path / "out", "--threshold", ".3", "--json", "--quiet")
    summary = json.loads(done.stdout)
    assert summary["distance"] == pytest.approx(0.3)
    assert summary["threshold"] == pytest.approx(1 - 0.045)
    assert summary["removed"] == 1  # sqrt(2 - 2 / sqrt(1.09)) = .291
    assert "distance < 0.3" in deepssim("dedup", store.path, "--out", tmp_path / "out", "--threshold", ".3").stdout
    wrong = deepssim("dedup", store.path, "--out", tmp_path / "out", "--threshold", "3")
    assert wrong.returncode == 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--exact", "--clusters", "3"], "leave --clusters out"),
        (["--threshold", ".9", "--epsilon", ".1"], "not both"),
        (["--threshold", "1.5"], "from -1 to less than 1"),
        (["--clusters", "99"], "more than the 3 images"),
        (["--metric", "pixel"], "of the metric any"),
        (["--manifest", "x.csv"], "does not say where its images are"),
        (["--memory-limit", "8"], "raise --memory-limit"),
    ],
)
def test_what_cannot_be_is_one_line(tmp_path, arguments, said):
    store = store_of(tmp_path / "s", unit([[1, 2], [2, 1], [1, -1]]))
    done = CliRunner().invoke(cli, ["dedup", str(store.path), "--out", str(tmp_path / "out"), *arguments, "--quiet"])
    assert isinstance(done.exception, DeepSSIMError | SystemExit)
    message = done.stderr if isinstance(done.exception, SystemExit) else str(done.exception)
    assert said in message
    assert "Traceback" not in message
    assert not (tmp_path / "out").exists()


def test_a_manifest_names_files_under_its_folder(tmp_path, monkeypatch):
    store = store_of(tmp_path / "s", unit([[1, 2], [2, 1], [1, -1]]), ["-x.png", "a b.png", "sub/y.png"])
    (tmp_path / "images").mkdir()
    monkeypatch.setitem(store.manifest, "root", str(tmp_path / "images"))
    for name in ("images/kept.csv", "kept.csv", "images/kept.parquet"):
        check_manifest(tmp_path / name, store)
    for name, said in (("kept.txt", "NAME.csv"), ("elsewhere/kept.csv", "give --manifest")):
        with pytest.raises(UsageError, match=said):
            check_manifest(tmp_path / name, store)
    found = deduplicate(store, DedupOptions())
    for name in ("-x.png", "a b.png", "sub/y.png"):
        path = tmp_path / "images" / name
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)).save(path)
    for name, prefix in (("images/kept.csv", ""), ("kept.csv", "images/"), ("images/kept.parquet", "")):
        write_dedup(store, found, tmp_path / "out", manifest=tmp_path / name)
        listing = list_images(tmp_path / name)
        assert [entry.path for entry in listing.files] == [f"{prefix}{n}" for n in ("-x.png", "a b.png", "sub/y.png")]
        assert not listing.ignored


def test_the_list_of_all_images_is_not_written_over(folder, tmp_path):
    listed = folder / "all.csv"
    listed.write_text("path\n" + "".join(f"{path.relative_to(folder)}\n" for path in sorted(folder.rglob("?.png"))))
    held = listed.read_bytes()
    done = CliRunner().invoke(
        cli, ["dedup", str(listed), "--metric", "pixel", "--out", str(tmp_path / "out"), "--manifest", str(listed)]
    )
    assert done.exit_code == 2
    assert "is the list of all images itself" in done.stderr
    assert listed.read_bytes() == held


def test_a_manifest_cannot_name_parts_of_a_file(tmp_path, deepssim):
    stack = tmp_path / "stack.npy"
    np.save(stack, np.random.default_rng(9).integers(0, 255, (5, 16, 16), dtype=np.uint8))
    done = deepssim("dedup", stack, "--metric", "pixel", "--out", tmp_path / "out", "--manifest", tmp_path / "kept.csv")
    assert done.returncode == 2
    assert "1 files hold several images" in done.stderr
    assert not (tmp_path / "kept.csv").exists()
