"""A kernel takes its part of the processors, and no more."""

from __future__ import annotations

import threading

from refdiff.core.threads import shared_by, sharers
from refdiff.kernels.cpu import common


def test_it_is_told_to_one_thread_until_the_end_of_the_block():
    found = []
    with shared_by(2):
        with shared_by(3):
            assert sharers() == 3
        assert sharers() == 2
        other = threading.Thread(target=lambda: found.append(sharers()))
        other.start()
        other.join()
    assert found == [1] and sharers() == 1


def test_kernels_cut_their_work_by_it(monkeypatch):
    monkeypatch.setattr(common, "THREADS", 4)
    monkeypatch.setattr(common, "SMALL", 0)
    monkeypatch.setattr(common, "_pool", None)
    for count, parts in ((1, 4), (2, 2), (3, 1), (8, 1)):
        cuts: list[tuple[int, int]] = []
        with shared_by(count):
            common.parallel(lambda start, stop, cuts=cuts: cuts.append((start, stop)), 100, 100)
        assert len(cuts) == parts and sum(stop - start for start, stop in cuts) == 100
