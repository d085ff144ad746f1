"""The base of searches: rows of a store, in memory as a whole or block by block.

A base that fits is loaded once. One that does not is read anew for each chunk of queries, the next block while
the one before is searched; answers of blocks are merged, which changes nothing of an answer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deepssim.prepared_file import keep_prepared, take_prepared
from deepssim.read_ahead import read_ahead
from deepssim.search import RowTally, Searcher, SearchStatistics, merge_topk
from deepssim.store import Store

__all__ = ["READ_BYTES", "Base", "Found", "Tallied"]

READ_BYTES = 4 * 2**20

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Tallied:
    """Base rows that were met over the lowest threshold, ascending.

    Attributes:
        rows: ``(t,)`` positions in the base.
        counts: ``(t, n_thresholds)`` how often.
        scores: ``(t,)`` best score of each.
        queries: ``(t,)`` id of the query that scored it.
    """

    rows: Ints
    counts: Ints
    scores: Floats
    queries: Ints

    @classmethod
    def of(cls, tally: RowTally, first_row: int) -> Tallied:
        """Take what a search of the block that begins at `first_row` left in a tally."""
        queries = tally.best_queries
        met = np.nonzero(queries >= 0)[0]
        return cls(met + first_row, tally.counts[met], tally.best_scores[met], queries[met])


@dataclass(frozen=True, slots=True)
class Found:
    """The answer to a chunk of queries; arrays as in `deepssim.search.SearchResult`, ids are positions in the base."""

    scores: Floats
    ids: Ints
    counts: Ints
    listed_scores: Floats
    listed_ids: Ints
    tallied: Tallied
    statistics: SearchStatistics


class Base:
    """Rows of a store that chunks of queries are matched against.

    Args:
        store: Where the rows are.
        rows: ``(n,)`` the store's rows that belong to the base, ascending.
        codes: ``(n,)`` their groups, -1: none known.
        block_rows: Rows in memory at a time; 0: all, loaded once and kept.
        expected_queries: Over all searches; 0: prepare the rows plainly, without a look at the queries.
        keep_prepared: Keep what was prepared beside the store, where the base is all of it and in memory as a
            whole. What was kept before is taken up in any case.
    """

    def __init__(
        self,
        store: Store,
        rows: Ints,
        codes: Ints,
        *,
        block_rows: int = 0,
        expected_queries: int = 0,
        keep_prepared: bool = False,
    ) -> None:
        self.store, self.rows, self.codes = store, rows, codes
        self.block_rows = block_rows or max(1, len(rows))
        self.expected_queries = expected_queries
        self._is_whole = self.n_blocks == 1 and len(rows) == len(store) > 0
        self._to_keep = keep_prepared and self._is_whole
        self._kept: tuple[int, Searcher] | None = None
        self._is_backwards = False

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def n_blocks(self) -> int:
        """Blocks that the base is searched in."""
        return max(1, -(-len(self) // self.block_rows))

    @property
    def isa(self) -> str:
        """The instruction-set level in use, empty before the first search."""
        return self._kept[1].isa if self._kept else ""

    def _load(self, block: int) -> tuple[int, Searcher]:
        first = block * self.block_rows
        rows = self.rows[first : first + self.block_rows]
        codes = self.codes[first : first + self.block_rows]
        searcher = Searcher(
            self.store.dim, len(rows), with_groups=True, id_offset=first, expected_queries=self.expected_queries
        )
        step = max(1, READ_BYTES // (4 * self.store.dim))
        done = 0
        span = (int(rows[0]), int(rows[-1]) + 1) if len(rows) else (0, 0)
        for start, part in self.store.chunks(step, *span):
            inside = rows[(rows >= start) & (rows < start + len(part))] - start
            chosen = part if len(inside) == len(part) else part[inside]
            if len(chosen):
                searcher.add(chosen, codes[done : done + len(chosen)])
                done += len(chosen)
        if self._is_whole and take_prepared(self.store, searcher):
            self._to_keep = False
        elif not self.expected_queries:
            searcher.prepare()
        return block, searcher

    def keep(self, searcher: Searcher) -> None:
        """Keep what a search prepared, once, where that was asked for."""
        if self._to_keep:
            keep_prepared(self.store, searcher)
            self._to_keep = False

    def blocks(self) -> Iterator[Searcher]:
        """Yield the searcher of each block; the first is the one that came last the time before."""
        order = list(range(self.n_blocks))
        if self._is_backwards:
            order.reverse()
        self._is_backwards = not self._is_backwards
        if self._kept is not None and self._kept[0] == order[0]:
            yield self._kept[1]
            order = order[1:]
        self._kept = None if order else self._kept
        for block, searcher in read_ahead(order, self._load):
            if block == order[-1]:
                self._kept = (block, searcher)
            yield searcher
            del searcher  # before another is read: two blocks are in memory, never three

    def search(
        self,
        queries: Floats,
        k: int,
        *,
        max_per_group: int = 0,
        thresholds: Sequence[float] = (),
        max_listed: int = 0,
        first_query: int = 0,
        threads: int = 0,
    ) -> Found:
        """Answer a chunk of queries; arguments and errors as of `deepssim.search.Searcher.search`."""
        found: Found | None = None
        for searcher in self.blocks():
            tally = RowTally(len(searcher), len(thresholds))
            result = searcher.search(
                queries,
                k,
                max_per_group=max_per_group,
                thresholds=thresholds,
                max_listed=max_listed,
                first_query=first_query,
                tally=tally if thresholds else None,
                threads=threads,
            )
            self.keep(searcher)
            part = Found(
                result.scores,
                result.ids,
                result.counts,
                result.listed_scores,
                result.listed_ids,
                Tallied.of(tally, searcher.id_offset),
                result.statistics,
            )
            found = part if found is None else self.merge(found, part, max_per_group)
            del searcher, tally, result
        assert found is not None  # there is always a block
        return found

    def merge(self, a: Found, b: Found, max_per_group: int) -> Found:
        """Return the answer of two parts of the base from theirs."""
        ids = np.stack([a.ids, b.ids])
        groups = None
        if max_per_group:
            groups = np.where(ids >= 0, self.codes[np.maximum(ids, 0)], -1)
        scores, best = merge_topk(np.stack([a.scores, b.scores]), ids, groups, max_per_group=max_per_group)
        listed_scores, listed = merge_topk(
            np.stack([a.listed_scores, b.listed_scores]), np.stack([a.listed_ids, b.listed_ids])
        )
        x, y = a.tallied, b.tallied
        tallied = Tallied(
            np.concatenate([x.rows, y.rows]),
            np.concatenate([x.counts, y.counts]),
            np.concatenate([x.scores, y.scores]),
            np.concatenate([x.queries, y.queries]),
        )
        return Found(scores, best, a.counts + b.counts, listed_scores, listed, tallied, a.statistics + b.statistics)

    def drop(self) -> None:
        """Free what is held in memory."""
        self._kept = None
