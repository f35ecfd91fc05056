"""iPNDM, DPM-Solver SDE, SA-Solver, the variance-exploding SDE, RePaint: their laws, quirks, and what upstream cannot do."""

from __future__ import annotations

import math

import numpy as np
import pytest

from refdiff.diffusion.noise import stream
from refdiff.errors import BadRequest
from refdiff.samplers import from_config
from refdiff.samplers.ipndm import ipndm
from refdiff.samplers.sa_solver import DATA, NOISE, integrals, sa_solver
from refdiff.samplers.woven import Woven
from tests.samplers.cases import LINEAR, SCALED
from tests.samplers.test_laws import DEVIATION, MEAN, Counted, Refuses, bend, flow, gaussian, latent

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


SDE = {"_class_name": "DPMSolverSDEScheduler", **SCALED}
SA = {"_class_name": "SASolverScheduler", **SCALED}
SCORE = {"_class_name": "ScoreSdeVeScheduler", "sigma_max": 50.0}
REPAINT = {"_class_name": "RePaintScheduler", **LINEAR}
PICTURE, MASK = latent(3), (latent(4)[:, :1] > 0.0).astype(np.float64)
FILLING = {"original_image": PICTURE, "mask": MASK}


def of_gaussian(sigmas, orders, scheme, tau, x, noise, corrector):
    """SA-Solver on Gaussian data."""
    n = len(sigmas) - 1
    up_to = np.minimum(np.arange(1, n + 1), orders).tolist()
    corrections = np.minimum(np.arange(1, n + 1), corrector).tolist()
    return sa_solver(
        gaussian, x, sigmas, orders=up_to, corrections=corrections, taus=[tau] * n, scheme=scheme, noise=noise
    )  # fmt: skip


@pytest.mark.parametrize(("order", "corrector", "expected"), [(1, 1, 1), (3, 1, 1), (1, 2, 2), (2, 2, 2), (2, 3, 3), (3, 3, 3)])
@pytest.mark.parametrize("scheme", [DATA, NOISE])
def test_order_of_sa_solver(scheme, order, corrector, expected):
    """Without noise: that of the corrector, which takes every step again; the first steps are too short to matter."""
    errors = []
    for n in (256, 512):
        h = math.log(10.0) / n
        sigmas = (3.0 * np.exp(-np.append([0.0, h**2], np.linspace(2.0 * h**2, math.log(10.0), n)))).tolist()
        x = np.linspace(-2.0, 2.0, 9) * 3.0
        end = list(of_gaussian(sigmas, order, scheme, 0.0, x, None, corrector))[-1].x
        errors.append(float(np.max(np.abs(end - flow(x, 3.0, sigmas[-1])))))
    assert math.log2(errors[0] / errors[1]) > expected - 0.15, errors
    assert errors[1] < 0.02


@pytest.mark.parametrize("tau", [0.5, 1.0, 1.4])
@pytest.mark.parametrize("scheme", [DATA, NOISE])
def test_sa_solver_keeps_the_mean_and_the_variance(scheme, tau):
    sigmas = np.geomspace(40.0, 0.02, 161).tolist()
    x = MEAN + stream("numpy", 1).normal((20000,)).astype(np.float64) * math.hypot(40.0, DEVIATION)
    end = list(of_gaussian(sigmas, 2, scheme, tau, x, stream("numpy", 2), 2))[-1].x
    assert np.mean(end) == pytest.approx(MEAN, abs=0.03)
    assert np.std(end) == pytest.approx(DEVIATION, abs=0.03)


@pytest.mark.parametrize("rate", [-2.0, 1.0, -1.0])
def test_integrals_are_exact(rate):
    """Of every power that has a level to stand on: exp(rate (h - u)) u^j over [0,h], by parts."""
    begin, end, levels = 3.0, 1.0, [3.0, 4.0, 5.5]
    h, found = math.log(3.0), integrals([3.0, 4.0, 5.5], 3.0, 1.0, rate)
    exact = [math.expm1(rate * h) / rate]
    exact += [(exact[0] - h) / rate]
    exact += [(2.0 * exact[1] - h**2) / rate]
    for power, wanted in enumerate(exact):
        got = sum(w * math.log(begin / level) ** power for w, level in zip(found, levels, strict=True))
        assert got == pytest.approx(wanted, rel=1e-12) and end == 1.0


