"""Find the files of a source: a folder, one file, or a manifest."""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from deepssim.errors import ImageError, UsageError
from deepssim.images.arrays import npy_header, plan_ranges
from deepssim.images.dicom import is_dicom
from deepssim.images.files import is_under, open_error, open_inside
from deepssim.images.formats import FORMATS_READ, format_of_name, may_be_dicom, require_package
from deepssim.images.frames import Context, skipped
from deepssim.images.groups import automatic_group, groups_of_paths
from deepssim.images.manifest import SUFFIXES as MANIFEST_SUFFIXES
from deepssim.images.manifest import Manifest, check_ids, read_manifest
from deepssim.images.slices import count_slices
from deepssim.images.text import escape_path, is_utf8, one_line, some
from deepssim.images.types import FileEntry, ImageOptions, Listing, ReadTask, Skipped
from deepssim.images.walk import walk_folder

_DICOM_MARK_END = 132
_KINDS_SHOWN = 5


def list_images(source: str | Path, options: ImageOptions | None = None) -> Listing:
    """List the image files of a source without decoding them.

    Args:
        source: A folder (searched recursively, hidden files and folders left out), one file, or a manifest: a
            ``.csv`` or ``.parquet`` file with a column ``path`` relative to its folder and, if wanted, ``id``
            and ``group``.
        options: How the images are read and grouped; None means the defaults.

    Returns:
        The listing. Files of other kinds, links out of the folder and files that are missing are in its
        ``ignored``.

    Raises:
        UsageError: There is no such source or no image in it, or ids or groups cannot be given.
        MissingDependencyError: A file needs a package that is not installed.

    Example:
        >>> import numpy as np, tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     np.save(Path(folder, "stack.npy"), np.zeros((300, 8, 8), np.uint8))
        ...     listing = list_images(folder)
        >>> listing.files[0].path, listing.n_expected, len(listing.tasks)
        ('stack.npy', 300, 2)
    """
    options = options or ImageOptions()
    text = os.fspath(source)
    if not text or "\0" in text:
        raise UsageError("the source of images has no name: name a folder, a file or a manifest")
    path = Path(text)
    try:
        mode = path.stat().st_mode
        real = Path(os.path.realpath(path, strict=True))
    except OSError as error:
        raise UsageError(f"'{one_line(text)}' cannot be read: {error.strerror or error}") from error
    if stat.S_ISDIR(mode):
        return _listing(text, real, _list_folder(real), options)
    if not stat.S_ISREG(mode):
        raise UsageError(f"'{one_line(text)}' is neither a folder nor a regular file")
    if path.suffix.lower() in MANIFEST_SUFFIXES:
        root = Path(os.path.realpath(path.parent))
        return _listing(text, root, _list_manifest(root, read_manifest(path), path.name), options)
    # A link to a file was named by the user, so where it leads to is what is meant.
    return _listing(text, real.parent, _sort_out(real.parent, [real.name]), options)


class _Found(NamedTuple):
    files: list[FileEntry]
    ignored: list[Skipped]
    has_groups: bool = False


def _list_folder(root: Path) -> _Found:
    names, refused = walk_folder(root)
    files, ignored, _ = _sort_out(root, names)
    # The images of a stack "a" are called "a#0" and so on, which a file must not be called as well.
    paths = {entry.path for entry in files}
    kept: list[FileEntry] = []
    for entry in files:
        heads = (entry.path[:place] for place, char in enumerate(entry.path) if char == "#")
        if "#" in entry.path and any(head in paths for head in heads):
            error = ImageError("unsupported", "is named like an image inside another file; rename it without '#'")
            ignored.append(skipped(entry.path, entry.path, error))
        else:
            kept.append(entry)
    return _Found(kept, ignored + refused)


def _sort_out(root: Path, paths: Sequence[str]) -> _Found:
    """Tell image files from others."""
    files: list[FileEntry] = []
    ignored: list[Skipped] = []
    for path in paths:
        try:
            file_format = format_of_name(path) or _format_inside(root, path)
            if file_format is None:
                raise ImageError("ignored", "is of another kind than images")
            if not is_utf8(path):
                raise ImageError("unsupported", "has a name that is not UTF-8; rename it")
        except ImageError as error:
            ignored.append(skipped(escape_path(path), escape_path(path), error))
        else:
            files.append(FileEntry(path, file_format, None, None))
    return _Found(files, ignored)


def _format_inside(root: Path, path: str) -> str | None:
    """Return "dicom" for a file without a suffix that has the mark of DICOM."""
    if not may_be_dicom(path):
        return None
    with open_inside(root, path) as descriptor:
        try:
            return "dicom" if is_dicom(os.pread(descriptor, _DICOM_MARK_END, 0)) else None
        except OSError as error:
            raise open_error(error) from error


