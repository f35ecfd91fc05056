"""The affine map as one matrix product over all rows."""

from __future__ import annotations

import numpy as np

from refdiff.kernels.cpu.common import require_depth, require_float32, require_numbers
from refdiff.kernels.cpu.halves import in_pairs, readable
from refdiff.kernels.cpu.panels import Weight
from refdiff.kernels.cpu.product import WHOLE, product
from refdiff.kernels.cpu.repeats import once, remembered


def linear(x: np.ndarray, weight: np.ndarray, bias: np.ndarray | None) -> np.ndarray:
    """A weight of two bytes a number is widened as it is used. The first axis of more than one counts pictures, see product.

    Shapes: [...,D], [D',D], [D'] -> [...,D']
    """
    require_float32(x, bias)
    require_numbers(x, weight)
    require_depth(x.shape[-1], weight.shape[1])
    flat, matrix = np.ascontiguousarray(x).reshape(-1, x.shape[-1]), np.ascontiguousarray(readable(weight))
    rows, pictures = np.arange(len(flat)) * x.shape[-1], len(x) if x.ndim > 1 else 1
    y = product(flat.reshape(-1), rows, WHOLE, as_weight(matrix), bias, pictures=pictures, pairs=in_pairs(x.shape[-1]))
    return y.reshape(*x.shape[:-1], len(matrix))


def as_weight(matrix: np.ndarray) -> Weight:
    """The rows of a contiguous matrix as a product's columns.  Shapes: [N,K]"""
    columns, depth = matrix.shape
    return Weight(matrix.reshape(-1), (columns, 1, depth), (depth, depth, 1))


def linear_vjp(g: np.ndarray, out: np.ndarray, x: np.ndarray, weight: np.ndarray, bias: np.ndarray | None) -> tuple:
    """The gradients of linear."""
    require_float32(g, x, weight, bias)
    rows = np.ascontiguousarray(g.reshape(-1, g.shape[-1]))
    dx = (rows @ weight).reshape(x.shape)
    dweight = rows.T @ x.reshape(-1, x.shape[-1])
    return dx, dweight, None if bias is None else np.ones(len(rows), dtype=np.float32) @ rows


KERNELS = {"linear": once(remembered(linear), 1), "linear_vjp": linear_vjp}
