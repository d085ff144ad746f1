"""``deepssim train``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from deepssim.cli._train_options import (
    accumulate_option,
    check_device,
    folder_of,
    people_options,
    run_options,
    tell,
)
from deepssim.cli.train_ldm import command as ldm
from deepssim.cli.train_vae import command as vae

# Of deepssim.train, which loads torch; the defaults below are its recipes' too.
RECIPES = ("deepssim", "deepssim++", "lite", "lite-refine")


@click.group("train")
def command() -> None:
    """Train a network on your own images.

    \b
    deepssim train encoder --recipe lite --dataset-images-dir train/ --group-by parent --exp-name mine
    deepssim train dar --dataset-images-dir train/ --group-by parent --exp-name mine
    deepssim export runs/mine/best.safetensors --out mine.onnx
    deepssim audit train/ generated/ --metric mine.onnx
    deepssim train vae --dataset-csv images.csv --out runs/vae
    deepssim train ldm --dataset-csv images.csv --vae runs/vae/best.safetensors --out runs/ldm
    """


command.add_command(vae)
command.add_command(ldm)


@command.command("encoder")
@click.option("--recipe", type=click.Choice(RECIPES), default="lite", show_default=True,
              help="deepssim and deepssim++: the published ones, from pairs and ImageNet weights. lite: a small "
              "network, from nothing, on partners that are made of real images as it goes. lite-refine: goes on from "
              "--weights of lite, most images as they lie.")  # fmt: skip
@click.option("--dataset-images-dir", "images", required=True, type=click.Path(path_type=Path, exists=True),
              help="Folder of images: of the keys of the pairs, or real ones that partners are made of.")  # fmt: skip
@click.option("--dataset-csv", "pairs", type=click.Path(path_type=Path, exists=True, dir_okay=False),
              help="Pairs: real_key, synth_key, ssim, split. Without: partners are made.")  # fmt: skip
@people_options
@click.option("--emb-dim", "dim", type=click.IntRange(1, 65536), default=256, show_default=True,
              help="Elements of an embedding.")  # fmt: skip
@click.option("--epochs", type=click.IntRange(1), help="Passes over the pairs.  [default: 40, deepssim++ 65]")
@click.option(
    "--steps",
    type=click.IntRange(1),
    help="Updates, where partners are made.  [default: lite 20,000, lite-refine 3,000]",
)
@click.option("--batch-size", type=click.IntRange(1),
              help="Pairs of a step; of made partners, images of it, a multiple of 20.  [default: 32, deepssim++ 64, "
              "lite 80]")  # fmt: skip
@click.option("--learning-rate", type=click.FloatRange(0, min_open=True),
              help="Highest, of the head.  [default: 0.001, lite 0.003, lite-refine 0.001]")  # fmt: skip
@click.option("--weight-decay", type=click.FloatRange(0), help="Of AdamW.  [default: 0.001, lite 0.02]")
@click.option("--dropout-prob", "dropout", type=click.FloatRange(0, 1, max_open=True),
              help="In the head.  [default: 0.33, deepssim++ 0.1, lite 0]")  # fmt: skip
@click.option("--weights",
              help="Where to start. Published recipes: imagenet (downloaded), a file of ImageNet weights, or none. "
              "lite: an encoder to go on from, runs/NAME/last.safetensors.")  # fmt: skip
@click.option("--num-workers", "workers", type=click.IntRange(0), default=1, show_default=True,
              help="Processes that read images or make partners.")  # fmt: skip
@accumulate_option
@run_options
def encoder(name: str, out: Path | None, use_gpu: bool, as_json: bool, quiet: bool, **asked: Any) -> None:
    """Train an encoder whose cosine of two embeddings equals the SSIM of two images.

    A run that was killed goes on when the same command is given again, to the same weights. The folder holds
    best.safetensors and last.safetensors, metrics.jsonl, and pictures: curves.png, predictions.png.

    \b
    deepssim train encoder --recipe lite --dataset-images-dir train/ --group-by parent --exp-name mine
    deepssim train encoder --recipe deepssim --dataset-images-dir data/ --dataset-csv pairs.csv --exp-name first
    """
    check_device(asked["device"], use_gpu)
    from deepssim.cli._progress import make_progress
    from deepssim.train.options import TrainOptions
    from deepssim.train.processes import ElsewhereError
    from deepssim.train.run import train

    try:
        result = train(TrainOptions(out=folder_of(out, name), name=name, **asked), make_progress(quiet))
    except ElsewhereError:
        return  # a launcher that sees this process fail kills the main one before it says why
    tell(result, as_json)


@command.command("dar")
@click.option("--dataset-images-dir", "images", required=True, type=click.Path(path_type=Path, exists=True),
              help="Folder of the real images that a generator was trained on.")  # fmt: skip
@people_options
@click.option("--epochs", type=click.IntRange(1), help="Passes over the images.  [default: 200]")
@click.option("--steps", type=click.IntRange(1), help="Updates, instead of passes.")
@click.option("--batch-size", type=click.IntRange(2), help="Images of a step, each seen twice.  [default: 64]")
@click.option("--learning-rate", type=click.FloatRange(0, min_open=True), help="Highest.  [default: 0.0001]")
@click.option("--weights",
              help="Where to start: imagenet (downloaded), as published; a file of ResNet-50's ImageNet weights or of "
              "this network; none.  [default: none]")  # fmt: skip
@accumulate_option
@run_options
def dar(name: str, out: Path | None, use_gpu: bool, as_json: bool, quiet: bool, **asked: Any) -> None:
    """Train the contrastive network of the metric dar (Dar et al., arXiv 2402.01054) on your real images.

    Each image has to find a view of itself among all others. Beside best.safetensors comes best.calibration.json: a
    pair is a copy above the 95th percentile of the correlation of training images with their nearest validation image.
    A run that was killed goes on when the same command is given again, to the same weights.

    \b
    deepssim train dar --dataset-images-dir train/ --group-by parent --exp-name mine
    deepssim export runs/mine/best.safetensors --out mine.onnx
    """
    check_device(asked["device"], use_gpu)
    from deepssim.cli._progress import make_progress
    from deepssim.train.dar import DarOptions, train_dar
    from deepssim.train.processes import ElsewhereError

    try:
        result = train_dar(DarOptions(out=folder_of(out, name), name=name, **asked), make_progress(quiet))
    except ElsewhereError:
        return  # as above
    tell(result, as_json)
