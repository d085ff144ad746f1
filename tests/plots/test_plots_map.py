"""Maps of embeddings against scikit-learn, and the figure of an audit's control."""

from __future__ import annotations

import json
import sys
import types
from pathlib import Path

import numpy as np
import pytest
from fake_audit import Kind, write_audit
from sklearn.decomposition import PCA

from deepssim.errors import MissingDependencyError, StoreError, UsageError
from deepssim.plots import draw_control, draw_map, make_map, projection, read_flagged, save
from deepssim.plots.embedding_map import Flagged
from deepssim.plots.projection import draw_rows, principal_axes, read_rows, umap_points
from deepssim.report import ReportError
from deepssim.store import Store
from deepssim.store_build import write_store


def make_store(folder: Path, rows: np.ndarray, *, metric: str = "m", prefix: str = "") -> Store:
    half = len(rows) // 2
    parts = [part for part in (rows[:half], rows[half:]) if len(part)]
    starts = np.cumsum([0, *map(len, parts)])
    write_store(
        folder,
        (
            (part.astype(np.float32), [f"{prefix}{k}" for k in range(start, start + len(part))], [None] * len(part))
            for part, start in zip(parts, starts, strict=False)
        ),
        metric=metric,
    )
    return Store(folder)


def unit(rng: np.random.Generator, n: int, dim: int) -> np.ndarray:
    rows = rng.normal(size=(n, dim)) * np.geomspace(3, 0.2, dim) + 0.5
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


@pytest.mark.parametrize("most_dim", [2048, 8])
def test_principal_axes_are_those_of_scikit_learn_however_rows_come(tmp_path, monkeypatch, most_dim):
    rows = unit(np.random.default_rng(0), 90, 24)
    store = make_store(tmp_path / "a", rows)
    monkeypatch.setattr(projection, "BLOCK_BYTES", 24 * 4 * 7)
    monkeypatch.setattr(projection, "MOST_DIM", most_dim)
    axes = principal_axes(store)
    theirs = PCA(2, svd_solver="full").fit(rows.astype(np.float64))
    signs = np.sign((theirs.components_ * axes.axes).sum(axis=1))
    np.testing.assert_allclose(axes.axes, theirs.components_ * signs[:, None], atol=1e-5)
    np.testing.assert_allclose(axes.shares, theirs.explained_variance_ratio_, rtol=1e-5)
    np.testing.assert_allclose(axes(rows), theirs.transform(rows) * signs, atol=1e-5)
    assert (axes.axes[[0, 1], np.abs(axes.axes).argmax(axis=1)] > 0).all()


def test_of_large_stores_rows_are_drawn_by_the_seed(tmp_path, monkeypatch):
    rows = unit(np.random.default_rng(0), 60, 5)
    store = make_store(tmp_path / "a", rows)
    monkeypatch.setattr(projection, "MOST_ROWS", 20)
    axes = principal_axes(store, seed=3)
    drawn = draw_rows(60, 20, 3)
    assert axes.n_rows == len(drawn) == 20
    np.testing.assert_allclose(axes.mean, rows[drawn].mean(axis=0), rtol=1e-6)
    np.testing.assert_array_equal(np.concatenate(list(read_rows(store, drawn))), rows[drawn])
    assert "Axes from 20 of 60" in make_map({"real": store}, seed=3).note


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_few_dimensions_and_few_rows_have_a_map(tmp_path, dim):
    rows = np.eye(4, dim, dtype=np.float32)
    made = make_map({"real": make_store(tmp_path / "a", rows)})
    assert made.points["real"].shape == (4, 2)
    draw_map(made).draw_without_rendering()


def test_rows_without_spread_are_refused(tmp_path):
    equal = make_store(tmp_path / "a", np.ones((5, 3), np.float32) / np.sqrt(3))
    with pytest.raises(UsageError, match="equal: there is nothing to draw"):
        make_map({"real": equal})
    with pytest.raises(UsageError, match="has 1 images: a map needs two"):
        make_map({"real": make_store(tmp_path / "b", np.ones((1, 3), np.float32))})


