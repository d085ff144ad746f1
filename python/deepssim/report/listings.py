"""The parts of the page that list things: pairs, patients, real images, skipped files, provenance."""

from __future__ import annotations

from dataclasses import dataclass

from deepssim.images import COUNTED_CODES, SKIP_CODES
from deepssim.report import images, text
from deepssim.report.data import SETS, Pair, Rate, Run, Summary
from deepssim.report.pseudonyms import WITHHELD, Names
from deepssim.report.tables import Row, Skips
from deepssim.report.view import Cell, Column, TableView, threshold_text

TOP = 20
TOP_SKIPPED = 100

UNCOUNTED = frozenset(SKIP_CODES) - COUNTED_CODES


@dataclass(frozen=True, slots=True)
class PairView:
    """One pair of the gallery."""

    rank: int
    label: str
    score: str
    real: str
    synthetic: str
    patient: str | None
    size: str | None
    views: images.Views | None


@dataclass(frozen=True, slots=True)
class PairsView:
    """The gallery, or its table where there are no pictures."""

    title: str
    notes: tuple[str, ...]
    pairs: tuple[PairView, ...]
    table: TableView | None


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


def _pair_view(rank: int, pair: Pair, names: Names, *, with_images: bool) -> PairView:
    views = None
    if with_images and pair.real_png is not None and pair.synthetic_png is not None:
        views = images.views(pair.real_png, pair.synthetic_png)
    return PairView(
        rank=rank,
        label=pair.label,
        score=text.score(pair.score),
        real=names.of("real", pair.real_id),
        synthetic=names.of("synthetic", pair.synthetic_id),
        patient=None if pair.real_group is None else names.of("patient", pair.real_group),
        size=pair.size if views else None,
        views=views,
    )


def pairs_view(summary: Summary, pairs: list[Pair], names: Names, *, with_images: bool) -> PairsView:
    """Return the pairs worth looking at.

    Args:
        summary: The summary.
        pairs: Worst first.
        names: How names are shown.
        with_images: Whether pictures may be shown.

    Returns:
        The gallery; a table instead where no pair has pictures.

    Raises:
        ReportError: A picture is missing or damaged.
    """
    total = summary.pairs
    n_over = total.near + total.exact
    shown = tuple(_pair_view(i + 1, pair, names, with_images=with_images) for i, pair in enumerate(pairs))
    notes = []
    if n_over:
        title = "The worst pairs"
        kinds = f"{text.count(total.exact)} exact, {text.count(total.near)} near"
        what = f"{text.plural(n_over, 'pair')} over the threshold ({kinds})."
        n_shown = sum(pair.label != "unrelated" for pair in pairs)
        notes.append(what if n_shown >= n_over else f"{what} {n_shown} of those with the highest scores are shown.")
        if n_shown < len(pairs):
            notes.append(f"{text.plural(len(pairs) - n_shown, 'more pair')} under the threshold, for comparison.")
    else:
        title = "Nearest pairs (none is over the threshold)"
        notes.append("The highest scores of the audit, so that the eye can check what the figures say.")
    if total.is_truncated:
        notes.append(
            f"The tables list {text.count(total.listed)} of these pairs, the nearest ones of each synthetic image; "
            "the counts cover all."
        )
    if not with_images:
        notes.append("This version of the report holds no pictures.")
    elif shown and not any(pair.views for pair in shown):
        notes.append("The audit folder holds no pictures of pairs.")
    if any(pair.views and pair.views.is_resized for pair in shown):
        notes.append("Where the two pictures differ in size, the synthetic one was resized for the difference.")
    table = None if any(pair.views for pair in shown) else _pairs_table(title, shown)
    return PairsView(title, tuple(notes), shown, table)


def _pairs_table(title: str, pairs: tuple[PairView, ...]) -> TableView | None:
    if not pairs:
        return None
    columns = (Column("Label", "label"), Column("Score", "number"), Column("Real image", "name"),
               Column("Patient", "name"), Column("Synthetic image", "name"))  # fmt: skip
    rows = tuple(
        (Cell(one.label, "label"), Cell(one.score, "number"), Cell(one.real, "name"),
         Cell(text.DASH if one.patient is None else one.patient, "name"), Cell(one.synthetic, "name"))
        for one in pairs
    )  # fmt: skip
    return TableView(title, columns, rows)


def _more(n_all: int, n_shown: int, file: str) -> str | None:
    return f"{text.count(n_all - n_shown)} more in {file}" if n_all > n_shown else None


def patients_view(rate: Rate | None, rows: list[Row], n_rows: int, names: Names) -> Listing:
    """Return the patients with the most copies.

    Args:
        rate: Patients copied, or None where no patient is known.
        rows: Of ``patients.parquet``, most copied first.
        n_rows: Rows of the whole table.
        names: How names are shown.

    Returns:
        The table, or why there is none.
    """
    if rate is None:
        return Listing(None, None)
    if not rows:
        return Listing(None, f"None of {text.plural(rate.total, 'patient')} has an image over the threshold.")
    columns = (Column("Patient", "name"), Column("Images copied", "number"), Column("Exact pairs", "number"),
               Column("Near pairs", "number"), Column("Best score", "number"), Column("Best pair", "name"))  # fmt: skip
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


def real_images_view(rate: Rate, rows: list[Row], n_rows: int, names: Names) -> Listing:
    """Return the real images with the most copies; the arguments are those of `patients_view`."""
    if not rows:
        return Listing(None, f"None of {text.plural(rate.total, 'real image')} is in a pair over the threshold.")
    columns = (Column("Real image", "name"), Column("Patient", "name"), Column("Exact pairs", "number"),
               Column("Near pairs", "number"), Column("Best score", "number"),
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
    rate = limits.false_positive_rate
    blocks = [
        _facts("Metric", [
            ("name", names.free(metric.name), False),
            ("similarity", metric.similarity, False),
            ("dimensions", text.count(metric.dim), False),
            ("hash", metric.digest, True),
        ]),
        _facts("Thresholds", [
            ("near", threshold_text(limits, "near").removeprefix("near "), False),
            ("exact", threshold_text(limits, "exact").removeprefix("exact "), False),
            ("source", names.free(limits.source), False),
            ("applied to", limits.stage and f"{limits.stage} scores", False),
            ("found on", limits.domain and names.free(limits.domain), False),
            ("base size", None if limits.base_size is None else text.plural(limits.base_size, "image"), False),
            ("false alarms", None if rate is None else text.percent(rate, text.percent_digits([rate])), False),
            ("how", limits.how and text.prose(names.free(limits.how)), False),
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
