"""From pairs that were compared to those that are listed, and how the list is written."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from deepssim.errors import UsageError
from deepssim.images import ImageOptions
from deepssim.pairs.compare import Checkpoint, Images, register_pairs
from deepssim.pairs.draw import N_BINS, ONE, Drawn, EvenDraw, Indices, Micros, bin_of, to_micros
from deepssim.pairs.people import SPLITS
from deepssim.pixel_set import Size
from deepssim.progress import Progress
from deepssim.tables import write_csv

__all__ = [
    "BinCount",
    "Chooser",
    "Chosen",
    "PairOptions",
    "PairResult",
    "Registered",
    "Target",
    "warnings_of",
    "write_pairs",
]

Target = Literal["ssim", "registered"]

COLUMNS = (
    "real_key", "synth_key", "ssim", "split", "kind", "person", "amplitude_px", "is_mirrored", "angle_degrees",
    "shift_rows", "shift_columns", "scale",
)  # fmt: skip

# Registration moves pairs to other bins: of so many times the number some are left to choose from.
_POOL = 1.5
# Pairs compared for each one listed, unless told otherwise, and in all.
_COMPARED_EACH = 20
_LEAST_COMPARED = 20_000_000


@dataclass(frozen=True, slots=True)
class PairOptions:
    """What is listed.

    Args:
        number: Pairs to draw.
        target: What an encoder is to learn: "ssim", of the images as they lie, or "registered", once the second is
            laid onto the first. None: "ssim" for partners that are made, which lie where their image lies, and
            "registered" for images of a generator.
        seed: Of every draw.
        valid_part: Part of the people, and of the pairs, of the split ``valid``; 0 to .5.
        compare: Most pairs that are compared as they lie; None: 20 for each one listed, 20 million at least.
        size: Rows and columns in pixels that all images are brought to by area averaging; None: they have one size.
        images: How images are read; its `group_by` says who a real image is of.
        memory_limit: Bytes for images held at a time; 0: no limit.
        threads: 0: all processors that this process may use. Nothing that is written depends on it.
        workers: Processes that make partners; 0: this one alone. See `deepssim.pairs.workers.working`.
        max_skipped: Share of a set that may be left out before the result counts as incomplete.
    """

    number: int = 20_000
    target: Target | None = None
    seed: int = 0
    valid_part: float = 0.1
    compare: int | None = None
    size: Size | None = None
    images: ImageOptions = field(default_factory=ImageOptions)
    memory_limit: int = 2 * 2**30
    threads: int = 0
    workers: int = 0
    max_skipped: float = 0.01

    def __post_init__(self) -> None:
        """Check what the types do not say."""
        if self.number < 1 or self.seed < 0 or (self.compare is not None and self.compare < 1):
            raise UsageError("the number of pairs and of those compared are at least 1, the seed at least 0")
        if not 0 <= self.valid_part <= 0.5:
            raise UsageError(f"valid_part is {self.valid_part}: it lies between 0 and .5")
        if self.target not in (None, "ssim", "registered"):
            raise UsageError(f"target is {self.target!r}: it must be ssim or registered")

    @property
    def most_compared(self) -> int:
        """Most pairs that are compared as they lie."""
        return self.compare if self.compare is not None else max(_LEAST_COMPARED, _COMPARED_EACH * self.number)

    def split_number(self, split: int) -> int:
        """Pairs to draw of a split, 0 or 1."""
        n_valid = round(self.valid_part * self.number)
        return n_valid if split else self.number - n_valid

    def facts(self) -> dict[str, Any]:
        """Return all that decides about the result."""
        free = ("threads", "workers", "memory_limit", "max_skipped")
        return {key: value for key, value in asdict(self).items() if key not in free}


@dataclass(frozen=True, slots=True)
class BinCount:
    """A tenth of the similarity.

    Attributes:
        low: Its lower end.
        high: Its upper end; 1 is inside the last, others are outside.
        wanted: Pairs of an even draw, by split.
        found: Pairs there were to draw from.
        drawn: Pairs listed.
    """

    low: float
    high: float
    wanted: dict[str, int]
    found: dict[str, int]
    drawn: dict[str, int]


@dataclass(frozen=True, slots=True)
class PairResult:
    """What was listed.

    Attributes:
        out: The list.
        folder: What its keys are relative to.
        target: What its similarity is.
        number: Pairs asked for.
        n_pairs: Pairs listed, by split.
        n_people: People of the real images, by split.
        n_real: Real images.
        n_synthetic: Synthetic images, or partners that were made and are listed.
        n_compared: Pairs compared as they lie.
        bins: From the lowest tenth that holds a pair to the highest.
        n_skipped: Inputs that should have been images and are none.
        n_resized: Images that had another size.
        too_many_skipped: Whether more of a set was left out than allowed.
        warnings: What to know before training.
    """

    out: Path
    folder: Path
    target: Target
    number: int
    n_pairs: dict[str, int]
    n_people: dict[str, int]
    n_real: int
    n_synthetic: int
    n_compared: int
    bins: list[BinCount]
    n_skipped: int
    n_resized: int
    too_many_skipped: bool
    warnings: list[str]

    def as_dict(self) -> dict[str, Any]:
        """Return it for JSON."""
        return {key: str(value) if isinstance(value, Path) else value for key, value in asdict(self).items()}

    @classmethod
    def of(cls, value: Mapping[str, Any]) -> Self:
        """Return what `as_dict` was made of."""
        bins = [BinCount(**one) for one in value["bins"]]
        return cls(**{**value, "out": Path(value["out"]), "folder": Path(value["folder"]), "bins": bins})


@dataclass(frozen=True, slots=True, eq=False)
class Registered:
    """Pairs that were registered.

    Attributes:
        first: ``(n,)`` int64: place of each pair's real image.
        second: ``(n,)`` int64: of its synthetic one.
        numbers: ``(n, N_NUMBERS)`` what `register_pairs` says of it.
    """

    first: Indices
    second: Indices
    numbers: NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Chosen:
    """Pairs of one split.

    Attributes:
        pairs: Them.
        moved: ``(n, 5)`` what was done with the second image, as `register_pairs` says it; None: nothing.
    """

    pairs: Drawn
    moved: NDArray[np.float64] | None


class Chooser:
    """Draws pairs of both splits evenly, by their similarity as they lie or once registered.

    For the latter a pool is drawn by the similarity as they lie, and registered. To it come pairs that were registered
    before, since something else said that they may be alike.

    Args:
        options: What is asked for.
        target: What the similarity is to be.

    Attributes:
        draws: Shown every pair of each split.
        known: Pairs of each split that were registered before; the draws are not shown them.
    """

    def __init__(self, options: PairOptions, target: Target) -> None:
        self.options, self.target = options, target
        factor = _POOL if target == "registered" else 1
        self.draws = [
            EvenDraw(round(factor * options.split_number(split)), options.seed) for split in range(len(SPLITS))
        ]
        self.known: list[Registered | None] = [None] * len(SPLITS)
        self.found = np.zeros((len(SPLITS), N_BINS), np.int64)

    def add_block(
        self, split: int, rows: Indices, columns: Indices, micros: Micros, shown: NDArray[np.bool_] | None = None
    ) -> None:
        """Show all pairs of some rows with some columns.

        Args:
            split: 0 or 1.
            rows: Places of the first images.
            columns: Of the second.
            micros: ``(len(rows), len(columns))`` their similarity.
            shown: The same shape: which of the pairs; None: all.
        """
        step = max(1, 2**20 // max(1, len(columns)))
        for start in range(0, len(rows), step):
            part = micros[start : start + step]
            first = np.repeat(rows[start : start + step], len(columns))
            second = np.tile(columns, len(part))
            if shown is None:
                self.draws[split].add(first, second, part.ravel())
            else:
                chosen = shown[start : start + step].ravel()
                self.draws[split].add(first[chosen], second[chosen], part.ravel()[chosen])

    def finish(self, real: Images, synthetic: Images, work: Path, progress: Progress) -> list[Chosen]:
        """Return the pairs of each split.

        Raises:
            UsageError: There is none.
        """
        pools = [draw.finish() for draw in self.draws]
        self.found = np.stack([draw.counts for draw in self.draws])
        if self.target == "ssim":
            chosen = [Chosen(pool, None) for pool in pools]
        else:
            with progress.track("registering", sum(map(len, pools))) as advance:
                chosen = []
                for split, pool in enumerate(pools):
                    numbers = register_pairs(
                        real, pool.first, synthetic, pool.second, threads=self.options.threads,
                        checkpoint=Checkpoint(work / f"registered-{split}.npz"), progress=advance,
                    )  # fmt: skip
                    chosen.append(self._drawn(split, Registered(pool.first, pool.second, numbers)))
        if not any(len(one.pairs) for one in chosen):
            raise UsageError("there is no pair to list: give more images, or a larger --compare")
        return chosen

    def _drawn(self, split: int, pool: Registered) -> Chosen:
        """Draw the pairs of a split from those that were registered."""
        known = self.known[split]
        if known is not None:
            pool = Registered(
                *(np.concatenate([getattr(one, name) for one in (known, pool)]) for name in Registered.__slots__)
            )
        # In an order of their own, so that it does not matter how they came here.
        order = np.lexsort((pool.second, pool.first))
        fits = order[pool.numbers[order, 0] > -1.0]  # -1: too little overlaps to say anything
        draw = EvenDraw(self.options.split_number(split), self.options.seed)
        draw.add(np.arange(len(fits)), np.zeros(len(fits), np.int64), to_micros(pool.numbers[fits, 0]))
        drawn = draw.finish()
        self.found[split] = draw.counts
        at = fits[drawn.first]
        return Chosen(Drawn(pool.first[at], pool.second[at], drawn.micros), pool.numbers[at, 1:])

    def bins(self, chosen: Sequence[Chosen]) -> list[BinCount]:
        """Count what was wanted, found and drawn."""
        drawn = np.stack([np.bincount(bin_of(one.pairs.micros), minlength=N_BINS) for one in chosen])
        seen = np.flatnonzero(self.found.any(axis=0))
        wanted = []
        for split, found in enumerate(self.found):
            n_bins = int(np.count_nonzero(found))
            wanted.append(-(-self.options.split_number(split) // n_bins) if n_bins else 0)
        counts = []
        for b in range(int(seen[0]), int(seen[-1]) + 1):
            values = (dict(zip(SPLITS, map(int, row), strict=True)) for row in (wanted, self.found[:, b], drawn[:, b]))
            counts.append(BinCount((b - 10) / 10, (b - 9) / 10, *values))
        return counts


def warnings_of(options: PairOptions, n_pairs: Mapping[str, int]) -> list[str]:
    """Say what a list lacks."""
    said = []
    total = sum(n_pairs.values())
    if total < options.number:
        said.append(
            f"Only {total:,} of {options.number:,} pairs could be drawn without listing one twice: give more images."
        )
    for k, split in enumerate(SPLITS):
        if n_pairs[split] == 0 and options.split_number(k):
            said.append(
                f"No pair is of the split {split}, without which nothing trains: change --valid-part or --seed."
            )
    return said


def write_pairs(
    path: Path,
    chosen: Sequence[Chosen],
    real_keys: Sequence[str],
    people: Sequence[str],
    synthetic: Callable[[int, int], tuple[str, str, float | None]],
) -> None:
    """Write the list, atomically.

    Args:
        path: The CSV.
        chosen: Pairs of each split.
        real_keys: Key of each real image.
        people: Its person.
        synthetic: Gives key, kind and amplitude (or None) of the second image of a pair of places.
    """
    write_csv(path, COLUMNS, _rows(chosen, real_keys, people, synthetic))


def _rows(
    chosen: Sequence[Chosen],
    real_keys: Sequence[str],
    people: Sequence[str],
    synthetic: Callable[[int, int], tuple[str, str, float | None]],
) -> Iterable[Sequence[object]]:
    for split, one in zip(SPLITS, chosen, strict=True):
        pairs = one.pairs
        values = zip(pairs.first.tolist(), pairs.second.tolist(), pairs.micros.tolist(), strict=True)
        for k, (i, j, micros) in enumerate(values):
            key, kind, amplitude = synthetic(i, j)
            row: list[object] = [real_keys[i], key, micros / ONE, split, kind, people[i]]
            row.append("" if amplitude is None else round(amplitude, 3))
            if one.moved is not None:
                mirrored, *transform = one.moved[k].tolist()
                row += [int(mirrored), *(round(value, 4) for value in transform)]
            else:
                row += [""] * 5
            yield row
