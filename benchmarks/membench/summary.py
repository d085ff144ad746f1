"""One table of all systems: a line each, a column for each kind of image and view."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from benchmarks.membench.figures import Figure
from benchmarks.membench.run import TUNE, Row

NONE = "-"
NAMES = {
    "ssim": "SSIM",
    "fsim": "FSIM",
    "encoder": "installed encoder",
    "verifier": "every pair verified",
    "pipeline": "pipeline",
}


def as_summary(rows: Sequence[Row], about: dict[str, Any]) -> str:
    """Return the tables in Markdown: thresholds chosen on other people, then those that were there before.

    Args:
        rows: Of `benchmarks.membench.run.run`.
        about: ``command`` and ``notes``, as for `as_markdown`.
    """
    lines = [f"Command: `{about['command']}`", "", *about["notes"], ""]
    lines += [
        f"Macro F1 of unrelated, near and exact in percent, in brackets its 95 % interval resampling people; after the "
        f"stroke the copies found at 1 % false positives. Thresholds chosen on people of the split {TUNE}, for each "
        "column.",
        "",
        *_table(rows, lambda row: row.cuts.source == TUNE, _chosen, lambda row: _shown(row.system)),
        "",
        "What published tables give besides, at the same thresholds: exact copies found at 5 % false positives among "
        "all other images; after the stroke the area under the ROC curve of copies against unrelated ones, times 100.",
        "",
        *_table(rows, lambda row: row.cuts.source == TUNE, _besides, lambda row: _shown(row.system)),
        "",
        "At thresholds that were there before: macro F1, after the stroke the unrelated images called copies.",
        "",
        *_table(rows, lambda row: row.cuts.source != TUNE, _given, _with_source),
    ]
    return "\n".join(lines).rstrip() + "\n"


def _table(rows: Sequence[Row], is_in: Any, cell: Any, heading: Any) -> list[str]:
    """Return the lines of a table; a system that is not there for a kind of image has no figure."""
    columns = list(dict.fromkeys((row.domain, row.condition) for row in rows))
    cells: dict[str, dict[tuple[str, str], str]] = {}
    for row in rows:
        if is_in(row):
            cells.setdefault(heading(row), {})[row.domain, row.condition] = cell(row)
    systems = list(dict.fromkeys(row.system for row in rows))
    order = {heading(row): systems.index(row.system) for row in rows if is_in(row)}
    lines = [
        "| metric | " + " | ".join(f"{domain} {condition}" for domain, condition in columns) + " |",
        "|---" * (1 + len(columns)) + "|",
    ]
    lines += [
        f"| {name} | " + " | ".join(cells[name].get(column, NONE) for column in columns) + " |"
        for name in sorted(cells, key=order.__getitem__)
    ]
    return lines


def _shown(system: str) -> str:
    return NAMES.get(system, f"`{system}`")


def _with_source(row: Row) -> str:
    near, exact = row.cuts.near, row.cuts.exact
    cuts = f"{near:.3f}" if near == exact else f"{near:.3f}, {exact:.3f}"
    source = "" if row.cuts.source == row.system else f"`{row.cuts.source}`: "
    return f"{_shown(row.system)} ({source}{cuts})"


def _chosen(row: Row) -> str:
    return f"{_interval(row.found['macro_f1'])} / {_percent(row.found['tpr_at_1_fpr'].value)}"


def _besides(row: Row) -> str:
    return f"{_percent(row.found['tpr_5_exact'].value)} / {_percent(row.found['auc_copies'].value)}"


def _given(row: Row) -> str:
    return f"{_interval(row.found['macro_f1'])} / {_percent(row.found['false_positives'].value)}"


def _interval(figure: Figure) -> str:
    if math.isnan(figure.value):
        return NONE
    if figure.low == figure.high:  # all right in every draw: an interval of resampling says nothing
        return _percent(figure.value)
    return f"{_percent(figure.value)} ({_percent(figure.low)} to {_percent(figure.high)})"


def _percent(value: float) -> str:
    return NONE if math.isnan(value) else f"{100 * value:.1f}"
