"""Weights of float16 and bfloat16: no number changes when they are widened, and kernels give the bits of the widened ones."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refdiff.core.primitive import Unsupported
from refdiff.kernels.cpu.conv import conv2d
from refdiff.kernels.cpu.halves import BFLOAT16
from refdiff.kernels.cpu.linear import linear

F16, F32 = np.float16, np.float32


def bfloat16(bits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of bfloat16 by their bits, and as float32."""
    return bits.astype(np.uint16).view(BFLOAT16), (bits.astype(np.uint32) << np.uint32(16)).view(F32)


@pytest.mark.parametrize("kind", ["float16", "bfloat16"])
def test_every_number_there_is_stays_what_it_is(kind):
    """Infinities, NaN and the smallest among them. (The sum begins with 0, so that -0 becomes 0.)"""
    bits = np.arange(2**16)
    weight, want = bfloat16(bits) if kind == "bfloat16" else ((h := bits.astype(np.uint16).view(F16)), h.astype(F32))
    got = linear(np.ones((1, 1), F32), weight.reshape(-1, 1), None)[0]
    np.testing.assert_array_equal(got, want)


def test_other_dtypes_are_named():
    with pytest.raises(Unsupported, match="float64"):
        linear(np.ones((1, 2), F32), np.ones((3, 2)), None)
    with pytest.raises(Unsupported, match="uint16"):
        linear(np.ones((1, 2), F32), np.ones((3, 2), np.uint16), None)


def drawn(kind: np.dtype, rng: np.random.Generator, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """A weight whose numbers are of that kind, and the same numbers as float32; large and tiny ones are among them."""
    numbers = (rng.standard_normal(shape) * 10.0 ** rng.integers(-7, 4, shape)).astype(F32)
    if kind == F16:
        return numbers.astype(F16), numbers.astype(F16).astype(F32)
    return bfloat16(numbers.view(np.uint32) >> np.uint32(16))


KINDS = st.sampled_from([np.dtype(F16), BFLOAT16])


@given(KINDS, st.integers(1, 70), st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**20))
def test_linear_gives_the_bits_of_the_widened_weight(kind, rows, depth, columns, seed):
    rng = np.random.default_rng(seed)
    x, bias = rng.standard_normal((rows, depth)).astype(F32), rng.standard_normal(columns).astype(F32)
    weight, wide = drawn(kind, rng, (columns, depth))
    np.testing.assert_array_equal(linear(x, weight, bias), linear(x, wide, bias))


@pytest.mark.parametrize("kind", [np.dtype(F16), BFLOAT16], ids=["float16", "bfloat16"])
@pytest.mark.parametrize(("shape", "many", "kernel", "stride"), [
    ((2, 5, 9, 7), 6, 3, 1), ((1, 5, 9, 7), 6, 3, 2), ((2, 4, 3, 3), 8, 1, 1), ((1, 96, 32, 33), 96, 3, 1),
    ((1, 96, 9, 9), 96, 3, 1),
])  # fmt: skip
def test_convolutions_give_the_bits_of_the_widened_weight(kind, shape, many, kernel, stride):
    rng = np.random.default_rng(0)
    x, bias = rng.standard_normal(shape).astype(F32), rng.standard_normal(many).astype(F32)
    weight, wide = drawn(kind, rng, (many, shape[1], kernel, kernel))
    padding = (kernel // 2,) * 4
    got = conv2d(x, weight, bias, stride=stride, padding=padding)
    np.testing.assert_array_equal(got, conv2d(x, wide, bias, stride=stride, padding=padding))
