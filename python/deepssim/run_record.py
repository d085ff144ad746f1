"""The record of a run, ``run.json``: what was read, with which options, by which programs, on what machine."""

from __future__ import annotations

import datetime
import platform
import resource
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
    """How a search ran. It outlives the matcher.

    Attributes:
        isa: Instruction-set level.
        plan: Memory and blocks, in bytes and rows.
        work: Pairs, how many came how far, seconds and bytes used.
    """

    isa: str
    plan: dict[str, Any]
    work: dict[str, Any]

    @classmethod
    def of(cls, matcher: Matcher) -> Self:
        """Describe a matcher that has done its work."""
        plan, found = matcher.plan, matcher.statistics
        base = matcher.real.base
        described = {
            "bytes_total": matcher.planned_bytes,
            "bytes_base": plan.base_bytes,
            "bytes_prepared": plan.prepared_bytes,
            "bytes_worker": plan.worker_bytes,
            "bytes_row": plan.row_bytes,
            "base_blocks": base.n_blocks if base else 1,
            "chunk_rows": matcher.chunk_rows,
            "threads": plan.threads,
        }
        work = {
            "pairs": found.n_pairs,
            "kept_by_first_bound": found.n_kept,
            "kept_by_second_bound": found.n_refined,
            "rescored": found.n_rescored,
            "summed_exactly": found.n_exact,
            "seconds": round(matcher.seconds, 3),
            "pairs_per_second": round(found.n_pairs / matcher.seconds) if matcher.seconds else 0,
            "verified_pairs": matcher.n_verified,
            "verification_seconds": round(matcher.verification_seconds, 3),
            "peak_resident_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        }
        return cls(base.isa if base else "", described, work)

    def _verification(self) -> str:
        n, seconds = self.work["verified_pairs"], self.work["verification_seconds"]
        return f"{n:,} pairs verified in image space in {seconds:.1f} s; " if n else ""

    def sentence(self) -> str:
        """Say in one line how the search went."""
        pairs = max(1, self.work["pairs"])
        return (
            f"{self.work['pairs']:,} pairs in {self.work['seconds']:.1f} s "
            f"({self.work['pairs_per_second'] / 1e6:,.0f} million a second, {self.isa}); "
            f"{100 * (1 - self.work['kept_by_first_bound'] / pairs):.2f} % discarded by the first bound, "
            f"{100 * self.work['rescored'] / pairs:.4f} % scored in full; "
            f"{self._verification()}{self.plan['bytes_total'] / 2**20:,.0f} MiB planned, "
            f"{self.work['peak_resident_bytes'] / 2**20:,.0f} MiB used by the process at most"
        )


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
        "search": search.work,
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
