"""Shapes of latents: what the autoencoder makes of an image, and what the U-Net sees of that."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from deepssim.errors import UsageError
from deepssim.generative.config import VaeConfig
from deepssim.images.text import one_line

__all__ = ["LatentShapes", "parse_shape", "shape_text"]

Shape = tuple[int, int, int]
Kind = TypeVar("Kind", bound=np.generic)

_SHAPE = re.compile(r"\s*(\d{1,6})\s*[xX,]\s*(\d{1,6})\s*[xX,]\s*(\d{1,6})\s*", re.ASCII)


@dataclass(frozen=True, slots=True)
class LatentShapes:
    """The shapes that belong to images of one size.

    Attributes:
        image: Rows and columns of the images, in pixels.
        vae: Channels, rows and columns of a latent of the autoencoder.
        padded: The same with zeros around it, so that rows and columns divide by what the U-Net needs.
    """

    image: tuple[int, int]
    vae: Shape
    padded: Shape

    @classmethod
    def of(cls, image: tuple[int, int], vae: VaeConfig, divisor: int) -> Self:
        """Derive all shapes from the size of the images.

        Args:
            image: Rows and columns, in pixels.
            vae: The autoencoder.
            divisor: What rows and columns of a padded latent divide by: `UnetConfig.divisor`.

        Raises:
            UsageError: The autoencoder would not give back images of this size.

        Example:
            >>> LatentShapes.of((136, 112), VaeConfig(), 4)
            LatentShapes(image=(136, 112), vae=(3, 34, 28), padded=(3, 36, 28))
        """
        rows, columns = image
        if min(image) < 1 or rows % vae.factor or columns % vae.factor:
            fitting = " x ".join(str(max(1, -(-side // vae.factor)) * vae.factor) for side in image)
            raise UsageError(
                f"images of {rows} x {columns} pixels do not fit an autoencoder of {len(vae.channels)} levels, which "
                f"needs rows and columns that are multiples of {vae.factor}: bring them to another size, for example "
                f"{fitting}"
            )
        height, width = rows // vae.factor, columns // vae.factor
        padded = (vae.latent_channels, -(-height // divisor) * divisor, -(-width // divisor) * divisor)
        return cls((rows, columns), (vae.latent_channels, height, width), padded)

    def check(self, latent_shape: str | None = None, vae_space_shape: str | None = None) -> None:
        """Check shapes that a user gave, which must be the derived ones.

        Args:
            latent_shape: Of the padded latent, as ``"3x36x28"``; None: not given.
            vae_space_shape: Of the autoencoder's latent; None: not given.

        Raises:
            UsageError: One is another; the message says the right one.

        Example:
            >>> shapes = LatentShapes.of((136, 112), VaeConfig(), 4)
            >>> shapes.check("3x36x28", "3x34x28")
        """
        faults = []
        for flag, given, right in (
            ("--latent-shape", latent_shape, self.padded),
            ("--vae-space-shape", vae_space_shape, self.vae),
        ):
            if given is not None and parse_shape(given, flag) != right:
                faults.append(
                    f"{flag} is {one_line(given, 40)}: images of {self.image[0]} x {self.image[1]} pixels make it "
                    f"{shape_text(right)}"
                )
        if faults:
            raise UsageError(f"{'; '.join(faults)} (both can be left out)")

    @property
    def padding(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """Rows of zeros before and after a latent, then columns; an odd one goes after it."""
        missing = [big - small for big, small in zip(self.padded[1:], self.vae[1:], strict=True)]
        rows, columns = ((part // 2, part - part // 2) for part in missing)
        return rows, columns

    def pad(self, latents: NDArray[Kind]) -> NDArray[Kind]:
        """Put zeros around latents, as MONAI's ``DivisiblePad`` does.

        Args:
            latents: ``(n, c, h, w)`` of the autoencoder.

        Returns:
            ``(n, c, H, W)``, contiguous; the same array where nothing is to do.

        Raises:
            ValueError: They have another shape.

        Example:
            >>> LatentShapes((4, 8), (1, 1, 2), (1, 4, 4)).pad(np.ones((1, 1, 1, 2)))[0, 0]
            array([[0., 0., 0., 0.],
                   [0., 1., 1., 0.],
                   [0., 0., 0., 0.],
                   [0., 0., 0., 0.]])
        """
        _check_shape(latents, self.vae)
        if self.vae == self.padded:
            return latents
        return np.pad(latents, ((0, 0), (0, 0), *self.padding))

    def unpad(self, latents: NDArray[Kind]) -> NDArray[Kind]:
        """Take away what `pad` put around latents.

        Args:
            latents: ``(n, c, H, W)``.

        Returns:
            ``(n, c, h, w)``, contiguous.

        Raises:
            ValueError: They have another shape.

        Example:
            >>> shapes = LatentShapes((4, 8), (1, 1, 2), (1, 4, 4))
            >>> shapes.unpad(shapes.pad(np.ones((1, 1, 1, 2))))
            array([[[[1., 1.]]]])
        """
        _check_shape(latents, self.padded)
        (top, _), (left, _) = self.padding
        return np.ascontiguousarray(latents[:, :, top : top + self.vae[1], left : left + self.vae[2]])

    def as_dict(self) -> dict[str, Any]:
        """Return the shapes as JSON has them.

        Example:
            >>> LatentShapes((4, 8), (1, 1, 2), (1, 4, 4)).as_dict()
            {'image': [4, 8], 'vae': [1, 1, 2], 'padded': [1, 4, 4]}
        """
        return {"image": list(self.image), "vae": list(self.vae), "padded": list(self.padded)}


def parse_shape(text: str, flag: str = "the shape") -> Shape:
    """Read a shape of a latent.

    Args:
        text: Channels, rows and columns, as ``"3x36x28"``.
        flag: What it was given as, for the message.

    Raises:
        UsageError: It is none.

    Example:
        >>> parse_shape("3x36x28")
        (3, 36, 28)
    """
    match = _SHAPE.fullmatch(text)
    if match is None or not all(int(part) for part in match.groups()):
        raise UsageError(
            f"{flag} is '{one_line(text, 40)}': give channels, rows and columns with an x between them, as in 3x36x28"
        )
    channels, rows, columns = (int(part) for part in match.groups())
    return channels, rows, columns


def shape_text(shape: tuple[int, ...]) -> str:
    """Write a shape as `parse_shape` reads it.

    Example:
        >>> shape_text((3, 36, 28))
        '3x36x28'
    """
    return "x".join(map(str, shape))


def _check_shape(latents: NDArray[Any], expected: Shape) -> None:
    if latents.ndim != 4 or latents.shape[1:] != expected:
        raise ValueError(f"latents of shape {latents.shape}: (n, {', '.join(map(str, expected))}) is needed")
