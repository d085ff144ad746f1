"""Sampling with real networks: MONAI's own scheduler, the same bits alone and among others, the command line."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("monai")

from deepssim.errors import MetricError, UsageError  # noqa: E402
from deepssim.generate import find_device, load_backend  # noqa: E402
from deepssim.generative.config import DiffusionConfig, read_config  # noqa: E402
from deepssim.generative.data.conditions import PUBLISHED_VARIABLES, ConditionSpec, Variable  # noqa: E402
from deepssim.generative.sampling.plan import plan_records  # noqa: E402
from deepssim.generative.sampling.png import png_bytes  # noqa: E402
from deepssim.generative.sampling.sampler import Request, noise_of, sample  # noqa: E402
from deepssim.generative.sampling.schedule import alphas_cumprod, ddim_steps  # noqa: E402
from deepssim.models.checkpoint import Description, save_network  # noqa: E402
from deepssim.models.generative import weights_hash  # noqa: E402
from deepssim.models.unet import Unet  # noqa: E402
from deepssim.models.vae import Vae  # noqa: E402

SIZE = (16, 12)
UIDS = ("p1", "p/2", "p3")


def make_model(folder: Path, *, seed: int = 0, drop: float = 0.0) -> tuple[Path, Path]:
    """Write a tiny model with random weights, conditioned on the published variables."""
    config = read_config("tiny")
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        vae = Vae(**config.vae.as_dict())
        unet = Unet(**config.unet.as_dict(), latent_channels=3, context_dim=6)
        for parameter in unet.parameters():
            if not parameter.abs().sum():  # MONAI begins with noise that is always zero
                torch.nn.init.normal_(parameter, std=0.05)
    unet.scale_factor.fill_(1.3)
    folder.mkdir(exist_ok=True)
    spec = ConditionSpec("variables", 6, tuple(map(Variable, PUBLISHED_VARIABLES)))
    training = {
        "diffusion": config.diffusion.as_dict(), "conditions": spec.as_dict(), "image": list(SIZE),
        "vae_hash": weights_hash(vae.state_dict()), "drop_condition": drop,
    }  # fmt: skip
    arguments = {**config.unet.as_dict(), "latent_channels": 3, "context_dim": 6}
    paths = folder / "vae.safetensors", folder / "unet.safetensors"
    save_network(paths[0], vae.state_dict(), Description("vae", config.vae.as_dict(), *SIZE))
    save_network(paths[1], unet.state_dict(), Description("unet", arguments, *SIZE, training=training))
    return paths


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return make_model(tmp_path_factory.mktemp("model"), drop=0.1)


@pytest.fixture(scope="module")
def backend(model):
    return load_backend(*model, batch=4, threads=1)


@pytest.fixture(scope="module")
def plan():
    contexts = np.random.default_rng(0).random((3, 1, 6), np.float32)
    return plan_records(UIDS, 3, contexts)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    lines = [",".join(("image_path", "image_uid", "split", *PUBLISHED_VARIABLES))]
    rng = np.random.default_rng(0)
    for i in range(3):
        (folder / f"{i}.png").write_bytes(png_bytes(rng.integers(9, 99, SIZE, np.uint8)))
        lines.append(f"{i}.png,p{i},train,{','.join(f'{x:.3f}' for x in rng.random(6))}")
    (folder / "data.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder / "data.csv"


@pytest.mark.parametrize("n_steps", [1, 4, 50, 300])
def test_steps_are_those_of_monai(n_steps):
    from monai.networks.schedulers import DDIMScheduler

    config = DiffusionConfig()
    scheduler = DDIMScheduler(1000, "scaled_linear_beta", beta_start=0.0015, beta_end=0.0205, clip_sample=False)
    scheduler.set_timesteps(n_steps)
    np.testing.assert_allclose(alphas_cumprod(config), scheduler.alphas_cumprod.numpy(), rtol=2e-5)
    z, noise = torch.randn(2, 1, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    for step in ddim_steps(config, n_steps):
        expected, _ = scheduler.step(noise, step.timestep, z)
        np.testing.assert_allclose(step.keep * z + step.add * noise, expected, atol=2e-5)


def test_the_whole_chain_is_that_of_monai(backend, model, plan):
    from monai.networks.schedulers import DDIMScheduler

    from deepssim.models.generative import load_unet, load_vae

    vae, unet = load_vae(model[0])[0], load_unet(model[1])[0]
    scheduler = DDIMScheduler(1000, "scaled_linear_beta", beta_start=0.0015, beta_end=0.0205, clip_sample=False)
    scheduler.set_timesteps(8)
    request = plan.request(4)
    z = torch.from_numpy(noise_of(5, request.uid, request.number, (3, 8, 6)))[None]
    with torch.no_grad():
        for t in range(875, -1, -125):
            noise = unet(z, torch.tensor([t]), torch.from_numpy(request.context)[None])
            z, _ = scheduler.step(noise, t, z)
        expected = vae.decode(z / 1.3)[0, 0].numpy()
    (image,) = sample(backend, [request], steps=8, seed=5)
    np.testing.assert_allclose(image, expected, atol=2e-5)


@pytest.mark.parametrize("guidance", [1.0, 2.5])
def test_an_image_is_the_same_to_the_last_bit_alone_and_among_others(backend, plan, guidance):
    together = list(sample(backend, map(plan.request, plan.wanted()), steps=3, guidance=guidance))
    assert len({image.tobytes() for image in together}) == 9
    for place in (0, 6, 8):
        (alone,) = sample(backend, [plan.request(place)], steps=3, guidance=guidance)
        assert alone.tobytes() == together[place].tobytes()
        # Nor does its seat matter here, so another plan gives the same image.
        request = plan.request(place)
        (elsewhere,) = sample(
            backend, [Request(request.uid, request.number, request.context)], steps=3, guidance=guidance
        )
        assert elsewhere.tobytes() == together[place].tobytes()


def test_networks_that_do_not_belong_together_are_refused(model, tmp_path):
    other = make_model(tmp_path / "other", seed=1)
    with pytest.raises(MetricError, match="another VAE"):
        load_backend(other[0], model[1])
    with pytest.raises(MetricError, match="no VAE"):
        load_backend(model[1], model[1])


def test_a_gpu_that_is_not_there_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert find_device("auto").type == "cpu"
    for device in ("cuda", "tpu"):
        with pytest.raises(UsageError):
            find_device(device)


def test_neither_threads_nor_random_state_are_left_changed(model, plan):
    before = torch.get_num_threads(), torch.random.get_rng_state()
    list(sample(load_backend(*model, batch=2, threads=3), [plan.request(0)], steps=1))
    assert torch.get_num_threads() == before[0]
    assert torch.equal(torch.random.get_rng_state(), before[1])


def command(model, dataset, *more):
    return ["generate", "--vae", model[0], "--diffusion", model[1], "--dataset-csv", dataset, "--steps", "2",
            "--n-gen-per-record", "3", "--batch-size", "4", *more]  # fmt: skip


def test_the_command_fills_a_folder_as_the_reference_does(deepssim_here, model, dataset, tmp_path):
    out = tmp_path / "out"
    flags = ["--aekl_ckpt", model[0], "--diff_ckpt", model[1], "--dataset_csv", dataset, "--output_path", out]
    shapes = ["--conditioning", "variables", "--latent_shape", "3x8x6", "--vae_space_shape", "3x8x6"]
    done = deepssim_here("generate", *flags, *shapes, "--n_gen_per_record", 2, "--steps", 2, "--training-images")
    assert done.returncode == 0, done.stderr
    found = sorted(path.relative_to(out).as_posix() for path in out.rglob("*.png"))
    assert found == [f"p{i}/{name}.png" for i in range(3) for name in ("gen-0", "gen-1", "training")]


def test_one_image_made_again_is_the_one_of_the_archive(deepssim_here, model, dataset, tmp_path):
    done = deepssim_here(*command(model, dataset, "--out", tmp_path / "a.tar"))
    assert done.returncode == 0, done.stderr
    done = deepssim_here(*command(model, dataset, "--out", tmp_path / "f", "--only", "p2/1"))
    assert done.returncode == 0, done.stderr
    (made,) = (tmp_path / "f").rglob("*.png")
    with tarfile.open(tmp_path / "a.tar") as archive:
        member = archive.extractfile("p2/gen-1.png")
        assert member is not None
        assert member.read() == made.read_bytes()


def test_a_stream_is_the_file_of_the_same_images(deepssim_here, model, dataset, tmp_path, monkeypatch):
    import deepssim.cli.generate as room

    for kind in ("tar", "npy"):
        pipe = io.FileIO(tmp_path / "pipe", "w")
        monkeypatch.setattr(room, "_take_stdout", lambda pipe=pipe: pipe)
        done = deepssim_here(*command(model, dataset, "--out", "-", "--format", kind))
        assert (done.returncode, done.stdout) == (0, ""), done.stderr
        pipe.close()
        deepssim_here(*command(model, dataset, "--out", tmp_path / f"a.{kind}"))
        assert (tmp_path / "pipe").read_bytes() == (tmp_path / f"a.{kind}").read_bytes()


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--latent-shape", "3x36x28"], "make it 3x8x6"),
        (["--size", "8x8"], "images of 16x12 pixels"),
        (["--split", "test"], "no image with the split test"),
        (["--guidance", "-1"], "--guidance"),
        (["--steps", "1001"], "1 to 1,000"),
        (["--only", "p9/0"], "'p9/0'"),
        (["--n-images", "3"], "either --dataset-csv CSV or --n-images N"),
        (["--conditioning", "none"], "give --conditioning variables"),
        (["--conditioning", "age"], "no conditioning 'age'"),
        (["--text-encoder", "x"], "conditions are variables, not text"),
        (["--onnx", "."], "--vae, --diffusion: not with --onnx"),
        (["--dtype", "float32", "--format", "npy"], "--format: only with --out -"),
        (["--dtype", "float32"], "--dtype: only of a stack"),
        (["--keep", "3", "--holdout", "x"], "--holdout, --keep: only with --audit"),
    ],
)
def test_what_does_not_fit_is_one_line_that_says_so(deepssim_here, model, dataset, tmp_path, more, words):
    done = deepssim_here(*command(model, dataset, "--out", tmp_path / "out", *more))
    assert done.returncode in (1, 2)
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()
