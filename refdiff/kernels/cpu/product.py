"""The matrix product that linear layers and convolutions share, in blocks that stay in the processor's caches.

out[m,n] = bias[n] + the sum over segments s and k of a[rows[m] + starts[s] + k] weight[n,s,k]. A linear layer has one segment, a
convolution one for every place of its window, and `rows` say where the windows begin: so nothing is gathered.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from refdiff.kernels.cpu import common
from refdiff.kernels.cpu.common import PER_NUMBER, address, jit, parallel, part, scratch
from refdiff.kernels.cpu.halves import BFLOAT16, FLOAT32, PAIR, narrowed, source
from refdiff.kernels.cpu.results import result
from refdiff.kernels.cpu.tile import multiply_tile, pair_rows
from refdiff.kernels.cpu.vector import (
    TILE,
    bytes_of,
    copy_row,
    fetch,
    fetch_to_write,
    integer_at,
    move_number,
    put_float,
    transpose_square,
)

ROWS, COLUMNS, LANES = TILE
DEPTH = 384  # of one step, in float32 or pairs of bfloat16: a panel of so many rows stays in the first cache
STRIPE = 16 * ROWS  # rows of `a` in one step, whose sums stay in the second cache
PACKED = 1 << 16  # floats or pairs of packed columns in one step, which stay there too
LINE = 64  # bytes of a line of a cache
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


def product(
    a: np.ndarray, rows: np.ndarray, starts: np.ndarray, weight: Weight, bias: np.ndarray | None, *, pairs: bool = False
) -> np.ndarray:
    """The product as the module says it; every number is summed in one order, from the bias on, whatever the number of threads.

    With `pairs` both factors are rounded to bfloat16; the depth must then be even.
    Shapes: [?], [M], [S], [N,S,K], [N] -> [M,N]
    """
    count, (columns, segments, depth) = len(rows), weight.shape
    panels, stripes = -(-columns // COLUMNS), -(-count // ROWS)
    first = np.zeros(panels * COLUMNS, dtype=np.float32)
    if bias is not None:
        first[:columns] = bias
    places = np.full((stripes + 1) * ROWS, rows[-1], dtype=np.int64)
    places[:count] = rows
    out = result(stripes * ROWS, panels * COLUMNS)
    work = count * columns * segments * depth // PER_NUMBER
    factors = narrowed(a) if pairs else a
    args = factors, places, count, np.ascontiguousarray(starts, dtype=np.int64), weight, first, out
    if panels >= 2 * common.THREADS:
        parallel(_by_panels, panels, work, *args)
    else:
        parallel(_by_rows, stripes, work, *args)
    return np.ascontiguousarray(out[:count, :columns])


def _by_panels(start: int, stop: int, a: np.ndarray, rows: np.ndarray, *rest: Any) -> None:
    _part((0, len(rows) - ROWS), (start, stop), a, rows, *rest)


def _by_rows(start: int, stop: int, a: np.ndarray, rows: np.ndarray, *rest: Any) -> None:
    _part((start * ROWS, stop * ROWS), (0, rest[4].shape[1] // COLUMNS), a, rows, *rest)


def _part(lines: tuple, panels: tuple, a: np.ndarray, rows: np.ndarray, count: int, starts: np.ndarray, *rest: Any) -> None:
    """These rows and panels of a product."""
    weight, bias, out = rest
    _, segments, depth = weight.shape
    words = 4 // a.itemsize  # numbers in the four bytes that one step of a tile takes
    block = max(PACKED // (min(depth // words, DEPTH) * COLUMNS), 1)
    many = min(block, panels[1] - panels[0])
    packed = scratch("packed", (many + words - 1) * segments * depth * COLUMNS // words)
    spare = address(scratch("columns", SLICE * segments * COLUMNS))
    at = address(a), address(rows), count, address(starts), address(bias), address(out), out.shape[1]
    steps = weight.steps
    stored = *source(weight.flat), weight.shape, steps
    if words == 1:
        _product(lines, (*panels, block), at, stored, spare, address(packed))
    else:
        paired = weight.flat.dtype == BFLOAT16 and steps[2] == 1 and steps[0] % 2 == steps[1] % 2 == 0
        _product_of_pairs(lines, (*panels, block), at, stored, spare, address(packed), paired)


@jit
def _product(lines, panels, at, weight, spare, packed):
    """The rows `lines`, (first, last), and panels `panels`, (first, last, so many at a time), of the result, whole tiles.

    `at`: the addresses of a, rows, how many rows there are, those of starts, bias and the result, and the floats of one of its
    rows. `spare` is the address of SLICE * segments rows of a panel.
    """
    size = 4 * weight[2][1] * weight[2][2] * COLUMNS  # bytes of a packed panel
    for first in range(panels[0], panels[1], panels[2]):
        last = min(first + panels[2], panels[1])
        for p in range(first, last):
            _pack(weight, p, spare, packed + (p - first) * size)
        _multiply(lines, first, last, at, weight[2], packed, FLOAT32)


@jit
def _product_of_pairs(lines, panels, at, weight, spare, packed, paired):
    """The same of bfloat16; `paired`: whether the weight lies in pairs already."""
    size = 2 * weight[2][1] * weight[2][2] * COLUMNS
    for first in range(panels[0], panels[1], panels[2]):
        last = min(first + panels[2], panels[1])
        for p in range(first, last):
            _pack_pairs(weight, p, spare, packed + (p - first) * size, paired)
        _multiply(lines, first, last, at, weight[2], packed, PAIR)


@part
def _multiply(lines, p0, p1, at, shape, packed, kind):
    """These rows of the panels p0..p1, which were packed. `kind` says, by its type, what is multiplied: see multiply_tile."""
    a, rows, count, starts, bias, out, width = at
    _, segments, depth = shape
    number = bytes_of(kind)
    words = 4 // number
    size = number * segments * depth * COLUMNS
    for m0 in range(lines[0], lines[1], STRIPE):
        for s in range(segments):
            for k in range(0, depth, DEPTH * words):
                deep, begin = min(DEPTH * words, depth - k), s == 0 and k == 0
                left, right = a + number * (integer_at(starts + 8 * s) + k), packed + number * (s * depth + k) * COLUMNS
                for m in range(m0, min(m0 + STRIPE, lines[1]), ROWS):
                    for p in range(p0, p1):
                        to = out + 4 * (m * width + p * COLUMNS)
                        base, step = (bias + 4 * p * COLUMNS, 0) if begin else (to, width)
                        panel = right + (p - p0) * size
                        for i in range(ROWS):  # to write a line asks for it first, one after the other
                            for j in range(0, 4 * COLUMNS, LINE):
                                fetch_to_write(to + 4 * i * width + j)
                        multiply_tile(left, rows + 8 * m, count - m, panel, deep // words, (base, step), (to, width), kind)
                        # The rows of the next tile are asked for meanwhile.
                        for i in range((p - p0) * ROWS // (p1 - p0), (p - p0 + 1) * ROWS // (p1 - p0)):
                            fetch_span(left + number * integer_at(rows + 8 * (m + ROWS + i)), number * deep)


@part
def fetch_span(start: Any, size: Any) -> None:
    """Ask for so many bytes of memory."""
    for i in range(0, size, LINE):
        fetch(start + i)


@part
def fetch_rows(rows: Any, first: Any, size: Any) -> None:
    """Ask for the bytes first..first+size of rows of memory: (where they begin, from row to row, their number, bytes of each)."""
    start, step, many, width = rows
    for i in range(first, min(first + size, many * width), LINE):
        fetch(start + i // width * step + i % width)


@part
def _pack_pairs(weight, panel, spare, packed, paired):
    """The same as pairs of bfloat16 that follow one another in k; there must be room for a panel of float32."""
    flat, kind, (columns, segments, depth), (column, segment, place) = weight
    if paired:
        first, left = flat + 2 * panel * COLUMNS * column, columns - panel * COLUMNS
        for s in range(segments):
            to = packed + 2 * s * depth * COLUMNS
            # A pair is moved as if it were one float.
            gather_columns(first + 2 * s * segment, column // 2, left, depth // 2, to, FLOAT32)
    else:
        _pack(weight, panel, spare, packed)
        for i in range(segments * depth // 2):
            pair_rows(packed + 8 * i * COLUMNS, packed + 4 * i * COLUMNS)


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
