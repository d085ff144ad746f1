"""``deepssim calibrate``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from deepssim.cli._labelled import labelled_options
from deepssim.cli._options import (
    apply_options,
    echo_json,
    image_options,
    run_options,
    search_options,
    talk_options,
    threads_option,
)

if TYPE_CHECKING:
    from deepssim.calibrate.unrelated import RunOptions
    from deepssim.calibration import Calibration

F = TypeVar("F", bound=Callable[..., Any])


@click.group("calibrate")
def command() -> None:
    """Choose thresholds of your own, and write them as a calibration.

    \b
    control   from generated images against people whom the generator never saw: the best there is
    planted   from copies of your own images that were planted (deepssim plant)
    labels    from labelled pairs
    real      from real images against other people's, where there is no holdout

    No bundle is touched and no store becomes stale. deepssim audit --calibration FILE takes the file.
    """


def _file_options(function: F) -> F:
    return apply_options(
        [
            click.option("--out", required=True, type=click.Path(path_type=Path), metavar="FILE.json",
                         help="The calibration; a calibration that is there is replaced."),
            click.option("--domain", default="", metavar="TEXT", help="The kind of images, in words, for reports."),
        ],
        function,
    )  # fmt: skip


def _rate_options(function: F) -> F:
    return apply_options(
        [
            click.option("--fpr", type=click.FloatRange(0, 1, min_open=True, max_open=True), default=0.01,
                         show_default=True, help="Rate of false positives per image."),
            click.option("--like", metavar="NAME|FILE",
                         help="Calibration that the exact threshold is taken from.  [default: an audit's]"),
            click.option("--exact", type=float, metavar="VALUE",
                         help="The exact threshold itself: of S2 where pairs are verified, else a score."),
        ],
        function,
    )  # fmt: skip


@command.command("control")
@click.argument("synthetic", type=click.Path(path_type=Path))
@click.argument("holdout", type=click.Path(path_type=Path))
@click.option(
    "--real",
    type=click.Path(path_type=Path),
    help="What the generator was trained on: as many images are drawn of HOLDOUT, by whole people.",
)
@click.option("--base-size", type=click.IntRange(1), metavar="N", help="So many instead.  [default: all of HOLDOUT]")
@_file_options
@_rate_options
@run_options
@image_options
@search_options
@talk_options
def control(
    synthetic: Path,
    holdout: Path,
    real: Path | None,
    base_size: int | None,
    out: Path,
    domain: str,
    fpr: float,
    as_json: bool,
    quiet: bool,
    **asked: Any,
) -> None:
    """Choose the near threshold at a false-positive rate, from SYNTHETIC images against a HOLDOUT.

    HOLDOUT are comparable real images that the generator never saw, so none of SYNTHETIC is a copy of them. Each
    synthetic image counts once, with its nearest, found as an audit finds it (same metric, views, k and
    verification). A new unrelated image passes the threshold with a probability of at most --fpr against a base of
    that size; how sure that is, the interval says.

    \b
    deepssim calibrate control generated/ unseen/ --real train/ --group-by parent --out mine.json
    deepssim audit train/ generated/ --group-by parent --calibration mine.json --out result/
    """
    from deepssim.calibrate.rates import calibrate_rate
    from deepssim.calibrate.unrelated import control_scores
    from deepssim.cli._progress import make_progress

    _check_out(out)
    options = _run_options(**asked)
    scores = control_scores(
        synthetic, holdout, out, real=real, base_size=base_size, options=options, progress=make_progress(quiet)
    )
    found, warnings = calibrate_rate(scores, fpr, kind="control", domain=domain, seed=options.match.seed)
    _finish(found, out, warnings, {"images": len(scores)}, scores.similarity, as_json=as_json)


@command.command("real")
@click.argument("real", type=click.Path(path_type=Path))
@_file_options
@_rate_options
@run_options
@image_options
@search_options
@talk_options
def real_against_real(real: Path, out: Path, domain: str, fpr: float, as_json: bool, quiet: bool, **asked: Any) -> None:
    """Choose the near threshold at a false-positive rate, from REAL images against those of other people.

    For where there is no holdout: real images are sharper or noisier than generated ones, so the rate on generated
    images may be another.

    \b
    deepssim calibrate real train/ --group-by parent --out mine.json
    """
    from deepssim.calibrate.rates import calibrate_rate
    from deepssim.calibrate.unrelated import people_scores
    from deepssim.cli._progress import make_progress

    _check_out(out)
    options = _run_options(**asked)
    scores = people_scores(real, out, options=options, progress=make_progress(quiet))
    found, warnings = calibrate_rate(scores, fpr, kind="real", domain=domain, seed=options.match.seed)
    _finish(found, out, warnings, {"images": len(scores)}, scores.similarity, as_json=as_json)


@command.command("planted")
@click.argument("result", type=click.Path(path_type=Path))
@click.option("--truth", required=True, type=click.Path(path_type=Path), help="truth.csv of deepssim plant.")
@click.option("--recall", type=click.FloatRange(0, 1, min_open=True, max_open=True), default=0.95, show_default=True,
              help="Share of near copies that is to be found.")  # fmt: skip
@_file_options
@talk_options
def planted(result: Path, truth: Path, recall: float, out: Path, domain: str, as_json: bool, quiet: bool) -> None:
    """Choose thresholds that find enough of the copies that were planted into the images audited in RESULT.

    The near threshold is the highest that keeps --recall of near copies, the exact one tells exact from near ones
    best. Where the audit had a holdout, the rate of false positives that this costs is said.

    \b
    deepssim plant train/ generated/ --group-by parent --out planted/
    deepssim audit train/ planted/images --group-by parent --holdout unseen/ --out result/
    deepssim calibrate planted result/ --truth planted/truth.csv --out mine.json
    """
    from deepssim.calibrate.planted import calibrate_planted
    from deepssim.planted.recall import find_planted

    _check_out(out)
    findings = find_planted(result, truth)
    found = calibrate_planted(findings, recall, domain=domain)
    facts = {"near_recall": found.near_recall, "exact_recall": found.exact_recall, "told_apart": found.told_apart}
    similarity = str(findings.summary["metric"].get("similarity", ""))
    _finish(found.calibration, out, found.warnings, facts, similarity, as_json=as_json)


@command.command("labels")
@labelled_options
@click.option("--folds", type=click.IntRange(2), default=5, show_default=True,
              help="Parts of the people; thresholds of each are chosen on the others, to see how they do.")  # fmt: skip
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of the parts and of resampling.")
@_file_options
@threads_option
@talk_options
def labels(
    folds: int, seed: int, out: Path, domain: str, threads: int, as_json: bool, quiet: bool, **asked: Any
) -> None:
    """Choose the two thresholds with the highest F1 on labelled pairs.

    Scores come from a matrix, from two stores, or from the images, of one metric. The macro F1 on the pairs that
    chose the thresholds is optimistic; the one beside it is of people who were left out of the choice.

    \b
    deepssim calibrate labels --testset-csv pairs.csv --images data/ --metric verified --out mine.json
    deepssim calibrate labels --testset-csv pairs.csv --matrix matrices/chen.npz --out mine.json
    """
    from deepssim.calibrate.labels import calibrate_labels
    from deepssim.cli._labelled import read_scores
    from deepssim.cli._progress import make_progress
    from deepssim.errors import UsageError

    _check_out(out)
    pairs, scores = read_scores(**asked, threads=threads, progress=make_progress(quiet))
    if len(scores) != 1:
        names = ", ".join(one.metric for one in scores)
        raise UsageError(f"a calibration is of one metric, here are {len(scores)}: {names}; name one of them")
    found = calibrate_labels(pairs, scores[0], n_folds=folds, domain=domain, seed=seed)
    facts = {
        "pairs": found.n_pairs,
        "people": found.n_people,
        "folds": found.n_folds,
        "macro_f1_fitted": found.fitted_f1,
        "macro_f1_left_out": found.left_out_f1,
        "macro_f1_left_out_interval": list(found.left_out_interval),
    }
    _finish(found.calibration, out, (), facts, scores[0].similarity, as_json=as_json)


def _run_options(
    *,
    metric: str,
    device: str,
    threads: int,
    group_by: str,
    slices: str,
    axis: str,
    max_pixels: int,
    k: int,
    max_per_group: int,
    views: str | None,
    verify: bool | None,
    memory_limit: int,
    seed: int,
    like: str | None,
    exact: float | None,
) -> RunOptions:
    from deepssim.calibrate.unrelated import RunOptions
    from deepssim.calibration import load_calibration
    from deepssim.images import ImageOptions
    from deepssim.matching import MatchOptions

    return RunOptions(
        metric=metric,
        like=load_calibration(like) if like is not None else None,
        exact=exact,
        verify=verify,
        images=ImageOptions(slices=slices, axis=axis, group_by=group_by, max_pixels=max_pixels),
        synthetic_images=ImageOptions(slices=slices, axis=axis, max_pixels=max_pixels),
        match=MatchOptions(k, max_per_group, threads=threads, memory_limit=memory_limit, seed=seed, views=views),
        device=device,
    )


def _check_out(out: Path) -> None:
    """Refuse before any work what could not be written, or would be lost."""
    from deepssim.calibration import Calibration
    from deepssim.errors import MetricError, UsageError

    if out.suffix != ".json":
        raise UsageError(f"{out} does not end in .json: name the calibration FILE.json")
    if out.is_dir() or not out.absolute().parent.is_dir():
        raise UsageError(f"{out} cannot be written: name a file in a folder that is there")
    if out.exists():
        try:
            Calibration.read(out)
        except MetricError:
            raise UsageError(f"{out} is there and is no calibration: name another file") from None


def _finish(
    calibration: Calibration,
    out: Path,
    warnings: Sequence[str],
    facts: dict[str, Any],
    similarity: str,
    *,
    as_json: bool,
) -> None:
    from deepssim.cli._options import threshold_text
    from deepssim.disk import replacing

    with replacing(out) as temporary:
        calibration.write(temporary)
    for line in warnings:
        click.echo(f"Warning: {line}", err=True)
    if as_json:
        echo_json({"out": str(out), **facts, "calibration": {"metric": calibration.metric, **calibration.as_dict()}})
        return
    of = ("S1", "S2") if calibration.stage == "verified" else ("score", "score")
    is_distance = calibration.stage == "embedding" and similarity == "l2"
    near, exact = (
        threshold_text(one.comparison, one.value, is_distance=is_distance)
        for one in (calibration.near, calibration.exact)
    )
    click.echo(f"near:  {of[0]} {near}")
    click.echo(f"exact: {of[1]} {exact}")
    if calibration.false_positive_rate is not None:
        bounds = calibration.false_positive_interval
        shown = f" (95 % interval {100 * bounds[0]:.2f} to {100 * bounds[1]:.2f} %)" if bounds else ""
        click.echo(
            f"false positives: {100 * calibration.false_positive_rate:.2f} % of unrelated images{shown}, "
            f"against {calibration.base_size:,} real ones"
        )
    click.echo(calibration.how)
    click.echo(f"Calibration: {out}")
