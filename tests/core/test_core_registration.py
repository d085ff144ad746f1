from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deepssim import _core, perturb
from deepssim.image_ops import Registrar, Transform, evidence, evidence_maps, register, warp
from deepssim.phantom import make_patient, render

PHANTOM = render(make_patient(1), noise_seed=1)
OTHER = render(make_patient(2), noise_seed=2)

TRANSFORMS = st.builds(
    Transform,
    is_mirrored=st.booleans(),
    angle_degrees=st.floats(-180, 180),
    shift_rows=st.floats(-20, 20),
    shift_columns=st.floats(-20, 20),
    scale=st.floats(0.85, 1.15),
)


def sampling_matrix(t):
    """The definition in homogeneous coordinates about the centre: undo shift, turn, scale and mirror."""
    angle = math.radians(t.angle_degrees)
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    forward = np.eye(3)
    forward[:2, :2] = turn @ np.diag([1.0, -1.0 if t.is_mirrored else 1.0]) * t.scale
    forward[:2, 2] = t.shift_rows, t.shift_columns
    return np.linalg.inv(forward)


def bilinear(image, t):
    height, width = image.shape
    centre = np.array([(height - 1) / 2, (width - 1) / 2])
    grid = np.stack(np.meshgrid(np.arange(height), np.arange(width), indexing="ij"), -1) - centre
    m = sampling_matrix(t)
    r, c = np.moveaxis(grid @ m[:2, :2].T + m[:2, 2] + centre, -1, 0)
    inside = (r >= 0) & (r <= height - 1) & (c >= 0) & (c <= width - 1)
    # On the very edge rounding decides whether a pixel is inside.
    is_sure = np.abs(np.minimum(np.minimum(r, height - 1 - r), np.minimum(c, width - 1 - c))) > 1e-3
    wide = np.pad(image.astype(np.float64), 2)
    r0, c0 = np.floor(np.clip(r, 0, height)).astype(int), np.floor(np.clip(c, 0, width)).astype(int)
    fr, fc = r - r0, c - c0
    r0, c0 = r0 + 2, c0 + 2
    top = wide[r0, c0] * (1 - fc) + wide[r0, c0 + 1] * fc
    bottom = wide[r0 + 1, c0] * (1 - fc) + wide[r0 + 1, c0 + 1] * fc
    out = top * (1 - fr) + bottom * fr
    return np.where(inside, out, 0), is_sure


def box_matrix(n, radius, edge):
    """One box with parts at its ends as a matrix, zeros outside."""
    apart = np.abs(np.arange(n)[:, None] - np.arange(n))
    return ((apart <= radius) + edge * (apart == radius + 1)) / (2 * radius + 1 + 2 * edge)


def gaussian_matrix(n, sigma):
    v = sigma**2 / 3
    r = math.floor((math.sqrt(12 * v + 1) - 1) / 2)
    edge = (2 * r + 1) * (r * (r + 1) - 3 * v) / (6 * (v - (r + 1) ** 2))
    return np.linalg.matrix_power(box_matrix(n, r, edge), 3)


def smooth(image, by_rows, by_columns):
    return by_rows @ image @ by_columns.T


def masked_norm(image, mask, sigma, floor):
    kernels = [gaussian_matrix(n, sigma) for n in image.shape]
    weights = np.maximum(smooth(mask, *kernels), 1e-6)
    mean = smooth(image * mask, *kernels) / weights
    variance = np.maximum(smooth((image * mask) ** 2, *kernels) / weights - mean**2, 0)
    return (image - mean) / np.sqrt(variance + floor**2) * mask


def normalised_by_definition(a, b):
    """Two images as they lie, blurred and normalised within all but their border."""
    unit = a.shape[1] / 112
    border = max(1, round(unit))
    mask = np.pad(np.ones(tuple(n - 2 * border for n in a.shape)), border)
    blur = [gaussian_matrix(n, unit) for n in a.shape]
    weights = np.maximum(smooth(mask, *blur), 1e-6)
    return [masked_norm(smooth(x * mask, *blur) / weights * mask, mask, 3 * unit, 0.04) for x in (a, b)], mask


