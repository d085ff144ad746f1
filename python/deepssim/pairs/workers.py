"""Processes for work that threads cannot share: many small steps in Python and NumPy."""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from typing import Any

__all__ = ["Map", "working"]

Map = Callable[[Callable[[Any], Any], Sequence[Any]], list[Any]]


@contextmanager
def working(n: int) -> Iterator[Map]:
    """Give what applies a function to items on so many processes; 0 and 1: in this one.

    Function, items and results travel between processes, so they must be picklable, and a script that is run directly
    needs ``if __name__ == "__main__":`` round what it does, as `multiprocessing` says.

    Example:
        >>> with working(0) as apply:
        ...     apply(abs, [-1, 2])
        [1, 2]
    """
    if n <= 1:
        yield lambda function, items: [function(item) for item in items]
        return
    # Not forked: threads of this process may hold locks that nobody would release there.
    with ProcessPoolExecutor(n, multiprocessing.get_context("spawn"), initializer=_begin) as pool:
        yield lambda function, items: list(pool.map(function, items))


def _begin() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process that waits for the results takes it
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()


def _end_with(sentinel: int) -> None:
    """Wait for the process that started this one to be killed: nobody else would end this one then."""
    multiprocessing.connection.wait([sentinel])
    os._exit(1)
