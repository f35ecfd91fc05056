"""What holds for a sampler whatever the network: laws, and Gaussian data, whose exact flow is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refdiff.diffusion.limit import unlimited
from refdiff.diffusion.noise import stream
from refdiff.samplers import from_config
from refdiff.samplers.ddim import ddim
from refdiff.samplers.euler import euler, same_noise
from refdiff.samplers.pndm import plms, said_noise
from tests.samplers.test_options import PLAIN

names = st.sampled_from(sorted(PLAIN))
spacings = st.sampled_from(["leading", "trailing", "linspace"])
steps_of_any_number = st.integers(1, 60)
seeds = st.integers(0, 2**32 - 1)
every_name = pytest.mark.parametrize("name", PLAIN)


def sampler_of(name, spacing="trailing", table="float64", eta=None, **options):
    to_one = {} if name == "euler" else {"set_alpha_to_one": True}
    return from_config({**PLAIN[name], "timestep_spacing": spacing, **to_one, **options}, table=table, eta=eta)


def latent(seed, dtype=np.float64):
    return np.random.Generator(np.random.PCG64(seed)).standard_normal((2, 4, 3, 5), dtype=dtype)


def bend(x, t):
    """A network's stand-in, not linear."""
    return np.tanh(x * 0.7 + 0.3 * math.sin(t / 150)) * 0.9 + 0.1 * x


def knowing(x0, sampler):
    """The network that has learnt one picture: its answer is the true noise, or the true velocity."""
    velocity = sampler.config["prediction_type"] == "v_prediction"

    def network(x, t):
        alpha = np.interp(t, np.arange(1000), sampler.alphas)
        if not sampler.family.variance_preserving:  # Euler interpolates sigma, not alpha
            alpha = 1.0 / (1.0 + np.interp(t, np.arange(1000), np.sqrt(1.0 / sampler.alphas - 1.0)) ** 2)
        a, s = math.sqrt(alpha), math.sqrt(1.0 - alpha)
        return (a * x - x0) / s if velocity else (x - a * x0) / s

    return network


class Counted:
    """A stream that counts its draws."""

    def __init__(self, seed):
        self.source, self.draws = stream("numpy", seed), 0

    def normal(self, shape):
        self.draws += 1
        return self.source.normal(shape)


class Refuses:
    """A stream that must not be asked."""

    def normal(self, shape):
        raise AssertionError("it drew noise")


def assert_leads_to(x0, sampler, steps, seed):
    """Every step sees the picture, and a run whose last sigma is 0 ends there.

    DDIM's trailing runs may stop at time 0 and not before it, where the steps do not divide the training times.
    """
    taken = list(sampler.iterate(knowing(x0, sampler), latent(seed + 1), steps, noise=stream("numpy", seed)))
    for step in taken:
        np.testing.assert_allclose(step.denoised, x0, rtol=0, atol=1e-9)
    if taken[-1].sigma == 0.0:
        np.testing.assert_allclose(taken[-1].x, x0, rtol=0, atol=1e-9)
    else:
        assert sampler.config["timestep_spacing"] == "trailing" and 1000 % steps


@given(st.sampled_from(["ddim", "euler"]), spacings, steps_of_any_number, seeds, st.booleans())
def test_the_true_noise_of_a_picture_leads_to_it(name, spacing, steps, seed, velocity):
    options = {"prediction_type": "v_prediction"} if velocity else {}
    assert_leads_to(latent(seed), sampler_of(name, spacing, **options), steps, seed)


@given(steps_of_any_number, seeds)
def test_plms_leads_to_it_too(steps, seed):
    """With leading, its native spacing; with others upstream's first step begins at a time that it was never at."""
    assert_leads_to(latent(seed), sampler_of("pndm", "leading"), steps, seed)


@pytest.mark.parametrize("eta", [0.5, 1.0])
@given(st.integers(1, 40), spacings, seeds)
def test_so_it_does_with_fresh_noise(eta, steps, spacing, seed):
    assert_leads_to(latent(seed), sampler_of("ddim", spacing, eta=eta), steps, seed)


@given(steps_of_any_number, seeds)
def test_eta_0_draws_nothing(steps, seed):
    x, network = latent(seed, np.float32), bend
    plain = sampler_of("ddim").sample(network, x, steps)
    np.testing.assert_array_equal(sampler_of("ddim", eta=0.0).sample(network, x, steps, noise=Refuses()), plain)


@every_name
def test_the_others_draw_nothing(name):
    sampler_of(name).sample(bend, latent(1), 4, noise=Refuses())


def test_eta_draws_once_a_step_but_the_last():
    for eta in (0.5, 1.0):
        source = Counted(3)
        sampler_of("ddim", eta=eta).sample(bend, latent(1), 10, noise=source)
        assert source.draws == 9


@given(names, spacings, st.integers(1, 1000))
def test_sigmas_strictly_decrease(name, spacing, steps):
    sigmas = sampler_of(name, spacing, table="float32-torch").sigmas(steps)
    assert sigmas.shape == (steps + 1,) and np.all(np.diff(sigmas) < 0)
    assert sigmas[-1] == 0.0 or (spacing == "trailing" and 1000 % steps and name != "euler")


