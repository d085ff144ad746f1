"""Views and artefacts of whole batches."""

from __future__ import annotations

import math

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from deepssim.perturb import View, apply_view  # noqa: E402
from deepssim.phantom import make_patient, render  # noqa: E402
from deepssim.train import augment as room  # noqa: E402
from deepssim.train.augment import DEEPSSIM, DEEPSSIM_PLUS, HARD, Augmentation, augment  # noqa: E402

PHANTOM = render(make_patient(1), noise_seed=1)


def batch(n: int) -> torch.Tensor:
    return torch.from_numpy(np.stack([PHANTOM] * n))[:, None]


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("seed", range(4))
def test_a_view_is_that_of_the_benchmark(seed):
    how = Augmentation(flip=0.5, affine=1.0, angle_rad=0.5, shift=0.1, zoom_probability=1.0, zoom=(0.9, 1.1))
    [seen] = augment(batch(1), how, seeded(seed))[:, 0].numpy()
    draws = room._Draws(1, seeded(seed), torch.device("cpu"))
    draws.chance(0), draws.chance(1)
    angle, down, right = draws.uniform(-0.5, 0.5), draws.uniform(-13.6, 13.6), draws.uniform(-11.2, 11.2)
    draws.chance(1)
    zoom = draws.uniform(0.9, 1.1)
    flips = [bool(draws.chance(0.5)) for _ in range(2)]
    view = View(*flips, math.degrees(float(angle)), (float(down), float(right)), float(zoom))
    np.testing.assert_allclose(seen, apply_view(PHANTOM, view), atol=2e-5)


@pytest.mark.parametrize("how", [DEEPSSIM, DEEPSSIM_PLUS, HARD])
def test_images_stay_in_range_and_each_is_seen_in_its_own_way(how):
    seen = augment(batch(24), how, seeded(0))
    assert seen.shape == (24, 1, 136, 112)
    assert float(seen.min()) >= 0
    assert float(seen.max()) <= 1
    assert len({image.numpy().tobytes() for image in seen}) > 8
    assert torch.equal(seen, augment(batch(24), how, seeded(0)))
    assert not torch.equal(seen, augment(batch(24), how, seeded(1)))


def test_nothing_happens_where_nothing_is_asked():
    torch.testing.assert_close(augment(batch(2), Augmentation(), seeded(0)), batch(2), atol=1e-5, rtol=0)


def test_artefacts_do_what_their_names_say():
    blurred = augment(batch(8), Augmentation(blur_or_noise_probability=1.0, noise=0.0, blur_px=0.9), seeded(0))
    assert sum(not torch.allclose(image, batch(1)[0], atol=1e-5) for image in blurred) >= 2
    energy = [float((image[..., 1:] - image[..., :-1]).square().sum()) for image in (*blurred, *batch(1))]
    assert max(energy) == pytest.approx(energy[-1], rel=1e-4)
    darker = augment(batch(1), Augmentation(gamma_probability=1.0, gamma=(2.0, 2.0)), seeded(0))
    torch.testing.assert_close(darker, batch(1).square(), atol=1e-4, rtol=0)
    biased = augment(batch(1) * 0.5, Augmentation(bias_probability=1.0), seeded(0))
    ratio = (biased / (batch(1) * 0.5))[batch(1) > 0.05]
    assert 1.05 < float(ratio.max()) <= 1.1201
    assert 0.8799 <= float(ratio.min()) < 0.95
