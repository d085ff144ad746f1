"""Make the metric bundle `ums_l2`: the L2 distance of images of 136 x 112 pixels, each of unit norm.

    python scripts/make_ums_l2_bundle.py [--out python/deepssim/metrics/ums_l2.onnx]

The embedding is the image itself: grey values from 0 to 255, brought to 136 x 112 by area averaging, 15,232 numbers,
divided by their Euclidean norm. Nothing is subtracted, so that a dark and a bright image of one shape are equal and a
light background makes all images alike. A flat image gives zeros. The file is the same, byte for byte, at every run.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from deepssim.bundle import pixel_bundle
from deepssim.input_rule import InputRule

TOLD = {
    "name": "ums_l2",
    "description": "L2 distance of the images themselves, each of unit norm; for images in place, as registered ones.",
    "provenance": "No weights; made by scripts/make_ums_l2_bundle.py.",
}


def main() -> None:
    """Write the bundle."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("python/deepssim/metrics/ums_l2.onnx"))
    out: Path = parser.parse_args().out
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_bytes(pixel_bundle(InputRule(136, 112, grey="byte"), "l2", TOLD))
    print(out)


if __name__ == "__main__":
    main()
