"""One draw of the benchmark: real images, and synthetic ones whose truth is known."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.membench.collection import Collection, Grey
from deepssim.evaluate import EXACT, NEAR, UNRELATED
from deepssim.perturb import LESION_PROBABILITY, ViewKind, apply_view, degrade, draw_view, near_copy

CONDITIONS: tuple[ViewKind, ...] = ("aligned", "perturbed", "hard")
REAL_PART = 0.6  # of the people
NEAR_COPIES = 2  # of each real image, beside one exact copy
UNRELATED_PER_COPY = 1.5
# Peak displacements in pixels at a shorter side of 112 px.
AMPLITUDES = {"aligned": (2.5, 5.0), "perturbed": (2.5, 5.0), "hard": (1.5, 5.0)}
# Slices lie 6 mm apart: a sibling is 12 mm from the nearest real slice of its person.
SIBLING_STEPS = 2
REAL_LEVELS = 6
N_NONE = -1


@dataclass(frozen=True)
class Bench:
    """A draw.

    Attributes:
        condition: One of `CONDITIONS`.
        real: Grey images in [0, 1]: sources first, then distractors, which nothing was copied from.
        real_people: The person of each.
        synthetic: Grey images in [0, 1].
        truth: Class of each synthetic image; siblings are `UNRELATED` and told by `is_sibling`.
        source: Index of the real image that each was copied from, `N_NONE` for others.
        people: The person that each synthetic image shows.
        is_sibling: Another image of a person among the sources.
    """

    condition: ViewKind
    real: list[Grey]
    real_people: NDArray[np.str_]
    synthetic: list[Grey]
    truth: NDArray[np.int64]
    source: NDArray[np.int64]
    people: NDArray[np.str_]
    is_sibling: NDArray[np.bool_]


def make_bench(
    collection: Collection,
    condition: ViewKind,
    *,
    seed: int,
    distractors: Collection | None = None,
    amplitude_px: float | None = None,
    lesion_probability: float = LESION_PROBABILITY,
) -> Bench:
    """Draw a benchmark.

    Args:
        collection: Images of the people to be told about.
        condition: How synthetic images are seen; see `deepssim.perturb.draw_view`.
        seed: The same seed gives the same images; different conditions of a seed share people, not artefacts.
        distractors: Images of other people that join the real ones as no one's source.
        amplitude_px: Peak displacement of every deformation, in pixels at a shorter side of 112 px, for a curve of
            what is detected; None: drawn from `AMPLITUDES`.
        lesion_probability: That a near copy has a lesion too; 0 for a curve of what deformations alone do.

    Raises:
        ValueError: There are fewer than two people.
    """
    rng = np.random.default_rng([seed, CONDITIONS.index(condition)])
    everybody = np.unique(collection.people)
    if len(everybody) < 2:
        raise ValueError("a benchmark needs at least two people")
    n_real = min(len(everybody) - 1, max(1, round(REAL_PART * len(everybody))))
    chosen = np.random.default_rng(seed).permutation(everybody)[:n_real]
    sources, siblings = _split_people(collection, chosen, np.random.default_rng([seed, len(CONDITIONS)]))
    strangers = np.flatnonzero(~np.isin(collection.people, chosen))
    amplitudes = AMPLITUDES[condition] if amplitude_px is None else (amplitude_px, amplitude_px)
    maker = _Maker(collection, condition, amplitudes, lesion_probability, rng)
    for place, index in enumerate(sources):
        maker.add(index, EXACT, place)
        for _ in range(NEAR_COPIES):
            maker.add(index, NEAR, place)
    n_unrelated = round(UNRELATED_PER_COPY * len(maker.images))
    for index in np.resize(rng.permutation(strangers), n_unrelated):
        maker.add(int(index), UNRELATED, N_NONE)
    for index in siblings:
        maker.add(index, UNRELATED, N_NONE, is_sibling=True)
    more = distractors.images if distractors is not None else []
    names = distractors.people if distractors is not None else np.array([], "U1")
    return Bench(
        condition,
        [collection.images[i] for i in sources] + list(more),
        np.concatenate([collection.people[sources], names]),
        maker.images,
        np.array(maker.truth, np.int64),
        np.array(maker.source, np.int64),
        np.array(maker.people),
        np.array(maker.sibling, bool),
    )


def _split_people(
    collection: Collection, chosen: NDArray[np.str_], rng: np.random.Generator
) -> tuple[list[int], list[int]]:
    """Return images to copy from and siblings: a film of several, or a run of slices and those two steps off it."""
    sources: list[int] = []
    siblings: list[int] = []
    for person in chosen:
        own = np.flatnonzero(collection.people == person)
        own = own[np.argsort(collection.levels[own], kind="stable")]
        if collection.domain == "chest":
            first = int(rng.integers(len(own)))
            sources.append(int(own[first]))
            siblings.extend(int(i) for k, i in enumerate(own) if k != first)
            continue
        start = int(rng.integers(max(1, len(own) - REAL_LEVELS + 1)))
        end = min(start + REAL_LEVELS, len(own))
        sources.extend(int(i) for i in own[start:end])
        beyond = (start - SIBLING_STEPS, end - 1 + SIBLING_STEPS)
        siblings.extend(int(own[k]) for k in beyond if 0 <= k < len(own))
    return sources, siblings


class _Maker:
    """Makes synthetic images one after the other, from one stream of draws."""

    def __init__(
        self,
        collection: Collection,
        condition: ViewKind,
        amplitudes: tuple[float, float],
        lesion_probability: float,
        rng: np.random.Generator,
    ) -> None:
        self._collection, self._condition, self._amplitudes, self._rng = collection, condition, amplitudes, rng
        self._lesion_probability = lesion_probability
        self.images: list[Grey] = []
        self.truth: list[int] = []
        self.source: list[int] = []
        self.people: list[str] = []
        self.sibling: list[bool] = []

    def add(self, index: int, label: int, source: int, *, is_sibling: bool = False) -> None:
        image = self._collection.images[index]
        if label == NEAR:
            made = near_copy(
                image, self._rng, amplitude_px=self._amplitudes, lesion_probability=self._lesion_probability
            )
        else:
            made = degrade(image, self._rng)
        height, width = image.shape
        self.images.append(apply_view(made, draw_view(self._rng, self._condition, size=(height, width))))
        self.truth.append(label)
        self.source.append(source)
        self.people.append(str(self._collection.people[index]))
        self.sibling.append(is_sibling)
