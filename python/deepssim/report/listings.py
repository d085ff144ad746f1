"""The parts of the page that list things: patients, real images, skipped files, provenance."""

from __future__ import annotations

from dataclasses import dataclass

from deepssim.images import COUNTED_CODES, SKIP_CODES
from deepssim.report import text
from deepssim.report.data import SETS, Run, Summary
from deepssim.report.pseudonyms import WITHHELD, Names
from deepssim.report.tables import Row, Skips
from deepssim.report.view import Cell, Column, TableView, condition, false_alarms, is_one_threshold

TOP = 20
TOP_SKIPPED = 100
_ONE = "never: one threshold for both"

UNCOUNTED = frozenset(SKIP_CODES) - COUNTED_CODES


@dataclass(frozen=True, slots=True)
class Listing:
    """A table, or a sentence that says why there is none."""

    table: TableView | None
    note: str | None


@dataclass(frozen=True, slots=True)
class SkippedView:
    """What was left out."""

    counted: TableView | None
    uncounted: TableView | None
    listed: TableView | None


@dataclass(frozen=True, slots=True)
class Facts:
    """One block of the provenance: (name, value, is_code) in order."""

    title: str
    facts: tuple[tuple[str, str, bool], ...]


def _more(n_all: int, n_shown: int, file: str) -> str | None:
    return f"{text.count(n_all - n_shown)} more in {file}" if n_all > n_shown else None


def _best(summary: Summary) -> str:
    return "Best S1" if summary.is_verified else "Best score"


def patients_view(summary: Summary, rows: list[Row], n_rows: int, names: Names) -> Listing:
    """Return the patients with the most copies.

    Args:
        summary: The summary.
        rows: Of ``patients.parquet``, most copied first.
        n_rows: Rows of the whole table.
        names: How names are shown.

    Returns:
        The table, or why there is none.
    """
    rate = summary.patients
    if rate is None:
        return Listing(None, None)
    if not rows:
        return Listing(None, f"None of {text.plural(rate.total, 'patient')} has an image over the threshold.")
    columns = (Column("Patient", "name"), Column("Images copied", "number"), Column("Exact pairs", "number"),
               Column("Near pairs", "number"), Column(_best(summary), "number"),
               Column("Best pair", "name"))  # fmt: skip
    cells = tuple(
        (
            Cell(names.of("patient", row["group"]), "name"),
            Cell(f"{text.count(row['n_images_copied'])} of {text.count(row['n_images'])}", "number"),
            Cell(text.count(row["n_exact"]), "number"),
            Cell(text.count(row["n_near"]), "number"),
            Cell(text.score(row["best_value"]), "number"),
            Cell(names.of("real", row["best_real_id"]), "name", names.of("synthetic", row["best_synthetic_id"])),
        )
        for row in rows
    )
    more = _more(n_rows, len(rows), "patients.parquet")
    return Listing(TableView("Patients with the most copies", columns, cells, more), None)


def real_images_view(summary: Summary, rows: list[Row], n_rows: int, names: Names) -> Listing:
    """Return the real images with the most copies; the arguments are those of `patients_view`."""
    if not rows:
        return Listing(
            None, f"None of {text.plural(summary.copied.total, 'real image')} is in a pair over the threshold."
        )
    columns = (Column("Real image", "name"), Column("Patient", "name"), Column("Exact pairs", "number"),
               Column("Near pairs", "number"), Column(_best(summary), "number"),
               Column("Nearest synthetic", "name"))  # fmt: skip
    cells = tuple(
        (
            Cell(names.of("real", row["real_id"]), "name", _other_path(row, names)),
            Cell(text.DASH if row["real_group"] is None else names.of("patient", row["real_group"]), "name"),
            Cell(text.count(row["n_exact"]), "number"),
            Cell(text.count(row["n_near"]), "number"),
            Cell(text.score(row["best_value"]), "number"),
            Cell(names.of("synthetic", row["best_synthetic_id"]), "name"),
        )
        for row in rows
    )
    more = _more(n_rows, len(rows), "real_images.parquet")
    return Listing(TableView("Real images with the most copies", columns, cells, more), None)


def _other_path(row: Row, names: Names) -> str | None:
    """Return the path of an image where its id does not already say it."""
    path: str = row["real_path"]
    return None if row["real_id"].startswith(path) else names.path(path)


