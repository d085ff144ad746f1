"""The folder of a training run: what it was asked, figures, weights, and the state to go on from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from deepssim.disk import make_private_folder, replacing, write_json
from deepssim.errors import UsageError
from deepssim.models.checkpoint import Description, save_encoder

__all__ = ["RunFolder"]

_STATE = "state.pt"
_LOG = "metrics.jsonl"
_RUN = "run.json"


class RunFolder:
    """Files of a run.

    Args:
        path: Made if it is not there.
        description: Of the encoder.
        asked: Whatever decides the run's result: a folder made with other settings is refused.

    Raises:
        UsageError: The folder holds a run with other settings.
    """

    def __init__(self, path: Path, description: Description, asked: Mapping[str, Any]) -> None:
        self.path, self.description = make_private_folder(path), description
        wanted = json.loads(json.dumps({"encoder": asdict(description), "asked": dict(asked)}))
        known = self._read_run()
        if known is None:
            write_json(self.path / _RUN, wanted)
        elif known != wanted:
            differing = sorted(k for k in {*known.get("asked", {}), *wanted["asked"]}
                               if known.get("asked", {}).get(k) != wanted["asked"].get(k))  # fmt: skip
            raise UsageError(
                f"{path} holds a run with other settings ({', '.join(differing) or 'another encoder'}): name another "
                "folder, or give the same settings to go on with it"
            )

    def _read_run(self) -> dict[str, Any] | None:
        try:
            value = json.loads((self.path / _RUN).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise UsageError(f"{self.path / _RUN} cannot be read: {error}") from error
        return value if isinstance(value, dict) else {}

    def log(self, figures: Mapping[str, Any]) -> None:
        """Add a line to ``metrics.jsonl``."""
        with (self.path / _LOG).open("a", encoding="utf-8") as file:
            file.write(json.dumps(dict(figures)) + "\n")

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
        kept = [line for line in self.read_log() if line["step"] <= step]
        with replacing(self.path / _LOG) as temporary:
            temporary.write_text("".join(json.dumps(line) + "\n" for line in kept), encoding="utf-8")

    def save_weights(self, name: str, state: Mapping[str, Tensor], figures: Mapping[str, Any]) -> None:
        """Write ``NAME.safetensors``."""
        training = {**self.description.training, "figures": dict(figures)}
        save_encoder(self.path / f"{name}.safetensors", state, replace(self.description, training=training))

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
        except Exception as error:  # torch raises types of its own
            raise UsageError(f"{path} cannot be read ({error}): remove the folder to start again") from error
        assert isinstance(state, dict)
        return state
