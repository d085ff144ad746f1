"""Real images embedded as the mean over views."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest
from PIL import Image

from deepssim.audit import AuditOptions, audit, score
from deepssim.embed import Encoder
from deepssim.errors import MetricError, StoreError
from deepssim.gallery import GalleryViews
from deepssim.images import list_images
from deepssim.metric import METADATA_KEY, load_metric
from deepssim.phantom import make_cohort
from deepssim.store import Store
from deepssim.store_build import build_store

VIEWS = GalleryViews((-20.0, 0.0, 20.0))


def with_gallery(path, value):
    """Write the metric pixel as one without layout whose metadata has an entry for the gallery."""
    model = onnx.load(load_metric("pixel").path)
    described = json.loads(next(p.value for p in model.metadata_props if p.key == METADATA_KEY))
    described |= {"name": "views", "gallery": value, "layout": None}
    onnx.helper.set_model_props(model, {METADATA_KEY: json.dumps(described)})
    onnx.save(model, path)
    return path


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    bundle = with_gallery(tmp_path_factory.mktemp("gallery") / "views.onnx", VIEWS.as_metadata())
    return Encoder(load_metric(str(bundle)), device="cpu", threads=2)


@pytest.fixture(scope="module")
def images():
    return [np.ascontiguousarray(image, np.float32) for _, _, image in make_cohort(5, 2, seed=4)]


def test_views_are_flips_and_turns(images):
    views = VIEWS.of(images[0])
    assert len(views) == len(VIEWS) == 12
    np.testing.assert_array_equal(views[4], images[0])
    np.testing.assert_array_equal(views[7], images[0][::-1, ::-1])
    # Turned one way and the other, about the centre: a flip takes one to the other.
    other = GalleryViews((20.0,)).of(np.ascontiguousarray(images[0][:, ::-1]))[2]
    np.testing.assert_allclose(views[0], other, atol=1e-5)


@pytest.mark.parametrize("offset", [0.0, 1000.0, -1024.0])
def test_what_a_turn_leaves_bare_is_as_dark_as_the_darkest_pixel(images, offset):
    view = VIEWS.of(images[0] + np.float32(offset))[0]
    assert view[0, 0] == (images[0] + np.float32(offset)).min()


def test_the_embedding_is_the_mean_direction(encoder, images):
    prepared = [encoder.prepare(image) for image in images]
    found = encoder.encode_gallery(prepared)
    each = np.stack([encoder.encode([np.ascontiguousarray(v) for v in VIEWS.of(p)]).mean(axis=0) for p in prepared])
    np.testing.assert_allclose(found, each / np.linalg.norm(each, axis=1, keepdims=True), atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)


def test_flips_of_an_image_are_one_to_the_gallery(encoder, images):
    image = encoder.prepare(images[1])
    flipped = np.ascontiguousarray(image[::-1])
    found = encoder.encode_gallery([image, flipped])
    assert found[0] @ found[1] > 0.9999
    plain = encoder.encode([image, flipped])
    assert plain[0] @ plain[1] < 0.9


def test_without_an_entry_images_are_embedded_as_they_are(images):
    pixel = Encoder(load_metric("pixel"), device="cpu")
    prepared = [pixel.prepare(image) for image in images]
    np.testing.assert_array_equal(pixel.encode_gallery(prepared), pixel.encode(prepared))


@pytest.mark.parametrize("value", [{}, 3, *({"turns_degrees": turns} for turns in ([], [float("inf")], "x"))])
def test_a_garbled_entry_is_refused(value, tmp_path):
    with pytest.raises(MetricError, match="lacks or garbles"):
        load_metric(str(with_gallery(tmp_path / "bad.onnx", value)))


def test_an_audit_sees_real_images_so_and_a_store_remembers_it(encoder, images, tmp_path):
    for name, chosen in (("real", images), ("synthetic", [image[::-1] for image in images[:3]])):
        (tmp_path / name).mkdir()
        for k, image in enumerate(chosen):
            Image.fromarray(np.rint(image * 255).astype(np.uint8)).save(tmp_path / name / f"{k}.png")
    options = AuditOptions(metric=str(encoder.metric.path), device="cpu")
    result = audit(tmp_path / "real", tmp_path / "synthetic", tmp_path / "out", options=options)
    assert result.summary["synthetic_flagged"]["exact"] == 3
    made = Store(tmp_path / "out" / "real.store")
    assert made.made_from["gallery"] == VIEWS.as_metadata()
    said = []
    listing = list_images(tmp_path / "real")
    plain = build_store(listing, encoder, tmp_path / "plain.store", status=said.append)
    assert "gallery" not in plain.made_from
    again = build_store(listing, encoder, tmp_path / "plain.store", as_gallery=True, status=said.append)
    assert said == [f"rebuilding {tmp_path / 'plain.store'}: its images, reader or metric changed"]
    rows = [np.empty((1, made.dim), np.float32) for _ in range(2)]
    for store, row in zip((again, made), rows, strict=True):
        store.read_rows(0, row)
    np.testing.assert_array_equal(*rows)


@pytest.fixture(scope="module")
def folders(images, tmp_path_factory):
    root = tmp_path_factory.mktemp("folders")
    for name, chosen in (("real", images), ("holdout", images[:2]), ("synthetic", images[3:6])):
        (root / name).mkdir()
        for k, image in enumerate(chosen):
            Image.fromarray(np.rint(image * 255).astype(np.uint8)).save(root / name / f"{k}.png")
    return root


def embedded(folders, encoder, path, **as_gallery):
    return {
        name: build_store(list_images(folders / name), encoder, path / name, with_working=True, as_gallery=is_gallery)
        for name, is_gallery in as_gallery.items()
    }


def test_stores_that_were_embedded_in_other_views_than_the_metric_wants_are_named(folders, encoder, tmp_path):
    made = embedded(folders, encoder, tmp_path, real=False, holdout=True, synthetic=True)
    paths = {name: store.path for name, store in made.items()}
    options = AuditOptions(metric=str(encoder.metric.path), device="cpu")
    result = score(paths["real"], paths["synthetic"], tmp_path / "out", holdout=paths["holdout"], options=options)
    said = [line for line in result.summary["warnings"] if "missed" in line]
    assert [line.split()[0] for line in said] == [str(paths["real"]), str(paths["synthetic"])]
    assert "embed --gallery" in said[0]
    assert "without --gallery" in said[1]


def test_without_its_bundle_a_score_says_that_screening_was_not_tried(folders, encoder, tmp_path):
    made = embedded(folders, encoder, tmp_path, real=True, synthetic=False)
    real, synthetic = made["real"].path, made["synthetic"].path
    result = score(real, synthetic, tmp_path / "out")
    assert result.summary["screening"] is None
    said = [line for line in result.summary["warnings"] if "not tried" in line]
    assert len(said) == 1
    assert "the metric views of these stores is not at hand" in said[0]
    assert "--metric" in said[0]
    with_it = score(real, synthetic, tmp_path / "with", options=AuditOptions(metric=str(encoder.metric.path)))
    assert with_it.summary["screening"]["both"]["total"] == 20
    assert not any("not tried" in line for line in with_it.summary["warnings"])
    with pytest.raises(StoreError, match="holds embeddings of the metric views, and pixel is another"):
        score(real, synthetic, tmp_path / "other", options=AuditOptions(metric="pixel"))


def test_score_takes_the_bundle_of_its_stores(folders, encoder, deepssim, tmp_path):
    made = embedded(folders, encoder, tmp_path, real=True, synthetic=False)
    stores = (made["real"].path, made["synthetic"].path)
    done = deepssim("score", *stores, "--out", tmp_path / "out", "--metric", encoder.metric.path, "-q")
    assert done.returncode == 0, done.stderr
    assert "Screening was tried" in done.stdout