def skipped_view(skips: Skips, names: Names) -> SkippedView:
    """Return what was left out, by set and reason, and the first files that count as skipped."""

    def meaning(code: str) -> str:
        return SKIP_CODES.get(code, "other reason" if names.is_pseudonymous else code)

    def counts(title: str, *, is_counted: bool) -> TableView | None:
        found = sorted(
            (SETS.index(part) if part in SETS else len(SETS), part, meaning(code), n)
            for (part, code), n in skips.counts.items()
            if (code not in UNCOUNTED) == is_counted
        )
        rows = tuple((Cell(part), Cell(why), Cell(text.count(n), "number")) for _, part, why, n in found)
        return (
            TableView(title, (Column("Set"), Column("Reason"), Column("Files or frames", "number")), rows)
            if rows
            else None
        )

    rows = tuple(
        (
            Cell(row["set"]),
            Cell(names.of(row["set"], row["id"]), "name"),
            Cell(meaning(row["code"]), "text", None if names.is_pseudonymous else row["reason"]),
        )
        for row in skips.first
    )
    listed = TableView(
        "Skipped files",
        (Column("Set"), Column("File or frame", "name"), Column("Reason")),
        rows,
        _more(skips.n_counted, len(rows), "skipped.parquet"),
    )
    return SkippedView(
        counts("Skipped, by set and reason", is_counted=True),
        counts("Left out on purpose, not counted as skipped", is_counted=False),
        listed if rows else None,
    )


def _facts(title: str, items: list[tuple[str, str | None, bool]]) -> Facts:
    return Facts(title, tuple((name, value, is_code) for name, value, is_code in items if value is not None))


def _loose(title: str, items: list[tuple[str, object]], names: Names, *, is_free: bool) -> Facts:
    """Return a loose table of `run.json`; options may name anything, versions and machines are texts."""
    shown: list[tuple[str, str | None, bool]] = []
    for key, value in items:
        safe = names.free(text.plain(value)) if is_free else text.plain(names.option(value))
        if key.startswith("bytes") and isinstance(value, int):
            safe = f"{text.count(value)} bytes"
        shown.append((names.free(key).replace("_", " "), safe, False))
    return _facts(title, shown)


def provenance(summary: Summary, run: Run, names: Names) -> tuple[Facts, ...]:
    """Return where the result comes from: metric, thresholds, inputs, run, versions, machine, options."""
    metric, limits = summary.metric, summary.thresholds
    blocks = [
        _facts("Metric, of the screening" if summary.is_verified else "Metric", [
            ("name", names.free(metric.name), False),
            ("similarity", metric.similarity, False),
            ("dimensions", text.count(metric.dim), False),
            ("hash", metric.digest, True),
        ]),
        _facts("Thresholds", [
            ("near", _ONE if is_one_threshold(summary) else condition(summary, "near"), False),
            ("exact", condition(summary, "exact"), False),
            ("source", names.free(limits.source), False),
            ("applied to", _applied_to(summary), False),
            ("candidates", _candidates(summary), False),
            ("found on", names.free(limits.domain) if limits.domain else None, False),
            ("base size", None if limits.base_size is None else text.plural(limits.base_size, "image"), False),
            ("false alarms", false_alarms(summary), False),
            ("how", text.prose(names.free(limits.how)) if limits.how else None, False),
        ]),
    ]  # fmt: skip
    blocks += [_input(name, summary, run, names) for name in SETS if name in run.inputs]
    blocks.append(_facts("Run", [
        ("command", names.free(run.command), False),
        ("started", text.moment(run.started), False),
        ("finished", text.moment(run.finished), False),
        ("took", text.duration(run.seconds), False),
    ]))  # fmt: skip
    loose = (
        ("Versions", run.versions, True), ("Machine", run.machine, True), ("Options", run.options, False),
        ("Plan", run.plan, False), ("Seeds", run.seeds, False),
    )  # fmt: skip
    blocks += [_loose(title, items, names, is_free=is_free) for title, items, is_free in loose if items]
    return tuple(blocks)


def _candidates(summary: Summary) -> str | None:
    return None if summary.candidates is None else f"{text.count(summary.candidates)} of each synthetic image"


def _applied_to(summary: Summary) -> str | None:
    if summary.is_verified:
        return "S1 and S2 of registered pairs"
    stage = summary.thresholds.stage
    return stage and f"{stage} scores"


def _input(name: str, summary: Summary, run: Run, names: Names) -> Facts:
    one, counts = run.inputs[name], summary.counts.get(name)
    hidden = names.is_pseudonymous
    groups = None if counts is None or counts.groups is None else text.count(counts.groups)
    group_by = None if one.group_by is None else text.plain(names.option(one.group_by))
    return _facts(f"{name.capitalize()} images", [
        ("images", text.count(one.images), False),
        ("patients", groups or "not known", False),
        ("grouped by", group_by, False),
        ("source", WITHHELD if hidden else one.source, not hidden),
        # A digest of the input is as good as its name to anybody who has the images.
        ("digest", WITHHELD if hidden else one.digest, not hidden),
    ])  # fmt: skip
