"""Small fixed sums of vectors, every number of a matrix standing in the instructions."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core.cgutils import unpack_tuple
from numba.extending import intrinsic

from refdiff.kernels.cpu.bfloat16 import HALF, _store_narrow
from refdiff.kernels.cpu.vector import FLOAT, INDEX, NUMBERS, TILE, WORD, _constant, _fused, _load, _pointer, _store


def combination(*matrices: Any, biased: bool = False) -> Any:
    """A function (source, steps, target, steps, last): target = L source L^T, L = matrices[-1] ... matrices[0].

    Each number is one vector. Source and target are addresses, the steps those in numbers from row to row and from column to
    column. `last` says, by its type, what the target's numbers become, float32 or bfloat16; with `biased`, where they are
    float32, it is the address of a vector that each of them has added.
    """

    def emit(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        source, (row, column), target, (down, across) = args[0], _both(builder, args[1]), args[2], _both(builder, args[3])
        count = range(len(matrices[0][0]))
        columns = [_combined(builder, matrices, [_read(builder, source, [(row, i), (column, j)]) for i in count]) for j in count]
        bias = _load(builder, _pointer(builder, args[4], FLOAT)) if biased else None
        wide = biased or NUMBERS[signature.args[4]].stored == FLOAT
        for i, line in enumerate(zip(*columns, strict=True)):
            for j, value in enumerate(_combined(builder, matrices, list(line))):
                value = builder.fadd(value, bias) if biased else value
                pointer = _at(builder, target, [(down, i), (across, j)], FLOAT if wide else HALF)
                (_store if wide else _store_narrow)(builder, value, pointer)
        return context.get_dummy_value()

    def combine(typing: Any, source: Any, steps: Any, target: Any, target_steps: Any, last: Any) -> Any:
        place = types.UniTuple(types.int64, 2)
        return types.void(types.int64, place, types.int64, place, types.int64 if biased else last), emit

    return intrinsic(combine)


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
    total = total if first == 1 else builder.fmul(_constant(first), total)
    for factor, value in others:
        if abs(factor) == 1:
            total = builder.fadd(total, value) if factor > 0 else builder.fsub(total, value)
        else:
            total = builder.call(fused, [_constant(factor), value, total])
    return total
