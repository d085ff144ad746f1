"""Embeddings of captions by any encoder of the transformers library."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

__all__ = ["TextEncoder"]


class TextEncoder:
    """Makes embeddings of texts; use it as `deepssim.generative.conditions.Embed`.

    Args:
        model: A folder of the transformers library, or ``hf-hub:NAME``, which is downloaded.
        pool: ``"mean"`` (over the tokens of a text) or ``"cls"`` (the first token).
        device: Where it runs.
        batch_size: Texts at a time.
    """

    def __init__(self, model: str | Path, pool: str = "mean", device: str = "cpu", batch_size: int = 32) -> None:
        raise NotImplementedError

    def __call__(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return ``(n, dim)`` float32."""
        raise NotImplementedError
