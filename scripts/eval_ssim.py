"""The reference implementation's ``eval_ssim.py``, run by ``deepssim eval``: the same flags, the same six lines.

It measures SSIM on labelled pairs, at the published thresholds of DeepSSIM. ``--augment`` shows every image flipped,
turned and re-contrasted, as there, but by one draw for each image; there an image is drawn anew for each of its pairs.
"""

from __future__ import annotations

import door


def main() -> None:
    """Translate the flags, and run the command."""
    parser = door.make_parser("Measure SSIM on labelled pairs.")
    parser.add_argument("--augment", action="store_true")
    parser.add_argument("--dataset_images_dir", required=True)
    parser.add_argument("--testset_csv", required=True)
    flags = parser.parse_args()
    door.run(
        [
            "eval", "--testset-csv", flags.testset_csv, "--images", flags.dataset_images_dir, "--metric", "ssim",
            *(door.PERTURBED if flags.augment else ()), "--resamples", 100, "--reference-lines",
        ]
    )  # fmt: skip


if __name__ == "__main__":
    main()
