"""``deepssim train ldm``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from deepssim.cli._train_options import (
    accumulate_option,
    check_device,
    dataset_options,
    run_folder,
    run_options,
    tell,
)

KINDS = ("none", "variables", "text")  # of deepssim.generative.data.conditions, which loads NumPy
SCALERS = ("none", "standard", "min-max")
SPELLED = "conditioning"  # of text in the reference implementation


class Names(click.ParamType[tuple[str, ...]]):
    """Names with commas between them: ``age,sex``."""

    name = "names"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, ...]:
        """Read the text."""
        if isinstance(value, tuple):
            return value
        names = tuple(name.strip() for name in str(value).split(","))
        if not all(names):
            self.fail(f"{value!r} are no names of columns with commas between them, such as age,sex", param, ctx)
        return names


class Scale(click.ParamType[float | str]):
    """``first-batch`` or a number above 0."""

    name = "scale"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float | str:
        """Read the text."""
        if value == "first-batch":
            return str(value)
        try:
            number = float(value)
        except ValueError:
            number = 0.0
        if not 0 < number < float("inf"):
            self.fail(f"{value!r} is neither first-batch nor a number above 0", param, ctx)
        return number


@click.command("ldm")
@click.option("--vae", "--aekl-ckpt", "vae", required=True,
              type=click.Path(path_type=Path, exists=True, dir_okay=False),
              help="VAE that makes the latents: best.safetensors of deepssim train vae, or a .pth of published "
              "weights.")  # fmt: skip
@dataset_options
@click.option("--conditioning", type=click.Choice([*KINDS, SPELLED]), default="none", show_default=True,
              help="What the U-Net is told of an image: variables of the CSV, or the embedding of its caption (text; "
              "conditioning is the same).")  # fmt: skip
@click.option("--variables", type=Names(), metavar="A,B", default=None,
              help="Columns that are the variables.  [default: age_norm, sex_norm, sequence_norm, csf_perc, wm_perc, "
              "gm_perc]")  # fmt: skip
@click.option("--scaler", type=click.Choice(SCALERS), default="none", show_default=True,
              help="What is done to variables, by the training images alone.")  # fmt: skip
@click.option("--text-encoder", metavar="FOLDER|hf-hub:NAME",
              help="Encoder of texts of the transformers library, for the column caption; without: embeddings are "
              "read from the files of caption_emb_path.")  # fmt: skip
@click.option("--drop-condition", type=click.FloatRange(0, 1, max_open=True),
              help="Part of the images whose condition is left out, so that sampling can be guided; about 0.1.  "
              "[default: of the configuration, 0]")  # fmt: skip
@click.option("--duplication", default="none", show_default=True, metavar="RULE",
              help="How often an epoch has each training image: none (once), low (1 to 4), high (1 to 14), 1-15, or "
              "column:NAME of the CSV.")  # fmt: skip
@click.option("--latents-cache", type=click.Path(path_type=Path, file_okay=False),
              help="Folder of latents that runs share.  [default: in the folder of the run]")  # fmt: skip
@click.option("--scale-factor", "scale_factor", type=Scale(),
              help="What latents are multiplied by: first-batch (one over the standard deviation of the first batch) "
              "or a number; the reference implementation's is 1.  [default: of --diff-ckpt, else of the "
              "configuration]")  # fmt: skip
@click.option("--diff-ckpt", "--weights", "weights", type=click.Path(path_type=Path, exists=True, dir_okay=False),
              help="U-Net to start from.")  # fmt: skip
@click.option("--latent-shape", metavar="CxHxW", help="Checked, not needed: 3x36x28 of 136 x 112 pixels.")
@click.option("--vae-space-shape", metavar="CxHxW", help="Checked, not needed: 3x34x28 of 136 x 112 pixels.")
@click.option("--epochs", "--n-epochs", "epochs", type=click.IntRange(1),
              help="Passes over the images, each as often as it is repeated.  [default: of the configuration, "
              "100]")  # fmt: skip
@click.option("--steps", type=click.IntRange(1), help="Updates, instead of passes.")
@click.option("--batch-size", type=click.IntRange(1), help="Images of a batch.  [default: of the configuration, 8]")
@accumulate_option
@click.option("--learning-rate", "--lr", "learning_rate", type=click.FloatRange(0, min_open=True),
              help="AdamW's.  [default: of the configuration, 0.000025]")  # fmt: skip
@click.option("--ema", type=click.FloatRange(0, 1, max_open=True),
              help="Decay of the average of the weights, which is what is kept and sampled from; 0: none.  [default: "
              "of the configuration, 0.9999]")  # fmt: skip
@click.option("--sample-steps", type=click.IntRange(0), default=50, show_default=True,
              help="Steps of sampling for the pictures; 0: no pictures.")  # fmt: skip
@click.option("--sample-every", type=click.IntRange(0), default=0,
              help="Steps of training between pictures.  [default: at looks, a fifth of the time at most]")  # fmt: skip
@run_options
def command(
    name: str | None, out: Path | None, conditioning: str, variables: tuple[str, ...] | None, use_gpu: bool,
    as_json: bool, quiet: bool, **asked: Any,
) -> None:  # fmt: skip
    """Train the U-Net of a latent diffusion model on the latents that a VAE makes of your images.

    A run that was killed goes on when the same command is given again, to the same weights. The folder holds
    best.safetensors (lowest error of the noise in images of unseen people) and last.safetensors, metrics.jsonl,
    train-used.csv (how often an epoch has each image), and pictures: curves.png and samples-STEP.png, samples with the
    training image that each is most like below it. In curves.png training images whose noise is told better than that
    of unseen people are a sign of memorization.

    \b
    deepssim train ldm --vae runs/vae/best.safetensors --dataset-csv images.csv --out runs/ldm
    deepssim train ldm --vae runs/vae/best.safetensors --dataset-csv images.csv --conditioning variables --out runs/ldm
    deepssim generate --vae runs/vae/best.safetensors --diffusion runs/ldm/best.safetensors --n-images 16 --out made/
    """
    check_device(asked["device"], use_gpu)
    folder, name = run_folder(out, name)
    from deepssim.cli._progress import make_progress
    from deepssim.extras import require_generative

    require_generative()
    from deepssim.train.generative.ldm import LdmOptions, train_ldm
    from deepssim.train.processes import ElsewhereError

    if conditioning == SPELLED:
        click.echo("Warning: --conditioning conditioning is taken for --conditioning text", err=True)
        conditioning = "text"
    options = LdmOptions(out=folder, name=name, conditioning=conditioning, variables=variables or (), **asked)
    try:
        result = train_ldm(options, make_progress(quiet))
    except ElsewhereError:
        return  # a launcher that sees this process fail kills the main one before it says why
    tell(result, as_json)
