"""What was computed before is not computed again: the second half of a batch that repeats the first, and a layer of what stays.

A guided step gives the U-Net the same latents twice, and nothing tells the halves apart before the first cross-attention: until
then, which is at the largest size, every layer would do the same work again. And the text stays the same through all steps, so
that the keys and values which cross-attention takes from it do too.
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np

from refdiff.core import primitive
from refdiff.kernels.cpu.common import nchw, nhwc
from refdiff.kernels.cpu.results import result


def once(kernel: Callable, batches: int) -> Callable:
    """The kernel, called with half of each of its first `batches` arguments where their halves are the same bits.

    Every kernel gives a picture the same numbers whatever else is in its batch, so nothing changes but the time.
    """

    @functools.wraps(kernel)
    def run(*args: Any, **constants: Any) -> np.ndarray:
        pictures, others = args[:batches], args[batches:]
        if not all(_repeats(x) for x in pictures):
            return kernel(*args, **constants)
        y = kernel(*(x[: len(x) // 2] for x in pictures), *others, **constants)
        return _twice(y) if y.flags.c_contiguous else nchw(_twice(nhwc(y)))

    return run


LARGEST, KEPT = 1 << 20, 1 << 26  # bytes of an input that is compared, and of all inputs and results that are kept
_calls: dict[int, _Call] = {}


class _Call:
    """A layer's last call: with which arrays, in which dtype of products, and once it was made twice, its numbers."""

    def __init__(self, x: np.ndarray, weight: np.ndarray, bias: np.ndarray | None) -> None:
        key = id(weight)
        self.weight = weakref.ref(weight, lambda gone: _forget(key, gone))
        self.x = weakref.ref(x, lambda gone: _drop(key, gone))  # with the array its numbers go: it is never seen again
        self.bias, self.products = bias, primitive.products()
        self.numbers: tuple[np.ndarray, np.ndarray] | None = None

    def is_of(self, x: np.ndarray, weight: np.ndarray, bias: np.ndarray | None) -> bool:
        same = self.weight() is weight and self.x() is x and self.bias is bias
        return same and self.products == primitive.products()


def remembered(layer: Callable) -> Callable:
    """The layer, whose result is kept where it is called twice with the very same array, until it is called with another.

    The array's numbers are compared too, for it may have been written into; parameters never are.
    """

    @functools.wraps(layer)
    def run(x: np.ndarray, weight: np.ndarray, bias: np.ndarray | None) -> np.ndarray:
        if x.nbytes > LARGEST:
            return layer(x, weight, bias)
        call = _calls.get(id(weight))
        if call is None or not call.is_of(x, weight, bias):
            y = layer(x, weight, bias)
            _calls[id(weight)] = _Call(x, weight, bias)
            return y
        numbers, call.numbers = call.numbers, None
        if numbers is not None and np.array_equal(numbers[0].view(np.uint32), np.ascontiguousarray(x).view(np.uint32)):
            call.numbers = numbers
            return numbers[1].copy()
        y = layer(x, weight, bias)
        if kept() + x.nbytes + y.nbytes <= KEPT:
            call.numbers = np.array(x, order="C"), y.copy()
        return y

    return run


def kept() -> int:
    """The bytes of all inputs and results that are kept."""
    return sum(a.nbytes for call in list(_calls.values()) for a in call.numbers or ())


def _forget(key: int, gone: weakref.ref) -> None:
    if key in _calls and _calls[key].weight is gone:
        del _calls[key]


def _drop(key: int, gone: weakref.ref) -> None:
    if key in _calls and _calls[key].x is gone:
        _calls[key].numbers = None


def _twice(y: np.ndarray) -> np.ndarray:
    both = result(2, *y.shape)
    both[:] = y
    return both.reshape(-1, *y.shape[1:])


def _repeats(x: np.ndarray) -> bool:
    """Whether the second half of a batch has the bits of the first; most that do not are told by the first number."""
    half = len(x) // 2 if x.ndim else 0
    if x.ndim < 2 or x.dtype != np.float32 or len(x) % 2 or x[:half].size == 0:
        return False
    if x[(0,) * x.ndim] != x[(half, *(0,) * (x.ndim - 1))]:
        return False
    bits = x.view(np.uint32)
    return bool(np.array_equal(bits[:half], bits[half:]))
