"""The training of the VAE: it beats a blur, its terms teach what they should, it goes on after a kill, and refuses."""

from __future__ import annotations

import csv
import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

torch = pytest.importorskip("torch")
pytest.importorskip("accelerate")
monai_losses = pytest.importorskip("monai.losses")

from deepssim.errors import MetricError, UsageError  # noqa: E402
from deepssim.generative.config import DiscriminatorConfig, read_config  # noqa: E402
from deepssim.image_ops import resize_area  # noqa: E402
from deepssim.models.checkpoint import load_network  # noqa: E402
from deepssim.models.vae import Vae  # noqa: E402
from deepssim.phantom import make_cohort  # noqa: E402
from deepssim.train import loop  # noqa: E402
from deepssim.train.generative import vae as room  # noqa: E402
from deepssim.train.generative.adversary import Adversary, least_squares  # noqa: E402
from deepssim.train.generative.batches import Batch, Batches  # noqa: E402
from deepssim.train.generative.perceptual import Lpips, load_lpips, perceptual_of  # noqa: E402
from deepssim.train.generative.vae import VaeOptions, train_vae  # noqa: E402
from deepssim.train.generative.vae_loss import VaeObjective, VaeValidation, blur, kl_divergence, reconstruct  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("images")
    rows = [["image_path", "image_uid", "split"]]
    for n, (person, number, image) in enumerate(make_cohort(14, 2, seed=2)):
        path = root / f"{person}-{number}.png"
        Image.fromarray(np.rint(resize_area(image.astype(np.float32), 16, 16) * 255).astype(np.uint8)).save(path)
        rows.append([path.name, f"{person}-{number}", "train" if n < 22 else "valid"])
    with (root / "data.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows(rows)
    return root / "data.csv"


@pytest.fixture(scope="module")
def all_terms(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A configuration with every term of the loss, for images of 16 x 16."""
    path = tmp_path_factory.mktemp("config") / "terms.toml"
    path.write_text(
        "[vae]\nchannels = [4, 8]\nres_blocks = 1\nnorm_groups = 4\nattention_levels = [false, false]\n"
        "[discriminator]\nchannels = 4\nlayers = 1\n"
        "[vae_training]\nbatch_size = 6\nmicro_batch = 3\nadversarial_warm_up = 2\nema = 0.9\n"
    )
    return str(path)


def options(dataset: Path, out: Path, **changes: object) -> VaeOptions:
    base = {"dataset": dataset, "out": out, "config": "tiny", "device": "cpu", "steps": 4, "validate_every": 2,
            "save_every": 2, "workers": 1}  # fmt: skip
    return VaeOptions(**{**base, **changes})  # type: ignore[arg-type]


def log(folder: Path) -> list[dict[str, float]]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k != "seconds"} for line in lines]


def batch(n: int = 3, number: int = 0, side: int = 16) -> Batch:
    return Batch(torch.rand(n, 1, side, side, generator=torch.Generator().manual_seed(5)), number)


def test_the_vae_gives_images_back_better_than_a_blur_of_the_same_size(dataset, tmp_path):
    result = train_vae(options(dataset, tmp_path / "run", steps=280, validate_every=70, save_every=280))
    assert result.best["valid_l1"] < 0.95 * result.best["blur_l1"]
    assert result.best["valid_psnr"] > result.best["blur_psnr"]
    network, description = load_network(result.folder / "best.safetensors")
    assert (description.architecture, description.height, description.width) == ("vae", 16, 16)
    validation = VaeValidation(*_seen(dataset), 3 * 8 * 8, 4)
    assert validation.measure(network, CPU)["valid_l1"] == pytest.approx(result.best["valid_l1"], rel=1e-5)
    for name in ("reconstructions.png", "curves.png"):
        with Image.open(result.folder / name) as picture:
            assert picture.width >= 560


def _seen(dataset: Path):
    from deepssim.generative.data.records import load_images, read_dataset

    return (load_images(read_dataset(dataset).split("valid")),)


def test_a_killed_run_goes_on_to_the_same_bits_with_its_adversary(dataset, all_terms, tmp_path, monkeypatch):
    monkeypatch.setattr(room, "draw_vae_curves", lambda *_: None)
    changes = {"config": all_terms, "steps": 6, "validate_every": 4, "perceptual": "brain", "flip": True}
    whole = train_vae(options(dataset, tmp_path / "whole", keep_every=3, **changes)).folder
    update = loop._State.after_update

    def killed(state):
        if state.step == 5:  # the state is of step 4
            raise KeyboardInterrupt
        update(state)

    with monkeypatch.context() as patched:
        patched.setattr(loop._State, "after_update", killed)
        with pytest.raises(KeyboardInterrupt):
            train_vae(options(dataset, tmp_path / "cut", **changes))
    cut = train_vae(options(dataset, tmp_path / "cut", keep_every=3, **changes)).folder
    assert log(cut) == log(whole)
    assert "adversarial" in log(whole)[0]
    for name in ("last.safetensors", "step-000006.safetensors"):
        assert (cut / name).exists()
        left, right = (load_network(folder / name)[0].state_dict() for folder in (cut, whole))
        assert all(torch.equal(left[key], right[key]) for key in right)
    assert not (cut / "step-000003.safetensors").exists()  # it was not asked for then
    states = [torch.load(folder / "state.pt", weights_only=True) for folder in (cut, whole)]
    for key, value in states[1]["companion"]["network"].items():
        assert torch.equal(states[0]["companion"]["network"][key], value), key
    moments = [state["companion"]["optimizer"]["state"] for state in states]
    assert all(torch.equal(moments[0][k]["exp_avg"], moments[1][k]["exp_avg"]) for k in moments[1])
    # Two updates are warm-up, and two batches make an update.
    assert {int(moment["step"]) for moment in moments[1].values()} == {4}


def test_the_divergence_is_that_of_two_normal_distributions():
    mean, sigma = torch.randn(4, 3, 2, 2), torch.rand(4, 3, 2, 2) + 0.1
    normal = torch.distributions.Normal
    expected = torch.distributions.kl_divergence(normal(mean, sigma), normal(0.0, 1.0)).sum((1, 2, 3)).mean()
    torch.testing.assert_close(kl_divergence(mean, sigma), expected)


@pytest.mark.parametrize("is_real", [True, False])
def test_least_squares_are_those_of_monai(is_real):
    scores = torch.randn(2, 1, 5, 4)
    theirs = monai_losses.PatchAdversarialLoss(criterion="least_squares")
    expected = theirs(scores, target_is_real=is_real, for_discriminator=True)
    torch.testing.assert_close(least_squares(scores, is_real=is_real), expected)


def _learnt(objective: VaeObjective, term: str, n: int = 12) -> list[float]:
    """Return a term, step by step, where its part of the loss alone is made smaller."""
    torch.manual_seed(0)
    network = Vae(channels=(4, 8), res_blocks=1, norm_groups=4, attention_levels=(False, False))
    optimizer = torch.optim.Adam(network.parameters(), lr=5e-3)
    values = []
    for _ in range(n):
        draws = torch.Generator().manual_seed(3)
        loss, parts = objective.loss(network, batch(), draws, CPU)
        values.append(parts[term])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return values


@pytest.mark.parametrize("term", ["kl", "perceptual", "adversarial"])
def test_a_term_gets_smaller_when_it_is_taught(term):
    strong = 1e4  # beside it L1 does not count
    adversary = Adversary(DiscriminatorConfig(4, 1), strong, 1e-3)
    objective = {
        "kl": VaeObjective(strong),
        "perceptual": VaeObjective(0.0, perceptual_of("brain"), strong),
        "adversarial": VaeObjective(0.0, adversary=adversary),
    }[term]
    before = [weight.clone() for weight in adversary.network.parameters()]
    values = _learnt(objective, term)
    assert values[-1] < 0.9 * values[0]
    # What teaches the VAE does not teach its adversary.
    assert all(torch.equal(old, new) for old, new in zip(before, adversary.network.parameters(), strict=True))
    assert all(weight.grad is None for weight in adversary.network.parameters())


def test_the_adversary_learns_to_tell_images_from_reconstructions():
    adversary = Adversary(DiscriminatorConfig(8, 1), 0.125, 1e-3)
    optimizer = torch.optim.Adam(adversary.network.parameters(), lr=1e-3)
    images = batch(8).images
    seen = []
    for _ in range(30):
        adversary.judge(blur(images, 16), images)
        loss, parts = adversary.loss(batch(8), CPU)
        seen.append(parts["discriminator"])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert float(loss.detach()) == pytest.approx(0.125 * seen[-1])
    assert seen[-1] < 0.5 * seen[0]
    assert adversary.loss(batch(8), CPU) is None  # each judgement once


def test_the_adversary_waits_until_it_is_warm():
    adversary = Adversary(DiscriminatorConfig(4, 1), 1.0, 1e-3, warm_up=3)
    network = Vae(channels=(4, 8), res_blocks=1, norm_groups=4, attention_levels=(False, False))
    for number, is_warm in [(2, False), (3, True)]:
        parts = VaeObjective(0.0, adversary=adversary).loss(network, batch(2, number), torch.Generator(), CPU)[1]
        assert ("adversarial" in parts) is is_warm
        assert (adversary.loss(batch(2, number), CPU) is not None) is is_warm


def test_features_do_not_depend_on_the_batch_and_stay_as_they_are():
    distance = perceptual_of("chest").train()
    made, true = batch(4, side=32).images, batch(4, side=32).images.flip(3)
    single = torch.stack([distance(made[i : i + 1], true[i : i + 1]) for i in range(4)])
    torch.testing.assert_close(distance(made, true), single.mean())
    assert not any(weight.requires_grad for weight in distance.parameters())
    made.requires_grad_()
    distance(made, torch.zeros_like(true)).backward()  # an empty image has no contrast to go by
    assert torch.isfinite(made.grad).all()


def test_features_are_those_of_the_shipped_encoder():
    ort = pytest.importorskip("onnxruntime")
    onnx = pytest.importorskip("onnx")
    from importlib import resources

    model = onnx.load_from_string((resources.files("deepssim") / "metrics" / "brain.onnx").read_bytes())
    first = next(node.output[0] for node in model.graph.node if node.op_type == "Relu")
    model.graph.output.append(onnx.helper.make_empty_tensor_value_info(first))
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    images = batch(2, side=32).images
    theirs = session.run([first], {session.get_inputs()[0].name: images.numpy()})[0]
    unit = (images - images.mean((2, 3), keepdim=True)) / images.std((2, 3), keepdim=True, correction=0)
    np.testing.assert_allclose(perceptual_of("brain").layers[0](unit).numpy(), theirs, atol=1e-4)


def test_lpips_is_put_together_from_both_layouts_and_what_lacks_is_named(tmp_path):
    torch.manual_seed(2)
    network = Lpips()
    with torch.no_grad():
        for weights in network.channels:
            weights.uniform_(0, 1)
    squeeze = {k: v for k, v in network.state_dict().items() if k.startswith("features.")}
    lins = {f"lin{i}.model.1.weight": weights.detach() for i, weights in enumerate(network.channels)}
    torch.save({**squeeze, "classifier.1.weight": torch.zeros(2)}, tmp_path / "squeezenet.pth")
    torch.save(lins, tmp_path / "squeeze.pth")
    ends = (2, 5, 8, 10, 11, 12, 13)
    sliced = {
        f"net.slice{1 + sum(int(k.split('.')[1]) >= end for end in ends)}.{k.removeprefix('features.')}": v
        for k, v in squeeze.items()
    }
    torch.save({**sliced, **lins}, tmp_path / "lpips.pth")
    made, true = batch(2, side=32).images, batch(2, side=32).images.flip(2)
    expected = network(made, true)
    assert expected > 0
    for files in (["squeezenet.pth", "squeeze.pth"], ["lpips.pth"]):
        torch.testing.assert_close(load_lpips([tmp_path / name for name in files])(made, true), expected)
    with pytest.raises(MetricError, match=r"7 of its 57 weights are missing .*lin0\.model\.1\.weight"):
        load_lpips([tmp_path / "squeezenet.pth"])
    (tmp_path / "no.pth").write_bytes(b"no weights")
    with pytest.raises(MetricError, match=r"no\.pth holds no weights"):
        load_lpips([tmp_path / "no.pth"])


def test_a_blur_keeps_no_more_numbers_than_a_latent_and_the_mean():
    images = torch.rand(2, 1, 16, 12)
    for n_numbers in (1, 36, 100, 192):
        made = blur(images, n_numbers)
        assert made.shape == images.shape
        rank = np.linalg.matrix_rank(blur(torch.eye(192).view(192, 1, 16, 12), n_numbers).view(192, 192).numpy())
        assert rank <= n_numbers
    torch.testing.assert_close(blur(images, 192), images)
    torch.testing.assert_close(blur(images, 1), images.mean((2, 3), keepdim=True).expand_as(images))


def test_figures_of_the_validation_are_those_of_the_images(monkeypatch):
    images = np.random.default_rng(0).random((5, 8, 8)).astype(np.float32)

    class Off(torch.nn.Module):
        def encode(self, given):
            return given, given

        def decode(self, latents):
            return latents + 0.1

    figures = VaeValidation(images, 16, 2).measure(Off(), CPU)
    assert figures["valid_l1"] == figures["selection"] == pytest.approx(0.1, rel=1e-5)
    assert figures["valid_psnr"] == pytest.approx(20, rel=1e-5)
    made = reconstruct(Off(), torch.from_numpy(images)[:, None], CPU)
    np.testing.assert_allclose(made[:, 0], images + 0.1, rtol=1e-6)


def test_an_epoch_has_every_image_once():
    images = np.arange(7, dtype=np.float32)[:, None, None] * np.ones((7, 2, 2), np.float32)
    batches = list(Batches(images, 3, seed=1, n_batches=6).steps(0))
    for epoch in (batches[:3], batches[3:]):
        assert sorted(int(image.mean()) for one in epoch for image in one.images) == list(range(7))
    again = next(iter(Batches(images, 3, seed=1, n_batches=6).steps(4)))
    assert torch.equal(again.images, batches[4].images)


def test_half_of_the_images_are_mirrored_each_on_its_own():
    seen = []

    class Watch(torch.nn.Module):
        def forward(self, images, draws):
            seen.append(images)
            return images, images, images

    given = batch(64)
    VaeObjective(0.0, mirrored=-1).loss(Watch(), given, torch.Generator().manual_seed(0), CPU)
    is_mirrored = (seen[0] == given.images.flip(-1)).flatten(1).all(1)
    is_same = (seen[0] == given.images).flatten(1).all(1)
    assert (is_mirrored ^ is_same).all()
    assert 16 < int(is_mirrored.sum()) < 48


@pytest.mark.parametrize(
    ("asked", "expected"),
    [({}, 2), ({"accumulate": 3}, 3), ({"batch_size": 4}, 2), ({"max_batch_size": 16}, 1),
     ({"batch_size": 32, "max_batch_size": 8}, 4)],
)  # fmt: skip
def test_the_published_32_images_make_an_update(asked, expected, dataset):
    assert room._accumulate(options(dataset, Path("run"), **asked), read_config("paper-brain")) == expected


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": Path("folder")}, "--dataset-csv or --images-dir"),
        ({"config": "smal"}, "no configuration 'smal'"),
        ({"epochs": 3}, "--epochs and --steps"),
        ({"size": (15, 21)}, r"--size 15x21 .* multiples of 2 .*give --size 14x20 or 16x22"),
        ({"config": "paper-brain", "size": (16, 16)}, r"--size 16x16 pixels are too small for paper-brain: 24"),
        ({"perceptual": "knee"}, "--perceptual is knee: .* auto, brain, chest, none"),
        ({"perceptual": "brain"}, "tiny gives the perceptual term no weight"),
        ({"perceptual": "none", "perceptual_weights": (Path("a.pth"),)}, "contradict"),
        ({"config": "paper-brain", "perceptual_weights": (Path("a.pth"),)}, r"a\.pth cannot be read as weights"),
        ({"warm_up": 5}, "--adversarial-warm-up"),
        ({"batch_size": 4, "max_batch_size": 3}, "--max-batch-size is 3: it must divide --batch-size 4"),
        ({"accumulate": 2, "max_batch_size": 2}, "--accumulate and --max-batch-size"),
        ({"seed": -1}, "--seed is -1"),
    ],
)
def test_what_cannot_be_is_said_before_anything_is_written(changes, message, dataset, tmp_path):
    with pytest.raises((UsageError, MetricError), match=message) as caught:
        train_vae(options(dataset, tmp_path / "run", **changes))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_images_that_are_too_few_or_of_another_run_are_refused(dataset, tmp_path, monkeypatch):
    monkeypatch.setattr(room, "draw_vae_curves", lambda *_: None)
    lines = dataset.read_text().splitlines()
    few = dataset.with_name("few.csv")
    few.write_text("\n".join([lines[0], lines[1], lines[-1]]))
    with pytest.raises(UsageError, match="has 1 training image"):
        train_vae(options(few, tmp_path / "run"))
    fewer = dataset.with_name("fewer.csv")
    fewer.write_text("\n".join([*lines[:3], lines[-1]]))
    train_vae(options(fewer, tmp_path / "run", steps=2))
    with pytest.raises(UsageError, match=r"other settings \(data\)"):
        train_vae(options(dataset, tmp_path / "run", steps=2))
    with pytest.raises(UsageError, match=r"other settings .*config"):
        train_vae(options(fewer, tmp_path / "run", steps=2, config="paper-chest", size=(32, 32), perceptual="none"))
    moved = dataset.with_name("moved.csv")
    fewer.rename(moved)
    assert train_vae(options(moved, tmp_path / "run", steps=2)).best["step"] == 2


def test_the_script_takes_the_published_line_and_leaves_what_it_does(dataset, tmp_path, monkeypatch, capsys):
    scripts = Path(__file__).parents[2] / "scripts"
    monkeypatch.syspath_prepend(str(scripts))
    import importlib

    door = importlib.import_module("ldm_train_vae")
    out = tmp_path / "out"
    asked = ["--dataset_csv", dataset, "--output_dir", out, "--n_epochs", 1, "--config", "tiny"]
    monkeypatch.setattr(sys, "argv", ["ldm_train_vae.py", *map(str, asked)])
    door.main()
    state = torch.load(out / "models" / "autoencoder-ep-0.pth", weights_only=True)
    vae = read_config("tiny").vae
    network = Vae(**vae.as_dict()).network
    network.load_state_dict(state)  # MONAI's own names
    with (out / "history.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    last = log(out)[-1]
    assert float(rows[-1]["Generator/reconstruction_loss"]) == pytest.approx(last["l1"], abs=1e-6)
    assert {path.name for path in (out / "plots").iterdir()} == {"curves.png", "reconstructions.png"}
    assert "deepssim train vae" in capsys.readouterr().err


def test_the_command_and_the_library_agree_on_their_choices():
    from deepssim.cli import train_vae as command

    assert command.PERCEPTUAL == room.PERCEPTUAL
    published = read_config("paper-brain").vae_training
    helps = {option.name: option.help for option in command.command.params}
    assert f"{published.batch_size}]" in helps["batch_size"]
    assert f"{published.learning_rate:g}]" in helps["learning_rate"]
    assert f"{published.epochs}]" in helps["epochs"]
    assert f"{published.batch_size // published.micro_batch}]" in helps["accumulate"]
    assert replace(VaeOptions(out=Path("run")), steps=1).config == "paper-brain"
