"""DPM-Solver, DEIS and UniPC: their order of convergence, their noise, and what upstream cannot do."""

from __future__ import annotations

import math

import numpy as np
import pytest

from refdiff.diffusion.noise import stream
from refdiff.errors import BadRequest
from refdiff.samplers import dpm_multistep as multistep
from refdiff.samplers import from_config
from refdiff.samplers.dpm_singlestep import chord, dpm_singlestep, parabola
from refdiff.samplers.unipc import grown, itself, unipc
from tests.samplers.test_laws import MEAN, bend, flow, gaussian

BETAS = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
CLASSES = {
    "multi": {"_class_name": "DPMSolverMultistepScheduler", **BETAS},
    "single": {"_class_name": "DPMSolverSinglestepScheduler", **BETAS},
    "deis": {"_class_name": "DEISMultistepScheduler", **BETAS},
    "unipc": {"_class_name": "UniPCMultistepScheduler", **BETAS},
    "inverse": {"_class_name": "DPMSolverMultistepInverseScheduler", **BETAS},
}
every_class = pytest.mark.parametrize("name", CLASSES)
HALF, LINE = multistep.slope_by_half, multistep.slope_by_interpolation
FLAT, WHOLE = multistep.half_curvature, multistep.whole_curvature


def levels(n):
    """Equal distances in log sigma, as smooth steps as there are."""
    return np.geomspace(3.0, 0.3, n + 1).tolist()


def eased(n):
    """The same, with two short steps first: a first step of order 1 and length h would leave an error of h^2 behind."""
    h = math.log(10.0) / n
    return (3.0 * np.exp(-np.append([0.0, h**2], np.linspace(2.0 * h**2, math.log(10.0), n)))).tolist()


def multi(form, slope, curvature, order):
    def run(x, sigmas):
        orders = np.minimum(np.arange(1, len(sigmas)), order).tolist()
        return multistep.dpm_multistep(gaussian, x, sigmas, orders=orders, scheme=form(slope, curvature), noise=None)

    return run


def single(form, slope, expand, order):
    def run(x, sigmas):
        orders = (np.arange(len(sigmas) - 1) % order + 1).tolist()
        return dpm_singlestep(gaussian, x, sigmas, orders=orders, scheme=form(slope, WHOLE), expand=expand, noise=None)

    return run


def predictor_corrector(form, size, order, corrected):
    def run(x, sigmas):
        n = len(sigmas) - 1
        orders = np.minimum(np.arange(1, n + 1), order).tolist()
        return unipc(gaussian, x, sigmas, orders=orders, corrected=[corrected] * n, scheme=form(HALF, FLAT), size=size)

    return run


DATA, NOISE = multistep.data_flow, multistep.noise_flow
ORDERS = {
    "++ 1": (multi(DATA, HALF, FLAT, 1), 1), "1": (multi(NOISE, HALF, FLAT, 1), 1),
    "++ 2 midpoint": (multi(DATA, HALF, FLAT, 2), 2), "++ 2 heun": (multi(DATA, LINE, FLAT, 2), 2),
    "2 midpoint": (multi(NOISE, HALF, FLAT, 2), 2), "2 heun, deis 2": (multi(NOISE, LINE, FLAT, 2), 2),
    "++ 3 as published": (multi(DATA, LINE, FLAT, 3), 2), "3 as published": (multi(NOISE, LINE, FLAT, 3), 2),
    "++ 3 with the whole curvature": (multi(DATA, LINE, WHOLE, 3), 3), "deis 3": (multi(NOISE, LINE, WHOLE, 3), 3),
    "single ++ 2 midpoint": (single(DATA, HALF, chord, 2), 2), "single ++ 2 heun": (single(DATA, LINE, parabola, 2), 2),
    "single 2 midpoint": (single(NOISE, HALF, chord, 2), 2), "single 2 heun": (single(NOISE, LINE, parabola, 2), 2),
    "single ++ 3 heun": (single(DATA, LINE, parabola, 3), 3), "single 3 heun": (single(NOISE, LINE, parabola, 3), 3),
    "single ++ 3 midpoint": (single(DATA, HALF, chord, 3), 3), "single 3 midpoint": (single(NOISE, HALF, chord, 3), 3),
    "unip 2": (predictor_corrector(DATA, grown, 2, False), 2), "unipc 2": (predictor_corrector(DATA, grown, 2, True), 3),
    "unip 3": (predictor_corrector(DATA, grown, 3, False), 3), "unip 3 bh1": (predictor_corrector(DATA, itself, 3, False), 3),
    "unip 3 of noise": (predictor_corrector(NOISE, grown, 3, False), 3),
    "unipc 1": (predictor_corrector(DATA, grown, 1, True), 2),
}  # fmt: skip


