"""An evaluation as tables: for a terminal, Markdown and LaTeX, and as rows for CSV."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from deepssim.calibration import Calibration
from deepssim.errors import UsageError
from deepssim.evaluate.classes import CLASS_NAMES, EXACT, NEAR, UNRELATED
from deepssim.evaluate.evaluation import Evaluation, Figure, MetricEvaluation
from deepssim.evaluate.paired import Comparison
from deepssim.images.text import one_line
from deepssim.metric import l2_distance

__all__ = ["as_latex", "as_markdown", "as_text", "comparison_rows", "figure_rows", "pair_rows", "reference_lines"]

TITLES = {
    "macro_f1": "macro F1",
    "weighted_f1": "weighted F1",
    "silhouette": "silhouette",
    "auc_exact": "AUC, exact",
    "tpr_5_exact": "TPR at 5 % FPR, exact",
    "tpr_1_exact": "TPR at 1 % FPR, exact",
    "tpr_0.1_exact": "TPR at 0.1 % FPR, exact",
    "auc_copies": "AUC, copies",
    "tpr_5_copies": "TPR at 5 % FPR, copies",
    "tpr_1_copies": "TPR at 1 % FPR, copies",
    "tpr_0.1_copies": "TPR at 0.1 % FPR, copies",
}
_RARE = ("tpr_0.1_exact", "tpr_0.1_copies")
_OF_CLASSES = ("precision", "recall", "f1")
_GAP = "  "
READING = (
    "exact: exact copies against all other pairs; copies: exact and near copies against unrelated pairs; in brackets "
    "the 95 % interval"
)
CONVENTION = "McNemar's test is the published convention; it takes every pair as independent of every other"


# Names and paths come from files: whatever is in them stays one line of signs that can be seen.
_MOST_SIGNS = 2000


@dataclass(frozen=True, slots=True)
class _Table:
    """Cells of text, the first column names the row."""

    header: list[str]
    rows: list[list[str]]


def _table(header: list[str], rows: list[list[str]]) -> _Table:
    return _Table(_plain(header), [_plain(row) for row in rows])


def _plain(texts: list[str]) -> list[str]:
    return [one_line(text, _MOST_SIGNS) for text in texts]


def _number(value: float) -> str:
    # What is not 1 is not shown as 1.
    return "0.999" if 0.9995 <= value < 1 - 1e-12 else f"{value:.3f}"


def _cell(figure: Figure | None) -> str:
    if figure is None or figure.value is None:
        return "-"
    if figure.low is None or figure.high is None:
        return _number(figure.value)
    return f"{_number(figure.value)} [{_number(figure.low)}, {_number(figure.high)}]"


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def thresholds_text(calibration: Calibration | None, similarity: str = "cosine") -> str:
    """Say what is near and what is exact.

    Example:
        >>> from deepssim.calibration import Threshold
        >>> thresholds_text(Calibration("m", Threshold(0.6, ">"), Threshold(0.85), "an example"))
        'near > 0.6, exact >= 0.85'
    """
    if calibration is None:
        return "none"
    parts = []
    for name, threshold in (("near", calibration.near), ("exact", calibration.exact)):
        sign, value = threshold.comparison, threshold.value
        if similarity == "l2":
            sign, value = sign.replace(">", "<"), l2_distance(value)
        stage = {"near": "S1 ", "exact": "S2 "}[name] if calibration.stage == "verified" else ""
        parts.append(f"{name} {stage}{sign} {value:.6g}")
    return ", ".join(parts)


def _titles(evaluation: Evaluation) -> dict[str, str]:
    """Return the figures that are worth a row: those of one in a thousand only where one metric has them."""
    return {
        figure: title
        for figure, title in TITLES.items()
        if figure not in _RARE or any(_is_defined(metric, figure) for metric in evaluation.metrics)
    }


def _is_defined(metric: MetricEvaluation, figure: str) -> bool:
    return figure in metric.figures and metric.figures[figure].value is not None


def _heading(evaluation: Evaluation) -> list[str]:
    pairs, sampling = evaluation.pairs, evaluation.resampling
    counts = ", ".join(f"{n:,} {name}" for name, n in zip(CLASS_NAMES, evaluation.support, strict=True))
    lines = [
        f"{len(pairs):,} pairs of {pairs.path.name} ({counts}), of {sampling.n_people:,} people (by "
        f"{pairs.people_from}) and {sampling.n_images:,} synthetic images",
        sampling.sentence(),
    ]
    conditions = list(dict.fromkeys(metric.condition for metric in evaluation.metrics if metric.condition))
    return _plain([*lines, *(f"condition: {condition}" for condition in conditions)])


def _notes(evaluation: Evaluation) -> list[str]:
    """Return what has to be said, once each: notes of figures with the metrics that they are of."""
    found: dict[str, list[str]] = {}
    titles = {**TITLES, **{f"{kind}_{name}": f"{kind} {name}" for kind in _OF_CLASSES for name in CLASS_NAMES}}
    for metric in evaluation.metrics:
        for note in metric.notes:
            found.setdefault(note, []).append(metric.name)
        for name, figure in metric.figures.items():
            if figure.note:
                found.setdefault(f"{titles[name]}: {figure.note}", []).append(metric.name)
    n = len(evaluation.metrics)
    return [note if len(of) == n and n > 1 else f"{', '.join(of)}: {note}" for note, of in found.items()]


def _of_metrics(evaluation: Evaluation) -> _Table:
    """Main figures, a metric by column."""
    rows = [
        [title, *(_cell(metric.figures.get(figure)) for metric in evaluation.metrics)]
        for figure, title in _titles(evaluation).items()
    ]
    return _table(["", *(metric.name for metric in evaluation.metrics)], rows)


def _of_thresholds(evaluation: Evaluation) -> _Table:
    rows = [
        [metric.name, thresholds_text(metric.calibration, metric.similarity),
         "" if metric.calibration is None else metric.calibration.source]
        for metric in evaluation.metrics
    ]  # fmt: skip
    return _table(["metric", "thresholds", "from"], rows)


def _of_classes(evaluation: Evaluation) -> _Table:
    """Figures of each class, and how its pairs were labelled."""
    header = ["metric", "class", "precision", "recall", "F1", "pairs", *(f"labelled {name}" for name in CLASS_NAMES)]
    rows = [
        [metric.name, name, *(_cell(metric.figures[f"{kind}_{name}"]) for kind in _OF_CLASSES),
         f"{int(metric.report.support[label]):,}", *(f"{n:,}" for n in metric.report.confusion[label].tolist())]
        for metric in evaluation.metrics if metric.report is not None
        for label, name in enumerate(CLASS_NAMES)
    ]  # fmt: skip
    return _table(header, rows)


def _of_comparisons(comparisons: Sequence[Comparison]) -> _Table:
    header = ["metrics", "figure", "difference", "p", "p (Holm)", "McNemar: right alone", "McNemar p"]
    rows = []
    for one in comparisons:
        test = one.mcnemar
        published = ["-", "-"] if test is None else [f"{test.first_only:,} : {test.second_only:,}", _p(test.p)]
        difference = f"{one.difference:+.3f} [{one.low:+.3f}, {one.high:+.3f}]"
        name = f"{one.first} less {one.second}"
        rows.append([name, TITLES[one.figure], difference, _p(one.p), _p(one.p_holm), *published])
    return _table(header, rows)


def as_text(evaluation: Evaluation, *, width: int = 100) -> str:
    """Return the tables for a terminal.

    Args:
        evaluation: What was found.
        width: Signs of a line; metrics that do not fit side by side come below.
    """
    parts = ["\n".join(_heading(evaluation))]
    main = _of_metrics(evaluation)
    titles, *columns = [list(column) for column in zip(main.header, *main.rows, strict=True)]
    for block in _blocks(columns, width - max(map(len, titles))):
        parts.append(_aligned([list(row) for row in zip(titles, *block, strict=True)]))
    thresholds = _of_thresholds(evaluation)
    parts.append(_aligned([thresholds.header, *thresholds.rows]))
    classes = _of_classes(evaluation)
    if classes.rows:
        short = [*classes.header[:6], *(f"-> {name}" for name in CLASS_NAMES)]
        parts.append(_aligned([short, *classes.rows]))
    if evaluation.comparisons:
        table = _of_comparisons(evaluation.comparisons)
        parts.append(_aligned([table.header, *table.rows]))
    return "\n\n".join([*parts, "\n".join(_closing(evaluation))])


def _closing(evaluation: Evaluation) -> list[str]:
    closing = [READING, *([CONVENTION] if evaluation.comparisons else [])]
    return _plain([*closing, *_notes(evaluation), *(f"Warning: {text}" for text in evaluation.warnings)])


def _blocks(columns: Sequence[list[str]], width: int) -> Iterator[list[list[str]]]:
    """Yield as many columns as fit side by side."""
    block: list[list[str]] = []
    used = 0
    for column in columns:
        needed = len(_GAP) + max(map(len, column))
        if block and used + needed > width:
            yield block
            block, used = [], 0
        block.append(column)
        used += needed
    yield block


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    lines = (_GAP.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(line.rstrip() for line in lines)


def as_markdown(evaluation: Evaluation) -> str:
    """Return the tables as Markdown."""
    parts = ["  \n".join(map(_escaped_markdown, _heading(evaluation))), _markdown(_of_metrics(evaluation))]
    parts.append(_markdown(_of_thresholds(evaluation)))
    classes = _of_classes(evaluation)
    if classes.rows:
        parts.append(_markdown(classes))
    if evaluation.comparisons:
        parts.append(_markdown(_of_comparisons(evaluation.comparisons)))
    parts.append("\n".join(f"- {_escaped_markdown(line)}" for line in _closing(evaluation)))
    return "\n\n".join(parts) + "\n"


def _markdown(table: _Table) -> str:
    lines = [table.header, ["---"] * len(table.header), *table.rows]
    return "\n".join(f"| {' | '.join(map(_escaped_markdown, line))} |" for line in lines)


def _escaped_markdown(text: str) -> str:
    for sign in "\\|*_`<>":
        text = text.replace(sign, f"\\{sign}")
    return text.replace("](", "]\\(")  # no link


_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
}  # fmt: skip


def escaped_latex(text: str) -> str:
    r"""Return text as LaTeX prints it.

    Example:
        >>> escaped_latex("50 % of my_metric")
        '50 \\% of my\\_metric'
    """
    return "".join(_LATEX.get(sign, sign) for sign in text)


def as_latex(evaluation: Evaluation) -> str:
    """Return the tables as LaTeX, for the package booktabs; what is said beside them are comments and captions."""
    heading = " ".join(f"{line[0].upper()}{line[1:]}." for line in _heading(evaluation))
    tables = [_latex(_of_metrics(evaluation), f"{heading} {READING[0].upper()}{READING[1:]}.")]
    tables.append(_latex(_of_thresholds(evaluation), "Thresholds of the metrics."))
    classes = _of_classes(evaluation)
    if classes.rows:
        tables.append(_latex(classes, "Figures of each class, and how many of its pairs were labelled how."))
    if evaluation.comparisons:
        tables.append(_latex(_of_comparisons(evaluation.comparisons), f"Metrics two by two. {CONVENTION}."))
    notes = [f"% {line}" for line in _closing(evaluation)]
    return "\n".join(["% \\usepackage{booktabs}", *notes, "", "\n\n".join(tables), ""])


def _latex(table: _Table, caption: str) -> str:
    lines = [" & ".join(map(escaped_latex, row)) + r" \\" for row in (table.header, *table.rows)]
    spec = "l" * len(table.header)
    return "\n".join(
        [
            r"\begin{table}", r"\centering\footnotesize", rf"\caption{{{escaped_latex(caption)}}}",
            rf"\begin{{tabular}}{{{spec}}}", r"\toprule", lines[0], r"\midrule", *lines[1:], r"\bottomrule",
            r"\end{tabular}", r"\end{table}",
        ]
    )  # fmt: skip


def figure_rows(evaluation: Evaluation) -> tuple[list[str], list[list[object]]]:
    """Return one row a metric: its thresholds, and each figure with the ends of its interval."""
    figures = list(dict.fromkeys(name for metric in evaluation.metrics for name in metric.figures))
    header = ["metric", "condition", "near", "exact", "thresholds_from", "n_pairs", "n_people"]
    header += [f"{name}{end}" for name in figures for end in ("", "_low", "_high")]
    rows: list[list[object]] = []
    for metric in evaluation.metrics:
        chosen = metric.calibration
        row: list[object] = [metric.name, metric.condition]
        row += ["", "", ""] if chosen is None else [chosen.near.value, chosen.exact.value, chosen.source]
        row += [len(evaluation.pairs), evaluation.resampling.n_people]
        for name in figures:
            figure = metric.figures.get(name, Figure(None))
            row += ["" if value is None else value for value in (figure.value, figure.low, figure.high)]
        rows.append(row)
    return header, rows


def reference_lines(metric: MetricEvaluation) -> list[str]:
    """Return what the reference implementation's ``eval.py`` prints, in its words and order.

    Raises:
        UsageError: The metric has no thresholds.
    """
    if metric.report is None:
        raise UsageError(f"the metric {metric.name} has no thresholds: give --thresholds {metric.name}=NEAR,EXACT")
    report = metric.report
    lines = [
        f"{word} [Precision, Recall] = {float(report.precision[label])} {float(report.recall[label])}"
        for word, label in (("Different", UNRELATED), ("Similar", NEAR), ("Duplicate", EXACT))
    ]
    silhouette = metric.figures["silhouette"].value
    return [
        *lines,
        f"Weighted F1-Score = {report.weighted_f1}",
        f"Macro F1-Score = {report.macro_f1}",
        f"Silhouette Score = {'nan' if silhouette is None else silhouette}",
    ]


def comparison_rows(evaluation: Evaluation) -> tuple[list[str], list[list[object]]]:
    """Return one row a comparison."""
    header = ["first", "second", "figure", "difference", "low", "high", "p", "p_holm", "mcnemar_first_only",
              "mcnemar_second_only", "mcnemar_p"]  # fmt: skip
    rows: list[list[object]] = []
    for one in evaluation.comparisons:
        test = one.mcnemar
        published = ["", "", ""] if test is None else [test.first_only, test.second_only, test.p]
        rows.append([one.first, one.second, one.figure, one.difference, one.low, one.high, one.p, one.p_holm,
                     *published])  # fmt: skip
    return header, rows


def pair_rows(evaluation: Evaluation) -> tuple[list[str], Iterator[list[object]]]:
    """Return one row a pair: keys, true class, and each metric's score and label."""
    pairs = evaluation.pairs
    header = ["real_key", "synth_key", "group", "label"]
    for metric in evaluation.metrics:
        header += [f"{metric.name} score"]
        header += [f"{metric.name} s2"] if metric.detail is not None else []
        header += [f"{metric.name} label"] if metric.labels is not None else []

    def rows() -> Iterator[list[object]]:
        for k, (real, synthetic) in enumerate(zip(pairs.real_keys, pairs.synthetic_keys, strict=True)):
            row: list[object] = [real, synthetic, str(pairs.people[k]), int(pairs.labels[k])]
            for metric in evaluation.metrics:
                row.append(float(metric.scores[k]))
                row += [float(metric.detail[k])] if metric.detail is not None else []
                row += [int(metric.labels[k])] if metric.labels is not None else []
            yield row

    return header, rows()
