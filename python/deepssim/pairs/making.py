"""Making partners until each tenth of the similarity has enough of them.

Partners come in chunks, each a function of the seed and of what the chunks before it gave. A bin that real images of
the same and of other people fill on their own needs few, one that is full takes no more, and the grades that hit what
is lacking are made more often. A chunk counts from the moment its record is on the disk: killed, a run goes on there.

Partners wait in files of raw pixels; only those of pairs that are listed become images that others read.
"""

from __future__ import annotations

import io
import os
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Picture

from deepssim.disk import FILE_MODE, make_private_folder, replacing
from deepssim.errors import UsageError
from deepssim.image_ops import similarity_pairs
from deepssim.pairs.compare import Images
from deepssim.pairs.draw import N_BINS, Indices, Micros, bin_of, even_shares, to_micros
from deepssim.pairs.people import SPLITS
from deepssim.pairs.workers import Map
from deepssim.partners import GRADES

__all__ = ["Made", "MadeImages", "Maker", "partner_name", "write_png"]

Bytes = NDArray[np.uint8]

_CHUNK = (32, 512)
_PIECE = 64  # partners that a process makes at a time
# A bin is within reach of a grade that hits it this often; a bin that none reaches is left to other pairs.
_REACH = 0.1
# Before anything is made, grades are taken to hit bins from here on, with the weight of so many partners.
_FIRST_BIN, _BELIEF = 15, 4.0
# Of the partners some are drawn whatever is lacking: grades stay mixed in every bin.
_ANY_GRADE = 0.1
# Partners made for each pair that is wanted before giving up, and the least share of a run of chunks that was of use.
_MOST_EACH = 2
_LEAST_USE, _USE_CHUNKS = 0.05, 8
_COMPRESSION = 1
_MADE_STREAM, _GRADE_STREAM, _ORDER_STREAM = 1, 2, 3


@dataclass(frozen=True, slots=True, eq=False)
class Made:
    """Partners, those too that were of no use.

    Attributes:
        source: ``(n,)`` int64: place of the real image that each is made of.
        number: ``(n,)`` int64: the how-manieth of its image.
        grade: ``(n,)`` int64: place in `GRADES`.
        amplitude: ``(n,)`` float64: as in `Partner`, in pixels.
        micros: ``(n,)`` int32: SSIM with its image, in millionths.
        kept: ``(n,)`` bool: whether it was of use.
    """

    source: Indices
    number: Indices
    grade: Indices
    amplitude: NDArray[np.float64]
    micros: Micros
    kept: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.micros)

    @classmethod
    def join(cls, parts: Sequence[Made]) -> Made:
        """Return several as one."""
        none = np.zeros(0, np.int64)
        empty = cls(none, none, none, np.zeros(0), np.zeros(0, np.int32), np.zeros(0, np.bool_))
        return cls(*(np.concatenate([getattr(one, name) for one in (empty, *parts)]) for name in cls.__slots__))

    def only_kept(self) -> Made:
        """Return those that were of use."""
        return Made(*(getattr(self, name)[self.kept] for name in self.__slots__))


def partner_name(grade: int, number: int) -> str:
    """Return the name of a partner's file, without suffix.

    Example:
        >>> partner_name(0, 3)
        'identity-0003'
    """
    return f"{GRADES[grade].kind}-{number:04d}"


class MadeImages:
    """Partners that were kept, in the order in which they were made.

    Args:
        parts: Files of raw pixels, and what they hold.
        size: Rows and columns in pixels.
    """

    def __init__(self, parts: Sequence[tuple[Path, Made]], size: tuple[int, int]) -> None:
        self.made, self.size = Made.join([part for _, part in parts]), size
        self._files = [path for path, _ in parts]
        self._starts = np.cumsum([0, *(len(part) for _, part in parts)])

    def read(self, places: Indices) -> Bytes:
        """Return some, a new array ``(len(places), rows, columns)``.

        Raises:
            UsageError: A file is not what it was.
        """
        pixels = self.size[0] * self.size[1]
        images = np.empty((len(places), *self.size), np.uint8)
        owners = np.searchsorted(self._starts, places, side="right") - 1
        for owner in np.unique(owners).tolist():
            path = self._files[owner]
            with path.open("rb", buffering=0) as file:
                for k in np.flatnonzero(owners == owner).tolist():
                    data = os.pread(file.fileno(), pixels, pixels * int(places[k] - self._starts[owner]))
                    if len(data) != pixels:
                        raise UsageError(f"{path} is shorter than it was: begin again with --overwrite")
                    images[k] = np.frombuffer(data, np.uint8).reshape(self.size)
        return images


