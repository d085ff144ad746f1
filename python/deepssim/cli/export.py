"""``deepssim export``."""

from __future__ import annotations

from pathlib import Path

import click

from deepssim.cli._options import echo_json, talk_options


@click.command("export")
@click.argument("checkpoint", required=False, type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--from-torchscript", "archive", type=click.Path(path_type=Path, exists=True, dir_okay=False),
              help="A published checkpoint instead, best_model_jit.pt; nothing in it is executed.")  # fmt: skip
@click.option("--out", required=True, type=click.Path(path_type=Path), metavar="FILE.onnx", help="The metric bundle.")
@click.option("--name", help="Of the metric.  [default: the run's]")
@click.option("--images", type=click.Path(path_type=Path, exists=True),
              help="Images that PyTorch and ONNX Runtime are also compared on, up to 256.")  # fmt: skip
@click.option("--opset", type=click.IntRange(18, 23), default=18, show_default=True, help="Of ONNX operators.")
@click.option("--description", default="", help="One sentence on what it is.")
@click.option("--licence", default="", help="Of the weights.")
@talk_options
def command(
    checkpoint: Path | None,
    archive: Path | None,
    out: Path,
    name: str | None,
    images: Path | None,
    opset: int,
    description: str,
    licence: str,
    as_json: bool,
    quiet: bool,
) -> None:
    """Export CHECKPOINT, an encoder's .safetensors of deepssim train, as a metric bundle in ONNX.

    The bundle takes raw grey images; z-score and normalisation are inside. PyTorch and ONNX Runtime embed the same
    images at several batch sizes first: where they differ by more than 1e-4, nothing is written.

    \b
    deepssim export runs/mine/best.safetensors --out mine.onnx --images train/
    deepssim export --from-torchscript best_model_jit.pt --out deepssim.onnx --images train/
    deepssim audit train/ generated/ --metric deepssim.onnx --thresholds .60,.85
    """
    from deepssim.errors import UsageError
    from deepssim.extras import require_training

    if out.suffix != ".onnx":
        raise UsageError(f"{out.name} must end in .onnx")
    if (checkpoint is None) == (archive is None):
        raise UsageError("give either a checkpoint of deepssim train or --from-torchscript FILE")
    require_training()
    from deepssim.cli._progress import make_progress
    from deepssim.export import export_encoder
    from deepssim.images import Image, list_images, read_tasks
    from deepssim.models.checkpoint import load_encoder
    from deepssim.models.published import load_published

    progress = make_progress(quiet)
    if archive is not None:
        encoder, described = load_published(archive)
    else:
        assert checkpoint is not None
        encoder, described = load_encoder(checkpoint)
    real = []
    for result in read_tasks(list_images(images)) if images is not None else ():
        real += [item.pixels for item in result.items if isinstance(item, Image)]
        if len(real) >= 256:
            break
    progress.status(f"exporting {described.architecture}, {described.height} x {described.width} pixels")
    made = export_encoder(
        encoder, described, out, name=name, text=description, licence=licence, images=real[:256], opset=opset
    )
    if as_json:
        echo_json({"path": str(made.path), "largest_error": made.error, "n_images": made.n_images,
                   "n_bytes": made.n_bytes})  # fmt: skip
        return
    click.echo(f"{made.path}: {made.n_bytes / 2**20:.1f} MiB, embeddings within {made.error:.1e} of PyTorch's")
