"""k-diffusion's samplers against ours: every call of the network, every denoised latent, and the last latent."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import itertools
import math
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch

from refdiff.diffusion import ramps
from refdiff.diffusion.noise import stream
from refdiff.samplers.ancestral import down_and_up
from refdiff.samplers.dpm2 import dpm2_ancestral, dpm2_with_churn
from refdiff.samplers.dpm_adaptive import K_DIFFUSION, dpm_adaptive
from refdiff.samplers.dpm_fast import dpm_fast, last_above_zero
from refdiff.samplers.dpm_multistep import slope_by_half, slope_by_interpolation
from refdiff.samplers.dpmpp_2s_ancestral import dpmpp_2s_ancestral
from refdiff.samplers.dpmpp_multistep import dpmpp_2m, dpmpp_2m_sde, dpmpp_3m_sde
from refdiff.samplers.dpmpp_sde import dpmpp_sde
from refdiff.samplers.euler_ancestral import euler_ancestral
from refdiff.samplers.euler_with_churn import euler_with_churn
from refdiff.samplers.heun import heun_with_churn
from refdiff.samplers.lms import lms
from tests.parity.k_diffusion import sampling
from tests.samplers.cases import pairwise

torch.set_num_threads(1)
HIGH, LOW = 14.6, 0.03


def stand_in(xp: Any, x: Any, sigma: float) -> Any:
    """A denoiser's stand-in: not linear, other at every sigma, and near x where there is little noise."""
    share = 1.0 / (1.0 + sigma * sigma)
    bent = 0.9 * xp.tanh(1.1 * x * math.sqrt(share) + 0.2) + 0.3 * xp.cos(2.0 * x * math.sqrt(share) + math.log(sigma))
    return share * x + (1.0 - share) * bent


def levels(kind: str, steps: int, dtype: type) -> np.ndarray:
    """n + 1 sigmas along a ramp, the last of them 0 or not."""
    ramp, end = kind.split()
    make = {"karras": functools.partial(ramps.karras, rho=7.0), "exponential": ramps.exponential}[ramp]
    if end == "to_0":
        return np.append(make(steps, low=LOW, high=HIGH), 0.0).astype(dtype)
    return make(steps + 1, low=LOW, high=HIGH).astype(dtype)


def ancestral(solver: Callable, middles: bool) -> Callable:
    """A solver of ours that takes arrays, by eta."""

    def run(denoise: Any, x: Any, sigmas: Any, *, eta: float, **more: Any) -> Iterator[Any]:
        pairs = [down_and_up(a, b, eta=eta) for a, b in itertools.pairwise(sigmas)]
        downs, ups = (list(column) for column in zip(*pairs, strict=True))
        within = {"middles": [math.sqrt(s * d) for s, d in zip(sigmas, downs, strict=False)]} if middles else {}
        return solver(denoise, x, sigmas, downs=downs, ups=ups, **within, **more)

    return run


def fast(denoise: Any, x: Any, sigmas: Any, *, calls: int, **more: Any) -> Iterator[Any]:
    """So many calls more than there are steps."""
    return dpm_fast(denoise, x, sigmas, calls=len(sigmas) - 1 + calls, **more)


def adaptive(denoise: Any, x: Any, sigmas: Any, *, control: dict[str, float], **more: Any) -> Iterator[Any]:
    """With tolerances in x's precision, as theirs."""
    chosen = dataclasses.replace(K_DIFFUSION, **{OURS[name]: value for name, value in control.items()})
    tolerances = {name: float(x.dtype.type(getattr(chosen, name))) for name in ("relative", "absolute")}
    chosen = dataclasses.replace(chosen, **tolerances)
    return dpm_adaptive(denoise, x, sigmas, control=chosen, **more)


