"""``deepssim demo``."""

from __future__ import annotations

from pathlib import Path

import click

from deepssim.cli._options import talk_options


@click.command("demo")
@click.option(
    "--out", type=click.Path(path_type=Path), default=Path("deepssim-demo"), show_default=True, help="Folder to make."
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of the made-up people.")
@talk_options
def command(out: Path, seed: int, as_json: bool, quiet: bool) -> None:
    """Audit a made-up cohort with planted copies: under a minute, no data and no network needed.

    Draws head phantoms of people who do not exist as the training set, plays a generator that memorizes some
    of them (identical, blurred and noisy, mirrored and turned, or locally changed copies among other images),
    audits the outcome with a holdout, and holds the verdict against the planted truth.
    """
    from dataclasses import asdict

    from deepssim.cli._options import echo_json
    from deepssim.cli._progress import make_progress
    from deepssim.demo import run_demo
    from deepssim.report import write_report

    result, planted = run_demo(out, seed=seed, progress=make_progress(quiet))
    path = write_report(result.folder)
    if as_json:
        echo_json({"report": str(path), "planted": [asdict(p) for p in planted], "summary": result.summary})
        return
    verdict = result.summary["verdict"]
    click.echo(f"\n{verdict['sentence']}")
    for line in verdict["details"]:
        click.echo(f"  {line}")
    click.echo("\nAgainst the planted truth:")
    for p in planted:
        source = "" if p.source_right is None else f", source named right {p.source_right}"
        click.echo(f"  {p.kind:<20} {p.total:>4}: flagged {p.flagged} (exact {p.exact}){source}")
    click.echo(f"\nReport: {path}")
