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

import numpy as np

from refdiff.kernels.cpu.common import PER_NUMBER, address, jit, on_threads, part, parts_of, scratch
from refdiff.kernels.cpu.halves import FLOAT32, SPARED, source
from refdiff.kernels.cpu.inner import READ_ON, SPARES, column_ends, column_scales, multiply, row_ends, row_scale
from refdiff.kernels.cpu.panels import COLUMNS, LANES, ROWS, Weight, fetch_span, pack
from refdiff.kernels.cpu.results import result
from refdiff.kernels.cpu.sums import closing, mixture
from refdiff.kernels.cpu.tile import SHORT
from refdiff.kernels.cpu.turns import COUNTER, add, counters, each, wait_for
from refdiff.kernels.cpu.vector import bytes_of, integer_at, settle

COUNT = 7
LEFT = ((1, 0, 0, 0), (0, 1, 0, 0), (1, 1, -1, -1), (0, 0, 0, 1), (0, 0, 1, 1), (-1, 0, 1, 1), (1, 0, -1, 0))  # of a, b, c, d
RIGHT = ((1, 0, 0, 0), (0, 0, 1, 0), (0, 0, 0, 1), (-1, 1, 1, -1), (-1, 1, 0, 0), (1, -1, 0, 1), (0, -1, 0, 1))  # of p, q, r, s
RESULTS = ((1, 1, 0, 0, 0, 0, 0), (1, 0, 1, 0, 1, 1, 0), (1, 0, 0, 1, 0, 1, 1), (1, 0, 0, 0, 1, 1, 1))  # of the products
_left, _right = mixture(LEFT, each=False), mixture(RIGHT, each=True)
_results, _streamed = closing(RESULTS), closing(RESULTS, streaming=True)

