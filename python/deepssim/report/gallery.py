"""The pairs worth looking at: as cards with pictures, or as a table where there are none."""

from __future__ import annotations

import re
from dataclasses import dataclass

from markupsafe import Markup

from deepssim.report import figures, images, text
from deepssim.report.data import Pair, Summary, Verified
from deepssim.report.pseudonyms import WITHHELD, Names
from deepssim.report.view import Cell, Column, TableView, comparison_text

# What a transform may say; anything else could be a name, which pseudonyms must not let through.
_STEP = r"mirrored(?: upside down)?|turned -?\d+\.\d degrees|scaled by \d+\.\d+|moved \d+\.\d px"
_TRANSFORM = re.compile(rf"as it lies|(?:{_STEP})(?:, (?:{_STEP}))*")
_TURNED = re.compile(r"turned (-?)(\d+(?:\.\d+)?) degrees")


@dataclass(frozen=True, slots=True)
class EvidenceView:
    """Why a verified pair counts as a copy, or does not.

    `reason` is one sentence; `gauges` show S1 and S2 against their thresholds; `facts` are (name, value).
    """

    reason: str
    s1: str
    s2: str
    transform: str | None
    gauges: tuple[Markup, ...]
    facts: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class PairView:
    """One pair of the gallery; `evidence` is None where the score alone decided."""

    rank: int
    label: str
    score: str
    real: str
    synthetic: str
    patient: str | None
    size: str | None
    views: images.Views | None
    evidence: EvidenceView | None


@dataclass(frozen=True, slots=True)
class PairsView:
    """The gallery, or its table where there are no pictures; the flags say which keys the pictures need."""

    title: str
    notes: tuple[str, ...]
    pairs: tuple[PairView, ...]
    table: TableView | None
    has_aligned: bool
    has_unaligned: bool


def transform_text(transform: str, names: Names) -> str:
    r"""Return what was done to the real image, with the sense of its turn in words.

    >>> from deepssim.report.pseudonyms import PlainNames
    >>> transform_text("mirrored, turned -4.2 degrees", PlainNames())
    'mirrored, turned 4.2\xb0 clockwise'
    """
    if names.is_pseudonymous and not _TRANSFORM.fullmatch(transform):
        return WITHHELD
    return _TURNED.sub(lambda found: f"turned {found[2]}\u00b0 {'' if found[1] else 'counter-'}clockwise", transform)


def _reason(label: str, seen: Verified, transform: str | None) -> str:
    """Return in one sentence why a pair has its label."""
    if seen.s1 <= -1:
        return "The two could not be laid onto each other: they overlap too little, or one of them is too small."
    steps = [] if transform in (None, WITHHELD, "as it lies") else str(transform).split(", ")
    done = steps[0] if len(steps) == 1 else f"{', '.join(steps[:-1])} and {steps[-1]}" if steps else ""
    lead = f"The real image, {done}," if done else "The real image as it lies" if transform else "The real image"
    if label == "unrelated":
        return f"{lead} does not match the synthetic one."
    if label == "exact":
        return f"{lead} matches the synthetic one as a whole, and no place clearly deviates."
    return f"{lead} matches the synthetic one as a whole, but deviates in places."


def _evidence(number: int, pair: Pair, summary: Summary, names: Names, *, has_pictures: bool) -> EvidenceView | None:
    seen = pair.verified
    if seen is None:
        return None
    thresholds = summary.thresholds
    transform = None if seen.transform is None else transform_text(seen.transform, names)
    s1, s2 = text.score(seen.s1), text.score(seen.s2)
    gauges: tuple[Markup, ...] = ()
    if has_pictures:
        gauges = tuple(
            figures.gauge(value, one.value, label, f"{name} {shown}, {label} from {text.threshold(one.value)}",
                          kind=pair.label if pair.label in met else "plain", uid=f"pair-{number}-{name.lower()}")
            for name, value, shown, one, label, met in (
                ("S1", seen.s1, s1, thresholds.near, "near", ("near", "exact")),
                ("S2", seen.s2, s2, thresholds.exact, "exact", ("exact",)),
            )
        )  # fmt: skip
    facts = [("Transform", transform)]
    if seen.overlap is not None:
        facts.append(("Overlap", text.percent(min(seen.overlap, 1.0), 0, towards="down")))
    rank = "" if seen.screening_rank is None else f", rank {text.count(seen.screening_rank)}"
    facts.append(("Screening score", f"{text.score(pair.score)}{rank}"))
    return EvidenceView(
        _reason(pair.label, seen, transform),
        s1,
        s2,
        transform,
        gauges,
        tuple((name, value) for name, value in facts if value is not None),
    )


