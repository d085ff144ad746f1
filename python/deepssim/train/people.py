"""Who is trained on, and who selects the weights: people are divided, never their images."""

from __future__ import annotations

import numpy as np

from deepssim.errors import UsageError
from deepssim.images import ImageOptions, list_images
from deepssim.train.anchors import Anchors, read_anchors
from deepssim.train.checks import check_people
from deepssim.train.options import GROUP_BY, VALID_PART, PeopleOptions

__all__ = ["read_people"]


def read_people(options: PeopleOptions, size: tuple[int, int], *, with_alike: bool = True) -> tuple[Anchors, Anchors]:
    """Read the images of those who are trained on and of those who select the weights.

    Args:
        options: Where they are, and who is who.
        size: Rows and columns that images are brought to.
        with_alike: Whether it is found which images of other people look alike; see `Anchors`.

    Raises:
        UsageError: Too few people, images without one, or the same people or images on both sides.
    """
    reading = ImageOptions(group_by=options.group_by or GROUP_BY)
    anchors = read_anchors(list_images(options.images, reading), size, with_alike=with_alike)
    if options.validation_images is not None:
        selecting = read_anchors(list_images(options.validation_images, reading), size, with_alike=with_alike)
        check_people(anchors, selecting)
        return anchors, selecting
    people = np.random.default_rng([options.seed, 10]).permutation(int(anchors.people.max()) + 1)
    part = VALID_PART if options.valid_part is None else options.valid_part
    n_valid = round(part * len(people))
    if not 2 <= n_valid <= len(people) - 2:
        raise UsageError(
            f"{part:g} of {len(people)} people leave {n_valid} to select the weights and {len(people) - n_valid} to "
            "train on, and two of each are needed at least: give another --valid-part, or other people with "
            "--validation-images-dir"
        )
    is_valid = np.isin(anchors.people, people[:n_valid])
    return anchors.subset(~is_valid), anchors.subset(is_valid)
