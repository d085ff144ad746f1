"""``deepssim eval``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from deepssim.cli._labelled import check_list, input_paths, labelled_options, read_scores
from deepssim.cli._options import echo_json, talk_options, threads_option

if TYPE_CHECKING:
    from deepssim.evaluate import Evaluation
    from deepssim.labelled import LabelledPairs
    from deepssim.labelled.scores import PairScores
    from deepssim.progress import Progress

_FILE = click.Path(path_type=Path)
_IN_FOLDER = ("evaluation.json", "evaluation.md", "evaluation.tex", "figures.csv", "comparisons.csv", "pairs.csv")


@click.command("eval")
@labelled_options
@click.option("--thresholds", multiple=True, metavar="[NAME=]NEAR,EXACT",
              help="Thresholds of a metric; of verified S1 and S2, of an l2 metric distances.  "
              "[default: those that come with the metric]")  # fmt: skip
@click.option("--calibration", multiple=True, metavar="[NAME=]CALIBRATION",
              help="Thresholds of a metric from an installed calibration or a file.")  # fmt: skip
@click.option("--tune-on", type=_FILE, metavar="CSV",
              help="Choose thresholds by macro F1 on other labelled pairs, of other people; same sources.")  # fmt: skip
@click.option("--tune-here", is_flag=True,
              help="Choose thresholds on these very pairs: figures of labels are optimistic, and say so.")  # fmt: skip
@click.option("--resamples", type=click.IntRange(100, 100_000), default=1000, show_default=True,
              help="Draws of people that intervals and tests rest on.")  # fmt: skip
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of these draws.")
@click.option("--csv", "csv_file", type=_FILE, metavar="FILE", help="Write the figures as CSV, a metric by row.")
@click.option("--markdown", type=_FILE, metavar="FILE", help="Write the tables as Markdown.")
@click.option("--latex", type=_FILE, metavar="FILE", help="Write the tables as LaTeX (booktabs).")
@click.option("--out", type=_FILE, metavar="DIR",
              help="Write all into a folder: evaluation.json, .md, .tex, figures.csv, comparisons.csv, and pairs.csv "
              "with each pair's scores and labels.")  # fmt: skip
@click.option("--reference-lines", is_flag=True,
              help="Print the six lines of the reference implementation's eval.py, for one metric.")  # fmt: skip
@threads_option
@talk_options
def command(
    thresholds: Sequence[str],
    calibration: Sequence[str],
    tune_on: Path | None,
    tune_here: bool,
    resamples: int,
    seed: int,
    csv_file: Path | None,
    markdown: Path | None,
    latex: Path | None,
    out: Path | None,
    reference_lines: bool,
    threads: int,
    as_json: bool,
    quiet: bool,
    **sources: Any,
) -> None:
    """Measure metrics on labelled pairs, and compare them.

    Somebody has looked at pairs of a real and a synthetic image and labelled them: 0 different, 1 duplicate, 2 similar.
    Each metric is measured on them: macro and weighted F1, precision, recall and F1 of each class, silhouette, area
    under the ROC curve, true-positive rate at 5 and 1 % false positives, each with a 95 % interval from people drawn
    with replacement; pairs that share a person or an image are not independent. Metrics are compared two by two on the
    same draws. Scores come from images, from a matrix, from stores of embeddings, or from several of these at once.

    \b
    deepssim eval --pairs test.csv --images data/ --metric ssim --metric brain --metric verified.brain
    deepssim eval --pairs test.csv --images data/ --metric ssim --metric verified --perturb
    deepssim eval --pairs test.csv --matrix deepssim=scores.npz --real-indices real.npz \\
        --synthetic-indices synth.npz --latex table.tex
    deepssim eval --pairs test.csv --real-store real.store --synthetic-store synthetic.store \\
        --tune-on tune.csv --out evaluation/
    """
    from deepssim.cli._progress import make_progress
    from deepssim.evaluate import evaluate_pairs, table
    from deepssim.images.text import one_line

    if tune_on is not None and tune_here:
        raise click.UsageError("give --tune-on or --tune-here, not both")
    if (tune_on is not None or tune_here) and (thresholds or calibration):
        raise click.UsageError("thresholds are either given or chosen: leave --thresholds and --calibration out")
    files, stores, _ = input_paths(**sources)
    calibrations = [Path(text.rpartition("=")[2]) for text in calibration]
    targets = _Targets(csv_file, markdown, latex, out)
    targets.check([*files, *calibrations, *([tune_on] if tune_on is not None else [])], stores)
    progress = make_progress(quiet)
    if tune_on is not None:
        check_list(tune_on, group_by=sources["group_by"], images=sources["images"])
    pairs, scores = read_scores(**sources, threads=threads, progress=progress)
    warnings: list[str] = []
    if tune_on is not None or tune_here:
        scores, warnings = _tuned(pairs, scores, tune_on, {**sources, "threads": threads}, progress)
    elif thresholds or calibration:
        from deepssim.labelled.thresholds import give_thresholds

        scores = give_thresholds(scores, thresholds, calibration)
    progress.status(f"{resamples:,} draws of people")
    evaluation = evaluate_pairs(pairs, scores, resamples=resamples, seed=seed)
    evaluation.warnings.extend(warnings)
    targets.write(evaluation)
    if as_json:
        echo_json(evaluation.as_dict())
    elif reference_lines:
        for line in (*(note for metric in evaluation.metrics for note in metric.notes), *evaluation.warnings):
            click.echo(f"Warning: {one_line(line, 1000)}", err=True)
        click.echo("\n".join(line for metric in evaluation.metrics for line in table.reference_lines(metric)))
    else:
        click.echo(table.as_text(evaluation))


def _tuned(
    pairs: LabelledPairs, scores: list[PairScores], tune_on: Path | None, sources: dict[str, Any], progress: Progress
) -> tuple[list[PairScores], list[str]]:
    """Choose thresholds; on the pairs themselves where no others are given."""
    from deepssim.labelled.thresholds import choose_thresholds

    if tune_on is None:
        chosen = choose_thresholds(pairs, scores, "chosen on these very pairs (optimistic)")
        warnings = ["thresholds were chosen on these very pairs: figures of labels are optimistic, and their intervals "
                    "do not show it"]  # fmt: skip
    else:
        others, other_scores = read_scores(**{**sources, "testset_csv": tune_on}, progress=progress)
        chosen = choose_thresholds(others, other_scores, f"chosen on {tune_on.name}")
        shared = {str(name) for name in pairs.people} & {str(name) for name in others.people}
        warnings = [f"{len(shared):,} people of {tune_on.name}, which chose the thresholds, are in {pairs.path.name} "
                    "too: figures of labels are optimistic"] if shared else []  # fmt: skip
    return [replace(one, calibration=found) for one, found in zip(scores, chosen, strict=True)], warnings


class _Targets:
    """Files that the evaluation is written to; checked before the work."""

    def __init__(self, csv_file: Path | None, markdown: Path | None, latex: Path | None, out: Path | None) -> None:
        self.csv, self.markdown, self.latex, self.out = csv_file, markdown, latex, out
        named = [path for path in (csv_file, markdown, latex) if path is not None]
        if len({path.resolve() for path in named}) < len(named):
            raise click.UsageError("--csv, --markdown and --latex need different files")
        if out is not None and out.exists() and not out.is_dir():
            raise click.UsageError(f"--out {out} is a file: name a folder")

    def check(self, files: Sequence[Path], stores: Sequence[Path]) -> None:
        """Refuse to write over what is read, and make the folders.

        Raises:
            UsageError: An output is an input or lies in a store, or a folder cannot be made.
        """
        from deepssim.errors import UsageError
        from deepssim.matrix import make_parent

        named = [path for path in (self.csv, self.markdown, self.latex) if path is not None]
        inside = [self.out / name for name in _IN_FOLDER] if self.out is not None else []
        for path in (*named, *inside):
            place = path.resolve()
            for one in (*files, *stores):
                if place == one.resolve() or (one in stores and one.resolve() in place.parents):
                    raise UsageError(f"{path} would be written over or into {one}, which is read: name another place")
        for path in (*named, *inside[:1]):
            make_parent(path)

    def write(self, evaluation: Evaluation) -> None:
        """Write whatever was asked for."""
        from deepssim.disk import write_json
        from deepssim.evaluate import table
        from deepssim.tables import write_csv

        for path in filter(None, (self.csv, self.out and self.out / "figures.csv")):
            write_csv(path, *table.figure_rows(evaluation))
        for path in filter(None, (self.markdown, self.out and self.out / "evaluation.md")):
            _write_text(path, table.as_markdown(evaluation))
        for path in filter(None, (self.latex, self.out and self.out / "evaluation.tex")):
            _write_text(path, table.as_latex(evaluation))
        if self.out is not None:
            write_csv(self.out / "comparisons.csv", *table.comparison_rows(evaluation))
            write_csv(self.out / "pairs.csv", *table.pair_rows(evaluation))
            write_json(self.out / "evaluation.json", evaluation.as_dict())


def _write_text(path: Path, text: str) -> None:
    from deepssim.disk import replacing

    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="surrogateescape")
