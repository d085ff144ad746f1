"""Which people train and which select: whoever is in one split is in no other."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from deepssim.errors import UsageError

__all__ = ["SPLITS", "choose_people", "people_of", "split_people"]

SPLITS = ("train", "valid")


def people_of(groups: Sequence[str | None], ids: Sequence[str], group_by: str) -> list[str]:
    """Return the person of each real image; where nobody is to be told apart, each image is a person of its own.

    Raises:
        UsageError: Some images have none.

    Example:
        >>> people_of(["p1", "p1"], ["a", "b"], "parent"), people_of([None], ["a"], "none")
        (['p1', 'p1'], ['a'])
    """
    if group_by == "none":
        return list(ids)
    known = [group for group in groups if group is not None]
    if len(known) < len(groups):
        raise UsageError(
            f"{len(groups) - len(known):,} of {len(groups):,} real images have no known person, and pairs are split by "
            "person: say who is who with --group-by parent, --group-by regex:PATTERN or a manifest (column group), or "
            "give --group-by none where each image is of another person"
        )
    return known


def split_people(people: Sequence[str], valid_part: float, seed: int) -> NDArray[np.bool_]:
    """Say of each image whether its person is of the split ``valid``.

    The people are put in an order that their names and the seed decide, and the first of them select.

    Args:
        people: The person of each image.
        valid_part: Part of the people; at least one, unless it is 0, and never all.
        seed: Of the order.

    Raises:
        UsageError: There are too few people to be split.

    Example:
        >>> split_people(["a", "a", "b", "c"], 0.3, seed=0).tolist()
        [False, False, False, True]
    """
    order = _shuffled(people, seed, "split")
    if valid_part == 0:
        return np.zeros(len(people), np.bool_)
    if len(order) < 2:
        raise UsageError(
            f"the real images are of {len(order)} person, and a split by person needs two at least: check --group-by, "
            "or give --valid-part 0 for pairs that only train"
        )
    n_valid = min(max(1, round(valid_part * len(order))), len(order) - 1)
    return np.isin(np.asarray(people), order[:n_valid])


def choose_people(people: Sequence[str], n_images: int, seed: int, purpose: str) -> NDArray[np.int64]:
    """Return the places of about so many images, those of whole people in an order that the seed decides.

    Args:
        people: The person of each image.
        n_images: How many images at least, where there are so many.
        seed: Of the order.
        purpose: Two purposes have two orders.

    Example:
        >>> choose_people(["a", "a", "b", "c"], 2, seed=1, purpose="test").tolist()
        [2, 3]
    """
    if n_images >= len(people):
        return np.arange(len(people), dtype=np.int64)
    members: dict[str, list[int]] = {}
    for place, person in enumerate(people):
        members.setdefault(person, []).append(place)
    chosen: list[int] = []
    for person in _shuffled(people, seed, purpose):
        if len(chosen) >= n_images:
            break
        chosen += members[person]
    return np.array(sorted(chosen), np.int64)


def _shuffled(people: Sequence[str], seed: int, purpose: str) -> list[str]:
    def rank(person: str) -> bytes:
        text = f"{purpose}:{seed}:{person}".encode("utf-8", "surrogateescape")
        return hashlib.blake2b(text, digest_size=16).digest()

    return sorted(set(people), key=rank)
