"""Convolution as a matrix product over gathered windows (im2col), a block of rows at a time so that memory stays bounded."""

from __future__ import annotations

import numpy as np

from refdiff.core.primitive import Unsupported
from refdiff.kernels.cpu import winograd
from refdiff.kernels.cpu.common import jit, nchw, nhwc, padded_nhwc, parallel, require_float32
from refdiff.kernels.cpu.product import Weight, product
from refdiff.ops.conv import Padding

BLOCK = 1 << 24  # floats of gathered windows held at once: 64 MiB


@jit
def _gather(start, stop, first, lines, cols, geometry):
    """cols[r] = the windows of output row first + r (rows are numbered through the batch), for r in start..stop.

    `lines` is the image as [B,H,W*C]: one row of a window is one run of its memory.
    """
    kernel, stride, top, left, rows, columns, channels = geometry
    height, width = lines.shape[1], lines.shape[2] // channels
    for r in range(start, stop):
        image = (first + r) // rows
        h0 = ((first + r) % rows) * stride - top
        for w in range(columns):
            w0 = w * stride - left
            before = max(-w0, 0) * channels
            after = (min(w0 + kernel, width) - w0) * channels
            out = cols[r, w]
            for i in range(kernel):
                at = i * kernel * channels
                if 0 <= h0 + i < height:
                    line = lines[image, h0 + i]
                    shift = w0 * channels
                    for c in range(before):
                        out[at + c] = 0
                    for c in range(before, after):
                        out[at + c] = line[shift + c]
                    for c in range(after, kernel * channels):
                        out[at + c] = 0
                else:
                    for c in range(kernel * channels):
                        out[at + c] = 0


@jit
def _scatter(start, stop, first, dcols, lines, geometry):
    """The transpose of _gather: each image of start..stop collects what its windows send back."""
    kernel, stride, top, left, rows, columns, channels = geometry
    height, width = lines.shape[1], lines.shape[2] // channels
    for image in range(start, stop):
        for row in range(rows):
            h0 = row * stride - top
            for w in range(columns):
                w0 = w * stride - left
                before = max(-w0, 0) * channels
                after = (min(w0 + kernel, width) - w0) * channels
                sent = dcols[(image - first) * rows + row, w]
                for i in range(kernel):
                    if 0 <= h0 + i < height:
                        line = lines[image, h0 + i]
                        shift, at = w0 * channels, i * kernel * channels
                        for c in range(before, after):
                            line[shift + c] += sent[at + c]


def conv2d(x: np.ndarray, weight: np.ndarray, bias: np.ndarray, *, stride: int, padding: Padding) -> np.ndarray:
    """Shapes: [B,C,H,W], [O,C,K,K], [O] -> [B,O,H',W']"""
    require_float32(x, weight, bias)
    if winograd.is_faster(x.shape, weight.shape, stride):
        return winograd.conv3x3(x, weight, bias, padding=padding)
    image = padded_nhwc(x, padding)
    batch, height, width, channels = image.shape
    tall, wide = weight.shape[2:]
    rows, columns = (height - tall) // stride + 1, (width - wide) // stride + 1
    down, across = np.arange(rows) * (stride * width), np.arange(columns) * stride
    begins = (np.arange(batch)[:, None, None] * (height * width) + down[:, None] + across) * channels
    taps = (np.arange(tall)[:, None] * width + np.arange(wide)).ravel() * channels
    flat = Weight(np.ascontiguousarray(weight).reshape(-1), (len(weight), taps.size, channels), (weight[0].size, 1, taps.size))
    y = product(image.reshape(-1), begins.ravel(), taps, flat, bias, by_row=False)
    return nchw(y.reshape(batch, rows, columns, -1))


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
    image, matrix, geometry = _prepare(x, weight, stride, padding)
    kernel, rows, columns = geometry[0], geometry[4], geometry[5]
    gradient = nhwc(g).reshape(x.shape[0] * rows, columns, -1)
    dx = np.zeros(image.shape, dtype=np.float32)
    dmatrix = np.zeros(matrix.shape, dtype=np.float32)
    for first, count in _blocks(x.shape[0] * rows, columns * len(matrix), multiple=rows):
        g_rows = gradient[first : first + count].reshape(-1, weight.shape[0])
        dmatrix += _windows(image, geometry, first, count).T @ g_rows
        dcols = g_rows @ matrix.T
        if kernel == 1 and stride == 1:
            dx[first // rows : (first + count) // rows] = dcols.reshape(-1, *image.shape[1:])
        else:
            _send_back(dcols, dx, geometry, first // rows, count // rows)
    dweight = dmatrix.reshape(kernel, kernel, x.shape[1], -1).transpose(3, 2, 0, 1)
    flat = gradient.reshape(-1, weight.shape[0])
    return nchw(dx), np.ascontiguousarray(dweight), np.ones(len(flat), dtype=np.float32) @ flat


def _prepare(x: np.ndarray, weight: np.ndarray, stride: int, padding: Padding) -> tuple:
    """The image in NHWC, the kernel as a matrix [K*K*C,O], and the geometry (kernel, stride, top, left, rows, columns,
    channels)."""
    kernel = weight.shape[2]
    top, bottom, left, right = padding
    if weight.shape[3] != kernel:
        raise Unsupported(f"kernel {weight.shape[2]}x{weight.shape[3]}")
    if kernel == 1 and (stride != 1 or any(padding)):
        raise Unsupported("a 1x1 kernel with stride or padding")
    rows = (x.shape[2] + top + bottom - kernel) // stride + 1
    columns = (x.shape[3] + left + right - kernel) // stride + 1
    matrix = weight.transpose(2, 3, 1, 0).reshape(-1, weight.shape[0])
    return nhwc(x), matrix, (kernel, stride, top, left, rows, columns, x.shape[1])


def _windows(image: np.ndarray, geometry: tuple, first: int, count: int) -> np.ndarray:
    """The windows of `count` output rows from row `first` on, as a matrix [count*columns, K*K*C]."""
    kernel, columns, channels = geometry[0], geometry[5], geometry[6]
    if kernel == 1:
        return image.reshape(-1, channels)[first * columns : (first + count) * columns]
    cols = np.empty((count, columns, kernel * kernel * channels), dtype=np.float32)
    parallel(_gather, count, cols.size, first, image.reshape(*image.shape[:2], -1), cols, geometry)
    return cols.reshape(count * columns, -1)


def _send_back(dcols: np.ndarray, dx: np.ndarray, geometry: tuple, first: int, count: int) -> None:
    """Add the gradients of the windows of images first..first+count to `dx`."""
    rows, columns = geometry[4], geometry[5]
    dcols = dcols.reshape(count * rows, columns, -1)
    parallel(_scatter_from, count, dcols.size, first, dcols, dx.reshape(*dx.shape[:2], -1), geometry)


def _scatter_from(start: int, stop: int, first: int, dcols: np.ndarray, lines: np.ndarray, geometry: tuple) -> None:
    _scatter(first + start, first + stop, first, dcols, lines, geometry)


def _blocks(rows: int, row_size: int, *, multiple: int) -> list[tuple[int, int]]:
    """Cut `rows` into (first, count) blocks of at most BLOCK floats, each a multiple of `multiple` rows."""
    step = max(BLOCK // max(row_size, 1) // multiple, 1) * multiple
    return [(first, min(step, rows - first)) for first in range(0, rows, step)]


KERNELS = {"conv2d": conv2d, "conv2d_vjp": conv2d_vjp}
