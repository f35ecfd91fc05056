"""Vectors of bfloat16: the upper half of a float32, of which processors with AVX512-BF16 multiply two numbers at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core.cgutils import get_or_insert_function
from numba.extending import intrinsic

from refdiff.kernels.cpu.vector import FEATURES, FLOAT, INDEX, TILE, VECTOR, WORD, _load, _pointer, _store, _word, several

PAIRS = bool(FEATURES.get("avx512bf16"))  # whether the processor multiplies pairs, two numbers where it has one float32
NARROWS = PAIRS and TILE.lanes == 16  # whether one instruction narrows two vectors


class _BFloat(ir.Type):
    """LLVM's bfloat, which llvmlite does not know."""

    def _to_string(self) -> str:
        return "bfloat"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _BFloat)

    def __hash__(self) -> int:
        return hash(_BFloat)


BFLOAT, HALF = _BFloat(), ir.IntType(16)


def _pair_rows(typing: Any, source: Any, target: Any) -> Any:
    """target[j] = the pair of bfloat16 nearest to source[j] and source[columns + j], for the columns of a tile; addresses."""

    def emit(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        start, out = (_pointer(builder, address, FLOAT) for address in args)
        for j in range(0, TILE.columns, TILE.lanes):
            one, other = (_load(builder, builder.gep(start, [INDEX(j + row)])) for row in (0, TILE.columns))
            _store(builder, _paired(builder, one, other), builder.gep(out, [INDEX(j)]))
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), emit


def _paired(builder: ir.IRBuilder, one: Any, other: Any) -> Any:
    """The pairs of bfloat16 nearest to two vectors of float32, as a vector."""
    if NARROWS:
        narrow = builder.bitcast(_narrowed_both(builder, one, other), ir.VectorType(HALF, 2 * TILE.lanes))
        places = [i // 2 + i % 2 * TILE.lanes for i in range(2 * TILE.lanes)]
        return builder.bitcast(
            builder.shuffle_vector(narrow, narrow, ir.Constant(ir.VectorType(WORD, len(places)), places)), VECTOR
        )
    first, second = (_narrowed(builder, value) for value in (one, other))
    return builder.bitcast(builder.or_(first, builder.shl(second, _word(several(WORD), 16))), VECTOR)


def _narrowed_both(builder: ir.IRBuilder, one: Any, other: Any) -> Any:
    """The bfloat16 nearest to the numbers of two vectors, one vector after the other; where NARROWS."""
    both = ir.FunctionType(ir.VectorType(BFLOAT, 2 * TILE.lanes), [VECTOR, VECTOR])
    return builder.call(get_or_insert_function(builder.module, both, "llvm.x86.avx512bf16.cvtne2ps2bf16.512"), [other, one])


def _narrowed(builder: ir.IRBuilder, value: Any) -> Any:
    """The bits of the bfloat16 nearest to each float32, ties to even, in the lower half of a word; NaN stays."""
    word = several(WORD)
    if PAIRS:
        bits = builder.bitcast(builder.fptrunc(value, several(BFLOAT)), several(ir.IntType(16)))
        return builder.zext(bits, word)
    bits = builder.bitcast(value, word)
    odd = builder.and_(builder.lshr(bits, _word(word, 16)), _word(word, 1))
    rounded = builder.add(bits, builder.add(odd, _word(word, 0x7FFF)))
    nan = builder.fcmp_unordered("uno", value, value)
    return builder.lshr(builder.select(nan, builder.or_(bits, _word(word, 0x400000)), rounded), _word(word, 16))


def _store_narrow(builder: ir.IRBuilder, value: Any, pointer: Any) -> None:
    half = several(HALF)
    builder.store(builder.trunc(_narrowed(builder, value), half), builder.bitcast(pointer, half.as_pointer()), align=2)


def _narrow_vector(typing: Any, source: Any, target: Any) -> Any:
    """The bfloat16 nearest to each of a vector's floats at an address, written to another."""

    def emit(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        _store_narrow(builder, _load(builder, _pointer(builder, args[0], FLOAT)), _pointer(builder, args[1], HALF))
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), emit


def _pairing(paired: Callable) -> Any:
    """A function (one, other, target), addresses of a tile's columns of words: target[j] = paired(builder, one[j], other[j])."""

    def emit(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        one, other, target = (_pointer(builder, address, FLOAT) for address in args)
        for j in range(0, TILE.columns, TILE.lanes):
            words = [builder.bitcast(_load(builder, builder.gep(at, [INDEX(j)])), several(WORD)) for at in (one, other)]
            _store(builder, builder.bitcast(paired(builder, *words), VECTOR), builder.gep(target, [INDEX(j)]))
        return context.get_dummy_value()

    def pair(typing: Any, one: Any, other: Any, target: Any) -> Any:
        return types.void(*[types.int64] * 3), emit

    return intrinsic(pair)


def _outer_halves(builder: ir.IRBuilder, one: Any, other: Any) -> Any:
    """The lower half of one word, and the upper half of another."""
    word = several(WORD)
    return builder.or_(builder.and_(one, _word(word, 0xFFFF)), builder.and_(other, _word(word, 0xFFFF0000)))


def _inner_halves(builder: ir.IRBuilder, one: Any, other: Any) -> Any:
    """The upper half of one word, and the lower half of another."""
    half = _word(several(WORD), 16)
    return builder.or_(builder.lshr(one, half), builder.shl(other, half))


pair_outer_halves, pair_inner_halves = _pairing(_outer_halves), _pairing(_inner_halves)
pair_rows: Any = intrinsic(_pair_rows)
narrow_vector: Any = intrinsic(_narrow_vector)
