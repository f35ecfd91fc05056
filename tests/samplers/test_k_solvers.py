"""k-diffusion's solvers: order, mean and variance, what they draw, restarts, and the shortest runs."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest

from refdiff.diffusion import ramps
from refdiff.diffusion.brownian import BrownianStream
from refdiff.diffusion.noise import stream
from refdiff.errors import RefdiffError
from refdiff.samplers import from_config
from refdiff.samplers.ancestral import down_and_up
from refdiff.samplers.churn import raised
from refdiff.samplers.dpm2 import dpm2, dpm2_with_churn
from refdiff.samplers.dpm_adaptive import K_DIFFUSION, dpm_adaptive
from refdiff.samplers.dpm_fast import dpm_fast, fast_plan
from refdiff.samplers.dpm_multistep import slope_by_half, slope_by_interpolation
from refdiff.samplers.dpmpp_2s_ancestral import dpmpp_2s_ancestral
from refdiff.samplers.dpmpp_multistep import dpmpp_2m, dpmpp_2m_sde, dpmpp_3m_sde, orders_up_to
from refdiff.samplers.dpmpp_sde import dpmpp_sde, intervals
from refdiff.samplers.euler_with_churn import euler_with_churn
from refdiff.samplers.heun import heun, heun_with_churn
from refdiff.samplers.restart import Interval, restart, webui_plan, with_restarts
from refdiff.samplers.schedulers.k_diffusion import K_FAMILIES
from refdiff.xp import array_module
from tests.device.compare import assert_same, run_on_device
from tests.samplers.cases import SCALED
from tests.samplers.test_laws import DEVIATION, MEAN, Counted, Refuses, flow, gaussian, latent


def two_s(denoise, x, sigmas, *, eta, s_noise, noise):
    downs, ups = zip(*(down_and_up(a, b, eta=eta) for a, b in itertools.pairwise(sigmas)), strict=True)
    return dpmpp_2s_ancestral(denoise, x, sigmas, downs=downs, ups=ups, s_noise=s_noise, noise=noise)


def restarted(denoise, x, sigmas, *, s_noise, noise):
    plan, begins = with_restarts(sigmas, [Interval(low=0.1, high=2.0, levels=40, times=2)])
    return restart(denoise, x, plan, begins=begins, s_noise=s_noise, noise=noise)


def fast(denoise, x, sigmas, **more):
    """As many calls as give whole steps of order 3, and one of order 2."""
    return dpm_fast(denoise, x, sigmas, calls=3 * (len(sigmas) - 1) + 2, **more)


FINE = replace(K_DIFFUSION, relative=1e-3, absolute=1e-4)


def adaptive(denoise, x, sigmas, *, order=3, control=FINE, **more):
    return dpm_adaptive(denoise, x, sigmas, order=order, control=control, **more)


CHURN = {"s_churn": 40.0, "s_tmin": 0.05, "s_tmax": 10.0, "s_noise": 1.0}
NOISY = {"eta": 1.0, "s_noise": 1.0}
RANDOM = {
    "euler": (euler_with_churn, {**CHURN, "s_churn": 20.0}), "heun": (heun_with_churn, CHURN), "dpm2": (dpm2_with_churn, CHURN),
    "2s": (two_s, NOISY), "sde": (dpmpp_sde, {**NOISY, "r": 0.5}), "sde r": (dpmpp_sde, {"eta": 0.5, "s_noise": 1.0, "r": 0.3}),
    "2m sde": (dpmpp_2m_sde, {**NOISY, "slope": slope_by_half}),
    "2m sde heun": (dpmpp_2m_sde, {"eta": 0.5, "s_noise": 1.0, "slope": slope_by_interpolation}),
    "3m sde": (dpmpp_3m_sde, NOISY), "fast": (fast, NOISY), "adaptive": (adaptive, NOISY),
    "restart": (restarted, {"s_noise": 1.0}),
}  # fmt: skip
random = pytest.mark.parametrize("name", RANDOM)


def run(name, denoise, x, sigmas, noise, **other):
    solver, settings = RANDOM[name]
    return list(solver(denoise, x, sigmas, **{**settings, **other}, noise=noise))


def quiet(name, x, sigmas, **other):
    still = {"s_churn": 0.0} if "s_churn" in RANDOM[name][1] else {"eta": 0.0}
    return run(name, gaussian, x, sigmas, Refuses(), **still, **other)


# Order 3 of "3m sde" is 2, as that of DPM-Solver in several steps: half of the curvature is missing.
ORDERS = [
    ("euler", 1), ("heun", 2), ("dpm2", 2), ("2s", 2), ("sde", 2), ("sde r", 2), ("2m sde", 2), ("2m sde heun", 2),
    ("3m sde", 2), ("fast", 3), ("2m", 2),
]  # fmt: skip


@pytest.mark.parametrize(("name", "expected"), ORDERS)
def test_order_of_convergence(name, expected):
    """Without noise, in equal steps of sigma; "fast" has its own."""
    x, errors = np.linspace(-2.0, 2.0, 9) * 3.0, []
    for n in (80, 160):
        sigmas = np.linspace(3.0, 0.3, n + 1).tolist()
        taken = list(dpmpp_2m(gaussian, x, sigmas)) if name == "2m" else quiet(name, x, sigmas)
        errors.append(float(np.max(np.abs(taken[-1].x - flow(x, 3.0, 0.3)))))
    assert abs(math.log2(errors[0] / errors[1]) - expected) < 0.15 and errors[1] < 0.05


@pytest.mark.parametrize("order", [2, 3])
def test_adaptive_errors_follow_the_tolerance(order):
    x, errors, counts = np.linspace(-2.0, 2.0, 9) * 14.0, [], []
    for tolerance in (1e-2, 1e-4, 1e-6):
        control = replace(K_DIFFUSION, relative=tolerance, absolute=tolerance)
        taken = quiet("adaptive", x, [14.0, 0.02, 0.0], order=order, control=control)
        assert taken[-1].sigma == 0.02
        errors.append(float(np.max(np.abs(taken[-1].x - flow(x, 14.0, 0.02)))))
        counts.append(len(taken))
    assert errors[0] > errors[1] > errors[2] and errors[2] < 1e-4
    assert counts == sorted(counts) and counts[2] / counts[1] > 2.0


def test_adaptive_tries_again_and_stops_at_what_is_no_number():
    asked, control = [], replace(K_DIFFUSION, first=5.0)
    x = latent(2) * 14.0
    taken = list(adaptive(lambda x, s: asked.append(s) or gaussian(x, s), x, [14.0, 0.02], control=control, **STILL))
    assert len(asked) > 3 * len(taken) - 1 and asked.count(14.0) == 1  # a slope that is known is not asked for again
    with pytest.raises(RefdiffError, match="at sigma 14 is not a number"):
        list(adaptive(lambda x, s: x * math.nan, x, [14.0, 0.02], **STILL))


STILL = {"eta": 0.0, "s_noise": 1.0, "noise": None}


@random
def test_noise_keeps_the_mean_and_the_variance(name):
    """Of 10,000 numbers, within four standard errors and what the steps leave over, with Euler's more than with others."""
    count, sigmas = 10_000, [*np.geomspace(14.0, 0.02, 400 if name == "euler" else 100).tolist(), 0.0]
    x = stream("numpy", 5).normal((count,)).astype(np.float64) * math.sqrt(14.0**2 + DEVIATION**2) + MEAN
    end = run(name, gaussian, x, sigmas, stream("numpy", 6))[-1].x
    assert abs(end.mean() - MEAN) < 4 * DEVIATION / count**0.5 + 0.01
    assert abs(end.var() / DEVIATION**2 - 1.0) < 4 * (2 / count) ** 0.5 + 0.03
    assert np.corrcoef(x, end)[0, 1] < 0.9


