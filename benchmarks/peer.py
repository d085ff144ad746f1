"""What every way to search has in common, for those that implement one and those that run them."""

from __future__ import annotations

import importlib.metadata
from abc import ABC, abstractmethod
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from benchmarks.data import Floats

Answer = tuple[np.ndarray, np.ndarray]


class Peer(ABC):
    """One way to search. Subclasses say how; `threads` is what both steps may use.

    Attributes:
        packages: Distributions whose versions a result must state.
    """

    packages: tuple[str, ...] = ()

    def __init__(self, threads: int, options: dict[str, Any]) -> None:
        self.threads = threads
        self.options = options

    @classmethod
    def environment(cls, threads: int) -> dict[str, str]:
        """Return variables that must be set before the library is imported."""
        return {"OMP_NUM_THREADS": str(threads)}

    def tune(self, base: Floats, queries: Floats, k: int) -> None:  # noqa: B027 (most peers have nothing to tune)
        """Learn what is to be searched; try configurations on it and keep the fastest."""

    @abstractmethod
    def prepare(self, base: Floats) -> None:
        """Index the base rows, replacing any before."""

    @abstractmethod
    def search(self, queries: Floats, k: int) -> Answer:
        """Return ids and scores ``(n_queries, k)``, best first."""

    def describe(self) -> dict[str, Any]:
        """Return the configuration in use and versions."""
        return {"versions": {name: importlib.metadata.version(name) for name in self.packages}}

    def statistics(self) -> dict[str, Any]:
        """Return counters of the last search."""
        return {}

    def peaks(self) -> dict[str, float]:
        """Return multiply-adds per second that this processor reaches at most, by kind."""
        return {}

    def map_blocks(self, search: Callable[[Floats], Answer], queries: Floats, rows: int) -> Answer:
        """Search blocks of queries in `threads` threads. The libraries used release the GIL."""
        blocks = [queries[first : first + rows] for first in range(0, len(queries), rows)]
        with ThreadPoolExecutor(self.threads) as pool:
            answers = list(pool.map(search, blocks))
        return np.concatenate([ids for ids, _ in answers]), np.concatenate([scores for _, scores in answers])
