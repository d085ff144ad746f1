"""What a graph is fed: the sizes and grey values of the packages whose metrics these are."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from deepssim.image_ops import byte_grey, resize_area
from deepssim.input_rule import InputRule


def adaptive(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """The mean over whole pixels, one output pixel after the other."""

    def window(i: int, n: int, n_out: int) -> slice:
        return slice(math.floor(i * n / n_out), math.ceil((i + 1) * n / n_out))

    (rows, columns), out = image.shape, np.empty((height, width))
    for y in range(height):
        for x in range(width):
            out[y, x] = image[window(y, rows, height), window(x, columns, width)].astype(np.float64).mean()
    return out.astype(np.float32)


@settings(max_examples=40, deadline=None)
@given(*(st.integers(1, 20) for _ in range(4)), st.integers(0, 2**31))
def test_adaptive_takes_means_from_floor_to_ceiling(rows, columns, height, width, seed):
    image = np.random.default_rng(seed).integers(0, 256, (rows, columns)).astype(np.float32)
    found = InputRule(height, width, "adaptive").apply(image)
    np.testing.assert_array_equal(found, adaptive(image, height, width))
    assert found.flags.c_contiguous


@pytest.mark.parametrize("shape", [(136, 112), (256, 256), (288, 288), (300, 517), (1, 1)])
def test_adaptive_is_pytorchs_pooling(shape):
    torch = pytest.importorskip("torch")
    image = np.random.default_rng(0).random(shape, np.float32) * 255
    expected = torch.nn.functional.adaptive_avg_pool2d(torch.from_numpy(image)[None], (288, 288))[0]
    np.testing.assert_allclose(InputRule(288, 288, "adaptive").apply(image), expected, rtol=1e-6)


def test_raw_and_area_is_what_metrics_always_were_fed():
    image = np.random.default_rng(1).random((40, 31), np.float32) * 4095 - 1000
    rule = InputRule(20, 16)
    np.testing.assert_array_equal(rule.apply(image), resize_area(image, 20, 16))
    assert InputRule(40, 31).apply(image) is image


def test_byte_grey_comes_before_the_size():
    image = np.random.default_rng(2).random((40, 31), np.float32) * 4095 - 1000
    np.testing.assert_array_equal(InputRule(20, 16, grey="byte").apply(image), resize_area(byte_grey(image), 20, 16))
    np.testing.assert_array_equal(InputRule(40, 31, grey="byte").apply(image), byte_grey(image))


@pytest.mark.parametrize("size", [(32, 32), (32, 24), (24, 40)])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize("fit", ["shortest", "longest", "squash"])
def test_clip_is_openclips_evaluation_transform(fit, interpolation, size):
    open_clip = pytest.importorskip("open_clip")
    square = size[0] if size[0] == size[1] else size
    transform = open_clip.image_transform(
        square, is_train=False, mean=(0.0,) * 3, std=(1.0,) * 3, resize_mode=fit, interpolation=interpolation,
        fill_color=9,
    )  # fmt: skip
    rule = InputRule(*size, "clip", "byte", fit, interpolation, 9)
    rng = np.random.default_rng(3)
    for shape in [(32, 32), (50, 41), (41, 50), (20, 23), (33, 90), (7, 31), (31, 7), (64, 48), (24, 40), (90, 3)]:
        image = rng.integers(0, 256, shape).astype(np.uint8)
        expected = transform(Image.fromarray(image).convert("RGB"))
        assert expected.shape == (3, *size)
        found = rule.apply(image.astype(np.float32))
        np.testing.assert_allclose(found, expected[1] * 255, atol=1e-4, err_msg=str(shape))


def test_clip_takes_a_line_without_taking_the_memory_of_a_plane():
    line = np.random.default_rng(4).random((1, 60_000), np.float32)
    for fit in ("shortest", "longest", "squash"):
        assert InputRule(224, 224, "clip", "byte", fit).apply(line).shape == (224, 224)


@pytest.mark.parametrize(
    "rule",
    [
        InputRule(136, 112),
        InputRule(8, 9, "adaptive", "byte"),
        InputRule(7, 5, "clip", "byte", "longest", "bilinear", 3),
    ],
)
def test_a_rule_survives_its_metadata(rule):
    assert InputRule.from_metadata(rule.as_metadata()) == rule


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"resize": "nearest"}, "'nearest': known are area, adaptive, clip"),
        ({"grey": "half"}, "'half': known are raw, byte"),
        ({"resize": "clip"}, "its input.grey is byte"),
        ({"height": 0}, "0 x 5 pixels"),
        ({"fill": 256}, "from 0 to 255"),
        ({"fit": "crop"}, "known are shortest, longest, squash"),
        ({"interpolation": "random"}, "known are bicubic, bilinear"),
    ],
)
def test_a_rule_that_cannot_be_names_what_can(change, says):
    with pytest.raises(ValueError, match=says):
        InputRule(**{"height": 4, "width": 5, **change})
