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
@click.argument("synthetic", type=click.Path(path_type=Path))
@click.option("--out", required=True, type=click.Path(path_type=Path),
              help="NAME.npy: float32, with NAME.real.csv and NAME.synthetic.csv (row or column, id, path). NAME.npz: "
              "the files of the reference implementation, float16: its values have steps of .0005.")  # fmt: skip
@click.option("--real-indices", type=click.Path(path_type=Path),
              help="Where to write what the rows are.  [default: beside the matrix]")  # fmt: skip
@click.option("--synthetic-indices", type=click.Path(path_type=Path),
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
    synthetic: Path,
    out: Path,
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

    REAL and SYNTHETIC are a folder, a file or a manifest each, as audit takes them. Images are compared where they
    lie, pixel against pixel, so all must have one size (or --resize). The defaults of ssim are those of published
    work: z-scored images, range from the real one. Grey values are taken as stored, 16 bits in full; ssim with its
    defaults and ncc do not depend on their unit. fsim does: an image that is no 8-bit image is scaled to 0 to 255
    between its .05th and 99.95th percentile. What cannot be used is listed in NAME.skipped.csv. Killed and started
    again, it goes on where it was.

    \b
    deepssim matrix ssim train/ generated/ --out ssim.npy
    deepssim matrix fsim train/ generated/ --out fsim.npz --resize 256x256
    """
    from deepssim.cli._progress import make_progress
    from deepssim.images import ImageOptions
    from deepssim.matrix import MatrixOptions, compute_matrix

    if kind != "ssim" and (window != "uniform" or data_range is not None or not z_score):
        raise click.UsageError(f"--window, --data-range and --no-z-score are for ssim, not for {kind}")
    options = MatrixOptions(
        kind, window, data_range, z_score, resize, ImageOptions(slices, axis, max_pixels=max_pixels), memory_limit,
        threads, max_skipped,
    )  # fmt: skip
    progress = make_progress(quiet)
    result = compute_matrix(
        real, synthetic, out, options, real_index=real_indices, synthetic_index=synthetic_indices, progress=progress
    )
    if out.suffix == ".npz":
        progress.status("float16 rounds these numbers to steps of .0005; --out NAME.npy keeps float32")
    if as_json:
        echo_json(result.as_dict())
    else:
        click.echo(f"{result.out}: {result.n_real:,} real x {result.n_synthetic:,} synthetic images of "
                   f"{result.size[0]} x {result.size[1]} pixels")  # fmt: skip
        counts = {"resized": result.n_resized, "scaled to 0 to 255": result.n_scaled,
                  "skipped": result.n_real_skipped + result.n_synthetic_skipped}  # fmt: skip
        for what, count in counts.items():
            if count:
                click.echo(f"  {count:,} images {what}")
    if result.too_many_skipped:
        click.echo(f"Too many images were skipped; the reasons are in {result.skipped}", err=True)
        ctx.exit(4)
