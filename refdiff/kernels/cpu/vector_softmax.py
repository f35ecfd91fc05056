"""What a softmax does to a tile's columns, all of them at once: the largest number of each, and powers of two.

It is built from LLVM's instructions like vector.py, for the loops run over rows, which are one vector each or a few.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core.cgutils import get_or_insert_function
from numba.extending import intrinsic

from refdiff.kernels.cpu.vector import FLOAT, INDEX, TILE, VECTOR, _constant, _fused, _load, _phi, _pointer, _store


def _largest_of_columns(typing: Any, address: Any, rows: Any, tops: Any) -> Any:
    """tops[j] = the largest of tops[j] and x[i,j], for so many rows, at least one, of a tile's columns; NaN is passed over."""

    def emit(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        kept = _places(builder, args[2])

        def step(places: list, tops: list) -> list:
            values = [_load(builder, place) for place in places]
            return [builder.select(builder.fcmp_ordered(">", v, t), v, t) for v, t in zip(values, tops, strict=True)]

        found = _over_rows(builder, args[0], args[1], [_load(builder, place) for place in kept], step)
        for place, value in zip(kept, found, strict=True):
            _store(builder, value, place)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 3), emit


def _powers_of_columns(typing: Any, address: Any, rows: Any, tops: Any, sums: Any) -> Any:
    """x[i,j] = 2^(x[i,j] - tops[j]) and sums[j] = the sum of those over i, for so many rows, at least one, of a tile's columns.

    No exponent is larger than 127.
    Math: 2^t = 2^n 2^r, |r| <= 1/2; below t = -126.5 the result is 0
    """

    def emit(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        tops = _loaded(builder, args[2])

        def step(places: list, sums: list) -> list:
            exponents = [builder.fsub(_load(builder, place), top) for place, top in zip(places, tops, strict=True)]
            powers = _powers_of_two(builder, exponents)
            for place, power in zip(places, powers, strict=True):
                _store(builder, power, place)
            return [builder.fadd(*pair) for pair in zip(sums, powers, strict=True)]

        sums = _over_rows(builder, args[0], args[1], [_constant(0.0)] * len(tops), step)
        for place, value in zip(_places(builder, args[3]), sums, strict=True):
            _store(builder, value, place)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 4), emit


def _by_columns(operation: str) -> Any:
    """A function (address, rows, others): x[i,j] = x[i,j] operation others[j], for so many rows, at least one, of a tile."""

    def emit(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        def step(places: list, others: list) -> list:
            for place, other in zip(places, others, strict=True):
                _store(builder, getattr(builder, operation)(_load(builder, place), other), place)
            return others

        _over_rows(builder, args[0], args[1], _loaded(builder, args[2]), step)
        return context.get_dummy_value()

    def change(typing: Any, address: Any, rows: Any, others: Any) -> Any:
        return types.void(*[types.int64] * 3), emit

    return intrinsic(change)


def _add_to_scaled(typing: Any, address: Any, rows: Any, factors: Any, added: Any) -> Any:
    """x[i,j] = factors[j] x[i,j] + y[i,j], for so many rows, at least one, of a tile's columns; `added` is y's address."""

    def emit(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        apart = builder.sub(args[3], args[0])
        fused = _fused(builder)

        def step(places: list, factors: list) -> list:
            for place, factor in zip(places, factors, strict=True):
                other = _pointer(builder, builder.add(builder.ptrtoint(place, INDEX), apart), FLOAT)
                _store(builder, builder.call(fused, [_load(builder, place), factor, _load(builder, other)]), place)
            return factors

        _over_rows(builder, args[0], args[1], _loaded(builder, args[2]), step)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 4), emit


scale_columns, divide_columns = _by_columns("fmul"), _by_columns("fdiv")
add_to_scaled: Any = intrinsic(_add_to_scaled)
largest_of_columns: Any = intrinsic(_largest_of_columns)
powers_of_columns: Any = intrinsic(_powers_of_columns)
# (2^r - 1) / r over |r| <= 1/2, least largest error, which is 2e-9 of 2^r.
POWERS = (0.6931472029, 0.2402264791, 0.05550332471, 0.009618437362, 0.001339887461, 0.0001535336133)


def _powers_of_two(builder: ir.IRBuilder, exponents: list) -> list:
    """2^t of each vector, step by step for all, so that one is computed while another waits; NaN stays."""
    low = _constant(-127)  # of which the bits are those of 0
    kind = "llvm.rint.f32" if TILE.lanes == 1 else f"llvm.rint.v{TILE.lanes}f32"
    rounded = get_or_insert_function(builder.module, ir.FunctionType(VECTOR, [VECTOR]), kind)
    fused = _fused(builder)
    exponents = [builder.select(builder.fcmp_ordered("<", t, low), low, t) for t in exponents]
    whole = [builder.call(rounded, [t]) for t in exponents]
    rest = [builder.fsub(t, n) for t, n in zip(exponents, whole, strict=True)]
    powers = [_constant(POWERS[-1])] * len(rest)
    for factor in (*POWERS[-2::-1], 1.0):
        powers = [builder.call(fused, [power, r, _constant(factor)]) for power, r in zip(powers, rest, strict=True)]
    integer = ir.IntType(32) if TILE.lanes == 1 else ir.VectorType(ir.IntType(32), TILE.lanes)
    bias, shift = (ir.Constant(integer, value if TILE.lanes == 1 else [value] * TILE.lanes) for value in (127, 23))
    bits = [builder.shl(builder.add(builder.fptosi(n, integer), bias), shift) for n in whole]
    return [builder.fmul(power, builder.bitcast(n, VECTOR)) for power, n in zip(powers, bits, strict=True)]


def _over_rows(builder: ir.IRBuilder, address: Any, rows: Any, begin: list, step: Callable[[list, list], list]) -> list:
    """What step(the places of a row's vectors, the vectors so far) gives after so many rows."""
    before, body, after = builder.block, builder.append_basic_block("rows"), builder.append_basic_block("rows.end")
    builder.branch(body)
    builder.position_at_end(body)
    i, held = _phi(builder, INDEX, INDEX(0), before), [_phi(builder, VECTOR, value, before) for value in begin]
    found = step(_places(builder, builder.add(address, builder.mul(i, INDEX(4 * TILE.columns)))), held)
    more = builder.add(i, INDEX(1))
    for phi, value in zip([i, *held], [more, *found], strict=True):
        phi.add_incoming(value, body)
    builder.cbranch(builder.icmp_signed("<", more, rows), body, after)
    builder.position_at_end(after)
    return found


def _places(builder: ir.IRBuilder, address: Any) -> list:
    """Pointers to the vectors of one row."""
    return [builder.gep(_pointer(builder, address, FLOAT), [INDEX(j)]) for j in range(0, TILE.columns, TILE.lanes)]


def _loaded(builder: ir.IRBuilder, address: Any) -> list:
    return [_load(builder, place) for place in _places(builder, address)]
