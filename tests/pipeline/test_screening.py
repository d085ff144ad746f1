"""The search in many views, against a search of every pair and every view."""

from __future__ import annotations

import dataclasses
import json
import math

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from deepssim.audit import AuditOptions, audit, score
from deepssim.base import Base
from deepssim.calibration import load_calibration
from deepssim.errors import MemoryLimitError, UsageError
from deepssim.image_ops import BANK, FLIPS, ViewGrid, ViewOf, make_views, resize_area
from deepssim.images import ImageOptions
from deepssim.matching import Control, Matcher, MatchOptions, Reference, Subject
from deepssim.screening import Screen, choose_views, coarse_views
from deepssim.store import Store
from deepssim.store_build import write_store

LAYOUT = (4, 3)
GRIDS = [FLIPS, ViewGrid(n_angles=6, zooms=(0.9, 1.0), shift=1), ViewGrid(n_angles=1, with_mirror=False)]


def unit(rng: np.random.Generator, n: int, layout: tuple[int, int] = LAYOUT) -> np.ndarray:
    rows = rng.standard_normal((n, layout[0] * layout[1])).astype(np.float32)
    rows -= rows.mean(axis=1, keepdims=True)
    return np.ascontiguousarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


def store_of(folder, rows: np.ndarray, groups: list[str | None]) -> Store:
    return write_store(folder, [(rows, [f"r{i}" for i in range(len(rows))], groups)], metric="test")


def slow_scores(query: np.ndarray, rows: np.ndarray, grid: ViewGrid, aspect: float) -> np.ndarray:
    """The highest score of each row over all views."""
    views = make_views(query.reshape(LAYOUT), grid, aspect=aspect).astype(np.float64)
    for i in range(len(grid)):
        if grid.view(i) == ViewOf(False, 0.0, 1.0, 0, 0):
            views[i] = query
    return np.array([np.float32(max(math.fsum(v * r) for v in views)) for r in rows.astype(np.float64)], np.float32)


def slow_answer(scores: np.ndarray, codes: np.ndarray, k: int, cap: int) -> list[int]:
    best: list[int] = []
    for row in sorted(range(len(scores)), key=lambda row: (-scores[row], row)):
        same = sum(1 for other in best if codes[other] == codes[row])
        if len(best) < k and (not cap or codes[row] < 0 or same < cap):
            best.append(row)
    return best


@given(
    seed=st.integers(0, 10**6),
    n_rows=st.integers(1, 14),
    n_twins=st.integers(0, 5),
    n_queries=st.integers(1, 3),
    grid=st.sampled_from(GRIDS),
    k=st.integers(1, 6),
    cap=st.integers(0, 2),
    block_rows=st.sampled_from([0, 1, 4]),
    thresholds=st.sampled_from([(), (0.5,), (0.2, 0.8), (0.7, 0.9)]),
    max_listed=st.integers(0, 3),
    aspect=st.sampled_from([1.0, 0.7]),
)
@settings(deadline=None, max_examples=60)
def test_the_answer_is_that_of_every_pair_in_every_view(
    tmp_path_factory, seed, n_rows, n_twins, n_queries, grid, k, cap, block_rows, thresholds, max_listed, aspect
):
    rng = np.random.default_rng(seed)
    rows = unit(rng, n_rows)
    rows = np.concatenate([rows, rows[rng.integers(0, n_rows, n_twins)]])  # equal scores go to the lower id
    codes = rng.integers(-1, 4, len(rows))
    queries = np.concatenate([unit(rng, n_queries - 1), rows[:1]])
    store = store_of(tmp_path_factory.mktemp("screen") / "store", rows, [f"g{c}" if c >= 0 else None for c in codes])
    base = Base(store, np.arange(len(rows)), codes, block_rows=block_rows)
    found = Screen(grid, LAYOUT).search(
        base,
        queries,
        k,
        sizes=[(int(10 * aspect) * LAYOUT[0], 10 * LAYOUT[1])] * len(queries),
        across=[False] * len(queries),
        max_per_group=cap,
        thresholds=thresholds,
        max_listed=max_listed,
        first_query=100,
        threads=2,
    )
    scores = np.stack([slow_scores(query, rows, grid, aspect) for query in queries])
    for i in range(len(queries)):
        best = slow_answer(scores[i], codes, k, cap)
        assert found.ids[i].tolist() == best + [-1] * (k - len(best))
        assert np.array_equal(found.scores[i, : len(best)], scores[i, best])
        if thresholds:
            cuts = np.array(thresholds, np.float32)
            assert found.counts[i].tolist() == (scores[i][:, None] >= cuts).sum(axis=0).tolist()
            over = [r for r in slow_answer(scores[i], codes, len(rows), 0) if scores[i][r] >= cuts[0]][:max_listed]
            assert found.listed_ids[i].tolist() == over + [-1] * (max_listed - len(over))
            assert np.array_equal(found.listed_scores[i, : len(over)], scores[i, over])
    met = [r for r in range(len(rows)) if thresholds and scores[:, r].max() >= np.float32(thresholds[0])]
    order = np.argsort(found.tallied.rows)
    assert found.tallied.rows[order].tolist() == met
    assert np.array_equal(found.tallied.scores[order], scores[:, met].max(axis=0))
    assert found.tallied.queries[order].tolist() == (100 + scores[:, met].argmax(axis=0)).tolist()
    for level, cut in enumerate(thresholds):
        expected = (scores[:, met] >= np.float32(cut)).sum(axis=0)
        assert found.tallied.counts[order, level].tolist() == expected.tolist()


