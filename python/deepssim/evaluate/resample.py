"""Resampling of people: what an interval rests on where pairs share images.

Pairs of one person are not independent, and where a synthetic image is paired with several people's real images, its
pairs are not either. So people are drawn with replacement, and in the second case synthetic images as well: the weight
of a pair is the number of draws of its person times that of its image (the pigeonhole bootstrap: Owen, "The pigeonhole
bootstrap", Annals of Applied Statistics 1(2), 2007; its variance errs on the large side).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from deepssim.errors import UsageError
from deepssim.statistics import LEVEL

__all__ = ["RESAMPLES", "Resampling", "interval_by_person"]

RESAMPLES = 1000
# Weights held at a time.
_BLOCK_WEIGHTS = 2**20

Weights = NDArray[np.float64]
Ints = NDArray[np.int64]


class Resampling:
    """Draws of people, and of synthetic images where these are shared between people.

    Args:
        people: ``(n,)`` the person of each pair.
        images: ``(n,)`` its synthetic image.
        resamples: How many draws.
        seed: Of the draws, which depend on nothing but this and how many people and images there are.

    Raises:
        UsageError: There are no pairs.

    Attributes:
        n_people: How many people there are.
        n_images: How many synthetic images.
        is_two_way: Whether images are drawn too.

    Example:
        >>> once = Resampling(np.array(["a", "a", "b"]), np.array(["x", "y", "z"]))
        >>> shared = Resampling(np.array(["a", "a", "b"]), np.array(["x", "y", "x"]))
        >>> once.is_two_way, shared.is_two_way
        (False, True)
        >>> next(once.weights())[:2].shape
        (2, 3)
    """

    def __init__(
        self,
        people: NDArray[np.generic],
        images: NDArray[np.generic],
        *,
        resamples: int = RESAMPLES,
        seed: int = 0,
    ) -> None:
        if len(people) == 0:
            raise UsageError("there are no pairs to resample")
        names, self._person = np.unique(people, return_inverse=True)
        shown, self._image = np.unique(images, return_inverse=True)
        self.n_people, self.n_images, self.resamples, self.seed = len(names), len(shown), resamples, seed
        links = np.unique(self._image * len(names) + self._person)
        self.is_two_way = len(links) > len(shown)

    def __len__(self) -> int:
        return len(self._person)

    def weights(self) -> Iterator[Weights]:
        """Yield the weights of all pairs, some draws at a time: ``(n_draws, n)`` whole numbers."""
        # Two streams, so that the draws do not depend on how many are made at a time.
        of_people, of_images = np.random.default_rng(self.seed).spawn(2)
        step = max(1, _BLOCK_WEIGHTS // len(self))
        for start in range(0, self.resamples, step):
            n = min(step, self.resamples - start)
            weights = _draws(of_people, self.n_people, n)[:, self._person]
            if self.is_two_way:
                weights *= _draws(of_images, self.n_images, n)[:, self._image]
            yield weights

    def n_units(self, chosen: NDArray[np.bool_]) -> int:
        """Return how many independent things some pairs are of: their people, or their images if these are fewer."""
        n_people = len(np.unique(self._person[chosen]))
        return min(n_people, len(np.unique(self._image[chosen]))) if self.is_two_way else n_people

    def sentence(self) -> str:
        """Say what is drawn, and why."""
        if self.is_two_way:
            return (
                f"intervals: {self.resamples:,} draws of the {self.n_people:,} people and of the {self.n_images:,} "
                "synthetic images (two-way, since images are paired with several people)"
            )
        return f"intervals: {self.resamples:,} draws of the {self.n_people:,} people, each with all pairs"


def _draws(rng: np.random.Generator, n: int, n_draws: int) -> Weights:
    """Return how often each of n things is drawn in n draws with replacement, ``(n_draws, n)``."""
    return rng.multinomial(n, np.full(n, 1 / n), size=n_draws).astype(np.float64)


def interval_by_person(
    statistic: Callable[[NDArray[np.int64]], float], people: NDArray[np.generic], *, seed: int = 0
) -> tuple[float, float]:
    """Return the percentile interval of a statistic when people, not images, are drawn with replacement.

    Args:
        statistic: Takes indices of images (a person drawn twice gives its images twice) and returns a number.
        people: ``(n,)`` the person of each image.
        seed: Of the resampling.

    Raises:
        UsageError: There are no people.
    """
    names, owner = np.unique(people, return_inverse=True)
    if len(names) == 0:
        raise UsageError("there are no people to resample")
    images = [np.flatnonzero(owner == person) for person in range(len(names))]
    rng = np.random.default_rng(seed)
    found = [
        statistic(np.concatenate([images[i] for i in rng.integers(0, len(names), len(names))]))
        for _ in range(RESAMPLES)
    ]
    low, high = np.quantile(found, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)
