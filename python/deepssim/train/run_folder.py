"""The folder of a training run: what it was asked, figures, weights, and the state to go on from."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from deepssim.disk import FILE_MODE, locked, make_private_folder, remove_leftovers, replacing, write_json
from deepssim.errors import UsageError
from deepssim.models.checkpoint import Description, save_network

__all__ = ["RunFolder"]

_STATE = "state.pt"
_LOG = "metrics.jsonl"
_RUN = "run.json"


class RunFolder:
    """Files of a run. Several processes that train together read them; the main one alone writes.

    Args:
        path: Made by `held` if it is not there.
        description: Of the network.
        asked: Whatever decides the run's result: a folder made with other settings is refused.
    """

    def __init__(self, path: Path, description: Description, asked: Mapping[str, Any]) -> None:
        self.path, self.description = path, description
        self._wanted = json.loads(json.dumps({"encoder": asdict(description), "asked": dict(asked)}))

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Hold the folder for this process.

        Raises:
            UsageError: Another process holds it, or it has a run with other settings.
        """
        with locked(make_private_folder(self.path)):
            remove_leftovers(self.path)
            self._check()
            yield

    def begin(self) -> None:
        """Write what was asked, now that it can be done: a command that failed before must not bar its correction."""
        write_json(self.path / _RUN, self._wanted)

    def _check(self) -> None:
        known, wanted = self._read_run(), self._wanted
        if known is None or not ((self.path / _STATE).exists() or self.read_log()):
            return  # there is nothing to go on from
        before, now = known.get("asked", {}), wanted["asked"]
        differing = sorted(name for name in {*before, *now} if before.get(name) != now.get(name))
        if differing or known.get("encoder") != wanted["encoder"]:
            raise UsageError(
                f"{self.path} holds a run with other settings ({', '.join(differing) or 'another network'}): name "
                "another folder, or give the same settings to go on with it"
            )

    def _read_run(self) -> dict[str, Any] | None:
        try:
            value = json.loads((self.path / _RUN).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise UsageError(
                f"{self.path / _RUN} cannot be read ({error}): remove {self.path} to start again"
            ) from error
        return value if isinstance(value, dict) else {}

    def log(self, figures: Mapping[str, Any]) -> None:
        """Add a line to ``metrics.jsonl``; ValueError if a figure is no number."""
        line = json.dumps(dict(figures), allow_nan=False)
        private = os.open(self.path / _LOG, os.O_WRONLY | os.O_APPEND | os.O_CREAT, FILE_MODE)
        with os.fdopen(private, "a", encoding="utf-8") as file:
            file.write(line + "\n")

    def read_log(self) -> list[dict[str, Any]]:
        """Return the lines of ``metrics.jsonl``; one that a kill cut short is left out."""
        lines = []
        path = self.path / _LOG
        for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
            try:
                lines.append(json.loads(line))
            except ValueError:
                break
        return lines

    def cut_log(self, step: int) -> None:
        """Drop lines after a step: they will be written again."""
        log = self.read_log()
        kept = [line for line in log if line["step"] <= step]
        if not log:
            return
        with replacing(self.path / _LOG) as temporary:
            temporary.write_text("".join(json.dumps(line) + "\n" for line in kept), encoding="utf-8")

    def save_weights(self, name: str, state: Mapping[str, Tensor], figures: Mapping[str, Any]) -> None:
        """Write ``NAME.safetensors``."""
        training = {**self.description.training, "figures": dict(figures)}
        save_network(self.path / f"{name}.safetensors", state, replace(self.description, training=training))

    def save_state(self, state: Mapping[str, Any]) -> None:
        """Write what a resumed run goes on from."""
        with replacing(self.path / _STATE) as temporary:
            torch.save(dict(state), temporary)

    def read_state(self) -> dict[str, Any] | None:
        """Read it; None where the run is new.

        Raises:
            UsageError: It cannot be read.
        """
        path = self.path / _STATE
        if not path.exists():
            return None
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # torch raises types of its own, with advice to execute what is in the file
            raise UsageError(f"{path} is damaged or no state of a run: remove {path.parent} to start again") from error
        if not isinstance(state, dict) or "network" not in state:
            raise UsageError(f"{path} is the state of a run of another version: remove {path.parent} to start again")
        return state
