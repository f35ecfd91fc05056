"""The matrix product with seven eighths of its products: one step of Strassen's, in blocks that stay in the processor's caches.

A group is two tiles of rows, one above the other; a pair is two panels of columns. Their blocks and the halves of the depth would
make eight products, of which Strassen makes seven, of sums of blocks. Those sums are made as rows and panels are packed, and the
results' as they are written, so that no whole matrix is added to another.

Its error is that of the largest numbers of a block (Higham 2002, section 23.2.2). A number that is not finite makes NaN of its
row and of the one over or under it in its group; one of the weight, of its column and of that in the pair's other panel.

Math: [[a, b], [c, d]] [[p, q], [r, s]], with the seven products a p, b r, (a + b - c - d) s, d (r + q - p - s), (c + d) (q - p),
    (c + d - a) (p + s - q) and (a - c) (s - q); the results are the sums of them in RESULTS
Source: Strassen 1969 (doi 10.1007/BF02165411), in Winograd's variant; Huang et al. 2016, Strassen's Algorithm Reloaded, on sums
    that are made while packing
"""

from __future__ import annotations

from typing import Any

import numpy as np

from refdiff.kernels.cpu import common
from refdiff.kernels.cpu.common import PER_NUMBER, address, jit, parallel, part, scratch
from refdiff.kernels.cpu.halves import FLOAT32, SPARED, source
from refdiff.kernels.cpu.inner import READ_ON, SPARES, column_ends, column_scales, multiply, row_ends, row_scale
from refdiff.kernels.cpu.panels import COLUMNS, LANES, ROWS, Weight, fetch_span, pack
from refdiff.kernels.cpu.results import result
from refdiff.kernels.cpu.sums import closing, mixture
from refdiff.kernels.cpu.tile import SHORT
from refdiff.kernels.cpu.vector import bytes_of, integer_at, settle

COUNT = 7
LEFT = ((1, 0, 0, 0), (0, 1, 0, 0), (1, 1, -1, -1), (0, 0, 0, 1), (0, 0, 1, 1), (-1, 0, 1, 1), (1, 0, -1, 0))  # of a, b, c, d
RIGHT = ((1, 0, 0, 0), (0, 0, 1, 0), (0, 0, 0, 1), (-1, 1, 1, -1), (-1, 1, 0, 0), (1, -1, 0, 1), (0, -1, 0, 1))  # of p, q, r, s
RESULTS = ((1, 1, 0, 0, 0, 0, 0), (1, 0, 1, 0, 1, 1, 0), (1, 0, 0, 1, 0, 1, 1), (1, 0, 0, 0, 1, 1, 1))  # of the products
_left, _right = mixture(LEFT, each=False), mixture(RIGHT, each=True)
_results, _streamed = closing(RESULTS), closing(RESULTS, streaming=True)

KIND = SPARED if SPARES else FLOAT32
STRIPE = 4  # groups of rows at a time, whose packed sums stay in the second cache
DEEPEST = 640  # of one step, so that a pair's packed sums stay there too
PACKED = 1 << 20  # floats of packed sums of panels at a time
TILE_BYTES, GROUP_BYTES, PANEL_BYTES = 4 * ROWS * COLUMNS, 4 * COUNT * LANES, 4 * COUNT * COLUMNS  # of a tile, and of ends
# The least rows of one picture and depth for which it gains more than its sums cost.
LEAST_ROWS, LEAST_DEPTH = 128, 256
LARGE = 1 << 23  # bytes of a result that the last cache does not keep until it is read


def fits(rows: int, shape: tuple[int, int, int]) -> bool:
    """Whether it is taken for a picture of so many rows: large, and of whole groups, pairs and vectors of half the depth.

    It does not depend on how many pictures there are, nor do the groups, so a picture's numbers are the same in any batch.
    """
    columns, segments, depth = shape
    large = segments == 1 and rows >= LEAST_ROWS and depth >= LEAST_DEPTH
    return large and columns % (2 * COLUMNS) == depth % (2 * LANES) == 0 and _heights(rows) is not None


