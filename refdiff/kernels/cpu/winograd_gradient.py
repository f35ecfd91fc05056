"""The gradient of a 3x3 convolution's weight with a quarter of the products: Winograd's transforms the other way round.

Math: Y = A^T [(G w G^T) * (B^T d B)] A is linear in w, so that with a tile's gradient g
    dw = G^T [sum over tiles of (A g A^T) * (B^T d B)] G
Source: Lavin, Gray 2015 (arXiv 1509.09308), section 4.3
"""

from __future__ import annotations

import numpy as np

from refdiff.kernels.cpu.common import PER_NUMBER, address, jit, nhwc, parallel, scratch
from refdiff.kernels.cpu.gradient import _sum_over_rows
from refdiff.kernels.cpu.halves import FLOAT32
from refdiff.kernels.cpu.panels import COLUMNS, ROWS
from refdiff.kernels.cpu.product import DEPTH
from refdiff.kernels.cpu.sums import combination
from refdiff.kernels.cpu.winograd_tiles import LANES, OUT, SIDE, VECTOR, A, G, _transform_inputs

POINTS = SIDE * SIDE
BLOCK = 4 * DEPTH  # tiles at a time
SPARE = 16  # floats between points, so that they do not all fall into the same lines of a cache
_spread, _gathered = (combination(*(tuple(zip(*matrix, strict=True)) for matrix in pair[::-1])) for pair in (A, G))


def conv3x3_weight(g: np.ndarray, x: np.ndarray, *, padding: tuple[int, int, int, int]) -> np.ndarray:
    """Every number is summed over the tiles in their order, a block after the other, whatever the number of threads.

    Shapes: [B,O,H',W'], [B,C,H,W] -> [O,C,3,3]
    """
    gradient, image = nhwc(g), nhwc(x)
    many, channels = gradient.shape[3], image.shape[3]
    down, across = -(-gradient.shape[1] // OUT), -(-gradient.shape[2] // OUT)
    count, deep, wide = len(image) * down * across, -(-channels // COLUMNS) * COLUMNS, -(-many // LANES) * LANES
    block = min(BLOCK, count)
    steps = block * wide + SPARE, block * deep + SPARE
    outputs, inputs = scratch("outputs", POINTS * steps[0]), scratch("inputs", POINTS * steps[1])
    sums = np.zeros((POINTS, -(-many // ROWS) * ROWS, deep), np.float32)
    for first in range(0, count, block):
        tiles = min(block, count - first)
        work = POINTS * tiles * (wide + deep)
        place, widths, both = (*padding[::2], down, across), (wide, deep), (outputs, inputs)
        parallel(_transform, tiles, work, first, (gradient, image), place, widths, steps, both)
        parallel(_multiply, POINTS, work * many // PER_NUMBER, tiles, widths, steps, both, sums)
    taps = np.empty((many, 3, 3, deep), np.float32)
    parallel(_gather, many, sums.size, sums, taps)
    return np.ascontiguousarray(taps[..., :channels].transpose(0, 3, 1, 2))


def _transform(start: int, stop: int, first: int, pictures: tuple, place: tuple, *rest: tuple) -> None:
    """The tiles first + start..stop of both pictures."""
    (wide, deep), steps, (outputs, inputs) = rest
    patch, tile = np.empty((SIDE, SIDE, deep), np.float32), np.empty((OUT, OUT, wide), np.float32)
    _transform_gradients(first + start, first + stop, first, pictures[0], (*place[2:], steps[0]), tile, outputs)
    _transform_inputs(
        first + start,
        first + stop,
        first,
        pictures[1],
        (*place, SIDE, steps[1], deep, 0),
        patch,
        address(inputs),
        FLOAT32,
        (0, 0, 0, 0),
    )


@jit
def _transform_gradients(start, stop, first, gradient, place, tile, out):
    """out[point,tile - first] = A g A^T for the tiles start..stop, numbered through the batch; g is 0 beyond the picture.

    Shapes: [B,H,W,O], [4,4,O to whole vectors] -> [36,tiles,O to whole vectors], the last of `place` floats from point to point
    """
    down, across, step = place
    height, width, many = gradient.shape[1:]
    wide = tile.shape[2]
    tile_at = tile.ctypes.data
    tile[:] = 0
    for t in range(start, stop):
        row, i, j = t // across, OUT * (t // across % down), OUT * (t % across)
        source, line = gradient.ctypes.data + 4 * (((row // down) * height + i) * width + j) * many, width * many
        if wide != many or i + OUT > height or j + OUT > width:
            source, line = tile_at, OUT * wide
            for u in range(OUT):
                for v in range(OUT):
                    inside = i + u < height and j + v < width
                    for c in range(many):
                        tile[u, v, c] = gradient[row // down, i + u, j + v, c] if inside else 0
        to = out.ctypes.data + 4 * (t - first) * wide
        for c in range(0, 4 * wide, VECTOR):
            _spread(source + c, (line, wide), to + c, (SIDE * step, step), FLOAT32, 0)


def _multiply(start: int, stop: int, tiles: int, widths: tuple, steps: tuple, both: tuple, sums: np.ndarray) -> None:
    """The points start..stop of the products of a block."""
    wide, deep = widths
    turned, packed = scratch("turned", DEPTH * wide), scratch("packed", DEPTH * COLUMNS)
    lines = np.minimum(np.arange(sums.shape[1]), wide - 1) * DEPTH
    places = np.arange(tiles) * deep, np.arange(deep)
    args = (start, stop, both, steps, (tiles, wide), places, lines, sums, turned, packed)
    _products(*args)


@jit
def _products(start, stop, both, steps, shape, places, lines, sums, turned, packed):
    """sums[point] += outputs[point]^T inputs[point] for the points start..stop."""
    for point in range(start, stop):
        g = both[0][point * steps[0] : point * steps[0] + shape[0] * shape[1]].reshape(shape)
        x, into = both[1][point * steps[1] :], sums[point]
        _sum_over_rows(0, into.shape[1] // COLUMNS, g, x, places[0], places[1], lines, into, turned, packed)


@jit
def _gather(start, stop, sums, taps):
    """taps[o] = G^T M G for the outputs start..stop.  Shapes: [36,O to whole tiles,C] -> [O,3,3,C]"""
    count, deep = sums.shape[1:]
    sums_at, taps_at = sums.ctypes.data, taps.ctypes.data
    for o in range(start, stop):
        for c in range(0, 4 * deep, VECTOR):
            steps = SIDE * count * deep, count * deep
            _gathered(sums_at + 4 * o * deep + c, steps, taps_at + 4 * o * 9 * deep + c, (3 * deep, deep), FLOAT32, 0)
