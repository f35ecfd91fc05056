"""Winograd's three transforms, of inputs, weights and outputs, a vector of channels at a time.

Math: for each tile of 4x4 outputs, Y = A^T [(G g G^T) * (B^T d B)] A, where d are the 6x6 inputs that it sees.
Source: Lavin, Gray 2015 (arXiv 1509.09308), section 4.3; points 0, 1, -1, 2, -2 and infinity
"""

from __future__ import annotations

import numpy as np

from refdiff.kernels.cpu.common import jit, part
from refdiff.kernels.cpu.product import gather_columns
from refdiff.kernels.cpu.vector import TILE, bytes_of, combination

OUT, SIDE = 4, 6  # outputs and inputs along one side of a tile, and points
# Of a picture that is first doubled, a tile sees half as many pixels, each twice: one point is then 0 for every picture.
SIDE_DOUBLED, SEEN_DOUBLED = 5, 4
COLUMNS, LANES = TILE.columns, TILE.lanes
VECTOR = 4 * LANES  # bytes
# Each transform in two steps, the sums that its rows share and then the rows.
B = (
    (
        (4, 0, -5, 0, 1, 0),
        (0, 0, -4, 0, 1, 0),
        (0, -4, 0, 1, 0, 0),
        (0, 0, -1, 0, 1, 0),
        (0, -2, 0, 2, 0, 0),
        (0, 4, 0, -5, 0, 1),
    ),
    ((1, 0, 0, 0, 0, 0), (0, 1, 1, 0, 0, 0), (0, 1, -1, 0, 0, 0), (0, 0, 0, 1, 1, 0), (0, 0, 0, 1, -1, 0), (0, 0, 0, 0, 0, 1)),
)
G = (
    ((1 / 4, 0, 0), (-1 / 6, 0, -1 / 6), (0, -1 / 6, 0), (1 / 24, 0, 1 / 6), (0, 1 / 12, 0), (0, 0, 1)),
    ((1, 0, 0, 0, 0, 0), (0, 1, 1, 0, 0, 0), (0, 1, -1, 0, 0, 0), (0, 0, 0, 1, 1, 0), (0, 0, 0, 1, -1, 0), (0, 0, 0, 0, 0, 1)),
)
A = (
    ((1, 0, 0, 0, 0, 0), (0, 1, 1, 0, 0, 0), (0, 1, -1, 0, 0, 0), (0, 0, 0, 1, 1, 0), (0, 0, 0, 1, -1, 0), (0, 0, 0, 0, 0, 1)),
    ((1, 1, 0, 1, 0, 0), (0, 0, 1, 0, 2, 0), (0, 1, 0, 4, 0, 0), (0, 0, 1, 0, 8, 1)),
)
# The bias as one more number for all: its own row first, then a part of every row.
WITH_BIAS = (tuple((*row, 0) for row in A[0]) + ((0,) * SIDE + (1,),), tuple((*row, 1) for row in A[1]))
_in, _of_weight, _out, _out_with_bias = combination(*B), combination(*G), combination(*A), combination(*WITH_BIAS)

_LEFT = (0, 1, 3, 4, 5)  # the points that are not 0
_TWICE = np.eye(SEEN_DOUBLED)[[0, 1, 1, 2, 2, 3]]  # which pixel each of a tile's inputs is
_B_DOUBLED = (np.array(B[1]) @ np.array(B[0]) @ _TWICE)[list(_LEFT)]
_G_DOUBLED = (np.array(G[1]) @ np.array(G[0]))[list(_LEFT)]
_A_DOUBLED = (np.array(A[1]) @ np.array(A[0]))[:, list(_LEFT)]
_in_doubled, _of_weight_doubled, _out_doubled = combination(_B_DOUBLED), combination(_G_DOUBLED), combination(_A_DOUBLED)
_out_doubled_with_bias = combination(np.hstack([_A_DOUBLED, np.ones((OUT, 1))]))


