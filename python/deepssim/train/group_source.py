"""Batches of graded partners, made and compared by worker processes while the network learns."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch.utils.data import DataLoader, Dataset, get_worker_info

from deepssim.search import usable_processors
from deepssim.train.anchors import Anchors
from deepssim.train.groups import GROUP, N_COPIES, Block, GroupOptions, Groups, Plan, Step, plan_step
from deepssim.train.similarity import Batch

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
        self._groups = Groups(anchors, options, seed, -(-n_steps // options.block_steps))
        self._n_steps, self._workers = n_steps, workers

    def steps(self, first: int) -> Iterator[Batch]:
        """Yield the batches from a step on."""
        loader: DataLoader[_Planned] = DataLoader(
            _PlannedBlocks(self._groups, first, self._n_steps),
            batch_size=None,
            num_workers=self._workers,
            prefetch_factor=1 if self._workers else None,
            generator=torch.Generator(),  # else it draws from the global one
        )
        for planned in loader:
            for plan in planned.plans:
                yield _batch(plan.of(planned.block))


@dataclass(frozen=True, slots=True, eq=False)
class _Planned:
    block: Block
    plans: list[Plan]


class _PlannedBlocks(Dataset[_Planned]):
    """Blocks, each with its steps from the first that is wanted to the last.

    Pairs are compared here and not where the network learns: a GPU would wait for it at every step.
    """

    def __init__(self, groups: Groups, first: int, n_steps: int) -> None:
        self.groups, self.first, self.n_steps = groups, first, n_steps

    def __len__(self) -> int:
        return max(0, len(self.groups) - self.first // self.groups.options.block_steps)

    def __getitem__(self, place: int) -> _Planned:
        if not 0 <= place < len(self):
            raise IndexError(place)
        options, seed = self.groups.options, self.groups.seed
        number = self.first // options.block_steps + place
        began = number * options.block_steps
        steps = range(max(self.first, began) - began, min(self.n_steps - began, options.block_steps))
        block, threads = self.groups[number], _threads()
        return _Planned(block, [plan_step(block, options, seed, number, step, threads=threads) for step in steps])


def _threads() -> int:
    """Return how many threads compare: of a worker its share, so that the training process keeps one of its own."""
    worker = get_worker_info()
    return 0 if worker is None else max(1, usable_processors() // (worker.num_workers + 1))


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
