"""Running diffusers' schedulers with a network's stand-in and noise that was drawn before.

With zero terminal SNR the betas are quotients of differences of roots, and torch's float32 root is one unit in the last place
beside IEEE 754's for a fifth of all numbers, for which ones depends on the processor. There diffusers is given roots as IEEE
754 rounds them; what torch's own change is in test_own_roots.py.
"""

from __future__ import annotations

import copy
import inspect
import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from functools import cache
from typing import Any
from unittest import mock

import diffusers
import numpy as np
import torch

from tests.samplers.stand_in import SHAPE, Given, network_of, score

POWER, TO = torch.Tensor.__pow__, torch.Tensor.to


def root(x: torch.Tensor) -> torch.Tensor:
    """As IEEE 754 rounds it."""
    return torch.from_numpy(np.asarray(np.sqrt(x.numpy())))


def power(x: torch.Tensor, exponent: Any) -> torch.Tensor:
    """torch's, but for roots."""
    return root(x) if isinstance(exponent, float) and exponent == 0.5 else POWER(x, exponent)


@contextmanager
def exact_roots() -> Iterator[None]:
    """Let torch take roots as NumPy does."""
    patch = mock.patch.object
    with patch(torch, "sqrt", root), patch(torch.Tensor, "sqrt", root), patch(torch.Tensor, "__pow__", power):
        yield


def kept(x: torch.Tensor, *to: Any, **options: Any) -> torch.Tensor:
    """torch's, but for a change of float64 to float32."""
    return x if x.dtype == torch.float64 and to == (torch.float32,) else TO(x, *to, **options)


def roots_for(config: Mapping[str, Any]) -> Any:
    """Exact ones where tables are differences of roots, else torch's."""
    return exact_roots() if config.get("rescale_betas_zero_snr") else nullcontext()


class GivenPath:
    """A Brownian path whose every new piece is the next draw, in place of torchsde's tree: it is only asked downwards."""

    def __init__(self, noise: Given):
        self.noise, self.values = noise, {}

    def __call__(self, begin: Any, end: Any) -> Any:
        begin, end = float(begin), float(end)
        if not self.values:
            self.values[begin] = np.zeros(SHAPE)
        lowest = min(self.values)
        if end < lowest:
            self.values[end] = self.values[lowest] + (lowest - end) ** 0.5 * self.noise.normal(SHAPE)
        return torch.from_numpy((self.values[end] - self.values[begin]) / (begin - end) ** 0.5).float()


def upstream_of(config: Mapping[str, Any], steps: int, settings: Mapping[str, Any]) -> Any:
    """The scheduler, its times set, at its first step: where the first time comes twice, upstream's begins with the second."""
    with roots_for(config):
        return planned(copy.deepcopy(_made(json.dumps(config))), steps, settings)


def planned(scheduler: Any, steps: int, settings: Mapping[str, Any]) -> Any:
    """The scheduler, its times set, at its first step."""
    if "tau" in settings:
        scheduler.tau_func = lambda t: float(np.broadcast_to(settings["tau"], len(scheduler))[int(t)])
    planning = inspect.signature(scheduler.set_timesteps).parameters
    number = None if {"timesteps", "sigmas"} & set(settings) else steps  # a list is given instead
    scheduler.set_timesteps(number, **{k: v for k, v in settings.items() if k in planning})
    if hasattr(scheduler, "set_sigmas"):
        scheduler.set_sigmas(steps)
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(0)
    return scheduler


@cache
def _made(config: str) -> Any:
    """Kept, for some of upstream's constructors take a second; a copy is used each time, for some change themselves."""
    data = json.loads(config)
    return getattr(diffusers, data["_class_name"]).from_config(data)


@contextmanager
def drawing_from(scheduler: Any, noise: Given) -> Any:
    """Let upstream's scheduler draw from `noise`."""
    module = sys.modules[type(scheduler).__module__]
    if hasattr(module, "BrownianTreeNoiseSampler"):
        scheduler.noise_sampler = GivenPath(noise)
    if not hasattr(module, "randn_tensor"):
        yield
        return
    original = module.randn_tensor
    module.randn_tensor = lambda shape, **_: torch.from_numpy(noise.normal(shape))
    try:
        yield
    finally:
        module.randn_tensor = original


def upstream_run(
    config: Mapping[str, Any], x: np.ndarray, steps: int, settings: Mapping[str, Any], noise: Given
) -> tuple[list[float], list[np.ndarray]]:
    """The time of every call of the network, and the latent after it.

    For a float64 x the tables, which are float32, go into the formulas as float64, and what upstream does in float32 whatever
    it is given stays in float64 too.
    """
    digits = mock.patch.object(torch.Tensor, "to", kept) if x.dtype == np.float64 else nullcontext()
    with roots_for(config), digits:
        return run(upstream_of(config, steps, settings), config, x, settings, noise)


def run(
    scheduler: Any, config: Mapping[str, Any], x: np.ndarray, settings: Mapping[str, Any], noise: Given
) -> tuple[list[float], list[np.ndarray]]:
    """The time of every call of the network, and the latent after it."""
    if x.dtype == np.float64:
        for name, table in list(vars(scheduler).items()):
            if isinstance(table, torch.Tensor) and table.dtype == torch.float32 and name != "timesteps":
                setattr(scheduler, name, table.double())
    if hasattr(scheduler, "step_pred"):
        return predictor_corrector_run(scheduler, x, noise)
    known = inspect.signature(scheduler.step).parameters
    assert set(settings) <= {*known, *inspect.signature(scheduler.set_timesteps).parameters, "tau"}
    chosen = {k: torch.from_numpy(v) if isinstance(v, np.ndarray) else v for k, v in settings.items() if k in known}
    latent, times, found = torch.from_numpy(x) * getattr(scheduler, "init_noise_sigma", 1.0), [], []
    scaled = getattr(scheduler, "scale_model_input", lambda latent, t: latent)
    with drawing_from(scheduler, noise):
        for i, t in enumerate(scheduler.timesteps):
            if "prev_timestep" in known and i + 1 < len(scheduler.timesteps):
                chosen["prev_timestep"] = scheduler.timesteps[i + 1]
            elif "prev_timestep" in known:
                chosen["prev_timestep"] = None
            if i and hasattr(scheduler, "undo_step") and t > scheduler.timesteps[i - 1]:
                latent = scheduler.undo_step(latent, int(scheduler.timesteps[i - 1]))
                found.append(latent.numpy())
                continue
            prediction = network_of(config)(torch, scaled(latent, t), t)
            latent = scheduler.step(prediction, t, latent, **chosen).prev_sample
            times.append(float(t))
            found.append(latent.numpy())
    return times, found


def predictor_corrector_run(scheduler: Any, x: np.ndarray, noise: Given) -> tuple[list[float], list[np.ndarray]]:
    """The same for ScoreSdeVe, as its pipeline runs it: the network is told sigma, and the last latent is the mean."""
    latent, times, found = torch.from_numpy(x) * scheduler.init_noise_sigma, [], []
    with drawing_from(scheduler, noise):
        for t, sigma in zip(scheduler.timesteps, scheduler.sigmas, strict=True):
            for _ in range(scheduler.config.correct_steps):
                latent = scheduler.step_correct(score(torch, latent, sigma), latent).prev_sample
            done = scheduler.step_pred(score(torch, latent, sigma), t, latent)
            latent = done.prev_sample
            times += [float(sigma)] * (scheduler.config.correct_steps + 1)
            found.append(latent.numpy())
    return times, [*found[:-1], done.prev_sample_mean.numpy()]
