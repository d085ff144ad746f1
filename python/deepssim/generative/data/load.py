"""The images of records: read in parallel, brought to one size and to values from 0 to 1."""

from __future__ import annotations

import contextlib
import os
import re
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from deepssim.errors import ImageError, UsageError
from deepssim.generative.data.faults import refuse
from deepssim.generative.data.record import Record
from deepssim.image_ops import resize_area
from deepssim.images import Image, ImageOptions, list_images, read_image, read_tasks
from deepssim.images.text import one_line
from deepssim.progress import Progress, Silent

__all__ = ["load_images"]

# Which slice of a volume, as `deepssim.images` names it.
_SLICE = re.compile(r"(axial|coronal|sagittal)(\d{1,9})", re.ASCII)


def load_images(
    records: Sequence[Record],
    *,
    size: tuple[int, int] | None = None,
    transpose: bool = False,
    progress: Progress | None = None,
    threads: int | None = None,
) -> NDArray[np.float32]:
    """Read images and bring each to values from 0 to 1 by its own least and greatest one.

    Args:
        records: Of `read_dataset`.
        size: Rows and columns of the result, by area averaging before the values are scaled; None: they have one size
            already.
        transpose: Whether rows and columns are swapped, as MONAI's reader of PNG does; published checkpoints were
            trained on such images. `size` is what comes out.
        progress: Told of images that are read.
        threads: How many images are read at a time; None: one for each usable processor.

    Returns:
        ``(n, rows, columns)`` float32, in the order of the records.

    Raises:
        UsageError: Images that cannot be read, or of several sizes; the first ones are named with the reason.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     np.save(Path(folder, "scan.npy"), np.array([[2, 4, 6]], np.uint8))
        ...     load_images([Record("p1", Path(folder, "scan.npy"), "train")]).tolist()
        [[[0.0, 0.5, 1.0]]]
    """
    if not records:
        raise UsageError("no images are named")
    progress = progress or Silent()
    jobs = _jobs(records)
    n_threads = threads if threads is not None else len(os.sched_getaffinity(0))
    if n_threads < 1:
        raise UsageError(f"threads is {threads}: it must be at least 1")
    loading = _Loading(records, size, transpose)
    with progress.track("reading images", len(records)) as step:
        executor = ThreadPoolExecutor(n_threads, thread_name_prefix="deepssim-load")
        try:
            # Alone: images that are too many for the memory are told of before others are read.
            loading.work(jobs[0])
            step(len(jobs[0]))
            for n_done in executor.map(loading.work, jobs[1:]):
                step(n_done)
        finally:
            executor.shutdown(wait=True, cancel_futures=True)
    return loading.result()


