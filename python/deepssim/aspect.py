"""Ratios of height to width: which ones a set has, and which images lie across it.

A slice stored along another axis is turned by 90 degrees together with its frame: what stood now lies. Stretched into
the frame of the others it resembles none of them, so it is turned back by a quarter before it is compared.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from deepssim.image_ops import Transform

__all__ = ["AspectRange", "are_across", "turned_first"]

# Height over width may differ by this factor before two images count as of different shapes.
_TOLERANCE = 1.05


def are_across(a: tuple[int, int], b: tuple[int, int]) -> bool:
    """Say whether of two images ``(rows, columns)`` one is taller than wide and the other wider than tall.

    Example:
        >>> are_across((136, 112), (112, 136)), are_across((136, 112), (136, 136))
        (True, False)
    """
    return (a[0] - a[1]) * (b[0] - b[1]) < 0


def turned_first(transform: Transform, quarters: int) -> Transform:
    """Return the transform of an image as one of it turned by so many quarters first, counter-clockwise.

    Example:
        >>> turned_first(Transform(angle_degrees=100.0), 1).angle_degrees
        -170.0
    """
    degrees = transform.angle_degrees + (-90.0 if transform.is_mirrored else 90.0) * quarters
    return replace(transform, angle_degrees=degrees - 360.0 * math.ceil((degrees - 180.0) / 360.0))


@dataclass(frozen=True, slots=True)
class AspectRange:
    """The ratios of height to width of a set.

    Attributes:
        lowest: The lowest; 0 where none is known.
        highest: The highest.
    """

    lowest: float
    highest: float

    @classmethod
    def of(cls, table: pa.Table) -> AspectRange:
        """Return those of a table with the columns ``height`` and ``width``, in pixels; 0 or null: not known."""
        ratios = _ratios(table)
        return cls(float(ratios.min()), float(ratios.max())) if len(ratios) else cls(0.0, 0.0)

    def lie_across(self, sizes: Iterable[tuple[int, int]]) -> list[bool]:
        """Say of images whether they lie and all of the set stand, or the other way round.

        Args:
            sizes: Height and width of each; 0: not known.
        """
        stand, lie = self.lowest > 1, 0 < self.highest < 1
        return [min(size) > 0 and (stand if size[0] < size[1] else lie and size[0] > size[1]) for size in sizes]

    def count_other(self, table: pa.Table) -> int:
        """Return how many images of a table have a ratio of no image of the set, turned by a quarter or not."""
        if not self.lowest:
            return 0
        ratios = _ratios(table)
        turned = (ratios < 1) if self.lowest > 1 else (ratios > 1) if self.highest < 1 else np.zeros(len(ratios), bool)
        ratios = np.where(turned, 1 / ratios, ratios)
        outside = (ratios < self.lowest / _TOLERANCE) | (ratios > self.highest * _TOLERANCE)
        return int(np.count_nonzero(outside))


def _ratios(table: pa.Table) -> NDArray[np.float64]:
    """Return height over width of the images whose size is known."""
    height, width = (np.asarray(table[name].fill_null(0), np.float64) for name in ("height", "width"))
    known = (height > 0) & (width > 0)
    return np.asarray(height[known] / width[known])
