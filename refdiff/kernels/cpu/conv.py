"""Convolution and its gradients as matrix products whose rows are the windows of a padded image: nothing is gathered."""

from __future__ import annotations

import numpy as np

from refdiff.kernels.cpu import blocks, winograd, winograd_gradient
from refdiff.kernels.cpu.common import nchw, nhwc, padded_nhwc, require_depth, require_float32, require_numbers
from refdiff.kernels.cpu.gradient import weight_gradient
from refdiff.kernels.cpu.halves import in_pairs, readable
from refdiff.kernels.cpu.panels import Weight
from refdiff.kernels.cpu.product import product
from refdiff.kernels.cpu.repeats import once
from refdiff.kernels.cpu.resample import upsample_nearest, upsample_nearest_vjp
from refdiff.ops.conv import Padding


def conv2d(x: np.ndarray, weight: np.ndarray, bias: np.ndarray, *, stride: int, padding: Padding) -> np.ndarray:
    """A weight of two bytes a number is widened as it is used.  Shapes: [B,C,H,W], [O,C,K,K], [O] -> [B,O,H',W']"""
    require_float32(x, bias)
    require_numbers(x, weight)
    require_depth(x.shape[1], weight.shape[1])
    if _by_winograd(x.shape, weight.shape, stride):
        return winograd.conv3x3(x, weight, bias, padding=padding, pairs=in_pairs(x.shape[1]))
    weight = readable(weight)
    image = padded_nhwc(x, padding)
    tall, wide = weight.shape[2:]
    rows, columns = (image.shape[1] - tall) // stride + 1, (image.shape[2] - wide) // stride + 1
    begins = _places(image, np.arange(rows) * stride, np.arange(columns) * stride)
    flat = Weight(
        np.ascontiguousarray(weight).reshape(-1), (len(weight), tall * wide, x.shape[1]), (weight[0].size, 1, tall * wide)
    )
    y = product(image.reshape(-1), begins, _taps(image, tall, wide), flat, bias, pictures=len(x), pairs=in_pairs(x.shape[1]))
    return nchw(y.reshape(len(x), rows, columns, -1))


def _by_winograd(shape: tuple[int, ...], weight: tuple[int, ...], stride: int) -> bool:
    """Whether products are fewer than in the direct form: where it is worth it, and no matrix unit makes them as fast.

    Shapes: [B,C,H,W], [O,C,K,K]
    """
    direct = in_pairs(shape[1]) and blocks.fits(shape[1])
    return not direct and winograd.is_faster(shape, weight, stride, winograd.LEAST)


