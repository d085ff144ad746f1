"""Several processes that train together: what fails on one ends them all, and what one knows all know."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, gather_object

from deepssim.errors import DeepSSIMError, UsageError

__all__ = ["ElsewhereError", "for_all", "from_main", "together"]

T = TypeVar("T")


class ElsewhereError(DeepSSIMError):
    """This process ends for what the main one says."""


def together(accelerator: Accelerator, work: Callable[[], T]) -> T:
    """Do work on every process; where it fails on one, all raise, so that none waits for another.

    Args:
        accelerator: Knows the processes.
        work: The same on all; it must not wait for other processes.

    Raises:
        DeepSSIMError: Of the main process its own error, else that of the first process that has one.
        ElsewhereError: On every other process.
    """
    if accelerator.num_processes == 1:
        return work()
    try:
        value, error = work(), None
    except DeepSSIMError as caught:
        value, error = None, caught
    errors = gather_object([None if error is None else str(error)])
    first = next((process for process, text in enumerate(errors) if text is not None), None)
    if first is None:
        return value  # type: ignore[return-value]
    if not accelerator.is_main_process:
        raise for_all(accelerator, errors[first]) from error
    raise error or UsageError(f"process {first}: {errors[first]}")


def for_all(accelerator: Accelerator, text: str) -> DeepSSIMError:
    """Return an error that every process is about to raise: a UsageError on the main one, which says it."""
    if accelerator.is_main_process:
        return UsageError(text)
    return ElsewhereError(f"process {accelerator.process_index} ends: the main process says why")


def from_main(accelerator: Accelerator, work: Callable[[], T]) -> T:
    """Return what the main process computes; the others wait for it.

    Raises:
        DeepSSIMError: See `together`.
    """
    value = together(accelerator, lambda: work() if accelerator.is_main_process else None)
    if accelerator.num_processes > 1:
        return broadcast_object_list([value])[0]  # type: ignore[no-any-return]
    return value  # type: ignore[return-value]
