"""Graded partners: what each kind is, that they are images, and that likeness falls from grade to grade."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deepssim.errors import UsageError
from deepssim.image_ops import ssim
from deepssim.partners import GRADES, KINDS, Grade, make_partner
from deepssim.perturb import degrade, near_copy
from deepssim.phantom import make_patient, render


@pytest.fixture(scope="module")
def heads():
    return [render(make_patient(seed), size=(68, 56), noise_seed=seed) for seed in range(6)]


def likeness(a, b):
    return ssim(a, b, data_range=None, with_z_score=True)


def rng(seed=0):
    return np.random.default_rng(seed)


def test_an_identity_has_the_bits_of_its_image_and_is_another_array(heads):
    partner = make_partner(heads[0], "identity", rng())
    np.testing.assert_array_equal(partner.image, heads[0])
    assert not np.shares_memory(partner.image, heads[0])
    assert (partner.kind, partner.amplitude) == ("identity", 0.0)


def test_artefacts_are_those_of_degrade(heads):
    partner = make_partner(heads[0], "artefacts", rng(3), strength=0.7)
    np.testing.assert_array_equal(partner.image, degrade(heads[0], rng(3), strength=0.7))
    assert partner.amplitude == 0.0


def test_a_deformed_one_is_a_near_copy_of_its_amplitude(heads):
    generator = rng(4)
    partner = make_partner(heads[0], "deformed", generator, amplitude_px=(2, 8), n_bumps=(2, 2))
    again = rng(4)
    again.uniform(0, 1)
    bumps = (0.7 * partner.amplitude, partner.amplitude)
    np.testing.assert_array_equal(
        partner.image, near_copy(heads[0], again, amplitude_px=bumps, n_bumps=(2, 2), strength=1.0)
    )


@pytest.mark.parametrize("kind", ["same", "other"])
def test_a_partner_of_another_image_is_that_image_with_artefacts(heads, kind):
    partner = make_partner(heads[0], kind, rng(5), other=heads[1])
    np.testing.assert_array_equal(partner.image, degrade(heads[1], rng(5)))
    with pytest.raises(UsageError, match="give it as other"):
        make_partner(heads[0], kind, rng())


@settings(max_examples=40, deadline=None)
@given(
    st.integers(7, 60),
    st.integers(7, 60),
    st.sampled_from(KINDS),
    st.integers(0, 2**32 - 1),
    st.floats(0.1, 5),
    st.floats(1, 10),
    st.floats(0, 2),
)
def test_partners_are_images_that_the_generator_decides(rows, columns, kind, seed, low, factor, strength):
    image = rng(seed).random((rows, columns), np.float32)
    before = image.copy()
    bounds = (low, low * factor)
    made = [
        make_partner(image, kind, rng(seed), other=image[::-1], amplitude_px=bounds, strength=strength)
        for _ in range(2)
    ]
    np.testing.assert_array_equal(image, before)
    np.testing.assert_array_equal(made[0].image, made[1].image)
    assert made[0].image.shape == image.shape
    assert made[0].image.dtype == np.float32
    assert 0.0 <= made[0].image.min() <= made[0].image.max() <= 1.0
    assert bounds[0] <= made[0].amplitude <= bounds[1] if kind == "deformed" else made[0].amplitude == 0.0


def test_amplitudes_are_log_uniform():
    image = rng().random((16, 16), np.float32)
    generator = rng(1)
    drawn = [make_partner(image, "deformed", generator, n_bumps=(0, 0)).amplitude for _ in range(400)]
    parts = np.histogram(np.log(drawn), bins=4, range=(0.0, np.log(14.0)))[0]
    assert parts.sum() == 400
    assert parts.min() > 70


def test_the_larger_the_displacement_the_less_alike(heads):
    means = []
    for bounds in ((1, 2), (4, 5), (12, 14)):
        generator = rng(2)
        means.append(
            np.mean([
                likeness(head, make_partner(head, "deformed", generator, amplitude_px=bounds, strength=0).image)
                for head in heads
                for _ in range(4)
            ])
        )  # fmt: skip
    assert means[0] > means[1] + 0.02
    assert means[1] > means[2] + 0.02


def test_grades_go_from_a_twin_to_far_away(heads):
    generator = rng(6)
    means = [
        np.mean([likeness(h, grade.make(h, generator).image) for h in heads for _ in range(3)]) for grade in GRADES
    ]
    assert GRADES[0].kind == "identity"
    assert means[0] == 1.0
    assert means[1] > means[2] > means[3]
    assert means[1] > 0.95
    assert min(means) == means[-1] < 0.7
    assert {grade.kind for grade in GRADES} == {"identity", "artefacts", "deformed"}


def test_a_grade_draws_its_strength(heads):
    values = [Grade("artefacts", strength=(0, 1)).make(heads[0], rng(seed)).image for seed in range(2)]
    assert not np.array_equal(values[0], values[1])
    np.testing.assert_array_equal(Grade("artefacts", strength=(0, 0)).make(heads[0], rng()).image, heads[0])


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"kind": "twin"}, "unknown kind 'twin'; choose identity, artefacts, deformed, same, other"),
        ({"amplitude_px": (0, 3)}, "both above 0"),
        ({"amplitude_px": (3, 1)}, "smallest, largest"),
        ({"amplitude_px": (1, np.inf)}, "smallest, largest"),
        ({"image": np.zeros((9, 9), np.uint8)}, "scale it to"),
        ({"image": np.full((9, 9), np.nan, np.float32)}, "scale them to"),
        ({"image": np.zeros((2, 9, 9), np.float32)}, "one grey image"),
        ({"strength": -1.0}, "0 or more"),
    ],
)
def test_what_cannot_be_made_is_said_in_one_line(changes, says):
    arguments = {"image": np.zeros((9, 9), np.float32), "kind": "deformed", **changes}
    image, kind = arguments.pop("image"), arguments.pop("kind")
    with pytest.raises(UsageError, match=says) as caught:
        make_partner(image, kind, rng(), **arguments)
    assert "\n" not in str(caught.value)
