"""The affine map as one matrix product over all rows."""

from __future__ import annotations

import numpy as np

from refdiff.kernels.cpu.common import require_float32


def linear(x: np.ndarray, weight: np.ndarray, bias: np.ndarray | None) -> np.ndarray:
    """Shapes: [...,D], [D',D], [D'] -> [...,D']"""
    require_float32(x, weight, bias)
    y = x.reshape(-1, x.shape[-1]) @ weight.T
    if bias is not None:
        y += bias
    return y.reshape(*x.shape[:-1], weight.shape[0])


def linear_vjp(g: np.ndarray, out: np.ndarray, x: np.ndarray, weight: np.ndarray, bias: np.ndarray | None) -> tuple:
    """The gradients of linear."""
    require_float32(g, x, weight, bias)
    rows = np.ascontiguousarray(g.reshape(-1, g.shape[-1]))
    dx = (rows @ weight).reshape(x.shape)
    dweight = rows.T @ x.reshape(-1, x.shape[-1])
    return dx, dweight, None if bias is None else np.ones(len(rows), dtype=np.float32) @ rows


KERNELS = {"linear": linear, "linear_vjp": linear_vjp}