def test_an_empty_base_has_an_answer(tmp_path):
    rng = np.random.default_rng(0)
    store, none = store_of(tmp_path / "store", unit(rng, 1), ["a"]), np.zeros(0, np.int64)
    found = Screen(FLIPS, LAYOUT).search(
        Base(store, none, none), unit(rng, 2), 3, sizes=[(0, 0)] * 2, across=[False] * 2,
        thresholds=(0.5, 0.9), max_listed=2,
    )  # fmt: skip
    assert (found.ids == -1).all()
    assert (found.listed_ids == -1).all()
    assert found.counts.tolist() == [[0, 0], [0, 0]]
    assert len(found.tallied.rows) == 0


def test_coarse_views_come_near_to_each_view():
    chosen = coarse_views(BANK)
    assert 0 < len(chosen) < len(BANK) / 20
    seen = [BANK.view(int(i)) for i in chosen]
    assert {v.is_mirrored for v in seen} == {False, True}
    assert sorted({v.angle_degrees for v in seen}) == [360 * i / 44 for i in range(0, 44, 3)]
    assert {v.shift_rows for v in seen} == {v.shift_columns for v in seen} == {-2, 0, 2}
    assert coarse_views(ViewGrid(with_mirror=False)).tolist() == [0]


def test_views_are_those_that_the_metric_has():
    assert choose_views(None, (32, 28), "pixel") == "bank"
    assert choose_views(None, None, "learned") == "none"
    assert choose_views("none", None, "learned") == "none"
    for asked in ("flips", "bank"):
        with pytest.raises(UsageError, match="learned has no views"):
            choose_views(asked, None, "learned")
    with pytest.raises(UsageError, match="none, flips, bank"):
        choose_views("all", (32, 28), "pixel")


def test_a_pixel_is_as_wide_for_its_height_as_the_size_says():
    screen = Screen(ViewGrid(n_angles=8, with_mirror=False), (32, 28))
    query = unit(np.random.default_rng(0), 1, (32, 28))[0]
    image = query.reshape(32, 28)
    for size, aspect in {(136, 112): 136 / 32 / 4, (256, 256): 28 / 32, (0, 0): 1.0, (64, 56): 1.0}.items():
        expected = make_views(image, screen.grid, aspect=aspect)
        np.testing.assert_allclose(screen.see(query, size, is_across=False), expected, atol=1e-6)


def test_a_query_that_lies_across_is_seen_as_it_would_stand():
    rng = np.random.default_rng(0)
    standing = resize_area(rng.random((8, 7), np.float32), 32, 28) - 0.5
    lying = resize_area(np.rot90(standing, -1).copy(), 32, 28)
    screen = Screen(FLIPS, (32, 28))
    first = screen.see(lying.ravel(), (112, 136), is_across=True)[0]
    expected = screen.see(standing.ravel(), (136, 112), is_across=False)[0]
    expected = expected / np.linalg.norm(expected)
    assert float(first @ expected) > 0.95  # resampled twice


