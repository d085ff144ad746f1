"""Configurations: the published figures, and every fault of a file in one message."""

from __future__ import annotations

import json
import tomllib
from importlib import resources

import pytest

from deepssim.errors import UsageError
from deepssim.generative.config import (
    DiscriminatorConfig,
    GenerativeConfig,
    LdmTrainingConfig,
    UnetConfig,
    VaeConfig,
    VaeTrainingConfig,
    config_names,
    read_config,
)


def test_the_defaults_and_paper_brain_are_the_published_configuration():
    found = read_config("paper-brain").as_dict()
    assert found["size"] == [136, 112]
    assert found["vae"] == {
        "latent_channels": 3,
        "channels": [64, 128, 128],
        "res_blocks": 2,
        "norm_groups": 32,
        "norm_eps": 1e-6,
        "attention_levels": [False, False, False],
    }
    assert found["unet"]["channels"] == [256, 512, 768]
    assert found["unet"]["head_channels"] == [0, 512, 768]
    assert found["unet"]["attention_levels"] == [False, True, True]
    assert found["discriminator"] == {"channels": 32, "layers": 3}
    assert found["diffusion"] == {
        "steps": 1000,
        "schedule": "scaled_linear",
        "beta_start": 0.0015,
        "beta_end": 0.0205,
    }
    weights = [found["vae_training"][f"{part}_weight"] for part in ("kl", "perceptual", "adversarial")]
    assert weights == [1e-6, 0.1, 0.125]
    assert found["ldm_training"]["learning_rate"] == 2.5e-5
    defaults = GenerativeConfig("paper-brain", (136, 112)).as_dict()
    assert found == defaults


def test_paper_brain_names_every_key_and_the_packages_files_are_read_as_resources():
    table = tomllib.loads((resources.files("deepssim") / "configs" / "paper-brain.toml").read_text("utf-8"))
    told = read_config("paper-brain").as_dict()
    assert {section: set(value) for section, value in told.items() if isinstance(value, dict)} == {
        section: set(value) for section, value in table.items() if isinstance(value, dict)
    }
    assert config_names() == ("paper-brain", "paper-chest", "small", "tiny")


@pytest.mark.parametrize("name", ["paper-brain", "paper-chest", "small", "tiny"])
def test_a_configuration_survives_json(name):
    config = read_config(name)
    told = json.loads(json.dumps(config.as_dict()))
    assert GenerativeConfig.from_dict(told, name) == config


def test_a_copy_with_one_change_is_a_configuration(tmp_path):
    text = (resources.files("deepssim") / "configs" / "tiny.toml").read_text("utf-8")
    file = tmp_path / "mine.toml"
    file.write_text(text.replace("channels = [8, 16]", "channels = [8, 32]"), encoding="utf-8")
    config = read_config(file)
    assert (config.name, config.vae.channels) == ("mine", (8, 32))
    assert config.unet == read_config("tiny").unet


def test_all_faults_of_a_file_are_in_one_line(tmp_path):
    file = tmp_path / "bad.toml"
    file.write_text(
        "size = [10, 10]\ncolour = 1\n[vae]\nchannels = [10, 20]\ndepth = 3\nattention_levels = [true]\n"
        "[unet]\nhead_channels = [0, 512, 500]\nres_blocks = 2.5\n[diffusion]\nschedule = 'cosine'\nbeta_end = 1e-9\n"
        "[ldm_training]\nema = 1.0\nscale = 'auto'\n[extra]\na = 1\n",
        encoding="utf-8",
    )
    with pytest.raises(UsageError) as caught:
        read_config(file)
    text = str(caught.value)
    assert "\n" not in text
    for part in (
        "'colour', 'extra': not known; known are size, vae, unet",
        "'vae.depth': not known; known in [vae] are latent_channels, channels",
        "vae.channels has 10, 20, which vae.norm_groups = 32 does not divide",
        "vae.attention_levels has 1 entries and vae.channels 2",
        "unet.res_blocks is 2.5: it must be a whole number",
        "diffusion.schedule is 'cosine': it must be one of scaled_linear, linear",
        "diffusion.beta_start is 0.0015 and diffusion.beta_end 1e-09",
        "ldm_training.ema is 1: it must be at least 0, below 1",
        "ldm_training.scale is 'auto': it must be 'first-batch' or a number above 0",
    ):
        assert part in text


@pytest.mark.parametrize(
    ("build", "said"),
    [
        (lambda: UnetConfig(head_channels=(0, 512, 500)), "unet.head_channels[2] is 500, which the middle also uses"),
        (lambda: UnetConfig(attention_levels=(True, True, True)), "unet.head_channels[0] is 0"),
        (lambda: UnetConfig((32,), attention_levels=(False,), head_channels=(0,)), "which the middle also uses"),
        (lambda: VaeConfig(channels=(), attention_levels=()), "vae.channels has 0 levels: it must have 1 to 10"),
        (lambda: VaeConfig(channels=(64, 64, 10**6)), "vae.channels is [64, 64, 1000000]: it must be at most 16,384"),
        (lambda: VaeTrainingConfig(epochs=10**12), "vae_training.epochs is 1000000000000: it must be a whole number"),
        (lambda: VaeConfig(norm_groups=0), "vae.norm_groups is 0: it must be at least 1"),
        (lambda: VaeConfig(latent_channels=True), "vae.latent_channels is True: it must be a whole number"),
        (lambda: VaeTrainingConfig(batch_size=6, micro_batch=4), "must divide vae_training.batch_size = 6"),
        (lambda: VaeTrainingConfig(learning_rate=float("nan")), "a finite number"),
        (lambda: LdmTrainingConfig(scale=-1), "ldm_training.scale is -1.0"),
        (lambda: LdmTrainingConfig(drop_condition=1.5), "ldm_training.drop_condition is 1.5"),
        (
            lambda: GenerativeConfig("a", (135, 112)),
            "multiples of 4, since vae.channels has 3 levels; the next that is: 136",
        ),
        (lambda: GenerativeConfig("a", (136,)), "size is [136]: it must be [rows, columns]"),
    ],
)
def test_what_cannot_be_is_refused_with_its_key(build, said):
    with pytest.raises(UsageError) as caught:
        build()
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"[vae\n", "is no TOML"), (b"\xff\xfe", "is no TOML"), (b"vae = 3\n", "vae is 3: it must be a table, [vae]")],
)
def test_a_file_that_is_no_configuration_is_told(tmp_path, content, said):
    file = tmp_path / "bad.toml"
    file.write_bytes(content)
    with pytest.raises(UsageError, match=r"bad\.toml") as caught:
        read_config(file)
    assert said in str(caught.value)


def test_a_name_that_is_not_known_lists_those_that_are(tmp_path):
    with pytest.raises(UsageError, match="paper-brain, paper-chest, small, tiny"):
        read_config("paper-brian")
    with pytest.raises(UsageError, match="No such file"):
        read_config(tmp_path / "none.toml")


def test_the_discriminator_needs_as_many_pixels_as_its_convolutions_leave_one():
    def left(side: int, layers: int) -> int:
        for _ in range(layers):  # kernels of 4, padded by 1, steps of 2
            side = (side - 2) // 2 + 1
        return side - 2  # two more, steps of 1

    for layers in (1, 2, 3, 4):
        smallest = DiscriminatorConfig(layers=layers).smallest
        assert left(smallest, layers) == 1
        assert left(smallest - 1, layers) == 0
