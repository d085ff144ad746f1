"""Image encoders of OpenCLIP models: the metric ``semdedup`` (Abbas et al., arXiv 2303.09540).

Only the image tower is built and read, so that neither a text tower nor its tokenizer is needed. Nothing is downloaded
unless the name of a model or of its weights says so.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from deepssim.errors import MetricError, UsageError
from deepssim.extras import require
from deepssim.input_rule import InputRule
from deepssim.models.blocks import unit_rows
from deepssim.models.checkpoint import Description, file_sha256, load_weights
from deepssim.models.pretrained import read_weights

__all__ = ["RANDOM", "OpenClipImage", "load_openclip"]

# In place of weights: none but those that a network starts from.
RANDOM = "none"
CONFIG = "open_clip_config.json"
_HUB, _FOLDER = "hf-hub:", "local-dir:"
_WEIGHTS = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin", "model.safetensors", "pytorch_model.bin")
_WANTED = "weights of an OpenCLIP model, a .safetensors, .bin or .pt file"
# The smallest text tower: it is thrown away.
_TEXT = {"context_length": 4, "vocab_size": 8, "width": 8, "heads": 1, "layers": 1}
_VISUAL = "visual."


class OpenClipImage(nn.Module):
    """An image tower with its normalisation.

    Args:
        visual: Images ``(n, 3, height, width)`` to ``(n, dim)``.
        means: Of the three channels, of values in [0, 1].
        deviations: Likewise.
    """

    def __init__(self, visual: nn.Module, means: Sequence[float], deviations: Sequence[float]) -> None:
        super().__init__()
        self.visual = visual
        for name, values in (("means", means), ("deviations", deviations)):
            self.register_buffer(name, torch.tensor(values).reshape(1, 3, 1, 1))

    means: Tensor
    deviations: Tensor

    def forward(self, images: Tensor) -> Tensor:
        """Embed grey images ``(n, 1, height, width)`` from 0 to 255; returns ``(n, dim)`` of unit norm."""
        found = self.visual((images / 255.0 - self.means) / self.deviations)
        # Some towers return the tokens too.
        rows: Tensor = found[0] if isinstance(found, tuple) else found
        return unit_rows(rows)


@dataclass(frozen=True, slots=True)
class _Model:
    """What is known of a model: its configuration, its preprocessing, and where its weights are."""

    name: str
    config: dict[str, Any]
    preprocessing: dict[str, Any]
    weights: Path | None


def load_openclip(model: str, weights: str | None = None) -> tuple[nn.Module, Description, InputRule]:
    """Build the image encoder of an OpenCLIP model, in evaluation mode on the CPU.

    Args:
        model: A name of OpenCLIP's, such as ``"ViT-B-32"``; a folder that holds ``open_clip_config.json`` and weights;
            or ``"hf-hub:ORGANISATION/MODEL"``, which is downloaded where it is not in the hub's cache.
        weights: A file of weights, of which nothing is executed; one of OpenCLIP's tags of that model, which is
            downloaded; ``"none"``: random ones. None: those of the folder or of the hub.

    Returns:
        The encoder, which takes grey images from 0 to 255; what it is; and how images become its input.

    Raises:
        UsageError: The model or the weights are unknown, or cannot be downloaded; the message says what to give.
        MetricError: The weights are of another network, or the model wants another kind of input.
    """
    open_clip = require("open_clip", "openclip")
    found = _find(open_clip, model, weights)
    visual = _tower(open_clip, found)
    described: dict[str, Any] = {"published": f"the OpenCLIP model {found.name}"}
    if found.weights is None:
        described = {"random": True}
    else:
        _load(visual, found.weights, found.name)
        described["sha256"] = file_sha256(found.weights)
    rule, means, deviations = _preprocessing(found, visual)
    encoder = OpenClipImage(visual, means, deviations).eval()
    description = Description(
        "openclip", {"model": found.name}, *rule.size, name="semdedup", training=described, similarity="cosine",
        intensity=_told(means, deviations), resize=rule.resize, grey=rule.grey,
    )  # fmt: skip
    return encoder, description, rule


def _find(open_clip: Any, model: str, weights: str | None) -> _Model:
    """Return the configuration of a model, and its weights as a file."""
    if model.startswith(_HUB):
        config = _downloaded(open_clip, model, CONFIG)
        given = _given(weights, f"weights of {model}")
        if given is None and weights != RANDOM:
            given = _downloaded(open_clip, model, None)
        return _of_config(model.removeprefix(_HUB), config, given)
    folder = Path(model.removeprefix(_FOLDER))
    if model.startswith(_FOLDER) or folder.is_dir():
        if not (folder / CONFIG).is_file():
            raise UsageError(f"{folder} holds no {CONFIG}: give the folder of an OpenCLIP model")
        given = _given(weights, f"weights of {model}")
        if given is None and weights != RANDOM:
            given = next((folder / name for name in _WEIGHTS if (folder / name).is_file()), None)
            if given is None:
                raise UsageError(f"{folder} holds none of {', '.join(_WEIGHTS)}: give a file with --weights")
        return _of_config(folder.resolve().name, folder / CONFIG, given)
    return _built_in(open_clip, model, weights)


def _given(weights: str | None, what: str) -> Path | None:
    if weights in (None, RANDOM):
        return None
    path = Path(str(weights))
    if not path.is_file():
        raise UsageError(f"there is no file {path} with {what}")
    return path


def _built_in(open_clip: Any, model: str, weights: str | None) -> _Model:
    config = open_clip.get_model_config(model.replace("/", "-"))
    if config is None:
        import difflib

        close = difflib.get_close_matches(model, open_clip.list_models(), n=3, cutoff=0.3)
        raise UsageError(
            f"OpenCLIP knows no model {model!r}{', but ' + ', '.join(close) if close else ''}: give the name of one, a "
            "folder that is there with its open_clip_config.json and weights, or hf-hub:NAME"
        )
    tags = open_clip.list_pretrained_tags_by_model(model)
    few = ", ".join(tags[:4]) + (f" and {len(tags) - 4} more" if len(tags) > 4 else "")
    known = f"one of OpenCLIP's tags, which is downloaded ({few})" if tags else "no tag is known of it"
    if weights is None:
        raise UsageError(f"say which weights of {model}: --weights FILE, {known}, or none for random ones")
    if weights == RANDOM or Path(weights).is_file():
        return _Model(model, config, {}, _given(weights, ""))
    cfg = open_clip.get_pretrained_cfg(model, weights)
    if not cfg:
        raise UsageError(f"{weights} is neither a file nor weights of {model}: --weights FILE, or {known}")
    try:
        with _quiet():
            path = Path(open_clip.download_pretrained(cfg))
    except Exception as error:  # the downloaders raise types of their own
        raise UsageError(
            f"the weights {weights} of {model} cannot be downloaded ({_first_line(error)}): give a file of them with "
            "--weights FILE"
        ) from error
    return _Model(
        f"{model}, {weights}", {**config, "quick_gelu": cfg.get("quick_gelu", config.get("quick_gelu"))}, cfg, path
    )


def _downloaded(open_clip: Any, model: str, name: str | None) -> Path:
    try:
        with _quiet():
            return Path(open_clip.pretrained.download_pretrained_from_hf(model.removeprefix(_HUB), filename=name))
    except Exception as error:  # the downloader raises types of its own
        raise UsageError(
            f"{model} cannot be downloaded ({_first_line(error)}): copy its {CONFIG} and weights into a folder, and "
            "give --openclip FOLDER, with --weights FILE where they lie elsewhere"
        ) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the hub from telling of each attempt; what failed is told once."""
    logger = logging.getLogger("huggingface_hub")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(before)


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0].partition(". Last error")[0][:200]


