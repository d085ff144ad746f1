"""``deepssim audit``."""

from __future__ import annotations

from pathlib import Path

import click

from deepssim.cli._options import (
    image_options,
    match_options,
    read_calibration,
    read_thresholds,
    run_options,
    talk_options,
)


@click.command("audit")
@click.argument("real", type=click.Path(path_type=Path))
@click.argument("synthetic", type=click.Path(path_type=Path))
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder of the results.")
@click.option(
    "--holdout",
    type=click.Path(path_type=Path),
    help="Comparable real images that the generator never saw: the control.",
)
@run_options
@image_options
@match_options
@click.option("--no-images", is_flag=True, help="A report without pictures, to hand over.")
@click.option("--pseudonyms", is_flag=True, help="A report with pseudonyms instead of ids, to hand over.")
@talk_options
@click.pass_context
def command(
    ctx: click.Context,
    real: Path,
    synthetic: Path,
    out: Path,
    holdout: Path | None,
    metric: str,
    device: str,
    threads: int,
    group_by: str,
    slices: str,
    axis: str,
    max_pixels: int,
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
    with_csv: bool,
    no_images: bool,
    pseudonyms: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Find out which SYNTHETIC images copy which REAL ones, and report it.

    REAL are the images that the generator was trained on, SYNTHETIC those that it made; each is a folder, a
    file, a manifest (.csv or .parquet with a column path, optional id and group) or a store made by embed.
    The results are report.html, summary.json, matches.parquet (nearest real images of each synthetic one),
    leaks.parquet (pairs over the threshold), real_images.parquet, patients.parquet, skipped.parquet and
    run.json. Killed and started again, it goes on where it was.

    \b
    deepssim audit train/ generated/ --group-by parent --holdout unseen/ --out result/
    """
    from deepssim.audit import AuditOptions, audit
    from deepssim.cli._outcome import announce
    from deepssim.cli._progress import make_progress
    from deepssim.images import ImageOptions
    from deepssim.matching import MatchOptions
    from deepssim.report import write_report

    options = AuditOptions(
        metric=metric,
        calibration=read_calibration(thresholds, calibration),
        thresholds=read_thresholds(thresholds),
        verify=verify,
        images=ImageOptions(slices=slices, axis=axis, group_by=group_by, max_pixels=max_pixels),
        # Synthetic images have no patient of their own: only a manifest or the files may say otherwise.
        synthetic_images=ImageOptions(slices=slices, axis=axis, max_pixels=max_pixels),
        match=MatchOptions(k, max_per_group, max_listed, threads, memory_limit, seed, views=views),
        device=device,
        max_skipped=max_skipped,
        with_csv=with_csv,
    )
    result = audit(real, synthetic, out, holdout=holdout, options=options, progress=make_progress(quiet))
    report = write_report(out)
    if no_images or pseudonyms:
        shareable = write_report(out, with_images=not no_images, pseudonyms=pseudonyms)
        click.echo(f"To hand over: {shareable} (report.html beside it is not)", err=True)
    announce(ctx, result, report, as_json=as_json, fail_above=fail_above)