def local_correlation_by_definition(a, b):
    """S2's map of two images as they lie."""
    unit = a.shape[1] / 112
    (a, b), mask = normalised_by_definition(a, b)
    window = [box_matrix(n, max(1, round(3 * unit)), 0) for n in a.shape]
    weights = np.maximum(smooth(mask, *window), 1e-6)
    mean_a, mean_b = smooth(a, *window) / weights, smooth(b, *window) / weights
    var_a = smooth(a * a, *window) / weights - mean_a**2
    var_b = smooth(b * b, *window) / weights - mean_b**2
    covariance = smooth(a * b, *window) / weights - mean_a * mean_b
    return (covariance + 0.3) / (np.sqrt(np.maximum(var_a * var_b, 0)) + 0.3)


def distance_px(a, b, shape):
    rows, columns = (np.linspace(0.25 * n, 0.75 * n, 9) for n in shape)
    grid = np.stack([g.ravel() for g in np.meshgrid(rows, columns)] + [np.ones(81)])
    return float(np.hypot(*((a.matrix(shape) - b.matrix(shape)) @ grid)).mean())


@given(transform=TRANSFORMS)
@settings(deadline=None, max_examples=60)
def test_warping_is_bilinear_sampling_about_the_centre(transform):
    image = np.random.default_rng(0).random((23, 37), np.float32)
    expected, is_sure = bilinear(image, transform)
    np.testing.assert_allclose(warp(image, transform)[is_sure], expected[is_sure], atol=2e-5)


@given(transform=TRANSFORMS)
@settings(deadline=None, max_examples=60)
def test_the_inverse_undoes_and_stays_in_range(transform):
    back = transform.inverse()
    assert -180 < back.angle_degrees <= 180
    whole = np.vstack([transform.matrix((40, 30)), [0, 0, 1]]) @ np.vstack([back.matrix((40, 30)), [0, 0, 1]])
    np.testing.assert_allclose(whole, np.eye(3), atol=1e-9)


@pytest.mark.parametrize("transform", [Transform(), Transform(is_mirrored=True), Transform(angle_degrees=180.0)])
def test_whole_moves_keep_grey_values(transform):
    image = np.random.default_rng(0).random((16, 24), np.float32)
    expected = image[:, ::-1] if transform.is_mirrored else image
    expected = expected[::-1, ::-1] if transform.angle_degrees else expected
    np.testing.assert_allclose(warp(image, transform), expected, atol=1e-5)


@given(
    flips=st.tuples(st.booleans(), st.booleans()),
    angle=st.floats(-30, 30),
    shift=st.tuples(st.floats(-8, 8), st.floats(-8, 8)),
    zoom=st.floats(0.88, 1.13),
    gamma=st.floats(0.5, 1.5),
    seed=st.integers(0, 1000),
)
@settings(deadline=None, max_examples=60)
def test_a_degraded_view_is_registered(flips, angle, shift, zoom, gamma, seed):
    view = perturb.View(*flips, angle, shift, zoom, gamma)
    copy = perturb.degrade(perturb.apply_view(PHANTOM, view), np.random.default_rng(seed))
    found = register(copy, PHANTOM)
    turned = angle + (180.0 if flips[0] else 0.0)
    truth = Transform(flips[0] != flips[1], turned, *shift, zoom)
    assert distance_px(found.transform, truth, copy.shape) < 1.0
    assert found.fit > 0.6


def test_without_scale_none_is_found():
    view = perturb.View(zoom=1.05)
    assert register(perturb.apply_view(PHANTOM, view), PHANTOM, with_scale=False).transform.scale == 1.0


def test_copies_agree_more_than_others():
    copy = perturb.degrade(PHANTOM, np.random.default_rng(0))
    same = evidence(copy, PHANTOM, register(copy, PHANTOM).transform)
    other = evidence(OTHER, PHANTOM, register(OTHER, PHANTOM).transform)
    near = perturb.deform(PHANTOM, np.random.default_rng(0))
    deviating = evidence(near, PHANTOM, register(near, PHANTOM).transform)
    assert same.s1 > 0.8 > other.s1
    assert same.s2 > deviating.s2