def test_a_run_names_its_views_and_finds_what_was_mirrored_and_moved(cohort, tmp_path):
    synthetic = tmp_path / "synthetic"
    synthetic.mkdir()
    for name, source in cohort.copies.items():
        with Image.open(cohort.real / source) as image:
            pixels = np.asarray(image)
        Image.fromarray(np.roll(pixels[:, ::-1], (6, -5), axis=(0, 1))).save(synthetic / name)
    images = ImageOptions(group_by="parent")
    summaries = {}
    for views in ("none", "bank"):
        options = AuditOptions(images=images, match=MatchOptions(views=views), verify=False)
        summaries[views] = audit(cohort.real, synthetic, tmp_path / views, options=options).summary
        assert summaries[views]["metric"]["views"] == views
        assert summaries[views]["thresholds"]["views"] == views
        assert json.loads((tmp_path / views / "run.json").read_text())["options"]["views"] == views
    first = {
        views: pq.read_table(tmp_path / views / "matches.parquet", filters=[("rank", "=", 1)]).to_pylist()
        for views in summaries
    }
    assert {row["synthetic_id"]: row["real_id"] for row in first["bank"]} == cohort.copies
    # The shift is no whole number of pixels of the thumbnail, which costs some of the score.
    assert all(a["score"] > b["score"] for a, b in zip(first["bank"], first["none"], strict=True))
    assert summaries["bank"]["synthetic_flagged"]["flagged"] > summaries["none"]["synthetic_flagged"]["flagged"] == 0
    assert "in place" in summaries["none"]["limits"][0]
    assert "any angle" in summaries["bank"]["limits"][0]


def test_thresholds_of_other_views_are_refused(cohort, tmp_path):
    calibration = load_calibration("pixel.brain.views-none")
    with pytest.raises(UsageError, match=r"pixel\.brain\.views-none of this package is for --views none, not bank"):
        audit(
            cohort.real, cohort.synthetic, tmp_path / "out", options=AuditOptions(calibration=calibration, verify=False)
        )


def test_a_metric_without_layout_has_no_views(tmp_path):
    rng = np.random.default_rng(1)
    stores = [store_of(tmp_path / name, unit(rng, 5), ["a"] * 5).path for name in ("r", "s")]
    options = AuditOptions(thresholds=(0.5, 0.8), match=MatchOptions(views="bank"), command="score")
    with pytest.raises(UsageError, match="the metric test has no views"):
        score(*stores, tmp_path / "out", options=options)
    options = dataclasses.replace(options, match=MatchOptions())
    assert score(*stores, tmp_path / "out", options=options).summary["metric"]["views"] == "none"


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, Store, np.ndarray]:
    rng = np.random.default_rng(5)
    layout = (9, 8)
    real, holdout = unit(rng, 40, layout), unit(rng, 30, layout)
    queries = np.ascontiguousarray(
        np.concatenate([real[:6].reshape(-1, *layout)[:, :, ::-1].reshape(6, -1), unit(rng, 5, layout)])
    )
    folder = tmp_path_factory.mktemp("pictures")
    return store_of(folder / "r", real, ["a"] * 40), store_of(folder / "h", holdout, ["b"] * 30), queries


def matcher_of(pictures, views, **more) -> Matcher:
    real = Reference(pictures[0])
    control = Control(real, Reference(pictures[1]))
    return Matcher(real, control, (0.7, 0.95), MatchOptions(views=views, **more), 11, (9, 8))


def test_a_mirrored_copy_is_found_in_views_alone(pictures):
    plain = matcher_of(pictures, "none").match_rows(pictures[2], 0)
    assert (plain.scores[:6, 0] < 0.95).all()
    for views in ("flips", "bank"):
        part = matcher_of(pictures, views).match_rows(pictures[2], 0, [Subject(90, 90)] * 11)
        assert part.rows[:6, 0].tolist() == list(range(6))
        assert (part.scores[:6, 0] > 0.9999).all()
        assert (part.scores >= plain.scores).all()
        assert [int((part.listed_queries == i).sum()) for i in range(6)] == part.levels[:6].astype(bool).sum(1).tolist()
        assert (part.levels[:6] == 2).sum(axis=1).tolist() == [1] * 6
        assert np.array_equal(part.control_values[:, 0], part.scores[:, 0])
        assert (part.control_values[:6, 1] < 0.95).all()


def test_views_do_not_depend_on_threads_and_pieces(pictures):
    whole = matcher_of(pictures, "bank", threads=1).match_rows(pictures[2], 0)
    other = matcher_of(pictures, "bank", threads=2)
    other.chunk_rows = 4
    pieces = other.match_rows(pictures[2], 0)
    for name in ("scores", "rows", "levels", "listed_queries", "listed_rows", "control_values", "control_rows"):
        assert np.array_equal(getattr(whole, name), getattr(pieces, name)), name


def test_the_plan_counts_the_views(pictures):
    planned = {v: matcher_of(pictures, v).planned_bytes for v in ("flips", "bank")}
    assert planned["bank"] - planned["flips"] > 2 * 4 * 72 * (len(BANK) - len(FLIPS))
    with pytest.raises(MemoryLimitError, match="at least"):
        matcher_of(pictures, "bank", memory_limit=2**20)
