"""Generated arrays: every shape, in every memory layout that a view can have."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st

LAYOUTS = ("contiguous", "transposed", "channels last", "sliced", "negative", "offset")


def with_layout(values: np.ndarray, layout: str) -> np.ndarray:
    """A read-only view with these values whose memory is laid out in the given way."""
    if layout == "transposed":
        view = values.T.copy().T
    elif layout == "channels last":
        view = np.moveaxis(np.moveaxis(values, min(1, values.ndim - 1), -1).copy(), -1, min(1, values.ndim - 1))
    elif layout == "sliced":
        wide = np.full([2 * n for n in values.shape], np.nan, dtype=values.dtype)
        view = wide[tuple(slice(None, None, 2) for _ in values.shape)]
        view[...] = values
    elif layout == "negative":
        backwards = tuple(slice(None, None, -1) for _ in values.shape)
        view = values[backwards].copy()[backwards]
    elif layout == "offset":
        wide = np.full([n + 3 for n in values.shape], np.nan, dtype=values.dtype)
        view = wide[tuple(slice(2, 2 + n) for n in values.shape)]
        view[...] = values
    else:
        view = values.copy()
    view.flags.writeable = False
    return view


@st.composite
def reals(draw: Any, shape: tuple[int, ...], dtype: type, spread: float = 1.0) -> np.ndarray:
    """Normal numbers in some layout; the generator shrinks to seed 0 and contiguous memory."""
    values = np.asarray(spread * np.random.default_rng(draw(st.integers(0, 2**20))).standard_normal(shape))
    return with_layout(values.astype(dtype), draw(st.sampled_from(LAYOUTS)) if shape else "contiguous")


def shapes(rank_low: int, rank_high: int, largest: int = 4) -> st.SearchStrategy[tuple[int, ...]]:
    """Small shapes."""
    return st.lists(st.integers(1, largest), min_size=rank_low, max_size=rank_high).map(tuple)


def arrays_in(args: Any) -> list[np.ndarray]:
    """Every array among arguments, those in lists too."""
    found: list[np.ndarray] = []
    for arg in args:
        if isinstance(arg, np.ndarray):
            found.append(arg)
        elif isinstance(arg, list | tuple):
            found += arrays_in(arg)
    return found


def relative_error(got: np.ndarray, want: np.ndarray) -> float:
    """|got - want| / |want| (L2), or over 0.1 an element where the terms of `want` cancelled."""
    floor = 0.1 * np.sqrt(max(want.size, 1))
    return float(np.linalg.norm(np.ravel(got - want)) / max(float(np.linalg.norm(np.ravel(want))), floor))