OURS = {
    "rtol": "relative", "atol": "absolute", "h_init": "first", "pcoeff": "proportion", "icoeff": "integral",
    "dcoeff": "derivative", "accept_safety": "safety",
}  # fmt: skip
CHURN: dict[str, list[Any]] = {
    "s_churn": [0.0, 3.0, 40.0],
    "s_tmin": [0.0, 0.4],
    "s_tmax": [math.inf, 5.0],
    "s_noise": [1.0, 1.01],
}
NOISY: dict[str, list[Any]] = {"eta": [1.0, 0.5, 0.0], "s_noise": [1.0, 0.9]}
CONTROLS = [{}, {"rtol": 0.01, "atol": 0.002}, {"h_init": 1.5, "pcoeff": 0.2, "icoeff": 0.6, "dcoeff": 0.1, "accept_safety": 0.9}]
SLOPES = {"midpoint": slope_by_half, "heun": slope_by_interpolation}
# By k-diffusion's names: ours, and the options to cross; ours takes `slope` and `control` where theirs have words.
SAMPLERS: dict[str, tuple[Callable, dict[str, list[Any]]]] = {
    "euler": (euler_with_churn, CHURN),
    "heun": (heun_with_churn, CHURN),
    "dpm_2": (dpm2_with_churn, CHURN),
    "euler_ancestral": (ancestral(euler_ancestral, False), NOISY),
    "dpm_2_ancestral": (ancestral(dpm2_ancestral, True), NOISY),
    "dpmpp_2s_ancestral": (ancestral(dpmpp_2s_ancestral, False), NOISY),
    "lms": (lms, {"order": [1, 2, 3, 4]}),
    "dpm_fast": (fast, {**NOISY, "calls": [0, 1, 2]}),
    "dpm_adaptive": (adaptive, {**NOISY, "order": [3, 2], "control": CONTROLS}),
    "dpmpp_sde": (dpmpp_sde, {**NOISY, "r": [0.5, 0.3, 0.7]}),
    "dpmpp_2m": (dpmpp_2m, {}),
    "dpmpp_2m_sde": (dpmpp_2m_sde, {**NOISY, "slope": ["midpoint", "heun"]}),
    "dpmpp_3m_sde": (dpmpp_3m_sde, NOISY),
}  # fmt: skip
LISTS = ["karras to_0", "exponential to_0", "karras above", "exponential above"]
CHURNED = ("euler", "heun", "dpm_2")
NOT_ONE = ("dpmpp_2m_sde", "dpmpp_3m_sde", "dpm_fast", "dpm_adaptive")  # there UnboundLocalError, or nowhere to go, to sigma 0
OWN_NOISE = (*CHURNED, "lms", "dpmpp_2m")  # without a noise_sampler


def rows() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Every sampler, its options and the lists of sigmas crossed pairwise."""
    for name, (_, options) in SAMPLERS.items():
        for kind, *values in pairwise([LISTS, *options.values()]):
            yield name, kind, dict(zip(options, values, strict=True))


class Asked:
    """A stand-in that remembers what it was asked; the same question twice is one (theirs asks again where it tries again)."""

    def __init__(self, xp: Any):
        self.xp, self.calls = xp, []

    def __call__(self, x: Any, sigma: Any) -> Any:
        level = float(sigma if isinstance(sigma, float) else sigma[0])
        seen = np.array(x)
        if not any(level == before and np.array_equal(seen, latent) for latent, before in self.calls):
            self.calls.append((seen, level))
        return stand_in(self.xp, x, level)


def their_options(sigmas: np.ndarray, options: dict[str, Any]) -> dict[str, Any]:
    """The options as k-diffusion takes them."""
    found = {k: v for k, v in options.items() if k not in ("calls", "control", "slope")} | options.get("control", {})
    if "slope" in options:
        found["solver_type"] = options["slope"]
    if "calls" in options:
        found["n"] = len(sigmas) - 1 + options["calls"]
    return found


@contextlib.contextmanager
def numbers_as(dtype: torch.dtype) -> Iterator[None]:
    """Their tables and tolerances follow torch's default."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def theirs(name: str, x: np.ndarray, sigmas: np.ndarray, options: dict[str, Any]) -> tuple[Asked, list, np.ndarray]:
    """Their calls, the denoised latent of each step that was taken, and the last latent."""
    asked, told, noise, start = Asked(torch), {}, stream("numpy", 5), torch.from_numpy(x)

    def given(*_: Any) -> torch.Tensor:
        return torch.from_numpy(noise.normal(x.shape)).to(start.dtype)

    def callback(info: dict[str, Any]) -> None:
        told.setdefault(info.get("n_accept", info["i"] + 1), info["denoised"].numpy())

    ends = (last_above_zero(sigmas), sigmas[0]) if name in ("dpm_fast", "dpm_adaptive") else (torch.from_numpy(sigmas),)
    sampler = {} if name in OWN_NOISE else {"noise_sampler": given}
    with mock.patch.object(torch, "randn_like", given), numbers_as(start.dtype):
        last = getattr(sampling, f"sample_{name}")(
            asked, start, *ends, callback=callback, disable=True, **their_options(sigmas, options), **sampler
        )
    told.pop(0, None)  # tries before the first step
    return asked, [told[k] for k in sorted(told)], last.numpy()


