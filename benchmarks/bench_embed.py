"""Reading and embedding images with the metric pixel.

python -m pytest benchmarks/bench_embed.py
"""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from deepssim.embed import Encoder
from deepssim.embed_stream import embed_listing
from deepssim.images import list_images
from deepssim.metric import load_metric
from deepssim.phantom import make_cohort

N_IMAGES = 400


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("images")
    for patient, level, image in make_cohort(N_IMAGES // 5, 5, seed=0):
        Image.fromarray((image * 255).astype(np.uint8)).save(root / f"{patient}-{level}.png")
    return root


def test_embed_png(benchmark, folder):
    encoder = Encoder(load_metric("pixel"))

    def run() -> int:
        return sum(len(chunk.records) for chunk in embed_listing(list_images(folder), encoder))

    assert benchmark(run) == N_IMAGES


def test_encode_prepared(benchmark):
    encoder = Encoder(load_metric("pixel"))
    size = encoder.metric.height, encoder.metric.width
    images = list(np.random.default_rng(0).random((2048, *size), np.float32))
    rows = benchmark(encoder.encode, images)
    assert np.allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)
