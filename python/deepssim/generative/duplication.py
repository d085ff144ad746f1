"""How often each image is trained on: repeated images are what models memorize."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from deepssim.generative.records import Record

__all__ = ["check_duplication", "multiplicities"]


def check_duplication(rule: str) -> None:
    """Check a rule before anything is read.

    Raises:
        UsageError: It is none.
    """
    raise NotImplementedError


def multiplicities(records: Sequence[Record], rule: str = "none", seed: int = 0) -> NDArray[np.int64]:
    """Return how often each record is trained on.

    Args:
        records: Those that are trained on.
        rule: ``"none"`` (once), ``"low"`` (1 to 4 times), ``"high"`` (1 to 14 times), a range such as ``"1-15"``, or
            ``"column:NAME"``: what the column of the CSV says.
        seed: Of the draw; a record's number depends on seed and uid alone, not on the other records.

    Returns:
        ``(n,)``, each at least 1.

    Raises:
        UsageError: The rule is none, or cells of the column are no numbers.
    """
    raise NotImplementedError
