"""Plant copies of real images into a synthetic set, so that recall is measured on one's own data.

A copy is pixel for pixel, or carries what a generator does to an image that it memorised: artefacts, local changes of
anatomy, another view (`deepssim.perturb`). The truth is written beside the images (`deepssim.planted.truth`).
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from deepssim.disk import FILE_MODE, make_private_folder, replacing, work_folder
from deepssim.errors import UsageError
from deepssim.image_ops import is_byte_image, unit_grey
from deepssim.images import Image, ImageOptions, Listing, Skipped, list_images, listing_signature, read_tasks
from deepssim.images.text import some
from deepssim.inputs import check_distinct
from deepssim.perturb import BUMP_AMPLITUDE_PX, apply_view, degrade, draw_view, near_copy
from deepssim.planted.truth import Planted, write_truth
from deepssim.progress import Progress, Silent
from deepssim.store import Store
from deepssim.trial import NEAR_PX

__all__ = ["DEFAULT_KINDS", "IMAGES", "KINDS", "TRUTH", "PlantOptions", "PlantResult", "make_copy", "plant"]

KINDS = {
    "exact": "the same pixels",
    "artefacts": "blur, bias field, gamma, noise",
    "local": "one to three local displacements, in 40 % a lesion; and artefacts",
    "perturbed": "artefacts or local changes; flipped, turned by up to 10 degrees, gamma",
    "hard": "artefacts or local changes; flipped, turned by up to 30 degrees, shifted, zoomed, gamma",
}
DEFAULT_KINDS = ("exact", "artefacts", "local", "perturbed")
IMAGES, TRUTH = "images", "truth.csv"
_FOLDER = "planted"
_MOST = {8: 255.0, 16: 65535.0}
_SHOWN = 5

Pixels = NDArray[np.float32]
Stored = NDArray[np.uint8] | NDArray[np.uint16]


@dataclass(frozen=True, slots=True)
class PlantOptions:
    """What to plant.

    Attributes:
        number: Copies, divided evenly among the kinds.
        kinds: Some of `KINDS`.
        seed: Of every draw.
        images: How the real images are read, and who is who.
        with_links: Whether synthetic files are hard links instead of copies: no space is taken, but a store that was
            made of them before is taken for stale, since a link changes a file's times.

    Raises:
        UsageError: A kind is unknown (all are named) or there is none, or the number is not positive.
    """

    number: int = 200
    kinds: tuple[str, ...] = DEFAULT_KINDS
    seed: int = 0
    images: ImageOptions = field(default_factory=ImageOptions)
    with_links: bool = False

    def __post_init__(self) -> None:
        """Check every value."""
        unknown = [repr(kind) for kind in self.kinds if kind not in KINDS]
        if unknown or not self.kinds:
            what = f"{', '.join(unknown)} {'are' if len(unknown) > 1 else 'is'} none" if unknown else "there is none"
            raise UsageError(f"kinds of copies are {', '.join(KINDS)}; {what}")
        if len(set(self.kinds)) < len(self.kinds):
            raise UsageError(f"a kind of copy is named twice: {', '.join(self.kinds)}")
        if self.number < 1:
            raise UsageError(f"{self.number} copies cannot be planted: ask for 1 or more")


@dataclass(frozen=True, slots=True)
class PlantResult:
    """What was planted.

    Attributes:
        folder: Holds ``images/`` and ``truth.csv``.
        planted: The copies.
        n_people: Persons whose images were copied; None: not known of all.
        n_synthetic: Synthetic files beside them.
        n_skipped: Real images that were drawn and could not be used.
        n_left_out: Files of the synthetic folder that are no images, or cannot be read.
    """

    folder: Path
    planted: tuple[Planted, ...]
    n_people: int | None
    n_synthetic: int
    n_skipped: int
    n_left_out: int


def plant(
    real: str | Path,
    out: str | Path,
    *,
    synthetic: str | Path | None = None,
    options: PlantOptions | None = None,
    progress: Progress | None = None,
) -> PlantResult:
    """Plant copies of real images, with or without the synthetic images around them.

    Sources are drawn by person: no person is copied twice before each was once, and no image of a person twice before
    each was once. The same images, options and seed give the same files. The folder appears when it is whole.

    Args:
        real: Images that are copied: folder, file or manifest. Nothing is written into it.
        out: A new folder: ``images/planted/`` holds the copies as PNG, ``images/`` the synthetic files under their own
            names, ``truth.csv`` the truth.
        synthetic: Images that the generator made: a folder or file; None: the copies alone.
        options: What to plant.
        progress: Told where it is.

    Raises:
        UsageError: An input or the output cannot be used, or no image of it.
    """
    check_distinct({"real": real, "synthetic": synthetic, "output": out})
    options, progress, out = options or PlantOptions(), progress or Silent(), Path(out).absolute()
    for name, path in (("real", real), ("synthetic", synthetic)):
        if path is not None and Store.is_store(Path(path)):
            raise UsageError(f"the {name} input {path} is a store of embeddings: give the images it was made from")
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise UsageError(f"{out} is there already: name a new folder")
    listing = list_images(real, options.images)
    others = list_images(synthetic) if synthetic is not None else None
    if others is not None:
        taken = [entry.path for entry in others.files if entry.path.split("/", 1)[0] == _FOLDER]
        if taken:
            raise UsageError(
                f"the synthetic images have a folder {_FOLDER}, which the copies go to ({some(taken, _SHOWN)}): rename "
                "it, or leave out what was planted before"
            )
    make_private_folder(out.parent)
    with work_folder(out, _fingerprint(options, listing, others)) as work:
        whole = make_private_folder(work / "whole")
        planted, n_skipped = _plant_all(listing, make_private_folder(whole / IMAGES), options, progress)
        if others is not None:
            _bring(others, whole / IMAGES, progress, with_links=options.with_links)
        write_truth(whole / TRUTH, planted)
        for leftover in whole.rglob(".*.partial"):  # of a run that was killed
            leftover.unlink()
        whole.replace(out)
    groups = {one.group for one in planted}
    return PlantResult(
        out,
        tuple(planted),
        None if None in groups else len(groups),
        len(others.files) if others is not None else 0,
        n_skipped,
        len(others.ignored) if others is not None else 0,
    )


def _fingerprint(options: PlantOptions, *listings: Listing | None) -> str:
    facts = [asdict(options), *(listing_signature(one) if one else "" for one in listings)]
    return hashlib.sha256(json.dumps(facts).encode("utf-8", "surrogateescape")).hexdigest()[:16]


def _plant_all(listing: Listing, folder: Path, options: PlantOptions, progress: Progress) -> tuple[list[Planted], int]:
    """Draw sources until there are as many copies as wanted; returns them and how many could not be used."""
    make_private_folder(folder / _FOLDER)
    draws = _draw_tasks(listing, options.seed, progress)
    planted: list[Planted] = []
    n_skipped, reason = 0, ""
    prefix, width = _prefix(listing, options), max(6, len(str(options.number - 1)))
    with progress.track("planted copies", options.number) as advance:
        while len(planted) < options.number:
            missing = options.number - len(planted)
            chosen = [next(draws) for _ in range(missing)]
            few = replace(listing, tasks=[listing.tasks[index] for index, _ in chosen])
            before = len(planted)
            for (_, turn), result in zip(chosen, read_tasks(few), strict=True):
                number = len(planted)
                source = _pick(result.items, turn)
                if isinstance(source, Skipped):
                    n_skipped, reason = n_skipped + 1, source.reason
                    continue
                name = f"{_FOLDER}/{prefix}-{number:0{width}d}.png"
                planted.append(_plant_one(source, folder / name, name, number, options))
                advance(1)
            if len(planted) == before and n_skipped >= len(listing.tasks):
                raise UsageError(f"no image of {listing.source} can be copied: {reason}")
    return planted, n_skipped


def _prefix(listing: Listing, options: PlantOptions) -> str:
    """Return what names of this planting begin with: the truth of another one fits none of its images."""
    facts = [options.seed, options.number, options.kinds, [entry.base_id for entry in listing.files]]
    return hashlib.sha256(json.dumps(facts).encode("utf-8", "surrogateescape")).hexdigest()[:6]


def _plant_one(source: Image, path: Path, name: str, number: int, options: PlantOptions) -> Planted:
    kind = options.kinds[number % len(options.kinds)]
    # Of the kinds that come in both, every other one is a near copy.
    is_near = kind == "local" or (kind in ("perturbed", "hard") and (number // len(options.kinds)) % 2 == 1)
    seed = int(np.random.SeedSequence([options.seed, number]).generate_state(1)[0])
    if not path.exists():
        _save(path, make_copy(source.pixels, kind, seed, is_near=is_near))
    return Planted(name, kind, "near" if is_near else "exact", source.id, source.group, seed)


def make_copy(pixels: Pixels, kind: str, seed: int, *, is_near: bool = False) -> Stored:
    """Make a copy of an image.

    Args:
        pixels: ``(height, width)``, in any unit.
        kind: One of `KINDS`.
        seed: Of its draws.
        is_near: Of the kinds perturbed and hard: whether the anatomy is changed locally; local ones always are.

    Returns:
        The copy at the same size: 8 bits where the image has whole numbers from 0 to 255, else 16 bits. The same
        pixels where 16 bits hold them; else (negative values, fractions) they are scaled to 0 to 65535.

    Raises:
        UsageError: The kind is unknown.

    Example:
        >>> make_copy(np.array([[0, 300], [7, 65535]], np.float32), "exact", 0).tolist()
        [[0, 300], [7, 65535]]
    """
    if kind not in KINDS:
        raise UsageError(f"kinds of copies are {', '.join(KINDS)}; {kind!r} is none")
    bits = 8 if is_byte_image(pixels) else 16
    if kind == "exact":
        return _as_stored(_in_range(pixels, _MOST[bits]), bits)
    rng, image = np.random.default_rng(seed), unit_grey(pixels)
    if kind == "local" or is_near:
        made = near_copy(image, rng, amplitude_px=NEAR_PX if kind == "hard" else BUMP_AMPLITUDE_PX)
    else:
        made = degrade(image, rng)
    if kind == "perturbed":
        made = apply_view(made, draw_view(rng, "perturbed", size=(made.shape[0], made.shape[1])))
    elif kind == "hard":
        made = apply_view(made, draw_view(rng, "hard", size=(made.shape[0], made.shape[1])))
    return _as_stored(made.astype(np.float64) * _MOST[bits], bits)


def _in_range(pixels: Pixels, most: float) -> NDArray[np.float64]:
    """Return grey values that so many whole numbers hold: as they are where they fit, else scaled to all of them."""
    values = pixels.astype(np.float64)
    low, high = float(values.min()), float(values.max())
    if low >= 0 and high <= most and bool((values == np.rint(values)).all()):
        return values
    return (values / 2 - low / 2) / (high / 2 - low / 2) * most


def _as_stored(values: NDArray[np.float64], bits: int) -> Stored:
    rounded = np.rint(values)
    return rounded.astype(np.uint8) if bits == 8 else rounded.astype(np.uint16)


def _save(path: Path, pixels: Stored) -> None:
    from PIL import Image as Pillow

    with replacing(path) as temporary, temporary.open("wb") as file:
        Pillow.fromarray(pixels).save(file, format="PNG")


def _pick(items: list[Image | Skipped], turn: int) -> Image | Skipped:
    """Return one of the images of a task, the next at each turn; else why there is none."""
    images = [item for item in items if isinstance(item, Image)]
    if images:
        return images[turn % len(images)]
    return next((item for item in items if isinstance(item, Skipped)), Skipped("", "", "empty", "it holds no image"))


def _draw_tasks(listing: Listing, seed: int, progress: Progress) -> Iterator[tuple[int, int]]:
    """Yield tasks without end, each person once, then once more, and so on; with a number that picks an image of it."""
    owners = _owners(listing, progress)
    by_person: dict[str, list[int]] = {}
    for index, person in enumerate(owners):
        by_person.setdefault(person, []).append(index)
    rng = np.random.default_rng([seed, len(listing.tasks)])
    queues = {person: rng.permutation(tasks).tolist() for person, tasks in by_person.items()}
    # A volume is one file of many slices: which comes first is drawn too.
    firsts = rng.integers(0, 2**31, len(owners)).tolist()
    everybody = list(queues)
    for round_ in range(2**62):
        for place in rng.permutation(len(everybody)).tolist():
            queue = queues[everybody[place]]
            index = queue[round_ % len(queue)]
            yield index, firsts[index] + round_ // len(queue)


def _owners(listing: Listing, progress: Progress) -> list[str]:
    """Return the person of each task; files that name their patient are read for it."""
    entries = [listing.files[task.file_index] for task in listing.tasks]
    is_told = not listing.with_file_groups or all(one.format != "dicom" or one.group for one in entries)
    owners = [f"image {one.base_id}" if one.group is None else f"person {one.group}" for one in entries]
    if is_told:
        return owners
    with progress.track("patients of the real images", len(owners)) as advance:
        for index, result in enumerate(read_tasks(listing)):
            group = next((item.group for item in result.items if isinstance(item, Image)), None)
            owners[index] = owners[index] if group is None else f"person {group}"
            advance(1)
    return owners


def _bring(listing: Listing, folder: Path, progress: Progress, *, with_links: bool) -> None:
    """Bring the files of the synthetic set under the same names."""
    bring: Callable[[Path, Path], None] = _link if with_links else _copy
    with progress.track("synthetic files", len(listing.files)) as advance:
        for entry in listing.files:
            target = folder / entry.path
            if not target.exists():
                make_private_folder(target.parent)
                bring((listing.root / entry.path).resolve(), target)
            advance(1)


def _copy(source: Path, target: Path) -> None:
    partial = target.with_name(f".{target.name}.partial")
    descriptor = os.open(partial, os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_WRONLY, FILE_MODE)
    with source.open("rb") as old, os.fdopen(descriptor, "wb") as new:
        shutil.copyfileobj(old, new, 2**20)
    partial.replace(target)


def _link(source: Path, target: Path) -> None:
    try:
        target.hardlink_to(source)
    except OSError:  # another file system, or one without links
        _copy(source, target)
