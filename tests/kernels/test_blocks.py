"""Products of bfloat16 in blocks for a matrix unit: on a processor without one, the same blocks in registers."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refdiff import ops
from refdiff.core import primitive
from refdiff.golden.tolerance import to_bfloat16
from refdiff.kernels.cpu import amx, attention, attention_blocks, blocks, common, conv, halves, linear, product, turns
from refdiff.kernels.cpu.panels import COLUMNS, Weight
from tests.kernels.test_bfloat16 import as_stored, near
from tests.kernels.test_product import loop
from tests.kernels.threads import assert_same_bits
from tests.ops.arrays import relative_error

F32 = np.float32


@pytest.fixture(autouse=True)
def in_blocks(monkeypatch):
    monkeypatch.setattr(halves, "MULTIPLIES", True)
    monkeypatch.setattr(blocks, "MATRIX_UNIT", True)
    with primitive.mode("fast", "bfloat16"):
        yield


@st.composite
def calls(draw):
    """Arguments of a product whose rows lie anywhere, and overlap; (a, rows, starts, bias), weight as an array."""
    count, segments, depth = draw(st.integers(1, 200)), draw(st.integers(1, 4)), draw(st.sampled_from([32, 64, 288, 544]))
    columns, rng = draw(st.integers(1, 5 * COLUMNS)), np.random.default_rng(draw(st.integers(0, 2**20)))
    starts = rng.permutation(segments) * draw(st.sampled_from([1, depth]))
    a = rng.standard_normal(count * 3 + int(starts.max()) + depth).astype(F32)
    rows, bias = rng.integers(0, count * 3, count), rng.standard_normal(columns).astype(F32)
    return (a, rows, starts, bias), rng.standard_normal((columns, segments, depth)).astype(F32)


def flat(weight: np.ndarray) -> Weight:
    _, segments, depth = weight.shape
    return Weight(weight.reshape(-1), weight.shape, (segments * depth, depth, 1))


def made(call: tuple, **options: object) -> np.ndarray:
    (a, rows, starts, bias), weight = call
    return product.product(a, rows, starts, flat(weight), bias, **{"pictures": 1, "pairs": True, **options})


@given(calls())
def test_a_product_is_that_of_rounded_numbers(call):
    (a, rows, starts, bias), weight = call
    assert blocks.fits(weight.shape[2])
    got, want = made(call), loop(to_bfloat16(a), rows, starts, to_bfloat16(weight), bias)
    assert got.shape == want.shape and got.dtype == F32 and got.flags.c_contiguous
    assert near(got, want, weight[0].size)


@given(calls())
def test_any_number_of_threads_gives_the_same_bits(call):
    assert_same_bits(lambda: made(call), (1, 2, 3))


@given(calls(), st.data())
def test_a_row_has_the_same_bits_whatever_is_beside_it(call, data):
    (a, rows, starts, bias), weight = call
    some = data.draw(st.lists(st.integers(0, len(rows) - 1), min_size=1, max_size=40))
    np.testing.assert_array_equal(made(((a, rows[some], starts, bias), weight)), made(call)[some])


@pytest.mark.parametrize(("rows", "columns"), [(70, 12 * COLUMNS), (400, COLUMNS)])
def test_what_another_thread_has_taken_is_waited_for(rows, columns, monkeypatch):
    """The first block, or the first panel, counts as taken, and is not there until it is counted as done."""
    rng = np.random.default_rng(0)
    a, weight = rng.standard_normal(rows * 32).astype(F32), rng.standard_normal((columns, 1, 32)).astype(F32)
    args = a, np.arange(rows) * 32, np.zeros(1, np.int64), flat(weight), np.zeros(columns, F32)
    monkeypatch.setattr(common, "THREADS", 1)
    want, seen = blocks.product(*args, pairs=True), []

    def one_is_taken(count: int) -> np.ndarray:
        seen.append(turns.counters(count))
        seen[0][0, 0] = 1
        return seen[0]

    monkeypatch.setattr(blocks, "counters", one_is_taken)
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(blocks.product, *args, pairs=True)
        with pytest.raises(TimeoutError):
            running.result(timeout=0.5)
        seen[0][1, 0] += 1
        assert running.result(timeout=60).shape == want.shape


@pytest.mark.parametrize(("rows", "depth", "columns"), [(1, 32, 1), (70, 64, 45), (300, 544, 33), (20, 96, 700)])
def test_however_a_weight_is_stored(rows, depth, columns):
    rng = np.random.default_rng(0)
    x, weight = (rng.standard_normal(shape).astype(F32) for shape in ((rows, depth), (columns, depth)))
    want = to_bfloat16(x).astype(np.float64) @ to_bfloat16(weight).astype(np.float64).T
    got = linear.linear(x, weight, None)
    assert near(got, want, depth)
    np.testing.assert_array_equal(linear.linear(x, as_stored(weight), None), got)


@pytest.mark.parametrize(("shape", "many", "kernel", "stride"), [
    ((2, 32, 9, 7), 5, 3, 1), ((1, 64, 9, 7), 33, 3, 2), ((3, 32, 3, 3), 8, 1, 1), ((1, 96, 33, 18), 70, 3, 1),
])  # fmt: skip
def test_convolutions_are_direct(shape, many, kernel, stride):
    rng = np.random.default_rng(0)
    x, weight, bias = (rng.standard_normal(s).astype(F32) for s in (shape, (many, shape[1], kernel, kernel), (many,)))
    constants = {"stride": stride, "padding": (kernel // 2, 0, 0, kernel // 2)}
    rounded = (a.astype(np.float64) for a in (to_bfloat16(x), to_bfloat16(weight), bias))
    got = conv.conv2d(x, weight, bias, **constants)
    assert near(got, ops.conv2d.spec(*rounded, **constants), weight[0].size)
    np.testing.assert_array_equal(conv.conv2d(x, as_stored(weight), bias, **constants), got)


def test_large_pictures_have_the_error_of_the_direct_form():
    """2.3e-3, that of rounding both factors; in Winograd's form it is 1.1e-2 (docs/decisions/0008)."""
    rng = np.random.default_rng(0)
    x, weight, bias = (rng.standard_normal(shape).astype(F32) for shape in ((1, 256, 24, 24), (64, 256, 3, 3), (64,)))
    arrays = [a.astype(np.float64) for a in (x, weight, bias)]
    same = {"stride": 1, "padding": (1, 1, 1, 1)}
    assert relative_error(conv.conv2d(x, weight, bias, **same), ops.conv2d.spec(*arrays, **same)) < 3e-3
    assert relative_error(conv.upsample_conv2d(x, weight, bias), ops.upsample_conv2d.spec(*arrays)) < 3e-3


