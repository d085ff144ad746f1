"""``deepssim score --reference-layout``: all scores, in the files of the reference implementation."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from deepssim.cli._options import apply_options, echo_json

if TYPE_CHECKING:
    from deepssim.progress import Progress
    from deepssim.reference.scoring import Folders, Scored, ScoreOptions

__all__ = ["layout_options", "refuse_others", "run_layout"]

F = TypeVar("F", bound=Callable[..., Any])
_FOLDER = click.Path(path_type=Path)
# Of score, that mean something for a matrix too.
SHARED = frozenset(
    {"real_store", "synthetic_store", "out", "metric", "threads", "memory_limit", "max_skipped", "as_json", "quiet"}
)
OWN = (
    "float16", "name", "embeddings_dir", "matrices_dir", "indices_dir", "embeddings", "perturb", "perturb_both",
    "device", "use_gpu",
)  # fmt: skip


def layout_options(function: F) -> F:
    """Add ``--reference-layout`` and what goes with it."""
    options = [
        click.option("--reference-layout", is_flag=True,
                     help="Write the score of every real with every synthetic image instead, as the reference "
                     "implementation does: matrices/METRIC.npz, indices/ and embeddings/METRIC/. One argument is a "
                     "folder of images UID/NAME.png, of which those called training are real, or one of embeddings; "
                     "two are stores. The options below are for this alone."),
        click.option("--float16", is_flag=True,
                     help="Round scores to float16, which moves them by up to .00025 near .85.  [default: float32]"),
        click.option("--name", metavar="NAME", help="Of the metric, in the names of files.  [default: its own]"),
        click.option("--embeddings-dir", type=_FOLDER, help="[default: OUT/embeddings]"),
        click.option("--matrices-dir", type=_FOLDER, help="[default: OUT/matrices]"),
        click.option("--indices-dir", type=_FOLDER, help="[default: OUT/indices]"),
        click.option("--embeddings/--no-embeddings", default=True,
                     help="Write one file an image beside the matrix (default), or none."),
        click.option("--perturb", is_flag=False, flag_value="0", default=None, metavar="[SEED]", type=click.IntRange(0),
                     help="The perturbed condition: each synthetic image is flipped, turned and re-contrasted by one "
                     "random draw."),
        click.option("--perturb-both", is_flag=True,
                     help="With --perturb: the real images too, as the reference implementation does."),
        click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True,
                     help="Where the metric runs on images; cuda is an error where there is none."),
        click.option("--use-gpu", is_flag=True, help="As --device auto, with a warning where there is no GPU."),
    ]  # fmt: skip
    return apply_options(options, function)


def refuse_others(ctx: click.Context, *, is_layout: bool) -> None:
    """Refuse options that were given and mean nothing.

    Raises:
        click.UsageError: All of them are named.
    """
    from click.core import ParameterSource

    given = [p for p in ctx.command.params if ctx.get_parameter_source(p.name or "") == ParameterSource.COMMANDLINE]
    if is_layout:
        odd = [p for p in given if p.name not in (*SHARED, *OWN, "reference_layout")]
        text = "not with --reference-layout, which writes all scores and judges none"
    else:
        odd = [p for p in given if p.name in OWN]
        text = "only with --reference-layout"
    if odd:
        raise click.UsageError(f"{', '.join(max(p.opts, key=len) for p in odd)}: {text}")


def run_layout(
    ctx: click.Context,
    source: Path,
    synthetic: Path | None,
    *,
    out: Path | None,
    metric: str,
    float16: bool,
    name: str | None,
    embeddings_dir: Path | None,
    matrices_dir: Path | None,
    indices_dir: Path | None,
    embeddings: bool,
    perturb: int | None,
    perturb_both: bool,
    device: str,
    use_gpu: bool,
    threads: int,
    memory_limit: int,
    max_skipped: float,
    as_json: bool,
    quiet: bool,
) -> None:
    """Score two stores, a folder of images or one of embeddings, and say what was written."""
    from deepssim.cli._progress import make_progress
    from deepssim.reference.scoring import Folders, ScoreOptions

    if perturb_both and perturb is None:
        raise click.UsageError("--perturb-both goes with --perturb")
    if use_gpu and device == "cpu":
        raise click.UsageError("--use-gpu and --device cpu contradict each other: give one of them")
    folders = Folders.under(out, embeddings_dir, matrices_dir, indices_dir)
    options = ScoreOptions(
        name, float16, embeddings, perturb, perturb_both, memory_limit, threads, max_skipped
    )  # fmt: skip
    progress = make_progress(quiet)
    if synthetic is not None:
        result = _stores(source, synthetic, folders, options, metric, progress)
    else:
        result = _one_folder(source, folders, options, metric, device, progress)
    if use_gpu and result.provider is not None and not result.provider.startswith("CUDA"):
        click.echo(f"Warning: no GPU can be used here, so {result.provider} embedded the images: deepssim doctor says "
                   "why", err=True)  # fmt: skip
    _tell(result, float16=float16, as_json=as_json, progress=progress)
    if result.too_many_skipped:
        click.echo(f"Too many images were skipped; the reasons are in {result.skipped}", err=True)
        ctx.exit(4)


def _stores(
    source: Path, synthetic: Path, folders: Folders, options: ScoreOptions, metric: str, progress: Progress
) -> Scored:
    from deepssim.errors import UsageError
    from deepssim.reference.scoring import score_stores
    from deepssim.store import Store

    if metric != "auto":
        raise click.UsageError("--metric is what embeds images, and stores hold embeddings: leave it out")
    for path in (source, synthetic):
        if not Store.is_store(path):
            raise UsageError(f"{path} is no store: make one with deepssim embed, or give one folder of images alone")
    return score_stores(Store(source), Store(synthetic), folders, options, progress=progress)


def _one_folder(
    source: Path, folders: Folders, options: ScoreOptions, metric: str, device: str, progress: Progress
) -> Scored:
    from dataclasses import replace

    from deepssim.reference.embeddings import holds_embeddings
    from deepssim.reference.scoring import score_embeddings, score_layout
    from deepssim.store import Store

    if Store.is_store(source):
        raise click.UsageError("a matrix of scores needs two stores, or one folder of images")
    if holds_embeddings(source):
        name = options.name or (source.name if metric == "auto" else metric)
        options = replace(options, name=name)
        # Of the reference's metrics, one compares by correlation.
        return score_embeddings(source, folders, options, is_centred=name == "dar", progress=progress)
    from deepssim.domain import find_metric
    from deepssim.embed import Encoder
    from deepssim.images import list_images

    listing = list_images(source)
    found = find_metric(metric, lambda: listing, threads=options.threads or None, say=progress.status)
    encoder = Encoder(found, device=device, threads=options.threads)
    return score_layout(listing, encoder, folders, options, progress=progress)


def _tell(result: Scored, *, float16: bool, as_json: bool, progress: Progress) -> None:
    if float16:
        progress.status("float16 has steps of .0005 from .5 to 1: scores and thresholds near .85 move by up to .00025")
    if as_json:
        echo_json(result.as_dict())
        return
    click.echo(f"{result.matrix}: {result.n_real:,} real x {result.n_synthetic:,} synthetic images")
    click.echo(f"  rows: {result.real_index}")
    click.echo(f"  columns: {result.synthetic_index}")
    if result.embeddings is not None:
        click.echo(f"  embeddings: {result.embeddings}")
    n_skipped = result.n_real_skipped + result.n_synthetic_skipped
    if n_skipped:
        click.echo(f"  {n_skipped:,} images skipped: {result.skipped}")
