"""The reference implementation's ``deepssim_train.py``, run by ``deepssim train encoder``: the same flags.

It trains the published recipe on a list of pairs. The run lies in ``runs/EXP_NAME``; there it is ``../logs/EXP_NAME``.
Its ``best.safetensors`` is a ``--model_path`` of ``compute_matrix.py``.
"""

from __future__ import annotations

import door

PASSED_ON = ("emb_dim", "epochs", "batch_size", "learning_rate", "weight_decay", "dropout_prob")


def main() -> None:
    """Translate the flags, and run the command."""
    parser = door.make_parser("Train an encoder whose cosine of two embeddings equals the SSIM of two images.")
    parser.add_argument("--use_gpu", action="store_true", help="run on a GPU if there is one")
    parser.add_argument("--exp_name", required=True)
    parser.add_argument("--dataset_csv", required=True, help="real_key, synth_key, ssim, split")
    parser.add_argument("--dataset_images_dir", required=True)
    parser.add_argument("--num_workers", type=int, help="processes that read images")
    parser.add_argument("--emb_dim", type=int, default=256)
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--learning_rate", type=float, default=1e-3)
    parser.add_argument("--weight_decay", type=float, default=1e-3)
    parser.add_argument("--dropout_prob", type=float, default=0.33)
    ours = parser.add_argument_group("not in the reference")
    ours.add_argument("--weights", help="file of ImageNet weights, where they are not to be downloaded; or none")
    flags = parser.parse_args()
    if flags.use_gpu:
        _warn_without_gpu()
    passed_on: list[object] = []
    for name in PASSED_ON:
        passed_on += [f"--{name.replace('_', '-')}", getattr(flags, name)]
    door.run(
        [
            "train", "encoder", "--recipe", "deepssim", "--dataset-images-dir", flags.dataset_images_dir,
            "--dataset-csv", flags.dataset_csv, "--exp-name", flags.exp_name, *passed_on,
            *(["--use-gpu"] if flags.use_gpu else ["--device", "cpu"]),
            *([] if flags.num_workers is None else ["--num-workers", flags.num_workers]),
            *([] if flags.weights is None else ["--weights", flags.weights]),
        ]
    )  # fmt: skip


def _warn_without_gpu() -> None:
    try:
        import torch
    except ImportError:
        return  # the command says what to install
    if not torch.cuda.is_available():
        door.warn("no GPU can be used here, so training runs on the processor: deepssim doctor says why")


if __name__ == "__main__":
    main()
