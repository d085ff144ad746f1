"""``deepssim matrix``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from deepssim.cli._options import Bytes, Dimensions, echo_json, talk_options, threads_option, volume_options


class DataRange(click.ParamType[Any]):
    """``first``, or a positive number."""

    name = "range"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float | None:
        """Read the text; None is ``first``."""
        if value is None or value == "first":
            return None
        try:
            number = float(value)
        except ValueError:
            number = 0.0
        if not 0 < number < float("inf"):
            self.fail(f"{value!r} is neither 'first' nor a positive number such as 255", param, ctx)
        return number


@click.command("matrix")
@click.argument("kind", type=click.Choice(["ssim", "fsim", "ncc"]))
@click.argument("real", type=click.Path(path_type=Path))
@click.argument("synthetic", type=click.Path(path_type=Path), required=False)
@click.option("--out", required=True, type=click.Path(path_type=Path),
              help="NAME.npy, with NAME.real.csv and NAME.synthetic.csv (row or column, id, path). NAME.npz: the files "
              "of the reference implementation.")  # fmt: skip
@click.option("--float16", is_flag=True,
              help="NAME.npz in float16, as the reference has it: steps of .0005.  [default: float32]")  # fmt: skip
@click.option("--real-keys", type=click.Path(path_type=Path, exists=True, dir_okay=False), metavar="FILE",
              help="Index of the real images to compare (.npz of names uid___name, key data; or .csv, column id), in "
              "the order of the rows. What cannot be used is NaN.  [default: all]")  # fmt: skip
@click.option("--synthetic-keys", "--synth-keys", "synthetic_keys", metavar="FILE",
              type=click.Path(path_type=Path, exists=True, dir_okay=False),
              help="The same of the synthetic images and the columns.")  # fmt: skip
@click.option("--real-indices", type=click.Path(path_type=Path),
              help="Where to write what the rows are.  [default: beside the matrix]")  # fmt: skip
@click.option("--synthetic-indices", "--synth-indices", "synthetic_indices", type=click.Path(path_type=Path),
              help="Where to write what the columns are.  [default: beside the matrix]")  # fmt: skip
@click.option("--window", type=click.Choice(["uniform", "gaussian"]), default="uniform", show_default=True,
              help="SSIM: 7 x 7 pixels, or a Gaussian of 1.5 pixels.")  # fmt: skip
@click.option("--data-range", type=DataRange(), default="first", show_default=True, metavar="first|NUMBER",
              help="SSIM: range of the grey values; first: largest less smallest of the real image.")  # fmt: skip
@click.option("--z-score/--no-z-score", default=True, show_default=True,
              help="SSIM: whether each image is first taken to zero mean and unit variance.")  # fmt: skip
@click.option("--resize", type=Dimensions(), metavar="HxW",
              help="Bring all images to H rows and W columns by area averaging.")  # fmt: skip
@volume_options
@click.option("--memory-limit", type=Bytes(), default=2 * 2**30,
              help="Bytes for the images held at a time; 0: no limit.  [default: 2GiB]")  # fmt: skip
@click.option("--max-skipped", type=click.FloatRange(0, 1), default=0.01, show_default=True, metavar="SHARE",
              help="Exit with code 4 if a larger share of a set cannot be used.")  # fmt: skip
@threads_option
@talk_options
@click.pass_context
def command(
    ctx: click.Context,
    kind: Any,
    real: Path,
    synthetic: Path | None,
    out: Path,
    float16: bool,
    real_keys: Path | None,
    synthetic_keys: Path | None,
    real_indices: Path | None,
    synthetic_indices: Path | None,
    window: Any,
    data_range: float | None,
    z_score: bool,
    resize: tuple[int, int] | None,
    slices: str,
    axis: str,
    max_pixels: int,
    memory_limit: int,
    max_skipped: float,
    threads: int,
    as_json: bool,
    quiet: bool,
) -> None:
    """Compare every REAL image with every SYNTHETIC one, and write the matrix.

    REAL and SYNTHETIC are a folder, a file or a manifest each, as audit takes them; REAL alone is a folder of both,
    where images called training are the real ones, or keys say which are which. Images are compared where they
    lie, pixel against pixel, so all must have one size (or --resize). The defaults of ssim are those of published
    work: z-scored images, range from the real one. Grey values are taken as stored, 16 bits in full; ssim with its
    defaults and ncc do not depend on their unit. fsim does: an image that is no 8-bit image is scaled to 0 to 255
    between its .05th and 99.95th percentile. What cannot be used is listed in NAME.skipped.csv. Killed and started
    again, it goes on where it was.

    \b
    deepssim matrix ssim train/ generated/ --out ssim.npy
    deepssim matrix fsim train/ generated/ --out fsim.npz --resize 256x256
    deepssim matrix ssim data/ --real-keys indices/real.npz --synthetic-keys indices/synth.npz --out ssim.npz
    """
    from deepssim.cli._progress import make_progress
    from deepssim.images import ImageOptions
    from deepssim.matrix import MatrixOptions, compute_matrix

    if kind != "ssim" and (window != "uniform" or data_range is not None or not z_score):
        raise click.UsageError(f"--window, --data-range and --no-z-score are for ssim, not for {kind}")
    if float16 and out.suffix != ".npz":
        raise click.UsageError("--float16 is for the reference's files: give --out a name that ends in .npz")
    options = MatrixOptions(
        kind, window, data_range, z_score, resize, ImageOptions(slices, axis, max_pixels=max_pixels), memory_limit,
        threads, max_skipped, float16,
    )  # fmt: skip
    progress = make_progress(quiet)
    result = compute_matrix(
        real, synthetic, out, options, real_keys=real_keys, synthetic_keys=synthetic_keys, real_index=real_indices,
        synthetic_index=synthetic_indices, progress=progress,
    )  # fmt: skip
    if float16:
        progress.status("float16 rounds these numbers to steps of .0005; without --float16 they are float32")
    if as_json:
        echo_json(result.as_dict())
    else:
        click.echo(f"{result.out}: {result.n_real:,} real x {result.n_synthetic:,} synthetic images of "
                   f"{result.size[0]} x {result.size[1]} pixels")  # fmt: skip
        skipped = "skipped" if real_keys is synthetic_keys is None else "skipped: their rows and columns are NaN"
        counts = {"resized": result.n_resized, "scaled to 0 to 255": result.n_scaled,
                  skipped: result.n_real_skipped + result.n_synthetic_skipped}  # fmt: skip
        for what, count in counts.items():
            if count:
                click.echo(f"  {count:,} images {what}")
    if result.too_many_skipped:
        click.echo(f"Too many images were skipped; the reasons are in {result.skipped}", err=True)
        ctx.exit(4)