@random
@pytest.mark.parametrize("sigmas", [[3.0, 0.0], [3.0, 0.5], [3.0, 0.5, 0.0]])
def test_the_shortest_runs(name, sigmas):
    """To sigma 0 a known picture is found; "fast" and "adaptive" stop before."""
    x0, x = latent(4), latent(5) * 3.0
    taken = run(name, lambda x, s: x0, x, sigmas, stream("numpy", 1))
    assert all(np.all(np.isfinite(step.x)) for step in taken)
    if name in ("fast", "adaptive"):
        assert taken[-1].sigma == [s for s in sigmas if s][-1]
    elif sigmas[-1] == 0.0:
        np.testing.assert_allclose(taken[-1].x, x0, rtol=0, atol=1e-12)


@random
def test_the_same_seed_twice_is_bit_equal_in_float32(name):
    x, sigmas = latent(3, np.float32) * np.float32(14.0), [*np.geomspace(14.0, 0.1, 6).tolist(), 0.0]
    before = x.copy()
    x.flags.writeable = False
    ends = [run(name, gaussian, x, sigmas, stream("torch", 3))[-1].x for _ in range(2)]
    np.testing.assert_array_equal(*ends)
    assert ends[0].dtype == np.float32 and np.array_equal(x, before)


@random
def test_on_the_device(name):
    """Only noise goes over, and back only what "adaptive" must know."""
    sigmas, x = [*np.geomspace(14.0, 0.1, 6).tolist(), 0.0], latent(3, np.float32)

    def bent(x, sigma):
        return array_module(x).tanh(x / (1.0 + sigma)) + 0.2

    def last(x):
        return run(name, bent, x, sigmas, stream("numpy", 3))[-1].x

    device, crossed = run_on_device(last, x)
    assert_same(device, last(x))
    assert (crossed.to_host > 0) == (name == "adaptive") and crossed.to_device > 0


