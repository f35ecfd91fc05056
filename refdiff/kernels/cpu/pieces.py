"""Numbers of float32 in three pieces of bfloat16, whose sum they are: 24 binary digits in three times 8.

The first piece is the upper half of the number, so that the largest stays finite; the second is rounded, so that the third, which
has either sign, is small. A float16 has 11 digits, in two pieces; a bfloat16 is one. Pieces of what is not finite make it NaN.

Source: Henry, Tang, Heinecke 2019, Leveraging the bfloat16 Artificial Intelligence Datatype For Higher-Precision Computations
    (arXiv 1904.06376)
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from refdiff.kernels.cpu.amx import BYTES, PANEL, STEP
from refdiff.kernels.cpu.bfloat16 import HALF, NARROWS, _narrowed, _narrowed_both
from refdiff.kernels.cpu.halves import BFLOAT16
from refdiff.kernels.cpu.vector import FLOAT, INDEX, TILE, VECTOR, WORD, _load, _pointer, _store, _word, several

PIECES = {np.dtype(np.float32): 3, np.dtype(np.float16): 2, BFLOAT16: 1}


def _cut(builder: ir.IRBuilder, value: Any) -> list:
    """The three pieces of a vector's numbers, in the lower halves of words."""
    words = several(WORD)
    half, upper = _word(words, 16), _word(words, 0xFFFF0000)
    bits = builder.bitcast(value, words)
    rest = builder.fsub(value, builder.bitcast(builder.and_(bits, upper), VECTOR))
    second = _narrowed(builder, rest)
    rest = builder.fsub(rest, builder.bitcast(builder.shl(second, half), VECTOR))
    return [builder.lshr(bits, half), second, builder.lshr(builder.bitcast(rest, words), half)]


def _cut_step(typing: Any, source: Any, target: Any) -> Any:
    """The pieces of STEP floats at an address, written to another: one row of a tile of each, BYTES from one to the next."""

    def emit(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        source, target = _pointer(builder, args[0], FLOAT), _pointer(builder, args[1], HALF)
        values = [_load(builder, builder.gep(source, [INDEX(j)])) for j in range(0, STEP, TILE.lanes)]

        def put(halves: Any, piece: int, j: int) -> None:
            at = builder.bitcast(builder.gep(target, [INDEX(piece * BYTES // 2 + j)]), halves.type.as_pointer())
            builder.store(halves, at, align=2)

        if NARROWS:
            for i, halves in enumerate(_cut_both(builder, *values)):
                put(halves, i, 0)
            return context.get_dummy_value()
        for j, value in enumerate(values):
            for i, piece in enumerate(_cut(builder, value)):
                put(builder.trunc(piece, several(HALF)), i, j * TILE.lanes)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), emit


def _cut_both(builder: ir.IRBuilder, one: Any, other: Any) -> list:
    """The three pieces of the numbers of two vectors, one vector after the other."""
    words, both = several(WORD), ir.VectorType(HALF, 2 * TILE.lanes)

    def upper(pair: list) -> Any:
        halves = [builder.bitcast(value, both) for value in pair]
        return builder.shuffle_vector(*halves, ir.Constant(ir.VectorType(WORD, both.count), list(range(1, 2 * both.count, 2))))

    pair, mask = [one, other], _word(words, 0xFFFF0000)
    firsts = [builder.bitcast(builder.and_(builder.bitcast(value, words), mask), VECTOR) for value in pair]
    rests = [builder.fsub(value, first) for value, first in zip(pair, firsts, strict=True)]
    second = builder.bitcast(_narrowed_both(builder, *rests), both)
    for i in range(2):
        places = ir.Constant(ir.VectorType(WORD, TILE.lanes), list(range(i * TILE.lanes, (i + 1) * TILE.lanes)))
        wide = builder.shl(builder.zext(builder.shuffle_vector(second, second, places), words), _word(words, 16))
        rests[i] = builder.fsub(rests[i], builder.bitcast(wide, VECTOR))
    return [upper(pair), second, upper(rests)]


def _cutting_rows(count: int) -> Any:
    """A function (source, target): so many pieces of two rows of a panel, in pairs, PANEL bytes apart; both are addresses."""

    def emit(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        start, out = (_pointer(builder, address, FLOAT) for address in args)
        for j in range(0, TILE.columns, TILE.lanes):
            both = [_cut(builder, _load(builder, builder.gep(start, [INDEX(j + row)])))[:count] for row in (0, TILE.columns)]
            for i, (one, other) in enumerate(zip(*both, strict=True)):
                pair = builder.or_(one, builder.shl(other, _word(several(WORD), 16)))
                _store(builder, builder.bitcast(pair, VECTOR), builder.gep(out, [INDEX(i * PANEL // 4 + j)]))
        return context.get_dummy_value()

    def cut(typing: Any, source: Any, target: Any) -> Any:
        return types.void(types.int64, types.int64), emit

    return intrinsic(cut)


cut_step: Any = intrinsic(_cut_step)
cut_rows_in_two, cut_rows_in_three = _cutting_rows(2), _cutting_rows(3)
