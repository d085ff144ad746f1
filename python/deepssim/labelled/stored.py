"""Scores of labelled pairs from a matrix, or from two stores of embeddings.

Only what the list names is read, and a score is the same wherever it comes from.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from deepssim.errors import StoreError, UsageError
from deepssim.images.text import one_line
from deepssim.labelled.pairs import LabelledPairs, find_keys
from deepssim.labelled.scores import PairScores, default_calibration, perturbed_condition
from deepssim.metric import Metric, installed_metrics, load_metric
from deepssim.reference import MatrixFile, read_index
from deepssim.reference.record import check_names
from deepssim.search import exact_scores
from deepssim.store import Store

__all__ = ["groups_of_store", "scores_from_matrix", "scores_from_stores"]

_BLOCK_BYTES = 2**25

Places = NDArray[np.int64]


def scores_from_matrix(
    pairs: LabelledPairs, matrix: Path, real_index: Path | None, synthetic_index: Path | None, metric: str
) -> PairScores:
    """Take the scores of pairs out of a matrix.

    Args:
        pairs: The list.
        matrix: ``.npz`` of the reference implementation (key ``data``; rows real, columns synthetic), or ``.npy``.
        real_index: What the rows are: ``.npz`` of strings (key ``data``), or the CSV that ``deepssim matrix`` writes;
            None: beside the matrix, as ``deepssim matrix`` names it.
        synthetic_index: What the columns are.
        metric: Name of the metric that made the matrix.

    Raises:
        UsageError: A file cannot be read or does not fit the others, an image is not in the indices (all are named), or
            a score is not finite.
    """
    suffix = ".npz" if matrix.suffix == ".npz" else ".csv"
    indices = (
        (real_index or matrix.with_suffix(f".real{suffix}"), pairs.real_keys, "real"),
        (synthetic_index or matrix.with_suffix(f".synthetic{suffix}"), pairs.synthetic_keys, "synthetic"),
    )
    file = MatrixFile.open(matrix)
    names = [read_index(path) for path, _, _ in indices]
    file.check(len(names[0]), len(names[1]))
    check_names(matrix, *names)
    places = [
        find_keys(keys, known, f"the {which} images of {path}")
        for known, (path, keys, which) in zip(names, indices, strict=True)
    ]
    scores = file.pick(places[0], places[1])
    odd = np.flatnonzero(~np.isfinite(scores))
    if len(odd):
        k = int(odd[0])
        raise UsageError(
            f"{matrix} has {len(odd):,} scores that are not finite among the pairs; the first is of "
            f"{one_line(pairs.real_keys[k])} and {one_line(pairs.synthetic_keys[k])}"
        )
    bundle = load_metric(metric) if metric in installed_metrics() else None
    similarity = "cosine" if bundle is None else bundle.similarity
    calibration = default_calibration(metric, bundle)
    return PairScores(metric, scores, calibration, similarity=similarity, precision=file.dtype.name)


def scores_from_stores(pairs: LabelledPairs, real: Path, synthetic: Path) -> PairScores:
    """Score pairs by the embeddings of two stores: the inner product as the search defines it.

    Args:
        pairs: The list.
        real: Store of the real images.
        synthetic: Store of the synthetic ones, of the same metric.

    Raises:
        StoreError: A store cannot be read, or they are of two metrics.
        UsageError: Images are not in the stores; all are named.
    """
    stores = Store(real), Store(synthetic)
    first, second = (one.metric for one in stores)
    if (first["name"], first["hash"], stores[0].dim) != (second["name"], second["hash"], stores[1].dim):
        raise StoreError(
            f"{synthetic} holds embeddings of the metric {second['name']}, {real} of {first['name']} (or of another "
            "version): embed both with one metric"
        )
    places = [
        np.array(find_keys(keys, ids, f"the store {store.path}", others=paths), np.int64)
        for store, keys in zip(stores, (pairs.real_keys, pairs.synthetic_keys), strict=True)
        for ids, paths in [_names_of(store)]
    ]
    out = np.empty(len(pairs), np.float64)
    order = np.lexsort((places[1], places[0]))
    step = max(1, _BLOCK_BYTES // (4 * stores[0].dim))
    for start in range(0, len(order), step):
        chosen = order[start : start + step]
        rows = [store.gather(at[chosen]) for store, at in zip(stores, places, strict=True)]
        out[chosen] = exact_scores(rows[0], rows[1])
    name, bundle = str(first["name"]), _bundle(str(first["name"]), str(first["hash"]))
    condition = _condition_of(stores, bundle)
    return PairScores(name, out, default_calibration(name, bundle), None, condition, str(first["similarity"]))


def groups_of_store(path: Path, keys: tuple[str, ...]) -> dict[str, str | None]:
    """Return the group that a store knows of each key's image.

    Raises:
        StoreError: The store cannot be read.
        UsageError: Images are not in it.
    """
    store = Store(path)
    ids, paths = _names_of(store)
    groups = store.records(["group"])["group"].to_pylist()
    places = find_keys(keys, ids, f"the store {store.path}", others=paths)
    return {key: groups[place] for key, place in zip(keys, places, strict=True)}


def _condition_of(stores: tuple[Store, Store], bundle: Metric | None) -> str:
    """Say how the images of two stores were seen, where that is not as an audit sees them."""
    perturbed = perturbed_condition(*(store.made_from.get("perturb_seed") for store in stores))
    is_plain = bundle is not None and bundle.gallery is not None and "gallery" not in stores[0].made_from
    return ", ".join(filter(None, (perturbed, "real images in one view" if is_plain else "")))


def _names_of(store: Store) -> tuple[list[str], list[str]]:
    table = store.records(["id", "path"])
    return table["id"].to_pylist(), table["path"].to_pylist()


def _bundle(name: str, digest: str) -> Metric | None:
    """Return an installed bundle, if it is the very one."""
    if name not in installed_metrics():
        return None
    metric = load_metric(name)
    return metric if metric.hash == digest else None
