"""EDM, consistency models and UnCLIP: laws, and what upstream cannot do."""

from __future__ import annotations

import math

import numpy as np
import pytest

from refdiff.diffusion.noise import stream
from refdiff.diffusion.prediction import edm_from_denoised
from refdiff.errors import BadRequest
from refdiff.samplers import from_config
from refdiff.samplers.lcm import consistency
from tests.samplers.test_laws import DEVIATION, MEAN, flow, gaussian, latent
from tests.samplers.test_p import assert_like_the_data, unit

EULER = {"_class_name": "EDMEulerScheduler"}
DPM = {"_class_name": "EDMDPMSolverMultistepScheduler"}
CM = {"_class_name": "CMStochasticIterativeScheduler", "num_train_timesteps": 1000}
UNCLIP = {"_class_name": "UnCLIPScheduler", "clip_sample": False}
SDE = {**DPM, "algorithm_type": "sde-dpmsolver++"}


def network(sign):
    """The output that makes the exact denoiser, from a network's input and a quarter of the logarithm of sigma."""

    def output(seen, t):
        sigma = math.exp(4 * t)
        x = seen * math.hypot(sigma, 0.5)
        return sign * edm_from_denoised(x, gaussian(x, sigma), sigma, 0.5)

    return output


@pytest.mark.parametrize("config", [EULER, DPM, {**DPM, "solver_order": 3}, SDE], ids=str)
@pytest.mark.parametrize(("kind", "sign"), [("epsilon", 1.0), ("v_prediction", -1.0)])
def test_edm_comes_to_the_data(config, kind, sign):
    sampler = from_config({**config, "prediction_type": kind})
    end = sampler.sample(network(sign), unit(5), 200, noise=stream("numpy", 6))
    assert_like_the_data(end, slack=0.03)


def test_a_third_order_with_noise_is_refused():
    with pytest.raises(BadRequest, match="no solver_order 3"):
        from_config({**SDE, "solver_order": 3}).sigmas(5)


@pytest.mark.parametrize("n", [1, 2, 5])
def test_a_consistency_function_needs_few_steps(n):
    sigmas = [*np.geomspace(20.0, 0.5, n).tolist(), 0.0]
    x = MEAN + unit(5) * math.sqrt(sigmas[0] ** 2 + DEVIATION**2)
    end = list(consistency(lambda x, s: flow(x, s, 0.0), x, sigmas, up=sigmas[1:], noise=stream("numpy", 6)))[-1].x
    assert_like_the_data(end, slack=0.005)


def test_a_consistency_model_is_not_heard_at_sigma_min():
    sampler = from_config({**CM, "clip_denoised": False})
    x = latent(3)
    kept = sampler.family.network(sampler.config)
    least = sampler.config["sigma_min"]
    np.testing.assert_allclose(kept.denoised(x * kept.scale(least), np.full_like(x, 9.0), least), x, rtol=1e-12)


def test_one_step_of_unclip_is_at_the_last_time():
    sampler = from_config(UNCLIP)
    assert sampler.timesteps(1).tolist() == [999]
    assert sampler.timesteps(4).tolist() == [999, 666, 333, 0]
