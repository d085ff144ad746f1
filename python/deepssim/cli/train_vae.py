"""``deepssim train vae``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from deepssim.cli._train_options import check_device, dataset_options, run_folder, run_options, tell

PERCEPTUAL = ("auto", "brain", "chest", "none")  # of deepssim.train.generative.vae, which loads torch


@click.command("vae")
@dataset_options
@click.option("--epochs", "--n-epochs", "epochs", type=click.IntRange(1),
              help="Passes over the images.  [default: of the configuration, 100]")  # fmt: skip
@click.option("--steps", type=click.IntRange(1), help="Updates, instead of passes.")
@click.option("--batch-size", type=click.IntRange(1),
              help="Images that go through the networks at once.  [default: of the configuration, 16]")  # fmt: skip
@click.option("--accumulate", type=click.IntRange(1), default=None,
              help="Batches of an update.  [default: of the configuration, 2]")  # fmt: skip
@click.option("--max-batch-size", type=click.IntRange(1),
              help="As in the reference implementation, instead of --accumulate: --batch-size over this is the number "
              "of batches of an update. It does not limit memory; a smaller --batch-size does.")  # fmt: skip
@click.option("--learning-rate", "--lr", "learning_rate", type=click.FloatRange(0, min_open=True),
              help="Adam's, of VAE and discriminator.  [default: of the configuration, 0.0001]")  # fmt: skip
@click.option("--adversarial-warm-up", "warm_up", type=click.IntRange(0),
              help="Updates before the discriminator counts.  [default: of the configuration, 0]")  # fmt: skip
@click.option("--perceptual", type=click.Choice(PERCEPTUAL), default="auto", show_default=True,
              help="Whose features the perceptual term compares: those of an encoder of this package, auto by "
              "the look of the images; none: leave the term out.")  # fmt: skip
@click.option("--perceptual-weights", type=click.Path(path_type=Path, exists=True, dir_okay=False), multiple=True,
              help="Instead the published term, LPIPS with SqueezeNet: squeezenet1_1-*.pth of torchvision and "
              "squeeze.pth of lpips, one option each. Nothing is downloaded.")  # fmt: skip
@click.option("--flip", is_flag=True, help="Mirror images left to right half of the time, for small sets.")
@run_options
def command(
    name: str | None, out: Path | None, use_gpu: bool, as_json: bool, quiet: bool, accumulate: int | None, **asked: Any
) -> None:
    """Train the VAE of a latent diffusion model, which makes latents of images and images of latents.

    A run that was killed goes on when the same command is given again, to the same weights. The folder holds
    best.safetensors (lowest error of images of unseen people) and last.safetensors, metrics.jsonl, and pictures:
    reconstructions.png, curves.png. A VAE that does no better than the blur beside it does not earn its latents.

    \b
    deepssim train vae --dataset-csv images.csv --out runs/vae
    deepssim train vae --config small --images-dir train/ --group-by parent --exp-name vae
    deepssim train ldm --vae runs/vae/best.safetensors --dataset-csv images.csv --out runs/ldm
    """
    check_device(asked["device"], use_gpu)
    folder, name = run_folder(out, name)
    from deepssim.cli._progress import make_progress
    from deepssim.extras import require_generative

    require_generative()
    from deepssim.train.generative.vae import VaeOptions, train_vae
    from deepssim.train.processes import ElsewhereError

    try:
        result = train_vae(VaeOptions(out=folder, name=name, accumulate=accumulate or 0, **asked), make_progress(quiet))
    except ElsewhereError:
        return  # a launcher that sees this process fail kills the main one before it says why
    tell(result, as_json)
