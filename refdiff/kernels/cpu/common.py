"""What the CPU kernels share: compilation, memory layout, threads, and vectorised exponentials."""

from __future__ import annotations

import hashlib
import math
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import numba
import numpy as np

from refdiff.core.primitive import Unsupported
from refdiff.core.threads import sharers
from refdiff.kernels.cpu.amx import AMX
from refdiff.kernels.cpu.results import fresh
from refdiff.kernels.cpu.vector import float_of_bits

# Sums may be reordered and products fused, but infinities and NaN keep their meaning. Entries that nobody uses are left out, for
# they take a third of the time to compile: a kernel's from C, and that of a kernel's part from Python.
_njit: Any = numba.njit  # whose declared options leave these out
_OPTIONS = {"nogil": True, "fastmath": {"contract", "reassoc", "nsz", "arcp"}, "error_model": "numpy"}
_KEPT = {"cache": True, "no_cfunc_wrapper": True, **_OPTIONS}
_SOURCES = b"".join(path.read_bytes() for path in sorted(Path(__file__).parent.glob("*.py")))
_STAMP = hashlib.sha256(_SOURCES + bytes([AMX])).digest()  # a system may refuse the matrix unit that the processor has


def _kept(options: dict) -> Callable:
    def compiled(function: Callable) -> Any:
        """Kept on disk until any kernel's source changes: Numba looks at the function's own file, not at what it calls."""
        dispatcher = _njit(**options)(function)
        file = dispatcher._cache._cache_file
        file._source_stamp = file._source_stamp, _STAMP
        return dispatcher

    return compiled


# An array that a kernel makes may be gone after its last use as an array, whoever has its address: the caller makes what is lent.
jit, part = _kept(_KEPT), _kept({**_KEPT, "no_cpython_wrapper": True})
inline = _njit(**_OPTIONS, inline="always")
generator = _njit(**_OPTIONS)  # kept within the kernels that call it only: Numba cannot call one that it has loaded
THREADS = int(os.environ.get("REFDIFF_THREADS", os.cpu_count() or 1))
SMALL = 1 << 20  # numbers below which a second thread costs more than it gives: to wake it takes 0.2 ms on a virtual machine
PER_NUMBER = 16  # multiply-adds of a product that take as long as one number of another kernel
_pool: ThreadPoolExecutor | None = None


def address(x: np.ndarray) -> int:
    """Where an array begins in memory: a kernel that takes addresses is compiled sooner. The caller keeps the array alive."""
    return x.ctypes.data


def require_float32(*arrays: Any) -> None:
    """Raises: Unsupported unless every array is float32."""
    for a in arrays:
        if a is not None and a.dtype != np.float32:
            raise Unsupported(f"dtype {a.dtype}")


def require_numbers(*arrays: np.ndarray) -> None:
    """Raises: Unsupported for an empty array."""
    if any(a.size == 0 for a in arrays):
        raise Unsupported("an empty array")


def require_depth(given: int, weighed: int) -> None:
    """Raises: Unsupported unless a weight has as many numbers as it is given; the specification then says what is wrong."""
    if given != weighed:
        raise Unsupported(f"{given} numbers for a weight of {weighed}")


def nhwc(x: np.ndarray) -> np.ndarray:
    """The contiguous [B,H,W,C] array of an NCHW view; no copy where the memory already lies so."""
    return np.ascontiguousarray(x.transpose(0, 2, 3, 1))


def nchw(x: np.ndarray) -> np.ndarray:
    """The NCHW view of a [B,H,W,C] array."""
    return x.transpose(0, 3, 1, 2)


def padded_nhwc(x: np.ndarray, padding: tuple[int, int, int, int]) -> np.ndarray:
    """The contiguous [B,H',W',C] array of an NCHW view with zeros around it: (top, bottom, left, right).

    It is lent, to this thread until it asks for the next, unless nothing had to be added or moved.
    """
    if not any(padding):
        return nhwc(x)
    top, bottom, left, right = padding
    batch, channels, height, width = x.shape
    shape = (batch, top + height + bottom, left + width + right, channels)
    image = scratch("padded", math.prod(shape))[: math.prod(shape)].reshape(shape)
    image[:, :top], image[:, top + height :] = 0.0, 0.0
    image[:, :, :left], image[:, :, left + width :] = 0.0, 0.0
    image[:, top : top + height, left : left + width] = x.transpose(0, 2, 3, 1)
    return image


def set_threads(count: int) -> None:
    """Run on so many threads from here on."""
    global THREADS, _pool
    THREADS, _pool = count, None


def parallel(kernel: Callable, count: int, size: int, *args: Any) -> None:
    """Run kernel(start, stop, *args) over 0..count, cut into one range a thread; each item is computed whole by one thread.

    `size`: how many numbers are made or moved, of a product its multiply-adds / PER_NUMBER. SMALL ones stay on this thread.
    The ranges write to different parts of the result, so the numbers do not depend on the number of threads.
    """
    parts = parts_of(count, size)
    on_threads(lambda i: kernel(count * i // parts, count * (i + 1) // parts, *args), parts)


def parts_of(count: int, size: int) -> int:
    """How many threads share so many items of work of that size, as `parallel` has it."""
    return max(min(THREADS // sharers(), count), 1) if size >= SMALL else 1


def on_threads(work: Callable[[int], None], parts: int) -> None:
    """Call work(0) on this thread and work(1), ..., work(parts - 1) on others.

    If this thread is interrupted while it waits, others are still at work: `work` itself refers to every array whose address it
    hands on.
    """
    global _pool
    if parts > 1 and _pool is None:
        _pool = ThreadPoolExecutor(THREADS)
    futures = [_pool.submit(work, i) for i in range(1, parts)] if _pool else []
    try:
        work(0)
    except BaseException:
        wait(futures)
        raise
    for future in futures:
        future.result()


_own = threading.local()


def scratch(name: str, size: int) -> np.ndarray:
    """At least `size` floats for this thread alone, the same whenever that name is asked for; what is in them is left over.

    They begin at a line of a cache, so that no vector lies in two.
    """
    held = getattr(_own, name, None)
    if held is None or held.size < size:
        held = fresh(size)
        setattr(_own, name, held)
    return held


# e^x = 2^n e^r with |r| <= ln 2 / 2: a Taylor polynomial for e^r (its error is 5e-9 of the value), 2^n by its bits.
LOG2E = np.float32(1.0 / math.log(2.0))
LN2_HIGH = np.float32(0.693145751953125)
LN2_LOW = np.float32(math.log(2.0) - 0.693145751953125)
C2, C3, C4, C5, C6, C7 = (np.float32(1.0 / math.factorial(k)) for k in range(2, 8))
ONE = np.float32(1.0)
LOWEST, HIGHEST = np.float32(-87.0), np.float32(88.0)


@inline
def exponential(x: Any) -> Any:
    """e^x of one float, in a loop as many at once as the processor takes. Below -87 the result is e^-87, about 1e-38."""
    v = LOWEST if x < LOWEST else HIGHEST if x > HIGHEST else x  # NaN stays
    k = np.floor(v * LOG2E + np.float32(0.5))
    r = v - k * LN2_HIGH - k * LN2_LOW
    p = ((((((C7 * r + C6) * r + C5) * r + C4) * r + C3) * r + C2) * r + ONE) * r + ONE
    return p * float_of_bits((np.int32(k) + np.int32(127)) << np.int32(23))
