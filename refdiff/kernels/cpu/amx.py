"""Products in a processor's matrix unit (Intel's AMX): blocks of 32 x 32 sums of bfloat16, 32 steps in k at a time.

A block's factors lie as the unit reads them: rows in two tiles of 16 rows, one after the other, and columns as panels have them,
pairs that follow one another in k side by side. Of numbers cut into pieces, see pieces.py, a step has the first pieces of all,
then the second, and so on; the products of pieces that are added are named where the functions are made.

Source: Intel 64 and IA-32 Architectures Software Developer's Manual, volume 1, chapter 18; Linux, arch_prctl(ARCH_REQ_XCOMP_PERM)
"""

from __future__ import annotations

import ctypes
import platform
import sys
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core.cgutils import get_or_insert_function
from numba.extending import intrinsic

from refdiff.kernels.cpu.bfloat16 import HALF, NARROWS, _narrowed_both, _store_narrow
from refdiff.kernels.cpu.tile import _vectors, from_to, tile_sums
from refdiff.kernels.cpu.vector import FEATURES, FLOAT, INDEX, TILE, WORD, _load, _pointer, _store

SIDE, STEP = 32, 32  # rows of a block, which is as wide as a panel, and numbers of a step in k
BYTES, PANEL = 2 * SIDE * STEP, 2 * TILE.columns * STEP  # of a step of rows, and of columns
_TILE, _LINE = 1024, 64  # bytes of a tile, and of a row of it
_SUMS, _LEFT, _RIGHT = (0, 1, 2, 3), (4, 5), (6, 7)  # the tiles: sums of (upper, lower) x (left, right)
_PERMISSION = 158, 0x1023, 18  # arch_prctl, to ask for what a thread may use beyond the usual, and the unit's tiles


def _granted() -> bool:
    """Whether the system lets this process use the unit: its state is large, and kept for those that ask."""
    if not sys.platform.startswith("linux") or platform.machine() != "x86_64":
        return False
    return ctypes.CDLL(None).syscall(*map(ctypes.c_long, _PERMISSION)) == 0


AMX = (
    TILE.lanes == 16
    and TILE.columns == SIDE
    and all(FEATURES.get(f) for f in ("amx-tile", "amx-bf16", "avx512bf16"))
    and _granted()
)
# What the unit is told of its tiles: 16 rows of 64 bytes each.
_SHAPES = np.zeros(64, np.uint8)
_SHAPES[0], _SHAPES[16:32:2], _SHAPES[48:56] = 1, _LINE, 16


def _called(builder: ir.IRBuilder, name: str, *args: Any) -> Any:
    function = ir.FunctionType(ir.VoidType(), [arg.type for arg in args])
    return builder.call(get_or_insert_function(builder.module, function, f"llvm.x86.{name}"), args)


def _of(number: int) -> Any:
    """A tile, which an instruction names."""
    return ir.Constant(ir.IntType(8), number)


