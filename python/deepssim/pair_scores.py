"""Scores of labelled pairs: taken from a matrix, from two stores of embeddings, or made of the images (`pair_images`).

Only what the list names is read, and a score is the same wherever it comes from.
"""

from __future__ import annotations

import csv
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from deepssim.calibration import Calibration, Threshold, installed_calibrations, load_calibration
from deepssim.errors import MetricError, StoreError, UsageError
from deepssim.evaluate import EXACT, NEAR, UNRELATED
from deepssim.images.text import one_line
from deepssim.labelled import LabelledPairs, find_keys
from deepssim.metric import Metric, installed_metrics, load_metric
from deepssim.progress import Progress
from deepssim.search import exact_scores
from deepssim.store import Store

__all__ = [
    "PairScores",
    "default_calibration",
    "groups_of_store",
    "scores_from_images",
    "scores_from_matrix",
    "scores_from_stores",
]

_BLOCK_BYTES = 2**25

Scores = NDArray[np.float64]
Labels = NDArray[np.int64]
Places = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class PairScores:
    """Scores of pairs by one metric.

    Attributes:
        metric: Its name.
        scores: ``(n,)``, higher is closer; S1 where pairs were registered.
        calibration: Thresholds; None: none are known, and the metric labels nothing.
        detail: ``(n,)`` S2 where pairs were registered, else None.
        condition: How images were seen, where that is not as they lie; empty: as they lie.
    """

    metric: str
    scores: Scores
    calibration: Calibration | None
    detail: Scores | None = None
    condition: str = ""

    def labels(self) -> Labels:
        """Return the class that the thresholds give each pair, ``(n,)``.

        Scores are compared in float64, as they are: a score that a file rounded to float16 is compared rounded.

        Raises:
            UsageError: There are no thresholds.

        Example:
            >>> calibration = Calibration("m", Threshold(0.6, ">"), Threshold(0.85, ">"), "an example")
            >>> PairScores("m", np.array([0.6, 0.61, 0.9]), calibration).labels().tolist()
            [0, 2, 1]
        """
        if self.calibration is None:
            raise UsageError(f"the metric {self.metric} has no thresholds: give --thresholds {self.metric}=NEAR,EXACT")
        is_near = _passes(self.scores, self.calibration.near)
        if self.detail is None:
            is_exact = _passes(self.scores, self.calibration.exact)
        else:
            is_exact = is_near & _passes(self.detail, self.calibration.exact)
        return np.where(is_exact, EXACT, np.where(is_near, NEAR, UNRELATED)).astype(np.int64)


def _passes(scores: Scores, threshold: Threshold) -> NDArray[np.bool_]:
    return scores >= threshold.value if threshold.comparison == ">=" else scores > threshold.value


def default_calibration(metric: str, bundle: Metric | None = None) -> Calibration | None:
    """Return the thresholds that come with a metric, None where there are none.

    Those beside the bundle, for scores of single pairs without views; else an installed calibration of the metric's
    name; for "ssim" those of "deepssim", which imitates it.

    Args:
        metric: Name.
        bundle: Where it is at hand.

    Example:
        >>> default_calibration("verified").stage, default_calibration("ncc")
        ('verified', None)
    """
    if bundle is None and metric in installed_metrics():
        bundle = load_metric(metric)
    if bundle is not None:
        try:
            return bundle.calibration("none")
        except MetricError:
            pass
    name = "deepssim" if metric == "ssim" else metric
    return load_calibration(name) if name in installed_calibrations() else None


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
    real_index = real_index or matrix.with_suffix(f".real{suffix}")
    synthetic_index = synthetic_index or matrix.with_suffix(f".synthetic{suffix}")
    rows, row_paths = _read_index(real_index)
    columns, column_paths = _read_index(synthetic_index)
    i = np.array(find_keys(pairs.real_keys, rows, f"the real images of {real_index}", others=row_paths), np.int64)
    j = np.array(
        find_keys(pairs.synthetic_keys, columns, f"the synthetic images of {synthetic_index}", others=column_paths),
        np.int64,
    )
    scores = _pick(matrix, (len(rows), len(columns)), i, j)
    odd = np.flatnonzero(~np.isfinite(scores))
    if len(odd):
        k = int(odd[0])
        raise UsageError(
            f"{matrix} has {len(odd):,} scores that are not finite among the pairs; the first is of "
            f"{one_line(pairs.real_keys[k])} and {one_line(pairs.synthetic_keys[k])}"
        )
    return PairScores(metric, scores, default_calibration(metric))


def _read_index(path: Path) -> tuple[list[str], list[str] | None]:
    """Return ids, and paths where the index has them."""
    try:
        if path.suffix == ".csv":
            with path.open(encoding="utf-8-sig", newline="") as file:
                table = list(csv.DictReader(file))
            if table and "id" not in table[0]:
                raise UsageError(f"{path} has no column id: give the index that deepssim matrix wrote")
            ids = [row["id"].removeprefix("'") for row in table]
            return ids, [row["path"].removeprefix("'") for row in table] if table and "path" in table[0] else None
        with np.load(path, allow_pickle=False) as archive:
            names = archive["data"]
    except (OSError, ValueError, KeyError, UnicodeDecodeError, csv.Error, zipfile.BadZipFile) as error:
        what = error.strerror if isinstance(error, OSError) and error.strerror else one_line(str(error))
        raise UsageError(f"the index {path} cannot be read: {what}") from error
    if names.ndim != 1 or names.dtype.kind != "U":
        raise UsageError(f"the index {path} is no list of names: give the one that lies with the matrix")
    return [str(name) for name in names.tolist()], None


