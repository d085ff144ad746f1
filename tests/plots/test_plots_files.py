"""Figures as files: the same bytes, no settings left behind, and text that stays text."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
from made_scores import make_scored

from deepssim.errors import MissingDependencyError, UsageError
from deepssim.plots import Look, check_target, draw_densities, draw_histogram, draw_roc, save
from deepssim.plots.style import PALETTES

HOSTILE = r"$\frac{1}{$ <b>&amp; --> ]]> \\ \u202e" + "\u202e\n\x07%s{}"


def draw_all(folder: Path) -> None:
    scored = [make_scored("one"), make_scored("two", 1)]
    for suffix in ("png", "svg", "pdf"):
        save(draw_histogram(scored[:1]), folder / f"histogram.{suffix}", dpi=50)
    save(draw_roc(scored, is_log=True), folder / "roc.svg")


SCRIPT = f"""
import sys
sys.path.insert(0, sys.argv[1])
from made_scores import make_scored
from pathlib import Path
from deepssim.plots import draw_histogram, draw_roc, save
{inspect.getsource(draw_all)}
draw_all(Path(sys.argv[2]))
assert "matplotlib.pyplot" not in sys.modules
"""


def test_other_processes_hosts_and_settings_give_the_same_bytes(tmp_path):
    settings = tmp_path / "matplotlibrc"
    settings.write_text("font.size: 20\naxes.facecolor: red\nsvg.fonttype: none\ntext.usetex: True\nbackend: pdf\n")
    made = []
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
    arguments = [str(Path(__file__).parent), str(tmp_path / "there")]
    environment = {"SOURCE_DATE_EPOCH": "1", "MATPLOTLIBRC": str(settings), "TZ": "Asia/Tokyo", "PYTHONHASHSEED": "2"}
    command = [sys.executable, "-c", SCRIPT, *arguments]
    done = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    draw_all(tmp_path / "here")
    for name in ("here", "there"):
        made.append({path.name: path.read_bytes() for path in sorted((tmp_path / name).iterdir())})
    assert len(made[0]) == 4
    assert made[0] == made[1]


def test_files_tell_neither_date_nor_program(tmp_path, scored):
    for suffix in ("png", "svg", "pdf"):
        path = tmp_path / f"a.{suffix}"
        save(draw_histogram([scored]), path, dpi=50)
        data = path.read_bytes()
        for word in (b"Date", b"Producer", b"Software", b"matplotlib.org", b"Matplotlib v"):
            assert word not in data
        assert path.stat().st_mode & 0o777 == 0o600


def test_settings_of_matplotlib_are_as_they_were(tmp_path, scored):
    before = dict(mpl.rcParams)
    save(draw_histogram([scored]), tmp_path / "a.png", dpi=50)
    assert dict(mpl.rcParams) == before


def test_text_of_users_is_drawn_as_it_is(tmp_path):
    one = make_scored(HOSTILE)
    for draw, suffix in ((draw_histogram, "png"), (draw_densities, "pdf"), (draw_roc, "svg")):
        figure = draw([one, one], Look(title=HOSTILE))
        assert "$" in figure.get_suptitle()
        assert "\n" not in figure.get_suptitle()
        assert "\u202e" not in figure.get_suptitle()
        assert save(figure, tmp_path / f"a.{suffix}", dpi=50) == ""


def test_letters_that_the_font_lacks_are_told(tmp_path, scored):
    assert save(draw_histogram([scored, scored], Look(title="\u8133 MRI \u8133")), tmp_path / "a.png") == "\u8133"


def test_a_figure_that_is_too_small_or_too_large_is_refused_without_a_file(tmp_path):
    scored = [make_scored(f"a metric with a long name {k}") for k in range(4)]
    with pytest.raises(UsageError, match="larger --size"):
        save(draw_roc(scored, Look(size=(1, 1))), tmp_path / "a.png")
    with pytest.raises(UsageError, match="larger --size"):
        draw_histogram(scored, Look(size=(1, 1)))
    with pytest.raises(UsageError, match="too large"):
        save(draw_roc(scored, Look(size=(60, 60))), tmp_path / "a.png", dpi=1200)
    assert list(tmp_path.iterdir()) == []


def test_a_figure_goes_nowhere_near_its_inputs(tmp_path):
    images = tmp_path / "images"
    (images / "p1").mkdir(parents=True)
    link = tmp_path / "link.png"
    (images / "p1" / "training.png").write_bytes(b"x")
    link.symlink_to(images / "p1" / "training.png")
    for path in (images / "new.png", images / "p1" / "training.png", link):
        with pytest.raises(UsageError, match="made of"):
            check_target(path, [images])
    with pytest.raises(UsageError, match=r"must end in \.png, \.svg or \.pdf"):
        check_target(tmp_path / "a.gif")
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(UsageError, match="is a folder"):
        check_target(tmp_path / "folder.png")
    check_target(tmp_path / "deep" / "er" / "a.SVG", [images])
    assert (tmp_path / "deep" / "er").is_dir()


def test_without_matplotlib_the_line_that_installs_it_is_named(monkeypatch, scored):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingDependencyError, match=r"pip install matplotlib \(the extra research"):
        draw_histogram([scored])


# Machado, Oliveira and Fernandes, IEEE Trans. Vis. Comput. Graph. 15, 2009: no cones of one kind, linear RGB.
BLINDNESS = {
    "none": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.3039]],
}
TO_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])


def lab(colour: str, blindness: np.ndarray) -> np.ndarray:
    value = np.array([int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5)])
    linear = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
    x, y, z = np.cbrt(TO_XYZ @ np.clip(blindness @ linear, 0, 1) / [0.9505, 1, 1.089])
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("kind", BLINDNESS)
def test_the_safe_palette_is_told_apart_by_every_eye(kind):
    colours = [lab(colour, np.array(BLINDNESS[kind])) for colour in PALETTES["safe"].classes]
    distances = [np.linalg.norm(colours[i] - colours[j]) for i, j in ((0, 1), (0, 2), (1, 2))]
    assert min(distances) > 40  # 2.3 are just seen
    assert len(set(PALETTES["safe"].hatches)) == 3


def test_an_unknown_palette_or_size_is_refused():
    with pytest.raises(UsageError, match="choose safe or reference"):
        Look(palette="jet")
    with pytest.raises(UsageError, match="1 to 60 inches"):
        Look(size=(0, 5))
