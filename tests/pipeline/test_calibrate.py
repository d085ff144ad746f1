"""Thresholds of one's own keep what they promise, and say where they come from."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from scipy.stats import beta

from deepssim.audit import AuditOptions, audit
from deepssim.calibrate.conformal import (
    RateCut,
    cut_for_rate,
    cut_for_recall,
    exact_bounds,
    least_images,
    rate_interval,
    rounded_up,
    sensitivity,
)
from deepssim.calibrate.labels import calibrate_labels
from deepssim.calibrate.rates import calibrate_rate
from deepssim.calibrate.unrelated import RunOptions, UnrelatedScores, control_scores, people_scores
from deepssim.calibration import Calibration, Threshold
from deepssim.embed import Encoder
from deepssim.errors import MetricError, UsageError
from deepssim.images import ImageOptions, list_images
from deepssim.labelled import LabelledPairs
from deepssim.labelled.scores import PairScores
from deepssim.matching import MatchOptions
from deepssim.metric import load_metric
from deepssim.store import Store
from deepssim.store_build import build_store

READING = ImageOptions(group_by="parent")


def run_options(verify: bool | None = False, **more) -> RunOptions:
    return RunOptions(metric="pixel", verify=verify, images=READING, match=MatchOptions(views="none"), **more)


@pytest.mark.parametrize(("n", "rate"), [(99, 0.01), (150, 0.01), (19, 0.05), (250, 0.05), (400, 0.1)])
def test_a_new_image_passes_as_often_as_was_promised_and_no_oftener(n, rate):
    rng = np.random.default_rng(n)
    values = rng.gumbel(size=(4000, n + 1))
    promised = np.floor(rate * (n + 1) + 1e-9) / (n + 1)
    # Scores of many decimals, so that rounding up changes next to nothing.
    passed = np.mean([row[-1] > cut_for_rate(row[:-1], rate).value for row in values])
    assert promised <= rate + 1e-12
    assert abs(passed - promised) < 4 * np.sqrt(promised * (1 - promised) / 4000)


def test_ties_never_break_the_promise():
    rng = np.random.default_rng(0)
    values = rng.integers(0, 4, (3000, 40)).astype(float)
    passed = np.mean([row[-1] > cut_for_rate(row[:-1], 0.1).value for row in values])
    assert passed <= 0.1


def test_the_threshold_is_the_order_statistic_rounded_up():
    values = np.random.default_rng(1).random(500)
    cut = cut_for_rate(values, 0.02)
    wanted = np.sort(values)[-10]  # floor(.02 * 501) = 10
    assert cut == RateCut(rounded_up(float(wanted)), 10 / 501, 10, 500)
    assert wanted <= cut.value < wanted + 1.01e-4
    assert (values > cut.value).sum() <= 9


def test_too_few_images_are_refused_with_the_number_that_is_needed():
    assert [least_images(rate) for rate in (0.5, 0.1, 0.05, 0.01, 0.001)] == [1, 9, 19, 99, 999]
    for rate in (0.5, 0.1, 0.05, 0.01):
        least = least_images(rate)
        cut_for_rate(np.arange(least) / least, rate)
        with pytest.raises(UsageError, match=f"needs {least} unrelated images or more, there are {least - 1}"):
            cut_for_rate(np.arange(least - 1) / least, rate)
    with pytest.raises(UsageError, match="needs 19 copies or more, there are 10"):
        cut_for_recall(np.arange(10.0), 0.95)
    for bad in (0.0, 1.0, -1.0, float("nan")):
        with pytest.raises(UsageError):
            cut_for_rate(np.arange(200.0), bad)
        with pytest.raises(UsageError):
            cut_for_recall(np.arange(200.0), bad)
    with pytest.raises(UsageError, match="not finite"):
        cut_for_rate(np.array([np.nan, *np.arange(200.0)]), 0.1)


def test_a_new_copy_is_found_as_often_as_was_promised():
    values = np.random.default_rng(3).normal(size=(3000, 60))
    found = np.mean([row[-1] >= cut_for_recall(row[:-1], 0.9) for row in values])
    assert abs(found - 0.9) < 0.025


@pytest.mark.parametrize(("rank", "total"), [(1, 1), (1, 99), (5, 499), (10, 10), (650, 65000)])
def test_bounds_of_independent_images_are_those_of_the_beta_distribution(rank, total):
    assert exact_bounds(rank, total) == pytest.approx(beta.ppf([0.025, 0.975], rank, total + 1 - rank), rel=1e-8)


def test_the_interval_holds_the_true_rate_where_images_of_people_are_alike():
    rng = np.random.default_rng(5)
    inside, width, narrow = [], [], []
    for draw in range(25):
        people = np.repeat(np.arange(60), 8)
        values = 2 * rng.normal(size=60)[people] + 0.3 * rng.normal(size=480)
        cut = cut_for_rate(values, 0.05)
        low, high = rate_interval(values, cut, people, np.arange(480), seed=draw)
        fresh = 2 * rng.normal(size=20000) + 0.3 * rng.normal(size=20000)
        inside.append(low <= (fresh > cut.value).mean() <= high)
        width.append(high - low)
        narrow.append(np.diff(exact_bounds(cut.rank, cut.total))[0])
    assert np.mean(inside) >= 0.8
    # Taking images as independent would promise far too much.
    assert np.mean(width) > 1.8 * np.mean(narrow)


def test_the_interval_is_wider_where_one_person_is_the_nearest_of_many():
    values, own = np.linspace(0, 1, 400), np.arange(400)
    cut = cut_for_rate(values, 0.05)
    spread = rate_interval(values, cut, own, own)
    hub = np.where(values > 0.9, 0, own + 1)
    one = rate_interval(values, cut, own, hub)
    assert one[1] - one[0] > spread[1] - spread[0]
    assert spread[0] <= cut.rate <= spread[1]


def test_a_curve_counts_what_reaches_each_cut():
    rng = np.random.default_rng(2)
    unrelated, copies = rng.normal(0.3, 0.1, 300), rng.normal(0.7, 0.1, 100)
    curve = sensitivity(unrelated, copies)
    for cut, first, second in zip(curve.cuts, curve.unrelated, curve.copies, strict=True):
        assert first == pytest.approx((unrelated >= cut).mean(), abs=1e-6)
        assert second == pytest.approx((copies >= cut).mean(), abs=1e-6)
    assert (curve.unrelated[0], curve.copies[-1]) == (1.0, 0.0)
    assert sensitivity(unrelated).copies is None


def scores(values: np.ndarray, **more) -> UnrelatedScores:
    names = np.array([f"image {i}" for i in range(len(values))])
    made = UnrelatedScores(
        values, names, names, None, 50, "m", "cosine", "none", "embedding", (Threshold(0.9), "an example"), "how it was"
    )
    return replace(made, **more)


def test_the_exact_threshold_is_kept_and_never_under_the_near_one():
    values = np.linspace(0, 0.8, 200)
    kept, warnings = calibrate_rate(scores(values), 0.01, kind="control", domain="phantoms")
    assert (kept.exact, warnings, kept.domain, kept.base_size) == (Threshold(0.9), (), "phantoms", 50)
    raised, warnings = calibrate_rate(scores(values + 0.2), 0.01, kind="control")
    assert raised.exact == raised.near
    assert "raised" in warnings[0]
    # Of S1 and S2 the two do not compare.
    apart, warnings = calibrate_rate(scores(values + 0.2, stage="verified"), 0.01, kind="control")
    assert (apart.exact, warnings, apart.metric, apart.views) == (Threshold(0.9), (), "verified", None)
    with pytest.raises(UsageError, match="--exact"):
        calibrate_rate(scores(values, exact=None), 0.01, kind="control")


def test_few_people_are_said():
    owners = np.repeat(["person a", "person b"], 100)
    _, warnings = calibrate_rate(scores(np.linspace(0, 0.8, 200), images=owners), 0.01, kind="control")
    assert "2 people" in warnings[0]


@pytest.fixture(scope="module")
def stores(cohort, tmp_path_factory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("calibrate")
    encoder = Encoder(load_metric("pixel"))
    for name in ("real", "holdout", "synthetic"):
        reading = ImageOptions() if name == "synthetic" else READING
        build_store(list_images(getattr(cohort, name), reading), encoder, root / name, with_working=True)
    return {name: root / name for name in ("real", "holdout", "synthetic")}


def test_a_control_finds_what_an_audit_finds_against_the_holdout(cohort, stores, tmp_path):
    for verify in (False, True):
        found = control_scores(cohort.synthetic, cohort.holdout, tmp_path / "c.json", options=run_options(verify))
        # An audit of the holdout, as if it were the real set, has the same best pairs.
        options = AuditOptions(metric="pixel", images=READING, match=MatchOptions(views="none"), verify=verify)
        audit(cohort.holdout, cohort.synthetic, tmp_path / f"out-{verify}", options=options)
        best = pq.read_table(tmp_path / f"out-{verify}" / "matches.parquet", filters=[("rank", "=", 1)])
        assert found.values.astype(np.float32).tolist() == best["s1" if verify else "score"].to_pylist()
        assert found.people.tolist() == [f"person {group}" for group in best["real_group"].to_pylist()]
        assert (found.stage, found.base_size, found.n_people) == ("verified" if verify else "embedding", 8, 4)
        again = control_scores(
            stores["synthetic"],
            stores["holdout"],
            tmp_path / "c.json",
            options=run_options(
                verify,
            ),
        )
        assert again.values.tolist() == found.values.tolist()
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_the_base_is_drawn_by_whole_people_in_the_size_of_the_real_set(cohort, tmp_path):
    def run(**more):
        return control_scores(cohort.synthetic, cohort.real, tmp_path / "c.json", options=run_options(), **more)

    smaller = run(real=cohort.holdout)  # 8 images, of four people
    assert (smaller.base_size, smaller.n_people) == (8, 4)
    assert run(base_size=8).values.tolist() == smaller.values.tolist()
    assert (smaller.values <= run().values).all()
    larger = control_scores(
        cohort.synthetic, cohort.holdout, tmp_path / "c.json", real=cohort.real, options=run_options()
    )
    assert larger.base_size == 8
    assert any("the base is to have 20" in line for line in larger.warnings)
    with pytest.raises(UsageError, match="not both"):
        run(real=cohort.holdout, base_size=3)


def test_a_holdout_with_copies_or_people_of_the_real_set_is_no_control(cohort, tmp_path):
    found = control_scores(cohort.synthetic, cohort.real, tmp_path / "c.json", options=run_options())
    assert any("identical to holdout images" in line for line in found.warnings)  # copy-00 is one


def test_real_images_are_compared_with_other_people_alone(cohort, stores, tmp_path):
    found = people_scores(stores["real"], tmp_path / "c.json", options=run_options())
    embeddings = np.empty((20, load_metric("pixel").dim), np.float32)
    store = Store(stores["real"])
    store.read_rows(0, embeddings)
    groups = np.array(store.records(["group"])["group"].to_pylist())
    products = (embeddings.astype(np.float64) @ embeddings.astype(np.float64).T).astype(np.float32)
    # Ten people in ten parts: each is compared with all others.
    products[groups[:, None] == groups[None, :]] = -2
    assert found.values.astype(np.float32).tolist() == products.max(axis=1).tolist()
    assert found.people.tolist() == [f"person {group}" for group in groups[products.argmax(axis=1)]]
    assert any("not exchangeable" in line for line in found.warnings)
    with pytest.raises(UsageError, match="say who is who"):
        people_scores(cohort.synthetic, tmp_path / "c.json", options=replace(run_options(), images=ImageOptions()))


def test_an_encoder_with_a_gallery_searches_for_images_embedded_as_synthetic_ones(cohort, tmp_path):
    options = replace(run_options(), metric="brain")
    found = people_scores(cohort.real, tmp_path / "c.json", options=options)
    assert found.metric == "brain"
    encoder = Encoder(load_metric("brain"))
    build_store(list_images(cohort.real, READING), encoder, tmp_path / "gallery", as_gallery=True)
    with pytest.raises(UsageError, match="give the images themselves"):
        people_scores(tmp_path / "gallery", tmp_path / "c.json", options=options)


def test_labels_choose_thresholds_on_other_people_too():
    rng = np.random.default_rng(7)
    labels = rng.integers(0, 3, 600)
    people = np.array([f"p{i}" for i in rng.integers(0, 40, 600)])
    values = np.choose(labels, [0.3, 0.9, 0.6]) + rng.normal(0, 0.1, 600)
    names = tuple(str(i) for i in range(600))
    pairs = LabelledPairs(Path("pairs.csv"), names, names, labels.astype(np.int64), people, "column group")
    found = calibrate_labels(pairs, PairScores("m", values, None), seed=1)
    assert found.left_out_f1 <= found.fitted_f1 + 1e-9
    assert found.left_out_interval[0] < found.left_out_f1 < found.left_out_interval[1]
    assert 0.4 < found.calibration.near.value < 0.5
    assert 0.7 < found.calibration.exact.value < 0.8
    assert len(repr(found.calibration.near.value)) <= 7
    assert f"{100 * found.left_out_f1:.1f} %" in found.calibration.how
    # With nothing to learn, what was fitted looks better than it is.
    noise = calibrate_labels(pairs, PairScores("m", rng.random(600), None), seed=1)
    assert noise.fitted_f1 > noise.left_out_f1
    verified = calibrate_labels(pairs, PairScores("verified", values, None, detail=values), seed=1)
    assert verified.calibration.stage == "verified"
    with pytest.raises(UsageError, match="no pair that is similar"):
        calibrate_labels(replace(pairs, labels=labels % 2), PairScores("m", values, None))
    with pytest.raises(UsageError, match="one person"):
        calibrate_labels(replace(pairs, people=np.full(600, "a")), PairScores("m", values, None))


def test_a_written_calibration_reaches_the_audit_and_its_report(cohort, deepssim_here, tmp_path):
    out = tmp_path / "mine.json"
    done = deepssim_here(
        "calibrate", "control", cohort.synthetic, cohort.holdout, "--real", cohort.real, "--group-by", "parent",
        "--metric", "pixel", "--views", "none", "--no-verify", "--fpr", ".1", "--domain", "phantom heads",
        "--out", out, "--json", "-q",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)["calibration"]
    written = Calibration.read(out)
    assert said["near"]["value"] == written.near.value
    assert written.curve is not None
    assert oct(out.stat().st_mode)[-3:] == "600"
    done = deepssim_here(
        "audit", cohort.real, cohort.synthetic, "--group-by", "parent", "--metric", "pixel", "--views", "none",
        "--no-verify", "--calibration", out, "--out", tmp_path / "result", "-q",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    thresholds = json.loads((tmp_path / "result" / "run.json").read_text())["thresholds"]
    assert thresholds["source"] == "deepssim calibrate control, at a false-positive rate of 0.1"
    page = (tmp_path / "result" / "report.html").read_text()
    assert "deepssim calibrate control" in page
    assert "phantom heads" in page
    done = deepssim_here("audit", cohort.real, cohort.synthetic, "--metric", "pixel", "--calibration", out,
                         "--out", tmp_path / "verified", "-q")  # fmt: skip
    assert (done.returncode, done.stdout) == (2, "")
    assert "--no-verify" in done.stderr


def test_bad_requests_are_one_line_and_write_nothing(cohort, deepssim_here, tmp_path):
    (tmp_path / "other.json").write_text("{}")
    base = ("calibrate", "control", cohort.synthetic, cohort.holdout, "--metric", "pixel", "--views", "none",
            "--no-verify", "-q")  # fmt: skip
    for arguments, said in (
        ((*base, "--out", tmp_path / "a.json"), "needs 99 unrelated images"),
        ((*base, "--out", tmp_path / "other.json", "--fpr", ".2"), "is no calibration"),
        ((*base, "--out", tmp_path / "a.txt", "--fpr", ".2"), ".json"),
        ((*base, "--out", tmp_path / "no" / "a.json", "--fpr", ".2"), "folder"),
        ((*base, "--out", tmp_path / "a.json", "--like", "verified"), "verified"),
        (("calibrate", "real", cohort.synthetic, "--out", tmp_path / "a.json", "-q"), "say who is who"),
        (("calibrate", "planted", tmp_path, "--truth", tmp_path / "t.csv", "--out", tmp_path / "a.json"), "no folder"),
    ):
        done = deepssim_here(*arguments)
        assert done.returncode == 2
        assert said in (last := done.stderr.strip().splitlines()[-1])
        assert last.startswith("Error: ")
    assert (tmp_path / "other.json").read_text() == "{}"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other.json"]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"base_size": "many"}, "base_size"),
        ({"base_size": -4}, "base_size"),
        ({"false_positive_rate": 7}, "false_positive_rate"),
        ({"false_positive_rate": "x"}, "false_positive_rate"),
        ({"false_positive_interval": [0.5, 0.1]}, "false_positive_interval"),
        ({"source": None, "how": ["x"]}, "source is no text; how is no text"),
        ({"near": {"value": True}}, "finite number"),
        ({"near": {"value": "0.5"}}, "finite number"),
        ({"metric": 3}, "metric"),
        ({"views": 1}, "views"),
    ],
)
def test_a_damaged_calibration_is_refused_before_any_work(tmp_path, wrong, said):
    path = tmp_path / "mine.json"
    Calibration("m", Threshold(0.5), Threshold(0.9), "a study", base_size=7).write(path)
    assert Calibration.read(path).base_size == 7
    path.write_text(json.dumps({**json.loads(path.read_text()), **wrong}))
    with pytest.raises(MetricError, match=said):
        Calibration.read(path)


def test_scores_close_to_one_leave_room_over_the_threshold():
    values = 1 - np.linspace(1e-5, 2e-5, 99)
    cut = cut_for_rate(values, 0.01)
    assert values.max() <= cut.value < 1 - 0.9e-5
    twins = scores(np.append(np.arange(98) / 100, [1.0, 1.0]))
    assert any("not even a copy" in line for line in calibrate_rate(twins, 0.01, kind="control")[1])


def test_no_calibration_is_written_into_the_images(cohort):
    before = sorted(cohort.holdout.rglob("*"))
    with pytest.raises(UsageError, match=r"output .* and holdout .* lie one in the other"):
        control_scores(cohort.synthetic, cohort.holdout, cohort.holdout / "mine.json", options=run_options())
    with pytest.raises(UsageError, match="lie one in the other"):
        people_scores(cohort.real, cohort.real / "mine.json", options=run_options())
    assert sorted(cohort.holdout.rglob("*")) == before


def test_scores_of_an_l2_metric_are_told_as_distances_and_a_curve_is_shown(cohort, deepssim_here, tmp_path):
    def deepssim(*arguments: object) -> str:
        done = deepssim_here(*arguments)
        assert done.returncode == 0, done.stderr
        return str(done.stdout)

    out = tmp_path / "mine.json"
    printed = deepssim("calibrate", "control", cohort.synthetic, cohort.holdout, "--metric", "ums_l2", "--no-verify",
                       "--fpr", ".2", "--out", out, "-q")  # fmt: skip
    near = Calibration.read(out).near.value
    assert f"near:  score > {near:.6g} (distance < {np.sqrt(2 - 2 * near):.4g})" in printed
    shown, whole = deepssim("info", out), json.loads(deepssim("info", out, "--json"))
    assert "curve:" in shown
    assert "unrelated 100 %" in shown
    assert whole["curve"] == json.loads(out.read_text())["curve"]