def conv2d_vjp(
    g: np.ndarray,
    out: np.ndarray,
    x: np.ndarray,
    weight: np.ndarray,
    bias: np.ndarray,
    *,
    stride: int,
    padding: Padding,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The gradients of conv2d."""
    require_float32(g, x, weight, bias)
    faster = winograd.is_faster(g.shape, weight.shape, stride, winograd.LEAST_GRADIENT)
    if faster and max(padding) <= 2:
        turned, zeros = weight[:, :, ::-1, ::-1].swapaxes(0, 1), np.zeros(x.shape[1], dtype=np.float32)
        top, bottom, left, right = (2 - side for side in padding)
        dx = winograd.conv3x3(g, turned, zeros, padding=(top, bottom, left, right))
    else:
        dx = _input_gradient(g, x.shape, weight, stride, padding)
    if faster:
        dweight = winograd_gradient.conv3x3_weight(g, x, padding=padding)
    else:
        dweight = _weight_gradient(g, x, weight.shape, stride, padding)
    rows = nhwc(g).reshape(-1, len(weight))
    return dx, dweight, np.ones(len(rows), dtype=np.float32) @ rows


def upsample_conv2d(x: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """Shapes: [B,C,H,W], [O,C,3,3], [O] -> [B,O,2H,2W]"""
    require_float32(x, bias)
    require_numbers(x, weight)
    require_depth(x.shape[1], weight.shape[1])
    size = {"height": 2 * x.shape[2], "width": 2 * x.shape[3]}
    if _by_winograd((*x.shape[:2], *size.values()), weight.shape, 1):
        return winograd.doubled_conv3x3(x, weight, bias)
    return conv2d(upsample_nearest(x, **size), weight, bias, stride=1, padding=(1, 1, 1, 1))


def upsample_conv2d_vjp(g: np.ndarray, out: np.ndarray, x: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> tuple:
    """The gradients of upsample_conv2d, through the picture of twice the size."""
    require_float32(g, x, weight, bias)
    size = {"height": 2 * x.shape[2], "width": 2 * x.shape[3]}
    doubled = upsample_nearest(x, **size)
    g_doubled, *others = conv2d_vjp(g, out, doubled, weight, bias, stride=1, padding=(1, 1, 1, 1))
    return (*upsample_nearest_vjp(g_doubled, doubled, x, **size), *others)


def _weight_gradient(g: np.ndarray, x: np.ndarray, shape: tuple[int, ...], stride: int, padding: Padding) -> np.ndarray:
    """The gradient of a weight of that shape.

    Math: dW[o,c,i,j] = sum over b, h and w of g[b,o,h,w] x[b,c, stride h + i - top, stride w + j - left]
    """
    image, rows = padded_nhwc(x, padding), nhwc(g).reshape(-1, g.shape[1])
    begins = _places(image, np.arange(g.shape[2]) * stride, np.arange(g.shape[3]) * stride)
    columns = (_taps(image, *shape[2:])[:, None] + np.arange(x.shape[1])).ravel()
    dweight = weight_gradient(rows, image.reshape(-1), begins, columns)
    return np.ascontiguousarray(dweight.reshape(-1, *shape[2:], x.shape[1]).transpose(0, 3, 1, 2))


def _input_gradient(g: np.ndarray, shape: tuple[int, ...], weight: np.ndarray, stride: int, padding: Padding) -> np.ndarray:
    """The gradient of the image, one convolution for each place of a pixel between two strides.

    Math: dx[stride a + p - top] = sum over e of W[p + stride e]^T g[a - e], in each of the two directions
    Shapes: [B,O,H',W'], [B,C,H,W], [O,C,K,K] -> [B,C,H,W]
    """
    batch, channels, height, width = shape
    (top, _, left, _), (tall, wide) = padding, weight.shape[2:]
    sides = [_margins(stride, *side) for side in ((top, tall, height, g.shape[2]), (left, wide, width, g.shape[3]))]
    image = padded_nhwc(g, (*sides[0], *sides[1]))
    dx = np.zeros((batch, height, width, channels), dtype=np.float32)
    for p in range(min(stride, tall)):
        for q in range(min(stride, wide)):
            part = np.ascontiguousarray(weight[:, :, p::stride, q::stride].transpose(2, 3, 0, 1))  # [E,F,O,C]
            down, across = part.shape[:2]
            first, second = -(-max(top - p, 0) // stride), -(-max(left - q, 0) // stride)
            into = dx[:, stride * first + p - top :: stride, stride * second + q - left :: stride]
            if into.size == 0:  # fewer pixels than a stride
                continue
            begins = _places(
                image,
                np.arange(into.shape[1]) + first + sides[0][0] - down + 1,
                np.arange(into.shape[2]) + second + sides[1][0] - across + 1,
            )
            flat = Weight(part.reshape(-1), (channels, down * across, len(weight)), (1, len(weight) * channels, channels))
            taps = _taps(image, down, across)[::-1]
            into[:] = product(image.reshape(-1), begins, taps, flat, None, pictures=batch).reshape(into.shape)
    return nchw(dx)


def _margins(stride: int, before: int, kernel: int, size: int, count: int) -> tuple[int, int]:
    """How many zeros the gradient of `count` outputs needs on its two sides, for every pixel to see all of its windows."""
    return max((kernel - 1 - before) // stride, 0), max((before + size - 1) // stride - count + 1, 0)


def _places(image: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Where in the memory of [B,H,W,C] the pixels of these rows and columns begin, through the batch."""
    batch, height, width, channels = image.shape
    return ((np.arange(batch)[:, None, None] * height + rows[:, None]) * width + columns).ravel() * channels


def _taps(image: np.ndarray, tall: int, wide: int) -> np.ndarray:
    """How far after the first pixel of a window each of its pixels lies, in the memory of [B,H,W,C]."""
    return (np.arange(tall)[:, None] * image.shape[2] + np.arange(wide)).ravel() * image.shape[3]


KERNELS = {
    "conv2d": once(conv2d, 1),
    "conv2d_vjp": conv2d_vjp,
    "upsample_conv2d": upsample_conv2d,
    "upsample_conv2d_vjp": upsample_conv2d_vjp,
}
