"""How long work tells its caller where it is; what is shown, and where, is the caller's business."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Protocol


class Progress(Protocol):
    """Told of what is done."""

    def status(self, text: str) -> None:
        """Take one line for a person."""

    def track(self, what: str, total: int) -> contextlib.AbstractContextManager[Callable[[int], None]]:
        """Open a task of about `total` steps (0: nobody knows); the function it gives is called with steps done."""


class Silent:
    """Shows nothing."""

    def status(self, text: str) -> None:
        """Drop the line."""

    @contextlib.contextmanager
    def track(self, what: str, total: int) -> Iterator[Callable[[int], None]]:
        """Drop the steps."""
        yield lambda _: None
