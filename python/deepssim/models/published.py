"""Published checkpoints: TorchScript archives of DeepSSIM and DeepSSIM++, rebuilt from their tensors.

Both are scripted embedding networks: that of arXiv 2509.16582 is torchvision's ``features`` and a head, that of arXiv
2609.03615 four pairs of ``features``, a pool for each, and a head.
"""

from __future__ import annotations

import re
from pathlib import Path

from torch import Tensor, nn

from deepssim.errors import MetricError
from deepssim.models.archive import read_archive
from deepssim.models.checkpoint import MAX_DIM, Description, file_sha256, rebuild_network

__all__ = ["load_published"]

# Rows and columns of the images that both were trained on.
_SIZE = (136, 112)
# Columns of the last layer of DeepSSIM, and channels of the four pools of DeepSSIM++, whose last layer takes the mean
# of them and of the embedding.
_BASE_HIDDEN = 512
_TINY_POOLED = 96 + 192 + 384 + 768
# Of a network that was saved with the similarity around it.
_AROUND = "embedding_net."


def load_published(path: Path) -> tuple[nn.Module, Description]:
    """Rebuild a published encoder, in evaluation mode, without executing anything in its file.

    Args:
        path: ``best_model_jit.pt``, as the reference implementation saves it for DeepSSIM or DeepSSIM++.

    Returns:
        The encoder, which takes raw grey images ``(n, 1, height, width)``, and what it is. Its embeddings have unit
        norm; the cosine of two is that of the published network.

    Raises:
        MetricError: The archive is refused, or holds another network.
    """
    state = {name.removeprefix(_AROUND): tensor for name, tensor in read_archive(path).items()}
    if "stage_a.0.0.weight" in state:
        title, name, architecture, last = "DeepSSIM++", "deepssimpp", "convnext-tiny-gem", "head.4.weight"
        state = {_tiny_name(old): tensor for old, tensor in state.items()}
    elif "feature_extractor.0.0.weight" in state:
        title, name, architecture, last = "DeepSSIM", "deepssim", "convnext-base", "fc.6.weight"
    else:
        first = next(iter(state), "nothing")
        raise MetricError(
            f"{path} is neither DeepSSIM nor DeepSSIM++: its weights are named {first} and so on; "
            "give the best_model_jit.pt of one of them"
        )
    arguments = {"dim": _dimension(state, last, path, title)}
    description = Description(architecture, arguments, *_SIZE, name, {"published": title, "sha256": file_sha256(path)})
    return rebuild_network(description, state, path, title), description


def _dimension(state: dict[str, Tensor], last: str, path: Path, title: str) -> int:
    weight = state.get(last)
    if weight is None:
        return 256  # the usual one: the missing weight is named when weights are loaded
    dim = len(weight) if weight.ndim else 0
    hidden = _BASE_HIDDEN if title == "DeepSSIM" else (_TINY_POOLED + dim) // 2
    if not 1 <= dim <= MAX_DIM or weight.shape != (dim, hidden):
        raise MetricError(
            f"{path} is no {title}: its last weight {last} is {tuple(weight.shape)}, not (elements of an embedding, "
            f"{hidden}) with at most {MAX_DIM:,} elements"
        )
    return dim


def _tiny_name(name: str) -> str:
    """Return our name of a weight of DeepSSIM++, or the same where it has none."""
    if match := re.fullmatch(r"stage_([a-d])\.([01])\.(.+)", name):
        return f"feature_extractor.{2 * 'abcd'.index(match[1]) + int(match[2])}.{match[3]}"
    if match := re.fullmatch(r"gem_([a-d])\.p", name):
        return f"pools.{'abcd'.index(match[1])}.p"
    return re.sub(r"^fc\.", "head.", name)
