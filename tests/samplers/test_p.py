"""DDPM, inversion, PNDM's Runge-Kutta start, consistency: laws, and what upstream cannot do."""

from __future__ import annotations

import math

import numpy as np
import pytest

from refdiff.diffusion.noise import stream
from refdiff.diffusion.prediction import signal_and_noise, v_from_denoised
from refdiff.errors import BadRequest
from refdiff.samplers import from_config
from refdiff.samplers.ddpm import ddpm, largest, learned, learned_range, smallest
from refdiff.samplers.inversion import inversion
from refdiff.samplers.lcm import lcm, tcd
from refdiff.samplers.pndm import prk_plms, said_noise
from refdiff.samplers.schedulers.pndm import said_velocity
from tests.samplers.test_laws import DEVIATION, MEAN, Refuses, bend, flow, gaussian, latent, network_of_gaussian, pair
from tests.samplers.test_options import BETAS

DDPM = {"_class_name": "DDPMScheduler", **BETAS, "clip_sample": False, "timestep_spacing": "trailing"}
PNDM = {"_class_name": "PNDMScheduler", **BETAS, "prediction_type": "v_prediction"}
INVERSE = {"_class_name": "DDIMInverseScheduler", **BETAS, "clip_sample": False}
TCD = {"_class_name": "TCDScheduler", **BETAS}
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


def solved(solver, n, **given):
    """The error of n equal steps from sigma 3 to 0.3, and with which name the solver takes them."""
    sigmas = np.linspace(3.0, 0.3, n + 1).tolist()
    x = np.linspace(-2.0, 2.0, 9) * 3.0
    end = list(solver(pair, x, sigmas, targets=sigmas[1:], **{k: f(sigmas) for k, f in given.items()}))[-1].x
    return float(np.max(np.abs(end - flow(x, 3.0, 0.3))))


def middles_of(sigmas):
    return [(s + r) / 2 for s, r in zip(sigmas, sigmas[1:], strict=False)]


def test_the_runge_kutta_start_makes_pndm_fourth_order():
    given = {"halves": middles_of, "middles": middles_of, "noise_of": lambda s: said_noise}
    errors = [solved(prk_plms, n, **given) for n in (640, 1280)]
    assert abs(math.log2(errors[0] / errors[1]) - 4.0) < 0.15, errors


def test_velocities_may_be_averaged_too():
    """What the network says of other sigmas is turned into noise by this one's, and still each step is of its order."""

    def predict(x, sigma):
        a, s = signal_and_noise(sigma)
        return gaussian(x, sigma), v_from_denoised(a * x, gaussian(x, sigma), a, s)

    errors = []
    for n in (160, 320):
        sigmas = np.linspace(3.0, 0.3, n + 1).tolist()
        middles, x = middles_of(sigmas), np.linspace(-2.0, 2.0, 9) * 3.0
        policy = {"targets": sigmas[1:], "halves": middles, "middles": middles, "noise_of": said_velocity}
        errors.append(float(np.max(np.abs(list(prk_plms(predict, x, sigmas, **policy))[-1].x - flow(x, 3.0, 0.3)))))
    assert errors[1] < errors[0] / 1.9 and errors[1] < 0.02, errors


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_pndm_begins_with_three_steps_by_runge_and_kutta(steps):
    sampler = from_config({**PNDM, "skip_prk_steps": False})
    for use in (sampler.timesteps, sampler.sigmas, lambda n: sampler.sample(bend, latent(1), n)):
        with pytest.raises(BadRequest, match=f"so {steps} are too few.*skip_prk_steps"):
            use(steps)
    assert len(sampler.timesteps(4)) == 13 and len(sampler.sigmas(4)) == 5


def test_a_start_part_way_has_a_runge_kutta_start_too():
    sampler = from_config({**PNDM, "skip_prk_steps": False}, table="float64")
    taken = list(sampler.iterate(bend, latent(3), 10, start=7))
    assert [step.index for step in taken] == [7, 8, 9]
    assert all(np.isfinite(step.x).all() for step in taken)


def test_inversion_is_ddim_backwards():
    """From a picture up and down again, nearer with more steps; of first order."""
    errors = []
    for steps in (50, 100, 200):
        up = from_config(INVERSE, table="float64")
        down = from_config({**INVERSE, "_class_name": "DDIMScheduler"}, table="float64")
        noisy = up.sample(bend, latent(4), steps)
        errors.append(float(np.abs(down.sample(bend, noisy, steps) - latent(4)).max()))
    assert errors[0] > 1.8 * errors[1] > 3.2 * errors[2], errors


