"""GroupNorm, GroupNorm with SiLU, and LayerNorm over NHWC memory."""

from __future__ import annotations

import math

import numpy as np

from refdiff.kernels.cpu.common import ONE, exponential, jit, nchw, nhwc, parallel, part, require_float32
from refdiff.kernels.cpu.results import result

CHUNK = 256  # pixels whose sums are made for themselves, whatever the threads


@part
def _affine_of_image(x, weight, bias, groups, eps, scale, shift, mean, rstd):
    """Per channel of one image [P,C]: scale and shift with normalised = x * scale + shift, and the group's mean and rstd."""
    pixels, channels = x.shape
    size = channels // groups
    count = pixels * size
    total = np.zeros(channels, dtype=np.float32)
    for p in range(pixels):
        for c in range(channels):
            total[c] += x[p, c]
    for k in range(groups):
        s = np.float64(0)
        for c in range(k * size, (k + 1) * size):
            s += total[c]
        for c in range(k * size, (k + 1) * size):
            mean[c] = s / count
    total[:] = 0
    for p in range(pixels):
        for c in range(channels):
            d = x[p, c] - mean[c]
            total[c] += d * d
    for k in range(groups):
        s = np.float64(0)
        for c in range(k * size, (k + 1) * size):
            s += total[c]
        r = 1.0 / math.sqrt(s / count + eps)
        for c in range(k * size, (k + 1) * size):
            rstd[c] = r
            scale[c] = weight[c] * rstd[c]
            shift[c] = bias[c] - mean[c] * scale[c]


@jit
def _moments(start, stop, x, chunks, means, squares):
    """The mean of each channel in a chunk of pixels, and the sum of squares around it, for chunks start..stop of all images.

    Shapes: [B,P,C] -> [B*chunks,C] twice
    """
    channels = x.shape[2]
    for item in range(start, stop):
        b, first = item // chunks, (item % chunks) * CHUNK
        last = min(first + CHUNK, x.shape[1])
        inverse = ONE / np.float32(last - first)
        for c in range(channels):
            means[item, c], squares[item, c] = 0, 0
        for p in range(first, last):
            for c in range(channels):
                means[item, c] += x[b, p, c]
        for c in range(channels):
            means[item, c] *= inverse
        for p in range(first, last):
            for c in range(channels):
                d = x[b, p, c] - means[item, c]
                squares[item, c] += d * d


def _mean_and_rstd(means: np.ndarray, squares: np.ndarray, pixels: int, groups: int, eps: float) -> tuple:
    """The mean and 1 / deviation of every group, for each of its channels, in float64.

    Math: over the parts i of a group, N mean = sum n_i mean_i and N variance = sum squares_i + n_i (mean_i - mean)^2
    Shapes: [B,chunks,C] twice -> [B,C] twice
    Source: Chan, Golub, LeVeque 1979, updating formulae and a pairwise algorithm for computing sample variances
    """
    batch, chunks, channels = means.shape
    size = channels // groups
    counts = np.full((chunks, 1, 1), CHUNK)
    counts[-1] = pixels - (chunks - 1) * CHUNK
    parts = means.astype(np.float64).reshape(batch, chunks, groups, size)
    mean = (parts * counts).sum(axis=(1, 3)) / (pixels * size)
    spread = squares.astype(np.float64).reshape(parts.shape) + counts * (parts - mean[:, None, :, None]) ** 2
    rstd = 1.0 / np.sqrt(spread.sum(axis=(1, 3)) / (pixels * size) + eps)
    return mean.repeat(size, axis=1), rstd.repeat(size, axis=1)


@jit
def _forward(start, stop, x, chunks, scale, shift, activate, y):
    """y = x scale + shift, then SiLU if `activate`, for chunks start..stop of all images.  Shapes: [B,P,C], [B,C], [B,C]"""
    for item in range(start, stop):
        b, first = item // chunks, (item % chunks) * CHUNK
        for p in range(first, min(first + CHUNK, x.shape[1])):
            for c in range(x.shape[2]):
                y[b, p, c] = x[b, p, c] * scale[b, c] + shift[b, c]
            if activate:
                for c in range(x.shape[2]):
                    y[b, p, c] /= ONE + exponential(-y[b, p, c])


