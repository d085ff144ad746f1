"""What a finished audit folder says, as plain values.

Only the small JSON files are read here; the tables, which may have tens of millions of rows, are read by
`deepssim.report.tables`.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path, PurePosixPath

from deepssim.report.fields import Fields, ReportError, read_json, read_versioned

SETS = ("real", "synthetic", "holdout")
LEVELS = ("copies", "suspect", "none_found", "incomplete")
LABELS = ("unrelated", "near", "exact")
COMPARISONS = (">", ">=", "<", "<=")
STAGES = ("embedding", "verified")
MAX_PAIRS = 24
MAX_TRANSFORM = 200  # characters

_VERSION = 1
_ABOUT_ONE = 1.001  # a correlation in float32 may pass 1 by rounding


@dataclass(frozen=True, slots=True)
class Rate:
    """Some of a total, with the confidence interval of the fraction.

    `interval` is None where none could be computed; `unit` is what was resampled (``patient``, ``image``).
    """

    count: int
    exact: int | None
    total: int
    rate: float | None
    interval: tuple[float, float] | None
    unit: str | None
    level: float


@dataclass(frozen=True, slots=True)
class Threshold:
    """A value and how a score is compared with it."""

    value: float
    comparison: str


@dataclass(frozen=True, slots=True)
class Thresholds:
    """The two thresholds and where they come from."""

    near: Threshold
    exact: Threshold
    source: str
    stage: str | None
    domain: str | None
    base_size: int | None
    how: str | None
    false_positive_rate: float | None
    false_positive_interval: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True)
class Metric:
    """The metric that scored the pairs."""

    name: str
    digest: str
    similarity: str
    dim: int


@dataclass(frozen=True, slots=True)
class SetCounts:
    """How many images one set has; `groups` is None where no patient is known."""

    images: int
    groups: int | None
    skipped: int
    ignored: int


@dataclass(frozen=True, slots=True)
class PairCounts:
    """Pairs over the threshold, and how many of them the tables list."""

    near: int
    exact: int
    listed: int
    is_truncated: bool


@dataclass(frozen=True, slots=True)
class Control:
    """The same synthetic images against equally many real and holdout images."""

    n_images: int
    n_real_used: int
    drawn: str
    real: Rate
    holdout: Rate
    only_real: int
    only_holdout: int
    both: int
    p_value: float | None
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Histogram:
    """Counts of the best value (score, or S1) of each synthetic image; n + 1 edges, n counts each."""

    edges: tuple[float, ...]
    real: tuple[int, ...]
    real_matched: tuple[int, ...] | None
    holdout: tuple[int, ...] | None


@dataclass(frozen=True, slots=True)
class Verdict:
    """The answer of the audit in words."""

    level: str
    sentence: str
    details: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Summary:
    """The file ``summary.json``.

    `is_verified` says that pairs were judged in image space: S1 and S2 decide, not the score. `candidates` is how many
    real images of each synthetic one were looked at, None where that is not known or no pair was verified.
    """

    metric: Metric
    thresholds: Thresholds
    is_verified: bool
    candidates: int | None
    counts: dict[str, SetCounts]
    flagged: Rate
    copied: Rate
    patients: Rate | None
    pairs: PairCounts
    control: Control | None
    histogram: Histogram
    verdict: Verdict
    limits: tuple[str, ...]
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Input:
    """One set of images as the run found it."""

    source: str
    digest: str
    images: int
    group_by: str | None


@dataclass(frozen=True, slots=True)
class Run:
    """The file ``run.json``; the loose tables keep the order of the file."""

    command: str
    started: str
    finished: str
    seconds: float
    inputs: dict[str, Input]
    versions: list[tuple[str, object]]
    machine: list[tuple[str, object]]
    options: list[tuple[str, object]]
    plan: list[tuple[str, object]]
    seeds: list[tuple[str, object]]


@dataclass(frozen=True, slots=True)
class Verified:
    """What verification saw of a pair; overlap and rank are None where only a table tells of it.

    `transform` says what was done to the real image, `aligned_png` shows it laid onto the synthetic one and
    `agreement_png` where they agree (None: there are no such pictures).
    """

    s1: float
    s2: float
    overlap: float | None = None
    transform: str | None = None
    screening_rank: int | None = None
    aligned_png: Path | None = None
    agreement_png: Path | None = None


@dataclass(frozen=True, slots=True)
class Pair:
    """One pair worth looking at, with the files of its two pictures (None: there are none).

    `verified` is None for a pair that was scored alone.
    """

    real_id: str
    synthetic_id: str
    real_group: str | None
    score: float
    label: str
    real_png: Path | None = None
    synthetic_png: Path | None = None
    size: str | None = None
    verified: Verified | None = None


def _rate(fields: Fields, *, count: str, total: int | None = None, level: float | None = None) -> Rate:
    n_found = fields.count(count)
    n_total = fields.count("total") if total is None else total
    if n_found > n_total:
        raise ReportError(f"summary.json: {count} is {n_found}, more than the {n_total} there are; run again")
    n_exact = fields.count_or_none("exact")
    if n_exact is not None and n_exact > n_found:
        raise ReportError(f"summary.json: exact is {n_exact}, more than the {n_found} of {count}; run again")
    return Rate(
        count=n_found,
        exact=n_exact,
        total=n_total,
        rate=fields.number_or_none("rate", 0, 1),
        interval=fields.bounds("interval"),
        unit=fields.text_or_none("unit"),
        level=fields.number("level", 0, 1) if level is None else level,
    )


def _threshold(fields: Fields) -> Threshold:
    return Threshold(fields.number("value"), fields.one_of("comparison", COMPARISONS))


def _thresholds(fields: Fields) -> Thresholds:
    return Thresholds(
        near=_threshold(fields.fields("near")),
        exact=_threshold(fields.fields("exact")),
        source=fields.text("source"),
        stage=None if fields.is_null("stage") else fields.one_of("stage", STAGES),
        domain=fields.text_or_none("domain"),
        base_size=fields.count_or_none("base_size"),
        how=fields.text_or_none("how"),
        false_positive_rate=fields.number_or_none("false_positive_rate", 0, 1),
        false_positive_interval=fields.bounds("false_positive_interval"),
    )


def _set_counts(fields: Fields) -> SetCounts:
    return SetCounts(
        fields.count("images"),
        fields.count_or_none("groups"),
        fields.count("skipped"),
        fields.count("ignored"),
    )


def _control(fields: Fields | None, flagged: Rate) -> Control | None:
    if fields is None:
        return None
    real, holdout = (
        _rate(fields.fields(side), count="flagged", total=flagged.total, level=flagged.level)
        for side in ("real", "holdout")
    )
    return Control(
        n_images=fields.count("n_images"),
        n_real_used=fields.count("n_real_used"),
        drawn=fields.text("drawn"),
        real=real,
        holdout=holdout,
        only_real=fields.count("only_real"),
        only_holdout=fields.count("only_holdout"),
        both=fields.count("both"),
        p_value=fields.number_or_none("p_value", 0, 1),
        warnings=fields.texts("warnings"),
    )


def _histogram(fields: Fields, where: Path) -> Histogram:
    edges = fields.numbers("edges")
    if len(edges) < 2 or any(a >= b for a, b in pairwise(edges)):
        raise ReportError(f"{where}: histogram: edges must rise; the file is damaged, run the audit again")
    matched = None if fields.is_null("real_matched") else fields.counts("real_matched")
    holdout = None if fields.is_null("holdout") else fields.counts("holdout")
    real = fields.counts("real")
    for counts in (real, matched, holdout):
        if counts is not None and len(counts) != len(edges) - 1:
            raise ReportError(f"{where}: histogram: {len(edges)} edges need {len(edges) - 1} counts; run again")
    return Histogram(edges, real, matched, holdout)


def _is_verified(top: Fields, thresholds: Thresholds, where: Path) -> bool:
    """Say whether S1 and S2 decided; a summary of an earlier version says so by the stage of its thresholds alone."""
    by_stage = thresholds.stage == "verified"
    if top.is_null("decided_by"):
        return by_stage
    is_verified = top.one_of("decided_by", ("score", "s1")) == "s1"
    if is_verified != by_stage:
        raise ReportError(f"{where}: decided_by does not fit the stage of the thresholds; run the audit again")
    return is_verified


def _candidates(top: Fields, where: Path) -> int | None:
    verification = top.fields_or_none("verification")
    if verification is None:
        return None
    candidates = verification.count("candidates")
    if candidates == 0:
        raise ReportError(f"{where}: verification: candidates must be 1 or more; run the audit again")
    return candidates


def read_summary(folder: Path) -> Summary:
    """Read ``summary.json``.

    Args:
        folder: The audit folder.

    Returns:
        The summary.

    Raises:
        ReportError: The file is missing, damaged or newer than this program.
    """
    path = folder / "summary.json"
    top = read_versioned(path, "deepssim-summary", _VERSION)
    metric, pairs, verdict = top.fields("metric"), top.fields("pairs_over_threshold"), top.fields("verdict")
    counts = top.fields("counts")
    flagged = _rate(top.fields("synthetic_flagged"), count="flagged")
    patients = top.fields_or_none("patients_copied")
    thresholds = _thresholds(top.fields("thresholds"))
    is_verified = _is_verified(top, thresholds, path)
    return Summary(
        metric=Metric(metric.text("name"), metric.text("hash"), metric.text("similarity"), metric.count("dim")),
        thresholds=thresholds,
        is_verified=is_verified,
        candidates=_candidates(top, path) if is_verified else None,
        counts={name: _set_counts(counts.fields(name)) for name in SETS if not counts.is_null(name)},
        flagged=flagged,
        copied=_rate(top.fields("real_copied"), count="copied"),
        patients=None if patients is None else _rate(patients, count="copied"),
        pairs=PairCounts(pairs.count("near"), pairs.count("exact"), pairs.count("listed"), pairs.flag("truncated")),
        control=_control(top.fields_or_none("control"), flagged),
        histogram=_histogram(top.fields("histogram"), path),
        verdict=Verdict(verdict.one_of("level", LEVELS), verdict.text("sentence"), verdict.texts("details")),
        limits=top.texts("limits"),
        warnings=top.texts("warnings"),
    )


def _loose(fields: Fields, key: str) -> list[tuple[str, object]]:
    inner = fields.fields_or_none(key)
    return [] if inner is None else inner.items()


def read_run(folder: Path) -> Run:
    """Read ``run.json``.

    Args:
        folder: The audit folder.

    Returns:
        The record of the run.

    Raises:
        ReportError: The file is missing, damaged or newer than this program.
    """
    top = read_versioned(folder / "run.json", "deepssim-run", _VERSION)
    inputs = top.fields("inputs")
    return Run(
        command=top.text("command"),
        started=top.text("started"),
        finished=top.text("finished"),
        seconds=top.number("seconds", 0),
        inputs={
            name: Input(one.text("source"), one.text("digest"), one.count("images"), one.text_or_none("group_by"))
            for name in SETS
            if (one := inputs.fields_or_none(name)) is not None
        },
        versions=_loose(top, "versions"),
        machine=_loose(top, "machine"),
        options=_loose(top, "options"),
        plan=_loose(top, "plan"),
        seeds=_loose(top, "seeds"),
    )


def _picture(folder: Path, name: str | None, where: str) -> Path | None:
    """Return the file of a picture; a name that would leave the folder is refused."""
    if name is None:
        return None
    if PurePosixPath(name).name != name or "\\" in name or "\0" in name or not name.endswith(".png"):
        raise ReportError(f"{where} names a picture outside its folder; the file is damaged, run the audit again")
    return folder / name


def _verified(fields: Fields, folder: Path, where: str) -> Verified | None:
    if fields.is_null("s1"):
        return None
    aligned, agreement = (_picture(folder, fields.text_or_none(key), where) for key in ("aligned_png", "agreement_png"))
    if (aligned is None) != (agreement is None):
        raise ReportError(f"{where} names one of aligned_png and agreement_png without the other; run the audit again")
    transform = fields.text("transform")
    if len(transform) > MAX_TRANSFORM:
        raise ReportError(f"{where}: transform is longer than {MAX_TRANSFORM} characters; run the audit again")
    return Verified(
        s1=fields.number("s1", -_ABOUT_ONE, _ABOUT_ONE),
        s2=fields.number("s2", -_ABOUT_ONE, _ABOUT_ONE),
        overlap=fields.number("overlap", 0, _ABOUT_ONE),
        transform=transform,
        screening_rank=fields.count_or_none("screening_rank"),
        aligned_png=aligned,
        agreement_png=agreement,
    )


def read_pairs(folder: Path) -> list[Pair] | None:
    """Read ``evidence/pairs.json``: the pairs worth looking at, worst first.

    Args:
        folder: The audit folder.

    Returns:
        At most `MAX_PAIRS` pairs, or None where the file is not there.

    Raises:
        ReportError: The file is damaged.
    """
    path = folder / "evidence" / "pairs.json"
    if not path.exists():
        return None
    values = read_json(path)
    if not isinstance(values, list):
        raise ReportError(f"{path} must be a list; the file is damaged, run the audit again")
    pairs = []
    for row, value in enumerate(values[:MAX_PAIRS]):
        where = f"{path}: pair {row}"
        fields = Fields(value, where)
        pairs.append(
            Pair(
                real_id=fields.text("real_id"),
                synthetic_id=fields.text("synthetic_id"),
                real_group=fields.text_or_none("real_group"),
                score=fields.number("score"),
                label=fields.one_of("label", LABELS),
                real_png=_picture(path.parent, fields.text_or_none("real_png"), where),
                synthetic_png=_picture(path.parent, fields.text_or_none("synthetic_png"), where),
                size=fields.text_or_none("size"),
                verified=_verified(fields, path.parent, where),
            )
        )
    return pairs
