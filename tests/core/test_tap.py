"""Taps: nothing until observed, everything then, the inner observer alone inside a nest."""

from __future__ import annotations

import pytest

from refdiff.core.tap import observe, tap, unit


def test_a_tap_that_nobody_observes_does_nothing():
    assert tap("a", 1) == 1


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


def test_what_the_observer_puts_in_its_place_goes_on():
    seen = []
    with observe(lambda name, x: seen.append(x), change=lambda name, x: 10 * x if name == "a" else x):
        assert (tap("a", 1), tap("b", 2)) == (10, 2)
    assert seen == [1, 2]


class Node:
    """Stands for a node of the parameters."""

    path = "block.0"


def test_a_unit_is_tapped_under_its_path_and_left_out_where_it_is_known():
    runs, seen = [], []

    @unit
    def part(p, x, *, factor):
        runs.append(x)
        return tap("inner", factor * x)

    assert part(Node(), 2, factor=3) == 6
    with observe(lambda name, x: seen.append((name, x))):
        assert part(Node(), 2, factor=3) == 6
    assert seen == [("inner", 6), ("block.0", 6)]
    del seen[:]
    with observe(lambda name, x: seen.append((name, x)), know={"block.0": 7}.get):
        assert part(Node(), 2, factor=3) == 7
    assert (seen, runs) == ([("block.0", 7)], [2, 2])
