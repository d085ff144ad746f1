"""This package and its peers on small sizes, each in its own process, answers checked.

python -m pytest benchmarks/bench_peers.py

Peers that are not installed are skipped: ``pip install deepssim[peers]``. For a comparison of times use
``scripts/benchmark_core.py``, which lets peers take turns.
"""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.checks import count_wrong_scores, recall
from benchmarks.data import make
from benchmarks.harness import PeerError, Worker
from benchmarks.peers import PEER_NAMES
from deepssim.search import supported_isa_levels

THREADS = 2
# (base rows, queries, elements, k)
SIZES = [(2195, 1000, 256, 10), (8000, 500, 64, 1), (3000, 300, 96, 100)]
LEVELS = [f"deepssim:{level}" for level in supported_isa_levels()]
# float32 sums of unit rows; near-duplicates closer than this may change places.
FLOAT32_ERROR = 1e-6


@pytest.fixture(scope="module", params=[*LEVELS, *PEER_NAMES[1:]])
def worker(request):
    try:
        started = Worker(request.param, THREADS)
    except PeerError as error:
        pytest.skip(str(error))
    with started:
        yield started


@pytest.mark.parametrize("kind", ["gaussian", "anisotropic"])
@pytest.mark.parametrize(("n_base", "n_queries", "dim", "k"), SIZES)
def test_search(benchmark, worker, tmp_path, kind, n_base, n_queries, dim, k):
    base, queries = make([kind], n_base, n_queries, dim)
    paths = {"base": tmp_path / "base.npy", "queries": tmp_path / "queries.npy"}
    np.save(paths["base"], base)
    np.save(paths["queries"], queries)
    worker.call("load", **{name: str(path) for name, path in paths.items()})
    worker.call("tune", k=k)
    saved = tmp_path / "answer.npz"
    worker.call("measure", k=k, save=str(saved))
    last = benchmark.pedantic(worker.call, args=("measure",), kwargs={"k": k}, rounds=3)
    benchmark.extra_info |= {"last_round": last, "description": worker.call("describe")}

    with np.load(saved) as answer:
        ids, scores = answer["ids"], answer["scores"]
    assert ids.shape == scores.shape == (n_queries, k)
    assert (np.diff(scores, axis=1) <= 0).all()
    if worker.name.startswith("deepssim"):
        assert recall(ids, base, queries, k, tolerance=1e-7) == 1
        assert count_wrong_scores((ids, scores), base, queries) == 0
    else:
        assert recall(ids, base, queries, k, tolerance=FLOAT32_ERROR) == 1
