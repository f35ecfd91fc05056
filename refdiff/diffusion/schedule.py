"""Noise schedules: betas, what is left of the signal at each training time, and sigmas.

A noisy latent is x = sqrt(a) x0 + sqrt(1 - a) noise with a = alphas_cumprod[t] (variance preserving), or, divided by
sqrt(a), x0 + sigma noise with sigma = sqrt((1 - a) / a) (variance exploding).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from refdiff.errors import BadRequest

TABLES = ("float32-torch", "float64")
Linspace = Callable[[float, float, int], np.ndarray]


def alphas_cumprod(*, schedule: str, beta_start: float, beta_end: float, count: int, table: str) -> np.ndarray:
    """The table a_t of the share of the signal that is left at each training time: `cumulated` over `betas`.

    Raises: BadRequest as `betas`
    """
    return cumulated(betas(schedule=schedule, beta_start=beta_start, beta_end=beta_end, count=count, table=table))


def betas(*, schedule: str, beta_start: float, beta_end: float, count: int, table: str) -> np.ndarray:
    """The table beta_t of the share of the variance that is replaced by noise at each training time.

    Shapes: -> [count], float32 for "float32-torch", whose rounding is that of upstream's tables, float64 for "float64"
    Raises: BadRequest for an unknown schedule or table
    Traps: beta-linear
    """
    if schedule not in BETAS:
        raise BadRequest(f'unknown beta_schedule "{schedule}": choose one of {", ".join(BETAS)}')
    if table not in LINSPACES:
        raise BadRequest(f'unknown table "{table}": choose one of {", ".join(TABLES)}')
    values = BETAS[schedule](beta_start, beta_end, count, LINSPACES[table])
    return values if table == "float64" else values.astype(np.float32)


def given_betas(values: Sequence[float], *, table: str) -> np.ndarray:
    """Betas that somebody lists, in a table's precision.

    Shapes: [n] -> [n]
    Raises: BadRequest where they are none, or not all between 0 and 1
    """
    found = np.asarray(values, dtype=np.float64)
    if found.ndim != 1 or not len(found) or not ((found >= 0.0) & (found < 1.0)).all():
        raise BadRequest("trained_betas must be a list of numbers from 0 to below 1")
    return found if table == "float64" else found.astype(np.float32)


def cumulated(betas: np.ndarray) -> np.ndarray:
    """What is left of the signal: a_t.

    Math: a_t = prod_{s<=t} (1 - beta_s), in float64, each entry rounded to the table's precision
    Shapes: [n] -> [n]
    Source: Ho, Jain, Abbeel 2020 (arXiv 2006.11239), equation 4; the rounding of torch.cumprod
    """
    alphas = betas.dtype.type(1.0) - betas
    return np.cumprod(alphas.astype(np.float64)).astype(betas.dtype)


def zero_terminal_snr(betas: np.ndarray) -> np.ndarray:
    """Betas whose last time has no signal left, the first as much as before.

    Math: sqrt(a'_t) = (sqrt(a_t) - sqrt(a_T)) sqrt(a_0) / (sqrt(a_0) - sqrt(a_T)), beta'_t = 1 - a'_t / a'_{t-1}
    Shapes: [n] -> [n]
    Source: Lin et al. 2023 (arXiv 2305.08891), algorithm 1
    """
    root = np.sqrt(cumulated(betas))
    shifted = (root - root[-1]) * (root[0] / (root[0] - root[-1]))
    alphas = shifted * shifted
    return 1 - np.append(alphas[:1], alphas[1:] / alphas[:-1])


def linear_betas(start: float, end: float, count: int, linspace: Linspace) -> np.ndarray:
    """beta linear in t.  Shapes: -> [count]  Source: Ho, Jain, Abbeel 2020 (arXiv 2006.11239), section 4"""
    return linspace(start, end, count)


def scaled_linear_betas(start: float, end: float, count: int, linspace: Linspace) -> np.ndarray:
    """sqrt(beta) linear in t; "linear" in CompVis.  Shapes: -> [count]  Source: the configs of latent diffusion"""
    root = linspace(start**0.5, end**0.5, count)
    return root * root


def sigmoid_betas(start: float, end: float, count: int, linspace: Linspace) -> np.ndarray:
    """beta along a logistic curve.  Shapes: -> [count]  Source: Xu et al. 2022 (arXiv 2203.02923), the code of GeoDiff"""
    x = linspace(-6.0, 6.0, count)
    return (1 / (1 + np.exp(-x))) * (end - start) + start


def cosine_betas(start: float, end: float, count: int, linspace: Linspace) -> np.ndarray:
    """a_t a squared cosine.  Shapes: -> [count]  Source: Nichol, Dhariwal 2021 (arXiv 2102.09672), equation 17"""
    return _betas_of(lambda u: math.cos((u + 0.008) / 1.008 * math.pi / 2) ** 2, count)


def exponential_betas(start: float, end: float, count: int, linspace: Linspace) -> np.ndarray:
    """a_t = e^(-12 t/T).  Shapes: -> [count]  Source: diffusers' scheduling_heun_discrete.py"""
    return _betas_of(lambda u: math.exp(-12.0 * u), count)


def laplace_betas(start: float, end: float, count: int, linspace: Linspace) -> np.ndarray:
    """log-SNR by a Laplace distribution.  Shapes: -> [count]  Source: Hang et al. 2024 (arXiv 2407.03297), table 1"""
    return _betas_of(_laplace_root, count)


def _laplace_root(u: float) -> float:
    """sqrt(a), which upstream takes for a."""
    log_snr = -0.5 * math.copysign(1.0, 0.5 - u) * math.log(1.0 - 2.0 * abs(0.5 - u) + 1e-6)
    return math.sqrt(math.exp(log_snr) / (1.0 + math.exp(log_snr)))


def _betas_of(alpha_bar: Callable[[float], float], count: int) -> np.ndarray:
    """beta_t = 1 - a(t+1) / a(t), capped where nothing is left."""
    return np.array([min(1.0 - alpha_bar((i + 1) / count) / alpha_bar(i / count), 0.999) for i in range(count)])


# "squaredcos_cap_v2", "exp" and "laplace" take no notice of the first and the last beta.
BETAS = {
    "linear": linear_betas, "scaled_linear": scaled_linear_betas, "squaredcos_cap_v2": cosine_betas,
    "sigmoid": sigmoid_betas, "laplace": laplace_betas, "exp": exponential_betas,
}  # fmt: skip


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


LINSPACES: dict[str, Linspace] = {"float32-torch": linspace_torch, "float64": np.linspace}


def sigmas_of(alphas: np.ndarray) -> np.ndarray:
    """sigma = sqrt((1 - a) / a), in the table's precision.  Shapes: [n] -> [n]"""
    return np.sqrt((1 - alphas) / alphas)
