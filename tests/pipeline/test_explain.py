"""What makes two embeddings alike: occlusion, and ``deepssim compare --explain``."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image as Picture

from deepssim import compare_picture as layout
from deepssim.compare import compare_images
from deepssim.embed import Encoder
from deepssim.errors import ImageError
from deepssim.explain import explain
from deepssim.images import list_images
from deepssim.metric import load_metric
from deepssim.phantom import make_patient, render
from deepssim.store_build import build_store

PHANTOM = render(make_patient(1), noise_seed=1)
CHANGE = (45, 70)  # row, column


def changed(place: tuple[int, int]) -> np.ndarray:
    """The phantom with a disc of 10 pixels from another one, upside down, its edge soft."""
    rows, columns = np.indices(PHANTOM.shape)
    share = np.exp(-0.5 * (((rows - place[0]) ** 2 + (columns - place[1]) ** 2) / 10**2) ** 2)
    return (PHANTOM * (1 - share) + render(make_patient(51), noise_seed=1)[::-1] * share).astype(np.float32)


CHANGED = changed(CHANGE)


@pytest.fixture(scope="module")
def pixel():
    return Encoder(load_metric("pixel"), device="cpu", threads=1)


class Correlation:
    """A metric without a graph: the centred image itself, over its norm; what it is given, it keeps."""

    def __init__(self) -> None:
        self.metric = SimpleNamespace(name="correlation", height=0, width=0)
        self.seen: list[np.ndarray] = []

    def prepare(self, image):
        return image

    def encode(self, images):
        self.seen = list(images)
        rows = np.stack(images).reshape(len(images), -1).astype(np.float64)
        rows -= rows.mean(axis=1, keepdims=True)
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def save(path: Path, image: np.ndarray) -> Path:
    Picture.fromarray(np.round(np.clip(image, 0, 1) * 255).astype(np.uint8)).save(path)
    return path


def distance(a: tuple[int, ...], b: tuple[int, ...]) -> int:
    return max(abs(int(x) - int(y)) for x, y in zip(a, b, strict=True))


def test_nothing_keeps_an_image_apart_from_itself(pixel):
    found = explain(PHANTOM, PHANTOM, pixel)
    assert found.cosine == pytest.approx(1, abs=1e-6)
    for values in found.maps:
        assert (values.shape, values.dtype) == (PHANTOM.shape, np.float32)
        assert np.isfinite(values).all()
        assert values.min() > -1e-6
        assert values.max() > 1e-3
    np.testing.assert_allclose(*found.maps, atol=1e-6)


@pytest.mark.parametrize("place", [CHANGE, (95, 40)])
def test_the_place_that_was_changed_keeps_them_apart(pixel, place):
    other = changed(place)
    found = explain(PHANTOM, other, pixel)
    for values in found.maps:
        assert distance(np.unravel_index(values.argmin(), values.shape), place) <= 8
        assert values.min() < -0.3 * values.max()
    swapped = explain(other, PHANTOM, pixel)
    np.testing.assert_allclose(swapped.maps[::-1], found.maps, atol=1e-6)


def test_flat_background_contributes_nothing(pixel):
    image = np.pad(PHANTOM, 80)
    values = explain(image, image, pixel).maps[0]
    row, column = np.unravel_index(values.argmax(), values.shape)
    assert 80 <= row < 216
    assert 80 <= column < 192
    assert np.abs(values[:20]).max() < 0.01 * values.max()


def test_maps_are_those_of_a_plain_loop():
    """Patches of 4 pixels, 2 apart; blur of 2 pixels, ended after 8, borders reflected."""
    rng = np.random.default_rng(0)
    a, b = rng.random((2, 30, 24)).astype(np.float32)
    taps = np.exp(-0.5 * (np.arange(-8, 9) / 2) ** 2)
    blurred = np.pad(a.astype(np.float64), 8, mode="symmetric")
    for axis in (0, 1):
        blurred = np.apply_along_axis(np.convolve, axis, blurred, taps / taps.sum(), "valid")
    total, weights = np.zeros(a.shape), np.zeros(a.shape)
    for row in range(15):
        for column in range(12):
            away = [np.arange(n) - (2 * k + 0.5) for n, k in zip(a.shape, (row, column), strict=True)]
            window = np.exp(-0.5 * (away[0][:, None] ** 2 + away[1] ** 2))
            copy = a + window * (blurred - a)
            fall = np.corrcoef(a.ravel(), b.ravel())[0, 1] - np.corrcoef(copy.ravel(), b.ravel())[0, 1]
            total += window * fall
            weights += window
    found = explain(a, b, Correlation())
    assert found.cosine == pytest.approx(np.corrcoef(a.ravel(), b.ravel())[0, 1], abs=1e-6)
    np.testing.assert_allclose(found.maps[0], total / weights, atol=1e-6)


@pytest.mark.parametrize(("shape", "n"), [((64, 64), 144), ((136, 112), 180), ((9, 900), 36), ((300, 100), 432)])
def test_an_image_of_any_shape_is_embedded_a_bounded_number_of_times(shape, n):
    encoder = Correlation()
    image = np.random.default_rng(0).random(shape, np.float32)
    assert explain(image, image, encoder).maps[0].shape == shape
    assert len(encoder.seen) == n + 1


def test_images_may_have_two_sizes(pixel):
    found = explain(PHANTOM, np.repeat(np.repeat(PHANTOM, 2, 0), 2, 1), pixel)
    assert [values.shape for values in found.maps] == [(136, 112), (272, 224)]
    assert found.cosine == pytest.approx(1, abs=1e-5)
    np.testing.assert_allclose(found.maps[0], found.maps[1][::2, ::2], rtol=0.05, atol=1e-4)


@pytest.mark.parametrize("nothing", [0.0, np.nan])
def test_a_copy_in_which_nothing_is_left_is_unrelated(nothing):
    class Blind(Correlation):
        def encode(self, images):
            rows = super().encode(images)
            rows[1:] = nothing
            return rows

    found = explain(PHANTOM, CHANGED, Blind())
    for values in found.maps:
        np.testing.assert_allclose(values, found.cosine, atol=1e-6)


def test_an_image_without_structure_is_named(pixel):
    with pytest.raises(ImageError, match="no structure in image B"):
        explain(PHANTOM, np.full((64, 64), 7, np.float32), pixel)


def test_regions_are_the_strongest_places_and_do_not_overlap(pixel):
    found = explain(PHANTOM, CHANGED, pixel)
    for regions, values in zip(found.regions, found.maps, strict=True):
        assert len(regions) == 3
        strengths = [abs(region.fall) for region in regions]
        assert strengths == sorted(strengths, reverse=True)
        covered = np.zeros(values.shape, int)
        for region in regions:
            part = np.s_[region.row : region.row + region.rows, region.column : region.column + region.columns]
            covered[part] += 1
            assert values[part].mean() * region.fall > 0
        assert covered.max() == 1
    apart = [region for region in found.regions[0] if region.fall < 0]
    assert [region.place for region in apart] == ["centre"]
    assert distance((apart[0].row + apart[0].rows // 2, apart[0].column + apart[0].columns // 2), CHANGE) <= 8


def test_the_command_says_in_words_and_in_json_what_the_library_finds(deepssim, pixel, tmp_path):
    a, b = save(tmp_path / "a.png", PHANTOM), save(tmp_path / "b.png", CHANGED)
    found = explain(*compare_images(a, b).pixels, pixel)
    done = deepssim("compare", a, b, "--explain")
    assert done.returncode == 0, done.stderr
    assert f"{found.cosine:.4f}" in done.stdout
    for name, regions in zip("AB", found.regions, strict=True):
        for region in regions:
            assert f"{name}, {region.place}, {region.rows} x {region.columns} px at row {region.row}" in done.stdout
    value = json.loads(deepssim("compare", a, b, "--explain", "--json", "--device", "cpu").stdout)
    assert value["explanation"]["metric"] == "pixel"
    assert value["explanation"]["cosine"] == pytest.approx(found.cosine, abs=1e-6)
    assert [region["row"] for region in value["explanation"]["regions"]["b"]] == [r.row for r in found.regions[1]]
    assert "explanation" not in json.loads(deepssim("compare", a, b, "--json").stdout)


def test_where_no_patch_counts_it_is_said():
    class Blind(Correlation):
        def encode(self, images):
            return np.ones((len(images), 1))

    lines = explain(PHANTOM, CHANGED, Blind()).lines()
    assert len(lines) == 2
    assert lines[1].startswith("no region stands out")


def test_the_metric_may_be_that_of_a_store(deepssim, pixel, tmp_path):
    a, b = save(tmp_path / "a.png", PHANTOM), save(tmp_path / "b.png", CHANGED)
    store = build_store(list_images(a), pixel, tmp_path / "a.store")
    done = deepssim("compare", a, b, "--explain", "--metric", store.path, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["explanation"]["metric"] == "pixel"
    assert done.stderr == ""


def test_the_metric_is_chosen_by_the_two_images_and_the_reason_is_said_apart(deepssim, tmp_path):
    a, b = save(tmp_path / "a.png", PHANTOM), save(tmp_path / "b.png", CHANGED)
    done = deepssim("compare", a, b, "--explain", "--json")
    metric = json.loads(done.stdout)["explanation"]["metric"]
    assert done.stderr.startswith(f"metric {metric}")
    assert len(done.stderr.splitlines()) == 1


def test_embeddings_see_the_pixels_as_read_the_second_turned(pixel, tmp_path):
    wide = np.round(PHANTOM * 3000 + 500).astype(np.uint16)
    wide[0, 0] = 65535  # beyond the window of the comparison
    other = np.round(CHANGED * 3000 + 500).astype(np.uint16)
    np.save(tmp_path / "a.npy", wide)
    np.save(tmp_path / "b.npy", np.rot90(other, -1))
    found = explain(*compare_images(tmp_path / "a.npy", tmp_path / "b.npy", size=(68, 56)).pixels, pixel)
    one, two = pixel.encode([pixel.prepare(image.astype(np.float32)) for image in (wide, other)])
    expected = one @ two
    assert found.cosine == pytest.approx(float(expected), abs=1e-6)
    assert [values.shape for values in found.maps] == [PHANTOM.shape] * 2


def test_options_of_the_metric_without_explain_are_refused(deepssim, tmp_path):
    path = save(tmp_path / "a.png", PHANTOM)
    done = deepssim("compare", path, path, "--metric", "pixel")
    assert done.returncode == 2
    assert done.stderr.strip().endswith("--metric is of --explain: give --explain too")


def test_the_picture_colours_what_keeps_them_apart_blue_and_what_makes_them_alike_orange(pixel, tmp_path):
    a, b = save(tmp_path / "a.png", PHANTOM), save(tmp_path / "b.png", CHANGED)
    comparison = compare_images(a, b)
    plain = layout.draw_comparison(comparison)
    found = explain(*comparison.pixels, pixel)
    picture = layout.draw_comparison(comparison, found)
    np.testing.assert_array_equal(np.asarray(picture)[: plain.height], plain)
    frame = layout._Frame(comparison.size)
    for column, values in enumerate(found.maps):
        x, y = layout._MARGIN + column * (frame.cell_width + layout._GAP), plain.height + layout._CAPTION - 8
        shown = np.asarray(picture.crop((x, y, x + frame.width, y + frame.height))).astype(float)
        warmth = (shown[..., 0] - shown[..., 2])[:: frame.height // 34, :: frame.width // 28]
        rows, columns = (
            np.linspace(0, n - 1, k).round().astype(int) for n, k in zip(values.shape, warmth.shape, strict=True)
        )
        assert np.corrcoef(warmth.ravel(), values[np.ix_(rows, columns)].ravel())[0, 1] > 0.9
