"""The reference implementation's ``plot_reports.py``, run by ``deepssim plot histogram``: the same flags and figure.

It draws the histogram of the scores of labelled pairs, bars by class, with two thresholds. The figure is PNG, SVG or
PDF by its suffix, PNG where there is none.
"""

from __future__ import annotations

from pathlib import Path

import door


def main() -> None:
    """Translate the flags, and run the command."""
    parser = door.make_parser("Draw the histogram of scores of labelled pairs.")
    parser.add_argument("--low_threshold", type=float, required=True)
    parser.add_argument("--upper_threshold", type=float, required=True)
    parser.add_argument("--exp_title", required=True)
    parser.add_argument("--output_path", required=True)
    parser.add_argument("--matrix_path", required=True)
    parser.add_argument("--real_indices_path", required=True)
    parser.add_argument("--synth_indices_path", required=True)
    parser.add_argument("--testset_csv", required=True)
    flags = parser.parse_args()
    out = flags.output_path if Path(flags.output_path).suffix else f"{flags.output_path}.png"
    # There the two are lines and nothing else, in any order.
    low, high = sorted((flags.low_threshold, flags.upper_threshold))
    door.run(
        [
            "plot", "histogram", "--testset-csv", flags.testset_csv, "--matrix", f"score={flags.matrix_path}",
            "--real-indices", flags.real_indices_path, "--synthetic-indices", flags.synth_indices_path,
            f"--thresholds={low!r},{high!r}", f"--title={flags.exp_title}", "--palette", "reference", "--stored-bins",
            "--out", out,
        ]
    )  # fmt: skip


if __name__ == "__main__":
    main()