@pytest.mark.parametrize("shape", [(40, 31), (136, 112)])
def test_local_correlation_is_what_its_definition_says(shape):
    rng = np.random.default_rng(0)
    a = rng.random(shape, np.float32)
    b = np.clip(a + rng.normal(0, 0.2, shape), 0, 1).astype(np.float32)
    found, maps = evidence_maps(a, b, Transform())
    expected = local_correlation_by_definition(a.astype(np.float64), b.astype(np.float64))
    border = max(1, round(2 * shape[1] / 112))
    inner = expected[border:-border, border:-border]
    np.testing.assert_allclose(maps.local_correlation[border:-border, border:-border], inner, atol=2e-4)
    assert np.isnan(maps.local_correlation[:border]).all()
    lowest = np.sort(inner.ravel())[: math.ceil(0.01 * inner.size)]
    assert found.s2 == pytest.approx(lowest.mean(), abs=2e-4)
    assert found.local_mean == pytest.approx(inner.mean(), abs=2e-5)


def test_s1_is_the_correlation_of_locally_normalised_images():
    rng = np.random.default_rng(0)
    a = rng.random((136, 112), np.float32)
    b = np.clip(a + rng.normal(0, 0.2, a.shape), 0, 1).astype(np.float32)
    normed, mask = normalised_by_definition(a.astype(np.float64), b.astype(np.float64))
    expected = np.corrcoef(normed[0][mask > 0], normed[1][mask > 0])[0, 1]
    assert evidence(a, b, Transform()).s1 == pytest.approx(expected, abs=1e-4)


def test_the_fill_beside_a_turned_image_is_no_evidence():
    # Bright to its border, as films are: the fill makes a seam that the real image has not.
    rng = np.random.default_rng(0)
    coarse = np.kron(rng.random((32, 32)), np.ones((8, 8)))
    image = (0.6 + 0.3 * smooth(coarse, *(gaussian_matrix(256, 4.0),) * 2)).astype(np.float32)
    turn = Transform(angle_degrees=20.0, shift_rows=10.0)
    found = evidence(warp(image, turn), image, turn)
    assert min(found.s1, found.s2, found.ncc) > 0.95


def test_maps_of_wide_images_have_the_shape_of_the_image():
    wide = np.kron(PHANTOM, np.ones((2, 2), np.float32))
    numbers, maps = evidence_maps(wide, wide, Transform())
    assert maps.agreement.shape == maps.local_correlation.shape == wide.shape
    assert numbers == evidence(wide, wide, Transform())
    assert np.nanmin(maps.local_correlation) == pytest.approx(1.0, abs=1e-5)
    assert np.isnan(maps.local_correlation[:4]).all()
    assert not np.isnan(maps.local_correlation[4:-4, 4:-4]).any()


def test_every_instruction_set_gives_the_same_bits():
    copy = perturb.degrade(perturb.apply_view(PHANTOM, perturb.View(angle_deg=7.0)), np.random.default_rng(0))
    answers = set()
    for isa in _core.supported_isa_levels():
        a, b = (_core.RegistrationImage(x, isa=isa) for x in (copy, PHANTOM))
        numbers, fit, overlap = _core.register_images(a, b, isa=isa)
        found = _core.evidence(a, b, numbers, with_maps=True, isa=isa)
        answers.add((numbers, fit, overlap, *found[:5], found[5].tobytes(), found[6].tobytes()))
    assert len(answers) == 1


