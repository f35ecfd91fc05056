"""Two-dimensional convolution (cross-correlation, as in every deep learning paper)."""

from __future__ import annotations

from refdiff.core.primitive import primitive
from refdiff.xp import Array, array_module

Padding = tuple[int, int, int, int]  # zeros added: (top, bottom, left, right)


def conv2d_vjp(
    g: Array, out: Array, x: Array, weight: Array, bias: Array, *, stride: int, padding: Padding
) -> tuple[Array, Array, Array]:
    """Math: every tap of the kernel is a linear map of a shifted image, so
    dx[.., s h + i, s w + j] += sum_o W[o,:,i,j] g[..,o,h,w],  dW[o,c,i,j] = sum_bhw g[b,o,h,w] x[b,c, s h + i, s w + j].
    """
    xp = array_module(x)
    padded = _pad(x, padding)
    dpadded = xp.zeros(padded.shape, dtype=g.dtype)
    dweight = xp.zeros(weight.shape, dtype=g.dtype)
    for i, j, window in _taps(weight.shape, g.shape, stride):
        dpadded[window] += xp.tensordot(g, weight[:, :, i, j], axes=(1, 0)).transpose(0, 3, 1, 2)
        dweight[:, :, i, j] = xp.tensordot(g, padded[window], axes=((0, 2, 3), (0, 2, 3)))
    top, _, left, _ = padding
    dx = dpadded[:, :, top : top + x.shape[2], left : left + x.shape[3]]
    return dx, dweight, g.sum(axis=(0, 2, 3))


@primitive(vjp=conv2d_vjp)
def conv2d(x: Array, weight: Array, bias: Array, *, stride: int, padding: Padding) -> Array:
    """Convolution with zero padding on each of the four sides.

    Math: y[b,o,h,w] = b[o] + sum_cij W[o,c,i,j] x[b,c, s h + i - top, s w + j - left]
    Shapes: [B,C,H,W], [O,C,K,K], [O] -> [B,O,H',W'], H' = (H + top + bottom - K) // stride + 1
    Traps: vae-pad, unet-down-pad, w-conv-flip
    """
    xp = array_module(x)
    padded = _pad(x, padding)
    height = (padded.shape[2] - weight.shape[2]) // stride + 1
    width = (padded.shape[3] - weight.shape[3]) // stride + 1
    out_shape = (x.shape[0], weight.shape[0], height, width)
    y = xp.broadcast_to(bias[:, None, None], out_shape)
    for i, j, window in _taps(weight.shape, out_shape, stride):
        y = y + xp.tensordot(padded[window], weight[:, :, i, j], axes=(1, 1)).transpose(0, 3, 1, 2)
    return y


def _pad(x: Array, padding: Padding) -> Array:
    top, bottom, left, right = padding
    return array_module(x).pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)))


def _taps(weight_shape: tuple, out_shape: tuple, stride: int) -> list:
    """Each tap (i, j) of the kernel with the window of the padded image that it sees."""
    reach_h, reach_w = stride * (out_shape[2] - 1) + 1, stride * (out_shape[3] - 1) + 1
    everything = slice(None)
    return [
        (i, j, (everything, everything, slice(i, i + reach_h, stride), slice(j, j + reach_w, stride)))
        for i in range(weight_shape[2])
        for j in range(weight_shape[3])
    ]
