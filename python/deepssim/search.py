"""Exact nearest-neighbour search by inner product, in bounded memory.

The score of two rows is their inner product over the reals, rounded to float64 and then to float32:
``np.float32(math.fsum(float(a) * float(b) for a, b in zip(x, y)))``. It does not depend on the
instruction set, the number of threads or how the data was cut. Results come in one total order: higher
score first, then lower id.
"""

from __future__ import annotations

import contextlib
import operator
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from deepssim import _core
from deepssim._core import CancelToken, Plan, ReverseTopk, RowTally
from deepssim.errors import DeepSSIMError, MemoryLimitError, UsageError
from deepssim.preparation import WHOLE, Preparation, Workload, choose_preparation, sample_size

__all__ = [
    "CancelToken",
    "Counts",
    "Peak",
    "Plan",
    "Preparation",
    "ReverseTopk",
    "RowTally",
    "SearchResult",
    "SearchStatistics",
    "Searcher",
    "exact_scores",
    "measure_peak",
    "merge_topk",
    "plan_search",
    "resolve_isa",
    "supported_isa_levels",
]

Floats = NDArray[np.float32]
Ids = NDArray[np.int64]


class SearchError(DeepSSIMError):
    """A search got arrays that it cannot take."""


@contextlib.contextmanager
def _errors(kind: type[DeepSSIMError]) -> Iterator[None]:
    """Turn what the core refuses into errors of the package, of one line."""
    try:
        yield
    except _core.MemoryLimitTooSmall as error:
        raise MemoryLimitError(str(error), error.minimum_bytes) from error
    except MemoryError as error:
        raise MemoryLimitError("there is not enough memory for arrays of that size") from error
    except (AttributeError, IndexError, KeyError, OverflowError, TypeError, ValueError) as error:
        # The binding layer adds signatures and values on further lines.
        first, _, rest = str(error).partition("\n")
        raise kind(f"{first} Pass NumPy arrays and numbers that are 0 or more" if rest else first) from error


def _whole(**numbers: int) -> None:
    """Refuse numbers with a fraction, which the binding layer would cut off."""
    for name, number in numbers.items():
        try:
            operator.index(number)
        except TypeError:
            raise TypeError(f"{name} must be a whole number, not {number!r}".partition("\n")[0]) from None


@dataclass(frozen=True, slots=True)
class SearchStatistics:
    """How far pairs came; each stage discards by a proven bound.

    Attributes:
        n_pairs: Pairs scanned. Only this is the same on every machine.
        n_kept: Not discarded by the integer codes of the leading elements.
        n_refined: Of these, not discarded by the codes of all elements.
        n_rescored: Of these, not beaten before they were scored in float64.
        n_exact: Pairs that float64 did not decide: summed exactly.
    """

    n_pairs: int = 0
    n_kept: int = 0
    n_refined: int = 0
    n_rescored: int = 0
    n_exact: int = 0

    @classmethod
    def _from_core(cls, counts: dict[str, int]) -> SearchStatistics:
        return cls(**{f"n_{name}": value for name, value in counts.items()})

    def __add__(self, other: SearchStatistics) -> SearchStatistics:
        return SearchStatistics(
            *(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)),
        )


@dataclass(frozen=True, slots=True)
class SearchResult:
    """What one call of `Searcher.search` found. All arrays are new.

    Attributes:
        scores: ``(n_queries, k)``, best first, padded with -inf.
        ids: ``(n_queries, k)``, ties to the lower id, padded with -1.
        counts: ``(n_queries, n_thresholds)``: all pairs with score >= threshold.
        listed_scores: ``(n_queries, max_listed)``: the best pairs over the lowest threshold.
        listed_ids: Their base rows, padded with -1.
        statistics: How far pairs came.
    """

    scores: Floats
    ids: Ids
    counts: Ids
    listed_scores: Floats
    listed_ids: Ids
    statistics: SearchStatistics


@dataclass(frozen=True, slots=True)
class Counts:
    """Totals of `Searcher.count`: pairs at or over each threshold, and queries with at least one."""

    pairs: list[int]
    queries: list[int]


