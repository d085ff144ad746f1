"""What a listing and a reading of images consist of."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from deepssim.errors import UsageError
from deepssim.images.groups import check_group_by
from deepssim.images.slices import AXES, parse_slices
from deepssim.images.text import one_line

SKIP_CODES: Mapping[str, str] = MappingProxyType(
    {
        "ignored": "no image: a file of another kind, a link to a folder that is listed already, "
        "or the small copy of a page inside a TIFF file",
        "blank": "a slice without content at an end of a volume of which all slices were asked for",
        "empty": "a file of zero bytes, or an image of zero width or height",
        "unreadable": "not what its name says, damaged, or not allowed to be read",
        "truncated": "the file ends before the image does",
        "constant": "all pixels have the same value, so no likeness is defined",
        "not_finite": "pixels are NaN or infinite",
        "too_large": "more pixels or bytes than the limits allow",
        "unsupported": "a variant of the format that is not read; the reason says what to do",
        "outside": "the path or a link leads out of the folder that was named",
        "missing": "the manifest, a link or an id names something that is not there",
    }
)
"""Every code of a `Skipped` or an `ImageError`, and what it means."""

COUNTED_CODES: frozenset[str] = frozenset(SKIP_CODES) - {"ignored", "blank"}
"""The codes of what should have been an image and is none; a limit on skipped images counts these."""


@dataclass(frozen=True, slots=True)
class ImageOptions:
    """How images are read.

    Args:
        slices: Which slices of a NIfTI volume: "middle", "all", or a list such as "40", "40,44,60",
            "20:100:4", "25%,50%,75%". Numbers are voxels of the canonical (RAS) volume, percentages parts of
            the axis.
        axis: The axis that the slices are perpendicular to: "axial", "coronal" or "sagittal".
        group_by: How an image gets its group (its patient): "auto", "none", "parent" or "regex:PATTERN".
        max_pixels: The most pixels of one image.

    Raises:
        UsageError: An option has a value that it cannot have.

    Example:
        >>> ImageOptions(slices="25%,50%,75%", axis="coronal").max_pixels
        67108864
    """

    slices: str = "middle"
    axis: str = "axial"
    group_by: str = "auto"
    max_pixels: int = 2**26

    def __post_init__(self) -> None:
        """Check every value."""
        parse_slices(self.slices)
        if self.axis not in AXES:
            raise UsageError(f"axis is '{one_line(str(self.axis), 40)}': it must be one of {', '.join(AXES)}")
        check_group_by(self.group_by)
        if isinstance(self.max_pixels, bool) or not isinstance(self.max_pixels, int) or self.max_pixels < 1:
            raise UsageError(f"max_pixels is {self.max_pixels!r}: it must be a whole number of at least 1")


@dataclass(frozen=True, slots=True, eq=False)
class Image:
    """One image.

    Args:
        id: Unique in its listing.
        path: The file, as a relative POSIX path under the root of the listing.
        group: Its patient, if known.
        pixels: ``(height, width)``, C-contiguous float32: grey values at full depth, finite, not constant.
        pixel_hash: BLAKE2b-128 of shape and pixels in hexadecimal: equal images have equal hashes, whatever
            the format of their files.
    """

    id: str
    path: str
    group: str | None
    pixels: NDArray[np.float32]
    pixel_hash: str


@dataclass(frozen=True, slots=True)
class Skipped:
    """A file, or one image of a file, that is left out.

    Args:
        id: The id that the image would have had; bytes that are not UTF-8 are escaped.
        path: The file, as a relative POSIX path; bytes that are not UTF-8 are escaped.
        code: A key of `SKIP_CODES`.
        reason: One line for a person.
    """

    id: str
    path: str
    code: str
    reason: str


@dataclass(frozen=True, slots=True)
class FileEntry:
    """One file of a listing.

    Args:
        path: Relative POSIX path under the root.
        format: "raster", "npy", "npz", "nifti" or "dicom".
        id: From the manifest; None where the path is the id.
        group: From manifest, folder, pattern or volume; None where there is none or only the file can tell.
    """

    path: str
    format: str
    id: str | None
    group: str | None

    @property
    def base_id(self) -> str:
        """The id of a one-image file, and what stands in front of "#" otherwise."""
        return self.path if self.id is None else self.id


@dataclass(frozen=True, slots=True)
class ReadTask:
    """What is read in one go: a file, or frames ``start`` to ``stop`` (exclusive) of a large ``.npy`` stack.

    Args:
        file_index: Row of `Listing.files`.
        start: First frame, or None for the whole file.
        stop: End of the frames, or None for the whole file.
    """

    file_index: int
    start: int | None
    stop: int | None


@dataclass(frozen=True, slots=True)
class TaskResult:
    """What one task gave.

    Args:
        task_index: Row of `Listing.tasks`.
        digest: SHA-256 in hexadecimal of the file's bytes; for a range of a stack, of its header and the
            bytes of the range. Of a fixed text with the code for a file that cannot be opened.
        items: Images and what was left out, in the order of the frames.
    """

    task_index: int
    digest: str
    items: list[Image | Skipped]


@dataclass(frozen=True, slots=True)
class Listing:
    """The files of a source, sorted, without their contents.

    Args:
        source: What the user named.
        root: The folder under which all files lie, without links.
        files: Sorted by the UTF-8 bytes of the path; for a manifest by those of the id, or the path where it
            has no id.
        ignored: What is known when listing to be no image, in the same order.
        options: How the images are read.
        tasks: What `read_tasks` reads, in order.
        n_expected: Images expected as far as that is cheap to know, for progress only.
        with_file_groups: Whether files that name their patient (DICOM) decide about their group.
    """

    source: str
    root: Path
    files: Sequence[FileEntry]
    ignored: Sequence[Skipped]
    options: ImageOptions
    tasks: Sequence[ReadTask]
    n_expected: int
    with_file_groups: bool


class ImageStream(Protocol):
    """Images that come one after the other and are nowhere on disk: from a pipe, or as a model makes them.

    Whoever takes them works on them at once and keeps few. Ids are unique in the stream; they and the pixels of each
    image decide whether a stream that is given again is the same.
    """

    @property
    def source(self) -> str:
        """What a person calls it; stands in the record of a run."""

    @property
    def n_expected(self) -> int:
        """Images to expect, 0 where that is not known."""

    @property
    def is_seekable(self) -> bool:
        """Whether `images` can begin at any image.

        What can, such as a sampler with one seed for each image, answers for it by its `signature` that the images
        before are the same as in an earlier run. What cannot, such as a pipe, is read from its beginning, and its
        images are compared with what was recorded of them.
        """

    def images(self, first: int = 0) -> Iterator[Image | Skipped]:
        """Yield what comes, in order; read once.

        Args:
            first: Number of the image, or of what was left out in its place, to begin with; 0 where it is not
                seekable.

        Raises:
            StreamError: It breaks off or is damaged. What was yielded before is good.
        """

    def signature(self) -> dict[str, Any]:
        """Return what tells it from other streams before anything is read, as values that JSON can hold."""
