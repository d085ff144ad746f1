"""``deepssim plot``."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from deepssim.cli._labelled import input_paths, labelled_options, read_scores
from deepssim.cli._options import apply_options, echo_json, talk_options, threads_option
from deepssim.errors import UsageError

if TYPE_CHECKING:
    from deepssim.plots import Look, ScoredPairs

F = TypeVar("F", bound=Callable[..., Any])

# Of deepssim.plots, which loads Matplotlib's friends and is not loaded for a help text.
PALETTES = ("safe", "reference")
METHODS = ("pca", "umap")
_PATH = click.Path(path_type=Path)


class Inches(click.ParamType[tuple[float, float]]):
    """Width and height of a figure: ``6x5``."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[float, float]:
        """Read the text."""
        match = re.fullmatch(r"\s*(\d{0,3}(?:\.\d{1,4})?)\s*[xX]\s*(\d{0,3}(?:\.\d{1,4})?)\s*", str(value))
        if match is None or not all(part and 1 <= float(part) <= 60 for part in match.groups()):
            self.fail(f"{value!r} is no size in inches, width x height, 1 to 60, such as 6x5", param, ctx)
        return float(match[1]), float(match[2])


def figure_options(function: F) -> F:
    """Add where a figure goes and how it looks: `out`, `title`, `size`, `dpi` and `palette`."""
    options = [
        click.option("--out", "-o", required=True, type=_PATH, metavar="FILE",
                     help="The figure: PNG, SVG or PDF by its suffix."),
        click.option("--title", default="", help="Of the figure; shown as it is."),
        click.option("--size", type=Inches(), metavar="WxH", help="Inches, such as 6x5.  [default: what suits]"),
        click.option("--dpi", type=click.IntRange(50, 1200), default=200, show_default=True,
                     help="Dots per inch of a PNG, and of clouds of points in SVG and PDF."),
        click.option("--palette", type=click.Choice(PALETTES), default="safe", show_default=True,
                     help="safe: told apart with every kind of colour blindness; reference: the published green, "
                     "orange and red, and its words."),
    ]  # fmt: skip
    return apply_options(options, function)


def scored_options(function: F) -> F:
    """Add labelled pairs, their scores and thresholds, and the figure's options."""
    options = [
        labelled_options,
        click.option("--thresholds", multiple=True, metavar="[NAME=]NEAR,EXACT",
                     help="Thresholds of a metric; of verified S1 and S2, of an l2 metric distances.  "
                     "[default: those that come with the metric]"),
        click.option("--calibration", multiple=True, metavar="[NAME=]CALIBRATION",
                     help="Thresholds of a metric from an installed calibration or a file."),
        figure_options,
        threads_option,
        talk_options,
    ]  # fmt: skip
    return apply_options(options, function)


@click.group("plot")
def command() -> None:
    """Draw scores, rates, audits and embeddings as PNG, SVG or PDF.

    \b
    deepssim plot histogram --pairs test.csv --images data/ --metric ssim --out ssim.png
    deepssim plot roc --pairs test.csv --images data/ --metric ssim --metric verified --out roc.pdf
    deepssim plot control RESULT/ --out control.svg
    """


@command.command("histogram", short_help="Scores of labelled pairs by class, as published.")
@scored_options
@click.option("--bins", type=click.IntRange(1, 2000), default=55, show_default=True, help="Over all scores.")
@click.option("--stored-bins", "is_stored", is_flag=True,
              help="Round edges of bins to the matrix's precision, as the reference implementation does.")  # fmt: skip
def histogram(bins: int, is_stored: bool, **asked: Any) -> None:
    """Draw how many labelled pairs of each class have which score, as published for these metrics.

    A panel a metric: bars by class, dashed thresholds, the title below, no vertical axis.

    \b
    deepssim plot histogram --pairs test.csv --matrix matrices/deepssim.npz --metric deepssim \\
        --real-indices indices/real.npz --synth-indices indices/synth.npz \\
        --title DeepSSIM --palette reference --out report.png
    """
    from deepssim.plots import count_scores, draw_histogram

    scored, look = _read(asked)
    _write(draw_histogram(scored, look, n_bins=bins, is_stored=is_stored), asked, f"{_what(scored)}", lambda: [
        {"metric": stage.name, "thresholds": {word: value for word, value, _ in stage.marks},
         "edges": edges.tolist(), "counts": dict(zip(("unrelated", "exact", "near"), counts.tolist(), strict=True))}
        for one in scored for stage in one.stages()
        for edges, counts in [count_scores(stage.values, stage.labels, bins, is_stored=is_stored)]
    ])  # fmt: skip