class Searcher:
    """Base rows, added once and searched any number of times.

    Rows are copied; nothing of the caller is kept. Searches may run in several threads at a time.

    Args:
        dim: Elements of a row, 1 to 65,536.
        capacity: Rows to make room for; the memory is taken at once.
        with_groups: Whether rows come with a group (-1: none known).
        id_offset: Ids are ``id_offset + index``.
        isa: Instruction-set level; empty: ``DEEPSSIM_ISA`` if set, else the best that runs here.
        expected_queries: Queries to expect over all searches: more make more preparation worth while. 0: as many
            as the first search brings.

    Raises:
        UsageError: The level does not run here, or a size cannot be.

    Example:
        >>> searcher = Searcher.of(np.eye(3, dtype=np.float32))
        >>> searcher.search(np.array([[0.5, 1, 0]], np.float32), 2).ids
        array([[1, 0]])
    """

    def __init__(
        self,
        dim: int,
        capacity: int,
        *,
        with_groups: bool = False,
        id_offset: int = 0,
        isa: str = "",
        expected_queries: int = 0,
    ) -> None:
        self._expected_queries = expected_queries
        self._is_rotated = False
        with _errors(UsageError):
            self._core = _core.Searcher(dim, capacity, with_groups=with_groups, id_offset=id_offset, isa=isa)

    @classmethod
    def of(cls, rows: Floats, groups: Ids | None = None, *, isa: str = "") -> Searcher:
        """Make a searcher that holds `rows` ``(n, dim)``, float32."""
        with _errors(SearchError):
            n, dim = np.shape(rows)
        searcher = cls(dim, n, with_groups=groups is not None, isa=isa)
        searcher.add(rows, groups)
        return searcher

    def __len__(self) -> int:
        return len(self._core)

    @property
    def dim(self) -> int:
        """Elements of a row."""
        return self._core.dim

    @property
    def id_offset(self) -> int:
        """Id of the first row."""
        return self._core.id_offset

    @property
    def isa(self) -> str:
        """The instruction-set level in use."""
        return self._core.isa

    def add(self, rows: Floats, groups: Ids | None = None) -> None:
        """Add base rows, all or none.

        Args:
            rows: ``(n, dim)`` float32 with contiguous rows, any row stride, possibly read-only.
            groups: ``(n,)`` int64 where the searcher has groups.

        Raises:
            SearchError: NaN, infinity or a norm above 2^63 (the message names the row), a wrong shape,
                dtype or stride, or no room left.
        """
        with _errors(SearchError):
            self._core.add(rows, groups)

    def prepare(self, preparation: Preparation = WHOLE, *, threads: int = 0) -> None:
        """Make the rows added so far ready for the scan; a search does so by itself, as its queries suggest.

        Changes how fast searches are, never what they find.

        Raises:
            SearchError: The rotation is not an orthogonal matrix of the rows' dimension.
            KeyboardInterrupt: Ctrl-C, within a second.
        """
        with _errors(SearchError):
            self._core.prepare(head=preparation.head, rotation=preparation.rotation, threads=threads)
        self._is_rotated = preparation.rotation is not None

    @property
    def codes(self) -> str:
        """How this level codes rows: levels with the same codes can share what was prepared."""
        return self._core.codes

    def prepared_header(self) -> dict[str, int]:
        """Return of what shape the prepared base is.

        Raises:
            SearchError: Nothing was prepared yet.
        """
        with _errors(SearchError):
            return self._core.prepared_header()

    def write_prepared(self, write: Callable[[memoryview], object]) -> None:
        """Call `write` for each piece of what was prepared; a piece is valid during its call only."""
        with _errors(SearchError):
            self._core.write_prepared(write)

    def read_prepared(self, read: Callable[[memoryview], object], header: dict[str, int]) -> None:
        """Take up what was prepared for the same rows: `read` fills each piece.

        Raises:
            SearchError: The header or the contents cannot be of these rows.
        """
        with _errors(SearchError):
            self._core.read_prepared(
                read,
                dim=header["dim"],
                rows=header["rows"],
                head=header["head"],
                is_rotated=bool(header["is_rotated"]),
            )
        self._is_rotated = bool(header["is_rotated"])

    def forget_prepared(self) -> None:
        """Drop what was prepared; the next search prepares again."""
        self._core.forget_prepared()
        self._is_rotated = False

    def _prepare_for(self, queries: Floats, k: int, thresholds: Sequence[float], threads: int) -> None:
        is_usable = isinstance(queries, np.ndarray) and queries.dtype == np.float32 and queries.ndim == 2
        if self._core.is_prepared() or not is_usable or queries.shape[1] != self.dim or not len(self):
            return  # where the queries cannot be taken the search says why
        workload = Workload(
            n_rows=len(self),
            n_queries=max(self._expected_queries, len(queries)),
            k=min(k, len(self)),
            threshold=min(thresholds, default=None),
            isa=self.isa,
        )
        rows = self._core.sample(sample_size(self.dim))
        self.prepare(choose_preparation(rows, queries, workload), threads=threads)

    def search(
        self,
        queries: Floats,
        k: int,
        *,
        max_per_group: int = 0,
        thresholds: Sequence[float] = (),
        max_listed: int = 0,
        query_groups: Ids | None = None,
        exclude_same_group: bool = False,
        exclude_same_id: bool = False,
        first_query: int = 0,
        tally: RowTally | None = None,
        reverse: ReverseTopk | None = None,
        cancel: CancelToken | None = None,
        threads: int = 0,
        memory_limit: int = 0,
    ) -> SearchResult:
        """Find each query's k best rows and, over the same scan, all pairs at or over thresholds.

        Args:
            queries: ``(n, dim)`` float32.
            k: Places of an answer; 0 and more than there are rows are legal.
            max_per_group: At most so many rows of one group in the k (0: no cap).
            thresholds: Ascending; a pair counts where score >= threshold, compared in float32.
            max_listed: Pairs over the lowest threshold to list for each query.
            query_groups: ``(n,)`` int64 groups of the queries, -1: none.
            exclude_same_group: Leave out pairs of the same known group.
            exclude_same_id: Leave out the pair of query ``first_query + i`` with the row of that id.
            first_query: Id of the first query.
            tally: Counts for each base row are added to it.
            reverse: Each row's best queries are added to it, over the same scan.
            cancel: Ends the search when set from another thread.
            threads: 0: all that this process may use.
            memory_limit: Bytes for base, workers and results (0: no limit).

        Raises:
            SearchError: Arrays that cannot be taken; the message names the row.
            MemoryLimitError: The limit is too small for so many queries; the message says what is enough.
            KeyboardInterrupt: Ctrl-C, within a second.
        """
        with _errors(SearchError):
            _whole(
                k=k,
                max_per_group=max_per_group,
                max_listed=max_listed,
                first_query=first_query,
                threads=threads,
                memory_limit=memory_limit,
            )
            if not isinstance(thresholds, str | bytes):
                thresholds = tuple(thresholds)  # a generator can be read once
            self._prepare_for(queries, k, thresholds, threads)
            scores, ids, counts, listed_scores, listed_ids, statistics = self._core.search(
                queries,
                k,
                max_per_group=max_per_group,
                thresholds=thresholds,
                max_listed=max_listed,
                query_groups=query_groups,
                exclude_same_group=exclude_same_group,
                exclude_same_id=exclude_same_id,
                first_query=first_query,
                tally=tally,
                reverse=reverse,
                cancel=cancel,
                threads=threads,
                memory_limit=memory_limit,
                may_rotate=self._is_rotated,
            )
        return SearchResult(
            scores,
            ids,
            counts,
            listed_scores,
            listed_ids,
            SearchStatistics._from_core(statistics),
        )

    def count(
        self,
        queries: Floats,
        thresholds: Sequence[float],
        *,
        tally: RowTally | None = None,
        first_query: int = 0,
        threads: int = 0,
    ) -> Counts:
        """Count pairs at or over thresholds without keeping any; see `search`."""
        with _errors(SearchError):
            pairs, hit, _ = self._core.count(queries, thresholds, tally=tally, first_query=first_query, threads=threads)
        return Counts(pairs, hit)


