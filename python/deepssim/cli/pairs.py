"""``deepssim pairs``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from deepssim.cli._options import Bytes, Dimensions, echo_json, image_options, talk_options, threads_option

if TYPE_CHECKING:
    from deepssim.pairs import PairResult

FEW = 5000  # pairs whose partners are made before processes have started


@click.command("pairs")
@click.argument("real", type=click.Path(path_type=Path))
@click.argument("synthetic", type=click.Path(path_type=Path), required=False)
@click.option("--out", required=True, type=click.Path(path_type=Path),
              help="REAL alone: folder for the images and their pairs.csv. With SYNTHETIC: NAME.csv.")  # fmt: skip
@click.option("--number", type=click.IntRange(1), default=20_000, show_default=True, help="Pairs to draw.")
@click.option("--target", type=click.Choice(["ssim", "registered"]),
              help="What is learnt: SSIM of the images as they lie, or once the second is laid onto the first.  "
              "[default: ssim for made partners, which lie where their image lies; else registered]")  # fmt: skip
@click.option("--valid-part", type=click.FloatRange(0, 0.5), default=0.1, show_default=True, metavar="SHARE",
              help="Part of the people, and of the pairs, that select the weights (split valid).")  # fmt: skip
@click.option("--compare", type=click.IntRange(1), metavar="N",
              help="Most pairs compared as they lie.  [default: 20 for each drawn, 20 million at least]")  # fmt: skip
@click.option("--resize", type=Dimensions(), metavar="HxW",
              help="Bring all images to H rows and W columns by area averaging.")  # fmt: skip
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of every draw.")
@click.option("--overwrite", is_flag=True, help="REAL alone: remove pairs of other images or options from the folder.")
@image_options
@click.option("--memory-limit", type=Bytes(), default=2 * 2**30,
              help="Bytes for the images held at a time; 0: no limit.  [default: 2GiB]")  # fmt: skip
@click.option("--max-skipped", type=click.FloatRange(0, 1), default=0.01, show_default=True, metavar="SHARE",
              help="Exit with code 4 if a larger share of a set cannot be used.")  # fmt: skip
@click.option("--num-workers", "workers", type=click.IntRange(0, 256),
              help="Processes that make partners.  [default: one a processor; 0 for few pairs]")  # fmt: skip
@threads_option
@talk_options
@click.pass_context
def command(
    ctx: click.Context,
    /,
    real: Path,
    synthetic: Path | None,
    out: Path,
    number: int,
    workers: int | None,
    threads: int,
    resize: tuple[int, int] | None,
    overwrite: bool,
    group_by: str,
    slices: str,
    axis: str,
    max_pixels: int,
    as_json: bool,
    quiet: bool,
    **asked: Any,
) -> None:
    """List pairs of images with their similarity: what an encoder is trained on.

    REAL alone: partners are made of the real images, from twins over artefacts and growing local changes to images
    of the same person and of other people, and written into a folder. No generator is needed.

    REAL and SYNTHETIC: pairs of images that are there are listed. Both may be one folder of uid/training.png and
    uid/NAME.png.

    Pairs are drawn evenly from the tenths of the similarity, as far as the images go. People, not pairs, are split
    into train and valid, so say who is who with --group-by; a synthetic image follows the real image that is most
    like it. The list has the columns real_key, synth_key, ssim, split and some of ours; the key uid___name stands
    for uid/name.png. The same command gives the same bytes, and goes on after a kill.

    \b
    deepssim pairs train/ --group-by parent --out pairs/
    deepssim train encoder --recipe lite --dataset-images-dir pairs/ --dataset-csv pairs/pairs.csv \\
        --epochs 40 --exp-name mine

    \b
    deepssim pairs data/train/ data/generated/ --group-by parent --number 1000000 --out data/pairs.csv
    """
    from deepssim.cli._progress import make_progress
    from deepssim.images import ImageOptions
    from deepssim.pairs import PairOptions, list_pairs, make_pairs
    from deepssim.search import usable_processors

    images = ImageOptions(slices=slices, axis=axis, group_by=group_by, max_pixels=max_pixels)
    if workers is None:
        workers = (threads or usable_processors()) if number >= FEW else 0
    options = PairOptions(number, size=resize, images=images, threads=threads, workers=workers, **asked)
    progress = make_progress(quiet)
    if synthetic is None:
        result = make_pairs(real, out, options, overwrite=overwrite, progress=progress)
    elif overwrite:
        raise click.UsageError("--overwrite is for a folder of made partners; a list is replaced anyway")
    else:
        result = list_pairs(real, synthetic, out, options, progress=progress)
    for line in result.warnings:
        click.echo(f"Warning: {line}", err=True)  # with --quiet too, which is about progress
    if as_json:
        echo_json(result.as_dict())
    else:
        _describe(result)
    if result.too_many_skipped:
        skipped = out / "skipped.csv" if synthetic is None else out.with_suffix(".skipped.csv")
        click.echo(f"Too many images were skipped; the reasons are in {skipped}", err=True)
        ctx.exit(4)


def _describe(result: PairResult) -> None:
    splits = ", ".join(f"{n:,} of {result.n_people[split]:,} people to {split}" for split, n in result.n_pairs.items())
    click.echo(f"{result.out}: {splits}")
    click.echo(f"  {result.n_real:,} real and {result.n_synthetic:,} synthetic images under {result.folder}")
    for what, count in (("resized", result.n_resized), ("skipped", result.n_skipped)):
        if count:
            click.echo(f"  {count:,} images {what}")
    name = "registered SSIM" if result.target == "registered" else "SSIM"
    click.echo(f"\n{name:>15} {'wanted':>10} {'found':>13} {'drawn':>10}")
    for one in result.bins:
        wanted, found, drawn = (sum(values.values()) for values in (one.wanted, one.found, one.drawn))
        click.echo(f"{f'{one.low:.1f} to {one.high:.1f}':>15} {wanted:>10,} {found:>13,} {drawn:>10,}")
