"""Chunks of synthetic embeddings against sets of real ones.

A `Reference` is a set of real images, ready to be searched. `match_rows` answers one chunk of synthetic
rows; the answer is a `Part`, which is what a run keeps on disk to go on after a kill.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from deepssim.aspect import AspectRange
from deepssim.base import READ_BYTES, Base, Found
from deepssim.errors import MemoryLimitError, StoreError
from deepssim.parts import Floats, Ints, Part, levels_by_score
from deepssim.preparation import choice_bytes
from deepssim.screening import Screen, choose_views
from deepssim.search import Plan, SearchStatistics, plan_search
from deepssim.store import Store
from deepssim.working import WORKING_SIDE, Working

DEFAULT_CHUNK_ROWS = 8192
# A base that is read anew for each chunk wants chunks that are worth it.
LEAST_STREAMED_CHUNK = 2048
LEAST_BLOCK_ROWS = 1024
# Where each synthetic image is searched for in thousands of views, a part should not take long.
SCREENED_CHUNK_ROWS = 256


@dataclass(frozen=True, slots=True)
class Subject:
    """A synthetic image.

    Attributes:
        height: Its rows, in pixels; 0: not known.
        width: Its columns.
        working: Its working image; None where pairs are not verified.
    """

    height: int
    width: int
    working: Working | None = None


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
        views: One of `deepssim.screening.VIEWS`: how synthetic images are seen; None: ``"bank"`` where the metric's
            embeddings are images, else ``"none"``.
    """

    k: int = 8
    max_per_group: int = 4
    max_listed: int = 64
    threads: int = 0
    memory_limit: int = 0
    seed: int = 0
    keep_prepared: bool = False
    views: str | None = None


class Reference:
    """A set of real images: all rows of a store or some of them, with ids and groups.

    Attributes:
        store: Where they are.
        rows: ``(n,)`` the store's rows that belong to the set, ascending.
        codes: ``(n,)`` group of each as a number, -1: none known.
        names: Group names by code.
        aspects: Ratios of height to width of the images.
        base: What is searched; None until `load`.
    """

    def __init__(self, store: Store, rows: Ints | None = None) -> None:
        self.store = store
        table = store.records(["id", "path", "group", "pixel_hash", "height", "width"])
        self.rows: Ints = np.arange(len(store), dtype=np.int64) if rows is None else rows
        self.table = table if rows is None else table.take(pa.array(rows))
        self.table = self.table.combine_chunks()
        self.aspects = AspectRange.of(self.table)
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


class Verifier(Protocol):
    """What looks at candidates in image space; see `deepssim.evidence`."""

    def bytes(self, k: int) -> int:
        """Return the memory that it takes for k candidates an image."""

    def judge(
        self,
        first_row: int,
        found: Found,
        subjects: Sequence[Subject],
        real: Reference,
        control: Sequence[tuple[Reference, Ints]],
    ) -> Part:
        """Return the part of a run of synthetic rows whose candidates are ``found.ids``."""


