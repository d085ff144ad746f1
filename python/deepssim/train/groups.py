"""Graded partners of real images, made without end, and pairs among them with their similarity.

A *group* is an anchor with what could be made of it: an exact copy, a near copy, a strongly changed one, and another
image of the same person. Groups come in *blocks*, each a pure function of a seed and its number: a run that was killed
makes the block again that it was in. Within a block groups are used several times, each time seen in other views:
making partners costs more than looking at them.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Dataset

from deepssim.image_ops import similarity_pairs
from deepssim.partners import make_partner
from deepssim.perturb import BUMP_COUNT
from deepssim.train.anchors import Anchors

__all__ = ["GROUP", "Block", "GroupOptions", "Groups", "Plan", "Step", "plan_step"]

# Images of a group: anchor, exact, near, strong, and another image of the person (or a second near copy).
GROUP = 5
N_COPIES = 3  # anchor, exact and near: what a search has to find
_NEAR_PX = (1.0, 6.0)
_STRONG_PX = (1.5, 14.0)
_CLUSTER = 4


@dataclass(frozen=True, slots=True)
class GroupOptions:
    """How many groups there are.

    Attributes:
        block_groups: Groups of a block, a multiple of those of a step.
        step_groups: Groups of a step, a multiple of four.
        repeats: How often a block is gone through.
        n_bumps: Smallest and largest number of local displacements of near and strongly changed copies.
    """

    block_groups: int = 256
    step_groups: int = 16
    repeats: int = 4
    n_bumps: tuple[int, int] = BUMP_COUNT

    @property
    def block_steps(self) -> int:
        """Steps of a block."""
        return self.block_groups // self.step_groups * self.repeats


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """Groups, four that look alike one after the other.

    Attributes:
        images: ``(n * GROUP, height, width)`` uint8.
        people: ``(n * GROUP,)``.
    """

    images: NDArray[np.uint8]
    people: NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """What one step takes of its block.

    Attributes:
        rows: ``(m,)`` places of its images in the block.
        pairs: See `Step`.
        similarity: See `Step`.
    """

    rows: NDArray[np.int64]
    pairs: NDArray[np.int64]
    similarity: NDArray[np.float32]

    def of(self, block: Block) -> Step:
        """Take it."""
        return Step(block.images[self.rows], block.people[self.rows], self.pairs, self.similarity)


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """Images of one step and how similar they are.

    Attributes:
        images: ``(m, height, width)`` uint8, not yet seen in views.
        people: ``(m,)``.
        pairs: ``(p, 2)`` places of pairs of them: all among four groups that look alike, and as many others.
        similarity: ``(p,)`` SSIM of each.
    """

    images: NDArray[np.uint8]
    people: NDArray[np.int64]
    pairs: NDArray[np.int64]
    similarity: NDArray[np.float32]


class Groups(Dataset[Block]):
    """Blocks by number.

    Args:
        anchors: What partners are made of.
        options: How many.
        seed: Of all draws.
        n_blocks: How many there are; each is as new as the first.
    """

    def __init__(self, anchors: Anchors, options: GroupOptions, seed: int, n_blocks: int) -> None:
        self.anchors, self.options, self.seed, self.n_blocks = anchors, options, seed, n_blocks

    def __len__(self) -> int:
        return self.n_blocks

    def __getitem__(self, number: int) -> Block:
        """Make a block."""
        if not 0 <= number < self.n_blocks:
            raise IndexError(number)
        rng = np.random.default_rng([self.seed, number, 0])
        images = np.empty((self.options.block_groups * GROUP, *self.anchors.size), np.uint8)
        people = np.empty(len(images), np.int64)
        for cluster in range(self.options.block_groups // _CLUSTER):
            first = int(rng.integers(len(self.anchors)))
            alike = rng.permutation(self.anchors.alike[first])[: _CLUSTER - 1].tolist()
            alike += rng.integers(len(self.anchors), size=_CLUSTER - 1 - len(alike)).tolist()
            for k, i in enumerate([first, *alike]):
                at = (cluster * _CLUSTER + k) * GROUP
                images[at : at + GROUP] = self._group(int(i), rng)
                people[at : at + GROUP] = self.anchors.people[i]
        return Block(images, people)

    def _group(self, i: int, rng: np.random.Generator) -> NDArray[np.uint8]:
        anchor = self.anchors.images[i].astype(np.float32) / np.float32(255)
        other = self.anchors.neighbour(i, rng)
        deformed = functools.partial(make_partner, anchor, "deformed", rng, n_bumps=self.options.n_bumps)
        made = [
            anchor,
            make_partner(anchor, "artefacts", rng).image,
            deformed(amplitude_px=_NEAR_PX).image,
            deformed(amplitude_px=_STRONG_PX).image,
        ]
        if other is None:
            made.append(deformed(amplitude_px=_NEAR_PX).image)
        else:
            neighbour = self.anchors.images[other].astype(np.float32) / np.float32(255)
            made.append(make_partner(anchor, "same", rng, other=neighbour).image)
        return np.stack([np.rint(image * 255).astype(np.uint8) for image in made])


def plan_step(block: Block, options: GroupOptions, seed: int, number: int, step: int, *, threads: int = 0) -> Plan:
    """Choose the images of one step of a block, and pairs of them, and compare these.

    SSIM is that of the published recipes: of the z-scored images, 7 x 7 windows, the range of the first image. Pairs
    of groups that do not look alike are nearly alike in their SSIM, so a part of them says as much as all.

    Args:
        block: What to take them from.
        options: As the block was made.
        seed: As the block was made.
        number: Of the block.
        step: 0 to ``options.block_steps - 1``.
        threads: That compare; 0: all that this process may use.
    """
    per_pass = options.block_groups // options.step_groups
    n_clusters = options.block_groups // _CLUSTER
    rng = np.random.default_rng([seed, number, 1 + step // per_pass])
    order = rng.permutation(n_clusters)
    per_step = options.step_groups // _CLUSTER
    chosen = order[step % per_pass * per_step :][:per_step]
    span = _CLUSTER * GROUP
    rows = (chosen[:, None] * span + np.arange(span)).ravel()
    images = block.images[rows]
    pairs = np.stack(np.triu_indices(len(images), 1), axis=1).astype(np.int64)
    is_alike = pairs[:, 0] // span == pairs[:, 1] // span
    others = rng.permutation(np.flatnonzero(~is_alike))[: is_alike.sum()]
    pairs = pairs[np.concatenate([np.flatnonzero(is_alike), others])]
    similarity = similarity_pairs("ssim", images, images, pairs, data_range=None, with_z_score=True, threads=threads)
    return Plan(rows, pairs, similarity.astype(np.float32))
