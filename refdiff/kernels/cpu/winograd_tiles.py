"""Winograd's three transforms, of inputs, weights and outputs, a vector of channels at a time.

Math: for each tile of 4x4 outputs, Y = A^T [(G g G^T) * (B^T d B)] A, where d are the 6x6 inputs that it sees.
Source: Lavin, Gray 2015 (arXiv 1509.09308), section 4.3, for the form; the points are 0, 2/3, -2/3, 3/2, -3/2 and infinity, whose
    error is 0.44 of that of 0, 1, -1, 2, -2 and infinity (measured; Barabasz et al. 2018, arXiv 1803.10986, on why points matter)
"""

from __future__ import annotations

import numpy as np

from refdiff.kernels.cpu.common import jit, part
from refdiff.kernels.cpu.halves import FLOAT32
from refdiff.kernels.cpu.inner import row_ends, row_scale, spares
from refdiff.kernels.cpu.panels import ROWS, gather_columns
from refdiff.kernels.cpu.sums import biased_combination, combination, paired_combination
from refdiff.kernels.cpu.vector import TILE, bytes_of

OUT, SIDE = 4, 6  # outputs and inputs along one side of a tile, and points
# Of a picture that is first doubled, a tile sees half as many pixels, each twice: one point is then 0 for every picture.
SIDE_DOUBLED, SEEN_DOUBLED = 5, 4
COLUMNS, LANES = TILE.columns, TILE.lanes
VECTOR = 4 * LANES  # bytes
TOGETHER = max(LANES, 2)  # channels whose weights are gathered at a time
ROW_ENDS = -(-SIDE * SIDE // ROWS) * ROWS + max(LANES - ROWS, 0)  # floats of a tile's row ends, whole vectors of them
TAPS = 9 * TOGETHER * COLUMNS  # floats of them
# Each transform in two steps: what a point and its negative share, even and odd, and then their sums and differences. The rows of
# A and B are multiplied so that all their numbers are exact in float32, and near 1; G has what undoes it, and is rounded. Row p
# of G is c (1, p, p^2), 1/c the product of p's distances from the other points times what rows p of A and B were multiplied by.
SHARED = (
    (1, 0, 0, 0, 0, 0),
    (0, 1, 1, 0, 0, 0),
    (0, 1, -1, 0, 0, 0),
    (0, 0, 0, 1, 1, 0),
    (0, 0, 0, 1, -1, 0),
    (0, 0, 0, 0, 0, 1),
)
B = (
    (  # times 9/8, 3/4, 3/4, 9/8, 9/8 and 9/8
        (9 / 8, 0, -97 / 32, 0, 9 / 8, 0),
        (0, 0, -27 / 16, 0, 3 / 4, 0),
        (0, -9 / 8, 0, 1 / 2, 0, 0),
        (0, 0, -1 / 2, 0, 9 / 8, 0),
        (0, -3 / 4, 0, 27 / 16, 0, 0),
        (0, 9 / 8, 0, -97 / 32, 0, 9 / 8),
    ),
    SHARED,
)
ENDS, NEAR, FAR = 8 / 9, -32 / 65, 128 / 585  # c of 0 and infinity, of 2/3 and -2/3, of 3/2 and -3/2
G = (
    ((ENDS, 0, 0), (NEAR, 0, NEAR * 4 / 9), (0, NEAR * 2 / 3, 0), (FAR, 0, FAR * 9 / 4), (0, FAR * 3 / 2, 0), (0, 0, ENDS)),
    SHARED,
)
A = (  # times 1, 27/16, 27/16, 1/2, 1/2 and 1
    SHARED,
    ((1, 27 / 16, 0, 1 / 2, 0, 0), (0, 0, 9 / 8, 0, 3 / 4, 0), (0, 3 / 4, 0, 9 / 8, 0, 0), (0, 0, 1 / 2, 0, 27 / 16, 1)),
)
_in, _of_weight, _out = combination(*B, scaled="number"), combination(*G, scaled="vector"), biased_combination(*A)
_of_weights = paired_combination(*G)

# Of a doubled picture the point -1 is 0 if its negative is a point too: 0, 1, (-1), 7/4, -7/4 and infinity; of others beside
# them 7/4 has the least error (measured). The rows of A and B are those of the points, of B times 1/4, 1/4, 1/4, 1/2 and 1/2.
_TWICE = np.eye(SEEN_DOUBLED)[[0, 1, 1, 2, 2, 3]]  # which pixel each of a tile's inputs is
B_DOUBLED = np.array(
    [
        (49 / 64, 0, -65 / 64, 0, 1 / 4, 0),
        (0, -49 / 64, -49 / 64, 1 / 4, 1 / 4, 0),
        (0, -7 / 16, -1 / 4, 7 / 16, 1 / 4, 0),
        (0, 7 / 8, -1 / 2, -7 / 8, 1 / 2, 0),
        (0, 49 / 32, 0, -65 / 32, 0, 1 / 2),
    ]
)
ONE, FIRST, SECOND = -32 / 33, 512 / 1617, 256 / 1617  # c of 1, 7/4 and -7/4
G_DOUBLED = (
    (64 / 49, 0, 0),
    (ONE, ONE, ONE),
    (FIRST, FIRST * 7 / 4, FIRST * 49 / 16),
    (SECOND, -SECOND * 7 / 4, SECOND * 49 / 16),
    (0, 0, 2),
)
A_DOUBLED = ((1, 1, 1, 1, 0), (0, 1, 7 / 4, -7 / 4, 0), (0, 1, 49 / 16, 49 / 16, 0), (0, 1, 343 / 64, -343 / 64, 1))
_in_doubled = combination(B_DOUBLED @ _TWICE, scaled="number")
_of_weight_doubled = combination(G_DOUBLED, scaled="vector")
_out_doubled = biased_combination(A_DOUBLED)


@jit
def _transform_inputs(start, stop, first, image, place, patch, inputs, kind, own):
    """inputs[point,tile - first] = B^T d B for the tiles start..stop, numbered through the batch, as numbers of `kind`.

    `place` is (top, left, down, across, side, step, wide, rows): the padding, the tiles of a picture, the points along a side,
    the numbers from point to point, the channels of a slice and its tiles, which lie together in memory; `patch` holds the inputs
    of a tile that goes beyond the picture; `inputs` is an address. Where products are spared, `own` has the addresses of each
    tile's scale and what undoes it, two floats, and of what row_ends makes of its points, ROW_ENDS floats, for each step of a
    product; the channels of a step, with which a slice ends; and the tiles there is room for.
    Shapes: [B,H,W,C], [6,6,C to whole vectors] -> [points,slices,tiles,C of a slice]
    """
    top, left, down, across, side, step, wide, rows = place
    seen, stride = (SEEN_DOUBLED, OUT // 2) if side == SIDE_DOUBLED else (SIDE, OUT)
    _, height, width, channels = image.shape
    deep = patch.shape[2]
    for t in range(start, stop):
        row, i, j = t // across, stride * (t // across % down) - top, stride * (t % across) - left
        where = row // down, i, j
        to = inputs + bytes_of(kind) * (t - first) * wide
        if deep == channels and 0 <= i <= height - seen and 0 <= j <= width - seen:
            source, line = image.ctypes.data + 4 * (((row // down) * height + i) * width + j) * channels, width * channels
        else:
            _fill(image, where, patch)
            source, line = patch.ctypes.data, SIDE * deep
        scale = own[0] + 8 * (t - first)
        if spares(kind):
            at, far = np.int64(source), 4 * line
            lines = at, at + far, at + 2 * far, at + 3 * far
            if side == SIDE_DOUBLED:
                row_scale(lines, SEEN_DOUBLED * deep, scale, FLOAT32)
            else:
                row_scale((*lines, at + 4 * far, at + 5 * far), SIDE * deep, scale, FLOAT32)
        for k in range(0, deep, wide):
            many, into = min(wide, deep - k), to + bytes_of(kind) * k * rows
            _tile_in(source + 4 * k, (line, deep), many, into, step, side, kind, scale)
            if spares(kind):
                for c in range(0, many, own[2]):
                    for point in range(0, side * side, ROWS):
                        ends = own[1] + 4 * (((k + c) // own[2] * own[3] + t - first) * ROW_ENDS + point)
                        row_ends(into + 4 * (point * step + c), step, min(own[2], channels - k - c), ends)


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
def _tile_in(source, steps, deep, target, step, side, kind, scale):
    """B^T d B of one tile: source and target are addresses, `steps` the floats from row to row and from pixel to pixel."""
    for c in range(0, deep, LANES):
        at, to = source + 4 * c, target + bytes_of(kind) * c
        if side == SIDE_DOUBLED:
            _in_doubled(at, steps, to, (SIDE_DOUBLED * step, step), kind, scale)
        else:
            _in(at, steps, to, (SIDE * step, step), kind, scale)


@jit
def _transform_weights(weight, size, panel, first, deep, taps, out, step, kind, scales):
    """out[point,c] = G g G^T for a panel of columns and the channels first..first+deep; the columns beyond the last are 0.

    As `kind` says, numbers are float32, or pairs of bfloat16 of two channels that follow one another, for pictures not doubled.
    Shapes: [O,C,3,3] at an address and of a kind, `weight`, and its `size` (O, C, points along a side) -> [points,deep,columns],
    `step` words of four bytes from point to point; `taps` has room for TAPS floats in between; addresses
    """
    width, column = 9 * size[1], panel * COLUMNS
    flat, stored = weight
    for c in range(0, deep, TOGETHER):
        many = min(TOGETHER, deep - c)
        start = flat + bytes_of(stored) * (column * width + 9 * (first + c))
        gather_columns(start, width, size[0] - column, 9 * many, np.int64(taps), stored)
        to = out + bytes_of(kind) * c * COLUMNS
        words = 4 // bytes_of(kind)
        for i in range(0, many, words):
            _weights_in(taps + 4 * 9 * i * COLUMNS, to + 4 * (i // words) * COLUMNS, step, size[2], kind, scales + 4 * column)


@part
def _weights_in(taps, out, step, side, kind, scales):
    """G g G^T of one channel, or the pairs of two, and a panel of columns; addresses."""
    for lane in range(0, 4 * COLUMNS, VECTOR):
        at, to = taps + lane, out + lane
        if bytes_of(kind) == 2:
            _of_weights(at, at + 4 * 9 * COLUMNS, (3 * COLUMNS, COLUMNS), to, (SIDE * step, step))
        elif side == SIDE_DOUBLED:
            _of_weight_doubled(at, (3 * COLUMNS, COLUMNS), to, (SIDE_DOUBLED * step, step), kind, scales + lane)
        else:
            _of_weight(at, (3 * COLUMNS, COLUMNS), to, (SIDE * step, step), kind, scales + lane)


@jit
def _transform_outputs(start, stop, first, outputs, place, bias, tile, out, scales):
    """out = A^T m A + bias for the tiles start..stop, numbered through the batch.

    `place` is (down, across, side, column, width, step): the tiles of a picture, the points along a side, the columns, and the
    floats from point to point; `tile` holds the outputs of a tile that goes beyond the picture or beyond its channels.
    Shapes: [points,tiles,width], [width], [4,4,width] -> [B,H,W,O]
    """
    down, across, side, column, width, step = place
    height, breadth, channels = out.shape[1:]
    wide = min(width, channels - column)
    bias_at, tile_at = bias.ctypes.data, tile.ctypes.data
    for t in range(start, stop):
        row, i, j = t // across, OUT * (t // across % down), OUT * (t % across)
        source, scale = outputs.ctypes.data + 4 * (t - first) * width, (scales[0] + 8 * (t - first) + 4, scales[1] + 4 * column)
        if wide == width and i + OUT <= height and j + OUT <= breadth:
            to = out.ctypes.data + 4 * ((((row // down) * height + i) * breadth + j) * channels + column)
            _tile_out(source, step, bias_at, width, to, (breadth * channels, channels), side, scale)
        else:
            _tile_out(source, step, bias_at, width, tile_at, (OUT * width, width), side, scale)
            for u in range(min(OUT, height - i)):
                for v in range(min(OUT, breadth - j)):
                    to_pixel = out[row // down, i + u, j + v]
                    for c in range(wide):
                        to_pixel[column + c] = tile[u, v, c]


@part
def _tile_out(source, step, bias, width, target, steps, side, scale):
    """A^T m A + bias of one tile; addresses, and the floats of the target from row to row and from pixel to pixel."""
    for c in range(0, 4 * width, VECTOR):
        if side == SIDE_DOUBLED:
            _out_doubled(source + c, (SIDE_DOUBLED * step, step), target + c, steps, bias + c, (scale[0], scale[1] + c))
        else:
            _out(source + c, (SIDE * step, step), target + c, steps, bias + c, (scale[0], scale[1] + c))
