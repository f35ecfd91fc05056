"""What is written for the processor's vectors: moves, transpositions, and numbers of other widths.

Numba compiles loops well, but holds nothing in registers as it is told to; so these are built from LLVM's instructions, as are
the sums of vectors in sums.py and the tile of a matrix product in tile.py.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import llvmlite.binding
from llvmlite import ir
from numba import types
from numba.core.cgutils import get_or_insert_function
from numba.extending import intrinsic


class Tile(NamedTuple):
    """Most rows and columns of a tile, and the floats of a vector; columns are a multiple of the vector."""

    rows: int
    columns: int
    lanes: int


# By what the processor has, the first that fits: rows * columns / lanes sums, and what multiplies them, fill its registers.
TILES = {"avx512f": Tile(12, 32, 16), "avx2": Tile(6, 16, 8), "neon": Tile(8, 8, 4)}
PLAIN = Tile(4, 4, 1)  # for other processors: LLVM then makes what it can of it


def tile_of(features: dict[str, bool]) -> Tile:
    """The tile for a processor with these features."""
    return next((tile for name, tile in TILES.items() if features.get(name)), PLAIN)


FEATURES = dict(llvmlite.binding.get_host_cpu_features())
TILE = tile_of(FEATURES)
CONVERTS = any(FEATURES.get(name) for name in ("f16c", "avx512f", "neon"))  # float16 to float32, in one instruction
FLOAT, INDEX, WORD = ir.FloatType(), ir.IntType(64), ir.IntType(32)


def several(one: ir.Type, count: int = TILE.lanes) -> ir.Type:
    """The type of so many numbers at once."""
    return one if count == 1 else ir.VectorType(one, count)


VECTOR = several(FLOAT)


def _transpose_square(typing: Any, source: Any, source_step: Any, target: Any, target_step: Any, kind: Any) -> Any:
    """target[j,i] = source[i,j] for as many rows and columns as a vector has floats; addresses, and steps in numbers.

    `kind` says, by its type, what the source holds: see NUMBERS.
    """

    def emit(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        count = TILE.lanes
        step = builder.mul(args[1], INDEX(NUMBERS[kind].size))
        rows = [_number(builder, builder.add(args[0], builder.mul(step, INDEX(i))), kind, count) for i in range(count)]
        done = 1
        while done < count:  # a perfect shuffle of all numbers, of which log2(count) transpose them
            pairs = list(zip(rows[: count // 2], rows[count // 2 :], strict=True))
            rows = [_interleaved(builder, *pair, first) for pair in pairs for first in (0, count // 2)]
            done *= 2
        for i, row in enumerate(rows):
            builder.store(row, _row(builder, _pointer(builder, args[2], FLOAT), args[3], i), align=4)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 4, kind), emit


transpose_square: Any = intrinsic(_transpose_square)


class Number(NamedTuple):
    """How a weight's numbers lie in memory: bytes, and the type that LLVM loads."""

    size: int
    stored: ir.Type


# The types of the tokens by which a kernel is told, when it is compiled, what it will read: float32, the same where inner.py
# spares products, float16 and bfloat16.
NUMBERS = {
    types.int32: Number(4, FLOAT),
    types.float32: Number(4, FLOAT),
    types.int16: Number(2, ir.HalfType()),
    types.uint16: Number(2, ir.IntType(16)),
}


def _number(builder: ir.IRBuilder, address: Any, kind: Any, count: int) -> Any:
    """So many numbers from an address on, as float32; a bfloat16 is the upper half of one."""
    size, stored = NUMBERS[kind]

    value = builder.load(_pointer(builder, address, several(stored, count)), align=size)
    if stored == FLOAT:
        return value
    if stored == ir.HalfType():
        return builder.fpext(value, several(FLOAT, count))
    word = several(WORD, count)
    return builder.bitcast(builder.shl(builder.zext(value, word), _word(word, 16)), several(FLOAT, count))


def _word(kind: ir.Type, value: int) -> Any:
    """A constant of that type of words, one or several."""
    return ir.Constant(kind, [value] * kind.count if isinstance(kind, ir.VectorType) else value)


def _bytes_of(typing: Any, kind: Any) -> Any:
    """How many bytes a number of that kind takes."""
    return types.int64(kind), lambda context, builder, signature, args: INDEX(NUMBERS[kind].size)


bytes_of: Any = intrinsic(_bytes_of)


