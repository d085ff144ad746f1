"""Exact search by inner product with this package and with what others would use, behind one interface.

A peer is prepared with base rows and then searched; the two are timed apart. Each is configured as well as its
documentation and a short trial allow. The environment that a peer needs must be set before its library is
imported, which is why `benchmarks.harness` runs each peer in a process of its own.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
from typing import Any

import numpy as np

from benchmarks.data import Floats
from benchmarks.peer import Answer, Peer

# A block of scores of this size is still in the caches of all cores when the best are selected.
BLOCK_BYTES = 32 * 2**20
# As many queries as the searcher looks at when it chooses how to scan.
N_SAMPLED = 64


def block_rows(n_base: int, item_bytes: int, n_blocks: int = 1) -> int:
    """Return queries of a block such that `n_blocks` score matrices stay within `BLOCK_BYTES`."""
    return max(16, BLOCK_BYTES // (n_base * item_bytes * n_blocks))


def best_of_block(scores: np.ndarray, k: int) -> Answer:
    """Select and sort the k best of each row of a block of scores."""
    found = np.argpartition(scores, scores.shape[1] - k, axis=1)[:, -k:]
    values = np.take_along_axis(scores, found, 1)
    # Stable on sorted ids, so that ties within the selection go to the lower id.
    order = np.lexsort((found, -values), axis=1)
    return np.take_along_axis(found, order, 1), np.take_along_axis(values, order, 1)


class DeepSSIM(Peer):
    """This package: scores are exact, and so is their order."""

    def __init__(self, threads: int, options: dict[str, Any]) -> None:
        super().__init__(threads, options)
        from deepssim import search

        self.module = search
        self.isa = options.get("isa", "")
        self.n_expected, self.k = 0, 0
        self.sample: Floats | None = None

    def tune(self, base: Floats, queries: Floats, k: int) -> None:
        self.n_expected, self.k = len(queries), k
        self.sample = queries[:: max(1, len(queries) // N_SAMPLED)][:N_SAMPLED]

    def prepare(self, base: Floats) -> None:
        """Add the rows and search a sample of the queries, in which the searcher chooses how to scan.

        Without a sample known from `tune` that choice falls into the first search.
        """
        self.searcher = self.module.Searcher(base.shape[1], len(base), isa=self.isa, expected_queries=self.n_expected)
        self.searcher.add(base)
        if self.sample is not None:
            self.searcher.search(self.sample, self.k, threads=self.threads)

    def search(self, queries: Floats, k: int) -> Answer:
        self.result = self.searcher.search(queries, k, threads=self.threads)
        return self.result.ids, self.result.scores

    def describe(self) -> dict[str, Any]:
        try:
            version = importlib.metadata.version("deepssim")
        except importlib.metadata.PackageNotFoundError:
            version = "not installed, run from the source tree"
        isa = self.module.resolve_isa(self.isa)
        return {"versions": {"deepssim": version}, "isa": isa, "supported": self.module.supported_isa_levels()}

    def statistics(self) -> dict[str, Any]:
        return numbers_of(self.result)

    def peaks(self) -> dict[str, float]:
        measure = getattr(self.module, "measure_peak", None)
        if measure is None:
            return {}
        peak = measure(self.isa, threads=self.threads)
        return {"integer": peak.integer, "float32": peak.float32}


def numbers_of(result: Any) -> dict[str, Any]:
    """Return the fields of a dataclass that are numbers or text, with those of its ``statistics``, if any."""
    found: dict[str, Any] = {}
    for field in dataclasses.fields(result):
        value = getattr(result, field.name)
        if isinstance(value, int | float | str):
            found[field.name] = value
    inner = getattr(result, "statistics", None)
    if dataclasses.is_dataclass(inner):
        found |= numbers_of(inner)
    elif isinstance(inner, dict):
        found |= inner
    return found


class Torch(Peer):
    """``mm`` and ``topk`` over blocks of queries."""

    packages = ("torch",)

    def __init__(self, threads: int, options: dict[str, Any]) -> None:
        super().__init__(threads, options)
        import torch

        self.torch = torch
        torch.set_num_threads(threads)

    def prepare(self, base: Floats) -> None:
        self.base = self.torch.from_numpy(base)
        rows = block_rows(len(base), 4)
        self.scores = self.torch.empty((rows, len(base)))

    def search(self, queries: Floats, k: int) -> Answer:
        rows = len(self.scores)
        ids, scores = [], []
        with self.torch.inference_mode():
            for first in range(0, len(queries), rows):
                block = self.torch.from_numpy(queries[first : first + rows])
                product = self.torch.mm(block, self.base.T, out=self.scores[: len(block)])
                best = self.torch.topk(product, k, dim=1)
                ids.append(best.indices.numpy())
                scores.append(best.values.numpy())
        return np.concatenate(ids), np.concatenate(scores)

    def describe(self) -> dict[str, Any]:
        return super().describe() | {"capability": self.torch.backends.cpu.get_cpu_capability()}


class NumPy(Peer):
    """Matrix product and ``argpartition`` over blocks of queries, a block in each thread."""

    packages = ("numpy",)

    @classmethod
    def environment(cls, threads: int) -> dict[str, str]:
        # Blocks run side by side, selection included; a product that takes all cores would leave all but
        # one idle in the selection.
        return {"OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}

    def prepare(self, base: Floats) -> None:
        self.base = base

    def search(self, queries: Floats, k: int) -> Answer:
        rows = block_rows(len(self.base), 4, self.threads)
        return self.map_blocks(lambda block: best_of_block(block @ self.base.T, k), queries, rows)


class USearch(Peer):
    """The exhaustive search of usearch."""

    packages = ("usearch",)

    def __init__(self, threads: int, options: dict[str, Any]) -> None:
        super().__init__(threads, options)
        from usearch import index

        self.index = index

    def prepare(self, base: Floats) -> None:
        self.base = base

    def search(self, queries: Floats, k: int) -> Answer:
        found = self.index.search(
            self.base, queries, k, self.index.MetricKind.IP, exact=True, threads=self.threads, dtype="f32"
        )
        # The distance of its inner-product metric is 1 minus the product.
        return found.keys.astype(np.int64), 1 - found.distances


class NumKong(Peer):
    """The product with packed rows of NumKong, whose sums of float32 products are float64, and ``argpartition``."""

    packages = ("numkong",)

    def __init__(self, threads: int, options: dict[str, Any]) -> None:
        super().__init__(threads, options)
        import numkong

        self.numkong = numkong

    def prepare(self, base: Floats) -> None:
        self.packed = self.numkong.dots_pack(base)
        self.n_base = len(base)

    def search(self, queries: Floats, k: int) -> Answer:
        rows = block_rows(self.n_base, 8, self.threads)

        def search_block(block: Floats) -> Answer:
            return best_of_block(np.asarray(self.numkong.dots_packed(block, self.packed)), k)

        return self.map_blocks(search_block, queries, rows)

    def describe(self) -> dict[str, Any]:
        used = [name for name, has in self.numkong.get_capabilities().items() if has]
        return super().describe() | {"capabilities": used}


def make_peer(name: str, threads: int, options: dict[str, Any]) -> Peer:
    """Make a peer by its name.

    Raises:
        ImportError: Its library is not installed.
        KeyError: No peer has this name.
    """
    return peer_class(name)(threads, options)


def peer_class(name: str) -> type[Peer]:
    """Return the class of a peer, whose library is not imported yet."""
    from benchmarks.peer_faiss import Faiss, FaissAVX2

    classes: dict[str, type[Peer]] = {
        "deepssim": DeepSSIM,
        "faiss": Faiss,
        "faiss-avx2": FaissAVX2,
        "torch": Torch,
        "numpy": NumPy,
        "usearch": USearch,
        "numkong": NumKong,
    }
    # "deepssim:avx2" is deepssim with the option isa=avx2.
    return classes[name.partition(":")[0]]


PEER_NAMES = ("deepssim", "faiss", "faiss-avx2", "torch", "numpy", "usearch", "numkong")


def search_with(name: str, base: Floats, queries: Floats, k: int, threads: int) -> Answer:
    """Prepare and search with one peer in this process, with the environment as it is."""
    peer = make_peer(name, threads, {})
    peer.prepare(base)
    return peer.search(queries, k)


def package_versions() -> dict[str, str]:
    """Return the versions of all peers' packages that are installed."""
    packages = {package for name in PEER_NAMES for package in peer_class(name).packages}
    installed = {item.metadata["Name"]: item.version for item in importlib.metadata.distributions()}
    return {package: installed[package] for package in sorted(packages & installed.keys())}
