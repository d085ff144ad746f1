"""One peer in a process of its own: reads commands as lines of JSON, answers each with one.

Started by `benchmarks.harness`, as ``python -m benchmarks.worker NAME THREADS OPTIONS``.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any, TextIO

import numpy as np

from benchmarks.peer import Peer
from benchmarks.peers import make_peer


class Commands:
    """What a worker can be told. Each method takes and returns what JSON can say."""

    def __init__(self, peer: Peer) -> None:
        self.peer = peer

    def load(self, base: str, queries: str) -> None:
        """Read both arrays to memory."""
        self.base, self.queries = np.load(base), np.load(queries)

    def tune(self, k: int) -> None:
        """Choose a configuration for these data, then prepare and search a little so that all is warm."""
        self.peer.tune(self.base, self.queries, k)
        self.peer.prepare(self.base)
        self.peer.search(self.queries[:512], k)

    def measure(self, k: int, save: str = "") -> dict[str, Any]:
        """Prepare and search once, and say how many seconds each took."""
        start = time.perf_counter()
        self.peer.prepare(self.base)
        prepared = time.perf_counter()
        ids, scores = self.peer.search(self.queries, k)
        end = time.perf_counter()
        if save:
            np.savez(save, ids=ids, scores=scores)
        return {"prepare": prepared - start, "search": end - prepared, "statistics": self.peer.statistics()}

    def describe(self) -> dict[str, Any]:
        """Return versions and configuration."""
        return self.peer.describe()

    def peaks(self) -> dict[str, float]:
        """Return multiply-adds per second that the processor reaches at most."""
        return self.peer.peaks()


def take_stdout() -> TextIO:
    """Return the stream for answers; what libraries print from now on goes to stderr."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    return answers


def main() -> None:
    """Make the peer, say whether that worked, then obey until the input ends."""
    answers = take_stdout()
    name, threads, options = sys.argv[1], int(sys.argv[2]), json.loads(sys.argv[3])

    def answer(run: Callable[[], Any]) -> bool:
        try:
            line = {"value": run()}
        except Exception as error:  # the parent must learn of every failure, and skip this peer
            line = {"error": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(line) + "\n")
        answers.flush()
        return "value" in line

    made: list[Commands] = []
    if not answer(lambda: made.append(Commands(make_peer(name, threads, options)))):
        return
    for line in sys.stdin:
        message = json.loads(line)
        command = getattr(made[0], message.pop("do"))
        answer(lambda command=command, message=message: command(**message))


if __name__ == "__main__":
    main()
