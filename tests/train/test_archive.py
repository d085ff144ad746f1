"""TorchScript archives: read to the bit, and nothing in them is executed."""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from deepssim.errors import MetricError  # noqa: E402
from deepssim.models import archive  # noqa: E402
from deepssim.models.archive import is_archive, read_archive  # noqa: E402

nn = torch.nn
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def small(scripted, tmp_path_factory) -> tuple[nn.Module, Path]:
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


def test_weights_without_a_network_are_called_what_they_are(small, tmp_path):
    torch.save(small[0].state_dict(), tmp_path / "weights.pt")
    assert not is_archive(tmp_path / "weights.pt")
    assert is_archive(small[1])
    with pytest.raises(MetricError, match=r"holds weights alone.*best_model_jit\.pt"):
        read_archive(tmp_path / "weights.pt")


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
        (module_pickle((60_000_000, 0), (0, 1), 4), "beyond its storage"),
        (module_pickle((2,), (-1,), 4), "impossible shape"),
        (module_pickle((2**70,), (1,), 4), "impossible shape"),
        (module_pickle((4,), (1,), 2**70), "storage that is none"),
        (module_pickle((2**39,), (1,), 2**39), "bytes"),
        (module_pickle((9,), (1,), 9), "bytes"),
        (module_pickle((2,), (1,), 4, key="../0"), "storage that is none"),
        (module_pickle((2,), (1,), 4, key="77"), "77 is missing"),
        (b"\x80\x02}.", "weights alone"),
        (b"\x80\x02].", "no module"),
        (b"\x80\x02c__torch__.M\nM\n)\x81}X\x01\x00\x00\x00w" * 3, "refused"),
        (b"", "refused"),
        (b"\x80\x02cos\nsystem\n.", "os.system has no place"),
        (b"\x80\x02\x82\x01.", "opcode EXT1 has no place"),
        (b"\x80\x04\x8d" + (2**62).to_bytes(8, "little"), "refused"),
        (b"\x80\x02}r\xff\xff\xff\x7f.", "beyond everything that there is"),
        (b"\x80\x02(ios\nsystem\n.", "opcode INST has no place"),
    ],
)
def test_a_pickle_that_lies_is_refused(data, message, small, tmp_path):
    path = rewritten(small[1], tmp_path / "x.pt", {"data.pkl": data})
    with pytest.raises(MetricError, match=message):
        read_archive(path)


def built(state: bytes) -> bytes:
    """A module whose one tensor, already checked, is given another state."""
    whole = module_pickle((2,), (1,), 4)
    return whole[:-3] + state + b"bsb."


@pytest.mark.parametrize(
    "state",
    [
        b"](N" + integer(-5) + numbers((2,)) + numbers((1,)) + b"e",
        b"}X\x06\x00\x00\x00offset" + integer(-5) + b"s",
        b"N}X\x06\x00\x00\x00offset" + integer(-5) + b"s\x86",
    ],
)
def test_a_tensor_cannot_be_changed_once_it_is_checked(state, small, tmp_path):
    with pytest.raises(MetricError, match="refused"):
        read_archive(rewritten(small[1], tmp_path / "x.pt", {"data.pkl": built(state)}))


def test_a_dictionary_cannot_be_copied_without_end(small, tmp_path):
    many = b"(" + (b"(" + integer(1) + integer(2) + b"t") * 50 + b"l\x85q\x00"
    data = b"\x80\x02" + many + b"0" + b"ccollections\nOrderedDict\nh\x00R" * 3 + b"."
    with pytest.raises(MetricError, match="refused"):
        read_archive(rewritten(small[1], tmp_path / "x.pt", {"data.pkl": data}))


def test_two_tensors_of_one_storage_share_it(scripted, tmp_path):
    whole = torch.arange(6.0)
    network = nn.Module()
    network.register_buffer("all", whole)
    network.register_buffer("rest", whole[2:].view(2, 2))
    found = read_archive(scripted(network, tmp_path / "shared.pt"))
    assert found["all"].untyped_storage().data_ptr() == found["rest"].untyped_storage().data_ptr()
    assert torch.equal(found["rest"], whole[2:].view(2, 2))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    changes=st.lists(st.tuples(st.integers(-1500, 9999), st.integers(0, 255)), min_size=1, max_size=4),
    cut=st.integers(0, 3),
)
def test_a_damaged_file_is_refused_or_read(changes, cut, small, tmp_path):
    data = bytearray(small[1].read_bytes())
    for place, value in changes:
        data[place % len(data)] = value
    path = tmp_path / "damaged.pt"
    path.write_bytes(data[: len(data) - cut])
    try:
        found = read_archive(path)
    except MetricError:
        return
    assert all(isinstance(tensor, torch.Tensor) for tensor in found.values())


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    place=st.integers(0, 9999),
    removed=st.integers(0, 3),
    put=st.lists(st.sampled_from(b"R)b}]N\x89(tQu0.2a\x81\x85\x86sec"), max_size=4).map(bytes),
)
def test_a_pickle_of_other_opcodes_is_refused_or_read(place, removed, put, small, tmp_path):
    with zipfile.ZipFile(small[1]) as source:
        data = source.read("small/data.pkl")
    place %= len(data)
    changed = data[:place] + put + data[place + removed :]
    try:
        found = read_archive(rewritten(small[1], tmp_path / "changed.pt", {"data.pkl": changed}))
    except MetricError:
        return
    assert all(isinstance(tensor, torch.Tensor) for tensor in found.values())


def test_a_pickle_of_too_many_things_is_refused(small, tmp_path, monkeypatch):
    monkeypatch.setattr(archive, "MAX_OPCODES", 100)
    with pytest.raises(MetricError, match="more than 100 opcodes"):
        read_archive(small[1])
    monkeypatch.setattr(archive, "MAX_PICKLE_BYTES", 100)
    with pytest.raises(MetricError, match=r"data\.pkl has"):
        read_archive(small[1])


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