def test_inversion_goes_up_the_exact_flow():
    errors = [solved(lambda p, x, s, targets: inversion(p, x, s, targets=targets), n) for n in (80, 160)]
    assert abs(math.log2(errors[0] / errors[1]) - 1.0) < 0.05, errors


def test_a_picture_without_noise_says_nothing_about_its_noise():
    with pytest.raises(BadRequest, match="set_alpha_to_one false"):
        from_config({**INVERSE, "prediction_type": "sample"}).sigmas(10)
    assert from_config({**INVERSE, "prediction_type": "sample", "set_alpha_to_one": False}).sigmas(10)[0] > 0.0


@pytest.mark.parametrize("n", [1, 2, 5])
def test_a_consistency_function_needs_few_steps(n):
    """The exact one gives the data's mean and variance in any number of steps."""
    sigmas = [*np.geomspace(20.0, 0.5, n).tolist(), 0.0]
    x = MEAN + unit(5) * math.sqrt(sigmas[0] ** 2 + DEVIATION**2)
    whole = {"taken": [1.0] * n, "kept": [0.0] * n}
    end = list(lcm(lambda x, s: flow(x, s, 0.0), x, sigmas, noise=stream("numpy", 6), **whole))[-1].x
    assert_like_the_data(end, slack=0.005)


@pytest.mark.parametrize("eta", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("n", [1, 2, 5])
def test_so_does_a_trajectory_function(n, eta):
    """TCD with the exact end of the flow from every sigma to its target."""
    sigmas = [*np.geomspace(20.0, 0.5, n).tolist(), 0.0]
    targets = [(1.0 - eta) * s for s in sigmas[1:]]
    goes = dict(zip(sigmas, targets, strict=False))
    x = MEAN + unit(5) * math.sqrt(sigmas[0] ** 2 + DEVIATION**2)
    source = Refuses() if eta == 0.0 else stream("numpy", 6)
    end = list(tcd(lambda x, s: (flow(x, s, goes[s]), 0.0), x, sigmas, targets=targets, eta=eta, noise=source))[-1].x
    assert_like_the_data(end, slack=0.005)


def test_the_target_of_tcd_is_the_next_time_shortened():
    """Rounded down after a product in float32: 0.7 times 90 is 63 there, and less in float64."""
    sampler = from_config({**TCD, "original_inference_steps": 1000}, eta=0.3, table="float64")
    targets = sampler.family.grid({**sampler.config, **sampler.settings}, sampler.alphas, 4).policy["targets"]
    np.testing.assert_allclose(1 / (1 + targets**2), sampler.alphas[[524, 349, 174, 0]], rtol=1e-12)


def test_tcd_without_eta_draws_nothing():
    sampler = from_config(TCD, eta=0.0)
    np.testing.assert_array_equal(sampler.sample(bend, latent(1), 4), sampler.sample(bend, latent(1), 4, noise=Refuses()))
    with pytest.raises(BadRequest, match="needs noise"):
        from_config(TCD).sample(bend, latent(1), 4)


@pytest.mark.parametrize("class_name", ["LCMScheduler", "TCDScheduler"])
def test_no_more_steps_than_were_distilled(class_name):
    config = {**TCD, "_class_name": class_name}
    with pytest.raises(BadRequest, match="51 steps cannot be made of original_inference_steps 50"):
        from_config(config).timesteps(51)
    with pytest.raises(BadRequest, match="original_inference_steps 1001 is above num_train_timesteps 1000"):
        from_config({**config, "original_inference_steps": 1001}).timesteps(4)


STOCHASTIC = [
    DDPM, {**DDPM, "variance_type": "fixed_large"}, {**TCD, "original_inference_steps": 1000},
    {**TCD, "_class_name": "LCMScheduler", "original_inference_steps": 1000},
]  # fmt: skip


@pytest.mark.parametrize("config", STOCHASTIC, ids=lambda c: c["_class_name"])
@pytest.mark.parametrize("steps", [1, 2, 50])
def test_the_same_seed_twice(config, steps):
    x = latent(2, np.float32)
    first, second, third = (from_config(config).sample(bend, x, steps, noise=stream("numpy", seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, second)
    assert first.dtype == np.float32 and np.isfinite(first).all()
    assert steps == 1 or not np.array_equal(first, third)


@pytest.mark.parametrize("config", [*STOCHASTIC, INVERSE, {**PNDM, "skip_prk_steps": False}], ids=lambda c: c["_class_name"])
def test_a_thousand_steps(config):
    end = from_config(config).sample(bend, latent(2, np.float32), 1000, noise=stream("numpy", 1))
    assert np.isfinite(end).all()