def test_flagged_pairs_are_joined_though_few_points_are_drawn(tmp_path):
    rng = np.random.default_rng(5)
    real, synthetic = unit(rng, 50, 6), unit(rng, 40, 6)
    stores = {"real": make_store(tmp_path / "r", real, prefix="r"),
              "synthetic": make_store(tmp_path / "s", synthetic, prefix="s")}  # fmt: skip
    flagged = Flagged(["r49", "r3"], ["s39", "s0"], np.array([True, False]), 7)
    made = make_map(stores, flagged, most_points=10)
    assert 10 <= len(made.points["synthetic"]) <= 12
    axes = principal_axes(stores["real"])
    expected = np.stack([axes(synthetic[[39, 0]]), axes(real[[49, 3]])], axis=1)
    np.testing.assert_allclose(made.pairs, expected, atol=1e-5)
    words = [text.get_text() for text in draw_map(made).legends[0].get_texts()]
    assert "exact copy, joined to its real image (1)" in words
    assert "the nearest 2 of 7 flagged images are joined" in words
    assert any("of 40 drawn" in word for word in words)


def test_what_does_not_fit_is_refused(tmp_path):
    rng = np.random.default_rng(5)
    one, other = make_store(tmp_path / "a", unit(rng, 5, 3)), make_store(tmp_path / "b", unit(rng, 5, 3), metric="n")
    with pytest.raises(StoreError, match="of n"):
        make_map({"real": one, "synthetic": other})
    with pytest.raises(UsageError, match=r"2 flagged images of the audit are not in .*'r9', 'x'"):
        make_map({"real": one, "synthetic": one}, Flagged(["r9", "x"], ["0", "1"], np.array([True, True]), 2))
    with pytest.raises(UsageError, match="real among them"):
        make_map({"synthetic": one})
    with pytest.raises(UsageError, match="choose pca or umap"):
        make_map({"real": one}, method="tsne")


def test_a_umap_is_seeded_on_one_thread_and_named_where_it_is_missing(tmp_path, monkeypatch):
    asked = {}

    class FakeUmap:
        def __init__(self, **options):
            asked.update(options)

        def fit_transform(self, rows):
            return rows[:, :2]

    store = make_store(tmp_path / "a", unit(np.random.default_rng(1), 12, 4))
    monkeypatch.setitem(sys.modules, "umap", types.SimpleNamespace(UMAP=FakeUmap))
    made = make_map({"real": store, "synthetic": store}, method="umap", seed=9)
    assert (asked["random_state"], asked["n_jobs"], asked["n_neighbors"]) == (9, 1, 15)
    assert [len(points) for points in made.points.values()] == [12, 12]
    monkeypatch.setitem(sys.modules, "umap", None)
    with pytest.raises(MissingDependencyError, match=r"pip install umap-learn \(the extra umap"):
        make_map({"real": store}, method="umap")
    with pytest.raises(UsageError, match="choose --method pca"):
        umap_points(np.eye(4, dtype=np.float32))


def test_many_points_are_an_image_inside_a_vector_file(tmp_path):
    store = make_store(tmp_path / "a", unit(np.random.default_rng(1), 4000, 3))
    for suffix in ("svg", "pdf"):
        path = tmp_path / f"map.{suffix}"
        save(draw_map(make_map({"real": store})), path, dpi=60)
        assert path.stat().st_size < 120_000


@pytest.mark.parametrize("kind", [Kind(), Kind(has_holdout=False), Kind(level="none_found"), Kind(is_verified=True)])
def test_the_control_shows_the_counts_of_the_audit(tmp_path, kind):
    folder = write_audit(tmp_path / "audit", kind)
    summary = json.loads((folder / "summary.json").read_text())
    figure = draw_control(folder)
    figure.draw_without_rendering()
    heights = [np.round(10 ** np.abs(patch.get_data().values) - 1).sum() for patch in figure.axes[0].patches]
    histogram = summary["histogram"]
    series = [histogram["real_matched"], histogram["real"], histogram["holdout"]]
    assert heights == ([sum(one) for one in series] if kind.has_holdout else [sum(histogram["real"])])
    flagged = read_flagged(folder)
    assert flagged.n_all == summary["synthetic_flagged"]["flagged"]
    assert len(flagged.real_ids) <= flagged.n_all


def test_a_folder_that_is_no_audit_is_refused(tmp_path):
    with pytest.raises(ReportError, match=r"summary\.json is missing"):
        draw_control(tmp_path)
