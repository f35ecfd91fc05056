"""Memory for the results of kernels, used again once nothing refers to it.

Fresh memory of many megabytes costs as much as a light operation: the system clears each page when it is first written, and takes
it back when the array goes.
"""

from __future__ import annotations

import math
import weakref

import numpy as np

IDLE = 1 << 30  # bytes that may wait for another use: what a decoder of 512x512 pixels takes at most
WASTE = 4  # times what is asked for, the most that is given: memory of any size would be held by what is small
LINE = 16  # floats of a line of a cache, at which a result begins
LEAST = 1 << 20  # bytes: smaller arrays are kept by the allocator of the process
_idle: dict[int, np.ndarray] = {}  # the longest idle first; every step on it is one that threads cannot cut
_most = 0  # floats that were asked for at once


def result(*shape: int) -> np.ndarray:
    """A float32 array to write a result to; what is in it is left over.

    Its memory comes back when it and every view of it are gone: a view refers to the array that this function made, and that one
    to the memory through a memoryview, at which NumPy's search for the owner of a view ends.
    """
    size = math.prod(shape)
    if 4 * size < LEAST:
        return np.empty(shape, dtype=np.float32)
    memory = _taken(size)
    owner = np.frombuffer(memoryview(memory), dtype=np.float32)  # type: ignore[arg-type]
    weakref.finalize(owner, _give_back, memory).atexit = False
    return owner[:size].reshape(shape)


def _taken(size: int) -> np.ndarray:
    """The smallest idle memory of so many floats and no more than WASTE times as many, or fresh memory."""
    fits = [(memory.size, key) for key, memory in list(_idle.items()) if size <= memory.size <= WASTE * size]
    found = _idle.pop(min(fits)[1], None) if fits else None
    if found is not None:
        return found
    global _most
    if size > _most:  # a network begins whose results are larger: the system makes its memory of what is idle, all too small
        _most = size
        _idle.clear()
    return fresh(size)


def fresh(size: int) -> np.ndarray:
    """Memory of so many floats that does not come back, from a line of a cache on: for what is kept."""
    memory = np.empty(size + LINE, dtype=np.float32)
    first = -memory.ctypes.data // 4 % LINE
    return memory[first : first + size]


def _give_back(memory: np.ndarray) -> None:
    _idle[id(memory)] = memory
    while idle() > IDLE:
        for key in list(_idle)[:1]:
            _idle.pop(key, None)


def idle() -> int:
    """The bytes that wait for another use."""
    return sum(memory.nbytes for memory in list(_idle.values()))
