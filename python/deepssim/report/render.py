"""From an audit folder to one self-contained HTML file."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from deepssim.disk import replacing
from deepssim.errors import UsageError
from deepssim.report import figures, gallery, images, listings, tables, text, view
from deepssim.report.data import LABELS, MAX_PAIRS, Pair, Run, Summary, Verified, read_pairs, read_run, read_summary
from deepssim.report.fields import ReportError
from deepssim.report.glossary import glossary
from deepssim.report.pseudonyms import KEY_NAME, Names, PlainNames, Pseudonyms, folder_key, names_in

# Warnings beyond these would bury the report; they stay in summary.json.
_MAX_SENTENCES = 50


@dataclass(frozen=True, slots=True)
class Page:
    """Everything that the template lays out."""

    policy: str
    css: Markup
    version: str
    banner: tuple[str, ...]
    finished: str
    subtitle: str
    level: str
    word: str
    sentence: str
    details: tuple[str, ...]
    cards: tuple[view.Card, ...]
    control: view.ControlView
    histogram: view.Figure | None
    scores_title: str
    legend: Markup
    agreement_key: Markup
    pairs: gallery.PairsView
    patients: listings.Listing
    real_images: listings.Listing
    skipped: listings.SkippedView
    limits: tuple[str, ...]
    warnings: tuple[str, ...]
    provenance: tuple[listings.Facts, ...]
    words: tuple[tuple[str, str], ...]


def write_report(folder: Path, *, with_images: bool = True, pseudonyms: bool = False, out: Path | None = None) -> Path:
    """Write the report of a finished audit as one HTML file that needs no network.

    Only the files of the folder are read, so a report can be made again years later without the images. The
    same folder gives the same bytes. The file is written under a temporary name, flushed to disk and renamed;
    its mode is 0600.

    Args:
        folder: The audit folder.
        with_images: Show the pictures of the worst pairs. Without, the file holds no picture data at all.
        pseudonyms: Show pseudonyms instead of ids, paths and patients, under a key that stays in the folder
            (``pseudonyms.key``, made on first use).
        out: The file to write. Default: ``report.html`` in the folder, or ``report-shareable.html`` when
            images or names are left out.

    Returns:
        The file written.

    Raises:
        UsageError: There is no such folder, or `out` cannot be written.
        ReportError: A file of the folder is missing, damaged or of a newer version.

    >>> write_report(Path("no-such-audit"))
    Traceback (most recent call last):
    ...
    deepssim.errors.UsageError: no-such-audit is no folder; name the folder of a finished audit
    """
    # Absolute: the Parquet library takes a leading ~ for the home folder.
    given, folder = folder, Path(folder).absolute()
    if not folder.is_dir():
        raise UsageError(f"{given} is no folder; name the folder of a finished audit")
    if out is None:
        out = folder / ("report.html" if with_images and not pseudonyms else "report-shareable.html")
    out = Path(out)
    if not out.parent.is_dir() or out.is_dir():
        raise UsageError(f"{out} cannot be written: it is a folder or its folder is missing; name another file")
    _write(out, render(folder, with_images=with_images, pseudonyms=pseudonyms).encode("utf-8"))
    return out


def render(folder: Path, *, with_images: bool, pseudonyms: bool) -> str:
    """Return the report as HTML; see `write_report`."""
    summary, run = read_summary(folder), read_run(folder)
    found = _open_tables(folder, summary)
    names: Names = PlainNames()
    if pseudonyms:
        names = _pseudonyms(folder, summary, run, found)
    css = (Path(__file__).parent / "templates" / "style.css").read_text(encoding="utf-8")
    page = _page(folder, summary, run, found, names, css, with_images=with_images)
    return _environment().get_template("report.html.j2").render(page=page)


def _environment() -> Environment:
    """Return the template environment: strict, escaping, and every text made visible on its way out."""
    environment = Environment(
        loader=PackageLoader("deepssim.report"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_finalize,
        trim_blocks=True,
    )
    environment.filters["attribute"] = lambda value: escape(text.visible(str(value)))
    environment.filters["shorten"] = text.shorten
    return environment


def _finalize(value: object) -> object:
    """Let no text reach the page unescaped or with hidden characters, whatever the template forgets."""
    return text.markup(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def policy(css: str) -> str:
    """Return the content-security policy: nothing may load or run but this one style and data pictures."""
    digest = base64.b64encode(hashlib.sha256(css.encode("utf-8")).digest()).decode("ascii")
    return f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"


def _open_tables(folder: Path, summary: Summary) -> dict[str, tables.Table]:
    """Open the tables of the folder; one that every run writes or the summary needs must be there."""
    needed = {
        "matches.parquet": True,
        "leaks.parquet": summary.pairs.listed > 0,
        "real_images.parquet": summary.copied.count > 0,
        "patients.parquet": summary.patients is not None and summary.patients.count > 0,
        "skipped.parquet": True,
    }
    found = {}
    for name in tables.COLUMNS:
        path = folder / name
        if path.exists():
            found[name] = tables.Table(path)
        elif needed.get(name):
            raise ReportError(f"{path} is missing; restore it or run the audit again")
    leaks = found.get("leaks.parquet")
    if leaks is not None and leaks.n_rows != summary.pairs.listed:
        raise ReportError(
            f"{leaks.path} has {leaks.n_rows} rows, summary.json says {summary.pairs.listed}; run the audit again"
        )
    return found


def _pseudonyms(folder: Path, summary: Summary, run: Run, found: dict[str, tables.Table]) -> Pseudonyms:
    """Return pseudonyms that also know every name that a sentence of the folder mentions."""
    control, limits = summary.control, summary.thresholds
    texts = [
        summary.verdict.sentence, *summary.verdict.details, *summary.limits, *summary.warnings,
        *(control.warnings if control else ()), summary.metric.name, run.command,
        limits.source, limits.domain or "", limits.how or "",
        *(f"{key} {text.plain(value)}" for key, value in [*run.versions, *run.machine, *run.options, *run.seeds]),
    ]  # fmt: skip
    sources = [(name, one.source) for name, one in run.inputs.items()]
    sources += [(name, Path(source).name) for name, source in sources]
    known = names_in("\n".join(texts), chain(sources, *(table.names() for table in found.values())))
    return Pseudonyms(folder_key(folder), known)


def _pairs(folder: Path, summary: Summary, found: dict[str, tables.Table]) -> list[Pair]:
    """Return the pairs to show: the evidence, else the top of the tables, without pictures."""
    pairs = read_pairs(folder)
    if pairs:
        return pairs
    by = ["s1", "s2", "score"] if summary.is_verified else ["score"]
    rows: list[tables.Row] = []
    if "leaks.parquet" in found:
        rows = found["leaks.parquet"].top(by, MAX_PAIRS)
    if not rows:
        rows = found["matches.parquet"].top(by, MAX_PAIRS, only=("rank", 1))
    return [
        Pair(
            row["real_id"],
            row["synthetic_id"],
            row["real_group"],
            row["score"],
            _label(row["label"]),
            verified=Verified(row["s1"], row["s2"]) if summary.is_verified else None,
        )
        for row in rows
    ]


def _label(value: str) -> str:
    if value not in LABELS:
        raise ReportError(f"a table of the folder has the label {value!r}, which no audit writes; run it again")
    return value


def _top(found: dict[str, tables.Table], name: str) -> tuple[list[tables.Row], int]:
    if name not in found:
        return [], 0
    table = found[name]
    return table.top(["n_exact", "n_near", "best_value"], listings.TOP), table.n_rows


def banner(*, with_images: bool, pseudonyms: bool) -> tuple[str, ...]:
    """Return what the file holds and how to handle it; the first sentence is set off."""
    key = (
        f"Pseudonyms stand for all images and patients; whoever has the file {KEY_NAME} of the audit folder "
        "can trace them back."
    )
    if with_images and not pseudonyms:
        return ("This report shows images and identifiers of patients.", "Handle it as patient data.")
    if with_images:
        return (
            "This report shows images of patients, without their names.",
            key,
            "The pictures remain and may be recognised: handle it as patient data.",
        )
    if not pseudonyms:
        return (
            "This report names patients and their images, without pictures.",
            "No picture data is in this file. Identifiers and paths remain: handle it as patient data.",
        )
    return (
        "This report has no pictures and no names.",
        f"{key} Paths and digests of the inputs are withheld. Counts, scores, dates and settings remain; "
        "pseudonymous data are still personal data, so check your rules before you pass it on.",
    )


def _sentences(lines: tuple[str, ...], names: Names) -> tuple[str, ...]:
    shown = tuple(text.prose(names.free(line)) for line in lines[:_MAX_SENTENCES])
    rest = len(lines) - len(shown)
    return (*shown, f"{text.count(rest)} more in summary.json.") if rest else shown


def _page(
    folder: Path,
    summary: Summary,
    run: Run,
    found: dict[str, tables.Table],
    names: Names,
    css: str,
    *,
    with_images: bool,
) -> Page:
    patients, n_patients = _top(found, "patients.parquet")
    real_images, n_real_images = _top(found, "real_images.parquet")
    skips = tables.read_skips(found["skipped.parquet"], listings.UNCOUNTED, listings.TOP_SKIPPED)
    verdict = summary.verdict
    versions = {key: text.plain(value) for key, value in run.versions}
    return Page(
        policy=policy(css),
        css=Markup(css),
        version=names.free(versions.get("deepssim", "")),
        banner=banner(with_images=with_images, pseudonyms=names.is_pseudonymous),
        finished=text.moment(run.finished),
        subtitle=view.subtitle(summary, names),
        level=verdict.level,
        word=view.WORDS[verdict.level],
        sentence=text.prose(names.free(verdict.sentence)),
        details=_sentences(verdict.details, names),
        cards=view.cards(summary),
        control=view.control_view(summary, names),
        histogram=view.histogram_view(summary),
        scores_title="S1 of the best candidates" if summary.is_verified else "Nearest scores",
        legend=figures.legend(images.DIVERGING, uid="legend"),
        agreement_key=figures.agreement_key(
            images.COOL, images.WARM, images.HATCH, reach=(images.WARM_FROM, images.WARM_FULL), uid="agreement"
        ),
        pairs=gallery.pairs_view(summary, _pairs(folder, summary, found), names, with_images=with_images),
        patients=listings.patients_view(summary, patients, n_patients, names),
        real_images=listings.real_images_view(summary, real_images, n_real_images, names),
        skipped=listings.skipped_view(skips, names),
        limits=_sentences(summary.limits, names),
        warnings=_sentences(summary.warnings, names),
        provenance=listings.provenance(summary, run, names),
        words=glossary(summary),
    )


def _write(out: Path, content: bytes) -> None:
    try:
        with replacing(out) as temporary:
            temporary.write_bytes(content)
    except OSError as error:
        raise UsageError(f"{out} cannot be written: {error.strerror}; name another file") from None
