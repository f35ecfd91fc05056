"""DDPM, inversion, PNDM's Runge-Kutta start, consistency: laws, and what upstream cannot do."""

from __future__ import annotations

import math

import numpy as np
import pytest

from refdiff.diffusion.noise import stream
from refdiff.errors import BadRequest
from refdiff.samplers import from_config
from refdiff.samplers.ddpm import ddpm, largest, learned, learned_range, smallest
from tests.samplers.test_laws import DEVIATION, MEAN, bend, latent, network_of_gaussian
from tests.samplers.test_options import BETAS

DDPM = {"_class_name": "DDPMScheduler", **BETAS, "clip_sample": False, "timestep_spacing": "trailing"}
DATA = 20_000  # numbers whose mean and variance are looked at


def assert_like_the_data(end, *, slack):
    """Mean and variance within four standard errors and what the steps leave over."""
    assert abs(end.mean() - MEAN) < 4 * DEVIATION / DATA**0.5 + slack
    assert abs(end.var() / DEVIATION**2 - 1.0) < 4 * (2 / DATA) ** 0.5 + slack


def unit(seed):
    return stream("numpy", seed).normal((DATA,)).astype(np.float64)


@pytest.mark.parametrize("kind", ["fixed_small", "fixed_large"])
def test_ddpm_keeps_the_mean_and_the_variance(kind):
    sampler = from_config({**DDPM, **BETAS, "variance_type": kind}, table="float64")
    end = sampler.sample(network_of_gaussian(sampler, 500), unit(5), 500, noise=stream("numpy", 6))
    assert_like_the_data(end, slack=0.03)


@pytest.mark.parametrize("share, same", [(-1.0, smallest), (1.0, largest)])
def test_a_learned_range_lies_between_the_fixed_ones(share, same):
    assert learned_range(np.full(3, share), 0.02, 0.3) == pytest.approx(same(None, 0.02, 0.3), rel=1e-12)
    assert learned_range(np.zeros(3), 0.02, 0.3) == pytest.approx((0.02 * 0.3) ** 0.25, rel=1e-12)


def test_a_learned_variance_below_0_is_none():
    np.testing.assert_array_equal(learned(np.array([-0.5, 0.25]), 0.1, 0.2), [0.0, 0.5])


def test_ddpm_is_the_posterior():
    """One step on known numbers: mean (s^2 - r^2)/s^2 D + r^2/s^2 x, the deviation times what restates it."""
    steps = ddpm(
        lambda x, s: (np.full_like(x, 0.3), None), np.array([2.0]), [1.5, 0.5],
        small=[0.04], large=[0.09], random=[True], deviation=largest, noise=One(),
    )  # fmt: skip
    (step,) = list(steps)
    assert step.x[0] == pytest.approx((1 - 1 / 9) * 0.3 + 2.0 / 9 + math.sqrt(1.25) * 0.3)


class One:
    """A stream of ones."""

    def normal(self, shape):
        return np.ones(shape, dtype=np.float32)


def test_the_logarithm_of_a_large_variance_is_that_variance():
    """Upstream takes the root of the logarithm of it, which is no number."""
    ends = []
    for kind in ("fixed_large", "fixed_large_log"):
        sampler = from_config({**DDPM, "variance_type": kind})
        ends.append(sampler.sample(bend, latent(1), 5, noise=stream("numpy", 1)))
    assert np.isfinite(ends[0]).all()
    np.testing.assert_array_equal(*ends)


@pytest.mark.parametrize("kind", ["learned", "learned_range"])
def test_a_network_without_variance_is_refused(kind):
    with pytest.raises(BadRequest, match="8 channels out of the network, not 4.*fixed_small"):
        from_config({**DDPM, "variance_type": kind}).sample(bend, latent(1), 5, noise=stream("numpy", 1))


STOCHASTIC = [DDPM, {**DDPM, "variance_type": "fixed_large"}]


@pytest.mark.parametrize("config", STOCHASTIC, ids=lambda c: c["_class_name"])
@pytest.mark.parametrize("steps", [1, 2, 50])
def test_the_same_seed_twice(config, steps):
    x = latent(2, np.float32)
    first, second, third = (from_config(config).sample(bend, x, steps, noise=stream("numpy", seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, second)
    assert first.dtype == np.float32 and np.isfinite(first).all()
    assert steps == 1 or not np.array_equal(first, third)


def test_a_thousand_steps():
    end = from_config(DDPM).sample(bend, latent(2, np.float32), 1000, noise=stream("numpy", 1))
    assert np.isfinite(end).all()
