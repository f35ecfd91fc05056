"""The matrix product that linear layers and convolutions share, in blocks that stay in the processor's caches.

out[m,n] = bias[n] + the sum over segments s and k of a[rows[m] + starts[s] + k] weight[n,s,k]. A linear layer has one segment, a
convolution one for every place of its window, and `rows` say where the windows begin: so nothing is gathered.
"""

from __future__ import annotations

import numpy as np

from refdiff.kernels.cpu import blocks, strassen
from refdiff.kernels.cpu.common import PER_NUMBER, address, jit, on_threads, part, parts_of, scratch
from refdiff.kernels.cpu.halves import FLOAT32, PAIR, narrow, room_for_narrowed, source
from refdiff.kernels.cpu.panels import COLUMNS, LINE, ROWS, SLICE, Weight, fetch_span, pack, pack_pairs, pairs_of
from refdiff.kernels.cpu.results import result
from refdiff.kernels.cpu.tile import multiply_tile
from refdiff.kernels.cpu.turns import COUNTER, add, counters, each, wait_for
from refdiff.kernels.cpu.vector import bytes_of, fetch_to_write, integer_at

DEPTH = 384  # of one step, in float32 or pairs of bfloat16: a panel of so many rows stays in the first cache
STRIPE = 16  # tiles of rows in one step, whose sums stay in the second cache
CHUNKS = 64  # of numbers that a thread narrows at a time
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
    if blocks.fits(depth) and (pairs or count // pictures >= blocks.SIDE):
        made = blocks.product(a, rows, starts, weight, first, pairs=pairs)
        return np.ascontiguousarray(made[:count, :columns])
    if not pairs and strassen.fits(count // pictures, weight.shape):
        return strassen.product(a[starts[0] :], rows, pictures, weight, first)
    places = np.full((stripes + 1) * ROWS, rows[-1], dtype=np.int64)
    places[:count] = rows
    out, begins = result(stripes * ROWS, panels * COLUMNS), np.ascontiguousarray(starts, dtype=np.int64)
    factors, chunks = room_for_narrowed(a) if pairs else (a, 0)
    words = 4 // factors.itemsize  # numbers in the four bytes that one step of a tile takes
    block = max(PACKED // (min(depth // words, DEPTH) * COLUMNS), 1)  # panels of one step
    parts = parts_of(max(panels, stripes), count * columns * segments * depth // PER_NUMBER)
    by_panels = panels >= 2 * parts
    turns = counters(parts + 1 + parts * -(-panels // block))
    sizes = count, stripes, panels, block, by_panels, pairs_of(weight) if factors.itemsize == 2 else 0
    lent, kind = (factors, places, begins, first, out), PAIR if pairs else FLOAT32

    def work(thread: int) -> None:
        room = min(block, panels) + words - 1  # in panels: what becomes pairs is packed as float32 first
        packed = scratch("packed", room * segments * depth * COLUMNS // words)
        own = address(scratch("columns", SLICE * segments * COLUMNS)), address(packed)
        at, stored = tuple(map(address, lent)), (*source(weight.flat), weight.shape, weight.steps)
        _product((thread, parts), address(turns), (address(a), chunks), sizes, at, stored, own, kind)

    on_threads(work, parts)
    return np.ascontiguousarray(out[:count, :columns])


@jit
def _product(thread, turn, narrowing, sizes, at, weight, own, kind):
    """The product on one of some threads, of panels, or of all panels and stripes of rows, as long as there are any.

    `turn`: the address of counters; `narrowing`: that of numbers of which so many chunks become bfloat16 first, at a; `sizes`:
    how many rows, tiles of them, panels, and panels at a time there are, whether panels are shared among threads, and
    how the weight lies, as pairs_of has it; `at`: the addresses of a, rows, starts, bias and the result; `own`: those of SLICE *
    segments rows of a panel and of packed panels. `kind` says, by its type, what is multiplied: see multiply_tile.
    """
    (count, stripes, panels, block, by_panels, paired), others = sizes, COUNTER * thread[1]
    size = bytes_of(kind) * weight[2][1] * weight[2][2] * COLUMNS  # of a packed panel
    if narrowing[1]:
        for i, end in each(turn, narrowing[1], CHUNKS, thread):
            narrow(i, end, narrowing[0], at[0])
            add(turn + others, end - i)
        wait_for(turn + others, narrowing[1])
    turn += others + COUNTER
    if by_panels:
        for p0, p1 in each(turn, panels, min(block, -(-panels // (4 * thread[1]))), thread):
            _pack_panels(p0, p1, weight, own, size, paired, kind)
            _multiply((0, stripes * ROWS), p0, p1, (count, panels * COLUMNS), at, weight[2], own[1], kind)
    else:
        for p0 in range(0, panels, block):
            p1 = min(p0 + block, panels)
            _pack_panels(p0, p1, weight, own, size, paired, kind)
            for i, end in each(turn, stripes, STRIPE, thread):
                _multiply((i * ROWS, end * ROWS), p0, p1, (count, panels * COLUMNS), at, weight[2], own[1], kind)
            turn += others


@part
def _pack_panels(p0, p1, weight, own, size, paired, kind):
    """The panels p0..p1 one after the other, as numbers of `kind`."""
    for p in range(p0, p1):
        if bytes_of(kind) == 2:
            pack_pairs(weight, p, own[0], own[1] + (p - p0) * size, paired)
        else:
            pack(weight, p, own[0], own[1] + (p - p0) * size)


@part
def _multiply(lines, p0, p1, size, at, shape, packed, kind):
    """These rows of the panels p0..p1, which were packed; `size`: the rows there are and the floats of one of the result."""
    (a, rows, starts, bias, out), (count, width) = at, size
    _, segments, depth = shape
    number = bytes_of(kind)
    words = 4 // number
    size = number * segments * depth * COLUMNS
    for m0 in range(lines[0], lines[1], STRIPE * ROWS):
        for s in range(segments):
            for k in range(0, depth, DEPTH * words):
                deep, begin = min(DEPTH * words, depth - k), s == 0 and k == 0
                left, right = a + number * (integer_at(starts + 8 * s) + k), packed + number * (s * depth + k) * COLUMNS
                for m in range(m0, min(m0 + STRIPE * ROWS, lines[1]), ROWS):
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