@jit
def _backward(start, stop, g, x, weight, bias, groups, eps, activate, dx, dweight, dbias):
    """dx[b] and this image's share of dweight and dbias, for images start..stop of [B,P,C]."""
    pixels, channels = x.shape[1], x.shape[2]
    size = channels // groups
    scale, shift = np.empty(channels, dtype=np.float32), np.empty(channels, dtype=np.float32)
    mean, rstd = np.empty(channels, dtype=np.float32), np.empty(channels, dtype=np.float32)
    of_h, of_normal = np.empty(channels, dtype=np.float32), np.empty(channels, dtype=np.float32)
    for b in range(start, stop):
        _affine_of_image(x[b], weight, bias, groups, eps, scale, shift, mean, rstd)
        for c in range(channels):
            dweight[b, c] = 0
            dbias[b, c] = 0
        for p in range(pixels):
            row, grad, out = x[b, p], g[b, p], dx[b, p]
            if activate:
                for c in range(channels):
                    minus = -(row[c] * scale[c] + shift[c])
                    s = ONE / (ONE + exponential(minus))
                    out[c] = grad[c] * (s * (ONE - minus * (ONE - s)))
            else:
                for c in range(channels):
                    out[c] = grad[c]
            for c in range(channels):
                dbias[b, c] += out[c]
                dweight[b, c] += out[c] * ((row[c] - mean[c]) * rstd[c])
        for k in range(groups):
            sum_h, sum_hn = np.float64(0), np.float64(0)
            for c in range(k * size, (k + 1) * size):
                sum_h += dbias[b, c] * weight[c]
                sum_hn += dweight[b, c] * weight[c]
            for c in range(k * size, (k + 1) * size):
                of_h[c] = sum_h / (pixels * size)
                of_normal[c] = sum_hn / (pixels * size)
        for p in range(pixels):
            row, out = x[b, p], dx[b, p]
            for c in range(channels):
                normal = (row[c] - mean[c]) * rstd[c]
                out[c] = rstd[c] * (out[c] * weight[c] - of_h[c] - normal * of_normal[c])


