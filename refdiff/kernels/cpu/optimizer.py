"""AdamW and the moving average in one pass over memory."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from refdiff.kernels.cpu.common import jit, parallel, require_float32
from refdiff.kernels.cpu.results import result


@jit
def _adamw(start, stop, w, g, m, v, rate, decay, b1, rest1, b2, rest2, correction, eps, w_new, m_new, v_new):
    for i in range(start, stop):
        m_new[i] = b1 * m[i] + rest1 * g[i]
        v_new[i] = b2 * v[i] + rest2 * (g[i] * g[i])
        w_new[i] = w[i] * decay - rate * (m_new[i] / (math.sqrt(v_new[i] * correction) + eps))


@jit
def _ema(start, stop, average, vector, share, out):
    for i in range(start, stop):
        out[i] = average[i] + share * (vector[i] - average[i])


def adamw_step(
    vector: np.ndarray, gradient: np.ndarray, m: np.ndarray, v: np.ndarray, *, rate: float, step: int, settings: Any
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Shapes: [N] four times -> [N] three times"""
    require_float32(vector, gradient, m, v)
    b1, b2 = settings.beta1, settings.beta2
    new = result(len(vector)), result(len(vector)), result(len(vector))
    numbers = (
        rate / (1.0 - b1**step),
        1.0 - rate * settings.weight_decay,
        b1,
        1.0 - b1,  # before it is rounded: 1 - float32(0.999) is 13 millionths off
        b2,
        1.0 - b2,
        1.0 / (1.0 - b2**step),
        settings.eps,
    )
    parallel(_adamw, len(vector), len(vector), vector, gradient, m, v, *(np.float32(x) for x in numbers), *new)
    return new


def ema_step(average: np.ndarray, vector: np.ndarray, *, share: float) -> np.ndarray:
    """Shapes: [N], [N] -> [N]"""
    require_float32(average, vector)
    out = result(len(average))
    parallel(_ema, len(vector), len(vector), average, vector, np.float32(share), out)
    return out


KERNELS = {"adamw_step": adamw_step, "ema_step": ema_step}
