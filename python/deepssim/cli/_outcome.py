"""What ``audit`` and ``score`` say at the end, and how they exit."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from deepssim.cli._options import echo_json

if TYPE_CHECKING:
    from deepssim.audit import AuditResult


def announce(
    ctx: click.Context, result: AuditResult, report: Path | None, *, as_json: bool, fail_above: float | None
) -> None:
    """Print verdict and paths; exit with 3 or 4 where asked for."""
    summary = result.summary
    if as_json:
        echo_json({"out": str(result.folder), "report": str(report) if report else None, "summary": summary})
    else:
        click.echo(summary["verdict"]["sentence"])
        for line in summary["verdict"]["details"]:
            click.echo(f"  {line}")
        control = summary["control"] or {"warnings": []}
        for line in [*summary["warnings"], *control["warnings"]]:
            click.echo(f"Warning: {line}")
        click.echo(f"Report: {report}" if report else f"Results: {result.folder}")
    if fail_above is not None and result.flagged_rate > fail_above:
        click.echo(f"Memorization: {result.flagged_rate:.4f} of the images flagged, limit {fail_above}", err=True)
        ctx.exit(3)
    if result.too_many_skipped:
        path = result.folder / "skipped.parquet"
        click.echo(f"Too many inputs were skipped; the reasons are in {path} and in the report", err=True)
        ctx.exit(4)