def merge_topk(scores: Floats, ids: Ids, groups: Ids | None = None, *, max_per_group: int = 0) -> tuple[Floats, Ids]:
    """Merge the answers of parts of a base into the answer of the whole.

    Associative and commutative: how a base was cut and in which order parts arrive changes nothing.

    Args:
        scores: ``(n_parts, n_queries, k)`` float32, padded with -inf.
        ids: The same shape, int64, padded with -1. A row must not occur in two parts.
        groups: The same shape, int64; needed with a cap.
        max_per_group: As in `Searcher.search`.

    Returns:
        Scores and ids ``(n_queries, k)``, new arrays.

    Example:
        >>> s = np.array([[[0.9, 0.1]], [[0.9, 0.5]]], np.float32)
        >>> merge_topk(s, np.array([[[4, 1]], [[3, 7]]]))[1]
        array([[3, 4]])
    """
    with _errors(SearchError):
        return _core.merge_topk(scores, ids, groups, max_per_group)


def exact_scores(a: Floats, b: Floats) -> Floats:
    """Return the score of each row of `a` ``(n, dim)`` with the same row of `b`, by exact summation.

    Example:
        >>> exact_scores(np.ones((1, 3), np.float32), np.ones((1, 3), np.float32))
        array([3.], dtype=float32)
    """
    with _errors(SearchError):
        return _core.exact_scores(a, b)


