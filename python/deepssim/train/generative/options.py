"""What the trainings of both networks of a latent diffusion model are asked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from deepssim.generative.data.record import Dataset
from deepssim.generative.data.records import read_dataset
from deepssim.train.options import RunOptions

__all__ = ["GenerativeOptions"]


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerativeOptions(RunOptions):
    """What a training of a generative model can be asked of its data.

    Attributes:
        config: Name of a configuration of the package, or a TOML file.
        dataset: CSV of the images; see `deepssim.generative.data.records.read_dataset`.
        images: Folder of images, instead of a CSV.
        group_by: Who is who in the folder.
        valid_part: Part of its people who select the weights.
        size: Rows and columns that images are brought to; None also: those that they have.
        transpose: Whether images are seen with rows and columns exchanged, as published weights saw them.
    """

    config: str = "paper-brain"
    dataset: Path | None = None
    images: Path | None = None
    group_by: str = "auto"
    valid_part: float = 0.15
    size: tuple[int, int] | None = None
    transpose: bool = False

    def read(self, *, with_splits: bool = True) -> Dataset:
        """Read the data set; see `deepssim.generative.data.records.read_dataset`.

        Raises:
            UsageError: It cannot be read.
        """
        return read_dataset(
            self.dataset, images=self.images, group_by=self.group_by, valid_part=self.valid_part, seed=self.seed,
            with_splits=with_splits,
        )  # fmt: skip
