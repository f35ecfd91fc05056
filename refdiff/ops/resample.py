"""Nearest-neighbour upsampling, and the convolution that follows it."""

from __future__ import annotations

from refdiff.core.primitive import primitive
from refdiff.ops.conv import conv2d, conv2d_vjp
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


def upsample_conv2d_vjp(g: Array, out: Array, x: Array, weight: Array, bias: Array) -> tuple[Array, Array, Array]:
    """Math: the chain rule through conv2d, then through upsample_nearest."""
    size = {"height": 2 * x.shape[2], "width": 2 * x.shape[3]}
    doubled = upsample_nearest.spec(x, **size)
    g_doubled, g_weight, g_bias = conv2d_vjp(g, out, doubled, weight, bias, stride=1, padding=(1, 1, 1, 1))
    return (*upsample_nearest_vjp(g_doubled, doubled, x, **size), g_weight, g_bias)


@primitive(vjp=upsample_conv2d_vjp)
def upsample_conv2d(x: Array, weight: Array, bias: Array) -> Array:
    """A fusion: the 3x3 convolution, which keeps the size, of upsample_nearest(x) to twice the size.

    Shapes: [B,C,H,W], [C',C,3,3], [C'] -> [B,C',2H,2W]
    Traps: up-mode
    """
    doubled = upsample_nearest.spec(x, height=2 * x.shape[2], width=2 * x.shape[3])
    return conv2d.spec(doubled, weight, bias, stride=1, padding=(1, 1, 1, 1))


def _sources(xp: object, size_in: int, size_out: int) -> Array:
    return xp.arange(size_out) * size_in // size_out  # type: ignore[attr-defined]
