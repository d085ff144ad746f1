"""``deepssim export``."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from deepssim.cli._export_parts import OF_PARTS, export_parts, given_options, kind_of_checkpoint
from deepssim.cli._options import Dimensions, echo_json, talk_options

if TYPE_CHECKING:
    from deepssim.calibration import Calibration
    from deepssim.export import Exported
    from deepssim.gallery import GalleryViews
    from deepssim.input_rule import InputRule
    from deepssim.models.checkpoint import Description

PRECISIONS = ("fp32", "w16", "fp16", "int8")  # of deepssim.precision, which is not loaded for a help text
# What an encoder can be read from.
_SOURCES = {
    "checkpoint": "CHECKPOINT", "archive": "--from-torchscript", "sscd": "--sscd", "dar": "--dar",
    "openclip": "--openclip",
}  # fmt: skip


@click.command("export")
@click.argument("checkpoint", required=False, type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--from-torchscript", "archive", type=click.Path(path_type=Path, exists=True, dir_okay=False),
              metavar="FILE.pt",
              help="A published checkpoint instead, best_model_jit.pt; nothing in it is executed.")  # fmt: skip
@click.option("--sscd", type=click.Path(path_type=Path, exists=True, dir_okay=False), metavar="FILE.pt",
              help="The metric chen: sscd_disc_mixup.torchscript.pt; nothing in it is executed.")  # fmt: skip
@click.option("--reference-normalisation", is_flag=True,
              help="With --sscd: divide by the mean, as the reference does by mistake.")  # fmt: skip
@click.option("--dar", type=click.Path(path_type=Path, exists=True, dir_okay=False), metavar="FILE.pth",
              help="The metric dar: a checkpoint of deepssim train dar, or a state dict.")  # fmt: skip
@click.option("--reference-axes", is_flag=True,
              help="With --dar: swap rows and columns, as the reference's reader of PNG files does.")  # fmt: skip
@click.option("--openclip", metavar="MODEL",
              help="The metric semdedup: an OpenCLIP model by name, its folder, or hf-hub:NAME.")  # fmt: skip
@click.option("--weights", metavar="FILE|TAG",
              help="With --openclip: a file; a tag of OpenCLIP's, which is downloaded; or none.")  # fmt: skip
@click.option("--vae", type=click.Path(path_type=Path, exists=True, dir_okay=False), metavar="FILE",
              help="Of a U-Net: the VAE of its training, which is written beside it.")  # fmt: skip
@click.option("--config", metavar="NAME|FILE",
              help="Of a .pth of MONAI or monai-generative: paper-brain, paper-chest, a TOML file.  "
              "[default: paper-brain]")  # fmt: skip
@click.option("--conditioning", metavar="[none|variables|text]",
              help="Of a .pth of a U-Net.  [default: as its weights tell]")  # fmt: skip
@click.option("--out", required=True, type=click.Path(path_type=Path), metavar="FILE.onnx",
              help="The metric bundle; of a VAE or a U-Net a folder.")  # fmt: skip
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
@click.pass_context
def command(
    ctx: click.Context,
    /,
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
    **source: Any,
) -> None:
    """Export CHECKPOINT to ONNX: an encoder as a metric bundle, a VAE or a U-Net as a part of a generative model.

    The bundle takes raw grey images; z-score and normalisation are inside. PyTorch and ONNX Runtime embed the same
    images at several batch sizes first: where they differ by more than 1e-4, nothing is written. In fewer bits
    99 % of the images of --images must keep their nearest one, and no score may move by more than .01. Thresholds
    that were published, or lie beside the checkpoint, are written beside the bundle.

    \b
    deepssim export runs/mine/best.safetensors --out mine.onnx --images train/
    deepssim export runs/mine/best.safetensors --out small.onnx --images train/ --precision int8
    deepssim export --from-torchscript best_model_jit.pt --out deepssim.onnx --images train/
    deepssim export --sscd sscd_disc_mixup.torchscript.pt --out chen.onnx
    deepssim export --openclip ViT-B-32 --weights open_clip_model.safetensors --out semdedup.onnx
    deepssim export --dar runs/dar/best.safetensors --out dar.onnx
    deepssim audit train/ generated/ --metric deepssim.onnx --out result/

    \b
    An audit registers and judges the nearest pairs, by thresholds of its own. By the cosine alone, as published:
    deepssim audit train/ generated/ --metric deepssim.onnx --no-verify --out result/

    A VAE becomes encoder.onnx and decoder.onnx, a U-Net unet.onnx; deepssim generate --onnx samples from them without
    PyTorch. Both are compared with PyTorch at batches of 1, 2 and 7, and may differ by 1e-4 of the largest value.

    \b
    deepssim export runs/ldm/best.safetensors --vae runs/vae/best.safetensors --out model/
    deepssim export unet.pth --vae vae.pth --config paper-chest --out model/
    deepssim generate --onnx model/ --n-images 1000 --out generated/
    """
    from deepssim.errors import UsageError
    from deepssim.extras import require_generative, require_training

    _check_source(source, size)
    require_training()
    kind = kind_of_checkpoint(source["checkpoint"]) if source["checkpoint"] is not None else None
    if kind in ("vae", "unet", "state dict"):
        require_generative()
        export_parts(ctx, kind, ctx.params)
        return
    if odd := [option for name, option in given_options(ctx).items() if name in OF_PARTS]:
        raise UsageError(f"{', '.join(odd)}: of a VAE or a U-Net alone, and this is an encoder")
    if out.suffix != ".onnx":
        raise UsageError(f"{out.name} must end in .onnx")
    if precision != "fp32" and images is None:
        raise UsageError(f"{precision} is measured on real images: give a folder of them with --images")
    from deepssim.cli._progress import make_progress
    from deepssim.export import export_encoder, sample_images
    from deepssim.images import list_images
    from deepssim.matrix import make_parent

    progress = make_progress(quiet)
    make_parent(out)
    found = _load(source, size)
    real = sample_images(list_images(images), found.rule) if images is not None else ()
    height, width = found.rule.size
    progress.status(f"exporting {found.description.architecture}, {height} x {width} pixels, {len(real):,} real images")
    made = export_encoder(
        found.encoder, found.description, out, name=name, text=description or found.text,
        licence=licence or found.licence, images=real, opset=opset, precision=precision, rule=found.rule,
        gallery=_gallery(gallery_turns),
    )  # fmt: skip
    beside = _write_thresholds(out, found.calibration, name or found.description.name)
    _tell(made, beside, found, as_json)


@dataclass(frozen=True)
class _Found:
    """An encoder with all that is written of it."""

    encoder: Any
    description: Description
    rule: InputRule
    calibration: Calibration | None
    text: str = ""
    licence: str = ""


def _check_source(source: dict[str, Any], size: tuple[int, int] | None) -> None:
    """Refuse all but one encoder, and options of another one."""
    from deepssim.errors import UsageError

    given = [name for name in _SOURCES if source[name] is not None]
    if len(given) != 1:
        words = ", ".join(word for name, word in _SOURCES.items() if name in given) or "none is given"
        raise UsageError(f"give one encoder ({words}): CHECKPOINT, --from-torchscript, --sscd, --dar or --openclip")
    for option, of in (("reference_normalisation", "sscd"), ("reference_axes", "dar"), ("weights", "openclip")):
        if source[option] and of not in given:
            raise UsageError(f"--{option.replace('_', '-')} is for --{of}")
    if size is not None and given == ["openclip"]:
        raise UsageError("an OpenCLIP model takes images of its own size: leave --size out")


def _load(source: dict[str, Any], size: tuple[int, int] | None) -> _Found:
    """Read the encoder that was asked for, with the thresholds that go with it."""
    from deepssim.calibration import load_calibration
    from deepssim.catalogue import OBTAINABLE
    from deepssim.export import input_rule, resized

    text = {one.name: one.description for one in OBTAINABLE}
    if source["openclip"] is not None:
        from deepssim.models.openclip import load_openclip

        encoder, described, rule = load_openclip(source["openclip"], source["weights"])
        return _Found(encoder, described, rule, load_calibration("semdedup"), text["semdedup"])
    if source["dar"] is not None:
        from deepssim.models.checkpoint import file_sha256
        from deepssim.models.dar import load_dar

        encoder, described = load_dar(source["dar"], size, reference_axes=source["reference_axes"])
        own = _beside(source["dar"], is_whole=size is None)
        if described.training:
            return _Found(encoder, described, input_rule(described), own, text["dar"])
        # Somebody's state dict, which says nothing of its training.
        intensity = described.intensity + (", axes swapped" if source["reference_axes"] else "")
        training = {"published": "the network of Dar et al.", "sha256": file_sha256(source["dar"])}
        described = replace(described, intensity=intensity, training=training)
        return _Found(encoder, described, input_rule(described), own or load_calibration("dar"), text["dar"])
    licence, told = "", ""
    calibration: Calibration | None
    if source["sscd"] is not None:
        from deepssim.models.sscd import load_sscd

        encoder, described = load_sscd(source["sscd"], reference_normalisation=source["reference_normalisation"])
        calibration, licence, told = load_calibration("chen"), "MIT", text["chen"]
    elif source["archive"] is not None:
        from deepssim.models.published import load_published

        encoder, described = load_published(source["archive"])
        calibration, told = load_calibration(described.name), text[described.name]
    else:
        from deepssim.models.checkpoint import load_encoder

        encoder, described = load_encoder(source["checkpoint"])
        calibration = _beside(source["checkpoint"], is_whole=True)
    if size is not None and size != (described.height, described.width):
        # Thresholds are for one size.
        described, calibration = resized(described, size), None
    return _Found(encoder, described, input_rule(described), calibration, told, licence)


def _beside(checkpoint: Path, *, is_whole: bool) -> Calibration | None:
    """Read the thresholds that lie beside a checkpoint, unless images will have another size."""
    from deepssim.calibration import SUFFIX, Calibration

    path = checkpoint.with_suffix(SUFFIX)
    return Calibration.read(path) if is_whole and path.is_file() else None


def _write_thresholds(bundle: Path, calibration: Calibration | None, name: str) -> Path | None:
    from deepssim.bundle import write_thresholds

    return write_thresholds(bundle, calibration, name) if calibration is not None else None


def _gallery(turns: str | None) -> GalleryViews | None:
    from deepssim.errors import UsageError
    from deepssim.gallery import GalleryViews

    if turns is None:
        return None
    try:
        return GalleryViews(tuple(float(turn) for turn in turns.split(",")))
    except ValueError:
        raise UsageError(f"--gallery-turns are numbers of degrees, such as -20,0,20, not {turns!r}") from None


def _tell(made: Exported, thresholds: Path | None, found: _Found, as_json: bool) -> None:
    from deepssim.calibration import SUFFIX

    agreement = made.agreement
    if as_json:
        echo_json({"path": str(made.path), "largest_error": made.error, "n_images": made.n_images,
                   "n_phantoms": made.n_phantoms, "n_bytes": made.n_bytes, "precision": made.precision,
                   "is_any_size": made.is_any_size, "agreement": asdict(agreement) if agreement else None,
                   "thresholds": str(thresholds) if thresholds else None})  # fmt: skip
        return
    click.echo(f"{made.path}: {made.n_bytes / 2**20:.1f} MiB, embeddings within {made.error:.1e} of PyTorch's")
    if made.n_phantoms:
        click.echo(
            f"compared on random images and {made.n_phantoms} drawn heads; deepssim export --images compares real ones"
        )
    if agreement:
        click.echo(
            f"{made.precision}: of {agreement.n_images:,} images {agreement.rank1:.1%} keep their nearest, "
            f"scores move by at most {agreement.score_error:.4f}"
        )
    beside = made.path.with_suffix(SUFFIX)
    if thresholds is not None and found.calibration is not None:
        click.echo(f"{beside}: {found.calibration.source or 'thresholds'}")
    elif beside.is_file():
        click.echo(f"{beside}: was there before and stays; its thresholds are those of another bundle, or yours")
