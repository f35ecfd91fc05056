"""Bugs of what a sampler keeps from one picture to the next."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from refdiff.golden.mutants.kind import Variants
from refdiff.golden.mutants.loop import sampling
from refdiff.samplers import Sampler
from refdiff.samplers.dpm_multistep import differences, dpm_multistep
from refdiff.samplers.pndm import plms, weighted
from refdiff.samplers.step import Step, restated


def keeping(sampler: Sampler) -> Sampler:
    """The same, with the network's last answers of the picture before."""
    solver = LATER.get(sampler.family.solve)
    if solver is None:
        return sampler
    right, kept = sampler.family.solve, list[Any]()

    def solve(ask: Any, x: Any, sigmas: Sequence[float], **policy: Any) -> Iterator[Step]:
        made, before = list[Any](), list(kept)

        def asked(x: Any, sigma: float) -> Any:
            made.insert(0, ask(x, sigma))
            return made[0]

        yield from (solver(asked, before, x, sigmas, **policy) if before else right(asked, x, sigmas, **policy))
        kept[:] = made

    return replace(sampler, family=replace(sampler.family, solve=solve))


def later_plms(ask: Any, kept: list, x: Any, sigmas: Sequence[float], **policy: Any) -> Iterator[Step]:
    """PNDM's steps that begin with the last answers of the picture before; its trial step is then not made."""
    history = [said for _, said in kept]
    for i, (sigma, target) in enumerate(zip(sigmas, policy["targets"], strict=False)):
        denoised, said = ask(x, sigma)
        history = [said, *history[:3]]
        x = restated(x + (target - sigma) * policy["noise_of"](x, weighted(history), sigma), target, sigmas[i + 1])
        yield Step(i, sigmas[i + 1], x, denoised)


def later_multistep(ask: Any, kept: list, x: Any, sigmas: Sequence[float], **policy: Any) -> Iterator[Step]:
    """DPM-Solver's steps whose first takes the last answer of the picture before for that of a step as long as its own."""
    answers, scheme = [kept[0]], policy["scheme"]
    for i, (sigma, after) in enumerate(zip(sigmas[:-1], sigmas[1:], strict=True)):
        denoised = ask(x, sigma)
        answers = [scheme.quantity(x, denoised, sigma), *answers[:2]]
        order = 2 if after > 0.0 else 1
        before = sigmas[i - 1] if i else sigma * sigma / after
        weights = scheme.weights(sigma, after, order)
        terms = differences(answers[:order], [after, sigma, before])
        x = scheme.keep(sigma, after) * x + sum(w * d for w, d in zip(weights, terms, strict=True))
        yield Step(i, after, x, denoised)


LATER = {plms: later_plms, dpm_multistep: later_multistep}
VARIANTS: Variants = {"state-reuse": {"the last answers": sampling(keeping)}}
