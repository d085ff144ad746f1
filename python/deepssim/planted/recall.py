"""What an audit found of planted copies: recall on one's own data, at one's own thresholds."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from deepssim.disk import read_json
from deepssim.errors import StoreError, UsageError
from deepssim.images.text import some
from deepssim.planted.truth import Planted, read_truth
from deepssim.run_record import FORMAT, NAME, VERSION, is_run
from deepssim.statistics import LEVEL, Rate, patient_rate
from deepssim.store import Store

__all__ = ["Found", "KindRecall", "PlantedFindings", "Recall", "find_planted", "measure_recall"]

_SHOWN = 5
# As deepssim.planted.copies names the copies of one planting.
_PLANTED_NAME = re.compile(r"planted/[0-9a-f]{6}-(?=\d+\.png$)")
_COLUMNS = ("synthetic_id", "rank", "real_id", "real_group", "score", "label", "s1", "s2")


@dataclass(frozen=True, slots=True)
class Found:
    """What an audit says of one planted copy.

    Attributes:
        planted: The truth.
        label: Of its best pair; ``"unrelated"`` where it could not be used.
        real_id: The best real image; None: the copy could not be used.
        real_group: Its person.
        value: What decides: the score, or S1; NaN without a pair.
        detail: S2 of the best pair; the score where pairs were not verified.
        source_rank: Place of the source among the candidates, from 1; None: it is not among them.
        source_value: What the pair with the source has; None likewise.
    """

    planted: Planted
    label: str
    real_id: str | None
    real_group: str | None
    value: float
    detail: float
    source_rank: int | None
    source_value: float | None


@dataclass(frozen=True, slots=True)
class PlantedFindings:
    """What an audit says of all planted copies.

    Attributes:
        summary: The audit's ``summary.json``.
        found: In the order of the truth.
        n_others: Synthetic images that were not planted.
        n_others_flagged: How many of them were flagged.
    """

    summary: dict[str, Any]
    found: tuple[Found, ...]
    n_others: int
    n_others_flagged: int

    @property
    def is_verified(self) -> bool:
        """Whether S1 and S2 decided."""
        return bool(self.summary.get("decided_by") == "s1")


@dataclass(frozen=True, slots=True)
class KindRecall:
    """Recall of one kind of copy; intervals resample persons.

    Attributes:
        kind: How the copies were made; ``"all"``: of all kinds.
        label: ``"near"`` or ``"exact"``; ``"all"``: of both.
        people: Persons whose images were copied.
        flagged: Share that was called near or exact.
        right_label: Share that was called what it is.
        right_source: Share whose best pair is with its source, whatever its label.
        right_person: Share whose best pair is with its source's person; None: persons are not known.
        screened: Share whose source was among the candidates.
    """

    kind: str
    label: str
    people: int
    flagged: Rate
    right_label: Rate
    right_source: Rate
    right_person: Rate | None
    screened: Rate

    @property
    def total(self) -> int:
        """Copies of the kind."""
        return self.flagged.total


@dataclass(frozen=True, slots=True)
class Recall:
    """Recall of planted copies.

    Attributes:
        kinds: By kind and label, in the order of the truth; of all near, of all exact, of all.
        missed: Copies that were not flagged.
        thresholds: Those of the audit, as in its ``summary.json``.
        n_others: Synthetic images that were not planted.
        n_others_flagged: How many of them were flagged.
        n_unusable: Copies that the audit left out: they count as missed.
    """

    kinds: tuple[KindRecall, ...]
    missed: tuple[Found, ...]
    thresholds: dict[str, Any]
    n_others: int
    n_others_flagged: int
    n_unusable: int

    def as_dict(self) -> dict[str, Any]:
        """Return as JSON has it."""
        rates = ("flagged", "right_label", "right_source", "right_person", "screened")
        kinds = [
            {
                "kind": one.kind,
                "label": one.label,
                "copies": one.total,
                "people": one.people,
                **{name: _rate(getattr(one, name)) for name in rates},
            }
            for one in self.kinds
        ]
        missed = [
            {
                **asdict(one.planted),
                "real_id": one.real_id,
                "value": None if np.isnan(one.value) else one.value,
                "source_rank": one.source_rank,
                "source_value": one.source_value,
            }
            for one in self.missed
        ]
        return {
            "kinds": kinds,
            "missed": missed,
            "thresholds": self.thresholds,
            "others": {"images": self.n_others, "flagged": self.n_others_flagged},
            "unusable": self.n_unusable,
        }


def _rate(rate: Rate | None) -> dict[str, Any] | None:
    if rate is None:
        return None
    return {"count": rate.events, "rate": rate.rate, "interval": [rate.low, rate.high], "unit": rate.unit,
            "level": LEVEL}  # fmt: skip


def find_planted(result: Path, truth: Path) -> PlantedFindings:
    """Look planted copies up in the folder of a finished audit.

    Args:
        result: Folder of ``deepssim audit`` or ``score``.
        truth: CSV of ``deepssim plant``.

    Raises:
        UsageError: One of them is not what it should be, or copies were not among the audited images.
    """
    if not is_run(result):
        raise UsageError(f"{result} is no folder of a finished audit: audit the images that copies were planted into")
    planted = read_truth(truth)
    try:
        summary = read_json(result / "summary.json", file_format="deepssim-summary", version=1)
        matches = pq.read_table(result / "matches.parquet", columns=list(_COLUMNS))
        skipped = pq.read_table(result / "skipped.parquet")
    except (OSError, pa.ArrowException) as error:
        raise StoreError(f"{result} is damaged: {error}; run the audit again") from error
    wanted = pa.array([one.id for one in planted])
    is_planted = pc.is_in(matches["synthetic_id"], value_set=wanted)
    rows: dict[str, list[dict[str, Any]]] = {}
    for row in matches.filter(is_planted).to_pylist():
        rows.setdefault(row["synthetic_id"], []).append(row)
    unusable = set(skipped.filter(pc.equal(skipped["set"], "synthetic"))["id"].to_pylist())
    missing = [one.id for one in planted if one.id not in rows and one.id not in unusable]
    if missing:
        raise UsageError(
            f"{len(missing):,} of {len(planted):,} planted copies are not among the images of {result} "
            f"({some(missing, _SHOWN)}): audit the folder images/ that deepssim plant wrote, as a whole"
        )
    _check_sources(result, truth, planted)
    others = matches.filter(pc.and_(pc.invert(is_planted), pc.equal(matches["rank"], 1)))
    _check_whole(truth, planted, others["synthetic_id"].to_pylist())
    n_flagged = int(pc.sum(pc.not_equal(others["label"], "unrelated")).as_py() or 0)
    by_s1 = summary.get("decided_by") == "s1"
    found = tuple(_found(one, rows.get(one.id, []), by_s1=by_s1) for one in planted)
    return PlantedFindings(summary, found, others.num_rows, n_flagged)


def _check_whole(truth: Path, planted: Sequence[Planted], others: list[str]) -> None:
    """Refuse a truth that lacks copies of its planting: they would count as images of the generator."""
    beginnings = {match[0] for one in planted if (match := _PLANTED_NAME.match(one.id))}
    left_out = [name for name in others if (match := _PLANTED_NAME.match(name)) and match[0] in beginnings]
    if left_out:
        raise UsageError(
            f"{truth} lacks {len(left_out):,} copies of its own planting ({some(left_out, _SHOWN)}): take truth.csv as "
            "deepssim plant wrote it"
        )


def _check_sources(result: Path, truth: Path, planted: Sequence[Planted]) -> None:
    """Refuse sources that the audited real set does not have: none of their copies could be found."""
    run = read_json(result / NAME, file_format=FORMAT, version=VERSION)
    try:
        places = [result / "real.store", Path(run["inputs"]["real"]["source"])]
    except (KeyError, TypeError):
        return
    store = next((place for place in places if Store.is_store(place)), None)
    if store is None:  # a set that has moved since
        return
    opened = Store(store)
    known = {*opened.records(["id"])["id"].to_pylist(), *opened.skipped()["id"].to_pylist()}
    unknown = list(dict.fromkeys(one.source_id for one in planted if one.source_id not in known))
    if unknown:
        raise UsageError(
            f"{len(unknown):,} images that {truth} names as sources are no real images of {result} "
            f"({some(unknown, _SHOWN)}): audit against the same real images that copies were planted from, read the "
            "same way (--slices, --axis), and leave truth.csv as it was written"
        )


def _found(planted: Planted, rows: list[dict[str, Any]], *, by_s1: bool) -> Found:
    if not rows:
        return Found(planted, "unrelated", None, None, float("nan"), float("nan"), None, None)
    value, detail = ("s1", "s2") if by_s1 else ("score", "score")
    best = min(rows, key=lambda row: row["rank"])
    source = next((row for row in rows if row["real_id"] == planted.source_id), None)
    return Found(
        planted,
        best["label"],
        best["real_id"],
        best["real_group"],
        float(best[value]),
        float(best[detail]),
        None if source is None else int(source["rank"]),
        None if source is None else float(source[value]),
    )


def measure_recall(findings: PlantedFindings, *, seed: int = 0) -> Recall:
    """Count what was found of each kind of planted copy.

    Args:
        findings: From `find_planted`.
        seed: Of the resampling.

    Example:
        >>> planted = Planted("planted/0.png", "local", "near", "p1/a.png", "p1", 7)
        >>> one = Found(planted, "exact", "p1/a.png", "p1", 0.9, 0.95, 1, 0.9)
        >>> recall = measure_recall(PlantedFindings({"thresholds": {}}, (one,), 10, 0))
        >>> recall.kinds[-1].flagged.rate, recall.kinds[-1].right_label.rate
        (1.0, 0.0)
    """
    found = findings.found
    kinds = dict.fromkeys((one.planted.kind, one.planted.label) for one in found)
    labels = dict.fromkeys(one.planted.label for one in found)
    wanted = [*kinds, *([("all", label) for label in labels] if len(kinds) > 1 else []), ("all", "all")]
    rows = []
    for kind, label in dict.fromkeys(wanted):
        chosen = [one for one in found if kind in ("all", one.planted.kind) and label in ("all", one.planted.label)]
        rows.append(_recall_of(kind, label, chosen, seed))
    return Recall(
        tuple(rows),
        tuple(one for one in found if one.label == "unrelated"),
        findings.summary["thresholds"],
        findings.n_others,
        findings.n_others_flagged,
        sum(one.real_id is None for one in found),
    )


def _recall_of(kind: str, label: str, found: Sequence[Found], seed: int) -> KindRecall:
    people, owner = np.unique([one.planted.person for one in found], return_inverse=True)
    totals = np.bincount(owner, minlength=len(people)).astype(np.int64)

    def share(event: list[bool]) -> Rate:
        events: NDArray[np.int64] = np.bincount(owner[np.array(event, bool)], minlength=len(people)).astype(np.int64)
        rate = patient_rate(events, totals, seed=seed)
        return rate if with_person else replace(rate, unit="image")

    with_person = all(one.planted.group is not None for one in found)
    return KindRecall(
        kind,
        label,
        len(people),
        share([one.label != "unrelated" for one in found]),
        share([one.label == one.planted.label for one in found]),
        share([one.real_id == one.planted.source_id for one in found]),
        share([one.real_group == one.planted.group for one in found]) if with_person else None,
        share([one.source_rank is not None for one in found]),
    )
