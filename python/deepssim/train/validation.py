"""How good an encoder is, on people who are not trained on: does it find the source, does its cosine mean SSIM?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from deepssim.image_ops import resize_area, similarity_pairs
from deepssim.perturb import ViewKind, apply_view, degrade, draw_view, near_copy
from deepssim.train.anchors import Anchors
from deepssim.train.groups import GroupOptions, Groups

__all__ = ["RetrievalValidation", "embed", "ranks"]

_BATCH = 128
_HARD_PX = (1.5, 5.0)
# More make looks slower than training, and the search hardly harder.
_MOST_DISTRACTORS = 4_000


@torch.no_grad()
def embed(encoder: nn.Module, images: Tensor, device: torch.device, **asked: Any) -> NDArray[np.float32]:
    """Embed images in batches, in evaluation mode.

    Args:
        encoder: Left in the mode that it was in.
        images: ``(n, 1, height, width)``, uint8 or of [0, 1].
        device: Where the encoder is.
        asked: More for its call.

    Returns:
        ``(n, dim)``.
    """
    was_training = encoder.training
    encoder.eval()
    batches = (_greys(images[i : i + _BATCH]).to(device) for i in range(0, len(images), _BATCH))
    parts = [encoder(batch, **asked).float().cpu() for batch in batches]
    encoder.train(was_training)
    return torch.cat(parts).numpy()


def _greys(images: Tensor) -> Tensor:
    return images.float().div_(255) if images.dtype == torch.uint8 else images


def ranks(scores: NDArray[np.float32], own: NDArray[np.float32]) -> NDArray[np.int64]:
    """Return how many scores are above each row's own; what is no number is never found.

    Args:
        scores: ``(n, m)``.
        own: ``(n,)``.

    Example:
        >>> ranks(np.array([[0.9, 0.5], [np.nan, 0.5], [0.1, 0.2]], np.float32), np.array([0.5, 0.5, np.nan], "f"))[:2]
        array([1, 1])
    """
    ahead = ~(scores <= own[:, None])
    rank = np.asarray(ahead.sum(axis=1), np.int64)
    rank[~np.isfinite(own)] = np.iinfo(np.int64).max
    return rank


@dataclass(frozen=True, slots=True, eq=False)
class RetrievalValidation:
    """A `deepssim.train.loop.Validation`: copies in views against a gallery, and pairs of every similarity.

    Attributes:
        gallery: ``(g, 1, height, width)`` clean images, like all images here uint8 (see `embed`).
        queries: ``(q, 1, height, width)`` copies as they are seen.
        sources: ``(q,)`` place of each one's source in the gallery.
        is_near: ``(q,)`` whether it is a near copy.
        graded: ``(v, 1, height, width)`` images of groups, as they lie.
        pairs: ``(p, 2)`` pairs of them, about as many in each tenth of the similarity.
        target: ``(p,)`` their SSIM.
    """

    gallery: Tensor
    queries: Tensor
    sources: NDArray[np.int64]
    is_near: NDArray[np.bool_]
    graded: Tensor
    pairs: NDArray[np.int64]
    target: NDArray[np.float32]

    @classmethod
    def of(
        cls,
        anchors: Anchors,
        distractors: Anchors | None,
        size: tuple[int, int],
        *,
        seed: int = 0,
        n_sources: int = 200,
        view: ViewKind = "hard",
    ) -> RetrievalValidation:
        """Make the set.

        Args:
            anchors: Images of people who are not trained on.
            distractors: Others, which join the gallery; of more than 4,000, as many spread over all.
            size: Rows and columns of the encoder's input.
            seed: Of the copies.
            n_sources: Images that copies are made of, at most; spread over all.
            view: Condition of the benchmark under which copies are seen.
        """
        rng = np.random.default_rng([seed, 20])
        chosen = np.unique(np.linspace(0, len(anchors) - 1, min(n_sources, len(anchors))).astype(int))
        queries, sources, is_near = [], [], []
        for place, i in enumerate(chosen.tolist()):
            image = anchors.images[i].astype(np.float32) / np.float32(255)
            for near in (False, True):
                copy = near_copy(image, rng, amplitude_px=_HARD_PX) if near else degrade(image, rng)
                queries.append(_seen(copy, view, rng))
                sources.append(place)
                is_near.append(near)
        gallery = [anchors.images[chosen]]
        if distractors is not None:
            n_others = min(_MOST_DISTRACTORS, len(distractors))
            gallery.append(distractors.images[np.linspace(0, len(distractors) - 1, n_others).astype(int)])
        graded, pairs, target = _even_pairs(anchors, seed, rng)
        return cls(
            _inputs(np.concatenate(gallery), size),
            _inputs(np.stack(queries), size),
            np.array(sources),
            np.array(is_near),
            _inputs(graded, size),
            pairs,
            target,
        )

    def measure(self, encoder: nn.Module, device: torch.device) -> dict[str, float]:
        """Return rank-1, among the 4 and 8 nearest, of exact and near copies; MAE; and what selects."""
        gallery, queries = embed(encoder, self.gallery, device), embed(encoder, self.queries, device)
        scores = queries @ gallery.T
        rank = ranks(scores, scores[np.arange(len(queries)), self.sources])
        figures = {}
        for name, chosen in (("exact", ~self.is_near), ("near", self.is_near)):
            for k in (1, 4, 8):
                figures[f"{name}_in_{k}"] = float(np.mean(rank[chosen] < k))
        target, cosine = self.predictions(encoder, device)
        figures["mae"] = float(np.abs(cosine - target).mean())
        found = np.mean([figures["exact_in_1"], figures["near_in_1"], figures["exact_in_8"], figures["near_in_8"]])
        figures["selection"] = figures["mae"] + 1.0 - float(found)
        return figures

    def predictions(self, encoder: nn.Module, device: torch.device) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return similarity and cosine of the pairs."""
        rows = embed(encoder, self.graded, device)
        return self.target, (rows[self.pairs[:, 0]] * rows[self.pairs[:, 1]]).sum(axis=1)


def _inputs(images: NDArray[np.uint8], size: tuple[int, int]) -> Tensor:
    if images.shape[1:] == size:
        return torch.from_numpy(images)[:, None]
    greys = [image.astype(np.float32) / np.float32(255) for image in images]
    return torch.from_numpy(np.stack([resize_area(grey, *size) for grey in greys]))[:, None]


def _seen(image: NDArray[np.float32], view: ViewKind, rng: np.random.Generator) -> NDArray[np.uint8]:
    seen = apply_view(image, draw_view(rng, view, size=(image.shape[0], image.shape[1])))
    return np.asarray(np.rint(seen * 255), np.uint8)


def _even_pairs(
    anchors: Anchors, seed: int, rng: np.random.Generator, n_groups: int = 64, per_bin: int = 200
) -> tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.float32]]:
    block = Groups(anchors, GroupOptions(block_groups=n_groups), seed, 1)[0]
    n = len(block.images)
    left, right = np.triu_indices(n, 1)
    pairs = np.stack([left, right], axis=1).astype(np.int64)
    pairs = np.concatenate([pairs[right // 20 == left // 20], pairs[rng.permutation(len(pairs))[:20_000]]])
    target = similarity_pairs("ssim", block.images, block.images, pairs, data_range=None, with_z_score=True)
    place = np.clip((target * 10).astype(int), 0, 9)
    kept = np.concatenate([rng.permutation(np.flatnonzero(place == k))[:per_bin] for k in range(10)])
    return block.images, pairs[kept], target[kept].astype(np.float32)
