from __future__ import annotations

import base64
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from deepssim.report import ReportError, figures, images

SVG = "{http://www.w3.org/2000/svg}"


def parse(svg: str) -> ET.Element:
    return ET.fromstring(str(svg).replace("<svg", '<svg xmlns="http://www.w3.org/2000/svg"', 1))


@given(
    st.lists(st.integers(0, 1000), min_size=1, max_size=400),
    st.lists(st.floats(-1, 1), max_size=2),
)
def test_no_count_is_lost_by_trimming_and_merging(counts: list[int], marks: list[float]):
    edges = np.linspace(-1, 1, len(counts) + 1).tolist()
    bins = figures.prepare(edges, counts, None, counts[::-1], marks)
    assert sum(bins.up) == sum(counts)
    assert bins.down is not None
    assert sum(bins.down) == sum(counts)
    assert len(bins.up) == len(bins.edges) - 1 <= 150
    assert all(bins.edges[0] <= mark <= bins.edges[-1] for mark in marks)
    assert list(bins.edges) == sorted(set(bins.edges))


def test_one_copy_among_a_million_is_seen():
    edges = np.linspace(0, 1, 101).tolist()
    counts = [0] * 100
    counts[50], counts[99] = 1_000_000, 1
    bins = figures.prepare(edges, counts, None, None, [0.9, 0.95])
    marks = [figures.Mark(0.9, "near", "near"), figures.Mark(0.95, "exact", "exact")]
    root = parse(figures.histogram(bins, marks, ("a", "b"), width=900, uid="x"))
    bar = root.find(f".//{SVG}path[@class='bar bar-exact']")
    assert bar is not None
    found = re.match(r"M\S+ (\S+?)V(\S+?)H", bar.attrib["d"])
    assert found is not None
    base, top = float(found[1]), float(found[2])
    assert base - top > 5


def test_a_bar_across_a_threshold_is_cut_there():
    bins = figures.prepare([0.0, 0.5, 1.0], [0, 4], None, None, [0.75])
    root = parse(figures.histogram(bins, [figures.Mark(0.75, "near", "near")], ("a", "b"), width=900, uid="x"))
    classes = {path.attrib["class"] for path in root.iter(f"{SVG}path")}
    assert classes == {"bar bar-plain", "bar bar-near"}


@pytest.mark.parametrize("width", [340, 900])
def test_figures_are_named_and_without_styles(width: int):
    bins = figures.prepare([0.0, 0.5, 1.0], [7, 400], [8, 500], [3, 1], [0.97])
    mark = figures.Mark(0.97, "near <b>", "near")
    bars = [figures.Bar("Real", "0 of 5", 0.0, (0.0, 0.5), "real"), figures.Bar("Holdout", "x", 0.0, None, "holdout")]
    for svg in (
        figures.histogram(bins, [mark], ("up", "down"), width=width, uid="a"),
        figures.comparison(bars, width=width, uid="b"),
        figures.legend(images.DIVERGING, uid="c"),
        figures.agreement_key(images.COOL, images.WARM, images.HATCH, reach=(0.8, 0.2), uid="d"),
        figures.gauge(-0.3, 0.45, "exact", "S2 -0.3, <b> exact from 0.45", kind="plain", uid="e"),
    ):
        root = parse(svg)
        assert root.attrib["role"] == "img"
        named = {element.attrib.get("id") for element in root}
        assert {root.attrib["aria-labelledby"], root.attrib["aria-describedby"]} <= named
        assert " style=" not in svg
        assert "<b>" not in svg
        assert "nan" not in svg


def save(path: Path, values: np.ndarray, **more: object) -> Path:
    Image.fromarray(values.astype(np.uint8)).save(path, **more)
    return path


def test_difference_ignores_brightness_and_contrast():
    rng = np.random.default_rng(0)
    real = rng.integers(0, 100, (20, 30)).astype(np.uint8)
    other = (real * 2 + 17).astype(np.uint8)
    values = images.difference(Image.fromarray(real), Image.fromarray(other))
    assert np.abs(values).max() < 1e-5


def test_difference_is_synthetic_minus_real_in_standard_deviations():
    rng = np.random.default_rng(1)
    real, other = (rng.integers(0, 255, (9, 7)).astype(np.float64) for _ in range(2))
    expected = (other - other.mean()) / other.std() - (real - real.mean()) / real.std()
    found = images.difference(*(Image.fromarray(one.astype(np.uint8)) for one in (real, other)))
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_constant_picture_has_no_contrast():
    flat = Image.fromarray(np.full((4, 4), 9, np.uint8))
    assert not images.difference(flat, flat).any()


def test_the_colour_scale_is_fixed_and_saturates():
    values = np.array([[-9, -2, 0, 2, 9]], np.float32)
    shown = np.asarray(images.colour(values).convert("RGB"))[0].tolist()
    ends = [list(rgb) for _, rgb in images.DIVERGING]
    assert shown[0] == shown[1] == ends[0]
    assert shown[3] == shown[4] == ends[-1]
    assert max(shown[2]) < 40


def test_pictures_lose_their_metadata(tmp_path: Path):
    note = PngImagePlugin.PngInfo()
    note.add_text("PatientName", "SECRET")
    values = np.arange(64).reshape(8, 8)
    first = save(tmp_path / "a.png", values, pnginfo=note)
    second = save(tmp_path / "b.png", values[:4])
    views = images.views(first, second)
    for one in (views.real, views.synthetic, views.difference):
        raw = base64.b64decode(one.uri.removeprefix("data:image/png;base64,"))
        assert re.findall(rb"tEXt|iTXt|zTXt|tIME|eXIf|iCCP", raw) == []
    assert views.is_resized
    assert views.difference.size == (8, 8)


def test_bad_pictures_give_one_line(tmp_path: Path):
    good = save(tmp_path / "good.png", np.arange(64).reshape(8, 8))
    cut = tmp_path / "cut.png"
    cut.write_bytes(good.read_bytes()[:50])
    colour = tmp_path / "colour.png"
    Image.new("RGB", (4, 4)).save(colour)
    huge = save(tmp_path / "huge.png", np.zeros((1, 5000)))
    link = tmp_path / "link.png"
    link.symlink_to(good)
    jpeg = tmp_path / "jpeg.png"
    Image.new("L", (4, 4)).save(jpeg, format="JPEG")
    for bad in (cut, colour, huge, link, jpeg, tmp_path / "absent.png"):
        with pytest.raises(ReportError) as caught:
            images.views(good, bad)
        assert str(bad) in str(caught.value)
        assert "\n" not in str(caught.value)
