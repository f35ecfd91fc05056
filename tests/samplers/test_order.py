"""Every solver's order of convergence, and the moments of those that draw noise; docs/samplers/order.md has longer ladders."""

from __future__ import annotations

import math

import numpy as np
import pytest

from refdiff.diffusion.noise import stream
from refdiff.samplers import from_config
from refdiff.samplers.names import offered
from refdiff.samplers.schedulers.k_diffusion import K_FAMILIES
from refdiff.samplers.score import langevin
from tests.samplers import ladder, ladder_k, moments
from tests.samplers.ladder import BEGIN, END, MEANS, even_in_log, slope
from tests.samplers.test_names import MODEL

RUNG = {rung.name: rung for rung in (*ladder.RUNGS, *ladder_k.RUNGS)}
CHANCE = {chance.name: chance for chance in (*moments.CHANCES, *ladder_k.CHANCES)}
LADDER = (96, 192, 384)

# The measurement that stands for what the table of names says of a class, with its defaults or with these options.
MEASURED = {
    "DDIMScheduler": "DDIM", "DDIMInverseScheduler": "DDIM inversion", "DDPMScheduler": "DDPM, fixed_small",
    "UnCLIPScheduler": "DDPM, fixed_small",
    "IPNDMScheduler": "iPNDM", "PNDMScheduler": "PNDM, steps even in log sigma", "LMSDiscreteScheduler": "LMS 4",
    "EulerDiscreteScheduler": "Euler", "EulerAncestralDiscreteScheduler": "Euler ancestral", "HeunDiscreteScheduler": "Heun",
    "KDPM2DiscreteScheduler": "DPM2", "KDPM2AncestralDiscreteScheduler": "DPM2 ancestral",
    "DPMSolverMultistepScheduler": "DPM-Solver++ 2 midpoint, several steps",
    "DPMSolverMultistepScheduler sde-dpmsolver++ midpoint": "SDE-DPM-Solver++ 2 midpoint, several steps",
    "DPMSolverMultistepScheduler sde-dpmsolver++ heun": "SDE-DPM-Solver++ 2 heun, several steps",
    "DPMSolverMultistepInverseScheduler": "DPM-Solver++ 2, inversion",
    "DPMSolverSinglestepScheduler": "DPM-Solver++ 2 midpoint, single steps", "DEISMultistepScheduler": "DEIS 2",
    "UniPCMultistepScheduler": "UniPC 2 bh2", "UniPCMultistepScheduler bh2": "UniPC 2 bh2",
    "UniPCMultistepScheduler bh1": "UniPC 2 bh1", "LCMScheduler": "LCM", "TCDScheduler": "TCD, eta 0.3",
    "CMStochasticIterativeScheduler": "consistency model", "EDMEulerScheduler": "EDM Euler",
    "EDMDPMSolverMultistepScheduler": "EDM DPM-Solver++ 2", "FlowMatchEulerDiscreteScheduler": "flow Euler",
    "FlowMatchHeunDiscreteScheduler": "flow Heun", "FlowMatchLCMScheduler": "flow LCM",
    "DPMSolverSDEScheduler": "DPM-Solver SDE", "SASolverScheduler": "SA-Solver 2, 2", "RePaintScheduler": "RePaint",
    "ScoreSdeVeScheduler": "variance-exploding SDE, without corrections",
}  # fmt: skip
TWO_TO_THE_END = "ScoreSdeVeScheduler"
each_entry = pytest.mark.parametrize("entry", offered(), ids=lambda entry: " ".join([entry.class_name, *entry.options.values()]))


@pytest.mark.parametrize("name", RUNG)
def test_order_of_convergence(name):
    errors = RUNG[name].errors(LADDER)
    assert abs(slope(LADDER, errors) - RUNG[name].order) < 0.15, errors
    assert errors[-1] < 0.02


def test_where_the_name_says_another_order():
    """Only where a reason is given; below its name are PNDM, iPNDM, LMS without a start, and the third order in several steps."""
    below = {rung.name for rung in RUNG.values() if rung.order < rung.said}
    assert {name.split()[0] for name in below} == {"PNDM,", "iPNDM", "LMS", "DPM-Solver++", "DPM-Solver", "EDM", "k_dpm_fast,"}
    assert all(rung.why for rung in RUNG.values() if rung.order != rung.said)
    assert all(rung.order == rung.said + 1 for rung in RUNG.values() if rung.order > rung.said)


