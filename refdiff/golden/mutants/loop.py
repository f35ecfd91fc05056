"""Bugs of the tables, of the loop and of guidance."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from refdiff.diffusion import guidance, ramps, spacing
from refdiff.errors import BadRequest
from refdiff.golden.mutants.kind import Change, Site, Variant, Variants, by_site, patched
from refdiff.pipelines import text_to_image
from refdiff.samplers import Sampler, dpm_multistep, from_config
from refdiff.samplers.family import Network, unchanged
from refdiff.samplers.grids import Grid
from refdiff.samplers.names import named
from refdiff.samplers.pndm import plms, weighted
from refdiff.samplers.step import Step, restated


def sampling(change: Callable[[Sampler], Sampler]) -> Variant:
    """A variant with another sampler, where the change means anything to the right one."""

    def make(site: Site) -> list[Change]:
        original = text_to_image.sampler_of

        def other(pipe: Any, request: Any) -> Sampler:
            sampler = original(pipe, request)
            try:
                changed = change(sampler)
                changed.sigmas(request.steps)
            except BadRequest:  # these options do not go together
                return sampler
            return changed

        return [(text_to_image, "sampler_of", other)]

    return by_site(make)


def configured(**options: Any) -> Variant:
    """A sampler whose configuration says otherwise, with the tables made before."""

    def change(sampler: Sampler) -> Sampler:
        known = {key: value for key, value in options.items() if key in sampler.config}
        return replace(sampler, config={**sampler.config, **known})

    return sampling(change)


def tabled(**options: Any) -> Variant:
    """A sampler whose configuration says otherwise, tables and all."""

    def change(sampler: Sampler) -> Sampler:
        known = {key: value for key, value in options.items() if key in sampler.config}
        config = {**sampler.config, **known}
        return replace(sampler, config=config, alphas=sampler.family.table(config, "float32-torch"))

    return sampling(change)


def gridded(change: Callable[[Grid], Grid], *, where: Callable[[Sampler], bool]) -> Variant:
    """A sampler with another grid, where that can be."""

    def other(sampler: Sampler) -> Sampler:
        right = sampler.family.grid
        if not where(sampler):
            return sampler
        return replace(sampler, family=replace(sampler.family, grid=lambda *args: change(right(*args))))

    return sampling(other)


def anywhere(sampler: Sampler) -> bool:
    """Every sampler."""
    return True


def exploding(sampler: Sampler) -> bool:
    """Samplers whose latents are x0 + sigma noise; those of the others are of unit variance as they are."""
    return sampler.family.outside is unchanged and "beta_schedule" in sampler.config


def strided(sampler: Sampler) -> bool:
    """DDIM and PNDM, whose steps have ends of their own."""
    return "set_alpha_to_one" in sampler.config and sampler.family.variance_preserving


def next_listed(grid: Grid) -> Grid:
    """Every step ends where the next begins; LCM's have no ends of their own."""
    if "targets" not in grid.policy:
        return grid
    return replace(grid, policy={**grid.policy, "targets": grid.sigmas[1:]})


def offset_by(change: int) -> Variant:
    """Times that are moved by as much."""

    def other(sampler: Sampler) -> Sampler:
        if "steps_offset" not in sampler.config:
            return sampler
        return replace(sampler, config={**sampler.config, "steps_offset": max(sampler.config["steps_offset"] + change, 0)})

    return sampling(other)


def floored(steps: int, *, count: int) -> np.ndarray:
    """Evenly spaced times without their fraction."""
    return np.floor(np.linspace(0, count - 1, steps))[::-1]


def other_scheduler(name: str) -> Variant:
    """The model's betas with another scheduler."""

    def change(sampler: Sampler) -> Sampler:
        family, options = named(name)
        return from_config({**sampler.config, "clip_sample": False, **options}, name=family)

    return sampling(change)


def class_defaults(*keys: str) -> Variant:
    """Options at the defaults of their class: those named, or all but the kind of prediction."""

    def change(sampler: Sampler) -> Sampler:
        defaults = sampler.family.defaults
        chosen = {key: defaults[key] for key in keys or defaults if key in defaults and key != "clip_sample"}
        config = {**sampler.config, **chosen}
        return replace(sampler, config=config, alphas=sampler.family.table(config, "float32-torch"))

    return sampling(change)


