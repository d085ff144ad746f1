"""TorchScript archives: read to the bit, and nothing in them is executed."""

from __future__ import annotations

import pickle
import warnings
import zipfile
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
torchvision = pytest.importorskip("torchvision")

from deepssim.errors import MetricError  # noqa: E402
from deepssim.models import archive  # noqa: E402
from deepssim.models.archive import read_archive  # noqa: E402
from deepssim.models.blocks import ZScore  # noqa: E402
from deepssim.models.published import load_published  # noqa: E402

nn = torch.nn


def scripted(network: nn.Module, path: Path) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore"
        )  # TorchScript is deprecated; published checkpoints are written in it all the same
        torch.jit.script(network).save(str(path))
    return path


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> tuple[nn.Module, Path]:
    network = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Sequential(nn.Linear(4, 2), nn.LayerNorm(2)), nn.Linear(2, 2).half()
    )
    network[0].weight = nn.Parameter(torch.randn(3, 3, 1, 4).permute(3, 2, 0, 1))
    return network, scripted(network, tmp_path_factory.mktemp("archive") / "small.pt")


def rewritten(path: Path, out: Path, changes: dict[str, bytes | None], **options: object) -> Path:
    """Copy an archive with some of its files changed, or left out."""
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as target:
        for member in source.infolist():
            short = member.filename.split("/", 1)[1]
            data = changes.get(short, source.read(member))
            if data is not None:
                target.writestr(member.filename, data, **options)
    return out


def test_every_tensor_comes_out_to_the_bit(small):
    network, path = small
    found, expected = read_archive(path), network.state_dict()
    assert list(found) == list(expected)
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor), name


class Trap:
    """Leaves a file behind if it is ever called."""

    def __init__(self, call: object, *arguments: object) -> None:
        self.call, self.arguments = call, arguments

    def __reduce__(self):
        return self.call, self.arguments


def test_nothing_is_executed(small, tmp_path):
    import builtins
    import os
    import subprocess

    witness = tmp_path / "witness"
    traps = [
        Trap(os.system, f"touch {witness}"),
        Trap(builtins.eval, f"open({str(witness)!r}, 'w')"),
        Trap(builtins.exec, f"open({str(witness)!r}, 'w')"),
        Trap(builtins.getattr, "os", "system"),
        Trap(subprocess.Popen, ["touch", str(witness)]),
        Trap(torch.load, str(witness)),
        {"a": [Trap(open, str(witness), "w")]},
    ]
    for number, trap in enumerate(traps):
        path = rewritten(small[1], tmp_path / f"{number}.pt", {"data.pkl": pickle.dumps(trap, 2)})
        with pytest.raises(MetricError, match="refused"):
            read_archive(path)
    assert not witness.exists()


def module_pickle(size: tuple[int, ...], stride: tuple[int, ...], n: int, offset: int = 0, key: str = "0") -> bytes:
    """A module with one tensor, by hand."""
    view = b"ctorch._utils\n_rebuild_tensor_v2\n((X\x07\x00\x00\x00storagectorch\nFloatStorage\n"
    view += b"X" + len(key).to_bytes(4, "little") + key.encode() + b"X\x03\x00\x00\x00cpu" + integer(n) + b"tQ"
    view += integer(offset) + numbers(size) + numbers(stride) + b"\x89ccollections\nOrderedDict\n)RtR"
    return b"\x80\x02c__torch__.M\nM\n)\x81}X\x01\x00\x00\x00w" + view + b"sb."


def integer(n: int) -> bytes:
    return pickle.dumps(n, 2)[2:-1]


def numbers(values: tuple[int, ...]) -> bytes:
    return b"(" + b"".join(integer(n) for n in values) + b"t"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (module_pickle((2, 2), (2, 1), 4, offset=1), "beyond its storage"),
        (module_pickle((1000, 1000, 1000), (0, 0, 0), 4), "beyond its storage"),
        (module_pickle((2,), (-1,), 4), "impossible shape"),
        (module_pickle((2**70,), (1,), 2**70), "beyond|bytes"),
        (module_pickle((9,), (1,), 9), "bytes"),
        (module_pickle((2,), (1,), 4, key="../0"), "storage that is none"),
        (module_pickle((2,), (1,), 4, key="77"), "77 is missing"),
        (b"\x80\x02}.", "no module"),
        (b"\x80\x02c__torch__.M\nM\n)\x81}X\x01\x00\x00\x00w" * 3, "refused"),
        (b"", "refused"),
        (b"\x80\x02cos\nsystem\n.", "os.system has no place"),
        (b"\x80\x02\x82\x01.", "refused"),
        (b"\x80\x04\x8d" + (2**62).to_bytes(8, "little"), "refused"),
    ],
)
def test_a_pickle_that_lies_is_refused(data, message, small, tmp_path):
    path = rewritten(small[1], tmp_path / "x.pt", {"data.pkl": data})
    with pytest.raises(MetricError, match=message):
        read_archive(path)


