"""Latents that are kept: those of the autoencoder, of no other images or weights, and whole after a kill."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("accelerate")

from deepssim.disk import locked  # noqa: E402
from deepssim.errors import MetricError, UsageError  # noqa: E402
from deepssim.generative.config import read_config  # noqa: E402
from deepssim.generative.data.records import Record, load_images  # noqa: E402
from deepssim.models.generative import weights_hash  # noqa: E402
from deepssim.models.vae import Vae  # noqa: E402
from deepssim.progress import Silent  # noqa: E402
from deepssim.train.generative import latents as room  # noqa: E402
from deepssim.train.generative.latents import LatentKey, image_digests, read_latents  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")

CONFIG = read_config("tiny").vae


def make_vae(seed: int) -> Vae:
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        return Vae(**CONFIG.as_dict()).eval()


@pytest.fixture(scope="module")
def vae() -> Vae:
    return make_vae(0)


@pytest.fixture(scope="module")
def records(tmp_path_factory) -> list[Record]:
    root = tmp_path_factory.mktemp("images")
    images = np.random.default_rng(0).integers(0, 255, (5, 12, 8)).astype(np.uint8)
    found = []
    for i, image in enumerate(images):
        np.save(root / f"p{i}.npy", image)
        found.append(Record(f"p{i}", root / f"p{i}.npy", "train"))
    return found


def read(records, vae, folder: Path, **changes):
    digests = image_digests(records)
    key = LatentKey(weights_hash(vae.state_dict()), CONFIG.as_dict(), (12, 8), False, tuple(sorted(set(digests))))
    key = replace(key, **changes.pop("key", {}))
    return read_latents(records, vae, key, digests, folder, **changes)


def never(*_):
    raise AssertionError("encoded again")


def test_they_are_the_means_of_the_autoencoder_and_are_encoded_once(records, vae, tmp_path, monkeypatch):
    fresh = read(records, vae, tmp_path)
    with torch.no_grad():
        means = vae.encode(torch.from_numpy(load_images(records))[:, None])[0].numpy()
    np.testing.assert_allclose(fresh.latents[fresh.rows], means, atol=1e-6)
    assert fresh.thumbnails.shape == (5, 12, 8)
    monkeypatch.setattr(room, "encode_images", never)
    again = read(records[::-1], vae, tmp_path)  # the order of a list is no reason to encode
    np.testing.assert_array_equal(again.latents[again.rows], fresh.latents[fresh.rows][::-1])
    assert fresh.latents.dtype == np.float32
    assert all(path.stat().st_mode & 0o077 == 0 for path in fresh.folder.iterdir())


def test_the_same_image_twice_is_one_latent(records, vae, tmp_path):
    twice = [*records[:2], replace(records[0], uid="again")]
    found = read(twice, vae, tmp_path)
    assert len(found.latents) == 2
    assert found.rows[0] == found.rows[2] != found.rows[1]


def test_latents_of_two_sets_are_never_mixed(records, vae, tmp_path):
    own, shared = tmp_path / "own", tmp_path / "shared"
    other = make_vae(1)
    for folder, is_shared, kept in ((own, False, 1), (shared, True, 3)):
        first = read(records, vae, folder, is_shared=is_shared)
        assert not np.allclose(first.latents, read(records, other, folder, is_shared=is_shared).latents)
        read(records[:2], vae, folder, is_shared=is_shared)
        assert len(list(folder.iterdir())) == kept
    changed = records[0].path.parent / "changed.npy"
    np.save(changed, np.eye(12, 8))
    found = read([replace(records[0], path=changed), *records[1:]], vae, shared, is_shared=True)
    assert not np.allclose(found.latents[0], first.latents[0])
    key = LatentKey("a", {}, (12, 8), False, ("x", "y"))
    others = [("b", {}, (12, 8), False, ("x", "y")), ("a", {"norm_eps": 1}, (12, 8), False, ("x", "y")),
              ("a", {}, (8, 12), False, ("x", "y")), ("a", {}, (12, 8), True, ("x", "y")),
              ("a", {}, (12, 8), False, ("x",))]  # fmt: skip
    assert len({key.digest(), *(LatentKey(*fields).digest() for fields in others)}) == 6
    assert key.digest() == replace(key, digests=("y", "x")).digest()


def test_encoding_that_was_killed_goes_on_and_a_damaged_part_is_encoded_again(records, vae, tmp_path, monkeypatch):
    monkeypatch.setattr(room, "_PART_IMAGES", 2)
    whole = read(records, vae, tmp_path / "whole")
    encode, counts = room.encode_images, []

    def killed(vae, images, device):
        if len(counts) == 2:
            raise KeyboardInterrupt
        counts.append(len(images))
        return encode(vae, images, device)

    monkeypatch.setattr(room, "encode_images", killed)
    with pytest.raises(KeyboardInterrupt):
        read(records, vae, tmp_path / "cut")
    counts.clear()
    cut = read(records, vae, tmp_path / "cut")
    assert counts == [1]  # the last of three parts
    np.testing.assert_array_equal(cut.latents, whole.latents)
    counts.clear()
    np.save(cut.folder / "latents-00001.npy", np.zeros((2, *whole.latents.shape[1:]), np.float32))
    (cut.folder / "thumbnails-00000.npy").write_bytes(b"torn")
    np.testing.assert_array_equal(read(records, vae, tmp_path / "cut").latents, whole.latents)
    assert counts == [2, 2]
    counts.clear()
    (cut.folder / "manifest.json").write_text("{")
    counts.append(0)
    np.testing.assert_array_equal(read(records[:2], vae, tmp_path / "cut").latents, whole.latents[:2])
    manifest = json.loads((next((tmp_path / "cut").iterdir()) / "manifest.json").read_text())
    assert len(manifest["images"]) == 2


def test_who_comes_second_waits_for_who_encodes(records, vae, tmp_path, monkeypatch):
    monkeypatch.setattr(room, "_WAIT_S", 0.0)
    folder = read(records, vae, tmp_path).folder
    holder = locked(folder)
    holder.__enter__()
    told = []

    class Watching(Silent):
        def status(self, text):
            told.append(text)
            holder.__exit__(None, None, None)

    found = read(records, vae, tmp_path, progress=Watching())
    assert "another process encodes" in told[0]
    assert len(told) == 1
    assert len(found.latents) == 5


def test_what_cannot_be_encoded_is_said(records, vae, tmp_path):
    np.save(tmp_path / "wide.npy", np.eye(12, 16))
    with pytest.raises(UsageError, match=r"several sizes.*p0\.npy.*wide\.npy"):
        read([*records, Record("wide", tmp_path / "wide.npy", "train")], vae, tmp_path / "a")
    with pytest.raises(UsageError, match=r"p0\.npy is of 12x8 pixels, and others of 16x8"):
        read(records, vae, tmp_path / "b", key={"image": (16, 8)})
    broken = make_vae(0)
    with torch.no_grad():
        next(broken.parameters()).fill_(torch.nan)
    with pytest.raises(MetricError, match=r"latents that are no numbers.*p0\.npy"):
        read(records, broken, tmp_path / "c")
    with pytest.raises(UsageError, match=r"gone\.npy cannot be read"):
        image_digests([Record("gone", tmp_path / "gone.npy", "train")])
