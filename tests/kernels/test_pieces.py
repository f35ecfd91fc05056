"""Products of float32 in a matrix unit of bfloat16: as exact as any other; on a processor without one, the same in registers."""

from __future__ import annotations

import numba
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refdiff import ops
from refdiff.checkpoints.tensor_file import widen_bfloat16
from refdiff.core import primitive
from refdiff.kernels.cpu import amx, blocks, common, conv, linear, pieces, product, strassen
from refdiff.kernels.cpu.common import address
from refdiff.kernels.cpu.panels import COLUMNS
from tests.kernels.test_bfloat16 import as_stored
from tests.kernels.test_blocks import calls, flat
from tests.kernels.test_product import loop
from tests.kernels.threads import assert_same_bits
from tests.ops.arrays import relative_error

F32 = np.float32
UNIT = 2.0**-24  # the rounding of float32
# The error by that of products of float32. The unit sums a step before it adds it to the others; registers add pair after pair.
RATIO = 0.8 if amx.AMX else 3


@pytest.fixture(autouse=True)
def in_blocks(monkeypatch):
    monkeypatch.setattr(blocks, "MATRIX_UNIT", True)
    with primitive.mode("fast", "float32"):
        yield


@numba.njit(**common._OPTIONS)  # what a compiler may change in kernels it may change here
def cut(source, step, rows, two, three):
    pieces.cut_step(source, step)
    pieces.cut_rows_in_two(rows, two)
    pieces.cut_rows_in_three(rows, three)


def rounded(weight: np.ndarray, dtype: str) -> tuple[np.ndarray, np.ndarray]:
    """The weight as a model keeps it, and the same numbers in float32."""
    if dtype == "bfloat16":
        stored = as_stored(weight)
        return stored, widen_bfloat16(stored.view(np.uint16))
    stored = weight.astype(dtype)
    return stored, stored.astype(F32)


