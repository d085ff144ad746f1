"""What the doors share: scripts that take the flags of the reference implementation and run our command line.

A door parses the flags as the script of the same name does there, translates them, says what the same command is here,
and runs it. All that is computed, checked and said is the command's.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from typing import NoReturn

__all__ = ["METRICS", "call", "fail", "make_parser", "matrix_arguments", "run", "warn"]

# Of the reference's --metric_name, in the order of its help.
METRICS = ("dar", "chen", "semdedup", "deepssim")


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


def matrix_arguments(kind: str, flags: argparse.Namespace) -> list[object]:
    """Return the command for a matrix of image similarity."""
    out = flags.output_matrix_path
    # There NumPy adds the suffix.
    out = out if out.suffix == ".npz" else out.with_name(f"{out.name}.npz")
    return [
        "matrix", kind, flags.dataset_images_dir, "--real-keys", flags.real_indices_path,
        "--synthetic-keys", flags.synth_indices_path, "--out", out,
        *(["--float16"] if flags.float16 else []),
        *([] if flags.resize is None else ["--resize", flags.resize]),
        *([] if flags.num_workers is None else ["--threads", max(1, flags.num_workers)]),
    ]  # fmt: skip
