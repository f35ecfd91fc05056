"""3x3 convolution with a quarter of the products: Winograd's F(4x4,3x3), a block of tiles at a time.

Math: for each tile of 4x4 outputs, Y = A^T [(G g G^T) * (B^T d B)] A, where d are the 6x6 inputs that it sees; of the 36 numbers
    in the middle each is a matrix product over channels.
Source: Lavin, Gray 2015 (arXiv 1509.09308), section 4.3; points 0, 1, -1, 2, -2 and infinity
"""

from __future__ import annotations

import numpy as np

from refdiff.kernels.cpu.common import jit, nchw, padded_nhwc, parallel, scratch
from refdiff.kernels.cpu.prepared import prepared
from refdiff.kernels.cpu.product import COLUMNS, DEPTH, ROWS
from refdiff.kernels.cpu.vector import multiply_tile

OUT, SIDE = 4, 6  # outputs and inputs along one side of a tile
POINTS = SIDE * SIDE
BLOCK = 16 * ROWS  # tiles at a time, so that their products stay in the last cache
FEWEST_TILES, FEWEST_CHANNELS = (
    64,
    96,
)  # of a picture; below these there is little to gain, and in a first run five functions to compile
G = np.array([[6, 0, 0], [-4, -4, -4], [-4, 4, -4], [1, 2, 4], [1, -2, 4], [0, 0, 24]]) / 24