class Maker:
    """Makes the partners of one split.

    Args:
        images: The real images.
        places: Those of the split.
        work: Where chunks are kept.
        n: Pairs that are wanted of the split.
        free: Gives how many pairs of each bin, ``(N_BINS,)``, so many partners will have with other images.
        split: 0 or 1.
        seed: Of every draw.
        threads: 0: all processors that this process may use.
        apply: Applies a function to pieces of work.
    """

    def __init__(
        self,
        images: Images,
        places: Indices,
        *,
        work: Path,
        n: int,
        free: Callable[[int], Indices],
        split: int,
        seed: int,
        threads: int,
        apply: Map,
    ) -> None:
        self.images, self.work, self.apply = images, work, apply
        self.n, self.free, self.split, self.seed, self.threads = n, free, split, seed, threads
        self.order = np.random.default_rng([seed, split, _ORDER_STREAM]).permutation(places)
        self.size = max(_CHUNK[0], min(_CHUNK[1], n // 8))
        self.hits = np.zeros((len(GRADES), N_BINS))
        self.own: Indices = np.zeros(N_BINS, np.int64)
        self.twins: set[int] = set()
        # Once bins are as even as they get, any partner will do if there are too few pairs in all.
        self.takes_any = False

    def run(self, progress: Callable[[int], None]) -> list[tuple[Path, Made]]:
        """Make partners, or take over those that a run before this one made.

        Args:
            progress: Called with the number of partners made since the last call.

        Returns:
            Files of raw pixels, and the partners in each.
        """
        parts: list[tuple[Path, Made]] = []
        use: list[float] = []
        while not self._is_done(use):
            path = self.work / f"partners_{SPLITS[self.split]}-{len(parts):06d}.bin"
            part = _load(path)
            if part is None:
                part, images = self._make(len(parts))
                _save(path, part, images)
            self._count(part)
            parts.append((path, part.only_kept()))
            use.append(float(part.kept.mean()))
            progress(len(part))
        return parts

    def lacking(self) -> Indices:
        """Return how many partners each bin within reach lacks, ``(N_BINS,)``."""
        if self.takes_any:
            return np.full(N_BINS, self.n)
        reachable = self._rates().max(axis=0) >= _REACH
        there = self._there()
        shares = even_shares(np.minimum(np.where(reachable, self.n, there), self.n), self.n)
        return np.where(reachable, np.maximum(shares - there, 0), 0)

    def _there(self) -> Indices:
        return np.asarray(self.free(int(self.own.sum())) + self.own, np.int64)

    def _rates(self) -> NDArray[np.float64]:
        believed = np.zeros((len(GRADES), N_BINS))
        believed[:, _FIRST_BIN:] = _BELIEF / (N_BINS - _FIRST_BIN)
        seen = self.hits + believed
        return np.asarray(seen / seen.sum(axis=1, keepdims=True), np.float64)

    def _is_done(self, use: Sequence[float]) -> bool:
        if not len(self.order):
            return True
        n_made = len(use) * self.size
        if not self.takes_any:
            last = use[-_USE_CHUNKS:]
            is_vain = len(last) == _USE_CHUNKS and sum(last) < _LEAST_USE * _USE_CHUNKS
            if n_made < _MOST_EACH * self.n + self.size and not is_vain and self.lacking().any():
                return False
            self.takes_any = True
        return int(self._there().sum()) >= self.n or n_made >= (_MOST_EACH + 2) * self.n + self.size

    def _plan(self, chunk: int) -> tuple[Indices, Indices, Indices]:
        """Return sources, numbers and grades of a chunk."""
        turns = np.arange(chunk * self.size, (chunk + 1) * self.size)
        source, number = self.order[turns % len(self.order)], turns // len(self.order)
        use = self._rates() @ self.lacking()
        weights = use / use.sum() * (1 - _ANY_GRADE) + _ANY_GRADE / len(GRADES)
        rng = np.random.default_rng([self.seed, self.split, _GRADE_STREAM, chunk])
        grade = rng.choice(len(GRADES), size=self.size, p=weights / weights.sum())
        twins = set(self.twins)
        for k in np.flatnonzero(grade == 0).tolist():
            if int(source[k]) in twins:  # a second one would list the same pair twice
                grade[k] = 1
            twins.add(int(source[k]))
        return source.astype(np.int64), number.astype(np.int64), grade.astype(np.int64)

    def _make(self, chunk: int) -> tuple[Made, Bytes]:
        """Make a chunk; return all of it, and the pixels of what is kept."""
        source, number, grade = self._plan(chunk)
        places, place_of = np.unique(source, return_inverse=True)
        originals = self.images.read(places)

        pieces = [
            _Piece(originals, self.seed, self.split, place_of[k], source[k], number[k], grade[k])
            for k in np.array_split(np.arange(self.size), -(-self.size // _PIECE))
        ]
        made = self.apply(_make_piece, pieces)
        images = np.concatenate([images for images, _ in made])
        amplitude = np.concatenate([amplitudes for _, amplitudes in made])
        # Pairs of one image together: what they need of it is computed once.
        order = np.argsort(place_of, kind="stable")
        pairs = np.stack([place_of[order], order], axis=1).astype(np.int64)
        micros = np.empty(self.size, np.int32)
        micros[order] = to_micros(
            similarity_pairs("ssim", originals, images, pairs, with_z_score=True, threads=self.threads)
        )
        kept = self._useful(micros)
        return Made(source, number, grade, amplitude, micros, kept), images[kept]

    def _useful(self, micros: Micros) -> NDArray[np.bool_]:
        """Say which partners of a chunk a bin still lacks, the first ones first."""
        lacking = self.lacking()
        kept = np.zeros(len(micros), np.bool_)
        for k, b in enumerate(bin_of(micros).tolist()):
            kept[k] = lacking[b] > 0
            lacking[b] -= 1
        return kept

    def _count(self, part: Made) -> None:
        bins = bin_of(part.micros)
        np.add.at(self.hits, (part.grade, bins), 1.0)
        self.own += np.bincount(bins[part.kept], minlength=N_BINS)
        self.twins |= set(part.source[part.grade == 0].tolist())


@dataclass(frozen=True, slots=True, eq=False)
class _Piece:
    """Partners to be made: real images, and what each partner is."""

    originals: Bytes
    seed: int
    split: int
    place: Indices
    source: Indices
    number: Indices
    grade: Indices


def _make_piece(piece: _Piece) -> tuple[Bytes, NDArray[np.float64]]:
    images = np.empty((len(piece.place), *piece.originals.shape[1:]), np.uint8)
    amplitudes = np.empty(len(piece.place))
    each = zip(*(a.tolist() for a in (piece.place, piece.source, piece.number, piece.grade)), strict=True)
    for k, (place, source, number, grade) in enumerate(each):
        rng = np.random.default_rng([piece.seed, piece.split, _MADE_STREAM, source, number])
        partner = GRADES[grade].make(piece.originals[place].astype(np.float32) / np.float32(255), rng)
        images[k], amplitudes[k] = np.rint(partner.image * np.float32(255)), partner.amplitude
    return images, amplitudes


def _load(path: Path) -> Made | None:
    try:
        with np.load(path.with_suffix(".npz"), allow_pickle=False) as archive:
            return Made(*(archive[name] for name in Made.__slots__))
    except FileNotFoundError:
        return None


def _save(path: Path, part: Made, images: Bytes) -> None:
    """Write a chunk: its pixels, then the record by which it counts."""
    with replacing(path) as temporary:
        images.tofile(temporary)
    with replacing(path.with_suffix(".npz")) as temporary, temporary.open("wb") as file:
        np.savez(file, **{name: getattr(part, name) for name in Made.__slots__})


def write_png(path: Path, image: Bytes) -> None:
    """Write an 8-bit grey PNG file, readable by its owner alone; it has its name when it is whole.

    It is not yet on the disk then: of many files that would take longer than to make them.
    """
    data = io.BytesIO()
    Picture.fromarray(image).save(data, "PNG", compress_level=_COMPRESSION)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}.partial")
    make_private_folder(path.parent)
    with os.fdopen(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, FILE_MODE), "wb") as file:
        file.write(data.getbuffer())
    temporary.replace(path)
