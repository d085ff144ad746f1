"""What a generative model is trained on: records of a CSV or of a folder, and their images from 0 to 1."""

from __future__ import annotations

from pathlib import Path

from deepssim.errors import UsageError
from deepssim.generative.data.dataset_csv import read_csv
from deepssim.generative.data.dataset_folder import read_folder
from deepssim.generative.data.load import load_images
from deepssim.generative.data.record import SPLITS, Dataset, Record
from deepssim.images import ImageOptions

__all__ = ["SPLITS", "Dataset", "Record", "load_images", "read_dataset"]


def read_dataset(
    csv: str | Path | None = None,
    *,
    images: str | Path | None = None,
    group_by: str = "auto",
    valid_part: float = 0.15,
    seed: int = 0,
    slices: str = "middle",
    axis: str = "axial",
    with_splits: bool = True,
    with_images: bool = True,
) -> Dataset:
    r"""Read which images there are, what they are for, and what is said of them.

    A CSV has the columns ``image_path``, ``image_uid`` and ``split`` (``train``, ``valid``; rows of others are kept and
    not trained on), and if wanted ``group`` or ``patient``, ``caption_emb_path``, ``caption`` and any variables. Paths
    are absolute, or lie beside the CSV, or under the working folder. A uid that comes again is left out, as in the
    reference implementation.

    Images of a folder have no variables; their people are divided into ``train`` and ``valid``.

    Args:
        csv: The CSV.
        images: Instead: a folder, or what else `deepssim.images.list_images` takes.
        group_by: Who is who, see `deepssim.images.ImageOptions`; ``"auto"`` of a CSV: its column.
        valid_part: Part of the people of a folder who get the split ``valid``.
        seed: Of that draw.
        slices: Of volumes of a folder, see `deepssim.images.ImageOptions`.
        axis: Likewise.
        with_splits: Whether a CSV needs rows of both splits; for sampling it needs none.
        with_images: Whether the files of images must be there.

    Raises:
        UsageError: Neither or both were given, or what was given cannot be used; all faults are in one message, the
            first ones with their line and column.

    Example:
        >>> import tempfile
        >>> import numpy as np
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     np.save(Path(folder, "scan.npy"), np.eye(4))
        ...     file = Path(folder, "data.csv")
        ...     _ = file.write_text("image_path,image_uid,split,age\nscan.npy,p1,train,63\nscan.npy,p2,valid,58\n")
        ...     data = read_dataset(file)
        >>> data.records[0].uid, data.records[0].variables
        ('p1', {'age': '63'})
    """
    if (csv is None) == (images is None):
        raise UsageError("give either a CSV of the data set or a folder of images, and not both")
    options = ImageOptions(slices=slices, axis=axis, group_by=group_by)
    if csv is not None:
        return read_csv(Path(csv), group_by, with_splits=with_splits, with_images=with_images)
    assert images is not None
    return read_folder(Path(images), options, valid_part, seed)
