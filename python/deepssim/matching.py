"""Chunks of synthetic embeddings against sets of real ones.

A `Reference` is a set of real images, ready to be searched. `match_rows` answers one chunk of synthetic
rows; the answer is a `Part`, which is what a run keeps on disk to go on after a kill.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from deepssim.base import READ_BYTES, Base
from deepssim.disk import replacing
from deepssim.errors import MemoryLimitError, StoreError
from deepssim.preparation import choice_bytes
from deepssim.search import Plan, SearchStatistics, plan_search
from deepssim.store import Store

DEFAULT_CHUNK_ROWS = 8192
# A base that is read anew for each chunk wants chunks that are worth it.
LEAST_STREAMED_CHUNK = 2048
LEAST_BLOCK_ROWS = 1024

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
        keep_prepared: Keep the prepared real set beside its store, for further runs.
    """

    k: int = 5
    max_per_group: int = 0
    max_listed: int = 64
    threads: int = 0
    memory_limit: int = 0
    seed: int = 0
    keep_prepared: bool = False


class Reference:
    """A set of real images: all rows of a store or some of them, with ids and groups.

    Attributes:
        store: Where they are.
        rows: ``(n,)`` the store's rows that belong to the set, ascending.
        codes: ``(n,)`` group of each as a number, -1: none known.
        names: Group names by code.
        base: What is searched; None until `load`.
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
        self.base: Base | None = None

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

    def load(self, block_rows: int, expected_queries: int, *, keep_prepared: bool = False) -> Base:
        """Make the base of searches; see `deepssim.base.Base`."""
        self.base = Base(
            self.store,
            self.rows,
            self.codes,
            block_rows=block_rows,
            expected_queries=expected_queries,
            keep_prepared=keep_prepared,
        )
        return self.base


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
        expected_rows: Synthetic rows to expect; more of them make more preparation worth while.

    Attributes:
        plan: Of the largest search.
        planned_bytes: Of all that the plan counts: sets, workers, a chunk with its results, buffers.
        chunk_rows: Synthetic rows that are matched at a time, at most.
        statistics: How far pairs of real and synthetic images came, so far.
        seconds: Spent in searches of the real set.

    Raises:
        MemoryLimitError: The limit is too small; the message names one that is enough.
    """

    def __init__(
        self,
        real: Reference,
        control: Control | None,
        cuts: tuple[float, float],
        options: MatchOptions,
        expected_rows: int = 0,
    ) -> None:
        self.real, self.control, self.cuts, self.options = real, control, cuts, options
        self.statistics = SearchStatistics()
        self.seconds = 0.0
        self._sets = [real, *(r for r in (control.sets if control else ()) if r is not real)]
        self.block_rows = 0
        self._least_bytes = sys.maxsize
        self.plan = self._make_plan()
        for reference in self._sets:
            # The whole of a set need not be held twice.
            expected = max(1, expected_rows) if self._may_choose else 0
            reference.load(self.block_rows, expected, keep_prepared=options.keep_prepared and reference is real)

    def _make_plan(self) -> Plan:
        """Take all rows at once if they fit, else the largest blocks that leave room for chunks worth a reading."""
        rows, best = 0, self._fit(0, may_choose=True)
        self._may_choose = best is not None
        if best is None:
            best = self._fit(0, may_choose=False)
        if best is None:
            half = max(len(r) for r in self._sets)
            while half > LEAST_BLOCK_ROWS and (best is None or best[1] < LEAST_STREAMED_CHUNK):
                half = -(-half // 2)
                fit = self._fit(half, may_choose=False)
                if fit is not None and (best is None or fit[1] > best[1]):
                    rows, best = half, fit
        if best is None:
            raise MemoryLimitError(
                f"a memory limit of {self.options.memory_limit:,} bytes is too small: matching needs at least "
                f"{self._least_bytes:,}",
                self._least_bytes,
            )
        self.block_rows = rows
        plan, self.chunk_rows, self.planned_bytes = best
        return plan

    def _fit(self, block_rows: int, *, may_choose: bool) -> tuple[Plan, int, int] | None:
        """Return plan, rows of a chunk and bytes for blocks of so many rows (0: whole sets), None if over the limit.

        With `may_choose` there is room to choose how the base is prepared.
        """
        options, dim = self.options, self.real.store.dim
        sizes = [min(len(r), block_rows or len(r)) for r in self._sets]
        others = [plan_search(n, dim, k=1, with_groups=True, threads=options.threads, max_chunk_rows=1) for n in sizes]
        if block_rows:  # one block is searched while the next is read
            beside = max(plan.base_bytes + plan.prepared_bytes for plan in others)
        else:
            beside = sum(plan.base_bytes + plan.prepared_bytes for plan in others[1:])
        beside += 2 * READ_BYTES + (choice_bytes(dim) if may_choose else 0)
        limit = options.memory_limit
        try:
            plan = plan_search(
                max(sizes) if block_rows else sizes[0],
                dim,
                k=max(1, options.k),
                max_listed=options.max_listed,
                levels=2,
                with_groups=True,
                with_cap=options.max_per_group > 0,
                with_tally=True,
                with_rotation=may_choose,
                threads=options.threads,
                memory_limit=max(1, limit - beside) if limit else 0,
                max_chunk_rows=DEFAULT_CHUNK_ROWS,
            )
        except MemoryLimitError as error:
            self._least_bytes = min(self._least_bytes, beside + (error.minimum_bytes or 0))
            return None
        # Beside its results a chunk keeps a sparse copy of them, copies that are merged, and the rows read ahead.
        listed = options.k + options.max_listed
        row_bytes = plan.row_bytes + 24 * options.max_listed + 12 * options.k + 64 + 4 * dim
        row_bytes += 36 * listed if block_rows else 0
        fixed = beside + plan.total_bytes - plan.chunk_rows * plan.row_bytes
        chunk_rows = max(1, min(plan.chunk_rows, (limit - fixed) // row_bytes)) if limit else plan.chunk_rows
        return plan, chunk_rows, fixed + chunk_rows * row_bytes

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
        options = self.options
        began = time.perf_counter()
        found = _base_of(self.real).search(
            queries,
            max(1, options.k),
            max_per_group=options.max_per_group,
            thresholds=self.cuts,
            max_listed=options.max_listed,
            first_query=first_row,
            threads=self.plan.threads,
        )
        self.seconds += time.perf_counter() - began
        self.statistics += found.statistics
        listed_queries, places = np.nonzero(found.listed_ids >= 0)
        control_scores, control_rows = self._match_control(queries)
        return Part(
            first_row,
            found.scores,
            found.ids,
            found.counts,
            listed_queries,
            found.listed_ids[listed_queries, places],
            found.listed_scores[listed_queries, places],
            found.tallied.rows,
            found.tallied.counts,
            found.tallied.scores,
            found.tallied.queries,
            control_scores,
            control_rows,
        )

    def _match_control(self, queries: Floats) -> tuple[Floats, Ints]:
        if self.control is None:
            return np.zeros((0, 2), np.float32), np.zeros((0, 2), np.int64)
        scores, rows = [], []
        for reference in self.control.sets:
            found = _base_of(reference).search(queries, 1, threads=self.plan.threads)
            scores.append(found.scores[:, 0])
            rows.append(found.ids[:, 0])
        return np.stack(scores, axis=1), np.stack(rows, axis=1)


def _base_of(reference: Reference) -> Base:
    if reference.base is None:
        raise StoreError("the base was not loaded")
    return reference.base


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
