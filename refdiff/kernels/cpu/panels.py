"""Panels: columns of a matrix as a product takes them, a row of a tile side by side and one after the other in k."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from refdiff.kernels.cpu.bfloat16 import pair_inner_halves, pair_outer_halves, pair_rows
from refdiff.kernels.cpu.common import part
from refdiff.kernels.cpu.halves import BFLOAT16, FLOAT32
from refdiff.kernels.cpu.vector import TILE, bytes_of, copy_row, fetch, move_number, put_float, transpose_square

ROWS, COLUMNS, LANES = TILE
AHEAD = 256  # bytes before they are read that numbers of a row are asked for
LINE = 64  # bytes of a line of a cache
SLICE = 16  # channels whose windows are packed at a time; of bfloat16 twice as many
NOTHING = np.float32(0)
SIDE_BY_SIDE, BETWEEN = 1, 2  # how two numbers of bfloat16 that follow one another in k lie in memory


class Weight(NamedTuple):
    """A weight [columns,segments,depth] in flat memory: how many numbers lie from one column, segment, and k to the next.

    Its numbers are of a dtype that KINDS has, and widened as they are packed.
    """

    flat: np.ndarray
    shape: tuple[int, int, int]
    steps: tuple[int, int, int]


def pairs_of(weight: Weight) -> int:
    """SIDE_BY_SIDE, or BETWEEN where all taps of a channel lie between them, if four bytes can be moved together; else 0."""
    (_, segments, depth), (column, segment, place) = weight.shape, weight.steps
    if weight.flat.dtype != BFLOAT16 or column % 2:
        return 0
    if place == 1 and segment % 2 == 0:
        return SIDE_BY_SIDE
    return BETWEEN if place == segments and segment == 1 and segments % 2 == 1 and depth % 2 == 0 else 0


@part
def fetch_span(start: Any, size: Any) -> None:
    """Ask for so many bytes of memory."""
    for i in range(0, size, LINE):
        fetch(start + i)


@part
def fetch_rows(rows: Any, first: Any, size: Any) -> None:
    """Ask for the bytes first..first+size of rows of memory: (where they begin, from row to row, their number, bytes of each).

    A row has as many bytes as a line of a cache, or more.
    """
    start, step, many, width = rows
    row, at = first // max(width, 1), first % max(width, 1)
    for _ in range(0, min(size, many * width - first), LINE):
        fetch(start + row * step + at)
        at += LINE
        if at >= width:
            row, at = row + 1, at - width


@part
def pack_pairs(weight: Any, panel: Any, spare: Any, packed: Any, paired: Any) -> None:
    """A panel as pairs of bfloat16 that follow one another in k; there must be room for a panel of float32.

    `paired` says how the weight lies, see pairs_of; `spare` is the address of SLICE * segments rows of a panel.
    """
    flat, kind, (columns, segments, depth), (column, segment, place) = weight
    first, left = flat + 2 * panel * COLUMNS * column, columns - panel * COLUMNS
    if paired == BETWEEN:
        for k in range(0, depth, 2 * SLICE):
            _pair_taps(
                first + 2 * k * segments, column // 2, left, (segments, min(2 * SLICE, depth - k)), spare, depth, packed, k
            )
    elif paired:
        for s in range(segments):
            to = packed + 2 * s * depth * COLUMNS
            # A pair is moved as if it were one float.
            gather_columns(first + 2 * s * segment, column // 2, left, depth // 2, to, FLOAT32)
    else:
        pack(weight, panel, spare, packed)
        pair_panel(packed, segments * depth)


@part
def pair_panel(panel: Any, rows: Any) -> None:
    """The rows of a panel of float32, an even number of them, as pairs of bfloat16, in its first half."""
    for i in range(0, rows, 2):
        pair_rows(panel + 4 * i * COLUMNS, panel + 2 * i * COLUMNS)


@part
def _pair_taps(lines: Any, column: Any, left: Any, size: Any, spare: Any, depth: Any, packed: Any, first: Any) -> None:
    """The pairs of some channels, `first` and others, all taps of each of which lie together in memory, an odd number of them.

    Of four bytes, moved together, the halves are two taps: the one that a pair needs, and one of another pair.
    """
    taps, channels = size
    gather_columns(lines, column, left, channels * taps // 2, spare, FLOAT32)
    for c in range(0, channels, 2):
        for s in range(taps):
            one, to = c * taps + s, packed + 2 * (s * depth + first + c) * COLUMNS
            at, other = spare + 4 * (one // 2) * COLUMNS, spare + 4 * ((one + taps) // 2) * COLUMNS
            if one % 2:
                pair_inner_halves(at, other, to)
            else:
                pair_outer_halves(at, other, to)


@part
def pack(weight: Any, panel: Any, spare: Any, packed: Any) -> None:
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
            for r in range(j, j + LANES):
                fetch(start + size * (r * step + i) + AHEAD)
            transpose_square(start + size * (j * step + i), step, target + 4 * (i * to + j), to, kind)
    for i in range(many):
        for j in range(wide if i < deep else 0, lines):
            move_number(start + size * (j * step + i), target + 4 * (i * to + j), kind)
