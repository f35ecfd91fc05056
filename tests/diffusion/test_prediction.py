"""Noise, velocity and picture say the same thing: every conversion comes back."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refdiff.diffusion import prediction
from refdiff.diffusion.prediction import (
    DENOISED,
    denoised_from_epsilon,
    denoised_from_v,
    epsilon_from_denoised,
    signal_and_noise,
    v_from_denoised,
)

sigmas = st.floats(0.05, 20.0)
seeds = st.integers(0, 2**32 - 1)


def mixture(sigma: float, seed: int, dtype: type = np.float64):
    """A picture, noise, and their mixture with a^2 + s^2 = 1."""
    rng = np.random.Generator(np.random.PCG64(seed))
    x0, epsilon = rng.standard_normal((2, 2, 3, 4), dtype=dtype)
    a, s = signal_and_noise(sigma)
    return x0, epsilon, a * x0 + s * epsilon, a, s


def close(got, want, sigma):
    """Dividing by the smaller of a and s costs the digits that it has lost."""
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-14 * (sigma + 1.0 / sigma) * 10)


@given(sigmas, seeds)
def test_the_truth_is_found_from_either(sigma, seed):
    x0, epsilon, x, a, s = mixture(sigma, seed)
    close(denoised_from_epsilon(x, epsilon, a, s), x0, sigma)
    close(denoised_from_v(x, a * epsilon - s * x0, a, s), x0, sigma)
    close(epsilon_from_denoised(x, x0, a, s), epsilon, sigma)
    close(v_from_denoised(x, x0, a, s), a * epsilon - s * x0, sigma)


@given(sigmas, seeds)
def test_round_trips(sigma, seed):
    """Of any output, not of the true one alone."""
    output, _, x, a, s = mixture(sigma, seed)
    x = x + 1.0
    close(epsilon_from_denoised(x, denoised_from_epsilon(x, output, a, s), a, s), output, sigma)
    close(v_from_denoised(x, denoised_from_v(x, output, a, s), a, s), output, sigma)
    close(denoised_from_epsilon(x, epsilon_from_denoised(x, output, a, s), a, s), output, sigma)
    close(denoised_from_v(x, v_from_denoised(x, output, a, s), a, s), output, sigma)


@given(sigmas, seeds)
def test_velocity_is_the_noise_turned_by_a_quarter(sigma, seed):
    """From v to epsilon directly: epsilon = a v + s x."""
    v, _, x, a, s = mixture(sigma, seed)
    close(epsilon_from_denoised(x, denoised_from_v(x, v, a, s), a, s), a * v + s * x, sigma)


@given(st.floats(0.0, 1e6))
def test_signal_and_noise(sigma):
    a, s = signal_and_noise(sigma)
    assert math.isclose(a * a + s * s, 1.0, rel_tol=1e-14)
    assert math.isclose(s, sigma * a, rel_tol=1e-14)
    assert signal_and_noise(0.0) == (1.0, 0.0)


@pytest.mark.parametrize("convert", [*DENOISED.values(), epsilon_from_denoised, v_from_denoised])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_precision_stays_and_arguments_are_left(convert, dtype):
    x0, epsilon, x, a, s = mixture(1.5, 3, dtype)
    before = x.copy(), epsilon.copy()
    x.flags.writeable = epsilon.flags.writeable = False
    got = convert(x, epsilon, a, s)
    assert got.dtype == dtype and got.shape == x.shape
    assert np.array_equal(x, before[0]) and np.array_equal(epsilon, before[1])


def test_names():
    assert DENOISED == {
        "epsilon": prediction.denoised_from_epsilon,
        "v_prediction": prediction.denoised_from_v,
        "sample": prediction.denoised_from_sample,
    }


@given(sigmas, seeds)
def test_every_prediction_says_the_same_noise(sigma, seed):
    x0, epsilon, x, a, s = mixture(sigma, seed)
    said = {"epsilon": epsilon, "v_prediction": a * epsilon - s * x0, "sample": x0}
    assert said.keys() == prediction.EPSILON.keys() == DENOISED.keys()
    for name, output in said.items():
        close(prediction.EPSILON[name](x, output, a, s), epsilon, sigma)
        close(DENOISED[name](x, output, a, s), x0, sigma)


@given(st.floats(0.001, 1.0), seeds)
def test_flow_velocities_come_back(sigma, seed):
    x0, noise, *_ = mixture(1.0, seed)
    x, v = (1 - sigma) * x0 + sigma * noise, noise - x0
    close(prediction.denoised_from_flow(x, v, sigma), x0, sigma)
    close(prediction.noise_from_flow(x, v, sigma), noise, sigma)
    close(prediction.flow_from_denoised(x, x0, sigma), v, sigma)
    close(prediction.flow_from_denoised(x, prediction.denoised_from_flow(x, x0, sigma), sigma), x0, sigma)


@given(st.floats(0.002, 80.0), st.floats(0.1, 2.0), seeds)
def test_edm_comes_back(sigma, data, seed):
    """Of any output; the network sees unit variance, and predicts it."""
    output, other, *_ = mixture(1.0, seed)
    x = other * math.hypot(sigma, data)
    x0 = prediction.denoised_from_edm(x, output, sigma, data)
    np.testing.assert_allclose(prediction.edm_from_denoised(x, x0, sigma, data), output, rtol=0, atol=1e-9)
    assert math.isclose(prediction.edm_scale(sigma, data) ** 2 * (sigma**2 + data**2), 1.0, rel_tol=1e-12)
    skip, out = (data / math.hypot(sigma, data)) ** 2, sigma * data / math.hypot(sigma, data)
    assert math.isclose((skip - 1) ** 2 * data**2 + skip**2 * sigma**2, out**2, rel_tol=1e-9)