def ours(name: str, x: np.ndarray, sigmas: np.ndarray, options: dict[str, Any]) -> tuple[Asked, list, np.ndarray]:
    """The same of ours."""
    asked, solver = Asked(np), SAMPLERS[name][0]
    chosen = {k: SLOPES[v] if k == "slope" else v for k, v in options.items()}
    noise = {} if name in ("lms", "dpmpp_2m") else {"noise": stream("numpy", 5)}
    taken = list(solver(asked, x, [float(s) for s in sigmas], **chosen, **noise))
    assert [step.index for step in taken] == list(range(len(taken)))
    return asked, [step.denoised for step in taken], taken[-1].x


def distance(got: np.ndarray, want: np.ndarray) -> float:
    return float(np.linalg.norm(got - want) / np.linalg.norm(want))


def compare(name: str, kind: str, options: dict[str, Any], steps: int, dtype: type) -> tuple[float, Any, Any]:
    """The largest relative distance, and the two latents that have it."""
    sigmas = levels(kind, steps, dtype)
    x = (np.random.default_rng(steps).standard_normal((2, 3, 4, 5)) * sigmas[0]).astype(dtype)
    asked, denoised, last = ours(name, x, sigmas, options)
    their_asked, their_denoised, their_last = theirs(name, x, sigmas, options)
    assert last.dtype == their_last.dtype == dtype
    assert len(asked.calls) == len(their_asked.calls) and len(denoised) == len(their_denoised)
    rtol = 1e-4 if dtype == np.float32 else 1e-9
    np.testing.assert_allclose([s for _, s in asked.calls], [s for _, s in their_asked.calls], rtol=rtol)
    pairs = [(a, b) for (a, _), (b, _) in zip(asked.calls, their_asked.calls, strict=True)]
    pairs += [*zip(denoised, their_denoised, strict=True), (last, their_last)]
    return max(((distance(a, b), a, b) for a, b in pairs), key=lambda found: found[0])


def named(value: Any) -> str:
    return " ".join(f"{k}={v}" for k, v in value.items()) if isinstance(value, dict) else str(value)


def runs(name: str, kind: str, options: dict[str, Any], steps: int, dtype: type) -> bool:
    """Whether theirs does; and in float32, from 14.6 to 0.03 in one step with eta 1, hardly a digit is left of the sigma to
    go down to, at whose middle they ask.
    """
    if steps == 1 and kind.endswith("to_0"):
        return name not in NOT_ONE
    whole = steps == (2 if kind.endswith("to_0") else 1)
    return not (whole and dtype is np.float32 and options.get("eta") == 1.0 and name.endswith(("2_ancestral", "2s_ancestral")))


def bound(name: str, dtype: type) -> float:
    """float64: measured 6.5e-13. In float32 the length of an adaptive step comes from a small difference: measured 5.2e-5."""
    if dtype is np.float64:
        return 1e-10
    return 1e-4 if name == "dpm_adaptive" else 1e-5


@pytest.mark.parametrize(("name", "kind", "options"), list(rows()), ids=named)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_every_call_and_the_last_latent(name, kind, options, dtype, measure):
    for steps in (1, 2, 3, 10, 21):
        if runs(name, kind, options, steps, dtype):
            _, got, want = compare(name, kind, options, steps, dtype)
            measure(f"{name}, {kind}, {options}, {steps} steps", got, want, bound(name, dtype))
