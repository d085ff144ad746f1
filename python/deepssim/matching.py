"""Chunks of synthetic embeddings against sets of real ones.

A `Reference` is a set of real images, ready to be searched. `match_rows` answers one chunk of synthetic
rows; the answer is a `Part`, which is what a run keeps on disk to go on after a kill.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from deepssim.disk import replacing
from deepssim.errors import MemoryLimitError, StoreError
from deepssim.search import Plan, RowTally, Searcher, plan_search
from deepssim.store import Store

DEFAULT_CHUNK_ROWS = 8192
READ_BYTES = 4 * 2**20

Ints = NDArray[np.int64]
Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class MatchOptions:
    """How synthetic images are matched.

    Attributes:
        k: Nearest real images reported for each synthetic image.
        max_per_group: At most so many of one patient among the k; 0: no cap.
        max_listed: Pairs over the near threshold listed for each synthetic image (all are counted).
        threads: 0: all that this process may use.
        memory_limit: Bytes for the search, its inputs and results; 0: no limit.
        seed: Of the draw of the control and of resampling.
    """

    k: int = 5
    max_per_group: int = 0
    max_listed: int = 64
    threads: int = 0
    memory_limit: int = 0
    seed: int = 0


class Reference:
    """A set of real images: all rows of a store or some of them, with ids and groups.

    Attributes:
        store: Where they are.
        rows: ``(n,)`` the store's rows that belong to the set, ascending.
        codes: ``(n,)`` group of each as a number, -1: none known.
        names: Group names by code.
        searcher: None until `load`.
    """

    def __init__(self, store: Store, rows: Ints | None = None) -> None:
        self.store = store
        table = store.records(["id", "path", "group", "pixel_hash"])
        self.rows: Ints = np.arange(len(store), dtype=np.int64) if rows is None else rows
        self.table = table if rows is None else table.take(pa.array(rows))
        self.table = self.table.combine_chunks()
        encoded = pc.dictionary_encode(self.table["group"].combine_chunks())
        self.names: list[str] = encoded.dictionary.to_pylist()
        self.codes: Ints = np.asarray(pc.fill_null(encoded.indices.cast(pa.int64()), -1), np.int64)
        self.searcher: Searcher | None = None

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def has_groups(self) -> bool:
        """Whether every image has a group: only then do figures by patient mean what they say."""
        return len(self) > 0 and bool((self.codes >= 0).all())

    @property
    def n_groups(self) -> int:
        """Number of groups."""
        return len(self.names)

    def subset(self, positions: Ints) -> Reference:
        """Return the set of the rows at `positions`, ascending."""
        return Reference(self.store, self.rows[positions])

    def load(self) -> Searcher:
        """Read the embeddings into a searcher, a few megabytes at a time."""
        dim = self.store.dim
        searcher = Searcher(dim, len(self), with_groups=True)
        step = max(1, READ_BYTES // (4 * dim))
        done = 0
        for first, part in self.store.chunks(step):
            inside = self.rows[(self.rows >= first) & (self.rows < first + len(part))] - first
            chosen = part if len(inside) == len(part) else part[inside]
            if len(chosen):
                searcher.add(chosen, self.codes[done : done + len(chosen)])
                done += len(chosen)
        self.searcher = searcher
        return searcher


@dataclass(slots=True)
class Part:
    """The answer for a run of synthetic rows.

    Attributes:
        first_row: Number of the first synthetic row.
        scores: ``(n, k)`` nearest scores, best first, padded with -inf.
        rows: ``(n, k)`` their positions in the real set, padded with -1.
        counts: ``(n, 2)`` pairs at or over the near and the exact threshold.
        listed_queries: ``(m,)`` index within the part of each listed pair.
        listed_rows: ``(m,)`` its real position.
        listed_scores: ``(m,)`` its score.
        tally_rows: ``(t,)`` real positions met over the near threshold.
        tally_counts: ``(t, 2)`` how often, near and exact.
        tally_scores: ``(t,)`` best score of each.
        tally_queries: ``(t,)`` number of the synthetic row that scored it.
        control_scores: ``(n, 2)`` nearest score in the size-matched real set and in the holdout; ``(0, 2)``
            without a holdout.
        control_rows: The same shape: positions in the two sets.
    """

    first_row: int
    scores: Floats
    rows: Ints
    counts: Ints
    listed_queries: Ints
    listed_rows: Ints
    listed_scores: Floats
    tally_rows: Ints
    tally_counts: Ints
    tally_scores: Floats
    tally_queries: Ints
    control_scores: Floats
    control_rows: Ints

    def __len__(self) -> int:
        return len(self.scores)

    def write(self, path: Path) -> None:
        """Write as ``.npz``, atomically."""
        with replacing(path) as temporary, temporary.open("wb") as file:
            arrays: dict[str, Any] = {f.name: np.asarray(getattr(self, f.name)) for f in fields(self)}
            np.savez(file, **arrays)

    @classmethod
    def read(cls, path: Path) -> Part:
        """Read what `write` wrote."""
        try:
            with np.load(path, allow_pickle=False) as data:
                values: dict[str, Any] = {f.name: data[f.name] for f in fields(cls)}
        except (OSError, ValueError, KeyError) as error:
            raise StoreError(f"{path} is damaged: {error}; delete it and start again") from error
        values["first_row"] = int(values["first_row"])
        return cls(**values)


@dataclass(frozen=True, slots=True)
class Control:
    """Two sets of equal size whose nearest scores are compared.

    Attributes:
        real: Real images: all or a draw.
        holdout: Images that the generator never saw: all or a draw.
        seed: Of the draw.
        warnings: What makes the comparison doubtful.
    """

    real: Reference
    holdout: Reference
    seed: int = 0
    warnings: tuple[str, ...] = ()

    @property
    def sets(self) -> tuple[Reference, Reference]:
        """Both sets, the real one first, as in the columns of a part's control."""
        return self.real, self.holdout