@every_name
@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
@pytest.mark.parametrize("steps", [1, 2, 1000])
def test_shortest_and_longest_runs(name, spacing, steps):
    sampler, x = sampler_of(name, spacing, table="float32-torch"), latent(8, np.float32)
    times, seen = sampler.timesteps(steps).tolist(), []

    def network(x, t):
        seen.append(t)
        return bend(x, t)

    taken = list(sampler.iterate(network, x, steps))
    assert [step.index for step in taken] == list(range(steps))
    np.testing.assert_array_equal([step.sigma for step in taken], sampler.sigmas(steps)[1:])
    assert seen == times and np.all(np.isfinite(taken[-1].x))
    np.testing.assert_array_equal(taken[-1].x, sampler.sample(bend, x, steps))


def test_the_last_step_of_a_run_to_sigma_0_is_the_denoised_latent():
    for name in ("ddim", "euler"):
        last = list(sampler_of(name).iterate(bend, latent(8), 5))[-1]
        np.testing.assert_allclose(last.x, last.denoised, rtol=0, atol=1e-13)


@given(names, spacings, st.integers(1, 20), seeds)
def test_same_seed_twice_is_bit_equal(name, spacing, steps, seed):
    sampler, x = sampler_of(name, spacing, eta=1.0 if name == "ddim" else None), latent(seed, np.float32)
    runs = [sampler.sample(bend, x, steps, noise=stream("torch", seed)) for _ in range(2)]
    np.testing.assert_array_equal(*runs)


@given(names, spacings, st.integers(1, 20), seeds, st.floats(-8.0, 8.0), st.floats(-1.0, 1.0))
def test_a_linear_network_commutes_with_scaling(name, spacing, steps, seed, factor, gain):
    sampler, x = sampler_of(name, spacing), latent(seed)
    once = sampler.sample(lambda x, t: gain * x, x, steps)
    scaled = sampler.sample(lambda x, t: gain * x, factor * x, steps)
    np.testing.assert_allclose(scaled, factor * once, rtol=0, atol=1e-10 * max(1.0, float(np.max(np.abs(once)))))


@given(names, spacings, st.integers(1, 12), seeds)
def test_the_batch_does_not_mix(name, spacing, steps, seed):
    sampler, x = sampler_of(name, spacing), latent(seed)
    np.testing.assert_array_equal(sampler.sample(bend, x, steps)[:1], sampler.sample(bend, x[:1], steps))


@every_name
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_precision_stays_and_arguments_are_left(name, dtype):
    sampler = sampler_of(name, table="float32-torch", eta=1.0 if name == "ddim" else None)
    x, noise = latent(2, dtype), latent(3, dtype)
    before = x.copy(), noise.copy()
    x.flags.writeable = noise.flags.writeable = False

    def network(x, t):
        assert x.dtype == dtype
        output = bend(x, t)
        output.flags.writeable = False
        return output

    for start in (0, 3):
        begin = sampler.add_noise(x, noise, 7, start)
        assert begin.dtype == dtype
        for step in sampler.iterate(network, begin, 7, noise=stream("numpy", 1), start=start):
            assert step.x.dtype == step.denoised.dtype == dtype
    sampler.sample(network, x, 7, noise=stream("numpy", 1))
    assert np.array_equal(x, before[0]) and np.array_equal(noise, before[1])


@pytest.mark.parametrize("name", ["ddim", "euler"])
@given(st.integers(2, 20), st.data())
def test_a_run_can_begin_in_the_middle(name, steps, data):
    """These solvers keep no history: the second half of a run is a run from its latent."""
    start = data.draw(st.integers(1, steps - 1))
    sampler, x = sampler_of(name), latent(steps)
    whole = list(sampler.iterate(bend, x, steps))
    half = list(sampler.iterate(bend, whole[start - 1].x, steps, start=start))
    assert [step.index for step in half] == list(range(start, steps))
    if 1000 % steps == 0 or name == "euler":
        np.testing.assert_allclose(half[-1].x, whole[-1].x, rtol=0, atol=1e-9)


@given(names, seeds, st.integers(0, 9))
def test_noise_is_added_as_the_step_expects(name, seed, start):
    sampler, x0, noise = sampler_of(name), latent(seed), latent(seed + 1)
    begin = sampler.add_noise(x0, noise, 10, start)
    got = sampler.sample(knowing(x0, sampler), begin, 10, start=start)
    np.testing.assert_allclose(got, x0, rtol=0, atol=1e-9)
    first = next(sampler.iterate(knowing(x0, sampler), begin, 10, start=start))
    np.testing.assert_allclose(first.denoised, x0, rtol=0, atol=1e-9)
    begin = begin if start else begin * sampler.initial(10)
    sigma = float(sampler.sigmas(10)[start])
    deviation = math.sqrt(1.0 + sigma**2) if sampler.family.variance_preserving else 1.0
    np.testing.assert_allclose(begin * deviation, x0 + sigma * noise, rtol=0, atol=1e-12 * (1 + sigma))