def shift_by(power: float) -> Variant:
    """A flow's shift taken that often."""

    def change(sampler: Sampler) -> Sampler:
        if "shift" not in sampler.config:
            return sampler
        return replace(sampler, config={**sampler.config, "shift": sampler.config["shift"] ** power})

    return sampling(change)


def asked_once(sampler: Sampler) -> Sampler:
    """PNDM that begins with a plain step."""
    if sampler.family.solve is not plms:
        return sampler
    grid = sampler.family.grid
    family = replace(sampler.family, solve=plain_start, grid=lambda *args: replace(grid(*args), calls=None))
    return replace(sampler, family=family)


def plain_start(predict: Any, x: Any, sigmas: Sequence[float], *, targets: Any, restarts: Any, noise_of: Any) -> Iterator[Step]:
    """PNDM's steps without its trial step."""
    history: list = []
    for i, (sigma, target) in enumerate(zip(sigmas, targets, strict=False)):
        denoised, said = predict(x, sigma)
        history = [said, *history[:3]]
        x = restated(x + (target - sigma) * noise_of(x, weighted(history), sigma), target, sigmas[i + 1])
        yield Step(i, sigmas[i + 1], x, denoised)


def scaled_by(power: float) -> Variant:
    """A network that sees x times its scale that often."""

    def change(sampler: Sampler) -> Sampler:
        if not exploding(sampler):
            return sampler
        right = sampler.family.network

        def network(options: Any) -> Network:
            known = right(options)
            return Network(
                lambda sigma: known.scale(sigma) ** power,
                lambda seen, output, sigma: known.denoised(seen * known.scale(sigma) ** (1.0 - power), output, sigma),
            )

        return replace(sampler, family=replace(sampler.family, network=network))

    return sampling(change)


def predicting(kind: str) -> Variant:
    """The network's answer taken for something else."""
    return configured(prediction_type=kind)


def with_orders(change: Callable[[np.ndarray], np.ndarray]) -> Variant:
    """DPM-Solver's steps with other orders; a step to 0 has a formula of order 1 alone."""

    def other(grid: Grid) -> Grid:
        orders = change(grid.policy["orders"].copy())
        return replace(grid, policy={**grid.policy, "orders": np.where(grid.sigmas[1:] > 0.0, orders, 1)})

    return gridded(other, where=lambda sampler: sampler.family.solve is dpm_multistep.dpm_multistep)


def highest_last(orders: np.ndarray) -> np.ndarray:
    """The last step like the one before."""
    return np.append(orders[:-1], orders.max())


def first_last(orders: np.ndarray) -> np.ndarray:
    """The last step of order 1."""
    return np.append(orders[:-1], 1)


def turned(right: Callable[[Any, Any], list]) -> Callable[[Any, Any], list]:
    """`differences` with both step lengths exchanged in the slope."""

    def differences(answers: Any, levels: Any) -> list:
        if len(answers) != 2:
            return right(answers, levels)
        h, back = (math.log(levels[k + 1] / levels[k]) for k in range(2))
        return [answers[0], (back / h) * (answers[0] - answers[1])]

    return differences


def ramp(*, low: float | None, high: float | None, rho: float) -> Variant:
    """Karras's ramp between these ends; None is the right one."""

    def karras(count: int, **ends: float) -> np.ndarray:
        right = {"low": ends["low"], "high": ends["high"]}
        told = {"low": low, "high": high}
        return RIGHT_RAMP(count, **{key: right[key] if value is None else value for key, value in told.items()}, rho=rho)

    return patched((ramps, "karras", karras))


RIGHT_RAMP = ramps.karras


def upwards(count: int, *, low: float, high: float, rho: float) -> np.ndarray:
    """The ramp with its ends exchanged."""
    return RIGHT_RAMP(count, low=high, high=low, rho=rho)


