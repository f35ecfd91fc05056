"""Every option of upstream's schedulers is an option here, with the same default, and every value that upstream can run."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from typing import Any

import diffusers
import numpy as np
import pytest

from refdiff.errors import BadRequest
from refdiff.samplers import from_config
from refdiff.samplers.schedulers import FAMILIES
from tests.parity.schedulers import upstream_run
from tests.samplers.stand_in import Given, network_of

UPSTREAM = [name for name, family in FAMILIES.items() if "." not in family.class_name]  # k_diffusion's are not diffusers'
each = pytest.mark.parametrize("name", UPSTREAM)
PLUMBING = {"self", "kwargs", "num_inference_steps", "device", "model_output", "timestep", "sample", "generator", "return_dict"}
# What upstream's calls take and no setting here does, and why.
OUTSIDE = {
    "timesteps": "a grid: Sampler.with_timesteps", "sigmas": "a grid: Sampler.with_sigmas",
    "variance_noise": "stored noise is the stream's", "pred_original_sample": "the network's answer, denoised: the network's",
    "num_train_timesteps": "the option of the same name says it", "sampling_eps": "so does that of this",
    "prev_timestep": "the next time of the grid",
    "original_inference_steps": "LCM's option of the same name says it; for TCD it means even times: Sampler.with_timesteps",
    "per_token_timesteps": "one time a token: another kind of network",
}  # fmt: skip
UNUSED = {"flow_euler": {"s_churn", "s_tmin", "s_tmax", "s_noise"}}  # in upstream's signature, and nowhere else in it
OBJECTS = {"solver_p"}  # a scheduler itself, which no file can hold

VALUES: dict[str, tuple] = {
    "beta_schedule": ("linear", "scaled_linear", "squaredcos_cap_v2", "sigmoid", "laplace", "exp", "cosine"),
    "prediction_type": ("epsilon", "v_prediction", "sample", "flow_prediction", "original_sample"),
    "timestep_spacing": ("leading", "trailing", "linspace"),
    "variance_type": (None, "fixed_small", "fixed_small_log", "fixed_large", "fixed_large_log", "learned", "learned_range"),
    "algorithm_type": ("dpmsolver++", "dpmsolver", "sde-dpmsolver++", "sde-dpmsolver", "deis"),
    "solver_type": ("midpoint", "heun", "logrho", "bh1", "bh2"), "solver_order": (1, 2, 3),
    "final_sigmas_type": ("zero", "sigma_min"), "interpolation_type": ("linear", "log_linear"),
    "timestep_type": ("discrete", "continuous"), "time_shift_type": ("exponential", "linear"),
    "sigma_schedule": ("karras", "exponential"),
}  # fmt: skip
# (scheduler, option, value) that upstream runs and that is refused here, and why.
FLOW = "of latents that flow sigmas alone have: upstream takes the sigma of another form for a share of noise"
REFUSED = {
    **{(name, "prediction_type", "flow_prediction"): FLOW for name in ("dpm_multistep", "dpm_singlestep", "deis", "unipc")},
    ("dpm_inverse", "prediction_type", "flow_prediction"): FLOW,
    ("sa_solver", "prediction_type", "flow_prediction"): FLOW,
    ("dpm_inverse", "use_flow_sigmas", True): "upstream goes down from noise there, which is no inversion",
}


def parameters(method: Any) -> dict[str, Any]:
    """The names of upstream's parameters, with their defaults."""
    return {name: p.default for name, p in inspect.signature(method).parameters.items() if name not in PLUMBING}


@each
def test_every_option_is_there_with_its_default(name):
    family = FAMILIES[name]
    upstream = parameters(getattr(diffusers, family.class_name).__init__)
    assert {key: repr(value) for key, value in family.defaults.items()} == {key: repr(value) for key, value in upstream.items()}
    assert set(family.only) <= set(upstream)


@each
def test_every_number_of_a_call_is_a_setting(name):
    family = FAMILIES[name]
    scheduler = getattr(diffusers, family.class_name)
    steps = [getattr(scheduler, step) for step in ("step", "step_pred", "step_correct") if hasattr(scheduler, step)]
    calls = {key: value for method in (scheduler.set_timesteps, *steps) for key, value in parameters(method).items()}
    calls = {key: None if key in family.arrays else value for key, value in calls.items()}  # arrays without which it refuses
    told = {key: value for key, value in calls.items() if key not in OUTSIDE and key not in UNUSED.get(name, ())}
    own = ("strength", "tau")  # of upstream's pipelines; a function, tau_func, there
    settings = {key: value for key, value in family.settings.items() if key not in own or key in calls}
    assert {key: repr(value) for key, value in settings.items()} == {key: repr(value) for key, value in told.items()}


def asked(name: str) -> Iterator[tuple[str, Any, dict[str, Any]]]:
    """Each value of each option that has a list of them, the others being upstream's defaults."""
    family = FAMILIES[name]
    base = {"_class_name": family.class_name, **({"skip_prk_steps": True} if name == "pndm" else {}), "num_train_timesteps": 100}
    for option, default in family.defaults.items():
        for value in VALUES.get(option, (True, False) if isinstance(default, bool) else ()):
            if option not in OBJECTS:
                yield option, value, {**base, option: value}


def settings_of(config: Mapping[str, Any], name: str) -> dict[str, float]:
    """Upstream's dynamic shift asks for mu."""
    return {"mu": 0.8} if config.get("use_dynamic_shifting") and "mu" in FAMILIES[name].settings else {}


def runs_upstream(config: Mapping[str, Any], settings: Mapping[str, Any]) -> bool:
    """Whether upstream makes five steps of it without an error, and of finite numbers."""
    x = np.random.default_rng(0).standard_normal((1, 3, 4, 5)).astype(np.float32)
    try:
        with np.errstate(all="ignore"):
            _, latents = upstream_run(config, x, 5, settings, Given(0))
    except Exception:  # whatever it is, upstream cannot
        return False
    return bool(np.isfinite(latents[-1]).all())


def runs_here(config: Mapping[str, Any], settings: Mapping[str, Any]) -> bool:
    """Whether five steps can be made here; what is refused must be refused by BadRequest."""
    x = np.random.default_rng(0).standard_normal((1, 3, 4, 5)).astype(np.float32)
    try:
        sampler = from_config(config, settings=settings)
        return bool(np.isfinite(sampler.sample(lambda x, t: network_of(config)(np, x, t), x, 5, noise=Given(0))).all())
    except BadRequest:
        return False


@each
def test_every_value_that_upstream_runs_is_taken(name):
    refused = {}
    for option, value, config in asked(name):
        settings = settings_of(config, name)
        if runs_upstream(config, settings) and not runs_here(config, settings):
            refused[name, option, value] = config
    assert set(refused) == {key for key in REFUSED if key[0] == name}