class Matcher:
    """Matches chunks of synthetic rows, within one memory plan.

    Args:
        real: All real images.
        control: The size-matched sets, or None.
        cuts: Float32 scores from which on a pair is near and exact.
        options: How to match.
        expected_rows: Synthetic rows to expect; more of them make more preparation worth while.
        layout: Rows and columns of an embedding that is an image; None: it is none, and there are no views.

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
        layout: tuple[int, int] | None = None,
        verifier: Verifier | None = None,
    ) -> None:
        self.real, self.control, self.cuts, self.options = real, control, cuts, options
        self.screen = Screen.of(choose_views(options.views, layout, str(real.store.metric["name"])), layout)
        self.verifier = verifier
        self.statistics = SearchStatistics()
        self.seconds = self.verification_seconds = 0.0
        self.n_verified = 0
        self._sets = [real, *(r for r in (control.sets if control else ()) if r is not real)]
        self.block_rows = 0
        self._least_bytes = sys.maxsize
        self.plan = self._make_plan()
        for reference in self._sets:
            # The whole of a set need not be held twice.
            expected = max(1, expected_rows) * self._queries_of_a_row if self._may_choose else 0
            reference.load(self.block_rows, expected, keep_prepared=options.keep_prepared and reference is real)

    @property
    def k(self) -> int:
        """Nearest real images of each synthetic one."""
        return max(1, self.options.k)

    @property
    def _thresholds(self) -> tuple[float, ...]:
        """What a search by score counts: a metric with one threshold never says near."""
        return self.cuts if self.cuts[0] < self.cuts[1] else self.cuts[:1]

    @property
    def _queries_of_a_row(self) -> int:
        return len(self.screen.grid) if self.screen else 1

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
        k = 1 if self.verifier is None else self.k
        others = [plan_search(n, dim, k=k, with_groups=True, threads=options.threads, max_chunk_rows=1) for n in sizes]
        if block_rows:  # one block is searched while the next is read
            beside = max(plan.base_bytes + plan.prepared_bytes for plan in others)
        else:
            beside = sum(plan.base_bytes + plan.prepared_bytes for plan in others[1:])
        beside += 2 * READ_BYTES + (choice_bytes(dim) if may_choose else 0)
        beside += self.verifier.bytes(self.k) if self.verifier is not None else 0
        if self.screen:
            beside += self.screen.fixed_bytes(max(sizes), self.k, with_cap=options.max_per_group > 0)
        limit = options.memory_limit
        try:
            plan = plan_search(
                max(sizes) if block_rows else sizes[0],
                dim,
                k=self.k,
                max_listed=options.max_listed,
                levels=2,
                with_groups=True,
                with_cap=options.max_per_group > 0,
                with_tally=True,
                with_rotation=may_choose,
                threads=options.threads,
                memory_limit=max(1, limit - beside) if limit else 0,
                max_chunk_rows=SCREENED_CHUNK_ROWS if self.screen and not block_rows else DEFAULT_CHUNK_ROWS,
            )
        except MemoryLimitError as error:
            self._least_bytes = min(self._least_bytes, beside + (error.minimum_bytes or 0))
            return None
        # Beside its results a chunk keeps a sparse copy of them, copies that are merged, and the rows read ahead.
        listed = options.k + options.max_listed
        row_bytes = plan.row_bytes + 24 * options.max_listed + 12 * options.k + 64 + 4 * dim
        row_bytes += 36 * listed if block_rows else 0
        row_bytes += WORKING_SIDE**2 if self.verifier is not None else 0
        fixed = beside + plan.total_bytes - plan.chunk_rows * plan.row_bytes
        chunk_rows = max(1, min(plan.chunk_rows, (limit - fixed) // row_bytes)) if limit else plan.chunk_rows
        return plan, chunk_rows, fixed + chunk_rows * row_bytes

    def match_rows(self, embeddings: Floats, first_row: int, subjects: Sequence[Subject] = ()) -> Part:
        """Match rows ``(n, dim)``, of which the first is synthetic row `first_row`.

        Args:
            embeddings: The rows.
            first_row: Number of the first.
            subjects: Their images; none: the pixels of an embedding that is an image are taken as square, and nothing
                can be verified.
        """
        step = self.chunk_rows
        pieces = [
            self._match(embeddings[i : i + step], first_row + i, subjects[i : i + step])
            for i in range(0, len(embeddings), step)
        ]
        if not pieces:
            return Part.empty(first_row, self.k, is_verified=self.verifier is not None)
        return Part.join(pieces) if len(pieces) != 1 else pieces[0]

    def candidates(self, embeddings: Floats, subjects: Sequence[Subject]) -> Ints:
        """Return the positions ``(n, k)`` of the real images that rows are compared with, -1 where there are not k."""
        options = self.options
        return self._search(self.real, embeddings, self.k, subjects, max_per_group=options.max_per_group).ids

    def _search(
        self, reference: Reference, queries: Floats, k: int, subjects: Sequence[Subject], **options: Any
    ) -> Found:
        base = _base_of(reference)
        if self.screen is None:
            return base.search(queries, k, threads=self.plan.threads, **options)
        sizes = [(s.height, s.width) for s in subjects] or [(0, 0)] * len(queries)
        # One look at a query for all sets: the holdout must not be seen another way than the real images.
        across = self.real.aspects.lie_across(sizes)
        return self.screen.search(base, queries, k, sizes=sizes, across=across, threads=self.plan.threads, **options)

    def _match(self, queries: Floats, first_row: int, subjects: Sequence[Subject]) -> Part:
        options = self.options
        began = time.perf_counter()
        by_score = self.verifier is None
        found = self._search(
            self.real,
            queries,
            self.k,
            subjects,
            max_per_group=options.max_per_group,
            thresholds=self._thresholds if by_score else (),
            max_listed=options.max_listed if by_score else 0,
            first_query=first_row,
        )
        self.seconds += time.perf_counter() - began
        self.statistics += found.statistics
        control = self._search_control(queries, subjects, found)
        if self.verifier is None:
            return _judge_by_score(first_row, found, self.cuts, control)
        began = time.perf_counter()
        candidates = [
            (reference, ids)
            for reference, (_, ids) in zip(self.control.sets if self.control else (), control, strict=True)
        ]
        part = self.verifier.judge(first_row, found, subjects, self.real, candidates)
        self.verification_seconds += time.perf_counter() - began
        self.n_verified += int(np.count_nonzero(part.rows >= 0))
        return part

    def _search_control(
        self, queries: Floats, subjects: Sequence[Subject], nearest: Found
    ) -> list[tuple[Floats, Ints]]:
        """Return scores and positions ``(n, k)`` of the nearest in each set of the control; k = 1 decides by score."""
        found = []
        for reference in self.control.sets if self.control else ():
            k, cap = (1, 0) if self.verifier is None else (self.k, self.options.max_per_group)
            # The nearest of all real images were just found.
            is_known = reference is self.real
            result = nearest if is_known else self._search(reference, queries, k, subjects, max_per_group=cap)
            found.append((result.scores, result.ids))
        return found


def _judge_by_score(
    first_row: int, found: Found, cuts: tuple[float, float], control: list[tuple[Floats, Ints]]
) -> Part:
    queries, places = np.nonzero(found.listed_ids >= 0)
    listed_scores = found.listed_scores[queries, places]
    none = np.zeros((len(found.scores), found.scores.shape[1], 0), np.float32)
    values, rows = np.zeros((0, 2), np.float32), np.zeros((0, 2), np.int64)
    if control:
        values = np.stack([scores[:, 0] for scores, _ in control], axis=1)
        rows = np.stack([ids[:, 0] for _, ids in control], axis=1)
    return Part(
        first_row,
        found.scores,
        found.ids,
        levels_by_score(found.scores, cuts),
        np.broadcast_to(np.arange(1, found.ids.shape[1] + 1), found.ids.shape).astype(np.int64),
        none,
        queries,
        found.listed_ids[queries, places],
        listed_scores,
        levels_by_score(listed_scores, cuts),
        np.zeros((len(queries), 0), np.float32),
        found.tallied.rows,
        # Of one threshold there is one count: whatever passes is exact.
        np.broadcast_to(found.tallied.counts, (len(found.tallied.rows), 2)),
        found.tallied.scores,
        found.tallied.queries,
        values,
        levels_by_score(values, cuts),
        rows,
    )


def _base_of(reference: Reference) -> Base:
    if reference.base is None:
        raise StoreError("the base was not loaded")
    return reference.base
