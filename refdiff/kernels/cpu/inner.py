"""A tile of a matrix product with two thirds of its products: Winograd's inner product, where a processor adds meanwhile.

Two products of an inner product can be one, of sums: (a + d) (b + c) = a c + b d + a b + c d, where a and b are of a row, c and d
of a column. The ends, a b and c d, are too much; each is of one side alone, and taken away for all its tiles at once. That takes
more sums than it spares products, so it gains only on a processor whose sums have units of their own beside those of fused
products, and most where both are always busy: of three steps in k two are a pair, and the third is a product as ever.

Every other pair is of differences, (a - d) (c - b) = a c + b d - a b - c d: the ends then do not grow with the factors' mean.
Sums are rounded by the larger of their terms, so both factors must be of one size; the callers multiply them by powers of two.

Math: out[i,j] = sum over k of a[i,k] b[k,j], the first two of every three k paired, in whole rounds of six
Source: Winograd 1968 (doi 10.1109/TC.1968.227420)
"""

from __future__ import annotations

import functools
from typing import Any

import llvmlite.binding
from llvmlite import ir
from numba import types
from numba.core.cgutils import unpack_tuple
from numba.extending import intrinsic

from refdiff.kernels.cpu.sums import ORDERED
from refdiff.kernels.cpu.tile import _emit, _spread, _vectors, by_height, from_to, tile_lines
from refdiff.kernels.cpu.vector import (
    FLOAT,
    INDEX,
    NUMBERS,
    TILE,
    VECTOR,
    WORD,
    _constant,
    _fused,
    _load,
    _number,
    _pointer,
    _store,
    _word,
    several,
)

# Zen 4 makes one fused product of 16 floats a cycle, and beside it one sum, of which one term may be loaded and spread. Whether
# others gain has not been measured.
SPARES = llvmlite.binding.get_host_cpu_name() == "znver4" and TILE.lanes == 16
ABLE = TILE.lanes >= TILE.rows  # a vector holds what row_ends makes of a tile; else nothing here is emitted
STEP = 6  # steps in k of one round: two pairs and two products
READ_ON = 3 * TILE.lanes  # after so many lanes the rounds begin anew with a vector
FIRST_LANES = range(0, READ_ON, TILE.lanes)  # of the vectors of such a stretch
AS_WRITTEN = ("arcp",)  # with ORDERED, -(a - b) would become b - a, for which a register is needed