def test_the_batch_gives_what_single_pairs_give_on_any_number_of_threads():
    reals = [PHANTOM, OTHER, render(make_patient(3), noise_seed=3)]
    synthetic = [perturb.degrade(x, np.random.default_rng(0)) for x in reals[:2]]
    registrar = Registrar(reals)
    wanted = [[2, 0], [1]]
    one = registrar.verify_many(synthetic, wanted, threads=1)
    assert one == registrar.verify_many(synthetic, wanted, threads=4)
    assert one[0] == registrar.verify(synthetic[0], wanted[0])
    single = register(synthetic[0], reals[0])
    assert one[0][1] == (single, evidence(synthetic[0], reals[0], single.transform))
    assert registrar.verify_many([], []) == []
    assert registrar.verify(synthetic[0], []) == []


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (2, 2), (3, 200), (200, 3), (17, 16), (33, 65)])
@pytest.mark.parametrize("value", [0.0, 1.0, None])
def test_tiny_long_and_constant_images_give_an_answer(shape, value):
    rng = np.random.default_rng(0)
    a, b = (rng.random(shape, np.float32) if value is None else np.full(shape, value, np.float32) for _ in range(2))
    found = register(a, b)
    numbers = evidence(a, b, found.transform)
    assert -1 <= found.fit <= 1
    assert 0.35 <= found.overlap <= 1
    assert all(math.isfinite(x) for x in (numbers.s1, numbers.s2, numbers.local_mean, numbers.ncc))
    if value is not None:
        assert (found.fit, numbers.s1, numbers.ncc) == (0.0, 0.0, 0.0)


def test_too_little_overlap_is_no_evidence():
    numbers = evidence(PHANTOM, PHANTOM, Transform(shift_rows=120.0))
    assert (numbers.s1, numbers.s2, numbers.local_mean, numbers.ncc) == (-1.0,) * 4
    assert 0 < numbers.overlap < 0.35


def test_bytes_are_parts_of_255():
    grey = (PHANTOM * 255).round().astype(np.uint8)
    assert register(grey, grey) == register(grey / np.float32(255), grey / np.float32(255))


@pytest.mark.parametrize(
    ("a", "error", "words"),
    [
        (np.zeros((8, 8)), TypeError, "float32"),
        (np.zeros((8, 8, 3), np.uint8), ValueError, "two-dimensional"),
        (np.zeros((0, 8), np.float32), ValueError, "empty"),
        (np.full((8, 8), np.nan, np.float32), ValueError, r"scale the grey values to \[0, 1\]"),
        (np.full((8, 8), 2, np.float32), ValueError, r"pixel \(0, 0\)"),
        (np.zeros((8, 9), np.float32), ValueError, "resize them to one size"),
        (np.zeros((1, 4097), np.float32), ValueError, "at most 4,096"),
    ],
)
def test_bad_images_are_refused(a, error, words):
    with pytest.raises(error, match=words):
        register(a, np.zeros((8, 8), np.float32))


def test_bad_requests_are_refused():
    image = np.zeros((8, 8), np.float32)
    registrar = Registrar([image])
    with pytest.raises(ValueError, match="candidate 1 is none of the 1"):
        registrar.verify(image, [1])
    with pytest.raises(ValueError, match="lists of candidates"):
        registrar.verify_many([image], [])
    with pytest.raises(ValueError, match="threads is -1"):
        registrar.verify_many([image], [[0]], threads=-1)
    with pytest.raises(ValueError, match="different shapes"):
        Registrar([image, image[:4]])
    with pytest.raises(ValueError, match="scale"):
        warp(image, Transform(scale=0.0))
    with pytest.raises(ValueError, match="finite"):
        evidence(image, image, Transform(angle_degrees=math.nan))


def test_ctrl_c_ends_a_long_batch():
    code = (
        "import numpy as np, signal, threading, os\n"
        "from deepssim.image_ops import Registrar\n"
        "image = np.random.default_rng(0).random((256, 256), np.float32)\n"
        "registrar = Registrar([image])\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a shell may have started us with it ignored
        "threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()\n"
        "try:\n"
        "    registrar.verify_many([image] * 500, [[0] * 10] * 500, threads=1)\n"
        "except KeyboardInterrupt:\n"
        "    print('ended')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False)
    assert done.stdout.strip() == "ended"
