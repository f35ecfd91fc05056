"""A Brownian path: its increments add up, are decided by the seed, and have the right mean, variance and independence."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refdiff.diffusion.brownian import BrownianPath, BrownianStream
from refdiff.diffusion.noise import stream
from refdiff.errors import BadRequest

LOW, HIGH = 0.03, 14.6
places = st.floats(LOW, HIGH)
seeds = st.integers(0, 2**64 - 1)


def path(seed: int, *shape: int) -> BrownianPath:
    return BrownianPath(seed, shape or (5,), low=LOW, high=HIGH)


@given(seeds, places, places, places)
def test_increments_add_up(seed, a, b, c):
    w = path(seed)
    np.testing.assert_allclose(w.increment(a, b) + w.increment(b, c), w.increment(a, c), rtol=0, atol=1e-13)
    np.testing.assert_array_equal(w.increment(a, b), -w.increment(b, a))


@given(seeds, st.lists(places, min_size=2, max_size=12), places, places)
def test_what_was_asked_before_changes_nothing(seed, before, a, b):
    asked, fresh = path(seed), path(seed)
    for x, y in zip(before[:-1], before[1:], strict=True):
        asked.increment(x, y)
    np.testing.assert_array_equal(asked.increment(a, b), fresh.increment(a, b))


@given(seeds, st.lists(st.floats(LOW, HIGH), min_size=0, max_size=6, unique=True))
def test_however_the_way_is_divided(seed, between):
    w, stops = path(seed), [LOW, *sorted(between), HIGH]
    parts = sum(w.increment(a, b) for a, b in zip(stops[:-1], stops[1:], strict=True))
    np.testing.assert_allclose(parts, path(seed).increment(LOW, HIGH), rtol=0, atol=1e-12)


@given(seeds, st.floats(0.0, 20.0), st.floats(0.5, 20.0), st.floats(0.0, 1.0), st.floats(0.0, 1.0))
def test_a_path_elsewhere_is_the_path_on_the_unit_way(seed, low, width, a, b):
    """Stretched by the root of its way."""
    here, unit = BrownianPath(seed, (3,), low=low, high=low + width), BrownianPath(seed, (3,), low=0.0, high=1.0)
    places = [min(low + width * place, low + width) for place in (a, b)]
    shares = [(place - low) / ((low + width) - low) for place in places]
    wanted = unit.increment(*shares) * math.sqrt((low + width) - low)
    np.testing.assert_allclose(here.increment(*places), wanted, rtol=0, atol=1e-12)


@given(st.integers(0, 2**32), st.integers(1, 5))
def test_other_seeds_are_other_paths(seed, distance):
    assert not np.array_equal(path(seed).increment(1.0, 2.0), path(seed + distance).increment(1.0, 2.0))


N = 8_000
STEPS = [(LOW, HIGH), (LOW, 0.04), (7.315, HIGH), (7.3, 7.4), (math.pi, math.e), (14.5, 14.5 + 2e-6), (3.0, 3.0 + 1e-9)]


@pytest.mark.parametrize(("a", "b"), STEPS)
def test_mean_variance_and_kurtosis(a, b):
    x = path(3, N).increment(a, b) / math.sqrt(abs(b - a))
    assert abs(x.mean()) < 4 / N**0.5
    assert abs(x.var() - 1.0) < 4 * (2 / N) ** 0.5
    assert abs((x**4).mean() - 3.0) < 4 * (96 / N) ** 0.5


@pytest.mark.parametrize("stops", [[0.03, 1.0, 2.0, 2.5, 14.6], [0.5, 0.51, 0.52, 9.0], [14.6, 3.0, 0.9, 0.03]])
def test_increments_of_steps_that_do_not_overlap_are_independent(stops):
    w = path(4, N)
    parts = [w.normal_between(a, b).astype(np.float64) for a, b in zip(stops[:-1], stops[1:], strict=True)]
    correlation = np.corrcoef(parts)
    np.testing.assert_allclose(correlation, np.eye(len(parts)), rtol=0, atol=4.5 / N**0.5)
    np.testing.assert_allclose(np.corrcoef(np.square(parts)), np.eye(len(parts)), rtol=0, atol=4.5 / N**0.5)


def test_places_are_independent():
    x = path(5, N).normal_between(1.0, 3.0).astype(np.float64)
    for lag in (1, 2, 3, N // 4):
        assert abs((x[:-lag] * x[lag:]).mean()) < 4.5 / N**0.5


def test_covariance_is_the_overlap():
    w = path(6, N)
    got = (w.increment(1.0, 5.0) * w.increment(3.0, 9.0)).mean()
    assert abs(got - 2.0) < 4 * math.sqrt((4 * 6 + 4) / N)


def test_none_of_its_numbers_is_the_first_latents():
    """One seed gives a picture its first noise and its path: the two must be independent."""
    first = stream("cuda", 7).normal((N,)).astype(np.float64)
    x = path(7, N).normal_between(LOW, HIGH).astype(np.float64)
    assert len(np.intersect1d(first.astype(np.float32), x.astype(np.float32))) < N // 100
    assert abs((first * x).mean()) < 4 / N**0.5


@pytest.mark.parametrize(("a", "b"), [(0.0, 1.0), (1.0, 14.7), (math.nan, 1.0)])
def test_places_outside_are_refused(a, b):
    with pytest.raises(BadRequest, match="outside the Brownian path's range"):
        path(0).increment(a, b)


@pytest.mark.parametrize(("low", "high"), [(1.0, 1.0), (2.0, 1.0), (0.0, math.inf), (math.nan, 1.0)])
def test_ranges_that_are_none(low, high):
    with pytest.raises(BadRequest, match="two ends in order"):
        BrownianPath(0, (2,), low=low, high=high)


def test_no_step_has_no_noise():
    with pytest.raises(BadRequest, match="no noise"):
        path(0).normal_between(1.0, 1.0)


def test_a_stream_follows_the_paths_of_its_seeds():
    sigmas = np.array([14.0, 6.0, 2.0, 0.5])
    source = BrownianStream([8, 9], (2, 3), sigmas)
    alone = [BrownianPath(seed, (2, 3), low=0.5, high=14.0) for seed in (8, 9)]
    for a, b in ((14.0, 6.0), (6.0, 2.0), (2.0, 0.5)):
        got = source.normal((2, 2, 3))
        assert got.dtype == np.float32
        np.testing.assert_array_equal(got, np.stack([w.normal_between(a, b) for w in alone]))
    with pytest.raises(BadRequest, match="after the last step"):
        source.normal((2, 2, 3))


def test_half_the_steps_have_the_same_noise():
    fine, coarse = BrownianStream([1], (4,), [9.0, 5.0, 4.0, 1.0]), BrownianStream([1], (4,), [9.0, 4.0, 1.0])
    one, two = (fine.normal((1, 4)) for _ in range(2))
    np.testing.assert_allclose(one * 4.0**0.5 + two, coarse.normal((1, 4)) * 5.0**0.5, rtol=0, atol=3e-6)
    np.testing.assert_array_equal(fine.normal((1, 4)), coarse.normal((1, 4)))


def test_ways_may_overlap():
    source, whole = BrownianStream.over([1], (4,), [(9.0, 5.0), (9.0, 1.0)]), path_between(1.0, 9.0)
    for a, b in ((9.0, 5.0), (9.0, 1.0)):
        np.testing.assert_array_equal(source.normal((1, 4))[0], whole.normal_between(a, b))


def path_between(low, high):
    return BrownianPath(1, (4,), low=low, high=high)


def test_a_stream_refuses_other_shapes_and_no_steps():
    with pytest.raises(BadRequest, match="shape"):
        BrownianStream([1], (4,), [2.0, 1.0]).normal((1, 5))
    with pytest.raises(BadRequest, match="at least one step"):
        BrownianStream([1], (4,), [2.0])
    with pytest.raises(BadRequest, match="at least one step"):
        BrownianStream.over([1], (4,), [])
