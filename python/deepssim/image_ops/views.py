"""A small image seen in many ways, so that a search by inner product finds it mirrored, turned, zoomed or moved."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deepssim import _core

__all__ = ["BANK", "FLIPS", "ViewGrid", "ViewOf", "make_views"]


@dataclass(frozen=True, slots=True)
class ViewOf:
    """One way of looking: the image is mirrored, then turned and zoomed about its centre, then moved.

    Attributes:
        is_mirrored: Left and right change places, before anything else.
        angle_degrees: Counter-clockwise, 0 to 360.
        zoom: Over 1 enlarges.
        shift_rows: Pixels downwards.
        shift_columns: Pixels to the right.
    """

    is_mirrored: bool
    angle_degrees: float
    zoom: float
    shift_rows: int
    shift_columns: int


@dataclass(frozen=True, slots=True)
class ViewGrid:
    """Which views are made: every combination.

    Attributes:
        n_angles: Angles, evenly over a full turn.
        zooms: Factors.
        shift: Pixels each way, all of them.
        with_mirror: Also mirrored.
        least_overlap: Share of the pixels that a view must show of the image, 0 to 1.

    Example:
        >>> len(FLIPS), FLIPS.view(3)
        (4, ViewOf(is_mirrored=True, angle_degrees=180.0, zoom=1.0, shift_rows=0, shift_columns=0))
    """

    n_angles: int = 1
    zooms: tuple[float, ...] = (1.0,)
    shift: int = 0
    with_mirror: bool = True
    least_overlap: float = 0.35

    def __len__(self) -> int:
        return (2 if self.with_mirror else 1) * self.n_angles * len(self.zooms) * (2 * self.shift + 1) ** 2

    def view(self, index: int) -> ViewOf:
        """Return which view a row of `make_views` is.

        Raises:
            IndexError: There is no such row.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"there are {len(self)} views, not one {index}")
        across = 2 * self.shift + 1
        index, column = divmod(index, across)
        index, row = divmod(index, across)
        index, zoom = divmod(index, len(self.zooms))
        mirror, angle = divmod(index, self.n_angles)
        degrees = 360.0 * angle / self.n_angles
        return ViewOf(mirror == 1, degrees, self.zooms[zoom], row - self.shift, column - self.shift)


# Both flips together are half a turn, so one mirror and two angles give all four.
FLIPS = ViewGrid(n_angles=2)
# Finer than the width of what correlates at a shorter side of 28 pixels; a multiple of four angles holds the flips too.
BANK = ViewGrid(n_angles=44, zooms=(0.93, 1.0, 1.07), shift=3)


def make_views(image: NDArray[np.float32], grid: ViewGrid, *, aspect: float = 1.0) -> NDArray[np.float32]:
    """See a small image in all the ways of a grid.

    Bilinear interpolation about the centre. A view is less the mean of the pixels that lie inside the image, zero
    outside, of unit norm: its inner product with the centred and normalised pixels of another image is their
    correlation where the view shows anything, up to what the other image has outside.

    Args:
        image: ``(rows, columns)``, float32, rows contiguous.
        grid: The views.
        aspect: Height of a pixel over its width, where an image was brought to another shape: turns are those of the
            image as it was. Shifts stay whole pixels.

    Returns:
        A new array ``(len(grid), rows * columns)``, float32, in the order of `ViewGrid.view`. Rows are zero where too
        little of the image is seen, or nothing but one grey value.

    Raises:
        TypeError: `image` is not float32.
        ValueError: It is empty, not two-dimensional, or holds NaN or infinity; there are over 2^24 views; a zoom
            or the aspect is not positive and finite.

    Example:
        >>> make_views(np.array([[0, 1], [0, 1]], np.float32), FLIPS).tolist()[0]
        [-0.5, 0.5, -0.5, 0.5]
    """
    return _core.make_views(
        image,
        n_angles=grid.n_angles,
        zooms=grid.zooms,
        shift=grid.shift,
        least_overlap=grid.least_overlap,
        with_mirror=grid.with_mirror,
        aspect=aspect,
    )
