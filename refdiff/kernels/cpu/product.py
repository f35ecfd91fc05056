"""The matrix product that linear layers and convolutions share, in blocks that stay in the processor's caches.

out[m,n] = bias[n] + the sum over segments s and k of a[rows[m] + starts[s] + k] weight[n,s,k]. A linear layer has one segment, a
convolution one for every place of its window, and `rows` say where the windows begin: so nothing is gathered.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from refdiff.kernels.cpu import common, strassen
from refdiff.kernels.cpu.common import PER_NUMBER, address, jit, parallel, part, scratch
from refdiff.kernels.cpu.halves import BFLOAT16, FLOAT32, PAIR, narrowed, source
from refdiff.kernels.cpu.panels import COLUMNS, LINE, ROWS, SLICE, Weight, fetch_span, pack, pack_pairs
from refdiff.kernels.cpu.results import result
from refdiff.kernels.cpu.tile import multiply_tile
from refdiff.kernels.cpu.vector import bytes_of, fetch_to_write, integer_at

DEPTH = 384  # of one step, in float32 or pairs of bfloat16: a panel of so many rows stays in the first cache
STRIPE = 16 * ROWS  # rows of `a` in one step, whose sums stay in the second cache
PACKED = 1 << 16  # floats or pairs of packed columns in one step, which stay there too
WHOLE = np.zeros(1, dtype=np.int64)  # the starts of one segment, from the beginning of a row


def product(
    a: np.ndarray,
    rows: np.ndarray,
    starts: np.ndarray,
    weight: Weight,
    bias: np.ndarray | None,
    *,
    pictures: int,
    pairs: bool = False,
) -> np.ndarray:
    """The product as the module says it; every number is summed in one order, whatever the number of threads.

    The rows are those of so many pictures of one size, and the numbers of each the same as of that picture alone. With `pairs`
    both factors are rounded to bfloat16; the depth must then be even.
    Shapes: [?], [M], [S], [N,S,K], [N] -> [M,N]
    """
    count, (columns, segments, depth) = len(rows), weight.shape
    panels, stripes = -(-columns // COLUMNS), -(-count // ROWS)
    first = np.zeros(panels * COLUMNS, dtype=np.float32)
    if bias is not None:
        first[:columns] = bias
    if not pairs and strassen.fits(count // pictures, weight.shape):
        return strassen.product(a[starts[0] :], rows, pictures, weight, first)
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
            pack(weight, p, spare, packed + (p - first) * size)
        _multiply(lines, first, last, at, weight[2], packed, FLOAT32)


@jit
def _product_of_pairs(lines, panels, at, weight, spare, packed, paired):
    """The same of bfloat16; `paired`: whether the weight lies in pairs already."""
    size = 2 * weight[2][1] * weight[2][2] * COLUMNS
    for first in range(panels[0], panels[1], panels[2]):
        last = min(first + panels[2], panels[1])
        for p in range(first, last):
            pack_pairs(weight, p, spare, packed + (p - first) * size, paired)
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