def test_what_is_not_finite_stays_in_its_row_and_its_column():
    rng = np.random.default_rng(0)
    x, weight = (rng.standard_normal(shape).astype(F32) for shape in ((70, 64), (80, 64)))
    x[3, 5], weight[40, 7] = np.nan, np.inf
    got = linear.linear(x, weight, None)
    assert np.isnan(got[3]).all() and not np.isfinite(got[:, 40]).any()
    assert np.isfinite(np.delete(np.delete(got, 3, axis=0), 40, axis=1)).all()


@pytest.mark.parametrize(
    "keys", [1, 31, 32, 33, attention_blocks.KEYS, attention_blocks.KEYS + 1, 3 * attention_blocks.KEYS - 31]
)
@pytest.mark.parametrize("causal", [False, True])
def test_attention_has_no_keys_beyond_the_last(keys, causal):
    rng = np.random.default_rng(keys)
    q, k, v = (rng.standard_normal((2, count, 3 * 40)).astype(F32) for count in (50, keys, keys))
    constants = {"heads": 3, "scale": 40**-0.5, "causal": causal}
    want = ops.attention.spec(*(a.astype(np.float64) for a in (q, k, v)), **constants)
    assert relative_error(attention.attention(q, k, v, **constants), want) < 6e-3
    assert_same_bits(lambda: attention.attention(q, k, v, **constants), (1, 2, 3))


def test_attention_with_scores_that_rise_far_above_earlier_ones():
    rng = np.random.default_rng(0)
    q, k, v = (rng.standard_normal((1, count, 32)).astype(F32) for count in (40, 700, 700))
    q[..., 1:], q[..., 0], k[..., 0] = 0, 1, 0
    k[:, 300:, 0], k[:, 600:, 0] = 64, 128
    want = ops.attention.spec(*(a.astype(np.float64) for a in (q, k, v)), heads=1, scale=1.0, causal=False)
    assert np.abs(attention.attention(q, k, v, heads=1, scale=1.0, causal=False) - want).max() < 2e-2


def test_a_step_is_whole_pairs_and_a_block_whole_steps():
    assert amx.STEP % 2 == attention_blocks.KEYS % amx.SIDE == attention_blocks.KEYS % amx.STEP == 0
    assert not blocks.fits(33) and blocks.fits(32)
