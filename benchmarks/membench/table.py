"""The figures as JSON and as a Markdown table."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from benchmarks.membench.curve import Point
from benchmarks.membench.figures import Figure
from benchmarks.membench.run import Row

# Heading and figures of each column.
Columns = dict[str, tuple[str, ...]]

MAIN: Columns = {
    "macro F1": ("macro_f1",),
    "TPR at 1 % FPR": ("tpr_at_1_fpr",),
    "unrelated flagged": ("false_positives",),
    "source at rank 1, near": ("rank1_near",),
    "exact": ("rank1_exact",),
    "source among candidates": ("candidate",),
}
MORE: Columns = {
    "weighted F1": ("weighted_f1",),
    "exact at 5 % FPR": ("tpr_5_exact",),
    "ROC AUC of copies": ("auc_copies",),
    "silhouette": ("silhouette",),
}
BY_CLASS: Columns = {
    f"{name}: precision, recall": (f"precision_{name}", f"recall_{name}") for name in ("unrelated", "near", "exact")
}
SIBLINGS: Columns = {"called near": ("sibling_near",), "called exact": ("sibling_exact",)}
NONE = "-"


def as_json(rows: Sequence[Row], points: Sequence[Point], about: dict[str, Any]) -> dict[str, Any]:
    """Return all there is to know; what could not be measured is null."""
    return {
        "format": "deepssim-membench",
        "version": 1,
        **about,
        "rows": [_finite(asdict(row)) for row in rows],
        "curve": [_finite(asdict(point)) for point in points],
    }


def as_markdown(rows: Sequence[Row], points: Sequence[Point], about: dict[str, Any]) -> str:
    """Return the tables: systems by domain and condition, siblings, the curve."""
    lines = [f"Command: `{about['command']}`", "", *about["notes"], ""]
    if rows:
        lines += [
            "Percent; in brackets the 95 % interval, resampling people (of a share that all or none have, the exact "
            "bound for so many people).",
            "",
            *_rows(MAIN, rows),
            "",
            *_rows(MORE, rows),
            "",
            *_rows(BY_CLASS, rows),
            "",
            "Siblings: other images of people in the base that are not in it themselves; in no figure above.",
            "",
            *_rows(SIBLINGS, rows),
            "",
        ]
    if points:
        lines += curve_table(points)
    return "\n".join(lines).rstrip() + "\n"


def _rows(columns: Columns, rows: Sequence[Row]) -> list[str]:
    lines = ["| images | system (thresholds) | " + " | ".join(columns) + " | n |", "|---" * (3 + len(columns)) + "|"]
    for row in rows:
        cuts = f"{row.system} ({row.cuts.source}: {row.cuts.near:.3f}, {row.cuts.exact:.3f})"
        cells = ["; ".join(_cell(row.found[name]) if name in row.found else NONE for name in names)
                 for names in columns.values()]  # fmt: skip
        first = row.found["sibling_near" if columns is SIBLINGS else "macro_f1"]
        lines.append(
            f"| {row.domain}, {row.condition} | {cuts} | {' | '.join(cells)} | {first.n} of {first.n_people} |"
        )
    return lines


def curve_table(points: Sequence[Point]) -> list[str]:
    """Return the lines of the table of the curve."""
    lines = [
        "Near copies by the peak displacement of their deformation, px at a shorter side of 112 px; no lesions. 0 px: "
        "exact copies.",
        "",
        "| domain, condition | px | flagged | called near, not exact | copies |",
        "|---|---|---|---|---|",
    ]
    for point in points:
        where = f"{point.domain}, {point.condition}"
        cells = f"{_cell(point.flagged)} | {_cell(point.called_near)} | {point.flagged.n}"
        lines.append(f"| {where} | {point.amplitude_px:g} | {cells} |")
    return lines


def _cell(figure: Figure) -> str:
    if math.isnan(figure.value):
        return NONE
    return f"{100 * figure.value:.1f} ({100 * figure.low:.1f} to {100 * figure.high:.1f})"


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value
