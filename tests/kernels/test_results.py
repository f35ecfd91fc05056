"""Memory of results: used again when no view is left, never before, and no more of it idle than is said."""

from __future__ import annotations

import gc

import numpy as np
import pytest

from refdiff.kernels.cpu import results
from refdiff.kernels.cpu.results import result

MANY = results.LEAST // 4


@pytest.fixture(autouse=True)
def _nothing_idle(monkeypatch):
    monkeypatch.setattr(results, "_idle", {})
    monkeypatch.setattr(results, "_most", 1 << 40)


def _place(x):
    return x.__array_interface__["data"][0]


def test_memory_that_nothing_uses_is_used_again():
    x = result(MANY, 2)
    assert x.shape == (MANY, 2) and x.dtype == np.float32 and x.flags.c_contiguous and x.flags.writeable
    place = _place(x)
    del x
    assert _place(result(2, MANY - 5)) == place


@pytest.mark.parametrize("view", [lambda x: x.T[3:], lambda x: x.reshape(2, -1).transpose(1, 0)[:, :1], memoryview])
def test_memory_with_a_view_left_is_not(view):
    x = result(MANY, 2)
    x[:] = 7
    kept = view(x)
    del x
    others = [result(MANY, 2) for _ in range(3)]
    for other in others:
        other[:] = 0
    assert (np.asarray(kept) == 7).all()
    del kept
    gc.collect()
    assert results.idle() == 8 * MANY


def test_it_takes_the_smallest_that_fits_and_wastes_little():
    arrays = [result(size) for size in (2 * MANY, MANY + MANY // 8, MANY + 9, results.WASTE * (MANY + 9) + 1)]
    small, large = _place(arrays[2]), _place(arrays[3])
    arrays.clear()
    taken = result(MANY)
    assert _place(taken) == small
    others = [result(MANY + 9) for _ in range(3)]
    assert large not in [_place(other) for other in others]  # which would waste too much
    assert results.idle() == 4 * (results.WASTE * (MANY + 9) + 1)


def test_the_longest_idle_goes_first_when_there_is_too_much(monkeypatch):
    monkeypatch.setattr(results, "IDLE", 8 * MANY)
    first, second, third = result(MANY), result(MANY + 1), result(MANY + 2)
    del first, second
    assert results.idle() == 4 * (MANY + 1)
    del third
    assert results.idle() == 4 * (MANY + 2)


def test_what_is_idle_goes_when_more_is_asked_for_than_ever(monkeypatch):
    monkeypatch.setattr(results, "_most", 0)
    first, second = result(MANY), result(2 * MANY)
    del first, second
    assert results.idle() == 12 * MANY
    third = result(2 * MANY + 1)
    assert results.idle() == 0
    small = result(MANY)
    del small
    other = result(2 * MANY + 1)  # not more than ever: what is idle stays
    assert results.idle() == 4 * MANY and other.size == third.size


def test_small_arrays_are_the_allocators():
    x = result(3, 4)
    assert x.base is None
    del x
    assert results.idle() == 0


def test_large_results_begin_at_a_line_of_a_cache():
    arrays = [result(MANY + i, 3) for i in range(5)]
    assert {a.ctypes.data % 64 for a in arrays} == {0}
