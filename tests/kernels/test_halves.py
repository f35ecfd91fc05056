"""Weights of float16 and bfloat16: no number changes when they are widened, and kernels give the bits of the widened ones."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refdiff.core.primitive import Unsupported
from refdiff.kernels.cpu.conv import conv2d
from refdiff.kernels.cpu.halves import BFLOAT16, widened
from refdiff.kernels.cpu.linear import linear

F16, F32 = np.float16, np.float32


def test_every_half_is_widened_to_the_same_number():
    halves = np.arange(2**16, dtype=np.uint16).view(F16)
    got, want = widened(halves), halves.astype(F32)
    assert got.dtype == F32
    numbers = ~np.isnan(want)
    np.testing.assert_array_equal(got[numbers].view(np.uint32), want[numbers].view(np.uint32))
    assert np.isnan(got[~numbers]).all()


def test_any_order_of_memory_is_taken():
    halves = np.arange(24, dtype=F16).reshape(2, 3, 4).transpose(2, 0, 1)[::2]
    np.testing.assert_array_equal(widened(halves), halves.astype(F32))


def test_float32_comes_back_as_it_is_and_other_dtypes_are_named():
    weight = np.ones(3, F32)
    assert widened(weight) is weight
    with pytest.raises(Unsupported, match="float64"):
        widened(np.ones(3))


def drawn(kind: np.dtype, rng: np.random.Generator, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """A weight whose numbers are of that kind, and the same numbers as float32; large and tiny ones are among them."""
    numbers = (rng.standard_normal(shape) * 10.0 ** rng.integers(-7, 4, shape)).astype(F32)
    if kind == F16:
        return numbers.astype(F16), numbers.astype(F16).astype(F32)
    cut = numbers.view(np.uint32) & np.uint32(0xFFFF0000)
    return (cut >> np.uint32(16)).astype(np.uint16).view(BFLOAT16), cut.view(F32)


KINDS = st.sampled_from([np.dtype(F16), BFLOAT16])


@given(KINDS, st.integers(1, 70), st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**20))
def test_linear_gives_the_bits_of_the_widened_weight(kind, rows, depth, columns, seed):
    rng = np.random.default_rng(seed)
    x, bias = rng.standard_normal((rows, depth)).astype(F32), rng.standard_normal(columns).astype(F32)
    weight, wide = drawn(kind, rng, (columns, depth))
    np.testing.assert_array_equal(linear(x, weight, bias), linear(x, wide, bias))


@pytest.mark.parametrize("bits", [0x7F80, 0xFF80, 0x7FC0, 0x0001, 0x8000, 0x7F7F])
def test_bfloat16_at_its_ends(bits):
    """Infinities, NaN, the smallest, minus zero, the largest."""
    weight = np.array([[bits] * 9] * 20, np.uint16).view(BFLOAT16)
    want = (np.uint32(bits) << np.uint32(16)).view(F32)
    np.testing.assert_array_equal(linear(np.eye(9, dtype=F32)[:1, :1], weight[:, :1], None), [[want] * 20])


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
