"""A search that also finds what was mirrored, turned, shifted or zoomed, without a network.

Where the embedding of a metric is itself a small image, a query can be seen in many ways (`deepssim.image_ops.views`)
and each way searched for. The score of a pair is the highest of its views; top-k, counts and tallies are of distinct
real images. How it is found: a few views give a score that the k-th best real image reaches at least, and a scan of
all views keeps what comes up to it. Both are exact, so is the answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deepssim.base import Base, Found, Tallied
from deepssim.errors import UsageError
from deepssim.image_ops import BANK, FLIPS, ViewGrid, make_views, resize_area
from deepssim.read_ahead import read_ahead
from deepssim.search import RowTally, Searcher, SearchStatistics, plan_search

__all__ = ["VIEWS", "Screen", "choose_views"]

VIEWS = ("none", "flips", "bank")
GRIDS = {"flips": FLIPS, "bank": BANK}
# Every so many angles, and shifts this far apart, are enough for a first bound.
_COARSE_ANGLES = 3
_COARSE_SHIFTS = 2

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]


def choose_views(asked: str | None, layout: Sequence[int] | None, metric: str) -> str:
    """Return the views to use: those asked for, else ``"bank"`` where the embeddings of a metric are images.

    Args:
        asked: One of `VIEWS`, or None.
        layout: Rows and columns of an embedding that is an image; None: it is none.
        metric: Named in the error.

    Raises:
        UsageError: There are no such views, or the metric has none.

    Example:
        >>> choose_views(None, (32, 28), "pixel"), choose_views(None, None, "learned")
        ('bank', 'none')
    """
    if asked is None:
        return "bank" if layout is not None else "none"
    if asked not in VIEWS:
        raise UsageError(f"views are {', '.join(VIEWS)}, not {asked!r}")
    if asked != "none" and layout is None:
        raise UsageError(f"the metric {metric} has no views: its embeddings are no images; leave --views out")
    return asked


def coarse_views(grid: ViewGrid) -> Ints:
    """Return the indices of a part of the views that comes near to each of them."""
    shifts = np.arange(2 * grid.shift + 1)
    near = shifts[(shifts - grid.shift) % _COARSE_SHIFTS == 0]
    index = np.arange(len(grid)).reshape(
        2 if grid.with_mirror else 1, grid.n_angles, len(grid.zooms), len(shifts), len(shifts)
    )
    zoom = len(grid.zooms) // 2
    part = index[:, ::_COARSE_ANGLES, zoom : zoom + 1]
    return np.asarray(part[:, :, :, near][:, :, :, :, near].ravel(), np.int64)


def in_place(grid: ViewGrid) -> int | None:
    """Return the index of the view that changes nothing, None where there is none.

    Example:
        >>> in_place(FLIPS)
        0
    """
    if not grid.n_angles or 1.0 not in grid.zooms:
        return None
    across = 2 * grid.shift + 1
    return (grid.zooms.index(1.0) * across + grid.shift) * across + grid.shift


@dataclass(frozen=True, slots=True)
class Screen:
    """How queries are seen and searched for.

    Attributes:
        grid: The views.
        layout: Rows and columns of an embedding.
    """

    grid: ViewGrid
    layout: tuple[int, int]

    @classmethod
    def of(cls, views: str, layout: tuple[int, int] | None) -> Screen | None:
        """Return the screen for one of `VIEWS`; None for ``"none"``."""
        return None if views == "none" or layout is None else cls(GRIDS[views], layout)

    def fixed_bytes(self, n_rows: int, k: int, *, with_cap: bool = False) -> int:
        """Return the bytes that a search of `n_rows` takes whatever the number of queries.

        They are the views of one query while it is searched for and of the next, the coarse part, and what the core
        answers to them.
        """
        dim, n_coarse = self.layout[0] * self.layout[1], len(coarse_views(self.grid))
        few = plan_search(n_rows, dim, k=k, with_groups=True, with_cap=with_cap, threads=1, max_chunk_rows=n_coarse)
        many = plan_search(n_rows, dim, levels=1, with_groups=True, with_tally=True, threads=1)
        answers = n_coarse * few.row_bytes + len(self.grid) * many.row_bytes + many.tally_bytes
        return 4 * dim * (2 * len(self.grid) + n_coarse) + answers

    def see(self, query: Floats, size: tuple[int, int], is_across: bool) -> Floats:
        """Return all views of a query, ``(len(grid), dim)``.

        Args:
            query: ``(dim,)`` its embedding.
            size: Height and width of its image in pixels, which say how wide a pixel of the embedding is for its
                height; 0 where they are not known: as high.
            is_across: Whether the image lies across those that it is compared with: it is turned by a quarter first.
        """
        rows, columns = self.layout
        image, (height, width) = query.reshape(self.layout), size
        if is_across:
            image, (height, width) = resize_area(np.rot90(image).copy(), rows, columns), (width, height)
        aspect = height * columns / (width * rows) if height > 0 < width else 1.0
        views = make_views(image, self.grid, aspect=aspect)
        place = in_place(self.grid)
        if place is not None and not is_across:
            views[place] = query  # to the bit: no view makes a pair score less than in place
        return views

    def search(
        self,
        base: Base,
        queries: Floats,
        k: int,
        *,
        sizes: Sequence[tuple[int, int]],
        across: Sequence[bool],
        max_per_group: int = 0,
        thresholds: Sequence[float] = (),
        max_listed: int = 0,
        first_query: int = 0,
        threads: int = 0,
    ) -> Found:
        """Answer a chunk of queries: as `Base.search`, each pair with the highest score of its views.

        Args:
            base: The real images.
            queries: ``(n, dim)`` float32 embeddings.
            k: Places of an answer, at least 1.
            sizes: Height and width of each query's image: see `see`.
            across: Whether each lies across.
            max_per_group: As in `Base.search`; so are the other arguments.
            thresholds: Ascending.
            max_listed: Of distinct rows.
            first_query: Id of the first query.
            threads: 0: all that this process may use.

        Returns:
            As of `Base.search`. Statistics count pairs of views and rows.
        """
        found: Found | None = None
        for searcher in base.blocks():
            codes = base.codes[searcher.id_offset : searcher.id_offset + len(searcher)]
            block = _Block(searcher, codes, k, max_per_group, tuple(thresholds), max_listed, threads)
            answers = _Answers.empty(len(queries), k, len(block.thresholds), max_listed, len(searcher))
            coarse = coarse_views(self.grid)
            seen = read_ahead(range(len(queries)), lambda i: (i, self.see(queries[i], sizes[i], across[i])))
            for i, views in seen:
                block.answer(views, coarse, i, first_query + i, answers)
            base.keep(searcher)
            part = answers.found(searcher.id_offset, bool(thresholds))
            found = part if found is None else base.merge(found, part, max_per_group)
            del searcher, block, answers
        assert found is not None  # there is always a block
        return found


@dataclass(slots=True)
class _Answers:
    """What a block answers to a chunk; arrays as in `Found` and `Tallied`, the tally of all its rows."""

    scores: Floats
    ids: Ints
    counts: Ints
    listed_scores: Floats
    listed_ids: Ints
    tally_counts: Ints
    tally_scores: Floats
    tally_queries: Ints
    statistics: SearchStatistics

    @classmethod
    def empty(cls, n: int, k: int, n_levels: int, max_listed: int, n_rows: int) -> _Answers:
        def scores(*shape: int) -> Floats:
            return np.full(shape, -np.inf, np.float32)

        def ids(*shape: int) -> Ints:
            return np.full(shape, -1, np.int64)

        return cls(
            scores(n, k),
            ids(n, k),
            np.zeros((n, n_levels), np.int64),
            scores(n, max_listed),
            ids(n, max_listed),
            np.zeros((n_rows, n_levels), np.int64),
            scores(n_rows),
            ids(n_rows),
            SearchStatistics(),
        )

    def found(self, first_row: int, with_tally: bool) -> Found:
        met = np.flatnonzero(self.tally_queries >= 0) if with_tally else np.zeros(0, np.int64)
        tallied = Tallied(met + first_row, self.tally_counts[met], self.tally_scores[met], self.tally_queries[met])
        return Found(self.scores, self.ids, self.counts, self.listed_scores, self.listed_ids, tallied, self.statistics)


@dataclass(frozen=True, slots=True)
class _Block:
    """A block of real rows and what is asked of it."""

    searcher: Searcher
    codes: Ints
    k: int
    max_per_group: int
    thresholds: tuple[float, ...]
    max_listed: int
    threads: int

    def answer(self, views: Floats, coarse: Ints, i: int, query: int, answers: _Answers) -> None:
        """Answer query `i` of a chunk, which is number `query`, seen in all these ways."""
        rows, scores, statistics = self._over(views, coarse)
        answers.statistics += statistics
        order = np.lexsort((rows, -scores))
        rows, scores = rows[order], scores[order]
        best = self._capped(rows)[: self.k]
        answers.scores[i, : len(best)], answers.ids[i, : len(best)] = scores[best], rows[best]
        answers.ids[i, : len(best)] += self.searcher.id_offset
        if not self.thresholds:
            return
        cuts = np.array(self.thresholds, np.float32)
        passes = scores[:, None] >= cuts
        answers.counts[i] = passes.sum(axis=0)
        over = rows[passes[:, 0]]
        listed = min(len(over), self.max_listed)
        answers.listed_scores[i, :listed] = scores[:listed]
        answers.listed_ids[i, :listed] = over[:listed] + self.searcher.id_offset
        answers.tally_counts[over] += passes[passes[:, 0]]
        # As the core's tally does: of equal scores the earlier query counts, and queries come in order.
        better = scores[: len(over)] > answers.tally_scores[over]
        answers.tally_scores[over[better]] = scores[: len(over)][better]
        answers.tally_queries[over[better]] = query

    def _over(self, views: Floats, coarse: Ints) -> tuple[Ints, Floats, SearchStatistics]:
        """Return distinct rows with their highest score: all over the lowest threshold, and the k best."""
        if not len(self.searcher):
            return np.zeros(0, np.int64), np.zeros(0, np.float32), SearchStatistics()
        few = views[coarse] if len(coarse) < len(views) else views
        rows, scores, statistics = self._nearest(few)
        best = self._capped(rows)
        if len(best) < self.k:
            return self._over_all(views, len(few))
        # Each of these k comes up to the last one's score in all views too, so the k best of all do.
        cut = min([float(scores[best[self.k - 1]]), *self.thresholds[:1]])
        met, highest, more = self._at_least(views, cut)
        return met, highest, statistics + more

    def _over_all(self, views: Floats, step: int) -> tuple[Ints, Floats, SearchStatistics]:
        """Do so where there are not k rows, or a cap leaves not as many: no score bounds the search.

        A row that is one of the k best is one of the k best of the view where it scores highest.
        """
        parts = [self._nearest(views[first : first + step]) for first in range(0, len(views), step)]
        if self.thresholds:
            parts.append(self._at_least(views, self.thresholds[0]))
        rows, scores = _highest(
            np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts])
        )
        return rows, scores, sum((part[2] for part in parts), SearchStatistics())

    def _nearest(self, views: Floats) -> tuple[Ints, Floats, SearchStatistics]:
        """Return distinct rows, best first, among them the k best in some views."""
        k = min(self.k, len(self.searcher))
        found = self.searcher.search(views, k, max_per_group=self.max_per_group, threads=self.threads)
        near = found.ids >= 0
        rows, scores = _highest(found.ids[near] - self.searcher.id_offset, found.scores[near])
        order = np.lexsort((rows, -scores))
        return rows[order], scores[order], found.statistics

    def _at_least(self, views: Floats, cut: float) -> tuple[Ints, Floats, SearchStatistics]:
        """Return the rows that score `cut` or more in any of some views."""
        tally = RowTally(len(self.searcher), 1)
        found = self.searcher.search(views, 0, thresholds=(cut,), tally=tally, threads=self.threads)
        met = np.flatnonzero(tally.best_queries >= 0)
        return met, tally.best_scores[met], found.statistics

    def _capped(self, rows: Ints) -> Ints:
        """Return the places of `rows`, best first, that the cap on rows of one group leaves."""
        places = np.arange(len(rows))
        if not self.max_per_group:
            return places
        codes = self.codes[rows]
        order = np.argsort(codes, kind="stable")
        starts = np.searchsorted(codes[order], codes[order])
        rank = np.empty(len(rows), np.int64)
        rank[order] = places - starts
        return np.asarray(places[(rank < self.max_per_group) | (codes < 0)], np.int64)


def _highest(rows: Ints, scores: Floats) -> tuple[Ints, Floats]:
    """Return distinct rows and the highest score of each."""
    distinct, place = np.unique(rows, return_inverse=True)
    highest = np.full(len(distinct), -np.inf, np.float32)
    np.maximum.at(highest, place, scores)
    return distinct, highest
