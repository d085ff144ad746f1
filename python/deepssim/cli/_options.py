"""Options that several commands share, and how their values are read.

Options of the reference implementation's scripts have underscores, ``--dataset_csv``. Every command takes both
spellings, since the group replaces underscores before it looks an option up (``token_normalize_func``): here an option
is named with dashes alone. Where it has another name there, that is a further name after ours, with dashes too:
``click.option("--epochs", "--n-epochs", ...)`` takes ``--epochs``, ``--n-epochs`` and ``--n_epochs``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from deepssim.calibration import Calibration

MEMORY_LIMIT = 2 * 2**30
VIEWS = ("none", "flips", "bank")  # of deepssim.screening, which is not loaded for a help text

F = TypeVar("F", bound=Callable[..., Any])

MOST_SIDE = 65536
UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "KI": 2**10, "MI": 2**20, "GI": 2**30, "TI": 2**40}


class Bytes(click.ParamType[int]):
    """A number of bytes: ``512MiB``, ``2G``, ``1000000``."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Read the text."""
        if isinstance(value, int):
            return value
        match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?I?)B?\s*", str(value).upper())
        if match is None or match[2] not in UNITS:
            self.fail(f"{value!r} is not a size such as 512MiB or 2G", param, ctx)
        return int(float(match[1]) * UNITS[match[2]])


