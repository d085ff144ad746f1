"""The benchmark with known truth: its truth is true."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from benchmarks.membench import verified
from benchmarks.membench.__main__ import main
from benchmarks.membench.bench import CONDITIONS, N_NONE, make_bench
from benchmarks.membench.bundles import find_bundle, find_screen, parse_bundle, published_cuts, verified_cuts
from benchmarks.membench.collection import Collection, read_collection
from benchmarks.membench.curve import measure_curve, plot_curve
from benchmarks.membench.figures import label_figures, score_figures, share
from benchmarks.membench.run import Settings, answer, draw, perturb_base, run
from benchmarks.membench.systems import Answers, Cuts, choose_cuts, from_evidence, image_scores, metric_scores, nearest
from benchmarks.membench.thresholds import area_under_curve, exact_cut, near_cut, shared_near_cut
from benchmarks.membench.verified import FIELDS, S1, S2, examine, to_bytes
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from deepssim.calibration import load_calibration
from deepssim.evaluate import EXACT, NEAR, UNRELATED
from deepssim.image_ops import evidence, fsim, register
from deepssim.metric import load_metric


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


def test_splits_share_no_one(data_folder):
    for domain in ("brain", "chest"):
        people = [set(read_collection(data_folder, domain, {split}).people) for split in ("train", "tune", "test")]
        assert all(people)
        assert sum(map(len, people)) == len(set.union(*people))


SMALL = Settings(None, n_people=3, side=56, threads=1)
scores = st.lists(st.integers(0, 12), min_size=1, max_size=25).map(lambda x: np.array(x, np.float64) / 12)


def silent(_text):
    pass


@pytest.fixture(scope="module")
def hard():
    return draw(SMALL, "phantom", "hard", "test")


@given(scores, scores, st.sampled_from([0.0, 0.01, 0.1, 0.5]))
def test_the_near_cut_lets_few_unrelated_pass_and_shares_the_margin(unrelated, copies, part):
    cut = near_cut(unrelated, copies, share=part)
    assert (unrelated >= cut).mean() <= part
    lowest = np.quantile(copies, part)
    passing = [c for c in np.unique(unrelated) if (unrelated > c).mean() <= part]
    least = min(passing)
    if lowest > least + 1e-9:
        assert cut == pytest.approx((least + lowest) / 2)
    else:
        assert cut == pytest.approx(least)


@given(scores, scores)
def test_the_exact_cut_is_as_good_as_any(exact, near):
    def accuracy(cut):
        return ((exact >= cut).mean() + (near < cut).mean()) / 2

    every = np.unique(np.concatenate([exact, near]))
    others = [every[0] - 1, *every, *(every + 1e-3)]
    assert accuracy(exact_cut(exact, near)) == pytest.approx(max(accuracy(c) for c in others))


def test_the_exact_cut_lies_in_the_middle_of_a_gap():
    assert exact_cut(np.array([0.8, 0.9]), np.array([0.2, 0.4])) == pytest.approx(0.6)


@given(scores, scores)
def test_the_area_under_the_curve_counts_pairs(high, low):
    wins = [(a > b) + 0.5 * (a == b) for a in high for b in low]
    assert area_under_curve(high, low) == pytest.approx(np.mean(wins))


def test_evidence_is_that_of_single_pairs(hard):
    wanted = np.zeros((len(hard.synthetic), len(hard.real)), bool)
    wanted[0, 1] = wanted[20, 4] = wanted[20, 5] = True
    table = examine(hard.real, hard.synthetic, wanted, threads=2)
    assert (np.isfinite(table).all(axis=2) == wanted).all()
    assert np.isnan(table[~wanted]).all()
    for i, j in np.argwhere(wanted):
        a, b = hard.synthetic[i], hard.real[j]
        alone = evidence(a, b, register(a, b).transform)
        assert table[i, j].tolist() == pytest.approx([getattr(alone, name) for name in FIELDS], abs=1e-6)


def test_an_interrupted_run_goes_on_and_gives_the_same(hard, tmp_path, monkeypatch):
    real, synthetic = hard.real[:3], hard.synthetic[: 2 * verified.BLOCK + 1]
    whole = examine(real, synthetic, threads=1)
    calls = []
    verify = verified._verify

    def interrupted(*arguments):
        if len(calls) == 1:
            raise KeyboardInterrupt
        calls.append(arguments)
        return verify(*arguments)

    monkeypatch.setattr(verified, "_verify", interrupted)
    with pytest.raises(KeyboardInterrupt):
        examine(real, synthetic, threads=1, cache=tmp_path)
    assert len(list(tmp_path.iterdir())) == 1
    monkeypatch.setattr(verified, "_verify", lambda *x: calls.append(x) or verify(*x))
    assert np.array_equal(examine(real, synthetic, threads=1, cache=tmp_path), whole)
    assert len(calls) == 3  # one before, two after
    assert np.array_equal(examine(real, synthetic, threads=1, cache=tmp_path), whole)
    assert len(calls) == 3


def test_the_cache_knows_what_evidence_depends_on(hard, tmp_path, monkeypatch):
    calls = []
    verify = verified._verify
    monkeypatch.setattr(verified, "_verify", lambda *x: calls.append(x) or verify(*x))
    real, synthetic = hard.real[:2], hard.synthetic[:2]

    def runs(*arguments):
        before = len(calls)
        examine(*arguments, threads=1, cache=tmp_path)
        return len(calls) - before

    assert runs(real, synthetic) == 1
    assert runs(real, synthetic) == 0
    assert runs(real, synthetic, np.array([[True, False], [True, True]])) == 1
    assert runs(real[::-1], synthetic) == 1
    assert runs(real, [synthetic[0], 255 - synthetic[1]]) == 1
    monkeypatch.setattr(verified, "_method", lambda: b"another core")
    assert runs(real, synthetic) == 1


def test_a_damaged_file_of_the_cache_is_made_again(hard, tmp_path):
    real, synthetic = hard.real[:2], hard.synthetic[:2]
    whole = examine(real, synthetic, threads=1, cache=tmp_path)
    [path] = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:-5])
    assert np.array_equal(examine(real, synthetic, threads=1, cache=tmp_path), whole)


def test_evidence_is_answered_by_the_highest_s1_among_candidates():
    table = np.full((2, 3, len(FIELDS)), np.nan, np.float32)
    table[0, :, S1], table[0, :, S2] = [0.5, 0.9, 0.9], [0.8, 0.3, 0.7]
    table[1, 2, S1], table[1, 2, S2] = 0.7, 0.6
    answers = from_evidence("verifier", table)
    assert answers.best.tolist() == [1, 2]
    assert answers.labels(Cuts(0.6, 0.5, "")).tolist() == [NEAR, EXACT]
    assert answers.labels(Cuts(0.8, 0.5, "")).tolist() == [NEAR, UNRELATED]
    few = np.array([[True, False, False], [False, True, True]])
    answers = from_evidence("pipeline", table, few)
    assert answers.best.tolist() == [0, 2]
    assert answers.value == pytest.approx([0.5, 0.7])


def test_candidates_are_the_nearest_with_a_cap_by_person():
    row = np.array([[0.9, 0.8, 0.7, 0.6, 0.6]], np.float32)
    people = np.array(["a", "a", "a", "b", "b"])
    assert nearest(row, 3, people).tolist() == [[True, True, True, False, False]]
    assert nearest(row, 3, people, 2).tolist() == [[True, True, False, True, False]]
    assert nearest(row, 9, people, 1).tolist() == [[True, False, False, True, False]]


def test_scores_of_metrics_are_those_of_the_definition(hard):
    def thumbnail_correlation(a, b):
        return np.corrcoef(a.ravel(), b.ravel())[0, 1]

    found = image_scores("ssim", hard.real, hard.synthetic[:3], threads=1)
    skimage = pytest.importorskip("skimage.metrics")
    a, b = ((x - x.mean()) / x.std() for x in (hard.real[1].astype(float), hard.synthetic[2].astype(float)))
    expected = skimage.structural_similarity(a, b, data_range=a.max() - a.min())
    assert found.shape == (3, len(hard.real))
    assert found[2, 1] == pytest.approx(expected, abs=1e-5)
    pixel = metric_scores("pixel", hard.real, [*hard.real[:2], *hard.synthetic[:2]], threads=1)
    assert pixel.shape == (4, len(hard.real))
    assert pixel[:2].argmax(axis=1).tolist() == [0, 1]
    assert pixel[[0, 1], [0, 1]] == pytest.approx(1.0, abs=1e-5)
    similar = image_scores("fsim", hard.real, hard.synthetic[:3], threads=1)
    assert similar[2, 1] == pytest.approx(fsim(hard.real[1], hard.synthetic[2]), abs=1e-5)


def counted(truth, labels, number):
    """Count precision and recall of a class by hand."""
    right = sum(t == p == number for t, p in zip(truth, labels, strict=True))
    called, there = (sum(x == number for x in side) for side in (labels, truth))
    return (right / called if called else 0.0), (right / there if there else 0.0)


def test_the_figures_are_those_that_counting_gives(hard):
    bench = hard.bench
    rng = np.random.default_rng(5)
    value = np.where(bench.truth != UNRELATED, 0.6, 0.3) + rng.normal(0, 0.15, len(bench.truth))
    detail = np.where(bench.truth == EXACT, 0.7, 0.4) + rng.normal(0, 0.2, len(bench.truth))
    best = np.where(rng.random(len(value)) < 0.8, np.maximum(bench.source, 0), 0).astype(np.int64)
    candidates = rng.random((len(value), len(bench.real))) < 0.5
    cuts = Cuts(0.5, 0.55, "by hand")
    answers = Answers("any", value, detail, best, candidates)
    found = label_figures(bench, answers, cuts) | score_figures(bench, answers)
    main = [i for i in range(len(value)) if not bench.is_sibling[i]]
    labels = [(EXACT if detail[i] >= 0.55 else NEAR) if value[i] >= 0.5 else UNRELATED for i in range(len(value))]
    truth = bench.truth.tolist()
    harmonic = []
    for name, number in (("unrelated", UNRELATED), ("exact", EXACT), ("near", NEAR)):
        p, r = counted([truth[i] for i in main], [labels[i] for i in main], number)
        assert found[f"precision_{name}"].value == pytest.approx(p)
        assert found[f"recall_{name}"].value == pytest.approx(r)
        harmonic.append(2 * p * r / (p + r) if p + r else 0.0)
    assert found["macro_f1"].value == pytest.approx(np.mean(harmonic))
    support = [np.mean([truth[i] == number for i in main]) for number in (UNRELATED, EXACT, NEAR)]
    assert found["weighted_f1"].value == pytest.approx(np.dot(harmonic, support))
    strangers = [i for i in main if truth[i] == UNRELATED]
    copies = [i for i in main if truth[i] != UNRELATED]
    passed = [labels[i] != UNRELATED for i in strangers]
    assert found["false_positives"].value == pytest.approx(np.mean(passed))
    allowed = int(0.01 * len(strangers))
    limit = sorted((value[i] for i in strangers), reverse=True)[allowed]
    assert found["tpr_at_1_fpr"].value == pytest.approx(np.mean([value[i] > limit for i in copies]))
    for name, number in (("exact", EXACT), ("near", NEAR)):
        own = [best[i] == bench.source[i] for i in copies if truth[i] == number]
        assert found[f"rank1_{name}"].value == pytest.approx(np.mean(own))
    assert found["candidate"].value == pytest.approx(np.mean([candidates[i, bench.source[i]] for i in copies]))
    siblings = np.flatnonzero(bench.is_sibling)
    assert len(siblings)
    assert found["sibling_near"].value == pytest.approx(np.mean([labels[i] == NEAR for i in siblings]))
    assert all(f.low <= f.value <= f.high for f in found.values())


def test_figures_of_scores_are_those_of_scikit_learn(hard):
    metrics = pytest.importorskip("sklearn.metrics")
    bench = hard.bench
    rng = np.random.default_rng(6)
    value = np.round((bench.truth != UNRELATED) * 0.2 + rng.normal(0, 0.2, len(bench.truth)), 2)
    answers = Answers("score", value, None, np.zeros(len(value), np.int64))
    found = label_figures(bench, answers, Cuts(0.1, 0.3, "by hand")) | score_figures(bench, answers)
    main = ~bench.is_sibling
    truth, own = bench.truth[main], value[main]
    assert found["auc_copies"].value == pytest.approx(metrics.roc_auc_score(truth != UNRELATED, own))
    assert found["silhouette"].value == pytest.approx(metrics.silhouette_score(own[:, None], truth))
    alarms, hits, _ = metrics.roc_curve(truth == EXACT, own, drop_intermediate=False)
    assert found["tpr_5_exact"].value == pytest.approx(hits[alarms <= 0.05].max())


def test_exact_copies_are_sought_by_the_detail_of_what_is_called_a_copy():
    answers = Answers("e", np.array([0.9, 0.8, 0.2, 0.1]), np.array([-0.5, 0.7, 0.99, 0.2]), np.zeros(4, np.int64))
    order = np.argsort(-answers.exactness(Cuts(0.5, 0.6, "by hand")))
    assert order.tolist() == [1, 0, 2, 3]
    plain = Answers("s", answers.value, None, answers.best)
    assert plain.exactness(Cuts(0.5, 0.6, "by hand")) is plain.value


def test_a_share_that_all_have_is_bounded_by_the_number_of_people():
    people = np.array(["a", "a", "b", "c"])
    figure = share(np.ones(4, bool), np.arange(4), people)
    assert (figure.value, figure.high, figure.n, figure.n_people) == (1.0, 1.0, 4, 3)
    assert figure.low == pytest.approx(0.05 ** (1 / 3))
    assert np.isnan(share(np.ones(4, bool), np.zeros(0, np.int64), people).value)


def test_siblings_have_no_part_in_the_choice_of_thresholds(hard):
    bench = hard.bench
    value = np.where(bench.truth != UNRELATED, 0.8, 0.2)
    value[bench.is_sibling] = 0.9
    detail = np.where(bench.truth == EXACT, 0.6, 0.4)
    for answers in (
        Answers("evidence", value, detail, np.zeros(len(value), np.int64)),
        Answers("score", value + 0.1 * (bench.truth == EXACT), None, np.zeros(len(value), np.int64)),
    ):
        cuts = choose_cuts(answers, bench.truth, bench.is_sibling, "tune")
        assert 0.2 < cuts.near <= 0.8
        right = answers.labels(cuts) == bench.truth
        assert right[~bench.is_sibling].all()


def test_the_pipeline_is_the_verifier_on_its_candidates(hard):
    settings = replace(SMALL, systems=("verifier", "pipeline"), k=len(hard.real), max_per_person=0)
    verifier, pipeline = answer(settings, hard, silent)
    assert np.array_equal(verifier.value, pipeline.value)
    assert np.array_equal(verifier.best, pipeline.best)
    few = replace(SMALL, systems=("pipeline",), k=2)
    [alone] = answer(few, hard, silent)
    _, beside = answer(replace(few, systems=("verifier", "pipeline")), hard, silent)
    assert alone.candidates.sum(axis=1).tolist() == [2] * len(hard.synthetic)
    assert np.array_equal(alone.value, beside.value)


def test_both_sides_can_be_perturbed(hard):
    moved = perturb_base(hard.bench, seed=0)
    assert all(a is b for a, b in zip(moved.synthetic, hard.bench.synthetic, strict=True))
    assert any((a != b).any() for a, b in zip(moved.real, hard.bench.real, strict=True))
    [both] = run(replace(SMALL, systems=("ssim",), perturb_both=True), ("phantom",), ("perturbed",), silent)
    [one] = run(replace(SMALL, systems=("ssim",)), ("phantom",), ("perturbed",), silent)
    assert (one.condition, both.condition) == ("perturbed", "perturbed, both")
    assert one.cuts != both.cuts


def test_distractors_of_the_runner_join_the_base():
    drawn = draw(replace(SMALL, with_distractors=True), "phantom", "aligned", "test")
    alone = draw(SMALL, "phantom", "aligned", "test")
    assert len(drawn.real) == len(alone.real) + 2 * 3 * 10
    assert all((a == b).all() for a, b in zip(drawn.synthetic, alone.synthetic, strict=True))
    assert not {n for n in drawn.bench.real_people if n.startswith("test")} - set(alone.bench.real_people)


def test_the_command_writes_the_whole_table(tmp_path, capsys):
    out, markdown = tmp_path / "membench.json", tmp_path / "table.md"
    arguments = ["--quick", "--condition", "aligned", "--threads", "1", "--cache", str(tmp_path / "cache")]
    assert main([*arguments, "--out", str(out), "--markdown", str(markdown)]) == 0
    found = json.loads(out.read_text())
    assert {row["system"] for row in found["rows"]} == {"ssim", "pixel", "verifier", "pipeline"}
    sources = [row["cuts"]["source"] for row in found["rows"] if row["system"] == "verifier"]
    assert sources == ["verified", "tune"]
    text = markdown.read_text()
    assert text == capsys.readouterr().out
    for row in found["rows"]:
        figure = row["found"]["macro_f1"]
        shown = f"| {100 * figure['value']:.1f} ({100 * figure['low']:.1f} to {100 * figure['high']:.1f}) |"
        assert any(f"| {row['system']} ({row['cuts']['source']}" in line and shown in line for line in text.split("\n"))


def test_what_is_missing_is_said_before_the_work(capsys):
    assert main(["--quick", "--system", "nothing"]) == 1
    assert "nothing" in capsys.readouterr().err
    assert main(["--quick", "--calibration", "pixel"]) == 1
    assert "verified" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["--domain", "brain", "--data", "nowhere"])
    assert "splits.csv" in capsys.readouterr().err


def test_a_name_means_a_bundle_by_domain():
    bundles = {"dar:brain": "a.onnx", "mine": "b.onnx"}
    assert find_bundle("dar", "brain", bundles) == "a.onnx"
    assert find_bundle("dar", "chest", bundles) is None
    assert find_bundle("mine", "chest", bundles) == "b.onnx"
    assert find_bundle("pixel", "chest", bundles) == "pixel"
    assert find_bundle("encoder", "chest", {}) == "chest"
    assert find_bundle("encoder", "phantom", {}) is None
    assert find_screen("encoder", "phantom", {}) == "pixel"
    assert parse_bundle("dar:brain=x/a=b.onnx") == ("dar:brain", "x/a=b.onnx")
    for wrong in ("dar", "dar=", "=a.onnx", "dar:knee=a.onnx", "dar:=a.onnx", "ssim=a.onnx"):
        with pytest.raises(ValueError, match="="):
            parse_bundle(wrong)


@pytest.fixture
def bundle(tmp_path):
    path = tmp_path / "any.onnx"
    path.write_bytes(load_metric("pixel").path.read_bytes())
    return path


def test_thresholds_lie_beside_a_bundle_or_are_installed_under_its_name(bundle):
    assert published_cuts("mine", str(bundle)) == []
    [published] = published_cuts("dar", str(bundle))
    assert (published.near, published.exact, published.source) == (*load_calibration("dar").cuts(), "dar")
    load_calibration("pixel").write(bundle.with_suffix(".calibration.json"))
    sources = [cuts.source for cuts in published_cuts("dar", str(bundle))]
    assert sources == ["dar, its own", "dar"]
    assert [cuts.source for cuts in published_cuts("pixel", "pixel")] == ["pixel"]
    names = ("verified", "verified.brain", "verified.chest")
    assert [cuts.source for cuts in verified_cuts(names, "chest")] == ["verified", "verified.chest"]


def test_the_summary_has_a_line_a_system_and_a_column_a_condition(bundle, tmp_path, capsys):
    load_calibration("pixel").write(bundle.with_suffix(".calibration.json"))
    out = tmp_path / "summary.json"
    arguments = ["--quick", "--summary", "--condition", "aligned", "--threads", "1", "--system", "ssim"]
    assert main([*arguments, f"mine={bundle}", "--bundle", f"other:brain={bundle}", "--out", str(out)]) == 0
    first, second = capsys.readouterr().out.split("At thresholds that were there before")
    first, besides = first.split("What published tables give")
    rows = json.loads(out.read_text())["rows"]
    assert {row["system"] for row in rows} == {"ssim", "mine"}
    assert [line.split(" | ")[0] for line in first.split("\n") if line.startswith("| ")] == [
        "| metric", "| SSIM", "| `mine`",
    ]  # fmt: skip
    assert "| phantom aligned |" in first
    for row in rows:
        figure, rate = row["found"]["macro_f1"], row["found"]["tpr_at_1_fpr"]
        interval = f" ({100 * figure['low']:.1f} to {100 * figure['high']:.1f})"
        shown = f"{100 * figure['value']:.1f}" + (interval if figure["low"] < figure["high"] else "")
        if row["cuts"]["source"] == "tune":
            assert f"{shown} / {100 * rate['value']:.1f} |" in first
            more = [100 * row["found"][name]["value"] for name in ("tpr_5_exact", "auc_copies")]
            assert f"| {more[0]:.1f} / {more[1]:.1f} |" in besides
        else:
            near, exact = row["cuts"]["near"], row["cuts"]["exact"]
            assert f"| `mine` (`mine, its own`: {near:.3f}, {exact:.3f}) | {shown} / " in second


def test_a_bundle_that_is_not_there_is_said_before_the_work(capsys):
    with pytest.raises(SystemExit):
        main(["--quick", "--bundle", "dar"])
    assert "NAME=FILE" in capsys.readouterr().err
    assert main(["--quick", "--summary", "--bundle", "dar=nowhere.onnx"]) == 1
    assert "nowhere.onnx" in capsys.readouterr().err


def test_the_curve_begins_with_exact_copies_and_is_drawn(tmp_path):
    points = measure_curve(SMALL, ("phantom",), ("aligned",), silent, amplitudes_px=(7.0,))
    assert [p.amplitude_px for p in points] == [0.0, 7.0]
    exact, strong = points
    assert strong.flagged.n == 2 * exact.flagged.n
    assert exact.flagged.value == 1.0
    assert strong.called_near.value > exact.called_near.value
    plot_curve(points, tmp_path / "curve.png")
    with Image.open(tmp_path / "curve.png") as picture:
        assert len(picture.convert("RGB").getcolors(2**20)) > 20


def test_images_are_compared_as_files_of_8_bits():
    assert to_bytes(np.array([[0.0, 0.5, 1.0]], np.float32)).tolist() == [[0, 128, 255]]


def test_a_cut_for_two_kinds_lets_few_of_either_pass():
    rng = np.random.default_rng(0)
    kinds = [(rng.normal(low, 0.05, 500), rng.normal(high, 0.05, 500)) for low, high in ((0.3, 0.7), (0.4, 0.9))]
    cut = shared_near_cut(kinds)
    assert all((unrelated >= cut).mean() <= 0.01 for unrelated, _ in kinds)
    assert max(np.quantile(u, 0.99) for u, _ in kinds) < cut < min(np.quantile(c, 0.01) for _, c in kinds)
    assert shared_near_cut(kinds[:1]) == near_cut(*kinds[0])
