"""Options that the commands of ``deepssim train`` share, and what they say at the end."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from deepssim.cli._options import Dimensions, F, apply_options, echo_json, talk_options
from deepssim.errors import UsageError

if TYPE_CHECKING:
    from deepssim.train.launch import Result

__all__ = [
    "MOST_SEED",
    "accumulate_option",
    "check_device",
    "dataset_options",
    "folder_of",
    "people_options",
    "run_folder",
    "run_options",
    "tell",
]

# Of deepssim.train, which loads torch.
MOST_SEED = 2**31 - 1


def run_options(function: F) -> F:
    """Add what every run can be asked."""
    return apply_options(
        [
            click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True,
                         help="cuda is an error where there is none; several GPUs by accelerate launch."),
            click.option("--use-gpu", is_flag=True,
                         help="As --device auto: a GPU if there is one; not with --device cpu."),
            click.option("--patience", type=click.IntRange(0), default=0, show_default=True,
                         help="End after so many looks at the validation set without a better one; 0: never."),
            click.option("--validate-every", type=click.IntRange(0), default=0,
                         help="Steps between looks.  [default: 40 looks; of train ldm fewer, if they took long]"),
            click.option("--save-every", type=click.IntRange(1), default=500, show_default=True,
                         help="Steps between saved states, from which a killed run goes on."),
            click.option("--keep-every", type=click.IntRange(0), default=0, show_default=True,
                         help="Steps between weights that are kept for good, step-000500.safetensors; 0: none are."),
            click.option("--tensorboard", is_flag=True, help="Also write TensorBoard files."),
            click.option("--wandb", type=click.Choice(["no", "offline", "online"]), default="no", show_default=True,
                         help="Also log figures to Weights & Biases; nothing leaves this machine but with online."),
            click.option("--seed", type=click.IntRange(0, MOST_SEED), default=0, show_default=True),
            talk_options,
        ],
        function,
    )  # fmt: skip


def accumulate_option(function: F) -> F:
    """Add ``--accumulate``, where one batch makes an update if nothing else is asked."""
    return click.option(
        "--accumulate", type=click.IntRange(1), default=1, show_default=True, help="Batches of an update."
    )(function)


def people_options(function: F) -> F:
    """Add what says who is who, and where a run lies."""
    return apply_options(
        [
            click.option("--validation-images-dir", "validation_images", type=click.Path(path_type=Path, exists=True),
                         help="Real images of people who select the weights; without: a part of the people."),
            click.option("--exp-name", "name", required=True, help="Name of the run, of its folder and of the metric."),
            click.option("--out", type=click.Path(path_type=Path), help="Folder of the run.  [default: runs/EXP-NAME]"),
            click.option("--group-by", metavar="HOW",
                         help="Who is who, where no list of pairs says it: parent, regex:PATTERN, auto (volume, "
                         "PatientID).  [default: auto]"),
            click.option("--valid-part", type=click.FloatRange(0, 0.5),
                         help="Part of the people who select the weights.  [default: 0.15]"),
            click.option("--size", type=Dimensions(),
                         help="Rows and columns that images are brought to.  [default: 136x112]"),
        ],
        function,
    )  # fmt: skip


def dataset_options(function: F) -> F:
    """Add what a generative model learns from and where its run lies.

    They are ``config``, ``dataset``, ``images``, ``group_by``, ``valid_part``, ``size``, ``transpose``, ``workers``,
    ``out`` and ``name``; `run_folder` makes folder and name of the last two.
    """
    return apply_options(
        [
            click.option("--config", default="paper-brain", show_default=True, metavar="NAME|FILE",
                         help="Sizes of the networks and how they are trained: paper-brain and paper-chest, the "
                         "published ones; small, for two cores; tiny, for trials; or a TOML file of your own."),
            click.option("--dataset-csv", "dataset", type=click.Path(path_type=Path, exists=True, dir_okay=False),
                         help="Images: image_path, image_uid, split (train, valid), optionally group or patient."),
            click.option("--images-dir", "--dataset-images-dir", "images",
                         type=click.Path(path_type=Path, exists=True),
                         help="Instead: a folder of images, whose people are divided."),
            click.option("--group-by", default="auto", show_default=True, metavar="HOW",
                         help="Who is who in the folder: parent, regex:PATTERN, auto (volume, PatientID), none."),
            click.option("--valid-part", type=click.FloatRange(0, 0.5), default=0.15, show_default=True,
                         help="Part of the folder's people who select the weights."),
            click.option("--size", type=Dimensions(),
                         help="Rows and columns that images are brought to.  [default: of the configuration, else of "
                         "the images]"),
            click.option("--transpose", is_flag=True,
                         help="See images with rows and columns exchanged, as published weights saw them."),
            click.option("--n-workers", "--num-workers", "workers", type=click.IntRange(0, 256), default=0,
                         help="Threads that read images; 0 (default): all this process may use."),
            click.option("--out", "--output-dir", "out", type=click.Path(path_type=Path),
                         help="Folder of the run.  [default: runs/EXP-NAME]"),
            click.option("--exp-name", "name", help="Name of the run.  [default: that of its folder]"),
        ],
        function,
    )  # fmt: skip


def check_device(device: str, use_gpu: bool) -> None:
    """Check that a GPU is not both asked for and refused, and that what training needs is installed."""
    from deepssim.extras import require_training

    if use_gpu and device == "cpu":
        raise UsageError("--use-gpu and --device cpu contradict each other: give one of them")
    require_training()


def folder_of(out: Path | None, name: str) -> Path:
    """Return the folder of a run that has a name."""
    return out if out is not None else Path("runs") / name


def run_folder(out: Path | None, name: str | None) -> tuple[Path, str]:
    """Return the folder and the name of a run of which one is given at least.

    Raises:
        UsageError: Neither is.
    """
    if out is None and name is None:
        raise UsageError("nothing says where the run is to lie: give --out FOLDER or --exp-name NAME")
    folder = out if out is not None else Path("runs") / str(name)
    return folder, name if name is not None else folder.resolve().name


def tell(result: Result, as_json: bool) -> None:
    """Say what came of a run, where this is the process that wrote it."""
    if not result.is_main_process:
        return
    best: Mapping[str, float] = result.best
    if as_json:
        echo_json({"folder": str(result.folder), "best": dict(best)})
        return
    click.echo(f"{result.folder / 'best.safetensors'}: step {best.get('step', 0):,}")
    for key, value in best.items():
        if key not in ("step", "seconds", "selection"):
            click.echo(f"  {key.replace('_', ' '):22}{value:.4f}")
