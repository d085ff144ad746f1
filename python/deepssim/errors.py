"""Errors that a user can act on.

Every error that the package raises on purpose derives from `DeepSSIMError` and carries one line that
says what is wrong, where (file, row), and what to do next, plus the exit code of the command line.
"""

from __future__ import annotations

from typing import ClassVar


class DeepSSIMError(Exception):
    """Base of all errors raised on purpose; the message is one line for a person."""

    exit_code: ClassVar[int] = 1


class UsageError(DeepSSIMError):
    """What was asked for cannot be done as it was said: options, paths or manifests to change."""

    exit_code = 2


class ImageError(DeepSSIMError):
    """One image cannot be used; `code` is a stable word for the kind of reason.

    Args:
        code: One of the words in `deepssim.images.SKIP_CODES`.
        reason: One line for a person.
    """

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(reason)
        self.code = code


class StreamError(DeepSSIMError):
    """A stream of images breaks off, is damaged or is empty; what came before is kept."""


class StoreError(DeepSSIMError):
    """A store of embeddings is missing, damaged, stale or of another metric."""


class MetricError(DeepSSIMError):
    """A metric bundle or its calibration cannot be read, trusted or run."""


class MissingDependencyError(DeepSSIMError):
    """An optional package is needed; the message names the line that installs it."""


class MemoryLimitError(DeepSSIMError):
    """A memory limit is too small; the message names the smallest that is enough.

    Args:
        message: One line for a person.
        minimum_bytes: The smallest limit that is enough, where it is known.
    """

    exit_code = 2

    def __init__(self, message: str, minimum_bytes: int | None = None) -> None:
        super().__init__(message)
        self.minimum_bytes = minimum_bytes