def _views(pair: Pair) -> images.Views | None:
    if pair.real_png is None or pair.synthetic_png is None:
        return None
    seen = pair.verified
    if seen is None or seen.aligned_png is None or seen.agreement_png is None:
        return images.views(pair.real_png, pair.synthetic_png)
    return images.verified_views(pair.real_png, pair.synthetic_png, seen.aligned_png, seen.agreement_png)


def _pair_view(number: int, pair: Pair, summary: Summary, names: Names, *, with_images: bool) -> PairView:
    views = _views(pair) if with_images else None
    return PairView(
        rank=number,
        label=pair.label,
        score=text.score(pair.score),
        real=names.of("real", pair.real_id),
        synthetic=names.of("synthetic", pair.synthetic_id),
        patient=None if pair.real_group is None else names.of("patient", pair.real_group),
        size=pair.size if views else None,
        views=views,
        evidence=_evidence(number, pair, summary, names, has_pictures=views is not None),
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
    shown = tuple(_pair_view(i + 1, pair, summary, names, with_images=with_images) for i, pair in enumerate(pairs))
    title, notes = _head(summary, shown)
    if not with_images:
        notes.append("This version of the report holds no pictures.")
    elif shown and not any(pair.views for pair in shown):
        notes.append("The audit folder holds no pictures of pairs.")
    if any(pair.views and pair.views.is_resized and not pair.views.aligned for pair in shown):
        notes.append("Where the two pictures differ in size, the synthetic one was resized for the difference.")
    if any(pair.views and pair.views.is_resized and pair.views.aligned for pair in shown):
        notes.append(
            "Where the sizes differ, the two were compared at the smaller one and are shown at the synthetic's."
        )
    table = None if any(pair.views for pair in shown) else _pairs_table(title, shown, is_verified=summary.is_verified)
    views = [pair.views for pair in shown if pair.views]
    return PairsView(
        title,
        tuple(notes),
        shown,
        table,
        has_aligned=any(one.aligned for one in views),
        has_unaligned=any(one.aligned is None for one in views),
    )


def _head(summary: Summary, shown: tuple[PairView, ...]) -> tuple[str, list[str]]:
    """Return the title of the section, and how many pairs there are and which of them are shown."""
    total = summary.pairs
    n_over = total.near + total.exact
    value = "S1" if summary.is_verified else "scores"
    notes = []
    if n_over:
        title = "The worst pairs"
        kinds = f"{text.count(total.exact)} exact, {text.count(total.near)} near"
        what = f"{text.plural(n_over, 'pair')} over the threshold ({kinds})."
        n_shown = sum(pair.label != "unrelated" for pair in shown)
        notes.append(what if n_shown >= n_over else f"{what} {n_shown} of those with the highest {value} are shown.")
        if n_shown < len(shown):
            notes.append(f"{text.plural(len(shown) - n_shown, 'more pair')} under the threshold, for comparison.")
    else:
        title = "Nearest pairs (none is over the threshold)"
        notes.append(f"The highest {value} of the audit, so that the eye can check what the figures say.")
    if summary.is_verified:
        notes.append(
            f"A pair is near where S1 {comparison_text(summary.thresholds.near)}, and exact where it is near and S2 "
            f"{comparison_text(summary.thresholds.exact)}. Both are measured after the real image was laid onto the "
            "synthetic one."
        )
    if total.is_truncated:
        notes.append(
            f"The tables list {text.count(total.listed)} of these pairs, the nearest ones of each synthetic image; "
            "the counts cover all."
        )
    return title, notes


def _pairs_table(title: str, pairs: tuple[PairView, ...], *, is_verified: bool) -> TableView | None:
    if not pairs:
        return None
    who = (Column("Real image", "name"), Column("Patient", "name"), Column("Synthetic image", "name"))
    values: tuple[Column, ...] = (Column("Score", "number"),)
    has_transform = is_verified and any(one.evidence and one.evidence.transform for one in pairs)
    if is_verified:
        values = (Column("S1", "number"), Column("S2", "number"), Column("Screening score", "number"))
    done = (Column("Transform"),) if has_transform else ()
    rows = tuple(
        (
            Cell(one.label, "label"),
            *(Cell(value, "number") for value in _values(one, is_verified=is_verified)),
            *((Cell(one.evidence.transform or text.DASH if one.evidence else text.DASH),) if has_transform else ()),
            Cell(one.real, "name"),
            Cell(text.DASH if one.patient is None else one.patient, "name"),
            Cell(one.synthetic, "name"),
        )
        for one in pairs
    )
    return TableView(title, (Column("Label", "label"), *values, *done, *who), rows)


def _values(pair: PairView, *, is_verified: bool) -> tuple[str, ...]:
    if not is_verified:
        return (pair.score,)
    s1, s2 = (pair.evidence.s1, pair.evidence.s2) if pair.evidence else (text.DASH, text.DASH)
    return s1, s2, pair.score
