"""Thresholds of verification: what they are chosen from, and how."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
from benchmarks.membench.bench import CONDITIONS
from benchmarks.membench.collection import Collection, read_collection
from benchmarks.membench.verified import FIELDS, S1, S2

from deepssim.calibration import Calibration
from deepssim.evaluate import EXACT, NEAR, UNRELATED


@pytest.fixture(scope="module")
def script():
    path = Path(__file__).parents[1] / "scripts" / "calibrate_verified.py"
    spec = importlib.util.spec_from_file_location("calibrate_verified", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def few(split, n_people, levels):
    whole = read_collection(None, "phantom", {split}, side=48)
    used = np.isin(whole.people, np.unique(whole.people)[:n_people]) & np.isin(whole.levels, levels)
    images = [image for image, is_used in zip(whole.images, used, strict=True) if is_used]
    return Collection("phantom", images, whole.people[used], whole.levels[used])


@pytest.fixture(scope="module")
def sample(script):
    return script.measure(few("tune", 3, [3, 4, 6]), few("train", 2, [4]), unrelated_part=1.0, seed=1, threads=1)


def made_up(script, seed):
    """A sample whose evidence is drawn: copies have one pair each, unrelated images one with each other person."""
    rng = np.random.default_rng(seed)
    base_people = np.repeat([f"p{i}" for i in range(12)], 2)
    kind = np.repeat([UNRELATED, script.SIBLING, EXACT, NEAR], [30, 10, 20, 40])
    people = base_people[rng.integers(0, len(base_people), len(kind))]
    table = np.full((len(kind), len(base_people), len(FIELDS)), np.nan, np.float32)
    for row, label, person in zip(table, kind, people, strict=True):
        own = base_people == person
        seen = ~own if label == UNRELATED else own & (np.arange(len(own)) % 2 == 0)
        s1, s2 = {UNRELATED: (0.5, 0.1), EXACT: (0.9, 0.7), NEAR: (0.85, 0.4)}.get(label, (0.6, 0.3))
        row[seen] = 0.0
        row[seen, S1] = rng.normal(s1, 0.08, seen.sum())
        row[seen, S2] = rng.normal(s2, 0.15, seen.sum())
    condition = rng.integers(0, len(CONDITIONS), len(kind))
    return script.Sample(kind, condition, people, table, base_people)


def test_each_kind_is_compared_with_what_it_is_to_be_told_from(script, sample):
    compared = np.isfinite(sample.evidence[..., S1])
    own = sample.people[:, None] == sample.base_people[None, :]
    assert (compared[sample.kind == UNRELATED] == ~own[sample.kind == UNRELATED]).all()
    for kind, n in ((EXACT, 1), (NEAR, 2)):
        rows = compared[sample.kind == kind]
        assert (rows.sum(axis=1) == 1).all()
        assert (own[sample.kind == kind] >= rows).all()
        assert (rows.sum(axis=0)[:9] == n * len(CONDITIONS)).all()
        assert not rows[:, 9:].any()  # nothing is copied from the others
    siblings = compared[sample.kind == script.SIBLING]
    assert (own[sample.kind == script.SIBLING] >= siblings).all()
    # Of slices 3, 4 and 6, those two steps apart.
    assert sorted(siblings.sum(axis=1).tolist()) == sorted([1, 1, 2] * 3 * len(CONDITIONS))


def test_values_are_those_of_the_pair_with_the_highest_s1(script):
    sample = made_up(script, 0)
    rows = sample.evidence[sample.kind == UNRELATED]
    expected = []
    for row in rows:
        pairs = [(pair[S1], -place, pair[S2]) for place, pair in enumerate(row) if not np.isnan(pair[S1])]
        expected.append(max(pairs))
    assert sample.value(UNRELATED).tolist() == [float(e[0]) for e in expected]
    assert sample.value(UNRELATED, "s2").tolist() == [float(e[2]) for e in expected]


def test_rates_are_those_that_counting_gives(script):
    sample = made_up(script, 1)
    found = script.rates(sample, 0.7, 0.5)
    for number, name in ((None, "all"), *enumerate(CONDITIONS)):
        seen = np.ones(len(sample.kind), bool) if number is None else sample.condition == number
        for kind, word in ((UNRELATED, "unrelated"), (NEAR, "near"), (EXACT, "exact"), (script.SIBLING, "sibling")):
            own = script.Sample(*(getattr(sample, f)[seen] for f in ("kind", "condition", "people", "evidence")), None)
            s1, s2 = own.value(kind), own.value(kind, "s2")
            assert found[name][f"{word}_flagged"]["value"] == pytest.approx((s1 >= 0.7).mean())
            if word == "near":
                assert found[name]["near_called_near"]["value"] == pytest.approx(((s1 >= 0.7) & (s2 < 0.5)).mean())
            if word == "exact":
                assert found[name]["exact_called_exact"]["value"] == pytest.approx(((s1 >= 0.7) & (s2 >= 0.5)).mean())


def test_few_unrelated_images_pass_the_threshold_and_copies_do(script, sample):
    found = script.describe(sample, 0)
    assert found["rates"]["all"]["unrelated_flagged"]["value"] <= 0.01
    assert found["rates"]["all"]["exact_flagged"]["value"] >= 0.95
    assert found["n_base"] == 2 * 3 + 2
    assert found["n"]["exact"] == 9 * len(CONDITIONS)


def test_the_nearest_of_more_people_is_nearer(script):
    rows = script.grow(made_up(script, 2), 0)
    assert [row["part"] for row in rows] == list(script.PARTS)
    for key in ("n_images", "q0.5", "q0.95", "max"):
        values = [row[key] for row in rows]
        assert values == sorted(values)


def test_the_default_takes_the_stricter_near_and_the_best_exact(script, tmp_path):
    samples = {"brain": made_up(script, 3), "chest": made_up(script, 4)}
    report = {domain: script.describe(sample, 0) for domain, sample in samples.items()}
    report["combined"] = combined = script.combine(samples, report)
    assert combined["near_threshold"] == max(report[d]["near_threshold"] for d in samples)

    def accuracy(cut):
        pairs = [(s.value(EXACT, "s2"), s.value(NEAR, "s2")) for s in samples.values()]
        return np.mean([((e >= cut).mean() + (n < cut).mean()) / 2 for e, n in pairs])

    best = max(accuracy(cut) for cut in np.arange(-1, 1.001, 0.0005))
    assert accuracy(combined["exact_threshold"]) == pytest.approx(best, abs=0.02)
    script.write_calibrations(tmp_path, report)
    for name, values in (("verified", combined), ("verified.brain", report["brain"])):
        written = Calibration.read(tmp_path / f"{name}.calibration.json")
        assert (written.near.value, written.exact.value) == (values["near_threshold"], values["exact_threshold"])
        assert written.stage == "verified"
        assert written.base_size == 22
        assert written.false_positive_rate is not None
        assert "scripts/calibrate_verified.py" in written.how