def _of_config(name: str, path: Path, weights: Path | None) -> _Model:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        found = dict(config["model_cfg"])
        return _Model(name, found, dict(config.get("preprocess_cfg") or {}), weights)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise MetricError(f"{path} is no configuration of an OpenCLIP model: {_first_line(error)}") from error


def _tower(open_clip: Any, found: _Model) -> nn.Module:
    try:
        vision = dict(found.config["vision_cfg"])
        if "timm_model_name" in vision:
            vision["timm_model_pretrained"] = False  # its ImageNet weights would be downloaded
        built = open_clip.CLIP(
            found.config["embed_dim"], vision, dict(_TEXT), quick_gelu=bool(found.config.get("quick_gelu"))
        )
    except Exception as error:  # layers raise whatever they please at arguments that cannot be
        raise MetricError(f"the image tower of {found.name} cannot be built: {_first_line(error)}") from error
    assert isinstance(built.visual, nn.Module)
    return built.visual.float().eval()


def _load(visual: nn.Module, path: Path, name: str) -> None:
    """Load the weights of an image tower out of those of a whole model, or of the tower alone."""
    state: Mapping[str, Any] = read_weights(path, _WANTED)
    for around in ("state_dict", "model"):
        if isinstance(state.get(around), Mapping):
            state = state[around]
    state = {key.removeprefix("module."): value for key, value in state.items() if isinstance(value, Tensor)}
    if any(key.startswith(_VISUAL) for key in state):
        state = {key.removeprefix(_VISUAL): value for key, value in state.items() if key.startswith(_VISUAL)}
    load_weights(visual, {key: value.float() for key, value in state.items()}, path, f"the image tower of {name}")


def _preprocessing(found: _Model, visual: nn.Module) -> tuple[InputRule, tuple[float, ...], tuple[float, ...]]:
    from open_clip.transform import PreprocessCfg, merge_preprocess_dict

    try:
        cfg = PreprocessCfg(**merge_preprocess_dict(PreprocessCfg(), found.preprocessing))
        size = getattr(visual, "image_size", cfg.size)
        height, width = (size, size) if isinstance(size, int) else (int(side) for side in size)
        means, deviations = (tuple(map(float, _three(values))) for values in (cfg.mean, cfg.std))
        # Whatever is not bilinear is bicubic in its evaluation transforms.
        interpolation = "bilinear" if cfg.interpolation == "bilinear" else "bicubic"
        rule = InputRule(height, width, "clip", "byte", cfg.resize_mode, interpolation, int(cfg.fill_color))
    except (AssertionError, TypeError, ValueError) as error:
        raise MetricError(f"the preprocessing of {found.name} cannot be had here: {_first_line(error)}") from error
    return rule, means, deviations


def _told(means: tuple[float, ...], deviations: tuple[float, ...]) -> str:
    from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD

    if (means, deviations) == (tuple(OPENAI_DATASET_MEAN), tuple(OPENAI_DATASET_STD)):
        return "clip"
    mean, deviation = (", ".join(f"{value:g}" for value in values) for values in (means, deviations))
    return f"unit, mean {mean}, deviation {deviation}"


def _three(values: Any) -> Any:
    return values if isinstance(values, (list, tuple)) else (values,) * 3
