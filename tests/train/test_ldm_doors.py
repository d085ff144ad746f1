"""What the scripts of the reference's names know of images that lie the other way round."""

from __future__ import annotations

import argparse
import importlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

torch = pytest.importorskip("torch")

from deepssim.errors import MetricError  # noqa: E402
from deepssim.generative.config import read_config  # noqa: E402
from deepssim.models.generative import load_vae  # noqa: E402
from deepssim.models.vae import Vae  # noqa: E402


@pytest.fixture
def loaded(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "scripts"))
    return importlib.import_module


@pytest.mark.parametrize("transpose", [False, True])
def test_a_state_dict_says_how_images_lay_and_is_monais_all_the_same(loaded, tmp_path, transpose):
    door = loaded("door_ldm")
    vae = Vae(**read_config("tiny").vae.as_dict())
    door.save_state_dict(
        {**vae.state_dict(), "scale_factor": torch.tensor(1.0)}, tmp_path / "v.pth", transpose=transpose
    )
    assert door.is_transposed(tmp_path / "v.pth") is transpose
    vae.network.load_state_dict(torch.load(tmp_path / "v.pth", weights_only=True))
    again, _ = load_vae(tmp_path / "v.pth", "tiny", size=(32, 32))
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), vae.parameters(), strict=True))
    with pytest.raises(MetricError, match=r"channels = \[8, 16\], not .*; give --config tiny, which it fits"):
        load_vae(tmp_path / "v.pth")
    # Those of others do not say it, and what is no state dict neither.
    torch.save(vae.network.state_dict(), tmp_path / "other.pth")
    (tmp_path / "none.pth").write_bytes(b"none")
    assert [door.is_transposed(tmp_path / f"{name}.pth") for name in ("other", "none", "absent")] == [None] * 3


@pytest.mark.parametrize(
    ("shape", "size", "is_transposed"),
    [
        ((136, 112), "136x112", False),
        ((112, 136), "136x112", True),
        ((32, 32), "32x32", False),
        ((40, 32), "40x32", False),
    ],
)
def test_images_are_exchanged_where_only_so_they_have_the_published_size(loaded, tmp_path, shape, size, is_transposed):
    Image.fromarray(np.arange(shape[0] * shape[1], dtype=np.uint8).reshape(shape)).save(tmp_path / "a.png")
    (tmp_path / "a.csv").write_text("image_path,image_uid,split\na.png,a,train\n")
    flags = argparse.Namespace(dataset_csv=tmp_path / "a.csv", size=None, transpose=False, config="paper-brain")
    assert loaded("ldm_train_vae")._geometry(flags) == (size, is_transposed)


def test_the_last_epoch_is_the_last_that_was_asked_for(loaded):
    # Three latents and batches of eight: one batch is two epochs and two thirds.
    looks = [{"step": 1, "epoch": 8 / 3}]
    assert loaded("ldm_train_diff")._epochs(looks, 1) == {1: 0}
    assert loaded("ldm_train_diff")._epochs(looks, 100) == {1: 1}
