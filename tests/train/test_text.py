"""Embeddings of captions: those of the library itself, one text at a time, and nothing downloaded unasked."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from deepssim.errors import MetricError, MissingDependencyError, UsageError  # noqa: E402
from deepssim.models.text import TextEncoder  # noqa: E402

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "an", "old", "brain", "young", "woman"]


def test_a_library_that_is_not_installed_is_named_with_its_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(MissingDependencyError, match="the extra text of deepssim has it"):
        TextEncoder(tmp_path)


def test_what_is_no_folder_is_not_looked_for_in_a_hub():
    with pytest.raises(UsageError, match="no folder 'bert-base' with an encoder of texts: give one, or hf-hub:NAME"):
        TextEncoder("bert-base")
    with pytest.raises(UsageError, match="one of mean, first"):
        TextEncoder("bert-base", "max")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    transformers = pytest.importorskip("transformers")
    path = tmp_path_factory.mktemp("bert")
    (path / "vocab.txt").write_text("\n".join(WORDS), encoding="utf-8")
    config = transformers.BertConfig(
        vocab_size=len(WORDS),
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=12,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        transformers.BertModel(config).save_pretrained(path)
    transformers.BertTokenizer(str(path / "vocab.txt")).save_pretrained(path)
    return path


def test_an_embedding_is_that_of_the_library_and_of_its_text_alone(folder):
    import transformers

    network = transformers.BertModel.from_pretrained(folder).eval()
    ids = torch.tensor([[2, 5, 6, 7, 3]])  # [CLS] an old brain [SEP]
    with torch.inference_mode():
        hidden = network(input_ids=ids).last_hidden_state[0]
    encoder, first = TextEncoder(folder), TextEncoder(folder, "first")
    found = encoder(["an old brain", "a young woman"])
    assert (found.shape, found.dtype, encoder.dim) == ((2, 8), np.float32, 8)
    np.testing.assert_allclose(found[0], hidden.mean(dim=0).numpy(), rtol=1e-6)
    np.testing.assert_allclose(first(["an old brain"])[0], hidden[0].numpy(), rtol=1e-6)
    np.testing.assert_array_equal(encoder(["a young woman"])[0], found[1])
    assert encoder.name != first.name
    assert encoder.name == TextEncoder(folder).name


def test_captions_that_would_be_cut_off_are_refused(folder):
    with pytest.raises(UsageError, match="1 of 2 captions are longer than the 12 tokens"):
        TextEncoder(folder)(["an old brain", "old " * 11])


def test_a_folder_without_an_encoder_is_told_in_one_line(folder, tmp_path):
    with pytest.raises(MetricError, match="holds no encoder of texts that can be read") as caught:
        TextEncoder(tmp_path)
    assert "\n" not in str(caught.value)
