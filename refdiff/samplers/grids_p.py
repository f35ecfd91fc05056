"""The grids of DDPM, inversion, PNDM's Runge-Kutta start, iPNDM, LCM and TCD."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from refdiff.diffusion import schedule
from refdiff.errors import BadRequest
from refdiff.samplers.grids import NO_SIGNAL, Grid, plms_grid, spaced, strided_grid

LEAST_VARIANCE = 1e-20  # upstream's, so that its logarithm exists


def neighbour_grid(config: Mapping[str, Any], alphas: np.ndarray, steps: int) -> Grid:
    """DDPM's: every step ends at the next time, the last at the whole picture, even where its own time is not 0.

    `small` and `large` are the variances that Ho et al. name, the posterior's and beta's, for strides of any length; `random`
    is whether noise is drawn: not at time 0.
    Raises: BadRequest as `spaced`
    """
    return posterior_grid(np.round(spaced(config, steps)).astype(np.int64), alphas)


def posterior_grid(times: np.ndarray, alphas: np.ndarray) -> Grid:
    """The variances between these times, and before the last of them the whole picture.  Shapes: [n], [T]"""
    signal = np.maximum(alphas.astype(np.float64), NO_SIGNAL)
    here, after = signal[times], np.append(signal[times[1:]], 1.0)
    large = 1.0 - here / after
    small = np.maximum((1.0 - after) / (1.0 - here) * large, LEAST_VARIANCE)
    sigmas = schedule.sigmas_of(np.append(here, 1.0))
    policy = {"small": small, "large": large, "random": times > 0}
    return Grid(times, sigmas, math.sqrt(1.0 + float(sigmas[0]) ** 2), policy)


def inverse_grid(config: Mapping[str, Any], alphas: np.ndarray, steps: int) -> Grid:
    """DDIMInverse's: the times of DDIM backwards; the step of time t begins one stride before it and ends at it.

    Raises: BadRequest as `spaced`, and where a network that predicts the picture is asked about a picture without noise
    Traps: prev-t-stride, final-alpha
    """
    times = np.round(spaced(config, steps)).astype(np.int64)[::-1]
    signal = np.maximum(alphas.astype(np.float64), NO_SIGNAL)
    begins = times - len(alphas) // steps
    first = 1.0 if config["set_alpha_to_one"] else float(signal[0])
    sigmas = schedule.sigmas_of(np.where(begins >= 0, signal[np.maximum(begins, 0)], first))
    targets = schedule.sigmas_of(signal[times])
    if config["prediction_type"] == "sample" and sigmas[0] == 0.0:
        raise BadRequest("no noise to go along: a picture without any is its own prediction; write set_alpha_to_one false")
    if steps > 1 and sigmas[0] == sigmas[1]:  # both are of time 0, but the network is asked at two times
        sigmas[0] *= 1.0 - 1e-12
    return Grid(times, np.append(sigmas, targets[-1]), math.sqrt(1.0 + float(sigmas[0]) ** 2), {"targets": targets})


def pndm_grid(config: Mapping[str, Any], alphas: np.ndarray, steps: int) -> Grid:
    """PNDM's, with its trial step or its Runge-Kutta start.

    Raises: BadRequest as `spaced`, and for too few steps
    """
    if config["skip_prk_steps"]:
        return plms_grid(config, alphas, steps)
    if steps < 4:
        raise BadRequest(
            f"PNDM begins with three steps by Runge and Kutta, so {steps} are too few: make 4 or write skip_prk_steps true"
        )
    grid, half = strided_grid(config, alphas, steps), len(alphas) // steps // 2
    after = np.append(grid.times[1:], 0)
    middles = np.minimum(after + half, len(alphas) - 1)
    table = schedule.sigmas_of(alphas.astype(np.float64))
    policy = {**grid.policy, "halves": table[np.maximum(grid.times - half, 0)], "middles": table[middles]}
    start = [(grid.times[i], middles[i], middles[i], after[i]) for i in range(3)]
    between = dict(zip(table[middles].tolist(), middles.tolist(), strict=True))
    return replace(grid, policy=policy, between=between, calls=np.append(np.ravel(start), grid.times[3:]))


def ipndm_grid(config: Mapping[str, Any], alphas: np.ndarray, steps: int) -> Grid:
    """iPNDM's: the noise of the variance-preserving latent falls as sin^2, from 1; times are shares of the quarter circle.

    `trained_betas` are these noises themselves, one for each step and the last (a quirk of upstream).
    Raises: BadRequest for another number of steps than trained_betas has
    """
    given = config["trained_betas"]
    if given is not None and len(given) != steps + 1:
        raise BadRequest(f"trained_betas has {len(given)} numbers, which is for {len(given) - 1} steps: take as many")
    noise = np.asarray(given, alphas.dtype) if given is not None else sines(steps, str(alphas.dtype))
    signal = np.sqrt(1 - noise * noise)
    times = np.arctan2(noise, signal) / alphas.dtype.type(math.pi) * 2
    wide = np.maximum(signal.astype(np.float64), math.sqrt(NO_SIGNAL))
    sigmas = noise / wide
    return Grid(times[:-1], sigmas, math.sqrt(1.0 + float(sigmas[0]) ** 2), {})


def sines(steps: int, precision: str) -> np.ndarray:
    """sin^2 of the quarter circle in equal steps, from 1 to 0.  Shapes: -> [n+1]"""
    linspace, kind = (np.linspace, np.float64) if precision == "float64" else (schedule.linspace_torch, np.float32)
    angles = linspace(1.0, 0.0, steps + 1) * kind(math.pi) / kind(2)
    return np.sin(angles.astype(np.float64)).astype(kind) ** 2


def consistent_times(config: Mapping[str, Any], steps: int) -> np.ndarray:
    """Times of n steps among those that a consistency model was distilled at, evenly in their list.

    With a strength below 1 the list begins that share of the way up: for pictures that are drawn over.
    Shapes: -> [n]
    Raises: BadRequest for more steps than that, and for more of these than training times
    """
    if "given_timesteps" in config:
        return np.array(config["given_timesteps"], dtype=np.int64)
    count, original = config["num_train_timesteps"], config["original_inference_steps"]
    if original > count:
        raise BadRequest(f"original_inference_steps {original} is above num_train_timesteps {count}: choose a smaller one")
    left, strength = int(original * config["strength"]), config["strength"]
    if steps > left:
        share = "" if strength == 1.0 else f" and strength {strength:g}"
        raise BadRequest(f"{steps} steps cannot be made of original_inference_steps {original}{share}: take fewer steps")
    distilled = (np.arange(left, 0, -1) * (count // original)) - 1
    return distilled[np.floor(np.linspace(0, left, steps, endpoint=False)).astype(np.int64)]


def lcm_grid(config: Mapping[str, Any], alphas: np.ndarray, steps: int) -> Grid:
    """LCM's: its own times, whatever the spacing; `taken` and `kept` make the network the identity at time 0.

    Math: taken = u / sqrt(u^2 + 1/4), kept = (1/4) / (u^2 + 1/4) of the variance-preserving latent, u = scaling t
    Raises: BadRequest as `consistent_times`
    Source: Luo et al. 2023 (arXiv 2310.04378), section 4.1
    """
    times = consistent_times(config, steps)
    sigmas = schedule.sigmas_of(np.maximum(alphas[times].astype(np.float64), NO_SIGNAL))
    scaled, data = times * config["timestep_scaling"], 0.5
    initial = np.sqrt(1.0 + sigmas**2)
    policy = {"taken": scaled / np.sqrt(scaled**2 + data**2), "kept": data**2 / (scaled**2 + data**2) / initial}
    return Grid(times, np.append(sigmas, 0.0), float(initial[0]), policy)


def tcd_grid(config: Mapping[str, Any], alphas: np.ndarray, steps: int) -> Grid:
    """TCD's: LCM's times, and 0 at the end; the target of a step is the next time shortened by the share eta.

    Raises: BadRequest as `consistent_times`
    """
    times = consistent_times(config, steps)
    after = np.append(times[1:], 0)
    signal = np.maximum(alphas.astype(np.float64), NO_SIGNAL)
    shortened = np.floor(np.float32(1.0 - config["eta"]) * after.astype(np.float32)).astype(np.int64)
    sigmas = schedule.sigmas_of(signal[np.append(times, 0)])
    policy = {"targets": schedule.sigmas_of(signal[shortened])}
    return Grid(times, sigmas, math.sqrt(1.0 + float(sigmas[0]) ** 2), policy)


def unclip_grid(config: Mapping[str, Any], alphas: np.ndarray, steps: int) -> Grid:
    """UnCLIP's: from the last training time to the first at equal distances; otherwise DDPM's."""
    times = np.round(np.linspace(0, len(alphas) - 1, steps)[::-1] if steps > 1 else np.array([len(alphas) - 1.0]))
    return posterior_grid(times.astype(np.int64), alphas)
