"""What an encoder is taught: that the cosine of two embeddings is the similarity of the two images."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["contrast", "cosine_error"]

_BINS = 10


def cosine_error(cosine: Tensor, target: Tensor, *, even_bins: bool) -> Tensor:
    """Return the mean squared error of cosines.

    Args:
        cosine: ``(p,)``.
        target: ``(p,)`` the similarity of each pair.
        even_bins: Weigh pairs by one over the number of pairs in their tenth of the similarity, so that each tenth
            that occurs counts the same.
    """
    error = (cosine - target).square()
    if not even_bins:
        return error.mean()
    place = (target * _BINS).long().clamp(0, _BINS - 1)
    counts = torch.bincount(place, minlength=_BINS).to(error.dtype)
    # A handful of pairs must not outweigh the rest.
    weights = 1.0 / counts.clamp(min=0.02 * len(target))[place]
    return (error * weights).sum() / weights.sum()


def contrast(embeddings: Tensor, people: Tensor, group_size: int, n_copies: int, temperature: float) -> Tensor:
    """Return InfoNCE over groups (van den Oord et al., arXiv 1807.03748): copies of an image find each other.

    Args:
        embeddings: ``(n, dim)`` of unit norm, groups one after the other.
        people: ``(n,)``; other images of a copy's own person are neither found nor avoided.
        group_size: Images of a group.
        n_copies: The first so many of a group are copies of one image.
        temperature: Divides the cosines.
    """
    groups = embeddings.view(-1, group_size, embeddings.shape[1])
    owners = people.view(-1, group_size)[:, 0]
    copies = groups[:, :n_copies]
    other_person = owners[:, None] != people[None, :]
    total = embeddings.new_zeros(())
    n = 0
    for a in range(n_copies):
        logits = (copies[:, a] @ embeddings.T / temperature).masked_fill(~other_person, float("-inf"))
        for b in range(n_copies):
            if a == b:
                continue
            positive = (copies[:, a] * copies[:, b]).sum(1) / temperature
            rows = torch.cat([positive[:, None], logits], 1)
            total = total + functional.cross_entropy(rows, rows.new_zeros(len(rows), dtype=torch.long))
            n += 1
    return total / n
