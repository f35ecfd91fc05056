"""Small fixed sums of vectors, every number of a matrix standing in the instructions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from llvmlite import ir
from numba import types
from numba.core.cgutils import unpack_tuple
from numba.extending import intrinsic

from refdiff.kernels.cpu.bfloat16 import HALF, _paired, _store_narrow
from refdiff.kernels.cpu.vector import FLOAT, INDEX, NUMBERS, TILE, WORD, _constant, _fused, _load, _pointer, _store

# Numba lets LLVM reorder sums that have no flag of their own: two compilations, of weights of two kinds, could then differ.
ORDERED = ("nsz",)
PLACE = types.UniTuple(types.int64, 2)


def combination(*matrices: Any, biased: bool = False) -> Any:
    """A function (source, steps, target, steps, last): target = L source L^T, L = matrices[-1] ... matrices[0].

    Each number is one vector. Source and target are addresses, the steps those in numbers from row to row and from column to
    column. `last` says, by its type, what the target's numbers become, float32 or bfloat16; with `biased`, where they are
    float32, it is the address of a vector that each of them has added.
    """

    def emit(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        source, steps, target, target_steps, last = args
        bias = _load(builder, _pointer(builder, last, FLOAT)) if biased else None
        wide = biased or NUMBERS[signature.args[4]].stored == FLOAT
        for value, pointer in zip(
            _both_sides(builder, matrices, source, steps), _grid(builder, matrices, target, target_steps, wide), strict=True
        ):
            (_store if wide else _store_narrow)(builder, builder.fadd(value, bias, flags=ORDERED) if biased else value, pointer)
        return context.get_dummy_value()

    def combine(typing: Any, source: Any, steps: Any, target: Any, target_steps: Any, last: Any) -> Any:
        return types.void(types.int64, PLACE, types.int64, PLACE, types.int64 if biased else last), emit

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


def _both_sides(builder: ir.IRBuilder, matrices: Any, source: Any, steps: Any) -> Iterator:
    """The rows of L source L^T, one number after the other."""
    (row, column), count = _both(builder, steps), range(len(matrices[0][0]))
    columns = [_combined(builder, matrices, [_read(builder, source, [(row, i), (column, j)]) for i in count]) for j in count]
    for line in zip(*columns, strict=True):
        yield from _combined(builder, matrices, list(line))


def _grid(builder: ir.IRBuilder, matrices: Any, target: Any, steps: Any, wide: bool) -> Iterator:
    """Where they go."""
    (down, across), count = _both(builder, steps), range(len(matrices[-1]))
    return (_at(builder, target, [(down, i), (across, j)], FLOAT if wide else HALF) for i in count for j in count)


def mixture(matrix: Any, *, streaming: bool = False) -> Any:
    """A function (sources, targets), addresses of vectors: targets[i] = the sum over j of matrix[i][j] sources[j].

    With `streaming` the targets, each at a multiple of a vector's size, are written past the caches: for what is read much later.
    """

    def emit(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        sources, targets = ([_pointer(builder, at, FLOAT) for at in unpack_tuple(builder, pair)] for pair in args)
        values = [_load(builder, source) for source in sources]
        for value, target in zip(_combined(builder, [matrix], values), targets, strict=True):
            store = _store(builder, value, target)
            if streaming:
                store.align = 4 * TILE.lanes
                store.set_metadata("nontemporal", builder.module.add_metadata([WORD(1)]))
        return context.get_dummy_value()

    def mix(typing: Any, sources: Any, targets: Any) -> Any:
        return types.void(types.UniTuple(types.int64, len(matrix[0])), types.UniTuple(types.int64, len(matrix))), emit

    return intrinsic(mix)


def _combined(builder: ir.IRBuilder, matrices: Any, values: list) -> list:
    """The vectors `values` multiplied by one matrix after the other."""
    for matrix in matrices:
        values = [_sum(builder, [(float(c), v) for c, v in zip(line, values, strict=True) if c]) for line in matrix]
    return values


def _both(builder: ir.IRBuilder, pair: Any) -> tuple:
    return builder.extract_value(pair, 0), builder.extract_value(pair, 1)


def _read(builder: ir.IRBuilder, start: Any, steps: list) -> Any:
    return _load(builder, _at(builder, start, steps, FLOAT))


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
