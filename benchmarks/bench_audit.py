"""A whole audit of a stack of images against a folder, with tables but without the report.

python -m pytest benchmarks/bench_audit.py
"""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from deepssim.audit import AuditOptions, audit
from deepssim.matching import MatchOptions
from deepssim.phantom import make_cohort

N_REAL, N_SYNTHETIC = 200, 4000
# (views, images): each image of the bank is thousands of queries.
CASES = (("none", N_SYNTHETIC), ("bank", 64))


@pytest.fixture(scope="module")
def stacks(tmp_path_factory, part):
    root = tmp_path_factory.mktemp("stacks")
    images = np.stack([image for _, _, image in make_cohort(N_REAL // 5, 5, seed=0, size=(68, 56))])
    rng = np.random.default_rng(0)
    synthetic = images[rng.integers(0, N_REAL, N_SYNTHETIC)] + rng.normal(0, 0.02, (N_SYNTHETIC, 68, 56))
    np.save(root / "real.npy", images)
    for _, n in CASES:
        np.save(root / f"synthetic-{n}.npy", synthetic[: int(n * part)].astype(np.float32))
    return root


@pytest.mark.parametrize("is_verified", [False, True], ids=["by-score", "verified"])
@pytest.mark.parametrize(("views", "n_images"), CASES)
def test_audit(benchmark, stacks, part, tmp_path, views, n_images, is_verified):
    number = itertools.count()
    options = AuditOptions(match=MatchOptions(views=views), verify=is_verified)

    def run():
        return audit(
            stacks / "real.npy", stacks / f"synthetic-{n_images}.npy", tmp_path / str(next(number)), options=options
        )

    result = benchmark.pedantic(run, rounds=3)
    assert result.summary["synthetic_flagged"]["flagged"] == int(n_images * part)
