"""Reading while computing: the next item is made by a thread while the caller works on this one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

__all__ = ["read_ahead"]

Key = TypeVar("Key")
Item = TypeVar("Item")


def read_ahead(keys: Iterable[Key], read: Callable[[Key], Item]) -> Iterator[Item]:
    """Yield ``read(key)`` of each key in order, one of them ahead.

    While the caller holds an item, the next one is read, and no other: two buffers in turn are enough. What
    `read` raises comes out where its item would have come.

    Example:
        >>> list(read_ahead([1, 2, 3], lambda n: n * n))
        [1, 4, 9]
    """
    with ThreadPoolExecutor(1, thread_name_prefix="read-ahead") as pool:
        waiting = None
        for key in keys:
            # The item before is the caller's no more once this runs: its buffer may be filled again.
            coming = pool.submit(read, key)
            if waiting is not None:
                yield waiting.result()
            waiting = coming
        if waiting is not None:
            yield waiting.result()
