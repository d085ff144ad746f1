"""The images of a folder as a data set: people are divided into those trained on and those who select the weights."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from deepssim.errors import UsageError
from deepssim.generative.data.faults import several
from deepssim.generative.data.record import Dataset, Record, uid_fault
from deepssim.images import COUNTED_CODES, ImageOptions, Skipped, list_images, read_tasks
from deepssim.images.text import one_line

__all__ = ["read_folder"]

# What a uid made of a path leaves out: suffixes of images, and what names of folders do not have.
_SUFFIX = re.compile(r"\.(?:nii\.gz|nii|png|jpe?g|tiff?|bmp|np[yz]|dcm|dicom|ima)(?=#|$)", re.IGNORECASE)
_UNSAFE = re.compile(r"[^\w.+=,@ -]+|_{3,}", re.UNICODE)


def read_folder(images: Path, options: ImageOptions, valid_part: float, seed: int) -> Dataset:
    """Read which images of a folder there are; see `deepssim.generative.data.records.read_dataset`.

    Raises:
        UsageError: There is no image that can be used, or there are too few people.
    """
    if not 0 < valid_part < 1:
        raise UsageError(f"the part of people who get the split valid is {valid_part:g}: it must be above 0, below 1")
    listing = list_images(images, options)
    records: list[Record] = []
    people: list[str] = []
    skipped: list[Skipped] = []
    for result in read_tasks(listing):
        base = listing.files[listing.tasks[result.task_index].file_index].base_id
        for item in result.items:
            if isinstance(item, Skipped):
                skipped += [item] if item.code in COUNTED_CODES else []
                continue
            path = listing.root / item.path
            key = item.id[len(base) + 1 :]
            records.append(Record(item.id, path, "", item.group, image_id=f"{path.name}#{key}" if key else None))
            # An image of nobody is a person of its own; a file of several images is one.
            people.append(f"file {item.path}" if item.group is None else f"group {item.group}")
    skipped += [item for item in listing.ignored if item.code in COUNTED_CODES]
    notes = []
    if skipped:
        shown = several([f"{one_line(item.id, 60)}: {item.reason}" for item in skipped], 2)
        notes.append(f"{len(skipped):,} images are left out ({shown})")
    if not records:
        raise UsageError(f"no image of '{one_line(str(images))}' can be used: {'; '.join(notes)}")
    if all(record.group is None for record in records):
        notes.append(
            "no image says whose it is: single images are divided into train and valid, not people; say who is who "
            "with a rule for groups"
        )
    uids = _uids([record.uid for record in records])
    valid = _valid_people(set(people), valid_part, seed, images)
    return Dataset(
        images,
        tuple(
            replace(record, uid=uid, split="valid" if person in valid else "train")
            for record, uid, person in zip(records, uids, people, strict=True)
        ),
        notes=tuple(notes),
    )


def _uids(ids: Sequence[str]) -> list[str]:
    """Make names of folders of ids, each another: ``site/sub-01.png`` becomes ``site-sub-01``."""
    plain = [_UNSAFE.sub("-", _SUFFIX.sub("", name)).strip("-.") or "image" for name in ids]
    counts = Counter(plain)
    # Where two would be one, and where one would be too long, a digest of the id tells them apart.
    return [
        name
        if counts[name] == 1 and not uid_fault(name)
        else f"{name[:40]}-{hashlib.sha256(full.encode('utf-8', 'surrogateescape')).hexdigest()[:12]}"
        for name, full in zip(plain, ids, strict=True)
    ]


def _valid_people(people: set[str], part: float, seed: int, source: Path) -> set[str]:
    """Draw who gets the split valid, by a digest of seed and name: the order of files decides nothing."""
    n_valid = round(part * len(people))
    if not 1 <= n_valid <= len(people) - 1:
        raise UsageError(
            f"'{one_line(str(source))}' has images of {len(people):,} people (where nothing says whose a file is, it "
            f"is a person): {part:g} of them leave {n_valid:,} for the split valid and {len(people) - n_valid:,} for "
            "train, and one of each is needed; give another part, or a CSV with the column split"
        )
    order = sorted(
        people, key=lambda person: hashlib.sha256(f"{seed}:{person}".encode("utf-8", "surrogateescape")).digest()
    )
    return set(order[:n_valid])
