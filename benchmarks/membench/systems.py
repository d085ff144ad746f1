"""What is compared: ways to answer, for each synthetic image, which real image it copies and how closely."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from benchmarks.membench.thresholds import exact_cut, near_cut
from benchmarks.membench.verified import S1, S2, Mask, Pixels, Table
from deepssim.embed import Encoder
from deepssim.evaluate import EXACT, NEAR, UNRELATED, best_cuts, labels_of
from deepssim.image_ops import BANK, make_views, similarity_matrix
from deepssim.metric import Metric, load_metric
from deepssim.search import Searcher

Ints = NDArray[np.int64]
Floats = NDArray[np.float32]
Scores = NDArray[np.float64]


@dataclass(frozen=True)
class Cuts:
    """Thresholds.

    Attributes:
        near: Value from which on an image is a near copy.
        exact: Value, or detail where answers have one, from which on a copy is exact.
        source: Where they come from.
    """

    near: float
    exact: float
    source: str


@dataclass(frozen=True)
class Answers:
    """What a system says of n synthetic images.

    Attributes:
        system: Its name.
        value: ``(n,)`` highest score over the base.
        detail: ``(n,)`` what tells exact from near (S2 of the pair of the highest S1); None: the value does.
        best: ``(n,)`` the real image with that score; of equal ones the first.
        candidates: ``(n, n_real)`` which real images were looked at; None: all.
    """

    system: str
    value: Scores
    detail: Scores | None
    best: Ints
    candidates: Mask | None = None

    def labels(self, cuts: Cuts) -> Ints:
        """Return the class of each image."""
        if self.detail is None:
            return labels_of(self.value, cuts.near, cuts.exact)
        copied = np.where(self.detail >= cuts.exact, EXACT, NEAR)
        return np.where(self.value >= cuts.near, copied, UNRELATED).astype(np.int64)

    def exactness(self, cuts: Cuts) -> Scores:
        """Return what tells exact copies from all other images: the value, or the detail of what is called a copy."""
        if self.detail is None:
            return self.value
        lowest = min(float(np.nanmin(self.detail)), 0.0)
        behind = self.value - float(self.value.max()) + lowest - 1  # all others, by their value
        return np.where(self.value >= cuts.near, self.detail, behind)


def from_scores(system: str, scores: NDArray[np.floating]) -> Answers:
    """Answer by scores ``(n_synthetic, n_real)``."""
    return Answers(system, scores.max(axis=1).astype(np.float64), None, scores.argmax(axis=1).astype(np.int64))


def from_evidence(system: str, evidence: Table, candidates: Mask | None = None) -> Answers:
    """Answer by evidence ``(n_synthetic, n_real, n_fields)`` of the candidates, of all where there are none named."""
    s1 = np.where(np.isnan(evidence[..., S1]), -np.inf, evidence[..., S1])
    if candidates is not None:
        s1 = np.where(candidates, s1, -np.inf)
    best = s1.argmax(axis=1).astype(np.int64)
    rows = np.arange(len(best))
    return Answers(
        system, s1[rows, best].astype(np.float64), evidence[rows, best, S2].astype(np.float64), best, candidates
    )


def choose_cuts(answers: Answers, truth: Ints, is_sibling: Mask, source: str) -> Cuts:
    """Choose cuts on answers whose truth is known; siblings have no part in it.

    One score: the two cuts with the best macro F1 (`deepssim.evaluate.best_cuts`). Evidence: `near_cut`, then
    `exact_cut` among copies, as `scripts/calibrate_verified.py` does.
    """
    if answers.detail is None:
        return Cuts(*best_cuts(answers.value[~is_sibling], truth[~is_sibling]), source)
    copies = truth != UNRELATED
    near = near_cut(answers.value[~copies & ~is_sibling], answers.value[copies])
    exact = exact_cut(answers.detail[truth == EXACT], answers.detail[truth == NEAR])
    return Cuts(near, exact, source)


def image_scores(
    kind: Literal["ssim", "fsim"], real: Sequence[Pixels], synthetic: Sequence[Pixels], *, threads: int = 0
) -> Floats:
    """Return SSIM of z-scored images, or FSIM of their bytes, as they lie; ``(n_synthetic, n_real)``."""
    a, b = np.stack(real), np.stack(synthetic)
    if kind == "fsim":
        return np.asarray(similarity_matrix("fsim", a, b, threads=threads).T, np.float32)
    return np.asarray(similarity_matrix("ssim", a, b, with_z_score=True, threads=threads).T, np.float32)


def metric_scores(
    metric: str | Metric, real: Sequence[Pixels], synthetic: Sequence[Pixels], *, threads: int = 0
) -> Floats:
    """Return the scores of a metric bundle, ``(n_synthetic, n_real)``.

    Where its embedding is itself an image (`layout`), the highest score over the views of the synthetic image.

    Args:
        metric: One, or the name of an installed one, or the path of a bundle.
        real: Images.
        synthetic: Images.
        threads: 0: all that this process may use.
    """
    metric = load_metric(metric) if isinstance(metric, str) else metric
    encoder = Encoder(metric, device="cpu", threads=threads)
    rows, queries = _embed(encoder, real, as_gallery=True), _embed(encoder, synthetic)
    if metric.layout is not None:
        return _best_of_views(rows, queries, metric.layout, real[0].shape, threads)
    found = Searcher.of(rows).search(queries, len(rows), threads=threads)
    scores = np.empty((len(queries), len(rows)), np.float32)
    np.put_along_axis(scores, found.ids, found.scores, axis=1)
    return scores


def _embed(encoder: Encoder, images: Sequence[Pixels], *, as_gallery: bool = False) -> Floats:
    encode = encoder.encode_gallery if as_gallery else encoder.encode
    rows = encode([encoder.prepare(image.astype(np.float32)) for image in images]).astype(np.float64)
    # As a store keeps them: norm 1 to the last bit; an image without structure has no neighbours.
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.ascontiguousarray(np.divide(rows, norms, out=np.zeros_like(rows), where=norms > 0), np.float32)


def _best_of_views(
    rows: Floats, queries: Floats, layout: tuple[int, int], shape: tuple[int, int], threads: int
) -> Floats:
    """Score each pair by the best of all views of the query, of every pair: what a screening finds faster."""
    # Height over width of a pixel of the layout, where this version asks for it.
    aspect = (shape[0] / layout[0]) / (shape[1] / layout[1])
    options = {"aspect": aspect} if "aspect" in inspect.signature(make_views).parameters else {}
    scores = queries @ rows.T
    with threadpool_limits(threads or None, user_api="blas"):
        for query, out in zip(queries, scores, strict=True):
            views = make_views(query.reshape(layout), BANK, **options) @ rows.T
            np.maximum(out, views.max(axis=0), out=out)
    return scores


def nearest(scores: Floats, k: int, people: NDArray[np.str_], max_per_person: int = 0) -> Mask:
    """Return which real images are the candidates of each synthetic one, as a search with a cap finds them.

    Args:
        scores: ``(n_synthetic, n_real)``.
        k: Candidates; the highest scores, of equal ones the first.
        people: ``(n_real,)`` whose images they are.
        max_per_person: At most so many of one person; 0: no cap.
    """
    owner = np.unique(people, return_inverse=True)[1]
    mask = np.zeros(scores.shape, bool)
    for row, order in zip(mask, np.argsort(-scores, axis=1, kind="stable"), strict=True):
        taken = np.zeros(owner.max(initial=0) + 1, np.int64)
        n_left = k
        for place in order.tolist():
            if n_left == 0:
                break
            if max_per_person and taken[owner[place]] == max_per_person:
                continue
            taken[owner[place]] += 1
            row[place] = True
            n_left -= 1
    return mask
