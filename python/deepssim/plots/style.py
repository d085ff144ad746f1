"""How figures look and how they are written: one style, two palettes, the same bytes for the same input.

Figures are drawn without pyplot and without a window. Settings hold within a block alone, so that neither the user's
own settings change a figure nor a figure changes them. No text is read as mathematics: a ``$`` is a dollar sign.
"""

from __future__ import annotations

import contextlib
import functools
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from deepssim.disk import check_writable, replacing
from deepssim.errors import UsageError
from deepssim.extras import require
from deepssim.images.text import one_line

__all__ = [
    "PALETTES",
    "SUFFIXES",
    "Look",
    "Palette",
    "check_target",
    "lay_out",
    "new_figure",
    "plain",
    "save",
    "styled",
]

P = ParamSpec("P")
R = TypeVar("R")

SUFFIXES = (".png", ".svg", ".pdf")
INK, MUTED, HAIR = "#1a1e23", "#59626c", "#d5d8dc"
# More than this is no figure but a full disk.
MOST_PIXELS = 2**28
MOST_LETTERS = 200
_TOO_SMALL = "the figure is too small for what is in it: give a larger --size, or none"

# Okabe and Ito, Color Universal Design (2008), without their yellow, which is pale on white.
SERIES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")

# Nothing that names a date, a machine or a version; None leaves the entry out.
_METADATA: dict[str, dict[str, None]] = {
    ".png": {"Software": None},
    ".svg": {"Date": None, "Creator": None},
    ".pdf": {"Creator": None, "Producer": None, "CreationDate": None},
}
_SETTINGS: dict[str, Any] = {
    "axes.axisbelow": True,
    "axes.edgecolor": MUTED,
    "axes.formatter.use_mathtext": False,
    "axes.labelcolor": INK,
    "axes.labelsize": 10,
    "axes.linewidth": 0.8,
    "axes.prop_cycle": f"cycler('color', {list(SERIES)!r})",
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": 11,
    "axes.unicode_minus": True,
    "figure.titlesize": 13,
    "font.family": ["DejaVu Sans"],  # comes with Matplotlib: the same letters on every machine
    "font.size": 10,
    "grid.color": HAIR,
    "grid.linewidth": 0.6,
    "hatch.linewidth": 0.6,
    "legend.fontsize": 9,
    "legend.frameon": False,
    "lines.linewidth": 1.8,
    "pdf.fonttype": 42,  # text that can be searched and edited
    "savefig.facecolor": "white",
    "svg.fonttype": "path",
    "svg.hashsalt": "deepssim",
    "text.color": INK,
    "text.parse_math": False,
    "text.usetex": False,
    "xtick.color": MUTED,
    "xtick.labelcolor": INK,
    "xtick.labelsize": 9,
    "ytick.color": MUTED,
    "ytick.labelcolor": INK,
    "ytick.labelsize": 9,
}


@dataclass(frozen=True, slots=True)
class Palette:
    """Colours and words of the three classes, and colours of what is not a class.

    Attributes:
        classes: Colour of unrelated, exact and near pairs, by their numbers (`deepssim.evaluate`).
        hatches: Hatch of each, so that they differ without colour too.
        words: Name of each in a legend.
        real: Colour of real images.
        synthetic: Of synthetic images.
        holdout: Of images that the generator never saw.
        series: Colours of lines, for several metrics.
    """

    classes: tuple[str, str, str]
    hatches: tuple[str, str, str]
    words: tuple[str, str, str]
    real: str = "#4a6a92"
    synthetic: str = "#e08214"
    holdout: str = "#2a9d8f"
    series: tuple[str, ...] = SERIES


PALETTES = {
    # Apart under normal sight and under each of the three kinds of colour blindness, also by lightness.
    "safe": Palette(("#4C8DC2", "#9E2A2B", "#E9A820"), ("", "xxxx", "////"), ("unrelated", "exact copy", "near copy")),
    # What the published histograms show.
    "reference": Palette(("green", "red", "orange"), ("", "", ""), ("Different", "Duplicate", "Similar")),
}
LINE_STYLES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (1.2, 1.4)), (0, (7, 2, 1.5, 2)), (0, (3, 1.2)), (0, (9, 3)), "-")


