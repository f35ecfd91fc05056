"""The solvers of k-diffusion: order, mean and variance, what they draw, and runs that upstream cannot make."""

from __future__ import annotations

import math

import numpy as np
import pytest

from refdiff.diffusion.noise import stream
from refdiff.errors import BadRequest
from refdiff.samplers import from_config
from refdiff.samplers.dpm2 import dpm2, dpm2_ancestral
from refdiff.samplers.euler_ancestral import euler_ancestral
from refdiff.samplers.grids_k import split
from refdiff.samplers.heun import heun
from refdiff.samplers.lms import lms, weights
from tests.samplers.cases import COSINE, SCALED
from tests.samplers.test_laws import DEVIATION, MEAN, Counted, Refuses, bend, flow, gaussian, latent

CLASSES = {
    "euler_ancestral": "EulerAncestralDiscreteScheduler", "heun": "HeunDiscreteScheduler", "lms": "LMSDiscreteScheduler",
    "dpm2": "KDPM2DiscreteScheduler", "dpm2_ancestral": "KDPM2AncestralDiscreteScheduler",
}  # fmt: skip
ANCESTRAL = ("euler_ancestral", "dpm2_ancestral")
each = pytest.mark.parametrize("name", CLASSES)


def sampler_of(name, table="float32-torch", settings=None, **options):
    return from_config({"_class_name": CLASSES[name], **SCALED, **options}, table=table, settings=settings)


def middles_of(sigmas):
    return [math.sqrt(a * b) for a, b in zip(sigmas[:-1], sigmas[1:], strict=True)]


SOLVERS = {
    "heun": lambda x, s: heun(gaussian, x, s),
    "dpm2": lambda x, s: dpm2(gaussian, x, s, middles=middles_of(s)),
    **{f"lms {k}": lambda x, s, k=k: lms(gaussian, x, s, order=k) for k in (1, 2, 3, 4)},
}


def order_of(solver, begin):
    """The slope of log error over log n, between 80 and 160 steps; `begin(h)` are the levels before the equal steps."""
    x, errors = np.linspace(-2.0, 2.0, 9) * 3.0, []
    for n in (80, 160):
        first = begin(2.7 / n)
        sigmas = [*first[:-1], *np.linspace(first[-1], 0.3, n + 1).tolist()]
        end = list(SOLVERS[solver](x, sigmas))[-1].x
        errors.append(float(np.max(np.abs(end - flow(x, 3.0, 0.3)))))
    assert errors[1] < 0.02
    return math.log2(errors[0] / errors[1])


@pytest.mark.parametrize(("solver", "expected"), [("heun", 2), ("dpm2", 2), ("lms 1", 1), ("lms 2", 2)])
def test_order_of_convergence(solver, expected):
    assert abs(order_of(solver, lambda h: [3.0]) - expected) < 0.15


@pytest.mark.parametrize("order", [2, 3])
def test_order_of_multistep(order):
    """As many as there are slopes, where the first steps, which have fewer, are so short that they do not matter:
    from there on each is as long as all before it."""
    slope = order_of(f"lms {order}", lambda h: [3.0, *[3.0 - h * 0.5**k for k in range(14, -1, -1)]])
    assert abs(slope - order) < 0.15, slope


def test_the_first_step_holds_multistep_back():
    """It is Euler's: its error, once, is of second order."""
    assert 1.7 < order_of("lms 4", lambda h: [3.0]) < 2.2


@pytest.mark.parametrize("known", [[2.0], [2.0, 3.5], [2.0, 3.5, 3.7], [2.0, 3.5, 3.7, 9.0]])
def test_weights_integrate_polynomials(known):
    """Of as many powers as there are slopes, exactly; of one more, not."""
    found, begin, end = weights(known, 2.0, 0.5), 2.0, 0.5
    for power in range(len(known) + 1):
        exact = (end ** (power + 1) - begin ** (power + 1)) / (power + 1)
        got = sum(w * s**power for w, s in zip(found, known, strict=True))
        assert (abs(got - exact) < 1e-9) == (power < len(known))


def test_adams_and_bashforths_weights_on_even_steps():
    expected = np.array([55, -59, 37, -9]) / 24 * -1.0
    np.testing.assert_allclose(weights([5.0, 6.0, 7.0, 8.0], 5.0, 4.0), expected, rtol=1e-12)


def ancestral(name, x, sigmas, noise):
    downs, ups = (values.tolist() for values in split(np.array(sigmas)))
    if name == "euler_ancestral":
        return euler_ancestral(gaussian, x, sigmas, downs=downs, ups=ups, s_noise=1.0, noise=noise)
    middles = [math.sqrt(s * d) for s, d in zip(sigmas, downs, strict=False)]
    return dpm2_ancestral(gaussian, x, sigmas, middles=middles, downs=downs, ups=ups, s_noise=1.0, noise=noise)