class _Loading:
    """Images on their way into one array; jobs write different rows of it."""

    def __init__(self, records: Sequence[Record], size: tuple[int, int] | None, transpose: bool) -> None:
        if size is not None and min(size) < 1:
            raise UsageError(f"size is {size[0]} x {size[1]}: rows and columns must be at least 1")
        self.records, self.size, self.transpose = records, size, transpose
        self.lock = threading.Lock()
        self.images: NDArray[np.float32] | None = None
        self.faults: dict[int, str] = {}
        self.sizes: dict[tuple[int, int], int] = {}

    def work(self, job: Sequence[int]) -> int:
        """Read the images of one file, and return how many there were to read."""
        for index, found in _read(self.records, job):
            if isinstance(found, ImageError):
                self.faults[index] = str(found)
                continue
            pixels = np.ascontiguousarray(found.T) if self.transpose else found
            if self.size is not None and pixels.shape != self.size:
                pixels = resize_area(pixels, *self.size)
            shape = (int(pixels.shape[0]), int(pixels.shape[1]))
            with self.lock:
                self.sizes[shape] = min(index, self.sizes.get(shape, index))
                images = self._array(shape)
            if images.shape[1:] == shape:
                images[index] = _scaled(pixels)
        return len(job)

    def _array(self, shape: tuple[int, int]) -> NDArray[np.float32]:
        if self.images is None:
            n_bytes = 4 * len(self.records) * shape[0] * shape[1]
            try:
                self.images = np.zeros((len(self.records), *shape), np.float32)
            except (MemoryError, ValueError) as error:
                raise UsageError(
                    f"{len(self.records):,} images of {shape[0]} x {shape[1]} pixels need {n_bytes / 1e9:,.1f} GB of "
                    "memory, which is not there: make them smaller with a size, or take fewer"
                ) from error
        return self.images

    def result(self) -> NDArray[np.float32]:
        """Return the array.

        Raises:
            UsageError: Something was wrong with an image.
        """
        refuse(
            "images that cannot be used",
            [f"{self._name(index)}: {fault}" for index, fault in sorted(self.faults.items())],
        )
        if len(self.sizes) > 1:
            shapes = sorted(self.sizes.items(), key=lambda item: item[1])
            shown = " and ".join(f"{rows} x {columns} ({self._name(i)})" for (rows, columns), i in shapes[:2])
            more = f", and {len(shapes) - 2:,} more" if len(shapes) > 2 else ""
            raise UsageError(
                f"images have several sizes, {shown}{more}: say to which size, rows and columns, all are to be brought"
            )
        assert self.images is not None
        return self.images

    def _name(self, index: int) -> str:
        record = self.records[index]
        name = record.path.name if record.image_id is None else record.image_id
        return f"{record.place}, {one_line(name, 60)}" if record.line else one_line(name, 80)


def _scaled(pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    """Scale by the least and the greatest value; float64 in between, so that no range overflows."""
    least, most = float(pixels.min()), float(pixels.max())
    if least == most:
        return np.zeros(pixels.shape, np.float32)
    return ((pixels.astype(np.float64) - least) / (most - least)).astype(np.float32)


def _jobs(records: Sequence[Record]) -> list[list[int]]:
    """Put together the records whose images are in one file, which is then decoded once."""
    jobs: list[list[int]] = []
    of_file: dict[Path, list[int]] = {}
    for index, record in enumerate(records):
        # Of a stack, each image is read where it lies.
        is_alone = record.image_id is None or record.path.suffix.lower() == ".npy"
        if is_alone or record.path not in of_file:
            jobs.append([index])
            if not is_alone:
                of_file[record.path] = jobs[-1]
        else:
            of_file[record.path].append(index)
    return jobs


def _read(records: Sequence[Record], job: Sequence[int]) -> Iterator[tuple[int, NDArray[np.float32] | ImageError]]:
    """Yield the images of one file, or why they cannot be had."""
    together = _read_whole(records[job[0]].path, [records[i].key for i in job]) if len(job) > 1 else {}
    for index in job:
        pixels = together.get(records[index].key)
        if pixels is not None:
            yield index, pixels
            continue
        # The folder without links and "..", the name as it is: a link may lead to a name without a suffix.
        file, key = records[index].path, records[index].key
        path = str(Path(os.path.realpath(file.parent), file.name)).lstrip("/")
        try:
            # From the root: what the user named may be a link to anywhere.
            yield index, read_image(Path("/"), path, path if not key else f"{path}#{key}").pixels
        except ImageError as error:
            yield index, error


def _read_whole(path: Path, keys: Sequence[str]) -> dict[str, NDArray[np.float32]]:
    """Decode a file of several images once; whatever does not come out is read again, alone, for its reason."""
    volume = [_SLICE.fullmatch(key) for key in keys]
    axes = {match[1] for match in volume if match}
    if len(axes) > 1 or (axes and not all(volume)):
        return {}
    options = ImageOptions()
    if axes:
        options = ImageOptions(slices=",".join(match[2] for match in volume if match), axis=axes.pop())
    found: dict[str, NDArray[np.float32]] = {}
    with contextlib.suppress(UsageError):
        listing = list_images(path, options)
        base = listing.files[0].base_id
        for result in read_tasks(listing, threads=1):
            found |= {item.id[len(base) + 1 :]: item.pixels for item in result.items if isinstance(item, Image)}
    return {key: found[key] for key in keys if key in found}
