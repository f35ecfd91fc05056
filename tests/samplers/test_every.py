"""Laws that hold for every family that is registered, whoever added it."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from refdiff.diffusion.noise import stream
from refdiff.errors import BadRequest
from refdiff.samplers import from_config
from refdiff.samplers.schedulers import FAMILIES

SHAPE = (2, 3, 2, 4)
# Nothing that bends what the network says, an end at sigma 0, and no start of PNDM's whose half steps are rounded to times.
PLAIN = {
    "clip_sample": False, "clip_denoised": False, "thresholding": False, "set_alpha_to_one": True, "skip_prk_steps": True,
}  # fmt: skip
UPWARDS = ("ddim_inverse", "dpm_inverse")  # from a picture to noise
CHOOSES_ITS_STEPS = ("k_dpm_adaptive", "k_dpm_fast")  # by a tolerance, or a third as many as calls
BEGINS_AGAIN = ("k_restart", "repaint")
KEPT = np.zeros(SHAPE)  # a picture for RePaint to fill in, its left half known
KEPT_WHERE = np.repeat([[1.0, 1.0, 0.0, 0.0]], 2, axis=0)
GIVEN = {"repaint": {"original_image": KEPT, "mask": KEPT_WHERE, "jump_length": 2, "jump_n_sample": 2}}
DEAF = ("ipndm", "ddim_inverse")  # do not hear their first answer, the second because there is no noise yet
every = pytest.mark.parametrize("name", FAMILIES)
few = settings(max_examples=6)
seeds, counts = st.integers(0, 2**32 - 1), st.integers(1, 40)


def sampler_of(name, table="float64", **chosen):
    family = FAMILIES[name]
    options = {key: value for key, value in PLAIN.items() if key in family.defaults}
    given = {**GIVEN.get(name, {}), **chosen.pop("settings", {})}
    return from_config({"_class_name": family.class_name, **options}, table=table, settings=given, **chosen)


def latent(seed, dtype=np.float64):
    return np.random.Generator(np.random.PCG64(seed)).standard_normal(SHAPE, dtype=dtype)


def bend(x, t):
    """A network's stand-in, not linear."""
    return (0.9 * np.tanh(0.7 * x + 0.3 * np.sin(0.01 * t)) + 0.1 * x).astype(x.dtype)


def network_of(name):
    """A score is of the size of x / sigma^2, and its network is told sigma."""
    return (lambda x, t: bend(x, t) / (1.0 + t * t)) if name == "score_sde_ve" else bend


def possible(sampler, steps):
    """Whether it makes so many steps, or else says why not."""
    try:
        return bool(len(sampler.sigmas(steps)))
    except BadRequest as error:
        assert str(steps) in str(error) or "steps" in str(error)
        return False


class Refuses:
    """A stream that must not be asked."""

    def normal(self, shape):
        raise AssertionError("it drew noise")


class Scaled:
    """A stream, each draw times a factor."""

    def __init__(self, seed, factor):
        self.source, self.factor = stream("numpy", seed), factor

    def normal(self, shape):
        return self.factor * self.source.normal(shape).astype(np.float64)


@every
@pytest.mark.parametrize("steps", [1, 2, 1000])
def test_shortest_and_longest_runs(name, steps):
    sampler = sampler_of(name, "float32-torch")
    if possible(sampler, steps):
        taken = list(sampler.iterate(network_of(name), latent(1, np.float32), steps, noise=stream("numpy", 1)))
        assert [step.index for step in taken] == list(range(len(taken)))
        assert len(taken) == steps or name in (*CHOOSES_ITS_STEPS, *BEGINS_AGAIN)
        assert np.isfinite(taken[-1].x).all()
    else:
        assert steps == 1000 or name == "pndm"


@every
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_precision_stays_and_arguments_are_left(name, dtype):
    sampler, x = sampler_of(name), latent(2, dtype)
    before = x.copy()
    x.flags.writeable = False

    def network(x, t):
        assert x.dtype == dtype
        x.flags.writeable = False
        output = network_of(name)(x, t)
        output.flags.writeable = False
        return output

    for step in sampler.iterate(network, x, 6, noise=stream("numpy", 1)):
        assert step.x.dtype == step.denoised.dtype == dtype
    np.testing.assert_array_equal(x, before)


@every
@few
@given(st.integers(4, 12), seeds)
def test_the_same_seed_twice_is_bit_equal(name, steps, seed):
    sampler, x = sampler_of(name), latent(seed, np.float32)
    runs = [sampler.sample(network_of(name), x, steps, noise=stream("torch", seed)) for _ in range(2)]
    np.testing.assert_array_equal(*runs)