def _run_forward(x: np.ndarray, weight: np.ndarray, bias: np.ndarray, groups: int, eps: float, activate: bool) -> np.ndarray:
    require_float32(x, weight, bias)
    image = nhwc(x)
    flat = image.reshape(x.shape[0], -1, x.shape[1])
    batch, pixels, channels = flat.shape
    chunks = max(-(-pixels // CHUNK), 1)
    means, squares = np.empty((2, batch * chunks, channels), dtype=np.float32)
    parallel(_moments, batch * chunks, flat.size, flat, chunks, means, squares)
    shape = batch, chunks, channels
    mean, rstd = _mean_and_rstd(means.reshape(shape), squares.reshape(shape), pixels, groups, eps)
    scale = rstd * weight
    y = result(*flat.shape)
    args = (a.astype(np.float32) for a in (scale, bias - mean * scale))
    parallel(_forward, batch * chunks, flat.size, flat, chunks, *args, activate, y)
    return nchw(y.reshape(image.shape))


def _run_backward(
    g: np.ndarray, x: np.ndarray, weight: np.ndarray, bias: np.ndarray, groups: int, eps: float, activate: bool
) -> tuple:
    require_float32(g, x, weight, bias)
    image = nhwc(x)
    flat = image.reshape(x.shape[0], -1, x.shape[1])
    dx = np.empty(flat.shape, dtype=np.float32)
    dweight, dbias = np.empty((2, *flat.shape[::2]), dtype=np.float32)
    gradient = nhwc(g).reshape(flat.shape)
    args = (gradient, flat, *_contiguous(weight, bias), groups, eps, activate, dx, dweight, dbias)
    parallel(_backward, len(flat), flat.size, *args)
    return nchw(dx.reshape(image.shape)), dweight.sum(axis=0), dbias.sum(axis=0)


def group_norm(x: np.ndarray, weight: np.ndarray, bias: np.ndarray, *, groups: int, eps: float) -> np.ndarray:
    """Shapes: [B,C,H,W], [C], [C] -> [B,C,H,W]"""
    return _run_forward(x, weight, bias, groups, eps, False)


def group_norm_vjp(
    g: np.ndarray, out: np.ndarray, x: np.ndarray, weight: np.ndarray, bias: np.ndarray, *, groups: int, eps: float
) -> tuple:
    """The gradients of group_norm."""
    return _run_backward(g, x, weight, bias, groups, eps, False)


def group_norm_silu(x: np.ndarray, weight: np.ndarray, bias: np.ndarray, *, groups: int, eps: float) -> np.ndarray:
    """Shapes: [B,C,H,W], [C], [C] -> [B,C,H,W]"""
    return _run_forward(x, weight, bias, groups, eps, True)


def group_norm_silu_vjp(
    g: np.ndarray, out: np.ndarray, x: np.ndarray, weight: np.ndarray, bias: np.ndarray, *, groups: int, eps: float
) -> tuple:
    """The gradients of group_norm_silu."""
    return _run_backward(g, x, weight, bias, groups, eps, True)


@jit
def _layer_forward(start, stop, x, weight, bias, eps, y):
    width = x.shape[1]
    for t in range(start, stop):
        row, out = x[t], y[t]
        s = np.float32(0)
        for c in range(width):
            s += row[c]
        mean = np.float32(s / width)
        v = np.float32(0)
        for c in range(width):
            d = row[c] - mean
            v += d * d
        rstd = np.float32(1.0 / math.sqrt(v / width + eps))
        for c in range(width):
            out[c] = (row[c] - mean) * rstd * weight[c] + bias[c]


@jit
def _layer_backward(start, stop, g, x, weight, eps, dx, normal):
    width = x.shape[1]
    for t in range(start, stop):
        row, grad, out, n = x[t], g[t], dx[t], normal[t]
        s = np.float32(0)
        for c in range(width):
            s += row[c]
        mean = np.float32(s / width)
        v = np.float32(0)
        for c in range(width):
            d = row[c] - mean
            v += d * d
        rstd = np.float32(1.0 / math.sqrt(v / width + eps))
        sum_h, sum_hn = np.float32(0), np.float32(0)
        for c in range(width):
            n[c] = (row[c] - mean) * rstd
            h = grad[c] * weight[c]
            sum_h += h
            sum_hn += h * n[c]
        sum_h = np.float32(sum_h / width)
        sum_hn = np.float32(sum_hn / width)
        for c in range(width):
            out[c] = rstd * (grad[c] * weight[c] - sum_h - n[c] * sum_hn)
            n[c] = n[c] * grad[c]


def layer_norm(x: np.ndarray, weight: np.ndarray, bias: np.ndarray, *, eps: float) -> np.ndarray:
    """Shapes: [...,D], [D], [D] -> [...,D]"""
    require_float32(x, weight, bias)
    rows = np.ascontiguousarray(x).reshape(-1, x.shape[-1])
    y = result(*rows.shape)
    parallel(_layer_forward, len(rows), rows.size, rows, *_contiguous(weight, bias), eps, y)
    return y.reshape(x.shape)


def layer_norm_vjp(g: np.ndarray, out: np.ndarray, x: np.ndarray, weight: np.ndarray, bias: np.ndarray, *, eps: float) -> tuple:
    """The gradients of layer_norm."""
    require_float32(g, x, weight, bias)
    rows = np.ascontiguousarray(x).reshape(-1, x.shape[-1])
    gradient = np.ascontiguousarray(g).reshape(rows.shape)
    dx, g_normal = np.empty(rows.shape, dtype=np.float32), np.empty(rows.shape, dtype=np.float32)
    parallel(_layer_backward, len(rows), rows.size, gradient, rows, _contiguous(weight)[0], eps, dx, g_normal)
    ones = np.ones(len(rows), dtype=np.float32)
    return dx.reshape(x.shape), ones @ g_normal, ones @ gradient


def _contiguous(*arrays: np.ndarray) -> tuple[np.ndarray, ...]:
    return tuple(np.ascontiguousarray(a) for a in arrays)


KERNELS = {
    "group_norm": group_norm,
    "group_norm_vjp": group_norm_vjp,
    "group_norm_silu": group_norm_silu,
    "group_norm_silu_vjp": group_norm_silu_vjp,
    "layer_norm": layer_norm,
    "layer_norm_vjp": layer_norm_vjp,
}
