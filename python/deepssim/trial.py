"""A trial of the screening: copies made of the real images themselves, and how often their source is a candidate.

What an encoder finds depends on the images and on how many of them there are. So each run makes copies of some of its
own real images, exact and near ones, mirrors, turns, shifts and zooms them (the condition *hard* of the benchmark with
known truth), and searches them as it searches the synthetic images.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepssim.embed import NORM_TOLERANCE, Encoder
from deepssim.matching import Matcher, MatchOptions, Reference, Subject
from deepssim.perturb import apply_view, degrade, draw_view, near_copy
from deepssim.statistics import Rate, image_rate, patient_rate

__all__ = ["NEAR_PX", "Trial", "most_candidates", "run_trial"]

# Peak displacements of near copies, in pixels at a shorter side of 112.
NEAR_PX = (1.5, 5.0)
MOST_SOURCES = 100
LEAST_SOURCES = 40
# So many synthetic images for each source: a trial is short beside the run.
IMAGES_PER_SOURCE = 20
SOURCES_AT_A_TIME = 32


@dataclass(frozen=True, slots=True)
class Trial:
    """What came of it.

    Attributes:
        candidates: Nearest real images of each copy that were looked at.
        real_images: Of the set; where all of them were candidates, nothing was tried.
        exact: Share of exact copies whose source was among them.
        near: Share of near copies.
        both: Share of all.
    """

    candidates: int
    real_images: int
    exact: Rate
    near: Rate
    both: Rate

    def as_dict(self) -> dict[str, Any]:
        """Return as in ``summary.json``."""
        rates = {
            name: {"found": rate.events, "total": rate.total, "rate": rate.rate, "interval": [rate.low, rate.high]}
            for name, rate in (("exact", self.exact), ("near", self.near), ("both", self.both))
        }
        return {"candidates": self.candidates, "real_images": self.real_images, **rates}


def most_candidates(real: Reference, options: MatchOptions) -> int:
    """Return how many real images a synthetic one can have as candidates: fewer than k where there are not so many."""
    cap = options.max_per_group
    counts = np.bincount(real.codes[real.codes >= 0], minlength=1)
    n_unknown = int(np.count_nonzero(real.codes < 0))  # of them nobody knows who is one patient: they are not capped
    reachable = int((np.minimum(counts, cap) if cap else counts).sum()) + n_unknown
    return min(max(1, options.k), reachable)


def run_trial(
    matcher: Matcher,
    encoder: Encoder,
    *,
    expected_rows: int,
    seed: int = 0,
    progress: Callable[[int], None] | None = None,
) -> Trial:
    """Make copies of some real images and search them.

    Args:
        matcher: With the loaded set of real images, whose store holds working images.
        encoder: The metric that they were embedded with.
        expected_rows: Synthetic images of the run; more of them are worth more copies.
        seed: Of the copies.
        progress: Called with the number of copies made since the last call.

    Returns:
        Shares, with intervals over the images that copies were made of.
    """
    real = matcher.real
    n_sources = min(len(real), MOST_SOURCES, max(LEAST_SOURCES, expected_rows // IMAGES_PER_SOURCE))
    sources = np.unique(np.linspace(0, len(real) - 1, n_sources).round().astype(np.int64))
    found = np.zeros((len(sources), 2), bool)
    for first in range(0, len(sources), SOURCES_AT_A_TIME):
        some = sources[first : first + SOURCES_AT_A_TIME]
        copies = [copy for source in some.tolist() for copy in _copies(matcher, source, seed)]
        embeddings = encoder.encode([encoder.prepare(copy) for copy in copies])
        # A copy that shows nothing any more has no neighbours.
        usable = np.abs(np.linalg.norm(embeddings.astype(np.float64), axis=1) - 1.0) <= NORM_TOLERANCE
        subjects = [Subject(*copy.shape) for copy, is_usable in zip(copies, usable, strict=True) if is_usable]
        candidates = matcher.candidates(embeddings[usable], subjects)
        is_found = np.zeros(len(copies), bool)
        is_found[usable] = (candidates == np.repeat(some, 2)[usable][:, np.newaxis]).any(axis=1)
        found[first : first + len(some)] = is_found.reshape(-1, 2)
        if progress is not None:
            progress(len(copies))
    n = len(sources)
    exact, near = (image_rate(int(found[:, kind].sum()), n) for kind in (0, 1))
    # Both copies of an image count as one draw.
    both = patient_rate(found.sum(axis=1), np.full(n, 2), seed=seed)
    return Trial(most_candidates(real, matcher.options), len(real), exact, near, replace(both, unit="image"))


def _copies(matcher: Matcher, source: int, seed: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Make an exact and a near copy of a real image, as they are seen."""
    real = matcher.real
    image = real.store.working_image(int(real.rows[source])).astype(np.float32) / np.float32(255)
    rng = np.random.default_rng([seed, source])
    return _seen(degrade(image, rng), rng), _seen(near_copy(image, rng, amplitude_px=NEAR_PX), rng)


def _seen(copy: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    seen = apply_view(copy, draw_view(rng, "hard", size=(copy.shape[0], copy.shape[1])))
    return np.asarray(np.rint(seen * np.float32(255)), np.float32)
