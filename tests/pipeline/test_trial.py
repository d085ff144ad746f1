"""The trial of the screening on copies of the real images themselves."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from deepssim.audit import AuditOptions, audit
from deepssim.calibration import load_calibration
from deepssim.embed import Encoder
from deepssim.evidence import Verifier
from deepssim.images import ImageOptions, list_images
from deepssim.matching import Matcher, MatchOptions, Reference
from deepssim.metric import load_metric
from deepssim.phantom import make_cohort
from deepssim.store_build import build_store
from deepssim.trial import most_candidates, run_trial
from deepssim.verdict import screening_sentence, screening_warnings


@pytest.fixture(scope="module")
def encoder():
    return Encoder(load_metric("pixel"), device="cpu", threads=1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trial") / "real"
    for person, level, image in make_cohort(6, 3, seed=8):
        path = folder / person / f"{level}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.rint(image * 255).astype(np.uint8)).save(path)
    return folder


@pytest.fixture(scope="module")
def store(folder, encoder, tmp_path_factory):
    listing = list_images(folder, ImageOptions(group_by="parent"))
    return build_store(listing, encoder, tmp_path_factory.mktemp("trial") / "s.store", with_working=True)


def try_on(store, encoder, **options):
    calibration = load_calibration("verified")
    match = MatchOptions(threads=1, **options)
    matcher = Matcher(Reference(store), None, calibration.cuts(), match, 18, (32, 28), Verifier(calibration, 1))
    return run_trial(matcher, encoder, expected_rows=18, seed=3)


def test_with_all_images_as_candidates_every_source_is_found(store, encoder):
    found = try_on(store, encoder, k=18, max_per_group=0, views="none")
    assert (found.both.events, found.both.total) == (36, 36)
    assert screening_warnings(found.as_dict()) == []


def test_that_every_source_is_found_says_nothing_where_every_image_is_a_candidate(store, encoder):
    found = try_on(store, encoder, k=40, max_per_group=0, views="none").as_dict()
    assert (found["candidates"], found["real_images"]) == (18, 18)
    sentence = screening_sentence(found)
    assert "all 18 real images were looked at" in sentence
    assert "%" not in sentence
    assert "the one real image was looked at" in screening_sentence({**found, "candidates": 1, "real_images": 1})


def test_candidates_are_no_more_than_there_can_be(store, encoder):
    real = Reference(store)  # six people of three images
    for k, cap, expected in ((8, 2, 8), (40, 2, 12), (40, 1, 6), (40, 0, 18), (40, 5, 18), (0, 0, 1)):
        assert most_candidates(real, MatchOptions(k=k, max_per_group=cap)) == expected
    real.codes = np.full(18, -1)
    assert most_candidates(real, MatchOptions(k=40, max_per_group=1)) == 18
    assert try_on(store, encoder, k=40, max_per_group=1, views="none").candidates == 6


def test_a_screening_that_sees_images_in_place_alone_misses_moved_copies_and_a_warning_says_so(store, encoder):
    blind = try_on(store, encoder, k=1, views="none")
    seeing = try_on(store, encoder, k=1, views="bank")
    assert blind.both.rate < 0.5 < seeing.both.rate
    assert blind.both.low <= blind.both.rate <= blind.both.high
    warning = screening_warnings(blind.as_dict())
    assert len(warning) == 1
    assert "--k" in warning[0]


def test_the_same_run_tries_the_same_copies(store, encoder):
    assert try_on(store, encoder, k=2, views="flips") == try_on(store, encoder, k=2, views="flips")


def test_parts_add_up(store, encoder):
    found = try_on(store, encoder, k=2, views="flips")
    assert found.exact.total == found.near.total == 18
    assert found.exact.events + found.near.events == found.both.events


def test_an_audit_says_what_its_screening_finds(folder, tmp_path):
    options = AuditOptions(images=ImageOptions(group_by="parent"), match=MatchOptions(threads=1))
    synthetic = tmp_path / "synthetic"
    synthetic.mkdir()
    (synthetic / "a.png").write_bytes(next(folder.rglob("*.png")).read_bytes())
    result = audit(folder, synthetic, tmp_path / "out", options=options)
    trial = json.loads((tmp_path / "out" / "summary.json").read_text())["screening"]
    assert trial["candidates"] == 8
    assert trial["both"]["total"] == 36
    assert screening_sentence(trial) in result.summary["verdict"]["details"]
    unverified = audit(
        folder, synthetic, tmp_path / "other",
        options=AuditOptions(verify=False, images=ImageOptions(group_by="parent"), match=MatchOptions(threads=1)),
    )  # fmt: skip
    assert unverified.summary["screening"] is None
