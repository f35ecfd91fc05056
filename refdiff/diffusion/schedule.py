"""Noise schedules, from betas to sigmas, and which times a run of n steps visits.

A noisy latent is x = sqrt(a) x0 + sqrt(1 - a) noise with a = alphas_cumprod[t] (variance preserving), or, divided by
sqrt(a), x0 + sigma noise with sigma = sqrt((1 - a) / a) (variance exploding).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from refdiff.errors import BadRequest

TABLES = ("float32-torch", "float64")
Linspace = Callable[[float, float, int], np.ndarray]


def alphas_cumprod(*, schedule: str, beta_start: float, beta_end: float, count: int, table: str) -> np.ndarray:
    """The table a_t of the share of the signal that is left at each training time.

    Math: a_t = prod_{s<=t} (1 - beta_s)
    Shapes: -> [count], float32 for "float32-torch", whose rounding is that of upstream's tables, float64 for "float64"
    Raises: BadRequest for an unknown schedule or table
    Source: Ho, Jain, Abbeel 2020 (arXiv 2006.11239), equation 4; the rounding of torch.linspace and torch.cumprod
    Traps: beta-linear
    """
    if schedule not in BETAS:
        raise BadRequest(f'unknown beta_schedule "{schedule}": choose one of {", ".join(BETAS)}')
    if table == "float64":
        return np.cumprod(1.0 - BETAS[schedule](beta_start, beta_end, count, np.linspace))
    if table != "float32-torch":
        raise BadRequest(f'unknown table "{table}": choose one of {", ".join(TABLES)}')
    betas = BETAS[schedule](beta_start, beta_end, count, linspace_torch)
    alphas = np.float32(1.0) - betas
    return np.cumprod(alphas.astype(np.float64)).astype(np.float32)


def linear_betas(start: float, end: float, count: int, linspace: Linspace) -> np.ndarray:
    """beta linear in t.  Shapes: -> [count]  Source: Ho, Jain, Abbeel 2020 (arXiv 2006.11239), section 4"""
    return linspace(start, end, count)


def scaled_linear_betas(start: float, end: float, count: int, linspace: Linspace) -> np.ndarray:
    """sqrt(beta) linear in t; "linear" in CompVis.  Shapes: -> [count]  Source: the configs of latent diffusion"""
    root = linspace(start**0.5, end**0.5, count)
    return root * root


BETAS = {"linear": linear_betas, "scaled_linear": scaled_linear_betas}


def linspace_torch(start: float, end: float, count: int) -> np.ndarray:
    """torch.linspace in float32, bit for bit: counted from the nearer end, each rounded once.  Shapes: -> [count]"""
    first, last = np.float32(start), np.float32(end)
    if count == 1:
        return np.array([first])
    step = np.float64(np.float32((last - first) / np.float32(count - 1)))
    i = np.arange(count)
    low = np.float64(first) + step * i
    high = np.float64(last) - step * (count - 1 - i)
    return np.where(i < count // 2, low, high).astype(np.float32)


def sigmas_of(alphas: np.ndarray) -> np.ndarray:
    """sigma = sqrt((1 - a) / a), in the table's precision.  Shapes: [n] -> [n]"""
    return np.sqrt((1 - alphas) / alphas)


def leading(steps: int, *, count: int, offset: int) -> np.ndarray:
    """Times at equal whole strides from 0, plus an offset, latest first.

    Shapes: -> [steps]
    Traps: steps-offset, spacing
    """
    return (np.arange(steps) * (count // steps))[::-1] + offset


def trailing(steps: int, *, count: int) -> np.ndarray:
    """Times at equal strides down from the last one, rounded (halves to even) before 1 is taken off.

    Upstream's arange has one element too many for 62 of the numbers of steps up to 1000 (61 is the first): a last step
    at time -1. It is left out here.
    Shapes: -> [steps]
    Traps: spacing
    """
    return np.round(np.arange(count, 0, -count / steps)).astype(np.int64)[:steps] - 1


def linspaced(steps: int, *, count: int) -> np.ndarray:
    """Times from the last to the first at equal distances, not rounded.  Shapes: -> [steps]  Traps: spacing"""
    return np.linspace(0, count - 1, steps)[::-1]
