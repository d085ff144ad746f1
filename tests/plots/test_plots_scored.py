"""Figures of labelled scores, read back from the figure and held against NumPy and scikit-learn."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from made_scores import make_scored
from matplotlib.colors import to_rgba
from sklearn.metrics import f1_score, precision_score, recall_score, roc_auc_score, roc_curve

from deepssim.calibration import Calibration, Curve, Threshold
from deepssim.errors import UsageError
from deepssim.evaluate import Contrast
from deepssim.plots import (
    Look,
    ScoredPairs,
    draw_calibration,
    draw_densities,
    draw_histogram,
    draw_roc,
    draw_sensitivity,
    roc_figures,
)
from deepssim.plots.curves import macro_f1_by_cut, roc, sensitivity
from deepssim.plots.densities import density
from deepssim.plots.marks import percent


def bars_of(axes: Any, colour: str) -> list[Any]:
    return [bar for bar in axes.patches if bar.get_facecolor()[:3] == to_rgba(colour)[:3]]


def texts_of(figure: Any) -> str:
    return "\n".join(text.get_text() for text in figure.findobj(lambda artist: hasattr(artist, "get_text")))


def test_the_histogram_has_the_published_bins_counts_colours_and_lines(scored):
    figure = draw_histogram([scored], Look(palette="reference", title="A title"))
    (axes,) = figure.axes
    edges = np.histogram_bin_edges(scored.scores, bins=55)
    for label, colour in ((0, "green"), (1, "red"), (2, "orange")):
        bars = bars_of(axes, colour)
        counts = np.histogram(scored.scores[scored.labels == label], bins=edges)[0]
        assert [bar.get_height() for bar in bars] == counts.tolist()
        np.testing.assert_allclose([bar.get_x() for bar in bars], edges[:-1], rtol=0, atol=1e-15)
        np.testing.assert_allclose([bar.get_width() for bar in bars], np.diff(edges), rtol=0, atol=1e-15)
        assert {bar.get_edgecolor()[:3] for bar in bars} == {(0, 0, 0)}
    assert sorted(line.get_xdata()[0] for line in axes.lines) == [0.6, 0.85]
    assert all(line.is_dashed() for line in axes.lines)
    assert axes.get_xlabel() == "A title"
    assert not axes.yaxis.get_visible()
    words = [text.get_text() for text in axes.get_legend().get_texts()]
    assert [word.partition(" ")[0] for word in words] == ["Different", "Duplicate", "Similar"]
    assert axes.get_legend()._loc == 2  # upper left


def test_no_bar_hides_another_and_none_reaches_the_legend():
    crowded = ScoredPairs("m", np.repeat([0.0, 0.0, 0.0, 1.0], [9, 5, 7, 1]), np.repeat([0, 1, 2, 0], [9, 5, 7, 1]))
    figure = draw_histogram([crowded])
    (axes,) = figure.axes
    first = sorted((bar for bar in axes.patches if bar.get_x() == 0 and bar.get_height()), key=lambda b: b.get_zorder())
    assert [bar.get_height() for bar in first] == [9, 7, 5]
    box = axes.get_legend().get_window_extent()
    assert max(bar.get_window_extent().y1 for bar in first) < box.y0


def test_thresholds_outside_the_scores_are_still_on_the_axis(scored):
    far = ScoredPairs("m", scored.scores, scored.labels, Threshold(1.5), Threshold(2.0))
    low, high = draw_histogram([far]).axes[0].get_xlim()
    assert low < scored.scores.min()
    assert high > 2.0


def test_a_distance_is_shown_as_one_and_its_thresholds_the_other_way_round(scored):
    shown = ScoredPairs("ums_l2", scored.scores, scored.labels, Threshold(0.5), Threshold(0.875), is_distance=True)
    (stage,) = shown.stages()
    np.testing.assert_allclose(stage.values, np.sqrt(2 - 2 * scored.scores))
    assert stage.marks == (("near", 1.0, "<="), ("exact", 0.5, "<="))
    assert stage.axis == "distance"


def test_one_threshold_is_one_line_and_two_stages_are_two_panels():
    one = ScoredPairs("dar", np.array([0.1, 0.9]), np.array([0, 1]), Threshold(0.8, ">"), Threshold(0.8, ">"))
    assert one.stages()[0].marks == (("exact", 0.8, ">"),)
    two = make_scored(has_detail=True)
    first, second = two.stages()
    assert [first.marks[0][0], second.marks[0][0]] == ["near", "exact"]
    assert len(second.values) == int((two.scores > 0.6).sum())
    assert len(draw_histogram([two]).axes) == 2


@pytest.mark.parametrize("n", [1, 2])
def test_a_single_value_and_a_single_class_are_drawn(n):
    pairs = ScoredPairs("m", np.full(n, 0.5), np.zeros(n, np.int64), Threshold(0.6), Threshold(0.8))
    for draw in (draw_histogram, draw_densities, draw_sensitivity):
        draw([pairs]).draw_without_rendering()
    assert "there are no copies" in texts_of(draw_roc([pairs]))
    assert roc_figures([pairs]) == [{"metric": "m", "copies": None, "exact": None}]


@pytest.mark.parametrize(
    ("scores", "labels", "what"),
    [
        ([0.1, np.nan], [0, 1], "1 of 2 scores are no finite number, the first of pair 2"),
        ([0.1, np.inf], [0, 1], "no finite number"),
        ([], [], "there are no pairs"),
        ([0.1, 0.2], [0, 3], "not 3"),
        ([0.1, 0.2], [0], "do not fit"),
    ],
)
def test_what_cannot_be_drawn_is_refused(scores, labels, what):
    with pytest.raises(UsageError, match=what):
        ScoredPairs("m", np.array(scores, np.float64), np.array(labels, np.int64))


def test_the_roc_is_that_of_scikit_learn_ties_included():
    rng = np.random.default_rng(1)
    for digits in (1, 2, 9):
        scores, flags = np.round(rng.random(300), digits), rng.random(300) < 0.3
        ours = roc(scores, flags)
        false, true, cuts = roc_curve(flags, scores, drop_intermediate=False)
        np.testing.assert_allclose(ours.false, false)
        np.testing.assert_allclose(ours.true, true)
        np.testing.assert_allclose(ours.cuts, cuts)
        assert ours.area == pytest.approx(roc_auc_score(flags, scores))
        contrast = Contrast(scores, flags, ~flags)
        for share in (0.05, 0.01, 0.0):
            assert ours.found_at(share) == pytest.approx(contrast.rate_at(np.ones((1, 300)), share)[0])


def test_the_drawn_line_keeps_the_area_and_marks_what_the_legend_says():
    one = make_scored(n=3000)
    figure = draw_roc([one])
    for axes, flags in zip(figure.axes, (one.labels != 0, one.labels == 1), strict=True):
        curve = roc(one.scores, flags)
        line = next(line for line in axes.lines if str(line.get_label()).startswith("ssim"))
        false, true = line.get_data()
        assert len(false) < len(curve.false)
        assert np.sum(np.diff(false) * (true[1:] + true[:-1]) / 2) == pytest.approx(curve.area)
        marks = next(line for line in axes.lines if line.get_marker() == "o")
        assert list(marks.get_xdata()) == [0.05, 0.01]
        assert list(marks.get_ydata()) == [curve.found_at(0.05), curve.found_at(0.01)]
        assert f"AUC {curve.area:.3f}" in line.get_label()


def test_words_of_thresholds_that_are_close_do_not_cover_each_other():
    scores = np.concatenate([np.linspace(0.9, 0.999, 30), np.linspace(0.2, 0.8, 30)])
    near, exact = Threshold(0.9948), Threshold(0.9952)
    labels = np.repeat([1, 0], 30)
    for one in (
        ScoredPairs("m", scores, labels, near, exact, is_distance=True),
        ScoredPairs("m", scores, labels, near, exact),
    ):
        figure = draw_histogram([one])
        figure.draw_without_rendering()
        boxes = [
            text.get_window_extent() for text in figure.axes[0].texts if text.get_text().strip()[:4] in ("near", "exac")
        ]
        assert len(boxes) == 2
        assert not boxes[0].overlaps(boxes[1])


def test_an_area_of_one_is_one_and_less_is_less():
    rng = np.random.default_rng(0)
    scores = np.concatenate([rng.random(270), 1 + rng.random(45)])
    whole = ScoredPairs("m", scores, np.repeat([0, 1], [270, 45]))
    label = draw_roc([whole]).axes[0].get_legend().get_texts()[0].get_text()
    assert "AUC 1.000;" in label
    scores = np.concatenate([np.linspace(0, 1, 2000), [2] * 2000])
    scores[-1] = 0.9999
    nearly = ScoredPairs("m", scores, np.repeat([0, 1], 2000))
    assert "AUC 0.99999" in draw_roc([nearly]).axes[0].get_legend().get_texts()[0].get_text()


def test_rates_that_so_few_negatives_cannot_show_are_not_marked():
    few = ScoredPairs("m", np.linspace(0, 1, 40), np.repeat([0, 1], [30, 10]))
    assert roc_figures([few])[0]["copies"]["found_at"] == {"0.05": 1.0}
    assert "1 %" not in draw_roc([few]).axes[0].get_legend().get_title().get_text()


def test_where_detail_decides_exact_copies_are_ranked_by_it_among_near_ones():
    pairs = ScoredPairs(
        "verified", np.array([0.9, 0.8, 0.7, 0.1]), np.array([2, 1, 0, 0]), Threshold(0.75), Threshold(0.5),
        np.array([0.2, 0.9, 0.99, 0.99]),
    )  # fmt: skip
    assert np.argsort(-pairs.exactness()).tolist() == [1, 0, 2, 3]
    assert roc_figures([pairs])[0]["exact"]["auc"] == 1.0


def test_sensitivity_is_that_of_scikit_learn(scored):
    is_copy = scored.labels != 0
    curve = sensitivity(scored.scores, is_copy)
    for at in range(0, len(curve.cuts), 37):
        called = scored.scores >= curve.cuts[at]
        assert curve.found[at] == pytest.approx(recall_score(is_copy, called))
        assert curve.flagged[at] == pytest.approx(called[~is_copy].mean())
        assert curve.precision[at] == pytest.approx(precision_score(is_copy, called))
        assert curve.f1[at] == pytest.approx(f1_score(is_copy, called))


def test_the_macro_f1_by_cut_is_that_of_scikit_learn(scored):
    near = np.array([0.3, 0.5, 0.6, 0.9])
    exact = np.array([0.85, 0.5, 0.8, 0.7])
    for got, low, high in zip(macro_f1_by_cut(scored.scores, scored.labels, near, exact), near, exact, strict=True):
        called = np.where(scored.scores >= high, 1, np.where(scored.scores >= low, 2, 0))
        assert got == pytest.approx(f1_score(scored.labels, called, average="macro"))


def test_many_cuts_are_thinned_and_keep_their_ends():
    curve = sensitivity(np.arange(10_000) / 1e4, np.arange(10_000) % 3 == 0, n_cuts=100)
    assert len(curve.cuts) == 100
    assert (curve.cuts[0], curve.cuts[-1]) == (0.0, 0.9999)


def test_a_density_has_the_area_of_one_and_keeps_within_its_bounds():
    rng = np.random.default_rng(2)
    x, y = density(1 - rng.exponential(0.02, 500), 0.0, 1.0)
    assert (y.sum() * (x[1] - x[0])) == pytest.approx(1, abs=1e-9)
    assert 0 < x[0] < x[-1] < 1
    x, y = density(rng.normal(0, 1, 4000), -6, 6)
    assert np.abs(y - np.exp(-(x**2) / 2) / np.sqrt(2 * np.pi)).max() < 0.03


def test_a_class_of_few_pairs_is_ticks_without_a_curve():
    labels = np.repeat([0, 2, 1], [60, 24, 1])
    figure = draw_densities([ScoredPairs("m", np.linspace(0, 1, 85), labels)])
    (axes,) = figure.axes
    assert len(axes.collections) == 3 + 1  # ticks of each class, the area of one
    assert [len(one.get_segments()) for one in axes.collections if hasattr(one, "get_segments")] == [60, 24, 1]
    assert axes.get_yticklabels()[2].get_text() == "exact copy\n1 pair"


def test_a_calibration_is_drawn_with_its_rate_and_interval():
    curve = Curve((0.4, 0.6, 0.8), unrelated=(0.3, 0.02, 0.0), copies=(1.0, 0.9, 0.5))
    one = Calibration("pixel", Threshold(0.6), Threshold(0.8), "an example", false_positive_rate=0.02,
                      false_positive_interval=(0.01, 0.05), curve=curve)  # fmt: skip
    for is_log in (False, True):
        figure = draw_calibration(one, is_log=is_log)
        figure.draw_without_rendering()
        copies = next(line for line in figure.axes[0].lines if line.get_label() == "copies found")
        assert list(copies.get_ydata()) == [1.0, 0.9, 0.5]
        assert "2.0 % of unrelated flagged (1.0 % to 5.0 %)" in texts_of(figure)
    bare = Calibration("pixel", Threshold(0.6), Threshold(0.8), "an example")
    assert "holds no curve" in texts_of(draw_calibration(bare))


def test_a_share_is_never_rounded_to_all_or_nothing():
    assert percent(0.99999) == "99.9 %"
    assert percent(0.00001) == "< 0.01 %"
