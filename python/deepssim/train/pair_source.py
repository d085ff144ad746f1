"""Batches from a list of pairs, the published way: a CSV and a folder of images."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from deepssim.errors import DeepSSIMError, UsageError
from deepssim.image_ops import resize_area, unit_grey
from deepssim.images import read_image
from deepssim.images.text import one_line
from deepssim.pairs import file_of
from deepssim.train.similarity import Batch
from deepssim.train.validation import embed, ranks

__all__ = ["PairList", "PairSource", "PairValidation", "read_pairs"]

SPLITS = ("train", "valid")
_COLUMNS = ("real_key", "synth_key", "ssim", "split")


@dataclass(frozen=True, slots=True)
class PairList:
    """Pairs of one split.

    Attributes:
        folder: Where the images are.
        real: Keys of the first images, ``uid___name`` for the file ``uid/name.png``.
        synthetic: Of the second.
        ssim: Their similarity.
        source: The CSV that names them.
    """

    folder: Path
    real: list[str]
    synthetic: list[str]
    ssim: list[float]
    source: Path

    def __len__(self) -> int:
        return len(self.ssim)

    def read(self, key: str, size: tuple[int, int]) -> NDArray[np.uint8]:
        """Read the image of a key, brought to a size.

        Raises:
            UsageError: It cannot be read.
        """
        name = file_of(key)
        try:
            grey = unit_grey(read_image(self.folder, name, name).pixels)
        except DeepSSIMError as error:
            named = f"{self.folder / name}, which {self.source} names as {one_line(key)}"
            raise UsageError(f"{named}, cannot be read ({error}): put it right, or take its pairs out") from error
        if grey.shape != size:
            grey = resize_area(grey, *size)
        return np.asarray(np.rint(grey * np.float32(255)), np.uint8)


def read_pairs(path: Path, folder: Path) -> dict[str, PairList]:
    """Read a CSV of pairs.

    Args:
        path: The CSV; further columns are ignored.
        folder: Where the images are.

    Returns:
        The pairs of each of `SPLITS`.

    Raises:
        UsageError: A column is missing, a value is none, a split has no pairs, or an image is not there.
    """
    lists = {split: PairList(folder, [], [], [], path) for split in SPLITS}
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            missing = [name for name in _COLUMNS if name not in (reader.fieldnames or [])]
            if missing:
                raise UsageError(f"{path} has no column {missing[0]}: it needs {', '.join(_COLUMNS)}")
            for row in reader:
                _add(lists, row, f"{path}, line {reader.line_num}")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} cannot be read: {error}") from error
    for split, pairs in lists.items():
        if not len(pairs):
            raise UsageError(f"{path} has no pairs of the split {split}")
    _check_files(lists, path, folder)
    return lists


def _check_files(lists: dict[str, PairList], path: Path, folder: Path) -> None:
    """Find now what would end the run hours later."""
    keys = dict.fromkeys(key for pairs in lists.values() for key in (*pairs.real, *pairs.synthetic))
    missing = [key for key in keys if not (folder / file_of(key)).is_file()]
    if missing:
        count = f" ({len(missing):,} of {len(keys):,} images are missing)" if len(missing) > 1 else ""
        raise UsageError(f"{folder} has no {file_of(missing[0])}, which {path} names as {one_line(missing[0])}{count}")


def _add(lists: dict[str, PairList], row: dict[str, str], where: str) -> None:
    if row["split"] not in lists:
        raise UsageError(f"{where}: split is {one_line(str(row['split']), 40)}, not train or valid")
    try:
        value = float(row["ssim"])
    except (TypeError, ValueError):
        value = math.nan
    if not -1.0 <= value <= 1.0:
        raise UsageError(f"{where}: ssim is {one_line(str(row['ssim']), 40)}, no number from -1 to 1")
    pairs = lists[row["split"]]
    pairs.real.append(row["real_key"])
    pairs.synthetic.append(row["synth_key"])
    pairs.ssim.append(value)


# Images and similarities of a batch, or what is wrong: a worker's exception would arrive as its traceback.
_Read = tuple[NDArray[np.uint8], NDArray[np.float32]] | str


class _Batches(Dataset[_Read]):
    """Batches by number: the two images of each pair, first all left ones, and the similarities."""

    def __init__(self, pairs: PairList, size: tuple[int, int], batch_size: int, seed: int, first: int, n: int) -> None:
        self.pairs, self.size, self.batch_size, self.seed = pairs, size, batch_size, seed
        self.first, self.n = first, n

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, place: int) -> _Read:
        if not 0 <= place < self.n:
            raise IndexError(place)
        per_epoch = max(1, len(self.pairs) // self.batch_size)
        epoch, step = divmod(self.first + place, per_epoch)
        order = np.random.default_rng([self.seed, epoch]).permutation(len(self.pairs))
        chosen = order[step * self.batch_size :][: self.batch_size].tolist()
        keys = [self.pairs.real[i] for i in chosen] + [self.pairs.synthetic[i] for i in chosen]
        try:
            images = np.stack([self.pairs.read(key, self.size) for key in keys])
        except UsageError as error:
            return str(error)
        return images, np.array([self.pairs.ssim[i] for i in chosen], np.float32)


class PairSource:
    """A `deepssim.train.loop.Source` of listed pairs, in a new order each epoch.

    Args:
        pairs: Those of the training split.
        size: Rows and columns that images are brought to.
        batch_size: Pairs of a batch.
        seed: Of the order; another one for each process.
        n_steps: Batches in all.
        workers: Processes that read images.
    """

    def __init__(
        self, pairs: PairList, size: tuple[int, int], batch_size: int, seed: int, n_steps: int, workers: int = 0
    ) -> None:
        self.pairs, self.size, self.batch_size, self.seed = pairs, size, batch_size, seed
        self.n_steps, self.workers = n_steps, workers

    def steps(self, first: int) -> Iterator[Batch]:
        """Yield the batches from a step on.

        Raises:
            UsageError: An image cannot be read.
        """
        batches = _Batches(self.pairs, self.size, self.batch_size, self.seed, first, max(0, self.n_steps - first))
        loader: DataLoader[_Read] = DataLoader(
            batches, batch_size=None, num_workers=self.workers, generator=torch.Generator()
        )
        for read in loader:
            if isinstance(read, str):
                raise UsageError(read)
            images, target = read
            n = len(target)
            greys = torch.as_tensor(images).float().div(255)[:, None]
            left = torch.arange(n)
            yield Batch(greys, left, left + n, torch.as_tensor(target))


class PairValidation:
    """A `deepssim.train.loop.Validation`: the pairs of the split ``valid``, seen as they are.

    Args:
        pairs: Them.
        size: Rows and columns that images are brought to.
    """

    def __init__(self, pairs: PairList, size: tuple[int, int]) -> None:
        self._real, real_places = _distinct(pairs.real)
        self._synthetic, synthetic_places = _distinct(pairs.synthetic)
        self.left, self.right = np.array(real_places), np.array(synthetic_places)
        self.target = np.array(pairs.ssim, np.float32)
        self._images = [_stack(pairs, keys, size) for keys in (self._real, self._synthetic)]

    def predictions(self, encoder: nn.Module, device: torch.device) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return similarity and cosine of the pairs."""
        real, synthetic = (embed(encoder, images, device) for images in self._images)
        return self.target, (real[self.left] * synthetic[self.right]).sum(axis=1)

    def measure(self, encoder: nn.Module, device: torch.device) -> dict[str, float]:
        """Return MAE and, of the most similar partner of each real image, whether it is among the 1, 4, 8 nearest."""
        real, synthetic = (embed(encoder, images, device) for images in self._images)
        cosine = (real[self.left] * synthetic[self.right]).sum(axis=1)
        figures = {"mae": float(np.abs(cosine - self.target).mean())}
        best = np.full(len(real), -1)
        for place in np.argsort(self.target, kind="stable"):
            best[self.left[place]] = self.right[place]
        own = (real * synthetic[best]).sum(axis=1)
        above = own + np.float32(1e-7)
        rank = np.concatenate(
            [ranks((synthetic @ row)[None], value[None]) for row, value in zip(real, above, strict=True)]
        )
        for k in (1, 4, 8):
            figures[f"partner_in_{k}"] = float(np.mean(rank < k))
        figures["selection"] = figures["mae"] + 1.0 - (figures["partner_in_1"] + figures["partner_in_8"]) / 2
        return figures


def _distinct(keys: Sequence[str]) -> tuple[list[str], list[int]]:
    places: dict[str, int] = {}
    rows = [places.setdefault(key, len(places)) for key in keys]
    return list(places), rows


def _stack(pairs: PairList, keys: Sequence[str], size: tuple[int, int]) -> Tensor:
    return torch.from_numpy(np.stack([pairs.read(key, size) for key in keys]))[:, None]
