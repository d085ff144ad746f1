"""What a run of generated images was made with, kept beside them: images of other settings are never mixed in."""

from __future__ import annotations

import datetime
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from deepssim import __version__
from deepssim.disk import read_json, write_json
from deepssim.errors import StoreError, UsageError
from deepssim.generative.sampling.plan import RUN_NAME
from deepssim.images.text import one_line

__all__ = ["FORMAT", "VERSION", "Settings", "check_settings", "read_settings", "write_settings"]

FORMAT = "deepssim-generated"
VERSION = 1
# What may differ where images are files of their own: more of them can be asked for. Records have a digest, and made-up
# ones are as many as the images need.
_EXTENT = ("n_records", "per_record", "n_images", "only")
_WORDS = {
    "model": "model (SHA-256 of its weights)",
    "records": "records or their conditions (SHA-256)",
    "per_record": "images of a record",
    "n_images": "images",
    "only": "--only",
    "batch": "batch size",
}


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings by name.

    Attributes:
        image: What changes the pixels of an image: model, seed, steps and so on.
        plan: What `deepssim.generative.sampling.plan.Plan.describe` says.
        noted: What a reader may want to know, and nothing depends on.
    """

    image: dict[str, Any]
    plan: dict[str, Any]
    noted: dict[str, Any] = field(default_factory=dict)


def read_settings(path: Path) -> dict[str, Any]:
    """Read the record of a run.

    Raises:
        UsageError: It is none, so what lies beside it is not ours.
    """
    try:
        return read_json(path, file_format=FORMAT, version=VERSION)
    except StoreError as error:
        raise UsageError(f"{error}: name another place for the images than {_place(path)}") from None


def check_settings(path: Path, found: dict[str, Any], settings: Settings, *, can_grow: bool) -> None:
    """Check that what lies beside a record was made with the same settings.

    Args:
        path: The record.
        found: What is in it.
        settings: Of this run.
        can_grow: Whether more images of the same records may be asked for.

    Raises:
        UsageError: It was not; all that differs is named.
    """
    there, here = ({**_table(part, "image"), **_table(part, "plan")} for part in (found, _as_json(settings)))
    ignored = _EXTENT if can_grow else ()
    differing = [
        f"{_WORDS.get(key, key)}: {_shown(there.get(key))} there, {_shown(here.get(key))} asked for"
        for key in here
        if key not in ignored and there.get(key) != here[key]
    ]
    if differing:
        raise UsageError(
            f"{_place(path)} holds images of other settings ({'; '.join(differing)}): ask for the same, or name "
            "another place"
        )


def write_settings(path: Path, settings: Settings, *, is_finished: bool) -> None:
    """Write the record of a run, atomically.

    Args:
        path: The record.
        settings: Of the run.
        is_finished: Whether all images that it asked for are there.
    """
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    versions = {"deepssim": __version__, "numpy": np.__version__}
    state = {"is_finished": is_finished, "written": now, "versions": versions}
    write_json(path, {"format": FORMAT, "version": VERSION, **_as_json(settings), **state})


def _place(record: Path) -> Path:
    """Return the folder or the file that a record is of."""
    is_of_folder = record.name == RUN_NAME
    return record.parent if is_of_folder else record.with_name(record.name.removesuffix(f".{RUN_NAME}"))


def _as_json(settings: Settings) -> dict[str, Any]:
    return {"image": settings.image, "plan": settings.plan, "noted": settings.noted}


def _table(value: dict[str, Any], key: str) -> dict[str, Any]:
    part = value.get(key)
    return part if isinstance(part, dict) else {}


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return f"{len(value):,} images" if len(value) > 4 else str(value)
    text = "none" if value is None else str(value)
    return text[:12] if len(text) == 64 else one_line(text, 40)