def test_a_module_in_itself_ends():
    inner = archive._Module()
    inner.fields = {"self": inner, "again": inner}
    assert list(archive._tensors(inner, Path("x"))) == []


def test_modules_nested_without_end_are_refused():
    root = module = archive._Module()
    for _ in range(200):
        module.fields["below"] = below = archive._Module()
        module = below
    with pytest.raises(MetricError, match="nested too deeply"):
        list(archive._tensors(root, Path("x")))


def test_archives_that_are_none_are_named(small, tmp_path, monkeypatch):
    text = tmp_path / "text.pt"
    text.write_text("not a zip")
    empty = tmp_path / "empty.pt"
    zipfile.ZipFile(empty, "w").close()
    short = tmp_path / "short.pt"
    short.write_bytes(small[1].read_bytes()[:-400])
    for path in (text, empty, short, tmp_path / "none.pt"):
        with pytest.raises(MetricError, match="no TorchScript archive"):
            read_archive(path)
    packed = rewritten(small[1], tmp_path / "packed.pt", {}, compress_type=zipfile.ZIP_DEFLATED)
    with pytest.raises(MetricError, match="compressed"):
        read_archive(packed)
    with pytest.raises(MetricError, match="is missing"):
        read_archive(rewritten(small[1], tmp_path / "less.pt", {"data/0": None}))
    with pytest.raises(MetricError, match="byte order"):
        read_archive(rewritten(small[1], tmp_path / "big.pt", {"byteorder": b"big"}))
    escaping = rewritten(small[1], tmp_path / "escaping.pt", {})
    with zipfile.ZipFile(escaping, "a") as target:
        target.writestr("../../etc/x", b"")
    with pytest.raises(MetricError, match="leads elsewhere"):
        read_archive(escaping)
    monkeypatch.setattr(archive, "MAX_BYTES", 100)
    with pytest.raises(MetricError, match="more than"):
        read_archive(small[1])


class Published(nn.Module):
    """What the reference implementation scripts: the backbone's features and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.feature_extractor = torchvision.models.convnext_base(weights=None).features
        self.fc = nn.Sequential(
            nn.AdaptiveAvgPool2d((1, 1)), nn.Flatten(), nn.BatchNorm1d(1024), nn.Linear(1024, 512), nn.GELU(),
            nn.Dropout(0.33), nn.Linear(512, 128),
        )  # fmt: skip

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.fc(self.feature_extractor(images))


def test_a_published_checkpoint_embeds_as_it_did(tmp_path):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = Published().eval()
        network.fc[2].running_mean.uniform_(-1, 1)
    encoder, description = load_published(scripted(network, tmp_path / "best_model_jit.pt"))
    assert (description.architecture, description.arguments["dim"]) == ("convnext-base", 128)
    images = torch.rand(2, 1, 64, 48) * 255
    with torch.no_grad():
        expected = nn.functional.normalize(network(ZScore()(images).expand(-1, 3, -1, -1)))
        torch.testing.assert_close(encoder(images), expected, atol=1e-5, rtol=0)


class Successor(nn.Module):
    """The same for DeepSSIM++, with names of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = torchvision.models.convnext_tiny(weights=None).features
        self.p1, self.p2, self.p3, self.p4 = (nn.Parameter(torch.tensor([2.0 + i / 2])) for i in range(4))
        self.norm = nn.LayerNorm(1440)
        self.first = nn.Linear(1440, 848)
        self.last = nn.Linear(848, 256)

    def pool(self, features: torch.Tensor, p: torch.Tensor) -> torch.Tensor:
        return features.clamp(min=1e-6).pow(p).mean((2, 3)).pow(1.0 / p)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        powers = [self.p1, self.p2, self.p3, self.p4]
        pooled: list[torch.Tensor] = []
        for i, layer in enumerate(self.backbone):
            images = layer(images)
            if i % 2 == 1:
                pooled.append(self.pool(images, powers[i // 2]))
        return self.last(nn.functional.gelu(self.first(self.norm(torch.cat(pooled, 1)))))


def test_a_checkpoint_of_the_successor_embeds_as_it_did(tmp_path):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = Successor().eval()
    encoder, description = load_published(scripted(network, tmp_path / "best.pt"))
    assert description.architecture == "convnext-tiny-gem"
    images = torch.rand(2, 1, 64, 48) * 255
    with torch.no_grad():
        expected = nn.functional.normalize(network(ZScore()(images).expand(-1, 3, -1, -1)))
        torch.testing.assert_close(encoder(images), expected, atol=1e-5, rtol=0)


def test_another_network_is_named(small, tmp_path):
    with pytest.raises(MetricError, match="no ConvNeXt"):
        load_published(small[1])