def is_faster(shape: tuple[int, ...], weight: tuple[int, ...], stride: int) -> bool:
    """Whether it is worth its transforms, and its weights their memory; the same for a picture alone and in a batch.

    Shapes: [B,C,H,W], [O,C,K,K]
    """
    tiles = -(-shape[2] // OUT) * -(-shape[3] // OUT)
    return weight[2:] == (3, 3) and stride == 1 and tiles >= FEWEST_TILES and min(weight[:2]) >= FEWEST_CHANNELS


def conv3x3(x: np.ndarray, weight: np.ndarray, bias: np.ndarray, *, padding: tuple[int, int, int, int]) -> np.ndarray:
    """Shapes: [B,C,H,W], [O,C,3,3], [O] -> [B,O,H',W']"""
    top, bottom, left, right = padding
    batch, channels = x.shape[:2]
    rows, columns = x.shape[2] + top + bottom - 2, x.shape[3] + left + right - 2
    down, across = -(-rows // OUT), -(-columns // OUT)
    more = (top, bottom + down * OUT - rows, left, right + across * OUT - columns)
    image = padded_nhwc(x, more)
    panels = prepared("winograd", weight, transformed_weight)
    width = panels.shape[1] * COLUMNS
    first, out = np.zeros(width, np.float32), np.empty((batch, rows, columns, weight.shape[0]), np.float32)
    first[: len(bias)] = bias
    count = batch * down * across
    held = -(-min(BLOCK, count) // ROWS) * ROWS
    inputs = scratch("inputs", POINTS * held * channels)
    outputs = scratch("outputs", POINTS * held * width)
    for begin in range(0, count, BLOCK):
        many = min(BLOCK, count - begin)
        places = np.minimum(np.arange(-(-many // ROWS) * ROWS), many - 1) * channels
        size = many * POINTS * channels
        parallel(_transform_inputs, many, size, begin, many, image, across, down, inputs)
        parallel(_multiply, POINTS, size * width, places, many, panels, inputs, first, outputs)
        parallel(_transform_outputs, many, size, begin, many, len(places), outputs, first, across, down, out)
    return nchw(out)


def transformed_weight(weight: np.ndarray) -> np.ndarray:
    """G g G^T in panels of columns, zeros beyond the last.  Shapes: [O,C,3,3] -> [36,panels,C,columns]"""
    many, channels = weight.shape[:2]
    panels = -(-many // COLUMNS)
    out = np.zeros((POINTS, panels, channels, COLUMNS), dtype=np.float32)
    parallel(_transform_weights, panels, POINTS * weight.size, weight, G.astype(np.float64), out)
    return out


@jit
def _transform_weights(start, stop, weight, g, out):
    """The panels start..stop; in float64, for they are made once."""
    half, whole = np.empty((SIDE, 3)), np.empty((SIDE, SIDE))
    for panel in range(start, stop):
        for j in range(min(COLUMNS, weight.shape[0] - panel * COLUMNS)):
            for c in range(weight.shape[1]):
                taps = weight[panel * COLUMNS + j, c]
                for a in range(SIDE):
                    for v in range(3):
                        half[a, v] = g[a, 0] * taps[0, v] + g[a, 1] * taps[1, v] + g[a, 2] * taps[2, v]
                for a in range(SIDE):
                    for b in range(SIDE):
                        whole[a, b] = g[b, 0] * half[a, 0] + g[b, 1] * half[a, 1] + g[b, 2] * half[a, 2]
                for a in range(SIDE):
                    for b in range(SIDE):
                        out[a * SIDE + b, panel, c, j] = whole[a, b]


@jit
def _six(d0, d1, d2, d3, d4, d5, e0, e1, e2, e3, e4, e5):
    """B^T d for every channel.  Shapes: [C] each"""
    four, five, two = np.float32(4), np.float32(5), np.float32(2)
    for c in range(len(d0)):
        a0, a1, a2, a3, a4, a5 = d0[c], d1[c], d2[c], d3[c], d4[c], d5[c]
        even, odd = a4 - four * a2, a3 - four * a1
        lift, turn = a4 - a2, two * (a3 - a1)
        e0[c] = four * a0 - five * a2 + a4
        e1[c] = even + odd
        e2[c] = even - odd
        e3[c] = lift + turn
        e4[c] = lift - turn
        e5[c] = four * a1 - five * a3 + a5


@jit
def _transform_inputs(start, stop, begin, many, image, across, down, inputs):
    """inputs[point,tile] = (B^T d B) of the tiles start..stop of a block.  Shapes: [B,H,W,C] -> [36,tiles,C]"""
    channels = image.shape[3]
    half = np.empty((SIDE, SIDE, channels), np.float32)
    out = inputs[: POINTS * many * channels].reshape(POINTS, many, channels)
    for t in range(start, stop):
        row, column = (begin + t) // across, (begin + t) % across
        batch, i, j = row // down, OUT * (row % down), OUT * column
        for v in range(SIDE):
            d, e = image[batch, i : i + SIDE, j + v], half[:, v]
            _six(d[0], d[1], d[2], d[3], d[4], d[5], e[0], e[1], e[2], e[3], e[4], e[5])
        for u in range(SIDE):
            d, at = half[u], SIDE * u
            _six(
                d[0], d[1], d[2], d[3], d[4], d[5],
                out[at, t], out[at + 1, t], out[at + 2, t], out[at + 3, t], out[at + 4, t], out[at + 5, t],
            )  # fmt: skip


@jit
def _products(start, stop, places, many, panels, inputs, zeros, outputs):
    """outputs[point] = inputs[point] weights[point] for the points start..stop."""
    count, channels = panels.shape[1:3]
    width, rows = count * COLUMNS, len(places)
    a_at, rows_at, b_at, zeros_at, out_at = (
        inputs.ctypes.data, places.ctypes.data, panels.ctypes.data, zeros.ctypes.data, outputs.ctypes.data,
    )  # fmt: skip
    for point in range(start, stop):
        for k in range(0, channels, DEPTH):
            deep = min(DEPTH, channels - k)
            for p in range(count):
                left = a_at + 4 * (point * many * channels + k)
                right = b_at + 4 * ((point * count + p) * channels + k) * COLUMNS
                for m in range(0, rows, ROWS):
                    to = out_at + 4 * ((point * rows + m) * width + p * COLUMNS)
                    base, step = (zeros_at, 0) if k == 0 else (to, width)
                    multiply_tile(left, rows_at + 8 * m, right, deep, (base, step), (to, width))


def _multiply(start: int, stop: int, places: np.ndarray, many: int, panels: np.ndarray, *rest: np.ndarray) -> None:
    inputs, first, outputs = rest
    _products(start, stop, places, many, panels, inputs, np.zeros_like(first[:COLUMNS]), outputs)


@jit
def _four(d0, d1, d2, d3, d4, d5, bias, e0, e1, e2, e3):
    """bias + A^T d for every channel.  Shapes: [O] each"""
    two, four, eight = np.float32(2), np.float32(4), np.float32(8)
    for c in range(len(e0)):
        plus, minus = d1[c] + d2[c], d1[c] - d2[c]
        far, turn = d3[c] + d4[c], d3[c] - d4[c]
        e0[c] = d0[c] + plus + far + bias[c]
        e1[c] = minus + two * turn + bias[c]
        e2[c] = plus + four * far + bias[c]
        e3[c] = minus + eight * turn + d5[c] + bias[c]


@jit
def _transform_outputs(start, stop, begin, many, rows, outputs, bias, across, down, out):
    """out = A^T m A + bias for the tiles start..stop of a block.  Shapes: [36,rows,width] -> [B,H,W,O]"""
    width, count = len(bias), out.shape[3]
    half, none = np.empty((OUT, SIDE, count), np.float32), np.zeros(count, np.float32)
    rest = np.empty(count, np.float32)
    products = outputs[: POINTS * rows * width].reshape(POINTS, rows, width)
    for t in range(start, stop):
        row, column = (begin + t) // across, (begin + t) % across
        batch, i, j = row // down, OUT * (row % down), OUT * column
        for v in range(SIDE):
            m, e = products[v::SIDE, t], half[:, v]
            _four(m[0], m[1], m[2], m[3], m[4], m[5], none, e[0], e[1], e[2], e[3])
        for u in range(min(OUT, out.shape[1] - i)):
            m, line = half[u], out[batch, i + u]
            wide = out.shape[2] - j
            _four(
                m[0], m[1], m[2], m[3], m[4], m[5], bias, line[j], line[j + 1] if wide > 1 else rest,
                line[j + 2] if wide > 2 else rest, line[j + 3] if wide > 3 else rest,
            )  # fmt: skip
