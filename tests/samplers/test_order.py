"""Every solver's order of convergence, and the moments of those that draw noise; docs/samplers/order.md has longer ladders."""

from __future__ import annotations

import numpy as np
import pytest

from refdiff.diffusion.noise import stream
from refdiff.samplers import from_config
from refdiff.samplers.names import offered
from tests.samplers.ladder import RUNGS, slope
from tests.samplers.moments import CHANCES
from tests.samplers.test_names import MODEL

RUNG = {rung.name: rung for rung in RUNGS}
CHANCE = {chance.name: chance for chance in CHANCES}
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
}  # fmt: skip
# Measured in tests of their own: test_k_solvers.py and test_s.py. RePaint fills in pictures, back and forth.
ELSEWHERE = {"DPMSolverSDEScheduler", "SASolverScheduler", "ScoreSdeVeScheduler", "RePaintScheduler"}
BACK_AND_FORTH = "RePaintScheduler"  # as many calls as its jumps say
TWO_TO_THE_END = "ScoreSdeVeScheduler"
each_entry = pytest.mark.parametrize("entry", offered(), ids=lambda entry: " ".join([entry.class_name, *entry.options.values()]))


@pytest.mark.parametrize("name", RUNG)
def test_order_of_convergence(name):
    errors = RUNG[name].errors(LADDER)
    assert abs(slope(LADDER, errors) - RUNG[name].order) < 0.15, errors
    assert errors[-1] < 0.02


def test_where_the_name_says_another_order():
    """Only where a reason is given; below its name are PNDM, iPNDM, LMS without a start, and the third order in several steps."""
    below = {rung.name for rung in RUNGS if rung.order < rung.said}
    assert {name.split()[0] for name in below} == {"PNDM,", "iPNDM", "LMS", "DPM-Solver++", "DPM-Solver", "EDM"}
    assert all(rung.why for rung in RUNGS if rung.order != rung.said)
    assert all(rung.order == rung.said + 1 for rung in RUNGS if rung.order > rung.said)


@pytest.mark.parametrize("form", ["DPM-Solver++", "DPM-Solver"])
def test_half_of_the_curvature_is_missing(form):
    """Of h^3 D'' the published third order leaves out 1/12, the second 5/12."""
    second, third = (RUNG[f"{form} {k}, several steps"].errors((384,))[0] for k in ("2 heun", "3"))
    assert abs(second / third - 5.0) < 0.25, (second, third)


@pytest.mark.parametrize("name", CHANCE)
def test_mean_and_deviation(name):
    chance = CHANCE[name]
    errors = chance.errors((24, 48, 96))
    if chance.order is None:
        assert max(errors) < 1e-14
    elif chance.order == 0:
        assert errors[-1] > 0.05
        return
    else:
        assert abs(slope((24, 48, 96), errors) - chance.order) < 0.15, errors
    assert np.max(np.abs(chance.moments(24)[0])) < 1e-14


@each_entry
def test_the_table_of_names_says_what_is_measured(entry):
    if entry.class_name.startswith("k_diffusion.") or entry.class_name in ELSEWHERE:
        return
    name = MEASURED[" ".join([entry.class_name, *entry.options.values()])]
    order = RUNG[name].order if name in RUNG else CHANCE[name].order
    assert entry.order == ("exact" if order is None else str(order))


@each_entry
def test_the_table_of_names_says_how_many_calls_a_step_has(entry):
    if entry.class_name.startswith("k_diffusion.") or entry.class_name == BACK_AND_FORTH:
        return
    sampler, calls = from_config({**MODEL, **entry.options}, name=entry.family) if diffusing(entry) else own(entry), []

    def network(x, t):
        calls.append(t)
        return 0.5 * x

    sampler.sample(network, np.ones((1, 4, 2, 2)), 10, noise=stream("numpy", 1))
    first, *more = entry.calls.split(", and ")
    expected = int(first) * 10 + (int(more[0].split()[0]) if more else 0)
    short = first == "2" and entry.class_name != TWO_TO_THE_END  # the last step to 0 has one
    assert len(calls) == expected - short


def diffusing(entry):
    return not entry.class_name.startswith(("EDM", "FlowMatch", "CM", "UnCLIP", "IPNDM", "Score"))


def own(entry):
    return from_config({"_class_name": entry.class_name})
