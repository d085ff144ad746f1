"""Making stores: from a listing of images, resumable, or from embeddings that were made elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.lib import format as npy
from numpy.typing import NDArray

from deepssim.disk import LOCK, locked, make_private_folder, remove_leftovers, replacing, write_json
from deepssim.embed import Encoder
from deepssim.embed_stream import EmbeddedChunk, Record, embed_listing
from deepssim.errors import StoreError, UsageError
from deepssim.images import READER_VERSION, Listing, Skipped, decoder_versions, listing_digest
from deepssim.store import (
    FORMAT,
    MANIFEST,
    OWN_FILE,
    SKIPPED,
    SKIPPED_SCHEMA,
    VERSION,
    Shard,
    Store,
    file_digest,
    record_table,
    skipped_table,
    table_of_shards,
)
from deepssim.tables import write_table
from deepssim.working import WORKING_RULE, Working, write_working


def _new_manifest(metric: dict[str, str], made_from: dict[str, Any], *, source: str, root: str) -> dict[str, Any]:
    """Return the manifest of a store without shards."""
    return {
        "format": FORMAT,
        "version": VERSION,
        "complete": False,
        "dim": 0,
        "count": 0,
        "metric": metric,
        "made_from": made_from,
        "source": source,
        "root": root,
        "shards": [],
    }


def _add_shard(
    path: Path,
    manifest: dict[str, Any],
    shard: Shard,
    embeddings: NDArray[np.float32],
    records: list[Record],
    working: list[Working] | None = None,
) -> None:
    """Write the files of a shard and enter it in a manifest, which the caller writes."""
    with replacing(path / shard.embeddings) as temporary, temporary.open("wb") as file:
        npy.write_array(file, np.ascontiguousarray(embeddings, "<f4"), version=(1, 0), allow_pickle=False)
    write_table(path / shard.ids, record_table(records, shard.first_row))
    entry = {
        "embeddings": shard.embeddings,
        "embeddings_sha256": file_digest(path / shard.embeddings),
        "ids": shard.ids,
        "ids_sha256": file_digest(path / shard.ids),
        "rows": shard.rows,
        "next_task": shard.next_task,
    }
    if working is not None:
        write_working(path / shard.working, working)
        entry |= {"working": shard.working, "working_sha256": file_digest(path / shard.working)}
    manifest["shards"].append(entry)
    manifest["count"] += shard.rows


def identity(
    listing: Listing, digest: str, encoder: Encoder, *, with_working: bool, as_gallery: bool,
    perturb_seed: int | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Return what a store is made from: if any of it differs, a store is stale.

    Working images that are there and not asked for make none stale.
    """
    views = encoder.metric.gallery if as_gallery else None
    return {
        **({"gallery": views.as_metadata()} if views is not None else {}),
        **({"perturb_seed": perturb_seed} if perturb_seed is not None else {}),
        "images_digest": digest,
        "options": {"slices": listing.options.slices, "axis": listing.options.axis},
        "group_by": listing.options.group_by,
        "max_pixels": listing.options.max_pixels,
        "reader": {"version": READER_VERSION, **decoder_versions()},
        "metric_hash": encoder.metric.hash,
        "onnxruntime": encoder.runtime_version,
        "provider": encoder.provider,
        "working": WORKING_RULE if with_working else "",
    }


class _Builder:
    """Adds whole shards to a folder, each followed by the manifest that names it."""

    def __init__(self, path: Path, made_from: dict[str, Any], listing: Listing, encoder: Encoder) -> None:
        metric = encoder.metric
        self.path = path
        self.manifest = _new_manifest(
            {"name": metric.name, "hash": metric.hash, "similarity": metric.similarity},
            made_from,
            source=listing.source,
            root=str(listing.root),
        )
        self.manifest["dim"] = metric.dim

    def resume(self, earlier: Store) -> int:
        """Take over the shards of an earlier run; returns the task to go on with."""
        self.manifest["shards"] = earlier.manifest["shards"]
        self.manifest["count"] = earlier.manifest["count"]
        return earlier.shards[-1].next_task if earlier.shards else 0

    def add(self, chunk: EmbeddedChunk) -> None:
        """Write a shard and then the manifest."""
        shard = Shard(len(self.manifest["shards"]), self.manifest["count"], len(chunk.records), chunk.next_task)
        write_table(self.path / shard.skipped, skipped_table(chunk.skipped))
        working = chunk.working if self.manifest["made_from"]["working"] else None
        _add_shard(self.path, self.manifest, shard, chunk.embeddings, chunk.records, working)
        write_json(self.path / MANIFEST, self.manifest)

    def finish(self, ignored: list[Skipped]) -> Store:
        """Join the tables of skipped images and mark the store complete."""
        shards = table_of_shards(self.manifest)
        parts = [skipped_table(ignored)] + [pq.read_table(self.path / s.skipped) for s in shards]
        write_table(self.path / SKIPPED, pa.concat_tables(parts))
        write_json(self.path / MANIFEST, {**self.manifest, "complete": True})
        for shard in shards:
            (self.path / shard.skipped).unlink(missing_ok=True)
        return Store(self.path)