MEAN, DEVIATION = 0.6, 0.7  # of the Gaussian data


def gaussian(x, sigma):
    """The exact denoiser of data N(m, s^2): (s^2 x + sigma^2 m) / (s^2 + sigma^2)."""
    return (DEVIATION**2 * x + sigma**2 * MEAN) / (DEVIATION**2 + sigma**2)


def flow(x, sigma, to):
    """The exact end of the probability flow: x - m grows as the whole deviation."""
    return MEAN + (x - MEAN) * math.sqrt((DEVIATION**2 + to**2) / (DEVIATION**2 + sigma**2))


def pair(x, sigma):
    """The exact denoiser and the noise that it sees."""
    return gaussian(x, sigma), (x - gaussian(x, sigma)) / sigma


NO_CHURN = {"s_noise": 1.0, "again": same_noise, "noise": None}
NO_ETA = {"eta": 0.0, "use_clipped_model_output": False, "noise": None}
SOLVERS = {
    "euler": lambda x, sigmas: euler(gaussian, x, sigmas, raised=sigmas[:-1], **NO_CHURN),
    "ddim": lambda x, sigmas: ddim(gaussian, x, sigmas, targets=sigmas[1:], limit=unlimited, **NO_ETA),
    "pndm": lambda x, sigmas: plms(pair, x, sigmas, targets=sigmas[1:], restarts=sigmas[:-1], noise_of=said_noise),
}


def order(solver, first, last):
    """The slope of log error over log n, between 80 and 160 equal steps."""
    x, errors = np.linspace(-2.0, 2.0, 9) * first, []
    for n in (80, 160):
        sigmas = np.linspace(first, last, n + 1).tolist()
        end = list(SOLVERS[solver](x, sigmas))[-1].x
        errors.append(float(np.max(np.abs(end - flow(x, first, last)))))
    return math.log2(errors[0] / errors[1]), errors[1]


@pytest.mark.parametrize(("solver", "expected", "slack"), [("euler", 1.0, 0.05), ("ddim", 1.0, 0.05), ("pndm", 3.0, 0.3)])
def test_order_of_convergence(solver, expected, slack):
    """PLMS's order is 3 and not 4: its first steps are of lower order."""
    slope, error = order(solver, 3.0, 0.3)
    assert abs(slope - expected) < slack, (slope, error)
    assert error < 0.02


@given(st.integers(1, 30), seeds)
def test_ddim_without_noise_is_euler(n, seed):
    sigmas = [*np.geomspace(10.0, 0.05, n).tolist(), 0.0]
    x = latent(seed)
    for one, other in zip(SOLVERS["ddim"](x, sigmas), SOLVERS["euler"](x, sigmas), strict=True):
        np.testing.assert_allclose(one.x, other.x, rtol=0, atol=1e-11)
        assert (one.index, one.sigma) == (other.index, other.sigma)


@pytest.mark.parametrize("name", ["ddim", "euler", "pndm"])
def test_samplers_come_to_the_data(name):
    """Through the whole sampler: ends that are ever nearer to the exact flow's."""
    sampler, x = sampler_of(name), np.linspace(-2.0, 2.0, 9)
    errors = []
    for steps in (25, 100):
        first = float(sampler.sigmas(steps)[0])
        network = network_of_gaussian(sampler, steps)
        end = sampler.sample(network, x, steps)
        start = x * (math.sqrt(1.0 + first**2) if sampler.family.variance_preserving else first)
        errors.append(float(np.max(np.abs(end - flow(start, first, 0.0)))))
    assert errors[1] < errors[0] / 2.5 and errors[1] < 0.05, errors


def network_of_gaussian(sampler, steps):
    """The noise that the exact denoiser implies, for the network's input a x + s noise."""
    sigma_at = dict(zip(dict.fromkeys(sampler.timesteps(steps).tolist()), sampler.sigmas(steps)[:-1], strict=True))

    def network(x, t):
        sigma = float(sigma_at[t])
        a = 1.0 / math.sqrt(1.0 + sigma**2)
        return (x - a * gaussian(x / a, sigma)) / (sigma * a)

    return network


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_eta_keeps_the_mean_and_the_variance(eta):
    """Of 20,000 numbers, within four standard errors and what 250 steps leave over."""
    sampler, count = sampler_of("ddim", eta=eta, beta_schedule="linear", beta_start=0.0001, beta_end=0.02), 20_000
    x = stream("numpy", 5).normal((count,)).astype(np.float64)
    end = sampler.sample(network_of_gaussian(sampler, 250), x, 250, noise=stream("numpy", 6))
    assert abs(end.mean() - MEAN) < 4 * DEVIATION / count**0.5 + 0.01
    assert abs(end.var() / DEVIATION**2 - 1.0) < 4 * (2 / count) ** 0.5 + 0.05
    assert (np.corrcoef(x, end)[0, 1] > 0.99) == (eta == 0.0)
