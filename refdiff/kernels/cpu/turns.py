"""Counters that threads share inside compiled kernels: whose turn it is, and how much has been done.

Each thread has its own range of items, next to one another in memory; when it has taken all of them it goes on with those of
others, so that threads which do not begin or run alike end together.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core.cgutils import get_or_insert_function
from numba.extending import intrinsic

from refdiff.kernels.cpu.common import generator, part
from refdiff.kernels.cpu.vector import FEATURES, INDEX, _pointer

COUNTER = 64  # bytes from one counter to the next: a line of a cache for each


def counters(count: int) -> np.ndarray:
    """So many counters, all 0; each is an int64, COUNTER bytes after the one before."""
    return np.zeros((count, COUNTER // 8), dtype=np.int64)


def _add(typing: Any, counter: Any, many: Any) -> Any:
    """The number at an address, which is so many more from here on: for every thread another."""

    def emit(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        return builder.atomic_rmw("add", _pointer(builder, args[0], INDEX), args[1], "seq_cst")

    return types.int64(types.int64, types.int64), emit


def _after_a_moment(typing: Any, counter: Any) -> Any:
    """The number at an address, after a moment in which other threads may change it."""

    def emit(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        if FEATURES.get("sse2"):
            nothing = ir.FunctionType(ir.VoidType(), [])
            builder.call(get_or_insert_function(builder.module, nothing, "llvm.x86.sse2.pause"), [])
        return builder.load_atomic(_pointer(builder, args[0], INDEX), "seq_cst", 8)

    return types.int64(types.int64), emit


add: Any = intrinsic(_add)
_after: Any = intrinsic(_after_a_moment)


@generator
def each(turns: Any, count: Any, most: Any, thread: Any) -> Any:
    """The items, (first, last), of `count` that a thread is to do, until none is left.

    `turns` is the address of a counter for each thread, `thread` this one's number and how many there are. Of its own it takes
    `most` items at a time, of others' one.
    """
    me, threads = thread
    for i in range(threads):
        owner, step = (me + i) % threads, 1 if i else most
        begin, end = count * owner // threads, count * (owner + 1) // threads
        first = begin + add(turns + COUNTER * owner, step)
        while first < end:
            yield first, min(first + step, end)
            first = begin + add(turns + COUNTER * owner, step)


@part
def wait_for(counter: Any, count: Any) -> None:
    """Go on when the number at an address is so many; the threads that are to make it that are computing meanwhile."""
    while _after(counter) < count:
        pass
