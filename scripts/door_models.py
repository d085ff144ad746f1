"""What ``--model_path`` of the reference implementation names, as a metric bundle.

There it is a TorchScript archive, a checkpoint or the name of an OpenCLIP model, and is executed or downloaded as it
is. Here it becomes a bundle in ONNX first, by ``deepssim export``, which reads archives without executing anything; the
bundle is kept beside the embeddings, under a name that its source decides, and made once.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from pathlib import Path

import door

from deepssim import __version__

__all__ = ["bundle_of"]

# What a folder of a training run holds, best first.
IN_FOLDER = ("best.safetensors", "best_model_jit.pt", "checkpoints/best_model_jit.pt")
ARCHIVES = (".pt", ".pth", ".torchscript")
N_SIZED = 64  # images whose size is looked at


def bundle_of(
    model: str, metric: str, images: Path, folder: Path, *, weights: str | None = None, is_faulty: bool = False
) -> str:
    """Return a bundle for a model, exported where it is none yet.

    Args:
        model: ``--model_path``: a bundle (``.onnx``), an encoder of ``deepssim train`` (``.safetensors``), an archive
            of TorchScript or a checkpoint of PyTorch (``.pt``, ``.pth``), a folder that holds one, or for
            ``semdedup`` the name of an OpenCLIP model.
        metric: ``--metric_name``.
        images: Whose size published networks take, as they do there.
        folder: Where the bundle is kept.
        weights: File of weights of an OpenCLIP model; None: the hub's.
        is_faulty: Whether the network of ``chen`` is fed with the reference's faulty normalisation.
    """
    path = Path(model)
    if path.suffix == ".onnx" and path.is_file():
        return str(path)
    if metric == "semdedup":
        source = ["--openclip", model, *(["--weights", weights] if weights else [])]
        return _exported(source, metric, f"{model} {_digest(model)} {_digest(weights)}", folder)
    if path.is_dir():
        path = next((path / name for name in IN_FOLDER if (path / name).is_file()), path)
    if not path.is_file() or path.suffix not in (".safetensors", *ARCHIVES):
        kinds = f"a bundle (.onnx), an encoder of deepssim train (.safetensors) or a checkpoint ({', '.join(ARCHIVES)})"
        door.fail(f"--model_path {model} is neither {kinds} nor a folder of {', '.join(IN_FOLDER)}")
    is_ours = path.suffix == ".safetensors"
    options: dict[str, list[object]] = {
        "deepssim": [path] if is_ours else ["--from-torchscript", path, *_size_option(images)],
        "chen": ["--sscd", path, *(["--reference-normalisation"] if is_faulty else [])],
        # Its published networks were trained on images with rows and columns exchanged.
        "dar": ["--dar", path, *([] if is_ours else ["--reference-axes", *_size_option(images)])],
    }
    return _exported(options[metric], metric, _digest(path), folder)


def _exported(source: list[object], metric: str, identity: str, folder: Path) -> str:
    digest = hashlib.sha256(f"{__version__} {identity} {source}".encode()).hexdigest()[:12]
    bundle = folder / f"{metric}-{digest}.onnx"
    if not bundle.is_file():  # it appears when it is whole
        door.call(["export", *source, "--out", bundle, "--name", metric])
    return str(bundle)


def _digest(source: str | Path | None) -> str:
    """Return what the contents of a file or a folder of files decide, a name itself where it is neither."""
    path = Path(source or "")
    if source is None or not path.exists():
        return str(source)
    digest = hashlib.sha256()
    for file in [path] if path.is_file() else sorted(path.iterdir()):
        if file.is_file():
            with file.open("rb") as stream:
                digest.update(file.name.encode("utf-8", "surrogateescape"))
                digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()


def _size_option(images: Path) -> list[object]:
    """Return the size of most images as an option; there the network takes images as they are, all of one size."""
    from PIL import Image

    sizes: Counter[tuple[int, int]] = Counter()
    for file in sorted(images.glob("*/*.png"))[:N_SIZED]:
        try:
            with Image.open(file, formats=["PNG"]) as image:
                sizes[image.height, image.width] += 1
        except OSError:
            continue  # the command says what is wrong with it
    if not sizes:
        return []
    (height, width), _ = sizes.most_common(1)[0]
    if len(sizes) > 1:
        others = ", ".join(f"{rows} x {columns}" for (rows, columns), _ in sizes.most_common()[1:4])
        door.warn(f"images have {len(sizes)} sizes: those of {others} pixels are brought to {height} x {width}")
    return ["--size", f"{height}x{width}"]
