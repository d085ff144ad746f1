"""The reference implementation's ``ldm_train_vae.py``, run by ``deepssim train vae``: the same flags.

The run lies in ``--output_dir``. Once it is done there are also, as there: ``models/autoencoder-ep-N.pth`` and
``discriminator-ep-N.pth`` of the last epoch, state dicts by the names of MONAI 1.4 and later; ``history.csv``, the
weighted terms of the loss by update, with a header; and ``plots/``.

There rows and columns of all images are exchanged, since MONAI's reader of PNG does so. Here they are where only so
images have the size of the configuration, as those of the published data do.
"""

from __future__ import annotations

import csv
import json
import os
import shutil
from pathlib import Path
from typing import Any

import door
import door_ldm

# Of its history, in the order in which it writes them: its name, ours in metrics.jsonl, and the weight of the term.
HISTORY = (
    ("Generator/reconstruction_loss", "l1", None),
    ("Generator/perceptual_loss", "perceptual", "perceptual_weight"),
    ("Generator/adverarial_loss", "adversarial", "adversarial_weight"),
    ("Generator/kl_regularization", "kl", "kl_weight"),
    ("Discriminator/adverarial_loss", "discriminator", "adversarial_weight"),
)
PASSED_ON = ("batch_size", "max_batch_size", "n_epochs", "lr", "perceptual", "seed")
SAVE_EVERY = 50  # steps that a kill undoes; a state has some 40 MB
PLOTS = ("curves.png", "reconstructions.png")


def main() -> None:
    """Translate the flags, run the command, and write what is looked for there."""
    parser = door.make_parser("Train a variational autoencoder with a patch discriminator.")
    parser.add_argument("--dataset_csv", required=True, type=Path, help="image_path, image_uid, split")
    parser.add_argument("--output_dir", required=True, type=Path)
    parser.add_argument("--n_workers", type=int, default=4, help="threads that read images")
    # The defaults are those of the configuration, and there the same: 16, 8, 100 and 1e-4.
    parser.add_argument("--batch_size", type=int)
    parser.add_argument("--max_batch_size", type=int, help="batch_size over this: batches of an update")
    parser.add_argument("--n_epochs", type=int)
    parser.add_argument("--lr", type=float)
    ours = parser.add_argument_group("not in the reference")
    ours.add_argument("--config", default="paper-brain", help="sizes of the networks")
    ours.add_argument("--size", metavar="HxW", help="rows and columns; default: those of the first image")
    ours.add_argument("--transpose", action="store_true", help="see images with rows and columns exchanged")
    ours.add_argument("--perceptual", help="auto, brain, chest or none")
    ours.add_argument(
        "--perceptual_weights", action="append", default=[], metavar="FILE", help="of SqueezeNet and LPIPS"
    )
    ours.add_argument("--seed", type=int)
    flags = parser.parse_args()
    if not flags.perceptual_weights and flags.perceptual != "none" and _compares_features(flags.config):
        door.warn(
            "the perceptual term compares features of an encoder of this package; for the weights that are downloaded "
            "there, give --perceptual_weights"
        )
    size, is_transposed = _geometry(flags)
    door.call(
        [
            "train", "vae", "--config", flags.config, "--dataset-csv", flags.dataset_csv, "--out", flags.output_dir,
            "--n-workers", max(1, flags.n_workers), "--save-every", SAVE_EVERY,
            *(part for name in PASSED_ON if (value := getattr(flags, name)) is not None
              for part in (f"--{name.replace('_', '-')}", value)),
            *([] if size is None else ["--size", size]),
            *(["--transpose"] if is_transposed else []),
            *(part for file in flags.perceptual_weights for part in ("--perceptual-weights", file)),
        ]
    )  # fmt: skip
    if os.environ.get("RANK", "0") == "0":  # of several processes that train together one writes
        _write_more(flags.output_dir, flags.config, flags.n_epochs, is_transposed)


def _compares_features(config: str) -> bool:
    from deepssim.errors import DeepSSIMError
    from deepssim.generative.config import read_config

    try:
        return read_config(config).vae_training.perceptual_weight > 0
    except DeepSSIMError:
        return False  # the command says what is wrong


def _geometry(flags: door.argparse.Namespace) -> tuple[str | None, bool]:
    """Return the size at which images are seen, None where the command is to say what is wrong, and whether exchanged.

    All have the size of the first image there.
    """
    from deepssim.errors import DeepSSIMError
    from deepssim.generative.config import read_config

    if flags.size or (first := door_ldm.first_size(flags.dataset_csv)) is None:
        return flags.size, flags.transpose
    try:
        published = read_config(flags.config).size
    except DeepSSIMError:
        return None, flags.transpose
    is_transposed = flags.transpose or (first != published and first[::-1] == published)
    if is_transposed and not flags.transpose:
        door.warn("images are seen with rows and columns exchanged, as the reference reads them")
    rows, columns = first[::-1] if is_transposed else first
    return f"{rows}x{columns}", is_transposed


def _write_more(folder: Path, config: str, n_epochs: int | None, is_transposed: bool) -> None:
    from deepssim.generative.config import read_config

    training: Any = read_config(config).vae_training
    _write_models(folder, (n_epochs or training.epochs) - 1, is_transposed)
    _write_history(folder, training)


def _write_models(folder: Path, epoch: int, is_transposed: bool) -> None:
    """Write state dicts of the last epoch, for MONAI's networks."""
    import torch
    from safetensors.torch import load_file

    from deepssim.disk import make_private_folder

    models = make_private_folder(folder / "models")
    state = torch.load(folder / "state.pt", map_location="cpu", weights_only=True)
    beside = state["companion"].get("network", {})
    for name, weights in (("autoencoder", load_file(folder / "last.safetensors")), ("discriminator", beside)):
        if weights:
            door_ldm.save_state_dict(weights, models / f"{name}-ep-{epoch}.pth", transpose=is_transposed)


def _write_history(folder: Path, training: Any) -> None:
    """Write the weighted terms of the loss, and copy the pictures."""
    from deepssim.disk import make_private_folder, replacing

    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    with replacing(folder / "history.csv") as temporary, temporary.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["step", *(theirs for theirs, _, _ in HISTORY)])
        for line in lines:
            weighted = [
                line.get(name, 0.0) * (1.0 if weight is None else getattr(training, weight))
                for _, name, weight in HISTORY
            ]
            writer.writerow([line["step"], *(round(value, 6) for value in weighted)])
    plots = make_private_folder(folder / "plots")
    for name in PLOTS:
        with replacing(plots / name) as temporary:
            shutil.copyfile(folder / name, temporary)


if __name__ == "__main__":
    main()