class Matcher:
    """Matches chunks of synthetic rows, within one memory plan.

    Args:
        real: All real images.
        control: The size-matched sets, or None.
        cuts: Float32 scores from which on a pair is near and exact.
        options: How to match.

    Raises:
        MemoryLimitError: The limit is too small; the message names one that is enough.
    """

    def __init__(
        self, real: Reference, control: Control | None, cuts: tuple[float, float], options: MatchOptions
    ) -> None:
        self.real, self.control, self.cuts, self.options = real, control, cuts, options
        self.plan = self._make_plan()
        real.load()
        for reference in control.sets if control else ():
            # The whole of a set need not be held twice.
            reference.searcher = real.searcher if reference is real else reference.load()

    def _make_plan(self) -> Plan:
        options, dim = self.options, self.real.store.dim
        others = [r for r in (self.control.sets if self.control else ()) if r is not self.real]
        plans = [
            plan_search(len(r), dim, k=1, with_groups=True, threads=options.threads, max_chunk_rows=1) for r in others
        ]
        other_bytes = sum(plan.base_bytes + plan.prepared_bytes for plan in plans)
        # Beside the search's own: the buffer that stores are read through, twice, and a part's copies.
        other_bytes += 2 * READ_BYTES
        limit = 0
        if options.memory_limit:
            limit = options.memory_limit - other_bytes
            if limit <= 0:
                raise MemoryLimitError(
                    f"a memory limit of {options.memory_limit:,} bytes is too small: "
                    f"the control and the read buffers alone take {other_bytes:,}"
                )
        plan = plan_search(
            len(self.real),
            dim,
            k=options.k,
            max_listed=options.max_listed,
            levels=2,
            with_groups=True,
            with_cap=options.max_per_group > 0,
            with_tally=True,
            threads=options.threads,
            memory_limit=limit,
            max_chunk_rows=DEFAULT_CHUNK_ROWS,
        )
        self.chunk_rows = plan.chunk_rows
        if limit:
            # Beside its results a part keeps a sparse copy of them: three numbers for each listed pair.
            part_bytes = 24 * options.max_listed + 12 * options.k + 64
            room = limit - (plan.total_bytes - plan.chunk_rows * plan.row_bytes)
            self.chunk_rows = max(1, min(plan.chunk_rows, room // (plan.row_bytes + part_bytes)))
        return plan

    def match_rows(self, embeddings: Floats, first_row: int) -> Part:
        """Match rows ``(n, dim)``, of which the first is synthetic row `first_row`."""
        step = self.chunk_rows
        pieces = [self._match(embeddings[i : i + step], first_row + i) for i in range(0, len(embeddings), step)]
        if not pieces:
            return self._empty(first_row)
        return _join(pieces) if len(pieces) != 1 else pieces[0]

    def _empty(self, first_row: int) -> Part:
        def floats(*shape: int) -> Floats:
            return np.zeros(shape, np.float32)

        def ints(*shape: int) -> Ints:
            return np.zeros(shape, np.int64)

        k = max(1, self.options.k)
        return Part(
            first_row,
            floats(0, k),
            ints(0, k),
            ints(0, 2),
            ints(0),
            ints(0),
            floats(0),
            ints(0),
            ints(0, 2),
            floats(0),
            ints(0),
            floats(0, 2),
            ints(0, 2),
        )

    def _match(self, queries: Floats, first_row: int) -> Part:
        options, searcher = self.options, self.real.searcher
        if searcher is None:
            raise StoreError("the real set was not loaded")
        tally = RowTally(len(searcher), 2)
        found = searcher.search(
            queries,
            max(1, options.k),
            max_per_group=options.max_per_group,
            thresholds=self.cuts,
            max_listed=options.max_listed,
            first_query=first_row,
            tally=tally,
            threads=self.plan.threads,
        )
        listed_queries, places = np.nonzero(found.listed_ids >= 0)
        met = np.nonzero(tally.best_queries >= 0)[0]
        control_scores, control_rows = self._match_control(queries)
        return Part(
            first_row,
            found.scores,
            found.ids,
            found.counts,
            listed_queries,
            found.listed_ids[listed_queries, places],
            found.listed_scores[listed_queries, places],
            met,
            tally.counts[met],
            tally.best_scores[met],
            tally.best_queries[met],
            control_scores,
            control_rows,
        )

    def _match_control(self, queries: Floats) -> tuple[Floats, Ints]:
        if self.control is None:
            return np.zeros((0, 2), np.float32), np.zeros((0, 2), np.int64)
        scores, rows = [], []
        for reference in self.control.sets:
            if reference.searcher is None:
                raise StoreError("the control was not loaded")
            found = reference.searcher.search(queries, 1, threads=self.plan.threads)
            scores.append(found.scores[:, 0])
            rows.append(found.ids[:, 0])
        return np.stack(scores, axis=1), np.stack(rows, axis=1)


def _join(pieces: list[Part]) -> Part:
    joined: dict[str, Any] = {}
    for f in fields(Part):
        if f.name == "first_row":
            joined[f.name] = pieces[0].first_row
            continue
        arrays = [getattr(piece, f.name) for piece in pieces]
        if f.name == "listed_queries":
            arrays = [a + piece.first_row - pieces[0].first_row for a, piece in zip(arrays, pieces, strict=True)]
        joined[f.name] = np.concatenate(arrays)
    return Part(**joined)


@dataclass(slots=True)
class RealTally:
    """What happened to each real image, over all parts.

    Attributes:
        counts: ``(n_real, 2)`` pairs at or over the near and the exact threshold.
        best_scores: ``(n_real,)`` -inf where there is no pair.
        best_queries: ``(n_real,)`` number of the synthetic row, -1 where there is none.
    """

    counts: Ints
    best_scores: Floats
    best_queries: Ints

    @classmethod
    def empty(cls, n_real: int) -> RealTally:
        """Return a tally of nothing."""
        return cls(
            np.zeros((n_real, 2), np.int64),
            np.full(n_real, -np.inf, np.float32),
            np.full(n_real, -1, np.int64),
        )

    def add(self, part: Part) -> None:
        """Add a part; the order of parts does not matter. A part may name a real image more than once."""
        np.add.at(self.counts, part.tally_rows, part.tally_counts)
        # Best first, so that the first entry of each row is the one to compare: higher score, lower query.
        order = np.lexsort((part.tally_queries, -part.tally_scores, part.tally_rows))
        rows, firsts = np.unique(part.tally_rows[order], return_index=True)
        chosen = order[firsts]
        scores, queries = part.tally_scores[chosen], part.tally_queries[chosen]
        known = self.best_queries[rows] >= 0
        better = (scores > self.best_scores[rows]) | (
            (scores == self.best_scores[rows]) & (queries < self.best_queries[rows])
        )
        take = ~known | better
        self.best_scores[rows[take]] = scores[take]
        self.best_queries[rows[take]] = queries[take]
