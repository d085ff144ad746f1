"""The noise schedule and the steps of DDIM, against the paper's own formulas."""

from __future__ import annotations

import numpy as np
import pytest

from deepssim.errors import UsageError
from deepssim.generative.config import DiffusionConfig
from deepssim.generative.sampling.schedule import alphas_cumprod, ddim_steps


@pytest.mark.parametrize("schedule", ["scaled_linear", "linear"])
def test_what_is_left_of_the_signal_is_the_product_of_what_each_step_leaves(schedule):
    left = alphas_cumprod(DiffusionConfig(steps=10, schedule=schedule, beta_start=0.1, beta_end=0.3))
    expected, product = [], 1.0
    for i in range(10):
        part = i / 9
        beta = (0.1**0.5 * (1 - part) + 0.3**0.5 * part) ** 2 if schedule == "scaled_linear" else 0.1 + 0.2 * part
        product *= 1 - beta
        expected.append(product)
    np.testing.assert_allclose(left, expected, rtol=1e-12)


@pytest.mark.parametrize("n_steps", [1, 2, 3, 7, 50, 999, 1000])
def test_a_perfect_predictor_of_noise_leads_to_the_image_whatever_the_number_of_steps(n_steps):
    config = DiffusionConfig()
    left = alphas_cumprod(config)
    image, noise = np.random.default_rng(0).standard_normal((2, 100))
    steps = ddim_steps(config, n_steps)
    a = left[steps[0].timestep]
    z = np.sqrt(a) * image + np.sqrt(1 - a) * noise
    for step in steps:
        a = left[step.timestep]
        z = step.keep * z + step.add * (z - np.sqrt(a) * image) / np.sqrt(1 - a)
    np.testing.assert_allclose(z, image, atol=2e-4)


def test_timesteps_are_equally_far_apart_and_end_at_the_least_noise():
    timesteps = [step.timestep for step in ddim_steps(DiffusionConfig(), 50)]
    assert timesteps == list(range(980, -1, -20))
    assert [step.timestep for step in ddim_steps(DiffusionConfig(), 300)][:2] == [897, 894]


@pytest.mark.parametrize("n_steps", [0, -1, 1001])
def test_steps_that_the_training_did_not_have_are_refused(n_steps):
    with pytest.raises(UsageError, match="1 to 1,000"):
        ddim_steps(DiffusionConfig(), n_steps)
