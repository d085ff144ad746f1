"""What an image is made under: nothing, variables of its record, or the embedding of its caption."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from deepssim.errors import MetricError, UsageError
from deepssim.generative.data.embeddings import Embed, caption_embeddings
from deepssim.generative.data.faults import refuse
from deepssim.generative.data.record import Record
from deepssim.images.text import one_line, some

__all__ = ["KINDS", "PUBLISHED_VARIABLES", "SCALERS", "ConditionSpec", "Embed", "Variable", "conditioning_name", "fit"]

KINDS = ("none", "variables", "text")
SCALERS = ("none", "standard", "min-max")
PUBLISHED_VARIABLES = ("age_norm", "sex_norm", "sequence_norm", "csf_perc", "wm_perc", "gm_perc")
"""The six columns that the published models were conditioned on, already scaled in the published CSV."""

# A column of text with more kinds of it than this is hardly one of categories.
_MOST_CATEGORIES = 100
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?", re.ASCII)
_DECIMAL_COMMA = re.compile(r"[+-]?\d+,\d+", re.ASCII)
# What programs write for a number that is not there.
_NOT_THERE = frozenset({"", "nan", "na", "<na>", "n/a", "null", "nat", "inf", "-inf", "+inf", "infinity", "-infinity"})


@dataclass(frozen=True, slots=True)
class Variable:
    """How a column of the CSV becomes one number: ``(x - offset) / scale``, where x is the cell or its category's code.

    Attributes:
        name: Of the column.
        kind: ``"number"`` or ``"category"``.
        offset: Taken away.
        scale: Divided by; never 0.
        categories: Sorted texts; the code of the i-th of K, counted from 0, is ``i / (K - 1)``, and 0 where K is 1.

    Raises:
        ValueError: The fields do not go together.
    """

    name: str
    kind: str = "number"
    offset: float = 0.0
    scale: float = 1.0
    categories: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Check the fields, since they may come from somebody's file."""
        if self.kind not in ("number", "category") or (self.kind == "category") != bool(self.categories):
            raise ValueError(
                f"the variable {self.name!r} is of the kind {self.kind!r}, {len(self.categories)} categories"
            )
        if not (math.isfinite(self.offset) and math.isfinite(self.scale)) or self.scale == 0:
            raise ValueError(f"the variable {self.name!r} has offset {self.offset} and scale {self.scale}")

    def value(self, cell: str) -> float:
        """Return the number of a cell.

        Raises:
            ValueError: It has none; the text says why.

        Example:
            >>> Variable("age", offset=60, scale=10).value("65")
            0.5
            >>> Variable("sex", "category", categories=("F", "M")).value("M")
            1.0
        """
        if self.kind == "category":
            if cell not in self.categories:
                what = f"'{one_line(cell, 40)}'" if cell else "empty"
                raise ValueError(f"is {what}, not one of the training's {some(list(self.categories), 8)}")
            return self.categories.index(cell) / max(1, len(self.categories) - 1)
        scaled = (_number(cell) - self.offset) / self.scale
        if not abs(scaled) <= float(np.finfo(np.float32).max):
            raise ValueError(f"is {one_line(cell, 40)}, which scaled is beyond what float32 holds")
        return scaled


