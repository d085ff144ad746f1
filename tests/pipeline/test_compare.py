"""``deepssim compare`` as a user runs it, and the work behind it."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Picture

from deepssim import image_ops, perturb
from deepssim.compare import compare_images, read_one
from deepssim.compare_picture import draw_comparison
from deepssim.errors import DeepSSIMError, UsageError
from deepssim.image_ops import Transform, warp
from deepssim.phantom import make_patient, render

PHANTOM = render(make_patient(1), noise_seed=1)
OTHER = render(make_patient(2), noise_seed=2)
MOVE = Transform(is_mirrored=True, angle_degrees=8.0, shift_rows=3.0, shift_columns=-2.0, scale=1.05)


def save(path: Path, image: np.ndarray) -> Path:
    Picture.fromarray(np.round(np.clip(image, 0, 1) * 255).astype(np.uint8)).save(path)
    return path


@pytest.fixture
def pair(tmp_path):
    return save(tmp_path / "a.png", warp(PHANTOM, MOVE)), save(tmp_path / "b.png", PHANTOM)


def pixels(path: Path) -> np.ndarray:
    with Picture.open(path) as picture:
        return np.asarray(picture).astype(np.float32)


def test_json_holds_every_statistic_as_the_library_computes_it(deepssim, pair):
    done = deepssim("compare", *pair, "--json")
    assert done.returncode == 0, done.stderr
    value = json.loads(done.stdout)
    a, b = map(pixels, pair)
    lies = value["in_place"]
    assert lies["ssim"] == pytest.approx(image_ops.ssim(a, b, data_range=None, with_z_score=True), abs=1e-9)
    assert lies["ssim_plain"] == pytest.approx(image_ops.ssim(a, b, data_range=255), abs=1e-9)
    structure = image_ops.ssim(a, b, data_range=None, with_z_score=True, has_luminance=False)
    assert lies["contrast_structure"] == pytest.approx(structure, abs=1e-9)
    assert lies["fsim"] == pytest.approx(image_ops.fsim(a, b), abs=1e-9)
    assert lies["ncc"] == pytest.approx(image_ops.ncc(a, b), abs=1e-9)
    found = value["registered"]
    names = ("is_mirrored", "angle_degrees", "shift_rows", "shift_columns", "scale")
    transform = Transform(*(found["transform"][name] for name in names))
    assert transform.is_mirrored
    assert transform.angle_degrees == pytest.approx(8.0, abs=0.3)
    assert str(transform) == found["transform"]["words"]
    grey = [image / np.float32(255) for image in (a, b)]
    moved = image_ops.registered_similarity(*grey, transform)
    local = image_ops.evidence(*grey, transform)
    for name in ("ssim", "contrast_structure", "fsim", "ncc", "overlap"):
        assert found[name] == pytest.approx(getattr(moved, name), abs=1e-9)
    assert (found["s1"], found["s2"]) == pytest.approx((local.s1, local.s2), abs=1e-9)
    assert found["ssim"] > 0.9 > lies["ssim"]
    assert value["picture"] is None


def test_the_table_says_what_was_done_with_b(deepssim, pair):
    done = deepssim("compare", *pair)
    assert done.returncode == 0, done.stderr
    for text in ("mirrored, turned 8.0 degrees", "as they lie", "registered", "S1", "S2", "SSIM", "FSIM", "overlap"):
        assert text in done.stdout
    assert done.stderr == ""


def test_the_picture_shows_both_images_and_is_private(deepssim, pair, tmp_path):
    out = tmp_path / "new" / "pair.png"
    done = deepssim("compare", *pair, "--out", out, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["picture"] == str(out)
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    assert [path.name for path in out.parent.iterdir()] == ["pair.png"]
    with Picture.open(out) as picture:
        assert picture.format == "PNG"
        assert picture.width > 1000
        assert picture.height > 800


def panel(picture: Picture.Image, column: int, row: int) -> np.ndarray:
    """A panel's pixels, found by the layout's own numbers."""
    from deepssim import compare_picture as layout

    frame = layout._Frame(PHANTOM.shape)
    x = layout._MARGIN + column * (frame.cell_width + layout._GAP)
    y = layout._MARGIN + layout._CAPTION - 8
    if row:
        y += layout._CAPTION + frame.height + layout._GAP
    return np.asarray(picture.crop((x, y, x + frame.width, y + frame.height))).astype(float)


def test_equal_images_leave_the_map_and_the_difference_without_colour(tmp_path):
    path = save(tmp_path / "a.png", PHANTOM)
    picture = draw_comparison(compare_images(path, path))
    for column in range(3):
        np.testing.assert_array_equal(panel(picture, column, 0), panel(picture, 0, 0))
    inner = panel(picture, 0, 1)[40:-40, 40:-40]
    assert np.ptp(inner, axis=-1).max() <= 1
    assert np.abs(panel(picture, 1, 1) - (17, 19, 24)).max() <= 1  # the middle of an even palette


def test_a_local_change_is_coloured_where_it_is(tmp_path):
    changed = PHANTOM.copy()
    changed[60:76, 40:56] = np.random.default_rng(0).random((16, 16)) * PHANTOM.max()
    paths = save(tmp_path / "a.png", PHANTOM), save(tmp_path / "b.png", changed)
    picture = draw_comparison(compare_images(*paths))
    shown = panel(picture, 0, 1)
    factor = shown.shape[0] / PHANTOM.shape[0]
    colour = np.ptp(shown, axis=-1)
    inside = colour[int(62 * factor) : int(74 * factor), int(42 * factor) : int(54 * factor)]
    assert inside.mean() > 60
    far = colour[int(10 * factor) : int(40 * factor), int(10 * factor) : int(-10 * factor)]
    assert far.mean() < 5


def test_an_image_that_lies_across_the_other_is_turned_first(deepssim, tmp_path):
    lying = np.rot90(perturb.apply_view(PHANTOM, perturb.View(angle_deg=5.0)), -1)
    a, b = save(tmp_path / "a.png", PHANTOM), save(tmp_path / "b.png", lying)
    done = deepssim("compare", a, b, "--json")
    value = json.loads(done.stdout)
    assert (value["is_turned"], value["is_resized"]) == (True, False)
    assert value["registered"]["s1"] > 0.99
    assert value["registered"]["transform"]["angle_degrees"] == pytest.approx(-5.0, abs=0.3)
    done = deepssim("compare", a, b, "--out", str(tmp_path / "pair.png"))
    assert "turned by 90 degrees with its frame, then turned " in done.stdout


def test_sizes_that_differ_are_refused_with_advice_or_resized_as_told(deepssim, tmp_path):
    a, b = save(tmp_path / "a.png", PHANTOM), save(tmp_path / "b.png", OTHER[:-8])
    done = deepssim("compare", a, b)
    assert done.returncode == 2
    assert f"--resize {PHANTOM.shape[0]}x{PHANTOM.shape[1]}" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    done = deepssim("compare", a, b, "--resize", "64x64", "--json")
    assert done.returncode == 0, done.stderr
    value = json.loads(done.stdout)
    assert (value["size"], value["is_resized"]) == ([64, 64], True)
    sized = [image_ops.resize_area(pixels(path), 64, 64) for path in (a, b)]
    assert value["in_place"]["ncc"] == pytest.approx(image_ops.ncc(*sized), abs=1e-9)
    draw_comparison(compare_images(a, b, size=(64, 48)))


def test_16_bit_images_are_compared_over_their_window(tmp_path):
    wide = np.round(PHANTOM * 3000 + 500).astype(np.uint16)
    np.save(tmp_path / "a.npy", wide)
    np.save(tmp_path / "b.npy", np.round(OTHER * 3000 + 500).astype(np.uint16))
    found = compare_images(tmp_path / "a.npy", tmp_path / "b.npy")
    np.testing.assert_allclose(found.greys[0], image_ops.unit_grey(wide), atol=1e-6)
    x, y = wide.astype(np.float32), np.round(OTHER * 3000 + 500).astype(np.float32)
    assert found.in_place.ssim == pytest.approx(image_ops.ssim(x, y, data_range=None, with_z_score=True), abs=1e-9)


def test_one_image_of_a_stack_is_named_by_its_frame(deepssim, tmp_path):
    np.save(tmp_path / "stack.npy", np.round(np.stack([PHANTOM, OTHER]) * 255).astype(np.uint8))
    done = deepssim("compare", "stack.npy#0", "stack.npy#1", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["registered"]["s1"] < 0.9
    done = deepssim("compare", "stack.npy", "stack.npy#1", cwd=tmp_path)
    assert done.returncode == 2
    assert "stack.npy#0" in done.stderr
    with pytest.raises(DeepSSIMError):
        read_one(tmp_path / "stack.npy#2")


def test_too_little_overlap_is_said_and_drawn(tmp_path, monkeypatch):
    from deepssim import compare

    far = image_ops.Registration(Transform(shift_rows=100.0), -1.0, 0.2)
    monkeypatch.setattr(compare, "register", lambda *_: far)
    path = save(tmp_path / "a.png", PHANTOM)
    found = compare_images(path, path)
    assert not found.has_overlap
    assert [registered for name, _, registered in found.rows() if name != "overlap"] == [None] * 7
    draw_comparison(found)


def bad_files(folder: Path) -> None:
    save(folder / "good.png", PHANTOM)
    save(folder / "tiny.png", PHANTOM[60:66, 50:56])
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nnot really")
    (folder / "empty.png").write_bytes(b"")
    Picture.fromarray(np.full((20, 20), 7, np.uint8)).save(folder / "flat.png")
    (folder / "folder").mkdir()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("good.png", "broken.png"), "broken.png"),
        (("good.png", "empty.png"), "empty.png"),
        (("flat.png", "good.png"), "flat.png"),
        (("tiny.png", "tiny.png"), "7 x 7"),
        (("good.png", "folder"), "folder"),
        (("good.png", "nowhere.png"), "nowhere.png"),
        (("good.png", "nowhere.png#1"), "nowhere.png"),
        (("good.png", "good.png", "--out", "pair.jpg"), ".png"),
        (("good.png", "good.png", "--resize", "0x9"), "256x256"),
        (("good.png", "good.png", "--resize", "9000x9000"), "4,096"),
    ],
)
def test_what_cannot_be_compared_is_said_in_one_line(deepssim, tmp_path, arguments, says):
    bad_files(tmp_path)
    done = deepssim("compare", *arguments, cwd=tmp_path)
    assert done.returncode in (1, 2)
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    assert says in done.stderr.strip().splitlines()[-1]


def test_an_image_that_becomes_constant_is_refused(tmp_path):
    checks = (np.indices((16, 16)).sum(0) % 2 * 255).astype(np.uint8)
    Picture.fromarray(checks).save(tmp_path / "checks.png")
    with pytest.raises(UsageError, match="constant"):
        compare_images(tmp_path / "checks.png", tmp_path / "checks.png", size=(8, 8))


def test_long_and_hostile_names_do_not_break_the_picture(tmp_path):
    path = save(tmp_path / ("long-" * 40 + "\u202e\n.png"), PHANTOM)
    draw_comparison(compare_images(path, path))