def _multiply(typing: Any, a: Any, rows: Any, many: Any, b: Any, depth: Any, base: Any, out: Any, ends: Any, kind: Any) -> Any:
    """out = base + A B as multiply_tile has it; `kind` may also say that products are spared.

    `ends` is then the address of what row_ends makes of the rows of A, the step from one of them to the next in floats, and the
    address of what column_ends makes of B.
    """
    place = types.UniTuple(types.int64, 2)

    def emit(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        if signature.args[8] != types.int32:
            inner = types.void(*signature.args[:7], signature.args[8])
            return _emit(context, builder, inner, (*args[:7], args[8]))
        a, rows, many, b, depth, base, out, ends, _ = args

        def made(height: int) -> None:
            lines = tile_lines(builder, a, rows, height, 4)
            for j in range(0, TILE.columns, TILE.lanes):
                before, after = (
                    _vectors(builder, at, height)[j // TILE.lanes :: TILE.columns // TILE.lanes] for at in (base, out)
                )
                begin = [
                    builder.fadd(_load(builder, pointer), both, flags=ORDERED)
                    for pointer, both in zip(before, spared_begin(builder, ends, height, j // TILE.lanes), strict=True)
                ]
                sums = spared_sums(builder, lines, builder.gep(_pointer(builder, b, FLOAT), [INDEX(j)]), depth, begin)
                for pointer, value in zip(after, sums, strict=True):
                    _store(builder, value, pointer)

        by_height(builder, many, made)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 5, place, place, types.UniTuple(types.int64, 3), kind), emit


def spared_begin(builder: ir.IRBuilder, ends: Any, height: int, vector: int) -> list:
    """What the sums of one of a row's vectors begin with, beside what is added to the product."""
    of_rows, of_columns = (_pointer(builder, builder.extract_value(ends, i), FLOAT) for i in (0, 2))
    step, column = builder.extract_value(ends, 1), _load(builder, builder.gep(of_columns, [INDEX(vector * TILE.lanes)]))
    rows = [builder.load(builder.gep(of_rows, [builder.mul(step, INDEX(i))])) for i in range(height)]
    return [builder.fadd(column, _spread(builder, row, FLOAT), flags=ORDERED) for row in rows]


def spared_sums(builder: ir.IRBuilder, lines: list, b: Any, depth: Any, begin: list) -> list:
    """The sums of one vector of columns, of which `b` points to the first, from `begin` on."""
    fused, paired = _fused(builder), _in_whole(builder, depth, STEP)

    def factor(k: Any) -> Any:
        return _load(builder, builder.gep(b, [builder.mul(k, INDEX(TILE.columns))]))

    def number(line: Any, k: Any) -> Any:
        return _spread(builder, builder.load(builder.gep(line, [k])), FLOAT)

    def product(k: Any, sums: list) -> list:
        right = factor(k)
        return [builder.call(fused, [number(line, k), right, total]) for line, total in zip(lines, sums, strict=True)]

    def pairs(k: Any, sums: list) -> list:
        for turn in range(2):
            places = [builder.add(k, INDEX(3 * turn + i)) for i in range(3)]
            first, second, third = (factor(place) for place in places)
            made = []
            for line, total in zip(lines, sums, strict=True):
                one, other, alone = (number(line, place) for place in places)
                total = builder.call(fused, [alone, third, total])
                if turn == 0:
                    sides = builder.fadd(second, one, flags=ORDERED), builder.fadd(first, other, flags=ORDERED)
                else:
                    less = builder.fsub(first, other, flags=AS_WRITTEN)
                    sides = builder.fsub(second, one, flags=AS_WRITTEN), builder.fneg(less, flags=AS_WRITTEN)
                made.append(builder.call(fused, [*sides, total]))
            sums = made
        return sums

    sums = from_to(builder, INDEX(0), paired, begin, pairs, STEP)
    return from_to(builder, paired, depth, sums, product, 1)


def _in_whole(builder: ir.IRBuilder, depth: Any, many: int) -> Any:
    """How many steps in k are in whole rounds, or stretches, of so many."""
    return builder.mul(builder.udiv(depth, INDEX(many)), INDEX(many))


def _row_ends(typing: Any, a: Any, step: Any, depth: Any, out: Any) -> Any:
    """What the pairs of as many rows of A as a tile has have too much, taken from 0: as many floats as a vector has at `out`.

    The rows begin `step` floats after one another; behind the last one READ_ON floats more are read, whatever they are.
    """

    def emit(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        if not ABLE:
            return context.get_dummy_value()
        start, step, depth = _pointer(builder, args[0], FLOAT), args[1], args[2]
        paired, fused, nothing, word = _in_whole(builder, depth, STEP), _fused(builder), _constant(0.0), several(WORD)
        lines = [builder.gep(start, [builder.mul(step, INDEX(i))]) for i in range(TILE.rows)]
        whole, inside = _in_whole(builder, paired, READ_ON), builder.trunc(paired, WORD)
        following = ir.Constant(word, [i + 1 for i in range(TILE.lanes)])
        signs = [[(-1.0, 0.0, 0.0, 1.0, 0.0, 0.0)[(first + i) % STEP] for i in range(TILE.lanes)] for first in FIRST_LANES]

        def walk(k: Any, sums: list, *, last: bool) -> list:
            begins: list[Any] = [ir.Constant(several(ir.IntType(1)), [int(sign != 0) for sign in line]) for line in signs]
            for turn, first in enumerate(FIRST_LANES if last else ()):  # only here numbers that are none may have been read
                lanes = ir.Constant(word, [first + i for i in range(TILE.lanes)])
                places = builder.add(_spread(builder, builder.trunc(k, WORD), WORD), lanes)
                begins[turn] = builder.and_(begins[turn], builder.icmp_signed("<", places, _spread(builder, inside, WORD)))
            made = []
            for line, total in zip(lines, sums, strict=True):
                values = [_load(builder, builder.gep(line, [builder.add(k, INDEX(first))])) for first in FIRST_LANES]
                for turn, one in enumerate(values):  # the last number of the last vector begins no pair
                    other = builder.shuffle_vector(one, values[min(turn + 1, len(values) - 1)], following)
                    signed = builder.fmul(one, ir.Constant(VECTOR, signs[turn]), flags=ORDERED)
                    total = builder.select(begins[turn], builder.call(fused, [signed, other, total]), total)
                made.append(total)
            return made

        sums = from_to(builder, INDEX(0), whole, [nothing] * TILE.rows, functools.partial(walk, last=False), READ_ON)
        sums = from_to(builder, whole, paired, sums, functools.partial(walk, last=True), READ_ON)
        _store(builder, _totals(builder, sums), _pointer(builder, args[3], FLOAT))
        return context.get_dummy_value()

    return types.void(*[types.int64] * 4), emit


def _totals(builder: ir.IRBuilder, vectors: list) -> Any:
    """The sums of the numbers of each of so many vectors, side by side."""
    lanes, count = TILE.lanes, 1
    vectors = [*vectors, *[_constant(0.0)] * (lanes - len(vectors))]
    width = lanes  # of what is still to be added
    while len(vectors) > 1:
        width //= 2
        # Of two vectors, each of `count` groups of numbers, the first and second halves of all groups.
        places = [[g * 2 * width + i + half * width for g in range(count) for i in range(width)] for half in range(2)]
        made = []
        for one, other in zip(vectors[: len(vectors) // 2], vectors[len(vectors) // 2 :], strict=True):
            halves = [
                builder.shuffle_vector(one, other, ir.Constant(several(WORD), [*taken, *[lanes + i for i in taken]]))
                for taken in places
            ]
            made.append(builder.fadd(*halves, flags=ORDERED))
        vectors, count = made, 2 * count
    order = _order(lanes)
    return builder.shuffle_vector(vectors[0], vectors[0], ir.Constant(several(WORD), order))


def _order(lanes: int) -> list[int]:
    """Where in the last vector of _totals the sum of each of the first ones is."""
    groups = [[i] for i in range(lanes)]
    while len(groups) > 1:
        groups = [one + other for one, other in zip(groups[: len(groups) // 2], groups[len(groups) // 2 :], strict=True)]
    return [groups[0].index(i) for i in range(lanes)]


def _column_ends(typing: Any, b: Any, depth: Any, out: Any) -> Any:
    """What the pairs of each column of B have too much, taken from 0: a row of a tile at the address `out`."""

    def emit(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        if not ABLE:
            return context.get_dummy_value()
        start, target = _pointer(builder, args[0], FLOAT), _pointer(builder, args[2], FLOAT)
        fused, places = _fused(builder), range(0, TILE.columns, TILE.lanes)

        def step(k: Any, sums: list) -> list:
            for turn in range(2):
                first = builder.mul(builder.add(k, INDEX(3 * turn)), INDEX(TILE.columns))
                pairs = [
                    [_load(builder, builder.gep(start, [builder.add(first, INDEX(i * TILE.columns + j))])) for i in range(2)]
                    for j in places
                ]
                signed = [one if turn else builder.fneg(one, flags=ORDERED) for one, _ in pairs]
                sums = [builder.call(fused, [one, pair[1], s]) for one, pair, s in zip(signed, pairs, sums, strict=True)]
            return sums

        sums = from_to(builder, INDEX(0), _in_whole(builder, args[1], STEP), [_constant(0.0) for _ in places], step, STEP)
        for j, value in zip(places, sums, strict=True):
            _store(builder, value, builder.gep(target, [INDEX(j)]))
        return context.get_dummy_value()

    return types.void(*[types.int64] * 3), emit


def _row_scale(typing: Any, rows: Any, count: Any, out: Any, kind: Any) -> Any:
    """A power of two near one over the mean size of numbers, and what undoes it: two floats at the address `out`.

    `rows` is a tuple of addresses, at each of which `count` numbers of `kind` lie, whole vectors; the means of all are added.
    """

    def emit(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        if not ABLE:
            return context.get_dummy_value()
        starts, bytes_each = unpack_tuple(builder, args[0]), INDEX(NUMBERS[kind].size)
        share = _spread(builder, builder.fdiv(ir.Constant(FLOAT, 1.0), builder.sitofp(args[1], FLOAT)), FLOAT)
        fused = _fused(builder)

        def step(k: Any, sums: list) -> list:
            places = [builder.add(start, builder.mul(k, bytes_each)) for start in starts]
            values = [_size(builder, _number(builder, place, kind, TILE.lanes)) for place in places]
            return [builder.call(fused, [value, share, s]) for value, s in zip(values, sums, strict=True)]

        sums = from_to(builder, INDEX(0), args[1], [_constant(0.0) for _ in starts], step, TILE.lanes)
        total = sums[0]
        for other in sums[1:]:
            total = builder.fadd(total, other, flags=ORDERED)
        target = _pointer(builder, args[2], FLOAT)
        for i, value in enumerate(_powers_near(builder, _everywhere(builder, total))):
            builder.store(builder.extract_element(value, WORD(0)), builder.gep(target, [INDEX(i)]))
        return context.get_dummy_value()

    return types.void(rows, types.int64, types.int64, kind), emit


def _column_scales(typing: Any, panels: Any, depth: Any, out: Any) -> Any:
    """The same of each column of some panels: two rows of a tile at the address `out`."""

    def emit(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        if not ABLE:
            return context.get_dummy_value()
        starts = [_pointer(builder, builder.extract_value(args[0], i), FLOAT) for i in range(len(signature.args[0]))]
        share = _spread(builder, builder.fdiv(ir.Constant(FLOAT, 1.0), builder.sitofp(args[1], FLOAT)), FLOAT)
        fused, places = _fused(builder), range(0, TILE.columns, TILE.lanes)

        def step(k: Any, sums: list) -> list:
            at = builder.mul(k, INDEX(TILE.columns))
            for start in starts:
                values = [_size(builder, _load(builder, builder.gep(start, [builder.add(at, INDEX(j))]))) for j in places]
                sums = [builder.call(fused, [value, share, s]) for value, s in zip(values, sums, strict=True)]
            return sums

        sums = from_to(builder, INDEX(0), args[1], [_constant(0.0) for _ in places], step, 1)
        target = _pointer(builder, args[2], FLOAT)
        for j, value in zip(places, sums, strict=True):
            for i, power in enumerate(_powers_near(builder, value)):
                _store(builder, power, builder.gep(target, [INDEX(i * TILE.columns + j)]))
        return context.get_dummy_value()

    return types.void(panels, types.int64, types.int64), emit


def _size(builder: ir.IRBuilder, value: Any) -> Any:
    """The numbers without their signs."""
    word = several(WORD)
    return builder.bitcast(builder.and_(builder.bitcast(value, word), _word(word, 0x7FFFFFFF)), VECTOR)


def _everywhere(builder: ir.IRBuilder, value: Any) -> Any:
    """The sum of a vector's numbers, in each of them."""
    width = TILE.lanes // 2
    while width:
        turned = ir.Constant(ir.VectorType(WORD, TILE.lanes), [(i + width) % TILE.lanes for i in range(TILE.lanes)])
        value = builder.fadd(value, builder.shuffle_vector(value, value, turned), flags=ORDERED)
        width //= 2
    return value


def _powers_near(builder: ir.IRBuilder, value: Any) -> tuple[Any, Any]:
    """2^-n and 2^n of each number m of a vector, 2^n <= m < 2^(n+1), but no more than 2^63 and no less than 2^-63."""
    word = several(WORD)
    exponent = builder.lshr(builder.bitcast(value, word), _word(word, 23))
    for bound, order in ((64, "<"), (190, ">")):
        exponent = builder.select(builder.icmp_unsigned(order, exponent, _word(word, bound)), _word(word, bound), exponent)
    inverse = builder.sub(_word(word, 254), exponent)
    return tuple(builder.bitcast(builder.shl(bits, _word(word, 23)), VECTOR) for bits in (inverse, exponent))


def _spares(typing: Any, kind: Any) -> Any:
    """Whether products are spared, as `kind` says by its type: known when a kernel is compiled."""
    return types.boolean(kind), lambda context, builder, signature, args: ir.Constant(ir.IntType(1), int(kind == types.int32))


spares: Any = intrinsic(_spares)
multiply: Any = intrinsic(_multiply)
row_ends: Any = intrinsic(_row_ends)
column_ends: Any = intrinsic(_column_ends)
row_scale: Any = intrinsic(_row_scale)
column_scales: Any = intrinsic(_column_scales)
