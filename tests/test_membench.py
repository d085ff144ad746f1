"""The benchmark with known truth: its truth is true."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from benchmarks.membench.bench import CONDITIONS, N_NONE, make_bench
from benchmarks.membench.collection import Collection, read_collection

from deepssim.evaluate import EXACT, NEAR, UNRELATED

DATA = Path(os.environ.get("DEEPSSIM_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))


@pytest.fixture(scope="module")
def phantoms() -> Collection:
    whole = read_collection(None, "phantom", {"tune"}, side=56)
    few = np.isin(whole.people, np.unique(whole.people)[:5])
    images = [image for image, used in zip(whole.images, few, strict=True) if used]
    return Collection("phantom", images, whole.people[few], whole.levels[few])


@pytest.mark.parametrize("condition", CONDITIONS)
def test_copies_show_their_source_and_others_do_not(phantoms, condition):
    bench = make_bench(phantoms, condition, seed=1)
    copied = bench.truth != UNRELATED
    assert ((bench.source == N_NONE) == ~copied).all()
    assert (bench.people[copied] == bench.real_people[bench.source[copied]]).all()
    assert (np.bincount(bench.source[bench.truth == EXACT]) == 1).all()
    assert (np.bincount(bench.source[bench.truth == NEAR]) == 2).all()
    strangers = ~copied & ~bench.is_sibling
    assert not set(bench.people[strangers]) & set(bench.real_people)
    assert set(bench.people[bench.is_sibling]) <= set(bench.real_people)
    assert strangers.sum() == round(1.5 * copied.sum())


def test_aligned_copies_are_nearer_to_their_source_than_to_others(phantoms):
    bench = make_bench(phantoms, "aligned", seed=1)
    real, made = (np.stack(x).reshape(len(x), -1) for x in (bench.real, bench.synthetic))
    real, made = (x - x.mean(axis=1, keepdims=True) for x in (real, made))
    scores = made @ real.T / np.linalg.norm(made, axis=1)[:, None] / np.linalg.norm(real, axis=1)
    exact = bench.truth == EXACT
    assert (scores[exact].argmax(axis=1) == bench.source[exact]).all()


def test_siblings_are_two_slices_away(phantoms):
    bench = make_bench(phantoms, "aligned", seed=1)
    for person in np.unique(bench.people[bench.is_sibling]):
        assert (bench.real_people == person).sum() == 6
    assert bench.is_sibling.any()


def test_a_seed_gives_the_same_images_and_conditions_the_same_people(phantoms):
    first, again = (make_bench(phantoms, "hard", seed=4) for _ in range(2))
    assert all((a == b).all() for a, b in zip(first.synthetic, again.synthetic, strict=True))
    other = make_bench(phantoms, "aligned", seed=4)
    assert (first.real_people == other.real_people).all()
    assert (make_bench(phantoms, "hard", seed=5).real_people != first.real_people).any()


def test_distractors_are_no_ones_source(phantoms):
    more = read_collection(None, "phantom", {"train"}, side=56)
    bench = make_bench(phantoms, "aligned", seed=1, distractors=more)
    assert len(bench.real) == len(bench.real_people)
    assert bench.source.max() < len(bench.real) - len(more)


def test_data_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ValueError, match="DEEPSSIM_DATA"):
        read_collection(tmp_path, "brain", {"test"})
    with pytest.raises(ValueError, match="unknown domain"):
        read_collection(tmp_path, "knee", {"test"})


@pytest.mark.skipif(not (DATA / "splits.csv").is_file(), reason="no folder of real images: set DEEPSSIM_DATA")
def test_splits_share_no_one():
    for domain in ("brain", "chest"):
        people = [set(read_collection(DATA, domain, {split}).people) for split in ("train", "tune", "test")]
        assert all(people)
        assert sum(map(len, people)) == len(set.union(*people))
