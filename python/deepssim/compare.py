"""Two images against each other: every statistic as they lie and once they are registered."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepssim.aspect import are_across
from deepssim.errors import ImageError, UsageError
from deepssim.image_ops import (
    Evidence,
    RegisteredSimilarity,
    Registration,
    byte_grey,
    evidence,
    fsim,
    ncc,
    register,
    registered_similarity,
    resize_area,
    ssim,
)
from deepssim.images import Image, ImageOptions, list_images, read_image, read_tasks
from deepssim.images.text import one_line

__all__ = ["Comparison", "InPlace", "compare_images", "read_one"]

_LEAST_SIDE = 7
_MOST_SIDE = 4096

Pixels = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class InPlace:
    """Statistics of two images as they lie, pixel against pixel.

    Attributes:
        ssim: SSIM of the z-scored images, range from the first: the published rule.
        ssim_plain: SSIM of the grey values themselves, 0 to 255.
        contrast_structure: `ssim` without the luminance term.
        fsim: Gradient FSIM of the grey values, 0 to 255.
        ncc: Correlation of the pixels.
    """

    ssim: float
    ssim_plain: float
    contrast_structure: float
    fsim: float
    ncc: float


@dataclass(frozen=True, slots=True, eq=False)
class Comparison:
    """Two images and what was found about them.

    Attributes:
        names: What the user called them.
        sizes: Their rows and columns as read, in pixels.
        is_turned: Whether the second lay across the first, and was turned by 90 degrees counter-clockwise, with its
            frame, before anything else.
        pixels: Both as read, the second turned where it was, ``(rows, columns)``, float32 in the file's own unit: what
            a metric embeds.
        greys: Both as they were compared, ``(rows, columns)``, float32 in [0, 1].
        in_place: Statistics as they lie.
        registration: What lays the second onto the first.
        evidence: Of the registered pair.
        registered: The field's statistics of the registered pair.
    """

    names: tuple[str, str]
    sizes: tuple[tuple[int, int], tuple[int, int]]
    is_turned: bool
    pixels: tuple[Pixels, Pixels]
    greys: tuple[Pixels, Pixels]
    in_place: InPlace
    registration: Registration
    evidence: Evidence
    registered: RegisteredSimilarity

    @property
    def size(self) -> tuple[int, int]:
        """Rows and columns in pixels that both were compared at."""
        rows, columns = self.greys[0].shape
        return rows, columns

    @property
    def is_resized(self) -> bool:
        """Whether an image had another size."""
        first, second = self.sizes
        return self.size != first or self.size != (second[::-1] if self.is_turned else second)

    def as_dict(self) -> dict[str, Any]:
        """Return it for JSON, without pixels."""
        transform = self.registration.transform
        statistics = {**asdict(self.evidence), **asdict(self.registered)}
        return {
            "a": {"name": self.names[0], "size": list(self.sizes[0])},
            "b": {"name": self.names[1], "size": list(self.sizes[1])},
            "size": list(self.size),
            "is_turned": self.is_turned,
            "is_resized": self.is_resized,
            "in_place": asdict(self.in_place),
            "registered": {
                "transform": {**asdict(transform), "words": str(transform)},
                "fit": self.registration.fit,
                "ncc_blurred": self.evidence.ncc,
                **statistics,
            },
        }

    def rows(self) -> list[tuple[str, float | None, float | None]]:
        """Return the table: statistic, as they lie, registered; None where it is not defined."""
        lies, found, moved = self.in_place, self.evidence, self.registered
        rows: list[tuple[str, float | None, float | None]] = [
            ("S1, local correlation", None, found.s1),
            ("S2, its lowest 1 %", None, found.s2),
            ("SSIM, z-scored", lies.ssim, moved.ssim),
            ("SSIM, grey values", lies.ssim_plain, None),
            ("contrast-structure", lies.contrast_structure, moved.contrast_structure),
            ("FSIM (gradients)", lies.fsim, moved.fsim),
            ("correlation", lies.ncc, moved.ncc),
        ]
        if not self.has_overlap:
            rows = [(name, value, None) for name, value, _ in rows]
        return [*rows, ("overlap", 1.0, moved.overlap)]

    @property
    def has_overlap(self) -> bool:
        """Whether the registered images overlap enough (35 %) to be compared."""
        return self.evidence.s1 != -1 or self.registered.fsim != -1

    def transform_lines(self) -> list[str]:
        """Say what has to be done with the second image, in words and in numbers."""
        transform = self.registration.transform
        mirrored = "mirrored, " if transform.is_mirrored else ""
        return [
            f"turned by 90 degrees with its frame, then {transform}" if self.is_turned else str(transform),
            f"{mirrored}{transform.angle_degrees:+.2f} degrees, {transform.shift_rows:+.2f} px down, "
            f"{transform.shift_columns:+.2f} px right, scale {transform.scale:.4f}",
        ]


def read_one(name: str | Path, options: ImageOptions | None = None) -> Image:
    """Read the one image of a file, or one image of several as ``FILE#FRAME``.

    Args:
        name: A file; of a file with several images one, named as listings name them: ``stack.npy#3``.
        options: How it is read.

    Raises:
        UsageError: There is no such file, it is a folder, or it holds several images.
        ImageError: The image cannot be used.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     np.save(Path(folder, "stack.npy"), np.arange(24).reshape(2, 3, 4))
        ...     image = read_one(Path(folder, "stack.npy#1"))
        >>> float(image.pixels[0, 0])
        12.0
    """
    path = Path(name)
    file, mark, frame = path.name.rpartition("#")
    if not path.exists() and mark and path.with_name(file).is_file():
        return read_image(path.parent, file, f"{file}#{frame}", options)
    if path.is_dir():
        raise UsageError(f"'{one_line(str(name))}' is a folder: name one image")
    listing = list_images(path, options)
    items = next((result.items for result in read_tasks(listing, threads=1)), [])
    if listing.n_expected > 1 or len(items) > 1:
        first = items[0].id if items else f"{path.name}#0"
        raise UsageError(
            f"'{one_line(str(name))}' holds several images: name one of them, for example '{one_line(first)}'"
        )
    if not items:
        raise UsageError(f"'{one_line(str(name))}' holds no image")
    if not isinstance(items[0], Image):
        raise ImageError(items[0].code, f"'{one_line(str(name))}' {items[0].reason}")
    return items[0]


def compare_images(
    a: str | Path, b: str | Path, *, size: tuple[int, int] | None = None, images: ImageOptions | None = None
) -> Comparison:
    """Compare two images as they lie, and once the second is laid onto the first.

    Grey values come in by `byte_grey`: 8-bit images as they are, others between their .05th and 99.95th percentile;
    only z-scored SSIM and correlation as they lie take what is stored.

    Args:
        a: An image, as `read_one` takes it.
        b: The other. Where one is taller than wide and the other wider than tall, this one is turned by 90 degrees
            first.
        size: Rows and columns that both are brought to by area averaging, after the grey values; None: they must
            have one size.
        images: How they are read.

    Returns:
        What was found.

    Raises:
        UsageError: See `read_one`; sizes differ, or are below 7 x 7 or above 4,096 x 4,096 pixels.
        ImageError: An image cannot be used.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     image = np.random.default_rng(0).random((64, 64), np.float32)
        ...     np.save(Path(folder, "a.npy"), image)
        ...     np.save(Path(folder, "b.npy"), image[:, ::-1])
        ...     found = compare_images(Path(folder, "a.npy"), Path(folder, "b.npy"))
        >>> str(found.registration.transform), round(found.registered.ssim, 3)
        ('mirrored', 1.0)
    """
    read = [read_one(name, images) for name in (a, b)]
    sizes = [(image.pixels.shape[0], image.pixels.shape[1]) for image in read]
    is_turned = are_across(sizes[0], sizes[1])
    pixels = read[0].pixels, np.rot90(read[1].pixels).copy() if is_turned else read[1].pixels
    _check_sizes([sizes[0], sizes[1][::-1] if is_turned else sizes[1]], size)
    stored = [_sized(image, size) for image in pixels]
    greys = [_sized(byte_grey(image), size) for image in pixels]
    units = [np.clip(grey / np.float32(255), 0, 1) for grey in greys]
    for name, image in zip((a, b), stored, strict=True):
        if image.min() == image.max():
            raise UsageError(f"'{one_line(str(name))}' is constant at this size: give a larger --resize")
    in_place = InPlace(
        ssim=ssim(stored[0], stored[1], data_range=None, with_z_score=True),
        ssim_plain=ssim(greys[0], greys[1], data_range=255),
        contrast_structure=ssim(stored[0], stored[1], data_range=None, with_z_score=True, has_luminance=False),
        fsim=fsim(greys[0], greys[1]),
        ncc=ncc(stored[0], stored[1]),
    )
    registration = register(units[0], units[1])
    return Comparison(
        (str(a), str(b)),
        (sizes[0], sizes[1]),
        is_turned,
        pixels,
        (units[0], units[1]),
        in_place,
        registration,
        evidence(units[0], units[1], registration.transform),
        registered_similarity(units[0], units[1], registration.transform),
    )


def _sized(pixels: Pixels, size: tuple[int, int] | None) -> Pixels:
    return pixels if size is None or pixels.shape == size else resize_area(pixels, *size)


def _check_sizes(sizes: list[tuple[int, int]], size: tuple[int, int] | None) -> None:
    texts = [f"{rows} x {columns}" for rows, columns in sizes]
    if size is None and sizes[0] != sizes[1]:
        raise UsageError(
            f"the images have {texts[0]} and {texts[1]} pixels (rows x columns): give --resize "
            f"{sizes[0][0]}x{sizes[0][1]} (or another size) to bring both to one size by area averaging"
        )
    used = size or sizes[0]
    if min(used) < _LEAST_SIDE:
        raise UsageError(f"images of {used[0]} x {used[1]} pixels are too small, 7 x 7 are needed: give --resize")
    if max(used) > _MOST_SIDE:
        raise UsageError(f"images of {used[0]} x {used[1]} pixels are too large, over 4,096 a side: give --resize")
