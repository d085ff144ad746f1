"""One folder with real and synthetic images, as the reference implementation lays them out.

In ``UID/NAME.png`` the image called ``training`` is the real one, and all others are what a model made of it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from deepssim.errors import UsageError
from deepssim.images import ImageOptions, Listing, ReadTask, list_images
from deepssim.images.text import one_line, some
from deepssim.reference.names import REAL_NAME, file_of

__all__ = ["Part", "files_of", "list_keys", "one_part", "single_images", "split_layout"]

Part = Literal["real", "synthetic"]
_SHOWN = 10


def split_layout(listing: Listing) -> tuple[Listing, Listing]:
    """Return the real and the synthetic images of a folder.

    Args:
        listing: Of the folder.

    Raises:
        UsageError: There are no images called ``training``, or no others.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for name in ("training", "gen-0", "gen-1"):
        ...         np.save(Path(folder, f"{name}.npy"), np.eye(8))
        ...     [len(part.files) for part in split_layout(list_images(folder))]
        [1, 2]
    """
    is_real = _are_real(listing)
    if not 0 < sum(is_real) < len(is_real):
        raise UsageError(
            f"one folder for both needs real images called {REAL_NAME} and others, and {one_line(listing.source)} has "
            f"{sum(is_real):,} and {len(is_real) - sum(is_real):,}: rename the real images, or give the two sets apart"
        )
    real, synthetic = (files_of(listing, np.flatnonzero(np.equal(is_real, wanted))) for wanted in (True, False))
    # What is no image belongs to neither; it is told once.
    return replace(real, ignored=[]), synthetic


def one_part(listing: Listing, part: Part) -> Listing:
    """Return the real or the synthetic images of a folder alone.

    Raises:
        UsageError: There are none.
    """
    chosen = np.flatnonzero(np.equal(_are_real(listing), part == "real"))
    if not len(chosen):
        what = f"called {REAL_NAME}" if part == "real" else f"called other than {REAL_NAME}"
        raise UsageError(f"{one_line(listing.source)} has no images {what}")
    return files_of(listing, chosen)


def _are_real(listing: Listing) -> list[bool]:
    return [PurePosixPath(file.path).stem == REAL_NAME for file in listing.files]


def files_of(listing: Listing, chosen: NDArray[np.intp]) -> Listing:
    """Return a listing of some of the files, in the order that is asked for.

    Args:
        listing: Of all.
        chosen: ``(n,)`` places in ``listing.files``.
    """
    number = {int(place): k for k, place in enumerate(chosen.tolist())}
    # Large stacks are read by several tasks.
    tasks = [replace(task, file_index=number[task.file_index]) for task in listing.tasks if task.file_index in number]
    tasks.sort(key=lambda task: (task.file_index, task.start or 0))
    n_other = len(listing.files) - len(chosen)
    return replace(
        listing,
        files=[listing.files[k] for k in chosen.tolist()],
        tasks=tasks,
        n_expected=max(len(tasks), listing.n_expected - n_other),
    )


def single_images(listing: Listing, chosen: NDArray[np.intp] | None = None) -> Listing:
    """Return a listing of files that hold one image each, in the order that is asked for.

    Args:
        listing: Of all.
        chosen: ``(n,)`` places in ``listing.files``; None: all.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for name in "ab":
        ...         np.save(Path(folder, f"{name}.npy"), np.eye(8))
        ...     [file.path for file in single_images(list_images(folder), np.array([1, 0])).files]
        ['b.npy', 'a.npy']
    """
    places = range(len(listing.files)) if chosen is None else chosen.tolist()
    files = [listing.files[k] for k in places]
    tasks = [ReadTask(k, None, None) for k in range(len(files))]
    return replace(listing, files=files, tasks=tasks, n_expected=len(files))


def list_keys(folder: str | Path, keys: Sequence[str], options: ImageOptions | None = None) -> Listing:
    """List the images that keys name, in the order of the keys.

    Args:
        folder: What the keys are relative to.
        keys: ``uid___name`` for the file ``uid/name.png``, or the path of a file; each another.
        options: How images are read.

    Raises:
        UsageError: The folder cannot be read, or keys name no image there; all are named.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     Path(folder, "p1").mkdir()
        ...     np.save(Path(folder, "p1", "a.npy"), np.eye(8))
        ...     [file.path for file in list_keys(folder, ["p1___a.npy"]).files]
        ['p1/a.npy']
    """
    listing = list_images(folder, options)
    places = {file.path: k for k, file in enumerate(listing.files)}
    stems: dict[str, list[int]] = {}
    for k, file in enumerate(listing.files):
        stems.setdefault(_stem(file.path), []).append(k)
    found = [_place(key, places, stems) for key in keys]
    missing = [key for key, place in zip(keys, found, strict=True) if place is None]
    if missing:
        raise UsageError(
            f"{len(missing):,} of {len(keys):,} keys name no image, or several, under {folder}: "
            f"{some(missing, _SHOWN)}; the key uid___name is the file uid/name.png"
        )
    chosen = [place for place in found if place is not None]
    counts = Counter(chosen)
    if len(counts) < len(chosen):
        twice = [key for key, place in zip(keys, chosen, strict=True) if counts[place] > 1]
        raise UsageError(f"keys name one image twice: {some(twice, _SHOWN)}")
    return replace(single_images(listing, np.array(chosen, np.intp)), ignored=[])


def _place(key: str, places: dict[str, int], stems: dict[str, list[int]]) -> int | None:
    try:
        path = file_of(key)
    except UsageError:
        return None
    if path in places:
        return places[path]
    # Keys tell nothing of suffixes: whoever converted the images to another format has others.
    fitting = stems.get(_stem(path), [])
    return fitting[0] if len(fitting) == 1 else None


def _stem(path: str) -> str:
    return str(PurePosixPath(path).with_suffix(""))
