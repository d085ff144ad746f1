"""``deepssim report``."""

from __future__ import annotations

from pathlib import Path

import click


@click.command("report")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    help="File to write; default report.html in FOLDER, report-shareable.html with one of the flags.",
)
@click.option("--no-images", is_flag=True, help="No pictures: to hand over.")
@click.option("--pseudonyms", is_flag=True, help="Pseudonyms instead of ids, paths and patients: to hand over.")
def command(folder: Path, out: Path | None, no_images: bool, pseudonyms: bool) -> None:
    """Make the report of the audit in FOLDER again, from its files alone.

    The report holds images and identifiers of patients. To hand one over, take both flags; the key of the
    pseudonyms stays in FOLDER (pseudonyms.key).

    \b
    deepssim report result/ --no-images --pseudonyms
    """
    from deepssim.report import write_report

    click.echo(write_report(folder, with_images=not no_images, pseudonyms=pseudonyms, out=out))
