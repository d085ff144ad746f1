"""Write a store of unit Gaussian rows, ten to a group, to measure time and memory of ``deepssim score`` on.

python scripts/make_gaussian_store.py real.store --rows 2195 --seed 1
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from deepssim.store_build import write_store

SHARD_ROWS = 50_000
GROUP_ROWS = 10


def shards(n: int, dim: int, seed: int) -> Iterator[tuple[NDArray[np.float32], list[str], list[str | None]]]:
    """Yield rows, ids and groups of a shard at a time."""
    rng = np.random.default_rng(seed)
    for first in range(0, n, SHARD_ROWS):
        rows = rng.standard_normal((min(SHARD_ROWS, n - first), dim), dtype=np.float32)
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        numbers = range(first, first + len(rows))
        yield rows, [f"{seed}-{i}" for i in numbers], [f"g{i // GROUP_ROWS}" for i in numbers]


def main() -> None:
    """Read the command line and write the store."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("store", type=Path, help="folder to write")
    parser.add_argument("--rows", type=int, required=True)
    parser.add_argument("--dim", type=int, default=256)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    write_store(arguments.store, shards(arguments.rows, arguments.dim, arguments.seed), metric="gaussian")


if __name__ == "__main__":
    main()