@pytest.mark.parametrize("name", ANCESTRAL)
def test_ancestral_runs_keep_the_mean_and_the_variance(name):
    """Of 20,000 numbers, within four standard errors and what 250 steps leave over; what they began with is forgotten."""
    count, sigmas = 20_000, [*np.geomspace(14.0, 0.02, 250).tolist(), 0.0]
    x = stream("numpy", 5).normal((count,)).astype(np.float64) * math.sqrt(14.0**2 + DEVIATION**2) + MEAN
    end = list(ancestral(name, x, sigmas, stream("numpy", 6)))[-1].x
    assert abs(end.mean() - MEAN) < 4 * DEVIATION / count**0.5 + 0.01
    assert abs(end.var() / DEVIATION**2 - 1.0) < 4 * (2 / count) ** 0.5 + 0.03
    assert abs(np.corrcoef(x, end)[0, 1]) < 0.1


@pytest.mark.parametrize("ramp", [{}, {"use_karras_sigmas": True}, {"use_beta_sigmas": True}])
@pytest.mark.parametrize("steps", [1, 7, 50])
def test_ancestral_steps_are_at_dpm2s_times(ramp, steps):
    """Exactly; the middles are elsewhere."""
    ours, others = (sampler_of(name, **ramp).timesteps(steps) for name in ("dpm2_ancestral", "dpm2"))
    np.testing.assert_array_equal(ours[::2], others[::2])
    assert steps == 1 or not np.allclose(ours[1::2], others[1::2])


def test_split_ends_at_the_next_sigma():
    sigmas = np.array([14.0, 3.0, 2.9, 0.5, 0.0])
    downs, ups = split(sigmas)
    np.testing.assert_allclose(downs**2 + ups**2, sigmas[1:] ** 2, rtol=1e-12)
    np.testing.assert_allclose(downs, sigmas[1:] ** 2 / sigmas[:-1], rtol=1e-12)


@each
@pytest.mark.parametrize("steps", [1, 2, 1000])
def test_shortest_and_longest_runs(name, steps):
    sampler, x, seen = sampler_of(name), latent(8, np.float32), []

    def network(x, t):
        seen.append(t)
        return bend(x, t)

    taken = list(sampler.iterate(network, x, steps, noise=stream("numpy", 1)))
    assert [step.index for step in taken] == list(range(steps))
    np.testing.assert_array_equal([step.sigma for step in taken], sampler.sigmas(steps)[1:])
    assert np.all(np.isfinite(taken[-1].x)) and taken[-1].x.dtype == np.float32
    np.testing.assert_array_equal(seen, sampler.timesteps(steps))
    np.testing.assert_array_equal(taken[-1].x, sampler.sample(bend, x, steps, noise=stream("numpy", 1)))


@each
def test_draws(name):
    """Ancestral solvers once a step but the last; the others never."""
    source = Counted(3) if name in ANCESTRAL else Refuses()
    sampler_of(name).sample(bend, latent(1), 10, noise=source)
    if name in ANCESTRAL:
        assert source.draws == 9
        with pytest.raises(BadRequest, match="needs noise"):
            sampler_of(name).sample(bend, latent(1), 10)


@each
@pytest.mark.parametrize("options", [COSINE, {"prediction_type": "sample"}, {"timestep_spacing": "trailing", **COSINE}])
@pytest.mark.parametrize("steps", [2, 3, 4, 20])
def test_what_upstream_cannot_run(name, options, steps):
    """Times that are NaN there for the cosine, predictions of the picture that it refuses: a known picture is found."""
    sampler, x0 = sampler_of(name, "float64", **{"prediction_type": "sample", **options}), latent(4)
    end = sampler.sample(lambda x, t: x0, latent(5), steps, noise=stream("numpy", 2))
    assert np.all(np.isfinite(sampler.timesteps(steps)))
    np.testing.assert_allclose(end, x0, rtol=0, atol=1e-9)


@each
def test_a_run_can_begin_in_the_middle(name):
    sampler, x0 = sampler_of(name, "float64", prediction_type="sample"), latent(4)
    begin = sampler.add_noise(x0, latent(6), 10, 4)
    taken = list(sampler.iterate(lambda x, t: x0, begin, 10, noise=stream("numpy", 2), start=4))
    assert [step.index for step in taken] == list(range(4, 10))
    np.testing.assert_allclose(taken[-1].x, x0, rtol=0, atol=1e-9)


def test_the_clip_is_of_the_denoised_latent():
    taken = list(sampler_of("heun", clip_sample=True, clip_sample_range=0.5).iterate(bend, latent(1), 5))
    assert max(float(np.max(np.abs(step.denoised))) for step in taken) == 0.5
    assert float(np.max(np.abs(taken[-1].x))) <= 0.5 + 1e-6


@pytest.mark.parametrize("order", [0, 2.5, -1, True, "4"])
def test_an_order_that_is_none_is_refused(order):
    with pytest.raises(BadRequest, match="order"):
        sampler_of("lms", settings={"order": order})
