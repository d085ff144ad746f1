"""What must hold for phantoms: determinism, and anatomy whose thumbnails tell patients apart."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from numpy.typing import NDArray

from deepssim.errors import UsageError
from deepssim.perturb import degrade, near_copy
from deepssim.phantom import Patient, make_cohort, make_patient, render

Image = NDArray[np.float32]


def box_weights(n: int, m: int) -> NDArray[np.float64]:
    """Return the matrix that averages n pixels into m cells, sharing a pixel by the part that it covers."""
    edges = np.arange(m + 1) * n / m
    low = np.maximum(edges[:-1, None], np.arange(n)[None, :])
    high = np.minimum(edges[1:, None], np.arange(1, n + 1)[None, :])
    return np.clip(high - low, 0.0, None) * m / n


def thumbnails(images: list[Image]) -> NDArray[np.float64]:
    """Average images to 32 x 32, then to mean 0 and norm 1: a product is a correlation."""
    cells = box_weights(images[0].shape[0], 32) @ np.stack(images) @ box_weights(images[0].shape[1], 32).T
    flat = cells.reshape(len(images), -1)
    flat = flat - flat.mean(axis=1, keepdims=True)
    return flat / np.linalg.norm(flat, axis=1, keepdims=True)


def similarity(a: Image, b: Image) -> float:
    first, second = thumbnails([a, b])
    return float(first @ second)


def test_same_seed_same_patient_and_same_bits() -> None:
    patient = make_patient(5)
    assert patient == make_patient(5)
    assert patient != make_patient(6)
    first = render(patient, level=0.3, noise_seed=1)
    np.testing.assert_array_equal(first, render(make_patient(5), level=0.3, noise_seed=1))
    assert not np.array_equal(first, render(patient, level=0.3, noise_seed=2))


def test_drawing_leaves_the_global_generator_alone() -> None:
    before = np.random.get_state()  # noqa: NPY002 - the state under test
    list(make_cohort(1, 2, seed=0))
    after = np.random.get_state()  # noqa: NPY002 - the state under test
    assert all(np.array_equal(x, y) for x, y in zip(before, after, strict=True))


@pytest.mark.parametrize("level", [-1.0, -0.5, 0.0, 0.5, 1.0])
@pytest.mark.parametrize("size", [(136, 112), (64, 64), (8, 8), (250, 300)])
def test_images_are_float32_in_range_and_of_the_size_asked(level: float, size: tuple[int, int]) -> None:
    for seed in range(4):
        image = render(make_patient(seed), level=level, size=size, noise_seed=seed)
        assert image.shape == size
        assert image.dtype == np.float32
        assert np.isfinite(image).all()
        assert image.min() >= 0.0
        assert image.max() <= 1.0


def test_without_noise_the_background_is_zero_and_with_noise_it_is_rician() -> None:
    patient = dataclasses.replace(make_patient(1), noise=0.02)
    assert not render(patient, noise_seed=None)[:4, :4].any()
    corners = [render(patient, noise_seed=s)[np.ix_([0, 1, 2, -1], [0, 1, 2, -1])] for s in range(60)]
    # Where there is no signal, the magnitude of two normal channels has mean sigma * sqrt(pi / 2).
    assert np.mean(corners) == pytest.approx(0.02 * np.sqrt(np.pi / 2.0), rel=0.1)


def test_the_head_fits_in_the_picture() -> None:
    for seed in range(80):
        image = render(make_patient(seed), noise_seed=None)
        border = np.concatenate([image[0], image[-1], image[:, 0], image[:, -1]])
        assert border.max() < 0.02
        assert image.max() > 0.6


def test_anatomy_does_not_depend_on_the_size_of_the_picture() -> None:
    for seed in range(6):
        patient = make_patient(seed)
        small = render(patient, noise_seed=None)
        large = render(patient, size=(272, 224), noise_seed=None).reshape(136, 2, 112, 2).mean(axis=(1, 3))
        assert similarity(small, large.astype(np.float32)) > 0.995


def test_neighbouring_levels_are_alike_but_not_equal() -> None:
    for seed in range(8):
        patient = make_patient(seed)
        here = render(patient, level=0.1, noise_seed=None)
        close = similarity(here, render(patient, level=0.2, noise_seed=None))
        far = similarity(here, render(patient, level=0.9, noise_seed=None))
        assert 1.0 > close > 0.95
        assert far < close - 0.02
        assert np.abs(here - render(patient, level=0.2, noise_seed=None)).max() > 0.1


def test_ventricles_are_dark_at_the_middle_levels_only() -> None:
    """Without bends, noise and coil, the middle of the brain holds fluid at level 0 and none at level .95."""
    patient = make_patient(2)

    def fluid(level: float, ventricle: float) -> int:
        wide = dataclasses.replace(patient, ventricle=ventricle, level_offset=0.0, bias=0.0)
        centre = render(wide, level=level, noise_seed=None)[45:95, 36:76]
        return int((centre < patient.fluid + 0.08).sum())

    assert fluid(0.0, 1.6) > fluid(0.0, 0.8) + 30
    assert fluid(0.95, 1.6) == fluid(0.95, 0.8)


def test_left_and_right_differ_slightly() -> None:
    for seed in range(10):
        patient = dataclasses.replace(make_patient(seed), tilt_deg=0.0, offset_mm=(0.0, 0.0), bias=0.0)
        image = render(patient, noise_seed=None)
        assert 0.7 < similarity(image, image[:, ::-1]) < 0.995


def test_no_unrelated_patient_is_as_close_as_a_degraded_copy() -> None:
    """On 32 x 32 thumbnails: exact copies above everybody else, near copies mostly between."""
    cohort = list(make_cohort(60, 3, seed=0))
    people = np.array([name for name, _, _ in cohort])
    images = [image for _, _, image in cohort]
    rng = np.random.default_rng(1)
    real = thumbnails(images)
    exact = thumbnails([degrade(image, rng) for image in images])
    near = thumbnails([near_copy(image, rng) for image in images])
    other = people[:, None] != people[None, :]
    nearest_other = np.where(other, exact @ real.T, -1.0).max(axis=1)
    exact_scores = (exact * real).sum(axis=1)
    near_scores = (near * real).sum(axis=1)
    assert exact_scores.min() > nearest_other.max() + 0.02
    assert np.median(near_scores) < exact_scores.min()
    assert np.mean(near_scores > nearest_other.max()) > 0.85
    assert np.quantile(nearest_other, 0.5) < 0.93


def test_cohorts_name_patients_and_levels_in_order() -> None:
    cohort = list(make_cohort(2, 3, seed=4, size=(34, 28)))
    assert [(name, level) for name, level, _ in cohort] == [
        ("patient-000", 0),
        ("patient-000", 1),
        ("patient-000", 2),
        ("patient-001", 0),
        ("patient-001", 1),
        ("patient-001", 2),
    ]
    assert all(image.shape == (34, 28) for _, _, image in cohort)
    assert list(make_cohort(0, 3, seed=4)) == []
    assert list(make_cohort(3, 0, seed=4)) == []


def test_a_larger_cohort_begins_with_the_smaller_and_another_seed_shares_nobody() -> None:
    small = [image for *_, image in make_cohort(2, 2, seed=4, size=(34, 28))]
    large = [image for *_, image in make_cohort(3, 2, seed=4, size=(34, 28))]
    other = [image for *_, image in make_cohort(2, 2, seed=5, size=(34, 28))]
    for a, b in zip(small, large[:4], strict=True):
        np.testing.assert_array_equal(a, b)
    assert not any(np.array_equal(a, b) for a in small for b in other)


def test_every_parameter_varies_between_patients() -> None:
    patients = [make_patient(seed) for seed in range(40)]
    for field in dataclasses.fields(Patient):
        assert len({getattr(patient, field.name) for patient in patients}) > 5, field.name


def test_unusable_arguments_are_refused_in_words() -> None:
    patient = make_patient(0)
    with pytest.raises(UsageError, match="level"):
        render(patient, level=1.5, noise_seed=None)
    with pytest.raises(UsageError, match="level"):
        render(patient, level=float("nan"), noise_seed=None)
    with pytest.raises(UsageError, match="size"):
        render(patient, size=(4, 112), noise_seed=None)
    with pytest.raises(UsageError, match="seed"):
        render(patient, noise_seed=-1)
    with pytest.raises(UsageError, match="seed"):
        make_patient(-1)
    with pytest.raises(UsageError, match="patients"):
        make_cohort(-1, 2, seed=0)
    with pytest.raises(UsageError, match="seed"):
        make_cohort(1, 2, seed=-3)
    with pytest.raises(UsageError, match="size"):
        make_cohort(1, 2, seed=0, size=(2, 2))
