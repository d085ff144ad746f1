"""``deepssim bundle``."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from deepssim.cli._options import Dimensions, echo_json

if TYPE_CHECKING:
    from deepssim.bundle import Bundled, Normalisation
    from deepssim.calibration import Calibration

# Of deepssim.bundle, deepssim.metric and deepssim.input_rule, which are not loaded for a help text.
INTENSITIES = ("none", "unit", "imagenet", "clip", "z-score", "min-max")
SIMILARITIES = ("cosine", "correlation", "l2")
RESIZES = ("area", "adaptive", "clip")
GREYS = ("raw", "byte")
# Drawn images of other people that are as alike as this: the metric hardly tells anything apart.
_ALIKE = 0.999


@click.command("bundle")
@click.argument("encoder", required=False, type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--pixels", is_flag=True, help="No encoder: the embedding is the image itself.")
@click.option("--out", required=True, type=click.Path(path_type=Path), metavar="FILE.onnx", help="The metric bundle.")
@click.option("--input", "size", type=Dimensions(), metavar="HxW",
              help="Rows and columns that images are brought to.  [default: those that the encoder takes]")  # fmt: skip
@click.option("--intensity", type=click.Choice(INTENSITIES),
              help="Grey values: imagenet, clip: of 0 to 1, normalised for each channel; unit: 0 to 1; z-score, "
              "min-max: of each image; none: as they are read.  [default: imagenet]")  # fmt: skip
@click.option("--mean", help="With unit: numbers to subtract, one or three, such as .5,.5,.5.")
@click.option("--std", help="With --mean: numbers to divide by.")
@click.option("--similarity", type=click.Choice(SIMILARITIES),
              help="Of two embeddings; l2 is shown as a distance.  [default: cosine, l2 with --pixels]")  # fmt: skip
@click.option("--thresholds", metavar="NEAR,EXACT",
              help="Scores from which, of l2 distances up to which, a pair is near and exact.")  # fmt: skip
@click.option("--resize", type=click.Choice(RESIZES), default="area", show_default=True,
              help="area averages, adaptive pooling as in PyTorch, or clip: shorter side, then crop.")  # fmt: skip
@click.option("--grey", type=click.Choice(GREYS),
              help="As read, or scaled to 0 to 255 before.  [default: what the intensity starts from]")  # fmt: skip
@click.option("--channels", type=click.Choice(("auto", "1", "3")), default="auto", show_default=True,
              help="That the encoder takes: grey values are repeated.")  # fmt: skip
@click.option("--embedding", "output", metavar="NAME", help="Output of the encoder.  [default: the only one]")
@click.option("--name", help="Of the metric.  [default: the file's]")
@click.option("--description", default="", help="One sentence on what it is.")
@click.option("--licence", default="", help="Of the weights.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON on stdout.")
def command(
    encoder: Path | None, pixels: bool, out: Path, thresholds: str | None, as_json: bool, **options: Any
) -> None:
    """Make a metric of ENCODER, an ONNX file that takes images (n, 1 or 3, height, width) and returns (n, dim).

    The bundle takes raw grey images of any size; intensity, channels, centring and normalisation are put round the
    encoder, and the whole is run on drawn images, 1 to 64 at a time, before it is written.

    \b
    deepssim bundle encoder.onnx --input 224x224 --intensity imagenet --similarity cosine \\
        --thresholds .6,.85 --out mine.onnx
    deepssim bundle --pixels --input 256x256 --similarity l2 --out l2.onnx
    deepssim audit train/ generated/ --metric mine.onnx --no-verify --out result/
    """
    from deepssim.bundle import bundle_encoder, bundle_pixels, write_thresholds
    from deepssim.errors import UsageError
    from deepssim.matrix import make_parent

    if out.suffix != ".onnx":
        raise UsageError(f"{out.name} must end in .onnx")
    if encoder is not None and out.resolve() == encoder.resolve():
        raise UsageError(f"{out} is the encoder itself: name another file for the bundle")
    if (encoder is None) != pixels:
        raise UsageError("give an ENCODER.onnx or --pixels" + (", not both" if pixels else ""))
    given = {name: value for name, value in options.items() if value not in (None, "", "auto")}
    calibration = _thresholds(thresholds, given, out, pixels)
    normalisation = _normalisation(given.pop("mean", None), given.pop("std", None))
    make_parent(out)
    if encoder is None:
        _refuse_encoders(given, normalisation)
        made = bundle_pixels(out, given.pop("size"), **given)
    else:
        if "channels" in given:
            given["channels"] = int(given["channels"])
        intensity = given.pop("intensity", "unit" if normalisation else "imagenet")
        made = bundle_encoder(encoder, out, intensity=intensity, normalisation=normalisation, **given)
    beside = write_thresholds(out, calibration, made.name) if calibration else None
    _tell(made, beside, as_json)


def _thresholds(text: str | None, given: dict[str, Any], out: Path, pixels: bool) -> Calibration | None:
    from deepssim.calibration import parse_thresholds
    from deepssim.metric import given_thresholds

    if text is None:
        return None
    near, exact = parse_thresholds(text)
    similarity = given.get("similarity", "l2" if pixels else "cosine")
    return given_thresholds(given.get("name", out.stem), near, exact, similarity, "given with the bundle")


def _normalisation(mean: str | None, std: str | None) -> Normalisation | None:
    from deepssim.bundle import Normalisation
    from deepssim.errors import UsageError

    if (mean is None) != (std is None):
        raise UsageError(f"{'--mean' if std is None else '--std'} needs {'--std' if std is None else '--mean'} too")
    if mean is None or std is None:
        return None
    try:
        means, deviations = (tuple(float(part) for part in text.split(",")) for text in (mean, std))
        return Normalisation(means, deviations)
    except ValueError as error:
        raise UsageError(f"--mean {mean} --std {std}: {error}") from None


def _refuse_encoders(given: dict[str, Any], normalisation: Normalisation | None) -> None:
    from deepssim.errors import UsageError

    unfit = [f"--{name}" for name in ("intensity", "channels", "licence") if name in given]
    unfit += ["--embedding"] * ("output" in given) + ["--mean"] * (normalisation is not None)
    if unfit:
        raise UsageError(f"{', '.join(unfit)}: of an encoder, and with --pixels there is none")
    if "size" not in given:
        raise UsageError("--pixels takes images of any size: say which with --input HEIGHTxWIDTH")


def _tell(made: Bundled, thresholds: Path | None, as_json: bool) -> None:
    from deepssim.calibration import SUFFIX
    from deepssim.images.text import one_line

    if as_json:
        echo_json({**asdict(made), "path": str(made.path), "thresholds": str(thresholds) if thresholds else None})
        return
    click.echo(f"{made.path}: metric {one_line(made.name)}, {made.dim:,} elements, {made.n_bytes / 2**20:.1f} MiB")
    click.echo(f"drawn slices of eight heads: median score of two {made.median_score:.3f}")
    if made.median_score > _ALIKE:
        click.echo("it hardly tells them apart: is the intensity the one that the encoder was trained with?")
    beside = made.path.with_suffix(SUFFIX)
    if thresholds:
        click.echo(f"{beside}: its thresholds")
    elif beside.is_file():
        click.echo(f"{beside}: thresholds that were there before stay; --thresholds NEAR,EXACT replaces them")
    else:
        click.echo("no thresholds: give them at each run with --thresholds, or find them with deepssim calibrate")
