"""The affine map."""

from __future__ import annotations

from refdiff.core.primitive import primitive
from refdiff.xp import Array


def linear_vjp(g: Array, out: Array, x: Array, weight: Array, bias: Array | None) -> tuple:
    """Math: dx = g W, dW = g^T x, db = sum g, over all leading axes."""
    rows = g.reshape(-1, g.shape[-1])
    dweight = rows.T @ x.reshape(-1, x.shape[-1])
    return g @ weight, dweight, None if bias is None else rows.sum(axis=0)


@primitive(vjp=linear_vjp)
def linear(x: Array, weight: Array, bias: Array | None) -> Array:
    """An affine map of the last axis; `bias` None leaves it out.

    Math: y = x W^T + b
    Shapes: [...,D], [D',D], [D'] -> [...,D']
    Traps: w-square-T
    """
    y = x @ weight.T
    return y if bias is None else y + bias