def _interleaved(builder: ir.IRBuilder, one: Any, other: Any, first: int) -> Any:
    """one[first], other[first], one[first + 1], other[first + 1], ..., a vector in all."""
    places = [first + j // 2 + TILE.lanes * (j % 2) for j in range(TILE.lanes)]
    return builder.shuffle_vector(one, other, ir.Constant(ir.VectorType(ir.IntType(32), TILE.lanes), places))


def _row(builder: ir.IRBuilder, start: Any, step: Any, i: int) -> Any:
    return builder.bitcast(builder.gep(start, [builder.mul(step, INDEX(i))]), VECTOR.as_pointer())


def _constant(value: float) -> Any:
    return ir.Constant(VECTOR, value if TILE.lanes == 1 else [value] * TILE.lanes)


def _copy_row(typing: Any, source: Any, target: Any) -> Any:
    """Copy the floats of one row of a tile from an address to another."""
    return types.void(types.int64, types.int64), _emit_copy


copy_row: Any = intrinsic(_copy_row)


def _emit_copy(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
    source, target = (_pointer(builder, address, FLOAT) for address in args)
    places = [INDEX(j) for j in range(0, TILE.columns, TILE.lanes)]
    row = [_load(builder, builder.gep(source, [place])) for place in places]
    for place, value in zip(places, row, strict=True):
        _store(builder, value, builder.gep(target, [place]))
    return context.get_dummy_value()


def _move_number(typing: Any, source: Any, target: Any, kind: Any) -> Any:
    """Copy one number of that kind from an address to another, as a float."""

    def emit(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        builder.store(_number(builder, args[0], kind, 1), _pointer(builder, args[1], FLOAT))
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, kind), emit


move_number: Any = intrinsic(_move_number)


def _put_float(typing: Any, value: Any, target: Any) -> Any:
    """Write a float to an address."""

    def emit(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        builder.store(args[0], _pointer(builder, args[1], FLOAT))
        return context.get_dummy_value()

    return types.void(types.float32, types.int64), emit


put_float: Any = intrinsic(_put_float)


def _integer_at(typing: Any, source: Any) -> Any:
    """The int64 at an address."""

    def emit(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        return builder.load(_pointer(builder, args[0], INDEX))

    return types.int64(types.int64), emit


integer_at: Any = intrinsic(_integer_at)


FUSED = "llvm.fma.f32" if TILE.lanes == 1 else f"llvm.fma.v{TILE.lanes}f32"  # a product and a sum with one rounding


def _fused(builder: ir.IRBuilder) -> Any:
    return get_or_insert_function(builder.module, ir.FunctionType(VECTOR, [VECTOR] * 3), FUSED)


def _phi(builder: ir.IRBuilder, kind: Any, value: Any, block: Any) -> Any:
    phi = builder.phi(kind)
    phi.add_incoming(value, block)
    return phi


def _pointer(builder: ir.IRBuilder, address: Any, kind: Any) -> Any:
    return builder.inttoptr(address, kind.as_pointer())


def _load(builder: ir.IRBuilder, pointer: Any) -> Any:
    return builder.load(builder.bitcast(pointer, VECTOR.as_pointer()), align=4)


def _store(builder: ir.IRBuilder, value: Any, pointer: Any) -> Any:
    return builder.store(value, builder.bitcast(pointer, VECTOR.as_pointer()), align=4)


def _fetching(write: int, locality: int) -> Any:
    """A function (address) that asks for the line of memory there before it is needed; any address will do."""

    def emit(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        pointer = _pointer(builder, args[0], ir.IntType(8))
        function = get_or_insert_function(
            builder.module, ir.FunctionType(ir.VoidType(), [pointer.type, WORD, WORD, WORD]), "llvm.prefetch.p0"
        )
        builder.call(function, [pointer, WORD(write), WORD(locality), WORD(1)])
        return context.get_dummy_value()

    def ask(typing: Any, address: Any) -> Any:
        return types.void(types.int64), emit

    return intrinsic(ask)


fetch, fetch_to_write = _fetching(0, 2), _fetching(1, 3)  # into the second cache, and into the first to be written


def _settle(typing: Any) -> Any:
    """What was written past the caches is seen by other threads from here on."""

    def emit(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        builder.fence("seq_cst")
        return context.get_dummy_value()

    return types.void(), emit


settle: Any = intrinsic(_settle)


def _float_of_bits(typing: Any, bits: Any) -> Any:
    """The float32 whose bits are those of an int32."""

    def emit(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        return builder.bitcast(args[0], FLOAT)

    return types.float32(types.int32), emit


float_of_bits: Any = intrinsic(_float_of_bits)
