"""Walk through a folder, whatever links and special files lie in it."""

from __future__ import annotations

import os
import stat
from collections import deque
from pathlib import Path

from deepssim.errors import ImageError
from deepssim.images.files import is_under, open_error
from deepssim.images.formats import format_of_name
from deepssim.images.frames import skipped
from deepssim.images.text import escape_path
from deepssim.images.types import Skipped


def walk_folder(root: Path) -> tuple[list[str], list[Skipped]]:
    """Find all regular files under a folder; names that begin with a dot are left out.

    Links to files are followed if they stay under the root. Links to folders are followed after all real
    folders, and no folder is walked twice, so a loop cannot hang and no image is listed once more for every
    link.

    Args:
        root: Folder without links.

    Returns:
        Relative POSIX paths, and what was refused.
    """
    walker = _Walker(str(root))
    walker.run()
    return walker.paths, walker.refused


class _Walker:
    def __init__(self, root: str) -> None:
        self.paths: list[str] = []
        self.refused: list[Skipped] = []
        self._root = root
        self._folders: list[str] = [""]
        self._links: deque[tuple[str, str]] = deque()
        self._walked: set[str] = set()

    def run(self) -> None:
        while self._folders or self._links:
            if self._folders:
                self._walk(self._folders.pop())
                continue
            self._links = deque(sorted(self._links))
            path, real = self._links.popleft()
            if real in self._walked:
                self._refuse(path, ImageError("ignored", "a link to a folder that is listed already"))
            else:
                self._folders.append(path)

    def _refuse(self, path: str, error: ImageError) -> None:
        shown = escape_path(path or ".")
        self.refused.append(skipped(shown, shown, error))

    def _walk(self, folder: str) -> None:
        full = os.path.join(self._root, folder) if folder else self._root  # noqa: PTH118 - bytes that are not UTF-8
        real = os.path.realpath(full)
        if real in self._walked:
            return
        self._walked.add(real)
        try:
            with os.scandir(full) as entries:
                found = sorted((entry for entry in entries if not entry.name.startswith(".")), key=lambda e: e.name)
        except OSError as error:
            self._refuse(folder, open_error(error))
            return
        for entry in found:
            path = f"{folder}/{entry.name}" if folder else entry.name
            try:
                self._sort_entry(entry, path)
            except ImageError as error:
                self._refuse(path, error)
            except OSError as error:
                self._refuse(path, open_error(error))

    def _sort_entry(self, entry: os.DirEntry[str], path: str) -> None:
        if not entry.is_symlink():
            if entry.is_dir(follow_symlinks=False):
                self._folders.append(path)
            else:
                self._take(path, entry.stat(follow_symlinks=False).st_mode)
            return
        real = os.path.realpath(entry.path, strict=True)
        if not is_under(real, self._root):
            raise ImageError("outside", "a link leads out of the folder; copy what it names into it")
        mode = entry.stat().st_mode
        if stat.S_ISDIR(mode):
            self._links.append((path, real))
        else:
            self._take(path, mode)

    def _take(self, path: str, mode: int) -> None:
        if stat.S_ISREG(mode):
            self.paths.append(path)
        elif format_of_name(path) is None:
            raise ImageError("ignored", "is no regular file")
        else:
            raise ImageError("unsupported", "is no regular file")
