"""A tile of a matrix product, whose sums stay in registers, of float32 or of pairs of bfloat16."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core.cgutils import get_or_insert_function
from numba.extending import intrinsic

from refdiff.kernels.cpu.bfloat16 import BFLOAT, PAIRS
from refdiff.kernels.cpu.vector import (
    FLOAT,
    INDEX,
    NUMBERS,
    TILE,
    VECTOR,
    WORD,
    _fused,
    _load,
    _phi,
    _pointer,
    _store,
    _word,
    several,
)

SHORT = -(-TILE.rows * 2 // 3)  # the rows of a tile where they are enough: few would else cost as much as many
HEIGHTS = (SHORT, TILE.rows)


def _multiply_tile(typing: Any, a: Any, rows: Any, many: Any, b: Any, depth: Any, base: Any, out: Any, kind: Any) -> Any:
    """One tile of a product, out = base + A B: A's rows lie anywhere, B is [depth,columns], one after the other.

    `a`, `rows` and `b` are addresses, for arrays handed on in a loop would be counted there; the caller keeps the arrays alive.
    `rows` holds, as int64, how many numbers after `a` each row of the tile begins; the tile has at least `many` rows, at most
    TILE.rows, and as many as the next of HEIGHTS. `base` and `out` are an address, and the step from row to row in floats: with 0
    the same row of `base` is for all, such as a bias.

    `kind` says, by its type, what is multiplied: float32, or as uint16 bfloat16, of which two that follow one another in k lie
    side by side in A and in B; `depth` then counts pairs.

    Math: out[i,j] = base[i,j] + sum over k of a[rows[i] + k] b[k,j], in the order of k. Of float32 each product and its sum are
        rounded once; of bfloat16 the sums are float32
    """
    place = types.UniTuple(types.int64, 2)
    return types.void(*[types.int64] * 5, place, place, kind), _emit


multiply_tile: Any = intrinsic(_multiply_tile)


def _emit(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
    a, rows, many, b, depth, base, out, _ = args
    size = NUMBERS[signature.args[-1]].size

    def made(height: int) -> None:
        begin = [_load(builder, pointer) for pointer in _vectors(builder, base, height)]
        sums = tile_sums(builder, tile_lines(builder, a, rows, height, size), b, depth, begin, size == 2)
        for pointer, value in zip(_vectors(builder, out, height), sums, strict=True):
            _store(builder, value, pointer)

    by_height(builder, many, made)
    return context.get_dummy_value()


def by_height(builder: ir.IRBuilder, many: Any, made: Callable[[int], None]) -> None:
    """Do what is made for the first of HEIGHTS that holds so many rows, or for the last."""
    end = builder.append_basic_block("tile.done")
    for height in HEIGHTS:
        here = builder.append_basic_block("tile.rows")
        if height == HEIGHTS[-1]:
            builder.branch(here)
        else:
            others = builder.append_basic_block("tile.more")
            builder.cbranch(builder.icmp_signed("<=", many, INDEX(height)), here, others)
        builder.position_at_end(here)
        made(height)
        builder.branch(end)
        if height != HEIGHTS[-1]:
            builder.position_at_end(others)
    builder.position_at_end(end)


def tile_lines(builder: ir.IRBuilder, a: Any, rows: Any, height: int, size: int) -> list:
    """Where the rows of A begin, of numbers of so many bytes."""
    first = _pointer(builder, rows, INDEX)
    starts = [builder.load(builder.gep(first, [INDEX(i)])) for i in range(height)]
    return [_pointer(builder, builder.add(a, builder.mul(start, INDEX(size))), WORD if size == 2 else FLOAT) for start in starts]


def tile_sums(builder: ir.IRBuilder, lines: list, b: Any, depth: Any, begin: list, paired: bool) -> list:
    """The sums after `depth` steps, one vector a row and `lanes` columns, from `begin` on."""
    add = _add_pairs if paired else _add_products

    def step(k: Any, sums: list) -> list:
        panel = builder.gep(_pointer(builder, b, FLOAT), [builder.mul(k, INDEX(TILE.columns))])
        factors = [_load(builder, builder.gep(panel, [INDEX(j)])) for j in range(0, TILE.columns, TILE.lanes)]
        more: list = []
        for line in lines:
            more += add(builder, builder.load(builder.gep(line, [k])), factors, sums[len(more) : len(more) + len(factors)])
        return more

    return from_to(builder, INDEX(0), depth, begin, step, 1)


def from_to(builder: ir.IRBuilder, first: Any, last: Any, begin: list, body: Callable[[Any, list], list], step: int) -> list:
    """What body(k, the vectors so far) gives after k = first, first + step, ..., below last."""
    before, here, after = builder.block, builder.append_basic_block("loop"), builder.append_basic_block("loop.end")
    builder.cbranch(builder.icmp_signed("<", first, last), here, after)
    builder.position_at_end(here)
    k, held = _phi(builder, INDEX, first, before), [_phi(builder, VECTOR, value, before) for value in begin]
    found = body(k, held)
    more = builder.add(k, INDEX(step))
    for phi, value in zip([k, *held], [more, *found], strict=True):
        phi.add_incoming(value, builder.block)
    made = builder.block
    builder.cbranch(builder.icmp_signed("<", more, last), here, after)
    builder.position_at_end(after)
    ends = [_phi(builder, VECTOR, value, before) for value in begin]
    for phi, value in zip(ends, found, strict=True):
        phi.add_incoming(value, made)
    return ends


def _add_products(builder: ir.IRBuilder, number: Any, factors: list, sums: list) -> list:
    """sums + number factors."""
    spread, fused = _spread(builder, number, FLOAT), _fused(builder)
    return [builder.call(fused, [spread, factor, total]) for factor, total in zip(factors, sums, strict=True)]


def _add_pairs(builder: ir.IRBuilder, pair: Any, factors: list, sums: list) -> list:
    """sums + the products of both numbers of a pair, widened where the processor has no products of bfloat16."""
    if PAIRS:
        vector = ir.VectorType(BFLOAT, 2 * TILE.lanes)
        dot = get_or_insert_function(
            builder.module, ir.FunctionType(VECTOR, [VECTOR, vector, vector]), f"llvm.x86.avx512bf16.dpbf16ps.{32 * TILE.lanes}"
        )
        spread = builder.bitcast(_spread(builder, pair, WORD), vector)
        return [builder.call(dot, [total, spread, builder.bitcast(f, vector)]) for f, total in zip(factors, sums, strict=True)]
    for part in (_first_of_pair, _second_of_pair):
        number = builder.bitcast(part(builder, pair, WORD), FLOAT)
        several_factors = [
            builder.bitcast(part(builder, builder.bitcast(f, several(WORD)), several(WORD)), VECTOR) for f in factors
        ]
        sums = _add_products(builder, number, several_factors, sums)
    return sums


def _first_of_pair(builder: ir.IRBuilder, pairs: Any, kind: Any) -> Any:
    """The bits of float32 of the number in the lower half."""
    return builder.shl(pairs, _word(kind, 16))


def _second_of_pair(builder: ir.IRBuilder, pairs: Any, kind: Any) -> Any:
    return builder.and_(pairs, _word(kind, 0xFFFF0000))


def _vectors(builder: ir.IRBuilder, place: Any, height: int) -> list:
    """Pointers to every vector of a tile that lies in an array."""
    start, step = _pointer(builder, builder.extract_value(place, 0), FLOAT), builder.extract_value(place, 1)
    lines = [builder.gep(start, [builder.mul(step, INDEX(i))]) for i in range(height)]
    return [builder.gep(line, [INDEX(j)]) for line in lines for j in range(0, TILE.columns, TILE.lanes)]


def _spread(builder: ir.IRBuilder, value: Any, one: Any) -> Any:
    """A vector of which every number is `value`."""
    if TILE.lanes == 1:
        return value
    nothing = ir.Constant(several(one), ir.Undefined)
    filled = builder.insert_element(nothing, value, WORD(0))
    return builder.shuffle_vector(filled, nothing, ir.Constant(ir.VectorType(WORD, TILE.lanes), [0] * TILE.lanes))
