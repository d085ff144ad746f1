"""``deepssim compare``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from deepssim.cli._options import Dimensions, echo_json, run_options, volume_options

if TYPE_CHECKING:
    from deepssim.compare import Comparison
    from deepssim.explain import Explanation
    from deepssim.metric import Metric


@click.command("compare")
@click.argument("a", type=click.Path(path_type=Path))
@click.argument("b", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), metavar="FILE.png", help="Also draw the comparison.")
@click.option("--resize", type=Dimensions(), metavar="HxW",
              help="Bring both images to H rows and W columns by area averaging.")  # fmt: skip
@volume_options
@click.option("--explain", "with_explanation", is_flag=True,
              help="Also say which regions make their embeddings alike and which keep them apart.")  # fmt: skip
@run_options
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON on stdout.")
@click.pass_context
def command(
    ctx: click.Context,
    a: Path,
    b: Path,
    out: Path | None,
    resize: tuple[int, int] | None,
    slices: str,
    axis: str,
    max_pixels: int,
    with_explanation: bool,
    metric: str,
    device: str,
    threads: int,
    as_json: bool,
) -> None:
    """Compare two images, A and B: as they lie, and once B is laid onto A.

    A and B are files with one image each, or FILE#3 for one image of several. B may be mirrored, turned, shifted and
    zoomed (.85 to 1.15) against A. S1 is the correlation of the registered images after their local brightness and
    contrast are taken away; S2 is the mean of the lowest 1 % of the local correlation, low where a copy was changed
    in places. Grey values of images that are no 8-bit images are taken between their .05th and 99.95th percentile.

    With --explain a metric embeds both images as they lie, and again and again with one patch blurred away: where the
    cosine of the two embeddings falls (+), the patch makes them alike; where it rises (-), it keeps them apart.
    --metric, --device and --threads are for this.

    \b
    deepssim compare train/p07/training.png generated/0132.png --out pair.png --explain
    """
    from deepssim.compare import compare_images
    from deepssim.errors import UsageError
    from deepssim.images import ImageOptions

    for name in ("metric", "device", "threads"):
        if not with_explanation and ctx.get_parameter_source(name) != ParameterSource.DEFAULT:
            raise UsageError(f"--{name} is of --explain: give --explain too")
    if out is not None and out.suffix.lower() != ".png":
        raise UsageError(f"{out.name} must end in .png")
    found = compare_images(a, b, size=resize, images=ImageOptions(slices, axis, max_pixels=max_pixels))
    explanation = None
    if with_explanation:
        from deepssim.embed import Encoder
        from deepssim.explain import explain

        explanation = explain(*found.pixels, Encoder(_metric(metric, found, threads), device=device, threads=threads))
    if out is not None:
        from deepssim.compare_picture import save_comparison
        from deepssim.matrix import make_parent

        make_parent(out)
        save_comparison(found, out, explanation)
    if as_json:
        explained = {} if explanation is None else {"explanation": explanation.as_dict()}
        echo_json({**found.as_dict(), **explained, "picture": str(out) if out else None})
        return
    _print(found, explanation)
    if out is not None:
        click.echo(f"\nPicture: {out}")


def _metric(asked: str, found: Comparison, threads: int) -> Metric:
    """Return the metric that was asked for; auto looks at the two images, and says on stderr what it takes and why."""
    from deepssim.domain import AUTO, choose_metric, find_metric
    from deepssim.images import list_images
    from deepssim.metric import load_metric

    if asked != AUTO:
        return find_metric(asked, lambda: list_images(found.names[0]))
    choice = choose_metric(found.pixels, threads)
    click.echo(f"metric {choice.reason}", err=True)
    return load_metric(choice.metric)


def _print(found: Comparison, explanation: Explanation | None) -> None:
    from deepssim.images.text import one_line

    for letter, name, size in zip("AB", found.names, found.sizes, strict=True):
        click.echo(f"{letter}: {one_line(name, 300)}, {size[0]} x {size[1]} pixels")
    if found.is_resized:
        click.echo(f"both at {found.size[0]} x {found.size[1]} pixels, by area averaging")
    words, numbers = found.transform_lines()
    click.echo(f"B, laid onto A: {words}")
    click.echo(f"   {numbers}\n")
    click.echo(f"{'':24}{'as they lie':>12}{'registered':>12}")
    for name, first, second in found.rows():
        cells = ("-" if value is None else f"{value:.4f}" for value in (first, second))
        click.echo(f"{name:24}" + "".join(f"{cell:>12}" for cell in cells))
    if not found.has_overlap:
        click.echo("\nUnder 35 % overlap once registered: nothing to compare there.")
    if explanation is not None:
        click.echo("\n" + "\n".join(explanation.lines()))
