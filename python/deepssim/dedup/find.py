"""SemDeDup: which images of a set repeat others of the set, so that one of each group can be kept.

The procedure is that of Abbas et al. 2023 (arXiv 2303.09540, section 3 and algorithm A7): k-means of embeddings of unit
norm; within a cluster the cosine of all pairs; images in the order of their likeness to the centroid, least like first;
an image is removed where its cosine with any image before it, kept or not, is above 1 - epsilon. Two differences: the
k-means is scikit-learn's (Euclidean, of unit vectors, centroids normalised at the end) where the paper's is spherical,
and cosines are exact, by the search of this package. Clusters only save comparisons: pairs across them are missed, and
how many is counted where all pairs can be compared (`Comparison`); one cluster misses none.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from deepssim.calibration import Threshold
from deepssim.embed import NORM_TOLERANCE
from deepssim.errors import MemoryLimitError, MissingDependencyError, StoreError, UsageError
from deepssim.progress import Progress, Silent
from deepssim.search import Searcher
from deepssim.store import Store

__all__ = [
    "KEEP",
    "LEVELS",
    "Comparison",
    "DedupOptions",
    "Duplicates",
    "Earlier",
    "closest_earlier",
    "deduplicate",
]

Keep = Literal["farthest", "nearest", "first"]
KEEP: tuple[Keep, ...] = ("farthest", "nearest", "first")

# The paper puts 440 million images into 50,000 clusters.
IMAGES_PER_CLUSTER = 8800
LEVELS = (0.8, 0.85, 0.9, 0.925, 0.95, 0.97, 0.98, 0.99, 0.999)

# Images that k-means learns from, for each cluster and at least; its iterations: the paper's.
SAMPLE_PER_CLUSTER, LEAST_SAMPLE, ITERATIONS = 256, 20_000, 100
# All pairs of so many images are compared for the sake of the comparison, if nothing else is said.
MOST_COMPARED = 100_000
# Up to so many rows all scores are listed; more are halved.
LEAF = 256
READ_ROWS = 4096
# Bytes that finding duplicates takes for each element of a row: the row, and half of the rows again, coded.
BYTES_PER_ELEMENT = 8

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class DedupOptions:
    """How to look for duplicates.

    Attributes:
        threshold: Cosine above which two images are duplicates, 1 - epsilon of the paper.
        clusters: Of k-means; None: one for every 8,800 images, as in the paper; 1: all pairs are compared.
        keep: Which image of a group stays: the one ``"farthest"`` from the centroid (the paper's), the ``"nearest"``,
            or the ``"first"`` of the store.
        seed: Of k-means.
        levels: Thresholds beside `threshold` at which removals are counted.
        compare: Whether all pairs are compared too, to count what the clusters missed; None: up to 100,000 images,
            where memory suffices.
        memory_limit: Bytes for embeddings held at a time; 0: no limit.
        threads: 0: all that this process may use. No answer depends on it.

    Raises:
        UsageError: A value cannot be.
    """

    threshold: float = 0.95
    clusters: int | None = None
    keep: Keep = "farthest"
    seed: int = 0
    levels: tuple[float, ...] = LEVELS
    compare: bool | None = None
    memory_limit: int = 2 * 2**30
    threads: int = 0

    def __post_init__(self) -> None:
        if self.keep not in KEEP:
            raise UsageError(f"keep one of {', '.join(KEEP)}, not {self.keep!r}")
        for value in (self.threshold, *self.levels):
            if not -1 <= value < 1:
                raise UsageError(f"a threshold of duplicates is a cosine from -1 to less than 1, not {value}")
        if self.clusters is not None and self.clusters < 1:
            raise UsageError(f"there must be at least 1 cluster, not {self.clusters}")

    def all_levels(self) -> tuple[float, ...]:
        """Return the thresholds that are counted at, ascending, `threshold` among them."""
        return tuple(sorted({*self.levels, self.threshold}))


@dataclass(frozen=True, slots=True)
class Earlier:
    """Of each row the closest of those before it.

    Attributes:
        scores: ``(n,)`` float32, -inf for the first row.
        places: ``(n,)`` which row that is, of equal ones the first; -1 for the first row.
        pairs: ``(n_levels,)`` pairs of rows above each level.
    """

    scores: Floats
    places: Ints
    pairs: Ints


@dataclass(frozen=True, slots=True)
class Comparison:
    """What comparing all pairs finds, in the same order of images.

    Attributes:
        removed: ``(n_levels,)`` images that would be removed: those of the clusters and more.
        pairs: ``(n_levels,)`` pairs above each level.
        left: Images kept by the clusters of which all pairs would remove still more.
    """

    removed: Ints
    pairs: Ints
    left: int


@dataclass(frozen=True, slots=True)
class Duplicates:
    """Which images of a store repeat others.

    Attributes:
        options: How they were looked for.
        cluster: ``(n,)`` cluster of each image.
        centrality: ``(n,)`` its cosine with the centroid.
        earlier: ``(n,)`` the closest image before it in its cluster, -1: none.
        score: ``(n,)`` cosine with that one, -inf: none. The image is removed where it is above the threshold.
        kept: ``(n,)`` the image that stays for it: itself, or of a removed one the closest kept one of its cluster.
        kept_score: ``(n,)`` cosine with that one, 1 for a kept image.
        pairs: ``(n_levels,)`` pairs within clusters above each of `DedupOptions.all_levels`.
        n_sample: Images that k-means learnt from; 0: there was none.
        comparison: With all pairs; None: not made.
    """

    options: DedupOptions
    cluster: Ints
    centrality: Floats
    earlier: Ints
    score: Floats
    kept: Ints
    kept_score: Floats
    pairs: Ints
    n_sample: int = 0
    comparison: Comparison | None = field(default=None)

    @property
    def is_removed(self) -> NDArray[np.bool_]:
        """Which images repeat others, ``(n,)``."""
        return np.asarray(self.kept != np.arange(len(self.kept)))

    @property
    def removed(self) -> Ints:
        """Images removed at each of `DedupOptions.all_levels`, ``(n_levels,)``."""
        return _count(self.score, self.options.all_levels())

    @property
    def n_chained(self) -> int:
        """Removed images of which no kept one is above the threshold: they are like one that was itself removed."""
        return int((self.is_removed & (self.kept_score < _cut(self.options.threshold))).sum())


def _cut(level: float) -> float:
    return Threshold(level, ">").cut()


def _count(scores: Floats, levels: Sequence[float]) -> Ints:
    return np.array([int((scores >= _cut(level)).sum()) for level in levels], np.int64)


def closest_earlier(rows: Floats, levels: Sequence[float] = (), *, threads: int = 0) -> Earlier:
    """Find of each row the closest of those before it, and count pairs.

    The upper triangle of all pairs is cut into squares, halving: each is one search, so no matrix is held.

    Args:
        rows: ``(n, dim)`` float32.
        levels: Ascending; a pair counts where its score is above.
        threads: 0: all that this process may use.

    Example:
        >>> found = closest_earlier(np.array([[1, 0], [0, 1], [0.6, 0.8]], np.float32), [0.7])
        >>> found.places.tolist(), found.pairs.tolist()
        ([-1, 0, 1], [1])
    """
    cuts = [_cut(level) for level in levels]
    scores, places = np.full(len(rows), -np.inf, np.float32), np.full(len(rows), -1, np.int64)
    pairs = np.zeros(len(cuts), np.int64)
    spans = [(0, len(rows))]
    while spans:
        first, end = spans.pop()
        if end - first <= LEAF:
            found, ids = _within_leaf(rows[first:end], cuts, pairs, threads)
            part = slice(first, end)
        else:
            middle = (first + end) // 2
            spans += [(first, middle), (middle, end)]
            answer = Searcher.of(rows[first:middle]).search(rows[middle:end], 1, thresholds=cuts, threads=threads)
            pairs += answer.counts.sum(axis=0)
            found, ids = answer.scores[:, 0], answer.ids[:, 0]
            part = slice(middle, end)
        ids = np.where(ids >= 0, ids + first, -1)
        is_better = (found > scores[part]) | ((found == scores[part]) & (ids >= 0) & (ids < places[part]))
        scores[part] = np.where(is_better, found, scores[part])
        places[part] = np.where(is_better, ids, places[part])
    return Earlier(scores, places, pairs)


def _within_leaf(rows: Floats, cuts: Sequence[float], pairs: Ints, threads: int) -> tuple[Floats, Ints]:
    """Return score and place of the closest earlier row of few rows; counts pairs in place."""
    n = len(rows)
    if n == 0:
        return np.zeros(0, np.float32), np.zeros(0, np.int64)
    answer = Searcher.of(rows).search(rows, n, threads=threads)
    matrix = np.empty((n, n), np.float32)
    np.put_along_axis(matrix, answer.ids, answer.scores, axis=1)
    matrix[np.triu_indices(n)] = -np.inf
    pairs += np.array([int((matrix >= cut).sum()) for cut in cuts], np.int64)
    places = matrix.argmax(axis=1).astype(np.int64)
    places[0] = -1
    return matrix.max(axis=1), places


def deduplicate(store: Store, options: DedupOptions, *, progress: Progress | None = None) -> Duplicates:
    """Find the images of a store that repeat others of it.

    Args:
        store: Embeddings; rows that are not of unit norm are brought to it.
        options: How.
        progress: Told where it is.

    Raises:
        UsageError: There are more clusters than images.
        StoreError: A row is zero or no number.
        MemoryLimitError: A cluster, or the sample of k-means, does not fit; the message says what does.
        MissingDependencyError: There is more than one cluster, and no scikit-learn.
    """
    say = progress or Silent()
    n_clusters = options.clusters or max(1, round(len(store) / IMAGES_PER_CLUSTER))
    if n_clusters > len(store):
        raise UsageError(f"{n_clusters:,} clusters are more than the {len(store):,} images: ask for fewer")
    rows = _Rows(store)
    is_compared = n_clusters > 1 and _is_compared(rows, options)  # a limit that is too small is said before the work
    centroids, n_sample = _centroids(rows, n_clusters, options, say)
    cluster, centrality = _assign(rows, centroids, options, say)
    order, ends = _ordered(cluster, centrality, options.keep)
    levels, cut = options.all_levels(), _cut(options.threshold)
    earlier, kept = np.full(len(store), -1, np.int64), np.arange(len(store))
    score, kept_score = np.full(len(store), -np.inf, np.float32), np.ones(len(store), np.float32)
    pairs = np.zeros(len(levels), np.int64)
    with say.track("comparing within clusters", len(store)) as advance:
        for own, embeddings in _clusters(rows, order, ends, options):
            found = closest_earlier(embeddings, levels, threads=options.threads)
            pairs += found.pairs
            score[own], earlier[own] = found.scores, np.where(found.places >= 0, own[found.places], -1)
            is_removed = found.scores >= cut
            if is_removed.any():
                nearest = Searcher.of(embeddings[~is_removed]).search(
                    embeddings[is_removed], 1, threads=options.threads
                )
                kept[own[is_removed]] = own[~is_removed][nearest.ids[:, 0]]
                kept_score[own[is_removed]] = nearest.scores[:, 0]
            advance(len(own))
    comparison = _compare(rows, centrality, score < cut, options, say) if is_compared else None
    return Duplicates(options, cluster, centrality, earlier, score, kept, kept_score, pairs, n_sample, comparison)


class _Rows:
    """Rows of a store, brought to unit norm as they are read."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def __len__(self) -> int:
        return len(self.store)

    @property
    def dim(self) -> int:
        return self.store.dim

    def chunks(self) -> Iterator[tuple[int, Floats]]:
        """Yield (first row, rows); the array is overwritten by the next step."""
        for first, part in self.store.chunks(READ_ROWS):
            yield first, self._unit(first, part)

    def take(self, wanted: Ints) -> Floats:
        """Return some rows, in the order asked for."""
        out = np.empty((len(wanted), self.dim), np.float32)
        places = np.argsort(wanted, kind="stable")
        ascending = wanted[places]
        done = 0
        while done < len(wanted):
            first = int(ascending[done])
            end = int(np.searchsorted(ascending, first + READ_ROWS))
            buffer = np.empty((int(ascending[end - 1]) + 1 - first, self.dim), np.float32)
            self.store.read_rows(first, buffer)
            out[places[done:end]] = self._unit(first, buffer)[ascending[done:end] - first]
            done = end
        return out

    def _unit(self, first: int, part: Floats) -> Floats:
        with np.errstate(over="ignore", invalid="ignore"):
            norms = np.linalg.norm(part.astype(np.float64), axis=1)
        bad = np.flatnonzero(~((norms > 0) & np.isfinite(norms)))
        if len(bad):
            raise StoreError(
                f"row {first + int(bad[0])} of {self.store.path} is zero or no number, so it has no cosine: "
                "embed the images again"
            )
        other = np.flatnonzero(np.abs(norms - 1) > NORM_TOLERANCE)
        if len(other):
            part[other] = part[other] / norms[other, None]
        return part


def _centroids(rows: _Rows, n_clusters: int, options: DedupOptions, say: Progress) -> tuple[Floats, int]:
    """Return centroids of unit norm ``(n_clusters, dim)``, and of how many images k-means made them (0: none)."""
    if n_clusters == 1:
        total = np.zeros(rows.dim, np.float64)
        for _, part in rows.chunks():
            total += part.sum(axis=0, dtype=np.float64)
        return _unit_rows(total[None]), 0
    try:
        from sklearn.cluster import KMeans
    except ImportError as error:
        raise MissingDependencyError(
            f"k-means needs scikit-learn ({error}): pip install scikit-learn (the extra research of deepssim has it), "
            "or compare all pairs with --exact"
        ) from error
    wanted = min(len(rows), max(SAMPLE_PER_CLUSTER * n_clusters, LEAST_SAMPLE))
    needed = BYTES_PER_ELEMENT * rows.dim * wanted
    if options.memory_limit and needed > options.memory_limit:
        raise MemoryLimitError(
            f"k-means of {wanted:,} images takes {needed:,} bytes, the limit is {options.memory_limit:,}: "
            "raise --memory-limit or ask for fewer --clusters",
            needed,
        )
    sample = np.sort(np.random.default_rng(options.seed).choice(len(rows), wanted, replace=False))
    say.status(f"k-means: {n_clusters:,} clusters of {wanted:,} images")
    means = KMeans(n_clusters, n_init=1, max_iter=ITERATIONS, random_state=options.seed, algorithm="lloyd")
    # Several threads add up in the order in which they end, and so would the last bits of the centroids change.
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # fewer distinct images than clusters: some stay empty, and are not counted
        means.fit(rows.take(sample))
    return _unit_rows(np.unique(means.cluster_centers_.astype(np.float64), axis=0)), wanted


def _unit_rows(rows: NDArray[np.float64]) -> Floats:
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    unit = np.divide(rows, norms, out=np.zeros_like(rows), where=norms > 0)
    return np.asarray(unit, np.float32)


def _assign(rows: _Rows, centroids: Floats, options: DedupOptions, say: Progress) -> tuple[Ints, Floats]:
    """Return of each row the centroid with the highest cosine, of equal ones the first, and that cosine."""
    cluster, centrality = np.empty(len(rows), np.int64), np.empty(len(rows), np.float32)
    searcher = Searcher.of(centroids)
    with say.track("assigning to clusters", len(rows)) as advance:
        for first, part in rows.chunks():
            found = searcher.search(part, 1, threads=options.threads)
            cluster[first : first + len(part)] = found.ids[:, 0]
            centrality[first : first + len(part)] = found.scores[:, 0]
            advance(len(part))
    # Numbered anew without those that nothing is nearest to.
    return np.unique(cluster, return_inverse=True)[1].astype(np.int64), centrality


def _ordered(cluster: Ints, centrality: Floats, keep: Keep) -> tuple[Ints, Ints]:
    """Return the rows by cluster and, in it, in the order in which they are kept; and where each cluster ends.

    Equal ones stay in the order of the store.
    """
    value = {"farthest": centrality, "nearest": -centrality, "first": np.zeros_like(centrality)}[keep]
    order = np.lexsort((np.arange(len(cluster)), value, cluster)).astype(np.int64)
    return order, np.cumsum(np.bincount(cluster)).astype(np.int64)


def _clusters(rows: _Rows, order: Ints, ends: Ints, options: DedupOptions) -> Iterator[tuple[Ints, Floats]]:
    """Yield (rows of the store, embeddings) of each cluster; as many as fit are read in one pass."""
    most = options.memory_limit // (BYTES_PER_ELEMENT * rows.dim) if options.memory_limit else len(rows)
    sizes = np.diff(ends, prepend=0)
    if sizes.max(initial=0) > most:
        needed = int(sizes.max()) * BYTES_PER_ELEMENT * rows.dim
        raise MemoryLimitError(
            f"the largest cluster has {int(sizes.max()):,} images, which take {needed:,} bytes, the limit is "
            f"{options.memory_limit:,}: raise --memory-limit or ask for more --clusters",
            needed,
        )
    begin = first = 0  # row of `order`, cluster
    while first < len(ends):
        last = int(np.searchsorted(ends, begin + most, side="right"))
        held = order[begin : ends[last - 1]]
        embeddings = rows.take(held)
        for end in (ends[first:last] - begin).tolist():
            start = end - int(sizes[first])
            yield held[start:end], embeddings[start:end]
            first += 1
        begin = int(ends[last - 1])


def _is_compared(rows: _Rows, options: DedupOptions) -> bool:
    fits = not options.memory_limit or BYTES_PER_ELEMENT * rows.dim * len(rows) <= options.memory_limit
    if options.compare and not fits:
        raise MemoryLimitError(
            f"comparing all pairs takes {BYTES_PER_ELEMENT * rows.dim * len(rows):,} bytes, the limit is "
            f"{options.memory_limit:,}: raise --memory-limit, or leave --compare out",
            BYTES_PER_ELEMENT * rows.dim * len(rows),
        )
    return fits and len(rows) <= MOST_COMPARED if options.compare is None else options.compare


def _compare(
    rows: _Rows, centrality: Floats, is_kept: NDArray[np.bool_], options: DedupOptions, say: Progress
) -> Comparison:
    """Look at all pairs, in an order that is the clusters' own in each of them: whatever differs, clusters missed."""
    say.status("comparing all pairs, to count what the clusters missed")
    order, _ = _ordered(np.zeros(len(rows), np.int64), centrality, options.keep)
    levels = options.all_levels()
    embeddings = rows.take(order)
    found = closest_earlier(embeddings, levels, threads=options.threads)
    left = closest_earlier(embeddings[is_kept[order]], threads=options.threads)
    return Comparison(_count(found.scores, levels), found.pairs, int(_count(left.scores, (options.threshold,))[0]))
