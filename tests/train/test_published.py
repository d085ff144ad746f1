"""Published checkpoints: scripted networks of the same names with random weights embed as they did."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
torchvision = pytest.importorskip("torchvision")

from deepssim.errors import MetricError  # noqa: E402
from deepssim.models.published import load_published  # noqa: E402

nn = torch.nn
pytestmark = pytest.mark.usefixtures("one_thread")


def standardised(images: torch.Tensor) -> torch.Tensor:
    """What the published networks are given, in float64 and as three channels."""
    exact = images.double()
    mean, deviation = exact.mean((1, 2, 3), keepdim=True), exact.std((1, 2, 3), keepdim=True, correction=0)
    return ((exact - mean) / deviation).float().repeat(1, 3, 1, 1)


class Base(nn.Module):
    """Names and layers of DeepSSIM's best_model_jit.pt."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.feature_extractor = torchvision.models.convnext_base(weights=None).features
        self.fc = nn.Sequential(
            nn.AdaptiveAvgPool2d((1, 1)), nn.Flatten(), nn.BatchNorm1d(1024), nn.Linear(1024, 512), nn.GELU(),
            nn.Dropout(0.33), nn.Linear(512, dim),
        )  # fmt: skip

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.fc(self.feature_extractor(images))


class Pool(nn.Module):
    def __init__(self, power: float) -> None:
        super().__init__()
        self.p = nn.Parameter(torch.tensor([power]))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        powers = features.clamp(min=1e-6).pow(self.p)
        return nn.functional.avg_pool2d(powers, (features.size(-2), features.size(-1))).pow(1.0 / self.p)


class Tiny(nn.Module):
    """Names and layers of DeepSSIM++'s best_model_jit.pt."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        layers = torchvision.models.convnext_tiny(weights=None).features
        self.stage_a, self.stage_b = nn.Sequential(*layers[0:2]), nn.Sequential(*layers[2:4])
        self.stage_c, self.stage_d = nn.Sequential(*layers[4:6]), nn.Sequential(*layers[6:8])
        # Powers that differ, so that pools in another order would be seen.
        self.gem_a, self.gem_b, self.gem_c, self.gem_d = Pool(2.0), Pool(2.5), Pool(3.0), Pool(3.5)
        hidden = (1440 + dim) // 2
        self.fc = nn.Sequential(
            nn.LayerNorm(1440), nn.Linear(1440, hidden), nn.GELU(), nn.Dropout(0.1), nn.Linear(hidden, dim)
        )

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        a = self.stage_a(images)
        b = self.stage_b(a)
        c = self.stage_c(b)
        d = self.stage_d(c)
        pooled = [
            self.gem_a(a).flatten(1),
            self.gem_b(b).flatten(1),
            self.gem_c(c).flatten(1),
            self.gem_d(d).flatten(1),
        ]
        return self.fc(torch.cat(pooled, dim=1))


class Around(nn.Module):
    """A network that was saved with the similarity around it."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.embedding_net = network

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.embedding_net(images)


@pytest.fixture(scope="module")
def tiny() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Tiny(64).eval()


def assert_embeds_as(encoder: nn.Module, network: nn.Module) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        images = (torch.rand(2, 1, 64, 48) * 255).round()
    with torch.no_grad():
        expected = nn.functional.normalize(network(standardised(images)))
        torch.testing.assert_close(encoder(images), expected, atol=1e-5, rtol=0)


def test_deepssim_embeds_as_it_did(scripted, tmp_path):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = Base(128).eval()
        network.fc[2].running_mean.uniform_(-1, 1)
        network.fc[2].running_var.uniform_(0.5, 2)
    encoder, description = load_published(scripted(network, tmp_path / "best_model_jit.pt"))
    assert (description.name, description.architecture, description.arguments) == (
        "deepssim", "convnext-base", {"dim": 128},
    )  # fmt: skip
    assert (description.height, description.width) == (136, 112)
    assert not encoder.training
    assert_embeds_as(encoder, network)


def test_its_successor_embeds_as_it_did(scripted, tiny, tmp_path):
    encoder, description = load_published(scripted(tiny, tmp_path / "best_model_jit.pt"))
    assert (description.name, description.architecture, description.arguments) == (
        "deepssimpp", "convnext-tiny-gem", {"dim": 64},
    )  # fmt: skip
    assert len(description.training["sha256"]) == 64
    assert_embeds_as(encoder, tiny)


def test_the_similarity_around_it_is_left_out(scripted, tiny, tmp_path):
    encoder, _ = load_published(scripted(Around(tiny), tmp_path / "around.pt"))
    assert_embeds_as(encoder, tiny)


@pytest.mark.parametrize(
    ("part", "layer", "message"),
    [
        ("gem_b", nn.Identity(), r"1 of its weights are missing, the first is pools\.1\.p"),
        ("gem_c", nn.LayerNorm(7), r"missing, the first is pools\.2\.p"),
        ("extra", nn.Linear(3, 3), r"2 of its weights are superfluous, the first is extra\.weight"),
        ("stage_d", nn.Conv2d(2, 2, 1), r"missing, the first is feature_extractor\.6\.0\.weight"),
    ],
)
def test_what_does_not_fit_is_named(part, layer, message, scripted, tmp_path):
    class Changed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            for name, child in Tiny(64).named_children():
                setattr(self, name, child)
            setattr(self, part, layer)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return images

    with pytest.raises(MetricError, match=message):
        load_published(scripted(Changed(), tmp_path / "changed.pt"))


@pytest.mark.parametrize("shape", [(60_000_000, 0), (65_537, 512), (0, 512), (64, 511), (), (512,), (2, 512, 1)])
def test_an_embedding_of_impossible_size_is_refused_before_memory_is_taken(shape, monkeypatch, tmp_path):
    (tmp_path / "small.pt").write_bytes(b"")
    state = {"feature_extractor.0.0.weight": torch.empty(0), "fc.6.weight": torch.empty(shape, device="meta")}
    monkeypatch.setattr("deepssim.models.published.read_archive", lambda path: state)
    with pytest.raises(MetricError, match="no DeepSSIM: its last weight"):
        load_published(tmp_path / "small.pt")


def test_shapes_are_compared_before_memory_is_taken(monkeypatch, tmp_path):
    (tmp_path / "small.pt").write_bytes(b"")
    last = torch.empty(65_536, (1440 + 65_536) // 2, device="meta")  # 8 GiB
    state = {"stage_a.0.0.weight": torch.empty(0), "fc.4.weight": last}
    monkeypatch.setattr("deepssim.models.published.read_archive", lambda path: state)
    monkeypatch.setattr(nn.Module, "to_empty", lambda *_, **__: pytest.fail("memory was taken"))
    with pytest.raises(MetricError, match=r"does not fit DeepSSIM\+\+: \d+ of its weights are missing"):
        load_published(tmp_path / "small.pt")


def test_another_network_is_named(scripted, tmp_path):
    with pytest.raises(MetricError, match=r"neither DeepSSIM nor DeepSSIM\+\+: its weights are named 0\.weight"):
        load_published(scripted(nn.Sequential(nn.Linear(2, 2)), tmp_path / "other.pt"))
