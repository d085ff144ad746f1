"""``deepssim score``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from deepssim.cli._layout import OWN, layout_options, refuse_others, run_layout
from deepssim.cli._options import match_options, read_calibration, read_thresholds, talk_options, threads_option


@click.command("score")
@click.argument("real_store", type=click.Path(path_type=Path))
@click.argument("synthetic_store", type=click.Path(path_type=Path), required=False)
@click.option("--out", type=click.Path(path_type=Path), help="Folder of the results.")
@click.option("--holdout", type=click.Path(path_type=Path), help="Store of images that the generator never saw.")
@click.option("--metric", default="auto", metavar="NAME|FILE.onnx",
              help="The bundle that the stores were made with, where it is none of the package; the screening is tried "
              "with it. With --reference-layout: what images are embedded with.")  # fmt: skip
@threads_option
@match_options
@click.option(
    "--keep-prepared",
    is_flag=True,
    help="Keep the prepared real set in REAL_STORE (about a quarter of its size), for further runs against it. What "
    "was kept is used whenever it fits.",
)
@layout_options
@talk_options
@click.pass_context
def command(
    ctx: click.Context,
    /,
    real_store: Path,
    synthetic_store: Path | None,
    out: Path | None,
    metric: str,
    threads: int,
    memory_limit: int,
    max_skipped: float,
    reference_layout: bool,
    as_json: bool,
    quiet: bool,
    **asked: Any,
) -> None:
    """Match SYNTHETIC_STORE against REAL_STORE, both made by embed with one metric.

    Writes what audit writes but the report (deepssim report DIR makes it). From the same stores and options
    the tables have the same bytes, whatever the threads, the memory limit and the processor.

    \b
    deepssim score train.store generated.store --out result/ --memory-limit 512MiB

    With --reference-layout, all scores as a matrix, in the files of the reference implementation:

    \b
    deepssim score train.store generated.store --reference-layout --out scores/
    deepssim score data/ --reference-layout --metric deepssim.onnx --out scores/
    """
    refuse_others(ctx, is_layout=reference_layout)
    shared: dict[str, Any] = {"threads": threads, "memory_limit": memory_limit, "max_skipped": max_skipped}
    own = {name: asked.pop(name) for name in OWN}
    if reference_layout:
        run_layout(
            ctx, real_store, synthetic_store, out=out, metric=metric, as_json=as_json, quiet=quiet, **shared, **own
        )
        return
    if synthetic_store is None:
        raise click.UsageError("Missing argument 'SYNTHETIC_STORE'; one folder of images goes with --reference-layout")
    if out is None:
        raise click.UsageError("Missing option '--out'.")
    _match(ctx, real_store, synthetic_store, out, metric, as_json=as_json, quiet=quiet, **shared, **asked)


def _match(
    ctx: click.Context,
    real_store: Path,
    synthetic_store: Path,
    out: Path,
    metric: str,
    *,
    holdout: Path | None,
    threads: int,
    k: int,
    max_per_group: int,
    max_listed: int,
    thresholds: str | None,
    calibration: str | None,
    verify: bool | None,
    views: str | None,
    memory_limit: int,
    max_skipped: float,
    fail_above: float | None,
    seed: int,
    keep_prepared: bool,
    with_csv: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    from deepssim.audit import AuditOptions, score
    from deepssim.cli._outcome import announce
    from deepssim.cli._progress import make_progress
    from deepssim.matching import MatchOptions

    options = AuditOptions(
        metric=metric,
        calibration=read_calibration(thresholds, calibration),
        thresholds=read_thresholds(thresholds),
        verify=verify,
        match=MatchOptions(k, max_per_group, max_listed, threads, memory_limit, seed, keep_prepared, views),
        max_skipped=max_skipped,
        with_csv=with_csv,
        command="score",
    )
    result = score(real_store, synthetic_store, out, holdout=holdout, options=options, progress=make_progress(quiet))
    announce(ctx, result, None, as_json=as_json, fail_above=fail_above)