def _list_manifest(root: Path, manifest: Manifest, name: str) -> _Found:
    files: list[FileEntry] = []
    ignored: list[Skipped] = []
    ids: list[str] = []
    for row in manifest.rows:
        path = _normal_path(root, row.path)
        base_id = path if row.id is None else row.id
        ids.append(base_id)
        try:
            file_format = _manifest_format(root, path)
        except ImageError as error:
            ignored.append(skipped(base_id, path, error))
        else:
            files.append(FileEntry(path, file_format, row.id, row.group))
    check_ids(ids, name)
    return _Found(files, ignored, manifest.has_groups)


def _normal_path(root: Path, path: str) -> str:
    """Return a path of a manifest without "." and ".." where it stays under the root, else as it is."""
    relative = os.path.relpath(path, root) if path.startswith("/") else os.path.normpath(path)
    return path if relative.split("/", 1)[0] == ".." else relative


def _manifest_format(root: Path, path: str) -> str:
    if path.startswith("/") or ".." in PurePosixPath(path).parts:
        raise ImageError("outside", "the path leads out of the manifest's folder; copy the file into it")
    if "\0" in path:
        raise ImageError("missing", "no file has a zero byte in its name")
    try:
        real = os.path.realpath(root / path, strict=True)
        mode = Path(real).stat().st_mode
    except OSError as error:
        raise open_error(error) from error
    if not is_under(real, str(root)):
        raise ImageError("outside", "a link leads out of the manifest's folder; copy the file into it")
    if not stat.S_ISREG(mode):
        raise ImageError("unsupported", "is a folder or another thing that is no regular file; name the image file")
    file_format = format_of_name(path) or _format_inside(root, path)
    if file_format is None:
        raise ImageError("unsupported", f"is of no format that is read: {FORMATS_READ}")
    return file_format


def _listing(source: str, root: Path, found: _Found, options: ImageOptions) -> Listing:
    files, ignored, has_groups = found
    if not files:
        raise UsageError(_nothing_found(source, ignored))
    checked: set[str] = set()
    for entry in files:
        if entry.format not in checked:
            require_package(entry.format, entry.path)
            checked.add(entry.format)
    files = _with_groups(files, options, source, has_groups=has_groups)
    files.sort(key=lambda entry: entry.base_id.encode())
    ignored.sort(key=lambda item: (item.id.encode(), item.path.encode()))
    tasks: list[ReadTask] = []
    n_expected = 0
    for index, entry in enumerate(files):
        n_images, ranges = _plan(root, entry, options)
        n_expected += n_images
        tasks.extend(ReadTask(index, start, stop) for start, stop in ranges)
    with_file_groups = options.group_by == "auto" and not has_groups
    return Listing(source, root, tuple(files), tuple(ignored), options, tuple(tasks), n_expected, with_file_groups)


def _with_groups(files: list[FileEntry], options: ImageOptions, source: str, *, has_groups: bool) -> list[FileEntry]:
    if options.group_by == "auto" and has_groups:
        return files
    groups: Sequence[str | None]
    if options.group_by == "none":
        groups = [None] * len(files)
    elif options.group_by == "auto":
        groups = [automatic_group(entry.format, entry.base_id) for entry in files]
    else:
        groups = groups_of_paths((entry.path for entry in files), options.group_by, source)
    return [FileEntry(entry.path, entry.format, entry.id, group) for entry, group in zip(files, groups, strict=True)]


def _plan(root: Path, entry: FileEntry, options: ImageOptions) -> tuple[int, Sequence[tuple[int | None, int | None]]]:
    """Return how many images a file should give, and in which ranges it is read."""
    if entry.format == "nifti":
        return count_slices(options.slices) or 1, [(None, None)]
    if entry.format == "npy":
        try:
            with open_inside(root, entry.path) as descriptor:
                header, _ = npy_header(descriptor, Context(options))
            if header.is_stack:
                return header.n_frames, plan_ranges(header)
        except (ImageError, OSError):
            pass  # reading it again gives the reason, in its place among the others
    return 1, [(None, None)]


def _nothing_found(source: str, ignored: list[Skipped]) -> str:
    others = [item for item in ignored if item.code == "ignored"]
    refused = [item for item in ignored if item.code != "ignored"]
    found: list[str] = []
    if others:
        kinds = Counter(PurePosixPath(item.path).suffix.lower() or "no suffix" for item in others)
        shown = ", ".join(one_line(kind, 20) for kind, _ in kinds.most_common(_KINDS_SHOWN))
        more = ", ..." if len(kinds) > _KINDS_SHOWN else ""
        found.append(f"{len(others):,} file{'s' if len(others) > 1 else ''} of other kinds ({shown}{more})")
    if refused:
        shown = some([item.path for item in refused], 2)
        found.append(f"{len(refused):,} refused or missing ({shown}: {refused[0].reason})")
    what = " and ".join(found) or "it has no files"
    return f"no images in '{one_line(source)}': {what}; formats read: {FORMATS_READ}"
