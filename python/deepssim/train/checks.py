"""What cannot be asked of a run, said before anything is read, written or downloaded."""

from __future__ import annotations

from deepssim.errors import UsageError
from deepssim.images.text import some
from deepssim.train.anchors import Anchors
from deepssim.train.groups import GROUP
from deepssim.train.options import PeopleOptions, RunOptions, TrainOptions
from deepssim.train.recipes import Recipe

__all__ = ["MOST_SEED", "check_options", "check_people", "check_seed", "check_sides", "check_size"]

# The draws of every step and process have a 64-bit seed of their own; see `deepssim.train.loop`.
MOST_SEED = 2**31 - 1
# Groups of a step come in fours.
_STEP_MULTIPLE = 4 * GROUP


def check_options(options: TrainOptions, recipe: Recipe) -> None:
    """Check what was asked, and that nothing of it would be ignored.

    Args:
        options: What was asked.
        recipe: With it.

    Raises:
        UsageError: Something cannot be.
    """
    check_seed(options)
    check_size(recipe.size, recipe.least_side, f"the recipe {recipe.name}")
    if not recipe.needs_imagenet and options.weights == "imagenet":
        raise UsageError(f"the recipe {recipe.name} has no ImageNet weights: leave --weights out, or name an encoder's")
    if recipe.goes_on and options.weights in (None, "none"):
        raise UsageError(f"the recipe {recipe.name} goes on from an encoder: give --weights runs/NAME/last.safetensors")
    if options.pairs is None:
        _check_made(options, recipe)
    else:
        _check_listed(options, recipe)


def _check_listed(options: TrainOptions, recipe: Recipe) -> None:
    asked = {
        "--steps": options.steps,
        "--validation-images-dir": options.validation_images,
        "--group-by": options.group_by,
        "--valid-part": options.valid_part,
    }
    for flag, value in asked.items():
        if value is not None:
            instead = "give --epochs" if flag == "--steps" else "the list's column split divides the pairs"
            raise UsageError(f"{flag} is for partners that are made, and --dataset-csv lists pairs: {instead}")
    if not recipe.epochs:
        raise UsageError(f"the recipe {recipe.name} counts epochs of a list of pairs: give --epochs")


def _check_made(options: TrainOptions, recipe: Recipe) -> None:
    if not recipe.steps:
        raise UsageError(f"the recipe {recipe.name} learns from a list of pairs: give --dataset-csv")
    if options.epochs is not None:
        raise UsageError("--epochs counts passes over a list of pairs: give --dataset-csv, or --steps instead")
    if recipe.batch_size % _STEP_MULTIPLE:
        raise UsageError(
            f"--batch-size is {recipe.batch_size}: of made partners it is a multiple of {_STEP_MULTIPLE} images"
        )
    check_sides(options)


def check_seed(options: RunOptions) -> None:
    """Check that the seed is one.

    Raises:
        UsageError: It is not.
    """
    if not 0 <= options.seed <= MOST_SEED:
        raise UsageError(f"--seed is {options.seed}: it must be 0 to {MOST_SEED}")


def check_size(size: tuple[int, int], least: int, what: str) -> None:
    """Check the rows and columns of the images.

    Args:
        size: Them.
        least: Fewest of both.
        what: Is trained, for the error.

    Raises:
        UsageError: They are too few.
    """
    if min(size) < least:
        raise UsageError(f"--size {size[0]}x{size[1]} is too small for {what}: {least}x{least} is the smallest")


def check_sides(options: PeopleOptions) -> None:
    """Check that there is one way to say who selects the weights.

    Raises:
        UsageError: There are two, or both sides are one folder.
    """
    if options.validation_images is None:
        return
    if options.valid_part is not None:
        raise UsageError("--valid-part is for the people of one folder: leave it or --validation-images-dir out")
    if options.validation_images.resolve() == options.images.resolve():
        raise UsageError(
            "--validation-images-dir is the folder that is trained on: name one of other people, or leave it out and "
            "a part of the people selects the weights"
        )


def check_people(training: Anchors, selecting: Anchors) -> None:
    """Check that whoever selects the weights is not trained on.

    Raises:
        UsageError: Both have images of the same people, or the same images.
    """
    shared = sorted({*training.names} & {*selecting.names})
    if shared:
        raise UsageError(
            f"{len(shared):,} people are both trained on and in --validation-images-dir ({some(shared, 3)}): move "
            "them to one side, or rename those who only share a name"
        )
    known = {image.tobytes(): name for image, name in zip(training.images, training.ids, strict=True)}
    same = [
        f"{known[image.tobytes()]} = {name}"
        for image, name in zip(selecting.images, selecting.ids, strict=True)
        if image.tobytes() in known
    ]
    if same:
        raise UsageError(
            f"{len(same):,} images are both trained on and in --validation-images-dir ({some(same, 3)}): take them out "
            "of one side"
        )
