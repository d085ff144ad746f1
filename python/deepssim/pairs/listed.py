"""Pairs of real images and of images that a generator made of them."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from deepssim.disk import work_folder
from deepssim.errors import UsageError
from deepssim.images import Listing, list_images, listing_signature
from deepssim.images.text import one_line
from deepssim.matrix import make_parent, write_skipped
from deepssim.pairs.choose import Chooser, PairOptions, PairResult, Registered, Target, warnings_of, write_pairs
from deepssim.pairs.compare import Checkpoint, Stored, compare_blocks, register_pairs
from deepssim.pairs.draw import Indices
from deepssim.pairs.near import nearest
from deepssim.pairs.people import SPLITS, choose_people, people_of, split_people
from deepssim.pixel_set import PixelRules, PixelSet, read_pixel_set
from deepssim.progress import Progress, Silent
from deepssim.reference.layout import single_images, split_layout
from deepssim.reference.names import key_of

__all__ = ["RULES", "count_people", "list_pairs", "too_many"]

# What the trainer reads: 8-bit grey.
RULES = PixelRules(with_byte_range=True, least_side=7, with_rounding=True)
# Real images that are registered with each synthetic one before any other, at most.
_NEAREST = 8
_FORMATS = ("raster", "dicom")


def list_pairs(
    real: str | Path,
    synthetic: str | Path,
    out: str | Path,
    options: PairOptions | None = None,
    *,
    progress: Progress | None = None,
) -> PairResult:
    """Draw pairs of real and synthetic images evenly over their similarity, and list them.

    A synthetic image is of the split of the real image that is most like it, and pairs across the splits are left out:
    no image, and no person, is in both. Where there are more pairs than ``options.most_compared``, as many synthetic
    images, and real images of whole people, are drawn before anything is read.

    Killed and started again with the same images and options, it goes on; the list appears when it is whole.

    Args:
        real: Folder or manifest of single images.
        synthetic: The same. If it is the same folder as `real`, images called ``training`` are the real ones and all
            others synthetic, as the reference implementation lays them out.
        out: The list, ``.csv``. Its keys are relative to the folder that holds both sets.
        options: What is listed; None: the defaults, with the target "registered".
        progress: Told of what is done.

    Returns:
        What was listed. ``NAME.skipped.csv`` lists the inputs that were left out.

    Raises:
        UsageError: Images differ in size, are too small or cannot be named in a list; real images have no known person
            or there is one person; no pair can be drawn; `out` is no ``.csv``.
        MemoryLimitError: The memory limit is too small.

    Example:
        >>> import tempfile
        >>> from PIL import Image
        >>> from deepssim.images import ImageOptions
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for k, name in enumerate(["p1/training", "p1/gen-0", "p2/training", "p2/gen-0"]):
        ...         path = Path(folder, f"{name}.png")
        ...         path.parent.mkdir(exist_ok=True)
        ...         noise = np.random.default_rng(k // 2).integers(0, 256, (16, 16), dtype=np.uint8)
        ...         Image.fromarray(noise).save(path)
        ...     options = PairOptions(number=2, target="ssim", valid_part=0.5, images=ImageOptions(group_by="parent"))
        ...     result = list_pairs(folder, folder, Path(folder, "pairs.csv"), options)
        ...     result.n_pairs, Path(result.out).read_text().splitlines()[1][:31]
        ({'train': 1, 'valid': 1}, 'p2___training,p2___gen-0,1.0,tr')
    """
    options, progress = options or PairOptions(), progress or Silent()
    target: Target = options.target or "registered"
    out = Path(out).absolute()
    if out.suffix.lower() != ".csv":
        raise UsageError(f"{out.name} must end in .csv: pairs of images that are there are a list of their keys")
    listings = [_thinned(one, n, options) for one, n in _listings(real, synthetic, options, target)]
    root = Path(os.path.commonpath([listing.root for listing in listings]))
    make_parent(out)
    with work_folder(out, _fingerprint(listings, options, target)) as work:
        sets = _read(listings, work, options, progress)
        people = people_of(sets[0].groups, sets[0].ids, options.images.group_by)
        is_valid = split_people(people, options.valid_part, options.seed)
        keys = [_keys(one, listing, root) for one, listing in zip(sets, listings, strict=True)]
        chooser = Chooser(options, target)
        near = _register_nearest(sets, is_valid, chooser, work, progress) if target == "registered" else None
        _compare(sets, is_valid, near, chooser, Checkpoint(work / "compared.npz"), progress)
        chosen = chooser.finish(Stored(sets[0]), Stored(sets[1]), work, progress)
        write_skipped(out.with_suffix(".skipped.csv"), dict(zip(("real", "synthetic"), sets, strict=True)))
        write_pairs(out, chosen, keys[0], people, lambda _, j: (keys[1][j], "generated", None))
    n_pairs = {split: len(one.pairs) for split, one in zip(SPLITS, chosen, strict=True)}
    return PairResult(
        out, root, target, options.number, n_pairs, count_people(people, is_valid), len(sets[0]), len(sets[1]),
        len(sets[0]) * len(sets[1]), chooser.bins(chosen), sum(one.n_skipped for one in sets),
        sum(one.n_resized for one in sets), any(too_many(one.n_skipped, len(one), options) for one in sets),
        warnings_of(options, n_pairs),
    )  # fmt: skip


def count_people(people: Sequence[str], is_valid: NDArray[np.bool_]) -> dict[str, int]:
    """Count the people of each split."""
    return {
        split: len({p for p, v in zip(people, is_valid.tolist(), strict=True) if v == k})
        for k, split in enumerate(SPLITS)
    }


def too_many(n_skipped: int, n_images: int, options: PairOptions) -> bool:
    """Say whether more of a set was left out than allowed."""
    return n_skipped > options.max_skipped * (n_skipped + n_images)


def _listings(
    real: str | Path, synthetic: str | Path, options: PairOptions, target: Target
) -> list[tuple[Listing, int]]:
    """List both sets; beside each, how many of its images are compared."""
    here, there = Path(real), Path(synthetic)
    if here.is_dir() and there.is_dir() and here.resolve() == there.resolve():
        both = list(split_layout(list_images(real, options.images)))
    else:
        a, b = here.resolve(), there.resolve()
        if here.is_dir() and there.is_dir() and (a.is_relative_to(b) or b.is_relative_to(a)):
            raise UsageError(f"{here} and {there} lie one in the other: separate them")
        both = [list_images(real, options.images), list_images(synthetic, replace(options.images, group_by="none"))]
    for listing in both:
        odd = next((file.path for file in listing.files if file.format not in _FORMATS), None)
        if odd is not None:
            raise UsageError(
                f"'{one_line(odd)}' of {one_line(listing.source)} may hold several images, and a list of pairs names "
                "files of one: write them as PNG files first"
            )
    both = [single_images(one) for one in both]
    n_real, n_synthetic = len(both[0].files), len(both[1].files)
    most = options.most_compared
    if target == "registered":
        # More images than pairs would bring nothing but the search for their sources.
        n_synthetic = min(n_synthetic, options.number)
    if n_real * n_synthetic > most:
        n_real = min(n_real, max(math.isqrt(most), most // n_synthetic))
        n_synthetic = max(1, min(n_synthetic, most // n_real))
    return [(both[0], n_real), (both[1], n_synthetic)]


def _thinned(listing: Listing, n: int, options: PairOptions) -> Listing:
    if n >= len(listing.files):
        return listing
    people = [file.group or file.path for file in listing.files]
    return single_images(listing, choose_people(people, n, options.seed, "compared"))


def _fingerprint(listings: Sequence[Listing], options: PairOptions, target: Target) -> str:
    facts = {
        "images": [(str(one.root), one.source, listing_signature(one)) for one in listings],
        "options": options.facts(),
        "target": target,
    }
    text = json.dumps(facts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:16]


def _read(listings: Sequence[Listing], work: Path, options: PairOptions, progress: Progress) -> list[PixelSet]:
    sets: list[PixelSet] = []
    for name, listing in zip(("real", "synthetic"), listings, strict=True):
        with progress.track(f"{name} images", listing.n_expected) as advance:
            sets.append(
                read_pixel_set(
                    listing, work / f"{name}.bin", replace(RULES, size=options.size), like=sets[0] if sets else None,
                    threads=options.threads or None, progress=advance,
                )
            )  # fmt: skip
    return sets


def _keys(images: PixelSet, listing: Listing, root: Path) -> list[str]:
    odd, times = Counter(images.paths).most_common(1)[0]
    if times > 1:
        raise UsageError(
            f"'{one_line(odd)}' holds several images, and a list of pairs names files of one: write them as PNG files"
        )
    folder = listing.root.relative_to(root)
    return [key_of(str(PurePosixPath(folder, path))) for path in images.paths]


def _register_nearest(
    sets: Sequence[PixelSet], is_valid: NDArray[np.bool_], chooser: Chooser, work: Path, progress: Progress
) -> Indices:
    """Register the real images that may be the source of a synthetic one, ``(n_synthetic, k)``; the best first."""
    real, synthetic, n = Stored(sets[0]), Stored(sets[1]), len(sets[1])
    threads, size = chooser.options.threads, sets[0].size
    k = min(_NEAREST, max(1, chooser.options.number // n))
    checkpoint = Checkpoint(work / "nearest.npz")
    found = checkpoint.load()
    if found is None:
        with progress.track("looking for sources", n) as advance:
            near = nearest(real, len(sets[0]), synthetic, n, size=size, k=k, threads=threads, progress=advance)
        checkpoint.offer(lambda: {"near": near}, is_last=True)
    else:
        near = found["near"].astype(np.int64)
    first, second = near.ravel(), np.repeat(np.arange(n), near.shape[1])
    with progress.track("registering sources", len(first)) as advance:
        numbers = register_pairs(
            real, first, synthetic, second, threads=threads, checkpoint=Checkpoint(work / "sources.npz"),
            progress=advance,
        )  # fmt: skip
    # Of equal ones the one that looked nearer.
    order = np.argsort(-numbers[:, 0].reshape(near.shape), axis=1, kind="stable")
    near = np.take_along_axis(near, order, axis=1)
    split_of = is_valid[near[:, 0]]
    for split in range(len(SPLITS)):
        own = (is_valid[first] == split) & (split_of[second] == split)
        chooser.known[split] = Registered(first[own], second[own], numbers[own])
    return near


def _compare(
    sets: Sequence[PixelSet],
    is_valid: NDArray[np.bool_],
    near: Indices | None,
    chooser: Chooser,
    checkpoint: Checkpoint,
    progress: Progress,
) -> None:
    """Show the chooser all pairs within a split, but for those that it knows already."""
    rows = [np.flatnonzero(is_valid == split) for split in range(len(SPLITS))]
    n_real, n_synthetic = map(len, sets)
    found, start = checkpoint.load(), 0
    if found is not None:
        start = int(found["next"])
        for name, draw in zip(SPLITS, chooser.draws, strict=True):
            draw.restore({part: found[f"{name}.{part}"] for part in draw.state()})
        progress.status(f"continuing after {start:,} of {n_synthetic:,} synthetic images")
    with progress.track("pairs", n_real * n_synthetic) as advance:
        advance(n_real * start)
        blocks = compare_blocks(
            Stored(sets[0]), np.arange(n_real), Stored(sets[1]), np.arange(n_synthetic), size=sets[0].size,
            first_column=start, memory_limit=chooser.options.memory_limit, threads=chooser.options.threads,
        )  # fmt: skip
        for columns, micros in blocks:
            shown = np.ones(micros.shape, np.bool_)
            if near is not None:
                np.put_along_axis(shown, near[columns].T, values=False, axis=0)
            # A copy follows the person that it was made of, wherever else it might be listed.
            source = micros.argmax(axis=0) if near is None else near[columns, 0]
            for split, members in enumerate(rows):
                chosen = np.flatnonzero(is_valid[source] == split)
                part = np.ix_(members, chosen)
                chooser.add_block(split, members, chosen + columns.start, micros[part], shown[part])
            checkpoint.offer(partial(_state, chooser, columns.stop), is_last=columns.stop == n_synthetic)
            advance(n_real * (columns.stop - columns.start))


def _state(chooser: Chooser, stop: int) -> dict[str, NDArray[np.generic]]:
    states = zip(SPLITS, chooser.draws, strict=True)
    arrays = {f"{split}.{name}": array for split, draw in states for name, array in draw.state().items()}
    return {**arrays, "next": np.array(stop)}
