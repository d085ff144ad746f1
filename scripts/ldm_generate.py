"""The reference implementation's ``ldm_generate.py``, run by ``deepssim generate``: the same flags.

It makes images of every record of a CSV into ``OUTPUT_PATH/UID/gen-NUMBER.png``, beside the real one,
``OUTPUT_PATH/UID/training.png``. Grey values are stretched as there; noise has a seed, so a second run makes the same
images. There, images are read with rows and columns exchanged, and written so; here all lie as those of the CSV do.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import door
import door_ldm


def main() -> None:
    """Translate the flags, and run the command."""
    parser = door.make_parser("Make images of every record of a data set with a latent diffusion model.")
    parser.add_argument("--conditioning", required=True, choices=["none", "variables", "conditioning", "text"])
    parser.add_argument("--dataset_csv", required=True, type=Path, help="image_path, image_uid, variables, caption")
    parser.add_argument("--aekl_ckpt", required=True, type=Path, help="weights of the autoencoder")
    parser.add_argument("--diff_ckpt", required=True, type=Path, help="weights of the U-Net")
    parser.add_argument("--output_path", required=True, type=Path)
    parser.add_argument("--latent_shape", help="checked; default: as the images make it")
    parser.add_argument("--vae_space_shape", help="checked; default: as the images make it")
    parser.add_argument("--n_gen_per_record", type=int, default=30)
    ours = parser.add_argument_group("not in the reference")
    ours.add_argument("--config", help="sizes of weights that do not say them: paper-brain, paper-chest or a file")
    ours.add_argument("--seed", type=int, default=0, help="of the noise")
    ours.add_argument("--batch_size", type=int, help="images at a time; default: 8")
    flags = parser.parse_args()
    door.run(
        [
            "generate", "--aekl-ckpt", flags.aekl_ckpt, "--diff-ckpt", flags.diff_ckpt,
            "--dataset-csv", flags.dataset_csv, "--conditioning", flags.conditioning,
            "--n-gen-per-record", flags.n_gen_per_record, "--out", flags.output_path, "--intensity", "min-max",
            "--training-images", "--seed", flags.seed, *(["--transpose"] if _are_exchanged(flags) else []),
            *([] if flags.latent_shape is None else ["--latent-shape", flags.latent_shape]),
            *([] if flags.vae_space_shape is None else ["--vae-space-shape", flags.vae_space_shape]),
            *([] if flags.config is None else ["--config", flags.config]),
            *([] if flags.batch_size is None else ["--batch-size", flags.batch_size]),
        ]
    )  # fmt: skip


def _are_exchanged(flags: argparse.Namespace) -> bool:
    """Return whether the model saw images with rows and columns exchanged: MONAI's reader of PNG hands them out so.

    Weights of this package and state dicts of these scripts say what they saw. Of others the shapes tell; where images
    are square, nothing does, and it is as in the reference, which trained them.
    """
    from deepssim.errors import DeepSSIMError
    from deepssim.generative.data.records import load_images, read_dataset
    from deepssim.generative.shapes import parse_shape

    for path in (flags.diff_ckpt, flags.aekl_ckpt):
        if (told := door_ldm.is_transposed(path)) is not None:
            return told
    try:
        records = read_dataset(flags.dataset_csv, with_splits=False).records
        image = load_images(records[:1])[0]
        _, rows, columns = parse_shape(flags.vae_space_shape or "3x34x28")
    except DeepSSIMError:
        return False  # the command says what is wrong
    is_square = image.shape[0] == image.shape[1]
    is_exchanged = is_square or image.shape[0] * rows == image.shape[1] * columns
    if is_exchanged:
        door.warn("images are seen with rows and columns exchanged, as the reference reads them")
    return is_exchanged


if __name__ == "__main__":
    main()
