"""Every option of a scheduler_config.json is honoured, or refused by name."""

from __future__ import annotations

import json

import numpy as np
import pytest

from refdiff.diffusion.noise import stream
from refdiff.errors import BadRequest
from refdiff.samplers import from_config
from refdiff.samplers.schedulers import FAMILIES
from refdiff.samplers.shift import mu_of

BETAS = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012, "num_train_timesteps": 1000}
# scheduler/scheduler_config.json of Stable Diffusion 1.5, as published.
SD15 = {
    "_class_name": "PNDMScheduler",
    "_diffusers_version": "0.6.0",
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "num_train_timesteps": 1000,
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
    "trained_betas": None,
    "clip_sample": False,
}
PLAIN = {
    "ddim": {"_class_name": "DDIMScheduler", **BETAS, "clip_sample": False},
    "euler": {"_class_name": "EulerDiscreteScheduler", **BETAS},
    "pndm": {"_class_name": "PNDMScheduler", **BETAS, "skip_prk_steps": True},
}
every_name = pytest.mark.parametrize("name", PLAIN)

BAD = [
    *[(name, "beta_schedule", "sigmoid") for name in PLAIN],
    *[(name, "trained_betas", [0.1, 0.2]) for name in PLAIN],
    *[(name, "prediction_type", "flow_prediction") for name in PLAIN],
    ("pndm", "prediction_type", "sample"),
    *[(name, "trained_betas", value) for name in PLAIN for value in ("linear", [0.5] * 999, [1.5] * 1000, 0.1)],
    *[(name, "prediction_type", ["epsilon"]) for name in PLAIN],
    *[(name, "timestep_spacing", "even") for name in PLAIN],
    *[(name, "beta_start", value) for name in PLAIN for value in (0, -0.1, 1.0, "0.1", None, float("nan"), True)],
    *[(name, "beta_end", value) for name in PLAIN for value in (0, 2.0, float("inf"))],
    *[(name, "num_train_timesteps", value) for name in PLAIN for value in (0, -1, 1.5, "1000", None, True)],
    *[(name, "steps_offset", value) for name in PLAIN for value in (-1, 0.5, "1", None)],
    ("ddim", "clip_sample", "yes"),
    ("ddim", "thresholding", 1.5),
    ("ddim", "rescale_betas_zero_snr", None),
    ("ddim", "set_alpha_to_one", "yes"),
    ("pndm", "set_alpha_to_one", None),
    ("pndm", "skip_prk_steps", None),
    ("euler", "interpolation_type", "cubic"),
    ("euler", "use_karras_sigmas", "true"),
    ("euler", "use_exponential_sigmas", 2),
    ("euler", "use_beta_sigmas", []),
    ("euler", "sigma_min", -0.1),
    ("euler", "sigma_max", "10"),
    ("euler", "timestep_type", "float"),
    ("euler", "rescale_betas_zero_snr", None),
    ("euler", "final_sigmas_type", "one"),
    ("ddim", "clip_sample_range", 0.0),
    ("ddim", "dynamic_thresholding_ratio", 1.5),
    ("ddim", "sample_max_value", None),
    # Another class's option, with a value that would have meant something there.
    ("euler", "clip_sample", True),
    ("pndm", "thresholding", True),
    ("pndm", "use_karras_sigmas", True),
]


@pytest.mark.parametrize(("name", "option", "value"), BAD)
def test_an_unsupported_value_is_refused_by_name(name, option, value):
    with pytest.raises(BadRequest, match=option) as refusal:
        from_config({**PLAIN[name], option: value})
    assert "\n" not in str(refusal.value)


@every_name
def test_an_unknown_option_is_refused_by_name(name):
    with pytest.raises(BadRequest, match="stepz_offset"):
        from_config({**PLAIN[name], "stepz_offset": 1})
    for other in PLAIN:
        with pytest.raises(BadRequest, match="stepz_offset"):
            from_config({**PLAIN[name], "stepz_offset": 1}, name=other)


@pytest.mark.parametrize("class_name", ["VQDiffusionScheduler", "ddim", "", None, 3, ["DDIMScheduler"]])
def test_an_unknown_class_is_refused_by_name(class_name):
    with pytest.raises(BadRequest, match="DDIMScheduler, EulerDiscreteScheduler, PNDMScheduler") as refusal:
        from_config({**PLAIN["ddim"], "_class_name": class_name})
    assert repr(class_name) in str(refusal.value)


def test_no_class_at_all_is_refused():
    with pytest.raises(BadRequest, match="DDIMScheduler"):
        from_config(BETAS)