def _begin(typing: Any) -> Any:
    """Let this thread use the unit, until `end`."""

    def emit(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        if AMX:
            place = builder.alloca(ir.ArrayType(ir.IntType(8), _SHAPES.size))
            builder.store(ir.Constant(place.type.pointee, bytearray(_SHAPES.tobytes())), place)
            _called(builder, "ldtilecfg", builder.bitcast(place, ir.IntType(8).as_pointer()))
        return context.get_dummy_value()

    return types.void(), emit


def _end(typing: Any) -> Any:
    """The unit's tiles are no longer used, nor kept when threads change places."""

    def emit(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        if AMX:
            _called(builder, "tilerelease")
        return context.get_dummy_value()

    return types.void(), emit


def _multiplying(pieces: tuple[int, int], products: tuple[tuple[int, int], ...]) -> Any:
    """A function (a, b, steps, base, out): out = base + A B, a block, after so many steps, at least one.

    `a` and `b` are addresses, of numbers in so many pieces; `products` says which of A's are multiplied by which of B's, in this
    order. `base` and `out` are an address, and the step from row to row in floats: with 0 the same row of `base` is for all.
    """
    place, bytes_of_a, bytes_of_b = types.UniTuple(types.int64, 2), pieces[0] * BYTES, pieces[1] * PANEL

    def emit(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        a, b, steps, base, out = args
        if not AMX:
            _emit_plain(builder, (a, bytes_of_a), (b, bytes_of_b), products, steps, base, out)
            return context.get_dummy_value()
        line = [INDEX(_LINE), INDEX(2 * _LINE)]

        def moved(name: str, tile: int, start: Any, offset: int, stride: Any) -> None:
            at = _pointer(builder, builder.add(start, INDEX(offset)), ir.IntType(8))
            _called(builder, name, _of(tile), at, stride)

        def all_sums(name: str, place: Any) -> None:
            start, stride = builder.extract_value(place, 0), builder.mul(builder.extract_value(place, 1), INDEX(4))
            lower = builder.add(start, builder.mul(stride, INDEX(16)))
            for tile, at, offset in zip(_SUMS, (start, start, lower, lower), (0, _LINE) * 2, strict=True):
                moved(name, tile, at, offset, stride)

        def step(k: Any, held: list) -> list:
            left, right = builder.add(a, builder.mul(k, INDEX(bytes_of_a))), builder.add(b, builder.mul(k, INDEX(bytes_of_b)))
            loaded: tuple[int | None, int | None] = (None, None)
            for product in products:
                for i in range(2):
                    if product[1] != loaded[1]:
                        moved("tileloadd64", _RIGHT[i], right, product[1] * PANEL + i * _LINE, line[1])
                    if product[0] != loaded[0]:
                        moved("tileloadd64", _LEFT[i], left, product[0] * BYTES + i * _TILE, line[0])
                for i, tile in enumerate(_SUMS):
                    _called(builder, "tdpbf16ps", _of(tile), _of(_LEFT[i // 2]), _of(_RIGHT[i % 2]))
                loaded = product
            return held

        all_sums("tileloadd64", base)
        from_to(builder, INDEX(0), steps, [], step, 1)
        all_sums("tilestored64", out)
        return context.get_dummy_value()

    def multiply(typing: Any, a: Any, b: Any, steps: Any, base: Any, out: Any) -> Any:
        return types.void(types.int64, types.int64, types.int64, place, place), emit

    return intrinsic(multiply)


def _emit_plain(builder: ir.IRBuilder, a: tuple, b: tuple, products: tuple, steps: Any, base: Any, out: Any) -> None:
    """The same in registers, for processors without the unit: no faster than the tiles of tile.py, but it can be tested there.

    `a` and `b` are the address and the bytes of a step.
    """
    bases, outs, count = _vectors(builder, base, SIDE), _vectors(builder, out, SIDE), TILE.columns // TILE.lanes

    def made(row: int) -> None:
        at, vectors = builder.add(a[0], INDEX(row // 16 * _TILE + row % 16 * _LINE)), slice(row * count, (row + 1) * count)

        def step(k: Any, sums: list) -> list:
            lines, panel = (builder.add(first, builder.mul(k, INDEX(size))) for first, size in ((at, a[1]), (b[0], b[1])))
            for left, right in products:
                line = _pointer(builder, builder.add(lines, INDEX(left * BYTES)), WORD)
                sums = tile_sums(builder, [line], builder.add(panel, INDEX(right * PANEL)), INDEX(STEP // 2), sums, True)
            return sums

        sums = from_to(builder, INDEX(0), steps, [_load(builder, place) for place in bases[vectors]], step, 1)
        for place, value in zip(outs[vectors], sums, strict=True):
            _store(builder, value, place)

    for row in range(SIDE):
        made(row)


def _narrow_step(typing: Any, source: Any, target: Any) -> Any:
    """The bfloat16 nearest to STEP floats at an address, written to another: one row of a tile."""

    def emit(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        source, target = _pointer(builder, args[0], FLOAT), _pointer(builder, args[1], HALF)
        values = [_load(builder, builder.gep(source, [INDEX(j)])) for j in range(0, STEP, TILE.lanes)]
        if NARROWS:
            made = builder.bitcast(_narrowed_both(builder, *values), ir.VectorType(HALF, STEP))
            builder.store(made, builder.bitcast(target, made.type.as_pointer()), align=2)
            return context.get_dummy_value()
        for i, value in enumerate(values):
            _store_narrow(builder, value, builder.gep(target, [INDEX(i * TILE.lanes)]))
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), emit


begin: Any = intrinsic(_begin)
end: Any = intrinsic(_end)
multiply_block: Any = _multiplying((1, 1), ((0, 0),))
# Rows in three pieces by columns in one, two or three; the order is such that few pieces are loaded twice. What is left out,
# second pieces times third, is below 2^-22 of the product of two numbers.
multiply_by_one: Any = _multiplying((3, 1), ((2, 0), (1, 0), (0, 0)))
multiply_by_two: Any = _multiplying((3, 2), ((2, 0), (1, 0), (1, 1), (0, 1), (0, 0)))
multiply_by_three: Any = _multiplying((3, 3), ((2, 0), (1, 0), (1, 1), (0, 1), (0, 2), (0, 0)))
narrow_step: Any = intrinsic(_narrow_step)