class Dimensions(click.ParamType[tuple[int, int]]):
    """Rows and columns of an image: ``136x112``."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        """Read the text."""
        match = re.fullmatch(r"\s*(\d{1,5})\s*[xX]\s*(\d{1,5})\s*", str(value))
        if match is None or not (0 < int(match[1]) <= MOST_SIDE and 0 < int(match[2]) <= MOST_SIDE):
            self.fail(f"{value!r} is no size in pixels, rows x columns, such as 256x256", param, ctx)
        return int(match[1]), int(match[2])


def apply_options(options: Sequence[Callable[[F], F]], function: F) -> F:
    """Add options in the order in which a help text shows them."""
    for option in reversed(options):
        function = option(function)
    return function


def talk_options(function: F) -> F:
    """Add ``--json`` and ``--quiet``."""
    return apply_options(
        [
            click.option("--json", "as_json", is_flag=True, help="Print the result as JSON on stdout."),
            click.option("--quiet", "-q", is_flag=True, help="No progress on stderr."),
        ],
        function,
    )


def image_options(function: F) -> F:
    """Add what says how images are read."""
    return apply_options(
        [
            click.option(
                "--group-by",
                default="auto",
                metavar="HOW",
                show_default=True,
                help="Who is the patient of a real image: auto (manifest column, NIfTI volume, DICOM PatientID), "
                "parent (name of the folder), regex:PATTERN (first group of a match in the path), none.",
            ),
            volume_options,
        ],
        function,
    )


def volume_options(function: F) -> F:
    """Add what says which images files hold."""
    return apply_options(
        [
            click.option(
                "--slices",
                default="middle",
                show_default=True,
                metavar="WHICH",
                help="Slices of NIfTI volumes: middle, all, 40, 40,44,60, 20:100:4 or 25%,50%,75%.",
            ),
            click.option(
                "--axis",
                type=click.Choice(["axial", "coronal", "sagittal"]),
                default="axial",
                show_default=True,
                help="Axis that slices are perpendicular to.",
            ),
            click.option(
                "--max-pixels",
                type=click.IntRange(1),
                default=2**26,
                show_default=True,
                help="Images with more pixels are skipped.",
            ),
        ],
        function,
    )


def run_options(function: F) -> F:
    """Add threads, device and metric."""
    return apply_options(
        [
            metric_option,
            click.option(
                "--device",
                type=click.Choice(["auto", "cpu", "cuda"]),
                default="auto",
                show_default=True,
                help="Where the metric runs; cuda is an error where there is none.",
            ),
            threads_option,
        ],
        function,
    )


def metric_option(function: F) -> F:
    """Add ``--metric``."""
    return click.option(
        "--metric",
        default="auto",
        show_default=True,
        help="auto: the encoder that the images look made for, pixel if none; or an installed metric (deepssim "
        "metrics), a bundle (.onnx), a store that was made with it.",
    )(function)


def keep_option(function: F) -> F:
    """Add ``--keep``, of audits whose synthetic images are nowhere on disk."""
    return click.option(
        "--keep",
        type=click.IntRange(0),
        metavar="N",
        help="Of a stream: keep a random sample of N images, beside all that are flagged and the nearest that are not, "
        "in images/ of the results.  [default: 100]",
    )(function)


def fail_above_option(function: F) -> F:
    """Add ``--fail-above``."""
    return click.option(
        "--fail-above",
        type=click.FloatRange(0, 1),
        metavar="RATE",
        help="Exit with code 3 if a larger share of the synthetic images is flagged.",
    )(function)


def threads_option(function: F) -> F:
    """Add ``--threads``."""
    return click.option(
        "--threads", type=click.IntRange(0, 256), default=0, help="Threads; 0 (default): all this process may use."
    )(function)


def match_options(function: F) -> F:
    """Add what says how synthetic images are matched and judged."""
    return apply_options(
        [
            search_options,
            click.option(
                "--max-listed",
                type=click.IntRange(1),
                default=64,
                show_default=True,
                help="Pairs over the threshold listed for each synthetic image; all are counted.",
            ),
            click.option(
                "--thresholds",
                metavar="NEAR,EXACT",
                help="S1 from which a verified pair is near and S2 from which it is exact; with --no-verify, scores.",
            ),
            click.option(
                "--calibration",
                metavar="NAME|FILE",
                help="Thresholds: verified.brain, verified.chest or a file; with --no-verify pixel.brain, pixel.chest.",
            ),
            click.option(
                "--max-skipped",
                type=click.FloatRange(0, 1),
                default=0.01,
                show_default=True,
                metavar="SHARE",
                help="Exit with code 4 if a larger share of a set cannot be used.",
            ),
            fail_above_option,
            click.option("--csv", "with_csv", is_flag=True, help="Write matches.csv beside matches.parquet."),
        ],
        function,
    )


def search_options(function: F) -> F:
    """Add what says how the nearest real images of synthetic ones are found."""
    return apply_options(
        [
            click.option(
                "--k",
                type=click.IntRange(1),
                default=8,
                show_default=True,
                help="Nearest real images of each synthetic one that are verified and reported.",
            ),
            click.option(
                "--max-per-group",
                type=click.IntRange(0),
                default=4,
                show_default=True,
                metavar="M",
                help="At most M images of one patient among the k nearest; 0: no cap.",
            ),
            click.option(
                "--views",
                type=click.Choice(VIEWS),
                help="How synthetic images are seen: in place (none), flipped too (flips), or mirrored, turned, "
                "shifted and zoomed too (bank). Default: bank for a metric that can, such as pixel, else none.",
            ),
            click.option(
                "--verify/--no-verify",
                default=None,
                help="Register the nearest pairs and judge them in image space (default: where images are there), or "
                "judge by the scores of the metric alone.",
            ),
            click.option(
                "--memory-limit",
                type=Bytes(),
                default=MEMORY_LIMIT,
                help="Bytes for the search, for example 512MiB; 0: no limit.  [default: 2GiB]",
            ),
            click.option(
                "--seed",
                type=click.IntRange(0),
                default=0,
                show_default=True,
                help="Of the control's draw and resampling.",
            ),
        ],
        function,
    )


def read_calibration(thresholds: str | None, calibration: str | None) -> Calibration | None:
    """Return the calibration that options name, or None."""
    from deepssim.calibration import load_calibration

    if thresholds is not None and calibration is not None:
        raise click.UsageError("give --thresholds or --calibration, not both")
    return load_calibration(calibration) if calibration is not None else None


def read_thresholds(text: str | None) -> tuple[float, float] | None:
    """Return the two thresholds that an option gives, or None."""
    from deepssim.calibration import parse_thresholds

    return None if text is None else parse_thresholds(text)


def echo_json(value: Any) -> None:
    """Print a value as JSON on stdout."""
    import json

    click.echo(json.dumps(value, indent=1, ensure_ascii=False))


def threshold_text(comparison: str, value: float, *, is_distance: bool) -> str:
    """Return a threshold in words; where scores are shown as distances, with its distance."""
    from deepssim.metric import l2_distance

    shown = f"{comparison} {value:.6g}"
    return f"{shown} (distance {comparison.replace('>', '<')} {l2_distance(value):.4g})" if is_distance else shown
