"""Activations in one pass over contiguous memory."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from refdiff.kernels.cpu.common import ONE, exponential, inline, jit, parallel, require_float32
from refdiff.kernels.cpu.results import result

# The normal distribution's tail: Phi(-x) = e^(-x^2/2) P(t), t = 1 / (1 + 0.3 x), x >= 0. P has no constant term; its
# coefficients (of t, t^2, ...) are a least-squares fit to erfcx over 0..14, relative error 1.4e-8.
SLOPE = np.float32(0.3)
C1, C2, C3, C4, C5, C6, C7, C8, C9, C10 = (np.float32(c) for c in (
    0.1196880517, 0.119543052, 0.110493952, 0.07709074526, 0.1001822945,
    -0.08741931784, 0.2019875436, -0.2362989199, 0.1160552243, -0.02132263277
))  # fmt: skip
DENSITY = np.float32(1.0 / math.sqrt(2.0 * math.pi))
HALF = np.float32(0.5)
CHUNK = 256
QUICK = np.float32(1.702)  # the slope of quick_gelu's sigmoid; silu's is 1


@inline
def _phi(x: Any, e: Any) -> Any:
    """Phi(x), given e^(-x^2/2)."""
    t = ONE / (ONE + SLOPE * abs(x))
    p = ((((((((C10 * t + C9) * t + C8) * t + C7) * t + C6) * t + C5) * t + C4) * t + C3) * t + C2) * t + C1
    tail = p * t * e
    return tail if x < 0 else ONE - tail


@jit
def _geglu(start, stop, x, y):
    width = y.shape[1]
    for r in range(start, stop):
        for i in range(width):
            gate = x[r, width + i]
            y[r, i] = x[r, i] * (gate * _phi(gate, exponential(-HALF * gate * gate)))


@jit
def _geglu_back(start, stop, g, x, dx):
    width = g.shape[1]
    for r in range(start, stop):
        for i in range(width):
            gate = x[r, width + i]
            e = exponential(-HALF * gate * gate)
            phi = _phi(gate, e)
            dx[r, i] = g[r, i] * (gate * phi)
            dx[r, width + i] = g[r, i] * x[r, i] * (phi + gate * (DENSITY * e))


@jit
def _gated(start, stop, x, slope, y):
    """y = x sigmoid(slope x), for the chunks start..stop."""
    for i in range(start * CHUNK, min(stop * CHUNK, len(x))):
        y[i] = x[i] / (ONE + exponential(-slope * x[i]))


@jit
def _gated_back(start, stop, g, x, slope, dx):
    """dx = g s (1 + slope x (1 - s)), s = sigmoid(slope x), for the chunks start..stop."""
    for i in range(start * CHUNK, min(stop * CHUNK, len(x))):
        minus = -slope * x[i]
        s = ONE / (ONE + exponential(minus))
        dx[i] = g[i] * (s * (ONE - minus * (ONE - s)))


def _run_gated(x: np.ndarray, slope: np.float32) -> np.ndarray:
    require_float32(x)
    flat = np.ascontiguousarray(x).reshape(-1)
    y = result(*flat.shape)
    parallel(_gated, -(-len(flat) // CHUNK), len(flat), flat, slope, y)
    return y.reshape(x.shape)


def _run_gated_back(g: np.ndarray, x: np.ndarray, slope: np.float32) -> tuple:
    require_float32(g, x)
    flat, gradient = (np.ascontiguousarray(a).reshape(-1) for a in (x, g))
    dx = result(*flat.shape)
    parallel(_gated_back, -(-len(flat) // CHUNK), len(flat), gradient, flat, slope, dx)
    return (dx.reshape(x.shape),)


def silu(x: np.ndarray) -> np.ndarray:
    """Shapes: any -> the same"""
    return _run_gated(x, ONE)


def silu_vjp(g: np.ndarray, out: np.ndarray, x: np.ndarray) -> tuple:
    """The gradient of silu."""
    return _run_gated_back(g, x, ONE)


def quick_gelu(x: np.ndarray) -> np.ndarray:
    """Shapes: any -> the same"""
    return _run_gated(x, QUICK)


def quick_gelu_vjp(g: np.ndarray, out: np.ndarray, x: np.ndarray) -> tuple:
    """The gradient of quick_gelu."""
    return _run_gated_back(g, x, QUICK)


def geglu(x: np.ndarray) -> np.ndarray:
    """Shapes: [...,2D] -> [...,D]"""
    require_float32(x)
    rows = np.ascontiguousarray(x).reshape(-1, x.shape[-1])
    y = result(len(rows), x.shape[-1] // 2)
    parallel(_geglu, len(rows), rows.size, rows, y)
    return y.reshape(*x.shape[:-1], -1)


def geglu_vjp(g: np.ndarray, out: np.ndarray, x: np.ndarray) -> tuple:
    """The gradient of geglu."""
    require_float32(g, x)
    rows = np.ascontiguousarray(x).reshape(-1, x.shape[-1])
    gradient = np.ascontiguousarray(g).reshape(len(rows), -1)
    dx = np.empty(rows.shape, dtype=np.float32)
    parallel(_geglu_back, len(rows), rows.size, gradient, rows, dx)
    return (dx.reshape(x.shape),)


KERNELS = {
    "silu": silu,
    "silu_vjp": silu_vjp,
    "quick_gelu": quick_gelu,
    "quick_gelu_vjp": quick_gelu_vjp,
    "geglu": geglu,
    "geglu_vjp": geglu_vjp,
}
