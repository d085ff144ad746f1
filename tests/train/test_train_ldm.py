"""The training of the U-Net: repeats hold, noise is DDPM's, a kill costs nothing, one image is learnt by heart."""

from __future__ import annotations

import csv
import importlib.util
import json
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

torch = pytest.importorskip("torch")
pytest.importorskip("accelerate")
schedulers = pytest.importorskip("monai.networks.schedulers")

from deepssim.errors import MetricError, UsageError  # noqa: E402
from deepssim.generate import load_backend  # noqa: E402
from deepssim.generative.config import read_config  # noqa: E402
from deepssim.generative.data.records import Record  # noqa: E402
from deepssim.generative.sampling.sampler import Request, sample  # noqa: E402
from deepssim.generative.sampling.schedule import alphas_cumprod  # noqa: E402
from deepssim.image_ops import resize_area  # noqa: E402
from deepssim.models.checkpoint import Description, load_network, save_network  # noqa: E402
from deepssim.models.unet import Unet  # noqa: E402
from deepssim.models.vae import Vae  # noqa: E402
from deepssim.phantom import make_cohort  # noqa: E402
from deepssim.progress import Silent  # noqa: E402
from deepssim.train import loop  # noqa: E402
from deepssim.train.generative import ldm as room  # noqa: E402
from deepssim.train.generative import noise  # noqa: E402
from deepssim.train.generative.ldm import LdmOptions, train_ldm  # noqa: E402
from deepssim.train.generative.ldm_parts import read_parts  # noqa: E402
from deepssim.train.generative.noise import Clock, LatentSource, LatentTable, NoiseObjective, NoiseValidation  # noqa: E402
from deepssim.train.generative.samples import Gallery, draw_ldm_curves, nearest_images, read_notes  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread", "quick_looks")

CPU = torch.device("cpu")
CONFIG = """
[vae]
channels = [8, 16]
res_blocks = 1
norm_groups = 4
attention_levels = [false, false]
[unet]
channels = [16, 16]
res_blocks = 1
attention_levels = [false, false]
head_channels = [0, 16]
norm_groups = 8
resblock_updown = false
[ldm_training]
batch_size = 16
learning_rate = 5e-3
clip = 1.0
ema = 0.9
"""
ONE_LEVEL = (
    ("channels = [16, 16]", "channels = [32]"),
    ("attention_levels = [false, false]\nhead_channels = [0, 16]", "attention_levels = [false]\nhead_channels = [32]"),
)
COLUMNS = ("image_path", "image_uid", "split", "patient", "age", "sex", "repeat")


def write_list(path: Path, rows) -> Path:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([COLUMNS, *rows])
    return path


@pytest.fixture(scope="module")
def quick_looks():
    """A look at few latents, and no curves but where they are looked for."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(noise, "_N_LOOKED_AT", 8)
        patched.setattr(room, "draw_ldm_curves", lambda *_: None)
        yield


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Six images of six people, a list of them, one of the first alone, and a configuration."""
    root = tmp_path_factory.mktemp("data")
    rows = []
    for number, (_, _, image) in enumerate(make_cohort(6, 1, seed=2)):
        small = resize_area(np.asarray(image, np.float32), 16, 10)
        Image.fromarray((small * 255).astype(np.uint8)).save(root / f"p{number}.png")
        split = "train" if number < 4 else "valid"
        rows.append(
            [f"p{number}.png", f"p{number}", split, f"person {number}", 50 + number, "FM"[number % 2], number + 1]
        )
    write_list(root / "all.csv", rows)
    write_list(root / "one.csv", rows[:1])
    (root / "mine.toml").write_text(CONFIG)
    one_level = CONFIG
    for before, after in ONE_LEVEL:
        one_level = one_level.replace(before, after)
    (root / "one.toml").write_text(one_level)
    return root


