"""Schedules and runs of samplers (L3) by diffusers' schedulers, with the predictions and the noise of the case."""

from __future__ import annotations

import copy
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from unittest import mock

import diffusers
import numpy as np
import torch

from refdiff.errors import BadRequest

Torch = Mapping[str, torch.Tensor]


def scheduler_of(config: Mapping[str, Any], steps: int) -> Any:
    """diffusers' scheduler with its times set.  Raises: BadRequest where diffusers raises"""
    try:
        scheduler = getattr(diffusers, config["_class_name"]).from_config(dict(config))
        scheduler.set_timesteps(steps)
    except (AttributeError, ValueError, NotImplementedError, ZeroDivisionError) as error:
        raise BadRequest(f"diffusers: {type(error).__name__}: {error}") from error
    return scheduler


def tables(x: Torch, c: Mapping[str, Any]) -> dict[str, Any]:
    """Times, noise levels and the factor of the first latent.

    Raises: BadRequest where diffusers raises, be it only at the first step
    """
    scheduler = scheduler_of(c["scheduler"], c["steps"])
    trial, zeros = copy.deepcopy(scheduler), torch.zeros(1, 1, 2, 2)
    try:
        scaled(trial, zeros, trial.timesteps[0])
        trial.step(zeros, trial.timesteps[0], zeros)
    except ValueError as error:
        raise BadRequest(f"diffusers: {error}") from error
    initial = np.array(float(getattr(scheduler, "init_noise_sigma", 1.0)))
    return {"timesteps": scheduler.timesteps, "sigmas": sigmas_of(scheduler, c["steps"]), "initial": initial}


def sigmas_of(scheduler: Any, steps: int) -> Any:
    """The noise level of every step and the last; where a scheduler has no such table, of its alphas.

    Heun's table has each level twice, for its second call there; PNDM's list has the second time twice.
    Shapes: -> [steps+1]
    """
    if isinstance(scheduler, diffusers.HeunDiscreteScheduler):
        return torch.cat([scheduler.sigmas[:1], scheduler.sigmas[1::2]])
    if hasattr(scheduler, "sigmas"):
        return scheduler.sigmas
    times = np.unique(scheduler.timesteps.numpy())[::-1].copy()
    alphas = scheduler.alphas_cumprod.double()[times]
    last = getattr(scheduler, "final_alpha_cumprod", torch.tensor(1.0))
    if isinstance(scheduler, diffusers.LCMScheduler):
        last = torch.tensor(1.0)  # its last step gives the picture without noise
    alphas = torch.cat([alphas, last.double().reshape(1)])
    return ((1 - alphas) / alphas).sqrt()


def run(x: Torch, c: Mapping[str, Any]) -> dict[str, Any]:
    """The times and inputs of the network, and the latent after every step."""
    scheduler = scheduler_of(c["scheduler"], c["steps"])
    latent, times, inputs, found = x["x"] * getattr(scheduler, "init_noise_sigma", 1.0), [], [], []
    with drawing(scheduler, x["noise"]):
        for t, prediction in zip(scheduler.timesteps, x["predictions"], strict=True):
            inputs.append(scaled(scheduler, latent, t))
            times.append(float(t))
            latent = scheduler.step(prediction, t, latent).prev_sample
            found.append(latent)
    return {"times": np.array(times), "inputs": torch.stack(inputs), "latents": torch.stack(whole_steps(found, scheduler))}


def whole_steps(found: list[torch.Tensor], scheduler: Any) -> list[torch.Tensor]:
    """The latents after whole steps: Heun calls twice in all but the last, PNDM twice in the first."""
    if isinstance(scheduler, diffusers.HeunDiscreteScheduler):
        return [*found[1:-1:2], found[-1]]
    return found[1:] if isinstance(scheduler, diffusers.PNDMScheduler) and len(found) > 1 else found


def scaled(scheduler: Any, latent: torch.Tensor, t: Any) -> torch.Tensor:
    """The network's input; flow matching's schedulers scale nothing."""
    return scheduler.scale_model_input(latent, t) if hasattr(scheduler, "scale_model_input") else latent


@contextmanager
def drawing(scheduler: Any, noise: torch.Tensor) -> Iterator[None]:
    """Let diffusers' scheduler take these draws in place of its own."""
    module, draws = sys.modules[type(scheduler).__module__], iter(noise)
    if not hasattr(module, "randn_tensor"):
        yield
        return
    with mock.patch.object(module, "randn_tensor", lambda shape, **_: next(draws).reshape(shape)):
        yield
