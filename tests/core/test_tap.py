"""Taps: nothing until observed, everything then, the inner observer alone inside a nest."""

from __future__ import annotations

import pytest

from refdiff.core.tap import observe, tap


def test_a_tap_that_nobody_observes_does_nothing():
    assert tap("a", 1) is None


def test_an_observer_sees_names_and_values_in_order():
    seen = []
    with observe(lambda name, x: seen.append((name, x))):
        tap("a", 1)
        tap("b.0", 2)
    tap("c", 3)
    assert seen == [("a", 1), ("b.0", 2)]


def test_the_inner_observer_sees_and_the_outer_comes_back():
    outer, inner = [], []
    with observe(lambda name, x: outer.append(name)):
        tap("a", 1)
        with observe(lambda name, x: inner.append(name)):
            tap("b", 2)
        tap("c", 3)
    assert (outer, inner) == (["a", "c"], ["b"])


def test_an_error_ends_the_observation():
    seen = []
    with pytest.raises(RuntimeError), observe(lambda name, x: seen.append(name)):
        raise RuntimeError
    tap("a", 1)
    assert seen == []
