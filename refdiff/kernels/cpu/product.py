"""The matrix product that linear layers and convolutions share, in blocks that stay in the processor's caches.

out[m,n] = bias[n] + the sum over segments s and k of a[rows[m] + starts[s] + k] weight[n,s,k]. A linear layer has one segment, a
convolution one for every place of its window, and `rows` say where the windows begin: so nothing is gathered.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from refdiff.kernels.cpu import common
from refdiff.kernels.cpu.common import PER_NUMBER, address, jit, parallel, part, scratch
from refdiff.kernels.cpu.halves import source
from refdiff.kernels.cpu.results import result
from refdiff.kernels.cpu.vector import (
    TILE,
    bytes_of,
    copy_row,
    integer_at,
    move_number,
    multiply_tile,
    put_float,
    transpose_square,
)

ROWS, COLUMNS, LANES = TILE
DEPTH = 384  # of one step: a panel of so many rows stays in the first cache
STRIPE = 96  # rows of `a` in one step, whose sums stay in the second cache
PACKED = 1 << 16  # floats of packed columns in one step, which stay there too
SLICE = 8  # channels whose windows are packed at a time
NOTHING = np.float32(0)
WHOLE = np.zeros(1, dtype=np.int64)  # the starts of one segment, from the beginning of a row


class Weight(NamedTuple):
    """A weight [columns,segments,depth] in flat memory: how many numbers lie from one column, segment, and k to the next.

    Its numbers are of a dtype that KINDS has, and widened as they are packed.
    """

    flat: np.ndarray
    shape: tuple[int, int, int]
    steps: tuple[int, int, int]


def product(a: np.ndarray, rows: np.ndarray, starts: np.ndarray, weight: Weight, bias: np.ndarray | None) -> np.ndarray:
    """The product as the module says it; every number is summed in one order, from the bias on, whatever the number of threads.

    Shapes: [?], [M], [S], [N,S,K], [N] -> [M,N]
    """
    count, (columns, segments, depth) = len(rows), weight.shape
    panels, stripes = -(-columns // COLUMNS), -(-count // ROWS)
    first = np.zeros(panels * COLUMNS, dtype=np.float32)
    if bias is not None:
        first[:columns] = bias
    places = np.full(stripes * ROWS, rows[-1], dtype=np.int64)
    places[:count] = rows
    out = result(stripes * ROWS, panels * COLUMNS)
    work = count * columns * segments * depth // PER_NUMBER
    args = a, places, np.ascontiguousarray(starts, dtype=np.int64), weight, first, out
    if panels >= 2 * common.THREADS:
        parallel(_by_panels, panels, work, *args)
    else:
        parallel(_by_rows, stripes, work, *args)
    return np.ascontiguousarray(out[:count, :columns])


def _by_panels(start: int, stop: int, a: np.ndarray, rows: np.ndarray, *rest: Any) -> None:
    _part((0, len(rows)), (start, stop), a, rows, *rest)


def _by_rows(start: int, stop: int, a: np.ndarray, rows: np.ndarray, *rest: Any) -> None:
    _part((start * ROWS, stop * ROWS), (0, rest[3].shape[1] // COLUMNS), a, rows, *rest)


def _part(
    lines: tuple, panels: tuple, a: np.ndarray, rows: np.ndarray, starts: np.ndarray, weight: Weight, *rest: np.ndarray
) -> None:
    """These rows and panels of a product."""
    bias, out = rest
    _, segments, depth = weight.shape
    block = max(PACKED // (min(depth, DEPTH) * COLUMNS), 1)
    packed = scratch("packed", min(block, panels[1] - panels[0]) * segments * depth * COLUMNS)
    spare = address(scratch("columns", SLICE * segments * COLUMNS))
    at = address(a), address(rows), address(starts), address(bias), address(out), out.shape[1]
    _product(lines, (*panels, block), at, (*source(weight.flat), weight.shape, weight.steps), spare, address(packed))


@jit
def _product(lines, panels, at, weight, spare, packed):
    """The rows `lines`, (first, last), and panels `panels`, (first, last, so many at a time), of the result, whole tiles.

    `at`: the addresses of a, rows, starts, bias and the result, and the floats of one of its rows.
    """
    a, rows, starts, bias, out, width = at
    segments, depth = weight[2][1], weight[2][2]
    size = 4 * segments * depth * COLUMNS  # bytes of a packed panel
    for p0 in range(panels[0], panels[1], panels[2]):
        p1 = min(p0 + panels[2], panels[1])
        for p in range(p0, p1):
            _pack(weight, p, spare, packed + (p - p0) * size)
        for m0 in range(lines[0], lines[1], STRIPE):
            for s in range(segments):
                for k in range(0, depth, DEPTH):
                    deep, begin = min(DEPTH, depth - k), s == 0 and k == 0
                    left, right = a + 4 * (integer_at(starts + 8 * s) + k), packed + 4 * (s * depth + k) * COLUMNS
                    for m in range(m0, min(m0 + STRIPE, lines[1]), ROWS):
                        for p in range(p0, p1):
                            to = out + 4 * (m * width + p * COLUMNS)
                            base, step = (bias + 4 * p * COLUMNS, 0) if begin else (to, width)
                            multiply_tile(left, rows + 8 * m, right + (p - p0) * size, deep, (base, step), (to, width))


@part
def _pack(weight, panel, spare, packed):
    """packed[(s depth + k) COLUMNS + j] = weight[panel COLUMNS + j, s, k], 0 beyond the last column.

    `weight` is its address, kind, shape and steps; `spare` the address of SLICE * segments rows of a panel.
    """
    flat, kind, (columns, segments, depth), (column, segment, place) = weight
    size = bytes_of(kind)
    first, left = flat + size * panel * COLUMNS * column, columns - panel * COLUMNS
    if column == 1 and left >= COLUMNS and size == 4:
        for s in range(segments):
            for k in range(depth):
                copy_row(first + 4 * (s * segment + k * place), packed + 4 * (s * depth + k) * COLUMNS)
    elif place == 1:
        for s in range(segments):
            gather_columns(first + size * s * segment, column, left, depth, packed + 4 * s * depth * COLUMNS, kind)
    elif segment == 1 and place == segments:
        for k0 in range(0, depth, SLICE):
            deep = min(SLICE, depth - k0)
            gather_columns(first + size * k0 * segments, column, left, deep * segments, spare, kind)
            for k in range(deep):
                for s in range(segments):
                    copy_row(spare + 4 * (k * segments + s) * COLUMNS, packed + 4 * (s * depth + k0 + k) * COLUMNS)
    else:
        for s in range(segments):
            for k in range(depth):
                at, to = first + size * (s * segment + k * place), packed + 4 * (s * depth + k) * COLUMNS
                for j in range(COLUMNS):
                    if j < left:
                        move_number(at + size * j * column, to + 4 * j, kind)
                    else:
                        put_float(NOTHING, to + 4 * j)


@part
def gather_columns(lines: Any, width: Any, columns: Any, many: Any, packed: Any, kind: Any) -> None:
    """packed[i COLUMNS + j] = lines[width j + i] for `many` i and a panel of columns, 0 beyond so many columns.

    `lines` and `packed` are addresses; the lines' numbers are of `kind`.
    """
    have = min(columns, COLUMNS)
    transpose(lines, width, have, many, packed, np.int64(COLUMNS), kind)  # not its literal, for which all would be compiled again
    for i in range(many if have < COLUMNS else 0):
        for j in range(have, COLUMNS):
            put_float(NOTHING, packed + 4 * (i * COLUMNS + j))


@part
def transpose(start: Any, step: Any, lines: Any, many: Any, target: Any, to: Any, kind: Any) -> None:
    """target[i to + j] = start[j step + i] for so many lines j of `many` numbers i of `kind`; addresses, and steps in numbers."""
    wide, deep, size = lines - lines % LANES, many - many % LANES, bytes_of(kind)
    for i in range(0, deep, LANES):
        for j in range(0, wide, LANES):
            transpose_square(start + size * (j * step + i), step, target + 4 * (i * to + j), to, kind)
    for i in range(many):
        for j in range(wide if i < deep else 0, lines):
            move_number(start + size * (j * step + i), target + 4 * (i * to + j), kind)
