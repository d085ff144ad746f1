"""``deepssim recall``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from deepssim.cli._options import echo_json, talk_options
from deepssim.errors import UsageError

if TYPE_CHECKING:
    from deepssim.planted.recall import Found, Recall
    from deepssim.statistics import Rate

RATES = {
    "flagged": "found",
    "right_label": "right label",
    "right_source": "right source",
    "right_person": "right patient",
    "screened": "among candidates",
}
# Those with their interval on a terminal; files have all.
MAIN = ("flagged", "right_label")
MOST_SHOWN = 20
MISSED = ("id", "kind", "label", "source_id", "group", "best_real_id", "value", "source_rank", "source_value")


@click.command("recall")
@click.argument("result", type=click.Path(path_type=Path))
@click.option("--truth", required=True, type=click.Path(path_type=Path), help="truth.csv of deepssim plant.")
@click.option("--csv", "csv_path", type=click.Path(path_type=Path), metavar="FILE.csv", help="Write the table.")
@click.option("--missed", "missed_path", type=click.Path(path_type=Path), metavar="FILE.csv",
              help="Write the copies that were not found.")  # fmt: skip
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of resampling.")
@talk_options
def command(
    result: Path,
    truth: Path,
    csv_path: Path | None,
    missed_path: Path | None,
    seed: int,
    as_json: bool,
    quiet: bool,
) -> None:
    """Say what the audit in the folder RESULT found of the copies that were planted.

    Found is a copy that is called near or exact. Its source is right where its best real image is the one that was
    copied, and among the candidates where the screening found it at all. Intervals (95 %) resample people. Audit the
    folder images/ that deepssim plant wrote.

    \b
    deepssim recall result/ --truth planted/truth.csv
    """
    from deepssim.planted.recall import find_planted, measure_recall

    for path in (csv_path, missed_path):
        if path is not None and (path.suffix != ".csv" or not path.absolute().parent.is_dir()):
            raise UsageError(f"{path} cannot be written: name a FILE.csv in a folder that is there")
        if path is not None and path.resolve() == truth.resolve():
            raise UsageError(f"{path} is the truth, and would be lost: name another file")
    if csv_path is not None and missed_path is not None and csv_path.resolve() == missed_path.resolve():
        raise UsageError(f"--csv and --missed name one file, {csv_path}: name two")
    findings = find_planted(result, truth)
    recall = measure_recall(findings, seed=seed)
    _write(recall, csv_path, missed_path)
    if as_json:
        echo_json({"result": str(result), "truth": str(truth), **recall.as_dict()})
        return
    _show(recall, is_distance=not findings.is_verified and findings.summary["metric"].get("similarity") == "l2")


def _write(recall: Recall, csv_path: Path | None, missed_path: Path | None) -> None:
    from deepssim.tables import write_csv

    if csv_path is not None:
        names = ["kind", "label", "copies", "people"]
        names += [f"{name}{end}" for name in RATES for end in ("", "_rate", "_low", "_high")]
        rows = []
        for one in recall.kinds:
            cells: list[object] = [one.kind, one.label, one.total, one.people]
            for name in RATES:
                rate: Rate | None = getattr(one, name)
                cells += ["", "", "", ""] if rate is None else [rate.events, rate.rate, rate.low, rate.high]
            rows.append(cells)
        write_csv(csv_path, names, rows)
    if missed_path is not None:
        write_csv(missed_path, MISSED, [_missed(one) for one in recall.missed])


def _missed(one: Found) -> list[object]:
    truth = one.planted
    return [truth.id, truth.kind, truth.label, truth.source_id, truth.group or "", one.real_id or "",
            "" if one.real_id is None else one.value, one.source_rank or "",
            "" if one.source_value is None else one.source_value]  # fmt: skip


def _show(recall: Recall, *, is_distance: bool) -> None:
    from deepssim.cli._options import threshold_text
    from deepssim.images.text import one_line

    head = f"{'copies':>24} {'number':>7} {'people':>7}"
    click.echo(head + "".join(f" {title:>{_width(rate)}}" for rate, title in RATES.items()))
    for one in recall.kinds:
        name = one.kind if one.label == "all" else f"{one.kind}, {one.label}"
        cells = "".join(f" {_percent(getattr(one, r), is_main=r in MAIN):>{_width(r)}}" for r in RATES)
        click.echo(f"{one_line(name, 24):>24} {one.total:>7,} {one.people:>7,}{cells}")
    thresholds = recall.thresholds
    near, exact = (
        threshold_text(thresholds[name]["comparison"], thresholds[name]["value"], is_distance=is_distance)
        for name in ("near", "exact")
    )
    click.echo(f"\nThresholds: near {near}, exact {exact} ({one_line(str(thresholds['source']), 200)})")
    if thresholds.get("stage") == "embedding" and thresholds["near"] == thresholds["exact"]:
        click.echo(
            "One threshold for both: every copy that is found is called exact, so no near one has the right label"
        )
    if recall.n_others:
        click.echo(f"Others: {recall.n_others_flagged:,} of {recall.n_others:,} images that were not planted flagged")
    if recall.n_unusable:
        click.echo(f"{recall.n_unusable:,} copies could not be used by the audit and count as missed")
    if recall.missed:
        click.echo(f"\nMissed, {len(recall.missed):,}:")
    for found in recall.missed[:MOST_SHOWN]:
        rank = found.source_rank
        why = f"its source is candidate {rank} with {found.source_value:.3f}" if rank else "its source is no candidate"
        of = one_line(found.planted.source_id, 80)
        click.echo(f"  {one_line(found.planted.id, 80)} ({found.planted.kind}, of {of}): {why}")
    if len(recall.missed) > MOST_SHOWN:
        click.echo(f"  and {len(recall.missed) - MOST_SHOWN:,} more: --missed FILE.csv lists all")


def _width(rate: str) -> int:
    return 23 if rate in MAIN else len(RATES[rate])


def _percent(rate: Rate | None, *, is_main: bool) -> str:
    if rate is None:
        return "not known"
    share = f"{100 * rate.rate:.1f} %"
    return f"{share} ({100 * rate.low:.1f} to {100 * rate.high:.1f})" if is_main else share