def slope_of(run, spaced):
    """The slope of log error over log n between 96 and 192 steps, and the smaller error."""
    errors, x = [], np.linspace(-6.0, 6.0, 9)
    for n in (96, 192):
        end = list(run(x, spaced(n)))[-1].x
        errors.append(float(np.max(np.abs(end - flow(x, 3.0, 0.3)))))
    return math.log2(errors[0] / errors[1]), errors[1]


@pytest.mark.parametrize("name", ORDERS)
def test_order_of_convergence(name):
    """The published third order in several steps is 2: its curvature has half of its weight."""
    run, order = ORDERS[name]
    slope, error = slope_of(run, levels if name.startswith("single") else eased)
    assert abs(slope - order) < 0.15, slope
    assert error < 0.01


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("form", [multistep.data_diffusion, multistep.noise_diffusion])
def test_mean_and_variance_of_the_noisy_ones(form, order):
    sigmas = np.geomspace(80.0, 0.02, 161).tolist()
    x = MEAN + 80.0 * stream("numpy", 1).normal((40000,)).astype(np.float64)
    orders = np.minimum(np.arange(1, 161), order).tolist()
    steps = multistep.dpm_multistep(gaussian, x, sigmas, orders=orders, scheme=form(HALF, FLAT), noise=stream("numpy", 2))
    end = list(steps)[-1].x
    assert np.mean(end) == pytest.approx(MEAN, abs=0.03)
    assert np.std(end) == pytest.approx(0.7, abs=0.03)


@every_class
@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("steps", [1, 2, 3, 999, 1000])
def test_shortest_and_longest_runs(name, order, steps):
    """Upstream's 1000 steps divide 0 by 0, where linspace rounds two times to one."""
    x = np.random.default_rng(1).standard_normal((1, 4, 2, 3)).astype(np.float32)
    end = from_config({**CLASSES[name], "solver_order": order}).sample(bend, x, steps)
    assert end.dtype == np.float32 and np.isfinite(end).all()


@pytest.mark.parametrize("algorithm", ["sde-dpmsolver++", "sde-dpmsolver"])
def test_same_seed_twice_is_bit_equal(algorithm):
    sampler = from_config({**CLASSES["multi"], "algorithm_type": algorithm, "final_sigmas_type": "sigma_min"})
    x = np.random.default_rng(1).standard_normal((1, 4, 2, 3)).astype(np.float32)
    runs = [sampler.sample(bend, x, 7, noise=stream("torch", 5)) for _ in range(2)]
    np.testing.assert_array_equal(*runs)
    assert not np.array_equal(runs[0], sampler.sample(bend, x, 7, noise=stream("torch", 6)))
    with pytest.raises(BadRequest, match="needs noise"):
        sampler.sample(bend, x, 7)


REFUSED = [
    ("multi", {"algorithm_type": "dpmsolver"}, "cannot end at 0: write final_sigmas_type sigma_min"),
    ("multi", {"algorithm_type": "sde-dpmsolver", "final_sigmas_type": "sigma_min", "solver_order": 3}, "has no order 3"),
    ("multi", {"use_karras_sigmas": True, "use_lu_lambdas": True}, "exclude each other"),
    ("multi", {"prediction_type": "flow_prediction"}, "need use_flow_sigmas"),
    ("multi", {"lambda_min_clipped": "low"}, "lambda_min_clipped"),
    ("multi", {"solver_order": 4}, "solver_order"),
    ("unipc", {"predict_x0": False}, "cannot end at 0"),
    ("unipc", {"shift_terminal": 0.1}, "needs use_flow_sigmas"),
    ("unipc", {"shift_terminal": 1.5, "use_flow_sigmas": True}, "shift_terminal"),
    ("unipc", {"disable_corrector": 1}, "disable_corrector"),
    ("inverse", {"algorithm_type": "sde-dpmsolver++"}, "algorithm_type"),
]


