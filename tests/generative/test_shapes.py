"""Shapes of latents follow from the images; padding is that of MONAI."""

from __future__ import annotations

import numpy as np
import pytest

from deepssim.errors import UsageError
from deepssim.generative.config import UnetConfig, VaeConfig
from deepssim.generative.shapes import LatentShapes, parse_shape, shape_text


def test_the_published_sizes_give_the_published_shapes():
    brain = LatentShapes.of((136, 112), VaeConfig(), UnetConfig().divisor)
    assert (brain.vae, brain.padded) == ((3, 34, 28), (3, 36, 28))
    chest = LatentShapes.of((128, 128), VaeConfig(), UnetConfig().divisor)
    assert chest.vae == chest.padded == (3, 32, 32)
    brain.check("3x36x28", "3x34x28")
    chest.check("3x32x32", " 3 X 32 x 32 ")


def test_wrong_shapes_are_refused_with_the_right_ones():
    shapes = LatentShapes.of((136, 112), VaeConfig(), 4)
    with pytest.raises(UsageError) as caught:
        shapes.check("3x34x28", "3x28x34")
    assert "--latent-shape is 3x34x28: images of 136 x 112 pixels make it 3x36x28" in str(caught.value)
    assert "--vae-space-shape is 3x28x34: images of 136 x 112 pixels make it 3x34x28" in str(caught.value)
    for text in ("3x36", "3x36x28x1", "axbxc", "", "0x36x28", "3x-36x28", "3x36x28\n4", "9999999x1x1"):
        with pytest.raises(UsageError, match="as in 3x36x28"):
            shapes.check(text)


def test_images_that_the_autoencoder_would_cut_are_refused_with_a_size_that_fits():
    with pytest.raises(UsageError, match="multiples of 4: bring them to another size, for example 136 x 112"):
        LatentShapes.of((135, 111), VaeConfig(), 4)


@pytest.mark.parametrize(("rows", "columns", "divisor"), [(34, 28, 4), (33, 27, 4), (7, 8, 8), (1, 1, 1), (5, 9, 16)])
def test_padding_is_that_of_monai_and_is_undone(rows, columns, divisor):
    transforms = pytest.importorskip("monai.transforms")
    latents = np.random.default_rng(0).standard_normal((2, 3, rows, columns)).astype(np.float32)
    shapes = LatentShapes(
        (0, 0), (3, rows, columns), (3, -(-rows // divisor) * divisor, -(-columns // divisor) * divisor)
    )
    padded = shapes.pad(latents)
    assert padded.shape[1:] == shapes.padded
    assert padded.dtype == np.float32
    for one, expected in zip(padded, latents, strict=True):
        np.testing.assert_array_equal(one, np.asarray(transforms.DivisiblePad(k=divisor)(expected)))
    np.testing.assert_array_equal(shapes.unpad(padded), latents)


def test_arrays_of_another_shape_are_refused():
    shapes = LatentShapes.of((16, 16), VaeConfig(), 4)
    for array in (np.zeros((3, 4, 4)), np.zeros((1, 3, 4, 5))):
        with pytest.raises(ValueError, match="is needed"):
            shapes.pad(array)


def test_shapes_are_written_as_they_are_read():
    assert parse_shape(shape_text((3, 36, 28))) == (3, 36, 28)
