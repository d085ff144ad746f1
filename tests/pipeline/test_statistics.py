from __future__ import annotations

from fractions import Fraction
from math import comb

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deepssim.control import draw_by_group
from deepssim.statistics import extreme_bound, image_rate, patient_rate, sign_test, wilson_interval


@given(st.integers(0, 60), st.integers(0, 60))
def test_the_sign_test_equals_the_binomial_tail(wins, losses):
    n = wins + losses
    tail = Fraction(sum(comb(n, i) for i in range(wins, n + 1)), 2**n) if n else Fraction(1)
    assert sign_test(wins, losses) == pytest.approx(float(tail), rel=1e-9)


@given(st.integers(1, 10**6), st.data())
def test_the_wilson_interval_holds_the_rate(total, data):
    events = data.draw(st.integers(0, total))
    low, high = wilson_interval(events, total)
    assert 0 <= low <= events / total + 1e-12
    assert events / total - 1e-12 <= high <= 1


def test_no_event_gives_the_exact_bound():
    assert image_rate(0, 100).high == pytest.approx(1 - 0.05**0.01)
    rate = patient_rate(np.zeros(10, np.int64), np.full(10, 50))
    assert rate.high == extreme_bound(10)  # ten people say what ten people can, however many images they have


def test_images_of_one_patient_are_not_independent():
    events, totals = np.array([40, 0, 0, 0, 0, 0, 0, 0]), np.full(8, 40)
    by_patient = patient_rate(events, totals)
    by_image = image_rate(40, 320)
    assert by_patient.rate == by_image.rate
    assert by_patient.high - by_patient.low > 3 * (by_image.high - by_image.low)


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(0)
    covered = 0
    for seed in range(60):
        shares = rng.beta(2, 8, 60)
        rate = patient_rate(rng.binomial(10, shares), np.full(60, 10), seed=seed)
        covered += rate.low <= 0.2 <= rate.high
    assert covered >= 51


@given(st.lists(st.integers(-1, 5), min_size=1, max_size=60), st.integers(0, 70), st.integers(0, 3))
def test_a_draw_has_the_size_asked_for_and_cuts_at_most_one_person(codes, n, seed):
    codes = np.array(codes, np.int64)
    drawn = draw_by_group(codes, n, seed)
    assert len(drawn) == min(n, len(codes)) == len(set(drawn.tolist()))
    assert (np.diff(drawn) > 0).all()
    cut = [c for c in set(codes[drawn].tolist()) if c >= 0 and (codes[drawn] == c).sum() != (codes == c).sum()]
    assert len(cut) <= 1
    assert (draw_by_group(codes, n, seed) == drawn).all()
