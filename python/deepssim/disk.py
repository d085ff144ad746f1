"""Files that are whole or not there, readable by their owner alone."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from deepssim.errors import DeepSSIMError, StoreError, UsageError

FILE_MODE = 0o600
FOLDER_MODE = 0o700
LOCK = ".lock"
LEFTOVER = re.compile(
    r"\.[a-z_]+(-\d+|-\d+-[a-z]+|-shareable|-used|-int[0-9a-z-]+)?\.(npy|npz|parquet|jsonl?|csv|png|html|bin|pt|safetensors|onnx)\.[0-9a-f]{12}\.partial"
)


def make_private_folder(path: Path) -> Path:
    """Make a folder (and its parents) that only its owner can enter; an existing one is left as it is."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir(mode=FOLDER_MODE, exist_ok=True)
    except OSError as error:
        raise UsageError(f"cannot make the folder {path}: {error.strerror}") from error
    return path


def check_writable(folder: Path) -> None:
    """Make a folder as `make_private_folder` does, and see that files can be made in it before anything is done.

    Raises:
        UsageError: They cannot.
    """
    make_private_folder(folder)
    probe = folder / f".{secrets.token_hex(6)}.partial"
    try:
        os.close(os.open(probe, os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_WRONLY, FILE_MODE))
        probe.unlink()
    except OSError as error:
        raise UsageError(f"nothing can be written to {folder}: {error.strerror}; name another folder") from error


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def replacing(path: Path, *, is_lasting: bool = True) -> Iterator[Path]:
    """Give a temporary name to write to; on success it is fsynced and renamed to `path`.

    Whoever looks at `path` sees the old file or the whole new one, also after a kill. On an error the
    temporary file is removed and `path` is as it was.

    Args:
        path: The final name.
        is_lasting: Whether it is on disk at the end of the block, also if power fails; for thousands of files that a
            run can do without, waiting for the disk would take longer than the work.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}.partial")
    try:
        # A new file under a name that cannot be foreseen: nothing that lies there already is followed or reused.
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_WRONLY, FILE_MODE))
        yield temporary
        if is_lasting:
            with temporary.open("rb") as written:
                os.fsync(written.fileno())
        temporary.replace(path)
        if is_lasting:
            _sync_folder(path.parent)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a folder for this process; the lock goes with the process, however it ends.

    Raises:
        UsageError: Another process holds it.
    """
    descriptor = os.open(folder / LOCK, os.O_CREAT | os.O_RDWR, FILE_MODE)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UsageError(f"another run is writing to {folder}: wait for it, or name another folder") from None
        yield
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def work_folder(out: Path, fingerprint: str) -> Iterator[Path]:
    """Hold a folder beside `out` for work under way, gone at the end; a kill leaves it for the next run to go on.

    Args:
        out: The file that the work is for; its folder exists.
        fingerprint: 16 hexadecimal digits of everything that the work depends on: work of another is removed.

    Raises:
        UsageError: Another process holds it.
    """
    work = make_private_folder(out.with_name(f".{out.name}.work-{fingerprint}"))
    with locked(work):
        remove_leftovers(work)
        ours = re.compile(rf"\.{re.escape(out.name)}\.work-[0-9a-f]{{16}}")
        for folder in out.parent.iterdir():
            if folder != work and ours.fullmatch(folder.name) and folder.is_dir() and not folder.is_symlink():
                with locked(folder):
                    shutil.rmtree(folder)
        try:
            yield work
        except DeepSSIMError:
            # The same command would fail again: nothing to go on from, and pixels of patients are in there.
            shutil.rmtree(work)
            raise
        shutil.rmtree(work)


def write_json(path: Path, value: Any) -> None:
    """Write `value` as JSON, atomically. Numbers that JSON cannot hold (NaN, infinity) raise ValueError."""
    text = json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False)
    with replacing(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8", errors="surrogateescape")


def read_json(path: Path, *, file_format: str, version: int) -> dict[str, Any]:
    """Read a JSON object of ours, checking its ``format`` and ``version``.

    Raises:
        StoreError: The file is missing, is no such JSON, or is of another version.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise StoreError(f"{path} is missing") from None
    except (OSError, ValueError) as error:
        raise StoreError(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(value, dict) or value.get("format") != file_format:
        raise StoreError(f"{path} is not a {file_format} file")
    if value.get("version") != version:
        raise StoreError(
            f"{path} has version {value.get('version')!r} of {file_format}, this program reads {version}; "
            "make it again with this version"
        )
    return value


def remove_leftovers(folder: Path) -> None:
    """Remove temporary files that a killed run left in `folder`."""
    for path in folder.iterdir():
        if LEFTOVER.fullmatch(path.name):
            path.unlink(missing_ok=True)
