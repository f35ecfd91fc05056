"""Guidance goes from the unconditional prediction to the conditional one, and past it."""

from __future__ import annotations

import statistics

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refdiff.diffusion.guidance import branches, guide, rescaled, scales_of
from refdiff.errors import BadRequest

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


def test_one_branch_is_enough_at_the_scales_0_and_1():
    assert branches(1.0, phi=0.0) == branches(1.0, phi=0.7) == (False, True)
    assert branches(0.0, phi=0.0) == (True, False)
    assert branches(0.0, phi=0.7) == (True, True)  # the deviation is still the conditional one's
    assert all(branches(scale, phi=0.0) == (True, True) for scale in (0.5, 1.0000001, 7.5, -1.0))


@given(scales, st.floats(0.0, 1.0), st.integers(0, 99))
def test_rescaled_witness(scale, phi, seed):
    """Picture by picture, with deviations from plain loops."""
    unconditional, conditional = (x[:, None] for x in two(seed))
    guided = guide(unconditional, conditional, scale=scale)
    got = rescaled(guided, conditional, phi=phi)
    for k in range(len(guided)):
        ratio = statistics.pstdev(conditional[k].ravel().tolist()) / statistics.pstdev(guided[k].ravel().tolist())
        for g, r in zip(guided[k].ravel(), got[k].ravel(), strict=True):
            assert abs(r - (phi * g * ratio + (1 - phi) * g)) <= 1e-11 * max(1.0, abs(g))


@given(scales, st.integers(0, 99))
def test_rescaled_ends(scale, seed):
    unconditional, conditional = two(seed)
    guided = guide(unconditional, conditional, scale=scale)
    np.testing.assert_array_equal(rescaled(guided, conditional, phi=0.0), guided)
    whole = rescaled(guided, conditional, phi=1.0)
    np.testing.assert_allclose(whole.std(axis=(1, 2)), conditional.std(axis=(1, 2)), rtol=1e-12)
    np.testing.assert_allclose(rescaled(conditional, conditional, phi=0.7), conditional, rtol=1e-15)


def test_rescaled_keeps_precision_and_arguments():
    both = two(5, np.float32)
    both.flags.writeable = False
    assert rescaled(both[0], both[1], phi=0.7).dtype == np.float32


SIGMAS = np.array([14.6, 5.0, 1.0, 0.3, 0.0])


def test_scales_of_steps():
    assert scales_of(7.5, SIGMAS, interval=None) == (7.5,) * 4
    assert scales_of([7.0, 5.0, 1.0, 0.0], SIGMAS, interval=None) == (7.0, 5.0, 1.0, 0.0)
    assert scales_of(7.5, SIGMAS, interval=(0.3, 5.0)) == (1.0, 7.5, 7.5, 1.0)  # the upper end is in, the lower is not
    assert scales_of(np.array([7.0, 6.0, 5.0, 4.0]), SIGMAS, interval=(0.0, 1.0)) == (1.0, 1.0, 5.0, 4.0)
    with pytest.raises(BadRequest, match="3 scales of guidance for 4 steps"):
        scales_of([1.0, 2.0, 3.0], SIGMAS, interval=None)
