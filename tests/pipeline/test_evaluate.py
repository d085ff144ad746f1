"""Agreement of labels and scores with a known truth."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deepssim.errors import UsageError
from deepssim.evaluate import (
    best_cuts,
    class_report,
    interval_by_person,
    labels_of,
    rate_at_false_positives,
)

classes = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=1, max_size=60)


def slow_f1(truth, predicted, label):
    hits = sum(t == p == label for t, p in zip(truth, predicted, strict=True))
    return 2 * hits / max(1, sum(t == label for t in truth) + sum(p == label for p in predicted))


@given(classes)
def test_f1_counts_each_class_on_its_own(pairs):
    truth, predicted = (np.array(x) for x in zip(*pairs, strict=True))
    report = class_report(truth, predicted)
    assert report.confusion.sum() == len(truth)
    np.testing.assert_allclose(report.f1, [slow_f1(truth, predicted, c) for c in range(3)])
    present = sorted(set(truth) | set(predicted))
    assert report.macro_f1 == pytest.approx(np.mean([slow_f1(truth, predicted, c) for c in present]))


def test_perfect_and_wrong_labels():
    truth = np.array([0, 1, 2, 0])
    assert class_report(truth, truth).macro_f1 == class_report(truth, truth).weighted_f1 == 1.0
    assert class_report(truth, (truth + 1) % 3).macro_f1 == 0.0


@pytest.mark.parametrize("predicted", [[0, 1], [0, 1, 3], [0, -1, 1]])
def test_labels_that_do_not_fit_are_refused(predicted):
    with pytest.raises(UsageError):
        class_report(np.array([0, 1, 2]), np.array(predicted))


@given(st.lists(st.tuples(st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0]), st.integers(0, 2)), min_size=1, max_size=25))
@settings(deadline=None)
def test_no_pair_of_cuts_between_scores_is_better(pairs):
    scores, truth = (np.array(x) for x in zip(*pairs, strict=True))

    def value(near, exact):
        report = class_report(truth, labels_of(scores, near, exact))
        return report.f1.mean()

    near, exact = best_cuts(scores, truth)
    assert near <= exact
    grid = [-1.0, 0.125, 0.375, 0.625, 0.875, 2.0]
    assert value(near, exact) >= max(value(a, b) for a in grid for b in grid if a <= b) - 1e-12


def test_separable_scores_are_separated_with_room():
    scores = np.array([0.1, 0.2, 0.5, 0.6, 0.9, 0.95])
    near, exact = best_cuts(scores, np.array([0, 0, 2, 2, 1, 1]))
    assert (near, exact) == (pytest.approx(0.35), pytest.approx(0.75))


@given(
    st.lists(st.integers(0, 9), min_size=1, max_size=30),
    st.lists(st.integers(0, 9), min_size=1, max_size=30),
    st.sampled_from([0.0, 0.01, 0.1, 0.5, 1.0]),
)
def test_no_more_negatives_than_allowed_reach_the_cut(positives, negatives, share):
    positives, negatives = np.array(positives, float), np.array(negatives, float)
    rate, cut = rate_at_false_positives(positives, negatives, share)
    assert (negatives >= cut).mean() <= share
    assert rate == (positives >= cut).mean()
    lower = np.unique(negatives[negatives < cut])
    if lower.size:  # the next lower score would let too many pass
        assert (negatives >= lower[-1]).mean() > share


def test_sides_without_scores_are_refused():
    with pytest.raises(UsageError):
        rate_at_false_positives(np.array([]), np.array([1.0]), 0.1)
    with pytest.raises(UsageError):
        best_cuts(np.array([]), np.array([], int))
    with pytest.raises(UsageError):
        interval_by_person(lambda i: 0.0, np.array([]))


def test_images_of_a_person_are_drawn_together():
    people = np.repeat(["a", "b", "c"], [1, 5, 2])
    sizes = []

    def statistic(indices):
        counts = np.bincount(indices, minlength=8)
        assert counts[1] == counts[5]
        assert counts[6] == counts[7]
        sizes.append(len(indices))
        return float(len(indices))

    low, high = interval_by_person(statistic, people, seed=3)
    assert min(sizes) <= low <= high <= max(sizes)
    assert interval_by_person(lambda i: float(len(i)), people, seed=3) == (low, high)
