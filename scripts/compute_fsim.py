"""The reference implementation's ``compute_fsim.py``, run by ``deepssim matrix fsim``: the same flags.

It compares every real with every synthetic image that two indices name, pixel against pixel, and writes the matrix in
their order. Numbers are float32; ``--float16`` rounds them as there.
"""

from __future__ import annotations

from pathlib import Path

import door


def main() -> None:
    """Translate the flags, and run the command."""
    parser = door.make_parser("Compute the FSIM of all real with all synthetic images.")
    parser.add_argument("--num_workers", type=int, help="threads; default: all")
    parser.add_argument("--dataset_images_dir", required=True, type=Path)
    parser.add_argument("--output_matrix_path", required=True, type=Path)
    parser.add_argument("--real_indices_path", required=True)
    parser.add_argument("--synth_indices_path", required=True)
    ours = parser.add_argument_group("not in the reference")
    ours.add_argument("--resize", metavar="HxW", help="rows and columns that all images are brought to")
    ours.add_argument("--float16", action="store_true", help="round to float16")
    flags = parser.parse_args()
    door.run(door.matrix_arguments("fsim", flags))


if __name__ == "__main__":
    main()
