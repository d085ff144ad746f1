"""Options of labelled pairs and of where their scores come from, and how they are read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from deepssim.cli._options import Dimensions, apply_options

if TYPE_CHECKING:
    from deepssim.labelled import LabelledPairs
    from deepssim.labelled.scores import PairScores
    from deepssim.progress import Progress

__all__ = ["check_list", "input_paths", "labelled_options", "read_scores"]

F = TypeVar("F", bound=Callable[..., Any])
_FILE = click.Path(path_type=Path)


def labelled_options(function: F) -> F:
    """Add the list of labelled pairs, and where scores come from.

    The command's arguments are ``testset_csv``, ``group_by``, ``matrix``, ``real_indices``, ``synthetic_indices``,
    ``real_store``, ``synthetic_store``, ``images``, ``metric``, ``perturb``, ``perturb_both`` and ``resize``: pass them
    on to `read_scores`.
    """
    options = [
        click.option("--testset-csv", "--pairs", "testset_csv", required=True, type=_FILE, metavar="CSV",
                     help="Labelled pairs: columns real_key, synth_key, label (0 different, 1 duplicate, 2 similar) "
                     "and, if wanted, group: the person of the real image."),
        click.option("--matrix", multiple=True, metavar="[NAME=]FILE",
                     help="Scores from a matrix: .npz of the reference implementation, .npy of deepssim matrix. NAME "
                     "is the metric. Several: give it again."),
        click.option("--real-indices", multiple=True, type=_FILE,
                     help="What the rows of the matrix are: one for all matrices, or one for each.  "
                     "[default: beside the matrix]"),
        click.option("--synthetic-indices", "--synth-indices", "synthetic_indices", multiple=True, type=_FILE,
                     help="What its columns are."),
        click.option("--real-store", multiple=True, type=_FILE,
                     help="Scores from embeddings: store of the real images. Several: give it again."),
        click.option("--synthetic-store", "--synth-store", "synthetic_store", multiple=True, type=_FILE,
                     help="Store of the synthetic images, by the same metric."),
        click.option("--images", "--dataset-images-dir", "images", type=_FILE, metavar="FOLDER",
                     help="Scores from the images: the folder that the keys are relative to."),
        click.option("--metric", "--metric-name", "metric", multiple=True, metavar="NAME",
                     help="With --images: ssim, fsim, ncc, verified (or verified.brain, verified.chest), an installed "
                     "metric or a bundle (.onnx). Without: what made the matrix. Several: give it again."),
        click.option("--perturb", is_flag=False, flag_value="0", default=None, metavar="[SEED]", type=click.IntRange(0),
                     help="With --images: the perturbed condition: each synthetic image is flipped, turned and "
                     "re-contrasted by one random draw."),
        click.option("--perturb-both", is_flag=True,
                     help="With --perturb: the real images too, as the reference implementation does."),
        click.option("--resize", type=Dimensions(), metavar="HxW",
                     help="With --images: bring all images to H rows and W columns for ssim, fsim and ncc."),
        click.option("--group-by", default="auto", show_default=True, metavar="HOW",
                     help="Who is the person of a real image, where the list has no column group: auto (the store, "
                     "else the folder that the key names), parent (the folder), regex:PATTERN, none."),
    ]  # fmt: skip
    return apply_options(options, function)


def read_scores(
    *,
    testset_csv: Path,
    group_by: str,
    matrix: Sequence[str],
    real_indices: Sequence[Path],
    synthetic_indices: Sequence[Path],
    real_store: Sequence[Path],
    synthetic_store: Sequence[Path],
    images: Path | None,
    metric: Sequence[str],
    perturb: int | None,
    perturb_both: bool,
    resize: tuple[int, int] | None,
    threads: int = 0,
    progress: Progress | None = None,
) -> tuple[LabelledPairs, list[PairScores]]:
    """Read labelled pairs and their scores from every source that was named."""
    from deepssim.labelled import read_labelled, with_groups
    from deepssim.labelled.images import ImagePairs
    from deepssim.labelled.stored import groups_of_store, scores_from_matrix, scores_from_stores

    _check(matrix, real_indices, synthetic_indices, real_store, synthetic_store, images, metric, perturb, perturb_both)
    pairs = read_labelled(testset_csv, group_by=group_by)
    found: list[PairScores] = []
    named = _names_of_matrices(matrix, metric if images is None else ())
    for k, (name, path) in enumerate(named):
        found.append(scores_from_matrix(pairs, path, _nth(real_indices, k), _nth(synthetic_indices, k), name))
    for real, synthetic in zip(real_store, synthetic_store, strict=True):
        found.append(scores_from_stores(pairs, real, synthetic))
        if group_by == "auto" and not pairs.has_own_people:
            pairs = with_groups(pairs, groups_of_store(real, pairs.real_keys), f"groups of the store {real}")
    if images is not None:
        source = ImagePairs(pairs, images, perturb_seed=perturb, perturb_both=perturb_both, size=resize,
                            threads=threads, progress=progress)  # fmt: skip
        source.check(metric)
        found += [source.scores(name) for name in metric]
    return pairs, found


def check_list(testset_csv: Path, *, group_by: str, images: Path | None) -> None:
    """Read a list and find its images, so that what is wrong with it is said before anything is scored.

    Raises:
        UsageError: The list cannot be read, or images are missing; all are named.
    """
    from deepssim.labelled import read_labelled
    from deepssim.labelled.images import ImagePairs

    pairs = read_labelled(testset_csv, group_by=group_by)
    if images is not None:
        ImagePairs(pairs, images)


def input_paths(
    *,
    testset_csv: Path,
    matrix: Sequence[str],
    real_indices: Sequence[Path],
    synthetic_indices: Sequence[Path],
    real_store: Sequence[Path],
    synthetic_store: Sequence[Path],
    images: Path | None,
    **_: Any,
) -> tuple[list[Path], list[Path], list[Path]]:
    """Return what scores are read from, so that no output takes its place: files, stores and folders of images."""
    matrices = [path for _, path in _names_of_matrices(matrix, ())]
    files = [testset_csv, *matrices, *real_indices, *synthetic_indices]
    return files, [*real_store, *synthetic_store], [images] if images is not None else []


def _check(
    matrix: Sequence[str],
    real_indices: Sequence[Path],
    synthetic_indices: Sequence[Path],
    real_store: Sequence[Path],
    synthetic_store: Sequence[Path],
    images: Path | None,
    metric: Sequence[str],
    perturb: int | None,
    perturb_both: bool,
) -> None:
    if not (matrix or real_store or synthetic_store or images):
        raise click.UsageError("say where scores come from: --images FOLDER, --matrix FILE, or --real-store and "
                               "--synthetic-store")  # fmt: skip
    if len(real_store) != len(synthetic_store):
        raise click.UsageError("--real-store and --synthetic-store go together: give one for each other")
    for name, given in (("--real-indices", real_indices), ("--synthetic-indices", synthetic_indices)):
        if given and len(given) not in (1, len(matrix)):
            raise click.UsageError(f"{name} was given {len(given)} times for {len(matrix)} matrices: give one for all, "
                                   "or one for each")  # fmt: skip
    if images is not None and not metric:
        raise click.UsageError("--images needs --metric: ssim, fsim, ncc, verified, brain, chest, pixel or a bundle")
    if images is None and (perturb is not None or perturb_both):
        raise click.UsageError("--perturb changes images: give --images and --metric")
    if perturb_both and perturb is None:
        raise click.UsageError("--perturb-both goes with --perturb")
    if images is None and metric and len(metric) != len(matrix):
        raise click.UsageError(f"{len(metric)} --metric for {len(matrix)} --matrix: without --images, --metric names "
                               "what made each matrix")  # fmt: skip


def _nth(given: Sequence[Path], k: int) -> Path | None:
    return given[k if len(given) > 1 else 0] if given else None


def _names_of_matrices(matrix: Sequence[str], metric: Sequence[str]) -> list[tuple[str, Path]]:
    named = []
    for k, text in enumerate(matrix):
        name, mark, path = text.partition("=")
        if not mark or "/" in name:
            name, path = "", text
        if not name:
            name = metric[k] if metric else Path(path).stem
        named.append((name, Path(path)))
    return named
