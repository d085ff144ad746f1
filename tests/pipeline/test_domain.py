"""Which encoder a set of images is given, by its looks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deepssim.domain import (
    choose_metric,
    find_metric,
    installed_domains,
    likeness,
    principal_directions,
    sample,
    thumbnails,
)
from deepssim.embed import Encoder
from deepssim.errors import StoreError, UsageError
from deepssim.images import list_images
from deepssim.metric import load_metric
from deepssim.phantom import make_cohort
from deepssim.store_build import build_store, write_store

FOLDERS = {"brain": "brain/slices", "chest": "cxr/images"}


def write(folder: Path, images) -> Path:
    folder.mkdir()
    for k, image in enumerate(images):
        Image.fromarray(np.rint(np.asarray(image) * 255).astype(np.uint8)).save(folder / f"{k:03d}.png")
    return folder


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory):
    images = [image for _, _, image in make_cohort(6, 4, seed=5)]
    return write(tmp_path_factory.mktemp("domain") / "phantoms", images)


def test_phantoms_and_noise_are_like_nothing_that_an_encoder_was_made_for(phantoms, tmp_path):
    noise = write(tmp_path / "noise", np.random.default_rng(0).random((30, 64, 64)))
    for folder in (phantoms, noise):
        choice = choose_metric(sample(list_images(folder)))
        assert choice.metric == "pixel"
        assert all(choice.likeness[domain.metric] < domain.threshold for domain in installed_domains())


def test_the_choice_says_why(phantoms):
    said = []
    assert find_metric("auto", lambda: list_images(phantoms), say=said.append).name == "pixel"
    assert len(said) == 1
    reason = "24 images are like nothing that an encoder was made for" if installed_domains() else "no encoder"
    assert said[0].startswith(f"metric pixel: {reason}")


def test_where_nothing_can_be_read_the_choice_is_pixel(tmp_path):
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    assert choose_metric(sample(list_images(tmp_path))).metric == "pixel"


@pytest.mark.parametrize(("name", "folder"), FOLDERS.items())
def test_images_of_a_kind_get_the_encoder_that_was_made_for_it(name, folder, data_folder):
    assert choose_metric(sample(list_images(data_folder / folder))).metric == name


@pytest.mark.parametrize("change", [lambda x: x[::-1], lambda x: x[:, ::-1], np.rot90, lambda x: 255 - x[::-1, ::-1]])
def test_likeness_is_that_of_every_flip_and_right_turn(change, data_folder):
    for domain in installed_domains():
        pixel = Encoder(load_metric("pixel"), device="cpu")
        folder = data_folder / FOLDERS[domain.metric]
        path = next(folder.rglob("*.png"), None) or next(folder.rglob("*.jpg"))
        image = np.asarray(Image.open(path).convert("L"), np.float32)
        plain, changed = (thumbnails([np.ascontiguousarray(x)], pixel) for x in (image, change(image)))
        same = likeness(changed, domain.directions)
        np.testing.assert_allclose(same, likeness(plain, domain.directions), atol=2e-3)


def test_directions_hold_the_most_of_what_they_were_taken_of():
    rng = np.random.default_rng(1)
    rows = rng.normal(size=(40, 3)) @ rng.normal(size=(3, 12))
    directions = principal_directions(rows, 3)
    np.testing.assert_allclose(directions @ directions.T, np.eye(3), atol=1e-12)
    np.testing.assert_allclose(rows @ directions.T @ directions, rows, atol=1e-10)


def test_a_metric_is_named_by_a_store_that_was_made_with_it(phantoms, tmp_path):
    store = build_store(list_images(phantoms), Encoder(load_metric("pixel"), device="cpu"), tmp_path / "a.store")

    def nothing():
        raise AssertionError("no image needs to be looked at")

    assert find_metric(str(tmp_path / "a.store"), nothing).name == "pixel"
    assert find_metric("auto", nothing, stores=[store]).name == "pixel"
    with pytest.raises(UsageError, match="unknown metric"):
        find_metric("nonsense", nothing)


def test_a_store_of_another_metric_names_none(tmp_path):
    rows = np.eye(2, 4, dtype=np.float32)
    foreign = write_store(tmp_path / "b.store", [(rows, ["a", "b"], None)], metric="mine")
    with pytest.raises(StoreError, match="does not come with this package"):
        find_metric("auto", lambda: None, stores=[foreign])
    old = write_store(tmp_path / "c.store", [(rows, ["a", "b"], None)], metric="pixel", metric_hash="0")
    with pytest.raises(StoreError, match="another version"):
        find_metric(str(old.path), lambda: None)
