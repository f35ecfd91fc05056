"""3x3 convolution with a quarter of the products: Winograd's F(4x4,3x3), whose transforms stand in winograd_tiles.py.

Between the transforms each of 36 numbers is a matrix product over channels. Large pictures are cut into blocks of tiles, and take
the weights' transforms as they were kept; small ones are cut into panels of outputs, each of which transforms its own weights:
to read them from memory, four times as many, would take longer.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from refdiff.kernels.cpu import common
from refdiff.kernels.cpu.common import PER_NUMBER, address, jit, nchw, nhwc, on_threads, parallel, parts_of, scratch
from refdiff.kernels.cpu.halves import FLOAT32, PAIR, SPARED, readable, source
from refdiff.kernels.cpu.inner import READ_ON, SPARES, column_ends, multiply, row_scale, spares
from refdiff.kernels.cpu.panels import COLUMNS, ROWS, fetch_rows, fetch_span
from refdiff.kernels.cpu.prepared import prepared, room
from refdiff.kernels.cpu.product import DEPTH
from refdiff.kernels.cpu.results import result
from refdiff.kernels.cpu.turns import counters, each
from refdiff.kernels.cpu.vector import bytes_of
from refdiff.kernels.cpu.winograd_tiles import (
    LANES,
    OUT,
    ROW_ENDS,
    SIDE,
    SIDE_DOUBLED,
    TAPS,
    _transform_inputs,
    _transform_outputs,
    _transform_weights,
)

# Tiles at a time. Where all transformed weights stay in a cache, so few that their inputs and products stay there too; else more,
# since every block reads the weights from memory.
BLOCK, LARGE_BLOCK, STAYS = 6 * ROWS, 22 * ROWS, 1 << 23
# The mean of a spared weight's numbers, so that transforms of weights and inputs have about one size.
SIZES = {SIDE: np.float32(2), SIDE_DOUBLED: np.float32(1 / 4)}
SLICE, GROUP = 128, 2  # channels and panels of weights at a time, so that their transforms stay in the second cache
SPARE = 16  # floats between points, so that they do not all fall into the same lines of a cache
LARGE = 128  # tiles of a picture
FEWEST_CHANNELS = 32  # of the inputs, below which there is nothing to gain
# The least side, side times the inputs' channels, and outputs. A picture of few tiles gains less than the weights' transforms
# take, a small one little, and it would wait until the transforms are compiled; but gradients are of many pictures at a time.
LEAST, LEAST_GRADIENT = (2 * OUT, 4096, 1), (OUT, 0, FEWEST_CHANNELS)


def is_faster(shape: tuple[int, ...], weight: tuple[int, ...], stride: int, least: tuple[int, int, int]) -> bool:
    """Whether it is worth its transforms; the same for a picture alone and in a batch.

    Shapes: [B,C,H,W], [O,C,K,K]
    """
    side, (outputs, channels) = min(shape[2:]), weight[:2]
    large = side >= least[0] and channels >= FEWEST_CHANNELS and side * channels >= least[1]
    return large and outputs >= least[2] and weight[2:] == (3, 3) and stride == 1


def conv3x3(
    x: np.ndarray, weight: np.ndarray, bias: np.ndarray, *, padding: tuple[int, int, int, int], pairs: bool = False
) -> np.ndarray:
    """With `pairs` both transforms are rounded to bfloat16; the channels must then be even.

    Shapes: [B,C,H,W], [O,C,3,3], [O] -> [B,O,H',W']
    """
    top, bottom, left, right = padding
    size = x.shape[2] + top + bottom - 2, x.shape[3] + left + right - 2
    kind = PAIR if pairs else SPARED if SPARES else FLOAT32
    return _convolved(nhwc(x), weight, bias, (top, left), size, SIDE, kind)


def doubled_conv3x3(x: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """The convolution, with one pixel of padding, of the picture with every pixel doubled, which is never made.

    Always of float32, which takes no longer than the usual form of bfloat16: in this form its error would be two to three times
    as large, most of it in the last row and column of each tile, which would be seen as a pattern.
    Shapes: [B,C,H,W], [O,C,3,3], [O] -> [B,O,2H,2W]
    """
    kind = SPARED if SPARES else FLOAT32
    return _convolved(nhwc(x), weight, bias, (1, 1), (2 * x.shape[2], 2 * x.shape[3]), SIDE_DOUBLED, kind)


def _convolved(
    image: np.ndarray, weight: np.ndarray, bias: np.ndarray, padding: tuple, size: tuple, side: int, kind: Any
) -> np.ndarray:
    down, across = -(-size[0] // OUT), -(-size[1] // OUT)
    first = np.zeros(_whole(len(bias), COLUMNS), np.float32)
    first[: len(bias)] = bias
    out = result(len(image), *size, len(weight))
    run = _by_tiles if down * across >= LARGE else _by_panels
    run(image, np.ascontiguousarray(weight), first, (*padding, down, across, side), kind, out)
    return nchw(out)


def _by_tiles(image: np.ndarray, weight: np.ndarray, bias: np.ndarray, place: tuple, kind: Any, out: np.ndarray) -> None:
    """Each thread does its own tiles from the first transform to the last, a block at a time."""
    side = place[4]
    scales = column_scales_of(weight, side, kind)
    panels = prepared(f"winograd {side} {kind.dtype}", weight, lambda w: transformed_weight(w, side, kind, scales))
    ends = prepared(f"winograd ends {side} {kind.dtype}", weight, lambda w: _column_ends(panels)) if kind is SPARED else scales
    count = len(image) * place[2] * place[3]
    blocks = _whole(-(-count // (BLOCK if panels.nbytes <= STAYS else LARGE_BLOCK)), common.THREADS)
    work = side * side * count * panels.shape[2] * len(bias) // PER_NUMBER
    parallel(_tiles, blocks, work, blocks, count, image, panels, (scales, ends), bias, place, kind, out)


def _tiles(start: int, stop: int, blocks: int, count: int, *rest: Any) -> None:
    image, panels, (column_scales, panel_ends), bias, place, kind, out = rest
    stripes = -(-count // ROWS)
    block = -(-stripes // blocks) * ROWS
    deep, width, points = _whole(image.shape[3], LANES), len(bias), place[4] ** 2
    chunks = -(-panels.shape[2] // DEPTH)
    inputs, outputs = (
        scratch("inputs", _whole(points, ROWS) * (block * deep + SPARE) + READ_ON),
        scratch("outputs", points * (block * width + SPARE)),
    )
    scales, ends = scratch("scales", 2 * block), scratch("row ends", chunks * block * ROW_ENDS)
    scales[:] = 1
    own = address(scales), address(ends), DEPTH, block
    patch, tile, zeros = (np.zeros(shape, np.float32) for shape in ((SIDE, SIDE, deep), (OUT, OUT, width), COLUMNS))
    steps = (block * deep + SPARE, panels[0].size, panels[0, 0].size, block * width + SPARE)
    for i in range(start, stop):
        first, last = (stripes * edge // blocks * ROWS for edge in (i, i + 1))
        many = min(last, count) - first
        if many <= 0:  # more threads than stripes
            continue
        places = np.minimum(np.arange(_whole(many, ROWS)), many - 1) * deep
        _transform_inputs(first, first + many, first, image, (*place, steps[0], deep, 0), patch, address(inputs), kind, own)
        for k in range(0, panels.shape[2], DEPTH):
            size = points, many, min(DEPTH, panels.shape[2] - k), panels.shape[1]
            row_ends = address(ends) + 4 * k // DEPTH * block * ROW_ENDS
            sides = row_ends, address(panel_ends) + 4 * k // DEPTH * points * panels.shape[1] * COLUMNS
            at = (
                address(places),
                address(inputs) + 4 * k,
                address(panels) + 4 * k * COLUMNS,
                address(zeros),
                address(outputs),
                *sides,
            )
            _products(at, size, steps, k == 0, (0, 0, 0, 1), kind)
        undo = address(scales), address(column_scales[1])
        _transform_outputs(first, first + many, first, outputs, (*place[2:], 0, width, steps[3]), bias, tile, out, undo)


def _by_panels(image: np.ndarray, weight: np.ndarray, bias: np.ndarray, place: tuple, kind: Any, out: np.ndarray) -> None:
    """All tiles are transformed, a slice of channels side by side; then each thread does its own groups of panels of outputs."""
    count, deep, points = len(image) * place[2] * place[3], _whole(image.shape[3], LANES), place[4] ** 2
    room = _whole(count, ROWS)
    step = count * _whole(deep, SLICE) + SPARE
    inputs, scales = scratch("inputs", _whole(points, ROWS) * step + READ_ON), scratch("scales", 2 * count)
    ends = scratch("row ends", -(-deep // SLICE) * room * ROW_ENDS)
    scales[:] = 1
    work = points * count * deep
    own = address(scales), address(ends), SLICE, room
    parallel(_inputs, count, work, image, (*place, step, SLICE, count), deep, kind, inputs, own)
    places = np.minimum(np.arange(room), count - 1) * SLICE
    rest = step, readable(weight), (scales, column_scales_of(weight, place[4], kind)), ends, bias, place, kind, out
    parts = parts_of(len(bias) // COLUMNS, work * len(bias) // PER_NUMBER)
    turns = counters(parts)
    on_threads(lambda i: _panels((i, parts), address(turns), places, count, inputs, *rest), parts)


def _inputs(start: int, stop: int, image: np.ndarray, place: tuple, deep: int, kind: Any, inputs: np.ndarray, own: tuple) -> None:
    own = own[0] + 8 * start, own[1] + 4 * start * ROW_ENDS, *own[2:]
    at = address(inputs) + kind.itemsize * start * SLICE
    _transform_inputs(start, stop, start, image, place, np.zeros((SIDE, SIDE, deep), np.float32), at, kind, own)


def _panels(thread: tuple, turns: int, places: np.ndarray, count: int, *rest: Any) -> None:
    inputs, step, weight, (scales, column_scales), ends, bias, place, kind, out = rest
    points, panel, wide = place[4] ** 2, SLICE * kind.itemsize // 4 * COLUMNS, len(places) * GROUP * COLUMNS + SPARE
    floats = {
        "packed": points * (GROUP * panel + SPARE),
        "outputs": points * wide,
        "taps": TAPS,
        "column ends": points * GROUP * COLUMNS,
    }
    packed, outputs, taps, panel_ends = (scratch(name, count) for name, count in floats.items())
    tiles, zeros = np.empty(OUT * OUT * GROUP * COLUMNS, np.float32), np.zeros(COLUMNS, np.float32)
    steps = step, GROUP * panel + SPARE, panel, wide
    at = tuple(address(x) for x in (places, inputs, packed, zeros, outputs, taps, ends, panel_ends, scales, *column_scales))
    _groups(thread, turns, weight.shape[:2], steps, at, source(weight), bias, outputs, tiles, (*place, count), out, kind)


@jit
def _groups(thread, turns, shape, steps, at, weight, bias, outputs, tiles, place, out, kind):
    """Groups of panels while there are any: the transforms of their weights and products, slice by slice, and then their outputs.

    `turns`: the address of counters. All is one call: two threads that return to Python every few microseconds would wait for one
    another there.
    """
    places, inputs, packed, zeros, outputs_at, taps, row_ends, panel_ends, scales, column_scales, undone = at
    down, across, side, count = place[2:]
    number = bytes_of(kind)
    for first, last in each(turns, len(bias) // COLUMNS, GROUP, thread):
        column, many = first * COLUMNS, last - first
        for k in range(0, shape[1], SLICE):
            deep = min(SLICE, shape[1] - k)
            for p in range(many):
                to = packed + 4 * p * steps[2]
                _transform_weights(
                    weight, (shape[0], shape[1], side), first + p, k, deep, taps, to, steps[1], kind, column_scales
                )
                if spares(kind):
                    for point in range(side * side):
                        column_ends(to + 4 * point * steps[1], deep, panel_ends + 4 * (point * many + p) * COLUMNS)
            size = side * side, count, deep * number // 4, many
            line = bytes_of(weight[1]) * 9
            then = weight[0] + line * (column * shape[1] + k + SLICE), line * shape[1], many * COLUMNS, line * SLICE
            sides = row_ends + 4 * (k // SLICE * -(-count // ROWS) * ROWS * ROW_ENDS), panel_ends
            _products((places, inputs + number * k * count, packed, zeros, outputs_at, *sides), size, steps, k == 0, then, kind)
        where, tile = (down, across, side, column, many * COLUMNS, steps[3]), tiles[: OUT * OUT * many * COLUMNS]
        _transform_outputs(
            0, count, 0, outputs, where, bias[column:], tile.reshape((OUT, OUT, many * COLUMNS)), out, (scales, undone)
        )


def column_scales_of(weight: np.ndarray, side: int, kind: Any) -> np.ndarray:
    """The powers of two that each output's weights are multiplied by, to be of one size with inputs, and what undoes them.

    They are 1 unless products are spared, as `kind` says.  Shapes: [O,C,3,3] -> [2,O to whole panels]
    """

    def made(weight: np.ndarray) -> np.ndarray:
        scales = np.ones((len(weight), 2), np.float32)
        taken = readable(weight)
        parallel(_column_sizes, len(weight), weight.size, *source(taken), weight[0].size, address(scales))
        out = np.ones((2, _whole(len(weight), COLUMNS)), np.float32)
        out[:, : len(weight)] = scales.T * [[SIZES[side]], [1 / SIZES[side]]]
        return out

    if kind is not SPARED:
        return np.ones((2, _whole(len(weight), COLUMNS)), np.float32)
    return prepared(f"winograd scales {side}", weight, made)


@jit
def _column_sizes(start, stop, weight, kind, count, scales):
    for o in range(start, stop):
        row_scale((weight + bytes_of(kind) * o * count,), count // LANES * LANES, scales + 8 * o, kind)


def _column_ends(panels: np.ndarray) -> np.ndarray:
    """What column_ends makes of each step of a product.  Shapes: [points,panels,C,columns] -> [steps,points,panels,columns]"""
    points, many, depth, _ = panels.shape
    ends = np.empty((-(-depth // DEPTH), points, many, COLUMNS), np.float32)
    parallel(_ends_of_panels, points * many, panels.size, depth, ends[0].size, address(panels), address(ends))
    return ends


@jit
def _ends_of_panels(start, stop, depth, step, panels, ends):
    for i in range(start, stop):
        for k in range(0, depth, DEPTH):
            at, to = panels + 4 * (i * depth + k) * COLUMNS, ends + 4 * (k // DEPTH * step + i * COLUMNS)
            column_ends(at, min(DEPTH, depth - k), to)


def transformed_weight(weight: np.ndarray, side: int, kind: Any, scales: np.ndarray) -> np.ndarray:
    """G g G^T in panels of columns, zeros beyond the last, of numbers of `kind`: words are float32 or pairs of channels.

    Shapes: [O,C,3,3] -> [side^2,panels,C in words,columns]
    """
    many, channels = weight.shape[:2]
    panels = -(-many // COLUMNS)
    out = room(side * side, panels, channels * kind.itemsize // 4, COLUMNS)
    parallel(_weights, panels, side * side * weight.size, readable(weight), side, kind, out, scales)
    return out


def _weights(start: int, stop: int, weight: np.ndarray, side: int, kind: Any, out: np.ndarray, scales: np.ndarray) -> None:
    size, taps = (*weight.shape[:2], side), address(scratch("taps", TAPS))
    _whole_weights(start, stop, source(weight), size, taps, address(out), out[0].size, kind, address(scales))


@jit
def _whole_weights(start, stop, weight, size, taps, out, step, kind, scales):
    """The panels start..stop of all channels, in one call for the same reason."""
    for panel in range(start, stop):
        for k in range(0, size[1], SLICE):
            to = out + bytes_of(kind) * (panel * size[1] + k) * COLUMNS
            _transform_weights(weight, size, panel, k, min(SLICE, size[1] - k), taps, to, step, kind, scales)


@jit
def _products(at, size, steps, begin, then, kind):
    """outputs[point] += inputs[point] weights[point], for all points, so many tiles, `depth` words of channels and whole panels.

    It begins with 0 if `begin`. What is read next is asked for meanwhile: other points, and the rows of memory `then`, as
    fetch_rows has them. `at` are addresses: of how many numbers after the inputs each of their rows begins, of the inputs, the
    weights, zeros, the outputs, and what row_ends and column_ends made of inputs and weights. The steps are from point to point
    of the inputs, in numbers, of the weights, from panel to panel of these, and from point to point of the outputs. `kind`: as
    inner.multiply has it.
    """
    places, inputs, weights, zeros, outputs, tile_ends, panel_ends = at
    points, tiles, depth, panels = size
    width, number = panels * COLUMNS, bytes_of(kind)
    calls = panels * -(-tiles // ROWS)
    spans = -(-4 * tiles * depth // calls), -(-4 * tiles * width // calls), -(-then[2] * then[3] // (calls * points))
    for point in range(points):
        left, call = inputs + number * point * steps[0], 0
        for p in range(panels):
            right = weights + 4 * (point * steps[1] + p * steps[2])
            for m in range(0, tiles, ROWS):
                to = outputs + 4 * (point * steps[3] + m * width + p * COLUMNS)
                base, step = (zeros, 0) if begin else (to, width)
                ends = tile_ends + 4 * (m * ROW_ENDS + point), ROW_ENDS, panel_ends + 4 * (point * panels + p) * COLUMNS
                multiply(left, places + 8 * m, tiles - m, right, depth, (base, step), (to, width), ends, kind)
                fetch_span(left + number * steps[0] + call * spans[0], spans[0])  # of the next point
                fetch_span(outputs + 4 * (point + 1) * steps[3] + call * spans[1], spans[1])
                fetch_rows(then, (point * calls + call) * spans[2], spans[2])
                call += 1


def _whole(count: int, unit: int) -> int:
    """`count` rounded up to whole units."""
    return -(-count // unit) * unit
