"""The matrix product that linear layers and convolutions share, in blocks that stay in the processor's caches.

out[m,n] = bias[n] + the sum over segments s and k of a[rows[m] + starts[s] + k] weight[n,s,k]. A linear layer has one segment, a
convolution one for every place of its window, and `rows` say where the windows begin: so nothing is gathered.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from refdiff.kernels.cpu import common
from refdiff.kernels.cpu.common import PER_NUMBER, address, inline, jit, parallel, scratch
from refdiff.kernels.cpu.results import result
from refdiff.kernels.cpu.vector import TILE, copy_row, multiply_tile, transpose_square

ROWS, COLUMNS, LANES = TILE
DEPTH = 384  # of one step: a panel of so many rows stays in the first cache
STRIPE = 96  # rows of `a` in one step, whose sums stay in the second cache
PACKED = 1 << 16  # floats of packed columns in one step, which stay there too


WHOLE = np.zeros(1, dtype=np.int64)  # the starts of one segment, from the beginning of a row


class Weight(NamedTuple):
    """A weight [columns,segments,depth] in flat memory: how many floats lie from one column, segment, and k to the next."""

    flat: np.ndarray
    shape: tuple[int, int, int]
    steps: tuple[int, int, int]


def product(
    a: np.ndarray, rows: np.ndarray, starts: np.ndarray, weight: Weight, bias: np.ndarray | None, *, by_row: bool
) -> np.ndarray:
    """The product as the module says it; every number is summed in one order, whatever the number of threads.

    The sum begins with the bias: of the column or, `by_row`, of the row.
    Shapes: [?], [M], [S], [N,S,K], [N] or [M] -> [M,N]
    """
    count, (columns, segments, depth) = len(rows), weight.shape
    panels, stripes = -(-columns // COLUMNS), -(-count // ROWS)
    first = np.zeros((stripes * ROWS, COLUMNS) if by_row else (1, panels * COLUMNS), dtype=np.float32)
    if bias is not None and by_row:
        first[:count] = bias[:, None]
    elif bias is not None:
        first[0, :columns] = bias
    places = np.full(stripes * ROWS, rows[-1], dtype=np.int64)
    places[:count] = rows
    out = result(stripes * ROWS, panels * COLUMNS)
    work = count * columns * segments * depth // PER_NUMBER
    args = a, places, starts, weight, first, out
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
    bias_steps = (COLUMNS, 0) if len(bias) > 1 else (0, COLUMNS)  # from a row's, and from a panel's, bias to the next
    at = address(a), address(rows), (address(bias), *bias_steps), (address(out), out.shape[1])
    _product(lines, (*panels, block), *at, starts, weight, packed)


@jit
def _product(lines, panels, a, rows, bias, out, starts, weight, packed):
    """The rows `lines`, (first, last), and panels `panels`, (first, last, so many at a time), of `out`, whole tiles.

    `a`, `rows`, `bias` and `out` are addresses, the last two with steps.
    """
    flat, shape, steps = weight
    segments, depth = shape[1], shape[2]
    size = segments * depth * COLUMNS
    bias_at, down, across = bias
    out_at, width = out
    packed_at = packed.ctypes.data
    for p0 in range(panels[0], panels[1], panels[2]):
        p1 = min(p0 + panels[2], panels[1])
        for p in range(p0, p1):
            _pack(flat, shape, steps, p, packed, (p - p0) * size)
        for m0 in range(lines[0], lines[1], STRIPE):
            for s in range(segments):
                for k in range(0, depth, DEPTH):
                    deep, begin = min(DEPTH, depth - k), s == 0 and k == 0
                    left, right = a + 4 * (starts[s] + k), packed_at + 4 * (s * depth + k) * COLUMNS
                    for m in range(m0, min(m0 + STRIPE, lines[1]), ROWS):
                        for p in range(p0, p1):
                            to = out_at + 4 * (m * width + p * COLUMNS)
                            base, step = (bias_at + 4 * (m * down + p * across), down) if begin else (to, width)
                            multiply_tile(left, rows + 8 * m, right + 4 * (p - p0) * size, deep, (base, step), (to, width))


@inline
def _pack(weight: Any, shape: Any, steps: Any, panel: Any, packed: Any, to: Any) -> None:
    """packed[to + (s depth + k) columns + j] = weight[panel columns + j, s, k], 0 beyond the last column."""
    columns, segments, depth = shape
    if steps[0] == segments * depth and steps[1] == depth and steps[2] == 1:
        many = segments * depth
        _gather_columns(weight, panel * COLUMNS * many, many, columns - panel * COLUMNS, many, packed, to)
    elif steps[0] == 1 and (panel + 1) * COLUMNS <= columns:
        weight_at, packed_at = weight.ctypes.data + 4 * panel * COLUMNS, packed.ctypes.data + 4 * to
        for s in range(segments):
            for k in range(depth):
                copy_row(weight_at + 4 * (s * steps[1] + k * steps[2]), packed_at + 4 * (s * depth + k) * COLUMNS)
    else:
        for j in range(COLUMNS):
            column, at = panel * COLUMNS + j, to + j
            for s in range(segments):
                first = column * steps[0] + s * steps[1]
                for k in range(depth):
                    packed[at] = weight[first + k * steps[2]] if column < columns else 0
                    at += COLUMNS


@inline
def _gather_columns(lines: Any, first: Any, width: Any, columns: Any, many: Any, packed: Any, to: Any) -> None:
    """packed[to + i COLUMNS + j] = lines[first + width j + i] for `many` i and a panel of columns, 0 beyond so many columns."""
    whole = many - many % LANES if columns >= COLUMNS else 0
    lines_at, packed_at = lines.ctypes.data + 4 * first, packed.ctypes.data + 4 * to
    for i in range(0, whole, LANES):
        for j in range(0, COLUMNS, LANES):
            transpose_square(lines_at + 4 * (j * width + i), width, packed_at + 4 * (i * COLUMNS + j), COLUMNS)
    for i in range(whole, many):
        for j in range(COLUMNS):
            packed[to + i * COLUMNS + j] = lines[first + j * width + i] if j < columns else 0
