"""How an encoder sees the images that are searched: each in several views, whose mean is its embedding.

An encoder that was taught to overlook flips and turns does so but for a rest, which differs from view to view. The mean
direction over flips and a few turns is without most of it, and nearer to copies that were flipped and turned. Real
images are few and are embedded once, so they can afford it; generated ones are embedded as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from deepssim.image_ops import Transform, warp

__all__ = ["GalleryViews"]

MOST_TURNS = 64

Pixels = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class GalleryViews:
    """All four flips of an image at each of some turns.

    Attributes:
        turns_degrees: Counter-clockwise.

    Raises:
        ValueError: There is no turn, there are too many, or one is not finite.
    """

    turns_degrees: tuple[float, ...] = (0.0,)

    def __post_init__(self) -> None:
        """Check the turns."""
        if not 0 < len(self.turns_degrees) <= MOST_TURNS or not np.isfinite(self.turns_degrees).all():
            raise ValueError(f"turns_degrees is {self.turns_degrees}: 1 to {MOST_TURNS} finite numbers")

    def __len__(self) -> int:
        return 4 * len(self.turns_degrees)

    def of(self, image: Pixels) -> list[Pixels]:
        """Return the views of an image ``(height, width)``, in its unit; where nothing of it lies is its minimum.

        Example:
            >>> [view.tolist() for view in GalleryViews().of(np.array([[0, 1]], np.float32))]
            [[[0.0, 1.0]], [[0.0, 1.0]], [[1.0, 0.0]], [[1.0, 0.0]]]
        """
        low = image.min()
        views = []
        for turn in self.turns_degrees:
            turned = (
                image if turn == 0 else warp(np.ascontiguousarray(image - low), Transform(angle_degrees=turn)) + low
            )
            views += [turned, turned[::-1], turned[:, ::-1], turned[::-1, ::-1]]
        return views

    def mean(self, embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the mean direction of each image.

        Args:
            embeddings: ``(n * len(self), dim)``: of the views of one image after those of another.

        Returns:
            ``(n, dim)`` float32 of unit norm; not finite where the views have no mean direction.
        """
        summed = embeddings.reshape(-1, len(self), embeddings.shape[1]).astype(np.float64).sum(axis=1)
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(summed / np.linalg.norm(summed, axis=1, keepdims=True), np.float32)

    def as_metadata(self) -> dict[str, Any]:
        """Return as in a bundle's metadata."""
        return {"turns_degrees": list(self.turns_degrees)}

    @classmethod
    def from_metadata(cls, value: Any) -> Self | None:
        """Read a bundle's metadata; None where there is no entry.

        Raises:
            ValueError: The turns cannot be.
            TypeError: The entry is something else.
            KeyError: It lacks the turns.
        """
        return None if value is None else cls(_numbers(value["turns_degrees"]))


def _numbers(values: Sequence[Any]) -> tuple[float, ...]:
    return tuple(float(value) for value in values)
