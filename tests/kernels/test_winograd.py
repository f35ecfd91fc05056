"""Winograd's convolution is the convolution, whatever the sizes, with an error of a few roundings; and when it is chosen."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refdiff import ops
from refdiff.kernels.cpu import common, conv, winograd
from refdiff.kernels.cpu.prepared import prepared
from tests.ops.arrays import reals

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
        np.testing.assert_array_equal(winograd.conv3x3(x, weight, bias, padding=padding), got)
    # The largest error over 2,000 such calls was 0.9e-5 of the largest number; the direct form's was 1.3e-6.
    assert np.abs(got - want).max() < 2e-5 * max(np.abs(want).max(), 1.0)


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
    assert np.abs(found[0] - want).max() < 2e-5 * max(np.abs(want).max(), 1.0)  # as above


@given(calls(), st.sampled_from([1, 1000]))
def test_two_threads_give_the_bits_of_one(call, large):
    x, weight, bias, padding = call
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(common, "SMALL", 0)
        patch.setattr(winograd, "LARGE", large)
        patch.setattr(winograd, "BLOCK", winograd.ROWS)  # several blocks
        found = []
        for threads in (1, 2):
            patch.setattr(common, "THREADS", threads)
            found.append(winograd.conv3x3(x, weight, bias, padding=padding))
    np.testing.assert_array_equal(found[0], found[1])


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
        ((2, 320, 64, 64), (4, 320, 3, 3), 1),
    ):
        assert not winograd.is_faster(shape, weight, stride, winograd.LEAST)


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