@every_name
def test_an_unknown_solver_is_refused_by_name(name):
    with pytest.raises(BadRequest, match='"cubic".*ddim, euler, pndm'):
        from_config(PLAIN[name], name="cubic")


def test_two_ramps_at_once_are_refused():
    both = {**PLAIN["euler"], "use_karras_sigmas": True, "use_beta_sigmas": True}
    with pytest.raises(BadRequest, match="use_karras_sigmas and use_beta_sigmas"):
        from_config(both).sigmas(5)


def test_sd15_as_published():
    sampler = from_config(SD15)
    assert sampler.family is FAMILIES["pndm"]
    assert sampler.timesteps(4).tolist() == [751, 501, 501, 251, 1]
    last = (1.0 - float(sampler.alphas[0])) / float(sampler.alphas[0])
    assert sampler.sigmas(4)[-1] == pytest.approx(last**0.5, rel=1e-12)


@pytest.mark.parametrize(("name", "first", "calls"), [("ddim", 951, 20), ("euler", 999, 20), ("pndm", 951, 21)])
def test_sd15_with_another_solver(name, first, calls):
    """The betas and the offset go along; spacing is not in the file, so it is the other class's own."""
    sampler = from_config(SD15, name=name)
    assert sampler.family is FAMILIES[name]
    times = sampler.timesteps(20)
    assert (times[0], len(times)) == (first, calls)
    np.testing.assert_array_equal(sampler.alphas, from_config(SD15).alphas)
    assert sampler.config["_class_name"] == FAMILIES[name].class_name
    assert (sampler.config["beta_schedule"], sampler.config["steps_offset"]) == ("scaled_linear", 1)


def test_a_solver_that_cannot_is_refused():
    with pytest.raises(BadRequest, match="prediction_type"):
        from_config({**PLAIN["ddim"], "prediction_type": "sample"}, name="pndm")


@every_name
def test_the_configuration_is_complete_and_reads_back(name):
    sampler = from_config(PLAIN[name])
    assert set(sampler.config) == {"_class_name", *FAMILIES[name].defaults}
    again = from_config(sampler.config)
    assert again.config == sampler.config and json.loads(json.dumps(dict(sampler.config))) == sampler.config
    for other in PLAIN:
        if name != other:
            assert from_config(sampler.config, name=other).family is FAMILIES[other]


@every_name
def test_the_argument_is_left(name):
    config = dict(PLAIN[name])
    from_config(config, name="euler")
    assert config == PLAIN[name]


def test_from_a_file(tmp_path):
    path = tmp_path / "scheduler_config.json"
    path.write_text(json.dumps(SD15))
    assert from_config(path).config == from_config(str(path)).config == from_config(SD15).config
    for text in ("{", "[]", '"PNDMScheduler"'):
        path.write_text(text)
        with pytest.raises(BadRequest, match="scheduler_config.json"):
            from_config(path)
    with pytest.raises(BadRequest, match="absent.json"):
        from_config(tmp_path / "absent.json")


@pytest.mark.parametrize("eta", [-0.1, 1.1, float("nan")])
def test_eta_out_of_range_is_refused(eta):
    with pytest.raises(BadRequest, match="eta"):
        from_config(PLAIN["ddim"], eta=eta)


@pytest.mark.parametrize("name", ["euler", "pndm"])
def test_eta_for_a_solver_that_draws_nothing_is_refused(name):
    assert "eta" not in from_config(PLAIN[name], eta=0.0).settings
    with pytest.raises(BadRequest, match="has no eta.*--sampler ddim"):
        from_config(PLAIN[name], eta=0.5)


@pytest.mark.parametrize(("name", "setting"), [("euler", "s_churm"), ("pndm", "s_churn"), ("ddim", "order")])
def test_an_unknown_setting_is_refused(name, setting):
    with pytest.raises(BadRequest, match=f"has no {setting}"):
        from_config(PLAIN[name], settings={setting: 1.0})


def test_eta_without_noise_is_refused():
    with pytest.raises(BadRequest, match="noise"):
        from_config(PLAIN["ddim"], eta=0.5).sample(lambda x, t: x, np.ones((1, 2)), 3)
    from_config(PLAIN["ddim"], eta=0.5).sample(lambda x, t: x, np.ones((1, 2)), 3, noise=stream("numpy", 0))


def test_an_unknown_table_is_refused():
    with pytest.raises(BadRequest, match="float16"):
        from_config(PLAIN["ddim"], table="float16")


