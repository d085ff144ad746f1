"""The record of a run, ``run.json``: what was read, with which options, by which programs, on what machine."""

from __future__ import annotations

import datetime
import platform
import sys
import time
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Self

from deepssim import __version__
from deepssim.disk import read_json, write_json
from deepssim.errors import StoreError
from deepssim.matching import Matcher
from deepssim.store import Store

NAME = "run.json"
FORMAT = "deepssim-run"
VERSION = 1
REPORTED_PACKAGES = ("numpy", "pyarrow", "pillow", "onnxruntime", "onnxruntime-gpu", "nibabel", "pydicom")


@dataclass(frozen=True, slots=True)
class Start:
    """When a run began: by the calendar, and by a clock that is never set (in seconds)."""

    moment: datetime.datetime
    clock: float

    @classmethod
    def now(cls) -> Self:
        """Return the present."""
        return cls(datetime.datetime.now(datetime.UTC), time.monotonic())


@dataclass(frozen=True, slots=True)
class SearchRecord:
    """How a search ran: its instruction set and its memory plan. It outlives the searcher."""

    isa: str
    plan: dict[str, Any]

    @classmethod
    def of(cls, matcher: Matcher) -> Self:
        """Describe a matcher whose sets are loaded."""
        plan, searcher = matcher.plan, matcher.real.searcher
        described = {
            "bytes_total": plan.total_bytes,
            "bytes_base": plan.base_bytes,
            "bytes_worker": plan.worker_bytes,
            "bytes_row": plan.row_bytes,
            "chunk_rows": matcher.chunk_rows,
            "threads": plan.threads,
        }
        return cls(searcher.isa if searcher else "", described)


def is_run(folder: Path) -> bool:
    """Say whether a folder holds the record of a run of ours."""
    try:
        read_json(folder / NAME, file_format=FORMAT, version=VERSION)
    except StoreError:
        return False
    return True


def write_run(
    folder: Path,
    start: Start,
    search: SearchRecord,
    *,
    command: str,
    provider: str | None,
    inputs: dict[str, Any],
    options: dict[str, Any],
    thresholds: dict[str, Any],
    seed: int,
) -> None:
    """Write ``run.json`` of a run that ends now.

    Args:
        folder: Where.
        start: When the run began.
        search: How it searched.
        command: What the user called.
        provider: What ran the metric; None: nothing did.
        inputs: The sets by name, None for one that was not given.
        options: By name.
        thresholds: With their source.
        seed: Of the control and of resampling.
    """
    finished = datetime.datetime.now(datetime.UTC)
    run = {
        "format": FORMAT,
        "version": VERSION,
        "command": command,
        "started": start.moment.isoformat(timespec="seconds"),
        "finished": finished.isoformat(timespec="seconds"),
        "seconds": round(time.monotonic() - start.clock, 3),
        "versions": {"deepssim": __version__, "python": platform.python_version(), **_package_versions()},
        "machine": {
            "system": f"{platform.system()} {platform.release()}",
            "processor": _processor(),
            "isa": search.isa,
            "threads": search.plan["threads"],
            "provider": provider or "none: embeddings were read from stores",
        },
        "inputs": inputs,
        "options": options,
        "thresholds": thresholds,
        "plan": search.plan,
        "seeds": {"control and resampling": seed},
    }
    write_json(folder / NAME, run)


def describe_store(store: Store) -> dict[str, Any]:
    """Return what the record says of an input that is a store."""
    made_from = store.manifest["made_from"]
    return {
        "source": store.manifest["source"],
        "digest": str(made_from.get("images_digest", "")),
        "images": len(store),
        "group_by": str(made_from.get("group_by", "")),
    }


def _package_versions() -> dict[str, str]:
    versions = {}
    for name in REPORTED_PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return versions


def _processor() -> str:
    if sys.platform == "linux":
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
