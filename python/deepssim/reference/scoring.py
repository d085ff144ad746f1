"""The score of every real image with every synthetic one, in the reference implementation's files.

``embeddings/METRIC/ID.npz``, ``matrices/METRIC.npz`` and ``indices/real.npz``, ``indices/synth.npz``. Those two are
shared by all metrics of a folder, so each metric also has index files of its own.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from deepssim import __version__
from deepssim.disk import check_writable, work_folder
from deepssim.embed import Encoder
from deepssim.errors import MemoryLimitError, StoreError, UsageError
from deepssim.exact_block import score_block
from deepssim.images import COUNTED_CODES, Listing, Skipped, listing_signature
from deepssim.images.text import some
from deepssim.progress import Progress, Silent
from deepssim.reference.embeddings import (
    check_replaceable,
    holds_embeddings,
    read_embeddings,
    replacing_embeddings,
    write_embeddings,
)
from deepssim.reference.files import read_index, write_index, write_matrix
from deepssim.reference.layout import split_layout
from deepssim.reference.names import identifiers, refuse_unnameable
from deepssim.reference.record import write_record
from deepssim.store import Store
from deepssim.store_build import build_store
from deepssim.tables import write_csv

__all__ = ["Folders", "ScoreOptions", "Scored", "refuse_inside", "score_embeddings", "score_layout", "score_stores"]

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]{0,99}")
_SETS = ("real", "synthetic")
_MOST_ROWS, _MOST_COLUMNS = 512, 2048


@dataclass(frozen=True, slots=True)
class Folders:
    """Where files go.

    Attributes:
        embeddings: Holds a folder of embeddings for each metric.
        matrices: Holds ``METRIC.npz``, and beside it what made it (``.json``) and what was left out (``.skipped.csv``).
        indices: Holds ``real.npz``, ``synth.npz``, ``METRIC.real.npz`` and ``METRIC.synth.npz``.
    """

    embeddings: Path
    matrices: Path
    indices: Path

    @classmethod
    def under(
        cls, out: Path | None, embeddings: Path | None = None, matrices: Path | None = None, indices: Path | None = None
    ) -> Folders:
        """Return the folders below one, or those that are named.

        Raises:
            UsageError: There is none, and not all are named.
        """
        given = {"embeddings": embeddings, "matrices": matrices, "indices": indices}
        missing = [name for name, path in given.items() if path is None]
        if out is None and missing:
            raise UsageError(f"name a folder for the {', '.join(missing)}, or one for all")
        return cls(**{n: (path if path is not None else Path(out or "", n)).absolute() for n, path in given.items()})


@dataclass(frozen=True, slots=True)
class ScoreOptions:
    """What is written.

    Attributes:
        name: Of the metric in names of files; None: its own.
        float16: Whether scores are rounded to float16, as the reference stores them: steps of .0005 below 1.
        with_embeddings: Whether embeddings are written too.
        perturb_seed: Show synthetic images perturbed; None: as they are.
        perturb_both: Show real ones perturbed too.
        memory_limit: Bytes for the scores held at a time; 0: no limit.
        threads: 0: all that this process may use.
        max_skipped: Share of a set that may be left out before the result counts as incomplete.
    """

    name: str | None = None
    float16: bool = False
    with_embeddings: bool = True
    perturb_seed: int | None = None
    perturb_both: bool = False
    memory_limit: int = 2 * 2**30
    threads: int = 0
    max_skipped: float = 0.01


@dataclass(frozen=True, slots=True)
class Scored:
    """What was written.

    Attributes:
        name: Of the metric.
        matrix: ``(n_real, n_synthetic)``.
        real_index: What its rows are.
        synthetic_index: What its columns are.
        embeddings: The folder of embeddings; None: none were written.
        skipped: What was left out, and why.
        n_real: Rows.
        n_synthetic: Columns.
        n_real_skipped: Real inputs that should have been images and have no row.
        n_synthetic_skipped: Synthetic ones.
        too_many_skipped: Whether more of a set was left out than allowed.
        provider: What ran the metric; None: nothing did.
        seconds: Of scoring.
    """

    name: str
    matrix: Path
    real_index: Path
    synthetic_index: Path
    embeddings: Path | None
    skipped: Path
    n_real: int
    n_synthetic: int
    n_real_skipped: int
    n_synthetic_skipped: int
    too_many_skipped: bool
    provider: str | None
    seconds: float

    def as_dict(self) -> dict[str, Any]:
        """Return it for JSON."""
        return {key: str(value) if isinstance(value, Path) else value for key, value in asdict(self).items()}


def score_layout(
    listing: Listing, encoder: Encoder, folders: Folders, options: ScoreOptions | None = None,
    *, progress: Progress | None = None,
) -> Scored:  # fmt: skip
    """Embed one folder of real and synthetic images and score them.

    Killed and started again with the same images and options it embeds on from where it was.

    Args:
        listing: Of the folder; images called ``training`` are the real ones.
        encoder: The metric. Real images are embedded in its views, if it has any, as an audit embeds them.
        folders: Where files go.
        options: What is written.
        progress: Told of what is done.

    Raises:
        UsageError: There are no real or no synthetic images, none of a set can be used, they cannot be named in the
            reference's files, or a folder lies among them or holds other files.
        MemoryLimitError: The memory limit does not hold a row of scores.
    """
    options, progress = options or ScoreOptions(), progress or Silent()
    parts = split_layout(listing)
    job = _Job(folders, options, encoder.metric.name, progress)
    refuse_inside(listing, folders)
    refuse_unnameable([file.path for file in listing.files])
    job.band_rows(parts[1].n_expected, encoder.metric.dim)
    facts = {
        "images": [(str(part.root), part.source, listing_signature(part)) for part in parts],
        "metric": (encoder.metric.hash, encoder.provider, encoder.runtime_version),
        "perturbed": (options.perturb_seed, options.perturb_both),
    }
    with job.work(facts) as work:
        stores = []
        for name, part in zip(_SETS, parts, strict=True):
            is_seen_perturbed = name == "synthetic" or options.perturb_both
            with progress.track(f"{name} images", part.n_expected) as advance:
                stores.append(
                    build_store(
                        part, encoder, work / name, as_gallery=name == "real",
                        perturb_seed=options.perturb_seed if is_seen_perturbed else None,
                        threads=options.threads or None, progress=advance, status=progress.status,
                    )
                )  # fmt: skip
        return job.finish((stores[0], stores[1]), _skipped_of(stores), provider=encoder.provider)


def score_stores(
    real: Store, synthetic: Store, folders: Folders, options: ScoreOptions | None = None,
    *, progress: Progress | None = None,
) -> Scored:  # fmt: skip
    """Score two stores of embeddings.

    Args:
        real: Of the real images.
        synthetic: Of the synthetic ones, by the same metric.
        folders: Where files go.
        options: What is written.
        progress: Told of what is done.

    Raises:
        StoreError: The stores are of two metrics, or damaged.
        UsageError: As of `score_layout`; stores hold embeddings of images as they are, so nothing can be perturbed.
    """
    options, progress = options or ScoreOptions(), progress or Silent()
    if options.perturb_seed is not None:
        raise UsageError("stores hold embeddings of images as they are: give the folder of images to perturb them")
    if (real.metric, real.dim) != (synthetic.metric, synthetic.dim):
        raise StoreError(
            f"{synthetic.path} holds embeddings of the metric {synthetic.metric['name']}, {real.path} of "
            f"{real.metric['name']} (or of another version): embed both with one metric"
        )
    for store in (real, synthetic):
        store.verify()
    job = _Job(folders, options, real.metric["name"], progress)
    with job.work({"stores": [store.manifest for store in (real, synthetic)]}):
        return job.finish((real, synthetic), _skipped_of((real, synthetic)), provider=None)


def score_embeddings(
    source: Path, folders: Folders, options: ScoreOptions, *, is_centred: bool = False, progress: Progress | None = None
) -> Scored:
    """Score a folder of embeddings, one ``.npz`` an image, such as the reference implementation leaves behind.

    Args:
        source: The folder; images called ``training`` are the real ones.
        folders: Where files go. The embeddings stay where they are.
        options: What is written; ``options.name`` is needed, since the files do not say what made them.
        is_centred: Whether scores are correlations instead of cosines.
        progress: Told of what is done.

    Raises:
        UsageError: The folder holds other files, or embeddings of several lengths; there is no name.
    """
    progress = progress or Silent()
    if options.name is None:
        raise UsageError(f"{source} does not say which metric made these embeddings: name it")
    if options.perturb_seed is not None:
        raise UsageError("embeddings are of images as they were: give the folder of images to perturb them")
    if not holds_embeddings(source):
        raise UsageError(f"{source} is no folder of embeddings, uid___name.npz and nothing else")
    job = _Job(folders, replace(options, with_embeddings=False), options.name, progress)
    with job.work({"embeddings": str(source.resolve())}) as work:
        with progress.track("embeddings", sum(1 for _ in source.iterdir())) as advance:
            for left in work.glob("*/*"):
                left.unlink()
            stores, skipped = read_embeddings(source, work, options.name, is_centred=is_centred, advance=advance)
        return job.finish(stores, skipped, provider=None, are_names=True)


def refuse_inside(listing: Listing, folders: Folders) -> None:
    """Refuse folders that the next run would take for images.

    Args:
        listing: Of the folder of images.
        folders: Where files go.

    Raises:
        UsageError: One lies among the images.
    """
    for folder in (folders.embeddings, folders.matrices, folders.indices):
        if folder.resolve().is_relative_to(listing.root):
            raise UsageError(f"{folder} lies inside the images ({listing.source}): name a folder outside")


def _skipped_of(stores: Sequence[Store]) -> dict[str, list[Skipped]]:
    return {
        name: [Skipped(**row) for row in store.skipped().to_pylist()] for name, store in zip(_SETS, stores, strict=True)
    }


class _Job:
    """One matrix and the files that go with it."""

    def __init__(self, folders: Folders, options: ScoreOptions, metric: str, progress: Progress) -> None:
        self.folders, self.options, self.progress = folders, options, progress
        self.name = options.name if options.name is not None else re.sub(r"[^A-Za-z0-9_.+-]", "-", metric)
        if not _NAME.fullmatch(self.name):
            raise UsageError(f"{self.name!r} cannot be a name of files: give one of letters, digits and . _ + -")
        self.matrix = folders.matrices / f"{self.name}.npz"
        self.indices = folders.indices / f"{self.name}.real.npz", folders.indices / f"{self.name}.synth.npz"
        self.shared = folders.indices / "real.npz", folders.indices / "synth.npz"
        self.embeddings = folders.embeddings / self.name if options.with_embeddings else None

    @contextmanager
    def work(self, facts: dict[str, Any]) -> Iterator[Path]:
        """Hold a folder for work under way beside the matrix; refuse what cannot be written before anything is done."""
        if self.embeddings is not None:
            check_replaceable(self.embeddings)
            check_writable(self.folders.embeddings)
        text = json.dumps(facts, sort_keys=True, default=str)
        for folder in (self.folders.matrices, self.folders.indices):
            check_writable(folder)
        digest = hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:16]
        with work_folder(self.matrix, digest) as work:
            yield work

    def finish(
        self, stores: tuple[Store, Store], skipped: dict[str, list[Skipped]], *, provider: str | None,
        are_names: bool = False,
    ) -> Scored:  # fmt: skip
        """Write everything."""
        self.band_rows(len(stores[1]), stores[0].dim)  # before what an earlier run wrote is touched
        names = [_names(store, are_names) for store in stores]
        if self.embeddings is not None:
            self._write_embeddings(self.embeddings, stores, names)
        # Until the new one is there, no matrix lies beside indices that are not its own.
        if not all(map(_holds, self.indices, names)):
            self.matrix.unlink(missing_ok=True)
        for path, one in zip(self.indices, names, strict=True):
            write_index(path, one)
        self._share(names)
        started = time.monotonic()
        with threadpool_limits(self.options.threads or None):
            write_matrix(
                self.matrix, (len(stores[0]), len(stores[1])), self._bands(*stores), float16=self.options.float16
            )
        seconds = round(time.monotonic() - started, 3)
        path = self.matrix.with_suffix(".skipped.csv")
        left_out = ((name, i.id, i.path, i.code, i.reason) for name, items in skipped.items() for i in items)
        write_csv(path, ("set", "id", "path", "code", "reason"), left_out)
        self._record(stores, names)
        n_skipped = [sum(item.code in COUNTED_CODES for item in skipped[name]) for name in _SETS]
        return Scored(
            self.name, self.matrix, self.indices[0], self.indices[1], self.embeddings, path, len(stores[0]),
            len(stores[1]), n_skipped[0], n_skipped[1],
            any(n > self.options.max_skipped * (n + len(one)) for n, one in zip(n_skipped, stores, strict=True)),
            provider, seconds,
        )  # fmt: skip

    def _write_embeddings(self, folder: Path, stores: Sequence[Store], names: Sequence[list[str]]) -> None:
        both = sorted(set(names[0]) & set(names[1]))
        if both:
            raise UsageError(
                f"{len(both):,} names are those of a real and of a synthetic image ({some(both)}), and all embeddings "
                "lie in one folder: rename the folders of images, or write no embeddings"
            )
        with replacing_embeddings(folder) as new, self.progress.track("embeddings", sum(map(len, stores))) as advance:
            for store, one in zip(stores, names, strict=True):
                write_embeddings(new, store, one, advance)

    def band_rows(self, n_columns: int, dim: int) -> int:
        """Return how many rows of the matrix are held at a time.

        Raises:
            MemoryLimitError: The memory limit does not hold one.
        """
        # A row of scores, its embedding in two precisions, and what a block of scores takes.
        row_bytes = 4 * n_columns + 12 * dim + 40 * _MOST_COLUMNS
        fixed = 12 * dim * _MOST_COLUMNS
        if self.options.memory_limit == 0:
            return _MOST_ROWS
        rows = min(_MOST_ROWS, (self.options.memory_limit - fixed) // row_bytes)
        if rows < 1:
            least = fixed + row_bytes
            raise MemoryLimitError(f"a memory limit of {self.options.memory_limit:,} bytes holds no row of "
                                   f"{n_columns:,} scores: give at least {least:,}", least)  # fmt: skip
        return rows

    def _bands(self, real: Store, synthetic: Store) -> Iterator[NDArray[np.float32]]:
        """Yield the rows of the matrix, some at a time."""
        n_columns = len(synthetic)
        rows = self.band_rows(n_columns, real.dim)
        with self.progress.track("pairs", len(real) * n_columns) as advance:
            for _, some_real in real.chunks(rows):
                band = np.empty((len(some_real), n_columns), np.float32)
                for first, some_synthetic in synthetic.chunks(_MOST_COLUMNS):
                    band[:, first : first + len(some_synthetic)] = score_block(some_real, some_synthetic)
                    advance(len(some_real) * len(some_synthetic))
                yield band

    def _share(self, names: Sequence[list[str]]) -> None:
        """Write the indices that all metrics of a folder share."""
        pairs = list(zip(self.shared, names, strict=True))
        changed = [path.name for path, one in pairs if path.exists() and not _holds(path, one)]
        others = sorted(path.stem for path in self.folders.matrices.glob("*.npz") if path != self.matrix)
        if changed and others:
            self.progress.status(
                f"{' and '.join(changed)} in {self.folders.indices} now describe {self.name} and no longer "
                f"{some(others, 3)}, whose images were others: each metric has its own NAME.real.npz and NAME.synth.npz"
            )
        for path, one in pairs:
            write_index(path, one)

    def _record(self, stores: tuple[Store, Store], names: Sequence[list[str]]) -> None:
        made = {name: dict(store.made_from) for name, store in zip(_SETS, stores, strict=True)}
        options = {"float16": self.options.float16, "perturb_seed": self.options.perturb_seed,
                   "perturb_both": self.options.perturb_both}  # fmt: skip
        facts = {
            "deepssim": __version__, "metric": stores[0].metric, "shape": [len(store) for store in stores],
            "options": options, "sources": [store.manifest["source"] for store in stores], "made_from": made,
        }  # fmt: skip
        write_record(self.matrix, facts, *names)


def _names(store: Store, are_names: bool) -> list[str]:
    table = store.records(["id", "path"])
    ids, paths = table["id"].to_pylist(), table["path"].to_pylist()
    return ids if are_names else identifiers(ids, paths, Path(str(store.manifest["root"])).name or "images")


def _holds(path: Path, names: list[str]) -> bool:
    """Say whether an index is there and names these images."""
    try:
        return list(read_index(path)) == names
    except UsageError:
        return False