@pytest.mark.parametrize("form", ["DPM-Solver++", "DPM-Solver"])
def test_half_of_the_curvature_is_missing(form):
    """Of h^3 D'' the published third order leaves out 1/12, the second 5/12."""
    second, third = (RUNG[f"{form} {k}, several steps"].errors((384,))[0] for k in ("2 heun", "3"))
    assert abs(second / third - 5.0) < 0.25, (second, third)


@pytest.mark.parametrize("name", CHANCE)
def test_mean_and_deviation(name):
    """Where the solver leads to other data (order 0), the deviation is wrong however many steps there are."""
    chance = CHANCE[name]
    errors = chance.errors(LADDER)
    if chance.order is None:
        assert max(errors) < 1e-14
    elif chance.order == 0:
        assert errors[-1] > 0.25 and abs(slope(LADDER, errors)) < 0.05
    else:
        assert abs(slope(LADDER, errors) - chance.order) < 0.15, errors
    assert (np.max(np.abs(chance.moments(24)[0])) < 1e-14) == (name != "flow Heun with churn")


def test_langevins_steps_leave_an_error_however_many_there_are():
    """They are of one length: from normals of variance v they lead to v / (1 - snr^2), not to v."""
    noise, deviation = stream("numpy", 1), 1.7
    x = deviation * noise.normal((20_000, 8)).astype(np.float64)
    for _ in range(60):
        x = langevin(x, -x / deviation**2, noise.normal(x.shape), snr=0.15)
    assert abs(x.std() / deviation - 1.0 / math.sqrt(1.0 - 0.15**2)) < 0.004


def test_adaptives_steps_are_about_as_many_as_the_ladder_says():
    x = MEANS + np.zeros((5, 1))
    for n in LADDER:
        taken = list(ladder_k.by_tolerance(x + np.linspace(-2.0, 2.0, 5)[:, None] * BEGIN, even_in_log(BEGIN, END, n)))
        assert 0.5 * n < len(taken) < 2.0 * n


def orders(entry):
    """Those measured for an entry: k-diffusion's under the family's name and perhaps a number of steps."""
    options = [str(value) for value in entry.options.values()]
    measured = {**RUNG, **CHANCE}
    if entry.family in K_FAMILIES:
        name = " ".join([entry.family, *options])
        found = {m.order for key, m in measured.items() if key.split(",")[0] == name}
    else:
        found = {measured[MEASURED[" ".join([entry.class_name, *options])]].order}
    return ["exact" if order is None else str(order) for order in sorted(found, key=str)]


@each_entry
def test_the_table_of_names_says_what_is_measured(entry):
    assert entry.order == " or ".join(orders(entry))


def calls_of(entry, steps, **more):
    """How many calls of the network a run of the entry's sampler has, and how many of its steps go down."""
    settings = {"original_image": np.zeros((1, 4, 2, 2)), "mask": np.zeros((1, 4, 2, 2))} if entry.family == "repaint" else {}
    config = {**MODEL, **entry.options, **more} if diffusing(entry) else {"_class_name": entry.class_name}
    sampler = from_config(config, name=entry.family if diffusing(entry) else None, settings=settings)
    calls = []

    def network(x, t):
        calls.append(t)
        return 0.5 * x

    sampler.sample(network, np.ones((1, 4, 2, 2)), steps, noise=stream("numpy", 1))
    return len(calls), int(np.sum(np.diff(sampler.sigmas(steps)) < 0.0))


@each_entry
def test_the_table_of_names_says_how_many_calls_a_step_has(entry):
    if entry.calls == "as needed":  # by the tolerance: steps say nothing, but a wider range of sigmas does
        few, many, wide = (
            calls_of(entry, n, schedule="karras", sigma_max=high)[0] for n, high in ((5, 2.0), (50, 2.0), (5, 14.0))
        )
        assert few == many < wide
        return
    first, *more = entry.calls.split(", and ")
    calls, downs = calls_of(entry, 20)
    if more == ["more"]:
        assert calls == downs > 20 * int(first)
        return
    expected = int(first) * 20 + (int(more[0].split()[0]) if more else 0)
    short = first == "2" and entry.class_name != TWO_TO_THE_END  # the last step to 0 has one
    assert calls == expected - short


def diffusing(entry):
    return not entry.class_name.startswith(("EDM", "FlowMatch", "CM", "UnCLIP", "IPNDM", "Score"))
