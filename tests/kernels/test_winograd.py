"""Winograd's convolution is the convolution, whatever the sizes, with an error of a few roundings; and when it is chosen."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refdiff import ops
from refdiff.core import primitive
from refdiff.kernels.cpu import common, conv, winograd, winograd_tiles
from refdiff.kernels.cpu.prepared import prepared
from tests.kernels.threads import assert_same_bits
from tests.ops.arrays import reals, relative_error

F32 = np.float32


@st.composite
def calls(draw):
    batch, channels, many = (
        draw(st.integers(1, 3)),
        draw(st.sampled_from([1, 3, 17, 40, 72])),
        draw(st.sampled_from([1, 5, 16, 33])),
    )
    height, width = draw(st.integers(3, 14)), draw(st.integers(3, 14))
    padding = tuple(draw(st.integers(0, 2)) for _ in range(4))
    x, weight = draw(reals((batch, channels, height, width), F32)), draw(reals((many, channels, 3, 3), F32))
    return x, weight, draw(reals((many,), F32)), padding


@given(calls())
def test_equals_the_direct_form(call):
    x, weight, bias, padding = call
    want = ops.conv2d.spec(*(a.astype(np.float64) for a in (x, weight, bias)), stride=1, padding=padding)
    got = winograd.conv3x3(x, weight, bias, padding=padding)
    assert got.shape == want.shape and got.dtype == F32
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(winograd, "LARGE", 1)
        by_tiles = winograd.conv3x3(x, weight, bias, padding=padding)
        patch.setattr(winograd, "SPARES", False)
        one_by_one = winograd.conv3x3(x, weight, bias, padding=padding)
        patch.setattr(winograd, "LARGE", 1 << 40)
        np.testing.assert_array_equal(winograd.conv3x3(x, weight, bias, padding=padding), one_by_one)
    # The largest error over 1,000 such calls was 2.5e-6 of the largest number (7.7e-6 with points 0, 1, -1, 2, -2); the direct
    # form's was 0.3e-6.
    for y in (got, by_tiles, one_by_one):
        assert np.abs(y - want).max() < 5e-6 * max(np.abs(want).max(), 1.0)


@given(calls(), st.sampled_from([1, 1000]))
def test_of_a_doubled_picture(call, large):
    x, weight, bias, _ = call
    want = ops.upsample_conv2d.spec(*(a.astype(np.float64) for a in (x, weight, bias)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(common, "SMALL", 0)
        patch.setattr(winograd, "LARGE", large)
        found = []
        for threads in (1, 2):
            patch.setattr(common, "THREADS", threads)
            found.append(winograd.doubled_conv3x3(x, weight, bias))
    np.testing.assert_array_equal(found[0], found[1])
    assert found[0].shape == want.shape and found[0].dtype == F32
    assert np.abs(found[0] - want).max() < 2e-5 * max(np.abs(want).max(), 1.0)  # of 1,000 calls 1.1e-5


def test_its_error_is_that_of_its_points():
    """L2, at this size: 1.4e-6, of spared products 1.6e-6.

    With points 0, 1, -1, 2, -2 and infinity it would be 3.2e-6, in the direct form 0.4e-6.
    """
    rng = np.random.default_rng(0)
    x, weight, bias = (rng.standard_normal(shape).astype(F32) for shape in ((1, 256, 48, 48), (32, 256, 3, 3), (32,)))
    want = ops.conv2d.spec(*(a.astype(np.float64) for a in (x, weight, bias)), stride=1, padding=(1, 1, 1, 1))
    assert relative_error(winograd.conv3x3(x, weight, bias, padding=(1, 1, 1, 1)), want) < 2e-6


@pytest.mark.parametrize("large", [1, 1 << 40])
def test_its_error_for_a_doubled_picture(monkeypatch, large):
    """L2, at this size: 3.3e-6 by tiles, 2.9e-6 by panels and one by one; with weights of a mean of 1, 7.7e-6 and 5.9e-6."""
    monkeypatch.setattr(winograd, "LARGE", large)
    rng = np.random.default_rng(0)
    x, weight, bias = (rng.standard_normal(shape).astype(F32) for shape in ((1, 256, 24, 24), (32, 256, 3, 3), (32,)))
    want = ops.upsample_conv2d.spec(*(a.astype(np.float64) for a in (x, weight, bias)))
    assert relative_error(winograd.doubled_conv3x3(x, weight, bias), want) < 4e-6


@pytest.mark.parametrize("doubled", [False, True])
def test_its_matrices_are_a_correlation(doubled):
    """In float64, where nothing but G is rounded: y_i = sum over j of g_j d_(i+j)."""
    rng = np.random.default_rng(0)
    g, d = rng.standard_normal(3), rng.standard_normal(6)
    if doubled:
        a, b, transform = winograd_tiles.A_DOUBLED, winograd_tiles.B_DOUBLED, winograd_tiles.G_DOUBLED
        d = d[[0, 1, 1, 2, 2, 3]]
    else:
        a, b, transform = (
            np.array(form[1]) @ np.array(form[0]) for form in (winograd_tiles.A, winograd_tiles.B, winograd_tiles.G)
        )
        for form in (winograd_tiles.A, winograd_tiles.B):
            for matrix in form:
                assert all(float(F32(c)) == c for row in matrix for c in row)
    got = np.array(a) @ ((np.array(transform) @ g) * (np.array(b) @ d))
    np.testing.assert_allclose(got, [g @ d[i : i + 3] for i in range(4)], rtol=1e-12, atol=1e-12)


@given(calls(), st.sampled_from([1, 1000]))
def test_two_threads_give_the_bits_of_one(call, large):
    x, weight, bias, padding = call
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(winograd, "LARGE", large)
        patch.setattr(winograd, "BLOCK", winograd.ROWS)  # several blocks
        assert_same_bits(lambda: winograd.conv3x3(x, weight, bias, padding=padding), (1, 2))


def test_where_it_is_chosen():
    assert winograd.is_faster((2, 320, 64, 64), (320, 320, 3, 3), 1, winograd.LEAST)
    assert winograd.is_faster((2, 1280, 16, 16), (1280, 1280, 3, 3), 1, winograd.LEAST)
    assert winograd.is_faster((2, 1280, 8, 8), (1280, 1280, 3, 3), 1, winograd.LEAST)
    assert not winograd.is_faster((2, 1280, 7, 8), (1280, 1280, 3, 3), 1, winograd.LEAST)
    assert not winograd.is_faster((2, 32, 4, 4), (32, 32, 3, 3), 1, winograd.LEAST)
    assert winograd.is_faster((2, 32, 4, 4), (32, 32, 3, 3), 1, winograd.LEAST_GRADIENT)
    for shape, weight, stride in (
        ((2, 320, 64, 64), (320, 320, 3, 3), 2),
        ((2, 320, 64, 64), (320, 320, 1, 1), 1),
        ((2, 320, 3, 8), (320, 320, 3, 3), 1),
        ((2, 4, 64, 64), (320, 4, 3, 3), 1),
    ):
        assert not winograd.is_faster(shape, weight, stride, winograd.LEAST)
    assert winograd.is_faster((1, 128, 512, 512), (3, 128, 3, 3), 1, winograd.LEAST)
    assert not winograd.is_faster((1, 3, 512, 512), (3, 128, 3, 3), 1, winograd.LEAST_GRADIENT)


def test_convolution_takes_it_where_it_is_chosen():
    rng = np.random.default_rng(0)
    x, weight, bias = (rng.standard_normal(shape).astype(F32) for shape in ((1, 128, 32, 33), (128, 128, 3, 3), (128,)))
    np.testing.assert_array_equal(
        conv.conv2d(x, weight, bias, stride=1, padding=(1, 1, 1, 1)), winograd.conv3x3(x, weight, bias, padding=(1, 1, 1, 1))
    )


def test_transformed_weights_are_kept_while_the_parameter_is(monkeypatch):
    from refdiff.kernels.cpu import prepared as module

    monkeypatch.setattr(module, "_kept", {})
    made = []

    def make(weight):
        made.append(1)
        return weight + 1

    weight = np.zeros(10, F32)
    assert prepared("kind", weight, make) is prepared("kind", weight, make)
    assert (len(made), module.used()) == (1, 40)
    prepared("other", weight, make)
    assert (len(made), module.used()) == (2, 80)
    monkeypatch.setattr(module, "BUDGET", 100)
    beyond = np.zeros(10, F32)
    assert prepared("kind", beyond, make) is not prepared("kind", beyond, make)
    assert (len(made), module.used()) == (4, 80)
    del weight
    assert module.used() == 0


def test_what_is_kept_has_memory_of_its_own_and_what_is_not_has_that_of_results(monkeypatch):
    from refdiff.kernels.cpu import prepared as module
    from refdiff.kernels.cpu import results

    monkeypatch.setattr(module, "_kept", {})
    monkeypatch.setattr(results, "_idle", {})
    large = results.result(3 << 19)
    place = large.ctypes.data
    del large
    weight = np.ones((64, 256, 3, 3), F32)
    call = weight, winograd.SIDE, winograd.FLOAT32, np.ones((2, 64), F32)
    assert winograd.transformed_weight(*call).ctypes.data != place
    monkeypatch.setattr(module, "BUDGET", 0)
    assert winograd.transformed_weight(*call).ctypes.data == place


@pytest.mark.parametrize(("batch", "channels", "many", "side"), [(0, 4, 3, 5), (1, 0, 3, 5), (1, 4, 0, 5), (0, 64, 64, 64)])
def test_what_is_empty_is_left_to_the_specification(batch, channels, many, side):
    x, weight = np.ones((batch, channels, side, side), F32), np.ones((many, channels, 3, 3), F32)
    with primitive.mode("fast"):
        y = ops.conv2d(x, weight, np.ones(many, F32), stride=1, padding=(1, 1, 1, 1))
        doubled = ops.upsample_conv2d(x, weight, np.ones(many, F32))
    assert y.shape == (batch, many, side, side) and doubled.shape == (batch, many, 2 * side, 2 * side)
    assert (y == 1).all() and (doubled == 1).all()
