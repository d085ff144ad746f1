"""Which patient an image belongs to."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import PurePosixPath

from deepssim.errors import UsageError
from deepssim.images.text import one_line, some

_REGEX = "regex:"


def check_group_by(group_by: str) -> None:
    """Check that a rule for groups is one.

    Args:
        group_by: "auto", "none", "parent" or "regex:PATTERN".

    Raises:
        UsageError: It is none of these, or the pattern is not a regular expression.
    """
    if not isinstance(group_by, str):
        raise UsageError(f"group_by is {group_by!r}: use 'auto', 'none', 'parent' or 'regex:PATTERN'")
    if group_by in {"auto", "none", "parent"}:
        return
    pattern = group_by.removeprefix(_REGEX)
    if pattern == group_by or not pattern:
        raise UsageError(f"group_by is '{one_line(group_by, 60)}': use 'auto', 'none', 'parent' or 'regex:PATTERN'")
    try:
        re.compile(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        raise UsageError(
            f"group_by has the pattern '{one_line(pattern, 60)}', which is no regular expression: "
            f"{one_line(str(error), 80)}"
        ) from error


def volume_name(base_id: str) -> str:
    """Return the id of a NIfTI file without its ``.nii`` or ``.nii.gz``: one volume is one group.

    Args:
        base_id: Path or manifest id of the file.

    Example:
        >>> volume_name("site/sub-01_T1w.nii.gz")
        'site/sub-01_T1w'
    """
    lower = base_id.lower()
    for suffix in (".nii.gz", ".nii"):
        if lower.endswith(suffix) and len(lower) > len(suffix):
            return base_id[: -len(suffix)]
    return base_id


def automatic_group(file_format: str, base_id: str) -> str | None:
    """Return the group that the rule "auto" gives without opening the file.

    Args:
        file_format: Format of the file.
        base_id: Path or manifest id of the file.

    Returns:
        The volume for NIfTI; None for DICOM, which names its patient itself, and for all others.
    """
    return volume_name(base_id) if file_format == "nifti" else None


def groups_of_paths(paths: Iterable[str], group_by: str, where: str) -> list[str]:
    r"""Find the groups of files by "parent" or "regex:PATTERN".

    "parent" gives the relative path of the folder, so that folders with one name in two branches stay two
    groups. A pattern is searched in the relative path; the group is its named group ``group``, else its first
    group, else the whole match.

    Args:
        paths: Relative POSIX paths.
        group_by: "parent" or "regex:PATTERN".
        where: What the user named, for the message.

    Returns:
        One group for each path.

    Raises:
        UsageError: Files have no group under this rule.

    Example:
        >>> groups_of_paths(["a/sub-01_x.png", "b/sub-02.png"], r"regex:sub-\d+", "images")
        ['sub-01', 'sub-02']
    """
    paths = list(paths)
    if group_by == "parent":
        parents = [str(PurePosixPath(path).parent) for path in paths]
        bare = [path for path, parent in zip(paths, parents, strict=True) if parent == "."]
        if bare:
            raise UsageError(
                f"group_by is 'parent', and {len(bare):,} files have no parent folder under "
                f"'{one_line(where)}': {some(bare)}; use one folder a patient, or group_by 'regex:PATTERN'"
            )
        return parents
    pattern = re.compile(group_by.removeprefix(_REGEX))
    found = [_matched(pattern, path) for path in paths]
    missed = [path for path, group in zip(paths, found, strict=True) if not group]
    if missed:
        raise UsageError(
            f"group_by has the pattern '{one_line(pattern.pattern, 60)}', which finds no group in "
            f"{len(missed):,} of {len(paths):,} paths under '{one_line(where)}': {some(missed)}"
        )
    return [group for group in found if group]


def _matched(pattern: re.Pattern[str], path: str) -> str | None:
    match = pattern.search(path)
    if match is None:
        return None
    if "group" in pattern.groupindex:
        return match["group"]
    return match[1] if pattern.groups else match[0]
