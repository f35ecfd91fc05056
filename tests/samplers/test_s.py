"""iPNDM: order, its quirks, and runs that upstream cannot make."""

from __future__ import annotations

import math

import numpy as np
import pytest

from refdiff.errors import BadRequest
from refdiff.samplers import from_config
from refdiff.samplers.ipndm import ipndm
from tests.samplers.test_laws import Refuses, bend, flow, gaussian, latent

IPNDM = {"_class_name": "IPNDMScheduler"}


def error_of(run, sigmas):
    """Of the end of a run on Gaussian data."""
    x = np.linspace(-2.0, 2.0, 9) * sigmas[0]
    return float(np.max(np.abs(list(run(x, sigmas))[-1].x - flow(x, sigmas[0], sigmas[-1]))))


def slope_of(run, begin, end):
    """The slope of log error over log n between 80 and 160 equal steps."""
    errors = [error_of(run, np.linspace(begin, end, n + 1).tolist()) for n in (80, 160)]
    assert errors[1] < 0.02
    return math.log2(errors[0] / errors[1])


def test_ipndm_is_held_back_by_its_first_step():
    """It is Euler's: its error, once, is of second order; the method is of fourth."""
    assert 1.7 < slope_of(lambda x, s: ipndm(gaussian, x, s), 3.0, 0.3) < 2.2


def test_ipndm_integrates_cubes_after_three_steps():
    """Slopes that are a polynomial of third degree in sigma, from where it has four of them: exactly, on even steps."""
    sigmas = np.linspace(3.0, 1.0, 11).tolist()

    def denoise(x, sigma):
        return x - sigma * (sigma**3 - 2.0 * sigma)

    taken = list(ipndm(denoise, np.zeros(1), sigmas))
    for before, after in zip(taken[3:], taken[4:], strict=False):
        exact = (after.sigma**4 - before.sigma**4) / 4 - (after.sigma**2 - before.sigma**2)
        assert after.x[0] - before.x[0] == pytest.approx(exact, abs=1e-12)


def test_ipndm_does_not_hear_the_network_where_there_is_no_signal():
    """Upstream divides by 1e-8 what is 0 by then: the first picture is 0, and so is the whole run of one step."""
    first, second = list(from_config(IPNDM).iterate(lambda x, t: x + 7.0, latent(1, np.float32), 2))
    assert not first.denoised.any() and second.denoised.any()
    assert not from_config(IPNDM).sample(bend, latent(1), 1).any()


@pytest.mark.parametrize("table", ["float32-torch", "float64"])
def test_ipndms_times_and_noise(table):
    """sin^2 of the quarter circle; the time is the angle at which the noise is a sine."""
    sampler = from_config(IPNDM, table=table)
    noise = np.sin(np.array([1.0, 0.75, 0.5, 0.25, 0.0]) * math.pi / 2) ** 2
    np.testing.assert_allclose(sampler.timesteps(4), np.arcsin(noise[:-1]) / math.pi * 2, rtol=1e-6)
    np.testing.assert_allclose(sampler.sigmas(4)[1:], (noise / np.sqrt(1 - noise**2 + 1e-99))[1:], rtol=1e-6)
    assert sampler.timesteps(4).dtype == (np.float32 if table == "float32-torch" else np.float64)


@pytest.mark.parametrize("steps", [1, 2, 1000])
def test_ipndms_shortest_and_longest_runs(steps):
    sampler, seen = from_config(IPNDM), []

    def network(x, t):
        seen.append(t)
        return bend(x, t * 1000.0)

    taken = list(sampler.iterate(network, latent(8, np.float32), steps, noise=Refuses()))
    assert [step.index for step in taken] == list(range(steps))
    np.testing.assert_array_equal(seen, sampler.timesteps(steps))
    assert np.all(np.isfinite(taken[-1].x)) and taken[-1].x.dtype == np.float32


def test_ipndms_own_betas_are_for_one_number_of_steps():
    sampler = from_config({**IPNDM, "trained_betas": [0.9, 0.5, 0.1, 0.0]})
    np.testing.assert_allclose(sampler.sigmas(3)[:3], [0.9 / 0.19**0.5, 0.5 / 0.75**0.5, 0.1 / 0.99**0.5], rtol=1e-6)
    with pytest.raises(BadRequest, match="trained_betas has 4 numbers, which is for 3 steps"):
        sampler.sigmas(4)


@pytest.mark.parametrize("betas", [[0.5], [0.5, 1.5], [0.5, -0.1], "sin", [[0.5, 0.1]], [0.5, float("nan")]])
def test_ipndms_betas_that_are_none(betas):
    with pytest.raises(BadRequest, match="trained_betas"):
        from_config({**IPNDM, "trained_betas": betas})


def test_ipndms_schedule_is_its_own():
    with pytest.raises(BadRequest, match="another kind of model"):
        from_config(IPNDM, name="ddim")
    with pytest.raises(BadRequest, match="another kind of model"):
        from_config({"_class_name": "DDIMScheduler"}, name="ipndm")
    with pytest.raises(BadRequest, match="float16"):
        from_config(IPNDM, table="float16")
