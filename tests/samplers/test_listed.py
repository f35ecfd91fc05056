"""Times and sigmas that the caller lists: what is refused, and that nothing else changes."""

from __future__ import annotations

import numpy as np
import pytest

from refdiff.diffusion.noise import stream
from refdiff.errors import BadRequest
from refdiff.samplers import from_config
from refdiff.samplers.listed import PUBLISHED
from refdiff.samplers.schedulers import FAMILIES

SD = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}


def euler(**options):
    return from_config({"_class_name": "EulerDiscreteScheduler", **SD, **options})


def of(class_name, **options):
    return from_config({"_class_name": class_name, **options})


@pytest.mark.parametrize(
    "name", [name for name, family in FAMILIES.items() if family.listed.get("timesteps") in ("whole", "any")]
)
def test_the_times_of_a_number_of_steps_listed_are_the_same_run(name):
    """With "any" the sigmas of whole times are the table's own."""
    sampler = from_config({"_class_name": FAMILIES[name].class_name})
    times = range(39, -1, -10) if name == "consistency" else sampler.timesteps(4)
    fixed = sampler.with_timesteps([float(t) for t in dict.fromkeys(times)] if name != "consistency" else times)
    x, calls = np.random.default_rng(0).standard_normal((1, 2, 3, 3)), [list[float](), list[float]()]

    def model(x, t, seen):
        seen.append(float(t))
        return np.tanh(x + 0.001 * t)

    a = sampler.sample(lambda x, t: model(x, t, calls[0]), x, 4, noise=stream("numpy", 1))
    b = fixed.sample(lambda x, t: model(x, t, calls[1]), x, 4, noise=stream("numpy", 1))
    assert fixed.steps == 4
    if name == "consistency":  # 39, 29, ... are other times than 30, 20, 10, 0
        assert np.isfinite(b).all()
    else:
        assert calls[0] == calls[1]
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("times", "message"),
    [
        ([], "must be a list of numbers from 0 on"),
        (7, "must be a list of numbers from 0 on"),
        ([999, "500"], "must be a list of numbers from 0 on"),
        ([999, True], "must be a list of numbers from 0 on"),
        ([999, float("nan")], "must be a list of numbers from 0 on"),
        ([999, -1], "must be a list of numbers from 0 on"),
        ([10, 20], "timesteps must fall, and 20 comes after 10"),
        ([500, 500], "timesteps must fall, and 500 comes after 500"),
        ([1000, 10], "the first time 1000 is beyond the last training time 999"),
        ("StableDiffusionSigmas", "there are no timesteps .*StableDiffusionTimesteps, StableDiffusionXLTimesteps"),
        ("ays", "there are no timesteps"),
    ],
)
def test_wrong_times_are_refused_in_one_line(times, message):
    for sampler in (euler(), of("DDPMScheduler")):
        with pytest.raises(BadRequest, match=message) as refusal:
            sampler.with_timesteps(times)
        assert "\n" not in str(refusal.value)


REFUSED = [
    (lambda: of("DDIMScheduler").with_timesteps([999, 1]), "takes no timesteps: .*--sampler euler or"),
    (lambda: of("DDPMScheduler").with_sigmas([9.0, 1.0]), "takes no sigmas: .*--sampler euler or"),
    (lambda: of("DDPMScheduler").with_timesteps([998.5, 1]), "visits whole times alone"),
    (lambda: euler(use_karras_sigmas=True).with_timesteps([999, 1]), "use_karras_sigmas exclude"),
    (lambda: of("DPMSolverMultistepScheduler", use_lu_lambdas=True).with_timesteps([999, 1]), "use_lu_lambdas exclude"),
    (lambda: euler(timestep_type="continuous", prediction_type="v_prediction").with_timesteps([999, 1]), "give sigmas"),
    (lambda: euler().with_sigmas([3.0]), "give two at least"),
    (lambda: euler().with_sigmas([1.0, 3.0]), "sigmas must fall"),
    (lambda: euler().with_sigmas([3.0, 0.0]).with_timesteps([999]), "together are for flows alone"),
    (lambda: of("UniPCMultistepScheduler").with_sigmas([0.9, 0.1]), "use_flow_sigmas True alone"),
    (lambda: of("FlowMatchEulerDiscreteScheduler").with_sigmas([1.5, 0.1]), "shares of noise"),
    (lambda: of("FlowMatchEulerDiscreteScheduler").with_sigmas([0.5, 0.0]), "shares of noise"),
    (lambda: of("FlowMatchEulerDiscreteScheduler").with_timesteps([1001]), "beyond the last training time 1000"),
    (lambda: of("FlowMatchEulerDiscreteScheduler").with_timesteps([500, 0]), "no noise left at time 0"),
    (lambda: of("FlowMatchEulerDiscreteScheduler").with_timesteps([500, 1]).with_sigmas([0.5]), "as many of the one"),
    (
        lambda: from_config({"_class_name": "LCMScheduler"}, settings={"strength": 0.5}).with_timesteps([499, 259]),
        "strength makes the times itself",
    ),
]


@pytest.mark.parametrize(("make", "message"), REFUSED)
def test_lists_that_do_not_fit_are_refused(make, message):
    with pytest.raises(BadRequest, match=message):
        make()


def test_another_number_of_steps_is_refused():
    fixed = euler().with_timesteps("StableDiffusionTimesteps")
    assert (fixed.steps, euler().steps) == (10, None)
    for use in (fixed.timesteps, fixed.sigmas, lambda n: fixed.sample(None, np.ones((1, 1)), n)):
        with pytest.raises(BadRequest, match="11 steps cannot be made: the grid that is given has 10"):
            use(11)


def test_published_lists_fall_and_fit():
    for name in PUBLISHED:
        fixed = euler().with_timesteps(name) if name.endswith("Timesteps") else euler().with_sigmas(name)
        assert fixed.steps == 10
        assert (np.diff(fixed.sigmas(10)) < 0).all() and fixed.sigmas(10)[-1] == 0.0


def test_a_sampler_is_not_changed_by_its_lists():
    plain = euler()
    before = plain.sigmas(4).tolist()
    plain.with_sigmas([5.0, 1.0, 0.0])
    assert plain.sigmas(4).tolist() == before and plain.steps is None


def test_a_part_of_a_listed_grid():
    fixed = euler().with_timesteps([900, 500, 100])
    x = np.ones((1, 1, 2, 2))
    seen = []

    def model(x, t):
        seen.append(t)
        return x * 0.0

    fixed.sample(model, fixed.add_noise(x, x, 3, 1), 3, start=1)
    assert seen == [500.0, 100.0]
