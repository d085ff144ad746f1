"""Scores of labelled pairs: taken from a matrix, from two stores of embeddings, or made of the images (`pair_images`).

Only what the list names is read, and a score is the same wherever it comes from.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from deepssim.calibration import Calibration, Threshold, installed_calibrations, load_calibration
from deepssim.errors import MetricError, StoreError, UsageError
from deepssim.evaluate import EXACT, NEAR, UNRELATED
from deepssim.images.text import one_line
from deepssim.labelled import LabelledPairs, find_keys
from deepssim.metric import Metric, installed_metrics, load_metric
from deepssim.progress import Progress
from deepssim.reference import MatrixFile, read_index
from deepssim.search import exact_scores
from deepssim.store import Store

__all__ = [
    "PairScores",
    "default_calibration",
    "groups_of_store",
    "perturbed_condition",
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
        similarity: Of the metric, one of `deepssim.metric.SIMILARITIES`; "l2" is shown as a distance.
        precision: What the scores were stored in.
    """

    metric: str
    scores: Scores
    calibration: Calibration | None
    detail: Scores | None = None
    condition: str = ""
    similarity: str = "cosine"
    precision: str = "float64"

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

    def n_on_thresholds(self) -> int:
        """Return how many scores meet a threshold exactly once it is rounded as they were, and not before.

        They are labelled by the threshold as it is. NumPy before 2 compares them so as well; NumPy 2 rounds the
        threshold first.
        """
        if self.calibration is None or self.precision == "float64":
            return 0
        rounded = [
            float(np.dtype(self.precision).type(threshold.value))
            for threshold in (self.calibration.near, self.calibration.exact)
            if float(np.dtype(self.precision).type(threshold.value)) != threshold.value
        ]
        return int(np.isin(self.scores, rounded).sum())


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
    indices = (
        (real_index or matrix.with_suffix(f".real{suffix}"), pairs.real_keys, "real"),
        (synthetic_index or matrix.with_suffix(f".synthetic{suffix}"), pairs.synthetic_keys, "synthetic"),
    )
    file = MatrixFile.open(matrix)
    names = [read_index(path) for path, _, _ in indices]
    file.check(len(names[0]), len(names[1]))
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
        rows = [_gather(store, at[chosen]) for store, at in zip(stores, places, strict=True)]
        out[chosen] = exact_scores(rows[0], rows[1])
    name, bundle = str(first["name"]), _bundle(str(first["name"]), str(first["hash"]))
    condition = _condition_of(stores, bundle)
    return PairScores(name, out, default_calibration(name, bundle), None, condition, str(first["similarity"]))


def perturbed_condition(real_seed: int | None, synthetic_seed: int | None) -> str:
    """Say which images are perturbed.

    Example:
        >>> perturbed_condition(None, None), perturbed_condition(None, 3)
        ('', 'perturbed (synthetic images, seed 3)')
    """
    if real_seed is None and synthetic_seed is None:
        return ""
    if real_seed == synthetic_seed:
        return f"perturbed (real and synthetic images, seed {real_seed})"
    sides = [f"{what} images, seed {seed}" for what, seed in (("real", real_seed), ("synthetic", synthetic_seed))
             if seed is not None]  # fmt: skip
    return f"perturbed ({', '.join(sides)})"


def _condition_of(stores: tuple[Store, Store], bundle: Metric | None) -> str:
    """Say how the images of two stores were seen, where that is not as an audit sees them."""
    perturbed = perturbed_condition(*(store.made_from.get("perturb_seed") for store in stores))
    is_plain = bundle is not None and bundle.gallery is not None and "gallery" not in stores[0].made_from
    return ", ".join(filter(None, (perturbed, "real images in one view" if is_plain else "")))


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