@dataclass(frozen=True, slots=True)
class ConditionSpec:
    """What a U-Net is told of an image.

    Attributes:
        kind: One of `KINDS`.
        dim: Elements of a condition; 0 for ``"none"``.
        variables: Of ``"variables"``, in order.
        encoder: Of ``"text"``: name of the encoder of captions; None: embeddings are read from files.

    Raises:
        ValueError: The fields do not go together.
    """

    kind: str = "none"
    dim: int = 0
    variables: tuple[Variable, ...] = ()
    encoder: str | None = None

    def __post_init__(self) -> None:
        """Check the fields, since they may come from somebody's file."""
        if self.kind not in KINDS:
            raise ValueError(f"conditions of the kind {self.kind!r}: known are {', '.join(KINDS)}")
        right = {"none": self.dim == 0, "variables": self.dim == len(self.variables) > 0, "text": self.dim > 0}
        if not right[self.kind] or (self.variables and self.kind != "variables"):
            raise ValueError(
                f"{len(self.variables)} variables and {self.dim} elements are no conditions of {self.kind}"
            )

    def arrays(self, records: Sequence[Record], embed: Embed | None = None) -> NDArray[np.float32] | None:
        """Return the conditions of records.

        Args:
            records: Of `deepssim.generative.data.records.read_dataset`.
            embed: Makes embeddings of captions; needed where `encoder` is named.

        Returns:
            ``(n, 1, dim)`` float32; None for ``"none"``.

        Raises:
            UsageError: Cells or embeddings that cannot be used; the first ones are named with line and column.

        Example:
            >>> from pathlib import Path
            >>> spec = ConditionSpec("variables", 1, (Variable("age", offset=60, scale=10),))
            >>> spec.arrays([Record("p1", Path("p1.png"), "train", variables={"age": "65"})])
            array([[[0.5]]], dtype=float32)
        """
        if self.kind == "none":
            return None
        if self.kind == "text":
            return caption_embeddings(records, self.encoder, embed, self.dim)[:, None, :]
        _check_columns(records, [variable.name for variable in self.variables])
        values = np.zeros((len(records), 1, self.dim), np.float32)
        faults = []
        for i, record in enumerate(records):
            for j, variable in enumerate(self.variables):
                try:
                    values[i, 0, j] = variable.value(record.variables.get(variable.name, ""))
                except ValueError as error:
                    faults.append(f"{record.place}: {one_line(variable.name, 60)} {error}")
        refuse("variables that cannot be used", faults)
        return values

    def as_dict(self) -> dict[str, Any]:
        """Return the specification as JSON has it.

        Example:
            >>> ConditionSpec("text", 512).as_dict()
            {'kind': 'text', 'dim': 512, 'variables': [], 'encoder': None}
        """
        variables = [
            {"name": v.name, "kind": v.kind, "offset": v.offset, "scale": v.scale, "categories": list(v.categories)}
            for v in self.variables
        ]
        return {"kind": self.kind, "dim": self.dim, "variables": variables, "encoder": self.encoder}

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Self:
        """Read what `as_dict` returned.

        Raises:
            MetricError: It is something else.

        Example:
            >>> spec = ConditionSpec("variables", 1, (Variable("age", offset=60, scale=10),))
            >>> ConditionSpec.from_dict(spec.as_dict()) == spec
            True
        """
        try:
            variables = tuple(
                Variable(
                    str(v["name"]),
                    str(v["kind"]),
                    float(v["offset"]),
                    float(v["scale"]),
                    tuple(map(str, v["categories"])),
                )
                for v in value["variables"]
            )
            encoder = value["encoder"]
            return cls(str(value["kind"]), int(value["dim"]), variables, None if encoder is None else str(encoder))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise MetricError(f"the conditions of the checkpoint cannot be read: {one_line(str(error))}") from error


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

    A column of numbers x becomes, over the records with mean m, least value a and greatest value b:

    - scaler ``"none"``: x, for columns that are scaled already, as the published ones;
    - scaler ``"standard"``: ``(x - m) / s``, where s is the square root of the mean of ``(x - m)^2``;
    - scaler ``"min-max"``: ``(x - a) / (b - a)``, from 0 to 1.

    Where s or b - a is 0, the divisor is 1. A column without any number is one of categories: the i-th of its K
    texts in sorted order, counted from 0, becomes ``i / (K - 1)`` from 0 to 1, whatever the scaler. Records that were
    not trained on are scaled by the same m, s, a and b, and must have the same categories.

    Args:
        records: Those that are trained on, and no others.
        kind: One of `KINDS`.
        names: Columns of the CSV, for ``"variables"``.
        scaler: One of `SCALERS`.
        encoder: Name of what made `embed`, for ``"text"`` of captions instead of saved embeddings.
        embed: Makes embeddings of captions.

    Raises:
        UsageError: Columns, cells or embeddings that cannot be used; all are named.

    Example:
        >>> from pathlib import Path
        >>> cells = [{"age": "50", "sex": "M"}, {"age": "70", "sex": "F"}]
        >>> records = [Record(f"p{i}", Path("p.png"), "train", variables=c) for i, c in enumerate(cells)]
        >>> fit(records, "variables", ["age", "sex"], "standard").arrays(records)[:, 0].tolist()
        [[-1.0, 1.0], [1.0, 0.0]]
    """
    if kind not in KINDS:
        raise UsageError(f"there is no conditioning '{one_line(kind, 40)}': it is one of {', '.join(KINDS)}")
    if scaler not in SCALERS:
        raise UsageError(f"there is no scaler '{one_line(scaler, 40)}': it is one of {', '.join(SCALERS)}")
    if kind == "none":
        return ConditionSpec()
    if kind == "text":
        return ConditionSpec("text", int(caption_embeddings(records, encoder, embed).shape[1]), (), encoder)
    twice = sorted({name for name in names if list(names).count(name) > 1})
    if twice or not names:
        raise UsageError(f"variables are named more than once: {some(twice)}" if twice else "no variable is named")
    _check_columns(records, names)
    faults: list[str] = []
    variables = [_fit_variable(records, name, scaler, faults) for name in names]
    refuse("variables that cannot be used", faults)
    return ConditionSpec("variables", len(variables), tuple(variable for variable in variables if variable))


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
        raise UsageError(f"there is no conditioning '{one_line(text, 40)}': it is one of {', '.join(KINDS)}")
    return name


def _number(cell: str) -> float:
    """Return the number of a cell.

    Raises:
        ValueError: It has none; the text says why.
    """
    if cell.lower() in _NOT_THERE:
        raise ValueError("is empty" if not cell else f"is '{one_line(cell, 40)}', no finite number")
    if _DECIMAL_COMMA.fullmatch(cell):
        raise ValueError(f"is '{one_line(cell, 40)}': write numbers with a point")
    if not _NUMBER.fullmatch(cell) or not math.isfinite(number := float(cell)):
        raise ValueError(f"is '{one_line(cell, 40)}', no finite number")
    return number


def _check_columns(records: Sequence[Record], names: Sequence[str]) -> None:
    if not records:
        raise UsageError("there are no records to take conditions of")
    # The first record has all columns, since all come of one header.
    columns = list(records[0].variables)
    missing = [name for name in names if name not in columns]
    if missing:
        raise UsageError(
            f"there is no column {some(missing, 12)} for the condition; columns with variables are "
            f"{some(columns, 12) or 'none'}{'; name those that are meant with --variables' if columns else ''}"
        )


def _fit_variable(records: Sequence[Record], name: str, scaler: str, faults: list[str]) -> Variable | None:
    """Return how a column is scaled; None, and faults, where it cannot be."""
    title = one_line(name, 60)
    cells = [record.variables.get(name, "") for record in records]
    numbers: list[float] = []
    bad: list[str] = []
    for record, cell in zip(records, cells, strict=True):
        try:
            numbers.append(_number(cell))
        except ValueError as error:
            bad.append(f"{record.place}: {title} {error}")
    are_words = all(cell.lower() not in _NOT_THERE and not _DECIMAL_COMMA.fullmatch(cell) for cell in cells)
    if not numbers and are_words:
        categories = tuple(sorted(set(cells)))
        if len(categories) > _MOST_CATEGORIES:
            faults.append(
                f"{title} has {len(categories):,} different texts, such as {some(list(categories), 2)}: categories are "
                f"at most {_MOST_CATEGORIES}"
            )
            return None
        return Variable(name, "category", categories=categories)
    if bad:
        faults += bad
        return None
    return _scaled(name, np.array(numbers), scaler, faults)


def _scaled(name: str, numbers: NDArray[np.float64], scaler: str, faults: list[str]) -> Variable | None:
    offset, scale = 0.0, 1.0
    with np.errstate(over="ignore", invalid="ignore"):
        if scaler == "standard":
            offset, scale = float(numbers.mean()), float(numbers.std())
        elif scaler == "min-max":
            offset, scale = float(numbers.min()), float(numbers.max() - numbers.min())
    # A constant column may leave a rounding error of its mean.
    scale = scale if numbers.min() < numbers.max() else 1.0
    if not (math.isfinite(offset) and math.isfinite(scale)) or scale == 0:
        faults.append(f"{one_line(name, 60)} has values whose spread cannot be computed")
        return None
    return Variable(name, "number", offset, scale)
