"""Figures of metrics on labelled pairs: scikit-learn as the oracle, intervals by simulation, hand-made cases."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest
from sklearn import metrics as sk

from deepssim.calibration import Calibration, Threshold
from deepssim.errors import UsageError
from deepssim.evaluate import (
    EXACT,
    NEAR,
    UNRELATED,
    Contrast,
    Resampling,
    Silhouette,
    best_registered_cuts,
    evaluate_pairs,
    holm,
    mcnemar,
    rate_at_false_positives,
    resample,
    table,
)
from deepssim.evaluate.measures import LABEL_FIGURES, Measures
from deepssim.labelled import LabelledPairs
from deepssim.labelled.scores import PairScores
from deepssim.labelled.thresholds import choose_thresholds, give_thresholds

CUTS = Calibration("m", Threshold(0.6, ">"), Threshold(0.85, ">"), "a test")
rows = st.lists(
    st.tuples(st.sampled_from([0.0, 0.3, 0.6, 0.61, 0.85, 0.9, 1.0]), st.integers(0, 2), st.integers(0, 3)),
    min_size=3,
    max_size=40,
)


def pairs_of(labels, people=None, images=None) -> LabelledPairs:
    n = len(labels)
    people = np.array([f"p{k}" for k in range(n)] if people is None else people, np.str_)
    images = [f"s{k}" for k in range(n)] if images is None else images
    return LabelledPairs(Path("pairs.csv"), tuple(people), tuple(images), np.array(labels), people, "a test")


def repeated(values, weights):
    return np.repeat(np.asarray(values), weights)


def columns(found):
    scores, truth, weights = (np.array(column) for column in zip(*found, strict=True))
    return scores.astype(float), truth, weights


@given(rows)
@settings(deadline=None, max_examples=40)
def test_weighted_figures_of_labels_are_those_of_scikit_learn_on_repeated_pairs(found):
    scores, truth, weights = columns(found)
    measures = Measures(PairScores("m", scores, CUTS), truth)
    for weight in (np.ones_like(weights), weights):
        if not weight.sum():
            continue
        value = dict(zip(measures.names, measures.of(weight[None].astype(float))[0], strict=True))
        y, z = repeated(truth, weight), repeated(measures.labels, weight)
        each = sk.precision_recall_fscore_support(y, z, labels=[0, 1, 2], zero_division=0)
        wanted = [
            sk.f1_score(y, z, average="macro", zero_division=0),
            sk.f1_score(y, z, average="weighted", zero_division=0),
            *(each[kind][label] for label in range(3) for kind in range(3)),
        ]
        np.testing.assert_allclose([value[name] for name in LABEL_FIGURES], wanted, atol=1e-12)


@given(rows)
@settings(deadline=None, max_examples=40)
def test_weighted_curves_are_those_of_scikit_learn_on_repeated_pairs(found):
    scores, truth, weights = columns(found)
    contrast = Contrast(scores, truth == EXACT, truth != EXACT)
    area, rate = contrast.measure(weights[None].astype(float), (0.2,))[0]
    y, z = repeated(truth == EXACT, weights), repeated(scores, weights)
    if y.all() or not y.any():
        assert np.isnan(area)
        assert np.isnan(rate)
        return
    assert area == pytest.approx(sk.roc_auc_score(y, z))
    assert rate == pytest.approx(rate_at_false_positives(z[y], z[~y], 0.2)[0])
    alarms, passed, _ = sk.roc_curve(y, z, drop_intermediate=False)
    assert rate == pytest.approx(passed[alarms <= 0.2 + 1e-9].max())


@given(rows)
@settings(deadline=None, max_examples=40)
def test_weighted_silhouette_is_that_of_scikit_learn_on_repeated_pairs(found):
    scores, truth, weights = columns(found)
    value = Silhouette(scores, truth).mean(weights[None].astype(float))[0]
    y, z = repeated(truth, weights), repeated(scores, weights)
    if len(set(y.tolist())) < 2:
        assert np.isnan(value)
    elif len(set(y.tolist())) < len(y):  # scikit-learn has no silhouette where every pair is a class of its own
        assert value == pytest.approx(sk.silhouette_score(z[:, None], y), abs=1e-6)


def test_a_hand_made_case():
    truth = [0, 0, 0, 2, 2, 1, 1, 1]
    scores = np.array([0.1, 0.2, 0.7, 0.7, 0.8, 0.9, 0.9, 0.5])
    found = evaluate_pairs(pairs_of(truth), [PairScores("m", scores, CUTS)]).metrics[0]
    value = {name: figure.value for name, figure in found.figures.items()}
    assert found.report.confusion.tolist() == [[2, 0, 1], [1, 2, 0], [0, 0, 2]]
    assert value["f1_unrelated"] == pytest.approx(2 / 3)
    assert value["f1_exact"] == pytest.approx(0.8)
    assert value["f1_near"] == pytest.approx(0.8)
    assert value["macro_f1"] == pytest.approx((2 / 3 + 0.8 + 0.8) / 3)
    assert value["weighted_f1"] == pytest.approx((3 * 2 / 3 + 5 * 0.8) / 8)
    # 15 comparisons of exact with others: 5 each won by the two at .9, of the one at .5 two.
    assert value["auc_exact"] == pytest.approx(12 / 15)
    assert value["tpr_5_exact"] == pytest.approx(2 / 3)
    assert found.cuts["tpr_5_exact"] == 0.9
    # The unrelated pair at .7 meets a near one there: a tie counts half.
    assert value["auc_copies"] == pytest.approx((15 - 1 - 0.5) / 15)
    assert value["tpr_5_copies"] == pytest.approx(3 / 5)


def test_images_of_several_people_make_the_resampling_two_way():
    assert not Resampling(np.array(["a", "a", "b"]), np.array(["x", "x", "y"])).is_two_way
    shared = Resampling(np.array(["a", "b", "b"]), np.array(["x", "x", "y"]), resamples=500)
    assert shared.is_two_way
    weights = np.concatenate(list(shared.weights()))
    assert weights.shape == (500, 3)
    # Drawn 0, 1 or 2 times each, and the weight is the product: of two people and two images only these can be.
    assert set(np.unique(weights)) == {0.0, 1.0, 2.0, 4.0}
    # Pairs 0 and 1 share the image: where both have weight, both people were drawn, once each.
    both = (weights[:, 0] > 0) & (weights[:, 1] > 0)
    assert (weights[both, 0] == weights[both, 1]).all()


def test_draws_do_not_depend_on_how_many_are_made_at_a_time(monkeypatch):
    people, images = np.arange(9) // 2, np.arange(9) % 5
    whole = np.concatenate(list(Resampling(people, images, resamples=100, seed=3).weights()))
    monkeypatch.setattr(resample, "_BLOCK_WEIGHTS", 70)
    parts = list(Resampling(people, images, resamples=100, seed=3).weights())
    assert len(parts) > 1
    np.testing.assert_array_equal(np.concatenate(parts), whole)


@pytest.mark.parametrize("is_crossed", [False, True])
def test_an_interval_holds_the_truth_about_as_often_as_it_says(is_crossed):
    # Whether a pair is labelled rightly depends on its person, and on its image where these are shared.
    rng = np.random.default_rng(5)
    n_people, n_each, held, held_naively, n = 40, 8, 0, 0, 100
    for k in range(n):
        people = np.repeat(np.arange(n_people), n_each)
        images = rng.integers(0, 60, len(people)) if is_crossed else np.arange(len(people))
        effect = rng.normal(size=n_people)[people] + (rng.normal(size=60)[images] if is_crossed else 0)
        is_right = rng.normal(size=len(people)) + effect > 0  # one half of all that could be drawn
        for units in (people, np.arange(len(people))):
            once = Resampling(units, images if units is people else units, resamples=200, seed=k)
            assert once.is_two_way == (is_crossed and units is people)
            weights = np.concatenate(list(once.weights()))
            low, high = np.quantile(weights @ is_right / np.maximum(weights.sum(axis=1), 1), [0.025, 0.975])
            if units is people:
                held += low <= 0.5 <= high
            else:
                held_naively += low <= 0.5 <= high
    assert held / n > 0.88
    assert held_naively / n < held / n - 0.08


def test_what_is_all_right_gets_the_exact_bound_of_so_many_people():
    truth = [0, 1, 2] * 5
    people = np.repeat([f"p{k}" for k in range(5)], 3)
    found = evaluate_pairs(pairs_of(truth, people), [PairScores("m", np.array([0.1, 0.9, 0.7] * 5), CUTS)])
    bound = 1 - 0.05 ** (1 / 5)
    for name in ("macro_f1", "recall_exact", "precision_near", "auc_exact", "auc_copies", "tpr_5_exact"):
        figure = found.metrics[0].figures[name]
        assert (figure.value, figure.high) == (1.0, 1.0)
        assert figure.low == pytest.approx(1 - bound), name
    assert any("few" in line for line in found.warnings)


def test_one_person_says_nothing_about_others():
    found = evaluate_pairs(pairs_of([0, 1, 2, 0], ["p"] * 4), [PairScores("m", np.array([0.1, 0.9, 0.7, 0.7]), CUTS)])
    figure = found.metrics[0].figures["macro_f1"]
    assert (figure.low, figure.high) == (0.0, 1.0)
    assert "one person" in figure.note


def test_too_few_negatives_for_a_rate_are_said_in_words():
    rng = np.random.default_rng(0)
    few = evaluate_pairs(pairs_of([1] * 10 + [0] * 50), [PairScores("m", rng.random(60), CUTS)]).metrics[0]
    assert few.figures["tpr_0.1_exact"].value is None
    assert "no false positive among 50 negatives bounds the rate at 5.8 %" in few.figures["tpr_0.1_exact"].note
    assert few.figures["tpr_1_exact"].value is not None
    assert "no false positive among 50" in few.figures["tpr_1_exact"].note
    many = evaluate_pairs(pairs_of([1] * 10 + [0] * 1000), [PairScores("m", rng.random(1010), CUTS)], resamples=100)
    assert many.metrics[0].figures["tpr_0.1_copies"].value is not None


def test_a_missing_class_is_said_and_its_figures_are_not_defined():
    found = evaluate_pairs(pairs_of([0, 0, 2, 2]), [PairScores("m", np.array([0.1, 0.2, 0.7, 0.9]), CUTS)])
    assert found.metrics[0].figures["auc_exact"].value is None
    assert found.metrics[0].figures["auc_copies"].value == 1.0
    assert any("exact" in line for line in found.warnings)


def test_without_thresholds_labels_are_not_judged():
    found = evaluate_pairs(pairs_of([0, 1, 2]), [PairScores("m", np.array([0.1, 0.9, 0.7]), None)]).metrics[0]
    assert found.report is None
    assert "macro_f1" not in found.figures
    assert found.figures["auc_exact"].value == 1.0


def test_scores_that_meet_a_rounded_threshold_are_compared_with_the_threshold_itself_and_counted():
    scores = np.array([np.float16(0.6), np.float16(0.85), 0.1], np.float64)  # both a little over the threshold
    stored = PairScores("m", scores, CUTS, precision="float16")
    assert stored.labels().tolist() == [NEAR, EXACT, UNRELATED]
    assert stored.n_on_thresholds() == 2
    assert PairScores("m", scores, CUTS).n_on_thresholds() == 0
    notes = evaluate_pairs(pairs_of([0, 1, 2]), [stored]).metrics[0].notes
    assert "2 scores meet a threshold once it is rounded to float16" in notes[0]


def test_exact_copies_among_registered_pairs_are_told_by_s2_of_those_that_s1_calls_copies():
    verified = Calibration("verified", Threshold(0.7), Threshold(0.6), "a test", stage="verified")
    s1 = np.array([0.2, 0.3, 0.9, 0.95, 0.8])
    s2 = np.array([0.99, 0.1, 0.5, 0.9, 0.4])  # an unrelated pair may by chance have a high low end
    found = evaluate_pairs(pairs_of([0, 0, 2, 1, 2]), [PairScores("verified", s1, verified, s2)]).metrics[0]
    assert found.labels.tolist() == [UNRELATED, UNRELATED, NEAR, EXACT, NEAR]
    assert found.figures["auc_exact"].value == 1.0
    near, exact = best_registered_cuts(s1, s2, np.array([0, 0, 2, 1, 2]))
    assert 0.3 < near <= 0.8
    assert 0.5 < exact <= 0.9


def test_two_metrics_share_their_draws():
    rng = np.random.default_rng(1)
    truth = rng.choice(3, 300)
    people = rng.integers(0, 40, 300).astype(str)
    good = np.array([0.3, 0.95, 0.7])[truth] + rng.normal(size=300) * 0.05
    bad = np.array([0.3, 0.95, 0.7])[truth] + rng.normal(size=300) * 0.3
    pairs = pairs_of(truth, people)
    found = evaluate_pairs(pairs, [PairScores(n, s, CUTS) for n, s in (("a", good), ("b", bad), ("c", good))])
    by_names = {(one.first, one.second, one.figure): one for one in found.comparisons}
    better = by_names["a", "b", "macro_f1"]
    assert 0 < better.low < better.difference < better.high
    assert better.p < 0.01
    assert better.p <= better.p_holm <= 3 * better.p
    same = by_names["a", "c", "macro_f1"]
    assert (same.difference, same.p) == (0.0, 1.0)
    assert same.low == pytest.approx(-(1 - 0.05 ** (1 / 40)))
    a, b = (found.metrics[k].labels == truth for k in (0, 1))
    test = better.mcnemar
    assert (test.first_only, test.second_only) == (int((a & ~b).sum()), int((b & ~a).sum()))
    assert test.p == pytest.approx(binomtest(test.first_only, test.first_only + test.second_only).pvalue)


def test_seeds_decide_the_intervals():
    truth, scores = [0, 1, 2] * 6, np.tile([0.1, 0.8, 0.9], 6)
    again = [evaluate_pairs(pairs_of(truth), [PairScores("m", scores, CUTS)], seed=s).as_dict() for s in (1, 1, 2)]
    assert again[0] == again[1]
    assert again[0] != again[2]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_keeps_order_and_lies_between_plain_and_bonferroni(p_values):
    found = holm(p_values)
    order = np.argsort(p_values, kind="stable")
    assert (np.diff(np.array(found)[order]) >= 0).all()
    assert all(p <= q <= min(1.0, len(p_values) * p) + 1e-12 for p, q in zip(p_values, found, strict=True))


@given(st.integers(0, 30), st.integers(0, 30))
def test_mcnemar_is_the_two_sided_binomial_test(first, second):
    a = np.repeat([True, False, True], [first, second, 3])
    b = np.repeat([False, True, True], [first, second, 3])
    wanted = binomtest(first, first + second).pvalue if first + second else 1.0
    assert mcnemar(a, b).p == pytest.approx(wanted)


def test_thresholds_that_a_user_gives_are_read_by_metric():
    scores = [
        PairScores("ssim", np.array([0.5]), None),
        PairScores("verified", np.array([0.5]), None, np.array([0.5])),
        PairScores("ums_l2", np.array([0.5]), None, similarity="l2"),
    ]
    found = give_thresholds(scores, ["ssim=.4,.6", "verified=.7,.6", "ums_l2=1,.5"], [])
    assert [one.calibration.stage for one in found] == ["embedding", "verified", "embedding"]
    assert found[2].calibration.near.value == pytest.approx(0.5)  # a distance of 1
    assert [one.labels().tolist() for one in found] == [[NEAR], [UNRELATED], [NEAR]]
    with pytest.raises(UsageError, match="x, y, which is not evaluated"):
        give_thresholds(scores, ["x=.4,.6", "y=.1,.2"], [])
    with pytest.raises(UsageError, match="for one metric"):
        give_thresholds(scores, [".4,.6"], [])
    with pytest.raises(UsageError, match="twice"):
        give_thresholds(scores, ["ssim=.4,.6"], ["ssim=pixel"])
    with pytest.raises(UsageError, match="stage verified"):
        give_thresholds(scores, [], ["ssim=verified"])


def test_thresholds_chosen_on_pairs_are_their_best():
    rng = np.random.default_rng(2)
    truth = rng.choice(3, 90)
    scores = PairScores("m", np.array([0.2, 0.9, 0.5])[truth] + rng.normal(size=90) * 0.12, None)
    (chosen,) = choose_thresholds(pairs_of(truth), [scores], "a test")
    grid = np.linspace(0, 1.2, 20)
    best = max(
        sk.f1_score(truth, np.where(scores.scores >= b, 1, np.where(scores.scores >= a, 2, 0)), average="macro")
        for a in grid
        for b in grid[grid >= a]
    )
    labels = PairScores("m", scores.scores, chosen).labels()
    assert sk.f1_score(truth, labels, average="macro") >= best - 1e-12


def test_names_that_come_from_files_stay_on_one_line_and_command_nothing():
    truth = np.array([0, 1, 2])
    name = "=1+1\n\\input{x}\x1b[31m\u202e[a](b)|"
    pairs = replace(pairs_of(truth), people_from="regex:a\nb")
    cuts = Calibration("m", Threshold(0.4), Threshold(0.6), "a file\nof somebody")
    found = evaluate_pairs(pairs, [PairScores(name, np.array([0.1, 0.9, 0.5]), cuts)], resamples=100)
    plain = evaluate_pairs(pairs, [PairScores("m", np.array([0.1, 0.9, 0.5]), cuts)], resamples=100)
    for write in (table.as_text, table.as_markdown, table.as_latex):
        text = write(found)
        assert not {"\x1b", "\u202e"} & set(text)
        assert text.count("\n") == write(plain).count("\n")
    assert "](b" not in table.as_markdown(found)
    assert "\\input" not in "".join(line for line in table.as_latex(found).splitlines() if line[0:1] != "%")