KIND = SPARED if SPARES else FLOAT32
STRIPE = 4  # groups of rows at a time, whose packed sums stay in the second cache
BESIDE = 2  # pairs at a time, the same
DEEPEST = 640  # of one step, so that a pair's packed sums stay there too
PACKED, PACKED_ROWS = 1 << 20, 5 << 19  # floats of packed sums of panels, and of rows, that threads share at a time
TILE_BYTES = 4 * ROWS * COLUMNS
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
    out, steps = result(len(rows), columns), -(-depth // DEEPEST)
    deep = -(-depth // (steps * 2 * LANES)) * 2 * LANES
    places, zeros = np.arange(2 * ROWS).reshape(2, ROWS) % ROWS, np.zeros(COLUMNS, np.float32)
    places *= np.array([[deep // 2], [(depth - deep * (steps - 1)) // 2]])
    rows = np.ascontiguousarray(rows, dtype=np.int64)
    streams = out.nbytes >= LARGE and address(out) % (4 * LANES) == 0
    pairs, parts = columns // (2 * COLUMNS), parts_of(len(groups), len(rows) * columns * depth // PER_NUMBER)
    by_pairs = columns > len(rows) and _floats(deep, ROWS, len(groups)) <= PACKED_ROWS  # the more of the two is packed once
    if by_pairs:
        run, many = _shared_rows, min(PACKED_ROWS // _floats(deep, ROWS, len(groups)), steps)
        phases, shared = -(-steps // many), _memory("shared rows", deep, ROWS, len(groups) * many)
    else:
        run, many = _shared_panels, min(max(PACKED // _floats(deep, COLUMNS, 1), 1), pairs)
        phases = -(-pairs // many) * steps
        shared = _memory("shared columns", deep, COLUMNS, min(phases, 2) * many)
    turns, sizes = counters(phases * 2 * (parts + 1)), (len(groups), pairs, many, deep)

    def work(thread: int) -> None:
        own = scratch("panels", 2 * deep * COLUMNS), scratch("seven", COUNT * ROWS * COLUMNS)
        of_rows = shared if by_pairs else _memory("rows", deep, ROWS, STRIPE)
        of_columns = _memory("columns", deep, COLUMNS, BESIDE) if by_pairs else shared
        at = tuple(address(x) for x in (a, rows, groups, bias, out, places, zeros, *own))
        sides = _addresses(of_rows, deep, ROWS), _addresses(of_columns, deep, COLUMNS)
        run((thread, parts), sizes, address(turns), at, *sides, (*source(weight.flat), weight.shape, weight.steps), streams)

    on_threads(work, parts)
    return out


def _floats(deep: int, unit: int, many: int) -> int:
    """Of the packed sums of so many groups of rows or pairs of panels, `unit` being the rows or columns of a tile."""
    return many * COUNT * deep // 2 * unit


def _memory(name: str, deep: int, unit: int, many: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """This thread's memory for the sums of so many groups or pairs, for scales, 1 where no products are spared, and for ends."""
    sums = scratch(f"{name}: sums", _floats(deep, unit, many) + ROWS * deep + READ_ON)  # behind rows row_ends may read
    scales = scratch(f"{name}: scales", many * 2 * unit)
    scales[:] = 1
    return sums, scales, scratch(f"{name}: ends", many * COUNT * max(unit, LANES))


def _addresses(memory: tuple, deep: int, unit: int) -> tuple[int, int, int, int]:
    """Those of what _memory gives, and the bytes of the sums of one group or pair."""
    sums, scales, ends = map(address, memory)
    return sums, scales, ends, 4 * _floats(deep, unit, 1)


@jit
def _shared_panels(thread, sizes, turn, at, of_rows, of_columns, weight, streams):
    """The product on one of some threads: they pack panels for all, and then each its own rows, a few groups at a time.

    `sizes`: how many groups and pairs there are, pairs are packed at a time, and how deep a step is; `turn`: the address of the
    counters of each phase, what is packed, how much was, what is multiplied, how much was; `at`: the addresses that product has.
    """
    a, rows, groups, bias, out, places, zeros, panels, seven = at
    (many_groups, pairs, many, deep), (columns, _, depth) = sizes, weight[2]
    others, base = COUNTER * thread[1], 0
    for first in range(0, pairs, many):
        now = min(many, pairs - first)
        for k in range(0, depth, deep):
            half, lies, ways = _step(k, deep, depth, places, streams)
            for p, _ in each(turn, now, 1, thread):
                _pack_pair(weight, first + p, k, half, panels, _place(of_columns, base + p, COLUMNS))
                add(turn + others, 1)
            wait_for(turn + others, now)
            if first or k:  # results of the phase before may be gone on with, and its memory is free
                wait_for(turn - COUNTER, many_groups)
            turn += others + COUNTER
            for g0, g1 in each(turn, many_groups, STRIPE, thread):
                for g in range(g0, g1):
                    _pack_group(a + 4 * k, rows, groups + 16 * g, half, _place(of_rows, g - g0, ROWS))
                for p in range(now):
                    right, target = _place(of_columns, base + p, COLUMNS), (out, columns, bias, first + p)
                    for g in range(g0, g1):
                        left = _place(of_rows, g - g0, ROWS)
                        _multiply(groups + 16 * g, left, right, half, (lies, zeros, seven), target, ways)
                add(turn + others, g1 - g0)
            turn += others + COUNTER
            base = many - base
    settle()


@jit
def _shared_rows(thread, sizes, turn, at, of_rows, of_columns, weight, streams):
    """The same, but rows are packed for all, `sizes` has of how many steps at a time, and each packs its own pairs."""
    a, rows, groups, bias, out, places, zeros, panels, seven = at
    (many_groups, pairs, many, deep), (columns, _, depth) = sizes, weight[2]
    others = COUNTER * thread[1]
    for begin in range(0, depth, many * deep):
        steps = min(many, -(-(depth - begin) // deep))
        if begin:  # the same
            wait_for(turn - COUNTER, pairs)
        for i, _ in each(turn, many_groups * steps, 1, thread):
            k = begin + i % steps * deep
            _pack_group(a + 4 * k, rows, groups + 16 * (i // steps), min(deep, depth - k) // 2, _place(of_rows, i, ROWS))
            add(turn + others, 1)
        wait_for(turn + others, many_groups * steps)
        turn += others + COUNTER
        for p0, p1 in each(turn, pairs, BESIDE, thread):
            for step in range(steps):
                k = begin + step * deep
                half, lies, ways = _step(k, deep, depth, places, streams)
                for p in range(p0, p1):
                    _pack_pair(weight, p, k, half, panels, _place(of_columns, p - p0, COLUMNS))
                for g in range(many_groups):
                    left = _place(of_rows, g * steps + step, ROWS)
                    for p in range(p0, p1):
                        right, target = _place(of_columns, p - p0, COLUMNS), (out, columns, bias, p)
                        _multiply(groups + 16 * g, left, right, half, (lies, zeros, seven), target, ways)
            add(turn + others, p1 - p0)
        turn += others + COUNTER
    settle()


@part
def _step(k, deep, depth, places, streams):
    """Of the step from k on: half its depth, where packed rows lie, and how results are written, as _multiply has it."""
    half = min(deep, depth - k) // 2
    return half, places + (0 if 2 * half == deep else 8 * ROWS), (k > 0, streams and k + deep >= depth)


@part
def _place(memory, i, unit):
    """The addresses of the i-th group's or pair's sums, scales and ends, in what _addresses gives."""
    sums, scales, ends, size = memory
    return sums + i * size, scales + 8 * i * unit, ends + 4 * COUNT * i * max(unit, LANES)


@part
def _multiply(group, left, right, half, lent, target, ways):
    """The products of a group and a pair, of packed sums, and the results they make.

    `ways`: whether there are sums already, and whether they are written past the caches.
    """
    (left, scales, left_ends), (right, panel_scales, right_ends), (lies, zeros, seven) = left, right, lent
    (out, columns, bias, pair), (goes_on, streams) = target, ways
    m, many = integer_at(group), integer_at(group + 8)
    for i in range(COUNT):
        tile = seven + i * TILE_BYTES, COLUMNS
        multiply(left, lies, many, right, half, (zeros, 0), tile, (left_ends, 1, right_ends), KIND)
        left, right = left + 4 * many * half, right + 4 * half * COLUMNS
        left_ends, right_ends = left_ends + 4 * LANES, right_ends + 4 * COLUMNS
    to = out + 4 * (m * columns + 2 * pair * COLUMNS)
    base = (to, columns) if goes_on else (bias + 8 * pair * COLUMNS, 0)
    _finish(seven, many, base, (to, columns), (scales, panel_scales), streams)


@part
def _pack_group(a, rows, group, half, place):
    """_pack_rows of a group, at the address of which its first row and the height of its tiles stand."""
    m, many = integer_at(group), integer_at(group + 8)
    packed, scales, ends = place
    _pack_rows(a, rows + 8 * m, many, half, packed, scales, ends)


@part
def _pack_pair(weight, pair, k, half, panels, place):
    """_pack_panels of a pair, from k on."""
    flat, kind, (columns, _, _), steps = weight
    packed, scales, ends = place
    stored = flat + bytes_of(kind) * k * steps[2], kind, (columns, 1, 2 * half), steps
    for j in range(2):
        pack(stored, 2 * pair + j, np.int64(0), panels + 8 * j * half * COLUMNS)
    _pack_panels(panels, half, packed, scales, ends)


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
