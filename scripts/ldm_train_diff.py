"""The reference implementation's ``ldm_train_diff.py``, run by ``deepssim train ldm``: the same flags.

The run lies in ``OUTPUT_DIR/run``. From it come what that script leaves: ``models/unet-ep-N.pth`` (state dicts in the
names of current MONAI, of the best and of the last epoch), ``history.csv``, ``plots/`` and ``train-used.csv``, the rows
of the training images, each as often as it was repeated.

As there, latents are not scaled and no average of the weights is kept. Images keep their size, and rows and columns are
exchanged where the VAE says so, as those of ``ldm_train_vae.py`` do; where a state dict says nothing, if
``--vae_space_shape`` does. Of such a one for square images they are, since MONAI's reader of PNG exchanges them.
"""

from __future__ import annotations

import csv
import json
import math
import os
import shutil
from pathlib import Path

import door
import door_ldm

PICTURES = 10
SAVE_EVERY = 200  # steps at most that a kill undoes


def main() -> None:
    """Translate the flags, run the command, and write what the reference's script leaves."""
    flags = _flags()
    out: Path = flags.output_dir
    text = "text" if flags.conditioning == "conditioning" else flags.conditioning
    if text != flags.conditioning:
        door.warn("--conditioning conditioning is taken for text, as its code there has it")
    size, is_transposed = _geometry(flags)
    per_epoch = _steps_of_epoch(flags.dataset_csv, flags.duplication, flags.batch_size)
    door.call(
        [
            "train", "ldm", "--dataset-csv", flags.dataset_csv, "--out", out / "run", "--vae", flags.aekl_ckpt,
            "--conditioning", text, "--duplication", flags.duplication,
            "--latent-shape", flags.latent_shape, "--vae-space-shape", flags.vae_space_shape,
            "--batch-size", flags.batch_size, "--epochs", flags.n_epochs, "--learning-rate", flags.lr,
            "--n-workers", flags.n_workers, "--config", flags.config, "--scale-factor", 1, "--ema", 0,
            "--validate-every", per_epoch, "--save-every", min(SAVE_EVERY, per_epoch),
            "--sample-every", per_epoch * max(1, flags.n_epochs // PICTURES),
            *([] if size is None else ["--size", f"{size[0]}x{size[1]}"]),
            *(["--transpose"] if is_transposed else []),
            *([] if flags.diff_ckpt is None else ["--diff-ckpt", flags.diff_ckpt]),
            *([] if flags.device is None else ["--device", flags.device]),
            *([] if flags.sample_steps is None else ["--sample-steps", flags.sample_steps]),
        ]
    )  # fmt: skip
    if os.environ.get("RANK", "0") == "0":  # of several processes that train together one writes
        _leave(out, flags.dataset_csv, flags.n_epochs)


def _flags() -> door.argparse.Namespace:
    parser = door.make_parser("Train the U-Net of a latent diffusion model.")
    parser.add_argument("--conditioning", required=True, choices=["none", "variables", "conditioning", "text"])
    parser.add_argument("--duplication", required=True, choices=["none", "low", "high"])
    parser.add_argument("--dataset_csv", required=True, type=Path)
    parser.add_argument("--output_dir", required=True, type=Path)
    parser.add_argument("--aekl_ckpt", required=True, type=Path, help="weights of the VAE")
    parser.add_argument("--diff_ckpt", type=Path, help="weights of the U-Net to start from")
    parser.add_argument("--latent_shape", default="3x36x28")
    parser.add_argument("--vae_space_shape", default="3x34x28")
    parser.add_argument("--batch_size", type=int, default=8)
    parser.add_argument("--n_workers", type=int, default=4, help="threads that read images")
    parser.add_argument("--n_epochs", type=int, default=100)
    parser.add_argument("--lr", type=float, default=2.5e-5)
    ours = parser.add_argument_group("not in the reference")
    ours.add_argument("--config", default="paper-brain", help="sizes of the networks; see deepssim train ldm --help")
    ours.add_argument("--device", choices=["auto", "cpu", "cuda"])
    ours.add_argument("--sample_steps", type=int, help="of sampling for plots/; 0: no plots; default: 50")
    flags = parser.parse_args()
    for name in ("batch_size", "n_epochs"):
        if getattr(flags, name) < 1:
            door.fail(f"--{name} is {getattr(flags, name)}: it must be at least 1")
    return flags


def _geometry(flags: door.argparse.Namespace) -> tuple[tuple[int, int] | None, bool]:
    """Return the size at which images are seen, None where the command is to find it, and whether they are transposed.

    What is wrong with a file is left to the command, which says it better.
    """
    size = door_ldm.first_size(flags.dataset_csv)
    if size is None:
        return None, False
    is_transposed = door_ldm.is_transposed(flags.aekl_ckpt)
    if is_transposed is None:
        sides = flags.vae_space_shape.lower().split("x")[1:]
        is_transposed = sides == [str(side // _factor(flags.config)) for side in size[::-1]]
    return (size[::-1] if is_transposed else size), is_transposed


def _factor(config: str) -> int:
    from deepssim.errors import DeepSSIMError
    from deepssim.generative.config import VaeConfig, read_config

    try:
        return read_config(config).vae.factor
    except DeepSSIMError:
        return VaeConfig().factor


def _steps_of_epoch(path: Path, rule: str, batch_size: int) -> int:
    """Return the steps of an epoch, so that there is a look after each."""
    from deepssim.errors import DeepSSIMError
    from deepssim.generative.data.duplication import multiplicities
    from deepssim.generative.data.records import read_dataset

    try:
        training = read_dataset(path, with_splits=False).split("train")
        return math.ceil(int(multiplicities(training, rule).sum()) / batch_size)
    except DeepSSIMError:
        return 1


def _leave(out: Path, dataset_csv: Path, n_epochs: int) -> None:
    """Write what the reference's script leaves, from the run."""
    from safetensors.torch import load_file

    run = out / "run"
    log = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    for folder in ("models", "plots"):
        (out / folder).mkdir(exist_ok=True)
    epochs = _epochs(log, n_epochs)
    best = max(line["step"] for line in log if line["is_best"])
    for name, step in (("best", best), ("last", log[-1]["step"])):
        weights = run / f"{name}.safetensors"
        door_ldm.save_state_dict(
            load_file(weights), out / "models" / f"unet-ep-{epochs[step]}.pth",
            transpose=bool(door_ldm.is_transposed(weights)),
        )  # fmt: skip
    _write_history(out / "history.csv", log, epochs)
    for step, epoch in epochs.items():
        picture = run / f"samples-{step:06d}.png"
        if picture.is_file():
            shutil.copyfile(picture, out / "plots" / f"gen_{epoch}.png")
    if (run / "curves.png").is_file():
        shutil.copyfile(run / "curves.png", out / "plots" / "curves.png")
    _write_used(out / "train-used.csv", dataset_csv, run / "train-used.csv")


def _epochs(log: list[dict[str, float]], n_epochs: int) -> dict[int, int]:
    """Return the epoch that was done at each look, from 0 as there: the last batch of the last may go on beyond it."""
    return {int(line["step"]): min(n_epochs - 1, max(0, math.floor(line["epoch"]) - 1)) for line in log}


def _write_history(path: Path, log: list[dict[str, float]], epochs: dict[int, int]) -> None:
    from deepssim.tables import write_csv

    rows = [
        (epochs[int(line["step"])], mode, line[name])
        for line in log
        for mode, name in (("train", "loss"), ("valid", "valid_loss"))
        if name in line
    ]
    write_csv(path, ["epoch", "mode", "loss"], rows)


def _write_used(path: Path, dataset_csv: Path, used: Path) -> None:
    """Write the rows of the training images, each as often as it was repeated."""
    from deepssim.disk import replacing
    from deepssim.tables import safe_cell

    with used.open(encoding="utf-8", newline="") as file:
        counts = {row["image_uid"]: int(row["multiplicity"]) for row in csv.DictReader(file)}
    with (
        dataset_csv.open(encoding="utf-8-sig", newline="", errors="surrogateescape") as source,
        replacing(path) as temporary,
        temporary.open("w", encoding="utf-8", newline="", errors="surrogateescape") as target,
    ):
        reader = csv.DictReader(source)
        writer = csv.DictWriter(target, reader.fieldnames or [], extrasaction="ignore")
        writer.writeheader()
        for row in reader:
            if (row.get("split") or "").strip() == "train":
                # A uid that comes again was left out.
                writer.writerows([row] * counts.pop(safe_cell((row.get("image_uid") or "").strip()), 0))


if __name__ == "__main__":
    main()