def split_by(change: Callable[[np.ndarray, np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]) -> Variant:
    """Ancestral steps split otherwise into `downs` and `ups`, of which this is given, and the sigmas."""

    def other(grid: Grid) -> Grid:
        downs, ups = change(grid.policy["downs"], grid.policy["ups"], grid.sigmas)
        return replace(grid, policy={**grid.policy, "downs": downs, "ups": ups})

    return gridded(other, where=lambda sampler: sampler.family.class_name == "EulerAncestralDiscreteScheduler")


def fully_random(sampler: Sampler) -> Sampler:
    """DDIM with an eta of 1."""
    return replace(sampler, settings={**sampler.settings, "eta": 1.0}) if "eta" in sampler.settings else sampler


def guided_by(guide: Callable[[Any, Any, float], Any]) -> Variant:
    """Guidance by another formula of (unconditional, conditional, scale)."""
    return patched((guidance, "guide", lambda u, c, *, scale: guide(u, c, scale)))


def off_below_one(scale: float, *, phi: float) -> tuple[bool, bool]:
    """At a scale of 1 and below the prompts alone are seen."""
    return (False, True) if scale <= 1.0 else (True, True)


VARIANTS: Variants = {
    "beta-linear": {
        "linear": tabled(beta_schedule="linear"),
        "scaled_linear": tabled(beta_schedule="scaled_linear"),
        "cosine": tabled(beta_schedule="squaredcos_cap_v2"),
    },
    "steps-offset": {"one less": offset_by(-1), "one more": offset_by(1)},
    "spacing": {
        **{name: configured(timestep_spacing=name) for name in ("leading", "trailing", "linspace")},
        "linspace cut off": patched((spacing, "linspaced", floored)),
    },
    "prev-t-stride": {"the next of the list": gridded(next_listed, where=strided)},
    "final-alpha": {"1": configured(set_alpha_to_one=True), "the first": configured(set_alpha_to_one=False)},
    "pndm-dup": {"once": sampling(asked_once)},
    "init-sigma": {
        "left out": gridded(lambda grid: replace(grid, initial=1.0), where=exploding),
        "twice": gridded(lambda grid: replace(grid, initial=grid.initial**2), where=exploding),
        "sigma alone": gridded(lambda grid: replace(grid, initial=float(grid.sigmas.max())), where=exploding),
        "with the signal": gridded(lambda grid: replace(grid, initial=math.hypot(grid.sigmas.max(), 1.0)), where=exploding),
    },
    "scale-input": {"left out": scaled_by(0.0), "twice": scaled_by(2.0)},
    "sigma-tail": {
        "smallest of training": configured(final_sigmas_type="sigma_min"),
        "zero": configured(final_sigmas_type="zero"),
        "last one twice": gridded(
            lambda grid: replace(grid, sigmas=np.append(grid.sigmas[:-1], grid.sigmas[-2])),
            where=lambda sampler: not strided(sampler),
        ),
    },
    "lower-order-final": {"not lowered": with_orders(highest_last), "lowered": with_orders(first_last)},
    "dpmpp-h": {"turned around": by_site(lambda site: [(dpm_multistep, "differences", turned(dpm_multistep.differences))])},
    "karras-ends": {
        "exchanged": patched((ramps, "karras", upwards)),
        "0.03 to 14.6": ramp(low=0.03, high=14.6, rho=7.0),
        "0.0292 to 14.6146": ramp(low=0.0292, high=14.6146, rho=7.0),
        "fifth root": ramp(low=None, high=None, rho=5.0),
        "linear": ramp(low=None, high=None, rho=1.0),
    },
    "anc-split": {
        "exchanged": split_by(lambda downs, ups, sigmas: (ups, downs)),
        "down to the next": split_by(lambda downs, ups, sigmas: (sigmas[1:], ups)),
        "no noise": split_by(lambda downs, ups, sigmas: (sigmas[1:], 0.0 * ups)),
        "no root": split_by(lambda downs, ups, sigmas: (downs, ups**2)),
        "eta 1 of DDIM": sampling(fully_random),
    },
    "vpred-as-eps": {"noise": predicting("epsilon"), "velocity": predicting("v_prediction"), "picture": predicting("sample")},
    "cfg-swap": {"exchanged": guided_by(lambda u, c, scale: c + scale * (u - c))},
    "cfg-off": {
        "conditional alone": guided_by(lambda u, c, scale: c),
        "unconditional alone": guided_by(lambda u, c, scale: u),
        "scale from zero": guided_by(lambda u, c, scale: u + (1.0 + scale) * (c - u)),
        "off at 1 and below": patched((guidance, "branches", off_below_one)),
    },
    "wrong-default": {
        name: other_scheduler(name) for name in ("pndm", "ddim", "euler", "euler_ancestral", "dpm_multistep", "lms")
    },
    "flow-shift-2x": {"once more": shift_by(2.0), "not at all": shift_by(0.0)},
    "wrong-default-cfg-values": {
        "the scheduler's betas": class_defaults("beta_start", "beta_end", "beta_schedule"),
        "all of the scheduler": class_defaults(),
    },
}
