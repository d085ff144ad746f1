"""Where made images go: a folder, a tar or .npy file, or whoever reads a pipe.

What is whole under its name is never made again. Files of streams are written beside their name and get it when the
last image is in them; a killed run goes on at the last whole image.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy as np
from numpy.typing import NDArray

from deepssim.disk import FILE_MODE, LOCK, check_writable, locked, make_private_folder
from deepssim.errors import DeepSSIMError, UsageError
from deepssim.generative.sampling.plan import RUN_NAME, Plan, file_name, folder_name
from deepssim.generative.sampling.png import PNG_END, png_bytes
from deepssim.generative.sampling.settings import Settings, check_settings, read_settings, write_settings
from deepssim.generative.sampling.streams import Stream
from deepssim.images.text import one_line

__all__ = ["FileSink", "FolderSink", "PipeSink", "Pixels", "ReaderEndedError", "Sink"]

Pixels = NDArray[np.uint8] | NDArray[np.float32]
TRAINING = "training.png"


class ReaderEndedError(DeepSSIMError):
    """Whoever read the images took no more of them."""


class Sink(Protocol):
    """Takes images in the order of a plan.

    Attributes:
        source: What the images are called by: a path, or ``"-"``.
        dtype: Of the pixels that it takes: uint8, or float32 from 0 to 1.
    """

    source: str
    dtype: np.dtype[Any]

    def begin(self, plan: Plan, settings: Settings) -> int:
        """Get ready, and return how many of the images are there already.

        Raises:
            UsageError: What is there is not ours, or was made with other settings.
        """

    def missing(self) -> Iterator[int]:
        """Yield the places of images that are not there yet, in order."""

    def write(self, place: int, pixels: Pixels) -> None:
        """Take an image ``(height, width)``; places come in the order of `missing`."""

    def finish(self) -> None:
        """All images are there."""

    def close(self) -> None:
        """Let go of what was begun, whole or not."""


class FolderSink:
    """A folder ``UID/gen-NUMBER.png``, as the reference implementation lays it out.

    Each file appears whole under its name. A folder that holds anything else is refused.

    Args:
        folder: Made where it is missing.

    Attributes:
        source: The folder.
        dtype: uint8.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.source = str(folder)
        self.dtype: np.dtype[Any] = np.dtype(np.uint8)
        self._plan: Plan | None = None
        self._settings: Settings | None = None
        self._held = contextlib.ExitStack()
        self._made: Path | None = None

    def begin(self, plan: Plan, settings: Settings) -> int:
        """Check what is there and write the record of the run."""
        check_writable(self.folder)
        self._held.enter_context(locked(self.folder))
        record = self.folder / RUN_NAME
        is_new = not record.exists()
        if is_new:
            strange = sorted(entry.name for entry in self.folder.iterdir() if entry.name != LOCK)
            if strange:
                raise UsageError(
                    f"{self.folder} holds other files ({one_line(strange[0], 80)}) and no {RUN_NAME} of a run of this "
                    "command: name an empty or a new folder"
                )
        else:
            found = read_settings(record)
            # A run that was stopped before its first image binds nobody.
            if next(self.folder.glob("*/gen-*.png"), None) is not None:
                check_settings(record, found, settings, can_grow=True)
            self._remove_leftovers()
        self._plan, self._settings = plan, settings
        write_settings(record, settings, is_finished=False)
        return 0 if is_new else sum(1 for place in plan.wanted() if self._is_there(place))

    def missing(self) -> Iterator[int]:
        """Yield the places of files that are not there, or not whole."""
        assert self._plan is not None
        return (place for place in self._plan.wanted() if not self._is_there(place))

    def write(self, place: int, pixels: Pixels) -> None:
        """Write a file, atomically."""
        self._replace(self._path(place), png_bytes(np.asarray(pixels, np.uint8)))

    def write_training(self, uid: str, pixels: NDArray[np.uint8]) -> None:
        """Write the real image of a record beside those made for it."""
        self._replace(self.folder / folder_name(uid) / TRAINING, png_bytes(pixels))

    def lacks_training(self, uid: str) -> bool:
        """Return whether the real image of a record is not there, or not whole."""
        return not _is_whole_png(self.folder / folder_name(uid) / TRAINING)

    def finish(self) -> None:
        """Note in the record that all is there."""
        assert self._settings is not None
        write_settings(self.folder / RUN_NAME, self._settings, is_finished=True)

    def close(self) -> None:
        """Let others write to the folder."""
        self._held.close()

    def _path(self, place: int) -> Path:
        assert self._plan is not None
        request = self._plan.request(place)
        return self.folder / file_name(request.uid, request.number)

    def _is_there(self, place: int) -> bool:
        return _is_whole_png(self._path(place))

    def _replace(self, path: Path, data: bytes) -> None:
        # A kill leaves whole files without a sync of each; what a power failure cuts short is found by its end.
        if path.parent != self._made:
            make_private_folder(path.parent)
            self._made = path.parent
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}.partial")
        descriptor = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_WRONLY, FILE_MODE)
        try:
            with os.fdopen(descriptor, "wb", buffering=0) as file:
                _write_all(file, data, path)
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise

    def _remove_leftovers(self) -> None:
        for path in self.folder.glob("*/.*.png.*.partial"):
            path.unlink(missing_ok=True)


