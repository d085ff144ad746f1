"""Sampling: an image is a function of its model, record, number, seed and steps."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from deepssim.errors import MetricError, UsageError
from deepssim.generative.sampling.plan import plan_records
from deepssim.generative.sampling.sampler import Request, noise_of, sample
from deepssim.generative.sampling.schedule import alphas_cumprod


def test_noise_is_normal_and_differs_in_every_argument(backend):
    shape = (3, 36, 28)
    given = [(0, "a", 0), (1, "a", 0), (0, "b", 0), (0, "a", 1), (0, "", 0), (0, "a/0", 0), (2**31 - 1, "a", 10**9 - 1)]
    drawn = np.stack([noise_of(seed, uid, number, shape).ravel() for seed, uid, number in given])
    assert np.abs(np.corrcoef(drawn) - np.eye(len(given))).max() < 0.1
    assert np.abs(drawn.mean(axis=1)).max() < 0.1
    assert np.abs(drawn.std(axis=1) - 1).max() < 0.05


def test_noise_stays_what_it_was():
    # What an image begins as must not change with a version of anything, or no image could be made again.
    expected = [0.22, -1.4844, -1.6097, 1.5361]
    np.testing.assert_allclose(noise_of(7, "p07", 3, (4,)), expected, atol=1e-4)


@pytest.mark.parametrize("place", range(11))
def test_an_image_made_alone_is_the_one_made_among_others_to_the_last_bit(backend, place):
    plan = plan_records(["a", "b", "c"], 4)
    together = list(sample(backend, map(plan.request, range(12)), steps=5, seed=3))
    (alone,) = sample(backend, [plan.request(place)], steps=5, seed=3)
    assert alone.tobytes() == together[place].tobytes()


def test_a_place_has_the_same_seat_in_a_batch_whoever_else_is_in_it(backend):
    batches = []

    def spy(latents, timestep, context):
        batches.append(latents)
        return np.zeros_like(latents)

    plan = plan_records(["a"], 12)
    spying = replace(backend, denoise=spy)
    for places in (range(12), [6], [2, 6], [6, 7, 9, 10], [5, 6]):
        list(sample(spying, map(plan.request, places), steps=1))
        for place in places:
            noise = noise_of(0, "a", place, (3, 4, 4))
            assert any((batch[place % 4] == noise).all() for batch in batches)
        batches.clear()


def test_requests_without_a_place_fill_batches(backend):
    calls = []

    def count(latents, timestep, context):
        calls.append(len(latents))
        return latents

    requests = [Request("a", number) for number in range(9)]
    made = list(sample(replace(backend, denoise=count), requests, steps=1))
    assert (len(made), calls) == (9, [4, 4, 4])


def test_a_denoiser_that_knows_one_image_makes_that_image(backend):
    # The whole chain, with padding: latents of the known image come out cropped and divided by the scale.
    left = alphas_cumprod(backend.facts.diffusion)
    known = np.random.default_rng(0).standard_normal((3, 4, 4)).astype(np.float32)
    decoded = []

    def denoise(latents, timestep, context):
        a = left[timestep]
        return ((latents - np.sqrt(a) * known) / np.sqrt(1 - a)).astype(np.float32)

    def decode(latents):
        decoded.append(latents)
        return latents[:, 0]

    facts = replace(backend.facts, scale_factor=2.0)
    list(sample(replace(backend, denoise=denoise, decode=decode, facts=facts), [Request("a", 0)], steps=20))
    # Of 4 padded columns, the one after the latent's 3 is cut off.
    np.testing.assert_allclose(decoded[0][0], known[:, :, :3] / 2, atol=1e-3)


def test_guidance_goes_from_no_condition_towards_the_condition_and_beyond(make):
    backend = make(dim=2, is_guidable=True)
    context = np.array([[0.3, -0.1]], np.float32)
    seen = []

    def denoise(latents, timestep, context):
        seen.append(None if not context.any() else context[0].copy())
        return np.full_like(latents, context.sum() / len(latents))

    def decoded(guidance):
        guided = replace(backend, denoise=denoise, decode=lambda latents: latents[:, 0])
        (image,) = sample(guided, [Request("a", 0, context)], steps=1, guidance=guidance)
        return image

    without, plain, guided = (decoded(guidance).astype(float) for guidance in (0, 1, 3))
    np.testing.assert_allclose(guided, without + 3 * (plain - without), rtol=1e-4)
    # Guidance of 1 is one call, all others two.
    assert [part is None for part in seen] == [True, False, False, True, False]


@pytest.mark.parametrize(
    ("made", "guidance", "reason"),
    [
        ({"dim": 2}, 3.0, "never trained without its condition"),
        ({}, 3.0, "takes no condition"),
        ({"dim": 2, "is_guidable": True}, -1.0, "at least 0"),
        ({"dim": 2, "is_guidable": True}, float("nan"), "at least 0"),
    ],
)
def test_guidance_that_cannot_be_is_refused(make, made, guidance, reason):
    with pytest.raises(UsageError, match=reason):
        list(sample(make(**made), [Request("a", 0)], steps=2, guidance=guidance))


def test_an_image_that_is_not_finite_is_an_error_that_names_it(backend):
    broken = replace(backend, denoise=lambda latents, timestep, context: latents * np.float32(np.inf))
    with pytest.raises(MetricError, match="image 3 of p07 is not finite"):
        list(sample(broken, [Request("p07", 3)], steps=2))
