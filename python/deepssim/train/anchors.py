"""Real images in memory, as training starts from them: 8-bit grey of one size, with who they are of."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deepssim.errors import UsageError
from deepssim.image_ops import resize_area, unit_grey
from deepssim.images import Image, Listing, read_tasks
from deepssim.images.text import one_line

__all__ = ["Anchors", "read_anchors"]

# Side of the thumbnails that say which images of other people look alike, and how many of those are drawn from.
_THUMBNAIL = (17, 14)
_N_ALIKE = 24


@dataclass(frozen=True, slots=True, eq=False)
class Anchors:
    """Images and their people.

    Attributes:
        images: ``(n, height, width)`` uint8, those of a person one after the other, in the order of their ids.
        people: ``(n,)`` a number for each person.
        ids: Of each image.
        alike: ``(n, m)`` for each image those of other people that look most like it; ``(n, 0)`` where nobody asked.
        names: Of each person.
    """

    images: NDArray[np.uint8]
    people: NDArray[np.int64]
    ids: list[str]
    alike: NDArray[np.int64]
    names: list[str]

    def __len__(self) -> int:
        return len(self.images)

    @property
    def size(self) -> tuple[int, int]:
        """Rows and columns in pixels."""
        return int(self.images.shape[1]), int(self.images.shape[2])

    def subset(self, chosen: NDArray[np.bool_]) -> Anchors:
        """Return some of them, alike ones found anew."""
        images, (kept, people) = self.images[chosen], np.unique(self.people[chosen], return_inverse=True)
        ids = [name for name, is_chosen in zip(self.ids, chosen, strict=True) if is_chosen]
        codes = np.asarray(people, np.int64)
        alike = _most_alike(images, codes) if self.alike.shape[1] else np.empty((len(images), 0), np.int64)
        return Anchors(images, codes, ids, alike, [self.names[i] for i in kept])

    def neighbour(self, i: int, rng: np.random.Generator) -> int | None:
        """Draw an image of the same person: one next to image i, three times in four; None if there is no other."""
        same = np.flatnonzero(self.people == self.people[i])
        if len(same) < 2:
            return None
        place = int(np.searchsorted(same, i))
        near = [int(same[p]) for p in (place - 1, place + 1) if 0 <= p < len(same)]
        if rng.random() < 0.75:
            return near[int(rng.integers(len(near)))]
        others = same[same != i]
        return int(others[rng.integers(len(others))])


def read_anchors(
    listing: Listing, size: tuple[int, int], *, threads: int | None = None, with_alike: bool = True
) -> Anchors:
    """Read all images of a listing.

    Args:
        listing: Where they are; each needs a group, its person.
        size: Rows and columns that they are brought to by area averaging.
        threads: Of the decoders; None: all that this process may use.
        with_alike: Whether images that look alike are found.

    Raises:
        UsageError: Fewer than two people, or images without one; constant images are left out.
    """
    kept, n_images, n_without = [], 0, 0
    unread: list[str] = []
    for result in read_tasks(listing, threads=threads):
        for item in result.items:
            if not isinstance(item, Image):
                unread.append(one_line(f"{item.id}: {item.reason}"))
                continue
            n_images += 1
            if item.group is None:
                n_without += 1
            else:  # of images at full size there are never more than those being read
                kept.append((item.group, item.id, _small(item.pixels, size)))
    if n_without:
        raise UsageError(
            f"{n_without} of {n_images} images have no known person; say who is who with --group-by or a manifest"
        )
    try:
        return _anchors(kept, with_alike=with_alike)
    except UsageError as error:
        if not unread:
            raise
        raise UsageError(f"{error}; {len(unread):,} images cannot be read, the first is {unread[0]}") from error


def make_anchors(images: Iterable[tuple[str, str, NDArray[np.float32]]], size: tuple[int, int]) -> Anchors:
    """Make anchors of (id, person, pixels), pixels in any unit; see `read_anchors`."""
    return _anchors([(person, name, _small(pixels, size)) for name, person, pixels in images])


def _small(pixels: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.uint8]:
    grey = unit_grey(pixels)
    if grey.shape != size:
        grey = resize_area(grey, *size)
    return np.asarray(np.rint(grey * np.float32(255)), np.uint8)


def _anchors(read: list[tuple[str, str, NDArray[np.uint8]]], *, with_alike: bool = True) -> Anchors:
    kept = sorted((item for item in read if item[2].min() < item[2].max()), key=lambda item: item[:2])
    people, codes = np.unique([person for person, _, _ in kept], return_inverse=True)
    if len(people) < 2:
        raise UsageError(f"images of {len(people)} people are too few to train on: at least two are needed")
    stack = np.stack([byte for _, _, byte in kept])
    codes = np.asarray(codes, np.int64)
    alike = _most_alike(stack, codes) if with_alike else np.empty((len(stack), 0), np.int64)
    return Anchors(stack, codes, [name for _, name, _ in kept], alike, people.tolist())


def _most_alike(images: NDArray[np.uint8], people: NDArray[np.int64]) -> NDArray[np.int64]:
    """For each image, the images of other people that correlate most, as thumbnails; at most one of a person."""
    small = np.stack([resize_area(image.astype(np.float32), *_THUMBNAIL).ravel() for image in images])
    small -= small.mean(axis=1, keepdims=True)
    small /= np.maximum(np.linalg.norm(small, axis=1, keepdims=True), 1e-6)
    n_people = int(people.max()) + 1
    wanted = min(_N_ALIKE, n_people - 1)
    out = np.empty((len(images), wanted), np.int64)
    for i in range(len(images)):
        scores = small @ small[i]
        best = np.full(n_people, -np.inf)
        np.maximum.at(best, people, scores)
        best[people[i]] = -np.inf
        chosen = np.argsort(-best, kind="stable")[:wanted]
        for place, person in enumerate(chosen):
            members = np.flatnonzero(people == person)
            out[i, place] = members[np.argmax(scores[members])]
    return out
