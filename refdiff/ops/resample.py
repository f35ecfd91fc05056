"""Nearest-neighbour upsampling."""

from __future__ import annotations

from refdiff.core.primitive import primitive
from refdiff.xp import Array, array_module


def upsample_nearest_vjp(g: Array, out: Array, x: Array, *, height: int, width: int) -> tuple:
    """Math: upsampling is y = R x C^T with one-hot rows, so dx = R^T g C."""
    xp = array_module(x)
    rows = _sources(xp, x.shape[2], height)[:, None] == xp.arange(x.shape[2])
    columns = _sources(xp, x.shape[3], width)[:, None] == xp.arange(x.shape[3])
    return (rows.T.astype(g.dtype) @ (g @ columns.astype(g.dtype)),)


@primitive(vjp=upsample_nearest_vjp)
def upsample_nearest(x: Array, *, height: int, width: int) -> Array:
    """Each output pixel is the input pixel that it falls on.

    Math: y[h,w] = x[floor(h H / height), floor(w W / width)]
    Shapes: [B,C,H,W] -> [B,C,height,width]
    Traps: up-mode, up-size
    """
    xp = array_module(x)
    rows = xp.take(x, _sources(xp, x.shape[2], height), axis=2)
    return xp.take(rows, _sources(xp, x.shape[3], width), axis=3)


def _sources(xp: object, size_in: int, size_out: int) -> Array:
    return xp.arange(size_out) * size_in // size_out  # type: ignore[attr-defined]
