"""All faults of a file in one line: the first ones in full, the rest as a count."""

from __future__ import annotations

from collections.abc import Sequence

from deepssim.errors import UsageError

__all__ = ["refuse", "several"]

_SHOWN = 5


def several(faults: Sequence[str], shown: int = _SHOWN) -> str:
    """Return faults as one line.

    Example:
        >>> several(["line 2: a", "line 3: b", "line 4: c"], shown=2)
        'line 2: a; line 3: b; and 1 more'
    """
    more = [f"and {len(faults) - shown:,} more"] if len(faults) > shown else []
    return "; ".join([*faults[:shown], *more])


def refuse(where: str, faults: Sequence[str]) -> None:
    """Raise an error if there are faults.

    Args:
        where: What has them.
        faults: One line each.

    Raises:
        UsageError: There are some.

    Example:
        >>> refuse("data.csv", [])
    """
    if faults:
        count = f"{len(faults):,} faults: " if len(faults) > 1 else ""
        raise UsageError(f"{where}: {count}{several(faults)}")
