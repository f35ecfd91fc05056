"""k-diffusion's modules `sampling` and `external` alone, without the package around them, which needs a dozen libraries more; and
its runs with a network's stand-in.
"""

from __future__ import annotations

import importlib.util
import inspect
import math
import sys
import types
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch

from refdiff.samplers.sampler import Sampler
from tests.samplers.stand_in import Given, network


def load() -> tuple[types.ModuleType, types.ModuleType]:
    """The modules k_diffusion.sampling and k_diffusion.external of the installed package."""
    found = importlib.util.find_spec("k_diffusion")
    assert found is not None and found.origin is not None, "k-diffusion is not installed: pip install --no-deps k-diffusion"
    folder = Path(found.origin).parent
    package, utils = types.ModuleType("k_diffusion"), types.ModuleType("k_diffusion.utils")
    package.__path__ = [str(folder)]
    utils.append_dims = lambda x, dims: x.reshape(*x.shape, *[1] * (dims - x.ndim))
    package.utils = utils
    sys.modules.update({"k_diffusion": package, "k_diffusion.utils": utils})
    return importlib.import_module("k_diffusion.sampling"), importlib.import_module("k_diffusion.external")


sampling, external = load()


def upstream_of(sampler: Sampler, model: Any = None) -> Any:
    """k-diffusion's wrapper with the same training sigmas, of a network that is told time by time."""
    kind = {"epsilon": external.DiscreteEpsDDPMDenoiser, "v_prediction": external.DiscreteVDDPMDenoiser}
    alphas = torch.from_numpy((1.0 / (1.0 + sampler.alphas.astype(np.float64) ** 2)).astype(np.float32))
    wrapped = kind[sampler.config["prediction_type"]](model, alphas, quantize=sampler.config["times"] == "nearest")
    wrapped.sigmas.copy_(torch.from_numpy(sampler.alphas))
    wrapped.log_sigmas.copy_(wrapped.sigmas.log())
    return wrapped


def along_a_path(noise: Given, shape: tuple[int, ...]) -> Callable[[float, float], np.ndarray]:
    """What a Brownian tree gives for each way down, with each new piece of the path drawn from `noise`."""
    known: dict[float, tuple[float, np.ndarray]] = {}  # from where: to where, and the increment so far

    def normal(begin: float, end: float) -> np.ndarray:
        low, so_far = known.get(begin, (begin, np.zeros(shape)))
        so_far = so_far + math.sqrt(low - end) * noise.normal(shape)
        known[begin] = (end, so_far)
        return (so_far / math.sqrt(begin - end)).astype(np.float32)

    return normal


def upstream_run(sampler: Sampler, x: np.ndarray, steps: int, settings: Mapping[str, Any]) -> tuple[np.ndarray, list[float]]:
    """The last latent of k-diffusion's function, and the time of each of its network's calls."""
    times: list[float] = []

    def model(seen: Any, t: Any) -> Any:
        times.append(float(t[0]))
        return network(torch, seen, t[0])

    upstream, noise = upstream_of(sampler, model), Given(5)
    sigmas = torch.from_numpy(sampler.sigmas(steps))
    run = getattr(sampling, sampler.family.class_name.removeprefix("k_diffusion."))
    given, known = dict(settings), inspect.signature(run).parameters
    if "noise_sampler" in known:
        path = along_a_path(noise, x.shape)
        given["noise_sampler"] = lambda sigma, after: torch.from_numpy(path(float(sigma), float(after)))
    if "sigmas" in known:
        given["sigmas"] = sigmas
    else:
        given |= {"sigma_max": float(sigmas[0]), "sigma_min": float(sigmas[sigmas > 0][-1])}
    if "n" in known:
        given["n"] = steps
    if "sigma_min" in given and steps == 1:
        given["sigma_min"] = float(sampler.alphas[0])
    with mock.patch.object(torch, "randn_like", lambda like: torch.from_numpy(noise.normal(like.shape))):
        return run(upstream, torch.from_numpy(x) * sigmas[0], disable=True, **given).numpy(), times