def _heights(rows: int) -> list[int] | None:
    """The heights of the tiles of every group of a picture, whose two tiles are alike; None if they cannot be whole."""
    for short in range(ROWS):
        left = rows - 2 * SHORT * short
        if left >= 0 and left % (2 * ROWS) == 0:
            return [ROWS] * (left // (2 * ROWS)) + [SHORT] * short
    return None


def product(a: np.ndarray, rows: np.ndarray, pictures: int, weight: Weight, bias: np.ndarray) -> np.ndarray:
    """out[m,n] = bias[n] + the sum over k of a[rows[m] + k] weight[n,0,k], for so many pictures' rows, which `fits` has taken.

    Shapes: [?], [M], [N,1,K], [N] -> [M,N]
    """
    columns, _, depth = weight.shape
    heights = np.array((_heights(len(rows) // pictures) or []) * pictures)
    groups = np.stack([np.cumsum(2 * heights) - 2 * heights, heights], axis=1)
    out, pairs = result(len(rows), columns), columns // (2 * COLUMNS)
    args = a, np.ascontiguousarray(rows, dtype=np.int64), groups, weight, bias, out
    work = len(rows) * columns * depth // PER_NUMBER
    if pairs >= common.THREADS and columns > len(rows):  # the more of the two is packed once
        parallel(_by_pairs, pairs, work, *args)
    else:
        parallel(_by_groups, len(groups), work, *args)
    return out


def _by_pairs(start: int, stop: int, a: np.ndarray, rows: np.ndarray, groups: np.ndarray, *rest: Any) -> None:
    _part((0, len(groups)), (start, stop), a, rows, groups, *rest)


def _by_groups(start: int, stop: int, *args: Any) -> None:
    _part((start, stop), (0, args[-1].shape[1] // (2 * COLUMNS)), *args)


def _part(lines: tuple, pairs: tuple, a: np.ndarray, rows: np.ndarray, groups: np.ndarray, *rest: Any) -> None:
    """These groups and pairs of a product."""
    weight, bias, out = rest
    depth = weight.shape[2]
    steps = -(-depth // DEEPEST)
    deep = -(-depth // (steps * 2 * LANES)) * 2 * LANES
    size = COUNT * deep // 2 * COLUMNS
    many = min(max(PACKED // size, 1), pairs[1] - pairs[0])
    # Of each array as many floats, and behind packed rows what row_ends may read.
    floats = {
        "sums": many * size,
        "panels": 2 * deep * COLUMNS,
        "rows": STRIPE * COUNT * deep // 2 * ROWS + ROWS * deep + READ_ON,
        "column ends": many * COUNT * COLUMNS,
        "row ends": STRIPE * COUNT * LANES,
        "seven": COUNT * ROWS * COLUMNS,
    }
    scales = scratch("strassen column scales", many * 2 * COLUMNS), scratch("strassen row scales", STRIPE * 2 * ROWS)
    for scale in scales:
        scale[:] = 1
    own = *(scratch(f"strassen {name}", count) for name, count in floats.items()), *scales
    streams = out.nbytes >= LARGE and address(out) % (4 * LANES) == 0
    places, zeros = np.arange(2 * ROWS).reshape(2, ROWS) % ROWS, np.zeros(COLUMNS, np.float32)
    places *= np.array([[deep // 2], [(depth - deep * (steps - 1)) // 2]])
    at = tuple(address(x) for x in (a, rows, groups, bias, out, places, zeros, *own))
    _product(lines, (*pairs, many), deep, at, (*source(weight.flat), weight.shape, weight.steps), streams)


@jit
def _product(lines, pairs, deep, at, weight, streams):
    """The groups `lines`, (first, last), and pairs `pairs`, (first, last, so many at a time), `deep` of the depth at a time.

    `at`: the addresses that _part has.
    """
    a, rows, groups, bias, out, places, zeros, sums, panels, packed, panel_ends, ends, seven, panel_scales, scales = at
    flat, kind, (columns, _, depth), steps = weight
    for first in range(pairs[0], pairs[1], pairs[2]):
        last = min(first + pairs[2], pairs[1])
        for k in range(0, depth, deep):
            half = min(deep, depth - k) // 2
            size, lies = 4 * COUNT * half * COLUMNS, places + (0 if 2 * half == deep else 8 * ROWS)
            stored = flat + bytes_of(kind) * k * steps[2], kind, (columns, 1, 2 * half), steps
            for p in range(first, last):
                for j in range(2):
                    pack(stored, 2 * p + j, np.int64(0), panels + 8 * j * half * COLUMNS)
                i = p - first
                _pack_panels(panels, half, sums + i * size, panel_scales + 8 * i * COLUMNS, panel_ends + i * PANEL_BYTES)
            for g0 in range(lines[0], lines[1], STRIPE):
                g1, to = min(g0 + STRIPE, lines[1]), 4 * COUNT * half * ROWS
                for g in range(g0, g1):
                    m, many, i = integer_at(groups + 16 * g), integer_at(groups + 16 * g + 8), g - g0
                    _pack_rows(
                        a + 4 * k, rows + 8 * m, many, half, packed + i * to, scales + 8 * i * ROWS, ends + i * GROUP_BYTES
                    )
                for p in range(first, last):
                    for g in range(g0, g1):
                        m, many = integer_at(groups + 16 * g), integer_at(groups + 16 * g + 8)
                        left, right = packed + (g - g0) * to, sums + (p - first) * size
                        left_ends, right_ends = ends + (g - g0) * GROUP_BYTES, panel_ends + (p - first) * PANEL_BYTES
                        for i in range(COUNT):
                            tile = seven + i * TILE_BYTES, COLUMNS
                            multiply(left, lies, many, right, half, (zeros, 0), tile, (left_ends, 1, right_ends), KIND)
                            left, right = left + 4 * many * half, right + 4 * half * COLUMNS
                            left_ends, right_ends = left_ends + 4 * LANES, right_ends + 4 * COLUMNS
                        target = out + 4 * (m * columns + 2 * p * COLUMNS)
                        base = (target, columns) if k else (bias + 8 * p * COLUMNS, 0)
                        scale = scales + 8 * (g - g0) * ROWS, panel_scales + 8 * (p - first) * COLUMNS
                        _finish(seven, many, base, (target, columns), scale, streams and k + deep >= depth)
    settle()


@part
def _pack_rows(a, rows, many, half, packed, scales, ends):
    """The seven left factors of a group, [7,many,half]; at the address `rows` stand how many floats after `a` each row is.

    `scales` becomes [many,2]: the power of two that both rows of a pair are multiplied by, and what undoes it.
    """
    size = 4 * many * half
    for i in range(many):
        top, low = a + 4 * integer_at(rows + 8 * i), a + 4 * integer_at(rows + 8 * (many + i))
        if i + 1 < many:
            fetch_span(a + 4 * integer_at(rows + 8 * (i + 1)), 8 * half)
            fetch_span(a + 4 * integer_at(rows + 8 * (many + i + 1)), 8 * half)
        if SPARES:
            row_scale((top, low), 2 * half, scales + 8 * i, FLOAT32)
        for k in range(0, 4 * half, 4 * LANES):
            to = packed + 4 * i * half + k
            factors = to, to + size, to + 2 * size, to + 3 * size, to + 4 * size, to + 5 * size, to + 6 * size
            _left((top + k, top + 4 * half + k, low + k, low + 4 * half + k), factors, scales + 8 * i)
    if SPARES:
        for i in range(COUNT):
            row_ends(packed + i * size, half, half, ends + 4 * i * LANES)


@part
def _pack_panels(panels, half, packed, scales, ends):
    """The seven right factors of a pair, [7,half,columns], of its panels [2,2 half,columns].

    `scales` becomes [2,columns]: the powers of two that a column of both panels is multiplied by, and what undoes them.
    """
    size = 4 * half * COLUMNS
    if SPARES:
        column_scales((panels, panels + 2 * size), 2 * half, scales)
    for k in range(0, size, 4 * LANES):
        at, to = panels + k, packed + k
        factors = to, to + size, to + 2 * size, to + 3 * size, to + 4 * size, to + 5 * size, to + 6 * size
        _right((at, at + 2 * size, at + size, at + 3 * size), factors, scales + k % (4 * COLUMNS))
    if SPARES:
        for i in range(COUNT):
            column_ends(packed + i * size, half, ends + 4 * i * COLUMNS)


@part
def _finish(seven, many, base, out, scale, streams):
    """The four tiles of a group and a pair: `base` and sums of the seven products; places as multiply_tile has them."""
    (before, step), (to, width), (scales, panel_scales) = base, out, scale
    for i in range(many):
        for j in range(0, 4 * COLUMNS, 4 * LANES):
            t = seven + 4 * i * COLUMNS + j
            top, low = before + 4 * i * step + j, before + 4 * (many + i) * step + j
            products = t, t + TILE_BYTES, t + 2 * TILE_BYTES, t + 3 * TILE_BYTES, t + 4 * TILE_BYTES, t + 5 * TILE_BYTES
            bases = top, top + 4 * COLUMNS, low, low + 4 * COLUMNS
            above, below = to + 4 * i * width + j, to + 4 * (many + i) * width + j
            targets = above, above + 4 * COLUMNS, below, below + 4 * COLUMNS
            factors = scales + 8 * i + 4, panel_scales + 4 * COLUMNS + j
            if streams:
                _streamed((*products, t + 6 * TILE_BYTES), bases, targets, factors)
            else:
                _results((*products, t + 6 * TILE_BYTES), bases, targets, factors)
