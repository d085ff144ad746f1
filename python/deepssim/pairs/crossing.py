"""Pairs of real images with the partners of others: of the same person, and of other people."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from deepssim.pairs.choose import Chooser, PairOptions
from deepssim.pairs.compare import Checkpoint, Held, Images, compare_blocks
from deepssim.pairs.draw import N_BINS, EvenDraw, Indices, bin_of
from deepssim.pairs.making import MadeImages
from deepssim.pairs.people import choose_people
from deepssim.partners import GRADES
from deepssim.pixel_set import Size

__all__ = ["Crossing"]

# Real images that tell how alike images are to partners of others, about.
_PILOT = 512
_COLUMN_STREAM, _PILOT_STREAM = 4, 5


class Crossing:
    """Real images of one split against partners of the same split.

    Where there are more pairs than may be compared, whole people are drawn, and of the partners theirs first: pairs of
    one person are rare, and worth more than those of two.

    Args:
        split: 0 or 1.
        places: The real images of the split.
        people: The person of every real image.
        options: What is listed.
    """

    def __init__(self, split: int, places: Indices, people: Sequence[str], options: PairOptions) -> None:
        self.split, self.places, self.options = split, places, options
        self.n = options.split_number(split)
        self.people = np.array([people[place] for place in places.tolist()], dtype=object)
        self._most = max(1, options.most_compared * self.n // options.number)

    def rows(self, n_partners: int) -> Indices:
        """Return the real images that so many partners are compared with."""
        n_rows = max(math.isqrt(self._most), self._most // max(1, n_partners))
        return self.places[choose_people(self.people.tolist(), n_rows, self.options.seed, "compared")]

    def n_compared(self, n_partners: int) -> int:
        """Return how many pairs are compared with so many partners."""
        n_rows = len(self.rows(n_partners))
        return n_rows * min(n_partners, self._most // max(1, n_rows))

    def expected(self, images: Images, size: Size) -> Callable[[int], Indices]:
        """Return how many pairs of each bin there will be, judged by one partner of each of some images.

        Returns:
            What gives ``(N_BINS,)`` int64 for so many partners, without the pairs with their own images.
        """
        rows = self.rows(max(len(self.places), self.n // 2))
        if len(rows) < 2:
            return lambda _: np.zeros(N_BINS, np.int64)
        person_of = dict(zip(self.places.tolist(), self.people.tolist(), strict=True))
        people = np.array([person_of[row] for row in rows.tolist()], dtype=object)
        sample = choose_people(people.tolist(), _PILOT, self.options.seed, "pilot")[: 2 * _PILOT]
        blocks = compare_blocks(
            images, rows[sample], self._partners(images, rows[sample]), np.arange(len(sample)), size=size,
            memory_limit=self.options.memory_limit, threads=self.options.threads,
        )  # fmt: skip
        bins = bin_of(np.concatenate([micros for _, micros in blocks], axis=1))
        is_same = people[sample][:, None] == people[sample][None, :]
        # Whose image a partner is of has so many images among the rows, on average.
        n_same = float(np.mean([np.count_nonzero(people == person) for person in people[sample]])) - 1.0
        each_partner = np.zeros(N_BINS)
        for chosen, each in ((is_same & ~np.eye(len(sample), dtype=bool), n_same),
                             (~is_same, len(rows) - 1.0 - n_same)):  # fmt: skip
            counts = np.bincount(bins[chosen], minlength=N_BINS)
            each_partner += each * counts / max(1, counts.sum())
        most = self._most // len(rows)
        return lambda n_partners: (each_partner * min(n_partners, most)).astype(np.int64)

    def _partners(self, images: Images, places: Indices) -> Images:
        rng = np.random.default_rng([self.options.seed, self.split, _PILOT_STREAM])
        grades = rng.integers(1, len(GRADES), len(places)).tolist()
        greys = images.read(places).astype(np.float32) / np.float32(255)
        made = [GRADES[grade].make(grey, rng).image for grade, grey in zip(grades, greys, strict=True)]
        return Held(np.rint(np.stack(made) * np.float32(255)).astype(np.uint8))

    def compare(
        self,
        images: Images,
        partners: MadeImages,
        made: Indices,
        chooser: Chooser,
        checkpoint: Checkpoint,
        progress: Callable[[int], None],
    ) -> None:
        """Show the chooser the pairs of this split: each partner with its own image, then with others.

        Args:
            images: The real images.
            partners: The partners.
            made: Places of those of this split.
            chooser: Shown them.
            checkpoint: What was done is taken from there, and left there.
            progress: Called with the number of pairs done since the last call.
        """
        draw, source = chooser.draws[self.split], partners.made.source
        rows = self.rows(len(made))
        columns = self._columns(rows, made, source[made])
        start, found = 0, checkpoint.load()
        if found is not None:
            start = int(found["next"])
            draw.restore(found)
            progress(len(rows) * start)
        else:
            draw.add(source[made], made, partners.made.micros[made])
        blocks = compare_blocks(
            images, rows, partners, columns, size=partners.size, first_column=start,
            memory_limit=self.options.memory_limit, threads=self.options.threads,
        )  # fmt: skip
        for block, micros in blocks:
            chosen = columns[block]
            chooser.add_block(self.split, rows, chosen, micros, rows[:, None] != source[chosen][None, :])
            checkpoint.offer(partial(_state, draw, block.stop), is_last=block.stop == len(columns))
            progress(micros.size)

    def _columns(self, rows: Indices, made: Indices, source: Indices) -> Indices:
        most = self._most // max(1, len(rows))
        if most >= len(made):
            return made
        rng = np.random.default_rng([self.options.seed, self.split, _COLUMN_STREAM])
        order = rng.permutation(len(made))
        is_row = np.isin(source[order], rows)
        first = np.concatenate([order[is_row], order[~is_row]])[:most]
        return np.sort(made[first])


def _state(draw: EvenDraw, stop: int) -> dict[str, NDArray[np.generic]]:
    return {**draw.state(), "next": np.array(stop)}
