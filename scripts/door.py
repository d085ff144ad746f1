"""What the doors share: scripts that take the flags of the reference implementation and run our command line.

A door parses the flags as the script of the same name does there, translates them, says what the same command is here,
and runs it. All that is computed, checked and said is the command's.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

__all__ = ["METRICS", "PERTURBED", "call", "compute_matrix", "fail", "make_parser", "run", "warn"]

# Of the reference's --metric_name, in the order of its help.
METRICS = ("dar", "chen", "semdedup", "deepssim")
# Its --augment, with its own seed.
PERTURBED = ("--perturb", 42, "--perturb-both")


def make_parser(description: str) -> argparse.ArgumentParser:
    """Make a parser that takes flags as they are, not shortened."""
    return argparse.ArgumentParser(description=description, allow_abbrev=False)


def warn(text: str) -> None:
    """Print a line on stderr."""
    print(f"Warning: {text}", file=sys.stderr)


def fail(text: str) -> NoReturn:
    """Print a line on stderr and end with the exit code of a wrong usage."""
    print(f"Error: {text}", file=sys.stderr)
    sys.exit(2)


def call(arguments: Sequence[object]) -> None:
    """Say what the same command is and run it; ends the process where the command fails.

    Args:
        arguments: Of ``deepssim``, the command first; each is made a string.
    """
    from deepssim.cli import main

    texts = [str(argument) for argument in arguments]
    print(f"The same here: {shlex.join(['deepssim', *texts])}", file=sys.stderr)
    try:
        main(texts)
    except SystemExit as end:
        if end.code:
            raise


def run(arguments: Sequence[object]) -> NoReturn:
    """Say what the same command is and run it; ends the process with the command's exit code."""
    call(arguments)
    sys.exit(0)


def compute_matrix(kind: str, *own: str) -> NoReturn:
    """Take the flags of the reference's script for a matrix of image similarity, and run the command.

    Args:
        kind: ``ssim`` or ``fsim``.
        own: Flags that this script alone has there; taken and not used.
    """
    parser = make_parser(f"Compute the {kind.upper()} of all real with all synthetic images.")
    for flag in own:
        parser.add_argument(flag, help="taken and not used: work under way lies beside the matrix")
    parser.add_argument("--num_workers", type=int, help="threads; default: all")
    parser.add_argument("--dataset_images_dir", required=True, type=Path)
    parser.add_argument("--output_matrix_path", required=True, type=Path)
    parser.add_argument("--real_indices_path", required=True)
    parser.add_argument("--synth_indices_path", required=True)
    ours = parser.add_argument_group("not in the reference")
    ours.add_argument("--resize", metavar="HxW", help="rows and columns that all images are brought to")
    ours.add_argument("--float16", action="store_true", help="round to float16")
    flags = parser.parse_args()
    out = flags.output_matrix_path
    # There NumPy adds the suffix.
    out = out if out.suffix == ".npz" else out.with_name(f"{out.name}.npz")
    run(
        [
            "matrix", kind, flags.dataset_images_dir, "--real-keys", flags.real_indices_path,
            "--synthetic-keys", flags.synth_indices_path, "--out", out,
            *(["--float16"] if flags.float16 else []),
            *([] if flags.resize is None else ["--resize", flags.resize]),
            *([] if flags.num_workers is None else ["--threads", max(1, flags.num_workers)]),
        ]
    )  # fmt: skip
