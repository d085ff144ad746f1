"""``deepssim embed``."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import click

from deepssim.cli._options import echo_json, image_options, run_options, talk_options


@click.command("embed")
@click.argument("images", type=click.Path(path_type=Path))
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder of the store.")
@run_options
@image_options
@click.option("--max-skipped", type=click.FloatRange(0, 1), default=0.01, show_default=True, metavar="SHARE",
              help="Exit with code 4 if a larger share of the images cannot be used.")  # fmt: skip
@click.option(
    "--working/--no-working",
    default=True,
    help="Keep small 8-bit images beside the embeddings (default), so that score can verify pairs in image space.",
)
@click.option("--gallery/--no-gallery", default=False,
              help="Embed real images as audit does: in several views, where the metric has any.")  # fmt: skip
@click.option("--reference-layout", "part", type=click.Choice(["real", "synthetic"]),
              help="Of a folder UID/NAME.png as the reference implementation lays it out: the images called training "
              "(real) or all others (synthetic).  [default: all images]")  # fmt: skip
@talk_options
@click.pass_context
def command(
    ctx: click.Context,
    images: Path,
    out: Path,
    metric: str,
    device: str,
    threads: int,
    group_by: str,
    slices: str,
    axis: str,
    max_pixels: int,
    max_skipped: float,
    working: bool,
    gallery: bool,
    part: Literal["real", "synthetic"] | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Embed IMAGES into a store.

    IMAGES is a folder (PNG, JPEG, TIFF, BMP, .npy, .npz, NIfTI, DICOM; walked recursively), one such file,
    or a manifest (.csv or .parquet with a column path, optional id and group). A store that was cut short
    is continued, one of the same images and metric is kept, a stale one is rebuilt.

    \b
    deepssim embed train/ --out train.store --group-by parent --gallery
    deepssim embed generated/ --out generated.store --metric train.store
    deepssim embed data/ --reference-layout real --metric brain --out real.store
    """
    from deepssim.cli._progress import make_progress
    from deepssim.domain import find_metric
    from deepssim.embed import Encoder
    from deepssim.images import ImageOptions, list_images
    from deepssim.reference.layout import one_part
    from deepssim.store import count_skipped
    from deepssim.store_build import build_store

    progress = make_progress(quiet)
    options = ImageOptions(slices=slices, axis=axis, group_by=group_by, max_pixels=max_pixels)
    listing = list_images(images, options)
    if part is not None:
        listing = one_part(listing, part)
    found = find_metric(metric, lambda: listing, threads=threads or None, say=progress.status)
    encoder = Encoder(found, device=device, threads=threads)
    with progress.track("images", listing.n_expected) as advance:
        store = build_store(
            listing,
            encoder,
            out,
            with_working=working,
            as_gallery=gallery,
            threads=threads or None,
            progress=advance,
            status=progress.status,
        )
    n_skipped = count_skipped(store.skipped())
    if as_json:
        echo_json({"store": str(out), "images": len(store), "dim": store.dim, "skipped": n_skipped,
                   "metric": store.metric})  # fmt: skip
    else:
        click.echo(f"{out}: {len(store):,} embeddings of {store.dim} elements, {n_skipped:,} images skipped")
    if n_skipped > max_skipped * (len(store) + n_skipped):
        click.echo(f"Too many images were skipped; the reasons are in {out / 'skipped.parquet'}", err=True)
        ctx.exit(4)
