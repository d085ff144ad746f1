"""From matched parts to tables and counts, in one pass and constant memory."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from deepssim.calibration import LABELS
from deepssim.matching import Control, Reference
from deepssim.parts import EVIDENCE_FIELDS, Floats, Ints, Levels, Part, RealTally
from deepssim.tables import LEAKS, MATCHES, PATIENTS, REAL_IMAGES, TableStream, TableWriter, write_table

HISTOGRAM_EDGES = np.linspace(-1.0, 1.0, 401)
N_PAIRS = 24
MAX_PAIRS_PER_REAL = 2


@dataclass(slots=True)
class Flags:
    """Images flagged, by the group of the nearest real image (index -1, the last: no group)."""

    flagged: Ints
    exact: Ints
    totals: Ints

    @classmethod
    def empty(cls, n_groups: int) -> Flags:
        """Return counts of nothing."""
        return cls(*(np.zeros(n_groups + 1, np.int64) for _ in range(3)))

    def add(self, codes: Ints, levels: Levels) -> None:
        """Count images by the group code and the level of their nearest real image."""
        np.add.at(self.totals, codes, 1)
        np.add.at(self.flagged, codes[levels >= 1], 1)
        np.add.at(self.exact, codes[levels >= 2], 1)


@dataclass(slots=True)
class ControlCounts:
    """The size-matched comparison: flags of both sets, and the discordant images."""

    real: Flags
    holdout: Flags
    histogram_real: Ints = field(default_factory=lambda: np.zeros(len(HISTOGRAM_EDGES) - 1, np.int64))
    histogram_holdout: Ints = field(default_factory=lambda: np.zeros(len(HISTOGRAM_EDGES) - 1, np.int64))
    only_real: int = 0
    only_holdout: int = 0
    both: int = 0


@dataclass(frozen=True, slots=True)
class Pair:
    """A synthetic image and its nearest real one.

    Attributes:
        value: What decides; see `deepssim.parts`.
        score: Screening score.
        screening_rank: Its place by screening score, from 1.
        level: 0 unrelated, 1 near, 2 exact.
        evidence: By `EVIDENCE_FIELDS`; empty if the pair was not verified.
        synthetic_row: Number of the synthetic image.
        real_row: Position of the real image.
        synthetic_id: Id of the synthetic image.
        synthetic_path: Its path.
    """

    value: float
    score: float
    screening_rank: int
    level: int
    evidence: tuple[float, ...]
    synthetic_row: int
    real_row: int
    synthetic_id: str
    synthetic_path: str


@dataclass(slots=True)
class Outcome:
    """Everything counted.

    Attributes:
        n_synthetic: Synthetic images matched.
        flags: Of all synthetic images against all real ones.
        histogram: ``(400,)`` best value of each image by `HISTOGRAM_EDGES`; values outside fall into the end bins.
        tally: By real image.
        control: Or None.
        pairs: The nearest pairs of all, at most two for a real image.
        n_identical: Synthetic images whose pixels equal those of a real image.
        n_leaks: Pairs written to ``leaks.parquet``.
        n_other_shape: Synthetic images with a ratio of height to width of no real one, turned by a quarter or not.
        n_too_small: Synthetic images of which no candidate could be verified, since one of the two is too small.
    """

    n_synthetic: int
    flags: Flags
    histogram: Ints
    tally: RealTally
    control: ControlCounts | None
    pairs: list[Pair]
    n_identical: int = 0
    n_leaks: int = 0
    n_too_small: int = 0
    n_other_shape: int = 0


def histogram(values: Floats) -> Ints:
    """Count values by `HISTOGRAM_EDGES`."""
    clipped = np.clip(values, HISTOGRAM_EDGES[0], HISTOGRAM_EDGES[-1])
    return np.histogram(clipped, HISTOGRAM_EDGES)[0].astype(np.int64)


def labels(levels: Levels) -> pa.Array:
    """Return the label of each level."""
    return pa.array(LABELS).take(pa.array(levels.astype(np.int32)))


def evidence_columns(evidence: Floats, names: tuple[str, ...]) -> list[pa.Array]:
    """Return the named columns of evidence ``(n, n_fields)``; of pairs that were not verified, nulls."""
    if evidence.shape[1] == 0:
        return [pa.nulls(len(evidence), MATCHES.field(name).type) for name in names]
    columns = [np.ascontiguousarray(evidence[:, EVIDENCE_FIELDS.index(name)]) for name in names]
    return [pa.array(column).cast(MATCHES.field(name).type) for name, column in zip(names, columns, strict=True)]


class Collector:
    """Goes over parts in order, with the records of their synthetic images, and writes the tables.

    Args:
        folder: Where ``matches.parquet`` and ``leaks.parquet`` go.
        real: All real images.
        control: The two sets of the control, or None.
        tally: Already summed over all parts: it says which synthetic ids are wanted.
    """

    def __init__(
        self,
        folder: Path,
        real: Reference,
        control: Control | None,
        tally: RealTally,
    ) -> None:
        self.folder, self.real, self.control = folder, real, control
        bins = np.zeros(len(HISTOGRAM_EDGES) - 1, np.int64)
        counts = None
        if control is not None:
            counts = ControlCounts(Flags.empty(control.real.n_groups), Flags.empty(control.holdout.n_groups))
        self.outcome = Outcome(0, Flags.empty(real.n_groups), bins, tally, counts, [])
        self.wanted = np.unique(tally.best_queries[tally.best_queries >= 0])
        self.wanted_ids: dict[int, str] = {}
        hashes = pc.unique(real.table["pixel_hash"].combine_chunks())
        self._aspects = real.aspects
        self.real_hashes = hashes.filter(pc.not_equal(hashes, ""))

    def run(self, parts: Iterable[Part], records: TableStream) -> Outcome:
        """Write both tables and return the counts."""
        with (
            TableWriter(self.folder / "matches.parquet", MATCHES) as matches,
            TableWriter(self.folder / "leaks.parquet", LEAKS) as leaks,
        ):
            for part in parts:
                if len(part) == 0:
                    continue
                table = records.take(len(part))
                matches.add(self._match_table(part, table))
                leaks.add(self._leak_table(part, table))
                self._count(part, table)
            self.outcome.n_leaks = leaks.rows
        return self.outcome

    def _match_table(self, part: Part, table: pa.Table) -> pa.Table:
        queries, places = np.nonzero(part.rows >= 0)
        scores, at = part.scores[queries, places], pa.array(part.rows[queries, places])
        chosen, real = pa.array(queries), self.real.table
        return pa.table(
            [
                table["id"].take(chosen),
                table["path"].take(chosen),
                table["group"].take(chosen),
                pa.array((places + 1).astype(np.int32)),
                real["id"].take(at),
                real["path"].take(at),
                real["group"].take(at),
                pa.array(scores),
                labels(part.levels[queries, places]),
                pa.array(part.screening_ranks[queries, places].astype(np.int32)),
                *evidence_columns(part.evidence[queries, places], EVIDENCE_FIELDS),
            ],
            schema=MATCHES,
        )

    def _leak_table(self, part: Part, table: pa.Table) -> pa.Table:
        at, chosen = pa.array(part.listed_rows), pa.array(part.listed_queries)
        real = self.real.table
        return pa.table(
            [
                real["id"].take(at),
                real["path"].take(at),
                real["group"].take(at),
                table["id"].take(chosen),
                table["path"].take(chosen),
                pa.array(part.listed_scores),
                labels(part.listed_levels),
                *evidence_columns(part.listed_evidence, ("s1", "s2")),
            ],
            schema=LEAKS,
        )

    def _count(self, part: Part, table: pa.Table) -> None:
        outcome = self.outcome
        outcome.n_synthetic += len(part)
        outcome.flags.add(self.real.codes[part.rows[:, 0]], part.levels[:, 0])
        outcome.histogram += histogram(part.values[:, 0])
        if part.is_verified:
            outcome.n_too_small += int(np.count_nonzero(part.evidence[:, 0, EVIDENCE_FIELDS.index("overlap")] == 0))
        outcome.n_other_shape += self._aspects.count_other(table)
        identical = pc.is_in(table["pixel_hash"], value_set=self.real_hashes)
        outcome.n_identical += int(pc.sum(identical).as_py() or 0)
        first, last = np.searchsorted(self.wanted, [part.first_row, part.first_row + len(part)])
        for row in self.wanted[first:last]:
            self.wanted_ids[int(row)] = table["id"][int(row) - part.first_row].as_py()
        outcome.pairs = best_pairs(outcome.pairs, part, table)
        if outcome.control is not None and self.control is not None:
            _count_control(outcome.control, self.control, part)

    def write_real_images(self) -> None:
        """Write ``real_images.parquet``: every real image met over the near threshold."""
        tally, real = self.outcome.tally, self.real.table
        met = np.nonzero(tally.counts[:, 0])[0]
        order = met[np.lexsort((met, -tally.best_values[met], -tally.counts[met, 0], -tally.counts[met, 1]))]
        at = pa.array(order)
        table = pa.table(
            [
                real["id"].take(at),
                real["path"].take(at),
                real["group"].take(at),
                pa.array(tally.counts[order, 1]),
                pa.array(tally.counts[order, 0] - tally.counts[order, 1]),
                pa.array(tally.best_values[order]),
                pa.array([self.wanted_ids[int(row)] for row in tally.best_queries[order]], pa.string()),
            ],
            schema=REAL_IMAGES,
        )
        write_table(self.folder / "real_images.parquet", table)

    def write_patients(self) -> int:
        """Write ``patients.parquet``: every patient with such an image; returns how many there are."""
        tally, real = self.outcome.tally, self.real
        n_images = np.bincount(real.codes, minlength=real.n_groups)
        copied = np.bincount(real.codes, tally.counts[:, 0] > 0, minlength=real.n_groups).astype(np.int64)
        near = np.bincount(real.codes, tally.counts[:, 0] - tally.counts[:, 1], minlength=real.n_groups)
        exact = np.bincount(real.codes, tally.counts[:, 1], minlength=real.n_groups)
        order = np.lexsort((np.arange(len(real)), -tally.best_values, real.codes))
        codes, firsts = np.unique(real.codes[order], return_index=True)
        best = dict(zip(codes.tolist(), order[firsts].tolist(), strict=True))
        rows = []
        for code in np.nonzero(copied)[0].tolist():
            row = best[code]
            rows.append(
                {
                    "group": real.names[code],
                    "n_images": int(n_images[code]),
                    "n_images_copied": int(copied[code]),
                    "n_exact": int(exact[code]),
                    "n_near": int(near[code]),
                    "best_value": float(tally.best_values[row]),
                    "best_real_id": real.table["id"][row].as_py(),
                    "best_synthetic_id": self.wanted_ids[int(tally.best_queries[row])],
                }
            )
        rows.sort(key=lambda r: (-r["n_exact"], -r["n_near"], -r["best_value"], r["group"]))
        write_table(self.folder / "patients.parquet", pa.Table.from_pylist(rows, schema=PATIENTS))
        return len(rows)


def _count_control(counts: ControlCounts, control: Control, part: Part) -> None:
    rows, levels, values = part.control_rows, part.control_levels, part.control_values
    counts.real.add(control.real.codes[rows[:, 0]], levels[:, 0])
    counts.holdout.add(control.holdout.codes[rows[:, 1]], levels[:, 1])
    counts.histogram_real += histogram(values[:, 0])
    counts.histogram_holdout += histogram(values[:, 1])
    by_real, by_holdout = levels[:, 0] >= 1, levels[:, 1] >= 1
    counts.only_real += int((by_real & ~by_holdout).sum())
    counts.only_holdout += int((by_holdout & ~by_real).sum())
    counts.both += int((by_real & by_holdout).sum())


def best_pairs(
    held: list[Pair], part: Part, table: pa.Table, *, is_wanted: NDArray[np.bool_] | None = None
) -> list[Pair]:
    """Merge the nearest pairs of a part into those held: how parts were cut changes nothing.

    Args:
        held: Of the parts before.
        part: The answer for a run of synthetic images.
        table: Their records.
        is_wanted: ``(n,)`` whether an image of the part counts; None: all do.

    Returns:
        At most `N_PAIRS`, best first, at most two of a real image.
    """
    values = part.values[:, 0]
    order = np.lexsort((np.arange(len(part)), -values))
    if is_wanted is not None:
        order = order[is_wanted[order]]
    found = [
        Pair(
            float(values[i]),
            float(part.scores[i, 0]),
            int(part.screening_ranks[i, 0]),
            int(part.levels[i, 0]),
            tuple(part.evidence[i, 0].tolist()),
            part.first_row + i,
            int(part.rows[i, 0]),
            table["id"][i].as_py(),
            table["path"][i].as_py(),
        )
        for i in order[_choose(part.rows[order, 0].tolist())].tolist()
    ]
    both = sorted(held + found, key=lambda p: (-p.value, p.synthetic_row))
    return [both[place] for place in _choose(pair.real_row for pair in both)]


def _choose(real_rows: Iterable[int]) -> list[int]:
    """Return the places of the pairs to keep, of pairs in order: few, and few of one real image (-1: of none)."""
    chosen: list[int] = []
    taken: dict[int, int] = {}
    for place, row in enumerate(real_rows):
        if len(chosen) == N_PAIRS:
            break
        taken[row] = taken.get(row, 0) + 1
        if row >= 0 and taken[row] <= MAX_PAIRS_PER_REAL:
            chosen.append(place)
    return chosen
