"""Small fixed sums of vectors, every number of a matrix standing in the instructions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from llvmlite import ir
from numba import types
from numba.core.cgutils import unpack_tuple
from numba.extending import intrinsic

from refdiff.kernels.cpu.bfloat16 import HALF, _paired, _store_narrow
from refdiff.kernels.cpu.tile import _spread
from refdiff.kernels.cpu.vector import FLOAT, INDEX, NUMBERS, TILE, WORD, _constant, _fused, _load, _pointer, _store

# Numba lets LLVM reorder sums that have no flag of their own: two compilations, of weights of two kinds, could then differ.
ORDERED = ("nsz",)
PLACE = types.UniTuple(types.int64, 2)


def combination(*matrices: Any, scaled: str = "") -> Any:
    """A function (source, steps, target, steps, kind, scale): target = L source L^T, L = matrices[-1] ... matrices[0].

    Each number is one vector. Source and target are addresses, the steps those in numbers from row to row and from column to
    column. `kind` says, by its type, what the target's numbers become, float32 or bfloat16. Of products that are spared, the
    source is multiplied first by what is at the address `scale`: a number, or a vector, as `scaled` says.
    """

    def emit(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        source, steps, target, target_steps, _, scale = args
        wide = NUMBERS[signature.args[4]].stored == FLOAT
        factor = _scale(builder, scale, scaled == "vector") if scaled and signature.args[4] == types.int32 else None
        for value, pointer in zip(
            _both_sides(builder, matrices, source, steps, factor),
            _grid(builder, matrices, target, target_steps, wide),
            strict=True,
        ):
            (_store if wide else _store_narrow)(builder, value, pointer)
        return context.get_dummy_value()

    def combine(typing: Any, source: Any, steps: Any, target: Any, target_steps: Any, kind: Any, scale: Any) -> Any:
        return types.void(types.int64, PLACE, types.int64, PLACE, kind, types.int64), emit

    return intrinsic(combine)


def biased_combination(*matrices: Any) -> Any:
    """A function (source, steps, target, steps, bias, scales): target = bias + scale L source L^T.

    `bias` is the address of a vector; `scales` are those of a number and of a vector, whose product is the scale.
    """

    def emit(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        source, steps, target, target_steps, bias, scales = args
        base, scale, fused = _load(builder, _pointer(builder, bias, FLOAT)), _product_of_scales(builder, scales), _fused(builder)
        for value, pointer in zip(
            _both_sides(builder, matrices, source, steps), _grid(builder, matrices, target, target_steps, True), strict=True
        ):
            _store(builder, builder.call(fused, [value, scale, base]), pointer)
        return context.get_dummy_value()

    def combine(typing: Any, source: Any, steps: Any, target: Any, target_steps: Any, bias: Any, scales: Any) -> Any:
        return types.void(types.int64, PLACE, types.int64, PLACE, types.int64, PLACE), emit

    return intrinsic(combine)


def paired_combination(*matrices: Any) -> Any:
    """A function (source, other, steps, target, steps): the same of two sources, whose numbers become pairs of bfloat16."""

    def emit(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        *sources, steps, target, target_steps = args
        both = zip(*(_both_sides(builder, matrices, source, steps) for source in sources), strict=True)
        for pair, pointer in zip(both, _grid(builder, matrices, target, target_steps, True), strict=True):
            _store(builder, _paired(builder, *pair), pointer)
        return context.get_dummy_value()

    def combine(typing: Any, source: Any, other: Any, steps: Any, target: Any, target_steps: Any) -> Any:
        return types.void(types.int64, types.int64, PLACE, types.int64, PLACE), emit

    return intrinsic(combine)


def _both_sides(builder: ir.IRBuilder, matrices: Any, source: Any, steps: Any, scale: Any = None) -> Iterator:
    """The rows of L source L^T, one number after the other; the source multiplied by a vector, if there is one."""
    (row, column), count = _both(builder, steps), range(len(matrices[0][0]))
    columns = [
        _combined(builder, matrices, [_read(builder, source, [(row, i), (column, j)], scale) for i in count]) for j in count
    ]
    for line in zip(*columns, strict=True):
        yield from _combined(builder, matrices, list(line))


def _grid(builder: ir.IRBuilder, matrices: Any, target: Any, steps: Any, wide: bool) -> Iterator:
    """Where they go."""
    (down, across), count = _both(builder, steps), range(len(matrices[-1]))
    return (_at(builder, target, [(down, i), (across, j)], FLOAT if wide else HALF) for i in count for j in count)


def mixture(matrix: Any, *, each: bool) -> Any:
    """A function (sources, targets, scale), addresses: targets[i] = the sum over j of matrix[i][j] scale sources[j].

    Sources and targets are vectors; the scale is one too if `each`, else a number.
    """

    def emit(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        sources, targets = ([_pointer(builder, at, FLOAT) for at in unpack_tuple(builder, pair)] for pair in args[:2])
        scale = _scale(builder, args[2], each)
        values = [builder.fmul(_load(builder, source), scale, flags=ORDERED) for source in sources]
        for value, target in zip(_combined(builder, [matrix], values), targets, strict=True):
            _store(builder, value, target)
        return context.get_dummy_value()

    def mix(typing: Any, sources: Any, targets: Any, scale: Any) -> Any:
        return types.void(
            types.UniTuple(types.int64, len(matrix[0])), types.UniTuple(types.int64, len(matrix)), types.int64
        ), emit

    return intrinsic(mix)


def closing(matrix: Any, *, streaming: bool = False) -> Any:
    """A function (sources, bases, targets, scales): targets[i] = bases[i] + scale (sum over j of matrix[i][j] sources[j]).

    All are addresses of vectors, but `scales` of a number and of a vector, whose product is the scale. With `streaming` the
    targets, each at a multiple of a vector's size, are written past the caches: for what is read much later.
    """

    def emit(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        sources, bases, targets = ([_pointer(builder, at, FLOAT) for at in unpack_tuple(builder, pair)] for pair in args[:3])
        scale = _product_of_scales(builder, args[3])
        sums, fused = _combined(builder, [matrix], [_load(builder, source) for source in sources]), _fused(builder)
        for value, base, target in zip(sums, bases, targets, strict=True):
            store = _store(builder, builder.call(fused, [value, scale, _load(builder, base)]), target)
            if streaming:
                store.align = 4 * TILE.lanes
                store.set_metadata("nontemporal", builder.module.add_metadata([WORD(1)]))
        return context.get_dummy_value()

    def close(typing: Any, sources: Any, bases: Any, targets: Any, scales: Any) -> Any:
        inputs, outputs = (types.UniTuple(types.int64, len(side)) for side in (matrix[0], matrix))
        return types.void(inputs, outputs, outputs, PLACE), emit

    return intrinsic(close)


def _product_of_scales(builder: ir.IRBuilder, addresses: Any) -> Any:
    """The product of a number at the first address and a vector at the second."""
    number, vector = _both(builder, addresses)
    return builder.fmul(_scale(builder, number, False), _scale(builder, vector, True), flags=ORDERED)


def _scale(builder: ir.IRBuilder, address: Any, each: bool) -> Any:
    """A vector at an address, or the number there in all its lanes."""
    pointer = _pointer(builder, address, FLOAT)
    return _load(builder, pointer) if each else _spread(builder, builder.load(pointer), FLOAT)


def _combined(builder: ir.IRBuilder, matrices: Any, values: list) -> list:
    """The vectors `values` multiplied by one matrix after the other."""
    for matrix in matrices:
        values = [_sum(builder, [(float(c), v) for c, v in zip(line, values, strict=True) if c]) for line in matrix]
    return values


def _both(builder: ir.IRBuilder, pair: Any) -> tuple:
    return builder.extract_value(pair, 0), builder.extract_value(pair, 1)


def _read(builder: ir.IRBuilder, start: Any, steps: list, scale: Any) -> Any:
    value = _load(builder, _at(builder, start, steps, FLOAT))
    return value if scale is None else builder.fmul(value, scale, flags=ORDERED)


def _at(builder: ir.IRBuilder, start: Any, steps: list, one: Any) -> Any:
    """The place of so many of each of these steps, in numbers of that type, after an address."""
    pointer = _pointer(builder, start, one)
    for step, count in steps:
        pointer = builder.gep(pointer, [builder.mul(step, INDEX(count))])
    return pointer


def _sum(builder: ir.IRBuilder, terms: list[tuple[float, Any]]) -> Any:
    """The sum of coefficient * vector, in the order given."""
    fused = _fused(builder)
    (first, total), *others = terms
    total = total if first == 1 else builder.fmul(_constant(first), total, flags=ORDERED)
    for factor, value in others:
        if abs(factor) == 1:
            total = (builder.fadd if factor > 0 else builder.fsub)(total, value, flags=ORDERED)
        else:
            total = builder.call(fused, [_constant(factor), value, total])
    return total
