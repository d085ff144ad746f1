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

__all__ = ["METRICS", "make_parser", "run", "warn"]

# Of the reference's --metric_name, in the order of its help.
METRICS = ("dar", "chen", "semdedup", "deepssim")


def make_parser(description: str) -> argparse.ArgumentParser:
    """Make a parser that takes flags as they are, not shortened."""
    return argparse.ArgumentParser(description=description, allow_abbrev=False)


def warn(text: str) -> None:
    """Print a line on stderr."""
    print(f"Warning: {text}", file=sys.stderr)


def run(arguments: Sequence[object]) -> NoReturn:
    """Say what the same command is, and run it; ends the process with the command's exit code.

    Args:
        arguments: Of ``deepssim``, the command first; each is made a string.
    """
    from deepssim.cli import main

    texts = [str(argument) for argument in arguments]
    print(f"The same here: {shlex.join(['deepssim', *texts])}", file=sys.stderr)
    main(texts)
    raise AssertionError("the command line ends the process")
