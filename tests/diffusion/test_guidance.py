"""Guidance goes from the unconditional prediction to the conditional one, and past it."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from refdiff.diffusion.guidance import guide, needs_unconditional

scales = st.floats(-2.0, 20.0)


def two(seed: int, dtype: type = np.float64) -> np.ndarray:
    return np.random.Generator(np.random.PCG64(seed)).standard_normal((2, 2, 3, 4), dtype=dtype)


def test_by_hand():
    assert guide(np.array([1.0, -1.0]), np.array([2.0, 3.0]), scale=7.5).tolist() == [8.5, 29.0]


@given(scales, st.integers(0, 99))
def test_witness(scale, seed):
    unconditional, conditional = two(seed)
    got = guide(unconditional, conditional, scale=scale)
    for u, c, g in zip(unconditional.ravel(), conditional.ravel(), got.ravel(), strict=True):
        assert abs(g - ((1.0 - scale) * u + scale * c)) <= 1e-12


@given(st.integers(0, 99))
def test_ends(seed):
    unconditional, conditional = two(seed)
    np.testing.assert_array_equal(guide(unconditional, conditional, scale=0.0), unconditional)
    np.testing.assert_allclose(guide(unconditional, conditional, scale=1.0), conditional, rtol=0, atol=1e-15 * 8)


@given(scales, st.integers(0, 99))
def test_where_both_agree_the_scale_is_nothing(scale, seed):
    unconditional, _ = two(seed)
    np.testing.assert_array_equal(guide(unconditional, unconditional, scale=scale), unconditional)


@given(scales, st.integers(0, 99))
def test_exchanging_the_two_is_the_scale_from_the_other_end(scale, seed):
    unconditional, conditional = two(seed)
    there, back = guide(unconditional, conditional, scale=scale), guide(conditional, unconditional, scale=1.0 - scale)
    np.testing.assert_allclose(there, back, rtol=0, atol=1e-12)


def test_precision_stays_and_arguments_are_left():
    both = two(5, np.float32)
    before = both.copy()
    both.flags.writeable = False
    assert guide(both[0], both[1], scale=7.5).dtype == np.float32
    np.testing.assert_array_equal(both, before)


def test_one_call_is_enough_at_scale_one_alone():
    assert not needs_unconditional(1.0)
    assert all(needs_unconditional(scale) for scale in (0.0, 0.5, 1.0000001, 7.5, -1.0))
