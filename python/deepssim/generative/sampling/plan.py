"""Which images are asked for, in what order, and what files of them are called.

A plan is a rule, not a list: it takes the memory of its records, however many images are asked for.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import overload
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from deepssim.errors import UsageError
from deepssim.generative.sampling.sampler import Request
from deepssim.images.text import one_line, some

__all__ = [
    "FREE_RECORD_IMAGES",
    "MOST_IMAGES",
    "RUN_NAME",
    "Plan",
    "file_name",
    "folder_name",
    "plan_free",
    "plan_records",
]

# Images of a made-up record, where there are no records: a folder with more files is slow to list.
FREE_RECORD_IMAGES = 1000
MOST_IMAGES = 10**9
RUN_NAME = "run.json"
# Of the name of a folder; file systems take 255.
_MOST_NAME_BYTES = 200
_MOST_DIGITS = 9


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """Images by record and number, all of a record before the next.

    Attributes:
        uids: Identifier of each record, distinct.
        per_record: Images of a record, numbered from 0.
        n_images: All images; the last record may have fewer than the others.
        contexts: Condition of each record, ``(n_records, 1, dim)`` float32; None: the model takes none.
        only: Indices of the images that are to be made, rising; None: all.
        is_free: Whether the records are made up, for images that belong to none.
    """

    uids: Sequence[str]
    per_record: int
    n_images: int
    contexts: NDArray[np.float32] | None = None
    only: tuple[int, ...] | None = None
    is_free: bool = False

    def __len__(self) -> int:
        """Return the number of images to be made."""
        return self.n_images if self.only is None else len(self.only)

    def request(self, index: int) -> Request:
        """Return an image of the plan by its place, whether it is to be made or not.

        Raises:
            IndexError: There is none.
        """
        if not 0 <= index < self.n_images:
            raise IndexError(index)
        row, number = divmod(index, self.per_record)
        return Request(self.uids[row], number, None if self.contexts is None else self.contexts[row], index)

    def wanted(self) -> Sequence[int]:
        """Return the places of the images that are to be made, rising."""
        return range(self.n_images) if self.only is None else self.only

    def narrowed(self, names: Sequence[str]) -> Plan:
        """Return the plan that makes some of its images alone, each named ``UID/NUMBER``.

        Raises:
            UsageError: Names are not of that form, or no images of the plan; all such are named.

        Example:
            >>> plan_records(["a", "b"], 10).narrowed(["b/3", "a/9"]).only
            (9, 13)
        """
        rows = {uid: row for row, uid in enumerate(self.uids)}
        places, odd = set(), []
        for name in names:
            uid, _, number = name.rpartition("/")
            is_number = number.isascii() and number.isdigit() and len(number) <= _MOST_DIGITS
            place = rows.get(uid, -1) * self.per_record + int(number) if is_number else -1
            if uid not in rows or not is_number or int(number) >= self.per_record or place >= self.n_images:
                odd.append(name)
            places.add(place)
        if odd:
            first, last = (f"{r.uid}/{r.number}" for r in (self.request(0), self.request(self.n_images - 1)))
            raise UsageError(
                f"{len(odd):,} images are not among those of this run: {some(odd)}; an image is UID/NUMBER, "
                f"here from {one_line(first, 80)} to {one_line(last, 80)}"
            )
        return replace(self, only=tuple(sorted(places)))

    def describe(self) -> dict[str, object]:
        """Return what the record of a run says: numbers, and a digest of identifiers and conditions.

        Example:
            >>> plan = plan_records(["a", "b"], 10)
            >>> plan.describe()["n_images"], plan.describe() == plan_records(["b", "a"], 10).describe()
            (20, False)
        """
        digest = hashlib.sha256()
        for row, uid in enumerate(() if self.is_free else self.uids):
            name = uid.encode("utf-8", "surrogateescape")
            digest.update(len(name).to_bytes(8, "little") + name)
            if self.contexts is not None:
                digest.update(np.ascontiguousarray(self.contexts[row], "<f4").tobytes())
        only = None if self.only is None else list(self.only)
        return {
            "n_records": len(self.uids), "per_record": self.per_record, "n_images": self.n_images, "only": only,
            "records": "none" if self.is_free else digest.hexdigest(),
        }  # fmt: skip


def plan_records(uids: Sequence[str], per_record: int, contexts: NDArray[np.float32] | None = None) -> Plan:
    """Return the plan of so many images of each record.

    Args:
        uids: Identifiers, distinct.
        per_record: Images of each, at least 1.
        contexts: Condition of each, ``(n, 1, dim)``; None: the model takes none.

    Raises:
        UsageError: No record, no image, too many of them, or identifiers that are there twice.

    Example:
        >>> plan = plan_records(["p07", "p12"], 30)
        >>> len(plan), plan.request(31).uid, plan.request(31).number
        (60, 'p12', 1)
    """
    if not uids:
        raise UsageError("no record is there to make images of")
    n_images = len(uids) * per_record
    _check_number(n_images)
    seen: set[str] = set()
    twice = [uid for uid in uids if uid in seen or seen.add(uid)]  # type: ignore[func-returns-value]
    if twice:
        raise UsageError(f"{len(twice):,} records have the identifier of another one: {some(twice)}; name them apart")
    if contexts is not None and (contexts.ndim != 3 or contexts.shape[:2] != (len(uids), 1)):
        raise ValueError(f"contexts are {contexts.shape}, not ({len(uids)}, 1, dim)")
    return Plan(tuple(uids), per_record, n_images, contexts)


def plan_free(n_images: int) -> Plan:
    """Return the plan of images that belong to no record: ``sample-00000/0`` to ``sample-00000/999`` and so on.

    A plan of more images begins with the same ones.

    Args:
        n_images: 1 to `MOST_IMAGES`.

    Raises:
        UsageError: None are asked for, or too many.

    Example:
        >>> plan = plan_free(2500)
        >>> len(plan), plan.request(2499).uid, plan.request(2499).number
        (2500, 'sample-00002', 499)
    """
    _check_number(n_images)
    return Plan(_MadeUp(-(-n_images // FREE_RECORD_IMAGES)), FREE_RECORD_IMAGES, n_images, is_free=True)


def folder_name(uid: str) -> str:
    """Return the name of a record's folder: a plain identifier as it is, others escaped, distinct for distinct ones.

    Letters of ASCII, digits and ``_ . - ~`` stay, but for a leading dot; the bytes of all else become ``%XX``. A name
    that a file system would not take is cut, and ends in a digest of the identifier. None is that of the run's record.

    Args:
        uid: Any text.

    Example:
        >>> folder_name("IXI012-T1"), folder_name("../up"), folder_name("")
        ('IXI012-T1', '%2E.%2Fup', '%')
    """
    name = quote(uid.encode("utf-8", "surrogateescape"), safe="")
    if name.startswith(".") or name == RUN_NAME:
        name = name.replace(".", "%2E", 1)
    if len(name) > _MOST_NAME_BYTES:
        digest = hashlib.sha256(uid.encode("utf-8", "surrogateescape")).hexdigest()
        # No escape begins like this, so no other identifier has the name.
        name = f"{name[:_MOST_NAME_BYTES]}%-{digest[:32]}"
    return name or "%"


def file_name(uid: str, number: int) -> str:
    """Return the path of an image under the folder of the output or in an archive.

    Args:
        uid: Identifier of its record.
        number: Of the image among those of the record.

    Example:
        >>> file_name("p07", 3)
        'p07/gen-3.png'
    """
    return f"{folder_name(uid)}/gen-{number}.png"


class _MadeUp(Sequence[str]):
    """Identifiers of records that there are none of; made as they are asked for."""

    def __init__(self, n: int) -> None:
        self._rows = range(n)

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        rows = self._rows[index]
        return f"sample-{rows:05d}" if isinstance(rows, int) else [f"sample-{row:05d}" for row in rows]


def _check_number(n_images: int) -> None:
    if not 1 <= n_images <= MOST_IMAGES:
        raise UsageError(f"{n_images:,} images are asked for: give 1 to {MOST_IMAGES:,}")