def plan_search(
    base_rows: int,
    dim: int,
    *,
    k: int = 0,
    max_listed: int = 0,
    levels: int = 0,
    with_groups: bool = False,
    with_cap: bool = False,
    with_tally: bool = False,
    with_rotation: bool = False,
    reverse_k: int = 0,
    with_reverse_cap: bool = False,
    threads: int = 0,
    memory_limit: int = 0,
    max_chunk_rows: int = 65536,
    isa: str = "",
) -> Plan:
    """Fit a search under a limit and say what it will allocate, in bytes.

    Raises:
        MemoryLimitError: No plan fits; the message names the smallest limit that does.

    Example:
        >>> plan_search(1000, 64, k=10, memory_limit=2**24).total_bytes <= 2**24
        True
    """
    with _errors(UsageError):
        return _core.plan_search(
            base_rows,
            dim,
            k=k,
            max_listed=max_listed,
            levels=levels,
            with_groups=with_groups,
            with_cap=with_cap,
            with_tally=with_tally,
            with_rotation=with_rotation,
            reverse_k=reverse_k,
            with_reverse_cap=with_reverse_cap,
            threads=threads,
            memory_limit=memory_limit,
            max_chunk_rows=max_chunk_rows,
            isa=isa,
        )


def supported_isa_levels() -> list[str]:
    """Return the instruction-set levels that this build has and this processor runs, best last."""
    return _core.supported_isa_levels()


def resolve_isa(requested: str = "") -> str:
    """Return the level a searcher would use: `requested`, else ``DEEPSSIM_ISA``, else the best.

    Raises:
        UsageError: The level is unknown or does not run here.
    """
    with _errors(UsageError):
        return _core.resolve_isa(requested)


@dataclass(frozen=True, slots=True)
class Peak:
    """Multiply-adds a second of loops that touch registers only: what no search can exceed.

    Attributes:
        integer: Of the instructions that the scan of this level uses.
        float32: Of this level's float32 instructions.
    """

    integer: float
    float32: float


def measure_peak(isa: str = "", *, threads: int = 0) -> Peak:
    """Measure what this processor can do at an instruction-set level, on `threads` threads at a time (0: all)."""
    with _errors(UsageError):
        found = _core.measure_peak(isa, threads)
    return Peak(found["integer"], found["float32"])


def usable_processors() -> int:
    """Return the number of processors that this process may use."""
    return _core.usable_processors()