def write_store(
    path: Path,
    chunks: Iterable[tuple[NDArray[np.float32], Sequence[str], Sequence[str | None] | None]],
    *,
    metric: str,
    metric_hash: str = "",
) -> Store:
    """Write embeddings that were made elsewhere as a store, a shard for each chunk.

    Args:
        path: A new or empty folder.
        chunks: (embeddings ``(n, dim)`` float32, ids, groups or None) in order; ids must differ.
        metric: Name of what made them; two stores are compared only if name and hash agree.
        metric_hash: Hash of what made them.

    Raises:
        UsageError: The folder is not empty, there is no row, or shapes disagree.
    """
    path = make_private_folder(path.absolute())
    if any(path.iterdir()):
        raise UsageError(f"{path} is not empty: name a new folder for the store")
    described = {"name": metric, "hash": metric_hash, "similarity": "cosine"}
    manifest = _new_manifest(described, {"embeddings": "given"}, source=str(path), root="")
    for index, (embeddings, ids, groups) in enumerate(chunks):
        known = groups if groups is not None else [None] * len(ids)
        if embeddings.ndim != 2 or not len(embeddings) == len(ids) == len(known):
            raise UsageError(f"chunk {index} has {embeddings.shape} embeddings, {len(ids)} ids, {len(known)} groups")
        if manifest["dim"] not in (0, embeddings.shape[1]):
            raise UsageError(f"chunk {index} has rows of {embeddings.shape[1]} elements, not {manifest['dim']}")
        manifest["dim"] = int(embeddings.shape[1])
        shard = Shard(index, manifest["count"], len(ids), index + 1)
        records = [Record(i, i, group, 0, 0, "") for i, group in zip(ids, known, strict=True)]
        _add_shard(path, manifest, shard, embeddings, records)
    if manifest["count"] == 0:
        raise UsageError("there are no embeddings to write")
    write_table(path / SKIPPED, SKIPPED_SCHEMA.empty_table())
    write_json(path / MANIFEST, {**manifest, "complete": True})
    return Store(path)


def _clear(path: Path) -> None:
    """Empty a folder that holds nothing but a store; anything else in it is a reason to refuse."""
    strangers = [entry.name for entry in path.iterdir() if not OWN_FILE.fullmatch(entry.name) or entry.is_dir()]
    if strangers:
        raise UsageError(f"{path} holds other files ({strangers[0]}): name an empty or a new folder for the store")
    (path / MANIFEST).unlink(missing_ok=True)
    for entry in path.iterdir():
        if entry.name != LOCK:
            entry.unlink()


def build_store(
    listing: Listing,
    encoder: Encoder,
    path: Path,
    *,
    shard_rows: int = 4096,
    with_working: bool = False,
    as_gallery: bool = False,
    perturb_seed: int | None = None,
    threads: int | None = None,
    progress: Callable[[int], None] | None = None,
    status: Callable[[str], None] | None = None,
) -> Store:
    """Embed a listing into a store, or reuse or continue the one that is there.

    Whether a store is stale is decided by the bytes of all files, not by their times.

    Args:
        listing: The images.
        encoder: The metric.
        path: Folder of the store.
        shard_rows: A shard ends with the read task that reaches so many rows.
        with_working: Keep working images too, so that pairs can be verified in image space.
        as_gallery: These are real images, to be searched: embed them in the views of the metric, if it has any.
        perturb_seed: Show images perturbed, by draws of this seed (`deepssim.perturbed`); None: as they are.
        threads: Threads that decode.
        progress: Called with the number of images done since the last call.
        status: Told in a line what is done with a store that is there.

    Raises:
        UsageError: The folder holds other files, or no image could be used.
    """
    say = status if status is not None else (lambda _: None)
    path = path.absolute()
    source = Path(listing.source)
    if source.is_dir() and path.resolve().is_relative_to(source.resolve()):
        raise UsageError(f"{path} lies inside the images ({listing.source}): name a folder outside for the store")
    with locked(make_private_folder(path)):
        return _build(
            listing, encoder, path, shard_rows, with_working, as_gallery, perturb_seed, threads, progress, say
        )


def _build(
    listing: Listing,
    encoder: Encoder,
    path: Path,
    shard_rows: int,
    with_working: bool,
    as_gallery: bool,
    perturb_seed: int | None,
    threads: int | None,
    progress: Callable[[int], None] | None,
    say: Callable[[str], None],
) -> Store:
    remove_leftovers(path)
    made_from = identity(
        listing, listing_digest(listing, threads=threads), encoder, with_working=with_working, as_gallery=as_gallery,
        perturb_seed=perturb_seed,
    )  # fmt: skip
    builder = _Builder(path, made_from, listing, encoder)
    first_task = 0
    if Store.is_store(path):
        try:
            earlier = Store(path, allow_incomplete=True)
            if earlier.manifest.get("root") != str(listing.root):
                raise UsageError(
                    f"{path} holds embeddings of other images ({earlier.manifest.get('source')}): name another folder, "
                    "or delete it"
                )
            wanted = made_from if with_working else {**made_from, "working": earlier.made_from.get("working", "")}
            is_fresh = earlier.made_from == wanted
            if is_fresh:
                earlier.verify()
            if is_fresh and earlier.is_complete:
                say(f"reusing {path}: {len(earlier):,} embeddings of the same images and metric")
                return earlier
            if is_fresh:
                builder.manifest["made_from"] = wanted
                first_task = builder.resume(earlier)
                say(f"continuing {path} after {len(earlier):,} embeddings")
            else:
                say(f"rebuilding {path}: its images, reader or metric changed")
        except StoreError as error:
            say(f"rebuilding {path}: {error}")
    if first_task == 0:
        builder.manifest.update(shards=[], count=0)
        _clear(path)
    for chunk in embed_listing(
        listing,
        encoder,
        first_task=first_task,
        chunk_rows=shard_rows,
        with_working=bool(builder.manifest["made_from"]["working"]),
        as_gallery=as_gallery,
        perturb_seed=perturb_seed,
        threads=threads,
        progress=progress,
    ):
        builder.add(chunk)
    store = builder.finish(list(listing.ignored))
    if len(store) == 0:
        raise UsageError(f"no image of {listing.source} can be used; the reasons are in {path / SKIPPED}")
    return store
