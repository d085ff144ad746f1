"""The reference implementation's ``eval.py``, run by ``deepssim eval``: the same flags, the same six lines.

It measures a matrix of scores on labelled pairs, at the published thresholds of the metric.
"""

from __future__ import annotations

import door


def main() -> None:
    """Translate the flags, and run the command."""
    parser = door.make_parser("Measure a matrix of scores on labelled pairs.")
    parser.add_argument("--metric_name", required=True, choices=door.METRICS)
    parser.add_argument("--matrix_path", required=True)
    parser.add_argument("--real_indices_path", required=True)
    parser.add_argument("--synth_indices_path", required=True)
    parser.add_argument("--testset_csv", required=True)
    flags = parser.parse_args()
    door.run(
        [
            "eval", "--testset-csv", flags.testset_csv, "--matrix", f"{flags.metric_name}={flags.matrix_path}",
            "--real-indices", flags.real_indices_path, "--synthetic-indices", flags.synth_indices_path,
            "--resamples", 100, "--reference-lines",
        ]
    )  # fmt: skip


if __name__ == "__main__":
    main()
