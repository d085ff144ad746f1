"""Evidence of many pairs, kept in a folder as it is found, so that an interrupted run goes on."""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import astuple, fields
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from deepssim.image_ops import Evidence, Registrar, registration

BLOCK = 16  # synthetic images a file of the folder
REPORT_SECONDS = 10.0
FIELDS = tuple(field.name for field in fields(Evidence))
S1, S2 = FIELDS.index("s1"), FIELDS.index("s2")

Pixels = NDArray[np.uint8]
Table = NDArray[np.float32]
Mask = NDArray[np.bool_]


def to_bytes(image: NDArray[np.float32]) -> Pixels:
    """Return a grey image in [0, 1] as the 8-bit file that it would come from."""
    return np.asarray(np.rint(image * np.float32(255)), np.uint8)


def examine(
    real: Sequence[Pixels],
    synthetic: Sequence[Pixels],
    wanted: Mask | None = None,
    *,
    threads: int = 0,
    cache: Path | None = None,
    report: Callable[[str], None] = lambda _: None,
) -> Table:
    """Register real images onto synthetic ones and measure how they agree.

    Args:
        real: Images of one shape.
        synthetic: Images of the same shape.
        wanted: ``(n_synthetic, n_real)`` which pairs; None: all.
        threads: 0: all that this process may use.
        cache: Folder of what was found before; a file's name covers everything that its contents depend on.
        report: Told from time to time how far it is.

    Returns:
        ``(n_synthetic, n_real, n_fields)`` by `FIELDS`, NaN where a pair was not wanted.
    """
    out = np.full((len(synthetic), len(real), len(FIELDS)), np.nan, np.float32)
    if wanted is None:
        wanted = np.ones(out.shape[:2], bool)
    base = _digest(_method(), *real)
    registrar: Registrar | None = None
    began = last = time.monotonic()
    for first in range(0, len(synthetic), BLOCK):
        part = slice(first, min(first + BLOCK, len(synthetic)))
        name = _digest(base, *synthetic[part], wanted[part])
        known = _read(cache, name, out[part].shape)
        if known is None:
            registrar = registrar or Registrar(real)
            known = _verify(registrar, synthetic[part], wanted[part], threads)
            _write(cache, name, known)
        out[part] = known
        if time.monotonic() - last > REPORT_SECONDS:
            last = time.monotonic()
            report(f"{part.stop} of {len(synthetic)} images, {last - began:.0f} s")
    return out


def _verify(registrar: Registrar, synthetic: Sequence[Pixels], wanted: Mask, threads: int) -> Table:
    candidates = [np.flatnonzero(row).tolist() for row in wanted]
    found = registrar.verify_many(synthetic, candidates, threads=threads)
    out = np.full((*wanted.shape, len(FIELDS)), np.nan, np.float32)
    for row, places, pairs in zip(out, candidates, found, strict=True):
        if places:
            row[places] = [astuple(evidence) for _, evidence in pairs]
    return out


def method_hash() -> str:
    """Return a hash of the code that evidence comes from: the compiled core and what calls it."""
    return _method().hex()[:12]


@functools.cache  # of the core that runs, not of one that was built since
def _method() -> bytes:
    found = importlib.util.find_spec("deepssim._core")
    if found is None or found.origin is None:
        raise ValueError("the compiled core is not there; build the package first")
    code = [Path(found.origin).read_bytes(), Path(registration.__file__).read_bytes()]
    return hashlib.sha256(b"".join([*code, " ".join(FIELDS).encode()])).digest()


def _digest(*parts: bytes | NDArray[np.generic]) -> bytes:
    """Hash parts one by one, each with its type and shape, so that no two lists of parts look alike."""
    total = hashlib.sha256()
    for part in parts:
        if isinstance(part, bytes):
            total.update(b"%d;" % len(part) + part)
        else:
            total.update(f"{part.dtype.str}{part.shape};".encode() + np.ascontiguousarray(part).tobytes())
    return total.digest()


def _read(cache: Path | None, name: bytes, shape: tuple[int, ...]) -> Table | None:
    if cache is None:
        return None
    try:
        found = np.load(cache / f"{name.hex()}.npy", allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None  # not there, or cut short by a full disk: found anew
    return found if found.shape == shape and found.dtype == np.float32 else None


def _write(cache: Path | None, name: bytes, table: Table) -> None:
    if cache is None:
        return
    cache.mkdir(parents=True, exist_ok=True)
    # Several runs may share a folder: each writes under a name of its own first.
    temporary = cache / f"{name.hex()}.{os.getpid()}.part"
    with temporary.open("wb") as file:
        np.save(file, table)
    temporary.replace(cache / f"{name.hex()}.npy")
