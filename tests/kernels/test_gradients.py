"""The gradients' kernels are the gradient rules: odd channels, every stride and padding, one to three pictures, two threads."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refdiff import ops
from refdiff.core.primitive import PRIMITIVES
from refdiff.kernels.cpu import activation, common, conv, winograd, winograd_gradient
from refdiff.kernels.cpu.gradient import weight_gradient
from refdiff.kernels.cpu.product import DEPTH
from tests.ops.arrays import reals

F32 = np.float32
CHANNELS = st.sampled_from([1, 3, 7, 8, 16, 17, 33, 48])


def nearly(got: tuple, want: tuple, bound: float) -> None:
    """Every gradient within `bound` of the largest number of its truth."""
    for one, truth in zip(got, want, strict=True):
        assert (one is None) == (truth is None)
        if truth is not None:
            assert one.shape == truth.shape and one.dtype == F32
            assert np.abs(one - truth).max(initial=0) <= bound * max(np.abs(truth).max(initial=0), 1.0)


def on_threads(run) -> list:
    """What one and two threads find, however small the work."""
    found = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(common, "SMALL", 0)
        for threads in (1, 2):
            patch.setattr(common, "THREADS", threads)
            found.append(run())
    return found


@st.composite
def products(draw):
    """Overlapping rows of `x`, read at places in a run or anywhere, for more rows than one step takes, or few."""
    depth, many, count = draw(st.sampled_from([1, 5, 40, DEPTH, 2 * DEPTH + 3])), draw(CHANNELS), draw(CHANNELS)
    rng = np.random.default_rng(draw(st.integers(0, 2**20)))
    x = rng.standard_normal(500).astype(F32)
    columns = np.arange(count) + 9 if draw(st.booleans()) else rng.integers(0, 250, count)
    return rng.standard_normal((depth, many)).astype(F32), x, rng.integers(0, 250, depth), columns


@given(products())
def test_the_product_of_a_weight_equals_its_definition(call):
    g, x, places, columns = call
    want = g.astype(np.float64).T @ x.astype(np.float64)[places[:, None] + columns]
    for got in on_threads(lambda: weight_gradient(*call)):
        nearly((got,), (want,), 1e-6 * np.sqrt(len(g)))


@given(products())
def test_the_product_of_a_weight_has_the_same_bits_on_two_threads(call):
    np.testing.assert_array_equal(*on_threads(lambda: weight_gradient(*call)))


@st.composite
def convolutions(draw):
    """Gradients, pictures, weights and biases in any layout; paddings beyond the window too, and strides that leave rows out."""
    tall, wide, stride = draw(st.integers(1, 4)), draw(st.integers(1, 3)), draw(st.integers(1, 3))
    padding = tuple(draw(st.integers(0, 3)) for _ in range(4))
    height = draw(st.integers(max(tall - padding[0] - padding[1], 1), 9))
    width = draw(st.integers(max(wide - padding[2] - padding[3], 1), 9))
    batch, inputs, outputs = draw(st.integers(1, 3)), draw(CHANNELS), draw(CHANNELS)
    rows, columns = (
        (height + padding[0] + padding[1] - tall) // stride + 1,
        (width + padding[2] + padding[3] - wide) // stride + 1,
    )
    g, x = draw(reals((batch, outputs, rows, columns), F32)), draw(reals((batch, inputs, height, width), F32))
    weight, bias = draw(reals((outputs, inputs, tall, wide), F32)), draw(reals((outputs,), F32))
    return (g, None, x, weight, bias), {"stride": stride, "padding": padding}


def convolution_rule(g, out, x, weight, bias, **constants):
    return ops.conv2d.vjp.spec(g.astype(np.float64), out, *(a.astype(np.float64) for a in (x, weight, bias)), **constants)


@given(convolutions())
def test_convolution(call):
    args, constants = call
    nearly(conv.conv2d_vjp(*args, **constants), convolution_rule(*args, **constants), 2e-6)


@given(convolutions())
def test_convolution_has_the_same_bits_on_two_threads(call):
    args, constants = call
    for one, two in zip(*on_threads(lambda: conv.conv2d_vjp(*args, **constants)), strict=True):
        np.testing.assert_array_equal(one, two)


@st.composite
def wide_convolutions(draw):
    """What Winograd's forms are chosen for, with tiles that go beyond the picture, and paddings that one of them leaves."""
    batch, inputs, outputs = draw(st.integers(1, 3)), draw(st.sampled_from([32, 35, 48])), draw(st.sampled_from([32, 41, 64]))
    padding = tuple(draw(st.integers(0, 3)) for _ in range(4))
    rows, columns = draw(st.integers(4, 13)), draw(st.integers(4, 9))
    height, width = max(rows + 2 - sum(padding[:2]), 1), max(columns + 2 - sum(padding[2:]), 1)
    rows, columns = height + sum(padding[:2]) - 2, width + sum(padding[2:]) - 2
    g, x = draw(reals((batch, outputs, rows, columns), F32)), draw(reals((batch, inputs, height, width), F32))
    weight, bias = draw(reals((outputs, inputs, 3, 3), F32)), draw(reals((outputs,), F32))
    return (g, None, x, weight, bias), {"stride": 1, "padding": padding}


@given(wide_convolutions())
def test_convolution_where_winograd_is_faster(call):
    args, constants = call
    assert winograd.is_faster(args[0].shape, args[3].shape, 1, winograd.LEAST_GRADIENT)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(winograd_gradient, "BLOCK", 5)  # several blocks
        first, second = on_threads(lambda: conv.conv2d_vjp(*args, **constants))
    nearly(first, convolution_rule(*args, **constants), 2e-5)  # as Winograd's own test
    for one, two in zip(first, second, strict=True):
        np.testing.assert_array_equal(one, two)


@st.composite
def gated(draw):
    """Rows of several chunks or less than one, in any layout, far beyond where the exponential ends."""
    shape = draw(st.sampled_from([(1,), (3, 5, 7), (2, 255), (3, 256), (2, 257), (5, 300)]))
    spread = draw(st.sampled_from([1.0, 30.0]))
    return draw(reals(shape, F32)), draw(reals(shape, F32, spread))


@pytest.mark.parametrize("name", ["silu", "quick_gelu"])
@given(gated())
def test_gated_activations(name, call):
    g, x = call
    op, kernels = PRIMITIVES[name], activation.KERNELS
    with np.errstate(over="ignore"):
        want = op.spec(x.astype(np.float64)), *op.vjp.spec(g.astype(np.float64), None, x.astype(np.float64))
    first, second = on_threads(lambda: (kernels[name](x), *kernels[f"{name}_vjp"](g, None, x)))
    nearly(first, want, 1e-6)
    for one, two in zip(first, second, strict=True):
        np.testing.assert_array_equal(one, two)
