"""Threads that take turns do each item once, and wait for what others do."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refdiff.kernels.cpu import common
from refdiff.kernels.cpu.common import address, jit, on_threads
from refdiff.kernels.cpu.turns import COUNTER, add, counters, each, wait_for


@jit
def mark(turns, count, most, thread, times, whose):
    """Count how often each item is taken, and note by whom."""
    for first, last in each(turns, count, most, thread):
        for i in range(first, last):
            times[i] += 1
            whose[i] = thread[0]


@jit
def meet(turns, thread, before, after):
    """Each thread writes its number, waits for all to have done so, and sums what it then sees."""
    before[thread[0]] = thread[0] + 1
    add(turns, 1)
    wait_for(turns, thread[1])
    after[thread[0]] = before.sum()


def taken(count, most, parts, order):
    """How often each item was taken and by whom, by threads that run one after the other in that order."""
    turns, times, whose = counters(parts), np.zeros(count, np.int64), np.full(count, -1)
    for i in order:
        mark(address(turns), count, most, (i, parts), times, whose)
    return times, whose


@given(st.integers(0, 50), st.integers(1, 9), st.integers(1, 6), st.randoms())
def test_whoever_comes_first_takes_all_and_each_item_once(count, most, parts, random):
    order = list(range(parts))
    random.shuffle(order)
    times, whose = taken(count, most, parts, order)
    assert (times == 1).all() and (whose == order[0]).all()


@given(st.integers(1, 2000), st.integers(1, 9), st.integers(2, 4))
def test_threads_at_once_take_each_item_once(count, most, parts):
    turns, times, whose = counters(parts), np.zeros(count, np.int64), np.full(count, -1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(common, "THREADS", parts)
        patch.setattr(common, "_pool", None)
        on_threads(lambda i: mark(address(turns), count, most, (i, parts), times, whose), parts)
    assert (times == 1).all() and ((whose >= 0) & (whose < parts)).all()


@jit
def note(turns, count, most, thread, counted, found):
    """The items in the order in which they are taken, (first, last), and whose counter it was that told them."""
    many, before = 0, counted.copy()
    for first, last in each(turns, count, most, thread):
        found[many] = first, last, np.argmax(counted != before)
        many, before = many + 1, counted.copy()
    return found[:many]


def test_a_thread_takes_its_own_first_and_of_others_one_at_a_time():
    turns = counters(2)
    found = note(address(turns), 10, 4, (1, 2), turns[:, 0], np.zeros((20, 3), np.int64))
    assert [tuple(line) for line in found.tolist()] == [(5, 9, 1), (9, 10, 1), *((i, i + 1, 0) for i in range(5))]


def test_a_counter_has_a_line_of_a_cache_for_itself():
    turns = counters(3)
    assert turns.strides[0] == COUNTER and turns.nbytes == 3 * COUNTER and not turns.any()


def test_waiting_ends_when_all_have_come():
    turns, before, after = counters(1), np.zeros(3, np.int64), np.zeros(3, np.int64)

    def come(i, after_seconds):
        time.sleep(after_seconds)
        meet(address(turns), (i, 3), before, after)

    threads = [threading.Thread(target=come, args=(i, 0.02 * i)) for i in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (after == 6).all()


def test_work_of_others_ends_before_an_error_of_this_thread_is_told(monkeypatch):
    monkeypatch.setattr(common, "THREADS", 2)
    monkeypatch.setattr(common, "_pool", None)
    begun, ended = threading.Event(), []

    def work(i):
        if i == 0:
            begun.wait()
            raise KeyboardInterrupt
        begun.set()
        time.sleep(0.05)
        ended.append(i)

    with pytest.raises(KeyboardInterrupt):
        on_threads(work, 2)
    assert ended == [1]
