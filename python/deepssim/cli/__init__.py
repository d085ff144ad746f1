"""The command line: one file a command, loaded when it is called."""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
import warnings
from typing import Any

import click

from deepssim import __version__
from deepssim.errors import DeepSSIMError

COMMANDS = {
    "audit": "Find out which synthetic images copy which real ones, and report it.",
    "bundle": "Make a metric of an encoder in ONNX, or of pixels alone.",
    "calibrate": "Choose thresholds of your own: on a control, planted copies or labels.",
    "compare": "Compare two images, as they lie and once registered; draw where they agree.",
    "dedup": "Find images of one set that repeat others, and keep one of each group.",
    "demo": "Audit a made-up cohort with planted copies: see the whole thing work.",
    "doctor": "Say what is installed, what really loads, and what to install.",
    "embed": "Embed images into a store.",
    "eval": "Measure metrics on labelled pairs, with intervals, and compare them.",
    "export": "Export to ONNX: an encoder as a metric bundle, or a generative model.",
    "generate": "Make images with a latent diffusion model; audit them as they are made.",
    "info": "Describe a store, a metric bundle, a calibration or an audit.",
    "matrix": "Compare every real image with every synthetic one: SSIM, FSIM or correlation.",
    "metrics": "List the metrics that are installed, and those that can be had.",
    "pairs": "Make or choose training pairs of an encoder, with their SSIM.",
    "plant": "Plant copies of your own images among synthetic ones.",
    "plot": "Draw scores, rates, audits and embeddings as PNG, SVG or PDF.",
    "recall": "Say what an audit found of planted copies.",
    "report": "Make the report of an audit again, with or without images.",
    "score": "Do what audit does from two stores of embeddings.",
    "train": "Train an encoder or a generative model on your own images.",
}

EPILOG = """\b
Exit codes: 0 done, 1 failure, 2 usage, 3 memorization above --fail-above,
4 too many skipped inputs (the results are written all the same)."""


class LazyGroup(click.Group):
    """A group whose help needs none of its commands."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names."""
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import one command."""
        if cmd_name not in COMMANDS:
            return None
        command = importlib.import_module(f"deepssim.cli.{cmd_name}").command
        if not isinstance(command, click.Command):
            raise TypeError(f"deepssim.cli.{cmd_name}.command is no command")
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find a command; name the nearest where there is none."""
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            import difflib

            close = difflib.get_close_matches(args[0], COMMANDS, n=1)
            hint = f" Did you mean '{close[0]}'?" if close else f" Commands: {', '.join(sorted(COMMANDS))}."
            ctx.fail(f"No such command '{args[0]}'.{hint}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl(sorted(COMMANDS.items()))


@click.group(
    cls=LazyGroup,
    epilog=EPILOG,
    context_settings={
        "help_option_names": ["-h", "--help"],
        # The reference implementation's options have underscores: both spellings are one option.
        "token_normalize_func": lambda token: token.replace("_", "-"),
        "max_content_width": 100,
    },
)
@click.version_option(__version__, prog_name="deepssim")
def cli() -> None:
    """Find out whether a generative model for medical images copies its training patients.

    \b
    deepssim demo                                  # see it work
    deepssim audit REAL/ SYNTHETIC/ --out RESULT/  # your own images
    """


def main(arguments: list[str] | None = None) -> Any:
    """Run the command line; errors of ours become one line and an exit code."""
    # Decoders tell of oddities of single files on their own; what matters of them is in skipped.parquet.
    warnings.filterwarnings("ignore", module=r"pydicom|nibabel|PIL")
    try:
        # A command that ends by ctx.exit(code) comes back with the code; the others with None.
        sys.exit(cli.main(args=arguments, prog_name="deepssim", standalone_mode=False) or 0)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except DeepSSIMError as error:
        _complain(str(error))
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        _complain("stopped; the same command goes on from here")
        sys.exit(130)
    except BrokenPipeError:
        # Whoever read our output has enough of it; flushing what is left would complain again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        _complain(f"{error.strerror or error}{where}")
        sys.exit(1)


def _complain(text: str) -> None:
    from deepssim.images.text import one_line

    with contextlib.suppress(OSError):
        click.echo(f"Error: {one_line(text, 2000)}", err=True)
