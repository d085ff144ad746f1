"""Pairs of real images and of partners that are made of them: an encoder is trained before there is a generator."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from deepssim.disk import LOCK, locked, make_private_folder, read_json, remove_leftovers, write_json
from deepssim.errors import DeepSSIMError, StoreError, UsageError
from deepssim.image_ops import map_on_threads
from deepssim.images import Listing, list_images, listing_signature
from deepssim.matrix import write_skipped
from deepssim.pairs.choose import Chooser, Chosen, PairOptions, PairResult, Target, warnings_of, write_pairs
from deepssim.pairs.compare import Checkpoint, Stored
from deepssim.pairs.crossing import Crossing
from deepssim.pairs.draw import Indices
from deepssim.pairs.keys import folder_names
from deepssim.pairs.listed import RULES, count_people, too_many
from deepssim.pairs.making import Made, MadeImages, Maker, partner_name, write_png
from deepssim.pairs.people import SPLITS, people_of, split_people
from deepssim.pairs.workers import working
from deepssim.partners import GRADES, KINDS
from deepssim.pixel_set import read_pixel_set
from deepssim.progress import Progress, Silent
from deepssim.reference.names import key_of

__all__ = ["make_pairs"]

_LIST, _RECORD, _SKIPPED, _WORK = "pairs.csv", "pairs.json", "skipped.csv", ".work"
_REAL_NAME = "training"
_FORMAT, _VERSION = "deepssim-pairs", 1
_FILES = 512  # written at a time
_MADE_EACH = 0.6  # partners for each pair, about, where no bin of high similarity fills on its own
_OURS = re.compile(rf"(\.)?({_REAL_NAME}|({'|'.join(KINDS)})-\d{{4,}})\.png(?(1)\.[0-9a-f]{{12}}\.partial)")


def make_pairs(
    real: str | Path,
    out: str | Path,
    options: PairOptions | None = None,
    *,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> PairResult:
    """Make partners of real images, and list pairs of them evenly over their similarity.

    Partners are graded (`deepssim.partners.GRADES`): the image itself, artefacts, local displacements that grow. An
    image is paired with its own partners and with those of other images of the same person and of other people, within
    a split of the people. Partners are made until each tenth of the similarity has enough, or until twice the number of
    pairs was made.

    Killed and started again with the same images and options, it goes on; the list appears when it is whole.

    Args:
        real: Folder, file or manifest of any format that is read.
        out: Folder in the layout of the reference implementation: ``<uid>/training.png`` for each real image, its
            partners beside it as ``<uid>/<kind>-<number>.png``, all 8-bit grey; ``pairs.csv``, whose keys are
            ``<uid>___<name>``; ``pairs.json``; ``skipped.csv``.
        options: What is made; None: the defaults, with the target "ssim".
        overwrite: Whether pairs of other images or options that lie there are removed.
        progress: Told of what is done.

    Returns:
        What was listed; what a run before this one listed, if that was the same.

    Raises:
        UsageError: No image can be used, images differ in size or are too small, have no known person, or are of one;
            the folder holds other files, or pairs of other images or options.
        MemoryLimitError: The memory limit is too small.

    Example:
        >>> import tempfile
        >>> from PIL import Image
        >>> from deepssim.images import ImageOptions
        >>> from deepssim.phantom import make_cohort
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for person, level, image in make_cohort(2, 2, seed=0, size=(34, 28)):
        ...         Path(folder, "real", person).mkdir(parents=True, exist_ok=True)
        ...         Image.fromarray(np.uint8(255 * image)).save(Path(folder, "real", person, f"{level}.png"))
        ...     options = PairOptions(number=40, valid_part=0.5, images=ImageOptions(group_by="parent"))
        ...     result = make_pairs(Path(folder, "real"), Path(folder, "pairs"), options)
        >>> result.n_pairs, result.n_people
        ({'train': 20, 'valid': 20}, {'train': 1, 'valid': 1})
    """
    options, progress = options or PairOptions(), progress or Silent()
    target: Target = options.target or "ssim"
    out = Path(out).absolute()
    if out.suffix.lower() == ".csv":
        raise UsageError(f"{out.name} is the name of a list: name a folder, partners are written into it")
    if Path(real).is_dir() and out.resolve().is_relative_to(Path(real).resolve()):
        raise UsageError(f"{out} lies inside the images ({real}): name a folder outside for the pairs")
    listing = list_images(real, options.images)
    facts = _facts(listing, options, target)
    with _folder(out, facts, overwrite=overwrite) as earlier:
        if earlier is not None and (out / _LIST).is_file():
            progress.status(f"reusing {out}: {sum(earlier.n_pairs.values()):,} pairs of the same images and options")
            is_over = too_many(earlier.n_skipped, earlier.n_real, options)
            return replace(earlier, out=out / _LIST, folder=out, too_many_skipped=is_over)
        try:
            result = _make(listing, out, options, target, progress)
        except DeepSSIMError:
            # The same command would fail again: nothing to go on from, and pixels of patients are in there.
            _clear(out)
            raise
        write_json(out / _RECORD, {**_record(facts), "result": result.as_dict()})
        shutil.rmtree(out / _WORK)
    return result


def _facts(listing: Listing, options: PairOptions, target: Target) -> dict[str, Any]:
    value = {
        "images": [str(listing.root), listing_signature(listing)],
        "options": {**options.facts(), "target": target},
        "grades": repr(GRADES),
    }
    facts: dict[str, Any] = json.loads(json.dumps(value, default=str))  # as it comes back from the record
    return facts


def _record(facts: dict[str, Any]) -> dict[str, Any]:
    return {"format": _FORMAT, "version": _VERSION, "made_from": facts}


@contextmanager
def _folder(out: Path, facts: dict[str, Any], *, overwrite: bool) -> Iterator[PairResult | None]:
    """Hold the folder; give what a finished run with the same facts listed in it, None where there is none."""
    if out.exists() and not out.is_dir():
        raise UsageError(f"{out} is a file: name a folder for the pairs")
    is_new = not out.is_dir() or not any(path.name != LOCK for path in out.iterdir())
    if not is_new and not (out / _RECORD).is_file():
        raise UsageError(f"{out} holds other files: name a new or an empty folder for the pairs")
    with locked(make_private_folder(out)):
        remove_leftovers(out)
        record: dict[str, Any] = {}
        if not is_new:
            try:
                record = read_json(out / _RECORD, file_format=_FORMAT, version=_VERSION)
            except StoreError as error:
                if not overwrite:
                    raise UsageError(f"{error}: name another folder, or give --overwrite") from error
            if record.get("made_from") != facts:
                if not overwrite:
                    raise UsageError(
                        f"{out} holds pairs of other images or options ({_difference(record, facts)}): name another "
                        "folder, give the same to go on with it, or give --overwrite"
                    )
                _clear(out)
                record = {}
        if not record:
            write_json(out / _RECORD, _record(facts))
        yield PairResult.of(record["result"]) if "result" in record else None


def _difference(record: dict[str, Any], facts: dict[str, Any]) -> str:
    known, wanted = (value.get("options", {}) for value in (record.get("made_from", {}), facts))
    names = sorted(name for name in {*known, *wanted} if known.get(name) != wanted.get(name))
    return ", ".join(names) or "images"


def _clear(out: Path) -> None:
    """Remove what runs of this command wrote, and nothing else; last the record, without which nobody would again."""
    (out / _LIST).unlink(missing_ok=True)
    shutil.rmtree(out / _WORK, ignore_errors=True)
    _sweep(out, set())
    (out / _SKIPPED).unlink(missing_ok=True)
    (out / _RECORD).unlink(missing_ok=True)


def _sweep(out: Path, kept: set[str]) -> None:
    """Remove images of ours but those that are kept, and folders that are empty then."""
    for folder in out.iterdir():
        if not folder.is_dir() or folder.is_symlink() or folder.name == _WORK:
            continue
        for path in folder.iterdir():
            if _OURS.fullmatch(path.name) and f"{folder.name}/{path.name}" not in kept:
                path.unlink()
        if not any(folder.iterdir()):
            folder.rmdir()


def _make(listing: Listing, out: Path, options: PairOptions, target: Target, progress: Progress) -> PairResult:
    work = make_private_folder(out / _WORK)
    remove_leftovers(work)
    threads = options.threads
    with progress.track("real images", listing.n_expected) as advance:
        rules = replace(RULES, size=options.size)
        real = read_pixel_set(listing, work / "real.bin", rules, threads=threads or None, progress=advance)
    people = people_of(real.groups, real.ids, options.images.group_by)
    is_valid = split_people(people, options.valid_part, options.seed)
    images = Stored(real)
    chooser = Chooser(options, target)
    splits = [Crossing(k, np.flatnonzero(is_valid == k), people, options) for k in range(len(SPLITS))]
    parts = []
    with progress.track("partners", round(_MADE_EACH * options.number)) as advance, working(options.workers) as apply:
        for split in splits:
            maker = Maker(
                images, split.places, work=work, n=split.n, free=split.expected(images, real.size), split=split.split,
                seed=options.seed, threads=threads, apply=apply,
            )  # fmt: skip
            parts.append(maker.run(advance))
    partners = MadeImages([part for split in parts for part in split], real.size)
    n_made = [sum(len(part) for _, part in split) for split in parts]
    bounds = np.cumsum([0, *n_made])
    with progress.track("pairs", sum(s.n_compared(n) for s, n in zip(splits, n_made, strict=True))) as advance:
        for k, split in enumerate(splits):
            made = np.arange(bounds[k], bounds[k + 1])
            split.compare(images, partners, made, chooser, Checkpoint(work / f"pairs-{k}.npz"), advance)
    n_compared = sum(int(draw.counts.sum()) for draw in chooser.draws)
    chosen = chooser.finish(images, partners, work, progress)
    used = [np.unique(np.concatenate([getattr(one.pairs, side) for one in chosen])) for side in ("first", "second")]
    names = folder_names(real.ids, (_LIST, _RECORD, _SKIPPED))
    _write_images(out, names, images, partners, used, threads, progress)
    write_skipped(out / _SKIPPED, {"real": real})
    _write_list(out / _LIST, chosen, names, people, partners.made)
    n_pairs = {split: len(one.pairs) for split, one in zip(SPLITS, chosen, strict=True)}
    return PairResult(
        out / _LIST, out, target, options.number, n_pairs, count_people(people, is_valid), len(real), len(used[1]),
        n_compared, chooser.bins(chosen), real.n_skipped, real.n_resized, too_many(real.n_skipped, len(real), options),
        warnings_of(options, n_pairs),
    )  # fmt: skip


def _write_images(
    out: Path,
    names: list[str],
    real: Stored,
    partners: MadeImages,
    used: list[Indices],
    threads: int,
    progress: Progress,
) -> None:
    """Write the images that pairs name, real ones and partners; nothing else is left of any run."""
    kept: set[str] = set()
    with progress.track("files", sum(map(len, used))) as advance:
        for images, places in ((real, used[0]), (partners, used[1])):
            for start in range(0, len(places), _FILES):
                chosen = places[start : start + _FILES]
                files = [_file(names, partners.made if images is partners else None, k) for k in chosen.tolist()]
                pairs = zip(files, images.read(chosen), strict=True)
                map_on_threads(lambda pair: write_png(out / pair[0], pair[1]), pairs, threads)
                kept.update(files)
                advance(len(chosen))
    _sweep(out, kept)
    os.sync()  # before there is a list that names them


def _file(names: list[str], made: Made | None, place: int) -> str:
    if made is None:
        return f"{names[place]}/{_REAL_NAME}.png"
    name = partner_name(int(made.grade[place]), int(made.number[place]))
    return f"{names[int(made.source[place])]}/{name}.png"


def _write_list(path: Path, chosen: list[Chosen], names: list[str], people: list[str], made: Made) -> None:
    def describe(i: int, j: int) -> tuple[str, str, float | None]:
        source = int(made.source[j])
        key = key_of(_file(names, made, j))
        if source == i:
            return key, GRADES[int(made.grade[j])].kind, float(made.amplitude[j])
        return key, "same" if people[source] == people[i] else "other", None

    write_pairs(path, chosen, [key_of(f"{name}/{_REAL_NAME}.png") for name in names], people, describe)
