"""Every solver on the simulated device: NumPy's numbers, and nothing crosses but the noise that a solver asks for."""

from __future__ import annotations

import numpy as np
import pytest

from refdiff.diffusion.guidance import guide
from refdiff.diffusion.noise import stream
from refdiff.samplers import from_config
from refdiff.samplers.schedulers import FAMILIES
from refdiff.xp import array_module
from tests.device.compare import assert_same, run_on_device
from tests.models.examples import normal

STEPS = 5
X = normal(2, 4, 3, 5)


def model(x, t):
    """A network's stand-in that needs the time on the device."""
    xp = array_module(x)
    time = xp.full((), t, dtype=x.dtype)
    conditional = xp.tanh(x * xp.cos(time * 0.01))
    return guide(conditional * 0.5, conditional, scale=3.0)


def sampler(name: str, prediction_type: str, eta: float, settings: dict):
    options = {
        "beta_schedule": "scaled_linear",
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "prediction_type": prediction_type,
        "clip_sample": False,
        "skip_prk_steps": True,
        "set_alpha_to_one": False,
        "use_flow_sigmas": prediction_type == "flow_prediction",
    }
    family = FAMILIES[name]
    allowed = {k: v for k, v in options.items() if k in family.defaults and (k not in family.only or v in family.only[k])}
    return from_config({"_class_name": family.class_name, **allowed}, eta=eta, settings=settings)


CHOOSES = ("k_dpm_adaptive",)  # each step's error decides on the host how long the next one is
NONE_YET = ("k_restart",)  # a run as short as this one is not begun again


@pytest.mark.parametrize(
    ("name", "prediction_type"),
    [
        (name, kind)
        for name, family in FAMILIES.items()
        for kind in family.only.get("prediction_type", ("its own",))
        if kind != "flow_prediction" or True in family.only["use_flow_sigmas"]
    ],
)
def test_sampler(name, prediction_type):
    chosen = sampler(name, prediction_type, 0.0, {})
    draws = chosen.family.draws(chosen.config, chosen.settings)

    def run(x, start):
        noise = stream("numpy", 3) if draws else None
        arrays = {"original_image": 0.5 * x, "mask": (x > 0.0).astype(x.dtype)} if name == "repaint" else {}
        return sampler(name, prediction_type, 0.0, arrays).sample(model, x, STEPS, start=start, noise=noise)

    for start in (0, 2):
        device, crossed = run_on_device(run, X, start=start)
        assert_same(device, run(X, start))
        assert crossed.to_host == 0 or name in CHOOSES, crossed.events
        assert (crossed.to_device > 0) == (draws and name not in NONE_YET), crossed.events


def test_only_fresh_noise_goes_over():
    chosen = sampler("ddim", "epsilon", 1.0, {})
    device, crossed = run_on_device(lambda x: chosen.sample(model, x, STEPS, noise=stream("numpy", 3)), X)
    assert_same(device, chosen.sample(model, X, STEPS, noise=stream("numpy", 3)))
    assert 0 < crossed.to_device <= STEPS and crossed.to_host == 0, crossed.events


def test_noise_is_added_on_the_device():
    chosen = sampler("ddim", "epsilon", 0.0, {})
    device, crossed = run_on_device(lambda x, noise: chosen.add_noise(x, noise, STEPS, 2), X, X[::-1])
    assert_same(device, chosen.add_noise(X, X[::-1], STEPS, 2))
    assert device.dtype == np.float32 and crossed.total == 0
