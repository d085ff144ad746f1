"""``deepssim audit``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from deepssim.cli._options import (
    image_options,
    keep_option,
    match_options,
    read_calibration,
    read_thresholds,
    run_options,
    talk_options,
)

if TYPE_CHECKING:
    from deepssim.images import ImageOptions, ImageStream


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
@keep_option
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
    keep: int | None,
    no_images: bool,
    pseudonyms: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Find out which SYNTHETIC images copy which REAL ones, and report it.

    REAL are the images that the generator was trained on, SYNTHETIC those that it made; each is a folder, a
    file, a manifest (.csv or .parquet with a column path, optional id and group) or a store made by embed.
    SYNTHETIC can also be - : a tar of images, or a .npy stack, from standard input; few of them are kept.
    The results are report.html, summary.json, matches.parquet (nearest real images of each synthetic one),
    leaks.parquet (pairs over the threshold), real_images.parquet, patients.parquet, skipped.parquet and
    run.json. Killed and started again, it goes on where it was.

    \b
    deepssim audit train/ generated/ --group-by parent --holdout unseen/ --out result/
    tar -cC generated/ . | deepssim audit train/ - --out result/
    """
    from deepssim.audit import AuditOptions, audit
    from deepssim.cli._outcome import announce
    from deepssim.cli._progress import make_progress
    from deepssim.images import ImageOptions
    from deepssim.kept import DEFAULT_SAMPLE
    from deepssim.matching import MatchOptions
    from deepssim.report import write_report

    is_stream = str(synthetic) == "-"
    if keep is not None and not is_stream:
        raise click.UsageError("--keep is of a stream: all images of a folder are there anyway")
    # Synthetic images have no patient of their own: only a manifest or the files may say otherwise.
    synthetic_images = ImageOptions(slices=slices, axis=axis, max_pixels=max_pixels)
    options = AuditOptions(
        metric=metric,
        calibration=read_calibration(thresholds, calibration),
        thresholds=read_thresholds(thresholds),
        verify=verify,
        images=ImageOptions(slices=slices, axis=axis, group_by=group_by, max_pixels=max_pixels),
        synthetic_images=synthetic_images,
        match=MatchOptions(k, max_per_group, max_listed, threads, memory_limit, seed, views=views),
        device=device,
        max_skipped=max_skipped,
        with_csv=with_csv,
        keep=DEFAULT_SAMPLE if keep is None else keep,
    )
    source = _standard_input(synthetic_images, threads, real, holdout) if is_stream else synthetic
    result = audit(real, source, out, holdout=holdout, options=options, progress=make_progress(quiet))
    report = write_report(out)
    if no_images or pseudonyms:
        shareable = write_report(out, with_images=not no_images, pseudonyms=pseudonyms)
        click.echo(f"To hand over: {shareable} (report.html beside it is not)", err=True)
    announce(ctx, result, report, as_json=as_json, fail_above=fail_above)


def _standard_input(options: ImageOptions, threads: int, real: Path, holdout: Path | None) -> ImageStream:
    """Look at what comes from standard input before anything else is done."""
    from deepssim.images import open_stream

    if "-" in {str(real), str(holdout)}:
        raise click.UsageError("only SYNTHETIC can come from standard input")
    if sys.stdin is None:
        raise click.UsageError("standard input is closed: pipe a tar of images or a .npy stack into it")
    return open_stream(sys.stdin.buffer, options=options, threads=threads or None)
