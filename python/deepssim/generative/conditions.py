"""What an image is made under: nothing, variables of its record, or the embedding of its caption."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from deepssim.errors import UsageError
from deepssim.generative.records import Record

__all__ = ["KINDS", "PUBLISHED_VARIABLES", "SCALERS", "ConditionSpec", "Embed", "Variable", "conditioning_name", "fit"]

KINDS = ("none", "variables", "text")
SCALERS = ("none", "standard", "min-max")
PUBLISHED_VARIABLES = ("age_norm", "sex_norm", "sequence_norm", "csf_perc", "wm_perc", "gm_perc")
"""The six columns that the published models were conditioned on, already scaled in the published CSV."""

Embed = Callable[[Sequence[str]], NDArray[np.float32]]
"""Makes embeddings ``(n, dim)`` of texts; see `deepssim.models.text`."""


@dataclass(frozen=True, slots=True)
class Variable:
    """How a column of the CSV becomes one number: ``(x - offset) / scale``, where x is the cell or its category's code.

    Attributes:
        name: Of the column.
        kind: ``"number"`` or ``"category"``.
        offset: Taken away.
        scale: Divided by; never 0.
        categories: Sorted texts; the code of the i-th of K is ``i / (K - 1)``, from 0 to 1, and 0 where K is 1.
    """

    name: str
    kind: str = "number"
    offset: float = 0.0
    scale: float = 1.0
    categories: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ConditionSpec:
    """What a U-Net is told of an image.

    Attributes:
        kind: One of `KINDS`.
        dim: Elements of a condition; 0 for ``"none"``.
        variables: Of ``"variables"``, in order.
        encoder: Of ``"text"``: name of the encoder of captions; None: embeddings are read from files.
    """

    kind: str = "none"
    dim: int = 0
    variables: tuple[Variable, ...] = ()
    encoder: str | None = None

    def arrays(self, records: Sequence[Record], embed: Embed | None = None) -> NDArray[np.float32] | None:
        """Return the conditions of records.

        Args:
            records: Of `deepssim.generative.records.read_dataset`.
            embed: Makes embeddings of captions; needed where `encoder` is named.

        Returns:
            ``(n, 1, dim)`` float32; None for ``"none"``.

        Raises:
            UsageError: Cells or embeddings that cannot be used; the first ones are named with line and column.
        """
        raise NotImplementedError

    def as_dict(self) -> dict[str, Any]:
        """Return the specification as JSON has it."""
        raise NotImplementedError

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Self:
        """Read what `as_dict` returned.

        Raises:
            MetricError: It is something else.
        """
        raise NotImplementedError


def fit(
    records: Sequence[Record],
    kind: str,
    names: Sequence[str] = PUBLISHED_VARIABLES,
    scaler: str = "none",
    *,
    encoder: str | None = None,
    embed: Embed | None = None,
) -> ConditionSpec:
    """Find out from the training records how conditions are made.

    Args:
        records: Those that are trained on, and no others.
        kind: One of `KINDS`.
        names: Columns of the CSV, for ``"variables"``.
        scaler: One of `SCALERS`.
        encoder: Name of what made `embed`, for ``"text"`` of captions instead of saved embeddings.
        embed: Makes embeddings of captions.

    Raises:
        UsageError: Columns, cells or embeddings that cannot be used; all are named.
    """
    raise NotImplementedError


def conditioning_name(text: str) -> str:
    """Return the kind of a condition that a user named; the reference implementation calls text "conditioning".

    Raises:
        UsageError: There is no such kind.

    Example:
        >>> conditioning_name("conditioning"), conditioning_name("variables")
        ('text', 'variables')
    """
    name = "text" if text == "conditioning" else text
    if name not in KINDS:
        raise UsageError(f"there is no conditioning '{text}': it is one of {', '.join(KINDS)}")
    return name