@command.command("densities", short_help="Densities of scores within each class.")
@scored_options
def densities(**asked: Any) -> None:
    """Draw how scores are distributed within each class: a panel a metric, a row a class.

    A class of few pairs is drawn as ticks, since a smooth curve would claim a shape that nobody has seen.

    \b
    deepssim plot densities --pairs test.csv --images data/ --metric ssim --metric verified --out densities.pdf
    """
    from deepssim.plots import draw_densities

    scored, look = _read(asked)
    _write(draw_densities(scored, look), asked, _what(scored))


@command.command("roc", short_help="Copies found against others flagged.")
@scored_options
@click.option("--log", "is_log", is_flag=True, help="False positives on a logarithmic axis.")
def roc(is_log: bool, **asked: Any) -> None:
    """Draw the ROC: copies against unrelated pairs, and exact copies against all others.

    What is found where 5 % and 1 % of the others are flagged is marked, where there are enough others to say.

    \b
    deepssim plot roc --pairs test.csv --images data/ --metric ssim --metric verified --log --out roc.pdf
    """
    from deepssim.plots import draw_roc, roc_figures

    scored, look = _read(asked)
    _write(draw_roc(scored, look, is_log=is_log), asked, _what(scored), lambda: roc_figures(scored))


@command.command("thresholds", short_help="What each threshold would do to labelled pairs.")
@scored_options
@click.option("--log", "is_log", is_flag=True, help="Shares on a logarithmic axis, so that small rates can be read.")
def thresholds(is_log: bool, **asked: Any) -> None:
    """Draw what other thresholds would do to labelled pairs: copies found, others flagged, precision, macro F1.

    A row a metric: the near threshold to the left, the exact one to the right.

    \b
    deepssim plot thresholds --pairs test.csv --images data/ --metric verified --out thresholds.pdf
    """
    from deepssim.plots import draw_sensitivity

    scored, look = _read(asked)
    _write(draw_sensitivity(scored, look, is_log=is_log), asked, _what(scored))


@command.command("calibration", short_help="The curve that a calibration holds.")
@click.argument("calibration", metavar="NAME|FILE")
@figure_options
@click.option("--log", "is_log", is_flag=True, help="Shares on a logarithmic axis, so that small rates can be read.")
@talk_options
def calibration(calibration: str, is_log: bool, **asked: Any) -> None:
    """Draw the curve that a calibration holds: what other near thresholds would have done to its images.

    \b
    deepssim plot calibration mine.calibration.json --log --out curve.png
    """
    from deepssim.calibration import load_calibration
    from deepssim.plots import draw_calibration

    one = load_calibration(calibration)
    if one.curve is None:
        raise UsageError(f"the calibration {calibration} holds no curve: deepssim calibrate writes one where it can")
    look = _look(asked, [Path(calibration)])
    _write(draw_calibration(one, look, is_log=is_log), asked, f"{len(one.curve.cuts):,} thresholds")


@command.command("control", short_help="An audit against real images and its holdout.")
@click.argument("result", type=_PATH)
@figure_options
@talk_options
def control(result: Path, **asked: Any) -> None:
    """Draw the best score of each synthetic image of the audit RESULT: against real images, and the holdout below.

    \b
    deepssim audit train/ generated/ --holdout unseen/ --out RESULT/
    deepssim plot control RESULT/ --out control.pdf
    """
    from deepssim.plots import draw_control

    look = _look(asked, [result / "evidence"])
    _write(draw_control(result, look), asked, f"the audit {result}")


@command.command("map", short_help="Embeddings in two dimensions, flagged pairs joined.")
@click.option("--real-store", type=_PATH, help="Store of the real images.  [default: that in the audit's folder]")
@click.option("--synthetic-store", "--synth-store", "synthetic_store", type=_PATH, help="Store of the synthetic ones.")
@click.option("--holdout-store", type=_PATH, help="Store of real images that the generator never saw.")
@click.option("--audit", type=_PATH, metavar="RESULT", help="An audit of them: its flagged pairs are joined by lines.")
@click.option("--method", type=click.Choice(METHODS), default="pca", show_default=True,
              help="pca: principal axes of the real images; umap: needs the extra umap.")  # fmt: skip
