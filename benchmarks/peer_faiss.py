"""FAISS ``IndexFlatIP``, configured as well as a short trial can.

Four things decide its speed. (1) Its bundled OpenBLAS chooses kernels by the processor's model number; one that
it does not know can get kernels of 2004, several times slower, and so does a name in ``OPENBLAS_CORETYPE`` that this
build lacks. The variable is read at import, so each candidate is tried in a process of its own. (2) The block sizes
of its matrix product. (3) Whether one search uses all threads inside the product, or each thread searches its
own slice of the queries with a product of one thread. (4) The level of its own kernels, ``FAISS_SIMD_LEVEL``
(``FAISS_OPT_LEVEL`` in wheels with one library for each level).
"""

from __future__ import annotations

import ctypes
import itertools
import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.data import Floats, gaussian
from benchmarks.peer import Answer, Peer

# Empty: not set, which lets OpenBLAS choose. A variable set to nothing is a name that it does not know.
CORE_TYPES = ("", "SAPPHIRERAPIDS", "COOPERLAKE", "SKYLAKEX", "ZEN", "HASWELL")
ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Configuration:
    """How a search is cut.

    Attributes:
        is_sliced: Whether each thread searches its own slices of the queries.
        query_rows: Queries of a block, and of a slice.
        base_rows: Base rows of a block.
    """

    is_sliced: bool
    query_rows: int
    base_rows: int


CONFIGURATIONS = [
    *(Configuration(False, *sizes) for sizes in itertools.product((1024, 4096), (1024, 4096))),
    *(Configuration(True, *sizes) for sizes in itertools.product((256, 512, 1024), (256, 1024, 4096))),
]


class Faiss(Peer):
    """``IndexFlatIP`` at the best level that runs here."""

    packages = ("faiss-cpu",)
    core_types: tuple[str, ...] = CORE_TYPES
    level = ""

    def __init__(self, threads: int, options: dict[str, Any]) -> None:
        super().__init__(threads, options)
        import faiss

        self.faiss = faiss
        self.configuration = Configuration(True, 512, 1024)
        # OpenMP keeps the number of threads for each calling thread.
        faiss.omp_set_num_threads(threads)
        self.pool = ThreadPoolExecutor(threads, initializer=faiss.omp_set_num_threads, initargs=(1,))

    @classmethod
    def environment(cls, threads: int) -> dict[str, str]:
        variables = {"OMP_NUM_THREADS": str(threads)} | cls.level_variables()
        trial = core_type_trial(cls, threads)
        # Empty where none ran, as without FAISS.
        core_type = min(trial, key=lambda key: trial[key]) if trial else ""
        variables["BENCHMARK_CORE_TYPES"] = json.dumps(trial)
        return variables | ({"OPENBLAS_CORETYPE": core_type} if core_type else {})

    @classmethod
    def level_variables(cls) -> dict[str, str]:
        return {"FAISS_OPT_LEVEL": cls.level, "FAISS_SIMD_LEVEL": cls.level} if cls.level else {}

    def tune(self, base: Floats, queries: Floats, k: int) -> None:
        """Keep the fastest of `CONFIGURATIONS`: all twice, then the best four three times more.

        The minimum counts: other work on the machine only ever adds time.
        """
        sample = queries[: 2048 * self.threads]
        self.prepare(base[:16384])
        times: dict[Configuration, float] = dict.fromkeys(CONFIGURATIONS, float("inf"))
        k = min(k, self.index.ntotal)
        for n_kept, rounds in ((len(times), 2), (4, 3)):
            kept = sorted(times, key=lambda key: times[key])[:n_kept]
            for _, self.configuration in itertools.product(range(rounds), kept):
                start = time.perf_counter()
                self.search(sample, k)
                times[self.configuration] = min(times[self.configuration], time.perf_counter() - start)
        self.configuration = min(times, key=lambda key: times[key])
        pairs = len(sample) * self.index.ntotal
        self.trial = {
            f"{'slices' if key.is_sliced else 'whole'} {key.query_rows}x{key.base_rows}": round(
                pairs * base.shape[1] / seconds / 1e9, 1
            )
            for key, seconds in times.items()
        }

    def prepare(self, base: Floats) -> None:
        self.index = self.faiss.IndexFlatIP(base.shape[1])
        self.index.add(base)

    def search(self, queries: Floats, k: int) -> Answer:
        rows = self.configuration.query_rows
        self.faiss.cvar.distance_compute_blas_threshold = 1
        self.faiss.cvar.distance_compute_blas_query_bs = rows
        self.faiss.cvar.distance_compute_blas_database_bs = self.configuration.base_rows
        if not self.configuration.is_sliced:
            scores, ids = self.index.search(queries, k)
            return ids, scores
        slices = [queries[first : first + rows] for first in range(0, len(queries), rows)]
        found = list(self.pool.map(lambda part: self.index.search(part, k), slices))
        return np.concatenate([ids for _, ids in found]), np.concatenate([scores for scores, _ in found])

    def describe(self) -> dict[str, Any]:
        config = getattr(self.faiss, "SIMDConfig", None)
        level = config.get_level_name() if config else self.faiss.get_compile_options()
        return super().describe() | {
            "simd_level": level,
            "openblas": openblas_core(),
            "openblas_coretype": os.environ.get("OPENBLAS_CORETYPE", "not set"),
            "configuration": asdict(self.configuration),
            "trial_gmac_per_second": getattr(self, "trial", {}),
            "core_type_trial_seconds": json.loads(os.environ.get("BENCHMARK_CORE_TYPES", "{}")),
        }


class FaissAVX2(Faiss):
    """The same with AVX2 kernels only, for comparison on processors that have no more."""

    core_types = ("HASWELL", "ZEN")
    level = "AVX2"


def openblas_core() -> str:
    """Return the name of the kernels that FAISS's own OpenBLAS runs, as that library gives it."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        path = line.split()[-1]
        if "openblas" in path and "faiss" in path:
            library = ctypes.CDLL(path)
            library.openblas_get_config.restype = ctypes.c_char_p
            return str(library.openblas_get_config(), "ascii")
    return "unknown"


@cache
def core_type_trial(peer: type[Faiss], threads: int) -> dict[str, float]:
    """Return seconds of a short search for each core type; types that do not run here are left out."""
    times: dict[str, float] = {}
    for core_type in peer.core_types * 2:
        variables = {"OMP_NUM_THREADS": str(threads)} | peer.level_variables()
        if core_type:
            variables["OPENBLAS_CORETYPE"] = core_type
        command = [sys.executable, "-m", "benchmarks.peer_faiss", peer.__name__, str(threads)]
        inherited = {key: value for key, value in os.environ.items() if key != "OPENBLAS_CORETYPE"}
        found = subprocess.run(
            command, cwd=ROOT, env=inherited | variables, capture_output=True, text=True, check=False, timeout=120
        )
        if found.returncode == 0:
            seconds = float(found.stdout.split()[-1])
            times[core_type] = min(seconds, times.get(core_type, seconds))
    return times


def main() -> None:
    """Print the seconds of a short search in this process's environment, best of three."""
    name, threads = sys.argv[1], int(sys.argv[2])
    peer = {"Faiss": Faiss, "FaissAVX2": FaissAVX2}[name](threads, {})
    peer.prepare(gaussian(8192, 256, 0))
    queries = gaussian(1024 * threads, 256, 1)
    times = []
    for _ in range(4):
        start = time.perf_counter()
        peer.search(queries, 10)
        times.append(time.perf_counter() - start)
    sys.stdout.write(f"{min(times):.6f}\n")


if __name__ == "__main__":
    main()
