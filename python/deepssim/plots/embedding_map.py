"""A map of embeddings: real, synthetic and holdout images as points, flagged pairs joined."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from deepssim.errors import StoreError, UsageError
from deepssim.evaluate import EXACT, NEAR
from deepssim.images.text import some
from deepssim.plots.marks import percent
from deepssim.plots.projection import draw_rows, principal_axes, read_rows, umap_points
from deepssim.plots.style import INK, MUTED, Look, new_figure, styled
from deepssim.report.data import read_summary
from deepssim.report.tables import Table
from deepssim.store import Store

__all__ = ["METHODS", "EmbeddingMap", "Flagged", "draw_map", "make_map", "read_flagged"]

METHODS = ("pca", "umap")
MOST_POINTS = {"pca": 50_000, "umap": 5_000}
MOST_PAIRS = 2000
# More points than these are drawn as an image inside SVG and PDF.
MOST_VECTORS = 3000
SETS = ("real", "holdout", "synthetic")
WORDS = {"real": "real", "holdout": "never seen by the generator", "synthetic": "synthetic"}
MARKERS = {"real": "o", "holdout": "s", "synthetic": "^"}

Floats = NDArray[np.float64]
Rows = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Flagged:
    """Flagged pairs of an audit: the nearest real image of synthetic ones.

    Attributes:
        real_ids: Of each pair.
        synthetic_ids: Of each pair.
        is_exact: ``(p,)`` whether it is an exact copy, else a near one.
        n_all: Synthetic images that were flagged, of which these are the nearest.
    """

    real_ids: list[str]
    synthetic_ids: list[str]
    is_exact: NDArray[np.bool_]
    n_all: int


@dataclass(frozen=True, slots=True)
class EmbeddingMap:
    """Points of a map.

    Attributes:
        points: ``(n, 2)`` of each set, by its name.
        sizes: Images of each set, of which the points may be a draw.
        pairs: ``(p, 2, 2)`` ends of flagged pairs: synthetic, real.
        is_exact: ``(p,)``.
        n_flagged: Synthetic images that were flagged.
        axes: What the two axes are.
        note: What else has to be said.
    """

    points: Mapping[str, Floats]
    sizes: Mapping[str, int]
    pairs: Floats
    is_exact: NDArray[np.bool_]
    n_flagged: int
    axes: tuple[str, str]
    note: str = ""


def read_flagged(folder: Path, *, most: int = MOST_PAIRS) -> Flagged:
    """Read the flagged pairs of an audit, nearest first.

    Args:
        folder: Results of an audit.
        most: At most so many pairs.

    Raises:
        ReportError: The folder is no audit's, or a file is damaged.
    """
    summary = read_summary(folder)
    table = Table(folder / "matches.parquet")
    n_wanted = min(most, summary.flagged.count)
    key = "s1" if summary.is_verified else "score"
    rows = table.top([key], n_wanted, only=("rank", 1)) if n_wanted else []
    rows = [row for row in rows if row["label"] != "unrelated"]
    return Flagged(
        [row["real_id"] for row in rows],
        [row["synthetic_id"] for row in rows],
        np.array([row["label"] == "exact" for row in rows], bool),
        summary.flagged.count,
    )


def make_map(
    stores: Mapping[str, Store],
    flagged: Flagged | None = None,
    *,
    method: str = "pca",
    most_points: int | None = None,
    seed: int = 0,
) -> EmbeddingMap:
    """Project embeddings to a plane.

    Principal axes are those of the real images, so that maps of several generators have the same axes. A UMAP is made
    of all points together. Of large sets points are drawn; images of flagged pairs are always among them.

    Args:
        stores: Of one metric, by ``"real"`` (needed), ``"synthetic"`` and ``"holdout"``.
        flagged: Pairs to join.
        method: ``"pca"`` or ``"umap"``.
        most_points: At most so many of each set. None: 50,000, of a UMAP 5,000.
        seed: Of draws.

    Raises:
        StoreError: The stores are of several metrics.
        UsageError: The method is unknown, a store is empty, or images of flagged pairs are in no store.
    """
    if method not in METHODS:
        raise UsageError(f"there is no method {method!r}: choose {' or '.join(METHODS)}")
    _check_stores(stores)
    most = most_points or MOST_POINTS[method]
    ends = {"real": flagged.real_ids, "synthetic": flagged.synthetic_ids} if flagged and "synthetic" in stores else {}
    always = {name: _rows_of(stores[name], ids, name) for name, ids in ends.items()}
    rows = {name: draw_rows(len(store), most, seed, always.get(name)) for name, store in stores.items()}
    points, names, note = (_by_axes if method == "pca" else _by_umap)(stores, rows, seed)
    # As fine as any figure: the last bits may differ between machines.
    scale = max(float(np.ptp(p)) for p in points.values()) or 1.0
    digits = 6 - int(np.floor(np.log10(scale)))
    points = {name: np.round(p, digits) for name, p in points.items()}
    sides = [
        points[name][np.searchsorted(rows[name], always[name])] for name in ("synthetic", "real") if name in always
    ]
    is_joined = flagged is not None and len(sides) == 2
    return EmbeddingMap(
        points,
        {name: len(store) for name, store in stores.items()},
        np.stack(sides, axis=1) if is_joined else np.empty((0, 2, 2)),
        flagged.is_exact if is_joined and flagged is not None else np.empty(0, bool),
        flagged.n_all if is_joined and flagged is not None else 0,
        names,
        note,
    )


def _by_axes(
    stores: Mapping[str, Store], rows: Mapping[str, Rows], seed: int
) -> tuple[dict[str, Floats], tuple[str, str], str]:
    """Return points by set, what the axes are, and a note."""
    axes = principal_axes(stores["real"], seed=seed)
    points = {name: np.concatenate([axes(block) for block in read_rows(stores[name], rows[name])]) for name in rows}
    shares = [f"{percent(share)} of the variance of the real images" for share in axes.shares.tolist()]
    n_real = len(stores["real"])
    note = f"Axes from {axes.n_rows:,} of {n_real:,} real images." if axes.n_rows < n_real else ""
    return points, (f"first principal axis: {shares[0]}", f"second: {shares[1]}"), note


def _by_umap(
    stores: Mapping[str, Store], rows: Mapping[str, Rows], seed: int
) -> tuple[dict[str, Floats], tuple[str, str], str]:
    """Return points by set, what the axes are, and a note."""
    held = np.concatenate([block for name in rows for block in read_rows(stores[name], rows[name])])
    placed = umap_points(held, seed=seed)
    bounds = np.cumsum([len(drawn) for drawn in rows.values()])[:-1]
    points = dict(zip(rows, np.split(placed, bounds), strict=True))
    return points, ("UMAP 1", "UMAP 2"), "Distances between groups of a UMAP mean nothing."


def _check_stores(stores: Mapping[str, Store]) -> None:
    unknown = sorted(set(stores) - set(SETS))
    if unknown or "real" not in stores:
        raise UsageError(f"a map is of the sets real, synthetic and holdout, real among them, not {', '.join(stores)}")
    empty = [str(store.path) for store in stores.values() if len(store) == 0]
    if empty:
        raise UsageError(f"there are no images in {' and '.join(empty)}")
    real = stores["real"]
    others = [
        f"{store.path} of {store.metric['name']}"
        for store in stores.values()
        if (store.metric, store.dim) != (real.metric, real.dim)
    ]
    if others:
        raise StoreError(
            f"{real.path} is of the metric {real.metric['name']}, but {' and '.join(others)} (or of another version): "
            "embed all with one metric"
        )


def _rows_of(store: Store, ids: Sequence[str], what: str) -> Rows:
    """Return the rows of ids."""
    found = np.full(len(ids), -1, np.int64)
    wanted = pa.array(ids, pa.string())
    for shard in store.shards:
        here = pc.index_in(wanted, value_set=store.shard_records(shard, ["id"])["id"].combine_chunks())
        at = here.fill_null(-1).to_numpy(zero_copy_only=False)
        found[at >= 0] = at[at >= 0] + shard.first_row
    missing = [ids[k] for k in np.flatnonzero(found < 0).tolist()]
    if missing:
        raise UsageError(
            f"{len(missing):,} flagged images of the audit are not in {store.path}: {some(missing)}; give the store of "
            f"the {what} images that were audited"
        )
    return found


@styled
def draw_map(made: EmbeddingMap, look: Look | None = None) -> Any:
    """Draw a map of embeddings.

    Args:
        made: From `make_map`.
        look: Palette, title and size.

    Returns:
        The Matplotlib figure.

    Raises:
        MissingDependencyError: Matplotlib is not installed.

    Example:
        >>> points = {"real": np.array([[0.0, 0.0], [1.0, 1.0]])}
        >>> made = EmbeddingMap(points, {"real": 2}, np.empty((0, 2, 2)), np.empty(0, bool), 0, ("x", "y"))
        >>> [text.get_text() for text in draw_map(made).legends[0].get_texts()]
        ['real (2)']
    """
    look = look or Look()
    palette = look.colours
    figure = new_figure(look, (7.0, 6.6))
    axes = figure.subplots()
    colours = {"real": palette.real, "holdout": palette.holdout, "synthetic": palette.synthetic}
    n_points = sum(len(points) for points in made.points.values())
    # Of few points each is seen; of many their density.
    size = float(np.clip(12000 / max(n_points, 1), 1.2, 22))
    alpha = float(np.clip(900 / max(n_points, 1) ** 0.75, 0.12, 0.75))
    handles = []
    for order, name in enumerate(name for name in SETS if name in made.points):
        points = made.points[name]
        axes.scatter(points[:, 0], points[:, 1], s=size, marker=MARKERS[name], color=colours[name], alpha=alpha,
                     linewidths=0, rasterized=n_points > MOST_VECTORS, zorder=2 + order * 0.1)  # fmt: skip
        handles.append(_handle(MARKERS[name], colours[name], _count(WORDS[name], len(points), made.sizes[name])))
    _join(axes, made, look, handles)
    axes.set(xlabel=made.axes[0], ylabel=made.axes[1], xticks=[], yticks=[])
    axes.set_aspect("equal", adjustable="datalim")
    axes.margins(0.04)
    legend = figure.legend(handles=handles, loc="outside lower left", ncols=2, handletextpad=0.6, columnspacing=2,
                           title=made.note or None, title_fontsize=8.5, alignment="left")  # fmt: skip
    legend.get_title().set_color(MUTED)
    return figure


def _count(word: str, n_drawn: int, n_all: int) -> str:
    return f"{word} ({n_all:,})" if n_drawn >= n_all else f"{word} ({n_drawn:,} of {n_all:,} drawn)"


def _handle(marker: str, colour: str, label: str, **more: Any) -> Any:
    from matplotlib.lines import Line2D

    return Line2D([], [], linestyle="", marker=marker, markersize=7, color=colour, markeredgewidth=0, label=label,
                  **more)  # fmt: skip


def _join(axes: Any, made: EmbeddingMap, look: Look, handles: list[Any]) -> None:
    """Draw flagged pairs: a ring at the synthetic image, a line to the real one."""
    from matplotlib.collections import LineCollection
    from matplotlib.lines import Line2D

    palette = look.colours
    styles: tuple[tuple[bool, int, Any], ...] = ((False, NEAR, (0, (2, 1))), (True, EXACT, "-"))
    for is_exact, label, style in styles:
        chosen = made.pairs[made.is_exact == is_exact]
        if len(chosen) == 0:
            continue
        colour, word = palette.classes[label], palette.words[label]
        axes.add_collection(LineCollection(list(chosen), colors=colour, linewidths=1.1, linestyles=style, zorder=4))
        axes.scatter(chosen[:, 0, 0], chosen[:, 0, 1], s=46, facecolor="none", edgecolor=colour, linewidths=1.2,
                     zorder=5, marker="o" if is_exact else "D")  # fmt: skip
        text = f"{word}, joined to its real image ({len(chosen):,})"
        handles.append(
            Line2D([], [], color=colour, linestyle=style, linewidth=1.1, marker="o" if is_exact else "D",
                   markersize=7, markerfacecolor="none", label=text)
        )  # fmt: skip
    if made.n_flagged > len(made.pairs):
        text = f"the nearest {len(made.pairs):,} of {made.n_flagged:,} flagged images are joined"
        handles.append(Line2D([], [], linestyle="", color=INK, label=text))