@every_name
@pytest.mark.parametrize("steps", [0, -1, 1001, 2.0, "2", True, None])
def test_impossible_numbers_of_steps_are_refused(name, steps):
    sampler = from_config(PLAIN[name])
    for use in (sampler.timesteps, sampler.sigmas, lambda n: sampler.sample(None, np.ones((1, 1)), n)):
        with pytest.raises(BadRequest, match="from 1 to 1000"):
            use(steps)


@every_name
@pytest.mark.parametrize("start", [-1, 5, 6])
def test_impossible_starts_are_refused(name, start):
    sampler, x = from_config(PLAIN[name]), np.ones((1, 1))
    with pytest.raises(BadRequest, match=f"start {start}"):
        sampler.sample(None, x, 5, start=start)
    with pytest.raises(BadRequest, match=f"start {start}"):
        sampler.add_noise(x, x, 5, start)


@pytest.mark.parametrize("name", ["flow_euler", "edm_euler", "consistency"])
def test_a_solver_for_another_kind_of_model_is_refused(name):
    for data in (SD15, {**SD15, "_class_name": "VQDiffusionScheduler"}):
        with pytest.raises(BadRequest, match="another kind of model"):
            from_config(data, name=name)
    with pytest.raises(BadRequest, match="another kind of model"):
        from_config({"_class_name": FAMILIES[name].class_name}, name="ddim")


def test_betas_of_zero_terminal_snr_go_to_samplers_that_have_them():
    config = {**PLAIN["ddim"], "prediction_type": "v_prediction", "rescale_betas_zero_snr": True}
    assert from_config(config, name="euler").sigmas(4)[0] == pytest.approx(4096.0, rel=1e-3)
    assert from_config(config, name="ddpm").alphas[-1] == 0.0
    with pytest.raises(BadRequest, match="LMSDiscreteScheduler has no rescale_betas_zero_snr.*: choose ddim or euler"):
        from_config(config, name="lms")


def test_a_file_of_ddpm_serves_dpm_solver():
    config = {"_class_name": "DDPMScheduler", **BETAS, "variance_type": "fixed_small", "clip_sample": False}
    assert len(from_config(config, name="dpm_multistep").sigmas(5)) == 6


FLOW = {"_class_name": "DPMSolverMultistepScheduler", "use_flow_sigmas": True, "prediction_type": "flow_prediction"}


def test_mu_is_the_logarithm_of_the_shift():
    dynamic = {**FLOW, "use_dynamic_shifting": True, "flow_shift": 1.7}
    by_mu = from_config(dynamic, settings={"mu": float(np.log(3.0))}).sigmas(5)
    np.testing.assert_allclose(by_mu, from_config({**FLOW, "flow_shift": 3.0}).sigmas(5), rtol=1e-12)
    np.testing.assert_array_equal(from_config(dynamic).sigmas(5), from_config({**FLOW, "flow_shift": 1.7}).sigmas(5))
    with pytest.raises(BadRequest, match="takes mu 0.5 with use_dynamic_shifting"):
        from_config(FLOW, settings={"mu": 0.5}).sigmas(5)
    linear = {"_class_name": "FlowMatchEulerDiscreteScheduler", "use_dynamic_shifting": True, "time_shift_type": "linear"}
    with pytest.raises(BadRequest, match="give a number above 0"):
        from_config(linear, settings={"mu": -0.5}).sigmas(5)


def test_mu_of_a_picture():
    """Its line goes through base_shift at 256 tokens and max_shift at 4096."""
    config = from_config({"_class_name": "FlowMatchEulerDiscreteScheduler"}).config
    assert [mu_of(config, n) for n in (256, 4096, 1024)] == pytest.approx([0.5, 1.15, 0.63])
    for wrong, tokens, message in (
        (config, 0, "0 tokens"),
        (config, True, "True tokens"),
        (FLOW, 256, "does not say base_shift"),
    ):
        with pytest.raises(BadRequest, match=message):
            mu_of(wrong, tokens)


@pytest.mark.parametrize(
    ("name", "settings"), [("lcm", {"strength": 0.0}), ("ddim", {"use_clipped_model_output": 1}), ("unipc", {"mu": "1"})]
)
def test_settings_out_of_range_are_refused(name, settings):
    with pytest.raises(BadRequest, match=next(iter(settings))):
        from_config({"_class_name": FAMILIES[name].class_name}, settings=settings)


def test_strength_begins_lower_in_the_list():
    half = from_config({"_class_name": "LCMScheduler"}, settings={"strength": 0.5})
    assert half.timesteps(4).tolist() == [499, 379, 259, 139]
    with pytest.raises(BadRequest, match="26 steps cannot be made of original_inference_steps 50 and strength 0.5"):
        half.timesteps(26)
