"""Drawing pairs evenly from bins of their similarity, out of more pairs than memory holds.

Every pair has a priority: a pseudo-random number that its two places and the seed decide. A bin keeps those of its
pairs that come first, so what is drawn depends neither on the order in which pairs are shown nor on how they are cut
into blocks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deepssim.errors import UsageError

__all__ = ["N_BINS", "ONE", "Drawn", "EvenDraw", "bin_of", "even_shares", "to_micros"]

ONE = 1_000_000
N_BINS = 20
_BIN_WIDTH = ONE // 10
_LEAST_ROOM = 2**18
_NO_LIMIT = np.uint64(2**64 - 1)
_ORDER = 1

Micros = NDArray[np.int32]
Indices = NDArray[np.int64]


def to_micros(similarity: NDArray[np.floating]) -> Micros:
    """Round similarities, -1 to 1, to millionths: what is written is what the bins were decided by.

    Example:
        >>> to_micros(np.array([0.5, 1.0000001, -1.0])).tolist()
        [500000, 1000000, -1000000]
    """
    rounded = np.rint(np.asarray(similarity, np.float64) * ONE)
    return np.asarray(np.clip(rounded, -ONE, ONE), np.int32)


def bin_of(micros: Micros) -> Indices:
    """Return the bin, 0 to 19, of similarities in millionths: tenths from -1 on; 1 belongs to the last.

    Example:
        >>> bin_of(to_micros(np.array([-1.0, -0.05, 0.3, 0.999, 1.0]))).tolist()
        [0, 9, 13, 19, 19]
    """
    return np.asarray(np.minimum((micros.astype(np.int64) + ONE) // _BIN_WIDTH, N_BINS - 1), np.int64)


def even_shares(counts: Indices, n: int) -> Indices:
    """Divide a number of draws evenly over bins that hold so many.

    A bin with too few gives all that it has, and what it lacks falls to the others; of what cannot be divided the
    highest bins get one more.

    Example:
        >>> even_shares(np.array([100, 2, 0, 100]), 11).tolist()
        [4, 2, 0, 5]
    """
    low, high = 0, int(counts.max(initial=0))
    if int(counts.sum()) <= n:
        return counts.copy()
    while low < high:  # the highest level that all bins together can be filled to
        level = (low + high + 1) // 2
        low, high = (level, high) if int(np.minimum(counts, level).sum()) <= n else (low, level - 1)
    shares = np.minimum(counts, low)
    fuller = np.flatnonzero(counts > low)[::-1]
    shares[fuller[: n - int(shares.sum())]] += 1
    return shares


@dataclass(frozen=True, slots=True, eq=False)
class Drawn:
    """Pairs in a random order that the seed decides.

    Attributes:
        first: ``(n,)`` int64: place of each pair's first image.
        second: ``(n,)`` int64: of its second.
        micros: ``(n,)`` int32: their similarity in millionths.
    """

    first: Indices
    second: Indices
    micros: Micros

    def __len__(self) -> int:
        return len(self.micros)


class EvenDraw:
    """Draws pairs evenly from the bins of their similarity; each pair is shown once.

    Memory grows with the number that is to be drawn, not with that of the pairs shown.

    Args:
        n: How many pairs to draw.
        seed: Of the draw.

    Attributes:
        counts: ``(N_BINS,)`` int64: pairs shown so far, by bin.

    Example:
        >>> draw = EvenDraw(4, seed=0)
        >>> draw.add(np.arange(5), np.arange(5), to_micros(np.array([0.1, 0.1, 0.1, 0.1, 0.9])))
        >>> sorted(draw.finish().micros.tolist())
        [100000, 100000, 100000, 900000]
    """

    def __init__(self, n: int, seed: int) -> None:
        self.n = n
        self.counts: Indices = np.zeros(N_BINS, np.int64)
        self._salt = _mixed(np.array([seed % 2**64], np.uint64))
        self._limits = np.full(N_BINS, _NO_LIMIT)  # the last priority that a bin still takes
        self._pairs: list[NDArray[np.uint64]] = []
        self._micros: list[Micros] = []
        self._held = 0

    def add(self, first: Indices, second: Indices, micros: Micros) -> None:
        """Show pairs: ``(m,)`` arrays, places from 0 to 2^32 - 1."""
        bins = bin_of(micros)
        self.counts += np.bincount(bins, minlength=N_BINS)
        pairs = np.asarray(first, np.uint64) << np.uint64(32) | np.asarray(second, np.uint64)
        kept = self._priorities(pairs) <= self._limits[bins]
        self._pairs.append(pairs[kept])
        self._micros.append(micros[kept])
        self._held += len(self._pairs[-1])
        if self._held > max(_LEAST_ROOM, 2 * self.n):
            # One more than a bin's share now: of a number that cannot be divided it may get one more later.
            self._keep(np.minimum(self.counts, even_shares(self.counts, self.n) + 1))

    def finish(self) -> Drawn:
        """Return what is drawn of the pairs shown so far."""
        self._keep(even_shares(self.counts, self.n))
        pairs, micros = self._pairs[0], self._micros[0]
        # Not by priority: bins with many pairs would come first.
        order = np.argsort(_mixed(self._priorities(pairs) + np.uint64(_ORDER)))
        first, second = pairs >> np.uint64(32), pairs & np.uint64(2**32 - 1)
        return Drawn(first[order].astype(np.int64), second[order].astype(np.int64), micros[order])

    def state(self) -> dict[str, NDArray[np.generic]]:
        """Return arrays from which `restore` makes an equal draw."""
        self._join()
        return {"counts": self.counts, "limits": self._limits, "pairs": self._pairs[0], "micros": self._micros[0]}

    def restore(self, state: Mapping[str, NDArray[np.generic]]) -> None:
        """Go on from a `state` of a draw with the same number and seed.

        Raises:
            UsageError: It is no such state.
        """
        try:
            self.counts, self._limits = state["counts"].astype(np.int64), state["limits"].astype(np.uint64)
            self._pairs, self._micros = [state["pairs"].astype(np.uint64)], [state["micros"].astype(np.int32)]
        except KeyError as error:
            raise UsageError(f"the state of a draw lacks {error}: remove it and start again") from error
        self._held = len(self._pairs[0])

    def _priorities(self, pairs: NDArray[np.uint64]) -> NDArray[np.uint64]:
        return _mixed(pairs ^ self._salt)

    def _join(self) -> None:
        self._pairs = [np.concatenate([np.zeros(0, np.uint64), *self._pairs])]
        self._micros = [np.concatenate([np.zeros(0, np.int32), *self._micros])]

    def _keep(self, shares: Indices) -> None:
        """Keep so many pairs of each bin, those of the first priorities."""
        self._join()
        pairs, micros = self._pairs[0], self._micros[0]
        bins, priorities = bin_of(micros), self._priorities(pairs)
        order = np.lexsort((priorities, bins))
        starts = np.searchsorted(bins[order], np.arange(N_BINS))
        rank = np.arange(len(order)) - starts[bins[order]]
        kept = order[rank < shares[bins[order]]]
        self._pairs, self._micros, self._held = [pairs[kept]], [micros[kept]], len(kept)
        for b in np.flatnonzero(np.bincount(bins[kept], minlength=N_BINS) == shares).tolist():
            self._limits[b] = (
                priorities[kept][bins[kept] == b].max(initial=0) if shares[b] < self.counts[b] else _NO_LIMIT
            )


def _mixed(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Scramble 64-bit numbers, one to one, so that no two pairs have one priority.

    The finaliser of SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014,
    figure 16).
    """
    mixed = values ^ (values >> np.uint64(30))
    mixed = mixed * np.uint64(0xBF58476D1CE4E5B9)
    mixed ^= mixed >> np.uint64(27)
    mixed *= np.uint64(0x94D049BB133111EB)
    mixed ^= mixed >> np.uint64(31)
    return mixed
