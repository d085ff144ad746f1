"""``deepssim export``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from deepssim.cli._options import Dimensions, echo_json, talk_options

if TYPE_CHECKING:
    from deepssim.export import Exported
    from deepssim.gallery import GalleryViews

PRECISIONS = ("fp32", "w16", "fp16", "int8")  # of deepssim.precision, which is not loaded for a help text


@click.command("export")
@click.argument("checkpoint", required=False, type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--from-torchscript", "archive", type=click.Path(path_type=Path, exists=True, dir_okay=False),
              metavar="FILE.pt",
              help="A published checkpoint instead, best_model_jit.pt; nothing in it is executed.")  # fmt: skip
@click.option("--out", required=True, type=click.Path(path_type=Path), metavar="FILE.onnx", help="The metric bundle.")
@click.option("--images", type=click.Path(path_type=Path, exists=True),
              help="Real images: up to 1,024 from all over are compared too, drawn ones if there are none; all but "
              "fp32 need them.")  # fmt: skip
@click.option("--precision", type=click.Choice(PRECISIONS), default="fp32", show_default=True,
              help="w16: weights in 16 bits, half the size; fp16: multiplies so too; int8: a third or less, faster on "
              "a CPU, and often too coarse.")  # fmt: skip
@click.option("--size", type=Dimensions(), metavar="HxW",
              help="Rows and columns that images are brought to.  [default: those of the training]")  # fmt: skip
@click.option("--gallery-turns", metavar="DEGREES", help="Embed real images as the mean over all flips at these turns, "
              "such as -20,0,20; for encoders that were taught to overlook them.  [default: as they are]")  # fmt: skip
@click.option("--name", help="Of the metric.  [default: the run's]")
@click.option("--opset", type=click.IntRange(18, 23), default=18, show_default=True, help="Of ONNX operators.")
@click.option("--description", default="", help="One sentence on what it is.")
@click.option("--licence", default="", help="Of the weights.")
@talk_options
def command(
    checkpoint: Path | None,
    archive: Path | None,
    out: Path,
    images: Path | None,
    precision: str,
    size: tuple[int, int] | None,
    gallery_turns: str | None,
    name: str | None,
    opset: int,
    description: str,
    licence: str,
    as_json: bool,
    quiet: bool,
) -> None:
    """Export CHECKPOINT, an encoder's .safetensors of deepssim train, as a metric bundle in ONNX.

    The bundle takes raw grey images; z-score and normalisation are inside. PyTorch and ONNX Runtime embed the same
    images at several batch sizes first: where they differ by more than 1e-4, nothing is written. In fewer bits
    99 % of the images of --images must keep their nearest one, and no score may move by more than .01.

    \b
    deepssim export runs/mine/best.safetensors --out mine.onnx --images train/
    deepssim export runs/mine/best.safetensors --out small.onnx --images train/ --precision int8
    deepssim export --from-torchscript best_model_jit.pt --out deepssim.onnx --images train/
    deepssim audit train/ generated/ --metric deepssim.onnx --out result/

    \b
    An audit registers and judges the nearest pairs, by thresholds of its own. By the cosine alone, as published:
    deepssim audit train/ generated/ --metric deepssim.onnx --no-verify --thresholds .60,.85 --out result/
    """
    from deepssim.errors import UsageError
    from deepssim.extras import require_training

    if out.suffix != ".onnx":
        raise UsageError(f"{out.name} must end in .onnx")
    if (checkpoint is None) == (archive is None):
        raise UsageError("give either a checkpoint of deepssim train or --from-torchscript FILE")
    if precision != "fp32" and images is None:
        raise UsageError(f"{precision} is measured on real images: give a folder of them with --images")
    require_training()
    from deepssim.cli._progress import make_progress
    from deepssim.export import export_encoder, sample_images
    from deepssim.images import list_images
    from deepssim.matrix import make_parent
    from deepssim.models.checkpoint import load_encoder
    from deepssim.models.published import load_published

    progress = make_progress(quiet)
    make_parent(out)
    if archive is not None:
        encoder, described = load_published(archive)
    else:
        assert checkpoint is not None
        encoder, described = load_encoder(checkpoint)
    height, width = size or (described.height, described.width)
    real = sample_images(list_images(images), (height, width)) if images is not None else ()
    progress.status(f"exporting {described.architecture}, {height} x {width} pixels, {len(real):,} real images")
    made = export_encoder(
        encoder, described, out, name=name, text=description, licence=licence, images=real, opset=opset,
        precision=precision, size=size, gallery=_gallery(gallery_turns),
    )  # fmt: skip
    _tell(made, as_json)


def _gallery(turns: str | None) -> GalleryViews | None:
    from deepssim.errors import UsageError
    from deepssim.gallery import GalleryViews

    if turns is None:
        return None
    try:
        return GalleryViews(tuple(float(turn) for turn in turns.split(",")))
    except ValueError:
        raise UsageError(f"--gallery-turns are numbers of degrees, such as -20,0,20, not {turns!r}") from None


def _tell(made: Exported, as_json: bool) -> None:
    from dataclasses import asdict

    agreement = made.agreement
    if as_json:
        echo_json({"path": str(made.path), "largest_error": made.error, "n_images": made.n_images,
                   "n_phantoms": made.n_phantoms, "n_bytes": made.n_bytes, "precision": made.precision,
                   "is_any_size": made.is_any_size, "agreement": asdict(agreement) if agreement else None})  # fmt: skip
        return
    click.echo(f"{made.path}: {made.n_bytes / 2**20:.1f} MiB, embeddings within {made.error:.1e} of PyTorch's")
    if made.n_phantoms:
        click.echo(
            f"compared on random images and {made.n_phantoms} phantoms, which are drawn: give real images with --images"
        )
    if agreement:
        click.echo(
            f"{made.precision}: of {agreement.n_images:,} images {agreement.rank1:.1%} keep their nearest, "
            f"scores move by at most {agreement.score_error:.4f}"
        )
