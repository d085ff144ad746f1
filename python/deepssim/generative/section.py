"""A section of a configuration file: a dataclass whose defaults say of which type each key is."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import Any, ClassVar, TypeVar

from deepssim.errors import UsageError
from deepssim.images.text import one_line, some

__all__ = ["FIRST_BATCH", "Section", "build", "shown", "typed"]

FIRST_BATCH = "first-batch"
"""The scale of latents is one over the standard deviation of the first batch (Rombach et al. 2022, appendix G)."""


S = TypeVar("S", bound="Section")

# One element of a latent is then 512 pixels wide.
_MOST_LEVELS = 10


class Section:
    """A section of a configuration: fields with defaults, whose types say what a file may give."""

    __slots__ = ()
    section: ClassVar[str]

    def __post_init__(self) -> None:
        """Check every field; lists become tuples and whole numbers floats where the default is one."""
        faults: list[str] = []
        for item in fields(self):  # type: ignore[arg-type]
            value, fault = typed(getattr(self, item.name), item.default)
            if fault:
                faults.append(f"{self.section}.{item.name} is {shown(getattr(self, item.name))}: it must be {fault}")
            object.__setattr__(self, item.name, value)
        # What depends on several fields makes sense only where each is of its type.
        faults = faults or list(self._faults())
        if faults:
            raise UsageError("; ".join(faults))

    def _faults(self) -> Iterator[str]:
        """Yield what cannot be, each with the name of its key."""
        yield from ()

    def _below(self, least: float, *names: str) -> Iterator[str]:
        for name in names:
            value = getattr(self, name)
            if min(value if isinstance(value, tuple) else (value,), default=least) < least:
                yield f"{self.section}.{name} is {shown(value)}: it must be at least {least:g}"

    def _above(self, most: int, *names: str) -> Iterator[str]:
        """Check what would fill any memory, which a slip of a key can ask for."""
        for name in names:
            value = getattr(self, name)
            if max(value if isinstance(value, tuple) else (value,), default=most) > most:
                yield f"{self.section}.{name} is {shown(value)}: it must be at most {most:,}"

    def _outside(self, low: float, high: float, *names: str) -> Iterator[str]:
        for name in names:
            if not low <= getattr(self, name) < high:
                yield f"{self.section}.{name} is {getattr(self, name):g}: it must be at least {low:g}, below {high:g}"

    def _not_positive(self, *names: str) -> Iterator[str]:
        for name in names:
            if getattr(self, name) <= 0:
                yield f"{self.section}.{name} is {getattr(self, name):g}: it must be above 0"

    def _levels(self, *names: str) -> Iterator[str]:
        """Check that there are levels, and that what is said of each level is said of all."""
        n_levels = len(self.channels)  # type: ignore[attr-defined]
        if not 1 <= n_levels <= _MOST_LEVELS:
            yield f"{self.section}.channels has {n_levels:,} levels: it must have 1 to {_MOST_LEVELS}"
        for name in names:
            if len(getattr(self, name)) != n_levels:
                yield (
                    f"{self.section}.{name} has {len(getattr(self, name))} entries and {self.section}.channels "
                    f"{n_levels}: one a level is needed"
                )

    def _groups(self) -> Iterator[str]:
        groups: int = self.norm_groups  # type: ignore[attr-defined]
        bad = [channels for channels in self.channels if groups >= 1 and channels % groups]  # type: ignore[attr-defined]
        if bad:
            yield (
                f"{self.section}.channels has {', '.join(map(str, bad))}, which {self.section}.norm_groups = {groups} "
                "does not divide"
            )

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as JSON has them: numbers, text, lists."""
        found = {item.name: getattr(self, item.name) for item in fields(self)}  # type: ignore[arg-type]
        return {name: list(value) if isinstance(value, tuple) else value for name, value in found.items()}


def build(kind: type[S], table: Any) -> S:
    """Build a section of a table.

    Raises:
        UsageError: It is no table, or has keys that are not known or values that cannot be; all are named.
    """
    if not isinstance(table, Mapping):
        raise UsageError(f"{kind.section} is {shown(table)}: it must be a table, [{kind.section}]")
    known = [item.name for item in fields(kind)]  # type: ignore[arg-type]
    unknown = [key for key in table if key not in known]
    fault = ""
    if unknown:
        names = some([f"{kind.section}.{key}" for key in unknown])
        fault = f"{names}: not known; known in [{kind.section}] are {', '.join(known)}"
    try:
        built = kind(**{key: value for key, value in table.items() if key in known})
    except UsageError as error:
        raise UsageError("; ".join(part for part in (fault, str(error)) if part)) from error
    if fault:
        raise UsageError(fault)
    return built


def typed(value: Any, default: Any) -> tuple[Any, str]:
    """Return a value in the type of its default, and what it must be where it is none of that type.

    Example:
        >>> typed([1, 2], (3,)), typed(2, 0.5), typed(True, 1)
        (((1, 2), ''), (2.0, ''), (True, 'a whole number below 2,147,483,648'))
    """
    if isinstance(default, tuple):
        kind = default[0]
        words = "a list of true and false" if isinstance(kind, bool) else "a list of whole numbers"
        if not isinstance(value, (list, tuple)):
            return value, words
        parts = [typed(part, kind) for part in value]
        return tuple(part for part, _ in parts), words if any(fault for _, fault in parts) else ""
    if default == FIRST_BATCH and not isinstance(value, str):
        default = 1.0
    if isinstance(default, bool):
        return value, "" if isinstance(value, bool) else "true or false"
    if isinstance(default, int):
        is_whole = isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**31
        return value, "" if is_whole else "a whole number below 2,147,483,648"
    if isinstance(default, float):
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e300
        return (float(value), "") if is_number and math.isfinite(value) else (value, "a finite number")
    return value, "" if isinstance(value, str) else "text"


def shown(value: Any) -> str:
    """Return a value as a configuration file has it, short enough for a message.

    Example:
        >>> shown((1, 2))
        '[1, 2]'
    """
    return one_line(repr(list(value) if isinstance(value, tuple) else value), 60)
