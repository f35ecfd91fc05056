"""The grids of k-diffusion, ComfyUI and AUTOMATIC1111: each schedule by its law, its ends, how many levels it has, its calls."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from refdiff.diffusion import ramps
from refdiff.diffusion.noise import stream
from refdiff.errors import BadRequest
from refdiff.samplers import from_config
from refdiff.samplers.grids_webui import (
    AYS_SD1,
    AYS_SD1_A1111,
    AYS_SDXL,
    AYS_SDXL_A1111,
    BETWEEN_ENDS,
    SCHEDULES,
    WITH_RHO,
    nearest_time,
    sigma_at,
)
from refdiff.samplers.listed import PUBLISHED

EULER, TRAINED = {"_class_name": "k_diffusion.sample_euler"}, 1000
TABLE = from_config(EULER, table="float64").alphas  # the training sigmas
LOW, HIGH = float(TABLE[0]), float(TABLE[-1])
STEPS = st.one_of(st.integers(1, 30), st.integers(31, TRAINED))
each = pytest.mark.parametrize("name", SCHEDULES)
# Fewer levels than steps may be left by these, for some numbers of steps; by ddim_uniform also more.
MERGING = ("ddim_uniform", "beta", "laplace")


def levels(name, steps, *, table="float64", **options):
    """The sigmas of a run by a schedule."""
    return from_config({**EULER, "schedule": name, **options}, table=table).sigmas(steps)


@st.composite
def requests(draw):
    """A schedule with its options, and a number of steps."""
    name, options = draw(st.sampled_from(sorted(SCHEDULES))), {}
    if name in BETWEEN_ENDS and draw(st.booleans()):
        options["sigma_min"] = draw(st.floats(0.03, 1.0))
        options["sigma_max"] = draw(st.floats(2.0, 14.0))
    if name in WITH_RHO and draw(st.booleans()):
        options["rho"] = draw(st.floats(1.0, 9.0 if name == "karras" else 4.0))  # beyond, levels near the lower end are one
    return name, draw(STEPS), {**options, "discard_next_to_last": draw(st.booleans())}


@given(requests(), st.sampled_from(["float64", "float32-torch"]))
def test_sigmas_strictly_decrease(request, table):
    """In both precisions, however many steps: a level that comes twice counts once."""
    name, steps, options = request
    found = levels(name, steps, table=table, **options)
    assert (
        np.all(np.diff(found) < 0.0)
        and np.all(np.isfinite(found))
        and found.dtype == (np.float64 if table == "float64" else np.float32)
    )
    if name != "kl_optimal_a1111":
        assert found[-1] == 0.0 < found[-2]
    if name not in MERGING and table == "float64":
        assert len(found) == steps + 1


@given(requests())
def test_the_last_but_one_is_discarded(request):
    """The schedule of one step more, without its last level above the end."""
    name, steps, options = request
    short, whole = (
        (levels(name, n, **{**options, "discard_next_to_last": d}) for n, d in ((steps, True), (steps + 1, False)))
        if (steps < TRAINED)
        else (np.zeros(1), np.zeros(1))
    )
    np.testing.assert_array_equal(short, np.delete(whole, -2) if len(whole) > 2 else whole)


FIRST = {
    "ddim_uniform": None, "vp": math.sqrt(math.expm1(0.5 * 19.9 + 0.1)), "align_your_steps": AYS_SD1[0],
    "align_your_steps_sdxl": AYS_SDXL[0], "align_your_steps_a1111": 14.615, "align_your_steps_sdxl_a1111": 14.615,
}  # fmt: skip


@given(STEPS)
def test_the_first_sigma(steps):
    """The model's largest, or the larger end; of ddim_uniform less than a stride below it, with others a number of their own."""
    for name in SCHEDULES:
        first = levels(name, steps)[0]
        if name == "ddim_uniform":
            place = int(np.searchsorted(TABLE, first))
            assert TABLE[place] == first and TRAINED - place <= max(TRAINED // steps, 1) and (place - 1) % (TRAINED // steps) == 0
        else:
            assert first == pytest.approx(FIRST.get(name, HIGH), rel=1e-12), name
        if name in BETWEEN_ENDS:
            assert levels(name, steps, sigma_max=9.0)[0] == pytest.approx(9.0, rel=1e-12), name


# The last sigma above 0 of a run of two steps or more, where it is the schedule's smaller end or a training sigma.
LEAST = {
    **dict.fromkeys(("uniform", "normal", "karras", "exponential", "polyexponential", "kl_optimal"), LOW),
    "ddim_uniform": float(TABLE[1]), "vp": math.sqrt(math.expm1(0.5 * 19.9e-6 + 0.1e-3)), "align_your_steps_a1111": 0.029,
    "align_your_steps_sdxl_a1111": 0.029, "beta_a1111": LOW, "laplace": LOW,
}  # fmt: skip


@given(st.integers(2, 300))
def test_the_last_sigma_above_0(steps):
    for name, wanted in LEAST.items():
        assert levels(name, steps)[-2] == pytest.approx(wanted, rel=1e-9), name
        if name in BETWEEN_ENDS:
            assert levels(name, steps, sigma_min=0.1)[-2] == pytest.approx(0.1, rel=1e-9), name
    assert levels("kl_optimal_a1111", steps)[-1] == pytest.approx(LOW, rel=1e-12)
    assert levels("kl_optimal_a1111", steps, sigma_min=0.1)[-1] == pytest.approx(0.1, rel=1e-12)


def time_of(sigma):
    """By the logarithm between training times."""
    return np.interp(np.log(sigma), np.log(TABLE), np.arange(TRAINED))


# Where a schedule's levels are at equal distances.
EVEN_IN = {
    "uniform": time_of, "normal": time_of, "sgm_uniform": time_of, "karras": lambda s: s ** (1 / 7), "exponential": np.log,
    "polyexponential": np.log, "kl_optimal": np.arctan, "kl_optimal_a1111": np.arctan,
    "vp": lambda s: np.sqrt(0.1**2 + 2 * 19.9 * np.log1p(s**2)),
    "beta_a1111": lambda s: scipy.stats.beta.cdf((s - LOW) / (HIGH - LOW), 0.6, 0.6),
}  # fmt: skip


@given(st.integers(3, 200))
def test_levels_are_at_equal_distances_of_what_the_schedule_says(steps):
    for name, measure in EVEN_IN.items():
        found = levels(name, steps)
        found = found if name == "kl_optimal_a1111" else found[:-1]
        gaps = np.diff(measure(found))
        np.testing.assert_allclose(gaps, gaps[0], rtol=1e-6, err_msg=name)


@given(st.integers(2, 200), st.floats(1.0, 4.0))
def test_exponents(steps, rho):
    """Karras's levels are even in the rho-th root, polyexponential's in that of the logarithm above the lower end."""
    roots = np.diff(levels("karras", steps, rho=rho)[:-1] ** (1 / rho))
    np.testing.assert_allclose(roots, roots[0], rtol=1e-6)
    share = np.log(levels("polyexponential", steps, rho=rho)[:-1] / LOW) / math.log(HIGH / LOW)
    np.testing.assert_allclose(share, np.linspace(1.0, 0.0, steps) ** rho, atol=1e-12)


@given(STEPS)
def test_sgm_uniform_leaves_out_the_level_that_normal_ends_with(steps):
    if steps < TRAINED:
        np.testing.assert_array_equal(levels("sgm_uniform", steps)[:-1], levels("normal", steps + 1)[:-2])


@given(STEPS)
def test_schedules_of_training_sigmas(steps):
    """Simple's strides are T / n in float64, rounded down from the last; ddim_uniform's are T // n, up from time 1."""
    places = np.searchsorted(TABLE, levels("simple", steps)[:-1])
    assert [TRAINED - 1 - place for place in places.tolist()] == [int(i * (TRAINED / steps)) for i in range(steps)]
    places = np.searchsorted(TABLE, levels("ddim_uniform", steps)[:-1])
    assert places[::-1].tolist() == list(range(1, TRAINED, TRAINED // steps))


@given(st.integers(1, 400))
def test_beta_takes_the_nearest_training_time_of_each_quantile(steps):
    quantiles = scipy.stats.beta.ppf(1.0 - np.arange(steps) / steps, 0.6, 0.6) * (TRAINED - 1)
    places = np.searchsorted(TABLE, levels("beta", steps)[:-1])
    assert np.max(np.min(np.abs(places[:, None] - quantiles), axis=1)) <= 0.5
    assert np.max(np.min(np.abs(places - quantiles[:, None]), axis=1)) <= 0.5  # and none is left out


@given(st.integers(2, 100))
def test_laplace_takes_quantiles_of_the_logarithm(steps):
    """Mean 0, scale 1/2, but for the 1e-5 that keeps its ends finite, and none beyond the model's."""
    found = levels("laplace", steps)[:-1]
    inside = found[(found > LOW * 1.01) & (found < HIGH * 0.99)]
    quantiles = scipy.stats.laplace.cdf(np.log(inside), 0.0, 0.5) * (steps - 1)
    np.testing.assert_allclose(quantiles, np.rint(quantiles), atol=1e-5 * steps)


@given(st.integers(2, TRAINED))
def test_linear_quadratic(steps):
    """A line for the first half, 0.025 in all, then a parabola that goes on as the line does, to 0."""
    found, half = levels("linear_quadratic", steps) / HIGH, steps // 2
    np.testing.assert_allclose(found[: half + 1], 1.0 - 0.025 * np.arange(half + 1) / half, rtol=1e-12)
    bends = np.diff(found[half:], 2)
    np.testing.assert_allclose(bends, bends[:1].repeat(len(bends)), rtol=1e-6, atol=1e-12)
    if len(bends):
        assert found[half + 1] - found[half] == pytest.approx(-0.025 / half + bends[0] / 2.0, rel=1e-9)
    np.testing.assert_array_equal(levels("linear_quadratic", 1), [HIGH, 0.0])


@pytest.mark.parametrize(
    ("name", "table", "digits"), [("StableDiffusion", AYS_SD1, AYS_SD1_A1111), ("StableDiffusionXL", AYS_SDXL, AYS_SDXL_A1111)]
)
def test_align_your_steps_as_published(name, table, digits):
    """The published times are 999, 850, ...; ComfyUI's sigmas are those of the model there, and the last that of time 0.

    The published sigmas, with three digits, are within 2 % of those.
    """
    times = [*PUBLISHED[f"{name}Timesteps"], 0]
    np.testing.assert_allclose(table, TABLE[times], rtol=2e-6)
    np.testing.assert_allclose(digits, table, rtol=0.02)
    assert len(table) == len(digits) == 11


def test_align_your_steps_in_other_numbers_of_steps():
    """ComfyUI's are the published ones for ten steps, AUTOMATIC1111's for eleven; else they lie between, by the logarithm."""
    for suffix, comfyui, webui in (("", AYS_SD1, AYS_SD1_A1111), ("_sdxl", AYS_SDXL, AYS_SDXL_A1111)):
        np.testing.assert_allclose(levels(f"align_your_steps{suffix}", 10), [*comfyui[:-1], 0.0], rtol=1e-12)
        np.testing.assert_allclose(levels(f"align_your_steps{suffix}_a1111", 11), [*webui, 0.0], rtol=1e-12)
        twice = levels(f"align_your_steps{suffix}", 20)
        np.testing.assert_allclose(twice[:-1:2], comfyui[:-1], rtol=1e-12)
        np.testing.assert_allclose(twice[1:-2:2], np.sqrt(np.multiply(comfyui[:-2], comfyui[1:-1])), rtol=1e-12)


@each
@pytest.mark.parametrize(("sampler", "calls"), [("k_euler", 1), ("k_heun", 2), ("k_dpmpp_2m", 1)])
def test_the_calls_of_a_run(name, sampler, calls):
    """As many for each step, but one alone for a step to 0; at the times of the sigmas, and at the next ones' for Heun."""
    made = from_config({**EULER, "schedule": name}, name=sampler)
    for steps in (1, 2, 7, 20):
        told, sigmas = [], made.sigmas(steps)
        end = made.sample(
            lambda x, t, told=told: told.append(t) or 0.1 * x, np.ones((1, 1, 2, 2)), steps, noise=stream("numpy", 1)
        )
        assert len(told) == calls * (len(sigmas) - 1) - (calls - 1) * (sigmas[-1] == 0.0) and np.all(np.isfinite(end))
        assert told[0] == made.timesteps(steps)[0] and told == sorted(told, reverse=True)


@each
def test_times_of_the_network(name):
    """Between training times by the logarithm of sigma, or the nearest; beyond the table its end."""
    sigmas = levels(name, 9)
    between, nearest = (
        from_config({**EULER, "schedule": name, "times": kind}, table="float64").timesteps(9)
        for kind in ("interpolated", "nearest")
    )
    above = sigmas if sigmas[-1] else sigmas[:-1]
    above = above[: len(between)]
    inside = (above >= LOW) & (above <= HIGH)
    np.testing.assert_allclose(sigma_at(between, TABLE)[inside], above[inside], rtol=1e-9)
    best = np.abs(np.log(TABLE)[:, None] - np.log(above)).argmin(axis=0)
    np.testing.assert_array_equal(nearest, best)
    assert np.all((between >= 0) & (between <= TRAINED - 1))


def test_the_scale_of_the_first_latent():
    """The first sigma, the whole deviation, or ComfyUI's: this where the run begins at the model's largest sigma or above."""
    for schedule, above in (("karras", True), ("vp", True), ("ddim_uniform", False), ("align_your_steps", True)):
        first = float(levels(schedule, 7)[0])
        found = [
            from_config({**EULER, "schedule": schedule, "initial": i}, table="float64").initial(7)
            for i in ("sigma", "deviation", "comfyui")
        ]
        whole = math.hypot(1.0, first)
        assert found == pytest.approx([first, whole, whole if above else first], rel=1e-12), schedule


@pytest.mark.parametrize("name", sorted(set(SCHEDULES) - set(BETWEEN_ENDS)))
def test_ends_are_refused_where_they_mean_nothing(name):
    for option in ("sigma_min", "sigma_max"):
        with pytest.raises(BadRequest, match=f"schedule {name} has no {option}"):
            levels(name, 5, **{option: 1.0})


@pytest.mark.parametrize("name", sorted(set(SCHEDULES) - set(WITH_RHO)))
def test_an_exponent_is_refused_where_it_means_nothing(name):
    with pytest.raises(BadRequest, match=f"schedule {name} has no rho"):
        levels(name, 5, rho=3.0)


def test_ends_in_the_wrong_order_are_refused():
    with pytest.raises(BadRequest, match="sigma_min 5 must be below sigma_max 4"):
        levels("karras", 5, sigma_min=5.0, sigma_max=4.0)


def test_time_of_is_the_inverse_of_sigma_at():
    at = np.array([0.0, 0.4, 17.0, 500.25, 999.0])
    np.testing.assert_allclose(ramps.time_of(sigma_at(at, TABLE), TABLE), at, atol=1e-9)


def test_the_nearest_time_is_that_of_the_logarithm():
    """Between the two means of two neighbours, the upper one is nearer by the logarithm, the lower one by sigma itself."""
    low, high = TABLE[:-1], TABLE[1:]
    between = (np.sqrt(low * high) + (low + high) / 2.0) / 2.0
    np.testing.assert_array_equal(nearest_time(between, TABLE), np.arange(1, TRAINED))
    np.testing.assert_array_equal(nearest_time(np.array([0.0, 1e-3, 200.0]), TABLE), [0, 0, TRAINED - 1])
