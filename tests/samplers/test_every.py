"""Laws that hold for every family that is registered, whoever added it."""

from __future__ import annotations

import hashlib
import json
import math
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
from tests.samplers import stand_in
from tests.samplers.all_cases import CASES

SHAPE = (2, 3, 2, 4)
# Nothing that bends what the network says, an end at sigma 0, and no start of PNDM's whose half steps are rounded to times.
PLAIN = {
    "clip_sample": False, "clip_denoised": False, "thresholding": False, "set_alpha_to_one": True, "skip_prk_steps": True,
}  # fmt: skip
UPWARDS = ("ddim_inverse", "dpm_inverse")  # from a picture to noise
BY_A_TOLERANCE = "k_dpm_adaptive"  # it chooses its own steps, by numbers that do not scale with the latent
CHOOSES_ITS_STEPS = (BY_A_TOLERANCE, "k_dpm_fast")  # or makes a third as many as calls
BEGINS_AGAIN = {"k_restart": 20, "repaint": 3}  # from so many steps on
# Where the last two sigmas, or two of 1000 rounded times, are one; and of which numbers of steps there is no run.
STANDS = {
    "consistency": (40,),
    **dict.fromkeys(("dpm_multistep", "dpm_singlestep", "dpm_inverse", "deis", "unipc", "sa_solver"), (1000,)),
}
REFUSED = {"consistency": range(41, 1001), "lcm": range(51, 1001), "tcd": range(51, 1001)}
# Besides the times that `timesteps` lists, they ask in the middle of a step or at its end; ScoreSdeVe's network is told sigma.
ASKS_ELSEWHERE = ("score_sde_ve", "k_heun", "k_dpm_2", "k_dpm_2_ancestral", "k_dpmpp_2s_ancestral", "k_dpmpp_sde")
KEPT = np.zeros(SHAPE)  # a picture for RePaint to fill in, its left half known
KEPT_WHERE = np.repeat([[1.0, 1.0, 0.0, 0.0]], 2, axis=0)
GIVEN = {"repaint": {"original_image": KEPT, "mask": KEPT_WHERE, "jump_length": 2, "jump_n_sample": 2}}
NEVER_AT_ZERO = ("consistency", "tcd", "deis", "sa_solver", "dpm_inverse", *CHOOSES_ITS_STEPS)
# The first two do not hear their first answer, the second of them because there is no noise yet; LCM keeps a share of what it
# sees; ScoreSdeVe's steps are not at the sigmas that its network is told.
NOT_TO_IT = ("ipndm", "ddim_inverse", "lcm", "score_sde_ve")
DRAWS = {  # by their default settings
    "consistency", "unclip", "flow_lcm", "ddpm", "lcm", "tcd", "dpm_sde", "sa_solver", "score_sde_ve", "repaint",
    "euler_ancestral", "dpm2_ancestral", "k_euler_ancestral", "k_dpm_2_ancestral", "k_dpmpp_2s_ancestral", "k_dpmpp_sde",
    "k_dpmpp_2m_sde", "k_dpmpp_3m_sde", "k_restart",
}  # fmt: skip
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
    """Whether it makes so many steps, or else says in one line why not."""
    try:
        return bool(len(sampler.sigmas(steps)))
    except BadRequest as error:
        assert "\n" not in str(error)
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
    """A step for each sigma, at the listed times, and `sample` is the last of them; a number that cannot be made is refused."""
    sampler, asked, x = sampler_of(name, "float32-torch"), [], latent(1, np.float32)
    if steps in REFUSED.get(name, ()):
        with pytest.raises(BadRequest, match="steps"):
            sampler.sample(network_of(name), x, steps, noise=stream("numpy", 1))
        return

    def network(x, t):
        asked.append(t)
        return network_of(name)(x, t)

    taken = list(sampler.iterate(network, x, steps, noise=stream("numpy", 1)))
    assert [step.index for step in taken] == list(range(len(taken)))
    assert np.isfinite(taken[-1].x).all()
    if name not in CHOOSES_ITS_STEPS:
        np.testing.assert_array_equal([step.sigma for step in taken], sampler.sigmas(steps)[1:])
        assert len(taken) == steps or (name in BEGINS_AGAIN and steps >= BEGINS_AGAIN[name])
    if name not in (*CHOOSES_ITS_STEPS, *ASKS_ELSEWHERE, *BEGINS_AGAIN):
        np.testing.assert_array_equal(asked, sampler.timesteps(steps))
    if steps < 1000:
        np.testing.assert_array_equal(sampler.sample(network_of(name), x, steps, noise=stream("numpy", 1)), taken[-1].x)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.class_name)
@pytest.mark.parametrize("steps", [1, 2])
def test_shortest_runs_with_every_option(case, steps):
    """Each option's every value, and several together: a number that upstream can make ends at numbers, any other does, or is
    refused.
    """
    for config in [*case.single(), case.configs()[-1]]:
        settings, network = case.settings[-1], stand_in.network_of(config)
        sampler = from_config(config, settings=settings)
        if possible(sampler, steps):
            x, noise = stand_in.first_latent(1), stream("numpy", 1)
            end = sampler.sample(lambda x, t, network=network: network(np, x, t), x, steps, noise=noise)
            assert end.dtype == np.float32 and np.isfinite(end).all(), config
        else:
            assert not case.allowed(config, steps, settings), config


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


def noisiest(name):
    """The setting by which a family draws that does not have to."""
    settings = FAMILIES[name].settings
    return {key: value for key, value in (("eta", 1.0), ("s_churn", 5.0)) if key in settings and name != "tcd"}


