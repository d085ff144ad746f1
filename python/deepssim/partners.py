"""Graded partners of a real image, from the image itself to one of another person, to learn likeness from.

A partner lies where its image lies; views (flips, turns, shifts) are for whoever trains. Images are float32 arrays
``(height, width)`` with values in [0, 1]; every draw comes from the generator that is passed in.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from deepssim.errors import UsageError
from deepssim.perturb import BUMP_COUNT, Image, degrade, near_copy

__all__ = ["GRADES", "KINDS", "Grade", "Kind", "Partner", "make_partner"]

Kind = Literal["identity", "artefacts", "deformed", "same", "other"]
KINDS: tuple[Kind, ...] = get_args(Kind)

AMPLITUDE_PX = (1.0, 14.0)
# Bumps of one image differ by this factor at most, so that the amplitude says how far it deviates.
_SMALLEST_BUMP = 0.7


@dataclass(frozen=True, slots=True, eq=False)
class Partner:
    """An image made of another.

    Attributes:
        image: ``(height, width)`` float32 in [0, 1].
        kind: How it was made.
        amplitude: Largest peak of a local displacement, in pixels at a shorter side of 112; 0 where nothing moved.
    """

    image: Image
    kind: Kind
    amplitude: float


def make_partner(
    image: Image,
    kind: Kind,
    rng: np.random.Generator,
    *,
    other: Image | None = None,
    amplitude_px: tuple[float, float] = AMPLITUDE_PX,
    n_bumps: tuple[int, int] = BUMP_COUNT,
    strength: float = 1.0,
) -> Partner:
    """Make a partner of an image.

    - *identity*: the image itself.
    - *artefacts*: `degrade`; every structure is where it was.
    - *deformed*: `near_copy` whose displacements reach an amplitude that is log-uniform over `amplitude_px`.
    - *same*, *other*: `degrade` of another image, of the same person (the next slice, a follow-up) or of another one.

    Args:
        image: Float array ``(height, width)`` with values in [0, 1].
        kind: One of `KINDS`.
        rng: Source of every draw.
        other: The other image, for *same* and *other*; it need not have the size of `image`.
        amplitude_px: Smallest and largest amplitude of *deformed*, in pixels at a shorter side of 112.
        n_bumps: Smallest and largest number of local displacements of *deformed*.
        strength: Of the artefacts, as `degrade` takes it; 0 adds none.

    Returns:
        The partner; its image is a new array.

    Raises:
        UsageError: The kind is unknown, `other` is missing, the amplitudes are not positive and in order, or the image
            is unusable (see `degrade`).

    Example:
        >>> from deepssim.phantom import make_patient, render
        >>> image = render(make_patient(1), noise_seed=1)
        >>> partner = make_partner(image, "deformed", np.random.default_rng(0), amplitude_px=(2, 4))
        >>> partner.image.shape, partner.kind, 2 <= partner.amplitude <= 4
        ((136, 112), 'deformed', True)
    """
    if kind == "identity":
        # What degrade checks is checked here too; without artefacts it changes nothing.
        return Partner(degrade(image, rng, strength=0.0), kind, 0.0)
    if kind == "artefacts":
        return Partner(degrade(image, rng, strength=strength), kind, 0.0)
    if kind == "deformed":
        low, high = amplitude_px
        if not 0.0 < low <= high < math.inf:
            raise UsageError(f"make_partner: amplitude_px is {amplitude_px}; give (smallest, largest), both above 0")
        amplitude = min(high, max(low, math.exp(rng.uniform(math.log(low), math.log(high)))))
        bumps = (_SMALLEST_BUMP * amplitude, amplitude)
        return Partner(near_copy(image, rng, amplitude_px=bumps, n_bumps=n_bumps, strength=strength), kind, amplitude)
    if kind not in KINDS:
        raise UsageError(f"make_partner: unknown kind {kind!r}; choose {', '.join(KINDS)}")
    if other is None:
        raise UsageError(f"make_partner: the kind {kind!r} is made of another image; give it as other")
    return Partner(degrade(other, rng, strength=strength), kind, 0.0)


@dataclass(frozen=True, slots=True)
class Grade:
    """A range of changes, narrow enough that its partners are about equally like their image.

    Attributes:
        kind: "identity", "artefacts" or "deformed".
        amplitude_px: See `make_partner`.
        n_bumps: See `make_partner`.
        strength: Smallest and largest strength of the artefacts; uniform.
    """

    kind: Kind
    amplitude_px: tuple[float, float] = AMPLITUDE_PX
    n_bumps: tuple[int, int] = BUMP_COUNT
    strength: tuple[float, float] = (0.0, 1.0)

    def make(self, image: Image, rng: np.random.Generator) -> Partner:
        """Make a partner of this grade; see `make_partner`.

        Example:
            >>> from deepssim.phantom import make_patient, render
            >>> Grade("artefacts").make(render(make_patient(1), noise_seed=1), np.random.default_rng(0)).amplitude
            0.0
        """
        strength = float(rng.uniform(*self.strength))
        return make_partner(
            image, self.kind, rng, amplitude_px=self.amplitude_px, n_bumps=self.n_bumps, strength=strength
        )


_EDGES_PX = (1.0, 2.0, 4.0, 7.0, 14.0)
# From a twin down to an image that is hardly more like its source than one of another person: the SSIM of the last with
# its source is .48, .62 and .75 (lowest tenth, middle, highest tenth) on brain slices of 136 x 112 pixels, and .48, .64
# and .77 on chest films of 128 x 128, where that of other people is .36 to .53 and .09 to .30.
GRADES: tuple[Grade, ...] = (
    Grade("identity", strength=(0.0, 0.0)),
    *(Grade("artefacts", strength=bounds) for bounds in ((0.1, 0.5), (0.5, 1.0), (1.0, 1.5))),
    *(
        Grade("deformed", amplitude_px=(low, high), n_bumps=bumps)
        for bumps in (BUMP_COUNT, (3, 8))
        for low, high in itertools.pairwise(_EDGES_PX)
    ),
)
