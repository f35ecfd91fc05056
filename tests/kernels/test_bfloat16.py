"""Products of bfloat16: what is multiplied is rounded to it, and then everything is as exact as in float32."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import refdiff
from refdiff import ops
from refdiff.checkpoints.tensor_file import narrow_bfloat16
from refdiff.core import primitive
from refdiff.errors import BadRequest
from refdiff.golden.tolerance import to_bfloat16
from refdiff.kernels.cpu import attention, blocks, conv, halves, linear, product, scores, winograd, winograd_tiles
from refdiff.kernels.cpu.halves import BFLOAT16, narrowed
from tests.kernels.test_product import calls, loop
from tests.kernels.threads import assert_same_bits
from tests.ops.arrays import relative_error

F32 = np.float32
KEYS = attention.KEYS


@pytest.fixture(autouse=True, params=["pairs", "blocks"])
def in_bfloat16(monkeypatch, request):
    """On any processor, with a matrix unit or none: one without the instructions multiplies the same numbers, widened."""
    monkeypatch.setattr(halves, "MULTIPLIES", True)
    monkeypatch.setattr(blocks, "MATRIX_UNIT", request.param == "blocks")
    with primitive.mode("fast", "bfloat16"):
        yield


def as_stored(x: np.ndarray) -> np.ndarray:
    """The array of bfloat16 that a model's weight is."""
    return narrow_bfloat16(x).view(BFLOAT16)


@given(st.integers(1, 2 * halves.CHUNK + 3), st.integers(0, 2**20))
def test_narrowing_is_to_the_nearest_with_ties_to_even(count, seed):
    bits = np.random.default_rng(seed).integers(0, 2**32, count, dtype=np.uint32)
    bits[::3] = bits[::3] & 0xFFFF0000 | 0x8000  # in the middle of two
    tiny = bits & 0x7F800000 == 0  # an instruction takes what is below the least normal number for 0
    bits[tiny] &= 0x80000000
    x = bits.view(F32)
    got = narrowed(x).astype(np.uint32) << np.uint32(16)
    np.testing.assert_array_equal(got.view(F32), to_bfloat16(x))
    sound = ~np.isnan(x)
    np.testing.assert_array_equal(got[sound], to_bfloat16(x).view(np.uint32)[sound])


def near(got: np.ndarray, want: np.ndarray, size: float) -> bool:
    """Within the roundings of a float32 sum of so many products."""
    return bool(np.abs(got - want).max() <= 2e-6 * np.sqrt(size) * max(np.abs(want).max(), 1.0))


@given(calls())
def test_a_product_is_that_of_rounded_numbers(call):
    (a, *rest), weight = call
    pairs = weight.shape[2] % 2 == 0
    got = product.product(a, *rest, pictures=1, pairs=pairs)
    rows, starts, _, bias = rest
    want = loop(to_bfloat16(a), rows, starts, to_bfloat16(weight), bias) if pairs else loop(a, rows, starts, weight, bias)
    assert got.dtype == F32 and got.flags.c_contiguous
    assert near(got, want, weight[0].size)


@given(calls())
def test_two_threads_give_the_bits_of_one(call):
    args, weight = call
    assert_same_bits(lambda: product.product(*args, pictures=1, pairs=weight.shape[2] % 2 == 0), (1, 2, 3))


@pytest.mark.parametrize(("rows", "depth", "columns"), [(1, 2, 1), (37, 50, 45), (130, 770, 33), (9, 1538, 70)])
def test_however_a_weight_is_stored(rows, depth, columns):
    rng = np.random.default_rng(0)
    x, weight, bias = (rng.standard_normal(shape).astype(F32) for shape in ((rows, depth), (columns, depth), (columns,)))
    want = to_bfloat16(x).astype(np.float64) @ to_bfloat16(weight).astype(np.float64).T + bias
    got = linear.linear(x, weight, bias)
    assert near(got, want, depth)
    np.testing.assert_array_equal(linear.linear(x, as_stored(weight), bias), got)
    for count in (1, 2, 20, 30):
        np.testing.assert_array_equal(linear.linear(x[:count], weight, bias), got[:count])


