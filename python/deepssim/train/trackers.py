"""TensorBoard and Weights & Biases: figures of a run for those who watch them, and nothing of patients."""

from __future__ import annotations

from typing import Any

from accelerate import Accelerator

from deepssim.errors import UsageError
from deepssim.extras import require
from deepssim.train.options import RunOptions

__all__ = ["private_settings", "start_trackers", "trackers_of"]

# What W&B gathers on its own. A command line, a console and a path can hold the names of folders of patients.
_PRIVATE: dict[str, Any] = {
    "console": "off",
    "disable_code": True,
    "disable_git": True,
    "disable_job_creation": True,
    "host": "",
    "program": "deepssim",
    "program_abspath": "",
    "program_relpath": "",
    "save_code": False,
    "x_executable": "python",
    "x_disable_machine_info": True,
    "x_disable_meta": True,
    "x_disable_stats": True,
    "x_save_requirements": False,
    "_disable_machine_info": True,
    "_disable_meta": True,
    "_disable_stats": True,
}


def trackers_of(options: RunOptions) -> list[str]:
    """Return what was asked for, as Accelerate names it.

    Raises:
        MissingDependencyError: It is not installed.
    """
    trackers = ["tensorboard"] * options.tensorboard + ["wandb"] * (options.wandb != "no")
    for tracker in trackers:
        require(tracker, tracker)
    return trackers


def start_trackers(accelerator: Accelerator, options: RunOptions) -> None:
    """Start them, with what is trained, the name of the run and the seed alone.

    Raises:
        UsageError: W&B cannot be kept from sending more.
    """
    asked: dict[str, Any] = {}
    if options.wandb != "no":
        wandb = require("wandb", "wandb")
        asked = {
            "name": options.name,
            "mode": options.wandb,
            "dir": str(options.out),
            "settings": wandb.Settings(**private_settings(wandb.Settings)),
        }
    if trackers_of(options):
        accelerator.init_trackers("deepssim", {"recipe": options.recipe, "seed": options.seed}, {"wandb": asked})


def private_settings(kind: Any) -> dict[str, Any]:
    """Return the settings that keep W&B from sending what was not logged, as its version names them.

    Args:
        kind: W&B's class of settings.

    Raises:
        UsageError: This version has none for the command line and the name of the machine.
    """
    known = {name for base in kind.__mro__ for name in getattr(base, "__annotations__", {})}
    chosen = {name: value for name, value in _PRIVATE.items() if name in known}
    if not {"x_disable_meta", "_disable_meta"} & {*chosen} or "console" not in chosen:
        raise UsageError(
            "this version of W&B cannot be kept from sending the command line: install another, or leave --wandb out"
        )
    return chosen
