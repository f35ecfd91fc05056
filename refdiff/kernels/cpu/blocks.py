"""The matrix product in blocks for the matrix unit of amx.py, which is faster than the caches behind it.

Of bfloat16 it is one product; float32 is cut into pieces, see pieces.py, and is as exact as other sums of float32.

Either side is packed once. The smaller one, as it is packed, is shared by all threads; of the other each packs a part, multiplies
it by all of the smaller one, and takes the next.
"""

from __future__ import annotations

import numpy as np

from refdiff.kernels.cpu import amx
from refdiff.kernels.cpu.common import PER_NUMBER, address, jit, on_threads, part, parts_of, scratch
from refdiff.kernels.cpu.halves import source
from refdiff.kernels.cpu.panels import COLUMNS, LINE, SLICE, Weight, pack, pack_pairs, pairs_of
from refdiff.kernels.cpu.pieces import PIECES, cut_rows_in_three, cut_rows_in_two, cut_step
from refdiff.kernels.cpu.results import result
from refdiff.kernels.cpu.turns import COUNTER, add, counters, each, wait_for
from refdiff.kernels.cpu.vector import copy_row, fetch_to_write, integer_at

SIDE, STEP, BYTES, PANEL = amx.SIDE, amx.STEP, amx.BYTES, amx.PANEL
DEEPEST = 20  # steps at a time, of which the rows of a block stay in the first cache
BESIDE = 16  # panels at a time, which stay so deep in the second cache
STRIPE, GROUP = 8, 5  # blocks of rows and panels that a thread takes at a time, as many as leave enough turns
MATRIX_UNIT = amx.AMX


def fits(depth: int) -> bool:
    """Whether products of that depth can be made in blocks: the processor has the unit, and depths are whole steps."""
    return MATRIX_UNIT and depth % STEP == 0


