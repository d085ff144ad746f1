"""``deepssim plant``."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import click

from deepssim.cli._options import echo_json, image_options, talk_options

DEFAULT_KINDS = "exact,artefacts,local,perturbed"  # of deepssim.planted.copies, which is not loaded for a help text


@click.command("plant")
@click.argument("real", type=click.Path(path_type=Path))
@click.argument("synthetic", type=click.Path(path_type=Path), required=False)
@click.option("--out", required=True, type=click.Path(path_type=Path), help="A new folder: images/ and truth.csv.")
@click.option("--number", type=click.IntRange(1), default=200, show_default=True, help="Copies in all.")
@click.option("--kinds", default=DEFAULT_KINDS, show_default=True, metavar="KIND,...",
              help="exact: the same pixels. artefacts: blur, bias, gamma, noise. local: displacements, lesions. "
              "perturbed: these, flipped and turned by up to 10 degrees. hard: by 30, shifted, zoomed.")  # fmt: skip
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of every draw.")
@click.option("--link", "with_links", is_flag=True,
              help="Link the files of SYNTHETIC, do not copy them: no space, but their times change.")  # fmt: skip
@image_options
@talk_options
def command(
    real: Path,
    synthetic: Path | None,
    out: Path,
    number: int,
    kinds: str,
    seed: int,
    with_links: bool,
    group_by: str,
    slices: str,
    axis: str,
    max_pixels: int,
    as_json: bool,
    quiet: bool,
) -> None:
    """Plant copies of your own REAL images among SYNTHETIC ones, to see whether an audit finds them.

    The folder holds images/planted/ (the copies, PNG of 8 or 16 bits), in images/ the files of SYNTHETIC under their
    own names, and truth.csv. Sources are drawn by person: say who is who with --group-by. Half of the perturbed and
    hard copies are exact ones, half near ones. The same images, options and seed give the same files.

    \b
    deepssim plant train/ generated/ --group-by parent --out planted/
    deepssim audit train/ planted/images --group-by parent --out result/
    deepssim recall result/ --truth planted/truth.csv
    """
    from deepssim.cli._progress import make_progress
    from deepssim.images import ImageOptions
    from deepssim.planted.copies import IMAGES, TRUTH, PlantOptions, plant

    images = ImageOptions(slices=slices, axis=axis, group_by=group_by, max_pixels=max_pixels)
    options = PlantOptions(number, tuple(kind.strip() for kind in kinds.split(",")), seed, images, with_links)
    result = plant(real, out, synthetic=synthetic, options=options, progress=make_progress(quiet))
    counts = Counter((one.kind, one.label) for one in result.planted)
    if result.n_people is None:
        click.echo(
            "Warning: not every copied image has a known patient, so figures are by image: say who is who with "
            "--group-by parent or regex:PATTERN, or a manifest (column group)",
            err=True,
        )
    if result.n_skipped:
        click.echo(f"Warning: {result.n_skipped:,} real images that were drawn could not be used", err=True)
    if result.n_left_out:
        click.echo(f"Warning: {result.n_left_out:,} synthetic files are no images or cannot be read", err=True)
    if as_json:
        kinds_found = [{"kind": kind, "label": label, "copies": n} for (kind, label), n in counts.items()]
        echo_json({"out": str(result.folder), "kinds": kinds_found, "people": result.n_people,
                   "synthetic_files": result.n_synthetic, "skipped": result.n_skipped,
                   "left_out": result.n_left_out})  # fmt: skip
        return
    of = "" if result.n_people is None else f" of {result.n_people:,} people"
    click.echo(f"{len(result.planted):,} copies{of}: {', '.join(f'{n:,} {k} ({x})' for (k, x), n in counts.items())}")
    if synthetic is not None:
        click.echo(f"{result.n_synthetic:,} synthetic files beside them")
    click.echo(f"Audit {result.folder / IMAGES}, then: deepssim recall RESULT --truth {result.folder / TRUTH}")