@click.option("--points", type=click.IntRange(10, 1_000_000),
              help="Points of each set at most, drawn at random.  [default: 50,000; umap 5,000]")  # fmt: skip
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), default=0, show_default=True, help="Of all draws.")
@figure_options
@talk_options
def embedding_map(
    real_store: Path | None,
    synthetic_store: Path | None,
    holdout_store: Path | None,
    audit: Path | None,
    method: str,
    points: int | None,
    seed: int,
    **asked: Any,
) -> None:
    """Draw a map of embeddings: real, synthetic and holdout images in two dimensions.

    \b
    deepssim embed generated/ --metric RESULT/real.store --out generated.store
    deepssim plot map --audit RESULT/ --synthetic-store generated.store --out map.png
    """
    from deepssim.plots import draw_map, make_map, read_flagged
    from deepssim.store import Store

    if audit is not None:
        real_store = real_store or audit / "real.store"
        if holdout_store is None and Store.is_store(audit / "holdout.store"):
            holdout_store = audit / "holdout.store"
    if real_store is None:
        raise click.UsageError("say which images are drawn: --real-store STORE, or --audit RESULT")
    if audit is not None and synthetic_store is None:
        raise click.UsageError("--audit joins synthetic images to real ones: give --synthetic-store too, which "
                               "deepssim embed makes")  # fmt: skip
    paths = {"real": real_store, "synthetic": synthetic_store, "holdout": holdout_store}
    named = {name: path for name, path in paths.items() if path is not None}
    look = _look(asked, [*named.values(), *([audit / "evidence"] if audit else [])])
    stores = {name: Store(path) for name, path in named.items()}
    flagged = read_flagged(audit) if audit is not None else None
    made = make_map(stores, flagged, method=method, most_points=points, seed=seed)
    sets = ", ".join(f"{len(made.points[name]):,} of {made.sizes[name]:,} {name}" for name in made.points)
    joined = f", {len(made.pairs):,} pairs joined" if flagged is not None else ""
    _write(draw_map(made, look), asked, f"{sets} images{joined}")


def _look(asked: dict[str, Any], inputs: Sequence[Path]) -> Look:
    """Check where the figure goes, and return how it looks."""
    from deepssim.extras import require
    from deepssim.plots import Look, check_target

    require("matplotlib", "research")
    check_target(asked["out"], inputs)
    return Look(asked["palette"], asked["title"], asked["size"])


def _read(asked: dict[str, Any]) -> tuple[list[ScoredPairs], Look]:
    """Return scores of labelled pairs, and how the figure looks; the figure's place is checked first."""
    from deepssim.cli._progress import make_progress
    from deepssim.labelled.thresholds import give_thresholds
    from deepssim.plots import ScoredPairs

    own = ("out", "title", "size", "dpi", "palette", "as_json", "quiet", "thresholds", "calibration")
    source = {name: value for name, value in asked.items() if name not in own}
    files, stores, folders = input_paths(**source)
    look = _look(asked, [*files, *stores, *folders])
    _check_thresholds(asked["thresholds"], asked["calibration"])
    pairs, found = read_scores(**source, progress=make_progress(asked["quiet"]))
    found = give_thresholds(found, asked["thresholds"], asked["calibration"])
    conditions = {one.condition for one in found}
    is_shared = len(found) > 1 and len(conditions) == 1 and conditions != {""}
    if is_shared:  # said once
        look = replace(look, title=", ".join(part for part in (look.title, *conditions) if part))
    scored = []
    for one in found:
        near, exact = (None, None) if one.calibration is None else (one.calibration.near, one.calibration.exact)
        name = f"{one.metric}, {one.condition}" if one.condition and not is_shared else one.metric
        scored.append(
            ScoredPairs(name, one.scores, pairs.labels, near, exact, one.detail, is_distance=one.similarity == "l2")
        )
    return scored, look


def _check_thresholds(thresholds: Sequence[str], calibrations: Sequence[str]) -> None:
    """Refuse what cannot be read before anything is scored."""
    from deepssim.calibration import load_calibration, parse_thresholds

    for text in thresholds:
        parse_thresholds(text.rpartition("=")[2])
    for text in calibrations:
        load_calibration(text.rpartition("=")[2])


def _what(scored: Sequence[ScoredPairs]) -> str:
    return f"{len(scored[0].labels):,} pairs by {', '.join(one.name for one in scored)}"


def _write(figure: Any, asked: dict[str, Any], what: str, values: Callable[[], Any] | None = None) -> None:
    from deepssim.images.text import one_line
    from deepssim.plots import save

    missing = save(figure, asked["out"], dpi=asked["dpi"])
    if missing:
        click.echo(f"Warning: the font has no {' '.join(missing)}: boxes stand for them", err=True)
    if asked["as_json"]:
        echo_json({"out": str(asked["out"]), **({"figures": values()} if values else {})})
    else:
        click.echo(f"{one_line(str(asked['out']), 500)}: {one_line(what, 500)}")
