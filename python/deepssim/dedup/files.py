"""What a search for duplicates leaves behind: tables, a summary, and a manifest of the images that stay."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from deepssim import __version__
from deepssim.dedup.find import IMAGES_PER_CLUSTER, ITERATIONS, Duplicates
from deepssim.disk import make_private_folder, write_json
from deepssim.errors import UsageError
from deepssim.images.manifest import SUFFIXES
from deepssim.images.text import some
from deepssim.metric import l2_distance
from deepssim.store import Store
from deepssim.tables import CSV_TRIGGERS, parquet_to_csv, write_csv, write_table

__all__ = ["check_manifest", "describe", "write_dedup"]

FORMAT = "deepssim-dedup"
VERSION = 1

KEPT = pa.schema(
    [
        ("id", pa.string()),
        ("path", pa.string()),
        ("group", pa.string()),
        ("cluster", pa.int64()),
        ("centroid_cosine", pa.float32()),
        ("n_duplicates", pa.int64()),
    ]
)
DUPLICATES = pa.schema(
    [
        ("id", pa.string()),
        ("path", pa.string()),
        ("group", pa.string()),
        ("duplicate_of", pa.string()),
        ("score", pa.float32()),
        ("kept_id", pa.string()),
        ("kept_path", pa.string()),
        ("kept_score", pa.float32()),
        ("cluster", pa.int64()),
    ]
)


def describe(store: Store, found: Duplicates) -> dict[str, Any]:
    """Return what ``summary.json`` says: counts, shares by threshold, and what the clusters missed."""
    options, n = found.options, len(store)
    n_removed = int(found.is_removed.sum())
    sizes = np.bincount(found.cluster)
    kmeans = None
    if found.n_sample:
        from sklearn import __version__ as version

        kmeans = {"by": f"scikit-learn {version}, KMeans of unit vectors, centroids normalised at the end",
                  "learnt_from": found.n_sample, "most_iterations": ITERATIONS, "seed": options.seed}  # fmt: skip
    return {
        "format": FORMAT,
        "version": VERSION,
        "deepssim": __version__,
        "source": store.manifest["source"],
        "store": str(store.path),
        "metric": store.metric,
        "images": n,
        "kept": n - n_removed,
        "removed": n_removed,
        "share_removed": n_removed / n,
        "threshold": options.threshold,
        "comparison": ">",
        "epsilon": round(1 - options.threshold, 12),
        "distance": l2_distance(options.threshold) if store.metric["similarity"] == "l2" else None,
        "keep": options.keep,
        "clusters": len(sizes),
        "clusters_asked_for": options.clusters or f"one for every {IMAGES_PER_CLUSTER:,} images",
        "largest_cluster": int(sizes.max()),
        "kmeans": kmeans,
        "like_a_removed_one_alone": found.n_chained,
        "left_across_clusters": found.comparison.left if found.comparison else (0 if len(sizes) == 1 else None),
        "levels": _levels(found, n),
    }


def _levels(found: Duplicates, n: int) -> list[dict[str, Any]]:
    """Return the sensitivity to the threshold; recall where all pairs were compared."""
    rows = []
    removed, comparison = found.removed, found.comparison
    for index, level in enumerate(found.options.all_levels()):
        row: dict[str, Any] = {"threshold": level, "removed": int(removed[index]), "share": int(removed[index]) / n,
                               "pairs": int(found.pairs[index])}  # fmt: skip
        if comparison is not None:
            row |= {
                "all_removed": int(comparison.removed[index]),
                "all_pairs": int(comparison.pairs[index]),
                "recall_of_removals": _share(removed[index], comparison.removed[index]),
                "recall_of_pairs": _share(found.pairs[index], comparison.pairs[index]),
            }
        rows.append(row)
    return rows


def _share(part: np.int64, whole: np.int64) -> float | None:
    return float(part / whole) if whole else None


def check_manifest(path: Path, store: Store) -> None:
    """Refuse a manifest that could not name the images of a store.

    Raises:
        UsageError: The images lie outside its folder, or a file holds several of them.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise UsageError(f"a manifest is called NAME{' or NAME'.join(SUFFIXES)}, not {path.name}")
    root = str(store.manifest.get("root", ""))
    if not root:
        raise UsageError(f"{store.path} does not say where its images are: leave --manifest out")
    if not Path(root).is_relative_to(path.absolute().parent.resolve()):
        raise UsageError(
            f"a manifest names files under its own folder alone, and the images are in {root}: give --manifest "
            f"{Path(root) / path.name}"
        )
    paths = Counter(store.records(["path"])["path"].to_pylist())
    several = [name for name, count in paths.items() if count > 1]
    if several:
        raise UsageError(
            f"{len(several):,} files hold several images, of which a manifest cannot name some: "
            f"{some(sorted(several))}; leave --manifest out"
        )


