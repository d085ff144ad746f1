"""Which file is of which format, and which package reads it."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import PurePosixPath
from types import MappingProxyType

from deepssim.errors import MissingDependencyError
from deepssim.images.text import one_line

READER_VERSION: str = "1"
"""Changes whenever the same file can give other pixels than before; embeddings of another version are
stale."""

FORMATS_READ = "PNG, JPEG, TIFF, BMP, .npy, .npz, NIfTI (.nii, .nii.gz), DICOM (.dcm, .dicom, .ima)"
"""The formats for a message."""

_FORMAT_OF_SUFFIX: Mapping[str, str] = MappingProxyType(
    {
        ".png": "raster",
        ".jpg": "raster",
        ".jpeg": "raster",
        ".tif": "raster",
        ".tiff": "raster",
        ".bmp": "raster",
        ".npy": "npy",
        ".npz": "npz",
        ".nii": "nifti",
        ".dcm": "dicom",
        ".dicom": "dicom",
        ".ima": "dicom",
    }
)
# Exports of DICOM archives are often named by a UID, whose last number then looks like a suffix.
_NO_REAL_SUFFIX = re.compile(r"\.?\d*", re.ASCII)

_NEEDED_PACKAGE = {
    "raster": ("PIL", "Pillow", "pip install pillow"),
    "nifti": ("nibabel", "nibabel", "pip install nibabel (the extra medical of deepssim has it)"),
    "dicom": ("pydicom", "pydicom", "pip install pydicom (the extra medical of deepssim has it)"),
}
_DECODERS = ("numpy", "pillow", "nibabel", "pydicom")


def format_of_name(path: str) -> str | None:
    """Return the format that the name of a file says, or None.

    Args:
        path: POSIX path; only the end of its last part counts, in any case.

    Returns:
        "raster", "npy", "npz", "nifti", "dicom" or None.

    Example:
        >>> format_of_name("a/T1.NII.GZ"), format_of_name("notes.txt")
        ('nifti', None)
    """
    if path.lower().endswith(".nii.gz"):
        return "nifti"
    return _FORMAT_OF_SUFFIX.get(PurePosixPath(path).suffix.lower())


def may_be_dicom(path: str) -> bool:
    """Say whether a file without a known suffix is worth a look for the DICOM mark.

    Args:
        path: POSIX path.

    Example:
        >>> may_be_dicom("IM0001"), may_be_dicom("1.2.840.113619.2"), may_be_dicom("notes.txt")
        (True, True, False)
    """
    return _NO_REAL_SUFFIX.fullmatch(PurePosixPath(path).suffix) is not None


def require_package(file_format: str, path: str) -> None:
    """Check that the package that reads a format is installed, without importing it.

    Args:
        file_format: A format of a listing.
        path: The file that needs it, for the message.

    Raises:
        MissingDependencyError: It is not installed; the message says how to install it.
    """
    if file_format not in _NEEDED_PACKAGE:
        return
    module, name, command = _NEEDED_PACKAGE[file_format]
    if importlib.util.find_spec(module) is None:
        raise MissingDependencyError(f"'{one_line(path)}' is read with {name}, which is not installed: {command}")


def decoder_versions() -> dict[str, str]:
    """Return the versions of what decodes images, for the record of a run.

    JPEG decoders differ by one grey level between libraries and versions, which changes embeddings.

    Returns:
        Names and versions of the packages that are installed, and of the libraries that Pillow was built
        with.

    Example:
        >>> "numpy" in decoder_versions()
        True
    """
    found: dict[str, str] = {}
    for name in _DECODERS:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    if "pillow" in found:
        from PIL import features

        for feature in ("jpg", "libjpeg_turbo", "zlib", "libtiff", "jpg_2000"):
            number = features.version(feature)
            if number is not None:
                found[f"pillow:{feature}"] = str(number)
    return found
