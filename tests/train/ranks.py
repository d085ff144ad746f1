"""What each of two processes does for `test_processes.py`: ``python ranks.py PEOPLE OUT``, started by torchrun."""

from __future__ import annotations

import functools
import json
import sys
from pathlib import Path

import torch
from accelerate import Accelerator

from deepssim.errors import UsageError
from deepssim.train import loop, recipes, run
from deepssim.train.augment import Augmentation
from deepssim.train.groups import GroupOptions
from deepssim.train.options import TrainOptions
from deepssim.train.recipes import Recipe
from deepssim.train.run import train
from deepssim.train.validation import RetrievalValidation

TINY = Recipe(
    "tiny", "lite", (34, 28), Augmentation(affine=0.5, angle_rad=0.05), {"widths": (8, 8), "depths": (1,)},
    steps=6, batch_size=20, learning_rate=4e-3, even_bins=True, contrast=0.02, average=0.9, dropout=0.1,
)  # fmt: skip


def main(people: Path, out: Path) -> None:
    torch.set_num_threads(1)
    recipes.RECIPES["tiny"] = TINY
    run.GroupOptions = functools.partial(GroupOptions, block_groups=8)  # quick to make
    end, Accelerator.end_training = Accelerator.end_training, lambda _: None  # it would end the processes' group
    accelerator = Accelerator(cpu=True)
    rank = accelerator.process_index

    def options(folder: str, **changes: object) -> TrainOptions:
        base = {"recipe": "tiny", "images": people, "out": out / folder, "group_by": "parent", "dim": 8,
                "device": "cpu", "workers": 0, "validate_every": 3, "save_every": 2, "valid_part": 0.3}  # fmt: skip
        return TrainOptions(**{**base, **changes})  # type: ignore[arg-type]

    said = {"rank": rank, "n_processes": accelerator.num_processes}
    said["main"] = train(options("whole")).is_main_process

    update = loop._State.after_update

    def killed(state):
        if state.step == 4:  # the state is of step 4, the last look at step 3
            raise KeyboardInterrupt
        update(state)

    loop._State.after_update = killed
    try:
        train(options("cut"))
    except KeyboardInterrupt:
        said["was_killed"] = True
    loop._State.after_update = update
    said["best"] = dict(train(options("cut")).best)

    try:
        train(options("cut", seed=1))
    except Exception as error:
        said["other_settings"] = [type(error).__name__, str(error)]

    check = run.check_options

    def fails(*_):
        if rank == 1:
            raise UsageError("no such thing")

    run.check_options = fails
    try:
        train(options("fails"))
    except Exception as error:
        said["fails_on_one"] = [type(error).__name__, str(error)]
    run.check_options = check

    def worse(*_):
        assert rank == 0
        return {"mae": 0.5, "selection": 1.0}

    RetrievalValidation.measure = worse
    said["tired"] = train(options("tired", validate_every=1, patience=2)).best["step"]
    (out / f"rank-{rank}.json").write_text(json.dumps(said))
    accelerator.wait_for_everyone()  # one that leaves while the other is at work can abort in its last breath
    end(accelerator)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
