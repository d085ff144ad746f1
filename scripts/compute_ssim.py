"""The reference implementation's ``compute_ssim.py``, run by ``deepssim matrix ssim``: the same flags.

It compares every real with every synthetic image that two indices name, pixel against pixel, and writes the matrix in
their order. Numbers are float32; ``--float16`` rounds them as there.
"""

from __future__ import annotations

import door

if __name__ == "__main__":
    door.compute_matrix("ssim", "--ssim_tmp_dir")