@dataclass(frozen=True, slots=True)
class Look:
    """What a user may choose of a figure.

    Attributes:
        palette: ``"safe"`` for all eyes, or ``"reference"``: the published colours and words.
        title: Text, shown as it is.
        size: Width and height in inches; None: what suits the figure.

    Raises:
        UsageError: The palette is unknown, or the size is none.
    """

    palette: str = "safe"
    title: str = ""
    size: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if self.palette not in PALETTES:
            raise UsageError(f"there is no palette {self.palette!r}: choose {' or '.join(PALETTES)}")
        if self.size is not None and not all(1 <= side <= 60 for side in self.size):
            raise UsageError(f"a figure is 1 to 60 inches wide and high, not {self.size[0]:g} x {self.size[1]:g}")

    @property
    def colours(self) -> Palette:
        """The palette itself."""
        return PALETTES[self.palette]


def plain(text: str) -> str:
    r"""Return a user's text as one line that can be drawn: what is not printable comes out escaped.

    Example:
        >>> plain("cost: $5\n")
        'cost: $5\\n'
    """
    return one_line(text, MOST_LETTERS)


@contextlib.contextmanager
def _settings() -> Iterator[None]:
    import matplotlib as mpl
    from matplotlib import style

    with mpl.rc_context():
        # Whatever is in the user's own settings would change the bytes.
        style.use("default")
        settings: Any = mpl.rcParams
        settings.update(_SETTINGS)
        yield


def styled(draw: Callable[P, R], *, extra: str = "research") -> Callable[P, R]:
    """Let a function draw in the style of this package.

    Args:
        draw: The function.
        extra: The extra of this package that brings Matplotlib to whoever calls it.

    Raises:
        MissingDependencyError: Matplotlib is not installed.
    """

    @functools.wraps(draw)
    def inner(*args: P.args, **kwargs: P.kwargs) -> R:
        require("matplotlib", extra)
        with _settings():
            return draw(*args, **kwargs)

    return inner


def new_figure(look: Look, size: tuple[float, float]) -> Any:
    """Return an empty figure with its title; `size` in inches is used where the user gave none."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=look.size or size, layout="constrained")
    FigureCanvasAgg(figure)
    if look.title:
        figure.suptitle(plain(look.title))
    return figure


def lay_out(figure: Any) -> None:
    """Find the places of all parts of a figure.

    Raises:
        UsageError: There is no room for them.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph ")  # told when the figure is saved
        warnings.filterwarnings("error", message=".*layout not applied")
        try:
            figure.draw_without_rendering()
        except UserWarning:
            raise UsageError(_TOO_SMALL) from None


def check_target(path: Path, inputs: Sequence[Path] = ()) -> None:
    """Refuse a figure's file before anything is computed for it.

    Args:
        path: The file.
        inputs: Files and folders that the figure is made of: it may neither replace one nor lie among its images.

    Raises:
        UsageError: The suffix is unknown, the place is a folder or cannot be made, or it is an input.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise UsageError(f"{path.name} must end in {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}")
    if path.is_dir():
        raise UsageError(f"{path} is a folder: name a file")
    place = path.resolve()
    for one in inputs:
        given = one.resolve()
        if place == given or (given.is_dir() and given in place.parents):
            raise UsageError(f"{path} lies in {one}, which the figure is made of: name a file elsewhere")
    check_writable(path.parent)


def save(figure: Any, path: Path, *, dpi: int = 200) -> str:
    """Write a figure as PNG, SVG or PDF by its suffix, whole or not at all.

    The bytes depend on the figure and the version of Matplotlib alone: no date, host or environment is in them.

    Args:
        figure: A figure of this package.
        path: The file.
        dpi: Dots per inch of a PNG, and of the clouds of points in SVG and PDF.

    Returns:
        The letters that the font lacks, which come out as boxes; empty where there are none.

    Raises:
        UsageError: The suffix is unknown, or the figure would be too large.
    """
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise UsageError(f"{path.name} must end in {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}")
    width, height = figure.get_size_inches()
    if width * height * dpi * dpi > MOST_PIXELS:
        raise UsageError(f"{width:g} x {height:g} inches at {dpi} dots per inch are too large: lower --dpi or --size")
    with _settings(), warnings.catch_warnings(record=True) as told, replacing(path) as temporary:
        warnings.simplefilter("always")
        figure.savefig(temporary, format=suffix[1:], dpi=dpi, metadata=_METADATA[suffix])
        if any("layout not applied" in str(one.message) for one in told):
            raise UsageError(_TOO_SMALL)
    missing = []
    for one in told:
        match = re.match(r"Glyph (\d+) ", str(one.message))
        if match is None:
            warnings.warn_explicit(one.message, one.category, one.filename, one.lineno)
        elif chr(int(match[1])) not in missing:
            missing.append(chr(int(match[1])))
    return "".join(missing)
