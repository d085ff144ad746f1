"""Latents of all images, encoded once and kept: a step of training then costs the U-Net alone.

The latent of an image is the mean that the autoencoder gives it. A cache is a folder for each set of images, weights
and way of reading; its name is a digest of them, so that latents of two sets are never mixed. Parts of it appear when
they are whole: encoding that was killed goes on after the last of them.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import shutil
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from deepssim.disk import locked, make_private_folder, remove_leftovers, replacing, write_json
from deepssim.errors import MetricError, UsageError
from deepssim.generative.data.records import Record, load_images
from deepssim.image_ops import resize_area
from deepssim.models.checkpoint import file_sha256
from deepssim.models.vae import Vae
from deepssim.progress import Progress, Silent

__all__ = ["LatentKey", "LatentSet", "encode_images", "image_digests", "read_latents"]

_FORMAT, _VERSION = "deepssim.latents", 1
_MANIFEST = "manifest.json"
_OWN = re.compile(r"latents-[0-9a-f]{16}")
_PART_IMAGES = 256
_BATCH = 16
# Longer side of the thumbnails, among which the nearest images of a sample are searched.
_THUMBNAIL_PX = 48
_WAIT_S = 0.5


@dataclass(frozen=True, slots=True)
class LatentKey:
    """What latents are of.

    Attributes:
        vae_hash: SHA-256 of the autoencoder's weights.
        vae: Its configuration.
        image: Rows and columns of the images that it sees.
        transpose: Whether they are seen with rows and columns exchanged.
        digests: Of the images, distinct; their order does not matter.
    """

    vae_hash: str
    vae: dict[str, Any]
    image: tuple[int, int]
    transpose: bool
    digests: tuple[str, ...]

    def digest(self) -> str:
        """Return 64 hexadecimal digits of all of it."""
        what = [_FORMAT, _VERSION, self.vae_hash, self.vae, self.image, self.transpose, sorted(self.digests)]
        return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True, slots=True, eq=False)
class LatentSet:
    """Latents of records.

    Attributes:
        latents: ``(u, c, h, w)`` float32, of distinct images, not scaled and not padded.
        thumbnails: ``(u, rows, columns)`` uint8 of the same images.
        rows: ``(n,)`` int64: place of each record's image among them.
        folder: Where they are kept.
    """

    latents: NDArray[np.float32]
    thumbnails: NDArray[np.uint8]
    rows: NDArray[np.int64]
    folder: Path


def image_digests(records: Sequence[Record], *, threads: int | None = None) -> list[str]:
    """Return what tells the images of records from others: a digest of the file, and which image of it.

    Args:
        records: Of a data set.
        threads: That read files; None: what is usual for reading.

    Raises:
        UsageError: A file cannot be read.
    """
    paths = list(dict.fromkeys(record.path for record in records))
    with ThreadPoolExecutor(threads) as pool:
        files = dict(zip(paths, pool.map(file_sha256, paths), strict=True))
    whole = [f"{files[record.path]}\0{record.image_id or ''}" for record in records]
    return [hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest() for text in whole]


@torch.no_grad()
def encode_images(vae: Vae, images: NDArray[np.float32], device: torch.device) -> NDArray[np.float32]:
    """Return the means of latents, in 32 bits.

    Args:
        vae: In evaluation mode, on the device.
        images: ``(n, height, width)`` in [0, 1].
        device: Where it is.

    Returns:
        ``(n, c, h, w)``.
    """
    parts = []
    with _full_precision(device):
        for start in range(0, len(images), _BATCH):
            batch = torch.from_numpy(images[start : start + _BATCH])[:, None].to(device)
            parts.append(vae.encode(batch)[0].float().cpu())
    return torch.cat(parts).numpy()


@contextlib.contextmanager
def _full_precision(device: torch.device) -> Iterator[None]:
    """Keep convolutions of a GPU from rounding to 19 bits: what is kept should not depend on the device more."""
    if device.type != "cuda":
        yield
        return
    with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
        yield


def read_latents(
    records: Sequence[Record],
    vae: Vae,
    key: LatentKey,
    digests: Sequence[str],
    folder: Path,
    *,
    size: tuple[int, int] | None = None,
    device: torch.device | None = None,
    is_shared: bool = False,
    threads: int | None = None,
    progress: Progress | None = None,
) -> LatentSet:
    """Read the latents of records, and encode those that are not kept yet.

    Processes that train together, and runs that share a cache, may all call it: one encodes, the others wait for it.

    Args:
        records: Whose latents.
        vae: The autoencoder.
        key: Of the latents.
        digests: Of each record's image; see `image_digests`.
        folder: Where caches are; made if it is not there.
        size: Rows and columns that images are brought to; None: they have them.
        device: Where to encode; None: the CPU.
        is_shared: Whether other runs keep theirs there too; else latents of anything else are removed.
        threads: That read images; None: what is usual.
        progress: Told of images.

    Raises:
        UsageError: An image cannot be read, or nothing can be written.
        MetricError: A latent is not finite.
    """
    cache = _Cache(make_private_folder(folder) / f"latents-{key.digest()[:16]}", key)
    firsts: dict[str, Record] = {}
    for record, digest in zip(records, digests, strict=True):
        firsts.setdefault(digest, record)
    progress = progress or Silent()
    with contextlib.ExitStack() as held:
        make_private_folder(cache.path)
        _hold(held, cache.path, progress)
        remove_leftovers(cache.path)
        if not is_shared:
            _remove_others(cache.path)
        order = cache.begin(list(firsts))
        missing = cache.missing()
        if missing:
            _encode(cache, missing, [firsts[digest] for digest in order], vae, size, device, threads, progress)
        latents, thumbnails = cache.read()
    places = {digest: place for place, digest in enumerate(order)}
    return LatentSet(latents, thumbnails, np.array([places[digest] for digest in digests], np.int64), cache.path)


def _encode(
    cache: _Cache, missing: list[int], firsts: list[Record], vae: Vae, size: tuple[int, int] | None,
    device: torch.device | None, threads: int | None, progress: Progress,
) -> None:  # fmt: skip
    device = device or torch.device("cpu")
    vae = vae.to(device).eval()
    with progress.track("encoding", len(firsts)) as advance:
        advance(len(firsts) - sum(len(firsts[_part(number)]) for number in missing))
        for number in missing:
            records = firsts[_part(number)]
            images = load_images(records, size=size, transpose=cache.key.transpose, threads=threads)
            if images.shape[1:] != cache.key.image:
                have, want = ("x".join(map(str, shape)) for shape in (images.shape[1:], cache.key.image))
                raise UsageError(
                    f"{records[0].path} is of {have} pixels, and others of {want}: give --size to bring all to one"
                )
            latents = encode_images(vae, images, device)
            is_bad = ~np.isfinite(latents).all(axis=(1, 2, 3))
            if is_bad.any():
                raise MetricError(
                    f"the autoencoder gives latents that are no numbers, for example of "
                    f"{records[int(is_bad.argmax())].path}: its weights are of no use"
                )
            cache.write(number, latents, np.stack([_thumbnail(image) for image in images]))
            advance(len(records))
    cache.end()


def _part(number: int) -> slice:
    return slice(number * _PART_IMAGES, (number + 1) * _PART_IMAGES)


def thumbnail_size(image: tuple[int, int]) -> tuple[int, int]:
    """Return rows and columns of the thumbnails of images of a size.

    Example:
        >>> thumbnail_size((136, 112)), thumbnail_size((32, 32))
        ((48, 40), (32, 32))
    """
    scale = min(1.0, _THUMBNAIL_PX / max(image))
    rows, columns = (max(1, round(side * scale)) for side in image)
    return rows, columns


def _thumbnail(image: NDArray[np.float32]) -> NDArray[np.uint8]:
    rows, columns = thumbnail_size((image.shape[0], image.shape[1]))
    small = image if (rows, columns) == image.shape else resize_area(image, rows, columns)
    return np.asarray(np.rint(small * 255), np.uint8)


def _hold(held: contextlib.ExitStack, folder: Path, progress: Progress) -> None:
    """Hold a folder as soon as nobody else does."""
    is_told = False
    while True:
        try:
            held.enter_context(locked(folder))
            return
        except UsageError:
            if not is_told:
                progress.status(f"another process encodes to {folder}: waiting for it")
            is_told = True
            time.sleep(_WAIT_S)


def _remove_others(path: Path) -> None:
    for other in path.parent.iterdir():
        if other != path and _OWN.fullmatch(other.name) and other.is_dir() and not other.is_symlink():
            shutil.rmtree(other)


class _Cache:
    """Files of a set of latents; whoever uses it holds its folder.

    Args:
        path: The folder.
        key: Of the set.
    """

    def __init__(self, path: Path, key: LatentKey) -> None:
        self.path, self.key = path, key
        self.n_images = len(key.digests)
        self._manifest: dict[str, Any] = {}

    @property
    def n_parts(self) -> int:
        return -(-self.n_images // _PART_IMAGES)

    def begin(self, digests: list[str]) -> list[str]:
        """Read the manifest, or write one; returns the digests of the images in the order of the latents."""
        try:
            known = json.loads((self.path / _MANIFEST).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            known = None
        is_ours = (
            isinstance(known, dict)
            and known.get("key") == self.key.digest()
            and sorted(map(str, known.get("images", []))) == sorted(self.key.digests)
            and isinstance(known.get("parts"), dict)
        )
        if is_ours:
            self._manifest = known
        else:
            for path in self.path.glob("*.npy"):
                path.unlink()
            self._manifest = {
                "format": _FORMAT, "version": _VERSION, "key": self.key.digest(), "vae": self.key.vae_hash,
                "image": list(self.key.image), "transpose": self.key.transpose, "images": digests, "parts": {},
            }  # fmt: skip
            write_json(self.path / _MANIFEST, self._manifest)
        return [str(digest) for digest in self._manifest["images"]]

    def missing(self) -> list[int]:
        """Return the numbers of parts that are not there, or not as they were written."""
        return [number for number in range(self.n_parts) if not self._is_whole(number)]

    def _files(self, number: int) -> tuple[Path, Path]:
        return self.path / f"latents-{number:05d}.npy", self.path / f"thumbnails-{number:05d}.npy"

    def _is_whole(self, number: int) -> bool:
        files = self._files(number)
        if not all(file.is_file() for file in files):
            return False
        digests = self._manifest["parts"].get(str(number))
        # Encoding that was killed has parts without digests yet: they appeared under their names when whole.
        return digests is None or digests == [file_sha256(file) for file in files]

    def write(self, number: int, latents: NDArray[np.float32], thumbnails: NDArray[np.uint8]) -> None:
        """Write a part."""
        both: tuple[NDArray[Any], ...] = (latents, thumbnails)
        for path, values in zip(self._files(number), both, strict=True):
            with replacing(path) as temporary, temporary.open("wb") as file:
                np.save(file, values, allow_pickle=False)
        self._manifest["parts"].pop(str(number), None)

    def end(self) -> None:
        """Write the digests of all parts: from now on they are checked against them."""
        parts = {str(n): [file_sha256(file) for file in self._files(n)] for n in range(self.n_parts)}
        self._manifest["parts"] = parts
        write_json(self.path / _MANIFEST, self._manifest)

    def read(self) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
        """Return all latents and thumbnails."""
        both: tuple[list[NDArray[Any]], list[NDArray[Any]]] = ([], [])
        for number in range(self.n_parts):
            for kept, path in zip(both, self._files(number), strict=True):
                try:
                    kept.append(np.load(path, allow_pickle=False))
                except (OSError, ValueError) as error:
                    raise UsageError(f"{path} cannot be read ({error}): remove {self.path} to encode again") from error
        return np.concatenate(both[0]), np.concatenate(both[1])
