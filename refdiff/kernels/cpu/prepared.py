"""Weights in the form that a kernel wants, made once and kept as long as the parameter, within a budget of memory."""

from __future__ import annotations

import math
import os
import threading
import weakref
from collections.abc import Callable

import numpy as np

from refdiff.kernels.cpu.results import fresh, result

# Bytes: what a U-Net of Stable Diffusion 1.5 keeps at 512 pixels, and a little. Beyond it a weight's form is made anew at each
# call, in memory that comes back, which costs few hundredths of the call: a decoder, called once, gains nothing by keeping it.
BUDGET = int(float(os.environ.get("REFDIFF_PREPARED_GB", "0.3")) * 1e9)
_kept: dict[tuple[str, int], tuple[weakref.ref, np.ndarray]] = {}
_lock = threading.Lock()


def prepared(kind: str, weight: np.ndarray, make: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """make(weight), kept for the next call with the very same array while the budget lasts.

    Parameters are never written into, so that what was made of one stays right; it goes when the parameter goes.
    """
    key = (kind, id(weight))
    found = _kept.get(key)
    if found is not None and found[0]() is weight:
        return found[1]
    made = make(weight)
    with _lock:
        if used() + made.nbytes <= BUDGET:
            _kept[key] = (weakref.ref(weight, lambda gone: _forget(key, gone)), made)
    return made


def room(*shape: int) -> np.ndarray:
    """A float32 array to make such a form in: of its own memory while the budget lasts, else of results', which comes back.

    Memory of results may be several times as large as what is asked for: too much to keep, and the budget would not see it.
    """
    size = math.prod(shape)
    return fresh(size).reshape(shape) if used() + 4 * size <= BUDGET else result(*shape)


def used() -> int:
    """The bytes that are kept."""
    return sum(made.nbytes for _, made in list(_kept.values()))


def _forget(key: tuple[str, int], gone: weakref.ref) -> None:
    if key in _kept and _kept[key][0] is gone:
        del _kept[key]
