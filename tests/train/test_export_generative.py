"""A latent diffusion model in ONNX: the same answers and samples as in PyTorch, from files that say all themselves."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnxscript")
pytest.importorskip("monai")
onnx = pytest.importorskip("onnx")

from deepssim.embed import Graph  # noqa: E402
from deepssim.errors import MetricError, UsageError  # noqa: E402
from deepssim.export import export_model  # noqa: E402
from deepssim.generate import backend_of  # noqa: E402
from deepssim.generative.data.conditions import ConditionSpec, Variable  # noqa: E402
from deepssim.generative.facts import model_facts  # noqa: E402
from deepssim.generative.sampling.graphs import METADATA_KEY, load_backend, read_graph  # noqa: E402
from deepssim.generative.sampling.sampler import Request, sample  # noqa: E402
from deepssim.models.checkpoint import Description, build_network, save_network  # noqa: E402
from deepssim.models.generative import part_of, weights_hash  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")
SIZE = (20, 14)  # a latent of 10 x 7, which is padded to 10 x 8
VAE = Description(
    "vae", {"channels": [4, 4], "res_blocks": 1, "norm_groups": 2, "attention_levels": [False, False]}, *SIZE, "vae"
)
SPEC = ConditionSpec("variables", 2, (Variable("age"), Variable("sex")))
UNET = Description(
    "unet",
    {"channels": [4, 4], "res_blocks": 1, "norm_groups": 2, "attention_levels": [False, False],
     "head_channels": [0, 4], "resblock_updown": True, "context_dim": 2},
    *SIZE, "unet",
    {"diffusion": {"steps": 100}, "conditions": SPEC.as_dict(), "image": list(SIZE), "drop_condition": 0.1},
)  # fmt: skip
# Largest difference of a pixel after all steps; about 1e-6 is seen.
TOLERANCE = 1e-4


def filled(description: Description, seed: int) -> torch.nn.Module:
    """Build a network with weights none of which are zero: some begin so, and would hide what is before them."""
    network = build_network(description).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in network.named_parameters():
            drawn = torch.randn(weight.shape, generator=generator)
            scale = 0.7 * weight[0].numel() ** -0.5 if weight.ndim > 1 else 0.1
            weight.copy_(drawn * scale + (weight.ndim == 1 and name.endswith("weight")))
    return network


class Model:
    def __init__(self) -> None:
        self.vae, self.unet = filled(VAE, 1), filled(UNET, 2)
        self.unet.scale_factor.fill_(0.8)
        self.vae_part = part_of(self.vae, VAE, "vae.safetensors")
        trained = replace(UNET, training={**UNET.training, "vae_hash": self.vae_part.hash})
        self.described = trained
        self.unet_part = part_of(self.unet, trained, "unet.safetensors")


@pytest.fixture(scope="module")
def model() -> Model:
    return Model()


@pytest.fixture(scope="module", autouse=True)
def _each_part_is_exported_once():
    """Keep what the exporter makes, which takes seconds: the tests export the same networks again."""
    from deepssim.export import generative

    made: dict[str, bytes] = {}

    def kept(*arguments, output, **options):
        if output not in made:
            made[output] = to_onnx(*arguments, output=output, **options).SerializeToString()
        return onnx.load_model_from_string(made[output])

    to_onnx = generative.to_onnx
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(generative, "to_onnx", kept)
        yield


@pytest.fixture(scope="module")
def folder(model, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "onnx"
    made = export_model(folder, vae=(model.vae, model.vae_part), unet=(model.unet, model.unet_part))
    assert [one.part for one in made] == ["encoder", "decoder", "unet"]
    assert all(one.error < 1e-5 and one.path.stat().st_size == one.n_bytes for one in made)
    return folder


def test_each_part_answers_as_pytorch_does_at_any_batch_size(model, folder):
    graphs = {part: read_graph(folder / f"{part}.onnx", part)[0] for part in ("encoder", "decoder", "unet")}
    rng = np.random.default_rng(7)
    for n in (1, 5):
        images = rng.random((n, 1, *SIZE), np.float32)
        latents = rng.standard_normal((n, 3, 10, 7), np.float32)
        noisy = rng.standard_normal((n, 3, 10, 8), np.float32)
        times, context = rng.integers(0, 100, n), rng.random((n, 1, 2), np.float32)
        with torch.no_grad():
            mean = model.vae.encode(torch.from_numpy(images))[0].numpy()
            decoded = model.vae.decode(torch.from_numpy(latents)).numpy()
            noise = model.unet(*map(torch.from_numpy, (noisy, times, context))).numpy()
        np.testing.assert_allclose(graphs["encoder"].run({"image": images}), mean, atol=1e-5)
        np.testing.assert_allclose(graphs["decoder"].run({"latents": latents}), decoded, atol=1e-5)
        given = {"latents": noisy, "timesteps": times, "context": context}
        np.testing.assert_allclose(graphs["unet"].run(given), noise, atol=1e-5)
        assert np.abs(noise).max() > 0.1


def test_fifty_steps_give_the_images_of_pytorch_and_the_files_say_all_that_it_takes(model, folder):
    facts = model_facts(model.vae_part, model.unet_part)
    theirs = load_backend(folder, device="cpu", batch=2)
    assert theirs.facts == facts
    assert (facts.scale_factor, facts.diffusion.steps, facts.is_guidable) == (pytest.approx(0.8), 100, True)
    assert (facts.shapes.vae, facts.shapes.padded, facts.conditions) == ((3, 10, 7), (3, 10, 8), SPEC)
    ours = backend_of(model.vae, model.unet, facts, batch=2)
    requests = [Request("a", i, np.array([[i, 0.5]], np.float32)) for i in range(2)]
    first, second = (list(sample(backend, requests, steps=50)) for backend in (ours, theirs))
    np.testing.assert_allclose(second, first, atol=TOLERANCE, rtol=0)
    assert np.ptp(first) > 0.5


def test_sampling_needs_neither_torch_nor_onnx(folder):
    code = (
        "import sys\n"
        "from importlib.abc import MetaPathFinder\n"
        "class Block(MetaPathFinder):\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.partition('.')[0] in ('torch', 'monai', 'onnx', 'safetensors'): raise ImportError(name)\n"
        "sys.meta_path.insert(0, Block())\n"
        "from pathlib import Path\n"
        "from deepssim.generative.sampling.graphs import load_backend\n"
        "from deepssim.generative.sampling.sampler import Request, sample\n"
        "import numpy as np\n"
        f"backend = load_backend(Path({str(folder)!r}), device='cpu', batch=1, threads=1)\n"
        "print([i.shape for i in sample(backend, [Request('a', 0, np.zeros((1, 2), np.float32))], steps=2)])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "[(20, 14)]", done.stderr


def test_the_same_graph_gives_the_same_bytes_and_no_path_of_this_machine(model, folder, tmp_path):
    export_model(tmp_path, vae=(model.vae, model.vae_part))
    for name in ("encoder.onnx", "decoder.onnx"):
        first, again = ((place / name).read_bytes() for place in (folder, tmp_path))
        assert hashlib.sha256(first).digest() == hashlib.sha256(again).digest()
    assert str(Path(__file__).parents[2]).encode() not in (folder / "unet.onnx").read_bytes()
    said = json.loads(Graph((folder / "unet.onnx").read_bytes()).metadata[METADATA_KEY])
    assert said["hash"] == weights_hash(model.unet.state_dict())
    assert said["export"]["batches"] == [1, 2, 7]
    assert 0 <= said["export"]["largest_error"] < 1e-5
    assert "source" not in said
    # The decoder is there: its U-Net can follow by itself, and another one cannot.
    stranger = replace(model.unet_part, training={**model.unet_part.training, "vae_hash": "0" * 64})
    with pytest.raises(MetricError, match="was trained on latents of another VAE than"):
        export_model(tmp_path, unet=(model.unet, stranger))


def test_a_graph_that_computes_something_else_is_not_written(model, tmp_path, monkeypatch):
    class Wrong(Graph):
        def run(self, inputs):
            return super().run(inputs) * np.float32(1.001)

    monkeypatch.setattr("deepssim.export.generative.Graph", Wrong)
    with pytest.raises(MetricError, match=r"in a batch of 1, more than .*: nothing was written"):
        export_model(tmp_path / "x", vae=(model.vae, model.vae_part))
    assert list((tmp_path / "x").glob("*.onnx")) == []


def test_a_unet_is_not_exported_without_its_vae(model, tmp_path):
    with pytest.raises(UsageError, match=r"unet\.safetensors is a U-Net, and wants its VAE beside it: .*--vae FILE"):
        export_model(tmp_path, unet=(model.unet, model.unet_part))
    with pytest.raises(UsageError, match="nothing to export"):
        export_model(tmp_path)
    other = replace(model.vae_part, hash="1" * 64)
    with pytest.raises(MetricError, match="give the VAE of its training"):
        export_model(tmp_path, vae=(model.vae, other), unet=(model.unet, model.unet_part))


def damaged(folder: Path, place: Path, name: str, change) -> Path:
    """Copy a model with one of its files changed."""
    place.mkdir()
    for file in ("unet.onnx", "decoder.onnx"):
        (place / file).write_bytes((folder / file).read_bytes())
    found = onnx.load(place / name)
    entry = next(p for p in found.metadata_props if p.key == METADATA_KEY)
    said = json.loads(entry.value)
    change(found, said)
    entry.value = json.dumps(said)
    (place / name).write_bytes(found.SerializeToString())
    return place


def externalise(found, _said) -> None:
    weight = found.graph.initializer[0]
    weight.ClearField("raw_data")
    weight.data_location = onnx.TensorProto.EXTERNAL
    entry = weight.external_data.add()
    entry.key, entry.value = "location", "/etc/passwd"


@pytest.mark.parametrize(
    ("name", "change", "says"),
    [
        ("decoder.onnx", lambda _, said: said.update(hash="2" * 64), "was trained on latents of another VAE than"),
        ("unet.onnx", lambda _, said: said.update(part="decoder"), "holds the decoder of a model, not its unet"),
        ("unet.onnx", lambda _, said: said["arguments"].update(context_dim=3), "a condition of 3 elements"),
        ("unet.onnx", lambda _, said: said["training"].update(image=[24, 14]), "was changed, or is of images of"),
        ("unet.onnx", lambda _, said: said["training"].update(image="x"), "say of themselves what cannot be"),
        (
            "decoder.onnx",
            lambda _, said: said["arguments"].update(latent_channels=4),
            "latents of 3 channels, and those",
        ),
        ("unet.onnx", lambda _, said: said.pop("hash"), "says of itself what cannot be read"),
        ("unet.onnx", lambda _, said: said.update(image=[float("inf"), 1]), "says of itself what cannot be read"),
        ("unet.onnx", lambda _, said: said.update(scale_factor=10**400), "says of itself what cannot be read"),
        ("unet.onnx", lambda _, said: said["training"].update(drop_condition=10**400), "say of themselves what cannot"),
        ("unet.onnx", lambda _, said: said["training"].update(conditions="x"), "say of themselves what cannot be: the"),
        ("unet.onnx", lambda _, said: said.update(scale_factor=0), "scales latents by 0.0, which cannot be"),
        ("unet.onnx", lambda _, said: said.update(scale_factor=float("nan")), "scales latents by nan"),
        ("decoder.onnx", externalise, "keeps weights in other files"),
        ("decoder.onnx", lambda found, _: found.graph.node.pop(), "does not load in ONNX Runtime"),
    ],
)
def test_files_that_do_not_belong_together_or_were_changed_are_refused(folder, tmp_path, name, change, says):
    place = damaged(folder, tmp_path / "model", name, change)
    with pytest.raises(MetricError, match=says) as caught:
        load_backend(place, device="cpu")
    assert "\n" not in str(caught.value)
    assert str(place) in str(caught.value)


@pytest.mark.parametrize(
    ("name", "operator", "options", "says"),
    [
        ("decoder.onnx", "Concat", {"axis": 2}, r"returned \(1, 1, 40, 14\) where \(1, 1, 20, 14\) is due"),
        ("unet.onnx", "ReduceMean", {}, r"returned \(1, 1, 1, 1\) where \(1, 3, 10, 8\) is due"),
        ("decoder.onnx", "Cast", {"to": onnx.TensorProto.INT64}, "does not return an array of real numbers"),
        ("unet.onnx", "SequenceConstruct", {}, "does not return an array of real numbers"),
    ],
)
def test_a_graph_that_returns_something_else_is_refused_not_broadcast(folder, tmp_path, name, operator, options, says):
    def change(found, _said):
        (output,) = found.graph.output
        found.graph.node.append(
            onnx.helper.make_node(operator, [output.name] * (2 if operator == "Concat" else 1), ["other"], **options)
        )
        kind = onnx.TensorProto.INT64 if operator == "Cast" else onnx.TensorProto.FLOAT
        made = onnx.helper.make_tensor_value_info("other", kind, None)
        if operator == "SequenceConstruct":
            made = onnx.helper.make_tensor_sequence_value_info("other", kind, None)
        del found.graph.output[:]
        found.graph.output.append(made)

    backend = load_backend(damaged(folder, tmp_path / "model", name, change), device="cpu", batch=1)
    with pytest.raises(MetricError, match=says):
        next(sample(backend, [Request("a", 0, np.zeros((1, 2), np.float32))], steps=1))


def test_a_folder_that_is_no_model_says_what_is_missing(folder, tmp_path):
    with pytest.raises(UsageError, match=r"has no unet\.onnx and no decoder\.onnx: deepssim export UNET --vae VAE"):
        load_backend(tmp_path)
    for name in ("unet.onnx", "decoder.onnx"):
        (tmp_path / name).write_bytes(b"no graph")
    with pytest.raises(MetricError, match=r"unet\.onnx does not load in ONNX Runtime"):
        load_backend(tmp_path, device="cpu")


def test_the_command_refuses_what_does_not_fit_and_exports_the_rest(model, tmp_path, deepssim_here):
    vae, unet = tmp_path / "vae.safetensors", tmp_path / "unet.safetensors"
    save_network(vae, model.vae.state_dict(), VAE)
    save_network(unet, model.unet.state_dict(), model.described)
    torch.save(model.vae.network.state_dict(), tmp_path / "vae.pth")
    out = tmp_path / "model"
    for arguments, says in (
        ([vae, "--out", "x.onnx"], "becomes several files: name a folder with --out, not x.onnx"),
        ([unet, "--out", out], "wants its VAE beside it: give that too, with --vae FILE"),
        ([vae, "--vae", vae, "--out", out], "is a VAE: --vae and --conditioning are for a U-Net"),
        ([vae, "--images", tmp_path, "--name", "n", "--out", out], "--images, --name: not of a part of a latent"),
        ([vae, "--config", "tiny", "--out", out], "--config and --size are for a .pth"),
        ([tmp_path / "vae.pth", "--out", out], "of another size than the configuration paper-brain says: channels ="),
        ([unet, "--vae", vae, "--conditioning", "text", "--out", out], "give --conditioning variables"),
    ):
        done = deepssim_here("export", *arguments)
        assert done.returncode in (1, 2), done
        assert says in done.stderr
    assert not out.exists()
    done = deepssim_here("export", vae, "--out", out, "--json", "--quiet")
    assert done.returncode == 0, done.stderr
    assert [file["part"] for file in json.loads(done.stdout)["files"]] == ["encoder", "decoder"]