class FileSink:
    """A tar or .npy file that grows beside its name, ``NAME.partial``, with the record of its run in ``NAME.run.json``.

    Args:
        path: Of the whole file.
        stream: What its bytes are.

    Attributes:
        source: The path.
        dtype: Of the stream.
    """

    def __init__(self, path: Path, stream: Stream) -> None:
        self.path, self.stream = path, stream
        self.source = str(path)
        self.dtype = stream.dtype
        self._partial = path.with_name(f"{path.name}.partial")
        self._record = path.with_name(f"{path.name}.{RUN_NAME}")
        self._plan: Plan | None = None
        self._settings: Settings | None = None
        self._file: BinaryIO | None = None
        self._first = 0

    def begin(self, plan: Plan, settings: Settings) -> int:
        """Check what is there, and cut off what was begun and is not whole."""
        if self.path.is_dir():
            raise UsageError(f"{self.path} is a folder: name a file, or --out with no suffix .tar or .npy for a folder")
        check_writable(self.path.parent)
        self._plan, self._settings = plan, settings
        is_there = self.path.exists() or self._partial.exists()
        if self._record.exists() and is_there:
            check_settings(self._record, read_settings(self._record), settings, can_grow=False)
        elif is_there:
            there = self.path if self.path.exists() else self._partial
            raise UsageError(f"{there} is there already, and not from a run of this command: name another file")
        if self.path.exists():
            self._first = len(plan)
            return self._first
        write_settings(self._record, settings, is_finished=False)
        descriptor = os.open(self._partial, os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW, FILE_MODE)
        self._file = os.fdopen(descriptor, "r+b", buffering=0)
        _hold(self._file, self._partial)
        self._first, end = self.stream.whole(self._file, plan)
        self._file.truncate(end)
        self._file.seek(end)
        if end == 0:
            _write_all(self._file, self.stream.head(plan), self._partial)
        return self._first

    def missing(self) -> Iterator[int]:
        """Yield the places of all images after the last whole one."""
        assert self._plan is not None
        return iter(self._plan.wanted()[self._first :])

    def write(self, place: int, pixels: Pixels) -> None:
        """Append an image."""
        assert self._plan is not None
        assert self._file is not None
        _write_all(self._file, self.stream.entry(self._plan.request(place), pixels), self._partial)

    def finish(self) -> None:
        """Give the file its name."""
        assert self._settings is not None
        if self._file is not None:
            _write_all(self._file, self.stream.tail(), self._partial)
            os.fsync(self._file.fileno())
            self._partial.replace(self.path)
        write_settings(self._record, self._settings, is_finished=True)

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None


class PipeSink:
    """Whoever reads the other end, image by image.

    Args:
        file: Unbuffered, binary.
        stream: What is written.

    Attributes:
        source: ``"-"``.
        dtype: Of the stream.
    """

    def __init__(self, file: BinaryIO, stream: Stream) -> None:
        self.stream = stream
        self.source = "-"
        self.dtype = stream.dtype
        self._file = file
        self._plan: Plan | None = None
        self._n_written = 0

    def begin(self, plan: Plan, settings: Settings) -> int:
        """Write what comes before the first image."""
        self._plan = plan
        self._send(self.stream.head(plan))
        return 0

    def missing(self) -> Iterator[int]:
        """Yield all places."""
        assert self._plan is not None
        return iter(self._plan.wanted())

    def write(self, place: int, pixels: Pixels) -> None:
        """Write an image."""
        assert self._plan is not None
        self._send(self.stream.entry(self._plan.request(place), pixels))
        self._n_written += 1

    def finish(self) -> None:
        """Write what comes after the last image."""
        self._send(self.stream.tail())

    def close(self) -> None:
        """Leave the pipe to its owner."""

    def _send(self, data: bytes) -> None:
        try:
            _write_all(self._file, data, "stdout")
        except BrokenPipeError:
            assert self._plan is not None
            raise ReaderEndedError(
                f"the reader of the images ended after it was sent {self._n_written:,} of {len(self._plan):,}: look at "
                "what it says, and start both again"
            ) from None


def _write_all(file: BinaryIO, data: bytes, name: Path | str) -> None:
    """Write to an unbuffered file, which may take a part at a time; an error says which."""
    view = memoryview(data)
    try:
        while view:
            view = view[file.write(view) or 0 :]
    except OSError as error:
        error.filename = str(name)
        raise


def _is_whole_png(path: Path) -> bool:
    """Return whether a file ends as PNG files do."""
    try:
        with path.open("rb", buffering=0) as file:
            size = file.seek(0, os.SEEK_END)
            if size <= len(PNG_END):
                return False
            file.seek(-len(PNG_END), os.SEEK_END)
            return file.read() == PNG_END
    except FileNotFoundError:
        return False


def _hold(file: BinaryIO, path: Path) -> None:
    """Hold a file for this process; the lock goes with the process, however it ends.

    Raises:
        UsageError: Another process holds it.
    """
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        raise UsageError(f"another run is writing to {path}: wait for it, or name another file") from None