def test_what_is_drawn():
    """SDE solvers do not draw to sigma 0, churn draws for every step of a run, "sde" draws twice a step."""
    sigmas = [*np.geomspace(14.0, 0.1, 6).tolist(), 0.0]
    expected = {"euler": 6, "heun": 6, "dpm2": 6, "2s": 5, "sde": 10, "2m sde": 5, "3m sde": 5, "restart": 2}
    for name, count in expected.items():
        source = Counted(1)
        run(name, gaussian, latent(1), sigmas, source)
        assert source.draws == count, name


def test_without_churn_they_are_the_plain_ones():
    sigmas, x = [*np.geomspace(14.0, 0.1, 6).tolist(), 0.0], latent(1) * 14.0
    middles = [math.sqrt(a * b) for a, b in itertools.pairwise(sigmas)]
    plain = {"heun": heun(gaussian, x, sigmas), "dpm2": dpm2(gaussian, x, sigmas, middles=middles)}
    for name, steps in plain.items():
        np.testing.assert_array_equal(quiet(name, x, sigmas)[-1].x, list(steps)[-1].x)


def test_churn_asks_at_the_sigma_that_the_noise_leads_to():
    sigmas, asked = [14.0, 5.0, 1.0, 0.01, 0.0], []
    run("euler", lambda x, s: asked.append(s) or gaussian(x, s), latent(1), sigmas, stream("numpy", 1))
    gain = math.sqrt(2.0)
    np.testing.assert_allclose(asked, [14.0, 5.0 * gain, 1.0 * gain, 0.01])
    assert raised(sigmas, steps=40, s_churn=4.0, s_tmin=0.0, s_tmax=math.inf) == pytest.approx([15.4, 5.5, 1.1, 0.011])


@pytest.mark.parametrize(
    ("calls", "orders"), [(1, [1]), (2, [2]), (3, [2, 1]), (4, [3, 1]), (5, [3, 2]), (6, [3, 2, 1]), (10, [3, 3, 3, 1])]
)
def test_fast_makes_as_many_calls_as_it_is_given(calls, orders):
    levels, found = fast_plan(14.0, 0.02, calls)
    assert found == orders and (levels[0], levels[-1]) == (14.0, 0.02)
    np.testing.assert_allclose(levels, np.geomspace(14.0, 0.02, len(orders) + 1))
    asked = []
    list(dpm_fast(lambda x, s: asked.append(s) or gaussian(x, s), latent(1), [14.0, 0.02, 0.0], calls=calls, **STILL))
    assert len(asked) == calls


