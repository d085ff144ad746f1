"""Runs peers in turn, each in its own process, so that noise of the machine hits all alike."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from benchmarks.data import Floats
from benchmarks.peer import Answer
from benchmarks.peers import peer_class

ROOT = Path(__file__).resolve().parent.parent
# Thread pools spin for a while after their last work; the next peer must not share the cores with that.
PAUSE_SECONDS = 0.2


class PeerError(Exception):
    """A peer cannot run here; the message says why."""


class Worker:
    """A peer in another process.

    Args:
        name: A peer's name, with ``:isa`` for a level of this package.
        threads: Threads that it may use.

    Raises:
        PeerError: Its library is missing or does not run.
    """

    def __init__(self, name: str, threads: int) -> None:
        self.name = name
        options = {"isa": name.partition(":")[2]}
        environment = os.environ | peer_class(name).environment(threads)
        # The worker is started as a module of this folder, wherever the caller is.
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
        command = [sys.executable, "-m", "benchmarks.worker", name, str(threads), json.dumps(options)]
        self.process = subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )
        try:
            self.read()
        except PeerError:
            self.close()
            raise

    def __enter__(self) -> Worker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def read(self) -> Any:
        """Return the value of the next answer."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise PeerError(f"{self.name} ended with status {self.process.wait()}")
        answer = json.loads(line)
        if "error" in answer:
            raise PeerError(f"{self.name}: {answer['error']}")
        return answer["value"]

    def call(self, do: str, **arguments: Any) -> Any:
        """Give one command of `benchmarks.worker.Commands` and wait for its value."""
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(json.dumps({"do": do, **arguments}) + "\n")
            self.process.stdin.flush()
        except BrokenPipeError as error:
            raise PeerError(f"{self.name} ended with status {self.process.wait()}") from error
        return self.read()

    def close(self) -> None:
        """End the process and wait for it."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.stdout.close()
        try:
            self.process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


@dataclass
class Measured:
    """All times of one peer in one case, in seconds, one for each round.

    Attributes:
        prepare: Seconds to index the base rows.
        search: Seconds to search all queries.
        statistics: Counters of the last search.
        description: Versions and configuration.
        peaks: Multiply-adds per second that the processor reaches at most, by kind.
        answer: Ids and scores of the first round.
        reason: Why there are no times; empty if there are.
    """

    prepare: list[float] = field(default_factory=list)
    search: list[float] = field(default_factory=list)
    statistics: dict[str, Any] = field(default_factory=dict)
    description: dict[str, Any] = field(default_factory=dict)
    peaks: dict[str, float] = field(default_factory=dict)
    answer: Answer | None = None
    reason: str = ""

    @property
    def median_search(self) -> float:
        """Median seconds of the search alone."""
        return statistics.median(self.search)

    @property
    def median_prepare(self) -> float:
        """Median seconds of the preparation alone."""
        return statistics.median(self.prepare)

    @property
    def median_total(self) -> float:
        """Median over the rounds of both together."""
        return statistics.median(p + s for p, s in zip(self.prepare, self.search, strict=True))


class Team:
    """Workers for several peers, which are measured round robin; peers that cannot run are left out.

    Args:
        names: Peers, in the order in which they take turns.
        threads: Threads of each.
        tell: Takes lines of progress.
    """

    def __init__(self, names: list[str], threads: int, tell: Callable[[str], None]) -> None:
        self.tell = tell
        self.workers: dict[str, Worker] = {}
        self.reasons: dict[str, str] = {}
        for name in names:
            tell(f"start {name}")
            try:
                self.workers[name] = Worker(name, threads)
            except PeerError as error:
                self.leave_out(name, error)

    def __enter__(self) -> Team:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for worker in self.workers.values():
            worker.close()

    def leave_out(self, name: str, error: PeerError) -> None:
        """Remember why a peer does not take part, and tell."""
        self.tell(f"skip {name}: {error}")
        self.reasons[name] = str(error)
        if name in self.workers:
            self.workers.pop(name).close()

    def each(self, step: Callable[[Worker], None]) -> None:
        """Take one step with each worker in turn."""
        for name, worker in list(self.workers.items()):
            try:
                step(worker)
            except PeerError as error:
                self.leave_out(name, error)
            time.sleep(PAUSE_SECONDS)

    def measure(self, base: Floats, queries: Floats, k: int, rounds: int, folder: Path) -> dict[str, Measured]:
        """Measure all peers on one case.

        Args:
            base: Base rows ``(n, dim)``.
            queries: Queries ``(n, dim)``.
            k: Places of an answer.
            rounds: Times that each peer prepares and searches.
            folder: An empty folder for the arrays, which workers read.
        """
        np.save(folder / "base.npy", base)
        np.save(folder / "queries.npy", queries)
        measured = {name: Measured() for name in self.workers}

        def ready(worker: Worker) -> None:
            self.tell(f"tune {worker.name}")
            worker.call("load", base=str(folder / "base.npy"), queries=str(folder / "queries.npy"))
            worker.call("tune", k=k)

        def take_turn(worker: Worker) -> None:
            found = measured[worker.name]
            answer_path = folder / f"{worker.name.replace(':', '_')}.npz"
            times = worker.call("measure", k=k, save="" if found.search else str(answer_path))
            if not found.search:
                with np.load(answer_path) as answer:
                    found.answer = answer["ids"], answer["scores"]
            found.prepare.append(times["prepare"])
            found.search.append(times["search"])
            found.statistics = times["statistics"]

        def finish(worker: Worker) -> None:
            measured[worker.name].description = worker.call("describe")
            measured[worker.name].peaks = worker.call("peaks")

        self.each(ready)
        for number in range(rounds):
            self.tell(f"round {number + 1} of {rounds}")
            self.each(take_turn)
        self.each(finish)
        # A peer that failed in the middle has fewer rounds than the others, and is not compared.
        return {
            name: Measured(reason=self.reasons[name]) if name in self.reasons else found
            for name, found in (measured | {name: Measured() for name in self.reasons}).items()
        }
