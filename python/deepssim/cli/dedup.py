"""``deepssim dedup``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from deepssim.cli._options import Bytes, echo_json, image_options, run_options, talk_options

if TYPE_CHECKING:
    from deepssim.images import ImageOptions
    from deepssim.progress import Progress
    from deepssim.store import Store


@click.command("dedup")
@click.argument("images", metavar="STORE|IMAGES", type=click.Path(path_type=Path))
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder of the results.")
@click.option("--threshold", type=float, metavar="SCORE",
              help="Two images are duplicates above this cosine; for a metric whose similarity is l2, below this "
              "distance.  [default: cosine .95]")  # fmt: skip
@click.option("--epsilon", type=click.FloatRange(0, 2, min_open=True), help="The same as 1 - cosine, as in the paper.")
@click.option("--clusters", type=click.IntRange(1), metavar="K",
              help="Of k-means.  [default: one for every 8,800 images]")  # fmt: skip
@click.option("--exact", is_flag=True, help="No k-means: all pairs. Misses nothing.")
@click.option("--keep", type=click.Choice(["farthest", "nearest", "first"]), default="farthest", show_default=True,
              help="Of duplicates keep the one farthest from the centroid of its cluster, the nearest, or the first "
              "by id.")  # fmt: skip
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), default=0, show_default=True, help="Of k-means.")
@click.option("--compare/--no-compare", default=None,
              help="Compare all pairs too, and count what the clusters missed.  [default: up to 100,000 images that "
              "fit the memory limit]")  # fmt: skip
@click.option("--manifest", type=click.Path(path_type=Path), metavar="FILE",
              help="List the kept images for other commands: NAME.csv or NAME.parquet in the folder of the images or "
              "one above.")  # fmt: skip
@run_options
@image_options
@click.option("--max-skipped", type=click.FloatRange(0, 1), default=0.01, show_default=True, metavar="SHARE",
              help="Exit with code 4 if a larger share of the images cannot be used.")  # fmt: skip
@click.option("--memory-limit", type=Bytes(), default=2 * 2**30,
              help="Bytes for embeddings held at a time; 0: no limit.  [default: 2GiB]")  # fmt: skip
@talk_options
@click.pass_context
def command(
    ctx: click.Context,
    images: Path,
    out: Path,
    threshold: float | None,
    epsilon: float | None,
    clusters: int | None,
    exact: bool,
    keep: Any,
    seed: int,
    compare: bool | None,
    manifest: Path | None,
    metric: str,
    device: str,
    threads: int,
    group_by: str,
    slices: str,
    axis: str,
    max_pixels: int,
    max_skipped: float,
    memory_limit: int,
    as_json: bool,
    quiet: bool,
) -> None:
    """Find images that repeat others of the same set, and keep one of each group (SemDeDup).

    STORE was made by embed; IMAGES are what embed takes, and are embedded into OUT/embeddings first. Embeddings are
    put into clusters by k-means; in a cluster an image is removed if its cosine with one that comes before it is
    above the threshold, the least like the centroid coming first (Abbas et al. 2023, arXiv 2303.09540). No image is
    deleted: OUT holds the lists kept and duplicates (.csv and .parquet) and summary.json with the shares that other
    thresholds would remove.

    \b
    deepssim dedup generated/ --out dedup/ --manifest generated/kept.csv
    deepssim audit train/ generated/kept.csv --out result/
    """
    from deepssim.cli._progress import make_progress
    from deepssim.dedup import DedupOptions, deduplicate
    from deepssim.dedup.files import check_manifest, write_dedup
    from deepssim.images import ImageOptions
    from deepssim.inputs import check_distinct
    from deepssim.store import count_skipped

    if exact and clusters not in (None, 1):
        raise click.UsageError("--exact compares all pairs, without clusters: leave --clusters out")
    if threshold is not None and epsilon is not None:
        raise click.UsageError("give --threshold or --epsilon, not both")
    check_distinct({"images": images, "output": out})
    if manifest is not None and manifest.resolve() == images.resolve():
        raise click.UsageError(f"--manifest {manifest} is the list of all images itself: name another file")
    progress = make_progress(quiet)
    options = ImageOptions(slices=slices, axis=axis, group_by=group_by, max_pixels=max_pixels)
    store = _store(images, out, options, metric, device, threads, progress)
    if manifest is not None:
        check_manifest(manifest, store)
    asked = DedupOptions(
        _cosine(threshold, epsilon, store.metric["similarity"]), 1 if exact else clusters, keep, seed, compare=compare,
        memory_limit=memory_limit, threads=threads,
    )  # fmt: skip
    summary = write_dedup(store, deduplicate(store, asked, progress=progress), out, manifest=manifest)
    if as_json:
        echo_json(summary)
    else:
        _describe(summary, out)
    n_skipped = count_skipped(store.skipped())
    if n_skipped > max_skipped * (len(store) + n_skipped):
        click.echo(f"Too many images were skipped; the reasons are in {store.path / 'skipped.parquet'}", err=True)
        ctx.exit(4)


def _store(
    images: Path, out: Path, options: ImageOptions, metric: str, device: str, threads: int, progress: Progress
) -> Store:
    from deepssim.disk import make_private_folder
    from deepssim.domain import find_metric
    from deepssim.embed import Encoder
    from deepssim.errors import UsageError
    from deepssim.images import list_images
    from deepssim.inputs import same_reading
    from deepssim.store import Store
    from deepssim.store_build import build_store

    if Store.is_store(images):
        store = same_reading(Store(images), options)
        if metric != "auto" and find_metric(metric, lambda: list_images(images, options)).hash != store.metric["hash"]:
            raise UsageError(
                f"{images} holds embeddings of the metric {store.metric['name']}, not of this {metric}: leave --metric "
                "out, or give the images"
            )
        return store
    listing = list_images(images, options)
    found = find_metric(metric, lambda: listing, threads=threads or None, say=progress.status)
    encoder = Encoder(found, device=device, threads=threads)
    with progress.track("images", listing.n_expected) as advance:
        return build_store(
            listing, encoder, make_private_folder(out) / "embeddings", threads=threads or None, progress=advance,
            status=progress.status,
        )  # fmt: skip


def _cosine(threshold: float | None, epsilon: float | None, similarity: str) -> float:
    if epsilon is not None:
        return round(1 - epsilon, 12)
    if threshold is None:
        return 0.95
    if similarity != "l2":
        return threshold
    from deepssim.metric import l2_score

    return l2_score(threshold)


def _describe(summary: dict[str, Any], out: Path) -> None:
    from deepssim.images.text import one_line

    is_l2 = summary["distance"] is not None
    name = one_line(summary["metric"]["name"])
    rule = f"distance < {summary['distance']:.4g}" if is_l2 else f"cosine > {summary['threshold']:.6g}"
    click.echo(f"{out}: {summary['kept']:,} of {summary['images']:,} images kept, {summary['removed']:,} removed "
               f"({100 * summary['share_removed']:.1f} %), metric {name}, {rule}")  # fmt: skip
    n = summary["clusters"]
    if n == 1:
        click.echo("  all pairs compared")
    else:
        click.echo(f"  {n:,} clusters, the largest of {summary['largest_cluster']:,} images")
    if summary["left_across_clusters"]:
        click.echo(
            f"  {summary['left_across_clusters']:,} more images repeat one of another cluster: --exact finds them"
        )
    if summary["like_a_removed_one_alone"]:
        click.echo(f"  {summary['like_a_removed_one_alone']:,} are like an image that was removed itself, and like no "
                   "kept one")  # fmt: skip
    is_compared = "recall_of_pairs" in summary["levels"][0]
    end = f" {'pairs found':>12}" if is_compared else ""
    click.echo(f"\n{'distance <' if is_l2 else 'cosine >':>10} {'removed':>10} {'share':>8} {'pairs':>14}{end}")
    from deepssim.metric import l2_distance

    for row in summary["levels"]:
        shown = l2_distance(row["threshold"]) if is_l2 else row["threshold"]
        recall = row.get("recall_of_pairs")
        end = f" {'-' if recall is None else f'{100 * recall:.2f} %':>12}" if is_compared else ""
        click.echo(f"{shown:>10.4g} {row['removed']:>10,} {100 * row['share']:>6.1f} % {row['pairs']:>14,}{end}")