@jit
def _transform_inputs(start, stop, first, image, place, patch, inputs):
    """inputs[point,tile - first] = B^T d B for the tiles start..stop, numbered through the batch.

    `place` is (top, left, down, across, side, step, wide, rows): the padding, the tiles of a picture, the points along a side,
    the floats from point to point, the channels of a slice and its tiles, which lie together in memory; `patch` holds the inputs
    of a tile that goes beyond the picture.
    Shapes: [B,H,W,C], [6,6,C to whole vectors] -> [points,slices,tiles,C of a slice]
    """
    top, left, down, across, side, step, wide, rows = place
    seen, stride = (SEEN_DOUBLED, OUT // 2) if side == SIDE_DOUBLED else (SIDE, OUT)
    _, height, width, channels = image.shape
    deep = patch.shape[2]
    half = np.empty((SIDE, SIDE, LANES), np.float32)
    for t in range(start, stop):
        row, i, j = t // across, stride * (t // across % down) - top, stride * (t % across) - left
        where = row // down, i, j
        to = inputs.ctypes.data + 4 * (t - first) * wide
        if deep == channels and 0 <= i <= height - seen and 0 <= j <= width - seen:
            source, line = image.ctypes.data + 4 * (((row // down) * height + i) * width + j) * channels, width * channels
        else:
            _fill(image, where, patch)
            source, line = patch.ctypes.data, SIDE * deep
        for k in range(0, deep, wide):
            _tile_in(source + 4 * k, (line, deep), min(wide, deep - k), half, to + 4 * k * rows, step, side)


@part
def _fill(image, where, patch):
    """The inputs of a tile, 0 beyond the picture and beyond its channels."""
    batch, first, left = where
    height, width, channels = image.shape[1:]
    patch[:] = 0
    for i in range(max(-first, 0), min(SIDE, height - first)):
        for j in range(max(-left, 0), min(SIDE, width - left)):
            for c in range(channels):
                patch[i, j, c] = image[batch, first + i, left + j, c]


@part
def _tile_in(source, steps, deep, half, target, step, side):
    """B^T d B of one tile: source and target are addresses, `steps` the floats from row to row and from pixel to pixel."""
    line, pixel = steps
    half_at = half.ctypes.data
    for c in range(0, 4 * deep, VECTOR):
        if side == SIDE_DOUBLED:
            for v in range(SEEN_DOUBLED):
                _in_doubled(source + 4 * v * pixel + c, line, half_at + v * SIDE * VECTOR, LANES)
            for u in range(SIDE_DOUBLED):
                _in_doubled(half_at + u * VECTOR, SIDE * LANES, target + 4 * u * SIDE_DOUBLED * step + c, step)
        else:
            for v in range(SIDE):
                _in(source + 4 * v * pixel + c, line, half_at + v * SIDE * VECTOR, LANES)
            for u in range(SIDE):
                _in(half_at + u * VECTOR, SIDE * LANES, target + 4 * u * SIDE * step + c, step)


@jit
def _transform_weights(weight, size, panel, first, deep, taps, out, step):
    """out[point,c] = G g G^T for a panel of columns and the channels first..first+deep; the columns beyond the last are 0.

    Shapes: [O,C,3,3] at an address and of a kind, `weight`, and its `size` (O, C, points along a side) -> [points,deep,columns],
    `step` floats from point to point; `taps` holds [LANES,9,columns] in between
    """
    width, column = 9 * size[1], panel * COLUMNS
    flat, kind = weight
    half = np.empty((SIDE, 3, LANES), np.float32)
    for c in range(0, deep, LANES):
        many = min(LANES, deep - c)
        start = flat + bytes_of(kind) * (column * width + 9 * (first + c))
        gather_columns(start, width, size[0] - column, 9 * many, np.int64(taps.ctypes.data), kind)
        _weights_in(taps, many, half, out[c * COLUMNS :], step, size[2])


@part
def _weights_in(taps, many, half, out, step, side):
    """G g G^T of a few channels."""
    taps_at, half_at, out_at = taps.ctypes.data, half.ctypes.data, out.ctypes.data
    for c in range(many):
        for lane in range(0, 4 * COLUMNS, VECTOR):
            at, to = taps_at + 4 * 9 * c * COLUMNS + lane, out_at + 4 * c * COLUMNS + lane
            if side == SIDE_DOUBLED:
                for v in range(3):
                    _of_weight_doubled(at + 4 * v * COLUMNS, 3 * COLUMNS, half_at + v * VECTOR, 3 * LANES)
                for u in range(SIDE_DOUBLED):
                    _of_weight_doubled(half_at + 3 * u * VECTOR, LANES, to + 4 * u * SIDE_DOUBLED * step, step)
            else:
                for v in range(3):
                    _of_weight(at + 4 * v * COLUMNS, 3 * COLUMNS, half_at + v * VECTOR, 3 * LANES)
                for u in range(SIDE):
                    _of_weight(half_at + 3 * u * VECTOR, LANES, to + 4 * u * SIDE * step, step)


@jit
def _transform_outputs(start, stop, first, outputs, place, bias, tile, out):
    """out = A^T m A + bias for the tiles start..stop, numbered through the batch.

    `place` is (down, across, side, column, width, step): the tiles of a picture, the points along a side, the columns, and the
    floats from point to point; `tile` holds one tile's outputs.
    Shapes: [points,tiles,width], [width], [4,4,width] -> [B,H,W,O]
    """
    down, across, side, column, width, step = place
    half = np.empty((OUT, SIDE + 1, LANES), np.float32)
    wide = min(width, out.shape[3] - column)
    for t in range(start, stop):
        row, i, j = t // across, OUT * (t // across % down), OUT * (t % across)
        source = outputs.ctypes.data + 4 * (t - first) * width
        _tile_out(source, step, bias, half, tile, side)
        for u in range(min(OUT, out.shape[1] - i)):
            for v in range(min(OUT, out.shape[2] - j)):
                to = out[row // down, i + u, j + v]
                for c in range(wide):
                    to[column + c] = tile[u, v, c]


@part
def _tile_out(source, step, bias, half, tile, side):
    """A^T m A + bias of one tile."""
    half_at, tile_at, width = half.ctypes.data, tile.ctypes.data, tile.shape[2]
    for c in range(0, width, LANES):
        for u in range(OUT):
            for lane in range(LANES):
                half[u, side, lane] = bias[c + lane]
        if side == SIDE_DOUBLED:
            for v in range(SIDE_DOUBLED):
                _out_doubled(source + 4 * (v * step + c), side * step, half_at + v * VECTOR, (SIDE + 1) * LANES)
            for u in range(OUT):
                to = tile_at + 4 * (u * OUT * width + c)
                _out_doubled_with_bias(half_at + u * (SIDE + 1) * VECTOR, LANES, to, width)
        else:
            for v in range(SIDE):
                _out(source + 4 * (v * step + c), side * step, half_at + v * VECTOR, (SIDE + 1) * LANES)
            for u in range(OUT):
                _out_with_bias(half_at + u * (SIDE + 1) * VECTOR, LANES, tile_at + 4 * (u * OUT * width + c), width)
