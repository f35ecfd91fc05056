"""What a softmax does to a tile's columns, all of them at once: the largest number of each, and powers of two.

It is built from LLVM's instructions like vector.py, for the loops run over rows, which are one vector each or a few.
"""

from __future__ import annotations

import functools
import math
from typing import Any

from llvmlite import ir
from numba import types
from numba.core.cgutils import get_or_insert_function
from numba.extending import intrinsic

from refdiff.kernels.cpu.bfloat16 import _paired
from refdiff.kernels.cpu.inner import spared_begin, spared_sums
from refdiff.kernels.cpu.tile import from_to, tile_lines, tile_sums
from refdiff.kernels.cpu.vector import (
    FEATURES,
    FLOAT,
    INDEX,
    TILE,
    VECTOR,
    WORD,
    _constant,
    _fused,
    _load,
    _pointer,
    _store,
    _word,
    several,
)

VECTORS = TILE.columns // TILE.lanes  # of a row


def _largest_of_columns(typing: Any, address: Any, rows: Any, tops: Any) -> Any:
    """tops[j] = the largest of tops[j] and x[i,j], for so many rows, at least one, of a tile's columns; NaN is passed over."""

    def emit(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        kept = _places(builder, args[2])

        def step(i: Any, tops: list) -> list:
            values = _loaded(builder, _line(builder, args[0], i))
            return [_larger(builder, *pair) for pair in zip(values, tops, strict=True)]

        found = from_to(builder, INDEX(0), args[1], [_load(builder, place) for place in kept], step, 1)
        for place, value in zip(kept, found, strict=True):
            _store(builder, value, place)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 3), emit


def _powers_of_columns(typing: Any, address: Any, rows: Any, tops: Any, sums: Any, kind: Any) -> Any:
    """x[i,j] = 2^(x[i,j] - tops[j]) and sums[j] = the sum of those over i, for so many rows, at least one, of a tile's columns.

    No exponent is larger than 127. `kind` says, by its type, what becomes of x: float32, or as uint16 pairs of bfloat16, in the
    first half of its memory; then there must be one row more where the rows are odd, of what will be 0.
    Math: 2^t = 2^n 2^r, 0 <= r < 1; far below t = -126 the result is 0
    """
    paired = kind == types.uint16

    def emit(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        tops = _loaded(builder, args[2])

        def powers(i: Any) -> tuple[list, list]:
            places = _places(builder, _line(builder, args[0], i))
            exponents = [builder.fsub(_load(builder, place), top) for place, top in zip(places, tops, strict=True)]
            return places, _powers_of_two(builder, exponents, COARSE if paired else FINE)

        def step(i: Any, sums: list) -> list:
            places, found = powers(builder.shl(i, INDEX(1)) if paired else i)
            sums = [builder.fadd(*pair) for pair in zip(sums, found, strict=True)]
            if paired:
                _, others = powers(builder.add(builder.shl(i, INDEX(1)), INDEX(1)))
                sums = [builder.fadd(*pair) for pair in zip(sums, others, strict=True)]
                found = [_paired(builder, *pair) for pair in zip(found, others, strict=True)]
                places = _places(builder, _line(builder, args[0], i))
            for place, power in zip(places, found, strict=True):
                _store(builder, power, place)
            return sums

        count = builder.lshr(builder.add(args[1], INDEX(1)), INDEX(1)) if paired else args[1]
        sums = from_to(builder, INDEX(0), count, [_constant(0.0)] * len(tops), step, 1)
        for place, value in zip(_places(builder, args[3]), sums, strict=True):
            _store(builder, value, place)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 4, kind), emit