def product(a: np.ndarray, rows: np.ndarray, starts: np.ndarray, weight: Weight, bias: np.ndarray, *, pairs: bool) -> np.ndarray:
    """out[m,n] = bias[n] + the sum over s and k of a[rows[m] + starts[s] + k] weight[n,s,k].

    With `pairs` both factors are rounded to bfloat16. `bias` is as long as whole panels.
    Shapes: [?], [M], [S], [N,S,K], [N to whole panels] -> [M to whole blocks,N to whole panels]
    """
    _, segments, depth = weight.shape
    blocks, panels, steps = -(-len(rows) // SIDE), len(bias) // COLUMNS, segments * depth // STEP
    places = np.full(blocks * SIDE, rows[-1], dtype=np.int64)
    places[: len(rows)] = rows
    begins, out = np.ascontiguousarray(starts, dtype=np.int64), result(blocks * SIDE, panels * COLUMNS)
    pieces = (1, 1) if pairs else (3, PIECES[weight.flat.dtype])
    by_panels = blocks * pieces[0] < panels * pieces[1]
    shared = scratch("shared blocks", (blocks * pieces[0] if by_panels else panels * pieces[1]) * steps * BYTES // 4)
    parts = parts_of(panels if by_panels else blocks, len(rows) * panels * COLUMNS * segments * depth // PER_NUMBER)
    turns = counters(2 * parts + 1)
    group = max(min(GROUP if by_panels else STRIPE, max(blocks, panels) // (4 * parts)), 1)
    deep = -(-steps // -(-steps // DEEPEST))  # about alike, for sums go to memory and back between them
    sizes = blocks, panels, steps, depth // STEP, deep, group, by_panels, pairs_of(weight), pieces
    lent = a, places, begins, bias, out

    def work(thread: int) -> None:
        own = scratch("blocks", group * (steps * pieces[1] if by_panels else deep * pieces[0]) * BYTES // 4)
        spare = scratch("panel", depth * segments * COLUMNS), scratch("columns", SLICE * segments * COLUMNS)
        stored = (*source(weight.flat), weight.shape, weight.steps)
        memory = tuple(address(x) for x in (shared, own, *spare))
        _product((thread, parts), address(turns), sizes, tuple(map(address, lent)), memory, stored)

    on_threads(work, parts)
    return out


@jit
def _product(thread, turn, sizes, at, memory, weight):
    """The product on one of some threads. `turn`: the address of counters; `at`: those of a, rows, starts, bias and the result.

    `sizes`: how many blocks of rows, panels, steps, steps of a segment, and steps, blocks or panels at a time there are, whether
    panels are shared among threads, how the weight lies, as pairs_of has it, and in how many pieces rows and the weight are;
    `memory`: the addresses of what is packed for all, of what is packed for this thread, and of a panel of float32 and SLICE *
    segments rows of one.
    """
    (blocks, panels, steps, _, most, group, by_panels, paired, pieces), others = sizes, turn + COUNTER * thread[1]
    (shared, own, panel, columns), long, broad = memory, pieces[0] * BYTES, pieces[1] * PANEL
    wide, tall = steps * broad, steps * long  # bytes of a panel and of a block of rows
    amx.begin()
    if by_panels:
        for i, end in each(turn, blocks, 1, thread):
            _pack_rows(i, end, 0, steps, sizes, at, shared + i * tall)
            add(others, end - i)
        wait_for(others, blocks)
        for p0, p1 in each(others + COUNTER, panels, group, thread):
            for p in range(p0, p1):
                _pack_panel(weight, p, columns, panel, own + (p - p0) * wide, paired, pieces)
            for t in range(0, steps, most):
                left, right = (shared + t * long, tall), (own + t * broad, wide)
                _multiply((0, blocks), (p0, p1), left, right, (t, min(most, steps - t)), panels, at, pieces)
    else:
        for p, _ in each(turn, panels, 1, thread):
            _pack_panel(weight, p, columns, panel, shared + p * wide, paired, pieces)
            add(others, 1)
        wait_for(others, panels)
        for i, end in each(others + COUNTER, blocks, group, thread):
            for t in range(0, steps, most):
                deep = min(most, steps - t)
                _pack_rows(i, end, t, deep, sizes, at, own)
                for p in range(0, panels, BESIDE):
                    left, right = (own, deep * long), (shared + p * wide + t * broad, wide)
                    _multiply((i, end), (p, min(p + BESIDE, panels)), left, right, (t, deep), panels, at, pieces)
    amx.end()


@part
def _pack_panel(weight, p, columns, spare, packed, paired, pieces):
    """A panel as pairs of bfloat16, which numbers of more than one piece are not rounded to."""
    if pieces[1] > 1:
        pack(weight, p, columns, spare)
        for k in range(0, weight[2][1] * weight[2][2], 2):
            to = packed + k // STEP * pieces[1] * PANEL + k % STEP * 2 * COLUMNS
            if pieces[1] == 2:
                cut_rows_in_two(spare + 4 * k * COLUMNS, to)
            else:
                cut_rows_in_three(spare + 4 * k * COLUMNS, to)
    elif paired:
        pack_pairs(weight, p, columns, packed, paired)
    else:  # what becomes pairs is packed as float32 first, which takes twice the memory
        pack_pairs(weight, p, columns, spare, paired)
        for i in range(weight[2][1] * weight[2][2] // 2):
            copy_row(spare + 4 * i * COLUMNS, packed + 4 * i * COLUMNS)


@part
def _pack_rows(first, last, t, deep, sizes, at, packed):
    """The blocks of rows first..last, `deep` steps from t on, as bfloat16 in tiles."""
    a, rows, starts, _, _ = at
    for i in range(first, last):
        for j in range(t, t + deep):
            start = a + 4 * (integer_at(starts + 8 * (j // sizes[3])) + j % sizes[3] * STEP)
            for m in range(SIDE):
                source, to = start + 4 * integer_at(rows + 8 * (i * SIDE + m)), packed + 2 * STEP * m
                if sizes[8][0] == 1:
                    amx.narrow_step(source, to)
                else:
                    cut_step(source, to)
            packed += sizes[8][0] * BYTES


@part
def _multiply(blocks, panels, left, right, now, across, at, pieces):
    """Some blocks of rows by some panels, for the steps (first, how many) `now`; (addresses, bytes from one to the next)."""
    bias, out, width = at[3], at[4], across * COLUMNS
    for i in range(blocks[0], blocks[1]):
        for p in range(panels[0], panels[1]):
            to = out + 4 * (i * SIDE * width + p * COLUMNS)
            base, step = (to, width) if now[0] else (bias + 4 * p * COLUMNS, 0)
            for line in range(to, to + 4 * SIDE * width, 4 * width):  # to write a line asks for it first
                for j in range(0, 4 * COLUMNS, LINE):
                    fetch_to_write(line + j)
            a, b = left[0] + (i - blocks[0]) * left[1], right[0] + (p - panels[0]) * right[1]
            _add_block(pieces, a, b, now[1], (base, step), (to, width))


@part
def _add_block(pieces, a, b, steps, base, out):
    """out = base + A B, of numbers in so many pieces: see amx.py."""
    if pieces[0] == 1:
        amx.multiply_block(a, b, steps, base, out)
    elif pieces[1] == 1:
        amx.multiply_by_one(a, b, steps, base, out)
    elif pieces[1] == 2:
        amx.multiply_by_two(a, b, steps, base, out)
    else:
        amx.multiply_by_three(a, b, steps, base, out)