@pytest.mark.parametrize(("shape", "many", "kernel", "stride"), [
    ((2, 6, 9, 7), 5, 3, 1), ((1, 6, 9, 7), 5, 3, 2), ((3, 4, 3, 3), 8, 1, 1),
    ((1, 5, 9, 7), 6, 3, 2), ((1, 34, 20, 33), 40, 3, 2),
])  # fmt: skip
def test_convolutions(shape, many, kernel, stride):
    rng = np.random.default_rng(0)
    x, weight, bias = (rng.standard_normal(s).astype(F32) for s in (shape, (many, shape[1], kernel, kernel), (many,)))
    constants = {"stride": stride, "padding": (kernel // 2, 0, 0, kernel // 2)}
    near_to = (lambda a: a) if shape[1] % 2 else to_bfloat16
    want = ops.conv2d.spec(*(a.astype(np.float64) for a in (near_to(x), near_to(weight), bias)), **constants)
    got = conv.conv2d(x, weight, bias, **constants)
    assert near(got, want, weight[0].size)
    if shape[1] % 2 == 0:
        np.testing.assert_array_equal(conv.conv2d(x, as_stored(weight), bias, **constants), got)


def transformed(form, x):
    """form x form^T over the last two axes, in float64."""
    first, second = (np.array(matrix, np.float64) for matrix in form)
    return np.einsum("ij,...jk,lk->...il", second @ first, x, second @ first)


@st.composite
def large_convolutions(draw):
    batch, channels, many = (
        draw(st.integers(1, 2)),
        draw(st.sampled_from([2, 18, 40, 130])),
        draw(st.sampled_from([1, 16, 33, 70])),
    )
    size = draw(st.integers(3, 14)), draw(st.integers(3, 14))
    rng, padding = np.random.default_rng(draw(st.integers(0, 2**20))), tuple(draw(st.integers(0, 2)) for _ in range(4))
    shapes = (batch, channels, *size), (many, channels, 3, 3), (many,)
    return (*(rng.standard_normal(shape).astype(F32) for shape in shapes), padding)


@given(large_convolutions())
def test_winograd_has_both_transforms_rounded(call):
    """Up to transforms that lie so near the middle of two numbers that their own rounding decides."""
    x, weight, bias, (top, bottom, left, right) = call
    got = winograd.conv3x3(x, weight, bias, padding=(top, bottom, left, right), pairs=True)
    batch, channels = x.shape[:2]
    height, width = got.shape[2:]
    down, across = -(-height // 4), -(-width // 4)
    image = np.zeros((batch, channels, 4 * down + 2, 4 * across + 2))
    image[:, :, top : top + x.shape[2], left : left + x.shape[3]] = x[:, :, : image.shape[2] - top, : image.shape[3] - left]
    patches = np.lib.stride_tricks.sliding_window_view(image, (6, 6), axis=(2, 3))[:, :, ::4, ::4]
    d, g = transformed(winograd_tiles.B, patches), transformed(winograd_tiles.G, weight.astype(np.float64))
    rounded = [to_bfloat16(a.astype(F32)).astype(np.float64) for a in (d, g)]
    y = transformed(winograd_tiles.A, np.einsum("bcyxij,ocij->boyxij", *rounded))
    whole = y.transpose(0, 1, 2, 4, 3, 5).reshape(batch, len(weight), 4 * down, 4 * across)[:, :, :height, :width]
    want = whole + bias[:, None, None]
    # Of the norm of so much white noise: at most 8e-4 over 1,000 such calls; what is not rounded differs by 1.1e-2.
    assert got.dtype == F32
    assert np.linalg.norm(got - want) <= 2e-3 * np.sqrt(9 * channels * got.size)


def test_winograds_error_is_that_of_its_roundings(monkeypatch):
    """1.1e-2 (L2) at this size; the direct form's 1.7e-3 (docs/decisions/0008)."""
    monkeypatch.setattr(blocks, "MATRIX_UNIT", False)
    rng = np.random.default_rng(0)
    x, weight, bias = (rng.standard_normal(shape).astype(F32) for shape in ((1, 256, 24, 24), (256, 256, 3, 3), (256,)))
    want = ops.conv2d.spec(*(a.astype(np.float64) for a in (x, weight, bias)), stride=1, padding=(1, 1, 1, 1))
    assert 5e-3 < relative_error(conv.conv2d(x, weight, bias, stride=1, padding=(1, 1, 1, 1)), want) < 1.3e-2


@pytest.mark.parametrize("large", [1, 1000])
def test_however_winograd_is_cut_and_its_weight_is_stored(large, monkeypatch):
    rng = np.random.default_rng(0)
    x, weight, bias = (rng.standard_normal(shape).astype(F32) for shape in ((2, 130, 13, 9), (70, 130, 3, 3), (70,)))
    same = {"padding": (1, 1, 1, 1), "pairs": True}
    want = winograd.conv3x3(x, weight, bias, **same)
    monkeypatch.setattr(winograd, "LARGE", large)
    assert_same_bits(lambda: winograd.conv3x3(x, weight, bias, **same), (1, 2, 3))
    np.testing.assert_array_equal(winograd.conv3x3(x, weight, bias, **same), want)
    np.testing.assert_array_equal(np.concatenate([winograd.conv3x3(x[i : i + 1], weight, bias, **same) for i in range(2)]), want)
    stored = as_stored(weight)
    wide = to_bfloat16(weight)
    np.testing.assert_array_equal(winograd.conv3x3(x, stored, bias, **same), winograd.conv3x3(x, wide, bias, **same))


def test_an_odd_channel_keeps_winograd_float32():
    rng = np.random.default_rng(0)
    x, weight, bias = (rng.standard_normal(shape).astype(F32) for shape in ((1, 129, 32, 32), (128, 129, 3, 3), (128,)))
    same = {"stride": 1, "padding": (1, 1, 1, 1)}
    with primitive.mode("fast"):
        want = conv.conv2d(x, weight, bias, **same)
    np.testing.assert_array_equal(conv.conv2d(x, weight, bias, **same), want)
    even = conv.conv2d(x[:, :128], weight[:, :128], bias, **same)
    with primitive.mode("fast"):
        assert not np.array_equal(conv.conv2d(x[:, :128], weight[:, :128], bias, **same), even)


@st.composite
def attentions(draw):
    causal, heads = draw(st.booleans()), draw(st.integers(1, 3))
    batch, depth = draw(st.integers(1, 2)), draw(st.sampled_from([2, 8, 15, 40]))
    queries, keys = (draw(st.sampled_from([1, 5, 48, 77, KEYS - 1, KEYS, KEYS + 1, 2 * KEYS + 9])) for _ in range(2))
    rng, spread = np.random.default_rng(draw(st.integers(0, 2**20))), draw(st.sampled_from([0.1, 1.0, 10.0, 1e3]))
    q = spread * rng.standard_normal((batch, queries, heads * depth)).astype(F32)
    k, v = rng.standard_normal((2, batch, keys, heads * depth)).astype(F32)
    return (q, k, v), {"heads": heads, "scale": depth**-0.5, "causal": causal}


@given(attentions())
def test_attention_has_scaled_queries_keys_powers_and_values_rounded(call):
    """Up to the rounding of powers (2^-9 of each, and of their sums), and of scores that lie between two float32 numbers."""
    (q, k, v), constants = call
    depth = q.shape[2] // constants["heads"]
    got = attention.attention(q, k, v, **constants)
    factor = F32(constants["scale"] / np.log(2.0))
    if depth % 2:
        arrays, scale, bound = (q, k, v), constants["scale"], 0.0
    else:
        arrays, scale, bound = (to_bfloat16(q * factor), to_bfloat16(k), to_bfloat16(v)), np.log(2.0), 2.0**-8
    want = ops.attention.spec(*(a.astype(np.float64) for a in arrays), **{**constants, "scale": scale})
    scores = np.abs(q).max() * np.abs(k).max() * depth * constants["scale"]
    assert got.dtype == F32
    assert np.abs(got - want).max() <= (bound + 5e-6 + 4e-7 * scores) * np.abs(v).max()


@given(attentions())
def test_two_threads_give_the_bits_of_one_in_attention(call):
    arrays, constants = call
    assert_same_bits(lambda: attention.attention(*arrays, **constants), (1, 2))


def test_nan_stays_where_it_belongs_with_an_odd_number_of_keys():
    rng = np.random.default_rng(0)
    q, k, v = (rng.standard_normal((1, 301, 8)).astype(F32) for _ in range(3))
    q[0, 7], v[0, 0, 3] = np.nan, np.nan  # after the last key of feature 2 lies the first of feature 3
    got = attention.attention(q, k, v, heads=1, scale=1.0, causal=False)
    assert np.isnan(got[0, 7]).all() and np.isnan(got[0, :, 3]).all()
    assert np.isfinite(np.delete(np.delete(got[0], 7, axis=0), 3, axis=1)).all()


def test_it_is_asked_for_by_a_word_and_only_until_its_block_ends():
    x, weight = (np.full(shape, F32(1 + 2.0**-10)) for shape in ((1, 2), (1, 2)))
    with primitive.mode("fast"):
        with refdiff.use_kernels("fast", products="bfloat16"):
            assert linear.linear(x, weight, None) == 2
        assert linear.linear(x, weight, None) > 2


def test_a_processor_without_it_multiplies_float32(monkeypatch):
    monkeypatch.setattr(halves, "MULTIPLIES", False)
    assert linear.linear(np.full((1, 2), F32(1 + 2.0**-10)), np.ones((1, 2), F32), None) > 2


def test_gradients_stay_float32():
    rng = np.random.default_rng(0)
    x, weight, bias = (rng.standard_normal(s).astype(F32) for s in ((1, 8, 9, 9), (6, 8, 3, 3), (6,)))
    q, matrix = rng.standard_normal((1, 5, 8)).astype(F32), rng.standard_normal((4, 8)).astype(F32)
    strided, heads = {"stride": 2, "padding": (1, 1, 1, 1)}, {"heads": 2, "scale": 0.5, "causal": False}
    calls = (
        (conv.conv2d_vjp, (np.ones((1, 6, 5, 5), F32), None, x, weight, bias), strided),
        (linear.linear_vjp, (np.ones((1, 5, 4), F32), None, q, matrix, None), {}),
        (scores.attention_vjp, (q, q, q, q, q), heads),
    )
    for gradient, args, constants in calls:
        rounded = gradient(*args, **constants)
        with primitive.mode("fast"):
            for got, want in zip(rounded, gradient(*args, **constants), strict=True):
                np.testing.assert_array_equal(got, want)


def test_products_are_of_the_thread_that_asks_for_them():
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(primitive.products).result() == "float32"
    assert primitive.products() == "bfloat16"


@pytest.mark.parametrize(("mode", "kind"), [("fast", "float16"), ("spec", "bfloat16")])
def test_what_is_refused(mode, kind):
    with pytest.raises(BadRequest, match="bfloat16"), primitive.mode(mode, kind):
        pass
