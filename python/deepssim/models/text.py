"""Embeddings of captions by any encoder of texts of the transformers library."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from deepssim.errors import MetricError, UsageError
from deepssim.extras import require
from deepssim.images.text import one_line
from deepssim.models.generative import weights_hash
from deepssim.progress import Progress, Silent

__all__ = ["HUB", "POOLS", "TextEncoder"]

HUB = "hf-hub:"
"""What a name begins with whose model is downloaded, unless it is there already."""

POOLS = ("mean", "first")


class TextEncoder:
    """Makes embeddings of texts; it is a `deepssim.generative.data.conditions.Embed`.

    A text goes through the network alone, so that its embedding does not depend on what stands beside it. Towers of
    CLIP models give their own embedding; of other models that of the tokens is pooled.

    Args:
        model: A folder that ``save_pretrained`` of the transformers library has written, with its tokenizer; or
            ``hf-hub:NAME``, which is downloaded, unless it is there already. Code of a model is never executed.
        pool: ``"mean"`` over the tokens of a text, or ``"first"``, the first token ([CLS] of BERT).
        device: Where it runs.
        progress: Told of texts that are embedded.

    Attributes:
        name: What is the same for the same weights and pool, wherever they lie.
        dim: Elements of an embedding; 0 until a text was embedded.

    Raises:
        MissingDependencyError: The transformers library is not installed.
        UsageError: There is no such model, or its options cannot be.
        MetricError: What is there is no encoder of texts.

    Example:
        >>> TextEncoder("bert-base")
        Traceback (most recent call last):
        deepssim.errors.UsageError: there is no folder 'bert-base' with an encoder of texts: ...
    """

    def __init__(
        self, model: str | Path, pool: str = "mean", device: str = "cpu", progress: Progress | None = None
    ) -> None:
        text = str(model)
        if pool not in POOLS:
            raise UsageError(
                f"the pool of an encoder of texts is '{one_line(pool, 40)}': it is one of {', '.join(POOLS)}"
            )
        if not text.startswith(HUB) and not Path(text).is_dir():
            raise UsageError(
                f"there is no folder '{one_line(text)}' with an encoder of texts: give one, or {HUB}NAME to download it"
            )
        self._title = one_line(text, 80)
        self.pool, self.dim = pool, 0
        self._device, self._progress = torch.device(device), progress or Silent()
        network, self._tokenizer = _loaded(text, self._title)
        self._is_tower = hasattr(network, "get_text_features")
        if not self._is_tower and getattr(network.config, "is_encoder_decoder", False):
            network = network.get_encoder()
        self._network = network.float().eval().to(self._device)
        self._most_tokens = _most_tokens(self._network, self._tokenizer)
        kept = {key: value for key, value in self._network.state_dict().items() if isinstance(value, Tensor)}
        kind = "projection" if self._is_tower else f"{pool} of tokens"
        self.name = f"{type(self._network).__name__}, {kind}, weights {weights_hash(kept)[:16]}"

    @torch.inference_mode()
    def __call__(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Embed texts.

        Args:
            texts: At least one.

        Returns:
            ``(n, dim)`` float32.

        Raises:
            UsageError: Texts are longer than the encoder takes; nothing is cut off in silence.
            MetricError: The model gives no embeddings of texts.
        """
        if not texts:
            raise UsageError("there are no texts to embed")
        tokens = [self._tokens(text) for text in texts]
        lengths = [int(row["input_ids"].shape[1]) for row in tokens]
        long = [i for i, length in enumerate(lengths) if length > self._most_tokens]
        if long:
            raise UsageError(
                f"{len(long):,} of {len(texts):,} captions are longer than the {self._most_tokens:,} tokens that "
                f"{self._title} takes: shorten them; the first is '{one_line(texts[long[0]], 60)}', of "
                f"{lengths[long[0]]:,} tokens"
            )
        found: list[NDArray[np.float32]] = []
        with self._progress.track("embedding captions", len(texts)) as step:
            for row in tokens:
                found.append(self._embed(row))
                step(1)
        self.dim = len(found[0])
        return np.stack(found)

    def _tokens(self, text: str) -> dict[str, Tensor]:
        with _quiet():
            row = self._tokenizer(text, return_tensors="pt")
        return {key: value.to(self._device) for key, value in row.items()}

    def _embed(self, row: dict[str, Tensor]) -> NDArray[np.float32]:
        try:
            if self._is_tower:
                row = {key: row[key] for key in ("input_ids", "attention_mask") if key in row}
                out = self._network.get_text_features(**row)
                vector = (out if isinstance(out, Tensor) else out.pooler_output)[0]
            else:
                hidden = self._network(**row).last_hidden_state[0]
                vector = hidden.mean(dim=0) if self.pool == "mean" else hidden[0]
        except Exception as error:  # networks raise whatever they please at inputs that are not theirs
            raise MetricError(f"{self._title} gives no embeddings of texts: {_first_line(error)}") from error
        return np.asarray(vector.float().cpu().numpy(), np.float32)


def _loaded(text: str, title: str) -> tuple[Any, Any]:
    """Return network and tokenizer; a folder is never looked for in a hub."""
    transformers = require("transformers", "text")
    source = text.removeprefix(HUB)
    is_local = source == text
    try:
        with _quiet():
            tokenizer = transformers.AutoTokenizer.from_pretrained(source, local_files_only=is_local)
            network = transformers.AutoModel.from_pretrained(source, local_files_only=is_local)
    except Exception as error:  # the library and its downloader raise types of their own
        if not is_local:
            raise UsageError(
                f"{title} cannot be had ({_first_line(error)}): save model and tokenizer into a folder, and give that"
            ) from error
        raise MetricError(f"'{title}' holds no encoder of texts that can be read: {_first_line(error)}") from error
    if not isinstance(network, nn.Module):
        raise MetricError(f"'{title}' holds {type(network).__name__}, no network of PyTorch")
    return network, tokenizer


def _most_tokens(network: Any, tokenizer: Any) -> int:
    config = getattr(network.config, "text_config", network.config)
    limits = [getattr(config, "max_position_embeddings", 0), getattr(tokenizer, "model_max_length", 0)]
    # Positions of these begin after that of their padding.
    if getattr(config, "model_type", "") in {"roberta", "xlm-roberta", "camembert", "mpnet"} and limits[0]:
        limits[0] -= int(config.pad_token_id) + 1
    # Tokenizers without a limit give a number of thirty digits.
    return min((int(limit) for limit in limits if limit and 0 < limit < 10**9), default=10**9)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the library and its hub from telling of each attempt; what failed is told once."""
    loggers = [logging.getLogger(name) for name in ("transformers", "huggingface_hub")]
    before = [logger.level for logger in loggers]
    transformers = require("transformers", "text")
    bars = transformers.utils.logging.is_progress_bar_enabled()
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    transformers.utils.logging.disable_progress_bar()
    try:
        yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)
        if bars:
            transformers.utils.logging.enable_progress_bar()


def _first_line(error: Exception) -> str:
    return one_line((str(error).strip() or type(error).__name__).splitlines()[0], 160)