def _pick(path: Path, shape: tuple[int, int], rows: Places, columns: Places) -> Scores:
    """Return elements of a matrix, read some rows at a time."""
    out = np.empty(len(rows), np.float64)
    order = np.argsort(rows, kind="stable")
    sorted_rows = rows[order]
    for first, block in _blocks(path, shape):
        lo, hi = np.searchsorted(sorted_rows, (first, first + len(block)))
        chosen = order[lo:hi]
        out[chosen] = block[rows[chosen] - first, columns[chosen]]
    return out


def _blocks(path: Path, shape: tuple[int, int]) -> Iterator[tuple[int, NDArray[Any]]]:
    """Yield the first row of some rows of a matrix, and these rows."""
    try:
        if path.suffix != ".npz":
            with path.open("rb") as file:
                yield from _rows_of(path, file, shape)
            return
        with zipfile.ZipFile(path) as archive, archive.open("data.npy") as member:
            yield from _rows_of(path, member, shape)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        what = error.strerror if isinstance(error, OSError) and error.strerror else one_line(str(error))
        raise UsageError(f"the matrix {path} cannot be read: {what}") from error


def _rows_of(path: Path, file: IO[bytes], shape: tuple[int, int]) -> Iterator[tuple[int, NDArray[Any]]]:
    version = npy.read_magic(file)
    read_header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    found, is_fortran, dtype = read_header(file)
    if len(found) != 2 or dtype.kind != "f" or is_fortran:
        raise UsageError(f"{path} is no matrix of floating-point scores, real images by row")
    if found != shape:
        raise UsageError(
            f"{path} has {found[0]:,} x {found[1]:,} scores, its indices have {shape[0]:,} real and {shape[1]:,} "
            "synthetic images: give the indices that lie with it"
        )
    row_bytes = max(1, shape[1] * dtype.itemsize)
    step = max(1, _BLOCK_BYTES // row_bytes)
    for first in range(0, shape[0], step):
        n = min(step, shape[0] - first)
        data = file.read(n * row_bytes)
        if len(data) < n * shape[1] * dtype.itemsize:
            raise EOFError("the file ends early")
        yield first, np.frombuffer(data, dtype).reshape(n, shape[1])


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
        rows = [_gather(store, at[chosen]) for store, at in zip(stores, places, strict=True)]
        out[chosen] = exact_scores(rows[0], rows[1])
    name = str(first["name"])
    return PairScores(name, out, default_calibration(name, _bundle(name, str(first["hash"]))))


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


def _names_of(store: Store) -> tuple[list[str], list[str]]:
    table = store.records(["id", "path"])
    return table["id"].to_pylist(), table["path"].to_pylist()


def _gather(store: Store, rows: Places) -> NDArray[np.float32]:
    """Read rows of a store, ``(len(rows), dim)``; each is read once, neighbours together."""
    wanted, inverse = np.unique(rows, return_inverse=True)
    out = np.empty((len(wanted), store.dim), np.float32)
    starts = np.flatnonzero(np.diff(wanted, prepend=-2) != 1)
    for start, stop in zip(starts.tolist(), [*starts[1:].tolist(), len(wanted)], strict=True):
        store.read_rows(int(wanted[start]), out[start:stop])
    return out[inverse]


def _bundle(name: str, digest: str) -> Metric | None:
    """Return an installed bundle, if it is the very one."""
    if name not in installed_metrics():
        return None
    metric = load_metric(name)
    return metric if metric.hash == digest else None


def scores_from_images(
    pairs: LabelledPairs,
    folder: Path,
    metric: str,
    *,
    perturb_seed: int | None = None,
    perturb_both: bool = False,
    threads: int = 0,
    progress: Progress | None = None,
) -> PairScores:
    """Score pairs from their images; see `deepssim.pair_images.ImagePairs`, which several metrics share.

    Args:
        pairs: The list.
        folder: What its keys are relative to.
        metric: "ssim", "fsim", "ncc", "verified" (or "verified.brain" and so on), an installed metric, or a bundle.
        perturb_seed: Show synthetic images perturbed; None: as they are.
        perturb_both: Show real ones perturbed too.
        threads: 0: all that this process may use.
        progress: Told of what is done.

    Raises:
        UsageError: Images are not there (all are named), or cannot be read or compared; the metric is unknown.
        MetricError: A bundle cannot be read or run.
    """
    from deepssim.pair_images import ImagePairs  # it imports this module

    source = ImagePairs(
        pairs, folder, perturb_seed=perturb_seed, perturb_both=perturb_both, threads=threads, progress=progress
    )
    return source.scores(metric)
