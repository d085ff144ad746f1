"""Progress on stderr: a live bar in a terminal, a line now and then elsewhere."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator

import click

from deepssim.progress import Progress, Silent

LINE_SECONDS = 10.0


def make_progress(quiet: bool) -> Progress:
    """Return what suits stderr."""
    if quiet:
        return Silent()
    return Bars() if sys.stderr.isatty() else Lines()


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def _rate(speed: float) -> str:
    return f"{speed:,.0f}/s" if speed >= 10 else f"{speed:.2g}/s"


class Lines:
    """Plain lines: one at the end of a task, and one every ten seconds of a long one."""

    def status(self, text: str) -> None:
        """Print a line."""
        click.echo(_plain(text), err=True)

    @contextlib.contextmanager
    def track(self, what: str, total: int) -> Iterator[Callable[[int], None]]:
        """Print rate and remaining time."""
        started = last = time.monotonic()
        done = 0

        def advance(steps: int) -> None:
            nonlocal done, last
            done += steps
            now = time.monotonic()
            if now - last >= LINE_SECONDS:
                last = now
                rate = done / max(now - started, 1e-9)
                rest = f"{_duration((total - done) / rate)} left" if 0 < done < total else "soon done"
                of_all = f" of {total:,}, {_rate(rate)}, {rest}" if total else f", {_rate(rate)}"
                self.status(f"{what}: {done:,}{of_all}")

        yield advance
        if done:
            seconds = max(time.monotonic() - started, 1e-9)
            self.status(f"{what}: {done:,} in {seconds:.1f} s ({_rate(done / seconds)})")


class Bars:
    """Bars of the rich library; NO_COLOR is honoured there."""

    def status(self, text: str) -> None:
        """Print a line."""
        click.echo(_plain(text), err=True)

    @contextlib.contextmanager
    def track(self, what: str, total: int) -> Iterator[Callable[[int], None]]:
        """Show a bar with rate and remaining time."""
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
        from rich.text import Text

        class Count(TextColumn):
            def render(self, task: object) -> Text:
                total = getattr(task, "total", None)
                return Text(f"{getattr(task, 'completed', 0):,.0f}" + (f"/{total:,.0f}" if total else ""))

        class Rate(TextColumn):
            def render(self, task: object) -> Text:
                speed = getattr(task, "finished_speed", None) or getattr(task, "speed", None)
                return Text(_rate(speed) if speed else "")

        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            Count(""),
            Rate(""),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=Console(stderr=True)) as bars:
            # Without a total the bar only moves.
            task = bars.add_task(what, total=total or None)
            done = 0

            def advance(steps: int) -> None:
                nonlocal done
                done += steps
                bars.update(task, advance=steps, total=max(total, done) if total else None)

            yield advance
            bars.update(task, total=done, completed=done)


def _plain(text: str) -> str:
    from deepssim.images.text import one_line

    return one_line(text, 500)
