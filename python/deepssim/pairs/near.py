"""Which real images a synthetic one may be a copy of, wherever it lies: those most like it as small views.

Copies that a generator has mirrored, turned or moved are not alike pixel by pixel, so a draw by similarity in place
would hardly meet them.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from deepssim.image_ops import ViewGrid, make_views, map_on_threads, resize_area
from deepssim.pairs.compare import Images
from deepssim.pairs.draw import Indices
from deepssim.search import Searcher

__all__ = ["nearest"]

# Of near copies of brain slices and chest films, one in five mirrored, turned by up to 6 degrees, moved by up to 4 px
# of 112 and zoomed by up to 5 %, the source is among the 8 nearest of 300 and 422 in 92 and 91 of 100; one way of
# looking finds 89 and 79, four times the views 93 and 92.
_SIDE, _MOST_SIDE = 16, 64
_GRID = ViewGrid(n_angles=24, shift=1)
_AS_IT_IS = ViewGrid(with_mirror=False)
_IMAGES = 16


def nearest(
    real: Images,
    n_real: int,
    synthetic: Images,
    n_synthetic: int,
    *,
    size: tuple[int, int],
    k: int,
    threads: int,
    progress: Callable[[int], None],
) -> Indices:
    """Find the real images that are most like each synthetic one.

    Args:
        real: What is searched.
        n_real: Number of them.
        synthetic: What is searched for.
        n_synthetic: Number of them.
        size: Rows and columns of every image, in pixels.
        k: Real images for each.
        threads: 0: all processors that this process may use.
        progress: Called with the number of synthetic images done since the last call.

    Returns:
        ``(n_synthetic, min(k, n_real))``: places of real images, the most alike first, of equal ones the lower place.
    """
    k = min(k, n_real)
    rows, columns = _thumbnail_size(size)
    aspect = size[0] * columns / (size[1] * rows)

    def see(images: Images, first: int, stop: int, grid: ViewGrid) -> np.ndarray:
        def views(image: np.ndarray) -> np.ndarray:
            return make_views(resize_area(image.astype(np.float32), rows, columns), grid, aspect=aspect)

        return np.concatenate(map_on_threads(views, images.read(np.arange(first, stop)), threads))

    searcher = Searcher(rows * columns, n_real, expected_queries=n_synthetic * len(_GRID))
    for first in range(0, n_real, 1024):
        searcher.add(see(real, first, min(first + 1024, n_real), _AS_IT_IS))
    found = np.empty((n_synthetic, k), np.int64)
    for first in range(0, n_synthetic, _IMAGES):
        stop = min(first + _IMAGES, n_synthetic)
        answer = searcher.search(see(synthetic, first, stop, _GRID), k, threads=threads)
        ids, scores = (array.reshape(stop - first, -1) for array in (answer.ids, answer.scores))
        for place in range(stop - first):
            best = np.full(n_real, -np.inf, np.float32)
            np.maximum.at(best, ids[place], scores[place])
            found[first + place] = np.argsort(-best, kind="stable")[:k]
        progress(stop - first)
    return found


def _thumbnail_size(size: tuple[int, int]) -> tuple[int, int]:
    factor = min(1.0, _SIDE / min(size), _MOST_SIDE / max(size))
    return max(1, round(size[0] * factor)), max(1, round(size[1] * factor))