def test_tau_is_a_number_or_one_for_each_training_time():
    base = from_config(SA)
    window = ((np.arange(1000) >= 200) & (np.arange(1000) <= 800)).astype(float)
    same = from_config(SA, settings={"tau": window})
    runs = [s.sample(bend, latent(1), 6, noise=stream("numpy", 2)) for s in (base, same)]
    np.testing.assert_array_equal(*runs)
    still = from_config(SA, settings={"tau": 0.0})
    still.sample(bend, latent(1), 6, noise=Refuses())
    np.testing.assert_array_equal(still.sample(bend, latent(1), 6), still.sample(bend, latent(1), 6))
    for tau in (-1.0, np.ones(7), "always", [[1.0]]):
        with pytest.raises(BadRequest, match="tau must be a number"):
            from_config(SA, settings={"tau": tau}).sigmas(5)


def test_sa_solver_takes_what_upstream_cannot():
    """Thresholding where noise is integrated; no correction by an order that is none."""
    options = {"algorithm_type": "noise_prediction", "thresholding": True}
    assert np.all(np.isfinite(from_config({**SA, **options}).sample(bend, latent(1), 5, noise=stream("numpy", 1))))
    with pytest.raises(BadRequest, match="corrector_order"):
        from_config({**SA, "corrector_order": 0})


def test_noises_of_one_path():
    """Over [b,a] the noise is that over [m,a] and that over [b,m], each by the root of its share; all have variance 1."""
    given, ways = Counted(1), [(4.0, 3.0), (4.0, 1.0), (1.0, 0.5)]
    woven = Woven(given, ways)
    first, second, third = (woven.normal((40000,)).astype(np.float64) for _ in ways)
    assert given.draws == 3
    assert np.mean(first * second) == pytest.approx((1.0 / 3.0) ** 0.5, abs=0.02)
    for noise in (first, second, third):
        assert np.std(noise) == pytest.approx(1.0, abs=0.02)
    assert abs(np.mean(second * third)) < 0.02


def test_score_sde_ends_at_the_mean():
    """Nothing is drawn on the last way down: a network that knows the picture leads to it."""
    sampler, given, x0 = from_config({**SCORE, "sampling_eps": 1e-6}), Counted(1), latent(3)
    end = sampler.sample(lambda x, sigma: (x0 - x) / sigma**2, latent(5), 10, noise=given)
    assert given.draws == 10 + 9
    np.testing.assert_allclose(end, x0, rtol=0, atol=1e-3)
    told = []
    sampler.sample(lambda x, sigma: told.append(sigma) or -x, latent(5), 3, noise=given)
    np.testing.assert_array_equal(told, np.repeat(sampler.sigmas(3)[:-1], 2))
    with pytest.raises(BadRequest, match="must be below"):
        from_config({**SCORE, "sigma_min": 60.0})


def test_repaint_keeps_what_the_mask_says():
    sampler = from_config(REPAINT, settings={**FILLING, "jump_length": 2, "jump_n_sample": 2})
    taken = list(sampler.iterate(bend, latent(1), 6, noise=stream("numpy", 1)))
    assert len(taken) == len(sampler.timesteps(6)) == len(sampler.sigmas(6)) - 1 == 14
    assert np.any(np.diff(sampler.sigmas(6)) > 0)
    np.testing.assert_allclose(MASK * taken[-1].x, MASK * PICTURE, rtol=0, atol=1e-12)
    assert np.all((1.0 - MASK) * taken[-1].x <= 1.0)


@pytest.mark.parametrize("missing", [{}, {"mask": MASK}, {"original_image": PICTURE}])
def test_repaint_needs_a_picture_and_a_mask(missing):
    with pytest.raises(BadRequest, match="original_image and mask"):
        from_config(REPAINT, settings=missing).sample(bend, latent(1), 3, noise=stream("numpy", 1))


@pytest.mark.parametrize("jumps", [{"jump_length": 0}, {"jump_n_sample": 1.5}])
def test_jumps_are_whole_numbers(jumps):
    with pytest.raises(BadRequest, match="whole number from 1 on"):
        from_config(REPAINT, settings={**FILLING, **jumps}).sigmas(5)


def test_repaint_is_for_networks_that_predict_noise():
    with pytest.raises(BadRequest, match="predict noise"):
        from_config({"_class_name": "DDIMScheduler", "prediction_type": "v_prediction"}, name="repaint")
    with pytest.raises(BadRequest, match="eta"):
        from_config({**REPAINT, "eta": 2.0})