@pytest.mark.parametrize(("name", "options", "message"), REFUSED)
def test_what_excludes_itself_is_refused(name, options, message):
    with pytest.raises(BadRequest, match=message):
        from_config({**CLASSES[name], **options})


@pytest.mark.parametrize(
    ("name", "options", "steps", "message"),
    [
        ("multi", {"timestep_spacing": "leading"}, 1000, "do not fit into the 1000 training times"),
        ("multi", {"timestep_spacing": "leading", "steps_offset": 1}, 999, "do not fit"),
        ("multi", {"timestep_spacing": "trailing", "lambda_min_clipped": -2.0}, 1000, "do not fit into the 877 training times"),
        ("unipc", {"use_flow_sigmas": True, "shift_terminal": 0.1}, 1, "take 2 steps"),
        ("multi", {"algorithm_type": "sde-dpmsolver++", "use_flow_sigmas": True, "final_sigmas_type": "sigma_min"}, 50, "rise"),
    ],
)
def test_steps_that_do_not_exist_are_refused(name, options, steps, message):
    sampler = from_config({**CLASSES[name], **options})
    with pytest.raises(BadRequest, match=message):
        sampler.timesteps(steps)


@pytest.mark.parametrize("options", [{"solver_type": "heun"}, {"solver_order": 3}])
def test_a_ramp_that_ends_at_sigma_min_twice_stands_still_there(options):
    """Upstream divides 0 by 0."""
    ramp = {"use_exponential_sigmas": True, "final_sigmas_type": "sigma_min", "lower_order_final": False}
    sampler = from_config({**CLASSES["multi"], **ramp, **options})
    steps = list(sampler.iterate(bend, np.random.default_rng(1).standard_normal((1, 2, 3)), 20))
    np.testing.assert_allclose(steps[-1].x, steps[-2].x, rtol=0, atol=1e-6)


@pytest.mark.parametrize("options", [{"solver_type": "bh1"}, {"lower_order_final": False}, {"disable_corrector": [0]}])
def test_unipc_reaches_0_where_upstream_does_not(options):
    sampler = from_config({**CLASSES["unipc"], "solver_order": 3, **options})
    last = list(sampler.iterate(bend, np.random.default_rng(1).standard_normal((1, 2, 3)), 12))[-1]
    assert last.sigma == 0.0 and np.isfinite(last.x).all()
    np.testing.assert_allclose(last.x, last.denoised, rtol=0, atol=1e-12)


def test_there_and_back_again():
    """Inversion finds the noise that leads to a picture, the better the more steps."""
    spacing = {"timestep_spacing": "linspace", "solver_order": 2}
    x = np.random.default_rng(1).standard_normal((1, 4, 3, 3)) * 0.5
    errors = []
    for steps in (50, 400):
        noise = from_config({**CLASSES["inverse"], **spacing}).sample(bend, x, steps)
        back = from_config({**CLASSES["multi"], **spacing, "final_sigmas_type": "sigma_min"}).sample(bend, noise, steps)
        errors.append(float(np.max(np.abs(back - x))))
    assert errors[1] < 0.2 * errors[0] and errors[1] < 0.05, errors


def test_a_run_from_the_middle_begins_with_low_order():
    sampler = from_config({**CLASSES["multi"], "solver_order": 3})
    x0, noise = np.zeros((1, 4, 2, 2)), np.ones((1, 4, 2, 2))
    begin = sampler.add_noise(x0, noise, 20, 12)
    steps = list(sampler.iterate(bend, begin, 20, start=12))
    assert [step.index for step in steps] == list(range(12, 20)) and np.isfinite(steps[-1].x).all()