def pictures(seeds):
    """The sha256 of every family's latent, for the last of these seeds, after those of the others."""
    found = {}
    for name in FAMILIES:
        sampler = sampler_of(name, "float32-torch")
        for seed in seeds:
            end = sampler.sample(network_of(name), latent(seed, np.float32), 6, noise=stream("torch", seed))
        found[name] = hashlib.sha256(end.tobytes()).hexdigest()
    return found


def test_a_second_picture_is_that_of_a_fresh_process():
    code = "import json; from tests.samplers.test_every import pictures; print(json.dumps(pictures([2])))"
    fresh = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert pictures([1, 2]) == json.loads(fresh)


@every
def test_without_noise_nothing_is_drawn(name):
    """By the default settings, and with eta 0 where there is an eta; and given a stream or none, the run is the same."""
    family = FAMILIES[name]
    chosen = {"eta": 0.0} if "eta" in family.settings else {}
    sampler = sampler_of(name, settings=chosen)
    if family.draws(sampler.config, sampler.settings):
        with pytest.raises(BadRequest, match="needs noise"):
            sampler.sample(bend, latent(1), 6)
        return
    plain = sampler.sample(bend, latent(1), 6)
    np.testing.assert_array_equal(sampler.sample(bend, latent(1), 6, noise=Refuses()), plain)


@every
@few
@given(counts)
def test_sigmas_strictly_decrease(name, steps):
    sampler = sampler_of(name)
    if possible(sampler, steps) and name not in BEGINS_AGAIN:
        change = np.diff(sampler.sigmas(steps).astype(np.float64))
        assert np.all(change > 0 if name in UPWARDS else change < 0), steps


@every
@few
@given(st.integers(4, 12), seeds, st.floats(-8.0, 8.0), st.floats(-1.0, 1.0))
def test_a_linear_network_commutes_with_scaling(name, steps, seed, factor, gain):
    if name in CHOOSES_ITS_STEPS or (
        name == "score_sde_ve" and min(abs(factor), abs(gain)) < 1e-6
    ):  # it asks how long the score is
        return
    sampler, x = sampler_of(name), latent(seed)
    linear = (lambda x, t: gain * x / (1.0 + t * t)) if name == "score_sde_ve" else (lambda x, t: gain * x)
    once = sampler.sample(linear, x, steps, noise=Scaled(seed, 1.0))
    scaled = sampler.sample(linear, factor * x, steps, noise=Scaled(seed, factor))
    largest = max(1.0, float(np.max(np.abs(once))), float(sampler.sigmas(steps)[0]))  # along the way
    np.testing.assert_allclose(scaled, factor * once, rtol=0, atol=1e-9 * largest)


@every
@few
@given(st.integers(4, 30), seeds)
def test_the_true_noise_of_a_picture_leads_to_it(name, steps, seed):
    """From x0 + sigma noise every step of a flow ends on that line, whatever its solver takes for the curve between."""
    family = FAMILIES[name]
    sampler = sampler_of(name, settings={"eta": 0.0} if "eta" in family.settings else {})
    if family.draws(sampler.config, sampler.settings) or name in DEAF:
        return
    x0, noise, asked = latent(seed), latent(seed + 1), []
    own = sampler.family.network(sampler.config)

    def heard(sigma):
        asked.append(sigma)
        return own.scale(sigma)

    def denoised(seen, output):
        found = own.denoised(seen, output, asked[-1])
        return found[0] if isinstance(found, tuple) else found

    def knowing(seen, t):
        """The output that makes x0 of what is seen: the network's conversion is affine in it."""
        without = denoised(seen, np.zeros_like(seen))
        return (x0 - without) / (denoised(seen, np.ones_like(seen)) - without)

    watched = replace(sampler, family=replace(sampler.family, network=lambda options: replace(own, scale=heard)))
    grid = sampler.family.grid({**sampler.config, **sampler.settings}, sampler.alphas, steps)
    x = sampler.family.noised(x0, noise, float(grid.sigmas[0])) / grid.initial
    for step in watched.iterate(knowing, x, steps):
        np.testing.assert_allclose(step.denoised, x0, rtol=0, atol=1e-8)
    wanted = sampler.family.noised(x0, noise, step.sigma) * sampler.family.outside(step.sigma)
    np.testing.assert_allclose(step.x, wanted, rtol=0, atol=1e-7)