@pytest.fixture(scope="module")
def vae(data) -> Path:
    """An autoencoder that knows the first image well."""
    torch.set_num_threads(1)
    config = read_config(str(data / "mine.toml")).vae
    image = torch.from_numpy(np.asarray(Image.open(data / "p0.png"), np.float32)[None, None])
    image = (image - image.min()) / (image.max() - image.min())
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        network = Vae(**config.as_dict())
        optimizer = torch.optim.Adam(network.parameters(), 5e-3, fused=True)
        for _ in range(250):
            made, mean, _ = network(image)
            ((made - image).abs().mean() + 1e-2 * mean.square().mean()).backward()
            optimizer.step()
            optimizer.zero_grad()
    path = data / "vae.safetensors"
    save_network(path, network.state_dict(), Description("vae", config.as_dict(), 16, 10, "vae", {"transpose": False}))
    return path


def options(data: Path, out: Path, **changes: object) -> LdmOptions:
    base = {"vae": data / "vae.safetensors", "config": str(data / "mine.toml"), "dataset": data / "all.csv", "out": out,
            "device": "cpu", "steps": 4, "batch_size": 4, "validate_every": 2, "save_every": 2, "sample_steps": 2,
            "seed": 4}  # fmt: skip
    return LdmOptions(**{**base, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize(("n_processes", "batch_size"), [(1, 4), (1, 32), (3, 5)])
def test_every_epoch_has_each_image_as_often_as_it_is_repeated(n_processes, batch_size):
    repeats = [3, 1, 5, 2]
    n_steps = 3 * 11 * 4  # of each process: whole epochs, whatever the batches
    sides = [
        LatentSource.of(repeats, batch_size=batch_size, seed=7, n_steps=n_steps, process=i, n_processes=n_processes)
        for i in range(n_processes)
    ]
    batches = [batch.tolist() for step in zip(*(side.steps(0) for side in sides), strict=True) for batch in step]
    assert {len(batch) for batch in batches} == {batch_size}
    drawn = [row for batch in batches for row in batch]
    epochs = [drawn[start : start + 11] for start in range(0, len(drawn), 11)]
    assert all(Counter(epoch) == {0: 3, 1: 1, 2: 5, 3: 2} for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs[:20]}) > 15  # each in an order of its own
    assert [batch.tolist() for batch in sides[0].steps(5)] == [b.tolist() for b in sides[0].steps(0)][5:]


class Zero(torch.nn.Module):
    """Sees no noise, and remembers what it was shown."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple] = []

    def forward(self, latents, timesteps, context=None):
        self.seen.append((latents, timesteps, context))
        return torch.zeros_like(latents)


def test_noise_is_added_as_ddpm_does_and_conditions_are_dropped():
    config = read_config("paper-brain").diffusion
    alphas = torch.from_numpy(alphas_cumprod(config).astype(np.float32))
    table = LatentTable(torch.randn(5, 3, 4, 4), torch.ones(5, 1, 2))
    network, rows = Zero(), torch.arange(5).repeat(400)
    draws = torch.Generator().manual_seed(3)
    loss, _ = NoiseObjective(table, alphas, 0.25).loss(network, rows, draws, CPU)
    noisy, timesteps, context = network.seen[0]
    theirs = schedulers.DDPMScheduler(1000, "scaled_linear_beta", beta_start=0.0015, beta_end=0.0205)
    noise = torch.randn(noisy.shape, generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(noisy, theirs.add_noise(table.latents[rows], noise, timesteps), atol=1e-5, rtol=0)
    assert float(loss) == pytest.approx(float(noise.square().mean()))
    assert timesteps.min() < 10
    assert timesteps.max() > 989
    assert float(timesteps.float().mean()) == pytest.approx(499.5, abs=25)
    assert float(context[:, 0, 0].mean()) == pytest.approx(0.75, abs=0.04)
    assert ((context == 0) | (context == 1)).all()
    assert (context[:, 0, 0] == context[:, 0, 1]).all()


def test_a_look_compares_both_sides_at_the_same_noise_and_without_one_the_last_weights_are_best():
    alphas = torch.linspace(0.99, 0.01, 100)
    table, clock = LatentTable(torch.randn(6, 3, 4, 4)), Clock(7, 1.5)
    rows = np.arange(6)
    figures = NoiseValidation.of(table, rows, rows, alphas, clock).measure(Zero(), CPU)
    assert figures["gap"] == 0
    assert figures["selection"] == figures["valid_loss"]
    assert figures["epoch"] == 1.5
    looks = [NoiseValidation.of(table, rows[:2], rows[2:], alphas, clock).measure(Zero(), CPU) for _ in range(2)]
    assert looks[0] == looks[1]
    alone = NoiseValidation.of(table, rows[:0], rows, alphas, clock)
    selections = []
    for clock.step in (1, 2):
        selections.append(alone.measure(Zero(), CPU)["selection"])
    assert selections[1] < selections[0]


def test_one_image_is_learnt_by_heart_and_its_samples_show_it(data, vae, tmp_path):
    told = []

    class Watching(Silent):
        def status(self, text):
            told.append(text)

    asked = options(
        data, tmp_path, config=str(data / "one.toml"), dataset=data / "one.csv", steps=80, batch_size=16,
        validate_every=80, sample_steps=10,
    )  # fmt: skip
    result = train_ldm(asked, Watching())
    assert any("the last weights are the best ones" in line for line in told)
    assert result.best["step"] == 80
    backend = load_backend(vae, tmp_path / "best.safetensors", device="cpu", batch=8)
    images = [np.asarray(Image.open(data / f"p{i}.png"), np.float32).ravel() for i in range(6)]
    samples = list(sample(backend, [Request("new", number) for number in range(8)], steps=10, seed=9))
    correlations = np.corrcoef([made.ravel() for made in samples], images)[:8, 8:]
    assert np.median(correlations[:, 0]) > 0.95
    assert (correlations.argmax(axis=1) == 0).all()
    notes = json.loads((tmp_path / "samples.jsonl").read_text())
    assert notes["step"] == 80
    assert {found["nearest"] for found in notes["samples"]} == {"p0"}
    assert np.median([found["correlation"] for found in notes["samples"]]) > 0.95
    with Image.open(tmp_path / "samples-000080.png") as picture:
        assert picture.width > 700
    assert result.best["scale_factor"] == pytest.approx(backend.facts.scale_factor)


@pytest.fixture(scope="module")
def whole(data, vae, tmp_path_factory):
    asked = options(data, tmp_path_factory.mktemp("runs") / "whole", conditioning="variables", variables=("age", "sex"),
                    scaler="standard", drop_condition=0.3, duplication="column:repeat", keep_every=2)  # fmt: skip
    return asked, train_ldm(asked)


def test_a_killed_run_goes_on_to_the_same_bits(whole, data, tmp_path, monkeypatch):
    asked, done = whole
    changes = {
        name: getattr(asked, name) for name in ("conditioning", "variables", "scaler", "drop_condition", "duplication")
    }
    update = loop._State.after_update

    def killed(state):
        if state.step == 3:
            raise KeyboardInterrupt
        update(state)

    with monkeypatch.context() as patched:
        patched.setattr(loop._State, "after_update", killed)
        with pytest.raises(KeyboardInterrupt):
            train_ldm(options(data, tmp_path, **changes))
    cut = train_ldm(options(data, tmp_path, **changes))
    assert {**cut.best, "seconds": 0} == {**done.best, "seconds": 0}
    for name in ("last", "best"):
        states = [load_network(run.folder / f"{name}.safetensors")[0].state_dict() for run in (done, cut)]
        for key, tensor in states[0].items():
            assert torch.equal(tensor, states[1][key]), key
    assert (tmp_path / "samples.jsonl").read_text() == (done.folder / "samples.jsonl").read_text()


def test_a_run_leaves_what_sampling_and_readers_need(whole, data, vae):
    done = whole[1]
    network, description = load_network(done.folder / "best.safetensors")
    assert isinstance(network, Unet)
    training = description.training
    assert {"diffusion", "conditions", "image", "vae_hash", "drop_condition", "transpose"} <= set(training)
    assert load_backend(vae, done.folder / "best.safetensors", device="cpu").facts.is_guidable
    assert [path.name for path in sorted(done.folder.glob("step-*"))] == [
        "step-000002.safetensors",
        "step-000004.safetensors",
    ]
    with (done.folder / "train-used.csv").open() as file:
        used = list(csv.DictReader(file))
    assert [tuple(row.values()) for row in used] == [(f"p{i}", f"person {i}", str(i + 1)) for i in range(4)]
    log = [json.loads(line) for line in (done.folder / "metrics.jsonl").read_text().splitlines()]
    assert log[-1]["epoch"] == pytest.approx(4 * 4 / (1 + 2 + 3 + 4))
    draw_ldm_curves(log, read_notes(done.folder), done.folder / "curves.png")
    with Image.open(done.folder / "curves.png") as picture:
        assert picture.width > 1000
    assert log[-1]["gap"] == pytest.approx(log[-1]["valid_loss"] - log[-1]["train_loss"])
    # The first batch, and its latents, by other means.
    order = np.random.default_rng([4, 0]).permutation(10)[:4]
    rows = np.repeat(np.arange(4), [1, 2, 3, 4])[order]
    images = np.stack([np.asarray(Image.open(data / f"p{i}.png"), np.float32) for i in rows])[:, None]
    low, high = images.min((1, 2, 3), keepdims=True), images.max((1, 2, 3), keepdims=True)
    with torch.no_grad():
        latents = load_network(vae)[0].encode(torch.from_numpy((images - low) / (high - low)))[0]
    assert float(network.scale_factor) == pytest.approx(1 / float(latents.std(correction=0)), rel=1e-4)


def test_a_run_starts_from_the_weights_of_another(whole, data, tmp_path):
    changes = {
        "weights": whole[1].folder / "last.safetensors",
        "conditioning": "variables",
        "variables": ("age", "sex"),
        "scaler": "standard",
        "sample_steps": 0,
        "learning_rate": 1e-12,
        "steps": 1,
        "ema": 0.0,
    }
    result = train_ldm(options(data, tmp_path, **changes))
    start, now = (load_network(folder / "last.safetensors")[0].state_dict() for folder in (whole[1].folder, tmp_path))
    assert all(torch.allclose(start[name], now[name], atol=1e-8) for name in start)
    assert result.best["scale_factor"] == pytest.approx(float(start["scale_factor"]))
    assert not list(tmp_path.glob("samples*"))
    (data / "wide.toml").write_text(CONFIG.replace("channels = [16, 16]", "channels = [16, 32]"))
    with pytest.raises(MetricError, match=r"another size than the configuration wide says: channels = \[16, 16\]"):
        read_parts(options(data, tmp_path, config=str(data / "wide.toml"), **{**changes, "ema": None}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"latent_shape": "3x36x28"}, "--latent-shape is 3x36x28: .* make it 3x8x6"),
        ({"vae_space_shape": "3x34x28"}, "--vae-space-shape is 3x34x28: .* make it 3x8x5"),
        ({"size": (24, 10)}, r"trained on images of 16 x 10 pixels, and these are of 24 x 10: give --size 16x10"),
        ({"transpose": True}, "exchanged: --transpose.*trained without --transpose: leave it out"),
        ({"conditioning": "variables"}, "age_norm.*gm_perc"),
        ({"conditioning": "text"}, "caption_emb_path"),
        ({"conditioning": "words"}, "no conditioning 'words'"),
        ({"duplication": "much"}, "no duplication 'much'"),
        ({"drop_condition": 0.1}, "--drop-condition leaves out conditions, and there are none"),
        ({"variables": ("age",)}, "--variables are what --conditioning variables takes"),
        ({"text_encoder": "bert"}, "--text-encoder embeds captions"),
        ({"epochs": 3}, "--epochs and --steps both say how long"),
        ({"sample_steps": 1001}, "--sample-steps is 1,001, and the diffusion has 1,000"),
        ({"scale_factor": -1.0}, "ldm_training.scale is -1"),
        ({"seed": -1}, "--seed is -1"),
        ({"config": "huge"}, "huge"),
        ({"config": "paper-brain", "size": (16, 10)}, None),
    ],
)
def test_what_cannot_be_is_said_before_anything_is_written(changes, message, data, vae, tmp_path):
    if message is None:
        assert read_parts(options(data, tmp_path, **changes)).shapes.padded == (3, 8, 8)
        return
    with pytest.raises(UsageError, match=message):
        train_ldm(options(data, tmp_path / "run", **changes))
    assert not (tmp_path / "run").exists()


def test_a_network_that_is_no_autoencoder_or_of_other_channels_is_refused(data, vae, whole, tmp_path):
    with pytest.raises(MetricError, match="is no VAE: it holds a U-Net"):
        read_parts(options(data, tmp_path, vae=whole[1].folder / "best.safetensors"))
    (data / "four.toml").write_text(CONFIG.replace("[vae]", "[vae]\nlatent_channels = 4"))
    with pytest.raises(UsageError, match=r"3 channels, and the configuration four says 4: give the --config"):
        read_parts(options(data, tmp_path, config=str(data / "four.toml")))


def test_the_nearest_training_image_is_the_one_of_the_highest_correlation(tmp_path):
    rng = np.random.default_rng(1)
    images = rng.random((9, 60, 52)).astype(np.float32)
    images = (images - images.min((1, 2), keepdims=True)) / np.ptp(images, axis=(1, 2), keepdims=True)
    records = []
    for number, image in enumerate(images):
        np.save(tmp_path / f"{number}.npy", image)
        records.append(Record(str(number), tmp_path / f"{number}.npy", "train"))
    thumbnails = np.stack([np.rint(255 * resize_area(image, 48, 42)).astype(np.uint8) for image in images])
    samples = 0.3 * rng.random((4, 60, 52)).astype(np.float32) + images[[7, 2, 2, 5]]
    found, nearest, correlations = nearest_images(samples, Gallery(records, thumbnails, None, False))
    assert [record.uid for record in found] == ["7", "2", "2", "5"]
    np.testing.assert_allclose(nearest[0], images[7], atol=1e-6)
    expected = [np.corrcoef(a.ravel(), images[i].ravel())[0, 1] for a, i in zip(samples, (7, 2, 2, 5), strict=True)]
    np.testing.assert_allclose(correlations, expected, atol=1e-5)


def test_the_door_runs_the_readme_line_and_leaves_what_its_users_expect(data, vae, tmp_path, monkeypatch, capsys):
    scripts = Path(__file__).parents[2] / "scripts"
    monkeypatch.syspath_prepend(str(scripts))
    spec = importlib.util.spec_from_file_location("ldm_train_diff", scripts / "ldm_train_diff.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    out = tmp_path / "out"
    flags = ["--dataset_csv", data / "all.csv", "--output_dir", out, "--aekl_ckpt", vae, "--conditioning", "none",
             "--duplication", "low", "--latent_shape", "3x8x6", "--vae_space_shape", "3x8x5", "--n_epochs", 2,
             "--batch_size", 8, "--config", data / "mine.toml", "--device", "cpu"]  # fmt: skip
    monkeypatch.setattr(sys, "argv", ["ldm_train_diff.py", *map(str, flags)])
    script.main()
    with (out / "history.csv").open() as file:
        history = list(csv.DictReader(file))
    assert [(row["epoch"], row["mode"]) for row in history] == [(e, m) for e in "01" for m in ("train", "valid")]
    state = torch.load(out / "models" / "unet-ep-1.pth", weights_only=True)
    assert set(state) == set(Unet(**read_config(str(data / "mine.toml")).unet.as_dict()).network.state_dict())
    with (out / "run" / "train-used.csv").open() as file:
        counts = {row["image_uid"]: int(row["multiplicity"]) for row in csv.DictReader(file)}
    with (out / "train-used.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert Counter(row["image_uid"] for row in rows) == counts
    assert rows[0]["age"] == "50"
    assert list((out / "plots").glob("gen_*.png"))
    assert "deepssim train ldm" in capsys.readouterr().err
    # A wrong shape ends the script with the right one.
    monkeypatch.setattr(sys, "argv", [*sys.argv, "--latent_shape", "3x36x28"])
    with pytest.raises(SystemExit) as end:
        script.main()
    assert end.value.code == 2
    assert "make it 3x8x6" in capsys.readouterr().err