@every
@few
@given(st.integers(4, 12), seeds)
def test_the_same_seed_twice_is_bit_equal(name, steps, seed):
    """And another seed is another picture, where noise is drawn."""
    steps += BEGINS_AGAIN[name] if name == "k_restart" else 0  # before, it draws nothing
    sampler, x = sampler_of(name, settings=noisiest(name)), latent(seed, np.float32)
    one, same, other = (
        sampler.sample(network_of(name), x, steps, noise=stream("torch", which)) for which in (seed, seed, seed + 1)
    )
    np.testing.assert_array_equal(one, same)
    assert np.array_equal(one, other) != sampler.family.draws(sampler.config, sampler.settings)


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
    plain = sampler_of(name)
    assert family.draws(plain.config, plain.settings) == (name in DRAWS)
    chosen = {"eta": 0.0} if "eta" in family.settings else {}
    sampler = sampler_of(name, settings=chosen)
    if family.draws(sampler.config, sampler.settings):
        with pytest.raises(BadRequest, match="needs noise"):
            sampler.sample(bend, latent(1), 6)
        return
    alone = sampler.sample(bend, latent(1), 6)
    np.testing.assert_array_equal(sampler.sample(bend, latent(1), 6, noise=Refuses()), alone)


@every
@pytest.mark.parametrize("table", ["float32-torch", "float64"])
def test_sigmas_strictly_decrease(name, table):
    """But where a run goes up again, and where upstream's rounding makes two of them one."""
    sampler = sampler_of(name, table)
    for steps in (*range(1, 61), 100, 333, 500, 999, 1000):
        if steps in REFUSED.get(name, ()):
            with pytest.raises(BadRequest, match="steps"):
                sampler.sigmas(steps)
            continue
        change = np.diff(sampler.sigmas(steps).astype(np.float64))
        falls = np.all(change > 0 if name in UPWARDS else change < 0)
        assert falls == (steps not in STANDS.get(name, ()) and steps < BEGINS_AGAIN.get(name, 1001)), steps
        assert steps not in STANDS.get(name, ()) or np.all(change <= 0) or name in UPWARDS


@every
@few
@given(st.integers(4, 12), seeds, st.floats(-8.0, 8.0), st.floats(-1.0, 1.0))
def test_a_linear_network_commutes_with_scaling(name, steps, seed, factor, gain):
    """All by any factor but one: a tolerance is of a size, so that only the sign is free there."""
    if name == BY_A_TOLERANCE:
        factor = math.copysign(1.0, factor)
    if name == "score_sde_ve":  # it divides by the length of the score
        factor, gain = (math.copysign(max(abs(value), 1e-6), value) for value in (factor, gain))
    sampler, x = sampler_of(name, settings=noisiest(name)), latent(seed)
    linear = (lambda x, t: gain * x / (1.0 + t * t)) if name == "score_sde_ve" else (lambda x, t: gain * x)
    once = sampler.sample(linear, x, steps, noise=Scaled(seed, 1.0))
    scaled = sampler.sample(linear, factor * x, steps, noise=Scaled(seed, factor))
    largest = max(1.0, float(np.max(np.abs(once))), float(sampler.sigmas(steps)[0]))  # along the way
    np.testing.assert_allclose(scaled, factor * once, rtol=0, atol=1e-9 * largest)


@every
@few
@given(counts, seeds)
def test_the_true_noise_of_a_picture_leads_to_it(name, steps, seed):
    """From x0 + sigma noise every step of a flow ends on that line, whatever its solver takes for the curve between; a run
    with fresh noise ends at the picture, if it ends at sigma 0.
    """
    sampler = sampler_of(name, settings={"eta": seed % 2 * 0.7} if "eta" in FAMILIES[name].settings else {})
    if name in NOT_TO_IT or not possible(sampler, steps):
        return
    x0, noise, asked = latent(seed), latent(seed + 1), []
    if name == "repaint":
        sampler = sampler_of(name, settings={"original_image": x0})
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
    for step in watched.iterate(knowing, x, steps, noise=stream("numpy", seed)):
        if name != "repaint" or step.sigma < asked[-1]:
            np.testing.assert_allclose(step.denoised, x0, rtol=0, atol=1e-8)
    drawn = sampler.family.draws(sampler.config, sampler.settings)
    assert name in NEVER_AT_ZERO or step.sigma == 0.0
    if not drawn or step.sigma == 0.0:
        wanted = sampler.family.noised(x0, noise, step.sigma) * sampler.family.outside(step.sigma)
        np.testing.assert_allclose(step.x, wanted, rtol=0, atol=1e-7)


# By eta 0 or churn 0: another family, or another solver of this one, that knows no noise.
DETERMINISTIC = {
    "k_euler_ancestral": "k_euler", "k_dpm_2_ancestral": "k_dpm_2", "k_dpmpp_2m_sde": "k_dpmpp_2m",
    "k_dpmpp_sde": "k_dpmpp_2s_ancestral",
}  # fmt: skip


@pytest.mark.parametrize("name", DETERMINISTIC)
@few
@given(st.integers(1, 30), seeds)
def test_eta_0_is_the_solver_without_noise(name, steps, seed):
    ends = []
    for one in (name, DETERMINISTIC[name]):
        still = {"eta": 0.0} if "eta" in FAMILIES[one].settings else {}
        ends.append(sampler_of(one, settings=still).sample(bend, latent(seed), steps, noise=Refuses()))
    np.testing.assert_allclose(*ends, rtol=0, atol=1e-9)
