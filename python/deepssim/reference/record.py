"""What a matrix was made of, in a file beside it: ``METRIC.json``.

All metrics of a folder share its indices, so those may be of another metric and of other images than a matrix. Shapes
tell that only sometimes; the record knows the names that the matrix was made with.
"""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from deepssim.disk import read_json, write_json
from deepssim.errors import StoreError, UsageError

__all__ = ["RECORD_FORMAT", "check_names", "write_record"]

RECORD_FORMAT, RECORD_VERSION = "deepssim-matrix", 1


def write_record(matrix: Path, facts: dict[str, Any], real: Sequence[str], synthetic: Sequence[str]) -> None:
    """Write the record of a matrix beside it.

    Args:
        matrix: The ``.npz`` file, written before.
        facts: What else is told, for JSON.
        real: Names of its rows.
        synthetic: Names of its columns.
    """
    names = {"real": _digest(real), "synthetic": _digest(synthetic), "matrix_crc": _crc(matrix)}
    write_json(
        matrix.with_suffix(".json"), {"format": RECORD_FORMAT, "version": RECORD_VERSION, **facts, "names": names}
    )


def check_names(matrix: Path, real: Sequence[str], synthetic: Sequence[str]) -> None:
    """Refuse indices that a matrix was not made with, where a record of it lies beside it.

    A record of another file, such as one that the reference implementation has replaced since, says nothing.

    Args:
        matrix: The file.
        real: Names that an index gives to its rows.
        synthetic: Names that an index gives to its columns.

    Raises:
        UsageError: They are others, or in another order.

    Example:
        >>> import tempfile
        >>> import numpy as np
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder, "chen.npz")
        ...     np.savez(path, data=np.ones((1, 1), np.float32))
        ...     write_record(path, {}, ["p1___training"], ["p1___gen-0"])
        ...     check_names(path, ["p1___training"], ["p1___gen-0"])
        ...     check_names(path, ["p2___training"], ["p1___gen-0"])  # doctest: +ELLIPSIS
        Traceback (most recent call last):
            ...
        deepssim.errors.UsageError: ...chen.npz was made with other real images, or in another order, than ...
    """
    try:
        record = read_json(matrix.with_suffix(".json"), file_format=RECORD_FORMAT, version=RECORD_VERSION)
    except StoreError:
        return
    names = record.get("names")
    if not isinstance(names, dict) or names.get("matrix_crc") != _crc(matrix):
        return
    given = {"real": real, "synthetic": synthetic}
    odd = [which for which, one in given.items() if names.get(which) != _digest(one)]
    if odd:
        raise UsageError(
            f"{matrix} was made with other {' and '.join(odd)} images, or in another order, than the indices name: "
            f"give {matrix.stem}.real.npz and {matrix.stem}.synth.npz, which were written with it"
        )


def _digest(names: Sequence[str]) -> str:
    """Return what decides names and their order; no name holds a zero."""
    return hashlib.sha256("\0".join(names).encode("utf-8", "surrogateescape")).hexdigest()


def _crc(matrix: Path) -> int | None:
    """Return the check sum of the scores that the archive keeps; None where it is none."""
    try:
        with zipfile.ZipFile(matrix) as archive:
            return archive.getinfo("data.npy").CRC
    except (OSError, KeyError, ValueError, zipfile.BadZipFile, NotImplementedError):
        return None