def write_dedup(store: Store, found: Duplicates, out: Path, *, manifest: Path | None = None) -> dict[str, Any]:
    """Write ``kept`` and ``duplicates`` (``.parquet`` and ``.csv``) and ``summary.json``; returns the summary.

    Args:
        store: The images.
        found: Which of them repeat others.
        out: Folder.
        manifest: Where to list the kept images as other commands take them; see `check_manifest`.

    Raises:
        UsageError: A folder cannot be made.
    """
    make_private_folder(out)
    records = store.records(["id", "path", "group"])
    kept, removed = np.flatnonzero(~found.is_removed), np.flatnonzero(found.is_removed)
    stands_for = np.bincount(found.kept[removed], minlength=len(store))
    own = records.take(pa.array(kept))
    kept_columns = [*own.columns, found.cluster[kept], found.centrality[kept], stands_for[kept]]
    gone, earlier, instead = (
        records.take(pa.array(rows)) for rows in (removed, found.earlier[removed], found.kept[removed])
    )
    removed_columns = [
        *gone.columns, earlier["id"], found.score[removed], instead["id"], instead["path"], found.kept_score[removed],
        found.cluster[removed],
    ]  # fmt: skip
    for name, columns, schema in (("kept", kept_columns, KEPT), ("duplicates", removed_columns, DUPLICATES)):
        write_table(out / f"{name}.parquet", _table(columns, schema))
        parquet_to_csv(out / f"{name}.parquet", out / f"{name}.csv")
    if manifest is not None:
        _write_manifest(manifest, Path(str(store.manifest["root"])), own)
    summary = describe(store, found)
    write_json(out / "summary.json", summary)
    return summary


def _table(columns: Sequence[Any], schema: pa.Schema) -> pa.Table:
    arrays = [
        (c if isinstance(c, pa.ChunkedArray) else pa.array(c)).cast(f.type)
        for c, f in zip(columns, schema, strict=True)
    ]
    return pa.Table.from_arrays(arrays, schema=schema)


def _write_manifest(path: Path, root: Path, records: pa.Table) -> None:
    folder = path.absolute().parent.resolve()
    rows = []
    for image_id, name, group in zip(*(records[c].to_pylist() for c in ("id", "path", "group")), strict=True):
        relative = (root / name).relative_to(folder).as_posix()
        # A cell that a spreadsheet would take for a formula is written with a quote before it; a path cannot be.
        shown = f"./{relative}" if relative.startswith(CSV_TRIGGERS) else relative
        base_id = name if image_id.startswith(f"{name}#") else image_id
        rows.append((shown, "" if base_id == relative else base_id, group or ""))
    if path.suffix.lower() == ".csv":
        write_csv(path, ["path", "id", "group"], rows)
    else:
        columns = list(zip(*rows, strict=True)) or [(), (), ()]
        schema = pa.schema([(name, pa.string()) for name in ("path", "id", "group")])
        write_table(path, pa.Table.from_arrays([pa.array(c, pa.string()) for c in columns], schema=schema))
