"""Batches of graded partners, made by worker processes while the network learns."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch.utils.data import DataLoader, Subset

from deepssim.train.anchors import Anchors
from deepssim.train.groups import GROUP, N_COPIES, Block, GroupOptions, Groups, Step, draw_step
from deepssim.train.loop import Batch

__all__ = ["GroupSource"]


class GroupSource:
    """A `deepssim.train.loop.Source` of groups.

    Args:
        anchors: What partners are made of.
        options: How many.
        seed: Of all draws; another one for each process.
        n_steps: After which it ends.
        workers: Processes that make blocks; 0: none but this one.
    """

    def __init__(self, anchors: Anchors, options: GroupOptions, seed: int, n_steps: int, workers: int = 1) -> None:
        n_blocks = -(-n_steps // options.block_steps)
        self._groups = Groups(anchors, options, seed, n_blocks)
        self._workers = workers

    def steps(self, first: int) -> Iterator[Batch]:
        """Yield the batches from a step on."""
        options, seed = self._groups.options, self._groups.seed
        block_steps = options.block_steps
        rest = Subset(self._groups, range(first // block_steps, len(self._groups)))
        loader: DataLoader[Block] = DataLoader(
            rest,
            batch_size=None,
            num_workers=self._workers,
            prefetch_factor=1 if self._workers else None,
            generator=torch.Generator(),  # else it draws from the global one, which a resumed run has restored
        )
        for number, block in enumerate(loader, first // block_steps):
            for step in range(first % block_steps if number == first // block_steps else 0, block_steps):
                yield _batch(draw_step(block, options, seed, number, step))


def _batch(step: Step) -> Batch:
    pairs = torch.from_numpy(step.pairs)
    return Batch(
        torch.from_numpy(step.images).float().div_(255)[:, None],
        pairs[:, 0],
        pairs[:, 1],
        torch.from_numpy(step.similarity),
        torch.from_numpy(step.people),
        GROUP,
        N_COPIES,
    )
