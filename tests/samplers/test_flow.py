"""Flow matching: laws, and what upstream cannot do."""

from __future__ import annotations

import math

import numpy as np
import pytest

from refdiff.diffusion.noise import stream
from refdiff.errors import BadRequest
from refdiff.samplers import from_config
from refdiff.samplers.flow import flow_again, flow_euler, flow_heun
from tests.samplers.test_laws import DEVIATION, MEAN, Refuses, bend, latent
from tests.samplers.test_p import DATA, assert_like_the_data, unit

EULER = {"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0}
HEUN = {"_class_name": "FlowMatchHeunDiscreteScheduler", "shift": 3.0}
LCM = {"_class_name": "FlowMatchLCMScheduler", "shift": 3.0}
ALL = [EULER, HEUN, LCM, {**EULER, "stochastic_sampling": True}, {**EULER, "invert_sigmas": True}]
each = pytest.mark.parametrize("config", ALL, ids=lambda c: " ".join(str(v) for v in c.values()))
NO_CHURN = {"s_churn": 0.0, "s_tmin": 0.0, "s_tmax": math.inf, "s_noise": 1.0, "noise": None}
SOLVERS = {"euler": flow_euler, "heun": lambda *given: flow_heun(*given, **NO_CHURN)}


def spread(sigma):
    """The deviation of the latents of the Gaussian data."""
    return math.sqrt(((1 - sigma) * DEVIATION) ** 2 + sigma**2)


def straight(x, sigma):
    """The exact denoiser, and the velocity."""
    centred = x - (1 - sigma) * MEAN
    denoised = MEAN + (1 - sigma) * DEVIATION**2 / spread(sigma) ** 2 * centred
    return denoised, sigma / spread(sigma) ** 2 * centred - denoised


@pytest.mark.parametrize(("solver", "order"), [("euler", 1.0), ("heun", 2.0)])
@pytest.mark.parametrize(("first", "last"), [(0.9, 0.1), (0.1, 0.9)])
def test_order_of_convergence(solver, order, first, last):
    x, errors = np.linspace(-2.0, 2.0, 9), []
    exact = (1 - last) * MEAN + (x - (1 - first) * MEAN) * spread(last) / spread(first)
    for n in (80, 160):
        end = list(SOLVERS[solver](straight, x, np.linspace(first, last, n + 1).tolist()))[-1].x
        errors.append(float(np.max(np.abs(end - exact))))
    # Heun's last step is Euler's, upstream because it would divide by 0.
    assert abs(math.log2(errors[0] / errors[1]) - order) < 0.15, errors


def test_the_whole_sampler_comes_to_the_data():
    sampler = from_config({**EULER, "num_train_timesteps": 1000}, table="float64")
    end = sampler.sample(lambda x, t: straight(x, t / 1000)[1], unit(5), 200)
    assert_like_the_data(end, slack=0.03)
    assert np.corrcoef(unit(5), end)[0, 1] > 0.99


def test_inverted_it_comes_to_noise():
    sampler = from_config({**EULER, "invert_sigmas": True})
    noise = sampler.sample(lambda x, t: straight(x, t / 1000)[1], MEAN + DEVIATION * unit(5), 200)
    assert abs(noise.mean()) < 0.05 and abs(noise.std() - 1) < 0.05


@pytest.mark.parametrize("n", [1, 2, 5])
def test_a_consistency_function_needs_few_steps(n):
    sigmas = [*np.linspace(1.0, 0.2, n).tolist(), 0.0]

    def to_the_end(x, s):
        return MEAN + (x - (1 - s) * MEAN) * DEVIATION / spread(s)

    end = list(flow_again(to_the_end, unit(5), sigmas, noise=stream("numpy", 6)))[-1].x
    assert len(end) == DATA
    assert_like_the_data(end, slack=0.005)


def test_churn_alone_draws():
    sampler = from_config(HEUN)
    sampler.sample(bend, latent(1), 4, noise=Refuses())
    with pytest.raises(BadRequest, match="needs noise"):
        from_config(HEUN, settings={"s_churn": 1.0}).sample(bend, latent(1), 4)


@pytest.mark.parametrize("kind", ["exponential", "linear"])
def test_a_dynamic_shift_needs_mu(kind):
    config = {**EULER, "use_dynamic_shifting": True, "time_shift_type": kind}
    with pytest.raises(BadRequest, match="mu"):
        from_config(config).sigmas(5)
    shift = math.exp(0.7) if kind == "exponential" else 0.7
    dynamic = from_config(config, settings={"mu": 0.7}).sigmas(5)
    plain = np.linspace(1.0, 0.001, 5)
    np.testing.assert_allclose(dynamic[:-1], shift * plain / (1 + (shift - 1) * plain), rtol=1e-6)


def test_two_ramps_exclude_each_other():
    with pytest.raises(BadRequest, match="use_karras_sigmas and use_beta_sigmas exclude"):
        from_config({**EULER, "use_karras_sigmas": True, "use_beta_sigmas": True}).sigmas(5)


def test_one_step_is_not_stretched():
    np.testing.assert_array_equal(from_config({**EULER, "shift_terminal": 0.02}).sigmas(1), [1.0, 0.0])
    assert from_config({**EULER, "shift_terminal": 0.02}).sigmas(5)[-2] == pytest.approx(0.02, rel=1e-5)


def test_growing_pictures_are_refused():
    with pytest.raises(BadRequest, match="scale_factors"):
        from_config({**LCM, "scale_factors": [1.0, 2.0]})


@each
def test_noise_is_added_on_the_straight_path(config):
    sampler, x0, noise = from_config(config), latent(1), latent(2)
    sigma = float(sampler.sigmas(5)[2])
    np.testing.assert_allclose(sampler.add_noise(x0, noise, 5, 2), (1 - sigma) * x0 + sigma * noise, rtol=1e-12)