@pytest.mark.parametrize("name", K_FAMILIES)
def test_by_default_the_model_is_stable_diffusions(name):
    """k-diffusion's functions know no model: a file that says nothing has its betas."""
    plain = {"_class_name": K_FAMILIES[name].class_name}
    said = from_config({**plain, **SCALED, "num_train_timesteps": 1000, "prediction_type": "epsilon", "schedule": "uniform"})
    np.testing.assert_array_equal(from_config(plain).alphas, said.alphas)
    np.testing.assert_array_equal(from_config(plain).sigmas(25), said.sigmas(25))
    assert from_config(plain).config == said.config


def test_orders_up_to():
    assert orders_up_to(3, [5.0, 4.0, 3.0, 2.0, 0.0]) == [1, 2, 3, 1]
    assert orders_up_to(2, [5.0, 4.0, 3.0, 2.0]) == [1, 2, 2]


def test_down_and_up():
    assert down_and_up(3.0, 1.0, eta=0.0) == (1.0, 0.0)
    down, up = down_and_up(3.0, 1.0, eta=1.0)
    assert down == pytest.approx(1.0 / 3.0) and down**2 + up**2 == pytest.approx(1.0)
    assert down_and_up(3.0, 0.0, eta=1.0) == (0.0, 0.0)


def test_sde_follows_one_brownian_path():
    """Its two draws of a step belong together: that of the whole step is the half's and what comes after it."""
    sigmas, x = [9.0, 3.0, 1.0], latent(1)[:1] * 9.0
    ways = intervals(sigmas, r=0.5)
    np.testing.assert_allclose(ways, [(9.0, math.sqrt(27.0)), (9.0, 3.0), (3.0, math.sqrt(3.0)), (3.0, 1.0)])
    assert intervals([9.0, 3.0, 0.0], r=0.5) == ways[:2]
    noises = [BrownianStream.over([7], x.shape[1:], ways) for _ in range(2)]
    one, other = (run("sde", gaussian, x, sigmas, noise)[-1].x for noise in noises)
    np.testing.assert_array_equal(one, other)
    draws = BrownianStream.over([7], (20_000,), ways)
    half, whole = (draws.normal((1, 20_000)) for _ in range(2))
    assert np.corrcoef(half[0], whole[0])[0, 1] == pytest.approx(math.sqrt((9.0 - math.sqrt(27.0)) / 6.0), abs=0.01)


def test_restarts_go_down_the_same_way_again():
    ends, begins = with_restarts([8.0, 4.0, 2.0, 1.0, 0.0], [Interval(low=1.2, high=3.8, levels=3, times=2)])
    middle = float(ramps.karras(3, low=1.0, high=4.0, rho=7.0)[1])
    assert ends == pytest.approx([8.0, 4.0, 2.0, 1.0, middle, 1.0, middle, 1.0, 0.0])
    assert begins == pytest.approx([8.0, 4.0, 2.0, 4.0, middle, 4.0, middle, 1.0])
    assert with_restarts([8.0, 4.0, 2.0], [Interval(low=3.9, high=4.1, levels=3, times=2)]) == ([8.0, 4.0, 2.0], [8.0, 4.0])


@pytest.mark.parametrize(("steps", "times"), [(1, 0), (19, 0), (20, 1), (35, 1), (36, 2), (50, 2)])
def test_the_webuis_plan_has_as_many_steps_as_asked_for(steps, times):
    sigmas = [*ramps.karras(steps, low=0.03, high=14.6, rho=7.0).tolist(), 0.0]
    ends, begins = webui_plan(sigmas)
    assert (len(ends) - 1, len(begins), ends[0], ends[-1]) == (steps, steps, sigmas[0], 0.0)
    up = [i for i in range(steps) if begins[i] > ends[i]]
    assert len(up) == times and (times or (ends, begins) == (sigmas, sigmas[:-1]))
