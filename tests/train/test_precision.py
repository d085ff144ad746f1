"""Graphs in fewer bits: written only where they find the same nearest images."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")
pytest.importorskip("onnxscript")
import onnx  # noqa: E402

from deepssim.embed import Graph  # noqa: E402
from deepssim.errors import MetricError, UsageError  # noqa: E402
from deepssim.export import export_encoder  # noqa: E402
from deepssim.metric import METADATA_KEY, load_metric  # noqa: E402
from deepssim.models.blocks import ZScore, unit_rows  # noqa: E402
from deepssim.models.checkpoint import Description  # noqa: E402
from deepssim.precision import compare_embeddings, reduce_graph  # noqa: E402

nn = torch.nn
pytestmark = pytest.mark.usefixtures("one_thread")
SIZE = (20, 16)


class Grid(nn.Module):
    """Two convolutions and a head that wants one size."""

    def __init__(self) -> None:
        super().__init__()
        self.intensity = ZScore()
        self.first = nn.Conv2d(1, 4, 3, stride=2)
        self.second = nn.Conv2d(4, 8, 3)
        self.head = nn.Sequential(nn.Linear(8 * 7 * 5, 32), nn.GELU(), nn.Linear(32, 16))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features = self.second(torch.relu(self.first(self.intensity(images))))
        return unit_rows(self.head(features.flatten(1)))


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    rng = np.random.default_rng(0)
    # Pairs that are alike, so that the nearest one is no matter of rounding.
    origin = rng.random((150, *SIZE))
    return np.concatenate([origin, origin + 0.1 * rng.random((150, *SIZE))]).astype(np.float32)


@pytest.fixture(scope="module")
def network() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Grid().eval()


def written(network: nn.Module, images: np.ndarray, path: Path, precision: str):
    return export_encoder(network, Description("grid", {}, *SIZE), path, images=images, precision=precision)


@pytest.fixture(scope="module")
def full(network, images, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("precision") / "fp32.onnx"
    made = written(network, images, path, "fp32")
    assert not made.is_any_size
    return path


def initializers(path: Path) -> dict[str, np.ndarray]:
    return {t.name: onnx.numpy_helper.to_array(t) for t in onnx.load(path).graph.initializer}


def scores(path: Path, images: np.ndarray) -> np.ndarray:
    rows = Graph(path.read_bytes())(images[:, None]).astype(np.float64)
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-3)
    return rows @ rows.T


@pytest.mark.parametrize("precision", ["w16", "fp16", "int8"])
def test_fewer_bits_find_the_same(precision, network, images, full, tmp_path):
    path = tmp_path / "small.onnx"
    made = written(network, images, path, precision)
    found, expected = scores(path, images), scores(full, images)
    error = np.abs(found - expected).max()
    assert 0 < error <= 0.01
    assert made.agreement.score_error == pytest.approx(error, abs=1e-5)
    assert (made.precision, made.agreement.n_images, made.agreement.rank1 >= 0.99) == (precision, 300, True)
    assert load_metric(str(path)).dim == 16
    described = json.loads(next(p.value for p in onnx.load(path).metadata_props if p.key == METADATA_KEY))
    assert described["export"]["precision"] == precision
    assert described["export"]["agreement"]["rank1"] == made.agreement.rank1


def test_sixteen_bits_hold_every_product(network, images, tmp_path):
    path = tmp_path / "half.onnx"
    written(network, images, path, "fp16")
    kept = initializers(path)
    halves = {name for name, values in kept.items() if values.dtype == np.float16}
    assert {kept[name].shape for name in halves} >= {(4, 1, 3, 3), (8, 4, 3, 3), (32, 280), (16, 32)}
    assert not any(values.dtype == np.float32 and values.ndim > 1 for values in kept.values())
    inputs = {name for node in onnx.load(path).graph.node if node.op_type in ("Conv", "Gemm") for name in node.input}
    assert halves <= inputs


def test_sixteen_bit_weights_are_cast_back_before_they_are_used(network, images, full, tmp_path):
    path = tmp_path / "w16.onnx"
    written(network, images, path, "w16")
    kept = initializers(path)
    halves = {values.shape for values in kept.values() if values.dtype == np.float16}
    assert halves >= {(4, 1, 3, 3), (8, 4, 3, 3), (32, 280), (16, 32)}
    # The same as a network whose weights were rounded, to the last bits of float32.
    rounded = Grid().eval()
    rounded.load_state_dict({name: value.half().float() for name, value in network.state_dict().items()})
    with torch.no_grad():
        expected = rounded(torch.from_numpy(images[:, None])).numpy()
    np.testing.assert_allclose(Graph(path.read_bytes())(images[:, None]), expected, atol=1e-6)


def test_eight_bits_leave_the_first_convolution_and_the_head(network, images, full, tmp_path):
    path = tmp_path / "int8.onnx"
    written(network, images, path, "int8")
    kept = initializers(path)
    shapes = {values.dtype: set() for values in kept.values()}
    for values in kept.values():
        shapes[values.dtype].add(values.shape)
    assert {shape for shape in shapes[np.dtype(np.int8)] if len(shape) > 1} == {(8, 4, 3, 3)}
    assert {(4, 1, 3, 3), (32, 280), (16, 32)} <= shapes[np.dtype(np.float32)]
    # A scale for each channel, and seven bits.
    weights = next(values for values in kept.values() if values.dtype == np.int8 and values.ndim == 4)
    assert np.abs(weights).max() <= 64
    assert (8,) in shapes[np.dtype(np.float32)]
    model = onnx.load(path)
    assert all(entry.key == METADATA_KEY for entry in model.metadata_props)


def test_too_coarse_a_graph_is_not_written(network, images, tmp_path):
    # Noise without pairs: every other image is equally far, and rounding decides which is nearest.
    noise = np.random.default_rng(1).random((300, *SIZE)).astype(np.float32)
    with torch.no_grad():
        coarse = Grid().eval()
        coarse.load_state_dict(network.state_dict())
        coarse.second.weight[0] *= 200  # one channel takes the whole range of the scale
    with pytest.raises(
        MetricError, match=r"int8 changes too much on 300 images: \d+\.\d% keep their nearest.*nothing was"
    ):
        written(coarse, noise, tmp_path / "x.onnx", "int8")
    assert list(tmp_path.iterdir()) == []


def test_a_weight_beyond_sixteen_bits_is_named(network, images, tmp_path):
    large = Grid().eval()
    large.load_state_dict(network.state_dict())
    with torch.no_grad():
        large.head[2].weight[0, 0] = 1e6
    with pytest.raises(MetricError, match=r"head\.2\.weight reaches 1e\+06.*export fp32"):
        written(large, images, tmp_path / "x.onnx", "fp16")


@pytest.mark.parametrize(("precision", "n"), [("w16", 31), ("fp16", 31), ("int8", 255)])
def test_too_few_images_are_refused(precision, n, network, images, tmp_path):
    with pytest.raises(UsageError, match=f"or more, there are {n}: give a folder of more with --images"):
        written(network, images[:n], tmp_path / "x.onnx", precision)


def test_an_unknown_precision_is_named(images, full):
    with pytest.raises(UsageError, match="unknown precision 'int4': w16, fp16, int8"):
        reduce_graph(onnx.load(full), "int4", images[:, None])


def test_a_graph_of_nothing_but_first_convolution_and_head_is_refused(images, tmp_path):
    class Bare(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Conv2d(1, 2, 3)
            self.head = nn.Sequential(nn.Flatten(), nn.Linear(2 * 18 * 14, 8), nn.Linear(8, 4))

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return unit_rows(self.head(self.first(images)))

    with pytest.raises(MetricError, match="no layer beside"):
        written(Bare().eval(), images, tmp_path / "x.onnx", "int8")


def oracle(full: np.ndarray, reduced: np.ndarray) -> tuple[float, float]:
    """Nearest others and score differences, one pair at a time."""
    n, same, error = len(full), 0, 0.0
    for i in range(n):
        pairs = [(float(np.dot(full[i].astype(float), full[j])), float(np.dot(reduced[i].astype(float), reduced[j])), j)
                 for j in range(n)]  # fmt: skip
        error = max(error, *(abs(a - b) for a, b, _ in pairs))
        others = [pair for pair in pairs if pair[2] != i]
        chosen = max(others, key=lambda pair: (pair[1], -pair[2]))
        same += chosen[0] >= max(a for a, _, _ in others) - 1e-6
    return same / n, error


@settings(max_examples=60, deadline=None)
@given(n=st.integers(2, 9), dim=st.integers(1, 6), noise=st.floats(0, 1), seed=st.integers(0, 2**32 - 1))
def test_agreement_is_what_each_pair_says(n, dim, noise, seed):
    rng = np.random.default_rng(seed)
    full = rng.standard_normal((n, dim)).astype(np.float32)
    reduced = (full + noise * rng.standard_normal((n, dim))).astype(np.float32)
    found = compare_embeddings(full, reduced)
    rank1, error = oracle(full, reduced)
    assert found.rank1 == pytest.approx(rank1)
    assert found.score_error == pytest.approx(error, abs=1e-9)


def test_what_cannot_be_compared_is_refused():
    rows = np.eye(2, dtype=np.float32)
    for full, reduced in ((rows[:1], rows[:1]), (rows, rows[:, :1])):
        with pytest.raises(MetricError, match="cannot be compared"):
            compare_embeddings(full, reduced)
    with pytest.raises(MetricError, match="not finite"):
        compare_embeddings(rows, rows * np.float32(np.nan))
