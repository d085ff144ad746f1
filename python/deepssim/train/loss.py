"""What encoders are taught: that a cosine is a similarity, and that copies find each other."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["contrast", "cosine_error", "nt_xent"]

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


def nt_xent(first: Tensor, second: Tensor, temperature: float) -> Tensor:
    """Return NT-Xent (Chen et al., A simple framework for contrastive learning, ICML 2020, equation 1).

    Of all other embeddings of both sides each one is to find its partner, by their cosines.

    Args:
        first: ``(n, dim)``, of any norm.
        second: ``(n, dim)`` of their partners.
        temperature: Divides the cosines.

    Returns:
        The mean over all ``2 n``.

    Example:
        >>> rows = torch.eye(3)
        >>> round(float(nt_xent(rows, rows, 1.0)), 4)  # log(1 + 4 / e)
        0.9048
    """
    rows = functional.normalize(torch.cat([first, second]).float(), dim=1)
    logits = (rows @ rows.T / temperature).fill_diagonal_(float("-inf"))
    n = len(first)
    partners = torch.arange(2 * n, device=rows.device).roll(n)
    return functional.cross_entropy(logits, partners)