@given(st.integers(0, 2**20))
def test_three_pieces_are_the_number(seed):
    bits = np.random.default_rng(seed).integers(0, 2**32, max(amx.STEP, 2 * COLUMNS), dtype=np.uint32)
    exponent = bits >> 23 & 0xFF
    bits[(exponent < 32) | (exponent == 255)] ^= 0x40000000  # the pieces of tiny numbers are 0, and infinity has none
    bits[:3] = 0x7F7FFFFF, 0xFF7FFFFF, 0
    x = bits.view(F32)
    x[~np.isfinite(x)] = 1
    step, two, three = np.zeros(3 * amx.BYTES // 2, np.uint16), *(np.zeros(n * amx.PANEL // 2, np.uint16) for n in (2, 3))
    cut(address(x), address(step), address(x), address(two), address(three))
    row = widen_bfloat16(step).reshape(3, -1)[:, : amx.STEP].astype(np.float64)
    np.testing.assert_array_equal(row.sum(axis=0), x[: amx.STEP])
    first, second, third = (
        widen_bfloat16(three).reshape(3, -1)[:, : 2 * COLUMNS].reshape(3, COLUMNS, 2).swapaxes(1, 2).astype(np.float64)
    )
    np.testing.assert_array_equal(first + second + third, x[: 2 * COLUMNS].reshape(2, COLUMNS))
    assert (np.abs(second) <= np.abs(first) * 2.0**-7).all() and (np.abs(third) <= np.abs(first) * 2.0**-16).all()
    np.testing.assert_array_equal(two.reshape(2, -1)[:, : 2 * COLUMNS], three.reshape(3, -1)[:2, : 2 * COLUMNS])


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_numbers_of_two_bytes_have_no_more_pieces(dtype):
    x = rounded(np.random.default_rng(0).standard_normal(2 * COLUMNS).astype(F32), dtype)[1]
    step, two, three = np.zeros(3 * amx.BYTES // 2, np.uint16), *(np.zeros(n * amx.PANEL // 2, np.uint16) for n in (2, 3))
    cut(address(x), address(step), address(x), address(two), address(three))
    assert widen_bfloat16(three).reshape(3, -1)[0].any()
    assert not widen_bfloat16(three).reshape(3, -1)[2 if dtype == "float16" else 1 :].any()


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@given(call=calls())
def test_a_product_is_as_exact_as_one_of_float32(dtype, call):
    """Within the bound of a sum of so many products in float32."""
    (a, rows, starts, bias), weight = call
    stored, same = rounded(weight, dtype)
    got = product.product(a, rows, starts, flat(stored), bias, pictures=1)
    want, sizes = loop(a, rows, starts, same, bias), loop(np.abs(a), rows, starts, np.abs(same), np.abs(bias))
    assert got.shape == want.shape and got.dtype == F32 and got.flags.c_contiguous
    assert (np.abs(got - want) <= (weight[0].size + 8) * UNIT * sizes).all()


@pytest.mark.parametrize(
    ("dtype", "depth"), [("float32", 1280), ("float16", 1280), ("bfloat16", 1280), ("float32", 64), ("float16", 64)]
)
def test_the_error_is_that_of_products_of_float32(dtype, depth, monkeypatch):
    rng = np.random.default_rng(0)
    x, weight = rng.standard_normal((1, 128, depth)).astype(F32), rng.standard_normal((64, depth)).astype(F32)
    stored, same = rounded(weight, dtype)
    want = x.astype(np.float64) @ same.astype(np.float64).T
    got = linear.linear(x, stored, None)
    monkeypatch.setattr(blocks, "MATRIX_UNIT", False)
    monkeypatch.setattr(strassen, "LEAST_ROWS", 1 << 40)
    one_by_one = relative_error(linear.linear(x, stored, None), want)
    assert relative_error(got, want) < RATIO * one_by_one and one_by_one < 1e-6


@given(calls())
def test_any_number_of_threads_gives_the_same_bits(call):
    (a, rows, starts, bias), weight = call
    assert_same_bits(lambda: product.product(a, rows, starts, flat(weight), bias, pictures=1), (1, 2, 3))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize(("rows", "depth", "columns"), [(40, 32, 1), (70, 64, 45), (300, 544, 33), (40, 96, 700)])
def test_however_a_weight_is_stored(rows, depth, columns, dtype):
    rng = np.random.default_rng(0)
    x, weight = (rng.standard_normal(shape).astype(F32) for shape in ((1, rows, depth), (columns, depth)))
    stored, same = rounded(weight, dtype)
    np.testing.assert_array_equal(linear.linear(x, stored, None), linear.linear(x, same, None))


def test_a_picture_has_the_same_bits_alone():
    rng = np.random.default_rng(0)
    x, weight = rng.standard_normal((3, 45, 96)).astype(F32), rng.standard_normal((70, 96)).astype(np.float16)
    together = linear.linear(x, weight, None)
    for one, got in zip(x, together, strict=True):
        np.testing.assert_array_equal(linear.linear(one[None], weight, None)[0], got)


def test_few_rows_are_no_block(monkeypatch):
    """Of 32 rows most would be none."""
    seen = []
    monkeypatch.setattr(blocks, "product", lambda *args, **options: seen.append(len(args[1])) or np.zeros((96, 64), F32))
    weight = np.zeros((64, 64), np.float16)
    for shape in ((3, 31, 64), (64, 64), (3, 32, 64)):
        linear.linear(np.zeros(shape, F32), weight, None)
    assert seen == [96]


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize(("shape", "many", "kernel", "stride"), [
    ((2, 32, 9, 7), 5, 3, 1), ((1, 64, 19, 15), 33, 3, 2), ((3, 32, 6, 6), 8, 1, 1),
])  # fmt: skip
def test_convolutions(shape, many, kernel, stride, dtype):
    rng = np.random.default_rng(0)
    x, weight, bias = (rng.standard_normal(s).astype(F32) for s in (shape, (many, shape[1], kernel, kernel), (many,)))
    constants = {"stride": stride, "padding": (kernel // 2, 0, 0, kernel // 2)}
    stored, same = rounded(weight, dtype)
    want = ops.conv2d.spec(*(a.astype(np.float64) for a in (x, same, bias)), **constants)
    assert relative_error(conv.conv2d(x, stored, bias, **constants), want) < (4e-7 if amx.AMX else 1e-6)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("size", [1, 2.0**-60])
@given(seed=st.integers(0, 2**20))
def test_one_product_alone(dtype, size, seed):
    """No sum hides what is left out: below 2^-22 of a product, beside a few roundings, and what the unit takes for zero."""
    rng = np.random.default_rng(seed)
    x, one = np.zeros((1, 64, 32), F32), np.zeros((40, 32), F32)
    x[0, np.arange(64), np.arange(64) % 32] = rng.standard_normal(64) * size
    one[:] = rng.standard_normal((40, 1)) * (size if dtype != "float16" else 1)
    stored, same = rounded(one, dtype)
    want = x.astype(np.float64) @ same.astype(np.float64).T
    assert (np.abs(linear.linear(x, stored, None) - want) <= 2.0**-21 * np.abs(want) + 6 * 2.0**-126).all()


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_what_is_not_finite_stays_in_its_row_and_its_column(dtype):
    rng = np.random.default_rng(0)
    x, weight = (rng.standard_normal(shape).astype(F32) for shape in ((1, 70, 64), (80, 64)))
    x[0, 3, 5], x[0, 9, 0], weight[40, 7] = np.nan, np.inf, np.inf
    got = linear.linear(x, rounded(weight, dtype)[0], None)[0]
    assert not np.isfinite(got[[3, 9]]).any() and not np.isfinite(got[:, 40]).any()
    assert np.isfinite(np.delete(np.delete(got, [3, 9], axis=0), 40, axis=1)).all()


def test_the_largest_numbers_stay_finite():
    x, largest = np.zeros((1, 40, 32), F32), np.finfo(F32).max
    x[0, :, 3], weight = largest, np.zeros((2, 32), F32)
    weight[:, 3] = 1, 2**-20
    np.testing.assert_array_equal(linear.linear(x, weight, None)[0], np.full((40, 2), largest) * weight[:, 3])
