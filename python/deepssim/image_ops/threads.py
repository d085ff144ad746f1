"""Calls of the core on several threads."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from deepssim import _core

__all__ = ["map_on_threads"]

Item = TypeVar("Item")
Result = TypeVar("Result")


def map_on_threads(function: Callable[[Item], Result], items: Iterable[Item], threads: int) -> list[Result]:
    """Apply a function that works in the core, without the GIL, to many items.

    Args:
        function: What to do with one.
        items: All are taken at once.
        threads: How many; 0 takes all processors that this process may use.

    Returns:
        The results, in the order of the items.

    Raises:
        ValueError: `threads` is negative.

    Example:
        >>> map_on_threads(abs, [-1, 2], threads=2)
        [1, 2]
    """
    if threads < 0:
        raise ValueError(f"threads is {threads}; give 0 for all processors, or a number of them")
    waiting = list(items)
    n_threads = min(len(waiting), threads or _core.usable_processors())
    if n_threads <= 1:  # a pool takes longer to start than a small image to be done
        return [function(item) for item in waiting]
    with ThreadPoolExecutor(n_threads) as pool:
        return list(pool.map(function, waiting))