def _powers_of_tile(
    typing: Any, a: Any, rows: Any, b: Any, depth: Any, tops: Any, found: Any, out: Any, ends: Any, undo: Any, kind: Any
) -> Any:
    """The powers of a whole tile's scores, 2^(s[i,j] - tops[j]) with s = A B, which themselves are never written.

    `a`, `rows`, `b`, `depth`, `ends`, `kind`: as inner.multiply has them; scores of spared products are multiplied by the row
    `undo`. `found` is the address of two rows, of the sums over i and the largest exponents so far, which go on; the powers
    become what powers_of_columns makes of them. Of exponents above 127 they and their sums mean nothing: the caller looks at the
    largest. There must be an even number of rows, of four where products are spared.
    """
    paired = kind == types.uint16

    def emit(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        a, rows, b, depth, tops, found, out, ends, undo, _ = args
        if kind == types.int32:
            _powers_of_spared(builder, a, rows, b, depth, tops, found, out, ends, undo)
            return context.get_dummy_value()
        lines = tile_lines(builder, a, rows, TILE.rows, 2 if paired else 4)
        scores = tile_sums(builder, lines, b, depth, [_constant(0.0)] * (TILE.rows * VECTORS), paired)
        tops, sums, most = _loaded(builder, tops), _loaded(builder, found), _loaded(builder, _line(builder, found, INDEX(1)))
        for i in range(0, TILE.rows, 2):
            exponents = [builder.fsub(s, top) for s, top in zip(scores[i * VECTORS : (i + 2) * VECTORS], 2 * tops, strict=True)]
            powers = _powers_of_two(builder, exponents, COARSE if paired else FINE)
            for line in (slice(VECTORS), slice(VECTORS, None)):
                sums = [builder.fadd(*pair) for pair in zip(sums, powers[line], strict=True)]
                most = [_larger(builder, *pair) for pair in zip(exponents[line], most, strict=True)]
            if paired:
                powers = [_paired(builder, *pair) for pair in zip(powers[:VECTORS], powers[VECTORS:], strict=True)]
            rows_made = range(i // 2, i // 2 + 1) if paired else range(i, i + 2)
            places = [place for row in rows_made for place in _places(builder, _line(builder, out, INDEX(row)))]
            for place, power in zip(places, powers, strict=True):
                _store(builder, power, place)
        for i, row in enumerate((sums, most)):
            for place, value in zip(_places(builder, _line(builder, found, INDEX(i))), row, strict=True):
                _store(builder, value, place)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 7, types.UniTuple(types.int64, 3), types.int64, kind), emit


def _powers_of_spared(
    builder: ir.IRBuilder, a: Any, rows: Any, b: Any, depth: Any, tops: Any, found: Any, out: Any, ends: Any, undo: Any
) -> None:
    """The same, a vector of columns after the other, of products that are spared: scores are multiplied by the row `undo`."""
    lines, fused = tile_lines(builder, a, rows, TILE.rows, 4), _fused(builder)
    tops, scales = _loaded(builder, tops), _loaded(builder, undo)
    states = [_places(builder, _line(builder, found, INDEX(i))) for i in range(2)]
    for j in range(VECTORS):
        panel = builder.gep(_pointer(builder, b, FLOAT), [INDEX(j * TILE.lanes)])
        scores = spared_sums(builder, lines, panel, depth, spared_begin(builder, ends, TILE.rows, j))
        total, most = (_load(builder, row[j]) for row in states)
        top = builder.fneg(tops[j])
        for i in range(0, TILE.rows, 4):
            exponents = [builder.call(fused, [score, scales[j], top]) for score in scores[i : i + 4]]
            for k, (power, exponent) in enumerate(zip(_powers_of_two(builder, exponents, FINE), exponents, strict=True)):
                total, most = builder.fadd(total, power), _larger(builder, exponent, most)
                _store(builder, power, _places(builder, _line(builder, out, INDEX(i + k)))[j])
        for row, value in zip(states, (total, most), strict=True):
            _store(builder, value, row[j])


def _exceeds(typing: Any, address: Any, limit: Any) -> Any:
    """Whether a number of a tile's row is larger than a limit; NaN is not."""

    def emit(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        larger = [_larger(builder, value, _constant(-math.inf)) for value in _loaded(builder, args[0])]
        top = functools.reduce(lambda one, other: _larger(builder, one, other), larger)
        numbers = [top] if TILE.lanes == 1 else [builder.extract_element(top, WORD(i)) for i in range(TILE.lanes)]
        return functools.reduce(builder.or_, [builder.fcmp_ordered(">", number, args[1]) for number in numbers])

    return types.boolean(types.int64, types.float32), emit


def _larger(builder: ir.IRBuilder, value: Any, other: Any) -> Any:
    """The larger number of each lane, `other` where `value` is NaN."""
    return builder.select(builder.fcmp_ordered(">", value, other), value, other)


def _by_columns(operation: str) -> Any:
    """A function (address, rows, others): x[i,j] = x[i,j] operation others[j], for so many rows, at least one, of a tile."""

    def emit(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        def step(i: Any, others: list) -> list:
            for place, other in zip(_places(builder, _line(builder, args[0], i)), others, strict=True):
                _store(builder, getattr(builder, operation)(_load(builder, place), other), place)
            return others

        from_to(builder, INDEX(0), args[1], _loaded(builder, args[2]), step, 1)
        return context.get_dummy_value()

    def change(typing: Any, address: Any, rows: Any, others: Any) -> Any:
        return types.void(*[types.int64] * 3), emit

    return intrinsic(change)


def _multiply_rows(typing: Any, address: Any, rows: Any, factors: Any) -> Any:
    """x[i,j] = x[i,j] y[i,j], for so many rows, at least one, of a tile's columns; addresses."""

    def emit(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        def step(i: Any, held: list) -> list:
            places, others = (_places(builder, _line(builder, address, i)) for address in (args[0], args[2]))
            for place, other in zip(places, others, strict=True):
                _store(builder, builder.fmul(_load(builder, place), _load(builder, other)), place)
            return held

        from_to(builder, INDEX(0), args[1], [], step, 1)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 3), emit


def _add_to_scaled(typing: Any, address: Any, rows: Any, factors: Any, added: Any) -> Any:
    """x[i,j] = factors[j] x[i,j] + y[i,j], for so many rows, at least one, of a tile's columns; `added` is y's address."""

    def emit(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        fused = _fused(builder)

        def step(i: Any, factors: list) -> list:
            places, others = (_places(builder, _line(builder, address, i)) for address in (args[0], args[3]))
            for place, factor, other in zip(places, factors, others, strict=True):
                _store(builder, builder.call(fused, [_load(builder, place), factor, _load(builder, other)]), place)
            return factors

        from_to(builder, INDEX(0), args[1], _loaded(builder, args[2]), step, 1)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 4), emit


scale_columns, divide_columns = _by_columns("fmul"), _by_columns("fdiv")
add_to_scaled: Any = intrinsic(_add_to_scaled)
multiply_rows: Any = intrinsic(_multiply_rows)
largest_of_columns: Any = intrinsic(_largest_of_columns)
powers_of_columns: Any = intrinsic(_powers_of_columns)
powers_of_tile: Any = intrinsic(_powers_of_tile)
exceeds: Any = intrinsic(_exceeds)
# 2^r over 0 <= r < 1, least largest error: 1e-7 of 2^r, and 8e-5 for what is rounded to bfloat16 (2e-3).
FINE = (0.9999999251, 0.6931530731, 0.2401536176, 0.05582631721, 0.0089893405, 0.001877576697)
COARSE = (0.9999252229, 0.6958335145, 0.2260671823, 0.07802452447)
SCALES = TILE.lanes == 16 and bool(FEATURES.get("avx512dq"))  # whether the processor has both halves of a power as instructions


def _powers_of_two(builder: ir.IRBuilder, exponents: list, polynomial: tuple[float, ...]) -> list:
    """2^t of each vector, step by step for all, so that one is computed while another waits; NaN stays."""
    fused = _fused(builder)
    if SCALES:
        rest = [_masked(builder, "reduce", [t], 1) for t in exponents]  # t - floor(t), and 0 for infinities
    else:
        low = _constant(-127)  # of which the bits are those of 0
        exponents = [builder.select(builder.fcmp_ordered("<", t, low), low, t) for t in exponents]
        kind = "llvm.floor.f32" if TILE.lanes == 1 else f"llvm.floor.v{TILE.lanes}f32"
        floor = get_or_insert_function(builder.module, ir.FunctionType(VECTOR, [VECTOR]), kind)
        whole = [builder.call(floor, [t]) for t in exponents]
        rest = [builder.fsub(t, n) for t, n in zip(exponents, whole, strict=True)]
    powers = [_constant(polynomial[-1])] * len(rest)
    for factor in polynomial[-2::-1]:
        powers = [builder.call(fused, [power, r, _constant(factor)]) for power, r in zip(powers, rest, strict=True)]
    if SCALES:
        return [_masked(builder, "scalef", [power, t], None) for power, t in zip(powers, exponents, strict=True)]
    integer = several(WORD)
    bits = [builder.shl(builder.add(builder.fptosi(n, integer), _word(integer, 127)), _word(integer, 23)) for n in whole]
    return [builder.fmul(power, builder.bitcast(n, VECTOR)) for power, n in zip(powers, bits, strict=True)]


def _masked(builder: ir.IRBuilder, name: str, values: list, immediate: int | None) -> Any:
    """An instruction of AVX-512 on all lanes: "reduce", with 1 for t - floor(t), or "scalef", a 2^floor(t)."""
    half = ir.IntType(16)
    given = [*values, *([] if immediate is None else [WORD(immediate)]), _constant(0.0), half(-1), WORD(4)]
    function = ir.FunctionType(VECTOR, [value.type for value in given])
    return builder.call(get_or_insert_function(builder.module, function, f"llvm.x86.avx512.mask.{name}.ps.512"), given)


def _line(builder: ir.IRBuilder, address: Any, i: Any) -> Any:
    """The address of a row."""
    return builder.add(address, builder.mul(i, INDEX(4 * TILE.columns)))


def _places(builder: ir.IRBuilder, address: Any) -> list:
    """Pointers to the vectors of one row."""
    return [builder.gep(_pointer(builder, address, FLOAT), [INDEX(j)]) for j in range(0, TILE.columns, TILE.lanes)]


def _loaded(builder: ir.IRBuilder, address: Any) -> list:
    return [_load(builder, place) for place in _places(builder, address)]
